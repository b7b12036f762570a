/** How the votes of a view were counted: travels in INSTALL, so that all members count alike (hazard C8). */
import { WireError } from "../base/error.ts";
import { type Field, flag, list, maybe, oneOf, record, u16, u32, u8 } from "./field.ts";
import { viewId } from "./peer-field.ts";
import type { Counting, Electorate } from "./view-id.ts";

/** As order-datagram.ts `maxNodes`, which imports this file. */
const maxVoters = 31;

/** What decided: the number of votes, or one of the options of votequorum(5). */
export type QuorumRule = (typeof rules)[number];
const rules = [
  "votes",
  "two-node",
  "wait-for-all",
  "tie-won",
  "tie-lost",
  "old-votes",
  "old-voters",
  "tie-by-all",
  "other-proposal",
] as const;

export interface QuorumCount {
  readonly votes: number;
  readonly expected: number;
  readonly needed: number;
  readonly quorate: boolean;
  readonly rule: QuorumRule;
  /** The version of the configuration that the votes are of. */
  readonly configVersion: number;
  /** Whose votes count from this view on; null: all nodes'. */
  readonly electorate: Electorate | null;
}

/** By what a proposer has counted a quorum. */
export interface CountedBy extends Pick<QuorumCount, "configVersion" | "electorate"> {
  /** Those votes are proposed, and not decided as far as it knows. */
  readonly open: boolean;
}

const voters = list(u8, u16, maxVoters, "voters");
/** An Electorate with each node named once: STATE has to fit a frame, also where IP's fragments do not pass. */
interface ShortElectorate {
  /** Ascending. */
  readonly voters: readonly number[];
  /** Bit i stands for voter i. */
  readonly nodeids: number;
  readonly former: number | null;
}
const shortElectorate: Field<ShortElectorate> = record<ShortElectorate>(
  { voters, nodeids: u32, former: maybe(u32) },
  ({ voters: all, nodeids, former }) => {
    if (all.some((nodeid, at) => nodeid <= (all[at - 1] ?? 0))) throw new WireError(`voters ${all.join(" ")}: ascending nodeids expected`);
    const none = nodeids === 0 || former === 0;
    const named = 2 ** all.length - 1;
    if (none || (nodeids | (former ?? 0)) >>> 0 !== named) throw new WireError("nodes that count that are none, or not the voters named");
  },
);
const someElectorate: Field<Electorate> = {
  write: (w, { nodeids, former }) => {
    const all = [...new Set([...nodeids, ...(former ?? [])])].sort((a, b) => a - b);
    const bits = (of: readonly number[]): number => of.reduce((sum, nodeid) => sum + 2 ** all.indexOf(nodeid), 0);
    shortElectorate.write(w, { voters: all, nodeids: bits(nodeids), former: former === null ? null : bits(former) });
  },
  read: (r) => {
    const { voters: all, nodeids, former } = shortElectorate.read(r);
    const of = (bits: number): number[] => all.filter((_, at) => ((bits >>> at) & 1) === 1);
    return { nodeids: of(nodeids), former: former === null ? null : of(former) };
  },
};
export const electorate: Field<Electorate | null> = maybe(someElectorate);
/** Who counts, as of a view. */
export const counting: Field<Counting> = record({ id: viewId, electorate });

export const countedBy: Field<CountedBy> = record({ configVersion: u32, open: flag, electorate });
export const quorumCount: Field<QuorumCount> = record({
  votes: u16,
  expected: u16,
  needed: u16,
  quorate: flag,
  rule: oneOf(rules, "rule of quorum"),
  configVersion: u32,
  electorate,
});

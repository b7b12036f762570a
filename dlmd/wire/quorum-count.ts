/** How the votes of a view were counted: travels in INSTALL, so that all members count alike (hazard C8). */
import { WireError } from "../base/error.ts";
import { type Field, flag, list, maybe, oneOf, record, u16, u32, u8 } from "./field.ts";
import type { Electorate } from "./view-id.ts";

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

const someVoters = list(u8, u16, maxVoters, "voters");
const voters: Field<readonly number[]> = {
  write: someVoters.write,
  read: (r) => {
    const nodeids = someVoters.read(r);
    if (nodeids.length === 0 || nodeids.some((nodeid, at) => nodeid <= (nodeids[at - 1] ?? 0)))
      throw new WireError(`voters ${nodeids.join(" ")}: ascending nodeids expected`);
    return nodeids;
  },
};
export const electorate: Field<Electorate | null> = maybe(record<Electorate>({ nodeids: voters, former: maybe(voters) }));

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

/** How the votes of a view were counted: travels in INSTALL, so that all members count alike (hazard C8). */
import type { ByteReader, ByteWriter } from "../base/bytes.ts";
import { WireError } from "../base/error.ts";

/** What decided: the number of votes, or one of the options of votequorum(5). */
export type QuorumRule = (typeof rules)[number];
const rules = ["votes", "two-node", "wait-for-all", "tie-won", "tie-lost", "old-votes"] as const;

export interface QuorumCount {
  readonly votes: number;
  readonly expected: number;
  readonly needed: number;
  readonly quorate: boolean;
  readonly rule: QuorumRule;
  /** The version of the configuration that the votes are of. */
  readonly configVersion: number;
}

export function writeQuorum(w: ByteWriter, quorum: QuorumCount): void {
  w.u16(quorum.votes).u16(quorum.expected).u16(quorum.needed).bool(quorum.quorate);
  w.u8(rules.indexOf(quorum.rule)).u32(quorum.configVersion);
}

export function readQuorum(r: ByteReader): QuorumCount {
  const votes = r.u16();
  const expected = r.u16();
  const needed = r.u16();
  const quorate = r.bool();
  const rule = rules[r.u8()];
  if (rule === undefined) throw new WireError(`unknown rule of quorum at offset ${r.offset - 1}`);
  return { votes, expected, needed, quorate, rule, configVersion: r.u32() };
}

/** How the votes of a view were counted: travels in INSTALL, so that all members count alike (hazard C8). */
import type { ByteReader, ByteWriter } from "../base/bytes.ts";
import { WireError } from "../base/error.ts";
import type { Electorate } from "./view-id.ts";

/** As order-datagram.ts `maxNodes`, which imports this file. */
const maxVoters = 31;

/** What decided: the number of votes, or one of the options of votequorum(5). */
export type QuorumRule = (typeof rules)[number];
const rules = ["votes", "two-node", "wait-for-all", "tie-won", "tie-lost", "old-votes", "old-voters"] as const;

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

function writeNodeids(w: ByteWriter, nodeids: readonly number[]): void {
  w.u8(nodeids.length);
  for (const nodeid of nodeids) w.u16(nodeid);
}

function readNodeids(r: ByteReader): number[] {
  const count = r.u8();
  if (count === 0 || count > maxVoters) throw new WireError(`${count} voters at offset ${r.offset - 1}: 1 to ${maxVoters} expected`);
  const nodeids: number[] = [];
  for (let last = 0; nodeids.length < count; ) {
    const nodeid = r.u16();
    if (nodeid <= last) throw new WireError(`voter ${nodeid} at offset ${r.offset - 2}: ascending nodeids expected`);
    last = nodeid;
    nodeids.push(nodeid);
  }
  return nodeids;
}

export function writeElectorate(w: ByteWriter, electorate: Electorate | null): void {
  w.u8(electorate === null ? 0 : electorate.former === null ? 1 : 2);
  if (electorate === null) return;
  writeNodeids(w, electorate.nodeids);
  if (electorate.former !== null) writeNodeids(w, electorate.former);
}

export function readElectorate(r: ByteReader): Electorate | null {
  const lists = r.u8();
  if (lists > 2) throw new WireError(`${lists} lists of voters at offset ${r.offset - 1}: at most 2 expected`);
  return lists === 0 ? null : { nodeids: readNodeids(r), former: lists === 2 ? readNodeids(r) : null };
}

export function writeQuorum(w: ByteWriter, quorum: QuorumCount): void {
  w.u16(quorum.votes).u16(quorum.expected).u16(quorum.needed).bool(quorum.quorate);
  w.u8(rules.indexOf(quorum.rule)).u32(quorum.configVersion);
  writeElectorate(w, quorum.electorate);
}

export function readQuorum(r: ByteReader): QuorumCount {
  const votes = r.u16();
  const expected = r.u16();
  const needed = r.u16();
  const quorate = r.bool();
  const rule = rules[r.u8()];
  if (rule === undefined) throw new WireError(`unknown rule of quorum at offset ${r.offset - 1}`);
  return { votes, expected, needed, quorate, rule, configVersion: r.u32(), electorate: readElectorate(r) };
}

/** Groups on the local socket (local.ts): what programs ask and what they are told, as types and codec. */
import { ByteReader, type ByteWriter } from "../base/bytes.ts";
import { WireError } from "../base/error.ts";
import { type CommandResult, type GroupMember, type LeaveReason, maxGroupNameBytes, maxMessageBytes } from "../engine/engine.ts";
import { readIncarnation, writeIncarnation } from "./view-id.ts";

/** In front of every message of a program: its number, u48, and how many more follow it in one, u16. */
export const sequenceBytes = 8;
/** In front of each of several. */
export const batchHeadBytes = 4;
const REASON_BYTES = 1024;
const MAX_MEMBERS = 8192;

/** Request ids are the client's, u32, unique while in use. Each is answered by one "group-result". */
export type GroupClientRequest =
  | { readonly kind: "group-join"; readonly requestId: number; readonly group: string }
  | { readonly kind: "group-leave"; readonly requestId: number; readonly group: string }
  /** `count` above 1: so many messages, each after its length as a u32. */
  | {
      readonly kind: "group-send";
      readonly requestId: number;
      readonly group: string;
      readonly count: number;
      readonly data: Uint8Array;
    };

export type GroupEvent =
  /** "accepted": it takes effect where it is ordered. */
  | { readonly kind: "group-result"; readonly requestId: number; readonly result: GroupResult }
  /** The first one of a group has this client in `joined`, the last one in `left`. */
  | {
      readonly kind: "group-members";
      readonly group: string;
      readonly members: readonly GroupMember[];
      readonly joined: readonly GroupMember[];
      readonly left: readonly { readonly member: GroupMember; readonly reason: LeaveReason }[];
    }
  /** seq: of the first one, counted by its sender since it joined, from 1. count, data: as in "group-send". */
  | {
      readonly kind: "group-message";
      readonly group: string;
      readonly from: GroupMember;
      readonly seq: number;
      readonly count: number;
      readonly data: Uint8Array;
    }
  /** The client is not in it any more, and hears nothing of it; it did not ask for that. */
  | { readonly kind: "group-ended"; readonly group: string; readonly reason: string };

/** What waits is not "full": it is accepted later. */
export type GroupResult = Exclude<CommandResult, "full">;
const results: readonly GroupResult[] = ["accepted", "not-joined", "joined-already", "too-large", "bad-name", "limit"];
const reasons: readonly LeaveReason[] = ["left", "client-died", "node-gone"];

const JOIN = 24;
const LEAVE = 25;
const SEND = 26;
const RESULT = 152;
const MEMBERS = 153;
const MESSAGE = 154;
const ENDED = 155;

export function encodeGroupRequest(w: ByteWriter, m: GroupClientRequest): void {
  const kind = m.kind === "group-join" ? JOIN : m.kind === "group-leave" ? LEAVE : SEND;
  w.u8(kind).u32(m.requestId).string(m.group);
  if (m.kind === "group-send") w.u16(m.count - 1).block(m.data);
}

/** The messages of "group-send" or "group-message" one by one, as views. Throws WireError. */
export function readBatch(count: number, data: Uint8Array, each: (message: Uint8Array) => void): void {
  if (count === 1) return each(data);
  const r = new ByteReader(data);
  for (let left = count; left > 0; left--) each(r.bytes(r.u32()));
  r.end();
}

function checkBatch(count: number, data: Uint8Array): void {
  if (count === 1) return;
  const r = new ByteReader(data);
  for (let left = count; left > 0; left--) r.skip(r.u32());
  r.end();
}

/** In front of what a program sends. */
export function writeSequence(w: ByteWriter, seq: number, count: number): ByteWriter {
  return w
    .u32(seq % 0x1_0000_0000)
    .u16(Math.floor(seq / 0x1_0000_0000))
    .u16(count - 1);
}

export function readSequence(data: Uint8Array): { seq: number; count: number } {
  const r = new ByteReader(data);
  return { seq: r.u32() + r.u16() * 0x1_0000_0000, count: r.u16() + 1 };
}

/** The kind is read already; null: none of these. Throws WireError. */
export function readGroupRequest(kind: number, r: ByteReader): GroupClientRequest | null {
  if (kind !== JOIN && kind !== LEAVE && kind !== SEND) return null;
  const named = { requestId: r.u32(), group: r.string(maxGroupNameBytes) };
  if (kind === JOIN) return { kind: "group-join", ...named };
  if (kind === LEAVE) return { kind: "group-leave", ...named };
  const count = r.u16() + 1;
  // A copy, because it is kept. One byte beyond the limit is let in, so that the engine can say "too-large".
  const data = new Uint8Array(r.block(maxMessageBytes + 1));
  checkBatch(count, data);
  return { kind: "group-send", ...named, count, data };
}

function writeMember(w: ByteWriter, { nodeid, incarnation, clientId }: GroupMember): ByteWriter {
  return writeIncarnation(w.u16(nodeid), incarnation).u32(clientId);
}

function readMember(r: ByteReader): GroupMember {
  return { nodeid: r.u16(), incarnation: readIncarnation(r), clientId: r.u32() };
}

function writeMembers(w: ByteWriter, members: readonly GroupMember[]): void {
  w.u32(members.length);
  for (const member of members) writeMember(w, member);
}

function readList<T>(r: ByteReader, row: () => T): T[] {
  const rows = r.u32();
  if (rows > MAX_MEMBERS) throw new WireError(`${rows} members of a group, at most ${MAX_MEMBERS} expected`);
  const list: T[] = [];
  for (let at = 0; at < rows; at++) list.push(row());
  return list;
}

function readOne<T>(r: ByteReader, values: readonly T[], what: string): T {
  const value = values[r.u8()];
  if (value === undefined) throw new WireError(`unknown ${what} of a group at offset ${r.offset - 1}`);
  return value;
}

export function encodeGroupEvent(w: ByteWriter, m: GroupEvent): void {
  switch (m.kind) {
    case "group-result":
      w.u8(RESULT).u32(m.requestId).u8(results.indexOf(m.result));
      return;
    case "group-members":
      writeMembers(w.u8(MEMBERS).string(m.group), m.members);
      writeMembers(w, m.joined);
      w.u32(m.left.length);
      for (const { member, reason } of m.left) writeMember(w, member).u8(reasons.indexOf(reason));
      return;
    case "group-message":
      writeMember(w.u8(MESSAGE).string(m.group), m.from)
        .u64(m.seq)
        .u16(m.count - 1)
        .block(m.data);
      return;
    case "group-ended":
      w.u8(ENDED).string(m.group).string(m.reason);
      return;
  }
}

/** The kind is read already; null: none of these. Throws WireError. `data` is a view: who keeps it copies it. */
export function readGroupEvent(kind: number, r: ByteReader): GroupEvent | null {
  switch (kind) {
    case RESULT:
      return { kind: "group-result", requestId: r.u32(), result: readOne(r, results, "result") };
    case MEMBERS: {
      const group = r.string(maxGroupNameBytes);
      const members = readList(r, () => readMember(r));
      const joined = readList(r, () => readMember(r));
      return { kind: "group-members", group, members, joined, left: readList(r, () => readLeft(r)) };
    }
    case MESSAGE: {
      const group = r.string(maxGroupNameBytes);
      return { kind: "group-message", group, from: readMember(r), seq: r.u64(), count: r.u16() + 1, data: r.block(maxMessageBytes) };
    }
    case ENDED:
      return { kind: "group-ended", group: r.string(maxGroupNameBytes), reason: r.string(REASON_BYTES) };
    default:
      return null;
  }
}

function readLeft(r: ByteReader): { member: GroupMember; reason: LeaveReason } {
  return { member: readMember(r), reason: readOne(r, reasons, "reason to leave") };
}

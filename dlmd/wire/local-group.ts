/** Groups on the local socket (local.ts): what programs ask and what they are told, as types and codec. */
import type { ByteReader, ByteWriter } from "../base/bytes.ts";
import { WireError } from "../base/error.ts";
import { type CommandResult, type GroupMember, type LeaveReason, maxGroupNameBytes, maxMessageBytes } from "../engine/engine.ts";
import { readIncarnation, writeIncarnation } from "./view-id.ts";

/** In front of every message of a program: its number. */
export const sequenceBytes = 8;
const REASON_BYTES = 1024;
const MAX_MEMBERS = 8192;

/** Request ids are the client's, u32, unique while in use. Each is answered by one "group-result". */
export type GroupClientRequest =
  | { readonly kind: "group-join"; readonly requestId: number; readonly group: string }
  | { readonly kind: "group-leave"; readonly requestId: number; readonly group: string }
  | { readonly kind: "group-send"; readonly requestId: number; readonly group: string; readonly data: Uint8Array };

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
  /** seq: counted by its sender since it joined, from 1. */
  | {
      readonly kind: "group-message";
      readonly group: string;
      readonly from: GroupMember;
      readonly seq: number;
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
  if (m.kind === "group-send") w.block(m.data);
}

/** The kind is read already; null: none of these. Throws WireError. */
export function readGroupRequest(kind: number, r: ByteReader): GroupClientRequest | null {
  if (kind !== JOIN && kind !== LEAVE && kind !== SEND) return null;
  const named = { requestId: r.u32(), group: r.string(maxGroupNameBytes) };
  if (kind === JOIN) return { kind: "group-join", ...named };
  if (kind === LEAVE) return { kind: "group-leave", ...named };
  // A copy, because it is kept, and of a Buffer slice makes none. One byte beyond the limit is let in, so that the engine can say "too-large".
  return { kind: "group-send", ...named, data: Uint8Array.from(r.block(maxMessageBytes + 1)) };
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
      writeMember(w.u8(MESSAGE).string(m.group), m.from).u64(m.seq).block(m.data);
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
      return { kind: "group-message", group, from: readMember(r), seq: r.u64(), data: r.block(maxMessageBytes) };
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

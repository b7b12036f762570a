/** Groups on the local socket (local.ts): what programs ask and what they are told, as types and codec. */
import { ByteReader, type ByteWriter } from "../base/bytes.ts";
import { block, copy, type Field, list, oneOf, record, type Rows, row, text, u16, u32, u64 } from "./field.ts";
import { type CommandResult, type GroupMember, type LeaveReason, maxGroupNameBytes, maxMessageBytes } from "./group.ts";
import { incarnation } from "./peer-field.ts";

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
    }
  /** Of a client that is kept for this one (hazard C12): one more message in its name, and then it leaves in good order. */
  | {
      readonly kind: "group-farewell";
      readonly requestId: number;
      readonly clientId: number;
      readonly group: string;
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

/** What waits is not "full": it is accepted later. "not-kept": to "group-farewell". */
export type GroupResult = Exclude<CommandResult, "full"> | "not-kept";
const results: readonly GroupResult[] = ["accepted", "not-joined", "joined-already", "too-large", "bad-name", "limit", "not-kept"];
const reasons: readonly LeaveReason[] = ["left", "client-died", "node-gone"];

/** The messages of "group-send" or "group-message" one by one, as views. Throws WireError. */
export function readBatch(count: number, data: Uint8Array, each: (message: Uint8Array) => void): void {
  if (count === 1) return each(data);
  const r = new ByteReader(data);
  for (let left = count; left > 0; left--) each(r.bytes(r.u32()));
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

const group = text(maxGroupNameBytes);
/** 1 and up. */
const count: Field<number> = { write: (w, value) => w.u16(value - 1), read: (r) => r.u16() + 1 };
// One byte beyond the limit is let in, so that the engine can say "too-large".
const sent = copy(maxMessageBytes + 1);
const member: Field<GroupMember> = record({ nodeid: u16, incarnation, clientId: u32 });
const members = list(u32, member, MAX_MEMBERS, "members of a group");
const left = list(
  u32,
  record<Extract<GroupEvent, { kind: "group-members" }>["left"][number]>({ member, reason: oneOf(reasons, "reason to leave a group") }),
  MAX_MEMBERS,
  "members of a group",
);

export const groupRequestRows: Rows<GroupClientRequest> = {
  "group-join": row("group-join", 24, { requestId: u32, group }),
  "group-leave": row("group-leave", 25, { requestId: u32, group }),
  "group-send": row("group-send", 26, { requestId: u32, group, count, data: sent }, ({ count, data }) => readBatch(count, data, () => {})),
  "group-farewell": row("group-farewell", 27, { requestId: u32, clientId: u32, group, data: sent }),
};

/** `data` is a view: who keeps it copies it. */
export const groupEventRows: Rows<GroupEvent> = {
  "group-result": row("group-result", 152, { requestId: u32, result: oneOf(results, "result of a group") }),
  "group-members": row("group-members", 153, { group, members, joined: members, left }),
  "group-message": row("group-message", 154, { group, from: member, seq: u64, count, data: block(maxMessageBytes) }),
  "group-ended": row("group-ended", 155, { group, reason: text(REASON_BYTES) }),
};

/**
 * What dlmds say to each other in their one group of CPG (README.md): who they are, that they know the next view, that one is wanted, and
 * packets of ordered messages. Which process says it, corosync says.
 */
import { ByteWriter } from "../../base/bytes.ts";
import { WireError } from "../../base/error.ts";
import { type Field, flag, list, type Row, type Rows, record, row, rowsByType, text, u16, u32, u64, u8, block } from "../../wire/field.ts";
import { readHeaded, writeHead } from "../../wire/message-head.ts";
import { maxNodes, maxPacketBytes, members } from "../../wire/order-datagram.ts";
import { epoch, incarnation, nodeid, viewId } from "../../wire/peer-field.ts";
import type { Lineage, ViewId } from "../../wire/view-id.ts";
import { electorate } from "../../wire/quorum-count.ts";

/** Names a ring of totem: the lowest node of it, and a number. */
export interface RingId {
  readonly nodeid: number;
  readonly seq: number;
}

/** A process in the group. A dlmd that begins anew has the same one again. */
export interface Seat {
  readonly nodeid: number;
  readonly pid: number;
}

/** Which exchange of states: the same at all processes that see the group's events in one order. */
export interface RoundTag {
  readonly ring: RingId;
  readonly seats: readonly Seat[];
  /** How many were asked for since the ring and the seats are these. */
  readonly count: number;
}

/** What the next view is worked out from, by all alike. */
export interface StateMessage {
  readonly kind: "state";
  readonly tag: RoundTag;
  readonly incarnation: string;
  /** Higher than any that the sender has said or heard of: so no two views have one name (hazard H4). */
  readonly epoch: number;
  /** The last quorate view of this life; noView: it holds no state. */
  readonly lived: ViewId;
  /** The last quorate view of any of its lives. */
  readonly seen: Lineage;
  /** Packets delivered in `lived`, and what they were. */
  readonly packets: number;
  readonly digest: number;
  /** It knows the table of groups. */
  readonly synced: boolean;
  /** Its votequorum says so of this ring. */
  readonly quorate: boolean;
  readonly configVersion: number;
  /** Its own, and those of all nodes, by its cluster.yaml: processes with other versions work out the same from them. */
  readonly votes: number;
  readonly expected: number;
  /** With whom it cannot be in a view: not heard, or no connection. */
  readonly cutOff: readonly number[];
  /** For each node that may serve under its lease: ms since this node may have acknowledged it (hazard C4). */
  readonly ackedAgo: readonly { readonly nodeid: number; readonly ms: number }[];
}

/** The sender knows that view's epoch, on disk: it makes no other one with it, nor with a lower one. */
export interface ReadyMessage {
  readonly kind: "ready";
  readonly view: ViewId;
}

/** The states are exchanged again, without those processes. */
export interface AgainMessage {
  readonly kind: "again";
  readonly tag: RoundTag;
  readonly without: readonly Seat[];
  readonly why: string;
}

/** A packet of ordered messages; dropped in any other view. */
export interface PacketMessage {
  readonly kind: "packet";
  readonly view: ViewId;
  /** Counts the sender's packets of that view: 1 and up. */
  readonly n: number;
  readonly body: Uint8Array;
}

/** The sender stopped for good and holds nothing. */
export interface LeaveMessage {
  readonly kind: "leave";
  readonly incarnation: string;
}

export type GroupMessage = StateMessage | ReadyMessage | AgainMessage | PacketMessage | LeaveMessage;

export const groupMessageVersion = 2;
const maxWhyBytes = 200;
/** Processes of one node, one that ends and one that begins, may be there for a moment. */
const maxSeats = 2 * maxNodes;

const seat = record<Seat>({ nodeid: u32, pid: u32 });
const seats = list(u8, seat, maxSeats, "processes");
const tag = record<RoundTag>({ ring: record<RingId>({ nodeid: u32, seq: u64 }), seats, count: u32 });
const lineage: Field<Lineage> = record({ id: viewId, members, electorate });
/** A duration: a lying one could start service too early or never. */
const ms: Field<number> = {
  write: (w, value) => w.f64(value),
  read: (r) => {
    const value = r.f64();
    if (!(value >= 0 && value <= 1e12)) throw new WireError(`duration ${value} ms at offset ${r.offset - 8}: 0 to 1e12 expected`);
    return value;
  },
};

const table: Rows<GroupMessage> = {
  state: row("state", 1, {
    tag,
    incarnation,
    epoch,
    lived: viewId,
    seen: lineage,
    packets: u64,
    digest: u32,
    synced: flag,
    quorate: flag,
    configVersion: u32,
    votes: u8,
    expected: u16,
    cutOff: list(u8, nodeid, maxNodes, "nodes"),
    ackedAgo: list(u8, record<StateMessage["ackedAgo"][number]>({ nodeid, ms }), maxNodes, "nodes acked"),
  }),
  ready: row("ready", 2, { view: viewId }),
  again: row("again", 3, { tag, without: seats, why: text(maxWhyBytes) }),
  packet: row("packet", 4, { view: viewId, n: u64, body: block(maxPacketBytes) }),
  leave: row("leave", 5, { incarnation }),
};
const byType = rowsByType(table);
const head = { what: "message", magic: 0x43, version: groupMessageVersion } as const;

export function encodeGroupMessage(message: GroupMessage): Uint8Array {
  const each = table[message.kind] as Row<GroupMessage>;
  const w = new ByteWriter(128, 65_536);
  writeHead(w, head, each.type);
  each.write(w, message);
  return w.copy();
}

/** Throws WireError for anything that is not exactly one message of this version. */
export function decodeGroupMessage(bytes: Uint8Array): GroupMessage {
  return readHeaded(bytes, head, byType);
}

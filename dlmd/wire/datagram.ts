/**
 * Membership's datagrams: one type and one codec row each. Little-endian; header: magic "cD", version, type, sender's
 * nodeid and incarnation. Authenticity (cluster key, replay protection) is the driver's business, around these bytes.
 * The protocol: corosync totemsrp.c for the shape, hazards H4 (names of views), H13, H14 and C4 for what is carried.
 */
import { ByteWriter } from "../base/bytes.ts";
import { WireError } from "../base/error.ts";
import { type Field, flag, list, maybe, record, type Row, type Rows, row, rowsByType, u32, u8 } from "./field.ts";
import { readHeaded, writeHead } from "./message-head.ts";
import {
  maxNodes,
  members,
  type OrderDatagram,
  type OrderStart,
  type OrderState,
  orderRows,
  orderStart,
  orderState,
  sender,
} from "./order-datagram.ts";
import { epoch, incarnation, nodeid, viewId } from "./peer-field.ts";
import { counting, type QuorumCount, quorumCount } from "./quorum-count.ts";
import type { Counting, Lineage, Member, ViewId } from "./view-id.ts";

export const datagramVersion = 6;
/** What a heartbeat is padded to now and then: the largest datagram that must get through (hazard H13). None is longer, however many nodes there are. */
export const largestHeartbeatBytes = 1380;

interface Sender {
  readonly from: number;
  readonly incarnation: string;
}

/** A node that the sender heard within the time-out (hazard H14), and the last heartbeat of it: the ack of hazard C4. */
export interface Heard {
  readonly nodeid: number;
  readonly incarnation: string;
  /** 0: heard, but the sender acks nothing. */
  readonly seq: number;
  /** The TCP connection to it is up (hazard H13). */
  readonly tcpUp: boolean;
}

/** What a node says of itself. */
export interface NodeState {
  /** Installed view; noView before the first. */
  readonly view: ViewId;
  readonly promisedEpoch: number;
  /** The latest quorate view whose lock service this node may have seen running; noView: it holds no state. */
  readonly lineage: ViewId;
  readonly configVersion: number;
  /** Lock service running. */
  readonly running: boolean;
  /** Promised a later view than `view`: acks nothing, serves nothing. */
  readonly stopped: boolean;
  /** Frames between members of `view` were lost: a new view is needed to rebuild. */
  readonly broken: boolean;
  /** What a restart must know of `view` is on disk. */
  readonly stored: boolean;
  /** It stops as soon as the others need its vote no more. */
  readonly leaving: boolean;
}

/** Sent to all every tenth of the time-out, and at once after an installation. */
export interface Heartbeat extends Sender, NodeState {
  readonly kind: "heartbeat";
  /** Counts up from 1 in an incarnation; never wraps in its life. */
  readonly seq: number;
  /** Steps of the main loop (hazard H13); modulo 2^32. */
  readonly progress: number;
  /** Zero bytes after the rest, so that a path which carries small datagrams only is found out (hazard H13). */
  readonly padding: number;
  readonly heard: readonly Heard[];
}

/** "Promise this view": repeated until answered or given up. */
export interface Propose extends Sender {
  readonly kind: "propose";
  readonly view: ViewId;
  readonly members: readonly Member[];
}

/** The promise, once stored, and what the proposer must know. */
export interface StateAnswer extends Sender {
  readonly kind: "state";
  readonly view: ViewId;
  readonly configVersion: number;
  /** That is not only of a file: `counting` is no older than it (hazard C8). */
  readonly agreed: boolean;
  /** As in heartbeats. */
  readonly lineage: ViewId;
  /** The latest quorate view that this node was in, in any of its lives. */
  readonly seen: Omit<Lineage, "electorate">;
  /** Of that view, or of a later one of which it was told with its votes (hazard C8). */
  readonly counting: Counting;
  /**
   * For each configured node that is not proposed and did not leave cleanly: ms since this node last acked it, or could have in a
   * former incarnation.
   */
  readonly ackedAgo: readonly { readonly nodeid: number; readonly ms: number }[];
  /** What it has of the ordered channel. */
  readonly order: OrderState;
}

/** Repeated until every member's heartbeat shows the view. */
export interface Install extends Sender {
  readonly kind: "install";
  readonly view: ViewId;
  readonly members: readonly Member[];
  /** Before lock service may start: until then a node outside the view may still serve under its lease (hazard C4). */
  readonly waitMs: number;
  /** Counted by the proposer, whose configuration is the latest of all members (hazard C8). */
  readonly quorum: QuorumCount;
  /** null: not quorate, and the ordered channel stands still. */
  readonly start: OrderStart | null;
}

/** The sender stopped for good and holds nothing. Repeated until a view without it is seen. */
export interface Leave extends Sender {
  readonly kind: "leave";
  readonly view: ViewId;
  /** Every member of that view has on disk who counts from it on. */
  readonly kept: boolean;
}

/** "The cluster went on without you": that incarnation must drop its state. */
export interface Evict extends Sender {
  readonly kind: "evict";
  readonly nodeid: number;
  readonly targetIncarnation: string;
  /** A quorate view that ran, later than the target's lineage and without it. */
  readonly lineage: ViewId;
}

export type Datagram = Heartbeat | Propose | StateAnswer | Install | Leave | Evict | OrderDatagram;

/** A duration: finite, not negative; a lying one could start service too early or never. */
const ms: Field<number> = {
  write: (w, value) => w.f64(value),
  read: (r) => {
    const value = r.f64();
    if (!(value >= 0 && value <= 1e12)) throw new WireError(`duration ${value} ms at offset ${r.offset - 8}: 0 to 1e12 expected`);
    return value;
  },
};
/** Whole and in 3 bytes. Less than it is keeps others waiting for longer, and after these 4.6 hours nobody waits any more. */
const agoMs: Field<number> = {
  write: (w, value) => {
    const whole = Math.min(2 ** 24 - 1, Math.floor(value));
    w.u16(whole % 2 ** 16).u8(Math.floor(whole / 2 ** 16));
  },
  read: (r) => r.u16() + r.u8() * 2 ** 16,
};
/** So many zero bytes after their number. */
const padding: Field<number> = {
  write: (w, bytes) => w.u16(bytes).bytes(new Uint8Array(bytes)),
  read: (r) => {
    const bytes = r.u16();
    r.skip(bytes);
    return bytes;
  },
};
const heard = list(u8, record<Heard>({ nodeid, incarnation, seq: u32, tcpUp: flag }), maxNodes, "nodes heard");
const ackedAgo = list(u8, record<StateAnswer["ackedAgo"][number]>({ nodeid, ms: agoMs }), maxNodes, "nodes acked");
const seen: Field<StateAnswer["seen"]> = record({ id: viewId, members });

const table: Rows<Datagram> = {
  heartbeat: row("heartbeat", 1, {
    ...sender,
    seq: u32,
    view: viewId,
    promisedEpoch: epoch,
    lineage: viewId,
    configVersion: u32,
    running: flag,
    stopped: flag,
    broken: flag,
    stored: flag,
    leaving: flag,
    progress: u32,
    heard,
    padding,
  }),
  propose: row("propose", 2, { ...sender, view: viewId, members }),
  state: row("state", 3, {
    ...sender,
    view: viewId,
    configVersion: u32,
    agreed: flag,
    lineage: viewId,
    seen,
    counting,
    ackedAgo,
    order: orderState,
  }),
  install: row("install", 4, { ...sender, view: viewId, members, waitMs: ms, quorum: quorumCount, start: maybe(orderStart) }, (m) => {
    if (m.quorum.quorate !== (m.start !== null)) throw new WireError("a view starts an ordered channel if it is quorate");
  }),
  leave: row("leave", 5, { ...sender, view: viewId, kept: flag }),
  ...orderRows,
  evict: row("evict", 6, { ...sender, nodeid, targetIncarnation: incarnation, lineage: viewId }),
};

const byType = rowsByType(table);
const head = { what: "datagram", magic: 0x44, version: datagramVersion } as const;

/** Room for all but the body of a packet: so the bytes of one need not be moved. */
const packetHeadBytes = 96;

/** The bytes of one message, of their own. */
export function encodeDatagram(message: Datagram): Uint8Array {
  const row = table[message.kind] as Row<Datagram>;
  const bytes = "body" in message ? packetHeadBytes + message.body.byteLength : 256;
  const w = new ByteWriter(bytes, 65_507);
  writeHead(w, head, row.type);
  row.write(w, message);
  return w.view();
}

/** Throws WireError for anything that is not exactly one datagram of this version. */
export function decodeDatagram(bytes: Uint8Array): Datagram {
  return readHeaded(bytes, head, byType);
}

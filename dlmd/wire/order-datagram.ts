/**
 * Datagrams of the ordered channel (engine/builtin): what a sender submits, what the sequencer ordered, who lacks what, and the flush of a
 * view change. The protocol: a fixed sequencer as in Amoeba (Kaashoek and Tanenbaum, "Group communication in the Amoeba distributed
 * operating system", 1991), with the recovery of Totem (Amir et al., 1995) reduced to one old view. Rows for the table of datagram.ts.
 */
import { AssertionError } from "../base/assert.ts";
import { WireError } from "../base/error.ts";
import { block, type Field, type Fields, flag, list, maybe, record, type Rows, row, u32, u64, u8 } from "./field.ts";
import { incarnation, member, nodeid, viewId } from "./peer-field.ts";
import { type CountedBy, countedBy, type QuorumCount, quorumCount } from "./quorum-count.ts";
import type { Member, ViewId } from "./view-id.ts";

/** Members of a view and nodes of a configuration, at most; more in a message is refused. */
export const maxNodes = 31;
/** Bytes of one packet: with every header around it, a datagram that an Ethernet frame carries whole. */
export const maxPacketBytes = 1300;
/** Packets ordered and not yet received by all, at most: what a flush may have to fetch. */
export const orderWindow = 256;
/** Ranges that one NACK or FLUSH names; the rest is asked for later. */
export const maxRanges = 32;

/** Packets that a sender or a view has, at most: their number has 6 bytes where there are many. */
const maxPacketNumber: number = 2 ** 48 - 1;

interface Sender {
  readonly from: number;
  readonly incarnation: string;
}

export interface Range {
  readonly from: number;
  /** Inclusive. */
  readonly to: number;
}

/** To the sequencer: packet `n` of this sender's life. */
export interface Submit extends Sender {
  readonly kind: "submit";
  readonly view: ViewId;
  readonly n: number;
  /** Everything up to that sequence number has arrived here. */
  readonly received: number;
  readonly body: Uint8Array;
}

/** Packet `seq` of that view: from the sequencer to all, or from any holder to one that lacks it. */
export interface Ordered extends Sender {
  readonly kind: "ordered";
  readonly view: ViewId;
  readonly seq: number;
  /** The nodeid of the member that submitted it, as its packet `n`. */
  readonly origin: number;
  readonly n: number;
  /** Everything up to that sequence number has arrived everywhere. */
  readonly stable: number;
  readonly body: Uint8Array;
}

/** "I lack these sequence numbers." */
export interface Nack extends Sender {
  readonly kind: "nack";
  readonly view: ViewId;
  readonly ranges: readonly Range[];
}

/** From the sequencer: "submit these again". */
export interface Ask extends Sender {
  readonly kind: "ask";
  readonly view: ViewId;
  readonly range: Range;
}

/** How far the sender is; from the sequencer also how far everybody can be. */
export interface OrderStatus extends Sender {
  readonly kind: "order-status";
  readonly view: ViewId;
  readonly received: number;
  readonly highest: number;
  readonly stable: number;
}

/** In STATE: what a node has of the ordered channel of the last quorate view that it was in. */
export interface OrderState {
  /** null: it was in none. */
  readonly started: StartedView | null;
  readonly received: number;
  /** Sequence numbers beyond `received` that it has: bit i of the bytes stands for received + 1 + i. At most orderWindow bits. */
  readonly held: Uint8Array;
}

/** What the ordered channel of a quorate view starts from; in INSTALL. */
export interface OrderStart {
  /** The view whose channel ended with it; noView: none. */
  readonly previous: ViewId;
  /** The last sequence number delivered in `previous`. */
  readonly cut: number;
  /** Members that come from `previous`, and whether they know the groups. */
  readonly together: readonly { readonly nodeid: number; readonly synced: boolean }[];
  /** Each sender's last packet delivered (hazard M3). Not listed: none. */
  readonly lasts: readonly Last[];
}

export interface Last {
  readonly nodeid: number;
  readonly incarnation: string;
  readonly n: number;
}

/** A quorate view with its start, for a member that promised it and did not hear of its installation. */
export interface StartedView {
  readonly id: ViewId;
  readonly members: readonly Member[];
  readonly quorum: QuorumCount;
  readonly start: OrderStart;
}

/** From the proposer, when all STATEs are in and it has counted a quorum: "have everything up to the cut, then say FLUSHED". */
export interface Flush extends Sender {
  readonly kind: "flush";
  readonly view: ViewId;
  /** The last quorate view that any member was in; null: none was in any. */
  readonly last: StartedView | null;
  readonly cut: number;
  readonly sources: readonly (Range & { readonly nodeid: number })[];
  readonly counted: CountedBy;
}

export interface Flushed extends Sender {
  readonly kind: "flushed";
  readonly view: ViewId;
  /** It comes from `last` of the flush. */
  readonly together: boolean;
  readonly synced: boolean;
  readonly lasts: readonly Last[];
  /** By the votes that it has stored no others can be a quorum (hazard C8). */
  readonly agrees: boolean;
}

export type OrderDatagram = Submit | Ordered | Nack | Ask | OrderStatus | Flush | Flushed;

/** First in each datagram. */
export const sender: Fields<Sender> = { from: nodeid, incarnation };
export const members: Field<readonly Member[]> = list(u8, member, maxNodes, "members");

/** Such numbers count packets: 1 and up; a range is not empty and no longer than the window. */
const range: Field<Range> = {
  write: (w, { from, to }) => {
    if (to < from || to - from >= 4 * orderWindow) throw new AssertionError(`range ${from} to ${to} to write`);
    w.u64(from).u16(to - from);
  },
  read: (r) => {
    const from = r.u64();
    const to = from + r.u16();
    if (from === 0 || to - from >= 4 * orderWindow) throw new WireError(`range ${from} to ${to} at offset ${r.offset}`);
    return { from, to };
  },
};
const source: Field<Flush["sources"][number]> = {
  write: (w, each) => range.write(w.u16(each.nodeid), each),
  read: (r) => ({ nodeid: nodeid.read(r), ...range.read(r) }),
};
const counter: Field<number> = {
  write: u64.write,
  read: (r) => {
    const value = r.u64();
    if (value === 0 || value > maxPacketNumber)
      throw new WireError(`packet ${value} at offset ${r.offset - 8}: 1 to ${maxPacketNumber} expected`);
    return value;
  },
};
const body = block(maxPacketBytes);
/** 6 bytes; 0: none. */
const lastN: Field<number> = {
  write: (w, n) => void w.u32(n % 2 ** 32).u16(Math.floor(n / 2 ** 32)),
  read: (r) => r.u32() + r.u16() * 2 ** 32,
};
const lasts = list(u8, record<Last>({ nodeid, incarnation, n: lastN }), maxNodes, "senders");
const together = list(u8, record<OrderStart["together"][number]>({ nodeid, synced: flag }), maxNodes, "members together");
export const orderStart: Field<OrderStart> = record({ previous: viewId, cut: u64, together, lasts });

/** A StartedView with each member named once: STATE and FLUSH have to fit a frame, also where IP's fragments do not pass. */
interface ShortStarted extends Omit<StartedView, "start">, Pick<OrderStart, "previous" | "cut"> {
  /** Bit i stands for member i, and `lasts` has a place for each. */
  readonly together: number;
  readonly synced: number;
  readonly lasts: readonly number[];
}

const shortStarted: Field<ShortStarted> = record<ShortStarted>(
  {
    id: viewId,
    members,
    quorum: quorumCount,
    previous: viewId,
    cut: u64,
    together: u32,
    synced: u32,
    lasts: list(u8, lastN, maxNodes, "senders"),
  },
  ({ members, together, synced, lasts }) => {
    if (lasts.length !== members.length || together >= 2 ** members.length || (synced & ~together) !== 0)
      throw new WireError("a start of the ordered channel that is not of the view's members");
  },
);

function bitsOf(members: readonly Member[], has: (member: Member) => boolean): number {
  return members.reduce((bits, member, at) => (has(member) ? bits | (1 << at) : bits), 0);
}

/** Who is no member has no place: nobody would go on from its last packet. */
const startedView: Field<StartedView> = {
  write: (w, { id, members, quorum, start }) => {
    const { previous, cut } = start;
    const together = bitsOf(members, ({ nodeid }) => start.together.some((one) => one.nodeid === nodeid));
    const synced = bitsOf(members, ({ nodeid }) => start.together.some((one) => one.nodeid === nodeid && one.synced));
    const lasts = members.map(
      ({ nodeid, incarnation }) => start.lasts.find((last) => last.nodeid === nodeid && last.incarnation === incarnation)?.n ?? 0,
    );
    shortStarted.write(w, { id, members, quorum, previous, cut, together, synced, lasts });
  },
  read: (r) => {
    const { id, members, quorum, previous, cut, together, synced, lasts } = shortStarted.read(r);
    const isIn = (bits: number, at: number): boolean => (bits & (1 << at)) !== 0;
    const start: OrderStart = {
      previous,
      cut,
      together: members.flatMap(({ nodeid }, at) => (isIn(together, at) ? [{ nodeid, synced: isIn(synced, at) }] : [])),
      lasts: members.flatMap((member, at) => (lasts[at] === 0 ? [] : [{ ...member, n: lasts[at] as number }])),
    };
    return { id, members, quorum, start };
  },
};
const started = maybe(startedView);
export const orderState: Field<OrderState> = record({ started, received: u64, held: block(orderWindow / 8) });

export const orderRows: Rows<OrderDatagram> = {
  submit: row("submit", 7, { ...sender, view: viewId, n: counter, received: u64, body }),
  ordered: row("ordered", 8, { ...sender, view: viewId, seq: counter, origin: nodeid, n: counter, stable: u64, body }),
  nack: row("nack", 9, { ...sender, view: viewId, ranges: list(u8, range, maxRanges, "ranges") }),
  ask: row("ask", 10, { ...sender, view: viewId, range }),
  "order-status": row("order-status", 11, { ...sender, view: viewId, received: u64, highest: u64, stable: u64 }),
  flush: row("flush", 12, {
    ...sender,
    view: viewId,
    last: started,
    cut: u64,
    sources: list(u8, source, maxRanges, "sources"),
    counted: countedBy,
  }),
  flushed: row("flushed", 13, { ...sender, view: viewId, together: flag, synced: flag, lasts, agrees: flag }),
};

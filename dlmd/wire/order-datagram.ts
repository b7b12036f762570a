/**
 * Datagrams of the ordered channel (engine/builtin): what a sender submits, what the sequencer ordered, who lacks what, and the flush of a
 * view change. The protocol: a fixed sequencer as in Amoeba (Kaashoek and Tanenbaum, "Group communication in the Amoeba distributed
 * operating system", 1991), with the recovery of Totem (Amir et al., 1995) reduced to one old view. Rows for the table of datagram.ts.
 */
import type { ByteReader, ByteWriter } from "../base/bytes.ts";
import { WireError } from "../base/error.ts";
import { type QuorumCount, readQuorum, writeQuorum } from "./quorum-count.ts";
import { type Member, readIncarnation, readViewId, type ViewId, writeIncarnation, writeViewId } from "./view-id.ts";

/** Members of a view and nodes of a configuration, at most; more in a message is refused. */
export const maxNodes = 31;
/** Bytes of one packet: with every header around it, a datagram that an Ethernet frame carries whole. */
export const maxPacketBytes = 1300;
/** Packets ordered and not yet received by all, at most: what a flush may have to fetch. */
export const orderWindow = 256;
/** Ranges that one NACK or FLUSH names; the rest is asked for later. */
export const maxRanges = 32;

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

/** From the proposer, when all STATEs are in: "have everything up to the cut, then say FLUSHED". */
export interface Flush extends Sender {
  readonly kind: "flush";
  readonly view: ViewId;
  /** The last quorate view that any member was in; null: none was in any. */
  readonly last: StartedView | null;
  readonly cut: number;
  readonly sources: readonly (Range & { readonly nodeid: number })[];
}

export interface Flushed extends Sender {
  readonly kind: "flushed";
  readonly view: ViewId;
  /** It comes from `last` of the flush. */
  readonly together: boolean;
  readonly synced: boolean;
  readonly lasts: readonly Last[];
}

export type OrderDatagram = Submit | Ordered | Nack | Ask | OrderStatus | Flush | Flushed;

interface Row<M> {
  readonly type: number;
  readonly encode: (w: ByteWriter, m: M) => void;
  readonly decode: (r: ByteReader, sender: Sender) => M;
}

export function readList<T>(r: ByteReader, what: string, limit: number, one: (r: ByteReader) => T): T[] {
  const found = r.u8();
  if (found > limit) throw new WireError(`${found} ${what}, at most ${limit} allowed`);
  const list: T[] = [];
  for (let left = found; left > 0; left--) list.push(one(r));
  return list;
}

export function readNodeid(r: ByteReader): number {
  const nodeid = r.u16();
  if (nodeid === 0) throw new WireError(`nodeid 0 at offset ${r.offset - 2}: 1 to 65535 expected`);
  return nodeid;
}

export function readMember(r: ByteReader): Member {
  return { nodeid: readNodeid(r), incarnation: readIncarnation(r) };
}

export function writeMembers(w: ByteWriter, members: readonly Member[]): void {
  w.u8(members.length);
  for (const member of members) writeIncarnation(w.u16(member.nodeid), member.incarnation);
}

/** Such numbers count packets: 1 and up; a range is not empty and no longer than the window. */
function readRange(r: ByteReader): Range {
  const from = r.u64();
  const to = from + r.u16();
  if (from === 0 || to - from >= 4 * orderWindow) throw new WireError(`range ${from} to ${to} at offset ${r.offset}`);
  return { from, to };
}

function writeRange(w: ByteWriter, range: Range): void {
  w.u64(range.from).u16(range.to - range.from);
}

function readCounter(r: ByteReader): number {
  const counter = r.u64();
  if (counter === 0) throw new WireError(`packet 0 at offset ${r.offset - 8}: 1 and up expected`);
  return counter;
}

function writeLasts(w: ByteWriter, lasts: readonly Last[]): void {
  w.u8(lasts.length);
  for (const last of lasts) writeIncarnation(w.u16(last.nodeid), last.incarnation).u64(last.n);
}

function readLasts(r: ByteReader): Last[] {
  return readList(r, "senders", maxNodes, (r) => ({ ...readMember(r), n: r.u64() }));
}

export function writeOrderState(w: ByteWriter, state: OrderState): void {
  writeStarted(w, state.started);
  w.u64(state.received).block(state.held);
}

export function readOrderState(r: ByteReader): OrderState {
  return { started: readStarted(r), received: r.u64(), held: r.block(orderWindow / 8) };
}

export function writeOrderStart(w: ByteWriter, start: OrderStart): void {
  writeViewId(w, start.previous).u64(start.cut).u8(start.together.length);
  for (const { nodeid, synced } of start.together) w.u16(nodeid).bool(synced);
  writeLasts(w, start.lasts);
}

export function readOrderStart(r: ByteReader): OrderStart {
  const previous = readViewId(r);
  const cut = r.u64();
  const together = readList(r, "members together", maxNodes, (r) => ({ nodeid: readNodeid(r), synced: r.bool() }));
  return { previous, cut, together, lasts: readLasts(r) };
}

function writeStarted(w: ByteWriter, view: StartedView | null): void {
  w.bool(view !== null);
  if (view === null) return;
  writeMembers(writeViewId(w, view.id), view.members);
  writeQuorum(w, view.quorum);
  writeOrderStart(w, view.start);
}

function readStarted(r: ByteReader): StartedView | null {
  if (!r.bool()) return null;
  return { id: readViewId(r), members: readList(r, "members", maxNodes, readMember), quorum: readQuorum(r), start: readOrderStart(r) };
}

type Table = { readonly [K in OrderDatagram["kind"]]: Row<Extract<OrderDatagram, { kind: K }>> };

export const orderRows: Table = {
  submit: {
    type: 7,
    encode: (w, m) => writeViewId(w, m.view).u64(m.n).u64(m.received).block(m.body),
    decode: (r, sender) => ({
      kind: "submit",
      ...sender,
      view: readViewId(r),
      n: readCounter(r),
      received: r.u64(),
      body: r.block(maxPacketBytes),
    }),
  },
  ordered: {
    type: 8,
    encode: (w, m) => writeViewId(w, m.view).u64(m.seq).u16(m.origin).u64(m.n).u64(m.stable).block(m.body),
    decode: (r, sender) => ({
      kind: "ordered",
      ...sender,
      view: readViewId(r),
      seq: readCounter(r),
      origin: readNodeid(r),
      n: readCounter(r),
      stable: r.u64(),
      body: r.block(maxPacketBytes),
    }),
  },
  nack: {
    type: 9,
    encode: (w, m) => {
      writeViewId(w, m.view).u8(m.ranges.length);
      for (const range of m.ranges) writeRange(w, range);
    },
    decode: (r, sender) => ({ kind: "nack", ...sender, view: readViewId(r), ranges: readList(r, "ranges", maxRanges, readRange) }),
  },
  ask: {
    type: 10,
    encode: (w, m) => writeRange(writeViewId(w, m.view), m.range),
    decode: (r, sender) => ({ kind: "ask", ...sender, view: readViewId(r), range: readRange(r) }),
  },
  "order-status": {
    type: 11,
    encode: (w, m) => writeViewId(w, m.view).u64(m.received).u64(m.highest).u64(m.stable),
    decode: (r, sender) => ({ kind: "order-status", ...sender, view: readViewId(r), received: r.u64(), highest: r.u64(), stable: r.u64() }),
  },
  flush: {
    type: 12,
    encode: (w, m) => {
      writeStarted(writeViewId(w, m.view), m.last);
      w.u64(m.cut).u8(m.sources.length);
      for (const source of m.sources) writeRange(w.u16(source.nodeid), source);
    },
    decode: (r, sender) => ({
      kind: "flush",
      ...sender,
      view: readViewId(r),
      last: readStarted(r),
      cut: r.u64(),
      sources: readList(r, "sources", maxRanges, (r) => ({ nodeid: readNodeid(r), ...readRange(r) })),
    }),
  },
  flushed: {
    type: 13,
    encode: (w, m) => writeLasts(writeViewId(w, m.view).bool(m.together).bool(m.synced), m.lasts),
    decode: (r, sender) => ({
      kind: "flushed",
      ...sender,
      view: readViewId(r),
      together: r.bool(),
      synced: r.bool(),
      lasts: readLasts(r),
    }),
  },
};

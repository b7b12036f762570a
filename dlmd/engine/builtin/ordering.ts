/**
 * The ordered channel of a node: sender, receiver, and on the lowest nodeid of the view the sequencer; from view to view with a flush
 * between, so that all who go together have delivered the same packets. Facts and figures: dlmd/engine/README.md, "Ordered messages".
 */
import { assert, assertNever } from "../../base/assert.ts";
import type { Datagram } from "../../wire/datagram.ts";
import {
  type Flush,
  type Flushed,
  type Last,
  type Nack,
  type OrderDatagram,
  type Ordered,
  type OrderStart,
  type OrderState,
  orderWindow,
  type StartedView,
} from "../../wire/order-datagram.ts";
import { hasMember, type Member, noView, sameView, type ViewId } from "../../wire/view-id.ts";
import type { Message } from "./chunk.ts";
import { type Packet, Receiver } from "./receiver.ts";
import { Sender } from "./sender.ts";
import { Sequencer } from "./sequencer.ts";

/** A gap must be that old before it is asked for: datagrams overtake each other. */
const nackDelayMs = 2;
const longestNackMs = 64;
/** A member says how far it is after that many packets, or that long. */
const ackEvery = 16;
const ackDelayMs = 3;
/** What was submitted and did not come back is submitted again after that; twice as late each time. */
const resendMs = 10;
const longestResendMs = 250;
const resendPackets = 16;
/** The sequencer says how far everybody can be when somebody lags that long. */
const probeMs = 10;
const longestProbeMs = 100;
/** Packets sent again for one NACK; the rest is asked for again. */
const nackedPackets = 64;

export interface OrderingHost {
  datagram(to: number | readonly number[], message: Datagram): void;
  /** The next packet in order. */
  deliver(origin: Member, body: Uint8Array): void;
  /** A quorate view begins, all of the one before it is delivered. What is to be sent first in it; null: nothing. */
  entered(view: StartedView): Message | null;
  /** Nobody else can be ordering in another quorate view (hazard C4). */
  mayOrder(): boolean;
  /** This node knows the groups, so it may send. */
  synced(): boolean;
  /** Our part of the flush of that view is done. */
  flushed(view: ViewId, answer: Pick<Flushed, "together" | "synced" | "lasts">): void;
  /** That member does not receive what everybody else does. */
  stuck(nodeid: number): void;
  /** What this node has cannot be brought up to date. */
  lost(reason: string): void;
  protest(nodeid: number, message: string): void;
}

interface Pulling {
  readonly flush: Flush;
  atMs: number;
  delayMs: number;
  done: boolean;
}

export class Ordering {
  readonly sender: Sender = new Sender();
  /** The last quorate view that this node entered. */
  view: StartedView | null = null;
  stopped = true;
  readonly #self: Member;
  readonly #host: OrderingHost;
  readonly #stuckMs: number;
  #receiver = new Receiver();
  #sequencer: Sequencer | null = null;
  #others: number[] = [];
  /** Each sender's last packet delivered here. */
  #lasts: Map<number, Last> = new Map();
  #pulling: Pulling | null = null;
  #acked = 0;
  #ackAtMs = Number.POSITIVE_INFINITY;
  #nackAtMs = Number.POSITIVE_INFINITY;
  #nackDelayMs = nackDelayMs;
  #resendAtMs = Number.POSITIVE_INFINITY;
  #resendDelayMs = resendMs;
  #probeAtMs = Number.POSITIVE_INFINITY;
  #probeDelayMs = probeMs;
  #stuckAtMs = Number.POSITIVE_INFINITY;

  /** `stuckMs`: the time-out after which a member that receives nothing is taken out. */
  constructor(self: Member, stuckMs: number, host: OrderingHost) {
    this.#self = self;
    this.#stuckMs = stuckMs;
    this.#host = host;
  }

  get received(): number {
    return this.#receiver.received;
  }
  get delivered(): number {
    return this.#receiver.delivered;
  }
  get kept(): number {
    return this.#receiver.kept;
  }
  get sequencerNodeid(): number {
    return this.view?.members[0]?.nodeid ?? 0;
  }

  #head(): { from: number; incarnation: string; view: ViewId } {
    return { from: this.#self.nodeid, incarnation: this.#self.incarnation, view: this.view?.id ?? noView };
  }

  // ----------------------------------------------------------------------------------------------------- view change

  /** A later view is promised: nothing is sent, ordered or delivered any more. */
  stop(): void {
    this.stopped = true;
    this.#pulling = null;
    this.#resendAtMs = Number.POSITIVE_INFINITY;
    this.#ackAtMs = Number.POSITIVE_INFINITY;
    this.#nackAtMs = Number.POSITIVE_INFINITY;
    this.#probeAtMs = Number.POSITIVE_INFINITY;
    this.#stuckAtMs = Number.POSITIVE_INFINITY;
  }

  state(): OrderState {
    return { started: this.view, received: this.#receiver.received, held: this.#receiver.held() };
  }

  /** Fetches what is missing up to the cut; says `flushed` when all is there, and again for each repetition. */
  flush(flush: Flush, nowMs: number): void {
    assert(this.stopped, "flush of a view that was not promised");
    const pulling = this.#pulling;
    if (pulling !== null && sameView(pulling.flush.view, flush.view)) {
      if (pulling.done) this.#sayFlushed(flush);
      return;
    }
    const { last } = flush;
    if (this.view === null || last === null) return this.#host.flushed(flush.view, { together: false, synced: false, lasts: [] });
    if (!sameView(this.view.id, last.id)) {
      // That view was installed elsewhere, and word of it did not come here: this node is in it all the same.
      const next = sameView(this.view.id, last.start.previous) && hasMember(last.members, this.#self.nodeid, this.#self.incarnation);
      if (!next || this.#receiver.received < last.start.cut)
        return this.#host.lost("its ordered messages ended in a view that nobody remembers");
      this.#enter(last, nowMs);
    }
    const { received } = this.#receiver;
    if (flush.cut > received + orderWindow) {
      const words = `flush up to packet ${flush.cut}, and this node has ${received}: no view has so many on their way`;
      return this.#host.protest(flush.from, words);
    }
    this.#pulling = { flush, atMs: nowMs, delayMs: nackDelayMs, done: false };
    this.#pull(nowMs);
  }

  #pull(nowMs: number): void {
    const pulling = this.#pulling;
    if (pulling === null || pulling.done) return;
    const { flush } = pulling;
    const missing = this.#receiver.missing(flush.cut);
    if (missing.length === 0) {
      pulling.done = true;
      return this.#sayFlushed(flush);
    }
    if (nowMs < pulling.atMs) return;
    pulling.atMs = nowMs + pulling.delayMs;
    pulling.delayMs = Math.min(longestNackMs, 2 * pulling.delayMs);
    for (const source of flush.sources) {
      const ranges = missing
        .map(({ from, to }) => ({ from: Math.max(from, source.from), to: Math.min(to, source.to) }))
        .filter(({ from, to }) => from <= to);
      if (ranges.length > 0 && source.nodeid !== this.#self.nodeid)
        this.#host.datagram(source.nodeid, { kind: "nack", ...this.#head(), ranges });
    }
  }

  #sayFlushed(flush: Flush): void {
    const lasts = new Map(this.#lasts);
    for (let seq = this.#receiver.delivered + 1; seq <= flush.cut; seq++) {
      const packet = this.#receiver.get(seq) as Packet;
      lasts.set(packet.origin, { ...this.#memberOf(packet.origin), n: packet.n });
    }
    this.#host.flushed(flush.view, { together: true, synced: this.#host.synced(), lasts: [...lasts.values()] });
  }

  #memberOf(nodeid: number): Member {
    return this.view?.members.find((member) => member.nodeid === nodeid) as Member;
  }

  /** A quorate view: what the flush agreed upon is delivered, then it begins. */
  install(view: StartedView, nowMs: number): void {
    const together = view.start.together.some((member) => member.nodeid === this.#self.nodeid);
    if (this.view !== null && !together) return this.#host.lost("a quorate view begins without its ordered messages");
    this.#enter(view, nowMs);
    this.stopped = false;
    this.#stuckAtMs = nowMs + this.#stuckMs;
    this.advance(nowMs);
  }

  #enter(view: StartedView, nowMs: number): void {
    const { start, members } = view;
    if (this.view !== null) {
      this.#deliverTo(start.cut);
      assert(this.#receiver.delivered === start.cut, `delivered ${this.#receiver.delivered} packets, the cut is at ${start.cut}`);
    }
    this.view = view;
    this.#pulling = null;
    this.#others = members.map((member) => member.nodeid).filter((nodeid) => nodeid !== this.#self.nodeid);
    this.#lasts = startingLasts(start, members);
    this.#receiver = new Receiver();
    this.#acked = 0;
    const lastOf = (nodeid: number): number => this.#lasts.get(nodeid)?.n ?? 0;
    const sequencing = members[0]?.nodeid === this.#self.nodeid;
    this.#sequencer = sequencing
      ? new Sequencer(
          members.map((member) => member.nodeid),
          lastOf,
          nowMs,
        )
      : null;
    this.sender.restart(lastOf(this.#self.nodeid), (message) => message.kind !== "groups");
    const first = this.#host.entered(view);
    if (first !== null) this.sender.pushFirst(first);
  }

  // ------------------------------------------------------------------------------------------------------- datagrams

  receive(message: OrderDatagram, nowMs: number): void {
    if (message.kind === "flush" || message.kind === "flushed") return;
    const view = this.view;
    if (view === null || !sameView(message.view, view.id) || !hasMember(view.members, message.from, message.incarnation)) return;
    switch (message.kind) {
      case "submit":
        if (this.stopped || this.#sequencer === null) return;
        this.#sequencer.submit(message.from, message.n, message.body, nowMs);
        return this.#readerMoved(message.from, message.received, nowMs);
      case "ordered":
        return this.#receiveOrdered(message, nowMs);
      case "nack":
        return this.#receiveNack(message);
      case "ask":
        if (this.stopped || message.from !== this.sequencerNodeid) return;
        for (let n = message.range.from; n <= message.range.to; n++) this.#submit(n, this.sender.packet(n));
        return;
      case "order-status":
        if (this.stopped) return;
        if (this.#sequencer !== null) return this.#readerMoved(message.from, message.received, nowMs);
        if (message.from !== this.sequencerNodeid) return;
        this.#receiver.heardOf(message.highest);
        this.#receiver.forget(message.stable);
        this.#ackAtMs = nowMs;
        return this.#noteGap(nowMs);
      default:
        assertNever(message, "ordered datagram");
    }
  }

  #receiveOrdered(message: Ordered, nowMs: number): void {
    if (!hasMember(this.view?.members ?? [], message.origin, this.#memberOf(message.origin)?.incarnation ?? "")) return;
    const { seq, origin, n, body } = message;
    if (!this.#receiver.accept({ seq, origin, n, body })) {
      // It is known here already, which its sender did not know.
      if (!this.stopped) this.#ackAtMs = Math.min(this.#ackAtMs, nowMs + ackDelayMs);
      return;
    }
    if (this.stopped) return this.#pull(nowMs);
    this.#receiver.forget(message.stable);
    this.#noteGap(nowMs);
  }

  #noteGap(nowMs: number): void {
    const { received, highest } = this.#receiver;
    if (received === highest) {
      this.#nackAtMs = Number.POSITIVE_INFINITY;
      this.#nackDelayMs = nackDelayMs;
    } else if (this.#nackAtMs === Number.POSITIVE_INFINITY) this.#nackAtMs = nowMs + nackDelayMs;
  }

  /** Whoever holds a packet may send it again, also between two views: that is how a flush fetches it. */
  #receiveNack(message: Nack): void {
    let left = nackedPackets;
    for (const { from, to } of message.ranges) {
      for (let seq = from; seq <= to && left > 0; seq++) {
        const packet = this.#receiver.get(seq);
        if (packet === undefined) continue;
        left--;
        this.#host.datagram(message.from, this.#ordered(packet));
      }
    }
  }

  #ordered({ seq, origin, n, body }: Packet): Ordered {
    const stable = this.#sequencer?.stable ?? this.#receiver.stable;
    return { kind: "ordered", ...this.#head(), seq, origin, n, stable, body };
  }

  #readerMoved(nodeid: number, received: number, nowMs: number): void {
    const sequencer = this.#sequencer as Sequencer;
    sequencer.acked(nodeid, received, nowMs);
    this.#receiver.forget(sequencer.stable);
  }

  // ---------------------------------------------------------------------------------------------------------- moving

  /** Everything that can be done now. */
  advance(nowMs: number): void {
    if (this.stopped) return this.#pull(nowMs);
    this.#submitAll(nowMs);
    this.#orderAll(nowMs);
    this.#deliverTo(Number.POSITIVE_INFINITY);
    this.#acknowledge(nowMs);
    if (nowMs >= this.#nackAtMs) this.#nackMissing(nowMs);
    if (nowMs >= this.#resendAtMs) this.#resend(nowMs);
    if (this.#sequencer !== null) this.#attend(this.#sequencer, nowMs);
  }

  #submitAll(nowMs: number): void {
    if (!this.#host.synced()) return;
    for (let packet = this.sender.pack(); packet !== null; packet = this.sender.pack()) {
      if (this.#sequencer !== null) this.#sequencer.submit(this.#self.nodeid, packet.n, packet.body, nowMs);
      else this.#submit(packet.n, packet.body);
      if (this.#resendAtMs === Number.POSITIVE_INFINITY) this.#resendLater(resendMs, nowMs);
    }
  }

  #submit(n: number, body: Uint8Array | undefined): void {
    if (body === undefined) return;
    const received = this.#receiver.received;
    this.#acked = received;
    this.#ackAtMs = Number.POSITIVE_INFINITY;
    this.#host.datagram(this.sequencerNodeid, { kind: "submit", ...this.#head(), n, received, body });
  }

  #resendLater(delayMs: number, nowMs: number): void {
    this.#resendDelayMs = delayMs;
    this.#resendAtMs = this.sender.underWay === 0 || this.#sequencer !== null ? Number.POSITIVE_INFINITY : nowMs + delayMs;
  }

  #resend(nowMs: number): void {
    let left = resendPackets;
    for (const [n, body] of this.sender.packets()) {
      if (left-- === 0) break;
      this.#submit(n, body);
    }
    this.#resendLater(Math.min(longestResendMs, 2 * this.#resendDelayMs), nowMs);
  }

  #orderAll(nowMs: number): void {
    const sequencer = this.#sequencer;
    if (sequencer === null || !this.#host.mayOrder()) return;
    for (let packet = sequencer.order(nowMs); packet !== null; packet = sequencer.order(nowMs)) {
      this.#receiver.accept(packet);
      if (this.#others.length > 0) this.#host.datagram(this.#others, this.#ordered(packet));
      this.#probeDelayMs = probeMs;
      this.#probeAtMs = nowMs + probeMs;
    }
    sequencer.acked(this.#self.nodeid, this.#receiver.received, nowMs);
  }

  #deliverTo(limit: number): void {
    const receiver = this.#receiver;
    for (let packet = receiver.next(limit); packet !== null; packet = receiver.next(limit)) {
      const origin = this.#memberOf(packet.origin);
      this.#lasts.set(packet.origin, { ...origin, n: packet.n });
      if (packet.origin === this.#self.nodeid) {
        this.sender.came(packet.n);
        if (this.#resendAtMs !== Number.POSITIVE_INFINITY) this.#resendAtMs = Number.NEGATIVE_INFINITY;
      }
      this.#host.deliver(origin, packet.body);
    }
    if (this.#sequencer !== null) receiver.forget(this.#sequencer.stable);
  }

  #acknowledge(nowMs: number): void {
    // Something of ours came back: the time to submit again counts from here.
    if (this.#resendAtMs === Number.NEGATIVE_INFINITY) {
      this.#submitAll(nowMs);
      this.#resendLater(resendMs, nowMs);
    }
    if (this.#sequencer !== null) {
      this.#ackAtMs = Number.POSITIVE_INFINITY;
      return;
    }
    const { received } = this.#receiver;
    if (received > this.#acked && this.#ackAtMs === Number.POSITIVE_INFINITY) this.#ackAtMs = nowMs + ackDelayMs;
    if (received - this.#acked < ackEvery && nowMs < this.#ackAtMs) return;
    this.#acked = received;
    this.#ackAtMs = Number.POSITIVE_INFINITY;
    this.#sayStatus(this.sequencerNodeid);
  }

  #sayStatus(to: number | readonly number[]): void {
    const { received, highest } = this.#receiver;
    const stable = this.#sequencer?.stable ?? this.#receiver.stable;
    this.#host.datagram(to, { kind: "order-status", ...this.#head(), received, highest, stable });
  }

  #nackMissing(nowMs: number): void {
    const ranges = this.#receiver.missing(this.#receiver.highest);
    if (ranges.length === 0) return this.#noteGap(nowMs);
    this.#host.datagram(this.sequencerNodeid, { kind: "nack", ...this.#head(), ranges });
    this.#nackDelayMs = Math.min(longestNackMs, 2 * this.#nackDelayMs);
    this.#nackAtMs = nowMs + this.#nackDelayMs;
  }

  #attend(sequencer: Sequencer, nowMs: number): void {
    for (const { nodeid, range } of sequencer.gaps(nackDelayMs, nowMs))
      this.#host.datagram(nodeid, { kind: "ask", ...this.#head(), range });
    if (sequencer.stable === sequencer.highest) this.#probeAtMs = Number.POSITIVE_INFINITY;
    if (nowMs >= this.#probeAtMs) {
      this.#sayStatus(this.#others);
      this.#probeDelayMs = Math.min(longestProbeMs, 2 * this.#probeDelayMs);
      this.#probeAtMs = nowMs + this.#probeDelayMs;
    }
    if (nowMs < this.#stuckAtMs) return;
    this.#stuckAtMs = nowMs + this.#stuckMs / 4;
    for (const nodeid of sequencer.stuck(this.#stuckMs, nowMs)) this.#host.stuck(nodeid);
  }

  /** When to call `advance` at the latest. */
  deadline(): number {
    if (this.stopped) return this.#pulling === null || this.#pulling.done ? Number.POSITIVE_INFINITY : this.#pulling.atMs;
    const deadline = Math.min(this.#ackAtMs, this.#nackAtMs, this.#resendAtMs);
    if (this.#sequencer === null) return deadline;
    return Math.min(deadline, this.#probeAtMs, this.#sequencer.gapDeadline(nackDelayMs));
  }
}

/** Of the members only: who comes back has another incarnation, and begins anew. */
function startingLasts(start: OrderStart, members: readonly Member[]): Map<number, Last> {
  const lasts = start.lasts.filter(({ nodeid, incarnation }) => hasMember(members, nodeid, incarnation));
  return new Map(lasts.map((last) => [last.nodeid, last]));
}

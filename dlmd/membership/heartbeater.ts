/**
 * The heartbeats of a node: when one goes out, what it says, and who was heard (hazards C4, H13, H14). It runs in a thread of its own, so that a
 * busy main thread is never taken for a dead node; the main thread says what to tell (`BeatContent`) and hears what came. That the
 * main thread is alive too is what `progress` says.
 */
import { type Heard, type Heartbeat, largestHeartbeatBytes, type NodeState } from "../wire/datagram.ts";
import { type Member, noView, sameView } from "../wire/view-id.ts";
import { type LeaseBasis, newSendTimes, noteSent, PublishedLease, sentAt } from "./lease.ts";

/** Shares of the time-out. */
export const beatShare = 0.1;
/** Every that many heartbeats is padded. */
const paddedEvery = 16;
/** What a heartbeat is around its list, and an entry of the list. */
const beatBytes = 14 + 4 + 18 + 8 + 18 + 4 + 5 + 4 + 1 + 2;
const heardBytes = 15;

export interface BeatContent extends NodeState {
  /** How often this life has left a view, this time included: since then nothing is acknowledged in that view (hazard C4). */
  readonly stops: number;
  /** Who must acknowledge this node in this view before programs here may act on their locks; null: there is no view. */
  readonly lease: LeaseBasis | null;
  /** The living incarnation of each node that was heard: no other counts. */
  readonly peers: readonly (Member & { readonly tcpUp: boolean })[];
}

/** A heartbeat that came, and what only the beating side knows of it. */
export interface HeardBeat {
  readonly message: Heartbeat;
  readonly heardMs: number;
  /** When our heartbeat that it acks was sent; -Infinity: it acks none. */
  readonly ackedMs: number;
}

interface Source {
  incarnation: string;
  seq: number;
  heardMs: number;
}

export class Heartbeater {
  nextMs: number;
  readonly #self: Member;
  readonly #timeoutMs: number;
  readonly #sent = newSendTimes();
  readonly #sources: Map<string, Source> = new Map();
  readonly #lease: PublishedLease;
  #content: BeatContent | null = null;
  #seq = 0;

  constructor(self: Member, timeoutMs: number, nowMs: number) {
    this.#self = self;
    this.#timeoutMs = timeoutMs;
    this.nextMs = nowMs;
    this.#lease = new PublishedLease(self, timeoutMs);
  }

  /** Until when programs of this node may act on the locks that they hold (lease.ts). */
  get leaseEndMs(): number {
    return this.#lease.endMs;
  }

  /** `now`: a heartbeat that says so is due at once. */
  tell(content: BeatContent | null, now: boolean): void {
    this.#content = content;
    this.#lease.tell(content?.view ?? noView, content?.lease ?? null);
    if (now) this.nextMs = Number.NEGATIVE_INFINITY;
  }

  /**
   * The heartbeat that is due, to all nodes; null: none is. `progress`: of the main thread. `stops`: of the content that it told last: what was told
   * before may be of a view that it has left, and in between may be one that it is in already (hazard C4).
   */
  beat(nowMs: number, progress: number, stops = 0): Heartbeat | null {
    if (nowMs < this.nextMs) return null;
    this.nextMs = nowMs + beatShare * this.#timeoutMs;
    const content = this.#content;
    if (content === null) return null;
    const stopped = content.stopped || content.stops < stops;
    this.#seq++;
    noteSent(this.#sent, this.#seq, nowMs);
    const heard: Heard[] = [];
    for (const { nodeid, incarnation, tcpUp } of content.peers) {
      const source = this.#sources.get(`${nodeid}.${incarnation}`);
      if (source === undefined || nowMs - source.heardMs >= this.#timeoutMs) continue;
      heard.push({ nodeid, incarnation, seq: stopped ? 0 : source.seq, tcpUp });
    }
    const { peers: _, lease: __, stops: ___, ...state } = content;
    const padded = this.#seq % paddedEvery === 1;
    const padding = padded ? Math.max(0, largestHeartbeatBytes - beatBytes - heard.length * heardBytes) : 0;
    const { nodeid: from, incarnation } = this.#self;
    return { kind: "heartbeat", from, incarnation, seq: this.#seq, ...state, stopped, progress: progress >>> 0, padding, heard };
  }

  /** null: a former one, or one twice. */
  receive(message: Heartbeat, nowMs: number): HeardBeat | null {
    const key = `${message.from}.${message.incarnation}`;
    const source = this.#sources.get(key) ?? { incarnation: message.incarnation, seq: 0, heardMs: nowMs };
    if (message.seq <= source.seq) return null;
    source.seq = message.seq;
    source.heardMs = nowMs;
    this.#sources.set(key, source);
    this.#forgetSilent(nowMs);
    const own = message.heard.find((heard) => heard.nodeid === this.#self.nodeid && heard.incarnation === this.#self.incarnation);
    const ackedMs = (own === undefined ? null : sentAt(this.#sent, own.seq)) ?? Number.NEGATIVE_INFINITY;
    const { view } = this.#content ?? {};
    if (view !== undefined && !message.stopped && sameView(message.view, view)) this.#lease.acked(message, ackedMs);
    return { message, heardMs: nowMs, ackedMs };
  }

  /** Lives that ended are not kept. */
  #forgetSilent(nowMs: number): void {
    if (this.#sources.size <= 64) return;
    for (const [key, source] of this.#sources) if (nowMs - source.heardMs > 10 * this.#timeoutMs) this.#sources.delete(key);
  }
}

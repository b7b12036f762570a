/**
 * How long this node may serve in its view (hazard C4): until 0.6 time-outs after it *sent* the last heartbeat that a quorum of
 * the view acknowledged. Others start service without it only when more than that has passed since they acked it last
 * (`waitMs` of an installation). It bounds the service; it is not a fence.
 *
 * dlmd's own lock service stops at that moment (`leaseEnd`). Programs act on locks that they were granted long before, so the same moment is
 * published for them, by the thread of the heartbeats (`PublishedLease`): it goes on when the main thread is busy, and stops when the process does.
 */
import type { Voter } from "../config/votes.ts";
import { hasMember, type Member, noView, sameView, type ViewId } from "../wire/view-id.ts";
import type { LeaseGround } from "./quorum.ts";

export const leaseShare = 0.6;
/** What the others wait, in time-outs: the lease, clock drift and a margin. */
export const leaseWaitShare = 0.8;

/** What is left of that when a node's lease has ended: programs must have stopped by then. */
export function leaseMarginMs(timeoutMs: number): number {
  return (leaseWaitShare - leaseShare) * timeoutMs;
}

const remembered = 64;

export interface SendTimes {
  readonly seqs: Float64Array;
  readonly times: Float64Array;
}

export function newSendTimes(): SendTimes {
  return { seqs: new Float64Array(remembered), times: new Float64Array(remembered) };
}

export function noteSent(sent: SendTimes, seq: number, nowMs: number): void {
  sent.seqs[seq % remembered] = seq;
  sent.times[seq % remembered] = nowMs;
}

/** When that heartbeat was sent; null if it is too long ago to matter. */
export function sentAt(sent: SendTimes, seq: number): number | null {
  return seq > 0 && sent.seqs[seq % remembered] === seq ? (sent.times[seq % remembered] as number) : null;
}

/**
 * `acked`: per other member of the view, the send time of our last heartbeat that it acked in this view (-Infinity: none). Infinity: this
 * node is a quorum by itself.
 */
export function leaseEnd(
  nodes: readonly Voter[],
  self: number,
  needed: number,
  acked: ReadonlyMap<number, number>,
  timeoutMs: number,
): number {
  let votes = nodes.find((node) => node.nodeid === self)?.votes ?? 0;
  if (votes >= needed) return Number.POSITIVE_INFINITY;
  const latestFirst = [...acked].sort((a, b) => b[1] - a[1]);
  for (const [nodeid, sentMs] of latestFirst) {
    votes += nodes.find((node) => node.nodeid === nodeid)?.votes ?? 0;
    if (votes >= needed) return sentMs + leaseShare * timeoutMs;
  }
  return Number.NEGATIVE_INFINITY;
}

/** What a lease in a view takes. */
export interface LeaseBasis {
  readonly members: readonly Member[];
  /** All of them must hold. */
  readonly grounds: readonly LeaseGround[];
}

/** As `leaseEnd`, by all grounds. */
export function leaseEndByAll(
  grounds: readonly LeaseGround[],
  self: number,
  acked: ReadonlyMap<number, number>,
  timeoutMs: number,
): number {
  return Math.min(...grounds.map(({ nodes, needed }) => leaseEnd(nodes, self, needed, acked, timeoutMs)));
}

/**
 * The lease as programs see it. It is of the node, not of a view: what a quorum of one view acknowledged holds on in the next, since nobody
 * starts service without this node before 0.8 time-outs have passed since any of his members heard it, in whatever view that was. What a
 * node that is a quorum by itself need not have acknowledged is over with that view.
 */
export class PublishedLease {
  readonly #self: Member;
  readonly #timeoutMs: number;
  #view = noView;
  #basis: LeaseBasis | null = null;
  readonly #acked: Map<number, number> = new Map();
  #acknowledgedMs = Number.NEGATIVE_INFINITY;
  #alone = false;

  constructor(self: Member, timeoutMs: number) {
    this.#self = self;
    this.#timeoutMs = timeoutMs;
  }

  get endMs(): number {
    return this.#alone ? Number.POSITIVE_INFINITY : this.#acknowledgedMs;
  }

  /** null: there is no view, or the node leaves. What is acknowledged in a view counts for that one alone. */
  tell(view: ViewId, basis: LeaseBasis | null): void {
    if (!sameView(view, this.#view)) this.#acked.clear();
    this.#view = view;
    this.#basis = basis;
    this.#alone = false;
    if (basis === null) this.#acknowledgedMs = Number.NEGATIVE_INFINITY;
    else this.#extend();
  }

  /** That member says in the same view that it heard a heartbeat that was sent then. */
  acked({ from, incarnation }: { readonly from: number; readonly incarnation: string }, sentMs: number): void {
    if (this.#basis === null || !hasMember(this.#basis.members, from, incarnation)) return;
    if (sentMs <= (this.#acked.get(from) ?? Number.NEGATIVE_INFINITY)) return;
    this.#acked.set(from, sentMs);
    this.#extend();
  }

  #extend(): void {
    if (this.#basis === null) return;
    const endMs = leaseEndByAll(this.#basis.grounds, this.#self.nodeid, this.#acked, this.#timeoutMs);
    this.#alone = endMs === Number.POSITIVE_INFINITY;
    if (!this.#alone) this.#acknowledgedMs = Math.max(this.#acknowledgedMs, endMs);
  }
}

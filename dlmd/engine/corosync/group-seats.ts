/**
 * What corosync says of the group: its processes, the ring, and whether votequorum calls that ring quorate; and which processes are left out of
 * it by the members' own word. Callbacks of the two services come in either order.
 */
import type { RingId, RoundTag, Seat } from "./message.ts";
import { sameSeat } from "./round.ts";

export class GroupSeats {
  readonly #self: Seat;
  #all: readonly Seat[] = [];
  #ring: RingId | null = null;
  #quorum: { readonly ring: RingId; readonly quorate: boolean } | null = null;
  #excluded: readonly Seat[] = [];
  /** Nodes that were left out, in whatever life. */
  readonly #shunnedUntilMs: Map<number, number> = new Map();

  constructor(self: Seat) {
    this.#self = self;
  }

  /** corosync has said which ring this is. */
  get connected(): boolean {
    return this.#ring !== null;
  }
  /** Null: nothing of this ring is known. */
  get quorate(): boolean | null {
    return this.#ofThisRing() ? (this.#quorum?.quorate ?? null) : null;
  }
  /** This process is in the group. */
  get seated(): boolean {
    return this.has(this.#self);
  }
  /** Those that were not left out. */
  get expected(): readonly Seat[] {
    return this.#all.filter((seat) => !this.isExcluded(seat));
  }
  /** A node of which two processes are there; null: none. */
  get twice(): number | null {
    return this.#all.find((seat, at) => seat.nodeid === this.#all[at - 1]?.nodeid)?.nodeid ?? null;
  }

  /** cpg_confchg_fn; `known`: those of nodes in cluster.yaml. */
  receive(known: readonly Seat[]): void {
    this.#excluded = known.filter((seat) => this.isExcluded(seat));
    this.#all = known.toSorted((a, b) => a.nodeid - b.nodeid || a.pid - b.pid);
  }

  receiveRing(ring: RingId): void {
    this.#ring = ring;
  }

  /** True: it says something else of this very ring than before, as when an operator changes the votes. */
  receiveQuorum(ring: RingId, quorate: boolean): boolean {
    const before = this.quorate;
    this.#quorum = { ring, quorate };
    return before !== null && this.quorate !== null && before !== quorate;
  }

  #ofThisRing(): boolean {
    const quorum = this.#quorum;
    return quorum !== null && this.#ring !== null && quorum.ring.seq === this.#ring.seq && quorum.ring.nodeid === this.#ring.nodeid;
  }

  has(seat: Seat): boolean {
    return this.#all.some((each) => sameSeat(each, seat));
  }

  holds(nodeid: number): boolean {
    return this.#all.some((seat) => seat.nodeid === nodeid);
  }

  isExcluded(seat: Seat): boolean {
    return this.#excluded.some((excluded) => sameSeat(excluded, seat));
  }

  exclude(seat: Seat): void {
    if (!this.isExcluded(seat)) this.#excluded = [...this.#excluded, seat];
  }

  /** A next life of that node is not let in before then: it may hang in the same place, and the others must get a view meanwhile. */
  shun(nodeid: number, untilMs: number): void {
    this.#shunnedUntilMs.set(nodeid, untilMs);
  }

  isShunned(nodeid: number, nowMs: number): boolean {
    return nowMs < (this.#shunnedUntilMs.get(nodeid) ?? Number.NEGATIVE_INFINITY);
  }

  /** Of the round that is the `count`th to be asked for since the ring and the processes are these; null: there is no ring yet. */
  tag(count: number): RoundTag | null {
    return this.#ring === null ? null : { ring: this.#ring, seats: this.#all, count };
  }
}

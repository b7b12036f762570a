/**
 * The channels of a node to all others, and what arrived on them and must wait. What is kept is bounded on both sides (hazard H9): too much
 * that waits here, and the peer's connection is not read; too much that a peer has not acknowledged, and clients are not.
 */
import type { StepTime } from "../base/step-time.ts";
import type { PeerMessage } from "../wire/peer-message.ts";
import { hasMember, type Member, type ViewId } from "../wire/view-id.ts";
import { type Arrival, Channel } from "./channel.ts";

/** Unacknowledged messages to a peer at which they are given up, in limits of what is saved for one. */
const unackedShare = 4;

export interface TransportPort {
  /** On the present connection to that node. */
  transmit(nodeid: number, view: ViewId, message: PeerMessage): void;
  pausePeer(nodeid: number, pause: boolean): void;
  /** `crowded` changed. */
  crowding(): void;
  /** A new view is needed. */
  broken(why: string): void;
}

export interface Held {
  readonly view: ViewId;
  readonly message: PeerMessage;
}

export interface Pair {
  readonly channel: Channel;
  /** Arrived and not yet to be used; of the channel's incarnation. */
  held: Held[];
  paused: boolean;
}

export class PeerChannels {
  readonly #host: TransportPort;
  readonly #heldLimit: number;
  readonly #pairs: Map<number, Pair> = new Map();
  #crowded = false;
  readonly #time: StepTime;

  constructor(time: StepTime, host: TransportPort, heldLimit: number) {
    this.#time = time;
    this.#host = host;
    this.#heldLimit = heldLimit;
  }

  entries(): IterableIterator<[number, Pair]> {
    return this.#pairs.entries();
  }

  get(nodeid: number): Pair {
    let pair = this.#pairs.get(nodeid);
    if (pair === undefined) {
      const transmit = (to: number, view: ViewId, message: PeerMessage): void => this.#host.transmit(to, view, message);
      const channel = new Channel(nodeid, { transmit }, this.#heldLimit * unackedShare);
      pair = { channel, held: [], paused: false };
      this.#pairs.set(nodeid, pair);
    }
    return pair;
  }

  /** Kept until it is acknowledged, whether or not there is a connection now. */
  send({ nodeid, incarnation }: Member, view: ViewId, message: PeerMessage): void {
    const pair = this.get(nodeid);
    if (pair.channel.incarnation !== incarnation) pair.held = [];
    pair.channel.send(incarnation, view, message);
    if (pair.channel.overflowed) this.#host.broken(`more than ${this.#heldLimit * unackedShare} messages to node ${nodeid} unacknowledged`);
    else if (!this.#crowded && pair.channel.unacked > this.#heldLimit) this.#setCrowded(true);
  }

  /** So much is on its way to some peer that clients must wait. */
  get crowded(): boolean {
    return this.#crowded;
  }

  #setCrowded(crowded: boolean): void {
    this.#crowded = crowded;
    this.#host.crowding();
  }

  #thinOut(): void {
    for (const { channel } of this.#pairs.values()) if (channel.unacked > this.#heldLimit / 2) return;
    this.#setCrowded(false);
  }

  /** A quorate view begins: nothing is kept for those who are not in it. */
  enterView(members: readonly Member[]): void {
    for (const [nodeid, { channel }] of this.#pairs) {
      channel.reopen();
      if (channel.incarnation !== null && !hasMember(members, nodeid, channel.incarnation)) channel.forsake();
    }
    if (this.#crowded) this.#thinOut();
  }

  linkUp(nodeid: number, incarnation: string): void {
    const pair = this.get(nodeid);
    if (pair.channel.incarnation !== incarnation) pair.held = [];
    pair.channel.linkUp(incarnation);
    pair.paused = false;
    this.adjustPause(nodeid, pair);
  }

  linkDown(nodeid: number, incarnation: string): void {
    const pair = this.get(nodeid);
    pair.paused = false;
    if (pair.channel.incarnation === incarnation) pair.channel.linkDown(this.#time.nowMs);
  }

  /** Tells peers what has arrived; from time to time. */
  acknowledge(): void {
    for (const { channel } of this.#pairs.values()) channel.acknowledge();
  }

  /** A frame; `incarnation`: at the other end of the connection on which it came. */
  receive(
    from: number,
    incarnation: string,
    messages: readonly PeerMessage[],
    use: (pair: Pair, arrival: Arrival, message: PeerMessage) => void,
  ): void {
    const pair = this.get(from);
    // Of a former life of that node.
    if (pair.channel.incarnation !== incarnation) return;
    for (const message of messages) use(pair, pair.channel.receive(message), message);
    if (this.#crowded) this.#thinOut();
    this.adjustPause(from, pair);
  }

  /** Looks again at everything that waits, in order. */
  review(use: (nodeid: number, pair: Pair, held: Held) => void): void {
    for (const [nodeid, pair] of this.#pairs) {
      if (pair.held.length === 0) continue;
      const held = pair.held;
      pair.held = [];
      for (const entry of held) use(nodeid, pair, entry);
      this.adjustPause(nodeid, pair);
    }
  }

  /** Beyond the limit the peer's connection is not read: it waits, nothing is dropped. */
  adjustPause(nodeid: number, pair: Pair): void {
    const pause = pair.held.length > this.#heldLimit;
    if (pause === pair.paused) return;
    pair.paused = pause;
    this.#host.pausePeer(nodeid, pause);
  }
}

/**
 * The channel between two incarnations of nodes, over any number of TCP connections: in order, nothing twice, nothing lost. What was sent
 * is kept until the peer has acknowledged it. A connection begins with RESUME both ways, which says how many messages have arrived; then
 * CONTINUE and what the other has not got. (Linux fs/dlm midcomms.c numbers messages for the same reason.)
 *
 * Messages have no numbers on the wire: TCP keeps their order, so both sides count.
 */
import type { PeerMessage } from "../wire/peer-message.ts";
import { noView, type ViewId } from "../wire/view-id.ts";

/** Received messages after which an acknowledgement goes out at once; otherwise with the next tick. */
const ackEvery = 512;

export interface ChannelPort {
  /** On the present connection. */
  transmit(nodeid: number, view: ViewId, message: PeerMessage): void;
}

interface Entry {
  readonly view: ViewId;
  readonly message: PeerMessage;
}

/** CONTINUE did not continue where the last connection ended. */
export type Arrival = "message" | "control" | "lost";

export class Channel {
  readonly nodeid: number;
  /** Both ends count for one incarnation of the peer. */
  incarnation: string | null = null;
  readonly #port: ChannelPort;
  readonly #limit: number;
  #up = false;
  /** The peer has said what it got, and has what came after. */
  #resumed = false;
  #sent = 0;
  #acked = 0;
  #received = 0;
  /** Of `#received`, what the peer knows. */
  #told = 0;
  #unacked: Entry[] = [];
  /** Since when there is no connection; null: there is one. */
  downSinceMs: number | null = null;
  #overflowed = false;

  constructor(nodeid: number, port: ChannelPort, limit: number) {
    this.nodeid = nodeid;
    this.#port = port;
    this.#limit = limit;
  }

  /** Messages that the peer has not acknowledged. */
  get unacked(): number {
    return this.#unacked.length;
  }

  /** More than the limit was unacknowledged: what was kept is gone, and what is sent goes nowhere, until `reopen`. */
  get overflowed(): boolean {
    return this.#overflowed;
  }

  /** For a new incarnation everything begins anew. */
  #become(incarnation: string): void {
    if (this.incarnation === incarnation) return;
    this.incarnation = incarnation;
    this.#up = false;
    this.#resumed = false;
    this.#sent = 0;
    this.#acked = 0;
    this.#received = 0;
    this.#told = 0;
    this.#unacked = [];
    this.#overflowed = false;
  }

  send(incarnation: string, view: ViewId, message: PeerMessage): void {
    this.#become(incarnation);
    this.#sent++;
    if (this.#overflowed) {
      this.#acked = this.#sent;
      return;
    }
    this.#unacked.push({ view, message });
    if (this.#up && this.#resumed) this.#port.transmit(this.nodeid, view, message);
    if (this.#unacked.length > this.#limit) this.#overflow();
  }

  #overflow(): void {
    this.#overflowed = true;
    this.#drop();
  }

  #drop(): void {
    this.#unacked = [];
    this.#acked = this.#sent;
  }

  /** A new view: the peer will learn that something is missing. */
  reopen(): void {
    if (!this.#overflowed) return;
    this.#overflowed = false;
    if (this.#resumed) this.#port.transmit(this.nodeid, noView, { kind: "continue", first: this.#sent + 1 });
  }

  /** The peer is not in the view: nothing is kept for it. */
  forsake(): void {
    this.#drop();
  }

  linkUp(incarnation: string): void {
    this.#become(incarnation);
    this.#up = true;
    this.#resumed = false;
    this.downSinceMs = null;
    this.#told = this.#received;
    this.#port.transmit(this.nodeid, noView, { kind: "resume", received: this.#received });
  }

  linkDown(nowMs: number): void {
    this.#up = false;
    this.#resumed = false;
    this.downSinceMs = nowMs;
  }

  /** Counts a message that arrived. "control": it was the channel's own. */
  receive(message: PeerMessage): Arrival {
    switch (message.kind) {
      case "resume":
        this.#resume(message.received);
        return "control";
      case "continue": {
        const lost = message.first !== this.#received + 1;
        this.#received = message.first - 1;
        this.#told = this.#received;
        return lost ? "lost" : "control";
      }
      case "ack":
        this.#acknowledged(message.received);
        return "control";
      default:
        this.#received++;
        if (this.#received - this.#told >= ackEvery) this.acknowledge();
        return "message";
    }
  }

  #resume(received: number): void {
    this.#acknowledged(received);
    this.#resumed = true;
    const first = this.#sent - this.#unacked.length + 1;
    this.#port.transmit(this.nodeid, noView, { kind: "continue", first });
    for (const { view, message } of this.#unacked) this.#port.transmit(this.nodeid, view, message);
  }

  #acknowledged(received: number): void {
    const fresh = Math.min(received, this.#sent) - this.#acked;
    if (fresh <= 0) return;
    this.#acked += fresh;
    // Once for hundreds of messages: what stays is copied, but not often.
    this.#unacked = this.#unacked.slice(fresh);
  }

  /** Tells the peer what has arrived, if it does not know. */
  acknowledge(): void {
    if (!this.#up || this.#told === this.#received) return;
    this.#told = this.#received;
    this.#port.transmit(this.nodeid, noView, { kind: "ack", received: this.#received });
  }
}

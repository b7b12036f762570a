/**
 * The receiving side of the ordered channel of one view: packets by sequence number, what is missing, what may be forgotten. Every member
 * keeps what is not yet stable, because a view change may have to fetch it from any of them.
 */
import { AssertionError } from "../../base/assert.ts";
import { maxRanges, orderWindow, type Range } from "../../wire/order-datagram.ts";

/** A packet further ahead is of no channel that works. */
const mostAhead: number = 2 * orderWindow;

export interface Packet {
  readonly seq: number;
  /** nodeid */
  readonly origin: number;
  readonly n: number;
  readonly body: Uint8Array;
}

export class Receiver {
  /** Everything up to it is here. */
  received = 0;
  delivered = 0;
  #highest = 0;
  /** Everything up to it is everywhere. */
  stable = 0;
  readonly #packets: Map<number, Packet> = new Map();

  /** The highest sequence number known to exist. */
  get highest(): number {
    return this.#highest;
  }

  /** The sequencer says that this one exists. What cannot be of this channel is not believed: all up to it would be asked for. */
  heardOf(seq: number): void {
    this.#highest = Math.max(this.#highest, Math.min(seq, this.received + mostAhead));
  }

  get kept(): number {
    return this.#packets.size;
  }

  /** False: it was here before, or cannot be of this channel. */
  accept(packet: Packet): boolean {
    const { seq } = packet;
    if (seq <= this.received || this.#packets.has(seq) || seq > this.received + mostAhead) return false;
    this.#packets.set(seq, packet);
    this.heardOf(seq);
    while (this.#packets.has(this.received + 1)) this.received++;
    return true;
  }

  get(seq: number): Packet | undefined {
    return this.#packets.get(seq);
  }

  /** The next packet in order, up to `limit`; null: there is none yet. */
  next(limit: number): Packet | null {
    if (this.delivered >= Math.min(limit, this.received)) return null;
    this.delivered++;
    const packet = this.#packets.get(this.delivered);
    if (packet === undefined) throw new AssertionError(`packet ${this.delivered} was forgotten before it was delivered`);
    return packet;
  }

  /** What is stable and delivered is kept no longer. */
  forget(stable: number): void {
    const upTo = Math.min(stable, this.delivered);
    for (let seq = this.stable + 1; seq <= upTo; seq++) this.#packets.delete(seq);
    this.stable = Math.max(this.stable, upTo);
  }

  /** Ranges that are not here, up to `limit`: as many as one NACK names. */
  missing(limit: number): Range[] {
    const ranges: Range[] = [];
    for (let seq = this.received + 1; seq <= limit && ranges.length < maxRanges; seq++) {
      if (this.#packets.has(seq)) continue;
      const from = seq;
      while (seq < limit && !this.#packets.has(seq + 1)) seq++;
      ranges.push({ from, to: seq });
    }
    return ranges;
  }

  /** Beyond `received`, as in OrderState. */
  held(): Uint8Array {
    const bits = new Uint8Array(orderWindow / 8);
    let last = -1;
    for (const seq of this.#packets.keys()) {
      const bit = seq - this.received - 1;
      if (bit < 0 || bit >= orderWindow) continue;
      bits[bit >> 3] = (bits[bit >> 3] as number) | (1 << (bit & 7));
      last = Math.max(last, bit);
    }
    return bits.slice(0, (last >> 3) + 1);
  }
}

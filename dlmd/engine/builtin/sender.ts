/**
 * The sending side of the ordered channel: messages wait in order, are packed, submitted, and forgotten when they come back ordered. In
 * a new view what did not come back is packed anew from where the view before ended (hazard M3), a message that was half through from
 * its beginning, so that none is spread over two views.
 */
import { ByteWriter } from "../../base/bytes.ts";
import { maxPacketBytes } from "../../wire/order-datagram.ts";
import { type Message, writeChunk } from "./chunk.ts";

/** Packets submitted and not yet back. */
export const sendWindow = 24;
/** If there were so many, the next ones wait for half of them to come back: together they travel as one datagram, one by one as many. */
const windowReopens: number = sendWindow / 2;
/** With so many under way a packet waits until it is full. */
const eagerPackets = 4;
/** Bytes of messages that wait; beyond: "full". */
export const queueLimitBytes: number = 8 * 1024 * 1024;
/** What a message costs beside its data. */
const messageCostBytes = 64;

interface Waiting {
  readonly message: Message;
  /** The packet that has its end; 0: not yet packed to its end. */
  lastN: number;
}

export class Sender {
  /** All that has not come back; what is before #first is done. */
  #queue: Waiting[] = [];
  #first = 0;
  /** What is packed next: index in the queue, offset in its data. */
  #at = 0;
  #offset = 0;
  #queuedBytes = 0;
  readonly #packets: Map<number, Uint8Array> = new Map();
  #nextN = 1;
  #windowShut = false;
  readonly #writer = new ByteWriter(maxPacketBytes, maxPacketBytes);

  get full(): boolean {
    return this.#queuedBytes >= queueLimitBytes;
  }
  /** There is room for half of what may wait. */
  get roomy(): boolean {
    return this.#queuedBytes <= queueLimitBytes / 2;
  }
  get underWay(): number {
    return this.#packets.size;
  }
  get waiting(): number {
    return this.#queue.length - this.#first;
  }

  push(message: Message): void {
    this.#queue.push({ message, lastN: 0 });
    this.#queuedBytes += message.data.byteLength + messageCostBytes;
  }

  /** Before everything else; only between two views, when nothing is packed. */
  pushFirst(message: Message): void {
    this.#queue.splice(this.#first, 0, { message, lastN: 0 });
    this.#queuedBytes += message.data.byteLength + messageCostBytes;
  }

  /** The next packet to submit; null: none, or enough are under way. */
  pack(): { n: number; body: Uint8Array } | null {
    if (this.#at >= this.#queue.length) return null;
    if (this.#packets.size >= sendWindow) this.#windowShut = true;
    else if (this.#packets.size <= windowReopens) this.#windowShut = false;
    if (this.#windowShut) return null;
    if (this.#packets.size >= eagerPackets && !this.#fillsPacket()) return null;
    const n = this.#nextN++;
    const w = this.#writer.reset();
    while (this.#at < this.#queue.length) {
      const waiting = this.#queue[this.#at] as Waiting;
      const offset = writeChunk(w, waiting.message, this.#offset, maxPacketBytes - w.length);
      if (offset < 0) break;
      this.#offset = offset;
      if (offset < waiting.message.data.byteLength) break;
      waiting.lastN = n;
      this.#at++;
      this.#offset = 0;
    }
    const body = w.copy();
    this.#packets.set(n, body);
    return { n, body };
  }

  #fillsPacket(): boolean {
    let bytes = -this.#offset;
    for (let i = this.#at; i < this.#queue.length && bytes < maxPacketBytes; i++) {
      const { message } = this.#queue[i] as Waiting;
      bytes += message.data.byteLength + message.group.byteLength + 8;
    }
    return bytes >= maxPacketBytes;
  }

  packet(n: number): Uint8Array | undefined {
    return this.#packets.get(n);
  }

  /** The packets under way, in order. */
  packets(): IterableIterator<[number, Uint8Array]> {
    return this.#packets.entries();
  }

  /** Our packet `n` came back ordered. */
  came(n: number): void {
    this.#packets.delete(n);
    while (this.#first < this.#queue.length) {
      const waiting = this.#queue[this.#first] as Waiting;
      if (waiting.lastN === 0 || waiting.lastN > n) break;
      this.#queuedBytes -= waiting.message.data.byteLength + messageCostBytes;
      this.#first++;
    }
    if (this.#first > 1024 && this.#first > this.#queue.length / 2) {
      this.#queue = this.#queue.slice(this.#first);
      this.#at -= this.#first;
      this.#first = 0;
    }
  }

  /** A new view: what did not come back goes again, after the last packet that did. `keep` false: the message is forgotten. */
  restart(lastN: number, keep: (message: Message) => boolean): void {
    this.#packets.clear();
    this.#windowShut = false;
    this.#queue = this.#queue.slice(this.#first).filter(({ message }) => keep(message));
    this.#queuedBytes = 0;
    for (const waiting of this.#queue) {
      waiting.lastN = 0;
      this.#queuedBytes += waiting.message.data.byteLength + messageCostBytes;
    }
    this.#first = 0;
    this.#at = 0;
    this.#offset = 0;
    this.#nextN = lastN + 1;
  }
}

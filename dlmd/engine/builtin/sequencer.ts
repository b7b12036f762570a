/**
 * The sequencer's side of the ordered channel: takes what senders submit, each in the order of its own numbers, and gives it sequence
 * numbers, one of each sender in turn. A bounded window stalls it, and so the senders, behind the slowest member.
 */
import type { Range } from "../../wire/order-datagram.ts";
import type { Packet } from "./receiver.ts";

/** Packets ordered and not yet received by all: well below orderWindow, since a receiver's socket holds about as many by default. */
const underWayLimit = 96;
/** Packets of one sender that wait for their turn or for an earlier one; what comes beyond is dropped and submitted again later. */
export const submitLimit = 128;

interface Source {
  readonly nodeid: number;
  /** Its last packet with a sequence number. */
  lastN: number;
  readonly waiting: Map<number, Uint8Array>;
  /** Since when its next packet is missing although later ones are here; null: it is not. */
  gapSinceMs: number | null;
}

interface Reader {
  received: number;
  /** When it last had more than before, or everything. */
  movedMs: number;
}

export class Sequencer {
  stable = 0;
  highest = 0;
  readonly #sources: Source[];
  readonly #readers: Map<number, Reader> = new Map();
  #turn = 0;

  /** `lastOf`: each sender's last packet delivered in the view before (hazard M3). */
  constructor(nodeids: readonly number[], lastOf: (nodeid: number) => number, nowMs: number) {
    this.#sources = nodeids.map((nodeid) => ({ nodeid, lastN: lastOf(nodeid), waiting: new Map(), gapSinceMs: null }));
    for (const nodeid of nodeids) this.#readers.set(nodeid, { received: 0, movedMs: nowMs });
  }

  submit(nodeid: number, n: number, body: Uint8Array, nowMs: number): void {
    const source = this.#sources.find((source) => source.nodeid === nodeid);
    if (source === undefined || n <= source.lastN || n > source.lastN + submitLimit || source.waiting.has(n)) return;
    source.waiting.set(n, body);
    this.#noteGap(source, nowMs);
  }

  #noteGap(source: Source, nowMs: number): void {
    const gap = source.waiting.size > 0 && !source.waiting.has(source.lastN + 1);
    if (!gap) source.gapSinceMs = null;
    else source.gapSinceMs ??= nowMs;
  }

  /** The next packet with its number; null: nothing waits, or the window is full. */
  order(nowMs: number): Packet | null {
    if (this.highest - this.stable >= underWayLimit) return null;
    for (let tried = 0; tried < this.#sources.length; tried++) {
      const source = this.#sources[this.#turn] as Source;
      this.#turn = (this.#turn + 1) % this.#sources.length;
      const n = source.lastN + 1;
      const body = source.waiting.get(n);
      if (body === undefined) continue;
      source.waiting.delete(n);
      source.lastN = n;
      this.#noteGap(source, nowMs);
      if (this.highest === this.stable) for (const reader of this.#readers.values()) reader.movedMs = nowMs;
      return { seq: ++this.highest, origin: source.nodeid, n, body };
    }
    return null;
  }

  /** That member has everything up to there. */
  acked(nodeid: number, received: number, nowMs: number): void {
    const reader = this.#readers.get(nodeid);
    if (reader === undefined || received <= reader.received || received > this.highest) return;
    reader.received = received;
    reader.movedMs = nowMs;
    let stable = this.highest;
    for (const { received } of this.#readers.values()) stable = Math.min(stable, received);
    this.stable = stable;
  }

  /** What to ask senders for again, because a later packet has been here for that long. */
  gaps(delayMs: number, nowMs: number): { nodeid: number; range: Range }[] {
    const asks: { nodeid: number; range: Range }[] = [];
    for (const source of this.#sources) {
      // As `gapDeadline` says it, to the last bit.
      if (source.gapSinceMs === null || nowMs < source.gapSinceMs + delayMs) continue;
      source.gapSinceMs = nowMs;
      const from = source.lastN + 1;
      let to = from;
      while (!source.waiting.has(to + 1)) to++;
      asks.push({ nodeid: source.nodeid, range: { from, to } });
    }
    return asks;
  }

  /** When to look for gaps again; Infinity: there is none. */
  gapDeadline(delayMs: number): number {
    let deadline = Number.POSITIVE_INFINITY;
    for (const { gapSinceMs } of this.#sources) if (gapSinceMs !== null) deadline = Math.min(deadline, gapSinceMs + delayMs);
    return deadline;
  }

  /** Members that lack something and have not moved for that long. */
  stuck(timeoutMs: number, nowMs: number): number[] {
    const nodeids: number[] = [];
    for (const [nodeid, reader] of this.#readers) {
      if (reader.received < this.highest && nowMs - reader.movedMs >= timeoutMs) nodeids.push(nodeid);
    }
    return nodeids;
  }
}

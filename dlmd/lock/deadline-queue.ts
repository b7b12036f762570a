/** Locks by the time at which their outstanding request ends: a binary heap; what was answered earlier is dropped when it comes up. */
import type { Lkb } from "./lkb.ts";

interface Entry {
  readonly atMs: number;
  readonly lkb: Lkb;
}

/** Dropped entries that may stay before all of them are thrown out. */
const droppedLimit = 1024;

export class DeadlineQueue {
  #heap: Entry[] = [];
  #dropped = 0;

  add(lkb: Lkb): void {
    this.#push({ atMs: lkb.deadlineMs, lkb });
  }

  /** One of the entries is of no use any more: its lock's deadline is another. */
  drop(): void {
    this.#dropped++;
    if (this.#dropped <= droppedLimit || this.#dropped * 2 <= this.#heap.length) return;
    const live = this.#heap.filter(isLive);
    this.#heap = [];
    this.#dropped = 0;
    for (const entry of live) this.#push(entry);
  }

  /** When `expired` has something to give; Infinity: never. */
  get nextMs(): number {
    this.#skip();
    return this.#heap[0]?.atMs ?? Number.POSITIVE_INFINITY;
  }

  /** The next lock whose request has run out of time. */
  expired(nowMs: number): Lkb | null {
    this.#skip();
    const first = this.#heap[0];
    if (first === undefined || first.atMs > nowMs) return null;
    this.#pop();
    return first.lkb;
  }

  #skip(): void {
    for (let first = this.#heap[0]; first !== undefined && !isLive(first); first = this.#heap[0]) {
      this.#pop();
      this.#dropped--;
    }
  }

  #push(entry: Entry): void {
    const heap = this.#heap;
    let i = heap.push(entry) - 1;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if ((heap[parent] as Entry).atMs <= entry.atMs) break;
      heap[i] = heap[parent] as Entry;
      i = parent;
    }
    heap[i] = entry;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop() as Entry;
    if (heap.length === 0) return;
    let i = 0;
    for (let child = 1; child < heap.length; child = 2 * i + 1) {
      if (child + 1 < heap.length && (heap[child + 1] as Entry).atMs < (heap[child] as Entry).atMs) child++;
      if ((heap[child] as Entry).atMs >= last.atMs) break;
      heap[i] = heap[child] as Entry;
      i = child;
    }
    heap[i] = last;
  }
}

function isLive({ atMs, lkb }: Entry): boolean {
  return lkb.deadlineMs === atMs;
}

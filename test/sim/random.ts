/** The simulator's own random numbers (mulberry32) and its queue of things to come. */

export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** From now on as if made with that seed. */
  reseed(seed: number): void {
    this.#state = seed >>> 0;
  }

  /** 0 <= x < 1 */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 0x1_0000_0000;
  }
  between(low: number, high: number): number {
    return low + this.next() * (high - low);
  }
  /** 0 <= i < below */
  int(below: number): number {
    return Math.floor(this.next() * below);
  }
  chance(share: number): boolean {
    return this.next() < share;
  }
  pick<T>(list: readonly T[]): T {
    return list[this.int(list.length)] as T;
  }
}

/**
 * Independent streams under one seed, by name: what is drawn for one thing does not change what is drawn for another, so that a run with
 * fewer faults is like the one with all of them (shrink.ts).
 */
export class Streams {
  readonly #seed: number;
  readonly #streams: Map<string, Random> = new Map();

  constructor(seed: number) {
    this.#seed = seed;
  }

  of(name: string): Random {
    let stream = this.#streams.get(name);
    if (stream === undefined) {
      // FNV-1a.
      let hash = 0x811c9dc5 ^ this.#seed;
      for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
      stream = new Random(Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d));
      this.#streams.set(name, stream);
    }
    return stream;
  }
}

interface Entry {
  readonly at: number;
  readonly order: number;
  readonly run: () => void;
}

/** By time, then by order of scheduling: a binary heap. */
export class Agenda {
  nowMs = 0;
  readonly #heap: Entry[] = [];
  #order = 0;

  get size(): number {
    return this.#heap.length;
  }

  at(atMs: number, run: () => void): void {
    const heap = this.#heap;
    const entry = { at: Math.max(atMs, this.nowMs), order: this.#order++, run };
    let i = heap.push(entry) - 1;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!before(entry, heap[parent] as Entry)) break;
      heap[i] = heap[parent] as Entry;
      i = parent;
    }
    heap[i] = entry;
  }

  /** Runs the next entry; false: there is none. */
  step(): boolean {
    const heap = this.#heap;
    const first = heap[0];
    if (first === undefined) return false;
    const last = heap.pop() as Entry;
    if (heap.length > 0) {
      let i = 0;
      for (;;) {
        let child = 2 * i + 1;
        if (child >= heap.length) break;
        if (child + 1 < heap.length && before(heap[child + 1] as Entry, heap[child] as Entry)) child++;
        if (!before(heap[child] as Entry, last)) break;
        heap[i] = heap[child] as Entry;
        i = child;
      }
      heap[i] = last;
    }
    this.nowMs = first.at;
    first.run();
    return true;
  }
}

function before(a: Entry, b: Entry): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order);
}

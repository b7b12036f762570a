/**
 * A Map from numbers for entries that come and go with each request. V8 gives a Map a new table whenever its last entry goes, and each
 * table keeps its successors alive until the old space is collected: so they all get there, and a map that is empty at rest fills it.
 * This one keeps its room. Open addressing, linear probing, deletion by moving entries back (Knuth, The Art of Computer Programming 3,
 * 6.4, algorithm R). What is listed is in no order.
 */
import { AssertionError } from "./assert.ts";

const SMALLEST_ROOM = 16;
/** The only number that is no key. */
const NONE = Number.NaN;

export class NumberMap<V> {
  #keys = emptyKeys(SMALLEST_ROOM);
  #values: (V | undefined)[] = emptyValues(SMALLEST_ROOM);
  #mask = SMALLEST_ROOM - 1;
  #shift = shiftOf(SMALLEST_ROOM);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** Places in its table. */
  get room(): number {
    return this.#mask + 1;
  }

  has(key: number): boolean {
    return this.#keys[this.#find(key)] === key;
  }

  get(key: number): V | undefined {
    return this.#values[this.#find(key)];
  }

  /** NaN: an assertion. */
  set(key: number, value: V): void {
    if (Number.isNaN(key)) throw new AssertionError("a number expected, found NaN");
    let at = this.#find(key);
    if (this.#keys[at] !== key) {
      if (this.#size * 2 > this.#mask) {
        this.#resize((this.#mask + 1) * 2);
        at = this.#find(key);
      }
      this.#keys[at] = key;
      this.#size += 1;
    }
    this.#values[at] = value;
  }

  /** False: it was not there. */
  delete(key: number): boolean {
    let free = this.#find(key);
    if (this.#keys[free] !== key) return false;
    this.#size -= 1;
    for (let at = (free + 1) & this.#mask; !Number.isNaN(this.#keys[at]); at = (at + 1) & this.#mask) {
      const home = placeOf(this.#keys[at] as number, this.#shift);
      // It would be found no more if it went before its own place.
      if (((at - home) & this.#mask) < ((at - free) & this.#mask)) continue;
      this.#keys[free] = this.#keys[at] as number;
      this.#values[free] = this.#values[at];
      free = at;
    }
    this.#keys[free] = NONE;
    this.#values[free] = undefined;
    if (this.#mask >= 8 * SMALLEST_ROOM && this.#size * 16 < this.#mask) this.#resize((this.#mask + 1) / 4);
    return true;
  }

  clear(): void {
    this.#makeRoom(SMALLEST_ROOM);
    this.#size = 0;
  }

  /** As they are now. */
  keys(): number[] {
    return [...this.#keys].filter((key) => !Number.isNaN(key));
  }

  /** As they are now, each where its key is in `keys`. */
  values(): V[] {
    return this.#values.filter((_, at) => !Number.isNaN(this.#keys[at])) as V[];
  }

  /** Where it is, or where it would be. */
  #find(key: number): number {
    let at = placeOf(key, this.#shift);
    for (;;) {
      const found = this.#keys[at];
      if (found === key || Number.isNaN(found)) return at;
      at = (at + 1) & this.#mask;
    }
  }

  #resize(room: number): void {
    const [keys, values] = [this.#keys, this.#values];
    this.#makeRoom(room);
    for (const [from, key] of keys.entries()) {
      if (Number.isNaN(key)) continue;
      const at = this.#find(key);
      this.#keys[at] = key;
      this.#values[at] = values[from];
    }
  }

  #makeRoom(room: number): void {
    this.#keys = emptyKeys(room);
    this.#values = emptyValues(room);
    this.#mask = room - 1;
    this.#shift = shiftOf(room);
  }
}

function emptyKeys(room: number): Float64Array {
  return new Float64Array(room).fill(NONE);
}

function emptyValues<V>(room: number): (V | undefined)[] {
  return Array.from({ length: room }, () => undefined);
}

/** How many of 32 bits are too many for a place in such a room (a power of two). */
function shiftOf(room: number): number {
  return Math.clz32(room) + 1;
}

/** Fibonacci hashing (Knuth, 6.4), of both halves: numbers that follow each other come apart. */
function placeOf(key: number, shift: number): number {
  return Math.imul((key >>> 0) ^ Math.floor(key / 0x1_0000_0000), 0x9e37_79b1) >>> shift;
}

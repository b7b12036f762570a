/**
 * A Map with a limit: the newest `room` entries at least, and twice as many at most. It forgets half of them at once, so that none is
 * looked for: the first entry of a Map is found behind all that were deleted before it.
 */
export class NewestMap<K, V> {
  readonly #room: number;
  #young = new Map<K, V>();
  #old = new Map<K, V>();

  constructor(room: number) {
    this.#room = room;
  }

  get(key: K): V | undefined {
    return this.#young.get(key) ?? this.#old.get(key);
  }

  /** Only if it is not next to go. */
  getNewest(key: K): V | undefined {
    return this.#young.get(key);
  }

  /** It is the newest only if it was not among the newest. */
  set(key: K, value: V): void {
    if (this.#young.size >= this.#room && !this.#young.has(key)) {
      this.#old = this.#young;
      this.#young = new Map();
    }
    this.#young.set(key, value);
  }

  delete(key: K): void {
    this.#young.delete(key);
    this.#old.delete(key);
  }
}

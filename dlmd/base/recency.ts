/**
 * An order of use: what was used last is the newest. A list through its members, so that nothing is searched and nothing is made anew. (A Map in which a
 * key is deleted and set again would do, if V8 did not leave a hole behind each time: those of one key are passed one by one until the table is made anew.)
 */
export interface Recent<T> {
  /** Of Recency only. */
  older: T | null;
  newer: T | null;
}

export class Recency<T extends Recent<T>> {
  #oldest: T | null = null;
  #newest: T | null = null;

  get oldest(): T | null {
    return this.#oldest;
  }

  /** It is in no order yet. */
  add(one: T): void {
    one.older = this.#newest;
    one.newer = null;
    if (this.#newest === null) this.#oldest = one;
    else this.#newest.newer = one;
    this.#newest = one;
  }

  /** It is in this order, and the newest from now on. */
  use(one: T): void {
    if (one === this.#newest) return;
    this.remove(one);
    this.add(one);
  }

  /** It is in this order. */
  remove(one: T): void {
    const { older, newer } = one;
    if (older === null) this.#oldest = newer;
    else older.newer = newer;
    if (newer === null) this.#newest = older;
    else newer.older = older;
    one.older = null;
    one.newer = null;
  }
}

/** In which order a program removes the names of a directory, as far as those that it has removed tell: `rm *` goes by the names, who removes the oldest first by the numbers. */

export type Order = "name" | "number";

/** So many removals in a row, each behind the one before it, are an order. Of such as go by the listing one in 24 is. */
export const ORDERED_MIN = 4;

export interface Named {
  readonly name: Buffer;
  readonly ino: number;
}

/** Above zero: `a` comes after `b`. */
const compare: Readonly<Record<Order, (a: Named, b: Named) => number>> = {
  name: (a, b) => Buffer.compare(a.name, b.name),
  number: (a, b) => a.ino - b.ino,
};

export class RemovalOrder {
  #last: Named | null = null;
  /** Removals in a row that went by it. */
  #byName = 0;
  #byNumber = 0;

  /** One more. */
  note(removed: Named): void {
    const last = this.#last;
    this.#byName = last !== null && compare.name(removed, last) > 0 ? this.#byName + 1 : 1;
    this.#byNumber = last !== null && compare.number(removed, last) > 0 ? this.#byNumber + 1 : 1;
    this.#last = removed;
  }

  /** null: none. */
  get order(): Order | null {
    if (Math.max(this.#byName, this.#byNumber) < ORDERED_MIN) return null;
    return this.#byName >= this.#byNumber ? "name" : "number";
  }

  /** Those that come after the last removal, the next one first. */
  rest<T extends Named>(names: readonly T[], order: Order): T[] {
    const last = this.#last;
    const rest = last === null ? [...names] : names.filter((one) => compare[order](one, last) > 0);
    return rest.sort(compare[order]);
  }
}

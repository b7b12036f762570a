/**
 * In which order a program goes through the names of a directory (changes-ahead.ts, files-ahead.ts), as far as those that it has come to tell: `rm *` goes by the
 * names; who counts, and comes to f9 before f10, by those with their digits read as numbers; who removes the oldest first by the inodes' numbers.
 */

/** The first of those that last as long counts. */
const ORDERS = ["name", "count", "number"] as const;
export type Order = (typeof ORDERS)[number];

/** So many in a row, each behind the one before it, are an order. Of such as go by the listing one in 24 is. */
export const ORDERED_MIN = 4;

export interface Named {
  readonly name: Buffer;
  readonly ino: number;
}

const isDigit = (byte: number | undefined): boolean => byte !== undefined && byte >= 0x30 && byte <= 0x39;

/** Where the digits end that begin there, and where they begin without the zeros before them. */
function digitsAt(name: Buffer, from: number): { readonly first: number; readonly end: number } {
  let first = from;
  while (name[first] === 0x30) first += 1;
  let end = first;
  while (isDigit(name[end])) end += 1;
  return { first, end };
}

/** As `sort -V` has them, where that is all that differs. */
function compareCounted(a: Buffer, b: Buffer): number {
  let [at, other] = [0, 0];
  while (at < a.length && other < b.length) {
    if (isDigit(a[at]) && isDigit(b[other])) {
      const [one, two] = [digitsAt(a, at), digitsAt(b, other)];
      const longer = one.end - one.first - (two.end - two.first);
      const differ = longer === 0 ? a.compare(b, two.first, two.end, one.first, one.end) : longer;
      if (differ !== 0) return differ;
      [at, other] = [one.end, two.end];
    } else {
      const differ = (a[at] ?? 0) - (b[other] ?? 0);
      if (differ !== 0) return differ;
      at += 1;
      other += 1;
    }
  }
  return a.length - at - (b.length - other) || Buffer.compare(a, b);
}

/** Above zero: `a` comes after `b`. */
const compare: Readonly<Record<Order, (a: Named, b: Named) => number>> = {
  name: (a, b) => Buffer.compare(a.name, b.name),
  count: (a, b) => compareCounted(a.name, b.name),
  number: (a, b) => a.ino - b.ino,
};

export class NameOrder {
  #last: Named | null = null;
  /** So many in a row went by it. */
  readonly #inARow: Record<Order, number> = { name: 0, count: 0, number: 0 };

  /** One more. */
  note(one: Named): void {
    const last = this.#last;
    for (const order of ORDERS) this.#inARow[order] = last !== null && compare[order](one, last) > 0 ? this.#inARow[order] + 1 : 1;
    this.#last = one;
  }

  isLast(name: Buffer): boolean {
    return this.#last?.name.equals(name) === true;
  }

  /** How many in a row went by the order that lasts the longest. */
  get lasted(): number {
    const { name, count, number } = this.#inARow;
    return Math.max(name, count, number);
  }

  /** null: none. */
  get order(): Order | null {
    const { lasted } = this;
    return lasted < ORDERED_MIN ? null : (ORDERS.find((order) => this.#inARow[order] === lasted) ?? null);
  }

  /** Those that come after the last one, the next one first. */
  rest<T extends Named>(names: readonly T[], order: Order): T[] {
    const last = this.#last;
    const rest = last === null ? [...names] : names.filter((one) => compare[order](one, last) > 0);
    return rest.sort(compare[order]);
  }
}

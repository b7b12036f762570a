/**
 * What happened to one group in one view, packet by packet of the ordered channel, as all its members together have seen it. A member sees
 * all of a packet, or, if it joined or left in it, a piece.
 */
export interface Sight {
  /** The packet; 0: at the beginning of the view. */
  readonly seq: number;
  readonly items: readonly string[];
  readonly whole: boolean;
}

interface Ended {
  readonly who: string;
  readonly from: number;
  readonly to: number;
}

export class Row {
  readonly #whole: Map<number, readonly string[]> = new Map();
  readonly #pieces: Map<number, (readonly string[])[]> = new Map();
  readonly #ended: Ended[] = [];

  /** What is wrong with it, in words; null: it fits. */
  see(who: string, { seq, items, whole }: Sight): string | null {
    const known = this.#whole.get(seq);
    if (!whole) {
      const pieces = this.#pieces.get(seq) ?? [];
      this.#pieces.set(seq, [...pieces, items]);
      return known === undefined || contains(known, items) ? null : differ(who, seq, items, known);
    }
    if (known !== undefined) return same(known, items) ? null : differ(who, seq, items, known);
    this.#whole.set(seq, items);
    const piece = this.#pieces.get(seq)?.find((piece) => !contains(items, piece));
    if (piece !== undefined) return differ(who, seq, items, piece);
    const missed = this.#ended.find((ended) => seq > ended.from && seq <= ended.to);
    return missed === undefined ? null : `${who} sees ${items.join(" | ")} in packet ${seq}, which ${missed.who} never saw`;
  }

  /** That member was in the group from packet `from` to the end of the view, packet `to`; it saw that many whole packets after `from`. */
  end(who: string, from: number, to: number, seen: number): string | null {
    let there = 0;
    for (const seq of this.#whole.keys()) if (seq > from && seq <= to) there++;
    this.#ended.push({ who, from, to });
    return there === seen ? null : `${who} saw ${seen} packets after ${from} up to ${to}, there were ${there}`;
  }
}

function same(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((item, i) => item === b[i]);
}

function contains(whole: readonly string[], piece: readonly string[]): boolean {
  return whole.some((_, at) => same(whole.slice(at, at + piece.length), piece));
}

function differ(who: string, seq: number, items: readonly string[], known: readonly string[]): string {
  return `packet ${seq}: ${who} sees "${items.join(" | ")}", another saw "${known.join(" | ")}"`;
}

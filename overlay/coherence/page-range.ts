/** Pages of a file. */
export const PAGE_BYTES = 4096;

/** Bytes of a file, from and up to. */
export interface PageRange {
  readonly from: number;
  readonly to: number;
}

export function overlap(a: PageRange, b: PageRange): boolean {
  return a.from < b.to && b.from < a.to;
}

/** What of a range is in none of `others`. */
export function without(range: PageRange, others: Iterable<PageRange>): PageRange[] {
  let left = [range];
  for (const { from, to } of others) {
    left = left.flatMap((part) => [
      { from: part.from, to: Math.min(part.to, from) },
      { from: Math.max(part.from, to), to: part.to },
    ]);
    left = left.filter((part) => part.from < part.to);
  }
  return left;
}

/** What was written to one page. */
export interface PagePart {
  readonly offset: number;
  readonly data: Uint8Array;
}

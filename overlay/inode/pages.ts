/** Pages of a file, and what an inode remembers of the requests that have them: op/overlap.ts, op/write-order.ts and op/append-end.ts have the rules. */
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

export interface PendingRead extends PageRange {
  /** Whose call it is, if the kernel has pages of it locked until it is answered: by a cached handle, or a private mapping of any. */
  readonly locks: { readonly interrupted: boolean } | null;
  /** Its pages were written since its data were read. */
  outdated: boolean;
}

/** What a READ brought, after how many sweeps of the inode's pages (Cover.sweeps), and to which thread. */
export interface Reread extends PageRange {
  readonly tid: number;
  readonly sweep: number;
}

/** WRITEs and write-backs of one file, numbered as they came. */
export interface WriteOrder {
  last: number;
  /** WRITEs that the lower has not answered; the first that came first, as in any Set. */
  readonly making: Set<number>;
  /** Write-backs that are not answered, and those of them that are in the lower or wait for WRITEs. */
  writeBacks: number;
  readonly writingBack: Set<number>;
  /** What was made, where pages from before may be left. */
  readonly made: Set<{ readonly offset: number; readonly data: Uint8Array; readonly call: { readonly interrupted: boolean } }>;
  waiting: (() => void)[];
}

/** What holds READs back. `pages`: those that the READ has locked, if it has. */
export interface AppendEnd {
  heldBack(pages: PageRange | null): Promise<void>;
}

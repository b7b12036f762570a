/**
 * A file system as a sequence of blocks, and a crash between any two of its writes. What may be there afterwards follows from the flushes
 * alone. Sources: the crash model of Bornholt et al., "Specifying and Checking File System Crash-Consistency Models" (ASPLOS 2016), and
 * fsync(2). A block is written whole or not at all; its writes reach the disk in any order until a flush.
 */

export type BlockNumber = number;

/** What is done to a disk, in the order in which it is told to. */
export type DiskCall<Content> =
  | { readonly kind: "write"; readonly block: BlockNumber; readonly content: Content }
  /** All writes before it are on the disk when it returns. */
  | { readonly kind: "flush" };

export type Disk<Content> = ReadonlyMap<BlockNumber, Content>;

/** More writes than that between two flushes are not gone through: each doubles the disks. */
export const MAX_UNFLUSHED_WRITES = 16;

/**
 * Every disk that a crash may leave, if it comes after the first `told` calls. Of the writes since the last flush any set may be there; of
 * two to one block the disk has the later one of those that are.
 */
export function afterCrash<Content>(before: Disk<Content>, calls: readonly DiskCall<Content>[], told: number): Disk<Content>[] {
  const sure = new Map(before);
  let open: { readonly block: BlockNumber; readonly content: Content }[] = [];
  for (const call of calls.slice(0, told)) {
    if (call.kind === "write") open.push(call);
    else {
      for (const { block, content } of open) sure.set(block, content);
      open = [];
    }
  }
  if (open.length > MAX_UNFLUSHED_WRITES)
    throw new RangeError(`${open.length} writes without a flush, at most ${MAX_UNFLUSHED_WRITES} are gone through`);
  return Array.from({ length: 2 ** open.length }, (_, chosen) => {
    const disk = new Map(sure);
    for (const [at, { block, content }] of open.entries()) if ((chosen & (2 ** at)) !== 0) disk.set(block, content);
    return disk;
  });
}

/** Every disk of every moment: the calls were cut short anywhere. */
export function afterAnyCrash<Content>(before: Disk<Content>, calls: readonly DiskCall<Content>[]): Disk<Content>[] {
  return Array.from({ length: calls.length + 1 }, (_, told) => afterCrash(before, calls, told)).flat();
}

/** A group of blocks that must change together, through a journal: write-ahead logging, as jbd2 does it. */
export interface Journal<Content> {
  /** Where the copies are, in order; one block more for the commit. */
  readonly copies: readonly BlockNumber[];
  readonly commit: BlockNumber;
  readonly committed: Content;
  readonly empty: Content;
}

/** The script of one transaction. Each flush is a barrier that its name in jbd2 has, too. */
export function transaction<Content>(
  changes: readonly (readonly [BlockNumber, Content])[],
  journal: Journal<Content>,
): DiskCall<Content>[] {
  if (changes.length > journal.copies.length) throw new RangeError("the journal is too small for the transaction");
  const flush: DiskCall<Content> = { kind: "flush" };
  const write = (block: BlockNumber, content: Content): DiskCall<Content> => ({ kind: "write", block, content });
  return [
    ...changes.map(([, content], at) => write(journal.copies[at] ?? 0, content)),
    flush, // The copies are there before the commit says so.
    write(journal.commit, journal.committed),
    flush, // The commit is there before a block in place changes; fsync(2) may return from here on.
    ...changes.map(([block, content]) => write(block, content)),
    flush, // The blocks are in place before the journal is empty again.
    write(journal.commit, journal.empty),
    flush,
  ];
}

/** What a mount does first: a transaction whose commit is there is done again. `blocks`: which ones it changes, in the order of the copies. */
export function replay<Content>(disk: Disk<Content>, blocks: readonly BlockNumber[], journal: Journal<Content>): Disk<Content> {
  if (disk.get(journal.commit) !== journal.committed) return disk;
  const replayed = new Map(disk);
  for (const [at, block] of blocks.entries()) {
    const copy = disk.get(journal.copies[at] ?? 0);
    if (copy !== undefined) replayed.set(block, copy);
  }
  return replayed.set(journal.commit, journal.empty);
}

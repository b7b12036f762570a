/**
 * All that the kernel caches is dropped at once, whatever the locks say (hazards F7, H1): names by INC_EPOCH, which waits for nothing, then attributes and
 * pages inode by inode, in one pass over all of them.
 *
 * Few threads do that (1.2 us an inode without pages, 2.5 with one; a job of a pool for each took 10). A notification that waits for a page which a
 * request holds keeps its thread, perhaps until the lease holds again; the others go on, and when all of them wait there are more. The
 * attributes of such an inode are gone: those the kernel drops before the pages (fs/fuse/inode.c, fuse_reverse_inval_inode).
 */
import { setTimeout as sleep } from "node:timers/promises";
import { E, errnoName } from "../../../dlmd/base/errno.ts";
import { type Inode, kernelKnows } from "../cover.ts";
import { inTime } from "../../../dlmd/base/maybe-promise.ts";

/** Notifications of many inodes, of which each thread takes the next that none has taken. */
export interface InodeBatch {
  /** One more thread; resolves when none is left to be taken, and its last is done: 0, or a negative errno: there is no thread. */
  write(): Promise<number>;
  /** How many were taken. */
  begun(): number;
  /** By twos: the place of an inode, and the negative errno that it met. Each is given once. */
  refused(): readonly number[];
}

export interface Dropped {
  readonly inodes: number;
  /** Of these, what still waits for a page. */
  readonly waiting: number;
  /** What the kernel was told and has not found, so that it may come yet (hazard F4). */
  readonly absent: number;
  /** Nothing waits any more. */
  readonly over: Promise<unknown>;
}

/** Threads at first, and at most: as many notifications may wait. */
const WRITERS = 2;
const WRITERS_MAX = 2048;
/** No inode was taken for so long: all threads wait, and there are twice as many from then on. */
const STALL_MS = 5;
/** An inode that was not found is looked for again so often: after 1 ms, and then twice as long each time. */
const ABSENT_TRIES = 7;
/** Inodes of one pass: fewer than a batch may have (native, kMessagesMax). */
const PASS_MAX = 500_000;

/** The mount is going away, and its caches with it. */
const gone: ReadonlySet<number> = new Set([-E.ENOTCONN, -E.ENODEV]);

/**
 * What programs can reach without a name, which they would have to ask for again, comes first: files that are open or mapped, and the
 * directories in which they may stand.
 */
export function dropOrder(inodes: readonly Inode[]): readonly Inode[] {
  const open = inodes.filter(({ openCount }) => openCount > 0);
  const directories = inodes.filter(({ openCount, kind }) => openCount === 0 && kind === "directory");
  return [...open, ...directories, ...inodes.filter(({ openCount, kind }) => openCount === 0 && kind !== "directory")];
}

/** Resolves when all are dropped but those that wait. `triesMax`: how often what was not found is looked for again. Throws if the kernel refuses what it must not, or there is no thread. */
export async function dropInodes(
  invalidateMany: (fuseNodeids: readonly number[]) => InodeBatch,
  inodes: readonly Inode[],
  triesMax: number = ABSENT_TRIES,
): Promise<Dropped> {
  const ordered = dropOrder(inodes);
  const writing = new Set<Promise<unknown>>();
  const late: (() => readonly Inode[])[] = [];
  const pass = async (wanted: readonly Inode[]): Promise<readonly Inode[]> => {
    const absent: Inode[] = [];
    for (let at = 0; at < wanted.length; at += PASS_MAX) {
      const some = wanted.slice(at, at + PASS_MAX);
      const batch = invalidateMany(some.map(({ fuseNodeid }) => fuseNodeid));
      await writeAll(batch, some.length, writing);
      absent.push(...absentOf(some, batch.refused()));
      late.push(() => absentOf(some, batch.refused()));
    }
    return absent;
  };
  let left = await pass(ordered);
  for (let tries = 0; left.length > 0 && tries < triesMax; tries += 1) {
    await sleep(2 ** tries);
    left = await pass(left.filter(({ cover }) => kernelKnows(cover)));
  }
  // A thread that was held up after its last inode tells what it met when it is done.
  const rest = async (): Promise<void> => {
    await Promise.all(writing);
    const found = late.flatMap((refused) => refused());
    if (found.length > 0) await (await dropInodes(invalidateMany, found)).over;
  };
  return { inodes: inodes.length, waiting: writing.size, absent: left.length, over: rest() };
}

/** What was not found though the kernel was told of it, and has not given it back since. */
function absentOf(inodes: readonly Inode[], refused: readonly number[]): readonly Inode[] {
  const absent: Inode[] = [];
  for (let at = 0; at < refused.length; at += 2) {
    const inode = inodes[refused[at] as number] as Inode;
    const result = refused[at + 1] as number;
    if (result === -E.ENOENT) absent.push(inode);
    else if (!gone.has(result)) throw new Error(`the kernel refused to drop what it caches of ${inode.cover.key}: ${errnoName(-result)}`);
  }
  return absent.filter(({ cover }) => kernelKnows(cover));
}

async function writeAll(batch: InodeBatch, count: number, writing: Set<Promise<unknown>>): Promise<void> {
  let running = 0;
  let end = (): void => {};
  let fail = (_error: unknown): void => {};
  const all = new Promise<void>((resolve, reject) => {
    end = resolve;
    fail = reject;
  });
  // Of one that goes on after this pass, `over` tells.
  all.catch(() => undefined);
  const start = (): void => {
    running += 1;
    const writer = write(batch);
    writing.add(writer);
    writer
      .finally(() => {
        running -= 1;
        writing.delete(writer);
      })
      .then(() => (running === 0 ? end() : undefined), fail);
  };
  for (let writers = 0; writers < WRITERS; writers += 1) start();
  let begun = 0;
  while (!(await inTime(all, STALL_MS))) {
    const before = begun;
    begun = batch.begun();
    if (begun > before) continue;
    if (begun === count) return;
    for (let more = Math.min(running, WRITERS_MAX - running); more > 0; more -= 1) start();
  }
}

async function write(batch: InodeBatch): Promise<void> {
  const result = await batch.write();
  if (result < 0) throw new Error(`no thread to drop what the kernel caches: ${errnoName(-result)}`);
}

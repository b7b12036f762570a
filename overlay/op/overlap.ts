/**
 * READs and WRITEs of the same pages, where the kernel's page locks do not keep them apart.
 *
 * A WRITE through a page cache comes here when its pages are filled; but between the first of them and that moment, and then until the lower has its data, they
 * may be dropped, and a READ bring them back as they were. A revoke drops them, and so does the kernel by itself with any attributes that say another mtime
 * than it knew (AUTO_INVAL_DATA; fs/fuse/inode.c, fuse_change_attributes): those of a stat beside the last write are enough. read(2) asks for attributes again
 * after the WRITE, and finds the old page out by its mtime; a mapping and splice(2) ask nobody. So what was read since the last revoke, by another thread than the writer's, is dropped
 * before the WRITE is answered. (What the writer's own thread read it had read before it filled a page.) And a READ whose data are older than a WRITE of
 * the same pages reads again.
 */
import type { InodeRecord, PageRange, PendingRead, Reread } from "../inode/table.ts";
import { inTime } from "../lower/maybe.ts";
import type { Mount } from "./mount.ts";
import { isWrittenBack } from "./write-order.ts";

/** Ranges that are remembered; when there are more, it is the whole file. */
export const REREADS_MAX = 256;
/** The page of a READ may wait for the WRITE's caller, who has the inode's lock. */
const DROP_WAIT_MS = 250;
export const PAGE_BYTES = 4096;

/** A READ begins, or is being answered: it brings pages, and those outlive the handle that they came through. */
export function noteRead(inode: InodeRecord): void {
  inode.readSweep = inode.cover.sweeps;
}

/** The kernel may have pages of it: there was a READ since a revoke dropped them all. */
export function mayHavePages(inode: InodeRecord): boolean {
  return inode.readSweep === inode.cover.sweeps;
}

/** Null: there is no writer with a page cache. */
export function beginRead(inode: InodeRecord, from: number, bytes: number): PendingRead | null {
  if (inode.cover.token === null) return null;
  const read = { from, to: from + bytes, outdated: false };
  inode.pendingReads ??= new Set();
  inode.pendingReads.add(read);
  return read;
}

export function isOutdated(read: PendingRead | null): boolean {
  return read !== null && read.outdated;
}

export function endRead(inode: InodeRecord, read: PendingRead): void {
  inode.pendingReads?.delete(read);
  if (inode.pendingReads?.size === 0) inode.pendingReads = null;
}

/** To be called in the turn of the answer; `tid`: the calling thread. */
export function answerRead(inode: InodeRecord, { from, to }: PageRange, tid: number): void {
  const { sweeps, token } = inode.cover;
  if (token === null || token.users === 0) return;
  const read = { from, to, tid, sweep: sweeps };
  const rereads = (inode.rereads = mayBeLeft(inode));
  if (rereads.length < REREADS_MAX) rereads.push(read);
  else inode.rereads = [{ from: 0, to: Number.MAX_SAFE_INTEGER, tid: 0, sweep: sweeps }];
}

/** What was read and no revoke has dropped; one that is on its way may not have come to it yet. */
function mayBeLeft({ rereads, cover }: InodeRecord): Reread[] {
  if (rereads === null) return [];
  return cover.notifying || rereads[0]?.sweep === cover.sweeps ? rereads : rereads.filter((read) => read.sweep === cover.sweeps);
}

/** To be called in the turn in which the lower has answered a WRITE. */
export function outdateReads(inode: InodeRecord, write: PageRange): void {
  if (inode.pendingReads === null) return;
  for (const read of inode.pendingReads) read.outdated ||= overlap(read, write);
}

/** Before a WRITE is answered that came through a page cache; gives what is left to wait for after that. */
export async function dropReread(mount: Mount, inode: InodeRecord, write: PageRange, tid: number): Promise<(() => Promise<void>) | null> {
  const rereads = mayBeLeft(inode);
  const stale = rereads.filter((read) => read.tid !== tid && overlap(read, write));
  if (stale.length === 0) return null;
  const others = rereads.filter((read) => !stale.includes(read));
  inode.rereads = others.length === 0 ? null : others;
  const page = heldPage(write);
  const outside = Promise.all(
    stale.flatMap((read) => around(read, page)).map(({ from, to }) => mount.coherence.dropPages(inode, from, to - from)),
  );
  const readers = page === null ? [] : stale.filter((read) => overlap(read, page)).map((read) => read.tid);
  const held =
    page === null || readers.length === 0 ? null : mount.coherence.dropHeldPage(inode, page.from, readers, () => isWrittenBack(inode));
  const gone = await Promise.all([inTime(outside, DROP_WAIT_MS), held?.gone ?? true]);
  if (!gone.includes(false)) return null;
  return async () => {
    await outside;
    await held?.dropped;
  };
}

/**
 * The page that a WRITE may have locked: its last, if it fills a part of it. Those that it fills whole are up to date, and unlocked before it is sent
 * (fs/fuse/file.c, fuse_fill_write_pages); it ends with one that is not.
 */
function heldPage({ from, to }: PageRange): PageRange | null {
  if (to % PAGE_BYTES === 0 && to - from >= PAGE_BYTES) return null;
  const start = Math.floor((to - 1) / PAGE_BYTES) * PAGE_BYTES;
  return { from: start, to: start + PAGE_BYTES };
}

function around({ from, to }: PageRange, page: PageRange | null): PageRange[] {
  if (page === null) return [{ from, to }];
  const parts = [
    { from, to: Math.min(to, page.from) },
    { from: Math.max(from, page.to), to },
  ];
  return parts.filter((part) => part.from < part.to);
}

function overlap(a: PageRange, b: PageRange): boolean {
  return a.from < b.to && b.from < a.to;
}

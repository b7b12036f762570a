/**
 * READs and WRITEs of the same pages, where the kernel's page locks do not keep them apart (AUTO_INVAL_DATA; fs/fuse/inode.c,
 * fuse_change_attributes). Why a WRITE drops what others have read: overlay/coherence/pages/README.md, "READs, WRITEs and mappings of the same pages".
 */
import type { Coherence } from "../api.ts";
import { overlap, PAGE_BYTES, type PagePart, type PageRange, without } from "../page-range.ts";
import { dropRequests, type PagedInode, type PendingRead, requestsOf, type Reread } from "./paged-inode.ts";
import { isGone } from "./held-page.ts";
import { isWrittenBack } from "./write-order.ts";

/** A WRITE's caller: the thread, and whether it is being killed. */
interface WriteCall {
  readonly pid: number;
  readonly interrupted: boolean;
}

/** Ranges that are remembered; when there are more, it is the whole file. */
export const REREADS_MAX = 256;

/** A READ begins, or is being answered: it brings pages, and those outlive the handle that they came through. */
export function noteRead(inode: PagedInode): void {
  inode.readSweep = inode.cover.sweeps;
}

/** The kernel may have pages of it: there was a READ since a revoke dropped them all. */
export function mayHavePages(inode: PagedInode): boolean {
  return inode.readSweep === inode.cover.sweeps;
}

/** To be called before its lock is waited for. Null: it locks no pages, and there is no writer with a page cache. */
export function beginRead(inode: PagedInode, from: number, bytes: number, locks: PendingRead["locks"]): PendingRead | null {
  if (inode.cover.token === null && locks === null) return null;
  const read = { from, to: from + bytes, locks, outdated: false };
  const requests = requestsOf(inode);
  requests.pendingReads ??= new Set();
  requests.pendingReads.add(read);
  return read;
}

export function isOutdated(read: PendingRead | null): boolean {
  return read !== null && read.outdated;
}

export function endRead(inode: PagedInode, read: PendingRead): void {
  const { requests } = inode;
  if (requests === null) return;
  requests.pendingReads?.delete(read);
  if (requests.pendingReads?.size !== 0) return;
  requests.pendingReads = null;
  dropRequests(inode);
}

/** To be called in the turn of the answer; `tid`: the calling thread. */
export function answerRead(inode: PagedInode, { from, to }: PageRange, tid: number): void {
  const { sweeps, token } = inode.cover;
  if (token === null || token.users === 0) return;
  const read = { from, to, tid, sweep: sweeps };
  const requests = requestsOf(inode);
  const rereads = (requests.rereads = mayBeLeft(inode));
  if (rereads.length < REREADS_MAX) rereads.push(read);
  else requests.rereads = [{ from: 0, to: Number.MAX_SAFE_INTEGER, tid: 0, sweep: sweeps }];
}

/** What was read and no revoke has dropped; one that is on its way may not have come to it yet. */
function mayBeLeft({ requests, cover }: PagedInode): Reread[] {
  const rereads = requests?.rereads ?? null;
  if (rereads === null) return [];
  return cover.revoke?.notifying === true || rereads[0]?.sweep === cover.sweeps
    ? rereads
    : rereads.filter((read) => read.sweep === cover.sweeps);
}

/** To be called in the turn in which the lower has answered a WRITE, or has made a hole or a copy. */
export function outdateReads(inode: PagedInode, write: PageRange): void {
  for (const read of inode.requests?.pendingReads ?? []) read.outdated ||= overlap(read, write);
}

/** A WRITE of that range that came through a page cache leaves pages to drop. */
export function hasReread(inode: PagedInode, write: PageRange, call: WriteCall): boolean {
  return mayBeLeft(inode).some((read) => isStaleAfter(read, write, call));
}

function isStaleAfter(read: Reread, write: PageRange, { pid }: WriteCall): boolean {
  return read.tid !== pid && overlap(read, write);
}

/** Before a WRITE of `made` is answered that came through a page cache; gives what is left to wait for after that. */
export async function dropReread(
  coherence: Coherence,
  inode: PagedInode,
  made: PagePart,
  call: WriteCall,
): Promise<(() => Promise<void>) | null> {
  const write = { from: made.offset, to: made.offset + made.data.byteLength };
  const rereads = mayBeLeft(inode);
  const stale = rereads.filter((read) => isStaleAfter(read, write, call));
  if (stale.length === 0) return null;
  const others = rereads.filter((read) => !stale.includes(read));
  requestsOf(inode).rereads = others.length === 0 ? null : others;
  dropRequests(inode);
  // The kernel has let go of the page of a caller that was killed, and maybe of the inode: it must not be asked for in this thread.
  const page = call.interrupted ? null : heldPage(write);
  const outside = stale
    .flatMap((read) => without(read, page === null ? [] : [page]))
    .map((part) => ({ part, dropped: coherence.dropPages(inode, part.from, part.to - part.from) }));
  const readers = page === null ? [] : stale.filter((read) => overlap(read, page)).map((read) => read.tid);
  const held =
    page === null || readers.length === 0
      ? null
      : coherence.dropHeldPage(inode, within(page, made), readers, {
          isWrittenBack: () => isWrittenBack(inode),
          mayLast: () => call.interrupted || isBeingRead(inode, page),
        });
  // The WRITE has none of these locked. All else but a READ ends by itself; and a write-back may not have been read from the device.
  const mayLast = (part: PageRange): boolean => call.interrupted || (isBeingRead(inode, part) && !isWrittenBack(inode));
  const outsideGone = outside.map(({ part, dropped }) => isGone(dropped, () => mayLast(part)));
  const gone = await Promise.all([...outsideGone, held?.gone ?? true]);
  if (!gone.includes(false)) return null;
  return async () => {
    await Promise.all(outside.map(({ dropped }) => dropped));
    await held?.dropped;
  };
}

/**
 * Before a hole is answered, or what was copied: the pages go that a mapping may have stored to, and that have the rest of it from before. Gives what is left to wait for after
 * that. A READ that has one locked may wait for the kernel's size, which may wait for this call.
 */
export async function dropStored(
  coherence: Coherence,
  inode: PagedInode,
  made: PageRange,
  call: WriteCall,
): Promise<(() => Promise<void>) | null> {
  const dropped = coherence.dropPages(inode, made.from, made.to - made.from);
  const mayLast = (): boolean => call.interrupted || (isBeingRead(inode, made) && !isWrittenBack(inode));
  return (await isGone(dropped, mayLast)) ? null : () => dropped;
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

/** A READ has pages of that range locked, and its caller was not killed: the kernel lets go of them then. It began before the WRITE was made, and brings what that has made; or after it. */
function isBeingRead({ requests }: PagedInode, range: PageRange): boolean {
  for (const read of requests?.pendingReads ?? []) if (read.locks?.interrupted === false && overlap(read, range)) return true;
  return false;
}

function within(page: PageRange, { offset, data }: PagePart): PagePart {
  const from = Math.max(page.from, offset);
  return { offset: from, data: data.subarray(from - offset) };
}

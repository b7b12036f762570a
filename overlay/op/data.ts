/** READ, FSYNC, FALLOCATE, LSEEK, COPY_FILE_RANGE. WRITE has a file of its own. */
import { E, errnoError, isErrno } from "../../dlmd/base/errno.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import type { Since } from "../coherence/cover.ts";
import { isSentinelOffset } from "../coherence/size/sentinel.ts";
import type { CopyFileRangeRequest, FallocateRequest, FsyncdirRequest, FsyncRequest, LseekRequest, ReadRequest } from "../fuse/request.ts";
import type { OpenFile } from "../inode/handles.ts";
import { PAGE_BYTES, type PageRange } from "../coherence/page-range.ts";
import type { InodeRecord } from "../inode/table.ts";
import { largeBuffers } from "../lower/large-buffers.ts";
import { changeFor } from "../lower/lower.ts";
import { andThen, finallyDo, type MaybePromise } from "../../dlmd/base/maybe-promise.ts";
import type { Call } from "./call.ts";
import { attributesChanged, changed, resized, sizeReplied } from "./change.ts";
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE, O_DIRECT } from "./linux.ts";
import { fileOf, type Mount, waiting } from "./mount.ts";
import { answerRead, beginRead, dropStored, endRead, isOutdated, noteRead, outdateReads } from "../coherence/pages/overlap.ts";
import { Overwrite } from "../coherence/pages/write-order.ts";
import { dropChanged } from "./orphans.ts";
import { pinnedAll, pinnedData } from "./pinned.ts";
import { afterKill, checkReach, hasSetId, killSetId } from "./set-id.ts";

/** What is left to wait for after the answer, and the pins; null: nothing. */
type Left = (() => Promise<void>) | null;

const NOTHING = new Uint8Array(0);

export async function read(mount: Mount, call: Call, request: ReadRequest): Promise<void> {
  const { coherence, lower } = mount;
  const file = fileOf(mount, request.fh);
  const { inode } = file;
  const mode = coherence.readMode(inode, file.writable);
  // Any READ may hold a page: a private mapping of a direct handle has pages like any other (fs/fuse/file.c, fuse_file_mmap).
  const locked = lockedPages(request, file);
  // One that goes by the page cache has no lock owner (fs/fuse/file.c, fuse_send_read).
  const pending = beginRead(inode, request.offset, request.size, request.lockOwner === 0n ? call : null);
  try {
    const pin = coherence.pinData(inode, mode, true, call, locked);
    if (waiting(pin)) await pin;
  } catch (error) {
    if (pending !== null) endRead(inode, pending);
    throw error;
  }
  let counted = false;
  let pinned = true;
  let refused = false;
  noteRead(inode);
  try {
    // Past every end: a kernel that was given the sentinel asks there (hazard F5), and others may.
    if (isSentinelOffset(request.offset) || request.offset > Number.MAX_SAFE_INTEGER) {
      call.data(NOTHING);
      return;
    }
    let data: Uint8Array = NOTHING;
    for (let tries = 0; ; tries += 1) {
      const appendEnd = inode.requests?.appendEnd ?? null;
      if (appendEnd !== null) {
        if (counted) readOver(inode);
        counted = false;
        await appendEnd.heldBack(file.cached ? { from: request.offset, to: request.offset + request.size } : null);
      }
      if (!counted) inode.readsUnderWay += 1;
      counted = true;
      if (pending !== null) pending.outdated = false;
      const mark = coherence.sizes.mark(inode);
      if (tries === 0 && request.offset === 0) mount.filesAhead.noteReading(inode.cover.key);
      const from = tries === 0 ? mount.ahead.read(inode, file.lowerHandle, request.offset, request.size, call.pid) : null;
      const found = from ?? lower.read(file.lowerHandle, request.offset, request.size);
      data = waiting(found) ? await found : found;
      if (request.offset === 0) mount.filesAhead.noteRead(inode.cover.key, waiting(found));
      if (call.interrupted) break;
      if (isOutdated(pending)) continue;
      if (data.byteLength >= request.size) break;
      const short = { end: request.offset + data.byteLength, exact: data.byteLength > 0, mark, paged: locked !== null };
      const confirmed = coherence.sizes.confirmEnd(inode, short, tries);
      if (!waiting(confirmed)) {
        if (confirmed) break;
        continue;
      }
      // A synchronous answer is a view that the next call into the lower overwrites; and a Buffer's slice() is no copy.
      if (!waiting(found)) data = Uint8Array.from(data);
      const right = await confirmed;
      if (right === "repin" && locked !== null) {
        if (counted) readOver(inode);
        counted = false;
        pinned = false;
        await coherence.repinData(inode, mode, call, locked);
        pinned = true;
      } else if (right && !isOutdated(pending)) break;
    }
    noteRead(inode);
    // The kernel has let go of the pages of a caller that was killed.
    if (pending !== null && !call.interrupted) answerRead(inode, pending, call.pid);
    call.data(data);
    largeBuffers.giveBack(data);
  } catch (error) {
    if (!isErrno(error, E.EINTR) || call.interrupted || locked === null) throw error;
    refused = call.error(E.EINTR);
  } finally {
    if (pending !== null) endRead(inode, pending);
    if (counted) readOver(inode);
    if (pinned) coherence.unpinData(inode, mode);
  }
  // Of a readahead: the kernel asks for its first page again. Who finds one of the others waits for it with the pages before in hand (coherence/size/README.md).
  if (refused && request.size > PAGE_BYTES) await coherence.dropPages(inode, request.offset + PAGE_BYTES, request.size - PAGE_BYTES);
}

/** Null: the kernel has locked no pages for it, or not all of these; a READ that goes by the page cache names whole pages. */
function lockedPages({ offset, size, flags, lockOwner }: ReadRequest, { cached }: OpenFile): PageRange | null {
  const paged = cached && (flags & O_DIRECT) === 0 && lockOwner === 0n;
  return paged && offset % PAGE_BYTES === 0 && size % PAGE_BYTES === 0 ? { from: offset, to: offset + size } : null;
}

function readOver(inode: InodeRecord): void {
  inode.readsUnderWay -= 1;
  if (inode.readsUnderWay === 0) inode.requests?.onReadsOver?.();
}

/**
 * Under PR: what another node's program was told to be written is in the lower then (hazard F23). Pages are not touched, but the kernel may have some of them
 * locked meanwhile: so it passes in a revoke (hazard F1). What a directory has is written through, and needs no lock.
 */
export function fsync(mount: Mount, call: Call, request: FsyncRequest | FsyncdirRequest): MaybePromise<void> {
  const { directory, inode, lowerHandle } = fileOf(mount, request.fh);
  const { lower } = mount;
  const done = (): void => void call.empty();
  // What could not be written is reported once (hazard F38).
  const sync = (): MaybePromise<void> =>
    changeFor(lower, call.unique, () => lower[directory ? "fsyncdir" : "fsync"](lowerHandle, request.dataOnly));
  if (directory) return andThen(sync(), done);
  mount.coherence.sizes.locked(inode, call);
  const pin = { inode, mode: Mode.PR, cached: true } as const;
  return pinnedData(mount, call, pin, () => andThen(sync(), done));
}

/** Hazard F37. The kernel leaves it to us (HANDLE_KILLPRIV_V2), and says only for WRITE when: for all but root. */
function kills(mount: Mount, call: Call, file: OpenFile): MaybePromise<boolean> {
  return call.uid !== 0 && hasSetId(mount, file);
}

/** `isMade`: by the process before (hazard F38). */
export function fallocate(mount: Mount, call: Call, request: FallocateRequest, isMade = false): MaybePromise<void> {
  const { coherence, lower } = mount;
  const file = fileOf(mount, request.fh);
  const { inode, cached } = file;
  coherence.sizes.locked(inode, call);
  if (request.offset + request.length > Number.MAX_SAFE_INTEGER) throw errnoError(E.EFBIG);
  // One that keeps the size leaves the kernel to take it from others (fs/fuse/file.c, fuse_file_fallocate).
  const unstable = (request.mode & FALLOC_FL_KEEP_SIZE) === 0;
  const zeroes = (request.mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) !== 0;
  const left = pinnedData(mount, call, { inode, mode: Mode.EX, cached, unstable }, async (): Promise<Left> => {
    let killed: Since | null = null;
    if (!isMade && (await kills(mount, call, file))) {
      await checkReach(mount, file, request.offset + request.length);
      killed = await killSetId(mount, call, file);
    }
    const make = (): MaybePromise<void> =>
      isMade
        ? undefined
        : changeFor(lower, call.unique, () => lower.fallocate(file.lowerHandle, request.mode, request.offset, request.length));
    const hole = zeroes ? new Overwrite(inode, call) : null;
    const range = { from: request.offset, to: request.offset + request.length };
    return await resizedOver(mount, call, inode, hole, async (made) => {
      const before = unstable && !isMade ? await lower.getattr(inode.id) : null;
      try {
        await changed(mount, call, [inode], () => letGoIfKilled(call, hole, () => afterKill(mount, file, killed, make)));
      } catch (error) {
        // The lower keeps what it made before there was no more room (fs/ext4/extents.c, ext4_alloc_file_blocks); the kernel marks nothing then, and keeps its pages.
        if (isErrno(error, E.ENOSPC) || isErrno(error, E.EDQUOT) || isErrno(error, E.EIO)) hole?.madeThere(request.offset, request.length);
        // Nothing was made: what mappings store there is written back as it is.
        else hole?.over();
        await dropChanged(mount, call, [inode], false);
        if (zeroes) await coherence.dropPages(inode, request.offset, request.length);
        if (before !== null && !call.interrupted) await raiseToEnd(mount, inode, before.size);
        throw error;
      }
      made();
      const left = hole === null ? null : await madeOver(mount, call, inode, hole, range);
      // Where the size stays, the kernel only marks them.
      await attributesChanged(mount, call, [inode]);
      const effect = zeroes ? "clears" : isMade ? "misplaced" : "raises";
      sizeReplied(mount, call, inode, effect, unstable ? request.offset + request.length : 0, !isMade || !unstable);
      call.empty();
      return left;
    });
  });
  return andThen(left, (finish) => finish?.());
}

/**
 * As `resized`, of a hole or a copy (`over`; null: it is neither). What a mapping stores to the same pages meanwhile is written back with them, whole, and must
 * not bring back what was there before (coherence/pages/write-order.ts). The mapping may come when this has begun.
 */
function resizedOver(
  mount: Mount,
  call: Call,
  inode: InodeRecord,
  over: Overwrite | null,
  work: (made: () => void) => Promise<Left>,
): MaybePromise<Left> {
  if (over === null) return resized(mount, call, inode, "plain", work);
  const begun = async (made: () => void): Promise<Left> => {
    await over.begin();
    // Others may have written since.
    if (call.interrupted) throw errnoError(E.EINTR);
    return await work(made);
  };
  return finallyDo(
    () => resized(mount, call, inode, "plain", begun),
    () => over.over(),
  );
}

/** In the turn in which the lower has answered. Gives what is left to wait for after the answer. */
async function madeOver({ coherence }: Mount, call: Call, inode: InodeRecord, over: Overwrite, { from, to }: PageRange): Promise<Left> {
  over.madeThere(from, to - from);
  outdateReads(inode, { from, to });
  return inode.mappableCount > 0 && from < to ? await dropStored(coherence, inode, { from, to }, call) : null;
}

/** Before what the kernel cached is dropped (change.ts): that waits for the pages of write-backs, which wait for this. */
function letGoIfKilled<T>(call: Call, over: Overwrite | null, make: () => MaybePromise<T>): MaybePromise<T> {
  if (over === null) return make();
  return finallyDo(make, () => {
    if (call.interrupted) over.over();
  });
}

/**
 * A FALLOCATE that failed may have made the file longer. What it has made is zeros, as is what the kernel has behind the old end: what is before that, a
 * mapping may have stored since.
 */
async function raiseToEnd({ coherence, lower }: Mount, inode: InodeRecord, before: number): Promise<void> {
  const { size } = await lower.getattr(inode.id);
  if (size > before) await coherence.raiseSize(inode, size, 0);
}

/** SEEK_DATA and SEEK_HOLE: the kernel asks for no others. */
export function lseek(mount: Mount, call: Call, request: LseekRequest): MaybePromise<void> {
  const { inode, cached, lowerHandle } = fileOf(mount, request.fh);
  return pinnedData(mount, call, { inode, mode: Mode.PR, cached }, () =>
    andThen(mount.lower.lseek(lowerHandle, request.offset, request.whence), (offset) => void call.lseek(offset)),
  );
}

/**
 * Two inodes, so the pins come in order through pinAll and not through pinData. That is free of hazard F1: the kernel writes back
 * before it asks, holds no page while it waits, and drops the target's pages after the answer (fs/fuse/file.c, __fuse_copy_file_range).
 *
 * `copied`: so much was copied by the process before (hazard F38); null: nothing was.
 */
export function copyFileRange(mount: Mount, call: Call, request: CopyFileRangeRequest, copied: number | null = null): MaybePromise<void> {
  const { coherence, lower } = mount;
  const source = fileOf(mount, request.fh);
  const target = fileOf(mount, request.outFh);
  coherence.sizes.locked(target.inode, call);
  if (request.flags !== 0) throw errnoError(E.EINVAL);
  if (request.outOffset >= Number.MAX_SAFE_INTEGER) throw errnoError(E.EFBIG);
  const wants = [
    { inode: source.inode, mode: Mode.PR },
    { inode: target.inode, mode: Mode.EX },
  ];
  const pin = { wants, unstable: target.inode };
  const left = pinnedAll(mount, call, pin, async (): Promise<Left> => {
    if (request.offset > Number.MAX_SAFE_INTEGER) {
      call.written(0);
      return null;
    }
    let killed: Since | null = null;
    if (copied === null && (await kills(mount, call, target))) {
      await checkReach(mount, target, request.outOffset + 1);
      // Nothing to copy, so nothing changes.
      if ((await lower.getattr(source.inode.id)).size <= request.offset) {
        call.written(0);
        return null;
      }
      killed = await killSetId(mount, call, target);
    }
    const make = (): MaybePromise<number> =>
      copied ??
      changeFor(lower, call.unique, () =>
        lower.copyFileRange(source.lowerHandle, request.offset, target.lowerHandle, request.outOffset, request.length),
      );
    const over = new Overwrite(target.inode, call);
    return await resizedOver(mount, call, target.inode, over, async (made) => {
      const bytes = await changed(mount, call, [target.inode], () =>
        letGoIfKilled(call, over, () => afterKill(mount, target, killed, make)),
      );
      made();
      const left = await madeOver(mount, call, target.inode, over, { from: request.outOffset, to: request.outOffset + bytes });
      sizeReplied(mount, call, target.inode, "clears", request.outOffset + bytes, copied === null);
      call.written(bytes);
      return left;
    });
  });
  return andThen(left, (finish) => finish?.());
}

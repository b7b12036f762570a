/**
 * WRITE: at an offset, at the end, or from the page cache.
 *
 * At the end. The kernel computes the offset of an append from its own idea of the file's size, which may be the sentinel or out of date
 * (hazard F5). So O_APPEND, and any write at a sentinel offset, goes to the true end under EX. If that is not where the kernel believes
 * it to be ("relocated"), two things in the kernel are wrong:
 *
 * 1. Pages at the true place, if the kernel has any: a page of the old end, read before this write, has zeros where data is now. They are
 *    dropped before the answer.
 * 2. Pages at the believed place. At a sentinel offset they are behind every end, and the next true size cuts them off. Elsewhere
 *    (the size was read before the revoke, the write comes after it) a full page there is up to date in the kernel's eyes and holds our
 *    data instead of the file's; the last, partial one is locked by this very write, and not up to date afterwards. So all but the
 *    last page are dropped before the answer, and the whole range once more after it, because that last page may have been up to date
 *    before, and is then not locked and not dropped.
 *
 * The kernel's size is wrong after such a write (coherence/size/doubt.ts), so READs are held back meanwhile: coherence/pages/append-end.ts.
 *
 * What was read of its pages while it was on its way is dropped, too: coherence/pages/overlap.ts.
 *
 * Before the answer means with the pin held: the READs whose pages INVAL_INODE waits for pass under it, in a revoke too.
 */
import { E, errnoError } from "../../dlmd/base/errno.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import type { Since } from "../coherence/cover.ts";
import { isSentinelOffset, SENTINEL_SIZE } from "../coherence/size/sentinel.ts";
import type { WriteRequest } from "../fuse/request.ts";
import type { OpenFile } from "../inode/handles.ts";
import { changeFor } from "../lower/lower.ts";
import { PAGE_BYTES, without } from "../coherence/page-range.ts";
import { andThen, finallyDo, type MaybePromise } from "../../dlmd/base/maybe-promise.ts";
import { AppendHold } from "../coherence/pages/append-end.ts";
import { behind } from "./behind.ts";
import type { Call } from "./call.ts";
import { changed, resized, sizeReplied } from "./change.ts";
import { O_APPEND, O_DIRECT } from "./linux.ts";
import { fileOf, type Mount } from "./mount.ts";
import { inTurn } from "./orphans.ts";
import { dropReread, hasReread, mayHavePages, outdateReads } from "../coherence/pages/overlap.ts";
import { pinnedData } from "./pinned.ts";
import { afterKill, checkReach, hasSetId, killSetId } from "./set-id.ts";
import { Overwrite, WriteBack } from "../coherence/pages/write-order.ts";

/** Of what lies behind a file's end: more than any file has, and sums with it are exact. */
const BEYOND_BYTES = 2 ** 52;

/** What has to be done after the answer, and the pin; null: nothing. */
type Left = (() => Promise<void>) | null;

export interface Written {
  readonly offset: number;
  readonly bytes: number;
}

/** One that has to wait for nothing is answered in the turn in which it came. `before`: what the process before has written (hazard F38); null: nothing. */
export function write(mount: Mount, call: Call, request: WriteRequest, before: Written | null = null): MaybePromise<void> {
  const file = fileOf(mount, request.fh);
  if (!request.fromCache) return writeByCall(mount, call, request, file, before);
  const back = new WriteBack(file.inode);
  const pin = { inode: file.inode, mode: Mode.EX, cached: true } as const;
  return finallyDo(
    () => pinnedData(mount, call, pin, () => writeFromCache(mount, call, request, file, back, before)),
    () => back.over(),
  );
}

function writeByCall(mount: Mount, call: Call, request: WriteRequest, file: OpenFile, before: Written | null): MaybePromise<void> {
  const { inode, cached } = file;
  mount.coherence.sizes.locked(inode, call);
  const append = (request.flags & O_APPEND) !== 0 || isSentinelOffset(request.offset);
  if (!append && request.offset + request.data.length > Number.MAX_SAFE_INTEGER) throw errnoError(E.EFBIG);
  const overwrite = new Overwrite(inode, call);
  // Before Linux 5.11 the kernel goes by the mode that it was told last, and says nothing.
  const kills = request.killSuidgid || (!mount.handleKillpriv && call.uid !== 0);
  const make = (made: () => void): MaybePromise<Left> =>
    andThen(kills && before === null ? killSuidgid(mount, call, file, request.offset, append) : null, (killed) => {
      const hold = append ? new AppendHold(inode) : null;
      return finallyDo(
        () => writeThrough(mount, call, request, file, hold, killed, overwrite, before, made),
        () => hold?.release(),
      );
    });
  const left = pinnedData(mount, call, { inode, mode: Mode.EX, cached, unstable: cached }, () =>
    finallyDo(
      () => resized(mount, call, inode, cached ? "holds" : "drops", make),
      () => overwrite.over(),
    ),
  );
  return andThen(left, (finish) => finish?.());
}

function writeThrough(
  mount: Mount,
  call: Call,
  request: WriteRequest,
  file: OpenFile,
  hold: AppendHold | null,
  killed: Since | null,
  overwrite: Overwrite,
  before: Written | null,
  made: () => void,
): MaybePromise<Left> {
  const { data, offset } = request;
  return andThen(overwrite.begin(), () => {
    // Others may have written since.
    if (call.interrupted) throw errnoError(E.EINTR);
    const answer = (result: Written): MaybePromise<Left> => {
      overwrite.made(result.offset, data.subarray(0, result.bytes));
      made();
      // Another node may have cut the file since (hazard F38).
      return answerWritten(mount, call, request, file, result, hold, before === null ? "raises" : "misplaced");
    };
    // Before what the kernel cached is dropped (change.ts): that waits for their pages (hazard F11).
    const letGo = (): void => {
      if (!call.interrupted) return;
      hold?.release();
      overwrite.over();
    };
    if (before !== null) return answer(before);
    if (hold === null && killed === null && needsAnswerOnly(call, request, file) && writeBehind(mount, call, file, request))
      return answer({ offset, bytes: data.length });
    const make = (): MaybePromise<Written> =>
      changeFor(mount.lower, call.unique, () => mount.lower.write(file.lowerHandle, data, offset, hold !== null));
    const sent = (): MaybePromise<Written> => settled(() => (killed === null ? make() : afterKill(mount, file, killed, make)));
    const written = (): MaybePromise<Written> => finallyDo(sent, letGo);
    return andThen(changed(mount, call, [file.inode], written), answer);
  });
}

/** Nothing else has to be done in the kernel. */
function needsAnswerOnly(call: Call, { offset, data, flags }: WriteRequest, { inode, cached }: OpenFile): boolean {
  // O_DIRECT may have been set since it was opened (fcntl(2)).
  return cached && (flags & O_DIRECT) === 0 && !hasReread(inode, { from: offset, to: offset + data.length }, call);
}

/** Hazard F23. False: it has to be waited for. */
function writeBehind(mount: Mount, call: Call, { inode, lowerHandle }: OpenFile, { data, offset }: WriteRequest): boolean {
  const { lower } = mount;
  return (
    lower.mayWriteBehind(lowerHandle, offset, data.length) && behind(mount, call, inode, () => lower.writeBehind(lowerHandle, data, offset))
  );
}

/** An error of the lower is one of a change that began, also if it is there at once (change.ts). */
function settled<T>(work: () => MaybePromise<T>): MaybePromise<T> {
  try {
    return work();
  } catch (error) {
    return Promise.reject(error);
  }
}

function answerWritten(
  mount: Mount,
  call: Call,
  request: WriteRequest,
  file: OpenFile,
  written: Written,
  hold: AppendHold | null,
  effect: "raises" | "misplaced",
): MaybePromise<Left> {
  const { coherence } = mount;
  const { inode, cached } = file;
  if (hold !== null && written.offset !== request.offset && written.bytes > 0)
    return answerElsewhere(mount, call, request, file, written, hold);
  // The kernel's size becomes the true one: READs that come bring what was written.
  hold?.release();
  const end = written.offset + written.bytes;
  const answer = (left: Left): Left => {
    sizeReplied(mount, call, inode, effect, end);
    call.written(written.bytes);
    return left;
  };
  if (!cached) {
    // The kernel has dropped them before it asked; READs since then have brought them back, through handles that may be closed by now.
    const dropped = mayHavePages(inode) ? coherence.dropPages(inode, written.offset, written.bytes) : undefined;
    return andThen(dropped, () => answer(null));
  }
  outdateReads(inode, { from: written.offset, to: end });
  if ((inode.requests?.rereads ?? null) === null) return answer(null);
  return dropReread(coherence, inode, { offset: written.offset, data: request.data.subarray(0, written.bytes) }, call).then(answer);
}

/**
 * Write-back of mapped pages never extends a file: the kernel's size, by which it cut the last page, may be the sentinel (hazard F5).
 * What lies behind the end is answered as written, as a store there is for a local file.
 */
async function writeFromCache(
  mount: Mount,
  call: Call,
  request: WriteRequest,
  file: OpenFile,
  back: WriteBack,
  before: Written | null,
): Promise<void> {
  mount.coherence.noteCachedWrite(file.inode);
  // A mapping that is stored to is of a handle that reads, too.
  const read = (offset: number, bytes: number): MaybePromise<Uint8Array> => mount.lower.read(file.lowerHandle, offset, bytes);
  await back.make(request.offset, request.data, read, async () => {
    const attr = await mount.lower.getattr(file.inode.id);
    const wanted = request.data.length;
    const bytes = Math.min(wanted, Math.max(0, attr.size - request.offset));
    if (bytes === 0) {
      call.written(wanted);
      return;
    }
    const make = (): MaybePromise<Written> => mount.lower.write(file.lowerHandle, request.data.subarray(0, bytes), request.offset, false);
    const written = before ?? (await inTurn(call, [file.inode], () => changeFor(mount.lower, call.unique, make)));
    // The kernel only marks them when it is answered (fs/fuse/file.c, fuse_writepage_end); who made the store may have closed the file.
    await mount.coherence.attributesChanged(file.inode, call.pid, false);
    call.written(written.bytes >= bytes ? wanted : written.bytes);
  });
}

/** Hazard F37. null: there was nothing to clear, as for most files. */
function killSuidgid(mount: Mount, call: Call, file: OpenFile, offset: number, append: boolean): MaybePromise<Since | null> {
  return andThen(hasSetId(mount, file), (has) => (has ? killNow(mount, call, file, offset, append) : null));
}

async function killNow(mount: Mount, call: Call, file: OpenFile, offset: number, append: boolean): Promise<Since> {
  const at = append ? (await mount.lower.getattr(file.inode.id)).size : offset;
  await checkReach(mount, file, at + 1);
  return killSetId(mount, call, file);
}

async function answerElsewhere(
  mount: Mount,
  call: Call,
  request: WriteRequest,
  file: OpenFile,
  written: Written,
  hold: AppendHold,
): Promise<Left> {
  const { coherence } = mount;
  const { inode } = file;
  const believed = { offset: request.offset, bytes: request.data.length };
  const answer = (): void => {
    sizeReplied(mount, call, inode, "misplaced", believed.offset + written.bytes);
    call.written(written.bytes);
  };
  const end = written.offset + written.bytes;
  if (believed.offset < written.offset && !file.cached) {
    // The kernel's size would be too small.
    await hold.clear(coherence, { from: written.offset, to: end });
    hold.release();
    await coherence.raiseSize(inode, end, request.data[written.bytes - 1] ?? 0);
    answer();
    return null;
  }
  if (isSentinelOffset(request.offset) || !file.cached) {
    // Behind the end too: a READ that came while the kernel had the sentinel brings empty pages. Far from those that this WRITE may hold.
    await hold.clear(coherence, { from: written.offset, to: written.offset + BEYOND_BYTES });
    answer();
    return null;
  }
  hold.release();
  const lockedFrom = Math.floor((believed.offset + believed.bytes - 1) / PAGE_BYTES) * PAGE_BYTES;
  await dropOutside(mount, file, written, lockedFrom);
  await dropOutside(mount, file, believed, lockedFrom);
  // The page of the true end may be the one that this WRITE holds: so up to the sentinel, as in a revoke.
  coherence.sizes.toldSentinel(inode);
  await coherence.raiseSize(inode, SENTINEL_SIZE, 0);
  answer();
  return async () => {
    await coherence.dropPages(inode, believed.offset, believed.bytes);
    await coherence.dropPages(inode, written.offset, written.bytes);
  };
}

/** Drops a range but for the one page at `lockedFrom`, which this very WRITE may hold. */
async function dropOutside(mount: Mount, { inode }: OpenFile, { offset, bytes }: Written, lockedFrom: number): Promise<void> {
  const locked = { from: lockedFrom, to: lockedFrom + PAGE_BYTES };
  const parts = without({ from: offset, to: offset + bytes }, [locked]);
  for (const { from, to } of parts) await mount.coherence.dropPages(inode, from, to - from);
}

/**
 * lseek(SEEK_END) and what else asks for the size first and then believes the kernel's own. Pure.
 *
 * The caller is not given the size of our reply, but the kernel's, once the reply was taken (fs/fuse/file.c, fuse_file_llseek). Such
 * requests carry the file handle (FUSE_GETATTR_FH), as those before a read(2) do; stat and fstat are given our reply itself, and carry none.
 * No reply tells another size than the kernel has (check.ts), so it does not matter whether it is taken. But a revoke stores the sentinel
 * only when the thread is done with such a reply, as its next request proves, or the inode's lock, which lseek(2) has from before it
 * asks until it has its result.
 *
 * What remains: a thread that stops between finding its attributes valid and looking at the size, some instructions, for as long as a whole revoke.
 */
import { keepNewest } from "../../../dlmd/base/keep-newest.ts";
import { type Cover, sizeOf } from "../cover.ts";
import type { CoherenceState } from "../effect.ts";

/** Threads that were told a size and are remembered; beyond, the oldest is: only the inode's lock proves it then. */
export const TOLD_THREADS_MAX = 4096;

/** Such a GETATTR is being answered; `tid`: the calling thread, 0 if it can not be seen from here. */
export function noteAsker(state: CoherenceState, cover: Cover, tid: number): void {
  const size = sizeOf(cover);
  size.askers ??= new Set();
  size.askers.add(tid);
  if (tid === 0) return;
  state.toldOf.set(tid, cover);
  keepNewest(state.toldOf, TOLD_THREADS_MAX);
}

/** Any request of that thread: it has taken what it was told before. The inode whose last asker that was, or null. */
export function noteTaken(state: CoherenceState, tid: number): Cover | null {
  const cover = state.toldOf.get(tid);
  if (cover === undefined) return null;
  state.toldOf.delete(tid);
  const { size } = cover;
  if (size === null || size.askers === null) return null;
  size.askers.delete(tid);
  if (size.askers.size > 0) return null;
  size.askers = null;
  return cover;
}

/** The inode's lock was free: no lseek(2) is under way. */
export function noteNoAskers({ size }: Cover): void {
  if (size !== null) size.askers = null;
}

/** A revoke must wait before it stores the sentinel. */
export function mustSettle({ size }: Cover): boolean {
  if (size === null) return false;
  const effect = size.late?.effect;
  return effect === "sets" || effect === "clears" || size.askers !== null;
}

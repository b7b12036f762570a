/**
 * lseek(SEEK_END) and what else asks for the size first and then believes the kernel's own. Pure.
 *
 * The caller is not given the size of our reply, but the kernel's, once the reply was taken (fs/fuse/file.c, fuse_file_llseek); if it was
 * dropped, because something raised attr_version after the request was made (size-doubt.ts), that may be the sentinel of hazard F5. Such
 * requests carry the file handle (FUSE_GETATTR_FH), as those before a read(2) do; stat and fstat are given our reply itself, and carry none.
 *
 * 1. In doubt such a GETATTR is answered at once only if it was made after all that could raise the version. The request was put in the queue
 *    after the queue was found empty, and that was after the last notification about the inode had ended: no system call is needed to know it.
 *    If not, the kernel's size is looked at first, and repaired: then it does not matter whether the reply is taken (size-check.ts).
 * 2. A revoke stores the sentinel only when the thread is done with such a reply, as its next request proves, or the inode's lock, which
 *    lseek(2) has from before it asks until it has its result.
 * 3. A LOOKUP reply with the sentinel raises the version when it is installed, which may be late; until the next request of its thread
 *    no GETATTR of another one is taken for certain.
 *
 * What remains: a thread that stops between taking the version and putting its request in the queue, some instructions, for as long as a whole
 * revoke and what follows it; one that stops for as long between finding its attributes valid and looking at the size.
 */
import type { Cover } from "./cover.ts";
import type { CoherenceState } from "./effect.ts";

/** Threads that were told a size and are remembered; beyond, the oldest is: only the inode's lock proves it then. */
export const TOLD_THREADS_MAX = 4096;

/** Not a mark of askedAt: the reply may be dropped. */
const STALE = -1;

/** A notification is about to be written. A LOOKUP that was answered before is dropped by then. */
export function noteNotification(cover: Cover): void {
  cover.notified += 1;
  cover.notifications += 1;
  cover.lookers = null;
}

/** `emptied`: how often the queue was found empty until then. */
export function noteNotified(cover: Cover, emptied: number): void {
  cover.notifications -= 1;
  cover.notifiedAt = emptied;
}

/** When such a GETATTR comes: to be given to `certain` when its answer is there. */
export function askedAt(cover: Cover, emptied: number): number {
  return cover.lookers === null && cover.notifications === 0 && emptied > cover.notifiedAt ? cover.notified : STALE;
}

/** The kernel takes that reply, or its size is right without it. */
export function certain(cover: Cover, asked: number): boolean {
  return !cover.sizeDoubt || asked === cover.notified;
}

/** Such a GETATTR is being answered; `tid`: the calling thread, 0 if it can not be seen from here. */
export function noteAsker(state: CoherenceState, cover: Cover, tid: number): void {
  cover.askers ??= new Set();
  cover.askers.add(tid);
  remember(state, cover, tid);
}

/** A LOOKUP is being answered with the sentinel. */
export function noteLooker(state: CoherenceState, cover: Cover, tid: number): void {
  cover.lookers ??= new Set();
  cover.lookers.add(tid);
  remember(state, cover, tid);
}

function remember(state: CoherenceState, cover: Cover, tid: number): void {
  if (tid === 0) return;
  state.toldOf.set(tid, cover);
  if (state.toldOf.size <= TOLD_THREADS_MAX) return;
  for (const oldest of state.toldOf.keys()) {
    state.toldOf.delete(oldest);
    return;
  }
}

/** Any request of that thread: it has taken what it was told before. The inode whose last asker that was, or null. */
export function noteTaken(state: CoherenceState, tid: number): Cover | null {
  const cover = state.toldOf.get(tid);
  if (cover === undefined) return null;
  state.toldOf.delete(tid);
  cover.lookers = without(cover.lookers, tid);
  if (cover.askers === null) return null;
  cover.askers = without(cover.askers, tid);
  return cover.askers === null ? cover : null;
}

function without(threads: Set<number> | null, tid: number): Set<number> | null {
  if (threads === null) return null;
  threads.delete(tid);
  return threads.size === 0 ? null : threads;
}

/** The inode's lock was free: no lseek(2) is under way. */
export function noteNoAskers(cover: Cover): void {
  cover.askers = null;
}

/** A revoke must wait before it stores the sentinel. */
export function mustSettle(cover: Cover): boolean {
  return cover.late === "sets" || cover.askers !== null;
}

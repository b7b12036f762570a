/**
 * What is known of the size that the kernel has for a file, who may be told a size, and when a READ that ends at the end of the file may be
 * answered. Pure.
 *
 * Two things are done with the kernel's size, and both show zeros where it is not the true one.
 *
 * A page that a short READ fills is zeros behind the data; what a reader gets of it is cut at the kernel's size, which it looks at after
 * the page is there (mm/filemap.c, filemap_read). If that is the sentinel of hazard F5, or too large for another reason, zeros are
 * shown as data. The kernel repairs its size from a reply with attributes or from the short READ itself, but drops either if the inode's
 * attr_version was raised after the request was made (fs/fuse/inode.c, fuse_change_attributes_i; fs/fuse/file.c, fuse_read_update_size).
 * What raises it, beside such replies: our notifications, and the end of each write(2).
 *
 * And a reply that tells another size than the kernel has makes it truncate its page cache there, some time after the size was set and without any
 * lock: what is beyond in the last page becomes zeros. If the file has grown meanwhile, data that was read in between is gone for whoever
 * looks just then. Nothing tells when a program's thread has done that. Hence the rules:
 *
 *     No reply tells a size which the kernel does not have. Where that is not known, it is looked at (statx(2) with AT_STATX_DONT_SYNC asks
 *     nothing), and if need be put right first, by a statx(2) with AT_STATX_FORCE_SYNC on a thread of our own: when that comes back the
 *     truncation is over, and nothing changes the file's size here before (threads.ts, gate.ts).
 *
 *     Before a READ is answered that ends at the end of the file, the kernel's size is looked at, too, and put right if it is beyond.
 *
 * It is not known ("doubt") from a revoke on, or from an uncovered LOOKUP reply on, until a look has shown the true size under the lock;
 * and while a call that changes the size is under way, or may have been answered without its thread having run since ("late").
 *
 * A look holds for its time. What may make the size wrong afterwards, and why it does not:
 *
 * 1. The sentinel of the next revoke. It is stored after all pages were dropped, and only if no data request was answered in between
 *    (the gate, revoke.ts): a reader that still waits for its page does not find it any more, and asks anew.
 * 2. A write(2) that was answered, whose thread has not run yet: the kernel then sets max(size, offset + bytes). That is the true size, but
 *    for an append that came with a sentinel's offset (or one out of date), and for any that ends after a revoke. Such a late
 *    reply "harms"; before a READ is answered it must be known to be over. Writers hold the inode's lock (i_rwsem) from before they
 *    ask until they are done, so the next request that needs this lock proves it, whoever makes it (kernel-rwsem.ts makes one, if need be);
 *    so does any request of the same thread. There is never more than one, for the same reason.
 *    One that makes the size what it should be matters where pages stay: whoever reads them sees the old end until that thread has run, when
 *    programs elsewhere may know the new one. So a lock is lowered to PR only when it has.
 * 3. Replies to SETATTR and LINK set the size whatever the version ("sets"). They hold the same lock. If one might still
 *    come, a revoke waits for it before it stores the sentinel.
 *    And for a READ that it cuts short the kernel's size is too large until then, from the moment at which the lower has made it: the READ is answered
 *    when the kernel's size was seen to be no larger. (The thread sets it before it waits for any page.)
 *    Of a hole that was made (fallocate(2)) a thread zeroes the pages, if they are there (mm/truncate.c, truncate_pagecache_range; "clears"). What another
 *    node has written there by then, and was read here, must not be zeroed. So a revoke waits for that as well. The target's pages of copy_file_range(2) are dropped
 *    so (fs/fuse/file.c, __fuse_copy_file_range), with what a mapping has stored by then. And before a lock is lowered to PR it must have come, however the size
 *    is: others see the file without what is in those pages.
 * 4. A reply with attributes that are newer than the data of the READ: its end is no longer the end. So the READ reads again if the kernel was
 *    told another size since ("mark"). This needs no doubt.
 * 5. A LOOKUP reply with the sentinel, installed late. Its version is older than that of the repair: the kernel drops it.
 */
import { Mode } from "../../../dlmd/wire/mode.ts";
import { type Cover, sizeOf } from "../cover.ts";
import type { LateReply, SizeEffect } from "../cover-parts.ts";
import type { CoherenceState } from "../effect.ts";

/** Threads with a late reply that are remembered; beyond, the oldest is: its next request then proves nothing. */
export const LATE_THREADS_MAX = 4096;

/** With the pages of more READs a round of a revoke drops all (lock/revoke.ts). So while more wait for the lock no READ is kept back. */
export const HELD_BACK_MAX = 64;

/** The kernel may have, or get, a size that is not the file's. */
export function doubtSize(cover: Cover): void {
  const size = sizeOf(cover);
  size.doubt = true;
  size.least = -1;
  size.mark += 1;
  if (size.late === null) return;
  size.late.seen = false;
  // A revoke waits for the others.
  if (size.late.effect !== "sets") size.late.harms = true;
}

/** A reply tells the kernel that size. Of most files nothing is noted: no READ waits to be answered, nor anything else for which it matters. */
export function noteTold({ size }: Cover, told: number): void {
  if (size === null) return;
  // The kernel drops one that is older than its last change: so what is told is not what it has.
  if (told < size.least) size.least = -1;
  if (size.told === told) return;
  size.told = told;
  size.mark += 1;
}

/** A request came for which the kernel holds the inode's lock: whoever held it before is done. */
export function noteKernelLock({ size }: Cover): void {
  if (size === null || size.late === null) return;
  // What was seen before may have been seen before it did what harms.
  if (size.doubt) size.mark += 1;
  size.late = null;
}

/** Such a request is being answered; `tid`: the calling thread, 0 if it can not be seen from here; `end`: "raises" to that at most. */
export function noteLateReply(state: CoherenceState, cover: Cover, tid: number, effect: SizeEffect, end: number): void {
  const size = sizeOf(cover);
  // Most writes change what is there, and no size.
  const nothing = (effect === "raises" || effect === "clears") && end <= size.least && sizeKnown(cover);
  if (effect === "sets") size.least = -1;
  size.late = { effect, tid, end, harms: false, seen: nothing };
  if (effect === "misplaced") doubtSize(cover);
  if (tid === 0) return;
  state.lateOf.set(tid, cover);
  if (state.lateOf.size <= LATE_THREADS_MAX) return;
  for (const oldest of state.lateOf.keys()) {
    state.lateOf.delete(oldest);
    return;
  }
}

/** Any request of that thread: it is done with what it did before. The cover whose late reply that was, or null. */
export function noteThread(state: CoherenceState, tid: number): Cover | null {
  const cover = state.lateOf.get(tid);
  if (cover === undefined) return null;
  state.lateOf.delete(tid);
  // Another thread's is later.
  if (cover.size?.late?.tid !== tid) return null;
  noteKernelLock(cover);
  return cover;
}

/** A lock that is lowered to PR has to wait for that. */
export function mustBeTaken({ kind, size }: Cover): boolean {
  return kind === "file" && size !== null && size.late !== null && (!size.late.seen || size.late.effect === "clears");
}

/** The kernel has the file's size, as far as what was answered goes. */
export function sizeKnown({ size }: Cover): boolean {
  return size === null || (!size.doubt && (size.late === null || size.late.seen));
}

/**
 * May the kernel be told `told`, which is the file's size? `seen`: the kernel's; `mark`: that of the cover's size before the look. To be called in the
 * turn in which the answer is written, with no change under way (gate.ts).
 */
export function judgeTold(cover: Cover, told: number, seen: number, mark: number): boolean {
  const size = sizeOf(cover);
  if (seen !== told || size.mark !== mark) return false;
  if (mustWait(cover, told)) return true;
  if (size.late !== null) size.late.seen = true;
  // In a revoke the sentinel may be stored any moment.
  if (cover.phase === "idle") {
    size.doubt = false;
    size.least = told;
  }
  return true;
}

/** As far as the size goes. */
export function onlyRaises({ effect }: LateReply): boolean {
  return effect === "raises" || effect === "clears";
}

/** With EX held and nothing under way: a look found the kernel's size to be `seen`, so the late reply that raises it to no more than that changes nothing. */
export function noteRaised({ size }: Cover, seen: number): boolean {
  if (size === null || size.late === null || !onlyRaises(size.late) || size.late.end > seen) return false;
  size.late.seen = true;
  if (!size.doubt) size.least = size.late.end;
  return true;
}

/** A late reply that harms has to be over before anything else; one that raises the size to no more than the file's does not. */
export function mustWait({ size }: Cover, end: number): boolean {
  return size !== null && size.doubt && size.late !== null && size.late.harms && size.late.end > end;
}

/**
 * Are READs whose pages are locked kept back in this revoke, and those that are under way give their pin back? The kernel's size is wrong, and it takes none from any
 * reply until a change is answered that waits for the lock itself: so they wait for the lock, too, and a round leaves their pages alone. Only under PR, where
 * nothing is under way that may wait for such a page; if something does all the same, the revoke is strained after a while, and they pass.
 */
export function keepsReadsBack({ mode, revoke, size, waiters }: Cover): boolean {
  if (mode !== Mode.PR || revoke === null || revoke.strained || revoke.kept || waiters.length > HELD_BACK_MAX) return false;
  return size !== null && size.doubt && size.unstable > 0;
}

/** A truncation is being made, or the reply to one may not be taken yet: the kernel's size may be larger than the file's for a moment more. */
export function mayShrink({ size }: Cover): boolean {
  return size !== null && (size.truncating > 0 || (size.late?.effect === "sets" && !size.late.seen));
}

/**
 * May a READ be answered whose data end at `end`? `exact`: the file does there too. `seen`: the kernel's size; `mark`: that of the cover's size when
 * the data were asked for. To be called in the turn in which the answer is written, and the look is then as good as one made now: what
 * the server does it does in turns, and what changes the size is of its doing, or late.
 */
export function judgeSize(cover: Cover, end: number, exact: boolean, seen: number, mark: number): boolean {
  const size = sizeOf(cover);
  if (size.mark !== mark) return false;
  if (!size.doubt && !mayShrink(cover)) return true;
  if (mustWait(cover, end) || seen > end) return false;
  const { late } = size;
  if (late?.effect === "sets" && size.truncating === 0 && seen === late.end) late.seen = true;
  // In a revoke the sentinel may be stored any moment.
  if (exact && seen === end && cover.phase === "idle") {
    size.doubt = false;
    if (late === null) size.least = end;
  }
  return true;
}

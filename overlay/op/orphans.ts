/**
 * Hazard F50: changes that were under way when their callers were killed.
 *
 * The kernel has let go of its locks (change.ts), so whoever comes next may change the same file, and the owner makes two changes of one file in any order: a write
 * that takes one step there is made before a truncation that takes three. So the next change begins when the lower has answered the one before; and what was not
 * sent when its caller was killed is not sent.
 *
 * A caller that is killed after its change was made, while something else is waited for (a notification, the set-group-id bit), is not told of it, nor is one
 * whose call fails by then. The kernel goes on by what was before, as by a name that it has as absent, and that without limit. So it drops that.
 */
import { E, errnoError } from "../../dlmd/base/errno.ts";
import type { MaybePromise } from "../../dlmd/base/maybe-promise.ts";
import type { Cover, Inode } from "../coherence/cover.ts";
import type { Call } from "./call.ts";
import type { Mount } from "./mount.ts";

/** Changes of those inodes that were sent, and not answered, when their callers were killed. By what stays when the kernel forgets the inode meanwhile. */
const orphans = new WeakMap<Cover, Set<Promise<unknown>>>();

/** A change of that inode must wait. */
export function isAwaited(inode: Inode): boolean {
  return orphans.has(inode.cover);
}

/** `make`, when nothing is under way of those inodes for a caller that was killed. Throws EINTR if this one was killed before: then nothing is made. */
export function inTurn<T>(call: Call, inodes: readonly Inode[], make: () => MaybePromise<T>): MaybePromise<T> {
  // The kernel has let go of its locks: what comes next may be made by now.
  if (call.interrupted) throw errnoError(E.EINTR);
  return inodes.some(isAwaited) ? afterOrphans(call, inodes, make) : make();
}

async function afterOrphans<T>(call: Call, inodes: readonly Inode[], make: () => MaybePromise<T>): Promise<T> {
  await Promise.allSettled(inodes.flatMap(({ cover }) => [...(orphans.get(cover) ?? [])]));
  return inTurn(call, inodes, make);
}

/** From the death of its caller until it is answered. What is returned is to be called then. */
export function orphanedWithCaller(call: Call, inodes: readonly Inode[], made: Promise<unknown>): () => void {
  let isOrphan = false;
  const orphan = (): void => {
    isOrphan = true;
    for (const { cover } of inodes) orphans.set(cover, (orphans.get(cover) ?? new Set()).add(made));
  };
  call.onInterrupt = orphan;
  return () => {
    if (!isOrphan) {
      call.onInterrupt = null;
      return;
    }
    for (const { cover } of inodes) {
      const rest = orphans.get(cover);
      rest?.delete(made);
      if (rest?.size === 0) orphans.delete(cover);
    }
  };
}

/** The lower has changed them, and the kernel does not know. */
export function noteMade(call: Call, inodes: readonly Inode[]): void {
  const before = call.changes;
  call.changes = before === null ? inodes : [...before, ...inodes.filter((inode) => !before.includes(inode))];
}

/** Drops what the kernel has of these, and so it knows. */
export function dropChanged({ coherence }: Mount, call: Call, inodes: readonly Inode[], pages: boolean): Promise<void> {
  const rest = call.changes?.filter((inode) => !inodes.includes(inode)) ?? [];
  call.changes = rest.length === 0 ? null : rest;
  return coherence.dropKernelCaches(inodes, pages);
}

/** All work on what may be changed, under its pins: in its turn, and until its caller is told of it. */
export function changing<T>(mount: Mount, call: Call, inodes: readonly Inode[], work: () => MaybePromise<T>): MaybePromise<T> {
  return inTurn(call, inodes, () => untilTold(mount, call, work));
}

function untilTold<T>(mount: Mount, call: Call, work: () => MaybePromise<T>): MaybePromise<T> {
  let result: MaybePromise<T>;
  try {
    result = work();
  } catch (error) {
    if (call.changes === null) throw error;
    result = Promise.reject(error);
  }
  return result instanceof Promise ? toldOrDropped(mount, call, result) : result;
}

async function toldOrDropped<T>(mount: Mount, call: Call, working: Promise<T>): Promise<T> {
  let result: T;
  try {
    result = await working;
  } catch (error) {
    if (call.changes !== null) await dropChanged(mount, call, call.changes, call.interrupted);
    throw error;
  }
  if (call.interrupted && call.changes !== null) await dropChanged(mount, call, call.changes, true);
  return result;
}

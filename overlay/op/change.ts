/**
 * A change on its way, whose caller may be killed, or which may end without anybody knowing whether it was made (EIO: remote-session.ts).
 *
 * The kernel that told a dying caller EINTR has let go of the locks it held, of a directory or of pages; whoever comes next may look, and
 * cache what is there before the change is made. Nothing in the kernel would undo that: what it does at the end of a change it did at
 * the EINTR (fs/fuse/dir.c, fuse_unlink: fuse_invalidate_entry). So everything that it may have cached of these inodes is dropped, under
 * the pins, when the change has ended.
 *
 * Whoever comes next may change it, too: orphans.ts.
 */
import { E, isErrno } from "../../dlmd/base/errno.ts";
import type { SizeChange } from "../coherence/size/kernel-sizes.ts";
import type { Inode } from "../coherence/cover.ts";
import type { SizeEffect } from "../coherence/cover-parts.ts";
import { andThen, finallyDo, type MaybePromise } from "../../dlmd/base/maybe-promise.ts";
import type { Call } from "./call.ts";
import { type Mount, waiting } from "./mount.ts";
import { dropChanged, inTurn, noteMade, orphanedWithCaller } from "./orphans.ts";
import type { Victim } from "./victim.ts";

/** The outcome of `make`, once nothing cached contradicts it. `inodes`: all that it changes, the directories of its names too. */
export function changed<T>(mount: Mount, call: Call, inodes: readonly Inode[], make: () => MaybePromise<T>): MaybePromise<T> {
  return inTurn(call, inodes, () => {
    const made = make();
    if (waiting(made)) return watch(mount, call, inodes, made);
    noteMade(call, inodes);
    return made;
  });
}

async function watch<T>(mount: Mount, call: Call, inodes: readonly Inode[], made: Promise<T>): Promise<T> {
  const over = orphanedWithCaller(call, inodes, made);
  let result: T;
  try {
    result = await finallyDo(() => made, over);
  } catch (error) {
    // A caller that is still there may hold the pages of its own WRITE: the kernel itself gives those up at an error.
    if (call.interrupted || isErrno(error, E.EIO)) await dropChanged(mount, call, inodes, call.interrupted);
    throw error;
  }
  if (call.interrupted) await dropChanged(mount, call, inodes, true);
  else noteMade(call, inodes);
  return result;
}

/**
 * To be awaited before the answer to a change of names or extended attributes: what this kernel was told of these inodes before is outdated, if it may still be
 * about to take that (coherence/kernel/told-attributes.ts). `named`: inodes that the request names; `victims`: what stands behind its names.
 */
export function attributesChanged(mount: Mount, call: Call, named: readonly Inode[], victims: readonly Victim[] = []): MaybePromise<void> {
  const { coherence } = mount;
  let notified: MaybePromise<void> = undefined;
  const notify = (inode: Inode, caller: number, held: boolean): void => {
    const done = coherence.attributesChanged(inode, caller, held);
    if (waiting(done)) notified = andThen(notified, () => done);
  };
  for (const inode of named) notify(inode, call.pid, !call.interrupted);
  // Of what it does not take for the victim the kernel marks nothing. Its caller has what it takes for it in use.
  for (const { inode, told } of victims) if (inode !== null) notify(inode, told ? call.pid : 0, told && !call.interrupted);
  return notified;
}

export interface NamesChange {
  /** All that it changes, and whose attributes are outdated. */
  readonly inodes: readonly Inode[];
  readonly named: readonly Inode[];
  readonly victims?: readonly Victim[];
}

/** A change of names or extended attributes: the outcome of `make`, once nothing cached contradicts it. */
export function changedNames<T>(
  mount: Mount,
  call: Call,
  { inodes, named, victims }: NamesChange,
  make: () => MaybePromise<T>,
): MaybePromise<T> {
  return andThen(changed(mount, call, inodes, make), (result) => andThen(attributesChanged(mount, call, named, victims), () => result));
}

/**
 * A reply that changes the kernel's size is about to be given. A killed caller takes none: READs would wait for that in vain (hazard F5). `isEnd`: it does not make the
 * size larger than the file's.
 */
export function sizeReplied({ coherence }: Mount, call: Call, inode: Inode, effect: SizeEffect, end: number, isEnd = true): void {
  if (!call.interrupted) coherence.sizes.replied(inode, call.pid, effect, end);
  if (!isEnd) coherence.sizes.toldSentinel(inode);
}

/**
 * A change of the file's size, or what may be one, from before it is made until it is answered; nobody tells the kernel a size meanwhile. `work` calls
 * `made` when the lower has answered, and answers; what it gives is given.
 */
export function resized<T>(
  mount: Mount,
  call: Call,
  inode: Inode,
  change: SizeChange,
  work: (made: () => void) => MaybePromise<T>,
): MaybePromise<T> {
  const { sizes } = mount.coherence;
  const begun = sizes.begin(inode, change, call, () => mount.lower.getattr(inode.id));
  return andThen(begun, () => {
    let making = true;
    let sure = false;
    const made = (): void => {
      making = false;
      sizes.made(inode, change);
    };
    return finallyDo(
      () =>
        andThen(work(made), (result) => {
          sure = !call.interrupted;
          return result;
        }),
      () => {
        if (making) made();
        sizes.end(inode, change, call, sure);
      },
    );
  });
}

/**
 * Attributes told as valid, beside a change of them on the same node.
 *
 * After SETATTR, WRITE and the like the kernel itself drops the answer to a question that was asked before (fs/fuse/inode.c, fuse_change_attributes:
 * attr_version). After a change of a directory's names, of extended attributes, a rename, or the write-back of a mapping, it only marks what it has as outdated
 * (fs/fuse/dir.c, fuse_dir_changed, fuse_update_ctime; fs/fuse/file.c, fuse_writepage_end): an answer from before the change, taken after that, would be valid as long as the lock is here. So:
 *
 * - An answer that leaves after the change was made says nothing of validity if what it tells was read before.
 * - One that left before is outdated by a notification before the change is answered, unless it was given to the very thread that makes the change: it has
 *   come back since.
 */
import { type Cover, MANY_TAKERS, NO_TAKER } from "../cover.ts";
import type { CoherenceState } from "../effect.ts";

/** Thread `tid` (0: not known) is about to be told attributes that were read at the moment `since`. False: not as valid. */
export function tellAttributes(cover: Cover, tid: number, since: number): boolean {
  if (cover.changedAt > since) return false;
  cover.attrTold = true;
  if (cover.attrTaker === NO_TAKER) cover.attrTaker = tid === 0 ? MANY_TAKERS : tid;
  else if (cover.attrTaker !== tid) cover.attrTaker = MANY_TAKERS;
  return true;
}

/** Thread `tid` has changed them and is not answered yet. True: the kernel must be notified first. */
export function attributesChanged(state: CoherenceState, cover: Cover, tid: number): boolean {
  state.moment += 1;
  cover.changedAt = state.moment;
  cover.attrTold = false;
  const taker = cover.attrTaker;
  cover.attrTaker = NO_TAKER;
  return taker !== NO_TAKER && taker !== tid;
}

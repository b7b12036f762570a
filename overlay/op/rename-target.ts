/**
 * What a LOOKUP says of an inode that the kernel knows by another name, too. A rename looks up the old name, or takes it from the cache, and then
 * the new one; if both are the same inode they are two names of one file, and it is done: it succeeds without asking anybody (fs/namei.c,
 * vfs_rename). But another node may have renamed the one to the other in between: a directory's lock does not stay here from one lookup to the next. Then two
 * programs were told that they had moved the same file, or an exchange was counted and not made.
 *
 * So to a thread that is in rename(2) the inode is shown as another one, with a number that stands for nothing. Its RENAME then comes here, with
 * the names, and finds the truth.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { Maybe } from "../lower/lower.ts";
import type { Call } from "./call.ts";
import type { Mount } from "./mount.ts";

/** "walk again": ESTALE, once. */
export type RenameTarget = "itself" | "another" | "walk again";

/** A thread that has sent its request and not gone to sleep yet is waited for so many times a millisecond. */
const RUNNING_WAITS_MAX = 20;

export function renameTarget(mount: Mount, call: Call, name: Buffer): Maybe<RenameTarget> {
  const renaming = mount.isRenaming(call.pid);
  return renaming === null ? unsureTarget(mount, call, name) : targetOf(renaming);
}

function targetOf(renaming: boolean): RenameTarget {
  return renaming ? "another" : "itself";
}

async function unsureTarget(mount: Mount, call: Call, name: Buffer): Promise<RenameTarget> {
  for (let waits = 0; waits < RUNNING_WAITS_MAX && call.pid !== 0; waits += 1) {
    await sleep(1);
    const renaming = mount.isRenaming(call.pid);
    if (renaming !== null) return targetOf(renaming);
  }
  // A rename looks up both names anew, and is not likely to be overtaken a second time.
  return mount.staleOnce.give("lookup", name, call.pid) ? "walk again" : "itself";
}

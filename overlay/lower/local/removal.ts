/**
 * The local lower: what happens to an inode whose name goes. If it was the last one, a descriptor keeps it for a moment (removed-inodes.ts),
 * and if it is open somewhere, it gets a name in the hidden directory (hazard H10, orphans.ts).
 */
import { E } from "../../../dlmd/base/errno.ts";
import { andThen, checked, type MaybePromise, withErrors } from "../../../dlmd/base/maybe-promise.ts";
import { LARGE_FILE_BLOCKS } from "../limits.ts";
import { AT_REMOVEDIR, O, S } from "../linux.ts";
import type { Entry, FileId } from "../lower.ts";
import { type LocalContext, ownHandle, sharedHandle } from "./context.ts";
import { parseEntries } from "./dirents.ts";

const NOT_HELD = -1;
const GETDENTS_BYTES = 512;

function isDirectory({ attr }: Entry): boolean {
  return (attr.mode & S.IFMT) === S.IFDIR;
}

/** The calls for a change that takes the name of `removed` away: freeing a large file waits for the disk. */
function removingCalls(context: LocalContext, removed: Entry | null): LocalContext["metadata"] {
  const large =
    removed !== null && (removed.attr.mode & S.IFMT) === S.IFREG && removed.attr.nlink === 1 && removed.attr.blocks > LARGE_FILE_BLOCKS;
  return large ? context.native.pool.metadata : context.metadata;
}

/** Makes sure that it outlives the removal of its last name (removed-inodes.ts), if that is what is about to go. It was just looked up: no disk. */
function hold(context: LocalContext, going: Entry): number {
  if (!isDirectory(going) && going.attr.nlink !== 1) return NOT_HELD;
  return context.sync.openByHandle(context.rootFd, sharedHandle(context, going.id), O.PATH);
}

function noteRemoved(context: LocalContext, removed: Entry, held: number): void {
  const { id, attr } = removed;
  const directory = isDirectory(removed);
  if (directory) {
    context.directories.drop(id);
    context.names.forget(id);
  }
  if (!directory && attr.nlink !== 1) return;
  context.recent.forget(id);
  context.removed.keep(held, id, attr, attr.blocks > LARGE_FILE_BLOCKS);
}

/** With `going` held: `act`, and what follows from its result. */
export function removing(context: LocalContext, going: Entry | null, act: (held: number) => MaybePromise<number>): MaybePromise<void> {
  if (going === null) return andThen(act(NOT_HELD), (result) => void checked(result));
  const held = hold(context, going);
  const letGo = (): void => {
    if (held >= 0) context.sync.close(held);
  };
  const acted = withErrors(
    () => act(held),
    (error) => {
      letGo();
      throw error;
    },
  );
  return andThen(acted, (result) => {
    if (result < 0) letGo();
    checked(result);
    noteRemoved(context, going, held);
  });
}

/** Whether `going` is to be kept for the next owner when its last name goes. */
function isKept(context: LocalContext, going: Entry): boolean {
  return context.orphans.table.keeps(going.attr.mode, going.attr.nlink, context.handles.isOpen(going.id));
}

/** unlinkat(2), or what comes to the same for those who do not see the hidden directory. The result of a system call. */
export function unlinkOrKeep(context: LocalContext, dirfd: number, name: Buffer, going: Entry, flags: number): MaybePromise<number> {
  const unlink = (): MaybePromise<number> => removingCalls(context, going).unlink(dirfd, name, flags);
  const directory = isDirectory(going);
  if (!isKept(context, going) || directory !== ((flags & AT_REMOVEDIR) !== 0)) return unlink();
  if (!directory) return context.orphans.moveIn(dirfd, name, going.id, false, unlink);
  return isEmpty(context, going.id).then((empty) => (empty ? context.orphans.moveIn(dirfd, name, going.id, true, unlink) : -E.ENOTEMPTY));
}

/** Nothing may be made in it meanwhile. */
async function isEmpty(context: LocalContext, id: FileId): Promise<boolean> {
  const calls = context.native.pool.metadata;
  const fd = checked(await calls.openByHandle(context.rootFd, ownHandle(context, id), O.RDONLY | O.DIRECTORY | O.NOATIME));
  try {
    const buffer = Buffer.allocUnsafeSlow(GETDENTS_BYTES);
    let names = 0;
    for (;;) {
      const bytes = checked(await calls.getdents(fd, buffer));
      names += parseEntries(buffer.subarray(0, bytes)).length;
      // "." and ".." are always there.
      if (bytes === 0 || names > 2) return names <= 2;
    }
  } finally {
    context.sync.close(fd);
  }
}

/** renameat2(2), which takes a name of `going` away if that is not null. The result of a system call. */
export function renameOver(
  context: LocalContext,
  going: Entry | null,
  held: number,
  oldFd: number,
  oldName: Buffer,
  newFd: number,
  newName: Buffer,
  flags: number,
): MaybePromise<number> {
  const rename = (): MaybePromise<number> => removingCalls(context, going).rename(oldFd, oldName, newFd, newName, flags);
  // A directory cannot have a second name: one that is open and is replaced ends with this owner.
  if (going === null || isDirectory(going) || !isKept(context, going)) return rename();
  return context.orphans.linkIn(held, going.id, rename);
}

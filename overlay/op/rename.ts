/** RENAME, with RENAME_NOREPLACE and RENAME_EXCHANGE. */
import { E, errnoError, isErrno } from "../../dlmd/base/errno.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import type { RenameRequest } from "../fuse/request.ts";
import type { InodeRecord } from "../inode/table.ts";
import { changeFor } from "../lower/lower.ts";
import { andThen, finallyDo, type MaybePromise } from "../../dlmd/base/maybe-promise.ts";
import type { Call } from "./call.ts";
import { changedNames } from "./change.ts";
import { inGoneDirectory } from "./create.ts";
import { RENAME_EXCHANGE } from "./linux.ts";
import { inodeOf, type Mount, withRestarts } from "./mount.ts";
import { pinnedAll } from "./pinned.ts";
import { checkVictim, noteChangeOf, noteNameGone, type Victim, withVictim } from "./victim.ts";

interface Renaming {
  readonly mount: Mount;
  readonly call: Call;
  readonly request: RenameRequest;
  readonly oldDir: InodeRecord;
  readonly newDir: InodeRecord;
}

export function rename(mount: Mount, call: Call, request: RenameRequest): MaybePromise<void> {
  return withDirectories(mount, call, request, (renaming, standsIn) =>
    withRestarts(mount, request.op, (restart) =>
      andThen(attempt(renaming, standsIn || restart > 0), (done) => done || requireDirectories(renaming)),
    ),
  );
}

/** Hazard F38: the process before has renamed it. What this one was asked of the names since, it has answered as they are. */
export function renameMade(mount: Mount, call: Call, request: RenameRequest): MaybePromise<void> {
  return withDirectories(mount, call, request, (renaming) => {
    const wants = [renaming.oldDir, renaming.newDir].map((inode) => ({ inode, mode: Mode.EX }) as const);
    return pinnedAll(mount, call, { wants }, () => {
      noteMoved(renaming, []);
      mount.staleOnce.settled(call, request.name);
      call.empty();
    });
  });
}

/** `standsIn`: what the kernel was told of the names is not what it goes by. */
function withDirectories(
  mount: Mount,
  call: Call,
  request: RenameRequest,
  work: (renaming: Renaming, standsIn: boolean) => MaybePromise<void>,
): MaybePromise<void> {
  const standsIn = mount.standIns.came(call.pid);
  const oldDir = inodeOf(mount, request.fuseNodeid);
  const newDir = inodeOf(mount, request.newFuseNodeid);
  mount.inodes.use(newDir);
  return finallyDo(
    () => work({ mount, call, request, oldDir, newDir }, standsIn),
    () => mount.inodes.leave(newDir),
  );
}

/** `fresh`: look at the names. */
function attempt(renaming: Renaming, fresh: boolean): MaybePromise<boolean> {
  const { mount, call, request, oldDir, newDir } = renaming;
  return withVictim(mount, call, oldDir, request.name, fresh, (moved) =>
    withVictim(mount, call, newDir, request.newName, fresh, (replaced) => {
      if (moved.inode !== null) return renameOnce(renaming, moved, moved.inode, replaced);
      if (moved.told) return false;
      throw errnoError(E.ENOENT);
    }),
  );
}

/** What looked like a name that moved may be a directory that is gone (hazard F18): ENOENT. Else false. */
async function requireDirectories({ mount, oldDir, newDir }: Renaming): Promise<false> {
  try {
    const attrs = [await mount.lower.getattr(oldDir.id), await mount.lower.getattr(newDir.id)];
    // One that is open somewhere is still there, without a name.
    if (attrs.some(({ nlink }) => nlink === 0)) throw errnoError(E.ENOENT);
    return false;
  } catch (error) {
    return inGoneDirectory(error);
  }
}

/** False: a name has become another file; look again. */
function renameOnce(renaming: Renaming, moved: Victim, inode: InodeRecord, replaced: Victim): MaybePromise<boolean> {
  const { mount, call, request, oldDir, newDir } = renaming;
  // Every directory whose entries or link count change, and every inode whose ctime, link count or ".." does.
  const inodes = [oldDir, newDir, inode, ...(replaced.inode === null ? [] : [replaced.inode])];
  const wants = inodes.map((one) => ({ inode: one, mode: Mode.EX }));
  noteNamesGo(renaming, inode, replaced.inode);
  return pinnedAll(mount, call, { wants }, async () => {
    try {
      await checkRename(renaming, inode, replaced.inode, moved.told && replaced.told);
      const { name, newName, flags } = request;
      const renamed = (): MaybePromise<void> =>
        changeFor(mount.lower, call.unique, () =>
          mount.lower.rename(oldDir.id, name, newDir.id, newName, flags, inode.id, replaced.inode?.id ?? null),
        );
      await changedNames(mount, call, { inodes, named: [oldDir, newDir], victims: [moved, replaced] }, renamed);
      noteRenamed(renaming, inode, replaced.inode, [moved, replaced]);
      mount.staleOnce.settled(call, name);
      call.empty();
      return true;
    } catch (error) {
      if (!isErrno(error, E.ESTALE)) throw error;
      return mount.staleOnce.answer(call, request.name, moved.told && replaced.told);
    }
  });
}

/** A program that moves files away from a directory, or puts others in their places, removes them from it as `rm` does. */
function noteNamesGo({ mount, request, oldDir, newDir }: Renaming, inode: InodeRecord, replaced: InodeRecord | null): void {
  if ((request.flags & RENAME_EXCHANGE) !== 0) return;
  if (replaced === null) noteChangeOf(mount, oldDir, inode, request.name);
  else noteChangeOf(mount, newDir, replaced, request.newName);
}

async function checkRename(renaming: Renaming, inode: InodeRecord, replaced: InodeRecord | null, told: boolean): Promise<void> {
  const { mount, call, request, oldDir, newDir } = renaming;
  const reparented = oldDir !== newDir;
  await checkVictim(mount, call, oldDir, inode, told, reparented);
  const exchange = (request.flags & RENAME_EXCHANGE) !== 0;
  if (replaced !== null) await checkVictim(mount, call, newDir, replaced, told, reparented && exchange);
}

function noteRenamed(renaming: Renaming, inode: InodeRecord, replaced: InodeRecord | null, victims: readonly Victim[]): void {
  const exchange = (renaming.request.flags & RENAME_EXCHANGE) !== 0;
  // Two names of one inode: rename(2) leaves both as they are, but the kernel moves the dentry all the same.
  if (!exchange && replaced !== null && replaced !== inode) noteNameGone(replaced);
  // The kernel moves what it has under that name, whatever it is.
  noteMoved(
    renaming,
    victims.flatMap((victim) => (victim.told && victim.inode !== null && (exchange || victim.inode === inode) ? [victim.inode] : [])),
  );
}

/** `inodes`: those that the kernel moves (hazard F46). */
function noteMoved({ mount, call, request, oldDir, newDir }: Renaming, inodes: readonly InodeRecord[]): void {
  const { coherence } = mount;
  // For a caller that was killed the kernel moves nothing.
  if (call.interrupted) return;
  for (const inode of inodes) mount.moved.isPlaced(inode);
  if ((request.flags & RENAME_EXCHANGE) !== 0) {
    coherence.names.exchangeEntries(oldDir, request.name, newDir, request.newName);
    return;
  }
  coherence.names.moveEntry(oldDir, request.name, newDir, request.newName);
}

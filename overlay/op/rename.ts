/** RENAME, with RENAME_NOREPLACE and RENAME_EXCHANGE. */
import { E, errnoError, isErrno } from "../../dlmd/base/errno.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import type { Want } from "../coherence/api.ts";
import type { Inode } from "../coherence/cover.ts";
import type { RenameRequest } from "../fuse/request.ts";
import type { InodeRecord } from "../inode/table.ts";
import type { Call } from "./call.ts";
import { attributesChanged, changed } from "./change.ts";
import { inGoneDirectory } from "./create.ts";
import { RENAME_EXCHANGE } from "./linux.ts";
import { inodeOf, type Mount, RESTARTS_MAX, tooManyRestarts, waiting } from "./mount.ts";
import { checkVictim, findVictim, leaveVictim, noteNameGone, type Victim } from "./victim.ts";

interface Renaming {
  readonly mount: Mount;
  readonly call: Call;
  readonly request: RenameRequest;
  readonly oldDir: InodeRecord;
  readonly newDir: InodeRecord;
}

export async function rename(mount: Mount, call: Call, request: RenameRequest): Promise<void> {
  const standsIn = mount.standIns.came(call.pid);
  const oldDir = inodeOf(mount, request.fuseNodeid);
  const newDir = inodeOf(mount, request.newFuseNodeid);
  mount.inodes.use(newDir);
  try {
    await renameWithRestarts({ mount, call, request, oldDir, newDir }, standsIn);
  } finally {
    mount.inodes.leave(newDir);
  }
}

/** `fresh`: what the kernel was told of the names is not what it goes by. */
async function renameWithRestarts(renaming: Renaming, fresh: boolean): Promise<void> {
  const { mount, call, request, oldDir, newDir } = renaming;
  for (let restart = 0; restart < RESTARTS_MAX; restart += 1) {
    let moved = findVictim(mount, call, oldDir, request.name, fresh);
    if (waiting(moved)) moved = await moved;
    try {
      let replaced = findVictim(mount, call, newDir, request.newName, fresh);
      if (waiting(replaced)) replaced = await replaced;
      try {
        if (moved.inode === null && !moved.told) throw errnoError(E.ENOENT);
        const done = moved.inode === null ? false : await renameOnce(renaming, moved, moved.inode, replaced);
        if (done) return;
      } finally {
        leaveVictim(mount, replaced);
      }
    } finally {
      leaveVictim(mount, moved);
    }
    await requireDirectories(renaming);
    fresh = true;
  }
  tooManyRestarts(mount, request.op);
}

/** What looked like a name that moved may be a directory that is gone (hazard F18): ENOENT. */
async function requireDirectories({ mount, oldDir, newDir }: Renaming): Promise<void> {
  try {
    const attrs = [await mount.lower.getattr(oldDir.id), await mount.lower.getattr(newDir.id)];
    // One that is open somewhere is still there, without a name.
    if (attrs.some(({ nlink }) => nlink === 0)) throw errnoError(E.ENOENT);
  } catch (error) {
    inGoneDirectory(error);
  }
}

/** False: a name has become another file; look again. */
async function renameOnce(renaming: Renaming, moved: Victim, inode: InodeRecord, replaced: Victim): Promise<boolean> {
  const { mount, call, request, oldDir, newDir } = renaming;
  const { coherence } = mount;
  // Every directory whose entries or link count change, and every inode whose ctime, link count or ".." does.
  const wants: Want[] = [
    { inode: oldDir, mode: Mode.EX },
    { inode: newDir, mode: Mode.EX },
    { inode, mode: Mode.EX },
  ];
  if (replaced.inode !== null) wants.push({ inode: replaced.inode, mode: Mode.EX });
  const pin = coherence.pinAll(wants, call);
  if (waiting(pin)) await pin;
  try {
    if (!moved.told || !replaced.told) await checkRename(renaming, inode, replaced.inode);
    const { name, newName, flags } = request;
    const renamed = mount.lower.rename(oldDir.id, name, newDir.id, newName, flags, inode.id, replaced.inode?.id ?? null);
    const done = changed(mount, call, inodesOf(wants), renamed);
    if (waiting(done)) await done;
    const outdated = attributesChanged(mount, call, [oldDir, newDir], [moved, replaced]);
    if (waiting(outdated)) await outdated;
    noteRenamed(renaming, inode, replaced.inode);
    mount.staleOnce.settled(request.op, request.name, call.pid);
    call.empty();
    return true;
  } catch (error) {
    if (!isErrno(error, E.ESTALE)) throw error;
    const told = moved.told && replaced.told;
    if (!told || !mount.staleOnce.give(request.op, request.name, call.pid)) return false;
    call.error(E.ESTALE);
    return true;
  } finally {
    coherence.unpinAll(wants);
  }
}

async function checkRename(renaming: Renaming, inode: InodeRecord, replaced: InodeRecord | null): Promise<void> {
  const { mount, call, request, oldDir, newDir } = renaming;
  const reparented = oldDir !== newDir;
  await checkVictim(mount, call, oldDir, inode, reparented);
  const exchange = (request.flags & RENAME_EXCHANGE) !== 0;
  if (replaced !== null) await checkVictim(mount, call, newDir, replaced, reparented && exchange);
}

function inodesOf(wants: readonly Want[]): Inode[] {
  return wants.map((want) => want.inode);
}

function noteRenamed(renaming: Renaming, inode: InodeRecord, replaced: InodeRecord | null): void {
  const { mount, call, request, oldDir, newDir } = renaming;
  const { coherence } = mount;
  const exchange = (request.flags & RENAME_EXCHANGE) !== 0;
  // Two names of one inode: rename(2) leaves both as they are, but the kernel moves the dentry all the same.
  if (!exchange && replaced !== null && replaced !== inode) noteNameGone(replaced);
  // For a caller that was killed the kernel moves nothing.
  if (call.interrupted) return;
  if (exchange) {
    coherence.names.exchangeEntries(oldDir, request.name, newDir, request.newName);
    return;
  }
  coherence.names.moveEntry(oldDir, request.name, newDir, request.newName);
}

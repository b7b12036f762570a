/**
 * Which inode an UNLINK, RMDIR or RENAME is about (hazard F12). The kernel checked its permissions on the child that it was last told;
 * the lock on that child has to be taken before the operation, so it must be known before.
 */
import { E, errnoError, isErrno } from "../../dlmd/base/errno.ts";
import type { InodeRecord } from "../inode/table.ts";
import type { Ownership } from "../lower/lower.ts";
import { andThen, finallyDo, withErrors, type MaybePromise } from "../../dlmd/base/maybe-promise.ts";
import type { Call } from "./call.ts";
import { S_IFDIR, S_IFMT } from "./linux.ts";
import { lookupPinned } from "./lookup.ts";
import type { Mount } from "./mount.ts";
import { checkAccess, checkSticky, credentialsFor, isSticky, MAY_WRITE } from "./permission.ts";

export interface Victim {
  /** null: no such name. In use while it is worked with. */
  readonly inode: InodeRecord | null;
  /** The kernel knows as much, and checked permissions on it. */
  readonly told: boolean;
}

/** `work` with what stands behind that name. `fresh`: what the kernel was told is known to be wrong. */
export function withVictim<T>(
  mount: Mount,
  call: Call,
  dir: InodeRecord,
  name: Buffer,
  fresh: boolean,
  work: (victim: Victim) => MaybePromise<T>,
): MaybePromise<T> {
  const found = (victim: Victim): MaybePromise<T> =>
    finallyDo(
      () => work(victim),
      () => {
        if (victim.inode !== null) mount.inodes.leave(victim.inode);
      },
    );
  if (!fresh) {
    const told = mount.coherence.names.toldChild(dir, name);
    if (told === null) return found({ inode: null, told: true });
    const record = told === undefined ? undefined : mount.inodes.get(told.fuseNodeid);
    if (record !== undefined) {
      mount.inodes.use(record);
      return found({ inode: record, told: true });
    }
  }
  return lookUpVictim(mount, call, dir, name).then(found);
}

async function lookUpVictim(mount: Mount, call: Call, dir: InodeRecord, name: Buffer): Promise<Victim> {
  try {
    const { id, attr } = await lookupPinned(mount, call, dir, name);
    return { inode: mount.inodes.remember(id, attr.mode), told: false };
  } catch (error) {
    if (isErrno(error, E.ENOENT)) return { inode: null, told: false };
    throw error;
  }
}

/** It is about to lose that name, or to be changed as noteChange says. Before its locks are asked for: those of what is changed so next are asked for ahead. */
export function noteChangeOf(mount: Mount, dir: InodeRecord, victim: InodeRecord, name: Buffer): void {
  mount.walkAhead.noteChange(dir, victim);
  if (victim.kind !== "directory") mount.changesAhead.note(dir, victim, name);
}

/** It is about to get another owner, mode or times, another extended attribute, or one more name: programs do that to all files of a tree (`chown -R`, `cp -al`). */
export function noteChange(mount: Mount, inode: InodeRecord): void {
  const place = mount.coherence.names.placeOf(inode);
  const dir = place === null ? undefined : mount.inodes.get(place.dir.fuseNodeid);
  if (place !== null && dir !== undefined) noteChangeOf(mount, dir, inode, place.name);
}

/** One name of it is gone. */
export function noteNameGone(victim: InodeRecord): void {
  victim.nlinkHint = victim.kind === "directory" ? 0 : Math.max(0, victim.nlinkHint - 1);
}

/**
 * With all pinned: the check that the kernel made on another inode, or on none (hazard F12), or with an owner that it was told before (hazard F36). The check
 * of the directory itself holds. `reparented`: a directory that changes its parent is written to: of what it was told the kernel asks before. ESTALE: what it
 * was told is not the caller's to remove; it is to walk again.
 */
export function checkVictim(
  mount: Mount,
  call: Call,
  dir: InodeRecord,
  victim: InodeRecord,
  told: boolean,
  reparented: boolean,
): MaybePromise<void> {
  if (!told) return checkUntold(mount, call, dir, victim, reparented);
  if (call.uid === 0) return;
  return withErrors(
    () => andThen(mount.lower.ownership(dir.id), (now) => checkInSticky(mount, call, now, victim)),
    (error) => {
      throw isErrno(error, E.EPERM) ? errnoError(E.ESTALE) : error;
    },
  );
}

function checkInSticky(mount: Mount, call: Call, dir: Ownership, victim: InodeRecord): MaybePromise<void> {
  if (!isSticky(dir) || dir.uid === call.uid) return;
  return andThen(mount.lower.ownership(victim.id), (now) => {
    if (now.uid !== call.uid) checkSticky(credentialsFor(mount, call), dir, now);
  });
}

async function checkUntold(mount: Mount, call: Call, dir: InodeRecord, victim: InodeRecord, reparented: boolean): Promise<void> {
  const who = credentialsFor(mount, call);
  const now = await mount.lower.ownership(victim.id);
  checkSticky(who, await mount.lower.ownership(dir.id), now);
  if (reparented && (now.mode & S_IFMT) === S_IFDIR) checkAccess(who, now, MAY_WRITE, mount.lower.hasAcls);
}

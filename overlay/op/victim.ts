/**
 * Which inode an UNLINK, RMDIR or RENAME is about (hazard F12). The kernel checked its permissions on the child that it was last told;
 * the lock on that child has to be taken before the operation, so it must be known before.
 */
import { E, isErrno } from "../../dlmd/base/errno.ts";
import type { InodeRecord } from "../inode/table.ts";
import { finallyDo, type MaybePromise } from "../../dlmd/base/maybe-promise.ts";
import type { Call } from "./call.ts";
import { S_IFDIR, S_IFMT } from "./linux.ts";
import { lookupPinned } from "./lookup.ts";
import type { Mount } from "./mount.ts";
import { checkAccess, checkSticky, MAY_WRITE, unknownCredentials } from "./permission.ts";

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

/** One name of it is gone. */
export function noteNameGone(victim: InodeRecord): void {
  victim.nlinkHint = victim.kind === "directory" ? 0 : Math.max(0, victim.nlinkHint - 1);
}

/**
 * With all pinned: the check that the kernel made on another inode, or on none. The check of the directory itself
 * holds. `reparented`: a directory that changes its parent is written to.
 */
export async function checkVictim(mount: Mount, call: Call, dir: InodeRecord, victim: InodeRecord, reparented: boolean): Promise<void> {
  const who = mount.credentials(call.pid) ?? unknownCredentials(call.uid, call.gid);
  const attr = await mount.lower.getattr(victim.id);
  const dirAttr = await mount.lower.getattr(dir.id);
  checkSticky(who, dirAttr, attr);
  if (reparented && (attr.mode & S_IFMT) === S_IFDIR) checkAccess(who, attr, MAY_WRITE, mount.lower.hasAcls);
}

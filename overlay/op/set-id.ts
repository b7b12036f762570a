/**
 * Hazard F37. Set-user-ID and set-group-ID go when a program without CAP_FSETID changes the data (fs/inode.c, file_remove_privs). Linux looks first whether the file could be
 * so long (mm/filemap.c, generic_write_checks; fs/open.c, vfs_fallocate): EFBIG, and nothing is changed. So here, but only where there is something to clear.
 *
 * A kernel that knows of these bits sends an empty SETATTR before it asks for the change, and so for chown(2) of nothing: nothing tells them apart. The change
 * takes the bits by itself. So that SETATTR does nothing by a caller that may not chown(2): overlay/EXCEPTIONS.md, exception 7.
 */
import { E, errnoError, isErrno } from "../../dlmd/base/errno.ts";
import { andThen, type MaybePromise } from "../../dlmd/base/maybe-promise.ts";
import type { Since } from "../coherence/cover.ts";
import type { OpenFile } from "../inode/handles.ts";
import type { InodeRecord } from "../inode/table.ts";
import type { Attr, AttrChange } from "../lower/lower.ts";
import type { Call } from "./call.ts";
import { changed } from "./change.ts";
import { S_IFMT, S_IFREG, S_ISGID, S_ISUID, S_IXGRP, SEEK_SET } from "./linux.ts";
import type { Mount } from "./mount.ts";
import { credentialsFor, isOwner, isSetId } from "./permission.ts";
import { dropChanged } from "./orphans.ts";

/** Mostly known here without a trip (hazard F23). */
export function hasSetId(mount: Mount, { inode }: OpenFile): MaybePromise<boolean> {
  return andThen(mount.lower.ownership(inode.id), ({ mode }) => isSetId(mode));
}

/**
 * EFBIG: such a file is never so long. An indirect-mapped file of ext4 is shorter than others, so its lower is asked. Linux only cuts a hole there short
 * (fs/ext4/inode.c, ext4_punch_hole); here it is refused.
 */
export async function checkReach(mount: Mount, { lowerHandle }: OpenFile, bytes: number): Promise<void> {
  try {
    await mount.lower.lseek(lowerHandle, bytes, SEEK_SET);
  } catch (error) {
    throw isErrno(error, E.EINVAL) ? errnoError(E.EFBIG) : error;
  }
}

/**
 * Before the data is changed by `afterKill`. The kernel is told: it goes on with the mode that it has, and exec(2) looks at nothing else. Gives what `afterKill`
 * wants to know: since when.
 */
export async function killSetId(mount: Mount, call: Call, file: OpenFile): Promise<Since> {
  const since = mount.coherence.since();
  await changed(mount, call, [file.inode], () => sendKill(mount, file));
  await dropChanged(mount, call, [file.inode], false);
  return since;
}

const sendKill = ({ lower }: Mount, { inode, lowerHandle }: OpenFile): MaybePromise<unknown> =>
  lower.setattr(inode.id, { killSuidgid: true }, lowerHandle);

/** What an owner has cleared may die with it, and the change is made at the next one: then they are cleared once more, under the same pin. A part of the change. */
export async function afterKill<T>(mount: Mount, file: OpenFile, killed: Since | null, change: () => MaybePromise<T>): Promise<T> {
  try {
    return await change();
  } finally {
    if (killed !== null && mount.coherence.ownerDied(killed)) {
      await sendKill(mount, file);
      await mount.coherence.dropKernelCaches([file.inode], false);
    }
  }
}

/**
 * What the kernel is told of an announcement: the mode that the file has after the change, as the kernel looks at no other (fs/namei.c, may_linkat). If the
 * change fails, the kernel asks for the mode before it runs the program (fs/fuse/dir.c, fuse_permission), and a link(2) is checked here (hazard F12).
 */
export function announced(attr: Attr): Attr {
  const setgid = (attr.mode & S_IXGRP) === 0 ? 0 : S_ISGID;
  return { ...attr, mode: attr.mode & ~(S_ISUID | setgid) };
}

/**
 * Does a SETATTR change nothing, as it may only announce a change of the data? EPERM: it can announce none, as no file is open for writing, so it is a chown(2)
 * by another than the owner. With the inode pinned.
 */
export function isAnnouncement(mount: Mount, call: Call, inode: InodeRecord, change: AttrChange): MaybePromise<boolean> {
  if (call.uid === 0 || !mount.handleKillpriv || Object.keys(change).length > 0) return false;
  return andThen(mount.lower.ownership(inode.id), (now) => {
    if ((now.mode & S_IFMT) !== S_IFREG || !isSetId(now.mode) || now.uid === call.uid || isOwner(credentialsFor(mount, call), now))
      return false;
    if (!mount.handles.isOpenForWriting(inode)) throw errnoError(E.EPERM);
    return true;
  });
}

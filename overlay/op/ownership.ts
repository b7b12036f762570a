/**
 * Hazard F36: the kernel checks who owns a file with the owner, the group and the mode that it was told last, and asks nobody. It does so for SETATTR
 * (fs/attr.c, setattr_prepare and may_setattr), for ACLs (fs/posix_acl.c, set_posix_acl), for chattr(1) (fs/file_attr.c, vfs_fileattr_set), and for what goes
 * from a sticky directory (victim.ts). So the checks are made again here, under the lock. Root's are not: it passes them all. Checks of permission bits ask
 * first (fs/fuse/dir.c, fuse_permission).
 */
import { E, errnoError } from "../../dlmd/base/errno.ts";
import { andThen, type MaybePromise } from "../../dlmd/base/maybe-promise.ts";
import type { InodeRecord } from "../inode/table.ts";
import type { AttrChange, Ownership } from "../lower/lower.ts";
import { accessAcl } from "./access-acl.ts";
import type { Call } from "./call.ts";
import { S_ISGID } from "./linux.ts";
import type { Mount } from "./mount.ts";
import {
  aclAllows,
  CAP_CHOWN,
  CAP_DAC_OVERRIDE,
  CAP_FSETID,
  checkAccess,
  credentialsFor,
  isCapable,
  isInGroup,
  isOwner,
  MAY_WRITE,
  seenCaller,
} from "./permission.ts";

const SET_ID = 0o6000;
const PERMISSIONS = 0o7777;
/** S_IRWXG: with an ACL its mask. */
const GROUP_BITS = 0o070;

/** EPERM: not its owner, who alone may. With the inode pinned. */
export function checkOwner(mount: Mount, call: Call, inode: InodeRecord): MaybePromise<void> {
  if (call.uid === 0) return;
  return andThen(mount.lower.ownership(inode.id), (now) => requireOwner(mount, call, now));
}

function requireOwner(mount: Mount, call: Call, now: Ownership): void {
  if (now.uid !== call.uid && !isOwner(credentialsFor(mount, call), now)) throw errnoError(E.EPERM);
}

/** Does an ACL that the caller sets take set-group-id away? Its group may be another one than the kernel was told. With the inode pinned. */
export function losesSetgid(mount: Mount, call: Call, inode: InodeRecord): MaybePromise<boolean> {
  if (call.uid === 0) return false;
  return andThen(mount.lower.ownership(inode.id), (now) => (now.mode & S_ISGID) !== 0 && !keepsSetgid(mount, call, now, now.gid));
}

/** in_group_or_capable of fs/attr.c. Of a caller that is not seen only the first group counts. */
function keepsSetgid(mount: Mount, call: Call, now: Ownership, gid: number): boolean {
  if (call.gid === gid) return true;
  const who = credentialsFor(mount, call);
  return isInGroup(who, gid) || isCapable(who, CAP_FSETID, now);
}

/**
 * What of a SETATTR its caller may have; EPERM or EACCES: nothing. With the inode pinned. What the kernel sends by itself is a new size, or only takes
 * set-user-id and set-group-id away: it may.
 */
export function allowedChange(mount: Mount, call: Call, inode: InodeRecord, change: AttrChange): MaybePromise<AttrChange> {
  return andThen(checkedChange(mount, call, inode, change), (allowed) => {
    const cuts = allowed.size !== undefined && allowed.mode === undefined && call.uid !== 0;
    // Before Linux 5.11 the kernel clears set-user-ID by the mode that it was told last (hazard F37).
    return cuts && !mount.handleKillpriv ? { ...allowed, killSuidgid: true } : allowed;
  });
}

function checkedChange(mount: Mount, call: Call, inode: InodeRecord, change: AttrChange): MaybePromise<AttrChange> {
  const { mode, uid, gid, atime, mtime } = change;
  const asks = mode !== undefined || uid !== undefined || gid !== undefined || atime !== undefined || mtime !== undefined;
  if (call.uid === 0 || !asks) return change;
  return andThen(mount.lower.ownership(inode.id), (now) => {
    checkChown(mount, call, change, now);
    if (mode !== undefined && !isKernelsOwn(mount, mode, now)) requireOwner(mount, call, now);
    return andThen(checkTimes(mount, call, inode, change, now), () => withoutSetgid(mount, call, change, now));
  });
}

/** Before Linux 5.12 the kernel clears set-user-id itself, before anybody's write. */
function isKernelsOwn({ handleKillpriv }: Mount, mode: number, now: Ownership): boolean {
  if (handleKillpriv) return false;
  const wanted = mode & PERMISSIONS;
  return (wanted | SET_ID) === ((now.mode & PERMISSIONS) | SET_ID) && (wanted & ~now.mode) === 0;
}

/** chown_ok and chgrp_ok. Which groups the caller is in does not depend on the file: of one that is not seen the kernel's word counts. */
function checkChown(mount: Mount, call: Call, { uid, gid }: AttrChange, now: Ownership): void {
  const owns = now.uid === call.uid;
  const keepsOwner = uid === undefined || (owns && uid === now.uid);
  if (keepsOwner && (gid === undefined || (owns && (gid === now.gid || gid === call.gid)))) return;
  const who = seenCaller(mount, call);
  if (who !== null && isCapable(who, CAP_CHOWN, now)) return;
  const mayGroup = gid === undefined || (owns && (gid === now.gid || who === null || isInGroup(who, gid)));
  if (!keepsOwner || !mayGroup) throw errnoError(E.EPERM);
}

/** Both "now": touch(1), for all who may write. With a size the kernel adds the time by itself. */
function checkTimes(mount: Mount, call: Call, inode: InodeRecord, { size, atime, mtime }: AttrChange, now: Ownership): MaybePromise<void> {
  if ((atime === undefined && mtime === undefined) || now.uid === call.uid) return;
  if (size !== undefined && atime === undefined && mtime === "now") return;
  if (atime !== "now" || mtime !== "now") return requireOwner(mount, call, now);
  const who = seenCaller(mount, call);
  // The kernel has asked whether one that it did not take for the owner may write.
  if (who === null || isOwner(who, now) || isCapable(who, CAP_DAC_OVERRIDE, now)) return;
  return andThen((now.mode & GROUP_BITS) === 0 ? null : accessAcl(mount, inode), (acl) => {
    if (acl === null) checkAccess(who, now, MAY_WRITE, false);
    else if (!aclAllows(who, now, acl, MAY_WRITE)) throw errnoError(E.EACCES);
  });
}

/** Set-group-id is for members of the file's group, which may be another one than the kernel was told. */
function withoutSetgid(mount: Mount, call: Call, change: AttrChange, now: Ownership): AttrChange {
  const { mode, gid } = change;
  if (mode === undefined || (mode & S_ISGID) === 0 || keepsSetgid(mount, call, now, gid ?? now.gid)) return change;
  return { ...change, mode: mode & ~S_ISGID };
}

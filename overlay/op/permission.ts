/**
 * The permission checks that the kernel made on something else than what is there now (hazards F12, F36): made again here, as
 * fs/namei.c does (inode_permission, may_delete with check_sticky, may_create_in_sticky, may_linkat). Those of who may open a file are only reached
 * when a name changed between the kernel's walk and the operation, twice. Where they can not know (an ACL), they refuse.
 */
import { readFileSync } from "node:fs";
import { E, errnoError } from "../../dlmd/base/errno.ts";
import type { MaybePromise } from "../../dlmd/base/maybe-promise.ts";
import { type Credentials, hasId } from "../caller/status.ts";
import type { Ownership } from "../lower/lower.ts";
import type { Call } from "./call.ts";
import type { Mount } from "./mount.ts";
import { S_IFDIR, S_IFMT, S_IFREG, S_ISGID, S_ISUID, S_IXGRP } from "./linux.ts";

const S_ISVTX = 0o1000;
const SETGID_EXEC = S_ISGID | S_IXGRP;

export const CAP_CHOWN: bigint = 1n << 0n;
export const CAP_DAC_OVERRIDE: bigint = 1n << 1n;
const CAP_FOWNER = 1n << 3n;
export const CAP_FSETID: bigint = 1n << 4n;

/** Entries of an ACL (include/uapi/linux/posix_acl.h). */
const ACL = { USER_OBJ: 0x01, USER: 0x02, GROUP_OBJ: 0x04, GROUP: 0x08, MASK: 0x10, OTHER: 0x20 } as const;

export const MAY_READ = 4;
export const MAY_WRITE = 2;
const MAY_EXEC = 1;
const PROTECTED_HARDLINKS = "/proc/sys/fs/protected_hardlinks";

/** Nobody in particular: what a caller that can not be seen may do. */
export function unknownCredentials(uid: number, gid: number): Credentials {
  return { uid, gid, groups: [], capabilities: uid === 0 ? CAP_DAC_OVERRIDE | CAP_FOWNER : 0n };
}

/** null: it can not be seen, or works as another one just now (override_creds of overlayfs, nfsd and io_uring), of which /proc says nothing. */
export function seenCaller(mount: Mount, { pid, uid }: Pick<Call, "pid" | "uid">): Credentials | null {
  const who = mount.credentials(pid);
  return who !== null && who.uid === uid ? who : null;
}

/** Who asks, as far as it is seen. */
export function credentialsFor(mount: Mount, call: Pick<Call, "pid" | "uid" | "gid">): Credentials {
  return seenCaller(mount, call) ?? unknownCredentials(call.uid, call.gid);
}

/** capable_wrt_inode_uidgid of kernel/capability.c: in a user namespace that has the inode's owner and group. */
export function isCapable({ capabilities, idMaps }: Credentials, capability: bigint, { uid, gid }: Ownership): boolean {
  return (capabilities & capability) !== 0n && (idMaps === undefined || (hasId(idMaps.uids, uid) && hasId(idMaps.gids, gid)));
}

/** inode_owner_or_capable of fs/inode.c: there the group does not count. */
export function isOwner({ uid, capabilities, idMaps }: Credentials, inode: Ownership): boolean {
  return uid === inode.uid || ((capabilities & CAP_FOWNER) !== 0n && (idMaps === undefined || hasId(idMaps.uids, inode.uid)));
}

export function isInGroup(who: Credentials, gid: number): boolean {
  return who.gid === gid || who.groups.includes(gid);
}

/** EACCES unless the mode bits allow `mask`. `hasAcl`: there is an access ACL, whose entries are not looked at. */
export function checkAccess(who: Credentials, attr: Ownership, mask: number, hasAcl: boolean): void {
  if (!isCapable(who, CAP_DAC_OVERRIDE, attr) && who.uid !== attr.uid && hasAcl) throw errnoError(E.EACCES);
  if (!modeAllows(who, attr, mask)) throw errnoError(E.EACCES);
}

function modeAllows(who: Credentials, inode: Ownership, mask: number): boolean {
  const { mode, uid, gid } = inode;
  if (isCapable(who, CAP_DAC_OVERRIDE, inode)) return (mask & MAY_EXEC) === 0 || (mode & S_IFMT) === S_IFDIR || (mode & 0o111) !== 0;
  const shift = who.uid === uid ? 6 : isInGroup(who, gid) ? 3 : 0;
  return ((mode >> shift) & mask) === mask;
}

/** posix_acl_permission of fs/posix_acl.c, for one that is not the owner. `acl`: as in the extended attribute (linux/posix_acl_xattr.h). */
export function aclAllows(who: Credentials, { gid }: Ownership, acl: Buffer, mask: number): boolean {
  const entries: { readonly tag: number; readonly allows: boolean; readonly id: number }[] = [];
  for (let at = 4; at + 8 <= acl.length; at += 8)
    entries.push({ tag: acl.readUInt16LE(at), allows: (acl.readUInt16LE(at + 2) & mask) === mask, id: acl.readUInt32LE(at + 4) });
  const masked = entries.every(({ tag, allows }) => tag !== ACL.MASK || allows);
  const user = entries.find(({ tag, id }) => tag === ACL.USER && id === who.uid);
  if (user !== undefined) return user.allows && masked;
  const groups = entries.filter(
    ({ tag, id }) => (tag === ACL.GROUP_OBJ && isInGroup(who, gid)) || (tag === ACL.GROUP && isInGroup(who, id)),
  );
  if (groups.length > 0) return masked && groups.some(({ allows }) => allows);
  return entries.some(({ tag, allows }) => tag === ACL.OTHER && allows);
}

/** EPERM: in a sticky directory a name goes only by its file's owner, the directory's, or root. */
export function checkSticky(who: Credentials, dir: Ownership, victim: Ownership): void {
  if (!isSticky(dir) || who.uid === victim.uid || who.uid === dir.uid) return;
  if (!isCapable(who, CAP_FOWNER, victim)) throw errnoError(E.EPERM);
}

export function isSticky({ mode }: Ownership): boolean {
  return (mode & S_ISVTX) !== 0;
}

/** EACCES: O_CREAT does not open what others put into a sticky directory (fs.protected_regular taken as set). */
export function checkCreateInSticky(who: Credentials, dir: Ownership, found: Ownership): void {
  if (!isSticky(dir) || (dir.mode & 0o022) === 0) return;
  if (found.uid !== dir.uid && found.uid !== who.uid) throw errnoError(E.EACCES);
}

/** A program that is run as another one. Set-group-ID without group execute is none. */
export function isSetId(mode: number): boolean {
  return (mode & S_ISUID) !== 0 || (mode & SETGID_EXEC) === SETGID_EXEC;
}

/** proc_sys_fs(5). Set, if it can not be read. */
export function hardlinksAreProtected(): boolean {
  try {
    return readFileSync(PROTECTED_HARDLINKS, "latin1").trim() !== "0";
  } catch {
    return true;
  }
}

/**
 * EPERM: nobody links another's file that is special, set-user-ID, or not for him to read and write (fs/namei.c, may_linkat and safe_hardlink_source). The
 * kernel looks at the mode and the owner that it was told last, before it asks for others. `mayHaveMore`: asked where the mode bits do not allow it; an
 * ACL may.
 */
export async function checkHardlink(who: Credentials, attr: Ownership, mayHaveMore: () => MaybePromise<boolean>): Promise<void> {
  if (isOwner(who, attr)) return;
  const { mode } = attr;
  const isSafe = (mode & S_IFMT) === S_IFREG && !isSetId(mode);
  if (!isSafe) throw errnoError(E.EPERM);
  if (!modeAllows(who, attr, MAY_READ | MAY_WRITE) && !(await mayHaveMore())) throw errnoError(E.EPERM);
}

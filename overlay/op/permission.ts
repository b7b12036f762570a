/**
 * The permission checks that the kernel made on something else than what is there now (hazard F12): made again here, as
 * fs/namei.c does (inode_permission, may_delete with check_sticky, may_create_in_sticky). Only reached when a name changed between
 * the kernel's walk and the operation, twice. Where this file can not know (an ACL), it refuses.
 */
import { E, errnoError } from "../../dlmd/base/errno.ts";
import type { Credentials } from "../caller/status.ts";
import type { Attr } from "../lower/lower.ts";
import { S_IFDIR, S_IFMT } from "./linux.ts";

const S_ISVTX = 0o1000;

const CAP_DAC_OVERRIDE = 1n << 1n;
const CAP_FOWNER = 1n << 3n;

export const MAY_READ = 4;
export const MAY_WRITE = 2;
const MAY_EXEC = 1;

/** Nobody in particular: what a caller that can not be seen may do. */
export function unknownCredentials(uid: number, gid: number): Credentials {
  return { uid, gid, groups: [], capabilities: uid === 0 ? CAP_DAC_OVERRIDE | CAP_FOWNER : 0n };
}

/** EACCES unless the mode bits allow `mask`. `hasAcl`: there is an access ACL, whose entries are not looked at. */
export function checkAccess(who: Credentials, attr: Attr, mask: number, hasAcl: boolean): void {
  if ((who.capabilities & CAP_DAC_OVERRIDE) !== 0n) {
    if ((mask & MAY_EXEC) === 0 || (attr.mode & S_IFMT) === S_IFDIR || (attr.mode & 0o111) !== 0) return;
    throw errnoError(E.EACCES);
  }
  if (who.uid !== attr.uid && hasAcl) throw errnoError(E.EACCES);
  const inGroup = who.gid === attr.gid || who.groups.includes(attr.gid);
  const shift = who.uid === attr.uid ? 6 : inGroup ? 3 : 0;
  if (((attr.mode >> shift) & mask) !== mask) throw errnoError(E.EACCES);
}

/** EPERM: in a sticky directory a name goes only by its file's owner, the directory's, or root. */
export function checkSticky(who: Credentials, dir: Attr, victim: Attr): void {
  if ((dir.mode & S_ISVTX) === 0 || who.uid === victim.uid || who.uid === dir.uid) return;
  if ((who.capabilities & CAP_FOWNER) === 0n) throw errnoError(E.EPERM);
}

/** EACCES: O_CREAT does not open what others put into a sticky directory (fs.protected_regular taken as set). */
export function checkCreateInSticky(who: Credentials, dir: Attr, found: Attr): void {
  if ((dir.mode & S_ISVTX) === 0 || (dir.mode & 0o022) === 0) return;
  if (found.uid !== dir.uid && found.uid !== who.uid) throw errnoError(E.EACCES);
}

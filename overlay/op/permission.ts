/**
 * The permission checks that the kernel made on something else than what is there now (hazard F12): made again here, as
 * fs/namei.c does (inode_permission, may_delete with check_sticky, may_create_in_sticky, may_linkat). But for hard links, only reached when a name
 * changed between the kernel's walk and the operation, twice. Where this file can not know (an ACL), it refuses.
 */
import { readFileSync } from "node:fs";
import { E, errnoError } from "../../dlmd/base/errno.ts";
import type { MaybePromise } from "../../dlmd/base/maybe-promise.ts";
import type { Credentials } from "../caller/status.ts";
import type { Attr } from "../lower/lower.ts";
import { S_IFDIR, S_IFMT, S_IFREG, S_ISGID } from "./linux.ts";

const S_ISVTX = 0o1000;
const S_ISUID = 0o4000;
const SETGID_EXEC = S_ISGID | 0o010;

const CAP_DAC_OVERRIDE = 1n << 1n;
const CAP_FOWNER = 1n << 3n;

export const MAY_READ = 4;
export const MAY_WRITE = 2;
const MAY_EXEC = 1;
const PROTECTED_HARDLINKS = "/proc/sys/fs/protected_hardlinks";

/** Nobody in particular: what a caller that can not be seen may do. */
export function unknownCredentials(uid: number, gid: number): Credentials {
  return { uid, gid, groups: [], capabilities: uid === 0 ? CAP_DAC_OVERRIDE | CAP_FOWNER : 0n };
}

/** EACCES unless the mode bits allow `mask`. `hasAcl`: there is an access ACL, whose entries are not looked at. */
export function checkAccess(who: Credentials, attr: Attr, mask: number, hasAcl: boolean): void {
  const overrides = (who.capabilities & CAP_DAC_OVERRIDE) !== 0n;
  if (!overrides && who.uid !== attr.uid && hasAcl) throw errnoError(E.EACCES);
  if (!modeAllows(who, attr, mask)) throw errnoError(E.EACCES);
}

function modeAllows(who: Credentials, { mode, uid, gid }: Attr, mask: number): boolean {
  if ((who.capabilities & CAP_DAC_OVERRIDE) !== 0n) return (mask & MAY_EXEC) === 0 || (mode & S_IFMT) === S_IFDIR || (mode & 0o111) !== 0;
  const inGroup = who.gid === gid || who.groups.includes(gid);
  const shift = who.uid === uid ? 6 : inGroup ? 3 : 0;
  return ((mode >> shift) & mask) === mask;
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
export async function checkHardlink(who: Credentials, attr: Attr, mayHaveMore: () => MaybePromise<boolean>): Promise<void> {
  if (who.uid === attr.uid || (who.capabilities & CAP_FOWNER) !== 0n) return;
  const { mode } = attr;
  const isSafe = (mode & S_IFMT) === S_IFREG && (mode & S_ISUID) === 0 && (mode & SETGID_EXEC) !== SETGID_EXEC;
  if (!isSafe) throw errnoError(E.EPERM);
  if (!modeAllows(who, attr, MAY_READ | MAY_WRITE) && !(await mayHaveMore())) throw errnoError(E.EPERM);
}

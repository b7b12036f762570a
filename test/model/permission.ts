/** Who may do what to an inode. Sources: path_resolution(7), capabilities(7), inode(7); fs/namei.c, fs/attr.c. */
import type { Inode, User } from "./state.ts";
import type { World } from "./world.ts";

export const READ = 4;
export const WRITE = 2;
export const EXEC = 1;

export const SETUID = 0o4000;
export const SETGID = 0o2000;
export const STICKY = 0o1000;
const GROUP_EXEC = 0o010;

/** Has all capabilities (CHOWN, DAC_OVERRIDE, FOWNER, FSETID, MKNOD, SYS_ADMIN), and nobody else has any. */
export const isRoot = (user: User): boolean => user.uid === 0;

export const inGroup = (user: User, gid: number): boolean => user.gid === gid || user.groups.includes(gid);

/** inode_owner_or_capable: the owner, or CAP_FOWNER. */
export const owns = (user: User, inode: Inode): boolean => isRoot(user) || user.uid === inode.uid;

/** in_group_or_capable: of its group, or CAP_FSETID. */
export const mayKeepSetgid = (user: User, gid: number): boolean => isRoot(user) || inGroup(user, gid);

/**
 * generic_permission: one class of bits counts, the first that fits: owner, group, others. Root may do all, but execute a file only if some
 * class may.
 */
export function may(user: User, inode: Inode, mask: number): boolean {
  if (isRoot(user)) return inode.type === "directory" || (mask & EXEC) === 0 || (inode.mode & 0o111) !== 0;
  const shift = user.uid === inode.uid ? 6 : inGroup(user, inode.gid) ? 3 : 0;
  return (mask & ~(inode.mode >> shift)) === 0;
}

/** check_sticky: in a sticky directory only the owner of the name's inode, the owner of the directory and CAP_FOWNER take a name away. */
export const stickyKeeps = (user: User, dir: Inode, victim: Inode): boolean =>
  (dir.mode & STICKY) !== 0 && user.uid !== victim.uid && user.uid !== dir.uid && !isRoot(user);

/** setattr_should_drop_sgid: with group execute always, without it (mandatory locking, once) if the caller is not of its group. */
const dropsSetgid = (user: User, inode: Inode): boolean =>
  (inode.mode & SETGID) !== 0 && ((inode.mode & GROUP_EXEC) !== 0 || !mayKeepSetgid(user, inode.gid));

/** The mode after chown(2) has taken away what it takes, before the group is looked at. */
export const modeAfterChown = (user: User, inode: Inode): number =>
  inode.type === "directory" ? inode.mode : inode.mode & ~SETUID & ~(dropsSetgid(user, inode) ? SETGID : 0);

/** setattr_should_drop_suidgid: a change of a file's contents by a caller without CAP_FSETID. */
export function modeAfterWrite(user: User, inode: Inode): number {
  if (isRoot(user) || inode.type !== "file") return inode.mode;
  return inode.mode & ~SETUID & ~(dropsSetgid(user, inode) ? SETGID : 0);
}

/** mode_strip_sgid and inode_init_owner: what a new inode gets of the mode asked for, and its group. */
export function ofNewInode(world: World, dir: Inode, isDirectory: boolean, asked: number): { mode: number; gid: number } {
  const { user, umask } = world.caller;
  const inherits = (dir.mode & SETGID) !== 0;
  let mode = asked & ~umask;
  if (inherits && isDirectory) mode |= SETGID;
  const stripped = inherits && !isDirectory && (asked & (SETGID | GROUP_EXEC)) === (SETGID | GROUP_EXEC) && !mayKeepSetgid(user, dir.gid);
  if (stripped) mode &= ~SETGID;
  return { mode, gid: inherits ? dir.gid : user.gid };
}

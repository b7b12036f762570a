/** Calls that make names and take them away. Source: fs/namei.c of Linux 6.18; POSIX.1-2017. */
import { EXEC, isRoot, may, ofNewInode, owns, READ, SETGID, SETUID, stickyKeeps, WRITE } from "./permission.ts";
import { isWithin, lookup, parentOf, PATH_MAX, type Last, type Place, placeOf, walk } from "./path.ts";
import { holds, type Operation, operation, type Refuse, refuse, type Rule } from "./rule.ts";
import type { FileType, Inode } from "./state.ts";
import type { World } from "./world.ts";

const CREATE = "fs/namei.c filename_create";

const inherits = holds("new inode: its group is that of its set-group-ID directory", "inode(7); fs/inode.c inode_init_owner");
const stripped = holds("new inode: set-group-ID is left out of a mode that a stranger to the group asks for", "fs/inode.c mode_strip_sgid");
const lastName = holds("removal: the last name goes, the inode stays while it is open", "unlink(2)");
const otherNames = holds("removal: other names of the inode stay", "unlink(2)");
export const nameRules: readonly Rule[] = [inherits, stripped, lastName, otherNames];

/** Puts a name into a directory. A directory that gets a subdirectory has one more link, its "..". */
function enter(world: World, dir: Inode, name: string, inode: Inode): void {
  const { entries, nlink } = world.inode(dir.ino);
  const links = inode.type === "directory" ? nlink + 1 : nlink;
  world.change(dir.ino, { entries: new Map(entries).set(name, inode.ino), nlink: links, mtime: world.now, ctime: world.now });
  if (inode.type === "directory") world.change(inode.ino, { parent: dir.ino });
}

function leave(world: World, dir: Inode, name: string, inode: Inode): void {
  const { entries, nlink } = world.inode(dir.ino);
  const left = new Map(entries);
  left.delete(name);
  const links = inode.type === "directory" ? nlink - 1 : nlink;
  world.change(dir.ino, { entries: left, nlink: links, mtime: world.now, ctime: world.now });
}

/** A name of it is gone. */
function unname(world: World, ino: number): void {
  const { nlink, type } = world.inode(ino);
  const left = type === "directory" ? 0 : nlink - 1;
  world.reach(left === 0 ? lastName : otherNames);
  world.change(ino, { nlink: left, ctime: world.now });
  world.forget(ino);
}

export function createIn(world: World, dir: Inode, name: string, type: FileType, asked: number, more: Partial<Inode> = {}): Inode {
  const { user } = world.caller;
  const { mode, gid } =
    type === "symlink" ? { ...ofNewInode(world, dir, false, 0), mode: 0o777 } : ofNewInode(world, dir, type === "directory", asked);
  if ((dir.mode & SETGID) !== 0) world.reach(inherits);
  if (type !== "symlink" && (asked & ~mode & SETGID) !== 0) world.reach(stripped);
  const inode = world.make({ type, mode, uid: user.uid, gid, parent: dir.ino, ...more });
  enter(world, dir, name, inode);
  return inode;
}

/** The refusals of filename_create and may_create, which all calls share that make a name. */
function creation<A>(call: string, wantsDirectory: boolean): Refuse<Place, A>[] {
  return [
    refuse("EEXIST", `${call}: the path ends with . or .. or is the root`, CREATE, ({ kind }) => kind !== "normal"),
    refuse("EEXIST", `${call}: the name is there, whatever it stands for`, CREATE, (place, _, world) => found(world, place) !== null),
    ...(wantsDirectory
      ? []
      : [refuse<Place, A>("ENOENT", `${call}: the name is not there and a slash stands behind it`, CREATE, ({ slash }) => slash)]),
  ];
}

function writable<A>(call: string): Refuse<Place, A> {
  return refuse(
    "EACCES",
    `${call}: the directory may not be written`,
    "fs/namei.c may_create",
    ({ dir }, _, world) => !mayChange(world, dir),
  );
}

const mayChange = (world: World, dir: Inode): boolean => may(world.caller.user, dir, WRITE | EXEC);
const found = (world: World, { dir, name, kind }: Last): Inode | null => (kind === "normal" ? lookup(world, dir, name) : null);
const sure = (world: World, last: Last): Inode => {
  const inode = found(world, last);
  if (inode === null) throw new Error("a refusal before this one says that the name is there");
  return inode;
};

export const mkdir: Operation<{ path: string; mode: number }> = operation({
  name: "mkdir",
  source: "mkdir(2); fs/namei.c do_mkdirat, vfs_mkdir",
  given: (world, { path }) => placeOf(world, path),
  refusals: [...creation<{ path: string; mode: number }>("mkdir", true), writable("mkdir")],
  effect({ dir, name }, { mode }, world) {
    createIn(world, dir, name, "directory", mode & 0o1777);
    return null;
  },
});

export interface Mknod {
  readonly path: string;
  readonly type: "file" | "fifo" | "socket" | "char";
  readonly mode: number;
}

export const mknod: Operation<Mknod> = operation({
  name: "mknod",
  source: "mknod(2); fs/namei.c do_mknodat, vfs_mknod",
  given: (world, { path }) => placeOf(world, path),
  refusals: [
    ...creation<Mknod>("mknod", false),
    writable("mknod"),
    refuse(
      "EPERM",
      "mknod: a device, without CAP_MKNOD",
      "fs/namei.c vfs_mknod",
      (_, { type }, { caller }) => type === "char" && !isRoot(caller.user),
    ),
  ],
  effect({ dir, name }, { type, mode }, world) {
    createIn(world, dir, name, type, mode & 0o7777);
    return null;
  },
});

export interface Symlink {
  readonly target: string;
  readonly path: string;
}

export const symlink: Operation<Symlink> = operation({
  name: "symlink",
  source: "symlink(2); fs/namei.c do_symlinkat, vfs_symlink",
  first: [
    refuse("ENOENT", "symlink: the target is empty", "fs/namei.c getname", (_, { target }) => target === ""),
    refuse(
      "ENAMETOOLONG",
      "symlink: the target has 4096 bytes or more",
      "fs/namei.c getname",
      (_, { target }) => target.length >= PATH_MAX,
    ),
  ],
  given: (world, { path }) => placeOf(world, path),
  refusals: [...creation<Symlink>("symlink", false), writable("symlink")],
  effect({ dir, name }, { target }, world) {
    createIn(world, dir, name, "symlink", 0o777, { target });
    return null;
  },
});

export interface TwoPaths {
  readonly from: string;
  readonly to: string;
}

const isSetId = ({ mode }: Inode): boolean => (mode & SETUID) !== 0 || (mode & (SETGID | 0o010)) === (SETGID | 0o010);

/** safe_hardlink_source. */
function safeSource(world: World, inode: Inode): boolean {
  return inode.type === "file" && !isSetId(inode) && may(world.caller.user, inode, READ | WRITE);
}

/** may_linkat. */
function mayNotLink(world: World, inode: Inode | null): inode is Inode {
  return world.kernel.protectedHardlinks > 0 && inode !== null && !safeSource(world, inode) && !owns(world.caller.user, inode);
}

const linkPlaces = (world: World, { from, to }: TwoPaths): Place => ({ inode: walk(world, from, false), ...parentOf(world, to) });

export const LINK_OF_SET_ID = "link: a stranger's set-user-ID file, in a directory that may not be written";

export const link: Operation<TwoPaths> = operation<TwoPaths, Place>({
  name: "link",
  source: "link(2); fs/namei.c do_linkat, vfs_link",
  given: linkPlaces,
  refusals: [
    ...creation<TwoPaths>("link", false),
    refuse(
      "EPERM",
      LINK_OF_SET_ID,
      "proc_sys_fs(5) protected_hardlinks; fs/namei.c may_linkat",
      ({ inode, dir }, _, world) => mayNotLink(world, inode) && isSetId(inode) && !mayChange(world, dir),
    ),
    refuse(
      "EPERM",
      "link: a stranger's file that may not be read and written, or that is special or set-user-ID",
      "proc_sys_fs(5) protected_hardlinks; fs/namei.c may_linkat",
      ({ inode }, _, world) => mayNotLink(world, inode),
    ),
    writable("link"),
    refuse("EPERM", "link: it is a directory", "fs/namei.c vfs_link", ({ inode }) => inode?.type === "directory"),
  ],
  effect({ dir, name, inode }, _, world) {
    if (inode === null) throw new Error("link without an inode");
    world.change(inode.ino, { nlink: inode.nlink + 1, ctime: world.now });
    enter(world, dir, name, world.inode(inode.ino));
    return null;
  },
});

/** may_delete, of a name that is there. */
function deletion<A>(call: string, isDirectory: boolean): Refuse<Last, A>[] {
  const source = "fs/namei.c may_delete";
  return [
    refuse("EACCES", `${call}: the directory may not be written`, source, ({ dir }, _, world) => !mayChange(world, dir)),
    refuse("EPERM", `${call}: a stranger's name in a sticky directory`, source, (last, _, world) =>
      stickyKeeps(world.caller.user, last.dir, sure(world, last)),
    ),
    isDirectory
      ? refuse("ENOTDIR", `${call}: it is no directory`, source, (last, _, world) => sure(world, last).type !== "directory")
      : refuse("EISDIR", `${call}: it is a directory`, source, (last, _, world) => sure(world, last).type === "directory"),
  ];
}

export const unlink: Operation<{ path: string }> = operation<{ path: string }, Last>({
  name: "unlink",
  source: "unlink(2); fs/namei.c do_unlinkat, vfs_unlink",
  given: (world, { path }) => parentOf(world, path),
  refusals: [
    refuse("EISDIR", "unlink: the path ends with . or .. or is the root", "fs/namei.c do_unlinkat", ({ kind }) => kind !== "normal"),
    refuse("ENOENT", "unlink: the name is not there", "fs/namei.c do_unlinkat", (last, _, world) => found(world, last) === null),
    refuse(
      "EISDIR",
      "unlink: a directory, with a slash behind it",
      "fs/namei.c do_unlinkat",
      (last, _, world) => last.slash && sure(world, last).type === "directory",
    ),
    refuse("ENOTDIR", "unlink: no directory, with a slash behind it", "fs/namei.c do_unlinkat", ({ slash }) => slash),
    ...deletion<{ path: string }>("unlink", false),
  ],
  effect(last, _, world) {
    const inode = sure(world, last);
    leave(world, last.dir, last.name, inode);
    unname(world, inode.ino);
    return null;
  },
});

export const rmdir: Operation<{ path: string }> = operation<{ path: string }, Last>({
  name: "rmdir",
  source: "rmdir(2); fs/namei.c do_rmdir, vfs_rmdir",
  given: (world, { path }) => parentOf(world, path),
  refusals: [
    refuse("ENOTEMPTY", "rmdir: the path ends with ..", "fs/namei.c do_rmdir", ({ kind }) => kind === "dotdot"),
    refuse("EINVAL", "rmdir: the path ends with .", "fs/namei.c do_rmdir", ({ kind }) => kind === "dot"),
    refuse("EBUSY", "rmdir: the root", "fs/namei.c do_rmdir", ({ kind }) => kind === "root"),
    refuse("ENOENT", "rmdir: the name is not there", "fs/namei.c do_rmdir", (last, _, world) => found(world, last) === null),
    ...deletion<{ path: string }>("rmdir", true),
    refuse(
      "ENOTEMPTY",
      "rmdir: the directory has names",
      "rmdir(2); fs/ext4/namei.c ext4_rmdir",
      (last, _, world) => sure(world, last).entries.size > 0,
    ),
  ],
  effect(last, _, world) {
    const inode = sure(world, last);
    leave(world, last.dir, last.name, inode);
    unname(world, inode.ino);
    return null;
  },
});

export interface Rename extends TwoPaths {
  readonly flags: readonly ("NOREPLACE" | "EXCHANGE")[];
}

interface Moved {
  readonly old: Last;
  readonly new: Last;
}

const has = ({ flags }: Rename, flag: "NOREPLACE" | "EXCHANGE"): boolean => flags.includes(flag);
const source = (words: string): string => `rename(2); fs/namei.c ${words}`;
const isDirectory = (inode: Inode | null): boolean => inode?.type === "directory";

/** Both are names of one inode: nothing happens. */
const same = (world: World, moved: Moved): boolean => found(world, moved.old)?.ino === found(world, moved.new)?.ino;
/** What is refused only if something happens. */
const real =
  (when: (world: World, moved: Moved, args: Rename) => boolean) =>
  (moved: Moved, args: Rename, world: World): boolean =>
    !same(world, moved) && when(world, moved, args);

export const RENAME_SAME = "rename: two names of one inode both stay";
const renameSame = holds(RENAME_SAME, "rename(2)");
const renameOver = holds("rename: what the new name stood for loses it, in the same moment", "rename(2)");
const renameExchange = holds("rename: two names are exchanged in one moment", "rename(2) RENAME_EXCHANGE");

export const rename: Operation<Rename> = operation<Rename, Moved>({
  name: "rename",
  source: source("do_renameat2, vfs_rename"),
  clauses: [renameSame, renameOver, renameExchange],
  first: [refuse("EINVAL", "rename: NOREPLACE and EXCHANGE together", source("do_renameat2"), (_, { flags }) => flags.length > 1)],
  given: (world, { from, to }) => ({ old: parentOf(world, from), new: parentOf(world, to) }),
  refusals: [
    refuse("EBUSY", "rename: the old path ends with . or .. or is the root", source("do_renameat2"), ({ old }) => old.kind !== "normal"),
    refuse(
      "EEXIST",
      "rename: NOREPLACE, and the new path ends with . or .. or is the root",
      source("do_renameat2"),
      (moved, args) => moved.new.kind !== "normal" && has(args, "NOREPLACE"),
    ),
    refuse(
      "EBUSY",
      "rename: the new path ends with . or .. or is the root",
      source("do_renameat2"),
      (moved) => moved.new.kind !== "normal",
    ),
    refuse("ENOENT", "rename: the old name is not there", source("do_renameat2"), ({ old }, _, world) => found(world, old) === null),
    refuse(
      "EEXIST",
      "rename: NOREPLACE, and the new name is there",
      source("do_renameat2"),
      (moved, args, world) => found(world, moved.new) !== null && has(args, "NOREPLACE"),
    ),
    refuse(
      "ENOENT",
      "rename: EXCHANGE, and the new name is not there",
      source("do_renameat2"),
      (moved, args, world) => has(args, "EXCHANGE") && found(world, moved.new) === null,
    ),
    refuse(
      "ENOTDIR",
      "rename: EXCHANGE, and the new name has a slash and is no directory",
      source("do_renameat2"),
      (moved, args, world) => has(args, "EXCHANGE") && moved.new.slash && !isDirectory(found(world, moved.new)),
    ),
    refuse(
      "ENOTDIR",
      "rename: the old name has a slash and is no directory",
      source("do_renameat2"),
      ({ old }, _, world) => old.slash && !isDirectory(found(world, old)),
    ),
    refuse(
      "ENOTDIR",
      "rename: the new name has a slash and what moves is no directory",
      source("do_renameat2"),
      (moved, args, world) => !has(args, "EXCHANGE") && moved.new.slash && !isDirectory(found(world, moved.old)),
    ),
    refuse("EINVAL", "rename: a directory into itself or below", source("do_renameat2"), (moved, _, world) => {
      const inode = found(world, moved.old);
      return isDirectory(inode) && inode !== null && isWithin(world, inode, moved.new.dir);
    }),
    refuse(
      "EINVAL",
      "rename: EXCHANGE with a directory above",
      source("do_renameat2"),
      (moved, args, world) => has(args, "EXCHANGE") && isAbove(world, moved),
    ),
    refuse("ENOTEMPTY", "rename: onto a directory above", source("do_renameat2"), (moved, _, world) => isAbove(world, moved)),
    refuse(
      "EACCES",
      "rename: the old directory may not be written",
      source("may_delete"),
      real((world, { old }) => !mayChange(world, old.dir)),
    ),
    refuse(
      "EPERM",
      "rename: a stranger's name in a sticky directory",
      source("may_delete"),
      real((world, { old }) => stickyKeeps(world.caller.user, old.dir, sure(world, old))),
    ),
    refuse(
      "EACCES",
      "rename: the new directory may not be written",
      source("may_create, may_delete"),
      real((world, moved) => !mayChange(world, moved.new.dir)),
    ),
    refuse(
      "EPERM",
      "rename: over a stranger's name in a sticky directory",
      source("may_delete"),
      real((world, moved) => {
        const victim = found(world, moved.new);
        return victim !== null && stickyKeeps(world.caller.user, moved.new.dir, victim);
      }),
    ),
    refuse(
      "ENOTDIR",
      "rename: a directory over what is none",
      source("may_delete"),
      real((world, moved, args) => {
        const victim = found(world, moved.new);
        return victim !== null && !has(args, "EXCHANGE") && isDirectory(found(world, moved.old)) && !isDirectory(victim);
      }),
    ),
    refuse(
      "EISDIR",
      "rename: what is no directory over one",
      source("may_delete"),
      real((world, moved, args) => !has(args, "EXCHANGE") && !isDirectory(found(world, moved.old)) && isDirectory(found(world, moved.new))),
    ),
    refuse(
      "EACCES",
      "rename: a directory that may not be written changes its ..",
      source("vfs_rename"),
      real(
        (world, moved) =>
          moved.old.dir.ino !== moved.new.dir.ino &&
          isDirectory(found(world, moved.old)) &&
          !may(world.caller.user, sure(world, moved.old), WRITE),
      ),
    ),
    refuse(
      "EACCES",
      "rename: EXCHANGE, and the other directory may not be written",
      source("vfs_rename"),
      real(
        (world, moved, args) =>
          has(args, "EXCHANGE") &&
          moved.old.dir.ino !== moved.new.dir.ino &&
          isDirectory(found(world, moved.new)) &&
          !may(world.caller.user, sure(world, moved.new), WRITE),
      ),
    ),
    refuse(
      "EEXIST",
      "rename: over a directory that has names, on XFS",
      "rename(2) EEXIST; fs/xfs/libxfs/xfs_dir2.c xfs_dir_rename_children",
      real((world, moved, args) => world.kind.renameOverFull === "EEXIST" && isFull(world, moved, args)),
    ),
    refuse("ENOTEMPTY", "rename: over a directory that has names", source("vfs_rename; fs/ext4/namei.c ext4_rename"), real(isFull)),
  ],
  effect(moved, args, world) {
    if (same(world, moved)) {
      world.reach(renameSame);
      return null;
    }
    const inode = sure(world, moved.old);
    const other = found(world, moved.new);
    leave(world, moved.old.dir, moved.old.name, inode);
    if (other !== null) leave(world, moved.new.dir, moved.new.name, other);
    enter(world, moved.new.dir, moved.new.name, inode);
    const ctime = has(args, "EXCHANGE") && !world.kind.exchangeChangesCtime ? null : world.now;
    const isMtimeNew = has(args, "EXCHANGE") && world.kind.exchangeChangesMtime && moved.old.dir.ino !== moved.new.dir.ino;
    const timesOf = (one: Inode): Partial<Inode> => (isMtimeNew && isDirectory(one) ? { ctime, mtime: world.now } : { ctime });
    world.change(inode.ino, timesOf(inode));
    if (other !== null && has(args, "EXCHANGE")) {
      world.reach(renameExchange);
      enter(world, moved.old.dir, moved.old.name, other);
      world.change(other.ino, timesOf(other));
    } else if (other !== null) {
      world.reach(renameOver);
      unname(world, other.ino);
    }
    return null;
  },
});

function isFull(world: World, moved: Moved, args: Rename): boolean {
  return !has(args, "EXCHANGE") && (found(world, moved.new)?.entries.size ?? 0) > 0;
}

function isAbove(world: World, moved: Moved): boolean {
  const victim = found(world, moved.new);
  return victim !== null && isDirectory(victim) && isWithin(world, victim, moved.old.dir);
}

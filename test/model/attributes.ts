/** Calls about one inode: what it is, who may use it. Sources: fs/attr.c, fs/open.c, fs/stat.c of Linux 6.18; POSIX.1-2017. */
import { lookup, walk } from "./path.ts";
import { inGroup, isRoot, may, mayKeepSetgid, modeAfterChown, owns, READ, SETGID, WRITE } from "./permission.ts";
import { holds, type Operation, operation, type Refuse, refuse } from "./rule.ts";
import type { FileType, Ino, Inode, Time } from "./state.ts";
import type { World } from "./world.ts";

/** A path, whose last symbolic link is followed or not, or something open. */
export type Target = { readonly path: string; readonly follow: boolean } | { readonly slot: number };

export interface OnTarget {
  readonly target: Target;
}

/** Null: the slot is not open. */
export function targetOf(world: World, { target }: OnTarget): Inode | null {
  if ("path" in target) return walk(world, target.path, target.follow);
  const handle = world.handle(target.slot);
  return handle === null ? null : world.inode(handle.ino);
}

export function notOpen<A>(call: string): Refuse<Inode | null, A> {
  return refuse("EBADF", `${call}: it is not open`, `${call}(2)`, (inode) => inode === null);
}

export function inodeOf(inode: Inode | null): Inode {
  if (inode === null) throw new Error("a refusal before this one says that there is an inode");
  return inode;
}

export interface Stat {
  readonly type: FileType;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly nlink: number;
  /** Null of a directory: each file system has its own. */
  readonly size: number | null;
  readonly ino: Ino;
  readonly atime: Time;
  readonly mtime: Time;
  readonly ctime: Time;
}

export function statOf({ type, mode, uid, gid, nlink, data, target, ino, atime, mtime, ctime }: Inode): Stat {
  const size = type === "directory" ? null : type === "symlink" ? Buffer.byteLength(target) : data.length;
  return { type, mode, uid, gid, nlink, size, ino, atime, mtime, ctime };
}

export const stat: Operation<OnTarget> = operation<OnTarget, Inode | null>({
  name: "stat",
  source: "stat(2); fs/stat.c vfs_statx",
  given: targetOf,
  refusals: [notOpen("stat")],
  effect: (inode) => statOf(inodeOf(inode)),
});

export interface Chmod extends OnTarget {
  readonly mode: number;
}

const chmodStrips = holds("chmod: an owner outside of the file's group cannot set set-group-ID", "chmod(2); fs/attr.c setattr_prepare");

export const chmod: Operation<Chmod> = operation<Chmod, Inode | null>({
  name: "chmod",
  source: "chmod(2); fs/open.c chmod_common",
  clauses: [chmodStrips],
  given: targetOf,
  refusals: [
    notOpen("chmod"),
    refuse("EPERM", "chmod: a stranger's", "fs/attr.c setattr_prepare", (inode, _, { caller }) => !owns(caller.user, inodeOf(inode))),
  ],
  effect(inode, { mode }, world) {
    const { ino, gid } = inodeOf(inode);
    const keeps = mayKeepSetgid(world.caller.user, gid);
    if (!keeps && (mode & SETGID) !== 0) world.reach(chmodStrips);
    world.change(ino, { mode: keeps ? mode : mode & ~SETGID, ctime: world.now });
    return null;
  },
});

export interface Chown extends OnTarget {
  /** -1: as it is. */
  readonly uid: number;
  readonly gid: number;
}

const chownTakes = holds(
  "chown: set-user-ID and set-group-ID of what is no directory go, for root too",
  "chown(2); fs/open.c chown_common",
);
const chownStrips = holds("chown: set-group-ID stays only if the caller is of the new group", "fs/attr.c setattr_prepare");

export const CHOWN_OF_NOTHING = "chown: of nothing, by a stranger, where set-user-ID would have to go";

export const chown: Operation<Chown> = operation<Chown, Inode | null>({
  name: "chown",
  source: "chown(2); fs/open.c chown_common, fs/attr.c notify_change",
  clauses: [chownTakes, chownStrips],
  given: targetOf,
  refusals: [
    notOpen("chown"),
    refuse(
      "EPERM",
      "chown: another owner, or a stranger's, without CAP_CHOWN",
      "fs/attr.c chown_ok",
      (inode, { uid }, { caller: { user } }) =>
        uid !== -1 && !isRoot(user) && (user.uid !== inodeOf(inode).uid || uid !== inodeOf(inode).uid),
    ),
    refuse(
      "EPERM",
      "chown: a group that the owner is not in, or a stranger's, without CAP_CHOWN",
      "fs/attr.c chgrp_ok",
      (inode, { gid }, { caller: { user } }) =>
        gid !== -1 && !isRoot(user) && (user.uid !== inodeOf(inode).uid || (gid !== inodeOf(inode).gid && !inGroup(user, gid))),
    ),
    refuse(
      "EPERM",
      CHOWN_OF_NOTHING,
      "fs/attr.c notify_change",
      (inode, _, { caller: { user } }) => !owns(user, inodeOf(inode)) && modeAfterChown(user, inodeOf(inode)) !== inodeOf(inode).mode,
    ),
  ],
  effect(inode, { uid, gid }, world) {
    const before = inodeOf(inode);
    const { user } = world.caller;
    let mode = modeAfterChown(user, before);
    const group = gid === -1 ? before.gid : gid;
    if (mode !== before.mode) {
      world.reach(chownTakes);
      // Only a mode that changes is looked at again, against the new group.
      if ((mode & SETGID) !== 0 && !mayKeepSetgid(user, group)) {
        world.reach(chownStrips);
        mode &= ~SETGID;
      }
    }
    world.change(before.ino, { uid: uid === -1 ? before.uid : uid, gid: group, mode, ctime: world.now });
    return null;
  },
});

export interface Utimens extends OnTarget {
  /** Null: both become now. */
  readonly times: { readonly atimeNs: string; readonly mtimeNs: string } | null;
}

export const utimens: Operation<Utimens> = operation<Utimens, Inode | null>({
  name: "utimens",
  source: "utimensat(2); fs/utimes.c vfs_utimes",
  given: targetOf,
  refusals: [
    notOpen("utimens"),
    refuse(
      "EPERM",
      "utimens: given times, of a stranger's",
      "fs/attr.c setattr_prepare",
      (inode, { times }, { caller }) => times !== null && !owns(caller.user, inodeOf(inode)),
    ),
    refuse(
      "EACCES",
      "utimens: now, of a stranger's that may not be written",
      "fs/attr.c may_setattr",
      (inode, _, { caller }) => !owns(caller.user, inodeOf(inode)) && !may(caller.user, inodeOf(inode), WRITE),
    ),
  ],
  effect(inode, { times }, world) {
    const set = times === null ? { atime: null, mtime: world.now } : { atime: exactly(times.atimeNs), mtime: exactly(times.mtimeNs) };
    world.change(inodeOf(inode).ino, { ...set, ctime: world.now });
    return null;
  },
});

const exactly = (exactNs: string): Time => ({ exactNs });

export interface Access {
  readonly path: string;
  readonly mask: number;
}

export const access: Operation<Access> = operation<Access, Inode>({
  name: "access",
  source: "access(2); fs/open.c do_faccessat",
  given: (world, { path }) => walk(world, path, true),
  refusals: [
    refuse(
      "EACCES",
      "access: its mode does not allow it",
      "fs/open.c do_faccessat",
      (inode, { mask }, { caller }) => !may(caller.user, inode, mask),
    ),
  ],
  effect: () => null,
});

export const readlink: Operation<{ path: string }> = operation<{ path: string }, Inode>({
  name: "readlink",
  source: "readlink(2); fs/stat.c do_readlinkat",
  given: (world, { path }) => walk(world, path, false),
  refusals: [refuse("EINVAL", "readlink: it is no symbolic link", "readlink(2)", ({ type }) => type !== "symlink")],
  effect({ ino, target }, _, world) {
    world.change(ino, { atime: null });
    return target;
  },
});

/** Names and types, by name: the order is the file system's own. */
const listing = (world: World, dir: Inode): string[] => {
  world.change(dir.ino, { atime: null });
  return [...dir.entries.keys()].map((name) => `${lookup(world, dir, name)?.type ?? "?"} ${name}`).toSorted();
};

export const readdir: Operation<{ path: string }> = operation<{ path: string }, Inode>({
  name: "readdir",
  source: "opendir(3), readdir(3), getdents(2)",
  given: (world, { path }) => walk(world, path, true),
  refusals: [
    refuse("ENOTDIR", "readdir: it is no directory", "open(2) O_DIRECTORY; fs/namei.c do_open", ({ type }) => type !== "directory"),
    refuse("EACCES", "readdir: it may not be read", "fs/namei.c may_open", (dir, _, { caller }) => !may(caller.user, dir, READ)),
  ],
  effect: (dir, _, world) => listing(world, dir),
});

export interface Rewinddir {
  readonly path: string;
  /** Where the stream goes when it has come to its end: to the beginning, or to what telldir(3) said in the middle. */
  readonly how: "rewind" | "seek";
}

/** Twice through one stream; what is read from the middle on, with the first half, is all of it again. */
export const rewinddir: Operation<Rewinddir> = operation<Rewinddir, Inode>({
  name: "rewinddir",
  source: "rewinddir(3), telldir(3), seekdir(3), getdents(2)",
  given: (world, { path }) => walk(world, path, true),
  refusals: [
    refuse("ENOTDIR", "rewinddir: it is no directory", "open(2) O_DIRECTORY; fs/namei.c do_open", ({ type }) => type !== "directory"),
    refuse("EACCES", "rewinddir: it may not be read", "fs/namei.c may_open", (dir, _, { caller }) => !may(caller.user, dir, READ)),
  ],
  effect: (dir, _, world) => [listing(world, dir), listing(world, dir)],
});

export const getdents: Operation<{ slot: number }> = operation<{ slot: number }, Inode | null>({
  name: "getdents",
  source: "getdents(2); fs/readdir.c iterate_dir",
  given: (world, { slot }) => targetOf(world, { target: { slot } }),
  refusals: [
    notOpen("getdents"),
    refuse("ENOTDIR", "getdents: it is no directory", "fs/readdir.c iterate_dir", (inode) => inodeOf(inode).type !== "directory"),
    // Of a removed directory getdents(2) says ENOENT, which readdir(3) of the C library takes for the end: no names.
  ],
  effect: (inode, _, world) => listing(world, inodeOf(inode)),
});

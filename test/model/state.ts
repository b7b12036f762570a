/**
 * What a file system is, for a program: inodes, names, and what programs hold open. Pure data; nothing here is ever changed in place, so a
 * state may be kept, compared and gone back to. Source: POSIX.1-2017, Base Definitions 3 and 4; inode(7).
 */

/** The model's own numbers. Those of a real file system are mapped to them (spec/compare.ts). */
export type Ino = number;
export const ROOT: Ino = 1;

export type FileType = "file" | "directory" | "symlink" | "fifo" | "socket" | "char";

/** When something happened: a time that was set, the number of the call that did it, or null where the model does not say. */
export type Time = { readonly exactNs: string } | { readonly call: number } | null;

export interface Inode {
  readonly ino: Ino;
  readonly type: FileType;
  /** The twelve bits of chmod(2). */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly nlink: number;
  /** Of a file. */
  readonly data: Uint8Array;
  /** Of a directory: its names, without "." and "..". */
  readonly entries: ReadonlyMap<string, Ino>;
  /** Of a directory: where ".." leads. */
  readonly parent: Ino;
  /** Of a symbolic link. */
  readonly target: string;
  readonly xattrs: ReadonlyMap<string, string>;
  readonly atime: Time;
  readonly mtime: Time;
  readonly ctime: Time;
}

/** An open file description: open(2). */
export interface Handle {
  readonly ino: Ino;
  readonly mount: number;
  readonly read: boolean;
  readonly write: boolean;
  readonly append: boolean;
  readonly position: number;
}

export interface State {
  readonly inodes: ReadonlyMap<Ino, Inode>;
  /** By `mount:slot`: a program of one mount has a few slots for what it holds open. */
  readonly handles: ReadonlyMap<string, Handle>;
  readonly nextIno: Ino;
}

export interface User {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
  readonly groups: readonly number[];
}

/** Root, and two strangers. Alice is in a group that no file has until she gives it to one. */
export const USERS: readonly [User, User, User] = [
  { name: "root", uid: 0, gid: 0, groups: [] },
  { name: "alice", uid: 1001, gid: 1001, groups: [2000] },
  { name: "bob", uid: 1002, gid: 1002, groups: [] },
];

/** The switches of proc_sys_fs(5) that change an errno. */
export interface Kernel {
  readonly protectedHardlinks: number;
  readonly protectedSymlinks: number;
  readonly protectedRegular: number;
  readonly protectedFifos: number;
}

/** Where file systems differ, and may. */
export interface Kind {
  readonly name: string;
  /** A file cannot be longer: ext4 with blocks of 4 KiB 16 TiB less one block, XFS the signed 64 bits. */
  readonly maxFileBytes: bigint;
  /** XFS returns early from truncate(2) to 0 of an empty file, before it takes set-user-id away (xfs_setattr_size). */
  readonly emptyTruncateKeepsSetuid: boolean;
  /** XFS leaves the ctime of what RENAME_EXCHANGE moves within a directory (xfs_cross_rename), so the model says nothing of it. */
  readonly exchangeChangesCtime: boolean;
  /** XFS changes the mtime of a directory that RENAME_EXCHANGE moves to another one, as its `..` changes (xfs_cross_rename). */
  readonly exchangeChangesMtime: boolean;
  /** The errno of rename(2) over a directory that has names: POSIX allows both. */
  readonly renameOverFull: "ENOTEMPTY" | "EEXIST";
  /** copy_file_range(2) shares whole blocks, and then copies no more: XFS with reflink. */
  readonly clones: boolean;
  /** The time of a change may be later than the return of its call: coverlay's "written behind". */
  readonly timesMayBeLater: boolean;
  /** Which of exceptions.ts hold. */
  readonly exceptions: "none" | "coverlay";
}

export const KINDS: Readonly<Record<"ext4" | "xfs", Kind>> = {
  ext4: {
    name: "ext4",
    maxFileBytes: 2n ** 44n - 4096n,
    emptyTruncateKeepsSetuid: false,
    exchangeChangesCtime: true,
    exchangeChangesMtime: false,
    renameOverFull: "ENOTEMPTY",
    clones: false,
    timesMayBeLater: false,
    exceptions: "none",
  },
  xfs: {
    name: "xfs",
    maxFileBytes: 2n ** 63n - 1n,
    emptyTruncateKeepsSetuid: true,
    exchangeChangesCtime: false,
    exchangeChangesMtime: true,
    renameOverFull: "EEXIST",
    clones: true,
    timesMayBeLater: false,
    exceptions: "none",
  },
};

/** coverlay over such a file system. */
export const coverlayOver = (lower: Kind): Kind => ({
  ...lower,
  name: `coverlay over ${lower.name}`,
  timesMayBeLater: true,
  exceptions: "coverlay",
});

const NOTHING = new Uint8Array();

export function newInode(given: Pick<Inode, "ino" | "type" | "mode" | "uid" | "gid"> & Partial<Inode>, now: Time): Inode {
  return {
    nlink: given.type === "directory" ? 2 : 1,
    data: NOTHING,
    entries: new Map(),
    parent: ROOT,
    target: "",
    xattrs: new Map(),
    atime: null,
    mtime: now,
    ctime: now,
    ...given,
  };
}

/** An empty root directory of root's, in which all may make names. */
export function emptyState(): State {
  const root = newInode({ ino: ROOT, type: "directory", mode: 0o777, uid: 0, gid: 0 }, null);
  return { inodes: new Map([[ROOT, root]]), handles: new Map(), nextIno: ROOT + 1 };
}

/**
 * The file system under the overlay, as the op layer sees it: the same on the owner (`local`, system
 * calls) and elsewhere (`remote`, the owner does the same calls). A real seam: two implementations.
 *
 * Answers: a value at once where nothing had to wait, else a promise (`MaybePromise`). Failures are thrown
 * (or the promise rejects) as shared `Errno` instances. A caller does:
 *
 *     let attr = lower.getattr(id);
 *     if (attr instanceof Promise) attr = await attr;
 *
 * Who may call what is the coherence layer's business, not the lower's: every call is made with the
 * locks of DESIGN 5.2 held. Permission checks of the caller were made by the kernel (default_permissions);
 * `Caller` only says who owns what is created.
 */
import type { MaybePromise } from "../../dlmd/base/maybe-promise.ts";

/** Durable identity: inode number and generation. Numbers are reused, pairs are not. */
export interface FileId {
  readonly ino: number;
  readonly generation: number;
}

/** "ino.generation" in decimal: the key of tables, and the tail of a lock's resource name. */
export function fileKey(id: FileId): string {
  // There are many: a template makes a string of two that point to three, and takes more than twice the memory.
  return [id.ino, id.generation].join(".");
}

/** Of which identity that is the key. */
export function ofFileKey(key: string): FileId {
  const [ino = 0, generation = 0] = key.split(".").map(Number);
  return { ino, generation };
}

/** The one order in which several inodes are locked: inode number, then generation. */
export function compareFileIds(a: FileId, b: FileId): number {
  return a.ino - b.ino || a.generation - b.generation;
}

/** Attr.btimeNsec: of ext4 with inodes of 128 bytes, and XFS of version 4. */
export const NO_BIRTH_TIME = 0xffff_ffff;

export interface Attr {
  readonly ino: number;
  readonly mode: number;
  readonly nlink: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  /** 512-byte units. */
  readonly blocks: number;
  readonly blksize: number;
  readonly rdevMajor: number;
  readonly rdevMinor: number;
  readonly atimeSec: number;
  readonly atimeNsec: number;
  readonly mtimeSec: number;
  readonly mtimeNsec: number;
  readonly ctimeSec: number;
  readonly ctimeNsec: number;
  /** When it was made: never changes. */
  readonly btimeSec: number;
  /** NO_BIRTH_TIME: the file system does not keep it. */
  readonly btimeNsec: number;
  /** The names of its extended attributes, as listxattr(2) lists them. Not given: not known. */
  readonly xattrNames?: Buffer;
}

/** As withXattrNames. */
export function withEntry({ name, type, ino, cookie }: DirEntry, entry: Entry): DirEntry {
  return { name, type, ino, cookie, entry };
}

/** Property by property: a literal that adds one to what it spreads takes V8 a microsecond and more. */
export function withXattrNames(attr: Attr, xattrNames: Buffer): Attr {
  return {
    ino: attr.ino,
    mode: attr.mode,
    nlink: attr.nlink,
    uid: attr.uid,
    gid: attr.gid,
    size: attr.size,
    blocks: attr.blocks,
    blksize: attr.blksize,
    rdevMajor: attr.rdevMajor,
    rdevMinor: attr.rdevMinor,
    atimeSec: attr.atimeSec,
    atimeNsec: attr.atimeNsec,
    mtimeSec: attr.mtimeSec,
    mtimeNsec: attr.mtimeNsec,
    ctimeSec: attr.ctimeSec,
    ctimeNsec: attr.ctimeNsec,
    btimeSec: attr.btimeSec,
    btimeNsec: attr.btimeNsec,
    xattrNames,
  };
}

/** Who may do what with it. */
export type Ownership = Pick<Attr, "mode" | "uid" | "gid">;

export interface Entry {
  readonly id: FileId;
  readonly attr: Attr;
}

export interface DirEntry {
  readonly name: Buffer;
  /** DT_* of readdir(3). */
  readonly type: number;
  readonly ino: number;
  /** Position after this entry: what to give to the next readdir. Opaque, non-negative, below 2^63. */
  readonly cookie: bigint;
  /** With "entries" only; absent for "." and ".." and for a name that vanished meanwhile. */
  readonly entry?: Entry;
}

export interface DirPage {
  readonly entries: readonly DirEntry[];
  /** Nothing follows. */
  readonly end: boolean;
}

/**
 * What a listing is for. "plain": READDIR. "names": as many as fit a READDIRPLUS reply, but names only. "entries": those with
 * identity and attributes, in the same trip.
 */
export type Listing = "plain" | "names" | "entries";

export interface Caller {
  readonly uid: number;
  readonly gid: number;
  readonly umask: number;
}

/** What setattr changes; absent fields stay. "now" is the lower's clock. */
export interface AttrChange {
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly size?: number;
  readonly atime?: Time | "now";
  readonly mtime?: Time | "now";
  /** Clear set-user-id and set-group-id as a write or truncate by an unprivileged caller does. */
  readonly killSuidgid?: boolean;
}

export interface Time {
  readonly sec: number;
  readonly nsec: number;
}

export interface StatFs {
  readonly blocks: number;
  readonly bfree: number;
  readonly bavail: number;
  readonly files: number;
  readonly ffree: number;
  readonly bsize: number;
  readonly frsize: number;
  readonly namelen: number;
}

/** A change that its program need not wait for. */
export interface ChangeBehind {
  /** What the inode has then, but for its times. */
  readonly attr: Attr;
  /** At once. */
  readonly make: () => Promise<void>;
}

/** An open file or directory of the lower; a small number, meaningful to this Lower only. */
export type LowerHandle = number & { readonly __lowerHandle: unique symbol };

/** "flags": an int of FS_*_FL, as chattr(1) has them. "fsxattr": struct fsxattr, with the project id. */
export type AttributesKind = "flags" | "fsxattr";

/** An open file or directory, with what it takes to open it at another owner. */
export interface OpenFile {
  readonly handle: LowerHandle;
  readonly id: FileId;
  readonly flags: number;
  readonly directory: boolean;
}

/** What `fetch` gives: attributes and data as they were at some time after the fetch began. */
export interface Fetched {
  readonly attr: Attr;
  readonly data: Uint8Array;
}

/** Names, and what they stand for. */
export interface LowerNames {
  /** It is known here, without asking anybody, that a lookup of this name would say ENOENT. */
  isAbsent(parent: FileId, name: Buffer): boolean;
  /** Keeps what it is told under the locks that are here (hazard F21), so that bringing it ahead is of use; not on the owner itself. */
  readonly keeps: boolean;
  /** What a lookup of this name would say is known here under locks (hazard F21); never on the owner itself. */
  knows(parent: FileId, name: Buffer): boolean;
  /** It was just made through this Lower, which answered with `attr`; its lock is here, and nobody had it before. */
  made(id: FileId, attr: Attr): void;
  /** A file was just made and opened through this Lower, `attr` is what it has, its lock is here, and nobody had it before. */
  madeFile(handle: LowerHandle, attr: Attr): void;
  /** ENOENT: no such name. ESTALE: `parent` is gone. */
  lookup(parent: FileId, name: Buffer): MaybePromise<Entry>;
  /** One trip for many names of one directory; null where there is none, or where its inode cannot be read. At most 1024. ESTALE: `parent` is gone. */
  lookupMany(parent: FileId, names: readonly Buffer[]): MaybePromise<readonly (Entry | null)[]>;
  /**
   * Hazard F29. The inode that has that number now, whatever its names are. ESTALE: there is none, or none that a walk from the root could find; or this
   * file system does not tell.
   */
  byNumber(ino: number): MaybePromise<Entry>;
  /** The directory in which a directory is. ESTALE: `id` is the root, or gone. */
  parentOf(id: FileId): MaybePromise<Entry>;
  /** Where a directory is now: its path from the root, without a slash at either end. ESTALE: `id` is the root, or gone. */
  pathOf(id: FileId): MaybePromise<Buffer>;

  /** Always O_EXCL (hazard F12): EEXIST if the name is there. `flags` are the caller's open flags. */
  create(parent: FileId, name: Buffer, flags: number, mode: number, caller: Caller): MaybePromise<{ entry: Entry; handle: LowerHandle }>;
  /**
   * open(2) with O_TMPFILE: a file that has no link, and ends with its last close anywhere, unless `link` gives it a name before. Not `linkable`: it never
   * can. EOPNOTSUPP: this lower has no nameless files, or could not keep this one for the next owner (hazard F30).
   */
  tmpfile(
    parent: FileId,
    flags: number,
    mode: number,
    caller: Caller,
    linkable: boolean,
  ): MaybePromise<{ entry: Entry; handle: LowerHandle }>;
  mkdir(parent: FileId, name: Buffer, mode: number, caller: Caller): MaybePromise<Entry>;
  mknod(parent: FileId, name: Buffer, mode: number, rdevMajor: number, rdevMinor: number, caller: Caller): MaybePromise<Entry>;
  symlink(parent: FileId, name: Buffer, target: Buffer, caller: Caller): MaybePromise<Entry>;
  /** ESTALE if the name is not `expected` (hazard F12), ENOENT if there is none. */
  unlink(parent: FileId, name: Buffer, expected: FileId): MaybePromise<void>;
  rmdir(parent: FileId, name: Buffer, expected: FileId): MaybePromise<void>;
  /**
   * renameat2(2). ESTALE if the old name is not `expectedOld`, or the new name is not `expectedNew`
   * (null: there is none).
   */
  rename(
    oldParent: FileId,
    oldName: Buffer,
    newParent: FileId,
    newName: Buffer,
    flags: number,
    expectedOld: FileId,
    expectedNew: FileId | null,
  ): MaybePromise<void>;
  /** ENOENT: it has no name, and was not made for this (`tmpfile`). */
  link(id: FileId, newParent: FileId, newName: Buffer): MaybePromise<Attr>;
}

export interface LowerAttributes {
  /** ESTALE: gone. */
  getattr(id: FileId): MaybePromise<Attr>;
  /** As `getattr`; without a trip also where only the times are not known yet (hazard F23). */
  ownership(id: FileId): MaybePromise<Ownership>;
  /** One trip for many; null where an inode is gone or cannot be read. At most 1024. */
  getattrMany(ids: readonly FileId[]): MaybePromise<readonly (Attr | null)[]>;
  setattr(id: FileId, change: AttrChange, handle: LowerHandle | null): MaybePromise<Attr>;
  readlink(id: FileId): MaybePromise<Buffer>;
  statfs(): MaybePromise<StatFs>;
  /** ENODATA: none. The whole value; the op layer compares sizes. */
  getxattr(id: FileId, name: Buffer): MaybePromise<Buffer>;
  setxattr(id: FileId, name: Buffer, value: Buffer, flags: number): MaybePromise<void>;
  listxattr(id: FileId): MaybePromise<Buffer>;
  removexattr(id: FileId, name: Buffer): MaybePromise<void>;
  /** ENOTTY: the file system has none of that kind. */
  fileAttributes(handle: LowerHandle, kind: AttributesKind): MaybePromise<Buffer>;
  /** With all that was written behind on the lower (hazard F27). EOPNOTSUPP: the file system has no such flag. */
  setFileAttributes(handle: LowerHandle, kind: AttributesKind, value: Buffer): MaybePromise<void>;
}

/** Open files and directories, and what is in them. */
export interface LowerData {
  /** Regular files only. `flags`: access mode, O_TRUNC, O_DIRECT, O_SYNC/O_DSYNC, O_NOATIME. O_APPEND counts for a file that may only be appended to (chattr +a). O_CREAT is never passed. */
  open(id: FileId, flags: number): MaybePromise<LowerHandle>;
  opendir(id: FileId): MaybePromise<LowerHandle>;
  /** Never fails and never waits: the handle is gone at once, the descriptor soon. */
  close(handle: LowerHandle): void;
  /** `getattr` and `read` in one trip; null on the owner itself, where nothing is gained. */
  fetch(id: FileId, handle: LowerHandle, offset: number, bytes: number): Promise<Fetched> | null;
  /**
   * They will be asked for soon: brings what may be known of them under the locks that are here (hazard F21), "data" of files of at most 8 KiB whose
   * attributes are known. At most 1024, of "data" 64. Null on the owner itself, where nothing is gained.
   */
  prefetch(ids: readonly FileId[], what: "attributes" | "data"): Promise<void> | null;
  /**
   * At most `bytes` from `offset`; shorter only at the end of the file. A synchronous answer is a view that
   * stays valid until the next call into this Lower.
   */
  read(handle: LowerHandle, offset: number, bytes: number): MaybePromise<Uint8Array>;
  /**
   * All of `data` or an error; a short count only where the lower gave one (disk full). With `append` the
   * offset is ignored and the data goes to the true end. `data` must stay as it is until the answer.
   * Gives the offset it was written at and the count.
   */
  write(handle: LowerHandle, data: Uint8Array, offset: number, append: boolean): MaybePromise<{ offset: number; bytes: number }>;
  fsync(handle: LowerHandle, dataOnly: boolean): MaybePromise<void>;
  fsyncdir(handle: LowerHandle, dataOnly: boolean): MaybePromise<void>;
  fallocate(handle: LowerHandle, mode: number, offset: number, bytes: number): MaybePromise<void>;
  /** SEEK_DATA and SEEK_HOLE. SEEK_SET moves nothing; EINVAL: this file can never be so long. */
  lseek(handle: LowerHandle, offset: number, whence: number): MaybePromise<number>;
  /** Copies at most `bytes`; gives how many. */
  copyFileRange(inHandle: LowerHandle, inOffset: number, outHandle: LowerHandle, outOffset: number, bytes: number): MaybePromise<number>;
  /** From `cookie` (0: the beginning), as many entries as fit `bytes` bytes of a FUSE reply. */
  readdir(handle: LowerHandle, cookie: bigint, bytes: number, listing: Listing): MaybePromise<DirPage>;
  /** Everything that was executed before is on disk. */
  syncfs(): MaybePromise<void>;
}

/** Changes that a program need not wait for (hazard F23). */
export interface LowerBehind {
  /** A program need not wait for such a write now: its file was made here a moment ago, and there is room on the disk (hazard F23). Never on the owner. */
  mayWriteBehind(handle: LowerHandle, offset: number, bytes: number): boolean;
  /** `write`, and all that is asked of this lower later is done after it. Rejects if it was not written; then fsync says EIO. `data` is copied. */
  writeBehind(handle: LowerHandle, data: Uint8Array, offset: number): Promise<void>;
  /** Resolves when nothing is written behind any more. */
  writtenBehind(): MaybePromise<void>;
  /**
   * Hazard F23, as `writeBehind`: `make` is to be called in this turn, with EX of the inode until it is over. Null: it has to be waited for, call `setattr`.
   */
  setattrBehind(id: FileId, change: AttrChange): ChangeBehind | null;
}

/** `change` asks that lower for the change that it makes for that request (`madeFor`). Whatever becomes of it, no other change is taken for that one. */
export function changeFor<T>(lower: Pick<Lower, "madeFor">, request: number, change: () => T): T {
  if (request === 0) return change();
  lower.madeFor(request);
  try {
    return change();
  } finally {
    lower.madeFor(0);
  }
}

/** Of `read`, for use in a later turn: an answer that is there at once is a view that the next call overwrites. To be called before anything else runs. */
export function ownBytes(answer: MaybePromise<Uint8Array>): MaybePromise<Uint8Array> {
  return answer instanceof Promise ? answer : Uint8Array.from(answer);
}

export interface Lower extends LowerNames, LowerAttributes, LowerData, LowerBehind {
  /** The root directory of the volume. */
  readonly root: FileId;
  /** The owner's side sees ACLs on this file system (hazard F17: POSIX_ACL|DONT_MASK). */
  readonly hasAcls: boolean;
  /**
   * Hazard F38. The change that is asked for next, in this turn, is made for that request of the kernel, by its number; 0: for none. To be said of one change of a request,
   * the last one: what was made for it before may be made again.
   */
  madeFor(request: number): void;
}

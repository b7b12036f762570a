/** What the parts of the local lower share. */
import { AssertionError } from "../../../dlmd/base/assert.ts";
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import type { Log } from "../../../dlmd/base/log.ts";
import { STAT, type Calls, type Native } from "../../../native/index.ts";
import type { DirectoryNames } from "../directory-names.ts";
import { type Containment, wholeFileSystem } from "./containment.ts";
import type { CountedPools } from "./counted-pools.ts";
import type { DirectoryDescriptors } from "./directory-descriptors.ts";
import type { Exclusive } from "./exclusive.ts";
import { FILE_HANDLE_BYTES, type FileHandleFormat, type FindsGeneration } from "./file-handle.ts";
import { O, S } from "../linux.ts";
import type { Attr, Entry, FileId } from "../lower.ts";
import { andThen, checked, finallyDo, type MaybePromise } from "../../../dlmd/base/maybe-promise.ts";
import type { OpenHandles } from "./open-handles.ts";
import type { HiddenInodes } from "./hidden-inodes.ts";
import type { Orphans } from "./orphans.ts";
import type { RecentInodes } from "./recent-inodes.ts";
import type { RemovedInodes } from "./removed-inodes.ts";
import type { SmallWrites } from "./small-writes.ts";
import type { WarmUp } from "./warm-up.ts";

export interface LocalContext {
  readonly native: Native;
  readonly pools: CountedPools;
  readonly log: Log;
  readonly root: FileId;
  /** A real descriptor of the root, kept for the mount's life: syncfs reports an error once per descriptor (hazard H8). */
  readonly rootFd: number;
  readonly devMajor: number;
  readonly devMinor: number;
  readonly format: FileHandleFormat;
  readonly sync: Calls<number>;
  /** Calls that change names and attributes: on this thread or in the metadata pool, as configured. */
  readonly metadata: Calls<MaybePromise<number>>;
  /** openat2 knows RESOLVE_CACHED (Linux 5.12). */
  readonly cachedLookups: boolean;
  readonly recent: RecentInodes;
  readonly directories: DirectoryDescriptors;
  readonly containment: Containment;
  readonly findsGeneration: FindsGeneration;
  readonly hidden: HiddenInodes;
  readonly removed: RemovedInodes;
  /** LocalLowerOptions.moved */
  readonly moved: (id: FileId) => void;
  readonly orphans: Orphans;
  readonly names: DirectoryNames;
  /** Nobody changes the lower past this process. */
  readonly exclusive: boolean;
  readonly warmUp: WarmUp;
  readonly handles: OpenHandles;
  readonly smallWrites: SmallWrites;
  /** Changes of one directory, by its inode number: checking a name and acting on it must not be parted. */
  readonly turns: Exclusive;
  /** For synchronous calls only: overwritten by the next one. */
  readonly stat: Float64Array;
  readonly handle: Buffer;
  readonly scratch: Buffer;
}

/** Handle of `id` in the shared buffer: for a synchronous call made right away. */
export function sharedHandle(context: LocalContext, id: FileId): Buffer {
  context.format.encode(id, context.handle);
  return context.handle;
}

/** Handle of `id` in a buffer of its own: for a pool call. */
export function ownHandle(context: LocalContext, id: FileId): Buffer {
  const handle = Buffer.alloc(FILE_HANDLE_BYTES);
  context.format.encode(id, handle);
  return handle;
}

export function attrOf(context: LocalContext, stat: Float64Array): Attr {
  const ino = stat[STAT.INO] as number;
  return {
    ino,
    mode: stat[STAT.MODE] as number,
    // Kept with each inode (inode/table.ts): no double, as it comes out of that array, but a small integer.
    nlink: context.orphans.table.toldLinks(ino, (stat[STAT.NLINK] as number) | 0),
    uid: stat[STAT.UID] as number,
    gid: stat[STAT.GID] as number,
    size: stat[STAT.SIZE] as number,
    blocks: stat[STAT.BLOCKS] as number,
    blksize: stat[STAT.BLKSIZE] as number,
    rdevMajor: stat[STAT.RDEV_MAJOR] as number,
    rdevMinor: stat[STAT.RDEV_MINOR] as number,
    atimeSec: stat[STAT.ATIME_SEC] as number,
    atimeNsec: stat[STAT.ATIME_NSEC] as number,
    mtimeSec: stat[STAT.MTIME_SEC] as number,
    mtimeNsec: stat[STAT.MTIME_NSEC] as number,
    ctimeSec: stat[STAT.CTIME_SEC] as number,
    ctimeNsec: stat[STAT.CTIME_NSEC] as number,
    btimeSec: stat[STAT.BTIME_SEC] as number,
    btimeNsec: stat[STAT.BTIME_NSEC] as number,
  };
}

/** EXDEV: another file system is mounted there; its inodes have no identity in this volume. */
export function entryOf(context: LocalContext, stat: Float64Array, handle: Buffer): Entry {
  if (stat[STAT.DEV_MAJOR] !== context.devMajor || stat[STAT.DEV_MINOR] !== context.devMinor) throw errnoError(E.EXDEV);
  const id = context.format.decode(handle);
  const attr = attrOf(context, stat);
  if (id.ino !== attr.ino) throw new AssertionError(`file handle of inode ${id.ino} for inode ${attr.ino}`);
  context.recent.note(id, attr.mode);
  context.containment.note(id);
  return { id, attr };
}

export function attrOfFd(context: LocalContext, fd: number): Attr {
  checked(context.sync.stat(fd, context.stat));
  return attrOf(context, context.stat);
}

export function sameId(a: FileId, b: FileId): boolean {
  return a.ino === b.ino && a.generation === b.generation;
}

/** Runs `work` with an O_PATH descriptor of any kind of inode (hazard F18: never a real one of a device or FIFO). ESTALE: gone. */
export function withInode<T>(context: LocalContext, id: FileId, work: (fd: number) => MaybePromise<T>): MaybePromise<T> {
  if (context.directories.peek(id) !== undefined) return context.directories.use(id, work);
  return andThen(context.containment.prove(id), () => withProven(context, id, work));
}

function withProven<T>(context: LocalContext, id: FileId, work: (fd: number) => MaybePromise<T>): MaybePromise<T> {
  const opened = context.recent.has(id)
    ? context.sync.openByHandle(context.rootFd, sharedHandle(context, id), O.PATH)
    : context.native.pool.metadata.openByHandle(context.rootFd, ownHandle(context, id), O.PATH);
  return andThen<number, T>(opened, (result) => {
    const fd = checked(result);
    return finallyDo(
      () => {
        requireInside(context, fd);
        return work(fd);
      },
      () => {
        context.sync.close(fd);
      },
    );
  });
}

/** Hazard R19. ESTALE: a directory that another program has moved out of the tree. */
function requireInside(context: LocalContext, fd: number): void {
  if (context.containment === wholeFileSystem) return;
  checked(context.sync.stat(fd, context.stat));
  const isDirectory = ((context.stat[STAT.MODE] as number) & S.IFMT) === S.IFDIR;
  if (isDirectory && !context.containment.isInside(fd)) throw errnoError(E.ESTALE);
}

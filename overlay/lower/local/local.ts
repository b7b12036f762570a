/**
 * The lower on this node: system calls on a file system that is mounted here, reached through the descriptor of its
 * root (a detached mount, hazard C2, or a plain directory). Inodes are opened by handle, so nothing is remembered
 * about them but a few descriptors.
 *
 * The serving thread never waits for a disk (DESIGN 4): each call is tried without waiting, or goes to a pool.
 */
import { E, Errno, errnoError, errnoName } from "../../../dlmd/base/errno.ts";
import { OperatingError } from "../../../dlmd/base/error.ts";
import type { Log } from "../../../dlmd/base/log.ts";
import { type Calls, HANDLE_BUFFER_BYTES, type Native, STAT, STATFS } from "../../../native/index.ts";
import { CountedPools } from "./counted-pools.ts";
import { DirectoryDescriptors } from "./directory-descriptors.ts";
import { NamesListed } from "./names-listed.ts";
import { DirectoryNames, type NamesTold } from "../directory-names.ts";
import { type Containment, DirectoryTree, wholeFileSystem } from "./containment.ts";
import { Exclusive } from "./exclusive.ts";
import { type FileHandleFormat, fileHandleFormat, fileSystemName, findsGeneration } from "./file-handle.ts";
import { MAX_IO_BYTES, MAX_NAMES_TOLD } from "../limits.ts";
import { NAME_MAX, O } from "../linux.ts";
import * as attributes from "./attributes.ts";
import { byNumber, parentOf, pathOf } from "./by-number.ts";
import type { LocalContext } from "./context.ts";
import * as data from "./data.ts";
import { fileAttributes, setFileAttributes } from "./file-attributes.ts";
import * as directory from "./directory.ts";
import { HiddenInodes } from "./hidden-inodes.ts";
import * as names from "./names.ts";
import type { FileId, Lower, LowerHandle, StatFs } from "../lower.ts";
import { mountTable } from "../../../dlmd/base/mount-table.ts";
import { andThen, checked, type MaybePromise } from "../../../dlmd/base/maybe-promise.ts";
import { OpenHandles } from "./open-handles.ts";
import { Orphans } from "./orphans.ts";
import { RecentInodes } from "./recent-inodes.ts";
import { RemovedInodes } from "./removed-inodes.ts";
import { SmallWrites } from "./small-writes.ts";
import { Syncs } from "./syncs.ts";
import { WarmUp } from "./warm-up.ts";

export interface LocalLowerOptions {
  readonly native: Native;
  /** The root directory, O_PATH or not (fsmount gives O_PATH); stays the caller's, who closes it after `shutdown`. */
  readonly rootFd: number;
  /** Where changes of names and attributes, and small writes, run: on the calling thread ("inline") or in pools. */
  readonly metadataCalls: "inline" | "pool";
  /** The root is a directory inside of its file system (hazard R19). */
  readonly contained?: boolean;
  /** Other programs change it, too, past this Lower: it is a directory, and no disk of this owner. */
  readonly shared?: boolean;
  /** That directory has got another name (hazard F46): before the call that did it is answered. */
  readonly moved?: (id: FileId) => void;
  /** Milliseconds of a monotonic clock. */
  readonly nowMs?: () => number;
  readonly log: Log;
}

export interface LocalLower extends Lower {
  /** Nobody changes it past this Lower. */
  readonly exclusive: boolean;
  /** "ext4", "xfs", "tmpfs" ... */
  readonly fileSystem: string;
  readonly openHandles: number;
  /** Bytes that anybody may still write, as far as can be known at once; 0 where quotas may say otherwise, or small writes are the pool's. */
  room(): number;
  /** The inode of an open handle. Errno EBADF. */
  identityOf(handle: LowerHandle): FileId;
  /** What a file handle of this file system (name_to_handle_at(2)) stands for. */
  decodeHandle(handle: Buffer): FileId;
  /** What that name is known to stand for; null: nothing is known of it. */
  knownAs(directory: FileId, name: Buffer): FileId | null;
  /** Another program has changed that directory: the name may stand for anything; null: each name. */
  forgetNames(directory: FileId, name: Buffer | null): void;
  /** For a caller that knew the names of that directory at that version, 0: never (hazard F32). Null: that cannot be told. */
  namesSince(directory: FileId, version: number): NamesTold | null;
  /**
   * What is told of the inode's extended attributes (server/xattr-words.ts); null: nothing. Never fails. `cold`: they may have to be read from the disk, for
   * which the calling thread does not wait.
   */
  xattrNames(id: FileId, cold: boolean): MaybePromise<Buffer | null>;
  /** The descriptor of an open handle (FUSE_PASSTHROUGH). Errno EBADF. */
  descriptorOf(handle: LowerHandle): number;
  /** Of an open file, at once. Errno EBADF, and what fstat(2) gives. */
  sizeOf(handle: LowerHandle): number;
  /**
   * Reads the hidden directory of what is open and has no name (orphans.ts), and makes it if it is not there. Before anything is served;
   * without it such files live as long as this lower.
   */
  openOrphans(readOnly: boolean): Promise<void>;
  /**
   * Callers that had files open at an earlier owner have opened them again, or are gone: what has no name and nobody has open is dropped,
   * here and now, and from now on at its last close. Gives how many were dropped. Asked again it tries what could not be dropped before.
   */
  recoverOrphans(): Promise<number>;
  /** This owner ends: what is closed from now on is open for its users still, and stays on the disk for the next owner. */
  leaveOrphans(): void;
  /** That inode is open at a caller, and could not be opened here: it counts as open, once more, until `unpin`. */
  pin(id: FileId): void;
  unpin(id: FileId): void;
  /** How many times `syncfs` has failed. What was changed before may be lost, and only the caller of that one was told (hazard H8). */
  failedSyncs(): number;
  /** So many more files may be opened here. */
  roomForHandles(): number;
  /** Inodes without a name that are kept. */
  readonly orphanCount: number;
  /**
   * Closes every descriptor of the volume but the caller's root, and resolves when they are closed: then it can be unmounted. Asked again
   * it does nothing: the numbers may belong to somebody else by then.
   */
  shutdown(): Promise<void>;
}

function fail(code: string, message: string, hint: string): never {
  throw new OperatingError(message, { code, hint });
}

function identifyRoot(native: Native, rootFd: number, fileSystem: string): { format: FileHandleFormat; root: FileId; mode: number } {
  const handle = Buffer.alloc(HANDLE_BUFFER_BYTES);
  const result = native.sync.handleOf(rootFd, handle);
  if (result < 0) {
    fail(
      "unsupported-lower",
      `the lower file system (${fileSystem}) gives no file handles: name_to_handle_at failed with ${errnoName(-result)}`,
      "Use ext4 or XFS as the lower file system.",
    );
  }
  const format = fileHandleFormat(handle, fileSystem);
  const stat = new Float64Array(STAT.FIELDS);
  const opened = native.sync.statHandle(rootFd, handle, stat);
  if (opened < 0) {
    const permission = opened === -E.EPERM || opened === -E.EACCES;
    fail(
      permission ? "no-permission" : "unsupported-lower",
      `the root of the lower file system (${fileSystem}) can not be opened by its handle: ${errnoName(-opened)}`,
      permission ? "Run as root: open_by_handle_at needs CAP_DAC_READ_SEARCH." : "Use ext4 or XFS as the lower file system.",
    );
  }
  return { format, root: format.decode(handle), mode: stat[STAT.MODE] as number };
}

function createContext(options: LocalLowerOptions, fileSystem: string): LocalContext {
  const { native } = options;
  // open_by_handle_at and syncfs want a real descriptor.
  const rootFd = checked(native.sync.openat2(options.rootFd, Buffer.from("."), O.RDONLY | O.DIRECTORY, 0, 0));
  try {
    return contextOf(options, rootFd, fileSystem);
  } catch (error) {
    native.sync.close(rootFd);
    throw error;
  }
}

function contextOf(options: LocalLowerOptions, rootFd: number, fileSystem: string): LocalContext {
  const { log } = options;
  const pools = new CountedPools(options.native);
  const { native } = pools;
  const { format, root, mode } = identifyRoot(native, rootFd, fileSystem);
  const stat = new Float64Array(STAT.FIELDS);
  checked(native.sync.stat(rootFd, stat));
  const recent = new RecentInodes();
  recent.note(root, mode);
  const [major, minor] = native.kernelVersion();
  const containment: Containment = options.contained === true ? new DirectoryTree({ native, root, rootFd, format, log }) : wholeFileSystem;
  const directories = new DirectoryDescriptors({ native, root, rootFd, format, recent, containment });
  const removed = new RemovedInodes({ native });
  const metadata: Calls<MaybePromise<number>> = options.metadataCalls === "inline" ? native.sync : native.pool.metadata;
  const handles: OpenHandles = new OpenHandles(native, (id) => {
    if (!orphans.has(id)) return undefined;
    directories.drop(id);
    return orphans.lastClosed(id);
  });
  const orphans = new Orphans({
    native,
    log,
    rootFd,
    rootIno: root.ino,
    format,
    metadata,
    isOpen: (id) => handles.isOpen(id),
    makeRoom: () => removed.releaseAll(),
  });
  return {
    native,
    pools,
    log,
    root,
    rootFd,
    devMajor: stat[STAT.DEV_MAJOR] as number,
    devMinor: stat[STAT.DEV_MINOR] as number,
    format,
    sync: native.sync,
    metadata,
    cachedLookups: major > 5 || (major === 5 && minor >= 12),
    recent,
    directories,
    containment,
    findsGeneration: findsGeneration(fileSystem),
    hidden: new HiddenInodes({ native, root, rootFd, format, log }),
    removed,
    moved: options.moved ?? (() => undefined),
    orphans,
    names: new DirectoryNames(),
    exclusive: options.shared !== true,
    warmUp: new WarmUp(native, directories, log),
    handles,
    smallWrites: new SmallWrites(options.metadataCalls === "inline", options.nowMs ?? (() => performance.now())),
    turns: new Exclusive(),
    stat,
    handle: Buffer.alloc(HANDLE_BUFFER_BYTES),
    scratch: Buffer.alloc(MAX_IO_BYTES),
  };
}

/** ACLs are there unless the file system, or its mount options, know none. */
function findAcls(context: LocalContext): boolean {
  const result = context.sync.getxattr(context.rootFd, Buffer.from("system.posix_acl_access"), context.scratch);
  return result >= 0 || result === -E.ENODATA;
}

/**
 * Whether a list of names says all of an inode's extended attributes; "labelled": all but its label (SELinux). null: it may say too little, because an
 * attribute that is missing would be another error, or others set some past this Lower.
 */
function whatIsListed(context: LocalContext, shared: boolean): attributes.Listed | null {
  const ofRoot = (name: string): number => context.sync.getxattr(context.rootFd, Buffer.from(name), context.scratch);
  if (shared) return null;
  const isPlain = ["user", "trusted"].every((prefix) => ofRoot(`${prefix}.coverlay.none`) === -E.ENODATA);
  if (!isPlain || !findAcls(context)) return null;
  return ofRoot("security.selinux") >= 0 ? "labelled" : "all";
}

/** The space of what was removed counts as free. */
function statfs(context: LocalContext): MaybePromise<StatFs> {
  return andThen(context.removed.releaseAll(), () => statfsNow(context));
}

function statfsNow(context: LocalContext): StatFs {
  const fields = new Float64Array(STATFS.FIELDS);
  checked(context.sync.statfs(context.rootFd, fields));
  const field = (at: number): number => fields[at] as number;
  return {
    blocks: field(STATFS.BLOCKS),
    bfree: field(STATFS.BFREE),
    bavail: field(STATFS.BAVAIL),
    files: field(STATFS.FILES),
    ffree: field(STATFS.FFREE),
    bsize: field(STATFS.BSIZE),
    frsize: field(STATFS.FRSIZE),
    namelen: field(STATFS.NAMELEN),
  };
}

function roomOf(context: LocalContext): number {
  // What the pool writes is waited for by all that its caller asks.
  if (!context.smallWrites.here) return 0;
  const { bavail, frsize } = statfsNow(context);
  return bavail * frsize;
}

/** usrquota, prjquota, uquota ... (quotas of ext4 and XFS are told among the mount's options). A lower that is mounted nowhere else has none. */
function quotasOn({ devMajor, devMinor }: LocalContext): boolean {
  const device = `${devMajor}:${devMinor}`;
  const isQuota = (option: string): boolean => option.includes("quota") && option !== "noquota";
  return mountTable().some((entry) => entry.device === device && entry.superOptions.some(isQuota));
}

async function syncfs(context: LocalContext): Promise<void> {
  await context.removed.releaseAll();
  checked(await context.native.pool.sync.syncfs(context.rootFd));
}

/** A call is told that there is no room only when the space of what was removed a moment ago has been given back, and it was tried again. */
function withRoom<T>(context: LocalContext, work: () => MaybePromise<T>): MaybePromise<T> {
  const again = (error: unknown): MaybePromise<T> => {
    const noRoom = error instanceof Errno && (error.errno === E.ENOSPC || error.errno === E.EDQUOT);
    const released = noRoom ? context.removed.releaseAll() : undefined;
    if (released === undefined) throw error;
    return andThen(released, work);
  };
  try {
    const result = work();
    return result instanceof Promise ? result.catch(again) : result;
  } catch (error) {
    return again(error);
  }
}

async function closeAll(context: LocalContext, namesListed: NamesListed | null): Promise<void> {
  context.orphans.end();
  await namesListed?.stop();
  await context.warmUp.stop();
  await context.handles.closeAll();
  await context.removed.releaseAll();
  await context.pools.idle();
  context.orphans.close();
  context.directories.dropAll();
  context.sync.close(context.rootFd);
}

/** OperatingError "unsupported-lower" (the file system has no handles that we understand) or "no-permission". */
export function createLocalLower(options: LocalLowerOptions): LocalLower {
  const fields = new Float64Array(STATFS.FIELDS);
  checked(options.native.sync.statfs(options.rootFd, fields));
  const fileSystem = fileSystemName(fields[STATFS.TYPE] as number);
  const context = createContext(options, fileSystem);
  const hasQuotas = quotasOn(context);
  const listed = whatIsListed(context, options.shared === true);
  const syncs = new Syncs(() => syncfs(context));
  // Others change a shared one past this process.
  const namesListed = options.shared === true ? null : new NamesListed(context, options.nowMs ?? (() => performance.now()));
  let shutdown: Promise<void> | null = null;
  return {
    root: context.root,
    hasAcls: findAcls(context),
    fileSystem,
    exclusive: context.exclusive,
    get openHandles(): number {
      return context.handles.count;
    },
    fetch: () => null,
    prefetch: () => null,
    madeFor: () => undefined,
    mayWriteBehind: () => false,
    writeBehind: () => Promise.reject(errnoError(E.EOPNOTSUPP)),
    writtenBehind: () => undefined,
    room: () => (hasQuotas ? 0 : roomOf(context)),
    identityOf: (handle) => context.handles.get(handle).id,
    decodeHandle: (handle) => context.format.decode(handle),
    knownAs: (parent, name) => context.names.get(parent, name) ?? null,
    forgetNames: (parent, name) => (name === null ? context.names.forget(parent) : context.names.changing(parent, name)),
    xattrNames: (id, cold) => (listed === null ? null : attributes.xattrNames(context, id, listed, cold)),
    descriptorOf: (handle) => context.handles.get(handle).fd,
    sizeOf: (handle) => data.sizeOf(context, handle),
    openOrphans: (readOnly) => context.orphans.open(readOnly),
    recoverOrphans: () => context.orphans.settle(),
    leaveOrphans: () => context.orphans.end(),
    failedSyncs: () => syncs.failed,
    roomForHandles: () => context.handles.room,
    pin: (id) => context.handles.pin(id),
    unpin: (id) => context.handles.unpin(id),
    get orphanCount(): number {
      return context.orphans.table.count;
    },
    shutdown: () => (shutdown ??= closeAll(context, namesListed)),

    isAbsent: (parent, name) => name.length <= NAME_MAX && context.names.get(parent, name) === null,
    namesSince(parent, version) {
      const told = context.names.since(parent, version, MAX_NAMES_TOLD);
      if (told === null && !context.names.knowsAll(parent)) namesListed?.wanted(parent);
      return told;
    },
    // To ask the kernel costs less than to know.
    keeps: false,
    knows: () => false,
    made: () => undefined,
    madeFile: () => undefined,
    lookup: (parent, name) => names.lookup(context, parent, name),
    lookupMany: (parent, wanted) => names.lookupMany(context, parent, wanted),
    byNumber: (ino) => byNumber(context, ino),
    parentOf: (id) => parentOf(context, id),
    pathOf: (id) => pathOf(context, id),
    create: (parent, name, flags, mode, caller) => withRoom(context, () => names.create(context, parent, name, flags, mode, caller)),
    tmpfile: (parent, flags, mode, caller, linkable) =>
      withRoom(context, () => names.tmpfile(context, parent, flags, mode, caller, linkable)),
    mkdir: (parent, name, mode, caller) => withRoom(context, () => names.mkdir(context, parent, name, mode, caller)),
    mknod: (parent, name, mode, major, minor, caller) =>
      withRoom(context, () => names.mknod(context, parent, name, mode, major, minor, caller)),
    symlink: (parent, name, target, caller) => withRoom(context, () => names.symlink(context, parent, name, target, caller)),
    unlink: (parent, name, expected) => names.unlink(context, parent, name, expected),
    rmdir: (parent, name, expected) => names.rmdir(context, parent, name, expected),
    rename: (oldParent, oldName, newParent, newName, flags, expectedOld, expectedNew) =>
      withRoom(context, () => names.rename(context, oldParent, oldName, newParent, newName, flags, expectedOld, expectedNew)),
    link: (id, newParent, newName) => withRoom(context, () => names.link(context, id, newParent, newName)),

    getattr: (id) => attributes.getattr(context, id),
    ownership: (id) => attributes.getattr(context, id),
    getattrMany: (ids) => attributes.getattrMany(context, ids),
    setattrBehind: () => null,
    setattr: (id, change, handle) => withRoom(context, () => attributes.setattr(context, id, change, handle)),
    readlink: (id) => attributes.readlink(context, id),
    getxattr: (id, name) => attributes.getxattr(context, id, name),
    setxattr: (id, name, value, flags) => withRoom(context, () => attributes.setxattr(context, id, name, value, flags)),
    listxattr: (id) => attributes.listxattr(context, id),
    removexattr: (id, name) => attributes.removexattr(context, id, name),

    fileAttributes: (handle, kind) => fileAttributes(context, handle, kind),
    setFileAttributes: (handle, kind, value) => withRoom(context, () => setFileAttributes(context, handle, kind, value)),

    open: (id, flags) => data.open(context, id, flags),
    opendir: (id) => data.opendir(context, id),
    close: (handle) => context.handles.close(handle),
    read: (handle, offset, bytes) => data.read(context, handle, offset, bytes),
    write: (handle, bytes, offset, append) => withRoom(context, () => data.write(context, handle, bytes, offset, append)),
    fsync: (handle, dataOnly) => data.fsync(context, handle, dataOnly),
    fsyncdir: (handle, dataOnly) => data.fsync(context, handle, dataOnly),
    fallocate: (handle, mode, offset, bytes) => withRoom(context, () => data.fallocate(context, handle, mode, offset, bytes)),
    lseek: (handle, offset, whence) => data.lseek(context, handle, offset, whence),
    copyFileRange: (inHandle, inOffset, outHandle, outOffset, bytes) =>
      withRoom(context, () => data.copyFileRange(context, inHandle, inOffset, outHandle, outOffset, bytes)),
    readdir: (handle, cookie, bytes, listing) => directory.readdir(context, handle, cookie, bytes, listing),

    statfs: () => statfs(context),
    syncfs: () => syncs.sync(),
  };
}

/**
 * System calls that Node does not offer, as typed functions. No policy lives here or in the C++
 * behind it: every function is one system call, or a fixed short sequence that would cost a
 * crossing each.
 *
 * Results are numbers as the kernel gives them: >= 0, or a negative errno. Nothing throws for an
 * error of the system call; wrong argument types throw TypeError, arrays and buffers that are too short
 * RangeError. Offsets and sizes that do not fit into 64 bits give -EINVAL (reading) or -EFBIG (writing),
 * names with a NUL -EINVAL, names longer than 4095 bytes -ENAMETOOLONG.
 *
 * Each call of `Calls` exists twice: `native.sync` runs it on the calling thread, `native.pool.*`
 * on a thread of that pool and gives a promise. Buffers and arrays passed to a pool call belong to
 * it until the promise settles.
 */
import { createRequire } from "node:module";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import path from "node:path";

/** Where each field of a statx result stands in the Float64Array that receives it. */
export const STAT = {
  MODE: 0,
  NLINK: 1,
  UID: 2,
  GID: 3,
  INO: 4,
  SIZE: 5,
  BLOCKS: 6,
  BLKSIZE: 7,
  RDEV_MAJOR: 8,
  RDEV_MINOR: 9,
  ATIME_SEC: 10,
  ATIME_NSEC: 11,
  MTIME_SEC: 12,
  MTIME_NSEC: 13,
  CTIME_SEC: 14,
  CTIME_NSEC: 15,
  BTIME_SEC: 16,
  /** 0xffff_ffff: the file system keeps no birth time. */
  BTIME_NSEC: 17,
  DEV_MAJOR: 18,
  DEV_MINOR: 19,
  FIELDS: 20,
} as const;

/** statfs(2) result, in the Float64Array that receives it. */
export const STATFS = { TYPE: 0, BSIZE: 1, BLOCKS: 2, BFREE: 3, BAVAIL: 4, FILES: 5, FFREE: 6, NAMELEN: 7, FRSIZE: 8, FIELDS: 9 } as const;

/** struct fsxattr (include/uapi/linux/fs.h). */
export const FSXATTR_BYTES = 28;

/** umount2(2): out of the tree now, unmounted when its last user is gone. */
export const MNT_DETACH = 2;

/**
 * struct file_handle as the kernel writes it: u32 handle_bytes, i32 handle_type, then the bytes.
 * A buffer that receives one has HANDLE_BUFFER_BYTES.
 */
export const HANDLE_BUFFER_BYTES: number = 8 + 128;

/**
 * `R` is number (sync) or Promise<number> (pool). Names and paths are bytes without a NUL; the
 * addon adds it. `dirfd` may be an O_PATH descriptor. Creating calls set the thread's umask and its
 * filesystem uid/gid for the call and keep CAP_DAC_OVERRIDE (hazard F15), then set them back.
 */
export interface Calls<R> {
  close(fd: number): R;
  /** openat2(2); `resolve` is RESOLVE_* bits. Returns a descriptor (O_CLOEXEC is added). */
  openat2(dirfd: number, name: Buffer, flags: number, mode: number, resolve: number): R;
  /** open_by_handle_at(2): `handle` is a struct file_handle. */
  openByHandle(mountFd: number, handle: Buffer, flags: number): R;
  /** name_to_handle_at(fd, "", AT_EMPTY_PATH) into `handle`. */
  handleOf(fd: number, handle: Buffer): R;
  /**
   * One crossing for a lookup: openat2(dirfd, name, O_PATH|O_NOFOLLOW, RESOLVE_NO_XDEV and, with cachedOnly, RESOLVE_CACHED), statx,
   * name_to_handle_at, close. Returns 0. -EAGAIN with cachedOnly: it would wait. -EXDEV: something is mounted there.
   */
  lookup(dirfd: number, name: Buffer, cachedOnly: boolean, stat: Float64Array, handle: Buffer): R;
  /**
   * statx of each of `names` (a NUL after each) in that directory, for nothing but the kernel's caches: a lookup with cachedOnly then finds
   * them. Returns how many are there.
   */
  warm(dirfd: number, names: Buffer): R;
  /** statx of that name in that directory, which follows nothing. */
  statName(dirfd: number, name: Buffer, stat: Float64Array): R;
  /** statx(fd, "", AT_EMPTY_PATH). */
  stat(fd: number, stat: Float64Array): R;
  /** open_by_handle_at(O_PATH), statx, close. */
  statHandle(mountFd: number, handle: Buffer, stat: Float64Array): R;
  /** readlinkat(fd, ""): `fd` is O_PATH on the symlink itself. Returns the length. */
  readlink(fd: number, target: Buffer): R;
  /**
   * openat with O_CREAT as the caller: `flags` get O_CREAT|O_EXCL|O_CLOEXEC|O_NOFOLLOW; then statx and name_to_handle_at of the new file.
   * Returns a descriptor.
   */
  create(
    dirfd: number,
    name: Buffer,
    flags: number,
    mode: number,
    umask: number,
    uid: number,
    gid: number,
    stat: Float64Array,
    handle: Buffer,
  ): R;
  /**
   * openat of `dirfd` with O_TMPFILE as the caller: `flags`, which say that it is written to, get O_CLOEXEC; then as `create`. It has no name, and `link`
   * may give it one.
   */
  tmpfile(dirfd: number, flags: number, mode: number, umask: number, uid: number, gid: number, stat: Float64Array, handle: Buffer): R;
  mkdir(dirfd: number, name: Buffer, mode: number, umask: number, uid: number, gid: number): R;
  mknod(dirfd: number, name: Buffer, mode: number, umask: number, rdevMajor: number, rdevMinor: number, uid: number, gid: number): R;
  symlink(target: Buffer, dirfd: number, name: Buffer, uid: number, gid: number): R;
  /** `flags`: AT_REMOVEDIR for a directory. */
  unlink(dirfd: number, name: Buffer, flags: number): R;
  rename(oldDirfd: number, oldName: Buffer, newDirfd: number, newName: Buffer, flags: number): R;
  /** linkat(fd, "", dirfd, name, AT_EMPTY_PATH). */
  link(fd: number, dirfd: number, name: Buffer): R;
  /** chmod of what `fd` (O_PATH allowed) names, through /proc/self/fd. */
  chmod(fd: number, mode: number): R;
  /** fchownat(fd, "", uid, gid, AT_EMPTY_PATH); -1 leaves one as it is. */
  chown(fd: number, uid: number, gid: number): R;
  /** utimensat through AT_EMPTY_PATH or /proc/self/fd; nsec may be UTIME_NOW / UTIME_OMIT. */
  utimens(fd: number, atimeSec: number, atimeNsec: number, mtimeSec: number, mtimeNsec: number): R;
  ftruncate(fd: number, size: number): R;
  /** preadv2(2) into buffer[at..at+bytes]; -EFAULT if that is not inside the buffer; `flags` RWF_*. */
  read(fd: number, buffer: Buffer, at: number, bytes: number, offset: number, flags: number): R;
  /** pwritev2(2) of buffer[at..at+bytes]; -EFAULT if that is not inside the buffer; `flags` RWF_*. */
  write(fd: number, buffer: Buffer, at: number, bytes: number, offset: number, flags: number): R;
  fsync(fd: number, dataOnly: boolean): R;
  syncfs(fd: number): R;
  fallocate(fd: number, mode: number, offset: number, bytes: number): R;
  lseek(fd: number, offset: number, whence: number): R;
  copyFileRange(inFd: number, inOffset: number, outFd: number, outOffset: number, bytes: number): R;
  /** getdents64(2) from the current position. */
  getdents(fd: number, buffer: Buffer): R;
  /** Extended attributes of what `fd` (O_PATH allowed) names, through /proc/self/fd. An empty buffer asks for the size. */
  getxattr(fd: number, name: Buffer, value: Buffer): R;
  setxattr(fd: number, name: Buffer, value: Buffer, flags: number): R;
  listxattr(fd: number, list: Buffer): R;
  removexattr(fd: number, name: Buffer): R;
  statfs(fd: number, statfs: Float64Array): R;
  /** FS_IOC_GETFLAGS: FS_*_FL, as chattr(1) sets them. */
  fileFlags(fd: number): R;
  setFileFlags(fd: number, flags: number): R;
  /** FS_IOC_FSGETXATTR: struct fsxattr, of FSXATTR_BYTES. */
  fsxattr(fd: number, value: Buffer): R;
  setFsxattr(fd: number, value: Buffer): R;
  /** FS_IOC_FIEMAP of the whole file, after a sync of it: struct fiemap and its extents, as the kernel writes them. Returns how many extents. */
  extents(fd: number, map: Buffer): R;
  /** Fills the buffer, of at most 1 MiB, from a descriptor of O_DIRECT, through aligned memory. */
  readDirect(fd: number, buffer: Buffer, offset: number): R;
  writeDirect(fd: number, buffer: Buffer, offset: number): R;
  /**
   * EXT4_IOC_SHUTDOWN or XFS_IOC_GOINGDOWN, without writing the log, of the file system of an open directory or file: nothing that is dirty is
   * written any more, and every call on it fails (overlay/volume/README.md says what ext4 writes all the same).
   */
  shutDown(fd: number): R;
  /**
   * EXT4_IOC_RESIZE_FS of the file system of an open directory or file, up to so many bytes; whole blocks count. Returns when that is done, which
   * may take minutes. -EPERM: the kernel has counted errors in it. -EBUSY: it is being resized.
   */
  growExt4(fd: number, bytes: number): R;
  /** XFS_IOC_FSGROWFSDATA, the same. The share of inodes stays. -EAGAIN: it is being grown. */
  growXfs(fd: number, bytes: number): R;
  /** XFS_IOC_FSGEOMETRY: the size of its data section. */
  bytesXfs(fd: number): R;
  /** XFS_IOC_BULKSTAT of that inode: its generation. -ENOENT: no such inode is in use. */
  generationXfs(fd: number, ino: number): R;
  /** Has XFS write its superblock in its place, where it else comes within a minute: by setting the label that it has. */
  placeSuperblockXfs(fd: number): R;
  /**
   * In `pool.own` only, whose threads have a working directory and descriptors of their own: on an inode of this process's own mount
   * (overlay/coherence/size/own-inodes.ts), which is looked for at `mountpoint`; -EXDEV: another device than 0:`minor` is there.
   * This one gives the size as the kernel has it, once it is from `atLeast` to `atMost`, or after so many milliseconds; the server is not asked.
   */
  lookOwnSize(
    mountpoint: Buffer,
    minor: number,
    fuseNodeid: number,
    generation: number,
    atLeast: number,
    atMost: number,
    timeoutMs: number,
  ): R;
  /**
   * Has the kernel ask the server for the attributes: a GETATTR comes from that thread. Gives the size that the kernel has then.
   */
  refreshOwnSize(mountpoint: Buffer, minor: number, fuseNodeid: number, generation: number): R;
  /** Waits for the lock that the kernel has for an inode (i_rwsem): then a REMOVEXATTR comes from that thread. */
  lockOwn(mountpoint: Buffer, minor: number, fuseNodeid: number, generation: number): R;
  /** Has the kernel look for a path below the mount point, and gives the inode number that it shows there. `path`: relative, of any bytes but 0. */
  walkOwn(mountpoint: Buffer, minor: number, path: Buffer): R;
}

/** Serving of one /dev/fuse descriptor through uv_poll; opaque. */
export interface Device {
  readonly __device: unique symbol;
}

/** Lets through a part of a `notify`, or not; opaque. */
export interface Gate {
  readonly __gate: unique symbol;
}

/** Notifications of one length, for several threads to write; opaque. */
export interface NotifyBatch {
  readonly __notifyBatch: unique symbol;
}

export interface Native {
  readonly sync: Calls<number>;
  /** Pools of their own (hazard F3): nothing in one waits for another. */
  readonly pool: {
    readonly metadata: Calls<Promise<number>>;
    readonly data: Calls<Promise<number>>;
    readonly sync: Calls<Promise<number>>;
    /** For calls on the own mount: as many threads as needed, which do not have the descriptors of this process. */
    readonly own: Calls<Promise<number>>;
  };
  /** Sets the number of threads of each pool, before its first use. */
  setPoolThreads(metadata: number, data: number, sync: number): void;

  /** open("/dev/fuse", O_RDWR|O_CLOEXEC|O_NONBLOCK). */
  fuseOpen(): number;
  /**
   * Reads requests into `buffer` whenever the descriptor is readable, at most `batch` for one wake-up,
   * and calls `onRequest(bytes)` for each inside a callback scope (promises are drained after each). Where requests come one right after
   * the other it looks on for some microseconds before it sleeps (device.cc).
   * ENOENT, EINTR: read again. ENODEV (unmounted) or another errno: `onEnd(errno)` once, and it stops.
   * The descriptor must be mounted already (before that a read says EPERM). While a device is served the
   * process stays alive. What `onRequest` throws becomes an uncaughtException, and serving goes on.
   */
  deviceStart(fd: number, buffer: Buffer, batch: number, onRequest: (bytes: number) => void, onEnd: (errno: number) => void): Device;
  /** Later requests are read into this buffer: a handler that keeps the current one calls it. */
  deviceSetBuffer(device: Device, buffer: Buffer): void;
  /**
   * FLUSH is answered with success from now on, without a callback; but for the inodes that `deviceAskFlush` has named, whose FLUSHes come as all
   * requests do, until it takes that back.
   */
  deviceAnswerFlush(device: Device): void;
  deviceAskFlush(device: Device, fuseNodeid: number, ask: boolean): void;
  /** How many FLUSHes were answered without a callback. */
  deviceFlushes(device: Device): number;
  /** How many times it looked on for more: not after a request that was not answered within its callback, whose sender waits. */
  deviceLooks(device: Device): number;
  /** No callback comes after it. Stop before closing the descriptor: the event loop aborts the process if a polled one is closed. */
  deviceStop(device: Device): void;
  /** write(fd, head[0..headBytes]): one reply. */
  deviceWrite(fd: number, head: Buffer, headBytes: number): number;
  /** writev of head[0..headBytes] and body[bodyAt..bodyAt+bodyBytes]. */
  deviceWrite2(fd: number, head: Buffer, headBytes: number, body: Uint8Array, bodyAt: number, bodyBytes: number): number;
  /**
   * Writes notifications one after the other on ONE thread of the notify pool, which grows by a thread
   * whenever all of its threads are busy (hazard F3). Each element of the result: 0 or -errno. With a gate, messages from number
   * `gateAt` on are written only if the gate was not shut when their turn came; else they give -ECANCELED.
   */
  notify(fd: number, messages: readonly Buffer[], gate?: Gate, gateAt?: number): Promise<number[]>;
  createGate(): Gate;
  /** False: the thread is through it already. */
  shutGate(gate: Gate): boolean;
  /** The thread that writes the notifications now; 0: none. */
  gateThread(gate: Gate): number;
  /** Of notifications of `messageBytes` each, one after the other in that buffer (copied). */
  createNotifyBatch(messages: Buffer, messageBytes: number): NotifyBatch;
  /**
   * One more thread of the notify pool writes what no thread has begun of the batch, one message after the other, until there is nothing left. 0, or a
   * negative errno: there was no thread.
   */
  writeNotifyBatch(fd: number, batch: NotifyBatch): Promise<number>;
  /** How many messages of it were begun. */
  notifyBatchBegun(batch: NotifyBatch): number;
  /** What was met since this was asked last, by twos: the number of a message, and its negative errno. */
  notifyBatchRefused(batch: NotifyBatch): number[];

  mount(source: string, target: string, type: string, flags: number, data: string): number;
  umount(target: string, flags: number): number;
  /**
   * fsopen, fsconfig (source, each option: "ro" as a flag, "key=value" as a string), FSCONFIG_CMD_CREATE,
   * fsmount: a mount that is in no namespace (hazard C2); closing the descriptor ends it. `attrFlags` are
   * MOUNT_ATTR_*. On failure `log` receives the kernel's words, if it gave any.
   */
  mountDetached(type: string, source: string, options: readonly string[], attrFlags: number, log: string[]): number;
  /** The same on a thread of the sync pool: the kernel may wait for a disk, or for another machine's sign of life (ext4's MMP). */
  mountDetachedInPool(type: string, source: string, options: readonly string[], attrFlags: number, log: string[]): Promise<number>;
  /** flock(2), LOCK_EX | LOCK_NB: the open file has it until it is closed. -EWOULDBLOCK: another one has it. */
  tryLock(fd: number): number;
  /** open(2) of a path; O_CLOEXEC is added. */
  open(path: string, flags: number, mode: number): number;

  /** LOOP_CTL_GET_FREE and LOOP_CONFIGURE: returns the number of the loop device. */
  loopAttach(imageFd: number, directIo: boolean, readOnly: boolean, sectorBytes: number): number;
  loopDetach(loopFd: number): number;
  /**
   * LOOP_SET_STATUS64 with that lo_offset and lo_sizelimit, in one call: the part of the file that the device shows (0, 0: all of it). It
   * waits for what the device has under way.
   */
  loopSetWindow(loopFd: number, offset: number, bytes: number): number;
  /** BLKGETSIZE64; -errno where it is no block device. */
  blockDeviceBytes(fd: number): number;

  /** A TAP device of that name in this network namespace, made if it is not there; it goes with its descriptor. -ENOENT: no /dev/net/tun. */
  tapOpen(name: string): number;
  /** A packet socket (packet(7)) of that interface: what it receives can be read, what is written is sent. -ENODEV. */
  framesOpen(name: string): number;
  /**
   * Carries Ethernet frames between two descriptors of tapOpen or framesOpen, each `delayNs` nanoseconds after it came, in order, until one of
   * them is gone: blocks this thread, for a process that does nothing else. At most 16 MiB are on the way in each direction; what comes beyond
   * is lost, and so is what the other end does not take. Returns -errno.
   */
  relayFrames(one: number, other: number, delayNs: number): number;

  /**
   * socket(AF_UNIX, SOCK_DGRAM), sendto, close: one datagram to the socket at that path ("@name": an abstract one). Waits for nothing: -EAGAIN if the
   * receiver's queue is full.
   */
  sendDatagram(path: string, message: Buffer): number;

  /** SO_PEERCRED of a connected local socket: pid (0: of another pid namespace), uid, gid into `result`. */
  peerCredentials(fd: number, result: Float64Array): number;
  /** A descriptor of the process that connected (SO_PEERPIDFD; before Linux 6.5 pidfd_open of SO_PEERCRED's pid). */
  peerPidfd(fd: number): number;
  /** pidfd_send_signal(2); -ESRCH: it has ended. */
  pidfdSignal(pidfd: number, signal: number): number;
  /** 1: that process has ended, and its descriptors are closed; 0: it has not. */
  pidfdEnded(pidfd: number): number;

  /**
   * mmap(2) of the first `bytes` of a file, shared and for reading only (a write to it ends the process); -ENODATA: it is shorter. Whoever
   * changes the file must not cut it.
   */
  mapShared(fd: number, bytes: number): ArrayBuffer | number;
  /**
   * memfd_create(2), of so many bytes (1 GiB at most), all of them holes, and sealed: it neither shrinks nor grows, so its mappings stay whole. It takes memory
   * as it is written to, which is nowhere counted before.
   */
  memfdCreate(name: string, bytes: number): number;
  /**
   * mmap(2) of the first `bytes` of a memfd, 1 GiB at most, shared and for writing: it outlives this process as long as another one has the
   * descriptor. -ENODATA: it is shorter. Unmapped after the ArrayBuffer is collected, or freed; closing the descriptor changes nothing.
   * V8 counts all its bytes as external memory, written to or not.
   */
  mapJournal(fd: number, bytes: number): ArrayBuffer | number;
  /** fcntl(F_DUPFD_CLOEXEC): the same open file, at the first free number from `least` on. */
  duplicateFd(fd: number, least: number): number;
  /** Frees the memory of an ArrayBuffer at once, and not when V8 finds that nobody has it: all views of it are empty from then on (napi_detach_arraybuffer). */
  freeArrayBuffer(memory: ArrayBuffer): void;
  /** CLOCK_BOOTTIME in ms: counts while the machine sleeps, and is the same in all processes. */
  bootTimeMs(): number;

  /** setrlimit(RLIMIT_NOFILE) to that many, as far as allowed; the hard limit is never lowered. Returns the soft limit reached. */
  setMaxDescriptors(count: number): number;
  /**
   * execve(2): that program takes the place of this one, in the same process; no descriptor but 0, 1 and 2 goes on. Words and environment: each word with a NUL at its
   * end. Returns a negative errno, or not at all.
   */
  exec(path: string, words: Buffer, environment: Buffer): number;
  /** prctl(PR_SET_IO_FLUSHER, 1) of the calling thread and those it starts later (hazard F20). -EPERM without CAP_SYS_RESOURCE. */
  setIoFlusher(): number;
  /** malloc_trim(3), if at least so many bytes are free in malloc's arenas (mallinfo2). 1: some went back to the kernel. 0 where there is no glibc. */
  trimMemory(leastFreeBytes: number): number;
  /** unshare(CLONE_FS) of the calling thread, so that its umask is its own. Pool threads do it themselves. */
  unshareFs(): number;
  /** Is that thread one of this process? */
  ownsThread(tid: number): boolean;
  /** kernel release as [major, minor]. */
  kernelVersion(): [number, number];
}

/** From the sources and from dist/ alike: what is built stands beside the sources. */
function findBuilt(name: string, what: string): string {
  const here = path.dirname(fileURLToPath(import.meta.url));
  const candidates = [path.join(here, "build/Release", name), path.join(here, "../../native/build/Release", name)];
  const found = candidates.find((candidate) => existsSync(candidate));
  if (found === undefined) throw new NotBuilt(what);
  return found;
}

/** A part in C++ is missing: no defect, as its `hint` says. */
export class NotBuilt extends Error {
  readonly code = "not-built";
  readonly hint = "Install a C++ compiler and make (Debian: apt-get install g++ make python3), then run npm run build.";

  constructor(what: string) {
    super(`${what} of coverlay is not built`);
  }
}

function load(): Native {
  return createRequire(import.meta.url)(findBuilt("coverlay.node", "the native addon")) as Native;
}

let loaded: Native | undefined;

/** The addon; loaded at first use, so that commands which need no system calls run without it. */
export function nativeAddon(): Native {
  loaded ??= load();
  return loaded;
}

/** The path of the program that keeps a mount whose process dies: native/src/keeper/README.md. */
export function keeperProgram(): string {
  return findBuilt("coverlay-keeper", "the keeper of mounts");
}

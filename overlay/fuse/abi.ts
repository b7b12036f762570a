/**
 * The kernel's FUSE ABI in the kernel's spelling: include/uapi/linux/fuse.h of Linux 6.18 (protocol 7.45).
 * Nothing here decides anything; sizes are in bytes.
 */
import { OperatingError } from "../../dlmd/base/error.ts";

export const FUSE_KERNEL_VERSION = 7;
/** The newest minor version that this codec was written against. */
export const FUSE_KERNEL_MINOR_VERSION = 45;

export const OPCODE = {
  FUSE_LOOKUP: 1,
  FUSE_FORGET: 2,
  FUSE_GETATTR: 3,
  FUSE_SETATTR: 4,
  FUSE_READLINK: 5,
  FUSE_SYMLINK: 6,
  FUSE_MKNOD: 8,
  FUSE_MKDIR: 9,
  FUSE_UNLINK: 10,
  FUSE_RMDIR: 11,
  FUSE_RENAME: 12,
  FUSE_LINK: 13,
  FUSE_OPEN: 14,
  FUSE_READ: 15,
  FUSE_WRITE: 16,
  FUSE_STATFS: 17,
  FUSE_RELEASE: 18,
  FUSE_FSYNC: 20,
  FUSE_SETXATTR: 21,
  FUSE_GETXATTR: 22,
  FUSE_LISTXATTR: 23,
  FUSE_REMOVEXATTR: 24,
  FUSE_FLUSH: 25,
  FUSE_INIT: 26,
  FUSE_OPENDIR: 27,
  FUSE_READDIR: 28,
  FUSE_RELEASEDIR: 29,
  FUSE_FSYNCDIR: 30,
  FUSE_GETLK: 31,
  FUSE_SETLK: 32,
  FUSE_SETLKW: 33,
  FUSE_ACCESS: 34,
  FUSE_CREATE: 35,
  FUSE_INTERRUPT: 36,
  FUSE_BMAP: 37,
  FUSE_DESTROY: 38,
  FUSE_IOCTL: 39,
  FUSE_POLL: 40,
  FUSE_NOTIFY_REPLY: 41,
  FUSE_BATCH_FORGET: 42,
  FUSE_FALLOCATE: 43,
  FUSE_READDIRPLUS: 44,
  FUSE_RENAME2: 45,
  FUSE_LSEEK: 46,
  FUSE_COPY_FILE_RANGE: 47,
  FUSE_SETUPMAPPING: 48,
  FUSE_REMOVEMAPPING: 49,
  FUSE_SYNCFS: 50,
  FUSE_TMPFILE: 51,
  FUSE_STATX: 52,
  FUSE_COPY_FILE_RANGE_64: 53,
} as const;

/** Flags of INIT; bits 32 and up travel in flags2. */
export const INIT_FLAG = {
  FUSE_ASYNC_READ: 0x1n,
  FUSE_POSIX_LOCKS: 0x2n,
  FUSE_FILE_OPS: 0x4n,
  FUSE_ATOMIC_O_TRUNC: 0x8n,
  FUSE_EXPORT_SUPPORT: 0x10n,
  FUSE_BIG_WRITES: 0x20n,
  FUSE_DONT_MASK: 0x40n,
  FUSE_SPLICE_WRITE: 0x80n,
  FUSE_SPLICE_MOVE: 0x100n,
  FUSE_SPLICE_READ: 0x200n,
  FUSE_FLOCK_LOCKS: 0x400n,
  FUSE_HAS_IOCTL_DIR: 0x800n,
  FUSE_AUTO_INVAL_DATA: 0x1000n,
  FUSE_DO_READDIRPLUS: 0x2000n,
  FUSE_READDIRPLUS_AUTO: 0x4000n,
  FUSE_ASYNC_DIO: 0x8000n,
  FUSE_WRITEBACK_CACHE: 0x10000n,
  FUSE_NO_OPEN_SUPPORT: 0x20000n,
  FUSE_PARALLEL_DIROPS: 0x40000n,
  FUSE_HANDLE_KILLPRIV: 0x80000n,
  FUSE_POSIX_ACL: 0x100000n,
  FUSE_ABORT_ERROR: 0x200000n,
  FUSE_MAX_PAGES: 0x400000n,
  FUSE_CACHE_SYMLINKS: 0x800000n,
  FUSE_NO_OPENDIR_SUPPORT: 0x1000000n,
  FUSE_EXPLICIT_INVAL_DATA: 0x2000000n,
  FUSE_MAP_ALIGNMENT: 0x4000000n,
  FUSE_SUBMOUNTS: 0x8000000n,
  FUSE_HANDLE_KILLPRIV_V2: 0x10000000n,
  FUSE_SETXATTR_EXT: 0x20000000n,
  FUSE_INIT_EXT: 0x40000000n,
  FUSE_SECURITY_CTX: 0x100000000n,
  FUSE_HAS_INODE_DAX: 0x200000000n,
  FUSE_CREATE_SUPP_GROUP: 0x400000000n,
  FUSE_HAS_EXPIRE_ONLY: 0x800000000n,
  FUSE_DIRECT_IO_ALLOW_MMAP: 0x1000000000n,
  FUSE_PASSTHROUGH: 0x2000000000n,
  FUSE_NO_EXPORT_SUPPORT: 0x4000000000n,
  FUSE_HAS_RESEND: 0x8000000000n,
  FUSE_ALLOW_IDMAP: 0x10000000000n,
  FUSE_OVER_IO_URING: 0x20000000000n,
  FUSE_REQUEST_TIMEOUT: 0x40000000000n,
} as const;

/** Flags of the reply to OPEN, OPENDIR, CREATE. */
export const FOPEN = {
  FOPEN_DIRECT_IO: 0x1,
  FOPEN_KEEP_CACHE: 0x2,
  FOPEN_NONSEEKABLE: 0x4,
  FOPEN_CACHE_DIR: 0x8,
  FOPEN_STREAM: 0x10,
  FOPEN_NOFLUSH: 0x20,
  FOPEN_PARALLEL_DIRECT_WRITES: 0x40,
  FOPEN_PASSTHROUGH: 0x80,
} as const;

/** fuse_setattr_in.valid. */
export const FATTR = {
  FATTR_MODE: 0x1,
  FATTR_UID: 0x2,
  FATTR_GID: 0x4,
  FATTR_SIZE: 0x8,
  FATTR_ATIME: 0x10,
  FATTR_MTIME: 0x20,
  FATTR_FH: 0x40,
  FATTR_ATIME_NOW: 0x80,
  FATTR_MTIME_NOW: 0x100,
  FATTR_LOCKOWNER: 0x200,
  FATTR_CTIME: 0x400,
  FATTR_KILL_SUIDGID: 0x800,
} as const;

/** The small flag words of single requests. */
export const REQUEST_FLAG = {
  FUSE_GETATTR_FH: 0x1,
  FUSE_RELEASE_FLUSH: 0x1,
  FUSE_RELEASE_FLOCK_UNLOCK: 0x2,
  FUSE_LK_FLOCK: 0x1,
  FUSE_WRITE_CACHE: 0x1,
  FUSE_WRITE_LOCKOWNER: 0x2,
  FUSE_WRITE_KILL_SUIDGID: 0x4,
  FUSE_READ_LOCKOWNER: 0x2,
  FUSE_FSYNC_FDATASYNC: 0x1,
  FUSE_OPEN_KILL_SUIDGID: 0x1,
  FUSE_SETXATTR_ACL_KILL_SGID: 0x1,
} as const;

/** Notifications: the `error` field of their out header. */
export const NOTIFY = {
  FUSE_NOTIFY_POLL: 1,
  FUSE_NOTIFY_INVAL_INODE: 2,
  FUSE_NOTIFY_INVAL_ENTRY: 3,
  FUSE_NOTIFY_STORE: 4,
  FUSE_NOTIFY_RETRIEVE: 5,
  FUSE_NOTIFY_DELETE: 6,
  FUSE_NOTIFY_RESEND: 7,
  FUSE_NOTIFY_INC_EPOCH: 8,
  FUSE_NOTIFY_PRUNE: 9,
} as const;

/** fuse_file_lock.type: F_RDLCK, F_WRLCK, F_UNLCK of fcntl(2), the same on x86-64 and arm64. */
export const LOCK_TYPE = { F_RDLCK: 0, F_WRLCK: 1, F_UNLCK: 2 } as const;

/** fuse_ioctl_in, fuse_ioctl_out. */
export const IOCTL_IN_BYTES = 32;
export const IOCTL_OUT_BYTES = 16;
/** ioctl_fs(2), as fs/fuse/ioctl.c sends them: with an int of 4 bytes, and struct fsxattr. */
export const FILE_ATTRIBUTES_IOCTL = {
  FS_IOC_GETFLAGS: 0x8008_6601,
  FS_IOC_SETFLAGS: 0x4008_6602,
  FS_IOC_FSGETXATTR: 0x801c_581f,
  FS_IOC_FSSETXATTR: 0x401c_5820,
} as const;

/** Of statx(2). */
export const STATX_BASIC_STATS = 0x7ff;
export const STATX_BTIME = 0x800;

/** fuse_notify_inval_entry_out.flags. */
export const FUSE_EXPIRE_ONLY = 1;

/** enum fuse_ext_type: fuse_supp_groups. Types below 32 are security contexts. */
export const FUSE_EXT_GROUPS = 32;

/** Sizes of structures. */
export const IN_HEADER_BYTES = 40;
export const OUT_HEADER_BYTES = 16;
/** fuse_init_in before FUSE_INIT_EXT, and with it. */
export const COMPAT_INIT_IN_BYTES = 16;
export const INIT_IN_BYTES = 64;
export const INIT_OUT_BYTES = 64;
export const WRITE_IN_BYTES = 40;
export const ENTRY_OUT_BYTES = 128;
export const ATTR_OUT_BYTES = 104;
/** fuse_statx_in, and fuse_statx_out with the struct fuse_statx at its end. */
export const STATX_IN_BYTES = 24;
export const STATX_OUT_BYTES = 288;
export const OPEN_OUT_BYTES = 16;
export const WRITE_OUT_BYTES = 8;
export const STATFS_OUT_BYTES = 80;
export const XATTR_OUT_BYTES = 8;
export const LSEEK_OUT_BYTES = 8;
export const DIRENT_BYTES = 24;
/** fuse_lk_in, fuse_lk_out. */
export const LK_IN_BYTES = 48;
export const LK_OUT_BYTES = 24;

/**
 * Bytes that a read of /dev/fuse must offer: the kernel refuses a smaller one with EINVAL (fuse_dev_do_read), whatever the request
 * at hand is.
 */
export function requestBufferBytes(maxWriteBytes: number): number {
  return Math.max(8192, IN_HEADER_BYTES + WRITE_IN_BYTES + maxWriteBytes);
}

/** FUSE speaks the host's byte order, and this codec speaks little-endian only. To be called before a mount. */
export function assertLittleEndian(): void {
  if (new Uint8Array(new Uint16Array([1]).buffer)[0] !== 1) {
    throw new OperatingError("a little-endian machine expected, this one is big-endian", {
      code: "big-endian",
      hint: "Use an x86-64 or arm64 machine as a cluster node.",
    });
  }
}

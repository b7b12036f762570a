/**
 * The negotiation of FUSE_INIT: which of the kernel's offers are taken, and why. Source: process_init_reply and fuse_send_init in
 * fs/fuse/inode.c, Linux 5.4 (protocol 7.31) to 6.18 (7.45). Whatever an older kernel does not offer costs speed, never coherence.
 */
import { OperatingError } from "../../dlmd/base/error.ts";
import { FUSE_KERNEL_MINOR_VERSION, FUSE_KERNEL_VERSION, INIT_FLAG as F, INIT_OUT_BYTES, OUT_HEADER_BYTES } from "./abi.ts";
import { write64 } from "./bytes.ts";
import type { InitRequest } from "./request.ts";

/** Linux 5.4. */
const OLDEST_MINOR = 31;
/** FUSE_NOTIFY_INC_EPOCH: Linux 6.16. It has no flag of its own. */
const INC_EPOCH_MINOR = 44;
/** i_op->fileattr_set of FUSE: Linux 5.13. The protocol was 7.33 then, as in 5.12; so from 5.14 on. */
const FILEATTR_MINOR = 34;
const MAX_READAHEAD_BYTES = 1024 * 1024;
/**
 * Hazard F2: the kernel sends no more than this many background requests (readahead, write-back) at a time, and one READ that waits for a
 * lock must not take the slot of the WRITE that would free it. Both are 16-bit fields.
 */
const MAX_BACKGROUND = 65535;
const CONGESTION_THRESHOLD = 49151;

/**
 * Taken wherever offered:
 *
 * ASYNC_READ, BIG_WRITES, MAX_PAGES: large and parallel I/O.
 * PARALLEL_DIROPS: LOOKUP and READDIR of one directory come in parallel. Asks nothing of the server but to bear that.
 * DO_READDIRPLUS, READDIRPLUS_AUTO: attributes with the listing, where the kernel has seen that they are wanted.
 * CACHE_SYMLINKS: targets in the page cache. They never change for an inode, and a page goes with it.
 * HANDLE_KILLPRIV_V2: the server clears set-user-id, set-group-id and security.capability: always on chown, and on write, truncate and
 *   O_TRUNC. For the two mode bits these three come with a flag (killSuidgid) that must be obeyed; the rest any local lower does by itself.
 *   Without it the kernel would ask GETXATTR security.capability before each write, and send a SETATTR of its own.
 * AUTO_INVAL_DATA: before each read(2) the kernel asks for attributes that are not valid. That is what is wanted of it: else a read would
 *   trust the sentinel size (hazard F5) and show zeros behind the end of the file. Its price is that the pages of a file go when its
 *   time of change does, after a local write too.
 * EXPORT_SUPPORT: "." and ".." are looked up, by a file handle of what the kernel has forgotten (hazard F29).
 * CREATE_SUPP_GROUP: hazard F15.
 * HAS_EXPIRE_ONLY: hazard F6; it says only that the notification is there.
 */
const WANTED: bigint =
  F.FUSE_ASYNC_READ |
  F.FUSE_BIG_WRITES |
  F.FUSE_MAX_PAGES |
  F.FUSE_PARALLEL_DIROPS |
  F.FUSE_DO_READDIRPLUS |
  F.FUSE_READDIRPLUS_AUTO |
  F.FUSE_CACHE_SYMLINKS |
  F.FUSE_HANDLE_KILLPRIV_V2 |
  F.FUSE_AUTO_INVAL_DATA |
  F.FUSE_EXPORT_SUPPORT |
  F.FUSE_CREATE_SUPP_GROUP |
  F.FUSE_HAS_EXPIRE_ONLY |
  F.FUSE_INIT_EXT;

/**
 * Hazard F17: only with POSIX_ACL does the kernel look at ACLs in its permission checks. Then umasks are the server's (DONT_MASK), because a
 * default ACL of the directory takes their place, and so is the set-group-id that setting an ACL may cost (SETXATTR_EXT).
 */
const WANTED_WITH_ACLS: bigint = F.FUSE_POSIX_ACL | F.FUSE_DONT_MASK | F.FUSE_SETXATTR_EXT;

/** fcntl(2) and flock(2) locks come here: both, because one without the other would be local in silence. Not with -o localflocks. */
const WANTED_WITH_FILE_LOCKS: bigint = F.FUSE_POSIX_LOCKS | F.FUSE_FLOCK_LOCKS;

/**
 * Never, and not by chance:
 *
 * ATOMIC_O_TRUNC: the kernel would make its size 0, and drop its pages, some time after the reply to OPEN, without the inode's lock: over what others
 * have written since (fs/fuse/file.c, fuse_open). Without it OPEN is followed by a SETATTR, which comes and ends under that lock.
 * WRITEBACK_CACHE dirties pages without asking, and its idea of the size wins over ours. EXPLICIT_INVAL_DATA excludes AUTO_INVAL_DATA.
 * DIRECT_IO_ALLOW_MMAP gives direct opens a page cache (hazard F8). NO_OPEN_SUPPORT, NO_OPENDIR_SUPPORT: opens are counted. SPLICE_*: the
 * device is read with read(2). PASSTHROUGH: an owner could not let go of its disk (hazard F24). ALLOW_IDMAP: ids are those of the caller. HAS_RESEND: a session does not outlive its
 * process.
 */
const NEVER: bigint =
  F.FUSE_ATOMIC_O_TRUNC |
  F.FUSE_WRITEBACK_CACHE |
  F.FUSE_EXPLICIT_INVAL_DATA |
  F.FUSE_DIRECT_IO_ALLOW_MMAP |
  F.FUSE_NO_OPEN_SUPPORT |
  F.FUSE_NO_OPENDIR_SUPPORT |
  F.FUSE_PASSTHROUGH;

export interface InitOptions {
  /** Lower.hasAcls. */
  readonly hasAcls: boolean;
  /** File locks are asked for here; else the kernel keeps them to itself. */
  readonly fileLocks: boolean;
  /** Largest WRITE, in bytes: a multiple of the page size, 1 MiB is what kernels take at most by default. */
  readonly maxWriteBytes: number;
  /** Of this machine's kernel; 4096 if absent. */
  readonly pageBytes?: number;
  /** Flags not to take although offered: to test what older kernels do. */
  readonly without?: bigint;
}

export interface Negotiated {
  /** Protocol minor version in use. */
  readonly minor: number;
  /** All flags in use. */
  readonly flags: bigint;
  /** Largest data of a WRITE, and of a READ. */
  readonly maxWriteBytes: number;
  readonly maxReadBytes: number;
  readonly maxPages: number;
  readonly maxReadaheadBytes: number;
  /** INVAL_ENTRY may carry FUSE_EXPIRE_ONLY (hazard F6). */
  readonly entryExpire: boolean;
  /** INC_EPOCH is there (hazard F6). */
  readonly incEpoch: boolean;
  readonly readdirplus: boolean;
  /** The kernel checks ACLs; `umask` of creating requests is to be applied by the server. */
  readonly posixAcl: boolean;
  /** The server clears set-user-id and set-group-id where `killSuidgid` says so. False: the kernel sends SETATTR. */
  readonly handleKillpriv: boolean;
  readonly createSuppGroup: boolean;
  /** Changed attributes drop no pages. False (before 5.2): a changed size drops all of them, which is only slower. */
  readonly autoInvalData: boolean;
  readonly parallelDirops: boolean;
  readonly cacheSymlinks: boolean;
  /** File locks come here. */
  readonly fileLocks: boolean;
  /** The kernel checks who may change the attributes of chattr(1) before it asks. */
  readonly fileAttributes: boolean;
}

/**
 * The reply to INIT, ready to be written, and what was agreed. OperatingError: the kernel is too old or of another major version;
 * answer EPROTO (the mount fails) and say why.
 */
export function negotiateInit(kernel: InitRequest, options: InitOptions): { reply: Buffer; negotiated: Negotiated } {
  if (kernel.major !== FUSE_KERNEL_VERSION || kernel.minor < OLDEST_MINOR) {
    throw new OperatingError(
      `FUSE protocol ${FUSE_KERNEL_VERSION}.${OLDEST_MINOR} or a newer 7.x expected, this kernel speaks ${kernel.major}.${kernel.minor}`,
      { code: "kernel-too-old", hint: "Use Linux 5.4 or newer on this node; cached names need 6.16." },
    );
  }
  const asked = WANTED | (options.hasAcls ? WANTED_WITH_ACLS : 0n) | (options.fileLocks ? WANTED_WITH_FILE_LOCKS : 0n);
  const wanted = asked & ~NEVER & ~(options.without ?? 0n);
  const flags = wanted & kernel.flags;
  const has = (flag: bigint): boolean => (flags & flag) !== 0n;
  const minor = Math.min(kernel.minor, FUSE_KERNEL_MINOR_VERSION);
  const pageBytes = options.pageBytes ?? 4096;
  // Without FUSE_MAX_PAGES the kernel stays at FUSE_DEFAULT_MAX_PAGES_PER_REQ.
  const maxPages = has(F.FUSE_MAX_PAGES) ? Math.max(1, Math.ceil(options.maxWriteBytes / pageBytes)) : 32;
  const maxReadBytes = maxPages * pageBytes;
  const negotiated: Negotiated = {
    minor,
    flags,
    maxWriteBytes: Math.min(options.maxWriteBytes, maxReadBytes),
    maxReadBytes,
    maxPages,
    maxReadaheadBytes: Math.min(kernel.maxReadahead, MAX_READAHEAD_BYTES),
    entryExpire: has(F.FUSE_HAS_EXPIRE_ONLY),
    incEpoch: minor >= INC_EPOCH_MINOR,
    readdirplus: has(F.FUSE_DO_READDIRPLUS),
    posixAcl: has(F.FUSE_POSIX_ACL),
    handleKillpriv: has(F.FUSE_HANDLE_KILLPRIV_V2),
    createSuppGroup: has(F.FUSE_CREATE_SUPP_GROUP),
    autoInvalData: has(F.FUSE_AUTO_INVAL_DATA),
    parallelDirops: has(F.FUSE_PARALLEL_DIROPS),
    cacheSymlinks: has(F.FUSE_CACHE_SYMLINKS),
    fileLocks: has(F.FUSE_POSIX_LOCKS) && has(F.FUSE_FLOCK_LOCKS),
    fileAttributes: minor >= FILEATTR_MINOR,
  };
  return { reply: encodeInit(kernel.unique, negotiated), negotiated };
}

// struct fuse_init_out: major, minor, max_readahead, flags (u32), max_background, congestion_threshold (u16), max_write, time_gran (u32),
// max_pages, map_alignment (u16), flags2, max_stack_depth (u32), request_timeout (u16), unused.
function encodeInit(unique: number, negotiated: Negotiated): Buffer {
  const reply = Buffer.alloc(OUT_HEADER_BYTES + INIT_OUT_BYTES);
  reply.writeUInt32LE(reply.length, 0);
  write64(reply, 8, unique);
  const at = OUT_HEADER_BYTES;
  reply.writeUInt32LE(FUSE_KERNEL_VERSION, at);
  reply.writeUInt32LE(negotiated.minor, at + 4);
  reply.writeUInt32LE(negotiated.maxReadaheadBytes, at + 8);
  reply.writeUInt32LE(Number(negotiated.flags & 0xffff_ffffn), at + 12);
  reply.writeUInt16LE(MAX_BACKGROUND, at + 16);
  reply.writeUInt16LE(CONGESTION_THRESHOLD, at + 18);
  reply.writeUInt32LE(negotiated.maxWriteBytes, at + 20);
  // Times are kept to the nanosecond.
  reply.writeUInt32LE(1, at + 24);
  reply.writeUInt16LE(negotiated.maxPages, at + 28);
  reply.writeUInt32LE(Number(negotiated.flags >> 32n), at + 32);
  return reply;
}

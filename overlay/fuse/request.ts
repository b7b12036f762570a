/**
 * A request of the kernel, decoded: one flat object per request, a discriminated union on `op`.
 * Source: include/uapi/linux/fuse.h and fs/fuse/{dir,file,xattr,readdir,dev}.c of Linux 5.4 to 6.18.
 *
 * The buffer a request was read into is used again for the next one. So names and link targets are copies; the only
 * views into the buffer are `data` of a write and `value` of a setxattr, which stay valid for as long as the session
 * leaves that buffer alone.
 *
 * Numbers: ids and handles are our own and fit a double exactly. Offsets and sizes are doubles too: exact up to 2^53, and
 * exact for the sentinel size (hazard F5); what lies between can only be a caller's probe of the limits and is
 * rounded. Directory cookies and lock owners use all of their 64 bits and are bigint.
 *
 * FUSE speaks the host's byte order. Only little-endian hosts are served: see assertLittleEndian in abi.ts.
 */
import type { AttrChange, AttributesKind } from "../lower/lower.ts";

/** What every request carries. */
export interface RequestHead {
  /** The kernel's number of this request; a reply repeats it. Even, but for INTERRUPT (its target's plus 1) and NOTIFY_REPLY. */
  readonly unique: number;
  /** The inode that the request is about (FUSE_ROOT_ID: the root); 0 where there is none. */
  readonly fuseNodeid: number;
  readonly uid: number;
  readonly gid: number;
  /** The calling thread; 0 for what the kernel does by itself (write-back, readahead, forget). */
  readonly pid: number;
}

export interface InitRequest extends RequestHead {
  readonly op: "init";
  readonly major: number;
  readonly minor: number;
  readonly maxReadahead: number;
  /** FUSE_* INIT flags, flags2 in bits 32 and up. */
  readonly flags: bigint;
}

export interface LookupRequest extends RequestHead {
  readonly op: "lookup";
  readonly name: Buffer;
}

/** FORGET and BATCH_FORGET: never answered. `fuseNodeids[i]` loses `nlookups[i]`. */
export interface ForgetRequest extends RequestHead {
  readonly op: "forget";
  readonly fuseNodeids: readonly number[];
  readonly nlookups: readonly number[];
}

export interface GetattrRequest extends RequestHead {
  /** STATX: the answer has the birth time as well. */
  readonly op: "getattr" | "statx";
  /** Before read(2) and in lseek(2), which believe the kernel's size; null for stat(2) and fstat(2), which are given the reply's. */
  readonly fh: number | null;
}

export interface SetattrRequest extends RequestHead {
  readonly op: "setattr";
  /** ftruncate and the like; null without an open file. */
  readonly fh: number | null;
  /**
   * The fields that the kernel marked as valid; empty if that was only the ctime, or none (hazard F37). `killSuidgid` comes with a size (a truncate by a caller
   * without CAP_FSETID), where it must be obeyed, and with every uid or gid, where a local lower's chown(2) does it by itself: see
   * HANDLE_KILLPRIV_V2 in init.ts.
   */
  readonly change: AttrChange;
}

export interface ReadlinkRequest extends RequestHead {
  readonly op: "readlink";
}

export interface SymlinkRequest extends RequestHead {
  readonly op: "symlink";
  readonly name: Buffer;
  readonly target: Buffer;
  /** See CreateRequest. */
  readonly supplementaryGids: readonly number[];
}

export interface MknodRequest extends RequestHead {
  readonly op: "mknod";
  readonly name: Buffer;
  readonly mode: number;
  readonly umask: number;
  readonly rdevMajor: number;
  readonly rdevMinor: number;
  readonly supplementaryGids: readonly number[];
}

export interface MkdirRequest extends RequestHead {
  readonly op: "mkdir";
  readonly name: Buffer;
  readonly mode: number;
  readonly umask: number;
  readonly supplementaryGids: readonly number[];
}

export interface UnlinkRequest extends RequestHead {
  readonly op: "unlink";
  readonly name: Buffer;
}

export interface RmdirRequest extends RequestHead {
  readonly op: "rmdir";
  readonly name: Buffer;
}

/** RENAME and RENAME2: `fuseNodeid` is the old directory. */
export interface RenameRequest extends RequestHead {
  readonly op: "rename";
  readonly name: Buffer;
  readonly newFuseNodeid: number;
  readonly newName: Buffer;
  /** RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT of renameat2(2). */
  readonly flags: number;
}

/** `fuseNodeid` is the directory of the new name. */
export interface LinkRequest extends RequestHead {
  readonly op: "link";
  readonly targetFuseNodeid: number;
  readonly name: Buffer;
}

export interface OpenRequest extends RequestHead {
  readonly op: "open";
  /** O_* of open(2), without O_CREAT, O_EXCL, O_NOCTTY; O_TRUNC only with FUSE_ATOMIC_O_TRUNC. */
  readonly flags: number;
  /** With O_TRUNC by a caller without CAP_FSETID: clear set-user-id and set-group-id. */
  readonly killSuidgid: boolean;
}

export interface OpendirRequest extends RequestHead {
  readonly op: "opendir";
  readonly flags: number;
}

export interface ReadRequest extends RequestHead {
  readonly op: "read";
  readonly fh: number;
  readonly offset: number;
  /** Bytes wanted, at most maxReadBytes of the negotiation. */
  readonly size: number;
  /** 0n unless FUSE_READ_LOCKOWNER. */
  readonly lockOwner: bigint;
  /** The open flags of the file as they are now (fcntl may have changed O_DIRECT, O_APPEND). */
  readonly flags: number;
}

export interface WriteRequest extends RequestHead {
  readonly op: "write";
  readonly fh: number;
  readonly offset: number;
  /** A view of the request buffer. */
  readonly data: Buffer;
  /** FUSE_WRITE_CACHE: from the page cache (a shared mapping); `fh` is any writable handle of the inode, pid is 0. */
  readonly fromCache: boolean;
  /** FUSE_WRITE_KILL_SUIDGID: clear set-user-id and set-group-id. Set on every write of a caller without CAP_FSETID. */
  readonly killSuidgid: boolean;
  /** 0n unless FUSE_WRITE_LOCKOWNER. */
  readonly lockOwner: bigint;
  readonly flags: number;
}

export interface StatfsRequest extends RequestHead {
  readonly op: "statfs";
}

export interface ReleaseRequest extends RequestHead {
  readonly op: "release";
  readonly fh: number;
  readonly flags: number;
  readonly lockOwner: bigint;
  /** FUSE_RELEASE_FLOCK_UNLOCK: a flock(2) of this open file ends with it. */
  readonly flockUnlock: boolean;
}

export interface ReleasedirRequest extends RequestHead {
  readonly op: "releasedir";
  readonly fh: number;
}

export interface FlushRequest extends RequestHead {
  readonly op: "flush";
  readonly fh: number;
  readonly lockOwner: bigint;
}

/** Bytes `start` to `end`, both included: at most 2^63-1, which stands for the end of the file. */
interface LockRequestFields {
  readonly fh: number;
  /** The open file of an OFD lock and of flock(2), else the process: a number that means nothing elsewhere. */
  readonly owner: bigint;
  readonly start: bigint;
  readonly end: bigint;
}

/** fcntl(2) F_GETLK and F_OFD_GETLK. */
export interface GetlkRequest extends RequestHead, LockRequestFields {
  readonly op: "getlk";
  /** unlock: for the locks that the open file itself has (F_OFD_GETLK since Linux 6.12). */
  readonly type: "read" | "write" | "unlock";
}

/** SETLK and SETLKW: fcntl(2), flock(2). */
export interface SetlkRequest extends RequestHead, LockRequestFields {
  readonly op: "setlk";
  readonly type: "read" | "write" | "unlock";
  /** The process, as the mount's PID namespace knows it; 0 with an unlock. */
  readonly lockPid: number;
  /** FUSE_LK_FLOCK: flock(2), which has owners and locks of its own; always the whole file. */
  readonly flock: boolean;
  /** SETLKW. */
  readonly wait: boolean;
}

export interface FsyncRequest extends RequestHead {
  readonly op: "fsync";
  readonly fh: number;
  readonly dataOnly: boolean;
}

export interface FsyncdirRequest extends RequestHead {
  readonly op: "fsyncdir";
  readonly fh: number;
  readonly dataOnly: boolean;
}

export interface SetxattrRequest extends RequestHead {
  readonly op: "setxattr";
  readonly name: Buffer;
  /** A view of the request buffer. */
  readonly value: Buffer;
  /** XATTR_CREATE, XATTR_REPLACE. */
  readonly flags: number;
  /**
   * FUSE_SETXATTR_ACL_KILL_SGID: an access ACL set by a caller that is neither privileged nor in the owning group also
   * clears set-group-id.
   */
  readonly aclKillSgid: boolean;
}

export interface GetxattrRequest extends RequestHead {
  readonly op: "getxattr";
  readonly name: Buffer;
  /** Room of the caller; 0 asks for the length only. A value that does not fit: ERANGE. */
  readonly size: number;
}

export interface ListxattrRequest extends RequestHead {
  readonly op: "listxattr";
  /** As in getxattr. */
  readonly size: number;
}

export interface RemovexattrRequest extends RequestHead {
  readonly op: "removexattr";
  readonly name: Buffer;
}

export interface ReaddirRequest extends RequestHead {
  /** READDIRPLUS gives attributes too, and each entry with a nodeid counts as a lookup. */
  readonly op: "readdir" | "readdirplus";
  readonly fh: number;
  /** 0n: from the beginning. */
  readonly cookie: bigint;
  /** Room for entries in the reply, header not counted. */
  readonly size: number;
}

export interface CreateRequest extends RequestHead {
  readonly op: "create";
  readonly name: Buffer;
  /** O_* of open(2), with O_CREAT and perhaps O_EXCL. */
  readonly flags: number;
  readonly mode: number;
  readonly umask: number;
  readonly killSuidgid: boolean;
  /**
   * FUSE_CREATE_SUPP_GROUP (hazard F15): the directory's group, if the caller has it as a supplementary group and not as its
   * own. Empty otherwise, and on kernels without it.
   */
  readonly supplementaryGids: readonly number[];
}

/** open(2) with O_TMPFILE in that directory: answered as CREATE. */
export interface TmpfileRequest extends RequestHead {
  readonly op: "tmpfile";
  /** O_* of open(2); with O_EXCL it can never get a name. */
  readonly flags: number;
  readonly mode: number;
  readonly umask: number;
  /** See CreateRequest. */
  readonly supplementaryGids: readonly number[];
}

/** Never answered. */
export interface InterruptRequest extends RequestHead {
  readonly op: "interrupt";
  /** The request that its caller no longer waits for; it may be unknown here, not yet or no longer. */
  readonly targetUnique: number;
}

/** Never answered: it is itself the answer to NOTIFY_RETRIEVE, and `unique` is the number that was given with that. */
export interface NotifyReplyRequest extends RequestHead {
  readonly op: "notifyReply";
  /** From where it was asked for; ends where the page cache has no page, or the kernel's size of the file is reached. */
  readonly data: Buffer;
}

export interface DestroyRequest extends RequestHead {
  readonly op: "destroy";
}

export interface FallocateRequest extends RequestHead {
  readonly op: "fallocate";
  readonly fh: number;
  readonly offset: number;
  readonly length: number;
  /** FALLOC_FL_*. */
  readonly mode: number;
}

export interface LseekRequest extends RequestHead {
  readonly op: "lseek";
  readonly fh: number;
  /** May be negative: the caller's, unchecked. */
  readonly offset: number;
  /** SEEK_DATA or SEEK_HOLE; the kernel does the others itself. */
  readonly whence: number;
}

/** Answered with the count (encodeWrite). */
export interface CopyFileRangeRequest extends RequestHead {
  readonly op: "copyFileRange";
  readonly fh: number;
  readonly offset: number;
  readonly outFuseNodeid: number;
  readonly outFh: number;
  readonly outOffset: number;
  readonly length: number;
  readonly flags: number;
}

/** FS_IOC_GETFLAGS, FS_IOC_FSGETXATTR and those that set; all others come as "unserved". */
export interface IoctlRequest extends RequestHead {
  readonly op: "ioctl";
  readonly fh: number;
  readonly kind: AttributesKind;
  /** To be set, a view of the request buffer; null: to be read. */
  readonly value: Buffer | null;
}

export interface SyncfsRequest extends RequestHead {
  readonly op: "syncfs";
}

/** An opcode that is not served: to be answered with `errno` (opcode.ts says why). */
export interface UnservedRequest extends RequestHead {
  readonly op: "unserved";
  readonly opcode: number;
  /** "FUSE_POLL", or "opcode 99". */
  readonly name: string;
  readonly errno: number;
}

export type Request =
  | InitRequest
  | LookupRequest
  | ForgetRequest
  | GetattrRequest
  | SetattrRequest
  | ReadlinkRequest
  | SymlinkRequest
  | MknodRequest
  | MkdirRequest
  | UnlinkRequest
  | RmdirRequest
  | RenameRequest
  | LinkRequest
  | OpenRequest
  | OpendirRequest
  | ReadRequest
  | WriteRequest
  | StatfsRequest
  | ReleaseRequest
  | ReleasedirRequest
  | FlushRequest
  | GetlkRequest
  | SetlkRequest
  | FsyncRequest
  | FsyncdirRequest
  | SetxattrRequest
  | GetxattrRequest
  | ListxattrRequest
  | RemovexattrRequest
  | ReaddirRequest
  | CreateRequest
  | TmpfileRequest
  | InterruptRequest
  | NotifyReplyRequest
  | DestroyRequest
  | FallocateRequest
  | LseekRequest
  | CopyFileRangeRequest
  | IoctlRequest
  | SyncfsRequest
  | UnservedRequest;

export type RequestOp = Request["op"];

/**
 * The decoders of the opcode table for what works on open files and directories, and for the few requests that name no inode. As in
 * decode.ts: fixed fields are there, the rest is checked.
 */
import { WireError } from "../../dlmd/base/error.ts";
import { E } from "../../dlmd/base/errno.ts";
import type { AttributesKind } from "../lower/lower.ts";
import { FILE_ATTRIBUTES_IOCTL, IOCTL_IN_BYTES, LOCK_TYPE, REQUEST_FLAG, WRITE_IN_BYTES } from "./abi.ts";
import { refuse } from "./decode.ts";
import { readI64, readSize, readU64 } from "./bytes.ts";
import { BODY, GID, NO_GIDS, PID, UID, copy, lastName, supplementaryGids } from "./fields.ts";
import type * as R from "./request.ts";
import { readUnique } from "./unique.ts";

export function open(b: Buffer, _end: number, _bytes: number, unique: number, fuseNodeid: number): R.OpenRequest {
  return {
    op: "open",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
    flags: b.readUInt32LE(BODY),
    killSuidgid: (b.readUInt32LE(BODY + 4) & REQUEST_FLAG.FUSE_OPEN_KILL_SUIDGID) !== 0,
  };
}

export function opendir(b: Buffer, _end: number, _bytes: number, unique: number, fuseNodeid: number): R.OpendirRequest {
  return {
    op: "opendir",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
    flags: b.readUInt32LE(BODY),
  };
}

export function create(b: Buffer, end: number, bytes: number, unique: number, fuseNodeid: number): R.CreateRequest {
  return {
    op: "create",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
    name: lastName(b, BODY + 16, end, "FUSE_CREATE"),
    flags: b.readUInt32LE(BODY),
    mode: b.readUInt32LE(BODY + 4),
    umask: b.readUInt32LE(BODY + 8),
    killSuidgid: (b.readUInt32LE(BODY + 12) & REQUEST_FLAG.FUSE_OPEN_KILL_SUIDGID) !== 0,
    supplementaryGids: bytes === end ? NO_GIDS : supplementaryGids(b, end, bytes, "FUSE_CREATE"),
  };
}

/** struct fuse_create_in: no file is there that could have privileges to be taken away. */
export function tmpfile(b: Buffer, end: number, bytes: number, unique: number, fuseNodeid: number): R.TmpfileRequest {
  lastName(b, BODY + 16, end, "FUSE_TMPFILE");
  return {
    op: "tmpfile",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
    flags: b.readUInt32LE(BODY),
    mode: b.readUInt32LE(BODY + 4),
    umask: b.readUInt32LE(BODY + 8),
    supplementaryGids: bytes === end ? NO_GIDS : supplementaryGids(b, end, bytes, "FUSE_TMPFILE"),
  };
}

const FLAGS = { kind: "flags", bytes: 4 } as const;
const FSXATTR = { kind: "fsxattr", bytes: 28 } as const;
const IOCTLS: ReadonlyMap<number, { readonly kind: AttributesKind; readonly bytes: number; readonly sets: boolean }> = new Map([
  [FILE_ATTRIBUTES_IOCTL.FS_IOC_GETFLAGS, { ...FLAGS, sets: false }],
  [FILE_ATTRIBUTES_IOCTL.FS_IOC_SETFLAGS, { ...FLAGS, sets: true }],
  [FILE_ATTRIBUTES_IOCTL.FS_IOC_FSGETXATTR, { ...FSXATTR, sets: false }],
  [FILE_ATTRIBUTES_IOCTL.FS_IOC_FSSETXATTR, { ...FSXATTR, sets: true }],
]);
const noIoctl = refuse("FUSE_IOCTL", E.ENOTTY);

// struct fuse_ioctl_in: fh 0, flags 8, cmd 12, arg 16, in_size 24, out_size 28.
export function ioctl(
  b: Buffer,
  end: number,
  bytes: number,
  unique: number,
  fuseNodeid: number,
  opcode: number,
): R.IoctlRequest | R.UnservedRequest {
  const found = IOCTLS.get(b.readUInt32LE(BODY + 12));
  const [inBytes, outBytes] = [b.readUInt32LE(BODY + 24), b.readUInt32LE(BODY + 28)];
  // Those of other sizes are passed on by an old kernel, which has checked nothing.
  // A call that the kernel has not checked has a user's pointer there.
  const own = readU64(b, BODY + 16) === 0;
  const asked =
    own && found !== undefined && (found.sets ? inBytes === found.bytes && outBytes === 0 : inBytes === 0 && outBytes === found.bytes);
  if (!asked) return noIoctl(b, end, bytes, unique, fuseNodeid, opcode) as R.UnservedRequest;
  const at = BODY + IOCTL_IN_BYTES;
  if (end - at < inBytes) throw new WireError(`FUSE_IOCTL: ${inBytes} bytes expected, ${end - at} found`);
  return {
    op: "ioctl",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
    fh: readU64(b, BODY),
    kind: found.kind,
    // The buffer is used again while the request waits.
    value: found.sets ? Buffer.from(b.subarray(at, at + inBytes)) : null,
  };
}

export function read(b: Buffer, _end: number, _bytes: number, unique: number, fuseNodeid: number): R.ReadRequest {
  return {
    op: "read",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
    fh: readU64(b, BODY),
    offset: readSize(b, BODY + 8),
    size: b.readUInt32LE(BODY + 16),
    lockOwner: (b.readUInt32LE(BODY + 20) & REQUEST_FLAG.FUSE_READ_LOCKOWNER) === 0 ? 0n : b.readBigUInt64LE(BODY + 24),
    flags: b.readUInt32LE(BODY + 32),
  };
}

export function write(b: Buffer, end: number, _bytes: number, unique: number, fuseNodeid: number): R.WriteRequest {
  const size = b.readUInt32LE(BODY + 16);
  const writeFlags = b.readUInt32LE(BODY + 20);
  const at = BODY + WRITE_IN_BYTES;
  if (end - at !== size) throw new WireError(`FUSE_WRITE of ${size} bytes: ${end - at} bytes of data found`);
  return {
    op: "write",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
    fh: readU64(b, BODY),
    offset: readSize(b, BODY + 8),
    data: b.subarray(at, end),
    fromCache: (writeFlags & REQUEST_FLAG.FUSE_WRITE_CACHE) !== 0,
    killSuidgid: (writeFlags & REQUEST_FLAG.FUSE_WRITE_KILL_SUIDGID) !== 0,
    lockOwner: (writeFlags & REQUEST_FLAG.FUSE_WRITE_LOCKOWNER) === 0 ? 0n : b.readBigUInt64LE(BODY + 24),
    flags: b.readUInt32LE(BODY + 32),
  };
}

export function statfs(b: Buffer, _end: number, _bytes: number, unique: number, fuseNodeid: number): R.StatfsRequest {
  return {
    op: "statfs",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
  };
}

export function release(b: Buffer, _end: number, _bytes: number, unique: number, fuseNodeid: number): R.ReleaseRequest {
  return {
    op: "release",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
    fh: readU64(b, BODY),
    flags: b.readUInt32LE(BODY + 8),
    lockOwner: b.readBigUInt64LE(BODY + 16),
    flockUnlock: (b.readUInt32LE(BODY + 12) & REQUEST_FLAG.FUSE_RELEASE_FLOCK_UNLOCK) !== 0,
  };
}

export function releasedir(b: Buffer, _end: number, _bytes: number, unique: number, fuseNodeid: number): R.ReleasedirRequest {
  return {
    op: "releasedir",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
    fh: readU64(b, BODY),
  };
}

export function flush(b: Buffer, _end: number, _bytes: number, unique: number, fuseNodeid: number): R.FlushRequest {
  return {
    op: "flush",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
    fh: readU64(b, BODY),
    lockOwner: b.readBigUInt64LE(BODY + 16),
  };
}

/** The last byte that a file can have: OFFSET_MAX of the kernel. */
const OFFSET_MAX = 0x7fff_ffff_ffff_ffffn;
const LOCK_TYPES = new Map<number, R.SetlkRequest["type"]>([
  [LOCK_TYPE.F_RDLCK, "read"],
  [LOCK_TYPE.F_WRLCK, "write"],
  [LOCK_TYPE.F_UNLCK, "unlock"],
]);

// struct fuse_lk_in: fh, owner (u64), lk{start, end (u64), type, pid (u32)}, lk_flags, padding (u32).
function anySetlk(b: Buffer, unique: number, fuseNodeid: number, wait: boolean): R.SetlkRequest {
  const start = b.readBigUInt64LE(BODY + 16);
  const end = b.readBigUInt64LE(BODY + 24);
  const type = LOCK_TYPES.get(b.readUInt32LE(BODY + 32));
  if (type === undefined) throw new WireError(`a lock of type ${b.readUInt32LE(BODY + 32)}: 0, 1 or 2 expected`);
  if (start > end || end > OFFSET_MAX) throw new WireError(`a lock of bytes ${start} to ${end}`);
  return {
    op: "setlk",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
    fh: readU64(b, BODY),
    owner: b.readBigUInt64LE(BODY + 8),
    start,
    end,
    type,
    lockPid: b.readUInt32LE(BODY + 36),
    flock: (b.readUInt32LE(BODY + 40) & REQUEST_FLAG.FUSE_LK_FLOCK) !== 0,
    wait,
  };
}

export function setlk(b: Buffer, _end: number, _bytes: number, unique: number, fuseNodeid: number): R.SetlkRequest {
  return anySetlk(b, unique, fuseNodeid, false);
}

export function setlkw(b: Buffer, _end: number, _bytes: number, unique: number, fuseNodeid: number): R.SetlkRequest {
  return anySetlk(b, unique, fuseNodeid, true);
}

export function getlk(b: Buffer, _end: number, _bytes: number, unique: number, fuseNodeid: number): R.GetlkRequest {
  const { uid, gid, pid, fh, owner, start, end, type } = anySetlk(b, unique, fuseNodeid, false);
  return { op: "getlk", unique, fuseNodeid, uid, gid, pid, fh, owner, start, end, type };
}

export function fsync(b: Buffer, _end: number, _bytes: number, unique: number, fuseNodeid: number): R.FsyncRequest {
  return {
    op: "fsync",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
    fh: readU64(b, BODY),
    dataOnly: (b.readUInt32LE(BODY + 8) & REQUEST_FLAG.FUSE_FSYNC_FDATASYNC) !== 0,
  };
}

export function fsyncdir(b: Buffer, _end: number, _bytes: number, unique: number, fuseNodeid: number): R.FsyncdirRequest {
  return {
    op: "fsyncdir",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
    fh: readU64(b, BODY),
    dataOnly: (b.readUInt32LE(BODY + 8) & REQUEST_FLAG.FUSE_FSYNC_FDATASYNC) !== 0,
  };
}

export function readdir(b: Buffer, _end: number, _bytes: number, unique: number, fuseNodeid: number): R.ReaddirRequest {
  return {
    op: "readdir",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
    fh: readU64(b, BODY),
    cookie: b.readBigUInt64LE(BODY + 8),
    size: b.readUInt32LE(BODY + 16),
  };
}

export function readdirplus(b: Buffer, _end: number, _bytes: number, unique: number, fuseNodeid: number): R.ReaddirRequest {
  return {
    op: "readdirplus",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
    fh: readU64(b, BODY),
    cookie: b.readBigUInt64LE(BODY + 8),
    size: b.readUInt32LE(BODY + 16),
  };
}

export function interrupt(b: Buffer, _end: number, _bytes: number, unique: number, fuseNodeid: number): R.InterruptRequest {
  return {
    op: "interrupt",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
    targetUnique: readUnique(b, BODY),
  };
}

// struct fuse_notify_retrieve_in: dummy1 0, offset 8, size 16, dummy2 20, dummy3 24, dummy4 32; then the data.
export function notifyReply(b: Buffer, end: number, _bytes: number, unique: number, fuseNodeid: number): R.NotifyReplyRequest {
  const at = BODY + 40;
  const size = b.readUInt32LE(BODY + 16);
  if (size !== end - at) throw new WireError(`FUSE_NOTIFY_REPLY: ${size} bytes of data expected, ${end - at} found`);
  return {
    op: "notifyReply",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
    data: copy(b, at, end),
  };
}

export function destroy(b: Buffer, _end: number, _bytes: number, unique: number, fuseNodeid: number): R.DestroyRequest {
  return {
    op: "destroy",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
  };
}

export function fallocate(b: Buffer, _end: number, _bytes: number, unique: number, fuseNodeid: number): R.FallocateRequest {
  return {
    op: "fallocate",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
    fh: readU64(b, BODY),
    offset: readSize(b, BODY + 8),
    length: readSize(b, BODY + 16),
    mode: b.readUInt32LE(BODY + 24),
  };
}

export function lseek(b: Buffer, _end: number, _bytes: number, unique: number, fuseNodeid: number): R.LseekRequest {
  return {
    op: "lseek",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
    fh: readU64(b, BODY),
    offset: readI64(b, BODY + 8),
    whence: b.readUInt32LE(BODY + 16),
  };
}

export function copyFileRange(b: Buffer, _end: number, _bytes: number, unique: number, fuseNodeid: number): R.CopyFileRangeRequest {
  return {
    op: "copyFileRange",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
    fh: readU64(b, BODY),
    offset: readSize(b, BODY + 8),
    outFuseNodeid: readU64(b, BODY + 16),
    outFh: readU64(b, BODY + 24),
    outOffset: readSize(b, BODY + 32),
    length: readSize(b, BODY + 40),
    flags: readSize(b, BODY + 48),
  };
}

export function syncfs(b: Buffer, _end: number, _bytes: number, unique: number, fuseNodeid: number): R.SyncfsRequest {
  return {
    op: "syncfs",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
  };
}

/**
 * Replies to the kernel. Each encoder writes one whole reply (fuse_out_header and body) into the caller's buffer from
 * offset 0 on and returns its length in bytes. The buffer needs MAX_REPLY_BYTES, but for directory listings.
 * Source: include/uapi/linux/fuse.h; how the kernel reads them: fs/fuse/{dir,readdir,inode}.c.
 *
 * `errno` is positive here and negative on the wire. Too small a buffer is an assertion.
 */
import { type Attr, NO_BIRTH_TIME, type StatFs } from "../lower/lower.ts";
import { assert, AssertionError } from "../../dlmd/base/assert.ts";
import {
  ATTR_OUT_BYTES,
  DIRENT_BYTES,
  ENTRY_OUT_BYTES,
  IOCTL_OUT_BYTES,
  LK_OUT_BYTES,
  LOCK_TYPE,
  LSEEK_OUT_BYTES,
  OPEN_OUT_BYTES,
  OUT_HEADER_BYTES,
  STATFS_OUT_BYTES,
  STATX_BASIC_STATS,
  STATX_BTIME,
  STATX_OUT_BYTES,
  WRITE_OUT_BYTES,
  XATTR_OUT_BYTES,
} from "./abi.ts";
import { write32, write64 } from "./bytes.ts";
import { uniqueHigh } from "./unique.ts";

const CREATE_REPLY_BYTES: number = OUT_HEADER_BYTES + ENTRY_OUT_BYTES + OPEN_OUT_BYTES;
/** Room for every reply of this file with a fixed size (the largest is that to STATX). */
export const MAX_REPLY_BYTES: number = OUT_HEADER_BYTES + STATX_OUT_BYTES;

/**
 * The validity that stands for "until we say otherwise", in seconds: about 31 years. time_to_jiffies (fs/fuse/dir.c) adds
 * timespec64_to_jiffies of it to the clock. That clamps at MAX_SEC_IN_JIFFIES, which with 64-bit longs is 1.09e9 or more for every HZ;
 * so this value is never clamped, the product inside stays below 2^63, and the sum never wraps.
 */
export const VALID_SECONDS = 1_000_000_000;

function head(buffer: Buffer, unique: number, bytes: number, errno: number): number {
  if (bytes > buffer.length) throw new AssertionError(`reply of ${bytes} bytes in a buffer of ${buffer.length}`);
  putHead(buffer, unique, bytes, errno);
  return bytes;
}

function putHead(buffer: Buffer, unique: number, bytes: number, errno: number): void {
  write32(buffer, 0, bytes);
  write32(buffer, 4, -errno);
  write32(buffer, 8, unique | 0);
  write32(buffer, 12, uniqueHigh(unique));
}

/** `errno` > 0. */
export function encodeError(buffer: Buffer, unique: number, errno: number): number {
  if (!(errno > 0 && errno < 512)) throw new AssertionError(`errno ${errno} is not one that the kernel takes (1..511)`);
  return head(buffer, unique, OUT_HEADER_BYTES, errno);
}

/** Success without a body: unlink, rmdir, rename, release, flush, fsync, setxattr, removexattr, fallocate, syncfs, destroy ... */
export function encodeEmpty(buffer: Buffer, unique: number): number {
  return head(buffer, unique, OUT_HEADER_BYTES, 0);
}

/** The head of a reply whose body of `bodyBytes` the caller sends behind it: read, readlink, getxattr, listxattr. Returns 16. */
export function encodeDataHead(buffer: Buffer, unique: number, bodyBytes: number): number {
  putHead(buffer, unique, OUT_HEADER_BYTES + bodyBytes, 0);
  return OUT_HEADER_BYTES;
}

function attr(buffer: Buffer, at: number, a: Attr, size: number): void {
  write64(buffer, at, a.ino);
  write64(buffer, at + 8, size);
  write64(buffer, at + 16, a.blocks);
  write64(buffer, at + 24, a.atimeSec);
  write64(buffer, at + 32, a.mtimeSec);
  write64(buffer, at + 40, a.ctimeSec);
  write32(buffer, at + 48, a.atimeNsec);
  write32(buffer, at + 52, a.mtimeNsec);
  write32(buffer, at + 56, a.ctimeNsec);
  write32(buffer, at + 60, a.mode);
  write32(buffer, at + 64, a.nlink);
  write32(buffer, at + 68, a.uid);
  write32(buffer, at + 72, a.gid);
  write32(buffer, at + 76, (a.rdevMinor & 0xff) | (a.rdevMajor << 8) | ((a.rdevMinor & ~0xff) << 12));
  write32(buffer, at + 80, a.blksize);
  write32(buffer, at + 84, 0);
}

function entry(
  buffer: Buffer,
  at: number,
  fuseNodeid: number,
  generation: number,
  a: Attr,
  entryValid: boolean,
  attrValid: boolean,
  size: number,
): void {
  write64(buffer, at, fuseNodeid);
  write64(buffer, at + 8, generation);
  write64(buffer, at + 16, entryValid ? VALID_SECONDS : 0);
  write64(buffer, at + 24, attrValid ? VALID_SECONDS : 0);
  write64(buffer, at + 32, 0);
  attr(buffer, at + 40, a, size);
}

/** LOOKUP, MKDIR, MKNOD, SYMLINK, LINK. The kernel's lookup count of `fuseNodeid` grows by one. */
export function encodeEntry(
  buffer: Buffer,
  unique: number,
  fuseNodeid: number,
  generation: number,
  a: Attr,
  entryValid: boolean,
  attrValid: boolean,
  size: number = a.size,
): number {
  entry(buffer, OUT_HEADER_BYTES, fuseNodeid, generation, a, entryValid, attrValid, size);
  return head(buffer, unique, OUT_HEADER_BYTES + ENTRY_OUT_BYTES, 0);
}

/** LOOKUP of a name that does not exist, for the kernel to remember. Without validity answer ENOENT instead. */
export function encodeNegativeEntry(buffer: Buffer, unique: number): number {
  buffer.fill(0, OUT_HEADER_BYTES, OUT_HEADER_BYTES + ENTRY_OUT_BYTES);
  write64(buffer, OUT_HEADER_BYTES + 16, VALID_SECONDS);
  return head(buffer, unique, OUT_HEADER_BYTES + ENTRY_OUT_BYTES, 0);
}

/** GETATTR, SETATTR. */
export function encodeAttr(buffer: Buffer, unique: number, a: Attr, attrValid: boolean, size: number = a.size): number {
  write64(buffer, OUT_HEADER_BYTES, attrValid ? VALID_SECONDS : 0);
  write64(buffer, OUT_HEADER_BYTES + 8, 0);
  attr(buffer, OUT_HEADER_BYTES + 16, a, size);
  return head(buffer, unique, OUT_HEADER_BYTES + ATTR_OUT_BYTES, 0);
}

/**
 * STATX. The kernel takes all but the birth time for the inode's attributes, as it does with GETATTR, valid for as long (fs/fuse/dir.c,
 * fuse_do_statx). The birth time it keeps until it forgets the inode.
 */
export function encodeStatx(buffer: Buffer, unique: number, a: Attr, attrValid: boolean, size: number = a.size): number {
  const bytes = head(buffer, unique, OUT_HEADER_BYTES + STATX_OUT_BYTES, 0);
  buffer.fill(0, OUT_HEADER_BYTES, bytes);
  write64(buffer, OUT_HEADER_BYTES, attrValid ? VALID_SECONDS : 0);
  const at = OUT_HEADER_BYTES + 32;
  const born = a.btimeNsec !== NO_BIRTH_TIME;
  write32(buffer, at, born ? STATX_BASIC_STATS | STATX_BTIME : STATX_BASIC_STATS);
  write32(buffer, at + 4, a.blksize);
  write32(buffer, at + 16, a.nlink);
  write32(buffer, at + 20, a.uid);
  write32(buffer, at + 24, a.gid);
  // 16 bits, and the ones behind them are spare.
  write32(buffer, at + 28, a.mode);
  write64(buffer, at + 32, a.ino);
  write64(buffer, at + 40, size);
  write64(buffer, at + 48, a.blocks);
  writeTime(buffer, at + 64, a.atimeSec, a.atimeNsec);
  if (born) writeTime(buffer, at + 80, a.btimeSec, a.btimeNsec);
  writeTime(buffer, at + 96, a.ctimeSec, a.ctimeNsec);
  writeTime(buffer, at + 112, a.mtimeSec, a.mtimeNsec);
  write32(buffer, at + 128, a.rdevMajor);
  write32(buffer, at + 132, a.rdevMinor);
  return bytes;
}

/** struct fuse_sx_time. */
function writeTime(buffer: Buffer, at: number, sec: number, nsec: number): void {
  write64(buffer, at, sec);
  write32(buffer, at + 8, nsec);
}

/** OPEN, OPENDIR. `openFlags`: FOPEN_*. */
export function encodeOpen(buffer: Buffer, unique: number, fh: number, openFlags: number): number {
  open(buffer, OUT_HEADER_BYTES, fh, openFlags);
  return head(buffer, unique, OUT_HEADER_BYTES + OPEN_OUT_BYTES, 0);
}

function open(buffer: Buffer, at: number, fh: number, openFlags: number): void {
  write64(buffer, at, fh);
  write32(buffer, at + 8, openFlags);
  write32(buffer, at + 12, 0);
}

/** CREATE: an entry and an open file. */
export function encodeCreate(
  buffer: Buffer,
  unique: number,
  fuseNodeid: number,
  generation: number,
  a: Attr,
  entryValid: boolean,
  attrValid: boolean,
  fh: number,
  openFlags: number,
  size: number = a.size,
): number {
  entry(buffer, OUT_HEADER_BYTES, fuseNodeid, generation, a, entryValid, attrValid, size);
  open(buffer, OUT_HEADER_BYTES + ENTRY_OUT_BYTES, fh, openFlags);
  return head(buffer, unique, CREATE_REPLY_BYTES, 0);
}

/** WRITE and COPY_FILE_RANGE: how many bytes went. */
export function encodeWrite(buffer: Buffer, unique: number, bytes: number): number {
  write32(buffer, OUT_HEADER_BYTES, bytes);
  write32(buffer, OUT_HEADER_BYTES + 4, 0);
  return head(buffer, unique, OUT_HEADER_BYTES + WRITE_OUT_BYTES, 0);
}

/** GETXATTR, LISTXATTR with size 0: how long the value is. */
export function encodeXattrSize(buffer: Buffer, unique: number, bytes: number): number {
  write32(buffer, OUT_HEADER_BYTES, bytes);
  write32(buffer, OUT_HEADER_BYTES + 4, 0);
  return head(buffer, unique, OUT_HEADER_BYTES + XATTR_OUT_BYTES, 0);
}

/** IOCTL with result 0; `bodyBytes` follow. */
export function encodeIoctlHead(buffer: Buffer, unique: number, bodyBytes: number): number {
  const bytes = OUT_HEADER_BYTES + IOCTL_OUT_BYTES;
  buffer.fill(0, OUT_HEADER_BYTES, bytes);
  putHead(buffer, unique, bytes + bodyBytes, 0);
  return bytes;
}

export function encodeLseek(buffer: Buffer, unique: number, offset: number): number {
  write64(buffer, OUT_HEADER_BYTES, offset);
  return head(buffer, unique, OUT_HEADER_BYTES + LSEEK_OUT_BYTES, 0);
}

/** A lock that is in the way, as GETLK shows it. `pid` 0: its process is not one of this machine. */
export interface LockFound {
  readonly type: "read" | "write";
  readonly start: bigint;
  readonly end: bigint;
  readonly pid: number;
}

/** GETLK; null: nothing is in the way, and of the rest the kernel takes nothing then. */
export function encodeLk(buffer: Buffer, unique: number, found: LockFound | null): number {
  const at = OUT_HEADER_BYTES;
  buffer.writeBigUInt64LE(found?.start ?? 0n, at);
  buffer.writeBigUInt64LE(found?.end ?? 0n, at + 8);
  write32(buffer, at + 16, found === null ? LOCK_TYPE.F_UNLCK : found.type === "read" ? LOCK_TYPE.F_RDLCK : LOCK_TYPE.F_WRLCK);
  write32(buffer, at + 20, found?.pid ?? 0);
  return head(buffer, unique, at + LK_OUT_BYTES, 0);
}

export function encodeStatfs(buffer: Buffer, unique: number, s: StatFs): number {
  const at = OUT_HEADER_BYTES;
  buffer.fill(0, at, at + STATFS_OUT_BYTES);
  write64(buffer, at, s.blocks);
  write64(buffer, at + 8, s.bfree);
  write64(buffer, at + 16, s.bavail);
  write64(buffer, at + 24, s.files);
  write64(buffer, at + 32, s.ffree);
  write32(buffer, at + 40, s.bsize);
  write32(buffer, at + 44, s.namelen);
  write32(buffer, at + 48, s.frsize);
  return head(buffer, unique, OUT_HEADER_BYTES + STATFS_OUT_BYTES, 0);
}

/**
 * The reply to READDIR or READDIRPLUS, entry after entry:
 *
 *     const listing = new DirEncoder(buffer, request.size, request.op === "readdirplus");
 *     for (const e of entries) if (!listing.add(e.name, e.type, e.ino, e.cookie)) break;
 *     const bytes = listing.end(request.unique);
 *
 * The buffer needs OUT_HEADER_BYTES more than the size that the kernel asked for.
 */
export class DirEncoder {
  readonly #buffer: Buffer;
  readonly #end: number;
  readonly #plus: boolean;
  #at: number = OUT_HEADER_BYTES;

  constructor(buffer: Buffer, size: number, plus: boolean) {
    this.#buffer = buffer;
    this.#plus = plus;
    this.#end = OUT_HEADER_BYTES + size;
    if (this.#end > buffer.length) throw new AssertionError(`directory listing of ${size} bytes in a buffer of ${buffer.length}`);
  }

  /** Would an entry with a name of that many bytes fit? Ask before a lookup count is taken. */
  fits(nameBytes: number): boolean {
    return this.#at + this.#recordBytes(nameBytes) <= this.#end;
  }

  /**
   * An entry without a lookup: of READDIR, or of READDIRPLUS with nodeid 0 ("." and ".." always; children whose lock is
   * elsewhere). `cookie` is the position after it. False: it did not fit, and nothing was written.
   */
  add(name: Buffer, type: number, ino: number, cookie: bigint): boolean {
    if (!this.fits(name.length)) return false;
    if (this.#plus) {
      this.#buffer.fill(0, this.#at, this.#at + ENTRY_OUT_BYTES);
      this.#at += ENTRY_OUT_BYTES;
    }
    this.#dirent(name, type, ino, cookie);
    return true;
  }

  /** An entry of READDIRPLUS that counts as a lookup of `fuseNodeid`. False: it did not fit, and nothing was written. */
  addPlus(
    name: Buffer,
    type: number,
    cookie: bigint,
    fuseNodeid: number,
    generation: number,
    a: Attr,
    entryValid: boolean,
    attrValid: boolean,
    size: number = a.size,
  ): boolean {
    assert(this.#plus, "addPlus in a reply to READDIR");
    if (!this.fits(name.length)) return false;
    entry(this.#buffer, this.#at, fuseNodeid, generation, a, entryValid, attrValid, size);
    this.#at += ENTRY_OUT_BYTES;
    this.#dirent(name, type, a.ino, cookie);
    return true;
  }

  /** Writes the head; the length of the whole reply. Without entries: the end of the directory. */
  end(unique: number): number {
    return head(this.#buffer, unique, this.#at, 0);
  }

  #recordBytes(nameBytes: number): number {
    return (this.#plus ? ENTRY_OUT_BYTES : 0) + ((DIRENT_BYTES + nameBytes + 7) & ~7);
  }

  #dirent(name: Buffer, type: number, ino: number, cookie: bigint): void {
    const at = this.#at;
    const buffer = this.#buffer;
    const next = at + ((DIRENT_BYTES + name.length + 7) & ~7);
    write64(buffer, at, ino);
    buffer.writeBigUInt64LE(cookie, at + 8);
    write32(buffer, at + 16, name.length);
    write32(buffer, at + 20, type);
    buffer.set(name, at + DIRENT_BYTES);
    buffer.fill(0, at + DIRENT_BYTES + name.length, next);
    this.#at = next;
  }
}

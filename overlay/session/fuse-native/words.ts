/**
 * What crosses the border to libfuse, in its own shapes: paths, attributes, times, numbers. Source: fuse-native.c (populate_stat,
 * populate_statvfs, FUSE_UINT64_TO_INTS_ARGV), which passes names as UTF-8 and times as milliseconds.
 */
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import type { Time } from "../../lower/lower.ts";

/** Stands for bytes that are no UTF-8: the name that was meant is lost. */
const REPLACEMENT = "\ufffd";
const WORD = 2 ** 32;
const STAT_WORDS = 18;
const STATFS_WORDS = 11;
/** Offsets in fuse_thread_locals_t, where pointers have 64 bits. */
const ATIME_AT = 104;
const MTIME_AT = 112;
/** In struct setattr: leave it as it is. */
export const UNCHANGED_ID: number = 2 ** 32 - 1;

/** Throws Errno EILSEQ: it is not known which name was meant. */
export function nameBytes(name: string): Buffer {
  if (name.includes(REPLACEMENT)) throw errnoError(E.EILSEQ);
  return Buffer.from(name);
}

/** The same of a name that libfuse is to be given. */
export function nameText(name: Buffer): string {
  const text = name.toString("utf8");
  if (text.includes(REPLACEMENT)) throw errnoError(E.EILSEQ);
  return text;
}

/** From the root of the mount on; the root itself: none. */
export function pathNames(path: string): Buffer[] {
  return path
    .split("/")
    .filter((name) => name !== "")
    .map(nameBytes);
}

export function joined(low: number, high: number): number {
  return low + high * WORD;
}

function put64(words: Uint32Array, at: number, value: number): void {
  words[at] = value % WORD;
  words[at + 1] = Math.floor(value / WORD);
}

/** Attributes as struct stat has them. */
export interface StatFields {
  readonly ino: number;
  readonly mode: number;
  readonly nlink: number;
  readonly uid: number;
  readonly gid: number;
  readonly rdev: number;
  readonly size: number;
  readonly blksize: number;
  readonly blocks: number;
  readonly atimeMs: number;
  readonly mtimeMs: number;
  readonly ctimeMs: number;
}

/** struct fuse_attr, as fuse/reply.ts writes it. */
export function readAttr(reply: Buffer, at: number): StatFields {
  const u64 = (offset: number): number => Number(reply.readBigUInt64LE(at + offset));
  const ms = (secAt: number, nsecAt: number): number =>
    Number(reply.readBigInt64LE(at + secAt)) * 1000 + Math.floor(reply.readUInt32LE(at + nsecAt) / 1e6);
  return {
    ino: u64(0),
    size: u64(8),
    blocks: u64(16),
    atimeMs: ms(24, 48),
    mtimeMs: ms(32, 52),
    ctimeMs: ms(40, 56),
    mode: reply.readUInt32LE(at + 60),
    nlink: reply.readUInt32LE(at + 64),
    uid: reply.readUInt32LE(at + 68),
    gid: reply.readUInt32LE(at + 72),
    rdev: reply.readUInt32LE(at + 76),
    blksize: reply.readUInt32LE(at + 80),
  };
}

/** Throws Errno EOVERFLOW: an inode number that has no room there would be another file's. */
export function statWords(stat: StatFields): Uint32Array {
  if (stat.ino >= WORD) throw errnoError(E.EOVERFLOW);
  const words = new Uint32Array(STAT_WORDS);
  words.set([stat.mode, stat.uid, stat.gid]);
  put64(words, 3, stat.size);
  words[6] = stat.nlink;
  words[7] = stat.ino;
  words[8] = stat.rdev;
  words[9] = stat.blksize;
  put64(words, 10, stat.blocks);
  // Before 1970 there is nothing.
  put64(words, 12, Math.max(0, stat.atimeMs));
  put64(words, 14, Math.max(0, stat.mtimeMs));
  put64(words, 16, Math.max(0, stat.ctimeMs));
  return words;
}

export const NO_STAT: Uint32Array = new Uint32Array(STAT_WORDS);
export const NO_STATFS: Uint32Array = new Uint32Array(STATFS_WORDS);

/** What readdir(3) shows of an entry. */
export function entryWords(ino: number, type: number): Uint32Array {
  if (ino >= WORD) throw errnoError(E.EOVERFLOW);
  const words = new Uint32Array(STAT_WORDS);
  words[0] = type << 12;
  words[7] = ino;
  return words;
}

/** struct fuse_kstatfs. Counts of blocks have 32 bits there: so blocks are shown as large as is needed. */
export function statfsWords(reply: Buffer, at: number): Uint32Array {
  const u64 = (offset: number): number => Number(reply.readBigUInt64LE(at + offset));
  const words = new Uint32Array(STATFS_WORDS);
  let scale = 1;
  while (u64(0) / scale >= WORD) scale *= 2;
  const blocks = (offset: number): number => Math.floor(u64(offset) / scale);
  const inodes = (offset: number): number => Math.min(u64(offset), WORD - 1);
  const frsize = reply.readUInt32LE(at + 48) || reply.readUInt32LE(at + 40);
  words.set([reply.readUInt32LE(at + 40), frsize * scale, blocks(0), blocks(8), blocks(16)]);
  words.set([inodes(24), inodes(32), inodes(32), 0, 0, reply.readUInt32LE(at + 44)], 5);
  return words;
}

/**
 * The package gives the access time twice, and the modification time never (fuse-native.c, utimens). That is in the memory of the thread: read from
 * there, if the access time beside it is the one that was given. Throws Errno EOPNOTSUPP if it is not.
 */
export function readTimes(locals: Buffer, atimeMs: number): { readonly atime: Time; readonly mtime: Time } {
  if (locals.length < MTIME_AT + 8 || Number(locals.readBigUInt64LE(ATIME_AT)) !== atimeMs) throw errnoError(E.EOPNOTSUPP);
  return { atime: timeOf(atimeMs), mtime: timeOf(Number(locals.readBigUInt64LE(MTIME_AT))) };
}

function timeOf(ms: number): Time {
  return { sec: Math.floor(ms / 1000), nsec: (ms % 1000) * 1e6 };
}

/** new_encode_dev (include/linux/kdev_t.h), as MKNOD carries it. */
export function deviceNumber(dev: number): { readonly rdevMajor: number; readonly rdevMinor: number } {
  return { rdevMajor: (dev & 0xfff00) >>> 8, rdevMinor: (dev & 0xff) | ((dev >>> 12) & 0xfff00) };
}

export interface DirectoryEntry {
  readonly name: string;
  readonly ino: number;
  readonly type: number;
}

/** struct fuse_dirent, one after the other, behind the head of a reply. */
export function readEntries(reply: Buffer, from: number): { readonly entries: readonly DirectoryEntry[]; readonly cookie: bigint | null } {
  const entries: DirectoryEntry[] = [];
  let cookie: bigint | null = null;
  for (let at = from; at < reply.length; ) {
    const nameLength = reply.readUInt32LE(at + 16);
    cookie = reply.readBigUInt64LE(at + 8);
    const name = nameText(reply.subarray(at + 24, at + 24 + nameLength));
    entries.push({ name, ino: Number(reply.readBigUInt64LE(at)), type: reply.readUInt32LE(at + 20) });
    at += (24 + nameLength + 7) & ~7;
  }
  return { entries, cookie };
}

/**
 * The local lower: listings, by getdents64(2) with the file system's own positions as cookies. They are those of
 * the directory on disk, so a listing goes on at the next owner where it stopped at this one.
 */
import { E, Errno, errnoError } from "../../../dlmd/base/errno.ts";
import { fitting, isDots } from "../listing-reply.ts";
import { parseEntries } from "./dirents.ts";
import { SEEK } from "../linux.ts";
import type { LocalContext } from "./context.ts";
import { lookupMany } from "./names.ts";
import { type DirEntry, type DirPage, type Entry, type Listing, type LowerHandle, withEntry } from "../lower.ts";
import { checked } from "../../../dlmd/base/maybe-promise.ts";
import type { OpenFile } from "./open-handles.ts";
import { isReservedName } from "../reserved-names.ts";

const GETDENTS_MIN_BYTES = 512;
const GETDENTS_MAX_BYTES = 131_072;
/** Of one entry: struct linux_dirent64 with a name of 255 bytes. */
const LARGEST_ENTRY_BYTES = 280;
const COOKIE_LIMIT = 1n << 63n;

/**
 * lseek to a 63-bit position by two calls, because an argument that is a double has 53: the upper part is a
 * multiple of 2^32, which a double holds exactly, and the lower part is relative to it. It sets a position and reads nothing
 * (ext4_dir_llseek, generic_file_llseek), and no listing holds the descriptor's position lock meanwhile (`turn`).
 */
function seekTo(context: LocalContext, fd: number, cookie: bigint): void {
  const low = Number(cookie & 0xffff_ffffn);
  checked(context.sync.lseek(fd, Number(cookie >> 32n) * 0x1_0000_0000, SEEK.SET));
  if (low !== 0) checked(context.sync.lseek(fd, low, SEEK.CUR));
}

/**
 * Whether nothing follows what has just been read there. It moves the position of that descriptor. An error is told to who goes on there: the names before it are
 * there, as on any file system.
 */
async function isAtEnd(context: LocalContext, fd: number): Promise<boolean> {
  return (await context.native.pool.metadata.getdents(fd, Buffer.allocUnsafeSlow(GETDENTS_MIN_BYTES))) === 0;
}

/** Nothing is known of the names of a directory that was removed meanwhile. */
function absentIfStale(error: unknown): null[] {
  if (error instanceof Errno && error.errno === E.ESTALE) return [];
  throw error;
}

async function withAttributes(context: LocalContext, directory: OpenFile, entries: readonly DirEntry[]): Promise<DirEntry[]> {
  const named = entries.filter((entry) => !isDots(entry.name));
  let found: readonly (Entry | null)[];
  try {
    found = await lookupMany(
      context,
      directory.id,
      named.map((entry) => entry.name),
    );
  } catch (error) {
    found = absentIfStale(error);
  }
  let at = 0;
  return entries.map((entry) => {
    if (isDots(entry.name)) return entry;
    const one = found[at] ?? null;
    at += 1;
    return one === null ? entry : withEntry(entry, one);
  });
}

async function readPage(
  context: LocalContext,
  directory: OpenFile,
  fd: number,
  cookie: bigint,
  bytes: number,
  listing: Listing,
): Promise<DirPage> {
  // As of every removed directory (fs/readdir.c, iterate_dir).
  if (context.orphans.has(directory.id)) throw errnoError(E.ENOENT);
  const plus = listing !== "plain";
  // At 0 it was never read from.
  if (directory.position !== cookie) seekTo(context, fd, cookie);
  // Unknown until the call has succeeded.
  directory.position = -1n;
  // The shortest names take 24 bytes from the kernel and 32, or 160, in the reply: so all of it fits, and nothing is read twice.
  const wanted = Math.floor(plus ? (bytes * 24) / 160 : (bytes * 24) / 32);
  const buffer = Buffer.allocUnsafeSlow(Math.min(GETDENTS_MAX_BYTES, Math.max(GETDENTS_MIN_BYTES, wanted)));
  const count = checked(await context.native.pool.metadata.getdents(fd, buffer));
  if (count === 0) {
    directory.position = cookie;
    return { entries: [], end: true };
  }
  const all = parseEntries(buffer.subarray(0, count));
  const last = all.at(-1)?.cookie ?? -1n;
  // One more would have had room: that was the end, or the file system has stopped early.
  const isShort = buffer.length - count >= LARGEST_ENTRY_BYTES;
  const end = isShort && (await isAtEnd(context, fd));
  directory.position = isShort ? -1n : last;
  const root = context.root.ino;
  const shown = directory.id.ino === root ? all.filter((entry) => !isReservedName(entry.name)) : all;
  // Nothing but what is hidden: an empty page would read like the end.
  if (shown.length === 0) return await readPage(context, directory, fd, last, bytes, listing);
  const fit = fitting(shown, bytes, listing);
  // Not even one: the caller's buffer is too small, and an empty page would read like the end.
  if (fit.length === 0) throw errnoError(E.EINVAL);
  // ".." of the volume's root is the root: what is above it is not part of the volume.
  const inside = directory.id.ino === root ? fit.map((entry) => (isDots(entry.name) ? { ...entry, ino: root } : entry)) : fit;
  const entries = listing === "entries" ? await withAttributes(context, directory, inside) : inside;
  return { entries, end: end && fit.length === shown.length };
}

export async function readdir(
  context: LocalContext,
  handle: LowerHandle,
  cookie: bigint,
  bytes: number,
  listing: Listing,
): Promise<DirPage> {
  const directory = context.handles.getDirectory(handle);
  if (cookie < 0n || cookie >= COOKIE_LIMIT) throw errnoError(E.EINVAL);
  return await context.handles.use(directory, async (fd) => {
    // Hazard R19: it may have been moved out of a directory that is a lower since it was opened.
    if (!context.containment.isInside(fd)) throw errnoError(E.ESTALE);
    const read = (): Promise<DirPage> => readPage(context, directory, fd, cookie, bytes, listing);
    return directory.turn === null ? await read() : await directory.turn.run([0], read);
  });
}

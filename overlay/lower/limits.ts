/** What may be asked of a lower, checked alike on both sides of the wire: before it is sent, and before it is done. */
import { E, errnoError } from "../../dlmd/base/errno.ts";
import { NAME_MAX } from "./linux.ts";

/** The largest read or write: FUSE's max_write. */
export const MAX_IO_BYTES: number = 1024 * 1024;

/** A longer copy is done in pieces of that size, so that no single call holds a thread and a lock for long. */
export const MAX_COPY_BYTES: number = 64 * 1024 * 1024;

/** getattrMany takes at most that many. */
export const MAX_GETATTR_MANY = 1024;

/** deposit takes at most so many write tokens, and so many files with locks. */
export const MAX_DEPOSIT = 1024;

/** outcomes asks of at most so many calls, and brings at most so much of them (OUTCOMES_BYTES_MAX): so the question and the answers fit into a frame. */
export const MAX_OUTCOMES = 256;
export const OUTCOMES_BYTES_MAX: number = 512 * 1024;

/** Of the ticket of a deposit, which its caller draws. */
export const TICKET_CHARS = 32;

/** close takes at most that many: at so many the owner is told (remote/closes.ts). */
export const MAX_CLOSE_MANY = 16;

/** readMany takes at most that many, and brings no file that is longer. */
export const MAX_READ_MANY = 64;
export const READ_MANY_FILE_BYTES_MAX = 8192;

/** Hazard F23: so many bytes a mount's programs may have been told to be written that the owner has not answered; then they wait. */
export const BEHIND_BYTES_MAX: number = 1024 * 1024;

/** lookupMany takes at most that many. */
export const MAX_LOOKUP_MANY = 1024;

/** lookupSince tells at most so many names of a directory; of one with more changes, or more names, it tells none (hazard F32). */
export const MAX_NAMES_TOLD = 4096;
/** Nor where they have more bytes: each of many questions at a time may be answered with all of them. */
export const NAMES_TOLD_BYTES_MAX: number = 256 * 1024;

/** The blocks (of 512 bytes) of a file that has more than this are freed in a pool, not on the serving thread: 8 MiB. */
export const LARGE_FILE_BLOCKS = 16_384;

const SLASH = 0x2f;
const DOT = 0x2e;

/** A single component below its directory: names come from other nodes too, and ".." of the root leads out. */
export function checkName(name: Buffer): void {
  if (name.length > NAME_MAX) throw errnoError(E.ENAMETOOLONG);
  const dots = name[0] === DOT && (name.length === 1 || (name.length === 2 && name[1] === DOT));
  if (name.length === 0 || dots || name.includes(SLASH) || name.includes(0)) throw errnoError(E.EINVAL);
}

/** A range that is to be written. EINVAL: negative; EFBIG: from 2^53 on. */
export function checkWritable(offset: number, bytes: number): void {
  if (!(offset >= 0 && bytes >= 0)) throw errnoError(E.EINVAL);
  if (offset + bytes > Number.MAX_SAFE_INTEGER) throw errnoError(E.EFBIG);
}

/** No file has bytes there: from 2^53 on. */
export function isBeyondAnyFile(offset: number, bytes: number): boolean {
  return offset + bytes > Number.MAX_SAFE_INTEGER;
}

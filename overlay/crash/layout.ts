/**
 * Where what stands in a journal (README.md). All numbers are little endian, as on every machine that this runs on. A row is there from when its state is
 * written, which is last, until that is 0, which is first: so one that a crash has cut off is not there.
 *
 *     0       "COVRJRNL", version u32
 *     64      resumable u32 (the keeper looks at it: native/src/keeper/)
 *     72      head: next numbers, the reply that is being given
 *     4 KiB   what does not change, as JSON: length u32, sha256, bytes
 *     64 KiB  tables
 */
import type { InodeKind } from "../coherence/cover.ts";

export const MAGIC: Buffer = Buffer.from("COVRJRNL");
export const JOURNAL_HEIRS_MAX = 32;
/** Another meaning of anything below is another version. */
export const JOURNAL_VERSION = 6;
/** Without `own` in the rows of calls, and with the numbers of the rows of locks elsewhere (locks.ts). */
export const JOURNAL_VERSION_BEFORE = 5;

export const AT = {
  version: 8,
  resumable: 64,
  /** f64 */
  nextCounted: 72,
  nextFh: 80,
  /** Of the request that is being answered with a new handle, without the bit of RESEND; 0: none is. */
  givingTo: 88,
  givingFh: 96,
  /** u32: rows of each table that were ever used. */
  usedInodes: 104,
  usedHandles: 108,
  usedFiles: 112,
  usedCalls: 116,
  /** N of /sys/fs/fuse/connections/N, for the keeper. */
  connection: 120,
  usedLocks: 124,
  /** The client of dlmd whose locks cover what the kernel has. */
  servingClient: 128,
  /** How many, and who: clients of processes after it which have gone on with its locks, or were about to, and did not come to serve. */
  heirs: 132,
  heir: 136,
} as const;

export const CONSTANTS_AT: number = 4 * 1024;
export const CONSTANTS_MAX: number = 60 * 1024;

export interface Table {
  readonly at: number;
  readonly rowBytes: number;
  readonly rows: number;
  /** Where in the head its rows are counted. */
  readonly usedAt: number;
}

function tables<const N extends string>(first: number, of: readonly (readonly [N, number, number, number])[]): Record<N, Table> {
  let at = first;
  const made: Partial<Record<N, Table>> = {};
  for (const [name, rowBytes, rows, usedAt] of of) {
    made[name] = { at, rowBytes, rows, usedAt };
    at += rowBytes * rows;
  }
  return made as Record<N, Table>;
}

/** Inodes that the kernel knows; with more a crash ends the mount. */
export const JOURNAL_INODES_MAX: number = 2 * 1024 * 1024;
/** Open files and directories of programs. */
export const JOURNAL_HANDLES_MAX: number = 256 * 1024;
/** Files open at the owner. */
export const JOURNAL_FILES_MAX: number = 128 * 1024;
/** Changes that are under way, or whose requests are not answered. */
export const JOURNAL_CALLS_MAX = 2048;
/** Of a call made behind, and of an answer: more than any has. */
export const JOURNAL_BODY_MAX: number = 68 * 1024;

/** Files with file locks, and what is written down of each. */
export const JOURNAL_LOCKED_FILES_MAX = 4096;
export const JOURNAL_LOCKS_BYTES_MAX: number = 16 * 1024;

const CALL_HEAD_BYTES = 64;
const LOCKS_HEAD_BYTES = 16;

export const TABLES: Record<"inodes" | "handles" | "files" | "calls" | "locks", Table> = tables(64 * 1024, [
  ["inodes", 40, JOURNAL_INODES_MAX, AT.usedInodes],
  ["handles", 32, JOURNAL_HANDLES_MAX, AT.usedHandles],
  ["files", 32, JOURNAL_FILES_MAX, AT.usedFiles],
  ["calls", CALL_HEAD_BYTES + JOURNAL_BODY_MAX, JOURNAL_CALLS_MAX, AT.usedCalls],
  ["locks", LOCKS_HEAD_BYTES + JOURNAL_LOCKS_BYTES_MAX, JOURNAL_LOCKED_FILES_MAX, AT.usedLocks],
]);

export const CALL_BODY_AT: number = CALL_HEAD_BYTES;
export const LOCKS_BODY_AT: number = LOCKS_HEAD_BYTES;

/** Sparse: what was never written takes no memory. */
export const JOURNAL_BYTES: number = TABLES.locks.at + TABLES.locks.rowBytes * TABLES.locks.rows;

/** Where its 32-bit numbers have the lookups, which a mount of months may count past 2^32: the lower half, the upper one. */
export const NLOOKUP = { low: 5, high: 8 } as const;

/** Of an inode's row: 1 and more; 0: none. */
export const KINDS: readonly InodeKind[] = ["file", "directory", "other"];

export const HANDLE = { used: 1, writable: 2, cached: 4, writeToken: 8, mappable: 16 } as const;

export const FILE = { file: 1, directory: 2 } as const;

/** Changes made behind that were refused, and of which programs are to be told; with more a crash ends the mount. */
export const JOURNAL_LOST_MAX = 64;

/** What a call's row has beside its head. `own`, `sure`: OwnJournal.making. */
export const BODY = { none: 0, asked: 1, sure: 2, own: 3 } as const;

/** Of a call: it was made, it was answered, with an errno; it was made behind: a program was told already. */
export const CALL = { begun: 1, answered: 2, failed: 3 } as const;

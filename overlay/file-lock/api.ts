/**
 * File locks of the cluster (fcntl(2), OFD locks, flock(2)) as the operations of a mount ask for them. A file is named by `lockFile`.
 *
 * An owner is the kernel's number of a process (its files_struct: POSIX locks), or of an open file (OFD locks, flock). The kernel does not say
 * whether a range lock is POSIX or OFD: both are "posix" here. So a circle of OFD locks ends with EDEADLK, too.
 */
import type { FileLockStatus } from "../../dlmd/client/file-lock-api.ts";
import type { LockFound } from "../fuse/reply.ts";
import type { Inode } from "../coherence/cover.ts";
import { type FileId, fileKey } from "../lower/lower.ts";
import type { MaybePromise } from "../../dlmd/base/maybe-promise.ts";

export interface LockOwner {
  /** "flock" has a space of its own. */
  readonly kind: "posix" | "flock";
  readonly owner: bigint;
}

/** Bytes `start` to `end`, both included. */
export interface LockRange {
  readonly type: "read" | "write";
  readonly start: bigint;
  readonly end: bigint;
}

export interface LockWanted extends LockRange {
  /** The process that asks. */
  readonly pid: number;
}

export interface LockRequest {
  /** Rejects with EIO when the mount is taken out. */
  readonly done: MaybePromise<FileLockStatus>;
  /** Ends the wait: `done` is "canceled", or what it got if that was faster. Once. */
  cancel(): void;
  /** Its program is being killed, and hears nothing of it: as `cancel`, and what it is given all the same is given up. Once. */
  abandon(): void;
}

export interface FileLocking {
  /** False: no file of this mount is locked, or was asked to be: `released` and `forgotten` need not be told. */
  readonly inUse: boolean;
  /** `fh`: through which open file. */
  lock(file: string, fh: number, owner: LockOwner, wanted: LockWanted, wait: boolean): LockRequest;
  /** When it is over every node sees it. "limit": it would split a lock, and there are too many. */
  unlock(file: string, owner: LockOwner, start: bigint, end: bigint): MaybePromise<"granted" | "limit">;
  /** The first lock in the way, by offset. */
  test(file: string, owner: LockOwner, wanted: LockRange): MaybePromise<LockFound | null>;
  /** FLUSH: the process has closed the file, and all that it has on it goes, through whatever open file it came. */
  closed(file: string, owner: bigint): MaybePromise<void>;
  /** RELEASE: what was locked through that open file, and has not gone before, goes. */
  released(file: string, fh: number): void;
  /** The kernel knows the file no more. */
  forgotten(file: string): void;
}

/** The locks of this node on a file, as one process of a mount gives them to the next one (hazard F33). */
export interface FileLockRow {
  readonly file: string;
  /** They are in dlmd's service: other nodes use the file. */
  readonly shared: boolean;
  /** `heldMs`: for so long. */
  readonly held: readonly { readonly owner: LockOwner; readonly range: LockRange; readonly pid: number; readonly heldMs: number }[];
  /** LockUsers.of */
  readonly users: readonly { readonly owner: LockOwner; readonly handles: readonly number[] }[];
}

/** The file's name, as a resource of dlmd and as a file of its file-lock service. */
export function lockFile({ cover }: Inode): string {
  return `f${cover.key}`;
}

/** RELEASE. Its name is made only where it has to be. */
export function releaseLocks(locks: FileLocking | null, inode: Inode, fh: number): void {
  if (locks?.inUse === true) locks.released(lockFile(inode), fh);
}

/** The kernel knows the file no more. */
export function forgetLocks(locks: FileLocking | null, inode: Inode): void {
  if (locks?.inUse === true) locks.forgotten(lockFile(inode));
}

export function lockFileOf(id: FileId): string {
  return `f${fileKey(id)}`;
}

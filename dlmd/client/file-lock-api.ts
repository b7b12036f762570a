/**
 * File locks as a program sees them: what fcntl(2) (POSIX and open file description locks) and flock(2) do on one machine, for the whole
 * cluster. A file is any name; what it means is the programs' business.
 *
 *     const files = await client.fileLocks("my-volume");
 *     const me = { kind: "posix", owner: 1n, pid: process.pid } as const;
 *     const request = files.lock("inode 17", me, { type: "write", start: 0n, end: 99n });
 *     const onSignal = () => request.cancel();
 *     if ((await request.done) === "granted") await files.unlock("inode 17", me);
 *
 * Locks go when they are unlocked or released, when the connection to dlmd ends, and when the node dies; the last two only after every
 * client of the cluster has answered "gone". While there is no quorum requests wait.
 */
import type { OwnerKind, PlockOwner, PlockType } from "../wire/plock-range.ts";

/** Whose a lock is, within this connection: locks of one owner never exclude each other. */
export interface FileLockOwner {
  /** "posix" and "ofd" share the ranges of a file; "flock" has a space of its own, always the whole file. */
  readonly kind: OwnerKind;
  /** 64 bits, such as FUSE's lk_owner. */
  readonly owner: bigint;
  /** Shown to whoever asks who holds the lock: 0 to 2^32-1. */
  readonly pid: number;
}

/** Bytes `start` to `end`, both included. Left out: from 0, and to the end of the file however it grows (2^63-1). */
export interface FileLockRange {
  readonly start?: bigint;
  readonly end?: bigint;
}

export interface FileLockWanted extends FileLockRange {
  readonly type: PlockType;
}

/**
 * granted; again: somebody has it, and the request was not to wait (EAGAIN); deadlock: it would wait for itself, POSIX owners only (EDEADLK);
 * canceled (EINTR); limit: the file or this client has too many (ENOLCK).
 */
export type FileLockStatus = "granted" | "again" | "deadlock" | "canceled" | "limit";

export interface FileLockRequest {
  readonly id: number;
  /** Rejects if dlmd refuses the request as such (`code` EINVAL), and when the connection ends. */
  readonly done: Promise<FileLockStatus>;
  /** Ends the wait: `done` is "canceled", or "granted" if that was faster. Nothing happens if it is done. */
  cancel(): void;
}

/** A lock that is in the way. */
export interface FileLockConflict {
  readonly type: PlockType;
  readonly start: bigint;
  readonly end: bigint;
  readonly pid: number;
  readonly owner: PlockOwner;
}

/** What a request ended with. `conflict`: of a "test". */
export interface FileLockResult {
  readonly status: FileLockStatus;
  readonly conflict: FileLockConflict | null;
}

export interface FileLocks {
  /**
   * Gives those bytes that type, whatever the owner had there; neighbours of one type become one lock (fcntl(2) F_SETLK, F_SETLKW). Requests
   * that wait (the default) are served in the order in which they came. A flock that is converted is unlocked first (flock(2)).
   * file: 1 to 64 bytes of UTF-8.
   */
  lock(file: string, owner: FileLockOwner, wanted: FileLockWanted, options?: { readonly wait?: boolean }): FileLockRequest;
  /** Resolves when every node sees it. Rejects with `code` ENOLCK if it would split a lock of a client that is at its limit. */
  unlock(file: string, owner: FileLockOwner, range?: FileLockRange): Promise<void>;
  /** The first lock by offset that `lock` would have to wait for; null: none (F_GETLK). Not for flock. */
  test(file: string, owner: FileLockOwner, wanted: FileLockWanted): Promise<FileLockConflict | null>;
  /**
   * Any of these by callback, for programs that keep account of their locks: `ended` runs synchronously, in the order in which the service acted, which
   * that of promises need not be. An error: as `done` of FileLockRequest rejects. Gives the request's number. `begun`: this flock is converted
   * since before, so what its owner has now it keeps while this waits. `heldMs`: the owner has had this lock for so many whole milliseconds, where the
   * service did not see it. `first`: before all that wait, when nobody has it for the same kind and
   * number any more: another client does, and is about to give it up to this one.
   */
  start(
    op: "lock" | "unlock" | "test",
    file: string,
    owner: FileLockOwner,
    wanted: FileLockWanted,
    options: { readonly wait: boolean; readonly begun?: boolean; readonly heldMs?: number | null; readonly first?: boolean },
    ended: (result: FileLockResult | Error) => void,
  ): number;
  /** By the number of a request; as its `cancel`. */
  cancel(requestId: number): void;
  /**
   * Unlocks all that the owner has on the file, as close(2) does; null: on every file of the lockspace, and ends its waiting requests too, as
   * exit(2) does. Takes effect at once; there is no answer.
   */
  release(file: string | null, owner: Pick<FileLockOwner, "kind" | "owner">): void;
}

/**
 * The vocabulary of file locks: byte ranges, owners, and who excludes whom (fcntl(2), flock(2); Linux fs/locks.c
 * posix_locks_conflict). Offsets are bigint, because 2^63-1 ("to the end of the file") is an offset.
 */

/** The last byte that a file can have: a range without an end goes so far. */
export const maxOffset: bigint = 0x7fff_ffff_ffff_ffffn;

export type PlockType = "read" | "write";
export const plockTypes: readonly PlockType[] = ["read", "write"];

/**
 * posix: of a process (fcntl F_SETLK); ofd: of an open file (F_OFD_SETLK): one space of ranges, and they exclude each other. flock: of an
 * open file too, a space of its own, always the whole file.
 */
export type OwnerKind = "posix" | "ofd" | "flock";
export const ownerKinds: readonly OwnerKind[] = ["posix", "ofd", "flock"];

/** Whose a lock is: of a client (a program connected to a node's dlmd), which tells its own owners apart by a number. */
export interface PlockOwner {
  readonly nodeid: number;
  readonly clientId: number;
  readonly kind: OwnerKind;
  /** 64 bits, such as the kernel's lock owner. */
  readonly owner: bigint;
}

export function ownerKey({ nodeid, clientId, kind, owner }: PlockOwner): string {
  return `${nodeid}/${clientId}/${kind}/${owner}`;
}

/** Bytes from `start` to `end`, both included. */
export interface Range {
  readonly type: PlockType;
  readonly start: bigint;
  readonly end: bigint;
  /** Shown to who asks who holds it; means nothing here. */
  readonly pid: number;
}

/** A range that its owner has, and for how long; null: that is not known. An age, because the clocks of two nodes need not agree. */
export interface HeldRange extends Range {
  readonly heldMs: number | null;
}

/** Two locks of different owners on the same bytes exclude each other unless both read. */
export function typesConflict(a: PlockType, b: PlockType): boolean {
  return a === "write" || b === "write";
}

export function overlaps(
  a: { readonly start: bigint; readonly end: bigint },
  b: { readonly start: bigint; readonly end: bigint },
): boolean {
  return a.start <= b.end && b.start <= a.end;
}

/** Which of a file's two spaces a lock is in. */
export type Space = "ranges" | "flock";

export function spaceOf(kind: OwnerKind): Space {
  return kind === "flock" ? "flock" : "ranges";
}

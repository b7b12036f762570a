/** File locks on the local socket (local.ts): what programs ask and what they are told, as types and codec. */
import type { ByteReader, ByteWriter } from "../base/bytes.ts";
import { WireError } from "../base/error.ts";
import type { OwnerKind, PlockType } from "../plock/range.ts";
import { readName } from "./local-batch.ts";
import {
  type PlockConflict,
  type PlockOp,
  readOp,
  readOwner,
  readOwnerKind,
  readRange,
  writeOp,
  writeOwner,
  writeOwnerKind,
  writeRange,
} from "./peer-plock.ts";

/** Request ids are the client's, u32, unique while in use. */
export type PlockClientRequest =
  /**
   * Answered by exactly one "plock-result". file: 1..64 bytes of UTF-8. Of "lock" and "unlock" by a flock owner start and end do not count.
   * wait: "lock" waits its turn (F_SETLKW), else EAGAIN.
   */
  | {
      readonly kind: "plock";
      readonly lockspaceId: number;
      readonly requestId: number;
      readonly file: string;
      readonly op: PlockOp;
      readonly ownerKind: OwnerKind;
      readonly owner: bigint;
      readonly pid: number;
      readonly type: PlockType;
      readonly start: bigint;
      readonly end: bigint;
      readonly wait: boolean;
    }
  /** No answer of its own: the request ends with EINTR, or with what it got if that was faster. */
  | { readonly kind: "plock-cancel"; readonly requestId: number }
  /** No answer. Unlocks all of that file, as close does; file null: of every file, and ends requests that wait. */
  | {
      readonly kind: "plock-release";
      readonly lockspaceId: number;
      readonly file: string | null;
      readonly ownerKind: OwnerKind;
      readonly owner: bigint;
    };

export function isPlockRequest(request: { readonly kind: string }): request is PlockClientRequest {
  return request.kind === "plock" || request.kind === "plock-cancel" || request.kind === "plock-release";
}

/**
 * errno 0: done; EAGAIN: somebody has it; EDEADLK; EINTR: canceled; ENOLCK: a limit; EINVAL; ENOENT: lockspace not open; EEXIST: request
 * id in use. conflict: the answer to a "test"; null: the lock could be had.
 */
export interface PlockResult {
  readonly kind: "plock-result";
  readonly requestId: number;
  readonly errno: number;
  readonly conflict: PlockConflict | null;
}

export const PLOCK_KIND = 20;
export const PLOCK_CANCEL_KIND = 21;
export const PLOCK_RELEASE_KIND = 22;
export const PLOCK_RESULT_KIND = 148;

export function encodePlockRequest(w: ByteWriter, m: PlockClientRequest): void {
  switch (m.kind) {
    case "plock":
      w.u8(PLOCK_KIND).u32(m.lockspaceId).u32(m.requestId).string(m.file);
      writeOwnerKind(writeOp(w, m.op), m.ownerKind).bigU64(m.owner).bool(m.wait);
      writeRange(w, m);
      return;
    case "plock-cancel":
      w.u8(PLOCK_CANCEL_KIND).u32(m.requestId);
      return;
    case "plock-release":
      w.u8(PLOCK_RELEASE_KIND)
        .u32(m.lockspaceId)
        .string(m.file ?? "");
      writeOwnerKind(w, m.ownerKind).bigU64(m.owner);
      return;
  }
}

/** The kind is read already; null: none of these. Throws WireError. */
export function readPlockRequest(kind: number, r: ByteReader): PlockClientRequest | null {
  switch (kind) {
    case PLOCK_KIND: {
      const names = { lockspaceId: r.u32(), requestId: r.u32(), file: readName(r), op: readOp(r) };
      return { kind: "plock", ...names, ownerKind: readOwnerKind(r), owner: r.bigU64(), wait: r.bool(), ...readRange(r) };
    }
    case PLOCK_CANCEL_KIND:
      return { kind: "plock-cancel", requestId: r.u32() };
    case PLOCK_RELEASE_KIND: {
      const lockspaceId = r.u32();
      const file = r.string(64);
      return { kind: "plock-release", lockspaceId, file: file === "" ? null : file, ownerKind: readOwnerKind(r), owner: r.bigU64() };
    }
    default:
      return null;
  }
}

export function encodePlockResult(w: ByteWriter, { requestId, errno, conflict }: PlockResult): void {
  w.u8(PLOCK_RESULT_KIND)
    .u32(requestId)
    .u16(errno)
    .bool(conflict !== null);
  if (conflict === null) return;
  writeRange(w, conflict);
  writeOwner(w, conflict.owner);
}

/** Throws WireError. */
export function readPlockResult(r: ByteReader): PlockResult {
  const requestId = r.u32();
  const errno = r.u16();
  if (errno > 4095) throw new WireError(`errno ${errno}: at most 4095 expected`);
  return { kind: "plock-result", requestId, errno, conflict: r.bool() ? { ...readRange(r), owner: readOwner(r) } : null };
}

/** File locks on the local socket (local.ts): what programs ask and what they are told, as types and codec. */
import { WireError } from "../base/error.ts";
import type { OwnerKind, PlockType } from "./plock-range.ts";
import { bigU64, flag, orNull, type Row, type Rows, row, u16, u32 } from "./field.ts";
import { anyName, name } from "./peer-field.ts";
import { age, checkRange, conflict, op, ownerKind, type PlockConflict, type PlockOp, rangeFields } from "./peer-plock.ts";

/** Request ids are the client's, u32, unique while in use. */
export type PlockClientRequest =
  /**
   * Answered by exactly one "plock-result". file: 1..64 bytes of UTF-8. Of "lock" and "unlock" by a flock owner start and end do not count.
   * wait: "lock" waits its turn (F_SETLKW), else EAGAIN. begun, heldMs, first: as in PlockAsk.
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
      readonly begun: boolean;
      readonly heldMs: number | null;
      readonly first: boolean;
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

type Asked<K> = Extract<PlockClientRequest, { kind: K }>;
export const plockRequestRows: Rows<PlockClientRequest> = {
  plock: row<Asked<"plock">>(
    "plock",
    20,
    {
      lockspaceId: u32,
      requestId: u32,
      file: name,
      op,
      ownerKind,
      owner: bigU64,
      wait: flag,
      begun: flag,
      heldMs: age,
      first: flag,
      ...rangeFields,
    },
    checkRange,
  ),
  "plock-cancel": row<Asked<"plock-cancel">>("plock-cancel", 21, { requestId: u32 }),
  "plock-release": row<Asked<"plock-release">>("plock-release", 22, {
    lockspaceId: u32,
    file: orNull(anyName, ""),
    ownerKind,
    owner: bigU64,
  }),
};
export const plockResultRow: Row<PlockResult> = row("plock-result", 148, { requestId: u32, errno: u16, conflict }, ({ errno }) => {
  if (errno > 4095) throw new WireError(`errno ${errno}: at most 4095 expected`);
});

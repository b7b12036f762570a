/**
 * What an error of the local lower says of its disk (hazard R6): pure rules. An owner whose disk failed is a failed owner. It
 * tells nobody, gives the volume up, and the calls wait for the next owner.
 */
import { E } from "../../../dlmd/base/errno.ts";

/** A volume from which an owner has withdrawn within that time has a broken disk: its errors are told, and there is no third owner. */
export const WITHDRAW_AGAIN_MS = 60_000;
/** A read past every cache that has not come back by then: the path to the disk is not well. */
export const PROBE_LIMIT_MS = 5000;

export type DiskFault =
  /** An ordinary answer of a file system. */
  | "none"
  /** A bad block, or something else, or a lost path: a read past every cache shows which. */
  | "probe"
  | "withdraw";

export interface FaultyVolume {
  /** It was mounted so, on purpose. */
  readonly readOnly: boolean;
  /** The kernel found wrong metadata, and turned it read-only: the next owner would find the same. */
  readonly isDamaged: () => boolean;
}

/** `changes`: the call changes or syncs something. */
export function judgeError(errno: number, changes: boolean, { readOnly, isDamaged }: FaultyVolume): DiskFault {
  switch (errno) {
    case E.EROFS:
      return readOnly || isDamaged() ? "none" : "withdraw";
    case E.ESHUTDOWN:
      return "withdraw";
    case E.EUCLEAN:
      if (isDamaged()) return "none";
      return changes ? "withdraw" : "probe";
    case E.EIO:
      return changes ? "withdraw" : "probe";
    // ext4 says ENOMEM of blocks beyond the end of a device that has become shorter; the others are block/blk-core.c, blk_errors.
    case E.ENOMEM:
    case E.ENOLINK:
    case E.ETIMEDOUT:
    case E.EREMOTEIO:
    case E.EBADE:
      return "probe";
    default:
      return "none";
  }
}

/** `lastMs`: when an owner of the volume withdrew last, as far as this node knows; null: never. */
export function mayWithdraw(lastMs: number | null, nowMs: number): boolean {
  return lastMs === null || nowMs - lastMs >= WITHDRAW_AGAIN_MS;
}

/**
 * Whether all that the owner before had executed is on the disk: a pure rule. Its callers make unanswered changes again then, and have
 * nothing to report at fsync (lower/wire/repeat.ts, lower/unsynced.ts).
 */
import type { Claim } from "./owner-event.ts";

/**
 * Epoch of the owner before; 0: not known. `dirty`: why the superblock was not clean before this mount (probe.ts, dirtyReason). A clean one says
 * enough only where the kernel itself unmounted it: a machine that lost its power may have told nobody of what it had.
 */
export function cleanAfter({ block, proof }: Claim, dirty: string | null): number {
  if (block === null || dirty !== null) return 0;
  if (block.state === "released") return block.epoch;
  return proof?.kind === "ended" ? block.epoch : 0;
}

/**
 * Epoch of the owner before, if its disk had failed and it let go of it; else 0. It has answered nothing since it knew, and nobody has seen what
 * it did not answer: those changes are made again, although earlier ones may be lost.
 */
export function letGoAfter({ block, proof }: Claim): number {
  return proof?.kind === "let-go" ? (block?.epoch ?? 0) : 0;
}

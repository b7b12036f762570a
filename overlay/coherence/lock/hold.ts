/**
 * The minimum hold: a lock that is fought over and in use stays for a moment after it came, though another node waits, so that each turn does more than one
 * operation. Nodes that take turns anyway (lock, read, write, unlock) do nothing more in that moment: of a file for which it was in vain it is left out the next
 * time, and twice as often each time again. turn.ts has the same for directories that are changed. Pure.
 */
import type { Cover } from "../cover.ts";
import { FileFight } from "../cover-parts.ts";
import type { CoherenceState } from "../effect.ts";

/** Less was done with it since it came: it is not in use. */
const HOLD_USES_MIN = 4;
/** Left out so many times at most before it is tried again. */
export const HOLDS_LEFT_OUT_MAX = 64;

/** Milliseconds for which the lock stays, though another node wants it; then it is asked again. */
export function holdTimeLeft({ limits }: CoherenceState, cover: Cover, now: number): number {
  const { revokedAt, grantedAt, uses } = cover;
  if (revokedAt === null || grantedAt - revokedAt > limits.contendedMs || uses < HOLD_USES_MIN) return 0;
  const leftMs = grantedAt + limits.minHoldMs - now;
  if (cover.kind === "directory" || leftMs <= 0) return leftMs;
  cover.fight ??= new FileFight();
  const { fight } = cover;
  if (fight.heldAt === null) {
    if (fight.holdsLeftOut > 0) return 0;
    fight.heldAt = uses;
  }
  return leftMs;
}

/** Its lock is about to be given up. */
export function endHold({ fight, uses }: Cover): void {
  if (fight === null) return;
  if (fight.heldAt === null) {
    if (fight.holdsLeftOut > 0) fight.holdsLeftOut -= 1;
    return;
  }
  const inVain = uses === fight.heldAt;
  fight.heldAt = null;
  fight.holdsLeftOut = inVain ? fight.leftOutNext : 0;
  fight.leftOutNext = inVain ? Math.min(2 * fight.leftOutNext, HOLDS_LEFT_OUT_MAX) : 1;
}

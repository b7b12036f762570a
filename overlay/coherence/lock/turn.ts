/**
 * Turns at a directory that several nodes change (hazard F28). Given up at each blocking AST, its lock would go to and fro with every name made: so it stays for
 * up to TURN_CHANGES_MAX changes, and then goes, whatever waits here. Pure.
 *
 * A turn goes on only while another node waits to change the directory: a reader's blocking AST asks for PR, and is obeyed as any other where it is alone. And
 * a node that changed it in its last turn asks for EX also to look (mostly for the name that it makes next): PR first would be two trips, and a revoke
 * elsewhere, for nothing.
 */
import { Mode } from "../../../dlmd/wire/mode.ts";
import { type Cover, kernelKnows } from "../cover.ts";
import { DirectoryTurn } from "../cover-parts.ts";
import type { CoherenceState } from "../effect.ts";

/** Changes of one turn. */
export const TURN_CHANGES_MAX = 24;
/** No turn is longer, from the moment at which another node wants the lock. */
export const TURN_MS = 100;
/** It is looked at so often: if nothing was changed here since, it is over. */
const PAUSE_MS = 5;
/** Nobody waits for so many turns at most before one is tried again. */
const VAIN_MAX = 64;
/** A lock that comes back within that time is fought over: it covers the turns of some other nodes. */
const FOUGHT_MS = 500;

/** Its lock is about to be given up. */
export function endTurn(cover: Cover, now: number): void {
  if (cover.kind !== "directory" || cover.mode !== Mode.EX) return;
  const last = cover.turn;
  cover.turn = new DirectoryTurn();
  cover.turn.changedLast = last !== null && last.changes > 0;
  cover.turn.vain = last?.vain ?? 0;
  cover.turn.vainNext = last?.vainNext ?? 1;
  cover.turn.cutShort = last !== null && last.vain > 0 && last.lookAt === 0;
  cover.turn.endedAt = now;
}

/** Something here waits for the lock of the directory. So soon after a turn that ended at once, a longer one may have been worth its while. */
export function wantedBack({ turn }: Cover, now: number): void {
  if (turn === null || !turn.cutShort || now - turn.endedAt > PAUSE_MS) return;
  turn.cutShort = false;
  turn.vain -= 1;
}

/** Another node waits, and nothing is changed. Each time again it takes longer until that is tried. */
function noteVain(turn: DirectoryTurn): void {
  turn.vain = turn.vainNext;
  turn.vainNext = Math.min(2 * turn.vainNext, VAIN_MAX);
}

/** What is asked for where something waits that needs PR only. */
export function lookMode({ turn, mode }: Cover, now: number): Mode {
  const again = turn?.changedLast === true && mode === Mode.NL && now - turn.endedAt <= FOUGHT_MS;
  return again ? Mode.EX : Mode.PR;
}

/** It has had all its changes. */
export function turnUsedUp({ turn }: Cover): boolean {
  return turn !== null && turn.changes >= TURN_CHANGES_MAX;
}

/** Milliseconds for which the lock stays, though another node wants it; then it is asked again. null: there are no turns at it. */
export function turnTimeLeft(state: CoherenceState, cover: Cover, now: number): number | null {
  const { turn, wanted, mode, grantedAt, revokedAt } = cover;
  if (turn === null || mode !== Mode.EX || wanted !== Mode.EX) return null;
  if (revokedAt === null || grantedAt - revokedAt > FOUGHT_MS) return null;
  if (state.abandoned || state.suspended || !kernelKnows(cover) || turnUsedUp(cover)) return 0;
  if (turn.vain > 0 && cover.pins === 0) return 0;
  if (turn.endsAt === 0) {
    // It had its time, and nobody wanted it.
    if (now - grantedAt > TURN_MS) return 0;
    turn.endsAt = Math.ceil(now) + TURN_MS;
    turn.lookAt = Math.ceil(now) + PAUSE_MS;
    turn.seen = turn.changes;
  }
  if (now >= turn.lookAt) {
    const waits = cover.pins > 0 || turn.changes > turn.seen;
    if (waits) {
      turn.used = true;
      turn.vain = 0;
      turn.vainNext = 1;
    } else {
      if (!turn.used) noteVain(turn);
      return 0;
    }
    turn.lookAt = Math.ceil(now) + PAUSE_MS;
    turn.seen = turn.changes;
  }
  return Math.max(0, Math.min(turn.endsAt, turn.lookAt) - now);
}

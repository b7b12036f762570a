/**
 * The revoke: how a lock goes without leaving anything behind in the kernel that it covered. Pure.
 *
 *     idle -> draining -> (publishing) -> invalidating -> converting -> idle
 *
 * The rules are hazards F1 (page locks), F4 (replies installed late), F5 (the size survives), F6 (names). During "invalidating"
 * INVAL_INODE may wait in the kernel for page locks of requests that we have not answered; so those requests pass at once under
 * the lock still held, and the invalidation is repeated until none was answered between its start and its end. A WRITE that
 * meets a PR in this phase does not run under it: the write token's holder converts to EX in place first (lock-cache.ts).
 * From the third round on it goes around the pages of READs that are held back. The lower mode is sent in the same turn in which the last
 * round turns out clean.
 */
import { AssertionError } from "../../../dlmd/base/assert.ts";
import { Mode, modeCovers, modesCompatible } from "../../../dlmd/wire/mode.ts";
import type { PageRange } from "../page-range.ts";
import { endSinceBirth, LOWERED_FIRST, publishBefore, takeYoungest } from "./new-inodes.ts";
import { type Cover, kernelKnows, NOBODY, type PinWaiter, revokeOf, tokenHeld } from "../cover.ts";
import { FileFight, Revoke, type WriteToken } from "../cover-parts.ts";
import { ask, type CoherenceState, type InvalidationPlan } from "../effect.ts";
import { planExpiry } from "../names/names.ts";
import { doubtSize, HELD_BACK_MAX, keepsReadsBack, mustBeTaken } from "../size/doubt.ts";
import { endHold } from "./hold.ts";
import { endMigration, migrates } from "./migration.ts";
import { endTurn } from "./turn.ts";

/** From the second round on, data requests are held back this long times two per round, so that a round can end ... */
const PASS_DELAY_MS = 1;
/** ... and never longer. */
const PASS_DELAY_MAX_MS = 8;
/** First wait before an inode that the kernel must still get is looked for again (hazard F4), doubling ... */
const MISS_DELAY_MS = 0.2;
/** ... up to this. */
const MISS_DELAY_MAX_MS = 50;

/** From then on a round leaves the pages alone of READs that are held back ... */
const ROUNDS_FOR_ALL = 2;
/** ... that it waits for so long, if they are not too many (HELD_BACK_MAX). */
const GATHER_MS = 1;
/** Who was just told the size begins to read now: before the first round that READ is waited for so long, if it is to be kept back. */
const GATHER_KEPT_MS = 5;

/** READs that are kept back pass after so long: an operation that still runs, or a notification, may wait for their pages. */
const STRAINED_MS = 40;

/** A reader that came back so often is expected (returnExpected). */
const RETURNS_MIN = 2;

export function enterRevoke(state: CoherenceState, cover: Cover, target: Mode, now: number): void {
  if (cover.phase !== "idle" || cover.asking !== null) throw new AssertionError(`revoke of ${cover.key} in phase ${cover.phase}`);
  cover.phase = "draining";
  endTurn(cover, now);
  endHold(cover);
  endMigration(cover, now);
  cover.revoke = new Revoke(target);
  resumeRevoke(state, cover, now);
  // Who came before waits behind somebody who wants more; an operation that still runs may wait for his page.
  if (cover.phase === "draining" && cover.waiters.some((waiter) => waiter.passes)) requestInRevoke(state, cover);
}

/** Being given up, and nobody else has it yet: other nodes may change nothing. */
export function isStillHeld(cover: Cover): boolean {
  const given = cover.phase === "converting" && cover.revoke?.target !== Mode.PR;
  return cover.phase !== "idle" && !given && modeCovers(cover.mode, Mode.PR);
}

/** Goes on as far as possible: called when a pin went, a request ended, or something was published. */
export function resumeRevoke(state: CoherenceState, cover: Cover, now: number): void {
  const { revoke } = cover;
  if (cover.pins > 0 || revoke === null) return;
  if (cover.phase === "draining" && cover.asking === null) {
    if (cover.kind === "directory") {
      cover.phase = "publishing";
      if (!publishBefore(state, cover)) return;
    } else if (!endSinceBirth(state, cover)) return;
    enterInvalidating(state, cover, now);
  } else if (cover.phase === "invalidating" && !revoke.notifying && cover.asking === null) {
    if (revoke.round < ROUNDS_FOR_ALL && !keepsReadsBack(cover)) startRound(state, cover, now);
    else gather(state, cover, revoke, GATHER_MS);
  }
}

/** A READ may be on its way: the next one of who was just answered, or one that is to be kept back. */
function gather(state: CoherenceState, cover: Cover, revoke: Revoke, delayMs: number): void {
  revoke.notifying = true;
  state.effects.push({ do: "timer", cover, purpose: "retry", delayMs });
}

/** The lock or the token of what was born here is known to dlmd now. Whatever waited for the last of these goes on. */
export function handleRegistered(state: CoherenceState, what: Cover | WriteToken, now: number): void {
  state.registering.delete(what);
  for (const [published, awaited] of state.publishing) {
    awaited.delete(what);
    if (awaited.size > 0) continue;
    state.publishing.delete(published);
    if (published === "births") state.effects.push({ do: "unlock-births" });
    else enterInvalidating(state, published, now);
  }
}

function enterInvalidating(state: CoherenceState, cover: Cover, now: number): void {
  // Who has the directory next looks at what is in it (hazard F34).
  if (cover.kind === "directory") {
    const rest = state.kept.size - LOWERED_FIRST;
    lower(state, takeYoungest(state), now);
    if (rest > 0) state.effects.push({ do: "lower-rest", files: rest });
  }
  cover.phase = "invalidating";
  if (keepsReadsBack(cover)) gather(state, cover, revokeOf(cover), GATHER_KEPT_MS);
  else startRound(state, cover, now);
}

/** Hazard F34. */
export function lower(state: CoherenceState, taken: readonly Cover[], now: number): void {
  for (const cover of taken) enterRevoke(state, cover, Mode.PR, now);
}

function startRound(state: CoherenceState, cover: Cover, now: number): void {
  const revoke = revokeOf(cover);
  if (revoke.kept) {
    // Hazard F42: it is held as before.
    cover.phase = "idle";
    cover.revoke = null;
    return;
  }
  revoke.answered = 0;
  cover.attrTold = false;
  const plan = planInvalidation(state, cover, revoke, now);
  if (plan === null) {
    // Data requests that waited for this lock may still pass under it, but nothing obliges us: they ask anew.
    enterConverting(state, cover);
    return;
  }
  revoke.round += 1;
  revoke.notifying = true;
  if (plan.what === "pages-and-size") doubtSize(cover);
  if (plan.what !== "late") cover.sweeps += 1;
  state.effects.push({ do: "invalidate", cover, plan });
  if (revoke.round === 1) passData(state, cover);
  else if (cover.waiters.some((waiter) => waiter.passes)) requestInRevoke(state, cover);
}

/** What the kernel must drop; null: nothing. */
function planInvalidation(state: CoherenceState, cover: Cover, revoke: Revoke, now: number): InvalidationPlan | null {
  if (!kernelKnows(cover)) return null;
  if (cover.kind === "directory") {
    if (revoke.target !== Mode.NL) return null;
    // A change of its own waits for more: the kernel has locked the directory for it, and would not drop a name before it is answered.
    const isLocked = cover.waiters.some(({ mode }) => mode === Mode.EX);
    const expiry = planExpiry(cover, state.epoch, now, isLocked);
    if (expiry.epoch || expiry.names.length > 0) state.fought.noteRevoke(cover, now);
    return { what: "names", expiry };
  }
  // FUSE can not write-protect a mapping: where one may be written, sharing means dropping the pages. Else they are what was written through.
  if (revoke.target === Mode.PR) {
    if (tokenHeld(cover) && (cover.inode?.mappableCount ?? 0) > 0) return { what: "pages", except: heldBack(cover, revoke) };
    return mustBeTaken(cover) ? { what: "late" } : null;
  }
  return { what: cover.kind === "file" ? "pages-and-size" : "pages", except: heldBack(cover, revoke) };
}

/**
 * Pages that a round leaves alone: of READs that are held back. They are locked, and have nothing in them before the answer, which comes under another grant if
 * this round is the last. A program that does nothing but read through a mapping has its next READ here before a round can begin, and would
 * make each of them wait for that, and be in vain. (If the round takes longer than a READ is held back, that passes all the same: somebody may wait for it.)
 */
function heldBack(cover: Cover, { round }: Revoke): readonly PageRange[] {
  if (round < ROUNDS_FOR_ALL && !keepsReadsBack(cover)) return NOBODY;
  const pages = cover.waiters.flatMap((waiter) => waiter.pages ?? NOBODY);
  return pages.length > HELD_BACK_MAX ? NOBODY : pages;
}

/** It is answered under the lock that is still held. */
function mayPass(cover: Cover, { passes, mode, pages }: PinWaiter): boolean {
  return passes && modeCovers(cover.mode, mode) && (pages === undefined || !keepsReadsBack(cover));
}

/** The notifications of a round were written. `missed`: the kernel did not find the inode. `cut`: the gate was shut. */
export function handleInvalidated(state: CoherenceState, cover: Cover, missed: boolean, now: number, cut = false): void {
  const revoke = revokeOf(cover);
  if (cover.phase !== "invalidating" || !revoke.notifying) throw new AssertionError(`${cover.key} was invalidated in phase ${cover.phase}`);
  revoke.notifying = false;
  revoke.gate = null;
  if (revoke.kept) return startRound(state, cover, now);
  if (missed && kernelKnows(cover)) {
    const delayMs = Math.min(MISS_DELAY_MS * 2 ** revoke.misses, MISS_DELAY_MAX_MS);
    revoke.misses += 1;
    revoke.notifying = true;
    state.effects.push({ do: "timer", cover, purpose: "retry", delayMs });
    return;
  }
  const disturbed = cut || revoke.answered > 0 || cover.pins > 0 || cover.asking !== null;
  if (!disturbed) enterConverting(state, cover);
  else resumeRevoke(state, cover, now);
}

export function handleRetryTimer(state: CoherenceState, cover: Cover, now: number): void {
  const revoke = revokeOf(cover);
  if (cover.phase !== "invalidating" || !revoke.notifying) throw new AssertionError(`retry of ${cover.key} in phase ${cover.phase}`);
  revoke.notifying = false;
  // Who passes meanwhile, or waits for a stronger mode to pass, goes on with it when he is done (resumeRevoke).
  if (cover.pins === 0 && cover.asking === null) startRound(state, cover, now);
}

/**
 * A data request arrived in a revoke. It passes soon whatever happens: an operation that still runs may wait for its page
 * (api.ts, dropPages), and so may the notification.
 */
export function requestInRevoke(state: CoherenceState, cover: Cover): void {
  const round = cover.revoke?.round ?? 0;
  strain(state, cover);
  if (cover.phase === "invalidating" && round <= 1) {
    passData(state, cover);
    return;
  }
  if (cover.timerSet) return;
  cover.timerSet = true;
  const delayMs = Math.min(PASS_DELAY_MS * 2 ** Math.max(0, round - 2), PASS_DELAY_MAX_MS);
  state.effects.push({ do: "timer", cover, purpose: "pass", delayMs });
}

/**
 * Lets the queued data requests pass that the held mode allows; raises the mode in place for writes of the token's holder.
 *
 * Who passes is answered, and its reader may still be about to look at the page and at the size when the round ends. So the sentinel must not be
 * stored in that round (size/doubt.ts); and if that is going on just now, which takes some microseconds and waits for no page, they stay
 * where they are until the next round, or until the lock is here again.
 */
export function passData(state: CoherenceState, cover: Cover): void {
  strain(state, cover);
  const passing = cover.waiters.some((waiter) => mayPass(cover, waiter));
  if (passing && cover.revoke?.gate?.shut() === false) return;
  const kept: PinWaiter[] = [];
  let writes = false;
  for (const waiter of cover.waiters) {
    if (mayPass(cover, waiter)) {
      cover.pins += 1;
      if (waiter.mode === Mode.PR) cover.read = true;
      state.effects.push({ do: "settle", waiter, error: null });
    } else {
      writes ||= waiter.passes && waiter.mode === Mode.EX;
      kept.push(waiter);
    }
  }
  cover.waiters = kept.length === 0 ? NOBODY : kept;
  const raise = writes && (cover.phase === "draining" || cover.phase === "invalidating") && tokenHeld(cover);
  if (raise && cover.mode === Mode.PR && cover.asking === null) ask(state, cover, Mode.EX, 0);
}

/** Who is kept back is not for ever. */
function strain(state: CoherenceState, cover: Cover): void {
  const { revoke } = cover;
  if (revoke === null || revoke.straining || !keepsReadsBack(cover)) return;
  revoke.straining = true;
  state.effects.push({ do: "timer", cover, purpose: "strained", delayMs: STRAINED_MS });
}

/** Hazard F5: what was kept back passes. */
export function handleStrained(state: CoherenceState, cover: Cover): void {
  if (cover.revoke === null) return;
  cover.revoke.strained = true;
  if (cover.phase === "draining" || cover.phase === "invalidating") passData(state, cover);
}

function enterConverting(state: CoherenceState, cover: Cover): void {
  cover.phase = "converting";
  // Before it is given up, so that both are in one message.
  const { target } = revokeOf(cover);
  if (target === Mode.NL && returnExpected(cover)) state.effects.push({ do: "expect", cover });
  ask(state, cover, target, 0);
  // Behind it, and from the end of the queue (hazard F13).
  if (target === Mode.NL && cover.waiters.some(({ mode }) => mode === Mode.EX)) state.effects.push({ do: "ask-anew", cover });
}

/**
 * dlmd confirmed the lower mode. Somebody may want more than was given up, and his blocking AST may have come before this confirmation
 * (a master of this node tells first); it does not come twice.
 */
export function enterConverted(cover: Cover, now: number): void {
  cover.phase = "idle";
  cover.revoke = null;
  if (modesCompatible(cover.mode, cover.wanted)) cover.wanted = Mode.NL;
  cover.revokedAt = now;
}

/**
 * Whether a lock that is given up is to be asked for again in the same message: one that goes to and fro between a writer elsewhere and a reader
 * here. It then comes while the write is still on its way back to its caller, and not after the reader asked. It is queued for like any other, so it
 * costs the writer nothing but, at his next write, the revoke that the reader would have cost him. Each such request is paid for by a read: one
 * that brought a lock which nobody read under is the last until the reader has come back RETURNS_MIN times by himself.
 */
function returnExpected(cover: Cover): boolean {
  const { read } = cover;
  cover.read = false;
  if (!read || cover.kind !== "file") {
    if (cover.fight !== null) cover.fight.returns = 0;
    return false;
  }
  cover.fight ??= new FileFight();
  cover.fight.returns += 1;
  const worth = cover.fight.returns >= RETURNS_MIN && !cover.doomed && kernelKnows(cover);
  return worth && cover.waiters.length === 0 && !migrates(cover);
}

/**
 * The lock cache: gives pins to operations while the lock is here, asks dlmd when it is not, and keeps it until somebody else
 * wants it (Linux fs/gfs2/glock.c is the model). Pure: every function takes the state and the time and leaves effects.
 *
 * How a lock is raised (hazard F13). That of a file is not kept weaker than is needed while it waits: PR to EX is tried NOQUEUE; not
 * granted at once, the lock is given up (revoke.ts, with all that the kernel caches) and EX is asked for from NL. The one
 * exception is the holder of the write token, the only node whose kernel may hold page locks for a WRITE that waits
 * (hazard F1): it converts in place, in dlmd's convert queue, which comes before all waiters. Two such conversions can not
 * meet, because the token is held by one node; so neither can wait for the other, and no write ever runs under PR.
 * Where the try was in vain a moment ago it is left out (upgrades.ts).
 *
 * A directory is converted in place too, and of two nodes that do so at one time dlmd refuses the second, which gives its PR up. To give it up for a
 * change of one's own is dear: the kernel holds the directory locked for that change, so no name in it can be expired, only all names of the mount.
 */
import { AssertionError } from "../../../dlmd/base/assert.ts";
import { E, type Errno, errnoError } from "../../../dlmd/base/errno.ts";
import { LockFlag, type LockStatus } from "../../../dlmd/client/api.ts";
import { Mode, modeCovers, modesCompatible } from "../../../dlmd/wire/mode.ts";
import { type ChildWaiter, type Cover, NOBODY, type PinMode, type PinWaiter, tokenHeld } from "../cover.ts";
import { ask, type CoherenceState, noteGranted, type TimerPurpose } from "../effect.ts";
import {
  enterConverted,
  enterRevoke,
  handleRegistered,
  handleRetryTimer,
  handleStrained,
  passData,
  requestInRevoke,
  resumeRevoke,
} from "./revoke.ts";
import { doubtSize } from "../size/doubt.ts";
import { holdTimeLeft } from "./hold.ts";
import { asksAhead, noteUpgrade } from "./migration.ts";
import { lookMode, turnTimeLeft, turnUsedUp, wantedBack } from "./turn.ts";
import { isVain, noteTried } from "./upgrades.ts";
import { giveUpIfWanted } from "./write-token.ts";

/** `expected`: no operation, but the expectation of one. */
function take(cover: Cover, mode: PinMode, expected = false): void {
  cover.pins += 1;
  cover.uses += 1;
  if (mode === Mode.EX) {
    cover.attrTold = false;
    if (cover.turn !== null) cover.turn.changes += 1;
    if (cover.fight !== null) cover.fight.ahead = false;
  } else if (!expected) cover.read = true;
}

/** The lock is here, and nobody waits before us. */
export function mayPin(cover: Cover, mode: PinMode): boolean {
  return cover.phase === "idle" && cover.waiters.length === 0 && modeCovers(cover.mode, mode);
}

/** Never waits, no effects: the way of nearly every operation. */
export function tryPin(cover: Cover, mode: PinMode): boolean {
  if (!mayPin(cover, mode)) return false;
  take(cover, mode);
  return true;
}

/** What is known of the inode, and what the kernel is told of it, holds until its lock goes. */
export function isCovered(state: CoherenceState, cover: Cover): boolean {
  return cover.phase === "idle" && cover.mode >= Mode.PR && !state.abandoned;
}

/**
 * Which hold of PR is in force, or of EX that was asked for to look and under which nothing was changed (hazard F47): while this number stays what it is, nothing
 * has changed the inode, here or anywhere, because a change needs EX, and thereby another grant or the end of that. 0: none. PR that is what EX was given down to has
 * another number than that EX: in between it may have been changed.
 */
export function holdOf({ phase, mode, fight, grant }: Cover): number {
  if (phase !== "idle") return 0;
  if (mode === Mode.PR) return grant;
  return mode === Mode.EX && fight?.ahead === true ? -grant : 0;
}

/**
 * What was read under these locks, here or by the kernel, is not true any more, though none of them has gone: each counts as granted anew. The size that
 * the kernel has for a file may be wrong, as after a revoke.
 */
export function distrustCovers(state: CoherenceState, covers: readonly Cover[]): void {
  state.moment += 1;
  state.ownerDiedAt = state.moment;
  for (const cover of covers) {
    if (cover.grant > 0) {
      cover.grant = state.moment;
      cover.heldSince = state.moment;
    }
    cover.attrTold = false;
    cover.changedAt = state.moment;
    if (cover.kind === "file") doubtSize(cover);
  }
}

export function addWaiter(state: CoherenceState, cover: Cover, waiter: PinWaiter, now: number): void {
  if (cover.revoke?.kept === true && !(waiter.passes && modeCovers(cover.mode, waiter.mode))) {
    state.effects.push({ do: "settle", waiter, error: errnoError(E.EINTR) });
    return;
  }
  cover.waiters = [...cover.waiters, waiter];
  wantedBack(cover, now);
  if (waiter.passes && (cover.phase === "draining" || cover.phase === "invalidating")) requestInRevoke(state, cover);
  else pump(state, cover, now);
}

/** The caller of a queued waiter is being killed; false if it was pinned already. */
export function removeWaiter(state: CoherenceState, cover: Cover, waiter: PinWaiter, now: number): boolean {
  if (!cover.waiters.includes(waiter)) return false;
  cover.waiters = cover.waiters.filter((other) => other !== waiter);
  state.effects.push({ do: "settle", waiter, error: errnoError(E.EINTR) });
  pump(state, cover, now);
  return true;
}

export function unpin(state: CoherenceState, cover: Cover, now: number): void {
  if (cover.pins <= 0) throw new AssertionError(`unpin of ${cover.key} that has no pins`);
  cover.pins -= 1;
  if (cover.pins > 0 || cover.phase === "idle") {
    if (cover.wanted !== Mode.NL && (cover.pins === 0 || turnUsedUp(cover))) pump(state, cover, now);
    return;
  }
  resumeRevoke(state, cover, now);
}

/** A data request was answered and its pin goes: an invalidation that was running has to be repeated (hazard F1). */
export function unpinData(state: CoherenceState, cover: Cover, now: number): void {
  if (cover.phase === "invalidating" && cover.revoke !== null) cover.revoke.answered += 1;
  // A read too: it changes the time of access.
  cover.attrTold = false;
  unpin(state, cover, now);
}

/** What is not here does not come (hazard F42). Who waits behind somebody for what is here gets it: the kernel may have locked a page for that. */
export function refuseUncovered(state: CoherenceState, cover: Cover, error: Errno): void {
  const covered = cover.waiters.filter(({ mode }) => modeCovers(cover.mode, mode));
  cover.waiters = cover.waiters.filter(({ mode }) => !modeCovers(cover.mode, mode));
  refuseWaiters(state, cover, error);
  cover.waiters = covered.length === 0 ? NOBODY : covered;
}

/** Its revoke ends here, if there is one: now, or with the notification that waits for the page. Whoever waits under what is held goes on, or is told the same. */
export function keepAlone(state: CoherenceState, cover: Cover, error: Errno): void {
  const { revoke } = cover;
  cover.asking = null;
  cover.wanted = Mode.NL;
  if (revoke !== null) {
    revoke.kept = true;
    revoke.gate?.shut();
  }
  if (revoke?.notifying === true) {
    passData(state, cover);
    refuseWaiters(state, cover, error);
    return;
  }
  cover.phase = "idle";
  cover.revoke = null;
  pinWaiters(state, cover);
}

/** Nobody is to wait here any more: for a lock, a child's lock, or the write token. */
export function refuseWaiters(state: CoherenceState, cover: Cover, error: Errno): void {
  const { waiters, childWaiters, token } = cover;
  cover.waiters = [];
  cover.childWaiters = [];
  for (const waiter of waiters) state.effects.push({ do: "settle", waiter, error });
  for (const waiter of childWaiters) state.effects.push({ do: "settle-child", waiter, pinned: false });
  if (token === null) return;
  for (const waiter of token.waiters) state.effects.push({ do: "settle-token", waiter, result: "direct" });
  token.waiters = [];
}

/**
 * Asks for PR without waiting for other nodes (hazard F13). True: pinned at once; false: not to be had; null: `waiter` will be told. `asks`: who has it is
 * asked to give it up, for the next time.
 */
export function pinChild(state: CoherenceState, cover: Cover, waiter: ChildWaiter, asks: boolean = true): boolean | null {
  if (cover.phase !== "idle") return false;
  if (modeCovers(cover.mode, Mode.PR)) {
    take(cover, Mode.PR);
    return true;
  }
  if (cover.asking !== null) {
    if (!cover.askingForChild) return false;
  } else {
    cover.askingForChild = true;
    ask(state, cover, Mode.PR, asks ? LockFlag.NOQUEUE | LockFlag.NOQUEUEBAST : LockFlag.NOQUEUE);
  }
  cover.childWaiters = [...cover.childWaiters, waiter];
  return null;
}

/** dlmd answered. `granted` is the mode now held. */
export function handleAst(state: CoherenceState, cover: Cover, status: LockStatus, granted: Mode, now: number): void {
  const { asking: asked, mode: before } = cover;
  cover.mode = granted;
  cover.asking = null;
  if (cover.token !== null) giveUpIfWanted(state, cover, cover.token);
  if (cover.registering) {
    if (status !== "granted") throw new AssertionError(`the lock of ${cover.key}, born here, was not granted: ${status}`);
    cover.registering = false;
    handleRegistered(state, cover, now);
    pump(state, cover, now);
    return;
  }
  if (cover.phase === "converting") {
    enterConverted(cover, now);
    pump(state, cover, now);
    return;
  }
  if (asked === Mode.EX && before === Mode.PR && !tokenHeld(cover)) noteTried(state, cover, status === "granted", now);
  if (status === "granted") {
    noteGranted(state, cover, before, now);
    cover.uses = 0;
  }
  settleChildren(state, cover, status === "granted");
  if (cover.phase === "draining" || cover.phase === "invalidating") {
    if (status !== "granted") throw new AssertionError(`conversion of ${cover.key} in a revoke ended: ${status}`);
    passData(state, cover);
    resumeRevoke(state, cover, now);
    return;
  }
  // An upgrade that was not to be had at once, or that another node waits for as well: down to NL, then anew and in order.
  if (status !== "granted" && asked === Mode.EX && granted === Mode.PR) enterRevoke(state, cover, Mode.NL, now);
  else pump(state, cover, now);
}

function settleChildren(state: CoherenceState, cover: Cover, granted: boolean): void {
  cover.askingForChild = false;
  if (cover.childWaiters.length === 0) return;
  for (const waiter of cover.childWaiters) {
    if (granted) take(cover, Mode.PR);
    state.effects.push({ do: "settle-child", waiter, pinned: granted });
  }
  cover.childWaiters = NOBODY;
}

export function handleBast(state: CoherenceState, cover: Cover, wanted: Mode, now: number): void {
  if (wanted > cover.wanted) cover.wanted = wanted;
  pump(state, cover, now);
}

/** Does whatever is possible now: pins, requests, or the begin of a revoke. */
export function pump(state: CoherenceState, cover: Cover, now: number): void {
  if (cover.phase !== "idle") return;
  pinWaiters(state, cover);
  if (cover.asking !== null || cover.registering) return;
  const blocks = cover.wanted !== Mode.NL && !modesCompatible(cover.mode, cover.wanted);
  if (!blocks) {
    cover.wanted = Mode.NL;
    if (cover.waiters.length > 0) askForWaiters(state, cover, now);
    return;
  }
  if (cover.unregistered) throw new AssertionError(`${cover.key} is wanted elsewhere before anybody could know it`);
  if (cover.mode === Mode.PR && tokenHeld(cover) && cover.waiters.some((waiter) => waiter.mode === Mode.EX && waiter.passes)) {
    ask(state, cover, Mode.EX, 0);
    return;
  }
  const holdMs = turnTimeLeft(state, cover, now) ?? holdTimeLeft(state, cover, now);
  if (holdMs > 0) {
    if (!cover.timerSet) {
      cover.timerSet = true;
      state.effects.push({ do: "timer", cover, purpose: "hold", delayMs: holdMs });
    }
    return;
  }
  const toShared = cover.wanted === Mode.PR || cover.wanted === Mode.CR;
  enterRevoke(state, cover, toShared && cover.mode === Mode.EX ? Mode.PR : Mode.NL, now);
}

function pinWaiters(state: CoherenceState, cover: Cover): void {
  let taken = 0;
  for (const waiter of cover.waiters) {
    if (!modeCovers(cover.mode, waiter.mode)) break;
    taken += 1;
    take(cover, waiter.mode, waiter.expected);
    state.effects.push({ do: "settle", waiter, error: null });
  }
  if (taken > 0) cover.waiters = taken === cover.waiters.length ? NOBODY : cover.waiters.slice(taken);
}

function askForWaiters(state: CoherenceState, cover: Cover, now: number): void {
  const mode = strongestWaiting(cover, now);
  if (mode === Mode.EX) noteUpgrade(cover, now);
  if (mode === Mode.EX && isVain(state, cover, now)) enterRevoke(state, cover, Mode.NL, now);
  else ask(state, cover, mode, upgradeFlags(cover));
}

function strongestWaiting(cover: Cover, now: number): Mode {
  if (cover.waiters.some((waiter) => waiter.mode === Mode.EX)) return Mode.EX;
  if (cover.kind === "directory") return lookMode(cover, now);
  // Hazard F47.
  const looks = cover.waiters.some(({ expected = false }) => !expected);
  return looks && asksAhead(cover, now) ? Mode.EX : Mode.PR;
}

function upgradeFlags(cover: Cover): number {
  return cover.mode === Mode.PR && cover.kind !== "directory" && !tokenHeld(cover) ? LockFlag.NOQUEUE : 0;
}

/** A "hold" or "pass" timer ran out: there is one of them at a time for a cover. */
export function handleTimer(state: CoherenceState, cover: Cover, now: number): void {
  cover.timerSet = false;
  if (cover.phase === "draining" || cover.phase === "invalidating") passData(state, cover);
  else pump(state, cover, now);
}

/** A timer of that purpose ran out. */
export function handleTimerOf(purpose: TimerPurpose, state: CoherenceState, cover: Cover, now: number): void {
  if (purpose === "retry") handleRetryTimer(state, cover, now);
  else if (purpose === "strained") handleStrained(state, cover);
  else handleTimer(state, cover, now);
}

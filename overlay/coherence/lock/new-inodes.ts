/**
 * A new inode is born EX on its creator without a message: nobody can know it before the lock of the directory that names it is
 * given up. So before a directory's lock goes, everything born until then is made known to dlmd. Much of what is created is gone
 * again by then (temporary files, lock files) and never costs a message. Who comes by no directory, but by a file handle, has the lock of births first
 * (births-lock.ts), before which the same is done.
 *
 * A file that is made known by the clock stays EX: its maker changes it without a message. Another node that looks at it would have to take it away: so such
 * files that are at rest are lowered to PR before a directory's lock goes, or right behind it (hazard F34). Who looks comes by a directory. Pure.
 */
import { Mode } from "../../../dlmd/wire/mode.ts";
import type { Cover, Since } from "../cover.ts";
import { type CoherenceState, noteGranted } from "../effect.ts";
import { mustBeTaken } from "../size/doubt.ts";

/**
 * A LOOKUP or READDIRPLUS beside the creation (by a d_revalidate, or because the creator was killed and the kernel let go of the directory)
 * may have found the inode first: then its lock is asked for, or here, in the ordinary way, and nothing is born. True: nobody had any business with
 * it before.
 */
export function enterUnregistered(state: CoherenceState, cover: Cover, now: number): boolean {
  if (cover.mode !== Mode.NL || cover.asking !== null || cover.phase !== "idle" || cover.token !== null) return false;
  const first = cover.grant === 0;
  cover.mode = Mode.EX;
  cover.sinceBirth = true;
  noteGranted(state, cover, Mode.NL, now);
  state.births += 1;
  cover.born = state.births;
  cover.unregistered = true;
  state.unregistered.add(cover);
  return first;
}

/** Made after the lower was asked at `since`: nobody can have found it by its number meanwhile (hazard F51). */
export function mayBeBorn({ birthsFrom }: CoherenceState, since: Since): boolean {
  return birthsFrom > 0 && birthsFrom <= since;
}

/** So many files stay EX until a directory's lock goes. What is made known beyond is PR at once. */
export const KEPT_MAX = 65_536;
/** A directory's lock waits while the youngest are lowered, so many: another node is likely to want these ... */
export const LOWERED_FIRST = 4096;
/** ... and then the others, so many at a time. */
export const LOWERED_THEN = 512;

/** It is gone before anybody was told. */
export function dropUnregistered(state: CoherenceState, cover: Cover): void {
  state.kept.delete(cover);
  if (!state.unregistered.delete(cover)) return;
  cover.unregistered = false;
  cover.mode = Mode.NL;
  cover.token = null;
  cover.sinceBirth = false;
}

/**
 * EX is about to leave for the first time since the inode was born here (hazard F9): until now nobody else could ask for the write token, and dlmd does not know of it. True: it
 * does now, or nobody here has the file open for writing; false: `handleTokenAst` goes on when it does. A token that nobody uses is not worth a message: it is asked
 * for when it is needed.
 */
export function endSinceBirth(state: CoherenceState, cover: Cover): boolean {
  const { token } = cover;
  cover.sinceBirth = false;
  if (token === null) return true;
  if (token.unregistered) {
    token.unregistered = false;
    if (token.users === 0) cover.token = null;
    else {
      state.registering.add(token);
      state.effects.push({ do: "request-token", cover });
    }
  }
  return !state.registering.has(token);
}

export interface RegisterOptions {
  /** Somebody elsewhere is about to read the directory in which they were made. */
  readonly shared: boolean;
  /** Nobody elsewhere is about to have a directory: files stay EX, as far as there is room. */
  readonly keeps?: boolean;
  /** So many, the oldest; absent: all. */
  readonly count?: number;
  /** Files that somebody here is at work on are passed over, if they were born after that birth. */
  readonly inUseAfter?: number;
}

/**
 * Makes unregistered locks known. A file that nobody here is at work on is held PR from then on, unless `keeps`: another node that looks at it then has PR
 * beside ours at once, where EX would have to be taken away first. A directory stays EX, for what is made in it next, unless `shared`.
 */
export function registerBorn(
  state: CoherenceState,
  { shared, keeps = false, count, inUseAfter = Number.POSITIVE_INFINITY }: RegisterOptions,
): void {
  let left = count ?? state.unregistered.size;
  for (const cover of state.unregistered) {
    if (left === 0) return;
    if (cover.kind === "file" && cover.born > inUseAfter && !isAtRest(cover)) continue;
    left -= 1;
    state.unregistered.delete(cover);
    const mayStay = cover.kind !== "directory" && state.kept.size < KEPT_MAX;
    const mode = !(keeps && mayStay) && (shared || cover.kind !== "directory") && isAtRest(cover) ? Mode.PR : Mode.EX;
    if (mayStay && mode === Mode.EX) state.kept.add(cover);
    cover.unregistered = false;
    cover.registering = true;
    cover.asking = mode;
    // From now on, and not from when dlmd says so: as with any step down.
    cover.mode = mode;
    state.registering.add(cover);
    state.effects.push({ do: "request", cover, mode, flags: 0 });
    if (mode !== Mode.EX) endSinceBirth(state, cover);
    else if (cover.token?.users === 0) cover.token = null;
  }
}

/** Of the LOWERED_FIRST youngest that are kept as EX: what may be lowered now without waiting for anybody. */
export function takeYoungest({ kept }: CoherenceState): readonly Cover[] {
  return takeKept(kept, [...kept].slice(-LOWERED_FIRST));
}

/** The same of the LOWERED_THEN oldest. What may not be lowered counts among the youngest from now on: it is in use. */
export function takeOldest({ kept }: CoherenceState): readonly Cover[] {
  const oldest: Cover[] = [];
  for (const cover of kept) {
    if (oldest.length === LOWERED_THEN) break;
    oldest.push(cover);
  }
  const taken = takeKept(kept, oldest);
  for (const cover of oldest) if (kept.delete(cover)) kept.add(cover);
  return taken;
}

/** Those that were taken away since are forgotten. */
function takeKept(kept: Set<Cover>, some: readonly Cover[]): readonly Cover[] {
  const taken: Cover[] = [];
  for (const cover of some) {
    const resting = cover.phase === "idle" && cover.asking === null && cover.wanted === Mode.NL && isAtRest(cover);
    if (cover.mode === Mode.EX && !resting) continue;
    kept.delete(cover);
    if (cover.mode === Mode.EX) taken.push(cover);
  }
  return taken;
}

/** And what was answered of its size was taken: as with any step down to PR. */
function isAtRest(cover: Cover): boolean {
  return cover.pins === 0 && cover.waiters.length === 0 && (cover.token?.users ?? 0) === 0 && !mustBeTaken(cover);
}

/** A lock of that directory, which the kernel does not know, must not leave by itself: something that was born in it is not known yet. */
export function mayNameBorn(state: CoherenceState, cover: Cover): boolean {
  if (cover.kind !== "directory") return false;
  const [oldest] = state.unregistered;
  return state.registering.size > 0 || (oldest !== undefined && oldest.born <= cover.bornUntilForgotten);
}

/** True: nothing is left to be known; false: `handleRegistered` (revoke.ts) goes on when all is. */
export function publishBefore(state: CoherenceState, what: Cover | "births"): boolean {
  registerBorn(state, { shared: what !== "births" && what.revoke?.target === Mode.PR });
  if (state.registering.size === 0) return true;
  state.publishing.set(what, new Set(state.registering));
  return false;
}

/** The lock of births came. */
export function beginBirths(state: CoherenceState): void {
  state.moment += 1;
  state.birthsFrom = state.moment;
}

/** Somebody looks for inodes by their numbers: nothing is born from now on, and the lock goes when all that was is known. */
export function endBirths(state: CoherenceState): void {
  if (state.birthsFrom === 0) return;
  state.birthsFrom = 0;
  if (publishBefore(state, "births")) state.effects.push({ do: "unlock-births" });
}

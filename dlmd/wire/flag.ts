/**
 * Bits of a request (Linux dlmconstants.h DLM_LKF_*, with its numbers), which of them go together (fs/dlm/lock.c set_lock_args,
 * set_unlock_args, validate_lock_args), and bits of a result (DLM_SBF_*). `LockFlag` in client/api.ts gives them to programs.
 *
 * Departures: a VALBLK without a block is allowed, since most requests only read; an alternative mode never takes away from a conversion
 * what its lock has (Linux would convert PW down to PR when EX with ALTPR is asked for).
 */
import { isMode, Mode, modeCovers } from "./mode.ts";

export const NOQUEUE = 0x1;
export const CANCEL = 0x2;
export const CONVERT = 0x4;
export const VALBLK = 0x8;
export const QUECVT = 0x10;
export const IVVALBLK = 0x20;
export const CONVDEADLK = 0x40;
export const PERSISTENT = 0x80;
export const NODLCKWT = 0x100;
export const EXPEDITE = 0x400;
export const NOQUEUEBAST = 0x800;
export const HEADQUE = 0x1000;
export const NOORDER = 0x2000;
export const ORPHAN = 0x4000;
export const ALTPR = 0x8000;
export const ALTCW = 0x10000;
export const FORCEUNLOCK = 0x20000;
/** Not in Linux. */
export const MAYKEEP = 0x10000000;
export const PROMPT = 0x20000000;

/** Bits of a result: the lock was demoted to NL before; the mode granted is the alternative one. */
export const DEMOTED = 0x1;
export const ALTMODE = 0x4;

const forUnlock = CANCEL | VALBLK | IVVALBLK | FORCEUNLOCK;
const forBoth =
  NOQUEUE |
  CONVERT |
  VALBLK |
  QUECVT |
  IVVALBLK |
  CONVDEADLK |
  PERSISTENT |
  NODLCKWT |
  NOQUEUEBAST |
  HEADQUE |
  NOORDER |
  ALTPR |
  ALTCW |
  MAYKEEP |
  PROMPT;
const forLock = (forBoth | EXPEDITE | ORPHAN) & ~(CONVERT | QUECVT | CONVDEADLK);

export type Operation = "lock" | "convert" | "unlock";

const allowed: Readonly<Record<Operation, number>> = { lock: forLock, convert: forBoth, unlock: forUnlock };

/** Pairs that exclude each other. */
const exclusive: readonly (readonly [number, number, string])[] = [
  [CONVDEADLK, NOQUEUE, "CONVDEADLK and NOQUEUE: what is not queued cannot be in a deadlock"],
  [EXPEDITE, NOQUEUE, "EXPEDITE and NOQUEUE: an expedited request is never queued"],
  [CANCEL, FORCEUNLOCK, "CANCEL and FORCEUNLOCK: either the request is taken back or the lock is given up"],
  [MAYKEEP, PROMPT, "MAYKEEP and PROMPT: either the lock may be kept or it is always given up in time"],
];

const flagNames: Readonly<Record<string, number>> = {
  NOQUEUE,
  CANCEL,
  CONVERT,
  VALBLK,
  QUECVT,
  IVVALBLK,
  CONVDEADLK,
  PERSISTENT,
  NODLCKWT,
  EXPEDITE,
  NOQUEUEBAST,
  HEADQUE,
  NOORDER,
  ORPHAN,
  ALTPR,
  ALTCW,
  FORCEUNLOCK,
  MAYKEEP,
  PROMPT,
};

// Row: granted, column: requested. QUECVT orders conversions that gain something; where nothing is gained there is nothing to queue.
const queuedConversions: readonly number[] = [0b111110, 0b111100, 0b111000, 0b110100, 0b100000, 0];

/** `granted`: of the lock to convert. Null: nothing is wrong. */
export function wrongFlags(operation: Operation, granted: Mode | null, mode: Mode, flags: number): string | null {
  const strange = flags & ~allowed[operation];
  if (strange !== 0) {
    const names = Object.entries(flagNames).filter(([, bit]) => (strange & bit) !== 0);
    const found = names.length === 0 ? `unknown flags 0x${(strange >>> 0).toString(16)}` : names.map(([name]) => name).join(" ");
    return `${found}: not for ${operation === "lock" ? "a new lock" : operation === "convert" ? "a conversion" : "an unlock"}`;
  }
  for (const [one, other, why] of exclusive) if ((flags & one) !== 0 && (flags & other) !== 0) return why;
  if ((flags & EXPEDITE) !== 0 && mode !== Mode.NL) return "EXPEDITE is for new locks at NL";
  if (operation === "convert" && (flags & QUECVT) !== 0 && ((queuedConversions[granted as Mode] as number) & (1 << mode)) === 0) {
    return "QUECVT is for conversions to a mode that the lock does not cover";
  }
  return null;
}

/** What else a request may be granted as; null: nothing. */
export function alternativeOf(granted: Mode | null, requested: Mode, flags: number): Mode | null {
  let mode: Mode | null = null;
  if ((flags & ALTPR) !== 0 && requested !== Mode.PR) mode = Mode.PR;
  else if ((flags & ALTCW) !== 0 && requested !== Mode.CW) mode = Mode.CW;
  return mode !== null && granted !== null && !modeCovers(mode, granted) ? null : mode;
}

/**
 * What a lock is worth while a conversion of it is outstanding: what it has under every outcome that its master may already have
 * decided on.
 */
export function worthWhileConverting(granted: Mode, requested: Mode, flags: number): Mode {
  if ((flags & CONVDEADLK) !== 0) return Mode.NL;
  return modeCovers(requested, granted) || modeCovers(granted, requested) ? granted : Mode.CR;
}

export function wrongMode(mode: number): string | null {
  return isMode(mode) ? null : `mode ${mode} is none of 0 to 5`;
}

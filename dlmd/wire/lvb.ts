/**
 * What a request does with the lock value block: Linux fs/dlm/lock.c __dlm_lvb_operations. Reads happen when the master
 * grants; writes happen at the holder, in conversions down and unlocks, which take effect when sent (hazard H2).
 */
import { IVVALBLK, VALBLK, worthWhileConverting } from "./flag.ts";
import { Mode } from "./mode.ts";
import type { LvbWrite } from "./peer-message.ts";

type LvbAction = "read" | "write" | "none";
const r: LvbAction = "read";
const w: LvbAction = "write";
const n: LvbAction = "none";

// Row: granted before (first row: nothing), column: granted after.
const actions: readonly (readonly LvbAction[])[] = [
  //NL CR CW PR PW EX
  [r, r, r, r, r, r], // new
  [r, r, r, r, r, r], // NL
  [n, r, r, r, r, r], // CR
  [n, n, r, r, r, r], // CW
  [n, n, r, r, r, r], // PR
  [w, w, w, w, w, r], // PW
  [w, w, w, w, w, w], // EX
];

/** `from` null: a new lock. Without VALBLK nothing happens whatever this says. */
export function lvbAction(from: Mode | null, to: Mode): LvbAction {
  return (actions[from === null ? 0 : from + 1] as readonly LvbAction[])[to] as LvbAction;
}

export function readsLvb(from: Mode | null, to: Mode, flags: number): boolean {
  return (flags & VALBLK) !== 0 && lvbAction(from, to) === "read";
}

/** The write of a conversion down (`to`), or when a lock at `from` is given up (`to` null). A VALBLK without a block writes nothing. */
export function lvbWriteOf(from: Mode, to: Mode | null, flags: number, lvb: Uint8Array | null): LvbWrite {
  const writes = to === null ? from === Mode.PW || from === Mode.EX : lvbAction(from, to) === "write";
  if (!writes) return "none";
  if ((flags & IVVALBLK) !== 0) return "invalidate";
  return (flags & VALBLK) !== 0 && lvb !== null ? "write" : "none";
}

interface Unlocked {
  readonly granted: Mode | null;
  /** Of a conversion that FORCEUNLOCK cuts short: what was asked for, and with which flags. */
  readonly requested: Mode | null;
  readonly flags: number;
}

/** The write of an unlock. Under FORCEUNLOCK, of the mode that the lock has whatever its master may have decided already. */
export function unlockWriteOf({ granted, requested, flags: asked }: Unlocked, flags: number, lvb: Uint8Array | null): LvbWrite {
  if (granted === null) return "none";
  return lvbWriteOf(requested === null ? granted : worthWhileConverting(granted, requested, asked), null, flags, lvb);
}

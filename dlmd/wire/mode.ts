/**
 * The six lock modes and their matrices (VMS, Linux fs/dlm/lock.c __dlm_compat_matrix). They are
 * Gray's granularity modes: CR=IS, CW=IX, PR=S, PW=SIX, EX=X.
 */
export const Mode = { NL: 0, CR: 1, CW: 2, PR: 3, PW: 4, EX: 5 } as const;
export type Mode = (typeof Mode)[keyof typeof Mode];

export const modeNames = ["NL", "CR", "CW", "PR", "PW", "EX"] as const;

// One row per mode, bit m set where that mode may be granted beside it.
const compatible: readonly number[] = [
  0b111111, // NL: all
  0b011111, // CR: all but EX
  0b000111, // CW: NL CR CW
  0b001011, // PR: NL CR PR
  0b000011, // PW: NL CR
  0b000001, // EX: NL
];

/** As bits. */
export function modesBeside(mode: Mode): number {
  return compatible[mode] as number;
}

export function modesCompatible(a: Mode, b: Mode): boolean {
  return ((compatible[a] as number) & (1 << b)) !== 0;
}

// What a holder of the row's mode may do is at least what the column's mode allows. PR and CW are
// the one pair in which neither covers the other.
const covers: readonly number[] = [0b000001, 0b000011, 0b000111, 0b001011, 0b011111, 0b111111];

/** A holder of `held` needs no conversion to act under `wanted`. */
export function modeCovers(held: Mode, wanted: Mode): boolean {
  return ((covers[held] as number) & (1 << wanted)) !== 0;
}

export function isMode(value: number): value is Mode {
  return Number.isInteger(value) && value >= 0 && value <= 5;
}

/** The weakest mode that covers both. */
export function joinModes(a: Mode, b: Mode): Mode {
  if (modeCovers(a, b)) return a;
  return modeCovers(b, a) ? b : Mode.PW;
}

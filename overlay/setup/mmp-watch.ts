/** How long MMP's block is watched, and what that says. Pure. The source of the kernel's numbers: fs/ext4/ext4.h and mmp.c. */

/** kmmpd may be late by a part of one. */
const WATCHED_INTERVALS = 2.5;
/** The kernel takes no holder for dead before EXT4_MMP_MIN_CHECK_INTERVAL, 5 s: a busy disk may be late by so much. */
export const MMP_LOOK_LEAST_MS = 6000;
/** 2.5 of EXT4_MMP_UPDATE_INTERVAL, and some. An interval may be 300 s: so long is waited only with a longer limit. */
export const MMP_LOOK_MOST_MS = 15_000;
/** EXT4_MMP_UPDATE_INTERVAL: what the kernel and mke2fs take where a superblock says 0. */
const DEFAULT_INTERVAL_S = 5;

export interface MmpWatch {
  /** s_mmp_update_interval. */
  readonly intervalS: number;
  /** Of a check. */
  readonly limitMs: number;
}

/** Its holder writes it; it does not; null: there was no time to see that; or it is to be read again. */
export type MmpVerdict = boolean | null | "go-on";

/** `watchedMs` before it was read last; `isChanged`: since it was read first. */
export function judgeMmpWatch({ intervalS, limitMs }: MmpWatch, watchedMs: number, isChanged: boolean): MmpVerdict {
  if (isChanged) return true;
  const intervalMs = (intervalS === 0 ? DEFAULT_INTERVAL_S : intervalS) * 1000;
  if (watchedMs >= Math.max(MMP_LOOK_LEAST_MS, WATCHED_INTERVALS * intervalMs)) return false;
  return watchedMs >= Math.max(MMP_LOOK_MOST_MS, limitMs) ? null : "go-on";
}

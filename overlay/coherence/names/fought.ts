/**
 * Directories that are fought over: their names are given no validity for a time, so that a revoke has none to expire (hazard F6). What is noted of one outlives
 * what the kernel knows of it, because the kernel forgets what an epoch has expired: it would be as new each time, and cost the next epoch. Pure.
 */
import type { Cover } from "../cover.ts";

/** A directory revoked twice within this time is fought over ... */
export const HOT_INTERVAL_MS = 1000;
/** ... and gives no entry validity for so long. So does one that has cost an epoch ... */
export const HOT_QUIET_MS = 10_000;
/** ... twice as long each time, up to this: each walk through it costs a LOOKUP, though no trip ... */
export const HOT_QUIET_MAX_MS = 80_000;
/** ... if the last epoch was no longer ago than so many times as long. */
const EPOCH_AGAIN = 3;
/** Of more, the longest unchanged that is not hot is forgotten. */
export const FOUGHT_MAX = 1000;

interface Fought {
  revokedAt: number;
  hotUntil: number;
  /** When it cost an epoch; -Infinity: never. */
  epochAt: number;
  quietMs: number;
}

export class FoughtDirectories {
  readonly #rows = new Map<string, Fought>();
  /** Of all of them the last. */
  #hotUntil = Number.NEGATIVE_INFINITY;

  get size(): number {
    return this.#rows.size;
  }

  /** Its names were given validity, and are to be expired. */
  noteRevoke(dir: Cover, now: number): void {
    const row = this.#row(dir.key, now);
    const last = Math.max(row.revokedAt, dir.revokedAt ?? Number.NEGATIVE_INFINITY);
    row.revokedAt = now;
    if (now - last < HOT_INTERVAL_MS) this.#heat(row, now + HOT_QUIET_MS);
  }

  /** That took an epoch, which costs all other directories of the mount as much. */
  noteEpoch(dir: Cover): void {
    const row = this.#rows.get(dir.key);
    // So many others were noted since its revoke began.
    if (row === undefined) return;
    const now = row.revokedAt;
    const again = now - row.epochAt <= EPOCH_AGAIN * row.quietMs;
    row.quietMs = again ? Math.min(2 * row.quietMs, HOT_QUIET_MAX_MS) : HOT_QUIET_MS;
    row.epochAt = now;
    this.#heat(row, now + row.quietMs);
  }

  isHot(dir: Cover, now: number): boolean {
    // Mostly there is none.
    return now < this.#hotUntil && now < (this.#rows.get(dir.key)?.hotUntil ?? 0);
  }

  #heat(row: Fought, until: number): void {
    row.hotUntil = Math.max(row.hotUntil, until);
    this.#hotUntil = Math.max(this.#hotUntil, until);
  }

  /** As the one that was changed last. */
  #row(key: string, now: number): Fought {
    const never = Number.NEGATIVE_INFINITY;
    const row = this.#rows.get(key) ?? { revokedAt: never, hotUntil: never, epochAt: never, quietMs: HOT_QUIET_MS };
    this.#rows.delete(key);
    this.#rows.set(key, row);
    if (this.#rows.size > FOUGHT_MAX) this.#forgetOne(key, now);
    return row;
  }

  /** The oldest that is not hot, if there is one. */
  #forgetOne(but: string, now: number): void {
    const [oldest] = this.#rows.keys();
    let forgotten = oldest as string;
    for (const [key, { hotUntil }] of this.#rows) {
      if (hotUntil > now || key === but) continue;
      forgotten = key;
      break;
    }
    this.#rows.delete(forgotten);
  }
}

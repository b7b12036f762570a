/**
 * Which writes are made on the serving thread: those of the first bytes of a file that was made a moment ago, through the handle that made it. They are
 * copied into memory. Nothing of the file is on the disk and would have to be read, no other call has its lock, and of the journal they need what the
 * creation had on this thread. The way to the pool and back costs more than all of that (README, "The serving thread").
 * A file that was made with O_SYNC or O_DSYNC has none of them: each write to it waits for the disk.
 *
 * One thing can hold such a write up: more dirty memory than the kernel allows (balance_dirty_pages), and that of the lower only (hazard F20). Then the
 * pool has them for a while.
 */
import { O } from "../linux.ts";

/** What ends behind this is for the pool. Behind it XFS allocates more than is written (xfs_iomap_prealloc_size), which a close gives back. */
export const SMALL_FILE_BYTES_MAX: number = 64 * 1024;
/** So long a file is one that was made a moment ago. */
export const NEW_FILE_MS = 1000;
/** A write that took so long was held up. */
export const HELD_UP_MS = 50;
/** So long the pool has them then. */
export const AFTER_HELD_UP_MS = 10_000;

interface WrittenFile {
  readonly madeMs: number;
  readonly changed: boolean;
}

export class SmallWrites {
  readonly nowMs: () => number;
  readonly #allowed: boolean;
  #poolUntilMs: number = Number.NEGATIVE_INFINITY;

  /** `allowed`: where files are made on the serving thread, too. */
  constructor(allowed: boolean, nowMs: () => number) {
    this.#allowed = allowed;
    this.nowMs = nowMs;
  }

  /** Small writes are made on the serving thread at present. */
  get here(): boolean {
    return this.#allowed && this.nowMs() >= this.#poolUntilMs;
  }

  /** `end`: where it ends; of an append, how many bytes it has. */
  mayBeHere({ madeMs, changed }: WrittenFile, end: number): boolean {
    return !changed && end <= SMALL_FILE_BYTES_MAX && this.here && this.nowMs() < madeMs + NEW_FILE_MS;
  }

  /** OpenFile.madeMs of a file that is made with those flags. */
  madeMs(flags: number): number {
    return (flags & O.SYNC) === 0 ? this.nowMs() : Number.NEGATIVE_INFINITY;
  }

  timed<T>(write: () => T): T {
    const before = this.nowMs();
    try {
      return write();
    } finally {
      const now = this.nowMs();
      if (now - before >= HELD_UP_MS) this.#poolUntilMs = now + AFTER_HELD_UP_MS;
    }
  }
}

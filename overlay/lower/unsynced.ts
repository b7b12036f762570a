/**
 * Files whose data was taken by an owner and not yet said to be on disk. If that owner dies, the data may be lost, and
 * an fsync at the next owner would find nothing to write and succeed: so it reports EIO, once for each file, as
 * Linux does after a failed write-back (errseq_t). To be replaced by replay (DESIGN 7).
 */
import { type FileId, fileKey } from "./lower.ts";

/** Beyond that many files the lower is synced in the background. */
export const MAX_UNSYNCED_FILES = 65_536;

export class Unsynced {
  readonly #changed: Map<string, number> = new Map();
  readonly #lost: Set<string> = new Set();
  #tick = 0;

  /** Now; what is noted later is not covered by a sync that starts now. */
  now(): number {
    return this.#tick;
  }

  /** True: it is time to sync everything. */
  note(id: FileId): boolean {
    this.#tick += 1;
    this.#changed.set(fileKey(id), this.#tick);
    return this.#changed.size === MAX_UNSYNCED_FILES;
  }

  synced(id: FileId, since: number): void {
    const key = fileKey(id);
    const at = this.#changed.get(key);
    if (at !== undefined && at <= since) this.#changed.delete(key);
  }

  allSynced(since: number): void {
    for (const [key, at] of this.#changed) if (at <= since) this.#changed.delete(key);
  }

  /** The owner that had the data is gone. Gives how many files. */
  ownerDied(): number {
    const count = this.#changed.size;
    for (const key of this.#changed.keys()) this.#lost.add(key);
    this.#changed.clear();
    return count;
  }

  /** True once for a file whose data may be lost. */
  takeLost(id: FileId): boolean {
    return this.#lost.delete(fileKey(id));
  }

  takeAllLost(): boolean {
    const any = this.#lost.size > 0;
    this.#lost.clear();
    return any;
  }
}

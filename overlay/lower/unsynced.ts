/**
 * Files whose data was taken by an owner and not yet said to be on disk. If that owner dies, the data may be lost, and
 * an fsync at the next owner would find nothing to write and succeed: so it reports EIO, as Linux does after a failed write-back (lib/errseq.c):
 * once for each file that was open then, whoever else was told; and if nobody was, to the first who opens it later. To be replaced by replay (DESIGN 7).
 */
import { type FileId, fileKey } from "./lower.ts";

/** Beyond that many files the lower is synced in the background. */
export const MAX_UNSYNCED_FILES = 65_536;

/** Of one file, the last time that data was lost with an owner. */
interface Loss {
  readonly death: number;
  told: boolean;
}

/** What an open file has been told. */
export interface LossesTold {
  readonly id: FileId;
  /** It has been told of losses up to that owner's death. */
  lossesTold: number;
}

export class Unsynced {
  readonly #changed: Map<string, number> = new Map();
  readonly #lost: Map<string, Loss> = new Map();
  #deaths = 0;
  #syncfsFails = false;
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

  /** The owner that had the data is gone. Gives how many files. `open`: all that are open. */
  ownerDied(open: readonly LossesTold[]): number {
    const count = this.#changed.size;
    const waiting = new Set(open.filter((file) => this.#isUntold(file)).map(({ id }) => fileKey(id)));
    for (const [key, loss] of this.#lost) if (loss.told && !waiting.has(key)) this.#lost.delete(key);
    this.#deaths += 1;
    for (const key of this.#changed.keys()) this.#lost.set(key, { death: this.#deaths, told: false });
    this.#changed.clear();
    if (count > 0) this.#syncfsFails = true;
    return count;
  }

  /** `lossesTold` of one that is opened now. */
  opened(id: FileId): number {
    return this.#lost.get(fileKey(id))?.told === false ? 0 : this.#deaths;
  }

  #isUntold({ id, lossesTold }: LossesTold): boolean {
    return (this.#lost.get(fileKey(id))?.death ?? 0) > lossesTold;
  }

  /** True once for an open file whose data may be lost. */
  takeLost(file: LossesTold): boolean {
    const loss = this.#lost.get(fileKey(file.id));
    if (loss === undefined || loss.death <= file.lossesTold) return false;
    file.lossesTold = loss.death;
    loss.told = true;
    return true;
  }

  /** True once after data may have been lost; that is told of each file all the same. */
  takeAnyLost(): boolean {
    const any = this.#syncfsFails;
    this.#syncfsFails = false;
    return any;
  }
}

/**
 * Syncs of the whole file system through one descriptor (hazard H8). The kernel reports a failed write-back to one of them, and the next one says 0 (syncfs(2), "ERRORS";
 * lib/errseq.c). Whoever asked is told, and others are not: so those that failed are counted.
 */
export class Syncs {
  readonly #sync: () => Promise<void>;
  readonly #running = new Set<Promise<void>>();
  #failed = 0;

  constructor(sync: () => Promise<void>) {
    this.#sync = sync;
  }

  get failed(): number {
    return this.#failed;
  }

  async sync(): Promise<void> {
    const sync = this.#sync();
    this.#running.add(sync);
    try {
      await sync;
    } catch (error) {
      this.#failed += 1;
      throw error;
    } finally {
      this.#running.delete(sync);
    }
    // One of these may be told in place of this one.
    await Promise.allSettled(this.#running);
  }
}

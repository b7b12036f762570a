/**
 * The end of a mounted file system whose disk is another's, asked for by who sees that first: the watch of the owner's block, or the release.
 * It goes by a descriptor that the release closes. A request that ran after that could meet another file system under the same number.
 */
export class ShutDown {
  readonly #work: () => Promise<void>;
  #running: Promise<void> | null = null;
  #isForbidden = false;

  constructor(work: () => Promise<void>) {
    this.#work = work;
  }

  /** Resolves or rejects as the one run of the work does; at once, without a run, if that is forbidden. */
  run(): Promise<void> {
    if (this.#isForbidden) return Promise.resolve();
    this.#running ??= this.#work();
    return this.#running;
  }

  /** The descriptor is about to be closed. */
  forbid(): void {
    this.#isForbidden = true;
  }
}

/** Work that nobody waits for, until something ends and must. */
export class UnderWay {
  readonly #all = new Set<Promise<void>>();

  get count(): number {
    return this.#all.size;
  }

  /** `work` never rejects, or the process ends. */
  add(work: Promise<void>): void {
    const one = work.finally(() => this.#all.delete(one));
    this.#all.add(one);
  }

  /** Resolves when what is under way now has ended. */
  async idle(): Promise<void> {
    await Promise.all(this.#all);
  }
}

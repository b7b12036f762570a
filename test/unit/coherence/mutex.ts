/** A lock of a model's kernel: of a page, of a directory, of an inode. */
export class Mutex {
  #held = false;
  #waiters: (() => void)[] = [];

  get isHeld(): boolean {
    return this.#held;
  }

  async lock(): Promise<void> {
    while (this.#held) await new Promise<void>((resolve) => this.#waiters.push(resolve));
    this.#held = true;
  }

  unlock(): void {
    this.#held = false;
    for (const waiter of this.#waiters.splice(0)) waiter();
  }
}

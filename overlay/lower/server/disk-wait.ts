/**
 * Calls of the owner's own mount that its disk has not answered (hazard H13). Its mount is not ended for a disk that hangs: the next owner may
 * have the same one, and the kernel ends no process that waits for its disk. A path that is lost on this node alone: ../../serve/README.md.
 */
import type { OwnerWait } from "../owner-wait.ts";
import type { CallName } from "../wire/call-types.ts";

export class DiskWait {
  readonly #now: () => number;
  /** In the order in which they were made. */
  readonly #calls = new Map<number, { readonly call: CallName; readonly sinceMs: number }>();
  /** Below zero: never that of a call to an owner elsewhere. */
  #lastId = 0;
  #idle: (() => void)[] = [];

  constructor(now: () => number) {
    this.#now = now;
  }

  /** `result`: of a call that goes on on a thread of a pool. */
  async until<T>(call: CallName, result: Promise<T>): Promise<T> {
    const id = --this.#lastId;
    this.#calls.set(id, { call, sinceMs: this.#now() });
    try {
      return await result;
    } finally {
      this.#calls.delete(id);
      if (this.#calls.size === 0 && this.#idle.length > 0) for (const tell of this.#idle.splice(0)) tell();
    }
  }

  /** Resolves when no call waits. */
  async idle(): Promise<void> {
    if (this.#calls.size > 0) await new Promise<void>((resolve) => this.#idle.push(resolve));
  }

  /** null: no call waits. */
  get oldest(): OwnerWait | null {
    const first = this.#calls.entries().next().value;
    if (first === undefined) return null;
    const [id, { call, sinceMs }] = first;
    return { id, call, waitedMs: this.#now() - sinceMs, calls: this.#calls.size, inOwnersHands: true, trouble: null, ofDisk: true };
  }
}

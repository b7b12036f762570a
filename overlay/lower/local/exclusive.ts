/**
 * One after the other, by key: work on a key starts when all earlier work on it has ended. Where nothing is under
 * way it runs at once, on this thread, and costs a map lookup.
 */
import type { MaybePromise } from "../../../dlmd/base/maybe-promise.ts";

export class Exclusive {
  readonly #last: Map<number, Promise<void>> = new Map();

  get busy(): number {
    return this.#last.size;
  }

  run<T>(keys: readonly number[], work: () => MaybePromise<T>): MaybePromise<T> {
    const before: Promise<void>[] = [];
    if (this.#last.size > 0) {
      for (const key of keys) {
        const last = this.#last.get(key);
        if (last !== undefined) before.push(last);
      }
    }
    const result = before.length === 0 ? work() : Promise.all(before).then(work);
    if (result instanceof Promise) this.#note(keys, result);
    return result;
  }

  async #ended(result: Promise<unknown>): Promise<void> {
    try {
      await result;
    } catch {
      // The caller has the promise itself, and with it the error.
    }
  }

  #forget(keys: readonly number[], ended: Promise<void>): void {
    for (const key of keys) if (this.#last.get(key) === ended) this.#last.delete(key);
  }

  #note(keys: readonly number[], result: Promise<unknown>): void {
    const ended = this.#ended(result);
    for (const key of keys) this.#last.set(key, ended);
    void ended.then(() => this.#forget(keys, ended));
  }
}

/** Calls in a pool of threads carry numbers of descriptors: none is closed, and another's, before they are made (hazard R6). */
import { setImmediate as nextTurn } from "node:timers/promises";
import type { Calls, Native } from "../../../native/index.ts";

type PoolCalls = Calls<Promise<number>>;

export class CountedPools {
  /** The same addon; what is asked of its pools (but of `own`, which has other descriptors) is counted. */
  readonly native: Native;
  readonly #waiters: (() => void)[] = [];
  #underWay = 0;

  constructor(native: Native) {
    const { metadata, data, sync } = native.pool;
    const pool = { ...native.pool, metadata: this.#counted(metadata), data: this.#counted(data), sync: this.#counted(sync) };
    this.native = { ...native, pool };
  }

  /** Resolves when no call is under way, and none has followed what the last one gave. */
  async idle(): Promise<void> {
    do {
      if (this.#underWay > 0) await new Promise<void>((resolve) => this.#waiters.push(resolve));
      // Whoever has the result may have another call to make.
      await nextTurn();
    } while (this.#underWay > 0);
  }

  #counted(calls: PoolCalls): PoolCalls {
    const over = (): void => {
      this.#underWay -= 1;
      if (this.#underWay > 0) return;
      for (const tell of this.#waiters.splice(0)) tell();
    };
    const count = (name: keyof PoolCalls) => {
      const call = calls[name] as (...args: unknown[]) => Promise<number>;
      return (...args: unknown[]): Promise<number> => {
        const result = call(...args);
        this.#underWay += 1;
        void result.then(over, over);
        return result;
      };
    };
    const names = Object.keys(calls) as (keyof PoolCalls)[];
    return Object.fromEntries(names.map((name) => [name, count(name)])) as unknown as PoolCalls;
  }
}

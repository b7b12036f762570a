/**
 * How a dlmd leaves the cluster, once: for a signal, after which it ends, or for an administrator, after which it starts anew in its process. A signal
 * comes before a restart that is under way: it ends then, and has left as well. Only a second signal does not wait for it.
 */
import { OperatingError } from "../base/error.ts";
import type { Log } from "../base/log.ts";

export interface LeavingOptions {
  readonly leave: () => Promise<void>;
  /** It has left. */
  readonly end: () => void;
  /** It has left, to go on in the same process. */
  readonly startAnew: () => void;
  readonly failed: (error: Error) => void;
  /** It has not left. */
  readonly endAtOnce: () => void;
  readonly log: Log;
}

export class Leaving {
  readonly #options: LeavingOptions;
  #isUnderWay = false;
  #isRestart = false;
  #signals = 0;

  constructor(options: LeavingOptions) {
    this.#options = options;
  }

  /** Throws OperatingError: what is asked for now would be lost, or done twice. */
  requireStaying(): void {
    if (!this.#isRestart && this.#signals === 0) return;
    const what = this.#signals === 0 ? "is restarted just now" : "ends just now";
    throw new OperatingError(`this dlmd ${what}: it leaves the cluster`, {
      code: "dlmd-leaves",
      hint: "Look whether it is back: coverlay status.",
    });
  }

  signal(signal: NodeJS.Signals): void {
    this.#signals++;
    if (this.#signals > 1) return this.#options.endAtOnce();
    if (this.#isRestart) this.#options.log.info({ signal }, "dlmd ends when it has left, and does not start anew");
    this.#begin({ signal });
  }

  /** In a later turn: the answer comes first. Throws OperatingError if it leaves already. */
  restart(by: string): void {
    this.requireStaying();
    this.#isRestart = true;
    setImmediate(() => this.#begin({ by }));
  }

  #begin(why: Readonly<Record<string, unknown>>): void {
    if (this.#isUnderWay) return;
    this.#isUnderWay = true;
    const { leave, end, startAnew, failed, log } = this.#options;
    log.info(why, "leaving the cluster");
    leave().then(() => (this.#signals > 0 ? end() : startAnew()), failed);
  }
}

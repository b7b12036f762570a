/**
 * The check of this machine that programs of other nodes ask for (wire/self-check.ts). One runs at a time, for all that ask meanwhile: a flood
 * of questions starts no flood of processes. It ends when nobody waits for it any more.
 */
import { type CheckAnswer, type CheckNews, checkFailed } from "../wire/self-check.ts";

/** Beyond, the answer is that it is busy. */
export const MAX_ASKERS = 16;
/** How often those that wait hear that it goes on. */
export const GOING_EVERY_MS = 1000;

/** Never rejects. `limitMs`: of each single check. Aborted, it ends what it has started. */
export type RunCheck = (limitMs: number, signal: AbortSignal) => Promise<CheckAnswer>;
/** Hears that it goes on, at once and then each second, and in the end the answer. */
export type CheckAsker = (news: CheckNews) => void;

interface Running {
  readonly askers: Set<CheckAsker>;
  readonly abort: AbortController;
}

export class SelfCheck {
  readonly #run: RunCheck;
  #running: Running | null = null;

  constructor(run: RunCheck) {
    this.#run = run;
  }

  /** `asker` joins the check that runs, or begins one; the function that is given back takes it out. */
  ask(limitMs: number, asker: CheckAsker): () => void {
    const running = (this.#running ??= this.#begin(limitMs));
    if (running.abort.signal.aborted) {
      asker(checkFailed("busy: a check that nobody waits for ends just now"));
      return () => undefined;
    }
    if (running.askers.size >= MAX_ASKERS) {
      asker(checkFailed(`busy: ${MAX_ASKERS} programs wait for its checks already`));
      return () => undefined;
    }
    running.askers.add(asker);
    asker({ kind: "going" });
    return () => {
      if (running.askers.delete(asker) && running.askers.size === 0) running.abort.abort();
    };
  }

  #begin(limitMs: number): Running {
    const running: Running = { askers: new Set(), abort: new AbortController() };
    const timer = setInterval(() => {
      for (const asker of running.askers) asker({ kind: "going" });
    }, GOING_EVERY_MS);
    void this.#finish(running, limitMs, timer);
    return running;
  }

  async #finish({ askers, abort }: Running, limitMs: number, timer: NodeJS.Timeout): Promise<void> {
    const answer = await this.#run(limitMs, abort.signal);
    clearInterval(timer);
    this.#running = null;
    const waiting = [...askers];
    askers.clear();
    for (const asker of waiting) asker(answer);
  }
}

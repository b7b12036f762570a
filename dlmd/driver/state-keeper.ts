/**
 * Keeps state.json as the core asks for it, one writing after the other. A state that cannot be stored is never acted upon. It is written
 * again for a while, as for a slow disk, then the node has to leave: until it has stored it, it holds up the views of all. So it has, too, when its
 * disk takes the state and says nothing. What such a disk does later is a state of a life that has ended: no promise in it was ever told.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { OperatingError } from "../base/error.ts";
import type { Log } from "../base/log.ts";
import { tryWriting, unkept } from "./atomic-file.ts";
import { readState, type StoredState, stateText, writeState } from "./state-file.ts";

/** A state that could not be written is written again after that. */
export const KEEP_PAUSE_MS = 200;
/** A node that could not write its state for so long leaves. A member that is silent is left out after the same time. */
export const keepShare = 1;
/** A disk that has said nothing for so long is named in the log. */
export const silenceShare = 0.5;
/** A timer that comes so much too late says that this thread stood still, not the disk. */
export const STALL_MS = 50;

class SilentDisk extends Error {}

export interface StateKeeperOptions {
  readonly file: string;
  readonly timeoutMs: () => number;
  readonly nowMs: () => number;
  readonly log: Log;
  /** Said once: the node has to leave. */
  readonly failed: (error: OperatingError) => void;
  /** `writeState`, but in tests. */
  readonly write?: (file: string, state: StoredState) => Promise<void>;
}

export class StateKeeper {
  readonly #options: StateKeeperOptions;
  #stored: StoredState = { promisedEpoch: 0 };
  #writing: Promise<unknown> = Promise.resolve();
  #hasFailed = false;

  constructor(options: StateKeeperOptions) {
    this.#options = options;
  }

  /** What the life before has left. Throws OperatingError. */
  async read(): Promise<StoredState> {
    this.#stored = await readState(this.#options.file);
    return this.#stored;
  }

  /** Throws OperatingError if that disk takes nothing now. */
  async tryKeeping(): Promise<void> {
    const { file, nowMs } = this.#options;
    try {
      const state = stateText(await this.read());
      await this.#within(nowMs() + this.#limitMs, tryWriting(file, state, 0o600));
    } catch (error) {
      // A damaged one says so itself.
      throw error instanceof OperatingError ? error : unkept("this node's state", file, error);
    }
  }

  /**
   * `isWanted`: the life that asks has not ended; what it learnt is written once all the same. Resolves when it is on stable storage; with
   * false: it will never be.
   */
  keep(change: Partial<StoredState>, isWanted: () => boolean): Promise<boolean> {
    const state = { ...this.#stored, ...change };
    this.#stored = state;
    const earlier = this.#writing;
    const kept = earlier.then(() => this.#write(state, isWanted));
    this.#writing = kept;
    return kept;
  }

  /** Resolves when nothing is being written. */
  async settle(): Promise<void> {
    await this.#writing;
  }

  get #limitMs(): number {
    return keepShare * this.#options.timeoutMs();
  }

  /**
   * Rejects at that time if the disk has not answered by then, but leaves it the time of a silence at least: the last of several tries may begin
   * late. The work then ends unheard.
   */
  async #within<T>(untilMs: number, work: Promise<T>): Promise<T> {
    const { file, timeoutMs, nowMs, log } = this.#options;
    const fromMs = nowMs();
    const silenceMs = silenceShare * timeoutMs();
    const silent = this.#afterHearing(silenceMs, () =>
      log.error({ file, silenceMs }, "the disk does not answer: a view waits for it, and then this node leaves"),
    );
    let over = (): void => {};
    const limit = new Promise<never>((_, reject) => {
      const words = (): string => `its disk has not answered for ${Math.round(nowMs() - fromMs)} ms`;
      over = this.#afterHearing(Math.max(silenceMs, untilMs - fromMs), () => reject(new SilentDisk(words())));
    });
    try {
      return await Promise.race([work, limit]);
    } finally {
      silent();
      over();
    }
  }

  /**
   * Calls back when this thread could have heard an answer for that time. What it stood still itself it is given again, up to the same time: an
   * answer that came meanwhile is behind the timer. The answer ends it.
   */
  #afterHearing(ms: number, run: () => void): () => void {
    const { nowMs } = this.#options;
    let spareMs = ms;
    let timer: NodeJS.Timeout;
    const wait = (forMs: number): void => {
      const dueMs = nowMs() + forMs;
      timer = setTimeout(() => {
        const againMs = Math.min(nowMs() - dueMs, spareMs);
        if (againMs < STALL_MS) return run();
        spareMs -= againMs;
        wait(againMs);
      }, forMs);
    };
    wait(ms);
    return () => clearTimeout(timer);
  }

  async #write(state: StoredState, isWanted: () => boolean): Promise<boolean> {
    const { file, nowMs, log, failed, write = writeState } = this.#options;
    const untilMs = nowMs() + this.#limitMs;
    for (let tries = 1; !this.#hasFailed && (tries === 1 || isWanted()); tries++) {
      try {
        await this.#within(untilMs, write(file, state));
        if (tries > 1) log.info({ file, tries }, "this node's state is kept again");
        return true;
      } catch (error) {
        const unable = unkept("this node's state", file, error);
        if (tries === 1) log.error({ error: unable.message, hint: unable.hint }, "a view waits for the disk, and then this node leaves");
        // It may still write: no other writing begins beside it.
        if (error instanceof SilentDisk || nowMs() >= untilMs) {
          this.#hasFailed = true;
          failed(unable);
          return false;
        }
      }
      await sleep(KEEP_PAUSE_MS);
    }
    return false;
  }
}

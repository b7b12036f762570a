/**
 * Keeps state.json as the core asks for it, one writing after the other. A state that cannot be stored is never acted upon. It is written
 * again for a while, as for a slow disk, then the node has to leave: until it has stored it, it holds up the views of all.
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

export interface StateKeeperOptions {
  readonly file: string;
  readonly timeoutMs: () => number;
  readonly nowMs: () => number;
  readonly log: Log;
  /** Said once: the node has to leave. */
  readonly failed: (error: OperatingError) => void;
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
    const { file } = this.#options;
    try {
      await tryWriting(file, stateText(await this.read()), 0o600);
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

  async #write(state: StoredState, isWanted: () => boolean): Promise<boolean> {
    const { file, timeoutMs, nowMs, log, failed } = this.#options;
    const untilMs = nowMs() + keepShare * timeoutMs();
    for (let tries = 1; !this.#hasFailed && (tries === 1 || isWanted()); tries++) {
      try {
        await writeState(file, state);
        if (tries > 1) log.info({ file, tries }, "this node's state is kept again");
        return true;
      } catch (error) {
        const unable = unkept("this node's state", file, error);
        if (tries === 1) log.error({ error: unable.message, hint: unable.hint }, "a view waits for the disk, and then this node leaves");
        if (nowMs() >= untilMs) {
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

/**
 * How long dlmd waits for this mount's answer to a blocking AST before it takes the mount for a hanging one (hazard H13). There is no limit
 * without an owner, and none while the mount is blocked (overlay/mount-group), but for locks that are PROMPT: they are answered without the
 * lower, and a mount that waits for an owner asks all mounts whether they live. While the owner leaves a call unanswered the time begins anew at each look: an operation keeps its lock until the
 * lower has answered it. So a mount that stands still itself has its limit all the same, and so has one that can not reach the owner: it
 * keeps others from locks that it can not use.
 */
import type { Log } from "../../dlmd/base/log.ts";
import { type OwnerWait, ownerWaitWords } from "../lower/owner-wait.ts";

/** While there is an owner, a mount that has not given up a lock in that time hangs, and its dlmd ends it. */
export const BAST_LIMIT_MS = 60_000;
/** An owner that has left a call unanswered for so long is asked whether it lives (alive-lock.ts). */
export const ASK_ALIVE_MS = 2_000;
/** The time begins anew when one call was unanswered at two looks in a row: before a lock that waits for it has run out of time. */
export const LOOKS_PER_LIMIT = 4;

export interface AnswerLimitOptions {
  readonly limitMs: number;
  /** For what calls to the owner wait; null: none waits. */
  readonly ownerWait: () => OwnerWait | null;
  readonly log: Log;
  /** The limit from now on, for what is unanswered now, too; 0: none. */
  readonly setLimitMs: (limitMs: number) => void;
}

export class AnswerLimit {
  readonly #options: AnswerLimitOptions;
  #owned = false;
  #askOwner: (() => void) | null = null;
  #askMounts: () => void = () => {};
  #blocked = false;
  #seen: number | null = null;
  #told = "";
  #timer: NodeJS.Timeout | null = null;

  constructor(options: AnswerLimitOptions) {
    this.#options = options;
  }

  /** This mount takes part in the election, and there is no owner yet. `askMounts`: asks whether all mounts live. */
  begin(askMounts: () => void): void {
    this.#askMounts = askMounts;
    this.#set();
    this.#timer = setInterval(() => this.#look(), this.#options.limitMs / LOOKS_PER_LIMIT).unref();
  }

  /** There is an owner, and this mount may reach it. `ask`: asks whether it lives; null: it is this mount. */
  ownerFound(ask: (() => void) | null): void {
    this.#owned = true;
    this.#askOwner = ask;
    this.#set();
  }

  ownerLost(): void {
    this.#owned = false;
    this.#set();
  }

  /** Operations of this mount wait for no fault of theirs, and keep their locks. */
  setBlocked(blocked: boolean): void {
    this.#blocked = blocked;
    this.#set();
  }

  #set(): void {
    const { limitMs, setLimitMs } = this.#options;
    setLimitMs(this.#owned && !this.#blocked ? limitMs : 0);
  }

  close(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
  }

  #look(): void {
    const { ownerWait } = this.#options;
    if (!this.#owned) this.#askMounts();
    const wait = this.#owned ? ownerWait() : null;
    if (wait !== null && wait.ofDisk !== true && wait.waitedMs >= ASK_ALIVE_MS) this.#askOwner?.();
    const waited = wait !== null && wait.id === this.#seen;
    this.#seen = wait?.id ?? null;
    if (!waited) return;
    if (wait.inOwnersHands) this.#set();
    this.#tell(wait);
  }

  /** Once for each call and for each of the two things that it can wait for. */
  #tell(wait: OwnerWait): void {
    const { log, limitMs } = this.#options;
    const told = `${wait.id} ${wait.inOwnersHands}`;
    if (this.#told === told) return;
    this.#told = told;
    const limit = wait.inOwnersHands
      ? "this mount is not ended for it"
      : `this mount is ended if another node waits ${limitMs} ms for a lock that it has`;
    log.warn({ call: wait.call, waitedMs: Math.round(wait.waitedMs), calls: wait.calls, limit }, ownerWaitWords(wait) ?? "a call waits");
  }
}

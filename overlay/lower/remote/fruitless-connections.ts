/**
 * Connections to the owner on which the call that waits the longest gets no answer, one after the other (hazard H13): a path that lets only
 * small packets through, or something in it that resets handshakes. An owner that stands still for long, again and again, is not meant.
 */
import { DEAD_MS } from "../wire/heartbeat.ts";

/** So many in a row with the same call waiting: this mount can not reach the owner. */
export const MAX_FRUITLESS_CONNECTIONS = 3;
/**
 * A connection that stands for so long lets everything through: the sign of life of either end comes behind its calls and answers, and
 * without one the other end is gone after LONG_SILENCE_MS. The owner has the call.
 */
export const SOUND_AFTER_MS: number = 3 * DEAD_MS;
/** From the TCP connection to WELCOME. An owner that runs needs milliseconds, small packets or not: one that takes longer stood still. */
export const SLOW_WELCOME_MS = 1000;
/** A connection that follows one with a silence of DEAD_MS may be silent for so long: a path stays silent, an owner's turn ends. */
export const LONG_SILENCE_MS: number = 2 * DEAD_MS;

export class FruitlessConnections {
  readonly #now: () => number;
  #call: number | null = null;
  #count = 0;
  #reason = "";
  #welcomedMs: number | null = null;
  #slow = false;
  #wasSilent = false;

  constructor(now: () => number) {
    this.#now = now;
  }

  clear(): void {
    this.#wasSilent = false;
    this.stoodStill();
  }

  /** How long the next connection may be silent. */
  get silenceMs(): number {
    return this.#wasSilent ? LONG_SILENCE_MS : DEAD_MS;
  }

  /** The owner's host took a connection, and the owner said nothing on it: it is the owner that does not answer. */
  stoodStill(): void {
    this.#count = 0;
    this.#welcomedMs = null;
  }

  welcomed(tookMs: number): void {
    this.#welcomedMs = this.#now();
    this.#slow = tookMs > SLOW_WELCOME_MS;
  }

  /**
   * One that the owner, or something in the path, had answered. `oldest`: the call that waits the longest; null: none waits. `silent`: it
   * was welcomed, and then nothing came.
   */
  ended(oldest: number | null, reason: string, silent: boolean): void {
    if (this.#welcomedMs !== null) this.#wasSilent = silent && oldest !== null;
    if (silent && this.#slow) return this.stoodStill();
    if (this.#isSound || oldest !== this.#call) this.#count = 0;
    this.#call = oldest;
    this.#count += oldest === null ? 0 : 1;
    this.#reason = reason;
    this.#welcomedMs = null;
  }

  /** Why that call counts as not in the owner's hands, in words; null: it does. */
  words(oldest: number): string | null {
    if (this.#call !== oldest || this.#count < MAX_FRUITLESS_CONNECTIONS || this.#isSound) return null;
    return `the last ${this.#count} ended before they had answered, at last: ${this.#reason}`;
  }

  get #isSound(): boolean {
    return this.#welcomedMs !== null && this.#now() - this.#welcomedMs >= SOUND_AFTER_MS;
  }
}

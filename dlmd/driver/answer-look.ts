/**
 * While the answer of a peer is awaited, or its next message, the event loop turns without sleeping, for a moment: a processor that went to
 * sleep takes some 30 us to wake in a virtual machine, more than all else between a request and its answer. As the overlay's thread does on its
 * device (native/src/device.cc), and the kernel when it idles (haltpoll): only while it pays. A look in vain is not repeated soon.
 */

/** A look in vain takes that long; an answer within that time would have been worth one. */
export const lookMs = 0.2;
/** Fast answers without a look, at most, before one is tried again. */
export const maxSkips = 255;

export interface AnswerLookHost {
  /** Milliseconds. */
  nowMs(): number;
  /** Calls back after one more turn of the event loop, which then does not sleep. */
  turn(callback: () => void): void;
}

export class AnswerLook {
  readonly #host: AnswerLookHost;
  readonly #onTurn: () => void;
  #open = 0;
  #askedMs = 0;
  #looking = false;
  #may = false;
  #doubt = 0;
  #skips = 0;

  constructor(host: AnswerLookHost) {
    this.#host = host;
    this.#onTurn = () => this.#turned();
  }

  /** A message leaves that a peer will answer; or its next one may come. */
  asked(): void {
    const now = this.#host.nowMs();
    // What was not answered by now comes late, or never, because its view is over.
    if (!this.#looking && now - this.#askedMs > lookMs) this.#open = 0;
    this.#open++;
    this.#askedMs = now;
    if (this.#looking || !this.#may) return;
    this.#looking = true;
    this.#host.turn(this.#onTurn);
  }

  /** It came. */
  answered(): void {
    if (this.#open === 0) return;
    this.#open--;
    if (this.#looking) {
      this.#doubt = 0;
      if (this.#open === 0) this.#looking = false;
      return;
    }
    if (this.#open > 0) return;
    const fast = this.#host.nowMs() - this.#askedMs <= lookMs;
    if (!fast) this.#may = false;
    else if (this.#skips > 0) this.#skips--;
    else this.#may = true;
  }

  #turned(): void {
    if (!this.#looking) return;
    if (this.#host.nowMs() - this.#askedMs <= lookMs) return this.#host.turn(this.#onTurn);
    this.#looking = false;
    this.#may = false;
    this.#doubt = Math.min(2 * this.#doubt + 1, maxSkips);
    this.#skips = this.#doubt;
  }
}

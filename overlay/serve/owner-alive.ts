/**
 * Who asks whether the owner lives (hazard H13). A call that waits for the owner's answer wants no lock of it, so nobody would ever judge an overlay
 * that stands still. The owner holds a lock that it gives up whenever somebody wants it, and takes again at once. Whoever waits for the owner asks for
 * that lock: an owner that does not give it up within the limit of answers is ended by its dlmd, and another node goes on.
 */
import type { Lock, LockStatus, Lockspace } from "../../dlmd/client/api.ts";
import { Mode } from "../../dlmd/wire/mode.ts";

const RESOURCE = "owner-alive";

export interface OwnerAliveOptions {
  readonly lockspace: Lockspace;
  /** dlmd refused a request. */
  readonly fail: (error: Error) => void;
}

export class OwnerAlive {
  readonly #options: OwnerAliveOptions;
  /** The owner's, granted or asked for; null: this mount is not the owner. */
  #held: Lock | null = null;
  #asking = false;

  constructor(options: OwnerAliveOptions) {
    this.#options = options;
  }

  /** This mount is the owner, and answers. */
  serve(): void {
    if (this.#held === null) this.#take();
  }

  /** It is the owner no more. */
  stop(): void {
    const held = this.#held;
    this.#held = null;
    if (held !== null) this.#giveUp(held);
  }

  /** A call of this mount waits for the owner. One question is under way at most. */
  ask(): void {
    if (this.#asking) return;
    this.#asking = true;
    const lock = this.#create((status) => {
      if (status === "granted") lock.unlock(0);
      else this.#asking = false;
    });
    lock.request(Mode.PR, 0);
  }

  /** A new lock each time: a conversion would go before whoever waits. */
  #take(): void {
    const lock = this.#create(
      (status) => {
        // It was faster than its cancellation.
        if (status === "granted" && this.#held !== lock) this.#giveUp(lock);
      },
      () => {
        if (this.#held !== lock) return;
        // In one message: there is no moment at which nobody could ask.
        this.#options.lockspace.batch(() => {
          lock.unlock(0);
          this.#take();
        });
      },
    );
    this.#held = lock;
    lock.request(Mode.EX, 0);
  }

  #giveUp(lock: Lock): void {
    if (lock.busy) lock.cancel();
    else lock.unlock(0);
  }

  #create(ast: (status: LockStatus) => void, bast: () => void = () => {}): Lock {
    return this.#options.lockspace.createLock(RESOURCE, {
      ast: (lock, status) => {
        if (status === "error") this.#options.fail(lock.error ?? new Error(`dlmd refused a request for ${RESOURCE}`));
        else ast(status);
      },
      bast,
    });
  }
}

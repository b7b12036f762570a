/**
 * Mounts that stand still (hazard H13). A call that waits for the owner, or for there to be one, wants no lock of the mount that it waits for, so nobody
 * would ever judge that mount. Each mount holds a lock that it gives up whenever somebody wants it, and takes again at once, in each of its roles. Who
 * waits asks for that lock: a mount that does not give it up within the limit of answers is ended by its dlmd, and the others go on. Only the serving
 * thread has a part in that: what waits for a disk elsewhere, as a mount that replays its journal, is not judged.
 */
import { type Lock, LockFlag, type LockStatus, type Lockspace } from "../../dlmd/client/api.ts";
import { Mode } from "../../dlmd/wire/mode.ts";

/** One that is held, and the mode in which it is wanted from all that hold it. */
export interface AliveKind {
  readonly resource: string;
  readonly held: Mode;
  readonly wanted: Mode;
}

/** The owner's, while it serves. */
export const ownerAlive: AliveKind = { resource: "owner-alive", held: Mode.EX, wanted: Mode.PR };
/** That of each mount: while there is no owner any of them may be needed, to become it or to let another one. */
export const mountsAlive: AliveKind = { resource: "mounts-alive", held: Mode.PR, wanted: Mode.EX };

export interface AliveLockOptions {
  readonly lockspace: Lockspace;
  /** dlmd refused a request. */
  readonly fail: (error: Error) => void;
}

export class AliveLock {
  readonly #kind: AliveKind;
  readonly #options: AliveLockOptions;
  /** This mount's, granted or asked for; null: it has none. */
  #held: Lock | null = null;
  #asking = false;

  constructor(kind: AliveKind, options: AliveLockOptions) {
    this.#kind = kind;
    this.#options = options;
  }

  /** This mount answers from now on. */
  serve(): void {
    if (this.#held === null) this.#take();
  }

  /** It need not be asked any more. */
  stop(): void {
    const held = this.#held;
    this.#held = null;
    if (held !== null) this.#giveUp(held);
  }

  /** Something here waits for those that hold it. One question is under way at most. */
  ask(): void {
    if (this.#asking) return;
    this.#asking = true;
    const lock = this.#create((status) => {
      if (status === "granted") lock.unlock(0);
      else this.#asking = false;
    });
    lock.request(this.#kind.wanted, LockFlag.PROMPT);
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
    lock.request(this.#kind.held, LockFlag.PROMPT);
  }

  #giveUp(lock: Lock): void {
    if (lock.busy) lock.cancel();
    else lock.unlock(0);
  }

  #create(ast: (status: LockStatus) => void, bast: () => void = () => {}): Lock {
    const { resource } = this.#kind;
    return this.#options.lockspace.createLock(resource, {
      ast: (lock, status) => {
        if (status === "error") this.#options.fail(lock.error ?? new Error(`dlmd refused a request for ${resource}`));
        else ast(status);
      },
      bast,
    });
  }
}

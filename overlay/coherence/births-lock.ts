/**
 * The lock of births (hazard F51): each node that makes files has it CW. An inode that is born under it (lock/new-inodes.ts) nobody else can know: not by the
 * directory that names it, whose lock is here, and not by its number, because who looks for one has this lock PR meanwhile. Makers give it up when all that was
 * born is known to dlmd, and wait for nothing: what is made without it is told to dlmd at once.
 */
import { AssertionError } from "../../dlmd/base/assert.ts";
import { E, type Errno, errnoError } from "../../dlmd/base/errno.ts";
import { type Lock, LockFlag, type Lockspace } from "../../dlmd/client/api.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import type { Waiter } from "./api.ts";
import type { CoherenceState } from "./effect.ts";
import { beginBirths, endBirths } from "./lock/new-inodes.ts";

/** Its name at dlmd, once for each volume. */
export const BIRTHS = "births";

export interface BirthsLockOptions {
  readonly lockspace: Lockspace;
  /** dlmd broke a promise. */
  readonly fail: (error: Error) => void;
  /** The rules were told something: their effects are to be done. */
  readonly told: () => void;
}

export class BirthsLock {
  readonly #options: BirthsLockOptions;
  readonly #state: CoherenceState;
  /** Held, asked for, or on its way out; null: none of these. */
  #lock: Lock | null = null;
  /** Who waits to look for an inode by its number, and how it is told that it cannot. */
  readonly #waiting = new Set<(error: Errno) => void>();
  /** dlmd has died, and nothing is asked of it. */
  #isAlone = false;

  constructor(options: BirthsLockOptions, state: CoherenceState) {
    this.#options = options;
    this.#state = state;
  }

  /** Asks for it, unless that is done or it is here. Nobody waits for it. */
  want(): void {
    if (this.#lock !== null || this.#isAlone) return;
    const { lockspace, told } = this.#options;
    const lock = lockspace.createLock(BIRTHS, {
      ast: (of, status) => {
        if (status === "unlocked") this.#lock = null;
        else if (this.#isGranted(of, status)) beginBirths(this.#state);
      },
      bast: () => {
        endBirths(this.#state);
        told();
      },
    });
    this.#lock = lock;
    this.#state.effects.push({ do: "request-births", request: () => lock.request(Mode.CW, 0) });
    told();
  }

  #isGranted(lock: Lock, status: string): boolean {
    if (status === "error") this.#options.fail(lock.error ?? new Error(`dlmd refused a request for ${lock.resource}`));
    return status === "granted";
  }

  /** All that was born under it is known. */
  unlock(): void {
    if (this.#lock === null) throw new AssertionError("the lock of births is to be given up, and is not here");
    if (!this.#isAlone) this.#lock.unlock(0);
  }

  /**
   * Resolves when each inode of the volume is known to dlmd, and stays so until what this gives is called. Rejects with Errno EINTR. It is kept for as long as the
   * owner takes for an answer (hazard H13), and no maker waits for it.
   */
  visit(waiter: Waiter): Promise<() => void> {
    if (waiter.interrupted || this.#isAlone) return Promise.reject(errnoError(E.EINTR));
    return new Promise((resolve, reject) => {
      let isOver = false;
      const end = (): void => {
        isOver = true;
        waiter.onInterrupt = null;
        this.#waiting.delete(refuse);
      };
      const lock = this.#options.lockspace.createLock(BIRTHS, {
        ast: (of, status) => {
          if (status === "unlocked" || !this.#isGranted(of, status)) return;
          if (isOver) return this.#leave(of);
          end();
          resolve(() => this.#leave(of));
        },
        bast: () => undefined,
      });
      const refuse = (error: Errno): void => {
        end();
        if (!this.#isAlone) lock.cancel();
        reject(error);
      };
      waiter.onInterrupt = (): void => refuse(errnoError(E.EINTR));
      this.#waiting.add(refuse);
      const request = (): void => {
        if (!isOver) lock.request(Mode.PR, LockFlag.MAYKEEP);
      };
      this.#state.effects.push({ do: "request-births", request });
      this.#options.told();
    });
  }

  #leave(lock: Lock): void {
    if (!this.#isAlone && lock.exists) lock.unlock(0);
  }

  /** They are told that. */
  refuseVisits(error: Errno): void {
    for (const refuse of this.#waiting) refuse(error);
  }

  /** dlmd has died (hazard F42): what is here stays, and what is not does not come. */
  beAlone(): void {
    this.#isAlone = true;
    this.refuseVisits(errnoError(E.EINTR));
  }

  /** The mount has ended. */
  drop(): void {
    this.#state.birthsFrom = 0;
    if (this.#lock !== null && this.#lock.exists && !this.#lock.busy) this.#leave(this.#lock);
  }
}

/**
 * The lock of births (hazard F51): each node that makes files has it CW. An inode that is born under it (lock/new-inodes.ts) nobody else can know: not by the
 * directory that names it, whose lock is here, and not by its number, because who has found one by that gets this lock PR before it goes on. Makers give it up
 * when all that was born is known to dlmd, and do not wait for it: what is made without it is told to dlmd at once.
 *
 * PR is enough behind the look. When it is granted, all that was born until then is known. And what the look found, and was not born yet, was asked for before: the
 * lock is not here all the time since (mayBeBorn). So it is kept until a maker wants it, and each look that ends meanwhile goes on.
 */
import { AssertionError } from "../../dlmd/base/assert.ts";
import { E, type Errno, errnoError } from "../../dlmd/base/errno.ts";
import type { Lock, Lockspace } from "../../dlmd/client/api.ts";
import type { MaybePromise } from "../../dlmd/base/maybe-promise.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import type { Waiter } from "./api.ts";
import type { CoherenceState } from "./effect.ts";
import { beginBirths, endBirths } from "./lock/new-inodes.ts";

/** As that of an inode's lock: there is none of that number. */
export const BIRTHS_KEY = "0.0";

/** A maker that had to give it up asks for it so much later: somebody who looks may look again. */
export const BIRTHS_REST_MS = 5;

export interface BirthsLockOptions {
  readonly lockspace: Lockspace;
  /** Milliseconds of a monotonic clock. */
  readonly now: () => number;
  /** dlmd broke a promise. */
  readonly fail: (error: Error) => void;
  /** Effects are to be done. */
  readonly run: () => void;
}

/** Somebody who has found an inode by its number. */
interface Look {
  readonly goOn: () => void;
  readonly refuse: (error: Errno) => void;
}

export class BirthsLock {
  readonly #options: BirthsLockOptions;
  readonly #state: CoherenceState;
  /** CW: held, asked for, or on its way out; null: none of these. */
  #making: Lock | null = null;
  /** PR, the same ... */
  #looking: Lock | null = null;
  /** ... and it is here, and no maker wants it. */
  #isKnown = false;
  readonly #looks = new Set<Look>();
  #restsUntil = Number.NEGATIVE_INFINITY;
  /** Nothing is asked of dlmd any more: it has died, or the mount has ended. */
  #isOver = false;

  constructor(options: BirthsLockOptions, state: CoherenceState) {
    this.#options = options;
    this.#state = state;
  }

  /** Asks for CW, unless that is done or it is here. */
  want(): void {
    if (this.#making !== null || this.#isOver || this.#options.now() < this.#restsUntil) return;
    const lock = this.#create({
      granted: () => beginBirths(this.#state),
      wanted: () => {
        this.#restsUntil = this.#options.now() + BIRTHS_REST_MS;
        endBirths(this.#state);
      },
      unlocked: () => (this.#making = null),
    });
    this.#making = lock;
    this.#later(() => lock.request(Mode.CW, 0));
  }

  /** All that was born under CW is known. */
  unlock(): void {
    if (this.#making === null) throw new AssertionError("the lock of births is to be given up, and is not here");
    if (!this.#isOver) this.#making.unlock(0);
  }

  /** Resolves when each inode that the lower has had until now is known to dlmd. Rejects with Errno EINTR. */
  untilKnown(waiter: Waiter): MaybePromise<void> {
    if (this.#isOver || waiter.interrupted) return Promise.reject(errnoError(E.EINTR));
    if (this.#isKnown && !this.#state.suspended) return undefined;
    return new Promise((resolve, reject) => {
      const end = (): void => {
        waiter.onInterrupt = null;
        waiter.lockKey = null;
        this.#looks.delete(look);
      };
      const look: Look = {
        goOn: () => {
          end();
          resolve();
        },
        refuse: (error) => {
          end();
          reject(error);
        },
      };
      waiter.onInterrupt = (): void => look.refuse(errnoError(E.EINTR));
      waiter.lockKey = BIRTHS_KEY;
      this.#looks.add(look);
      this.#later(() => this.#ask());
    });
  }

  #ask(): void {
    if (this.#isKnown) return this.#goOn();
    // One that is on its way out is asked for anew when it has gone.
    if (this.#looking !== null || this.#looks.size === 0) return;
    const lock = this.#create({
      granted: () => {
        this.#isKnown = true;
        this.#goOn();
      },
      wanted: () => {
        if (!this.#isKnown) return;
        this.#isKnown = false;
        this.#later(() => lock.unlock(0));
      },
      unlocked: () => {
        this.#looking = null;
        if (this.#looks.size > 0) this.#later(() => this.#ask());
      },
    });
    this.#looking = lock;
    lock.request(Mode.PR, 0);
  }

  #goOn(): void {
    for (const look of this.#looks) look.goOn();
  }

  #create(told: { readonly granted: () => void; readonly wanted: () => void; readonly unlocked: () => void }): Lock {
    const { lockspace, run, fail } = this.#options;
    return lockspace.createLock(`i${BIRTHS_KEY}`, {
      ast: (lock, status) => {
        if (status === "error") fail(lock.error ?? new Error(`dlmd refused a request for ${lock.resource}`));
        else if (status === "unlocked") told.unlocked();
        else if (status === "granted" && this.#isOver) lock.unlock(0);
        else if (status === "granted") told.granted();
        run();
      },
      bast: () => {
        told.wanted();
        run();
      },
    });
  }

  /** Not without the lease. */
  #later(act: () => void): void {
    const ask = (): void => {
      if (!this.#isOver) act();
    };
    this.#state.effects.push({ do: "ask-births", ask });
    this.#options.run();
  }

  refuseLooks(error: Errno): void {
    for (const { refuse } of this.#looks) refuse(error);
  }

  /** dlmd has died (hazard F42): what is here stays, and what is not does not come. */
  beAlone(): void {
    this.#isOver = true;
    this.refuseLooks(errnoError(E.EINTR));
  }

  /** The mount has ended. What is on its way is given back when it comes. */
  drop(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#state.birthsFrom = 0;
    for (const lock of [this.#making, this.#looking]) {
      if (lock?.exists === false) lock.cancel();
      else if (lock?.busy === false) lock.unlock(0);
    }
  }
}

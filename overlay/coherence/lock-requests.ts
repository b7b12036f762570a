/**
 * The locks of a mount at dlmd: one for each inode that is or was cached here (`i...`), one for each write token (`w...`). What dlmd
 * answers goes to the rules of this room.
 */
import { AssertionError } from "../../dlmd/base/assert.ts";
import { LockFlag } from "../../dlmd/client/api.ts";
import type { Lock, LockHandlers, LockStatus, Lockspace } from "../../dlmd/client/api.ts";
import { E, errnoError } from "../../dlmd/base/errno.ts";
import { Mode, modeCovers } from "../../dlmd/wire/mode.ts";
import { type Cover, tokenHeld } from "./cover.ts";
import type { WriteToken } from "./cover-parts.ts";
import type { CoherenceState, TokenRequest } from "./effect.ts";
import { handleAst, handleBast, keepAlone, refuseUncovered } from "./lock/lock-cache.ts";
import { resumeRevoke } from "./lock/revoke.ts";
import { handleTokenAst, handleTokenBast, TOKEN_WAIT_MS } from "./lock/write-token.ts";

export interface LockRequestsOptions {
  readonly lockspace: Lockspace;
  /** Milliseconds of a monotonic clock. */
  readonly now: () => number;
  /** dlmd broke a promise. */
  readonly fail: (error: Error) => void;
  /** The rules were told something: their effects are to be done. */
  readonly told: (cover: Cover) => void;
}

/** The handlers of all inodes' locks, which are called with the cover. */
export class LockRequests implements LockHandlers<Cover> {
  readonly counts: { lockRequests: number; bastsReceived: number } = { lockRequests: 0, bastsReceived: 0 };
  readonly #options: LockRequestsOptions;
  readonly #state: CoherenceState;
  #locks = 0;
  readonly #tokenLocks = new Map<Cover, { readonly lock: Lock; readonly token: WriteToken }>();
  /** New locks asked for while the old one of the inode is still being given up. */
  readonly #early = new Map<Cover, { readonly lock: Lock; readonly mode: Mode }>();
  /** dlmd has died, and nothing is asked of it. */
  isAlone = false;
  /** Since then: the kernel has locked a page of these, under PR, for a WRITE that has no answer. They can not be given up. */
  readonly keptAlone: Set<Cover> = new Set();

  constructor(options: LockRequestsOptions, state: CoherenceState) {
    this.#options = options;
    this.#state = state;
  }

  /** Locks that dlmd has of this mount, write tokens included. */
  get held(): number {
    return this.#locks + this.#tokenLocks.size;
  }

  request(cover: Cover, mode: Mode, flags: number): void {
    if (this.isAlone) return this.#answerAlone(cover, mode);
    if (mode === Mode.NL) return this.#giveUp(cover);
    const early = this.#early.get(cover);
    this.#early.delete(cover);
    if (early !== undefined && mode === early.mode && flags === 0) {
      cover.lock = early.lock;
      return;
    }
    // Not what is wanted after all: it is taken back, or given back as soon as it comes (`ast`).
    early?.lock.cancel();
    if (cover.lock === null) this.#locks += 1;
    cover.lock ??= this.#create(cover);
    this.counts.lockRequests += 1;
    cover.lock.request(mode, flags);
  }

  /**
   * NL is to let go of it: what is asked for later is a new lock then, behind all who wait. As a conversion it would stand in the
   * convert queue, before the conversion in place that has to come first (lock-cache.ts), and the two would wait for each other.
   */
  #giveUp(cover: Cover): void {
    const { lock } = cover;
    if (lock === null) throw new AssertionError(`no lock of ${cover.key} to be given up`);
    this.counts.lockRequests += 1;
    lock.unlock(0);
  }

  /**
   * Beside the request for NL: asks for that mode in the same message, as a lock of its own, because the old one is there until dlmd has said that
   * it is gone. The next `request` but that takes it over if that is what it wants.
   */
  requestEarly(cover: Cover, mode: Mode): void {
    const lock = this.#create(cover);
    this.#early.set(cover, { lock, mode });
    this.counts.lockRequests += 1;
    lock.request(mode, 0);
  }

  #create(cover: Cover): Lock {
    return this.#options.lockspace.createLock(`i${cover.key}`, this, cover);
  }

  ast(lock: Lock, status: LockStatus, cover: Cover): void {
    if (status === "error") {
      this.#options.fail(lock.error ?? new Error(`dlmd refused a request for ${lock.resource}`));
      return;
    }
    if (lock !== cover.lock) {
      // One that was asked for early and is not wanted.
      if (status === "granted") {
        if (this.#early.get(cover)?.lock === lock) this.#early.delete(cover);
        lock.unlock(0);
      }
      return;
    }
    const givenUp = status === "unlocked";
    if (givenUp && cover.asking !== Mode.NL) return;
    handleAst(this.#state, cover, givenUp ? "granted" : status, lock.mode, this.#options.now());
    this.#options.told(cover);
  }

  bast(lock: Lock, wanted: Mode, cover: Cover): void {
    if (lock !== cover.lock) return;
    this.counts.bastsReceived += 1;
    handleBast(this.#state, cover, wanted, this.#options.now());
    this.#options.told(cover);
  }

  requestToken(cover: Cover, how: TokenRequest | null): void {
    if (this.isAlone) return this.#answerTokenAlone(cover);
    const token = cover.token;
    if (token === null) throw new AssertionError(`no write token asked for ${cover.key}`);
    let timer: NodeJS.Timeout | null = null;
    const lock = this.#options.lockspace.createLock(`w${cover.key}`, {
      ast: (of, status) => {
        if (timer !== null) clearTimeout(timer);
        if (status === "unlocked") return;
        if (status === "error") {
          this.#options.fail(of.error ?? new Error(`dlmd refused a request for ${of.resource}`));
          return;
        }
        if (status !== "granted") this.#tokenLocks.delete(cover);
        handleTokenAst(this.#state, cover, token, status, this.#options.now());
        this.#options.told(cover);
      },
      bast: () => {
        // One that is on its way out is given up already; a later one is another lock.
        if (cover.token !== token) return;
        handleTokenBast(this.#state, cover, token);
        this.#options.told(cover);
      },
    });
    this.#tokenLocks.set(cover, { lock, token });
    this.counts.lockRequests += 1;
    // What was born here can not be held elsewhere: it is not taken back.
    if (!this.#state.registering.has(token)) timer = setTimeout(() => lock.cancel(), TOKEN_WAIT_MS);
    // It is kept while the file is open here: a blocking AST may find no answer for hours (hazard H13).
    lock.request(Mode.PW, LockFlag.MAYKEEP | (how === "first" ? LockFlag.HEADQUE : how === "kept" ? LockFlag.ORPHAN : 0));
  }

  unlockToken(cover: Cover): void {
    const held = this.#tokenLocks.get(cover);
    this.#tokenLocks.delete(cover);
    if (this.isAlone) return;
    held?.lock.unlock(0);
  }

  // --- dlmd has died (hazard F42)

  /** What was asked for is answered here, and so is what will be. */
  beAlone(covers: Iterable<Cover>): void {
    this.isAlone = true;
    this.#early.clear();
    for (const cover of covers) {
      if (cover.asking !== null) this.#answerAlone(cover, cover.asking);
      this.#answerTokenAlone(cover);
    }
  }

  /**
   * What is given up is gone, and what was born here is nobody else's. For all else somebody would have to be asked: who waits for it is told EINTR. Where the kernel waits for
   * the page of one of them, PR stays: it cannot drop what it has.
   */
  #answerAlone(cover: Cover, mode: Mode): void {
    // Answered when dlmd died, while it waited for the lease.
    if (cover.asking !== mode) return;
    const isGranted = cover.registering || modeCovers(cover.mode, mode);
    if (isGranted && mode === Mode.NL && cover.lock !== null) {
      cover.lock = null;
      this.#locks -= 1;
    }
    if (isGranted) handleAst(this.#state, cover, "granted", mode, this.#options.now());
    else this.#refuseAlone(cover);
    this.#options.told(cover);
  }

  #refuseAlone(cover: Cover): void {
    const error = errnoError(E.EINTR);
    // Only the token's holder has pages locked for a WRITE. So nobody else waits for a conversion of that lock, which would come before who asks for it later.
    const holdsPage = tokenHeld(cover) && cover.waiters.some((waiter) => waiter.passes && !modeCovers(cover.mode, waiter.mode));
    refuseUncovered(this.#state, cover, error);
    if (holdsPage && cover.mode === Mode.PR) {
      this.keptAlone.add(cover);
      keepAlone(this.#state, cover, error);
    } else if (cover.phase === "draining" || cover.phase === "invalidating") {
      // Who wanted more has gone: the revoke goes on.
      cover.asking = null;
      resumeRevoke(this.#state, cover, this.#options.now());
    } else handleAst(this.#state, cover, "canceled", cover.mode, this.#options.now());
  }

  /** Once: what had to wait for the lease is answered when dlmd dies, and is asked for here after that. */
  #answerTokenAlone(cover: Cover): void {
    const { token } = cover;
    if (token === null) return;
    const isBorn = this.#state.registering.has(token);
    if (token.state !== "asking" && !isBorn) return;
    handleTokenAst(this.#state, cover, token, isBorn ? "granted" : "canceled", this.#options.now());
    this.#options.told(cover);
  }

  /** Nobody here wants anything of that inode any more. */
  drop(cover: Cover): void {
    const canWait = cover.wanted === Mode.NL && cover.token?.wanted !== true;
    this.#unlockIdle(cover, canWait);
    unlockIdle(this.#tokenLocks.get(cover)?.lock, canWait);
    this.#tokenLocks.delete(cover);
  }

  #unlockIdle(cover: Cover, canWait = false): void {
    if (cover.lock === null) return;
    unlockIdle(cover.lock, canWait);
    cover.lock = null;
    this.#locks -= 1;
  }

  dropAll(covers: Iterable<Cover>): void {
    for (const cover of covers) this.#unlockIdle(cover);
    for (const { lock } of this.#tokenLocks.values()) unlockIdle(lock);
    this.#tokenLocks.clear();
  }
}

/** A lock that was never granted is not known to dlmd; one with a request outstanding goes with the connection. */
function unlockIdle(lock: Lock | undefined, canWait = false): void {
  if (lock !== undefined && lock.exists && !lock.busy) lock.unlock(0, undefined, canWait);
}

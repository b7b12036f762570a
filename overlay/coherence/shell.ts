/**
 * What the pure rules of this room want done (effect.ts), in the order and the turn in which it arises: requests to the lock manager
 * (lock-requests.ts), notifications of the kernel (revoke-round.ts), timers, answers to those who wait. And what concerns all locks of the mount: the lease,
 * the owner's death, the end. Operations see pins.ts.
 */
import { assertNever } from "../../dlmd/base/assert.ts";
import { E, type Errno, errnoError } from "../../dlmd/base/errno.ts";
import type { Log } from "../../dlmd/base/log.ts";
import type { Lockspace } from "../../dlmd/client/api.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import { type Cover, type Inode, type InodeKind, inodesOf, mayBeCached } from "./cover.ts";
import type { FileId } from "../lower/lower.ts";
import type { Coherence, SessionCoherence } from "./api.ts";
import { LOWERED_THEN, registerBorn, takeOldest, type RegisterOptions } from "./lock/new-inodes.ts";
import { CacheLimit } from "./lock/cache-limit.ts";
import type { CallerThreads } from "../caller/threads.ts";
import { CoverTable } from "./lock/cover-table.ts";
import { CoherenceState, type Effect, type InvalidationPlan, type TimerPurpose } from "./effect.ts";
import { Invalidation, type KernelCaches } from "./kernel/revoke-round.ts";
import { addWaiter, distrustCovers, handleTimerOf, isCovered, pump, refuseWaiters } from "./lock/lock-cache.ts";
import type { MaybePromise } from "../../dlmd/base/maybe-promise.ts";
import { BirthsLock } from "./births-lock.ts";
import { LockRequests } from "./lock-requests.ts";
import type { OwnInodes } from "./size/own-inodes.ts";
import { Pins, type PinsHost } from "./pins.ts";
import { handleInvalidated, lower } from "./lock/revoke.ts";
import { SizeCheck, type SizeCounters } from "./size/check.ts";
import { mustBeTaken } from "./size/doubt.ts";
import { Rest } from "./rest.ts";
import { Suspension } from "./suspension.ts";
import { ToldNames } from "./told-names.ts";

export interface CoherenceShellOptions {
  readonly lockspace: Lockspace;
  readonly caches: KernelCaches;
  readonly ownInodes: OwnInodes;
  readonly callerThreads: CallerThreads;
  /** Inodes that the kernel may have cached at a time (cache-limit.ts). */
  readonly cachedMax: number;
  /** Milliseconds of a monotonic clock. */
  readonly now: () => number;
  readonly log: Log;
  /** Before no lock of that inode is here any more: what this node has promised to the kernel and not told the owner (hazard F22). */
  readonly leaving?: (id: FileId) => MaybePromise<void>;
  /** A lock is wanted elsewhere, and waits for operations that are under it. */
  readonly draining?: () => void;
  /** The lock manager broke a promise: this node knows no more what it holds. */
  readonly fail: (error: Error) => void;
}

export interface CoherenceCounters extends Readonly<SizeCounters> {
  /** Locks that dlmd has of this mount, write tokens included. */
  readonly locksHeld: number;
  readonly lockRequests: number;
  readonly bastsReceived: number;
  readonly revokes: number;
  readonly revokeRounds: number;
  readonly namesExpired: number;
  /** Listings whose thread had not installed all names after LISTING_WAIT_MS. */
  readonly listingsLeft: number;
  readonly epochs: number;
  /** Inodes whose caches were dropped because the lease ended, or all that is cached was in doubt. */
  readonly inodesDropped: number;
  /** Locks given up because too many inodes were cached for what can be dropped at the end of the lease. */
  readonly inodesEvicted: number;
  /** Inodes with a lock state here, those that the kernel has forgotten included. */
  readonly covers: number;
  /** Born here and not known to dlmd yet. */
  readonly unregistered: number;
}

/** Hazard F39. An inode that the kernel has not found so often, in some 10 ms, was never told to it by the process before: a FORGET would have come. */
const UNSURE_MISSES = 6;
/** What was born is made known after this time even if nobody asks: by then most of it is at rest, or gone again. A file in use waits once more. */
const REGISTER_DELAY_MS = 1000;
/** Between two turns in which files that were made here are lowered (hazard F34): operations come between. */
const LOWER_DELAY_MS = 5;
/** From so many unregistered locks on ... */
const UNREGISTERED_MAX = 256;
/** ... that many are made known at once, the oldest: a revoke of a directory waits for all that are left. */
const REGISTER_BATCH = 128;

/** Hazard F23: a mount that keeps its locks does none of these. */
const lockEffects: ReadonlySet<Effect["do"]> = new Set([
  "request",
  "request-token",
  "unlock-token",
  "ask-births",
  "unlock-births",
  "expect",
  "ask-anew",
]);

export class CoherenceShell implements SessionCoherence, PinsHost {
  readonly operations: Coherence;
  readonly #options: CoherenceShellOptions;
  readonly #state: CoherenceState = new CoherenceState();
  readonly #covers: CoverTable;
  readonly #locks: LockRequests;
  readonly #births: BirthsLock;
  readonly #invalidation: Invalidation;
  readonly #sizes: SizeCheck;
  readonly #limit: CacheLimit;
  readonly #suspension: Suspension;
  /** For another process of this mount. */
  readonly rest: Rest;
  #evicting = false;
  /** Births until the last time that all were made known, but for what was in use. */
  #bornBefore = 0;
  #registerTimer: NodeJS.Timeout | null = null;
  #lowerTimer: NodeJS.Timeout | null = null;
  /** So many files at most are to be lowered still. */
  #toLower = 0;
  /** Effects are being done. */
  #running = false;
  #closed = false;
  /** Every lock was given back. */
  #gaveBack = false;
  #keepsLocks = false;

  constructor(options: CoherenceShellOptions) {
    this.#options = options;
    const { lockspace, caches, callerThreads, now, log, fail } = options;
    const state = this.#state;
    const told = (cover: Cover): void => {
      this.run();
      if (cover.phase === "draining") options.draining?.();
      this.#limit.changed(cover);
      this.#covers.ended(cover);
    };
    this.#locks = new LockRequests({ lockspace, now, fail, told }, state);
    this.#covers = new CoverTable(state, (cover) => {
      if (!this.#keepsLocks) this.#locks.drop(cover);
    });
    this.#births = new BirthsLock({ lockspace, now, fail, run: () => this.run() }, state);
    this.#invalidation = new Invalidation(caches, state, () => this.#closed, fail);
    this.#suspension = new Suspension({
      cached: () => inodesOf(this.#covers.all()).filter(({ cover }) => mayBeCached(cover)),
      drop: (inodes) => this.#invalidation.dropAll(inodes),
      goOn: (effects) => {
        state.suspended = false;
        state.effects.push(...effects);
        this.run();
        this.#lowerLater();
      },
      now,
      log,
      fail,
    });
    this.#sizes = new SizeCheck(options.ownInodes, callerThreads, state, () => this.#suspension.active);
    this.#limit = new CacheLimit(options.cachedMax);
    this.rest = new Rest({
      state,
      covers: this.#covers,
      locks: this.#locks,
      now,
      register: () => this.#register({ shared: false }),
      run: () => this.run(),
    });
    this.operations = new Pins(state, {
      host: this,
      sizes: this.#sizes,
      names: new ToldNames(state, this.#invalidation, { mayBeValid: caches.incrementEpoch !== null, now }),
      invalidation: this.#invalidation,
      births: this.#births,
      callerThreads,
      now,
      cachesNothing: caches.cachesNothing === true,
    });
  }

  /** Coherence.grantId, by identity: 0 also for an inode without a lock here. */
  grantId(id: FileId): number {
    const cover = this.#covers.find(id);
    return cover !== undefined && isCovered(this.#state, cover) ? cover.heldSince : 0;
  }

  get counters(): CoherenceCounters {
    return {
      ...this.#locks.counts,
      ...this.#invalidation.counts,
      ...this.#sizes.counts,
      ...this.#limit.counts,
      locksHeld: this.#locks.held,
      covers: this.#covers.size,
      unregistered: this.#state.unregistered.size,
    };
  }

  // --- effects

  run(): void {
    // An effect may run rules that leave more effects: the outermost call does them all, in order.
    if (this.#running) return;
    this.#running = true;
    const { effects } = this.#state;
    try {
      for (let at = 0; at < effects.length; at += 1) this.#perform(effects[at] as Effect);
    } finally {
      if (effects.length > 0) effects.length = 0;
      this.#running = false;
    }
  }

  #perform(effect: Effect): void {
    // A revoke that was on its way goes on when its notification or its timer ends: there is nothing left to be given up.
    if (this.#gaveBack && effect.do !== "settle") return;
    if (this.#keepsLocks && lockEffects.has(effect.do)) return;
    if (this.#suspension.takes(effect)) return;
    switch (effect.do) {
      case "request":
        this.#locks.request(effect.cover, effect.mode, effect.flags);
        return;
      case "settle":
        effect.waiter.settle(effect.error);
        return;
      case "settle-child":
        effect.waiter(effect.pinned);
        return;
      case "settle-token":
        effect.waiter(effect.result);
        return;
      case "expect":
        if (!this.#suspension.active && !this.rest.active && !this.#locks.isAlone) this.#expect(effect.cover);
        return;
      case "ask-anew":
        if (!this.#suspension.active && !this.#locks.isAlone) this.#locks.requestEarly(effect.cover, Mode.EX);
        return;
      case "invalidate":
        this.#invalidate(effect.cover, effect.plan).catch(this.#options.fail);
        return;
      case "timer":
        this.#setTimer(effect.cover, effect.purpose, effect.delayMs);
        return;
      case "lower-rest":
        this.#toLower = Math.max(this.#toLower, effect.files);
        this.#lowerLater();
        return;
      case "request-token":
        this.#locks.requestToken(effect.cover, effect.how ?? null);
        return;
      case "unlock-token":
        this.#locks.unlockToken(effect.cover);
        return;
      case "ask-births":
        effect.ask();
        return;
      case "unlock-births":
        this.#births.unlock();
        return;
      default:
        assertNever(effect, "effect");
    }
  }

  #setTimer(cover: Cover, purpose: TimerPurpose, delayMs: number): void {
    const { revoke } = cover;
    setTimeout(() => {
      if (purpose === "strained" && cover.revoke !== revoke) return;
      handleTimerOf(purpose, this.#state, cover, this.#options.now());
      this.run();
    }, delayMs);
  }

  async #invalidate(cover: Cover, plan: InvalidationPlan): Promise<void> {
    const { inode } = cover;
    if (cover.revoke?.target === Mode.NL) {
      const told = this.#options.leaving?.(cover.id);
      if (told !== undefined) await told;
    }
    if (inode !== null && plan.what === "pages-and-size" && this.#sizes.revoke.unsettled(cover)) await this.#sizes.revoke.settle(inode);
    else if (inode !== null && cover.revoke?.target === Mode.PR && mustBeTaken(cover)) await this.#sizes.revoke.taken(inode);
    const { missed, cut } = await this.#invalidation.round(cover, plan);
    if (missed && (cover.revoke?.misses ?? 0) >= UNSURE_MISSES) this.#noteUnknown(cover.inode);
    handleInvalidated(this.#state, cover, missed, this.#options.now(), cut);
    this.run();
  }

  #noteUnknown(inode: Inode | null): void {
    if (inode !== null && (inode.unsure ?? 0) > 0) this.operations.onUnknown?.(inode);
  }

  #expect(cover: Cover): void {
    const { inode } = cover;
    const tell = this.operations.onExpected;
    if (inode === null || tell === null || this.#state.abandoned || this.#closed) return;
    const settle = (error: Errno | null): void => {
      if (error !== null) return;
      if (cover.inode === inode) tell(inode);
      else {
        // Forgotten meanwhile.
        this.operations.unpin(inode, Mode.PR);
        this.#covers.ended(cover);
      }
    };
    this.#locks.requestEarly(cover, Mode.PR);
    addWaiter(this.#state, cover, { mode: Mode.PR, passes: false, expected: true, settle }, this.#options.now());
  }

  // --- what is not done at once

  noteBorn(): void {
    this.#registerTimer ??= setTimeout(() => this.#registerAll(), REGISTER_DELAY_MS);
    if (this.#state.unregistered.size >= UNREGISTERED_MAX) this.#register({ shared: false, keeps: true, count: REGISTER_BATCH });
  }

  #registerAll(): void {
    this.#registerTimer = null;
    for (const cover of this.#state.unregistered) this.#sizes.own.forgetEnded(cover);
    this.#register({ shared: false, keeps: true, inUseAfter: this.#bornBefore });
    this.#bornBefore = this.#state.births;
    if (this.#state.unregistered.size > 0) this.noteBorn();
  }

  /** Not without the lease: what is given up meanwhile has to be dropped once more. */
  get #mayLower(): boolean {
    const { suspended, abandoned } = this.#state;
    return !suspended && !abandoned && !this.#closed && !this.#keepsLocks;
  }

  #lowerLater(): void {
    if (this.#toLower > 0 && this.#mayLower) this.#lowerTimer ??= setTimeout(() => this.#lowerRest(), LOWER_DELAY_MS);
  }

  #lowerRest(): void {
    this.#lowerTimer = null;
    if (!this.#mayLower) return;
    this.#toLower -= LOWERED_THEN;
    lower(this.#state, takeOldest(this.#state), this.#options.now());
    this.run();
    this.#lowerLater();
  }

  #register(which: RegisterOptions): void {
    if (this.#closed) return;
    registerBorn(this.#state, which);
    this.run();
  }

  noteCached(cover: Cover): void {
    if (this.#limit.told(cover) && !this.#evicting) this.#evict();
  }

  #evict(): void {
    this.#evicting = true;
    const { log, now, cachedMax } = this.#options;
    if (this.#limit.counts.inodesEvicted === 0)
      log.warn(
        { cachedMax },
        "more inodes are cached than could be dropped in time at the end of the lease: from now on others give their locks up for each",
      );
    // Not in the turn of a reply.
    setImmediate(() => {
      this.#evicting = false;
      if (this.#closed || this.#state.abandoned || this.#suspension.active) return;
      this.#limit.evict(this.#state, now());
      this.run();
    });
  }

  // --- the mount

  createCover(id: FileId, kind: InodeKind): Cover {
    return this.#covers.take(id, kind);
  }

  removed(inode: Inode): void {
    this.#covers.removed(inode);
  }

  forgotten(inode: Inode): void {
    this.#covers.forgotten(inode);
    this.#limit.changed(inode.cover);
  }

  /**
   * The lease of this node ended (hazards C4, H1): all that its kernel caches is dropped, and no lock is asked for or given up before `resume`. Twice in
   * a row drops it once more, when that is done. `answered`: answers of before have just been given, so what is given up next is dropped once more.
   */
  suspend(): void {
    this.#state.suspended = true;
    this.#suspension.begin();
  }

  resume(answered: boolean): void {
    this.#suspension.end(answered);
  }

  /**
   * What was read of the lower may be gone (its owner died): none of it counts any more, whatever the locks say. Resolves when the kernel has dropped it, but for
   * what waits for a page.
   */
  async distrustAll(): Promise<void> {
    if (this.#closed || this.#state.abandoned) return;
    const covers = [...this.#covers.all()];
    distrustCovers(this.#state, covers);
    try {
      const { inodes, waiting, absent, over } = await this.#invalidation.dropAll(
        inodesOf(covers).filter(({ cover }) => mayBeCached(cover)),
      );
      over.catch(this.#options.fail);
      this.#options.log.info({ inodes, waiting, absent }, "the owner died: all that the kernel had cached was dropped");
    } catch (error) {
      this.#options.fail(error as Error);
    }
  }

  /**
   * The process before has crashed: what it had the kernel cache goes, but for pages of open files that wait for a request. The locks of these are here (`rest`). What the
   * kernel does not know it never got, or its FORGET was not read yet: nothing of this process is on its way there.
   */
  async dropBefore(inodes: readonly Inode[]): Promise<void> {
    const { over } = await this.#invalidation.dropAll(inodes, 0);
    over.catch(this.#options.fail);
  }

  /**
   * Hazard F39. One that is open, and of which dlmd has kept no lock, may have been made in the process before a moment ago, so that nobody else knows it; and a page of it may
   * wait for a READ. Whoever finds it has to ask here from now on. Where another node has it nothing is cached here.
   */
  async coverOpen(inodes: readonly Inode[]): Promise<void> {
    const open = inodes.filter(({ kind, openCount, cover }) => kind === "file" && openCount > 0 && cover.mode === Mode.NL);
    const since = this.operations.since();
    const covered = async (inode: Inode): Promise<void> => {
      const [pin] = await this.operations.pinChildren([inode], since, false);
      if (pin?.pinned !== true) return;
      this.operations.unpin(inode, Mode.PR);
      // Forgotten meanwhile.
      this.#covers.ended(inode.cover);
    };
    const all = Promise.all(open.map(covered));
    // Nobody may wait for it any more.
    all.catch(this.#options.fail);
    await all;
  }

  /** dlmd has died, and the lease holds (hazard F42): `rest` gives up what is here without it, and nobody gets a lock that is not here. */
  beAlone(): void {
    this.#births.beAlone();
    this.#locks.beAlone(this.#covers.all());
    this.run();
  }

  failWaiters(): void {
    this.#suspension.release();
    this.#state.abandoned = true;
    for (const cover of this.#covers.all()) refuseWaiters(this.#state, cover, errnoError(E.EIO));
    this.#births.refuseLooks(errnoError(E.EIO));
    this.run();
  }

  /**
   * This node does not know any more what it holds: drops everything that its kernel caches, whatever the locks say (hazards F7, H1).
   * Nothing is pinned from now on.
   */
  async abandon(): Promise<void> {
    // First, because the notifications wait for the pages of those who wait for a lock.
    this.failWaiters();
    const { over } = await this.#invalidation.dropAll(inodesOf(this.#covers.all()));
    await over;
  }

  retrieved(unique: number, data: Uint8Array): void {
    this.#invalidation.retrieved(unique, data);
  }

  #giveBack(): void {
    for (const cover of this.#covers.all()) {
      cover.inode = null;
      pump(this.#state, cover, this.#options.now());
    }
    this.run();
    this.#locks.dropAll(this.#covers.all());
    this.#births.drop();
  }

  /**
   * The mount is about to end, and a change of it may still be made: from now on no lock is given up or asked for. They go when nothing of this mount is
   * served any more, as those of a client that died (hazards C7, F23).
   */
  keepLocks(): void {
    this.#keepsLocks = true;
  }

  async close(isGiven: boolean = false): Promise<void> {
    this.#closed = true;
    if (this.#registerTimer !== null) clearTimeout(this.#registerTimer);
    if (this.#lowerTimer !== null) clearTimeout(this.#lowerTimer);
    if (!this.#keepsLocks) this.#giveBack();
    this.#gaveBack = true;
    const written = this.#options.caches.close();
    // Hazard F35.
    if (!isGiven) await written;
  }
}

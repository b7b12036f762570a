/**
 * The coherence layer as the op layer sees it (api.ts): the pure rules of this room over the lock manager's client (lock-requests.ts),
 * the notifications of the kernel (invalidation.ts), and timers. Effects are done in order, in the turn in which they arise.
 */
import { assertNever } from "../../dlmd/base/assert.ts";
import { E, Errno, errnoError } from "../../dlmd/base/errno.ts";
import type { Log } from "../../dlmd/base/log.ts";
import type { Lockspace } from "../../dlmd/client/api.ts";
import { Mode } from "../../dlmd/lock/mode.ts";
import type { Inode, InodeKind } from "../inode/inode.ts";
import type { PageRange } from "../inode/table.ts";
import { compareFileIds } from "../lower/lower.ts";
import type { FileId, Maybe } from "../lower/lower.ts";
import type { Stamp, Stamps } from "../lower/stamp.ts";
import type { Coherence, HeldPageDrop, PinMode, Waiter, Want } from "./api.ts";
import { bear, registerAll } from "./born.ts";
import { CacheLimit } from "./cache-limit.ts";
import type { CallerThreads } from "./caller-threads.ts";
import { attach, inodesOf, kernelKnows, mayBeCached } from "./cover.ts";
import type { ChildWaiter, Cover, PinWaiter } from "./cover.ts";
import { CoverTable } from "./cover-table.ts";
import { createCoherenceState } from "./effect.ts";
import type { CoherenceState, Effect, InvalidationPlan } from "./effect.ts";
import { droppedOrHeld } from "./held-page.ts";
import { Invalidation, type KernelCaches } from "./invalidation.ts";
import {
  addWaiter,
  distrustCovers,
  holdOf,
  isCovered,
  pinChild,
  pump,
  refuseWaiters,
  removeWaiter,
  tryPin,
  unpin,
  unpinData,
} from "./lock-cache.ts";
import { LockRequests } from "./lock-requests.ts";
import type { OwnInodes } from "./own-inodes.ts";
import { handleInvalidated, handleRetryTimer, handleTimer, isStillHeld } from "./revoke.ts";
import type { KernelSizes } from "./kernel-sizes.ts";
import { SizeCheck, type SizeCounters } from "./size-check.ts";
import { mustBeTaken } from "./size-doubt.ts";
import { Suspension } from "./suspension.ts";
import { attributesChanged, tellAttributes } from "./told-attributes.ts";
import { ToldNames } from "./told-names.ts";
import { closeToken, openToken } from "./write-token.ts";

export interface CoherenceShellOptions {
  readonly lockspace: Lockspace;
  readonly caches: KernelCaches;
  readonly stamps: Stamps;
  readonly ownInodes: OwnInodes;
  readonly callerThreads: CallerThreads;
  /** Inodes that the kernel may have cached at a time (cache-limit.ts). */
  readonly cachedMax: number;
  /** Milliseconds of a monotonic clock. */
  readonly now: () => number;
  readonly log: Log;
  /** The lock manager broke a promise: this node knows no more what it holds. */
  readonly fail: (error: Error) => void;
}

export interface CoherenceShell extends Coherence {
  /** The cover of that inode, cached from before or new: what the inode table puts into its records. */
  createCover(id: FileId, kind: InodeKind): Cover;
  /**
   * This node does not know any more what it holds: drops everything that its kernel caches, whatever the locks say (hazards F7, H1).
   * Nothing is pinned from now on.
   */
  abandon(): Promise<void>;
  /**
   * The lease of this node ended (hazards C4, H1): all that its kernel caches is dropped, and no lock is asked for or given up before `resume`. Twice in
   * a row drops it once more, when that is done. `answered`: answers of before have just been given, so what is given up next is dropped once more.
   */
  suspend(): void;
  resume(answered: boolean): void;
  /**
   * What was read of the lower may be gone (its owner died): none of it counts any more, whatever the locks say. Resolves when the kernel has dropped it, but for
   * what waits for a page.
   */
  distrustAll(): Promise<void>;
  /** The kernel has ended the connection: nobody waits for a lock any more, and nothing is pinned from now on (EIO). */
  letGo(): void;
  /** Gives every lock back: nothing is cached by the kernel any more (the mount has ended). */
  close(): Promise<void>;
  readonly counters: CoherenceCounters;
}

export interface CoherenceCounters extends Readonly<SizeCounters> {
  /** Locks that dlmd has of this mount, write tokens included. */
  readonly locksHeld: number;
  readonly lockRequests: number;
  readonly bastsReceived: number;
  readonly revokes: number;
  readonly revokeRounds: number;
  readonly namesExpired: number;
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

/** What was born is made known after this time even if nobody asks: a revoke then need not wait for it. */
const REGISTER_DELAY_MS = 25;
/** More unregistered locks than this are registered at once. */
const UNREGISTERED_MAX = 4096;
/** Bringing locks for a listing ends after this time: it is answered without what has not come. */
const BRING_WAIT_MS = 20;
const pinnedChild = { pinned: true, trip: false } as const;
const pinnedAnew = { pinned: true, trip: true } as const;
const unpinnedChild = { pinned: false, trip: false } as const;

export function createCoherenceShell(options: CoherenceShellOptions): CoherenceShell {
  return new Shell(options);
}

class Shell implements CoherenceShell {
  onExpected: ((inode: Inode) => void) | null = null;
  readonly #options: CoherenceShellOptions;
  readonly #state: CoherenceState = createCoherenceState();
  readonly #covers: CoverTable;
  readonly #locks: LockRequests;
  readonly #invalidation: Invalidation;
  readonly #sizes: SizeCheck;
  readonly names: ToldNames;
  readonly #limit: CacheLimit;
  #evicting = false;
  #registerTimer: NodeJS.Timeout | null = null;
  #draining = false;
  #closed = false;
  readonly #suspension: Suspension;

  constructor(options: CoherenceShellOptions) {
    this.#options = options;
    const { lockspace, now, fail } = options;
    const told = (cover: Cover): void => {
      this.#run();
      this.#limit.changed(cover);
      this.#covers.ended(cover);
    };
    this.#locks = new LockRequests({ lockspace, now, fail, told, stamps: options.stamps }, this.#state);
    this.#covers = new CoverTable(this.#state, (cover) => this.#locks.drop(cover));
    this.#invalidation = new Invalidation(options.caches, this.#state, () => this.#closed);
    this.names = new ToldNames(this.#state, this.#invalidation, { mayBeValid: options.caches.incrementEpoch !== null, now, fail });
    this.#suspension = new Suspension({
      cached: () => inodesOf(this.#covers.all()).filter(({ cover }) => mayBeCached(cover)),
      drop: (inodes) => this.#invalidation.dropAll(inodes),
      goOn: (effects) => {
        this.#state.effects.push(...effects);
        this.#run();
      },
      now,
      log: options.log,
      fail,
    });
    this.#sizes = new SizeCheck(options.ownInodes, options.callerThreads, this.#state, () => this.#suspension.active);
    this.#limit = new CacheLimit(options.cachedMax);
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

  createCover(id: FileId, kind: InodeKind): Cover {
    return this.#covers.take(id, kind);
  }

  get sizes(): KernelSizes {
    return this.#sizes;
  }

  // --- pins

  tryPin(inode: Inode, mode: PinMode): boolean {
    attach(inode);
    return !this.#state.abandoned && tryPin(inode.cover, mode);
  }

  pin(inode: Inode, mode: PinMode, waiter: Waiter): Promise<void> {
    return this.#wait(inode, mode, false, waiter, null);
  }

  #wait(inode: Inode, mode: PinMode, passes: boolean, waiter: Waiter, pages: PageRange | null): Promise<void> {
    attach(inode);
    const cover = inode.cover;
    if (waiter.interrupted) return Promise.reject(errnoError(E.EINTR));
    if (this.#state.abandoned) return Promise.reject(errnoError(E.EIO));
    return new Promise((resolve, reject) => {
      const queued: PinWaiter = {
        mode,
        passes,
        ...(pages === null ? {} : { pages }),
        settle: (error) => {
          waiter.onInterrupt = null;
          if (error === null) resolve();
          else reject(error);
        },
      };
      waiter.onInterrupt = (): void => {
        removeWaiter(this.#state, cover, queued, this.#options.now());
        this.#run();
      };
      addWaiter(this.#state, cover, queued, this.#options.now());
      this.#run();
    });
  }

  unpin(inode: Inode, mode: PinMode): void {
    const cover = inode.cover;
    if (mode === Mode.EX) this.#noteStamp(cover);
    if (cover.phase === "idle" && cover.wanted === Mode.NL && cover.pins > 0) {
      cover.pins -= 1;
      return;
    }
    unpin(this.#state, cover, this.#options.now());
    this.#run();
  }

  pinAll(wants: readonly Want[], waiter: Waiter): Maybe<void> {
    const ordered = orderWants(wants);
    for (let at = 0; at < ordered.length; at += 1) {
      const want = ordered[at] as Want;
      if (!this.tryPin(want.inode, want.mode)) return this.#pinRest(ordered, at, waiter);
    }
    return undefined;
  }

  async #pinRest(ordered: readonly Want[], from: number, waiter: Waiter): Promise<void> {
    for (let at = from; at < ordered.length; at += 1) {
      const want = ordered[at] as Want;
      if (this.tryPin(want.inode, want.mode)) continue;
      try {
        await this.pin(want.inode, want.mode, waiter);
      } catch (error) {
        for (const pinned of ordered.slice(0, at)) this.unpin(pinned.inode, pinned.mode);
        throw error;
      }
    }
  }

  unpinAll(wants: readonly Want[]): void {
    for (const want of orderWants(wants)) this.unpin(want.inode, want.mode);
  }

  get grants(): number {
    return this.#state.grants;
  }

  pinChild(inode: Inode, since: number): Maybe<{ readonly pinned: boolean; readonly trip: boolean }> {
    attach(inode);
    if (this.#state.abandoned) return unpinnedChild;
    let settle: ChildWaiter = unsettled;
    const now = pinChild(this.#state, inode.cover, (pinned) => settle(pinned));
    if (now === true) return inode.cover.grant > since ? pinnedAnew : pinnedChild;
    if (now === false) return unpinnedChild;
    const promise = new Promise<{ readonly pinned: boolean; readonly trip: boolean }>((resolve) => {
      settle = (pinned) => resolve({ pinned, trip: true });
    });
    this.#run();
    return promise;
  }

  stillHeld({ cover }: Inode, since: number): boolean {
    return !this.#state.abandoned && isStillHeld(cover) && cover.grant <= since;
  }

  pinChildren(inodes: readonly Inode[], since: number): Maybe<readonly { readonly pinned: boolean; readonly trip: boolean }[]> {
    const results = inodes.map((inode) => this.pinChild(inode, since));
    if (!results.some((result) => result instanceof Promise)) return results as { pinned: boolean; trip: boolean }[];
    return Promise.all(results.map((result) => Promise.resolve(result)));
  }

  async bring(inodes: readonly Inode[]): Promise<void> {
    const waiters = inodes.map((): Waiter => ({ interrupted: false, onInterrupt: null }));
    const timer = setTimeout(() => {
      for (const waiter of waiters) waiter.onInterrupt?.();
    }, BRING_WAIT_MS);
    const came = inodes.map(async (inode, at) => {
      try {
        await this.pin(inode, Mode.PR, waiters[at] as Waiter);
      } catch (error) {
        if (error instanceof Errno && error.errno === E.EINTR) return;
        throw error;
      }
      this.unpin(inode, Mode.PR);
    });
    try {
      await Promise.all(came);
    } finally {
      clearTimeout(timer);
    }
  }

  pinData(inode: Inode, mode: PinMode, cached: boolean, waiter: Waiter, pages: PageRange | null = null): Maybe<void> {
    attach(inode);
    if (!this.#state.abandoned && tryPin(inode.cover, mode)) return undefined;
    return this.#wait(inode, mode, cached, waiter, pages);
  }

  unpinData(inode: Inode, mode: PinMode): void {
    if (mode === Mode.EX) this.#noteStamp(inode.cover);
    unpinData(this.#state, inode.cover, this.#options.now());
    this.#run();
  }

  hold(inode: Inode): number {
    return this.#state.abandoned ? 0 : holdOf(inode.cover);
  }

  heldSince(inode: Inode): number {
    return isCovered(this.#state, inode.cover) ? inode.cover.grant : 0;
  }

  proves(inode: Inode, fetched: Stamp): boolean {
    return this.#locks.proves(inode.cover, fetched);
  }

  /** Something may have been changed, and what changed it has ended. */
  #noteStamp(cover: Cover): void {
    if (cover.kind === "file") cover.stamp = this.#options.stamps.since(cover.stampMark);
  }

  contended(inode: Inode): boolean {
    return inode.cover.returns > 0;
  }

  #expect(cover: Cover): void {
    const { inode } = cover;
    const tell = this.onExpected;
    if (inode === null || tell === null || this.#state.abandoned || this.#closed) return;
    const settle = (error: Errno | null): void => {
      if (error !== null) return;
      if (cover.inode === inode) tell(inode);
      else {
        // Forgotten meanwhile.
        this.unpin(inode, Mode.PR);
        this.#covers.ended(cover);
      }
    };
    this.#locks.requestEarly(cover);
    addWaiter(this.#state, cover, { mode: Mode.PR, passes: false, expected: true, settle }, this.#options.now());
  }

  get changes(): number {
    return this.#state.changes;
  }

  attributesChanged(inode: Inode, caller: number, held: boolean): Maybe<void> {
    if (!attributesChanged(this.#state, inode.cover, caller)) return undefined;
    return this.#invalidation.outdate(inode, held);
  }

  attrValid(inode: Inode, caller: number, since: number): boolean {
    if (!isCovered(this.#state, inode.cover) || !tellAttributes(inode.cover, caller, since)) return false;
    if (this.#limit.told(inode.cover) && !this.#evicting) this.#evict();
    return true;
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
      this.#run();
    });
  }

  dropPages(inode: Inode, offset: number, bytes: number): Promise<void> {
    return this.#invalidation.dropPages(inode, offset, bytes).dropped;
  }

  dropHeldPage(inode: Inode, offset: number, readers: readonly number[], isWrittenBack: () => boolean): HeldPageDrop {
    const dropping = this.#invalidation.dropPages(inode, offset, 1);
    return { dropped: dropping.dropped, gone: droppedOrHeld(dropping, readers, isWrittenBack, this.#options.callerThreads) };
  }

  raiseSize(inode: Inode, size: number, last: number): Promise<void> {
    return this.#invalidation.raiseSize(inode, size, last);
  }

  distrust(inodes: readonly Inode[], pages: boolean): Promise<void> {
    return this.#invalidation.distrust(inodes, pages);
  }

  // --- birth and death

  born(inode: Inode): boolean {
    attach(inode);
    const first = bear(this.#state, inode.cover, this.#options.now());
    if (this.#state.unregistered.size >= UNREGISTERED_MAX) this.#register();
    else this.#registerTimer ??= setTimeout(() => this.#register(), REGISTER_DELAY_MS);
    return first;
  }

  #register(): void {
    if (this.#registerTimer !== null) clearTimeout(this.#registerTimer);
    this.#registerTimer = null;
    if (this.#closed) return;
    registerAll(this.#state);
    this.#run();
  }

  removed(inode: Inode): void {
    this.#covers.removed(inode);
  }

  forgotten(inode: Inode): void {
    this.#covers.forgotten(inode);
    this.#limit.changed(inode.cover);
  }

  // --- write access

  openForWrite(inode: Inode, waiter: Waiter): Maybe<"cached" | "direct"> {
    attach(inode);
    const cover = inode.cover;
    if (this.#state.abandoned) return Promise.reject(errnoError(E.EIO));
    let settle: (result: "cached" | "direct") => void = unsettled;
    if (openToken(this.#state, cover, (result) => settle(result))) return "cached";
    if (waiter.interrupted) waiter.onInterrupt = null;
    const promise = new Promise<"cached" | "direct">((resolve, reject: (error: Errno) => void) => {
      settle = (result) => {
        if (waiter.interrupted) {
          if (result === "cached") closeToken(this.#state, cover);
          reject(errnoError(E.EINTR));
          this.#run();
        } else resolve(result);
      };
    });
    this.#run();
    return promise;
  }

  closeForWrite(inode: Inode): void {
    closeToken(this.#state, inode.cover);
    this.#run();
  }

  noteCachedWrite(inode: Inode): void {
    const token = inode.cover.token;
    if (token !== null) token.mapped = true;
  }

  readMode(inode: Inode, writable: boolean): PinMode {
    return writable && inode.cover.token?.mapped === true ? Mode.EX : Mode.PR;
  }

  // --- effects

  #run(): void {
    // An effect may run rules that leave more effects: the outermost call does them all, in order.
    if (this.#draining) return;
    this.#draining = true;
    const { effects } = this.#state;
    try {
      for (let at = 0; at < effects.length; at += 1) this.#perform(effects[at] as Effect);
    } finally {
      effects.length = 0;
      this.#draining = false;
    }
  }

  #perform(effect: Effect): void {
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
        if (!this.#suspension.active) this.#expect(effect.cover);
        return;
      case "invalidate":
        this.#invalidate(effect.cover, effect.plan).catch(this.#options.fail);
        return;
      case "timer":
        this.#setTimer(effect.cover, effect.purpose, effect.delayMs);
        return;
      case "request-token":
        this.#locks.requestToken(effect.cover);
        return;
      case "unlock-token":
        this.#locks.unlockToken(effect.cover);
        return;
      default:
        assertNever(effect, "effect");
    }
  }

  #setTimer(cover: Cover, purpose: "hold" | "retry" | "pass", delayMs: number): void {
    const handle = purpose === "retry" ? handleRetryTimer : handleTimer;
    setTimeout(() => {
      handle(this.#state, cover, this.#options.now());
      this.#run();
    }, delayMs);
  }

  async #invalidate(cover: Cover, plan: InvalidationPlan): Promise<void> {
    const { inode } = cover;
    if (inode !== null && plan.what === "pages-and-size" && this.#sizes.unsettled(cover)) await this.#sizes.settle(inode);
    else if (inode !== null && cover.target === Mode.PR && mustBeTaken(cover)) await this.#sizes.taken(inode);
    const { missed, cut } = await this.#invalidation.round(cover, plan);
    handleInvalidated(this.#state, cover, missed && kernelKnows(cover), this.#options.now(), cut);
    this.#run();
  }

  suspend(): void {
    this.#suspension.begin();
  }

  resume(answered: boolean): void {
    this.#suspension.end(answered);
  }

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

  letGo(): void {
    this.#suspension.release();
    this.#state.abandoned = true;
    for (const cover of this.#covers.all()) refuseWaiters(this.#state, cover, errnoError(E.EIO));
    this.#run();
  }

  async abandon(): Promise<void> {
    // First, because the notifications wait for the pages of those who wait for a lock.
    this.letGo();
    const { over } = await this.#invalidation.dropAll(inodesOf(this.#covers.all()));
    await over;
  }

  async close(): Promise<void> {
    this.#closed = true;
    if (this.#registerTimer !== null) clearTimeout(this.#registerTimer);
    for (const cover of this.#covers.all()) {
      cover.inode = null;
      pump(this.#state, cover, this.#options.now());
    }
    this.#run();
    this.#locks.dropAll(this.#covers.all());
    await this.#options.caches.close();
  }
}

function unsettled(): void {
  throw new Error("settled before it waited");
}

/** In the one lock order, each inode once, in the strongest mode asked. */
function orderWants(wants: readonly Want[]): readonly Want[] {
  const [first, second] = wants;
  // A directory and a file in it: nearly always two.
  if (wants.length === 2 && first !== undefined && second !== undefined && first.inode !== second.inode) {
    return compareFileIds(first.inode.id, second.inode.id) <= 0 ? wants : [second, first];
  }
  const sorted = [...wants].sort((a, b) => compareFileIds(a.inode.id, b.inode.id));
  const once: Want[] = [];
  for (const want of sorted) {
    const last = once.at(-1);
    if (last === undefined || last.inode !== want.inode) once.push(want);
    else if (want.mode > last.mode) once[once.length - 1] = want;
  }
  return once;
}

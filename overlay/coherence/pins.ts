/**
 * What operations hold and wait for (api.ts): the pure rules of this room as calls that return, give a promise, or end with an errno. Whatever a
 * rule leaves to be done (effect.ts) is done by the host, shell.ts, before the call returns.
 */
import { E, Errno, errnoError } from "../../dlmd/base/errno.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import { attach, type ChildPin, type ChildWaiter, type Cover, type Inode, type PinMode, type PinWaiter, type Since } from "./cover.ts";
import type { PagePart, PageRange } from "./page-range.ts";
import type { MaybePromise } from "../../dlmd/base/maybe-promise.ts";
import type { Coherence, HeldPageDrop, PageUsers, Waiter, Want } from "./api.ts";
import { enterUnregistered, mayBeBorn } from "./lock/new-inodes.ts";
import type { BirthsLock } from "./births-lock.ts";
import type { CallerThreads } from "../caller/threads.ts";
import type { CoherenceState } from "./effect.ts";
import { droppedOrHeld } from "./pages/held-page.ts";
import type { Invalidation } from "./kernel/revoke-round.ts";
import type { KernelNames } from "./names/kernel-names.ts";
import type { KernelSizes } from "./size/kernel-sizes.ts";
import { addWaiter, holdOf, isCovered, mayPin, pinChild, removeWaiter, tryPin, unpin, unpinData } from "./lock/lock-cache.ts";
import { orderWants } from "./lock/lock-order.ts";
import { isStillHeld } from "./lock/revoke.ts";
import { attributesChanged, tellAttributes } from "./kernel/told-attributes.ts";
import { closeToken, openToken } from "./lock/write-token.ts";
import { Terms, type TermsPort } from "./terms.ts";

export interface PinsHost {
  /** Does what the rules have left to be done. */
  run(): void;
  /** Something was born: it is to be made known to dlmd, though not at once. */
  noteBorn(): void;
  /** The kernel is told attributes with validity: one more that it has cached. */
  noteCached(cover: Cover): void;
}

export interface PinsOptions {
  readonly host: PinsHost;
  readonly sizes: KernelSizes;
  readonly names: KernelNames;
  readonly invalidation: Invalidation;
  readonly births: BirthsLock;
  readonly callerThreads: CallerThreads;
  /** Milliseconds of a monotonic clock. */
  readonly now: () => number;
  /** KernelCaches.cachesNothing (hazard F26). */
  readonly cachesNothing: boolean;
}

const pinnedChild: ChildPin = { pinned: true, trip: false };
const pinnedAnew: ChildPin = { pinned: true, trip: true };
const unpinnedChild: ChildPin = { pinned: false, trip: false };

export class Pins implements Coherence, TermsPort {
  onExpected: ((inode: Inode) => void) | null = null;
  onUnknown: ((inode: Inode) => void) | null = null;
  readonly sizes: KernelSizes;
  readonly names: KernelNames;
  readonly terms: Terms = new Terms(this);
  readonly #state: CoherenceState;
  readonly #options: PinsOptions;
  /** Notifications that are being written for a change: who makes another one meanwhile waits for them, too. */
  readonly #outdating = new Map<Inode, Promise<void>>();

  constructor(state: CoherenceState, options: PinsOptions) {
    this.#state = state;
    this.#options = options;
    this.sizes = options.sizes;
    this.names = options.names;
  }

  // --- pins

  tryPin(inode: Inode, mode: PinMode): boolean {
    attach(inode);
    return !this.#state.abandoned && tryPin(inode.cover, mode);
  }

  has(inode: Inode, mode: PinMode): boolean {
    return !this.#state.abandoned && mayPin(inode.cover, mode);
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
      const settle: PinWaiter["settle"] = (error) => {
        waiter.onInterrupt = null;
        waiter.lockKey = null;
        if (error === null) resolve();
        else reject(error);
      };
      const queued: PinWaiter = pages === null ? { mode, passes, settle } : { mode, passes, pages, settle };
      waiter.onInterrupt = (): void => {
        removeWaiter(this.#state, cover, queued, this.#options.now());
        this.#options.host.run();
      };
      waiter.lockKey = inode.cover.key;
      addWaiter(this.#state, cover, queued, this.#options.now());
      this.#options.host.run();
    });
  }

  unpin(inode: Inode): void {
    const cover = inode.cover;
    if (cover.phase === "idle" && cover.wanted === Mode.NL && cover.pins > 0) {
      cover.pins -= 1;
      return;
    }
    unpin(this.#state, cover, this.#options.now());
    this.#options.host.run();
  }

  pinAll(wants: readonly Want[], waiter: Waiter): MaybePromise<void> {
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
        for (const pinned of ordered.slice(0, at)) this.unpin(pinned.inode);
        throw error;
      }
    }
  }

  unpinAll(wants: readonly Want[]): void {
    for (const want of orderWants(wants)) this.unpin(want.inode);
  }

  since(): Since {
    return this.#state.moment as Since;
  }

  pinChild(inode: Inode, since: Since, asks: boolean = true): MaybePromise<ChildPin> {
    attach(inode);
    if (this.#state.abandoned) return unpinnedChild;
    let settle: ChildWaiter = unsettled;
    const now = pinChild(this.#state, inode.cover, (pinned) => settle(pinned), asks);
    if (now === true) return inode.cover.grant > since ? pinnedAnew : pinnedChild;
    if (now === false) return unpinnedChild;
    const promise = new Promise<ChildPin>((resolve) => {
      settle = (pinned) => resolve({ pinned, trip: true });
    });
    this.#options.host.run();
    return promise;
  }

  stillHeld({ cover }: Inode, since: Since | null): boolean {
    return !this.#state.abandoned && isStillHeld(cover) && (since === null || cover.grant <= since);
  }

  pinChildren(inodes: readonly Inode[], since: Since, asks?: boolean): MaybePromise<readonly ChildPin[]> {
    const results = inodes.map((inode) => this.pinChild(inode, since, asks));
    if (!results.some((result) => result instanceof Promise)) return results as ChildPin[];
    return Promise.all(results.map((result) => Promise.resolve(result)));
  }

  async fetchLocks(inodes: readonly Inode[], mode: PinMode, waitMs: number): Promise<void> {
    const waiters = inodes.map((): Waiter => ({ interrupted: false, onInterrupt: null }));
    const timer = setTimeout(() => {
      for (const waiter of waiters) waiter.onInterrupt?.();
    }, waitMs);
    const came = inodes.map(async (inode, at) => {
      try {
        await this.pin(inode, mode, waiters[at] as Waiter);
      } catch (error) {
        if (error instanceof Errno && error.errno === E.EINTR) return;
        throw error;
      }
      this.unpin(inode);
    });
    try {
      await Promise.all(came);
    } finally {
      clearTimeout(timer);
    }
  }

  pinData(inode: Inode, mode: PinMode, cached: boolean, waiter: Waiter, pages: PageRange | null = null): MaybePromise<void> {
    attach(inode);
    if (!this.#state.abandoned && tryPin(inode.cover, mode)) return undefined;
    return this.#wait(inode, mode, cached, waiter, pages);
  }

  repinData(inode: Inode, mode: PinMode, waiter: Waiter, pages: PageRange): Promise<void> {
    // First, as a round may begin with the pin's end.
    const pinned = this.#wait(inode, mode, true, waiter, pages);
    this.unpinData(inode);
    return pinned;
  }

  unpinData(inode: Inode): void {
    unpinData(this.#state, inode.cover, this.#options.now());
    this.#options.host.run();
  }

  hold(inode: Inode): number {
    return this.#state.abandoned ? 0 : holdOf(inode.cover);
  }

  grantId(inode: Inode): number {
    return isCovered(this.#state, inode.cover) ? inode.cover.heldSince : 0;
  }

  contended(inode: Inode): boolean {
    return (inode.cover.fight?.returns ?? 0) > 0;
  }

  // --- what the kernel is told of attributes, and what it is to drop of pages

  ownerDied(since: Since): boolean {
    return this.#state.ownerDiedAt > since;
  }

  namesDropped(since: Since): boolean {
    return this.#state.namesDroppedAt > since;
  }

  attributesChanged(inode: Inode, caller: number, held: boolean): MaybePromise<void> {
    if (!attributesChanged(this.#state, inode.cover, caller)) return this.#outdating.get(inode);
    const outdated = this.#options.invalidation.outdate(inode, held);
    return outdated instanceof Promise ? this.#noteOutdating(inode, outdated) : undefined;
  }

  #noteOutdating(inode: Inode, outdated: Promise<void>): Promise<void> {
    const over = outdated.finally(() => {
      if (this.#outdating.get(inode) === over) this.#outdating.delete(inode);
    });
    this.#outdating.set(inode, over);
    return over;
  }

  attrValid(inode: Inode, caller: number, since: Since): boolean {
    if (this.#options.cachesNothing) return false;
    if (!isCovered(this.#state, inode.cover) || !tellAttributes(inode.cover, caller, since)) return false;
    this.#options.host.noteCached(inode.cover);
    return true;
  }

  dropPages(inode: Inode, offset: number, bytes: number): Promise<void> {
    return this.#options.invalidation.dropPages(inode, offset, bytes).dropped;
  }

  dropHeldPage(inode: Inode, made: PagePart, readers: readonly number[], users: PageUsers): HeldPageDrop {
    const hasOther = this.#options.invalidation.hasOther(inode, made);
    const dropping = this.#options.invalidation.dropPages(inode, made.offset, 1);
    return { dropped: dropping.dropped, gone: droppedOrHeld(dropping, hasOther, readers, users, this.#options.callerThreads) };
  }

  raiseSize(inode: Inode, size: number, last: number): Promise<void> {
    return this.#options.invalidation.raiseSize(inode, size, last);
  }

  dropKernelCaches(inodes: readonly Inode[], pages: boolean): Promise<void> {
    return this.#options.invalidation.dropKernelCaches(inodes, pages);
  }

  // --- birth

  enterNew(inode: Inode, since: Since): boolean {
    attach(inode);
    if (!mayBeBorn(this.#state, since)) {
      this.#options.births.want();
      return false;
    }
    const first = enterUnregistered(this.#state, inode.cover, this.#options.now());
    this.#options.host.noteBorn();
    return first;
  }

  untilBirthsKnown(waiter: Waiter): MaybePromise<void> {
    return this.#state.abandoned ? Promise.reject(errnoError(E.EIO)) : this.#options.births.untilKnown(waiter);
  }

  // --- write access

  openForWrite(inode: Inode, waiter: Waiter, isMadeHere: boolean = false): MaybePromise<"cached" | "direct"> {
    attach(inode);
    const cover = inode.cover;
    if (this.#state.abandoned) return Promise.reject(errnoError(E.EIO));
    if (this.#options.cachesNothing) return "direct";
    if (!isMadeHere && cover.grant === 0) return this.#lookFirst(inode, waiter);
    let settle: (result: "cached" | "direct") => void = unsettled;
    if (openToken(this.#state, cover, (result) => settle(result))) return "cached";
    if (waiter.interrupted) waiter.onInterrupt = null;
    const promise = new Promise<"cached" | "direct">((resolve, reject: (error: Errno) => void) => {
      settle = (result) => {
        if (waiter.interrupted) {
          if (result === "cached") closeToken(this.#state, cover);
          reject(errnoError(E.EINTR));
          this.#options.host.run();
        } else resolve(result);
      };
    });
    this.#options.host.run();
    return promise;
  }

  /** Whoever made it may have the write token without dlmd's knowing, until somebody else has had a lock of the inode (hazard F9). */
  async #lookFirst(inode: Inode, waiter: Waiter): Promise<"cached" | "direct"> {
    await this.pin(inode, Mode.PR, waiter);
    this.unpin(inode);
    return this.openForWrite(inode, waiter);
  }

  closeForWrite(inode: Inode): void {
    closeToken(this.#state, inode.cover);
    this.#options.host.run();
  }

  noteCachedWrite(inode: Inode): void {
    const token = inode.cover.token;
    if (token !== null) token.mapped = true;
  }

  readMode(inode: Inode, writable: boolean): PinMode {
    return writable && inode.cover.token?.mapped === true ? Mode.EX : Mode.PR;
  }
}

function unsettled(): void {
  throw new Error("settled before it waited");
}

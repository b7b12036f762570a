/**
 * The coherence layer as the op layer sees it (api.ts): the pure rules of this room over the lock manager's client, the
 * notifications of the kernel, and timers. Effects are done in order, in the turn in which they arise.
 */
import { assert, assertNever } from "../../dlmd/base/assert.ts";
import { E, Errno, errnoError, errnoName } from "../../dlmd/base/errno.ts";
import type { Log } from "../../dlmd/base/log.ts";
import type { Lock, LockHandlers, LockStatus, Lockspace } from "../../dlmd/client/api.ts";
import { Mode } from "../../dlmd/lock/mode.ts";
import type { Inode, InodeKind } from "../inode/inode.ts";
import { compareFileIds, fileKey } from "../lower/lower.ts";
import type { FileId, Maybe } from "../lower/lower.ts";
import type { Coherence, PinMode, Waiter, Want } from "./api.ts";
import { bear, dropUnregistered, registerAll } from "./born.ts";
import { createCover, kernelKnows } from "./cover.ts";
import type { ChildWaiter, Cover, PinWaiter, WriteToken } from "./cover.ts";
import { createCoherenceState } from "./effect.ts";
import type { CoherenceState, Effect, InvalidationPlan } from "./effect.ts";
import { addWaiter, handleAst, handleBast, pinChild, pump, refuseWaiters, removeWaiter, tryPin, unpin, unpinData } from "./lock-cache.ts";
import { dropName, dropNames, exchangeNames, forgetNames, moveName, tellName, toldName, validName } from "./names.ts";
import { handleInvalidated, handleRetryTimer, handleTimer } from "./revoke.ts";
import { closeToken, handleTokenAst, handleTokenBast, openToken, TOKEN_WAIT_MS } from "./write-token.ts";

/** What the shell needs of the kernel: each writes one or more notifications and gives 0 or a negative errno for each. */
export interface KernelCaches {
  /** Attributes and pages of an inode. */
  invalidatePages(fuseNodeid: number): Promise<number[]>;
  /** The pages of a range, and the attributes. */
  invalidateRange(fuseNodeid: number, offset: number, bytes: number): Promise<number[]>;
  /** Attributes and pages, then the sentinel size (hazard F5). */
  invalidatePagesAndSize(fuseNodeid: number): Promise<number[]>;
  /** Attributes only. */
  invalidateAttributes(fuseNodeid: number): Promise<number[]>;
  expireNames(fuseNodeid: number, names: readonly { readonly name: Buffer; readonly drop: boolean }[]): Promise<number[]>;
  /** Every name of the mount; null: this kernel has no epochs, and then no reply may carry entry validity. */
  readonly incrementEpoch: (() => Promise<number[]>) | null;
  /** Resolves when no notification is being written: only then may the device be closed. */
  settled(): Promise<void>;
}

export interface CoherenceShellOptions {
  readonly lockspace: Lockspace;
  readonly caches: KernelCaches;
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
  /** The kernel has ended the connection: nobody waits for a lock any more, and nothing is pinned from now on (EIO). */
  letGo(): void;
  /** Gives every lock back: nothing is cached by the kernel any more (the mount has ended). */
  close(): Promise<void>;
  readonly counters: CoherenceCounters;
}

export interface CoherenceCounters {
  /** Locks that dlmd has of this mount, write tokens included. */
  readonly locksHeld: number;
  readonly lockRequests: number;
  readonly bastsReceived: number;
  readonly revokes: number;
  readonly revokeRounds: number;
  readonly namesExpired: number;
  readonly epochs: number;
  /** Inodes with a lock state here, those that the kernel has forgotten included. */
  readonly covers: number;
  /** Born here and not known to dlmd yet. */
  readonly unregistered: number;
}

/** Locks of inodes that the kernel has forgotten are kept up to this many, the longest unused go first. */
const IDLE_COVERS_MAX = 65_536;
/** What was born is made known after this time even if nobody asks: a revoke then need not wait for it. */
const REGISTER_DELAY_MS = 25;
/** More unregistered locks than this are registered at once. */
const UNREGISTERED_MAX = 4096;
/** An INVAL_ENTRY that waits so long for the directory's lock is left behind, and INC_EPOCH does its work (hazard F6). */
const EXPIRE_WAIT_MS = 5;
/** Bringing locks for a listing ends after this time: it is answered without what has not come. */
const BRING_WAIT_MS = 20;
/** Idle locks given back at once when the limit is passed. */
const IDLE_BATCH = 256;

const pinnedChild = { pinned: true, trip: false } as const;
const pinnedAnew = { pinned: true, trip: true } as const;
const unpinnedChild = { pinned: false, trip: false } as const;

export function createCoherenceShell(options: CoherenceShellOptions): CoherenceShell {
  return new Shell(options);
}

interface LockEvents {
  readonly ast: (cover: Cover, lock: Lock, status: LockStatus) => void;
  readonly bast: (cover: Cover, wanted: Mode) => void;
}

/** The handlers of one inode's lock: an object and no closures, because there is one for each cached inode. */
class CoverLock implements LockHandlers {
  readonly #cover: Cover;
  readonly #events: LockEvents;

  constructor(cover: Cover, events: LockEvents) {
    this.#cover = cover;
    this.#events = events;
  }

  ast(lock: Lock, status: LockStatus): void {
    this.#events.ast(this.#cover, lock, status);
  }

  bast(_lock: Lock, wanted: Mode): void {
    this.#events.bast(this.#cover, wanted);
  }
}

class Shell implements CoherenceShell {
  readonly #options: CoherenceShellOptions;
  readonly #state: CoherenceState = createCoherenceState();
  readonly #covers = new Map<string, Cover>();
  #locks = 0;
  readonly #tokenLocks = new Map<Cover, { readonly lock: Lock; readonly token: WriteToken }>();
  readonly #idle = new Set<Cover>();
  /** Forgotten, and not worth keeping, but something was still going on with their locks. */
  readonly #lingering = new Set<Cover>();
  readonly #counts = { lockRequests: 0, bastsReceived: 0, revokes: 0, revokeRounds: 0, namesExpired: 0, epochs: 0 };
  readonly #lockEvents: LockEvents = {
    ast: (cover, lock, status) => this.#handleAst(cover, lock, status),
    bast: (cover, wanted) => this.#handleBast(cover, wanted),
  };
  #registerTimer: NodeJS.Timeout | null = null;
  #draining = false;
  #closed = false;
  #abandoned = false;

  constructor(options: CoherenceShellOptions) {
    this.#options = options;
  }

  get counters(): CoherenceCounters {
    return {
      ...this.#counts,
      locksHeld: this.#locks + this.#tokenLocks.size,
      covers: this.#covers.size,
      unregistered: this.#state.unregistered.size,
    };
  }

  createCover(id: FileId, kind: InodeKind): Cover {
    const key = fileKey(id);
    let cover = this.#covers.get(key);
    if (cover === undefined) {
      cover = createCover(id, key, kind);
      this.#covers.set(key, cover);
    }
    this.#idle.delete(cover);
    this.#lingering.delete(cover);
    return cover;
  }

  // --- pins

  tryPin(inode: Inode, mode: PinMode): boolean {
    attach(inode);
    return !this.#abandoned && tryPin(inode.cover, mode);
  }

  pin(inode: Inode, mode: PinMode, waiter: Waiter): Promise<void> {
    return this.#wait(inode, mode, false, waiter);
  }

  #wait(inode: Inode, mode: PinMode, passes: boolean, waiter: Waiter): Promise<void> {
    attach(inode);
    const cover = inode.cover;
    if (waiter.interrupted) return Promise.reject(errnoError(E.EINTR));
    if (this.#abandoned) return Promise.reject(errnoError(E.EIO));
    return new Promise((resolve, reject) => {
      const queued: PinWaiter = {
        mode,
        passes,
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

  unpin(inode: Inode, _mode: PinMode): void {
    const cover = inode.cover;
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
    if (this.#abandoned) return unpinnedChild;
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

  pinData(inode: Inode, mode: PinMode, cached: boolean, waiter: Waiter): Maybe<void> {
    attach(inode);
    if (!this.#abandoned && tryPin(inode.cover, mode)) return undefined;
    return this.#wait(inode, mode, cached, waiter);
  }

  unpinData(inode: Inode, _mode: PinMode): void {
    unpinData(this.#state, inode.cover, this.#options.now());
    this.#run();
  }

  attrValid(inode: Inode): boolean {
    if (!this.#covered(inode.cover)) return false;
    inode.cover.attrTold = true;
    return true;
  }

  #covered(cover: Cover): boolean {
    return cover.phase === "idle" && cover.mode >= Mode.PR && !this.#abandoned;
  }

  async dropPages(inode: Inode, offset: number, bytes: number): Promise<void> {
    const results = await this.#options.caches.invalidateRange(inode.fuseNodeid, offset, bytes);
    this.#checkNotified(inode.cover, results);
  }

  async distrust(inodes: readonly Inode[], pages: boolean): Promise<void> {
    const { caches } = this.#options;
    const notified: Promise<void>[] = [];
    const notify = async (inode: Inode, results: Promise<number[]>): Promise<void> => this.#checkNotified(inode.cover, await results);
    const directory = inodes.find((inode) => inode.kind === "directory");
    if (directory !== undefined && caches.incrementEpoch !== null) {
      this.#state.epoch += 1;
      this.#counts.epochs += 1;
      notified.push(notify(directory, caches.incrementEpoch()));
    }
    for (const inode of inodes) {
      inode.cover.attrTold = false;
      const all = pages && inode.kind === "file";
      notified.push(notify(inode, all ? caches.invalidatePages(inode.fuseNodeid) : caches.invalidateAttributes(inode.fuseNodeid)));
    }
    await Promise.all(notified);
  }

  // --- names

  tellEntry(dir: Inode, name: Buffer, child: Inode | null, revalidated = false): boolean {
    attach(dir);
    if (child !== null) attach(child);
    const mayBeValid = this.#options.caches.incrementEpoch !== null && this.#covered(dir.cover);
    return tellName(dir.cover, name, child === null ? null : child.cover, mayBeValid, this.#state.epoch, this.#options.now(), revalidated);
  }

  isTold(dir: Inode, name: Buffer): boolean {
    const child = validName(dir.cover, name, this.#state.epoch);
    return child !== null && child.attrTold && kernelKnows(child) && this.#covered(child) && this.#covered(dir.cover);
  }

  toldChild(dir: Inode, name: Buffer): Inode | null | undefined {
    const told = toldName(dir.cover, name);
    if (told === null || told === undefined) return told;
    return told.inode ?? undefined;
  }

  dropEntry(dir: Inode, name: Buffer): void {
    dropName(dir.cover, name);
  }

  moveEntry(oldDir: Inode, oldName: Buffer, newDir: Inode, newName: Buffer): void {
    moveName(oldDir.cover, oldName, newDir.cover, newName, this.#options.now());
  }

  exchangeEntries(oldDir: Inode, oldName: Buffer, newDir: Inode, newName: Buffer): void {
    exchangeNames(oldDir.cover, oldName, newDir.cover, newName, this.#options.now());
  }

  // --- birth and death

  born(inode: Inode): void {
    attach(inode);
    bear(this.#state, inode.cover, this.#options.now());
    if (this.#state.unregistered.size >= UNREGISTERED_MAX) this.#register();
    else this.#registerTimer ??= setTimeout(() => this.#register(), REGISTER_DELAY_MS);
  }

  #register(): void {
    if (this.#registerTimer !== null) clearTimeout(this.#registerTimer);
    this.#registerTimer = null;
    if (this.#closed) return;
    registerAll(this.#state);
    this.#run();
  }

  removed(inode: Inode): void {
    inode.cover.doomed = true;
    if (inode.cover.unregistered && inode.nlookup === 0) this.#drop(inode.cover);
  }

  forgotten(inode: Inode): void {
    const cover = inode.cover;
    if (cover.inode === inode) cover.inode = null;
    cover.attrTold = false;
    forgetNames(cover);
    if (cover.doomed || cover.mode === Mode.NL) {
      if (!this.#drop(cover)) this.#lingering.add(cover);
      return;
    }
    this.#idle.add(cover);
    if (this.#idle.size <= IDLE_COVERS_MAX) return;
    let dropped = 0;
    for (const idle of this.#idle) {
      this.#drop(idle);
      dropped += 1;
      if (dropped >= IDLE_BATCH) break;
    }
  }

  /** Gives the lock of a cover back that the kernel does not know; left alone while something goes on with it. */
  #drop(cover: Cover): boolean {
    const busy = cover.pins > 0 || cover.waiters.length > 0 || cover.asking !== null || cover.registering || cover.phase !== "idle";
    const tokenBusy =
      cover.token !== null && (cover.token.users > 0 || cover.token.state === "asking" || this.#state.registering.has(cover.token));
    if (cover.inode !== null || busy || tokenBusy) return false;
    this.#idle.delete(cover);
    this.#lingering.delete(cover);
    this.#covers.delete(cover.key);
    dropUnregistered(this.#state, cover);
    dropNames(cover);
    this.#unlockIdle(cover);
    cover.mode = Mode.NL;
    unlockIdle(this.#tokenLocks.get(cover)?.lock);
    this.#tokenLocks.delete(cover);
    cover.token = null;
    return true;
  }

  /** Something that was going on with it ended. */
  #dropLingering(cover: Cover): void {
    if (this.#lingering.size > 0 && this.#lingering.has(cover)) this.#drop(cover);
  }

  // --- write access

  openForWrite(inode: Inode, waiter: Waiter): Maybe<"cached" | "direct"> {
    attach(inode);
    const cover = inode.cover;
    if (this.#abandoned) return Promise.reject(errnoError(E.EIO));
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
    switch (effect.do) {
      case "request":
        this.#request(effect.cover, effect.mode, effect.flags);
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
      case "invalidate":
        this.#invalidate(effect.cover, effect.plan).catch(this.#options.fail);
        return;
      case "timer":
        this.#setTimer(effect.cover, effect.purpose, effect.delayMs);
        return;
      case "request-token":
        this.#requestToken(effect.cover);
        return;
      case "unlock-token": {
        const held = this.#tokenLocks.get(effect.cover);
        this.#tokenLocks.delete(effect.cover);
        held?.lock.unlock(0);
        return;
      }
      default:
        assertNever(effect, "effect");
    }
  }

  #request(cover: Cover, mode: Mode, flags: number): void {
    if (cover.lock === null) {
      cover.lock = this.#options.lockspace.createLock(`i${cover.key}`, new CoverLock(cover, this.#lockEvents));
      this.#locks += 1;
    }
    const { lock } = cover;
    this.#counts.lockRequests += 1;
    // NL is to let go of it: what is asked for later is a new lock then, behind all who wait. As a conversion it would stand in the
    // convert queue, before the conversion in place that has to come first (lock-cache.ts), and the two would wait for each other.
    if (mode === Mode.NL) lock.unlock(0);
    else lock.request(mode, flags);
  }

  #unlockIdle(cover: Cover): void {
    if (cover.lock === null) return;
    unlockIdle(cover.lock);
    cover.lock = null;
    this.#locks -= 1;
  }

  #handleAst(cover: Cover, lock: Lock, status: LockStatus): void {
    if (status === "error") {
      this.#options.fail(lock.error ?? new Error(`dlmd refused a request for ${lock.resource}`));
      return;
    }
    const givenUp = status === "unlocked";
    if (givenUp && cover.asking !== Mode.NL) return;
    handleAst(this.#state, cover, givenUp ? "granted" : status, lock.mode, this.#options.now());
    this.#run();
    this.#dropLingering(cover);
  }

  #handleBast(cover: Cover, wanted: Mode): void {
    this.#counts.bastsReceived += 1;
    handleBast(this.#state, cover, wanted, this.#options.now());
    this.#run();
  }

  #requestToken(cover: Cover): void {
    const token = cover.token;
    assert(token !== null, `no write token asked for ${cover.key}`);
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
        this.#run();
        this.#dropLingering(cover);
      },
      bast: () => {
        handleTokenBast(this.#state, cover, token);
        this.#run();
      },
    });
    this.#tokenLocks.set(cover, { lock, token });
    this.#counts.lockRequests += 1;
    // What was born here can not be held elsewhere: it is not taken back.
    if (!this.#state.registering.has(token)) timer = setTimeout(() => lock.cancel(), TOKEN_WAIT_MS);
    lock.request(Mode.PW, 0);
  }

  #setTimer(cover: Cover, purpose: "hold" | "retry" | "pass", delayMs: number): void {
    const handle = purpose === "retry" ? handleRetryTimer : handleTimer;
    setTimeout(() => {
      handle(this.#state, cover, this.#options.now());
      this.#run();
    }, delayMs);
  }

  async #invalidate(cover: Cover, plan: InvalidationPlan): Promise<void> {
    const inode = cover.inode;
    if (cover.round === 1) this.#counts.revokes += 1;
    this.#counts.revokeRounds += 1;
    let results: number[] = [];
    if (inode !== null) {
      const { caches } = this.#options;
      if (plan.what === "pages") results = await caches.invalidatePages(inode.fuseNodeid);
      else if (plan.what === "pages-and-size") results = await caches.invalidatePagesAndSize(inode.fuseNodeid);
      else results = await this.#invalidateNames(inode, plan);
    }
    this.#checkNotified(cover, results);
    const missed = results.includes(-E.ENOENT);
    handleInvalidated(this.#state, cover, missed && kernelKnows(cover), this.#options.now());
    this.#run();
  }

  /** ENOENT is for the caller to judge (hazard F4). ENOTCONN, ENODEV: the mount is going away, and its caches with it. */
  #checkNotified(cover: Cover, results: readonly number[]): void {
    const bad = results.find((result) => !notifiedResults.has(result));
    if (bad !== undefined && !this.#closed) throw new Error(`the kernel refused an invalidation of ${cover.key}: ${errnoName(-bad)}`);
  }

  async #invalidateNames(dir: Inode, plan: Extract<InvalidationPlan, { what: "names" }>): Promise<number[]> {
    const { caches } = this.#options;
    const { expiry } = plan;
    let epoch = expiry.epoch;
    if (!epoch && expiry.names.length > 0) {
      this.#counts.namesExpired += expiry.names.length;
      const expired = caches.expireNames(dir.fuseNodeid, expiry.names);
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise<null>((resolve) => {
        timer = setTimeout(() => resolve(null), EXPIRE_WAIT_MS);
      });
      const results = await Promise.race([expired, late]);
      clearTimeout(timer);
      if (results === null) {
        // It waits behind an operation on the directory; it will expire names once more when that is done, which is harmless.
        this.#state.epoch += 1;
        epoch = true;
      } else {
        const bad = results.find((result) => result !== 0 && result !== -E.ENOENT);
        if (bad !== undefined) return [bad];
      }
    }
    if (epoch) {
      assert(caches.incrementEpoch !== null, "entry validity was given to a kernel without epochs");
      this.#counts.epochs += 1;
      const [result] = await caches.incrementEpoch();
      if (result !== undefined && result !== 0) return [result];
    }
    return caches.invalidateAttributes(dir.fuseNodeid);
  }

  letGo(): void {
    this.#abandoned = true;
    for (const cover of this.#covers.values()) refuseWaiters(this.#state, cover, errnoError(E.EIO));
    this.#run();
  }

  async abandon(): Promise<void> {
    // First, because the notifications wait for the pages of those who wait for a lock.
    this.letGo();
    const { caches } = this.#options;
    this.#state.epoch += 1;
    await caches.incrementEpoch?.();
    const known = [...this.#covers.values()].map((cover) => cover.inode).filter((inode) => inode !== null);
    await Promise.all(known.map((inode) => caches.invalidatePages(inode.fuseNodeid)));
  }

  async close(): Promise<void> {
    this.#closed = true;
    if (this.#registerTimer !== null) clearTimeout(this.#registerTimer);
    for (const cover of this.#covers.values()) {
      cover.inode = null;
      pump(this.#state, cover, this.#options.now());
    }
    this.#run();
    for (const cover of this.#covers.values()) this.#unlockIdle(cover);
    for (const { lock } of this.#tokenLocks.values()) unlockIdle(lock);
    this.#tokenLocks.clear();
    await this.#options.caches.settled();
  }
}

/** A lock that was never granted is not known to dlmd; one with a request outstanding goes with the connection. */
function unlockIdle(lock: Lock | undefined): void {
  if (lock !== undefined && lock.exists && !lock.busy) lock.unlock(0);
}

const notifiedResults: ReadonlySet<number> = new Set([0, -E.ENOENT, -E.ENOTCONN, -E.ENODEV]);

function unsettled(): void {
  throw new Error("settled before it waited");
}

function attach(inode: Inode): void {
  const cover = inode.cover;
  if (cover.inode !== inode) cover.inode = inode;
}

/** In the one lock order, each inode once, in the strongest mode asked. */
function orderWants(wants: readonly Want[]): readonly Want[] {
  const sorted = [...wants].sort((a, b) => compareFileIds(a.inode.id, b.inode.id));
  const once: Want[] = [];
  for (const want of sorted) {
    const last = once.at(-1);
    if (last === undefined || last.inode !== want.inode) once.push(want);
    else if (want.mode > last.mode) once[once.length - 1] = want;
  }
  return once;
}

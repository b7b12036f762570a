/**
 * What a revoke has the kernel drop, in the order in which that is safe: notifications of one inode, and what their results mean.
 * Source: hazards F4 (an inode that is not found), F5 (the size), F6 (names).
 */
import { setTimeout as setTimeoutPromise } from "node:timers/promises";
import { assert } from "../../../dlmd/base/assert.ts";
import { E, errnoName } from "../../../dlmd/base/errno.ts";
import { type Cover, type Inode, kernelKnows, type Listing, type ToldName } from "../cover.ts";
import { type RevokeGate } from "../cover-parts.ts";
import { PAGE_BYTES, type PagePart, type PageRange } from "../page-range.ts";
import { inTime, type MaybePromise } from "../../../dlmd/base/maybe-promise.ts";
import { type CoherenceState, type InvalidationPlan, raiseEpoch } from "../effect.ts";
import { type Dropped, dropInodes, type InodeBatch } from "./drop-all.ts";
import { allOver } from "../names/listings.ts";
import { dropUnchanged, type ExpiryPlan, noteExpired } from "../names/names.ts";

/** What is needed of the kernel: each writes one or more notifications and gives 0 or a negative errno for each. */
export interface KernelCaches {
  /** Hazard F26: this kernel can not be notified, and so caches nothing. What needs a notification is not granted to it. */
  readonly cachesNothing?: true;
  /** Attributes of an inode, and pages but these. */
  invalidatePages(fuseNodeid: number, except?: readonly PageRange[]): Promise<number[]>;
  /** The same of many, in this order. */
  readonly invalidateMany: (fuseNodeids: readonly number[]) => InodeBatch;
  /** The pages of a range, and the attributes. `thread`: who writes that now; 0: nobody yet, or any more. */
  invalidateRange(
    fuseNodeid: number,
    offset: number,
    bytes: number,
  ): { readonly thread: () => number; readonly results: Promise<number[]> };
  /**
   * What the page cache has of the inode from there on, whoever has it locked: fewer bytes where there is no page, or the kernel's size ends, or, with
   * newer kernels, where a page is not up to date. Asked in this turn. null: the kernel does not say (it does not know the inode, or the mount is going away).
   */
  retrieve(fuseNodeid: number, offset: number, bytes: number): Promise<Uint8Array | null>;
  /** That has come, by the number that it was asked with. */
  retrieved(unique: number, data: Uint8Array): void;
  /** The size is at least that, and this is the byte before it. */
  raiseSize(fuseNodeid: number, size: number, last: number): Promise<number[]>;
  /** Attributes and pages, then the sentinel size (hazard F5), unless the gate is shut before that: -ECANCELED. */
  invalidatePagesAndSize(
    fuseNodeid: number,
    except: readonly PageRange[],
  ): { readonly gate: RevokeGate; readonly results: Promise<number[]> };
  /** Attributes only. */
  invalidateAttributes(fuseNodeid: number): Promise<number[]>;
  /** The same, within the turn: of an inode that somebody has in use, so that this is not its end (which may wait for a write-back). */
  invalidateAttributesNow(fuseNodeid: number): number;
  expireNames(fuseNodeid: number, names: readonly { readonly name: Buffer; readonly drop: boolean }[]): Promise<number[]>;
  /** Every name of the mount; null: this kernel has no epochs, and then no reply may carry entry validity. */
  readonly incrementEpoch: (() => Promise<number[]>) | null;
  /** None is begun from now on (ENODEV). Resolves when none is being written: only then may the device be closed. */
  close(): Promise<void>;
}

/** Pages of an inode on their way out of the kernel. */
export interface Dropping {
  /** Who notifies it now; 0: nobody yet, or any more. */
  readonly thread: () => number;
  readonly dropped: Promise<void>;
}

/** An INVAL_ENTRY that waits so long for the directory's lock is left behind, and INC_EPOCH does its work (hazard F6). */
const EXPIRE_WAIT_MS = 5;
/** So much longer for each name. */
const EXPIRE_NAME_WAIT_MS = 0.005;
/** So many names are expired before the others. */
const EXPIRE_FIRST = 64;
/** So long a revoke waits for a thread that was given names and has not installed all of them; then names are expired once more behind it (hazard F48). */
export const LISTING_WAIT_MS = 250;
/** A LOOKUP waits so long for the old name of a directory to be dropped. Longer would be in vain: who has the old parent may wait for it. */
const DROP_WAIT_MS = 10;
/** A dropped directory that somebody on this node still has in use (a walk below it, at least) is waited for so often, 1 ms and then twice as long each time. */
const FORGET_WAITS_MAX = 4;

function hasListings({ names }: Cover): boolean {
  return names !== null && names.listings.length > 0;
}

const notifiedResults: ReadonlySet<number> = new Set([0, -E.ENOENT, -E.ENOTCONN, -E.ENODEV, -E.ECANCELED]);

export class Invalidation {
  readonly counts = { revokes: 0, revokeRounds: 0, namesExpired: 0, epochs: 0, inodesDropped: 0, listingsLeft: 0 };
  readonly #caches: KernelCaches;
  readonly #state: CoherenceState;
  /** The mount has ended: the kernel may refuse what it likes. */
  readonly #closed: () => boolean;
  readonly #fail: (error: Error) => void;
  /** INC_EPOCH being written. A name that was told before it counts as expired, and is only when that is over. */
  readonly #epochs = new Set<Promise<number[]>>();
  /** Names that the kernel is dropping now: each takes a thread while it waits for its directory. */
  readonly #dropping = new Map<ToldName, Promise<void>>();

  constructor(caches: KernelCaches, state: CoherenceState, closed: () => boolean, fail: (error: Error) => void) {
    this.#caches = caches;
    this.#state = state;
    this.#closed = closed;
    this.#fail = fail;
  }

  /** One round of a revoke. `missed`: the kernel did not find the inode; `cut`: somebody passed, and the sentinel was not stored. */
  async round(cover: Cover, plan: InvalidationPlan): Promise<{ readonly missed: boolean; readonly cut: boolean }> {
    const inode = cover.inode;
    if (cover.revoke?.round === 1) this.counts.revokes += 1;
    this.counts.revokeRounds += 1;
    let results: number[] = [];
    if (inode !== null && plan.what !== "late") {
      if (plan.what === "pages") results = await this.#caches.invalidatePages(inode.fuseNodeid, plan.except);
      else if (plan.what === "pages-and-size") results = await this.#pagesAndSize(cover, inode, plan.except);
      else results = await this.#names(inode, plan);
    }
    this.#check(cover, results);
    return { missed: results.includes(-E.ENOENT), cut: results.includes(-E.ECANCELED) };
  }

  async #pagesAndSize(cover: Cover, inode: Inode, except: readonly PageRange[]): Promise<number[]> {
    // Who has passed and is not answered yet may be about to be told the size, or to get his page; who was answered since the plan has it, and `except` may name it.
    const hasPassed = cover.pins > 0 || (cover.revoke?.answered ?? 0) > 0;
    if (hasPassed) return [...(await this.#caches.invalidatePages(inode.fuseNodeid, except)), -E.ECANCELED];
    const { gate, results } = this.#caches.invalidatePagesAndSize(inode.fuseNodeid, except);
    if (cover.revoke !== null) cover.revoke.gate = gate;
    return results;
  }

  /** ENOENT is for the caller to judge (hazard F4). ENOTCONN, ENODEV: the mount is going away, and its caches with it. */
  #check(cover: Cover, results: readonly number[]): void {
    const bad = results.find((result) => !notifiedResults.has(result));
    if (bad !== undefined && !this.#closed()) throw new Error(`the kernel refused an invalidation of ${cover.key}: ${errnoName(-bad)}`);
  }

  async #names(dir: Inode, plan: Extract<InvalidationPlan, { what: "names" }>): Promise<number[]> {
    const { epoch, names } = plan.expiry;
    const refused = await (epoch ? this.#byEpoch(dir, names) : this.#oneByOne(dir, names));
    if (refused !== null) return [refused];
    // Names of this one may count as expired because of an epoch that another one has cost.
    if (this.#epochs.size > 0) await Promise.all(this.#epochs);
    return this.#caches.invalidateAttributes(dir.fuseNodeid);
  }

  /** What the kernel says against it; null: nothing. */
  async #oneByOne(dir: Inode, names: ExpiryPlan["names"]): Promise<number | null> {
    const wasListed = hasListings(dir.cover);
    // A few first: they show that nobody has the directory.
    for (const some of [names.slice(0, EXPIRE_FIRST), names.slice(EXPIRE_FIRST)]) {
      if (some.length === 0) continue;
      const expired = this.#expire(dir, some);
      // It waits behind an operation on the directory. It will expire these once more when that is done, which is harmless.
      if (!(await inTime(expired, EXPIRE_WAIT_MS + some.length * EXPIRE_NAME_WAIT_MS))) return this.#byEpoch(dir, names);
      const bad = (await expired).find((result) => result !== 0 && result !== -E.ENOENT);
      if (bad !== undefined) return bad;
    }
    if (wasListed) noteExpired(dir.cover);
    return null;
  }

  /** The kernel locks the directory for it: what was listed before is installed when it comes back. */
  async #expire({ cover, fuseNodeid }: Inode, names: ExpiryPlan["names"]): Promise<number[]> {
    const { listings } = this.#state;
    const before = cover.names?.listings ?? [];
    this.counts.namesExpired += names.length;
    const results = await this.#caches.expireNames(fuseNodeid, names);
    this.#check(cover, results);
    listings.over(before, this.#state.epoch);
    return results;
  }

  /** As #oneByOne. */
  async #byEpoch(dir: Inode, names: ExpiryPlan["names"]): Promise<number | null> {
    const underWay = dir.cover.names?.listings ?? [];
    if (underWay.length > 0 && names.length > 0) {
      const expired = this.#expire(dir, names);
      await this.#outlast(underWay, expired, Promise.race([expired, allOver(underWay)]));
    }
    raiseEpoch(this.#state, dir.cover);
    const results = this.#incrementEpoch();
    assert(results !== null, "entry validity was given to a kernel without epochs");
    const [result = 0] = await results;
    return result === 0 ? null : result;
  }

  /**
   * Waits for listings of a directory whose names are being `expired`, until `isOver`. After LISTING_WAIT_MS they count as over: what they install is
   * expired behind their threads.
   */
  async #outlast(listings: readonly Listing[], expired: Promise<unknown>, isOver: Promise<unknown>): Promise<void> {
    if (await inTime(isOver, LISTING_WAIT_MS)) return;
    this.counts.listingsLeft += 1;
    this.#state.listings.over(listings, this.#state.epoch);
    expired.catch(this.#fail);
  }

  /** Names of these directories that a listing may install behind INC_EPOCH. */
  async #expireListed(directories: Iterable<Cover>): Promise<void> {
    const expire = async ({ inode, names }: Cover): Promise<void> => {
      const listed = [...(names?.byKey.values() ?? [])].filter((told) => told.listed);
      if (inode === null || names === null || listed.length === 0) return;
      const { listings } = names;
      const expired = this.#expire(
        inode,
        listed.map(({ key }) => ({ name: Buffer.from(key, "latin1"), drop: false })),
      );
      await this.#outlast(listings, expired, expired);
    };
    await Promise.all([...directories].map(expire));
  }

  /** In the turn in which the state's epoch is raised. null: this kernel has no epochs. */
  #incrementEpoch(): Promise<number[]> | null {
    const results = this.#caches.incrementEpoch?.() ?? null;
    if (results === null) return null;
    this.counts.epochs += 1;
    this.#epochs.add(results);
    const written = (): void => void this.#epochs.delete(results);
    results.then(written, written);
    return results;
  }

  /** Has the kernel drop these names. Resolves when they are gone, or after DROP_WAIT_MS. */
  async dropNames(names: readonly ToldName[]): Promise<void> {
    const dropped = Promise.all(names.map((told) => this.#dropping.get(told) ?? this.#drop(told)));
    await inTime(dropped.catch(this.#fail), DROP_WAIT_MS);
  }

  #drop(told: ToldName): Promise<void> {
    const dropping = this.#dropNow(told).finally(() => this.#dropping.delete(told));
    this.#dropping.set(told, dropping);
    return dropping;
  }

  async #dropNow(told: ToldName): Promise<void> {
    const parent = told.dir.inode;
    // A directory that the kernel has forgotten has no names there.
    if (parent === null) return;
    const asked = { ...told };
    const results = await this.#caches.expireNames(parent.fuseNodeid, [{ name: Buffer.from(told.key, "latin1"), drop: true }]);
    this.#check(told.dir, results);
    // While this goes on, whoever asks again waits for it again.
    for (let waits = 0; waits < FORGET_WAITS_MAX && asked.child !== null && kernelKnows(asked.child); waits += 1) {
      await setTimeoutPromise(2 ** waits);
    }
    dropUnchanged(told, asked);
  }

  dropPages(inode: Inode, offset: number, bytes: number): Dropping {
    const { thread, results } = this.#caches.invalidateRange(inode.fuseNodeid, offset, bytes);
    return { thread, dropped: results.then((all) => this.#check(inode.cover, all)) };
  }

  /**
   * Has the page cache something else than `data` at `offset`, all in one page? null: not as far as the kernel says, which may be nothing at all. Asked in
   * this turn; may never be answered once the connection is gone.
   */
  async hasOther(inode: Inode, { offset, data }: PagePart): Promise<boolean | null> {
    const before = offset % PAGE_BYTES;
    const found = await this.#caches.retrieve(inode.fuseNodeid, offset - before, before + data.byteLength);
    if (found === null) return null;
    const there = found.subarray(before);
    if (Buffer.compare(there, data.subarray(0, there.byteLength)) !== 0) return true;
    return there.byteLength < data.byteLength ? null : false;
  }

  retrieved(unique: number, data: Uint8Array): void {
    this.#caches.retrieved(unique, data);
  }

  async raiseSize(inode: Inode, size: number, last: number): Promise<void> {
    const results = await this.#caches.raiseSize(inode.fuseNodeid, size, last);
    this.#check(inode.cover, results);
  }

  /** Attributes alone; `held`: within the turn (invalidateAttributesNow). */
  outdate(inode: Inode, held: boolean): MaybePromise<void> {
    const { fuseNodeid, cover } = inode;
    if (held) return this.#check(cover, [this.#caches.invalidateAttributesNow(fuseNodeid)]);
    return this.#caches.invalidateAttributes(fuseNodeid).then((results) => this.#check(cover, results));
  }

  async dropKernelCaches(inodes: readonly Inode[], pages: boolean): Promise<void> {
    const caches = this.#caches;
    const notified: Promise<void>[] = [];
    const notify = async (inode: Inode, results: Promise<number[]>): Promise<void> => this.#check(inode.cover, await results);
    const directory = inodes.find((inode) => inode.kind === "directory");
    const epoch = directory === undefined ? null : this.#incrementEpoch();
    if (directory !== undefined && epoch !== null) {
      this.#state.epoch += 1;
      // A listing that is not answered yet may have looked before the change.
      this.#state.moment += 1;
      this.#state.namesDroppedAt = this.#state.moment;
      notified.push(notify(directory, epoch));
      notified.push(this.#expireListed(inodes.map(({ cover }) => cover).filter(hasListings)));
    }
    for (const inode of inodes) {
      inode.cover.attrTold = false;
      const all = pages && inode.kind === "file";
      const results = all ? caches.invalidatePages(inode.fuseNodeid) : caches.invalidateAttributes(inode.fuseNodeid);
      notified.push(notify(inode, results));
    }
    await Promise.all(notified);
  }

  /** Whatever the locks say: every name, and attributes and pages of all these. Resolves when only what waits for a page is left. */
  async dropAll(inodes: readonly Inode[], tries?: number): Promise<Dropped> {
    // In this turn: one that is over before INC_EPOCH is said to be written may have installed names behind it.
    const listed = new Set([...this.#state.listings.all()].map(({ dir }) => dir));
    this.#state.epoch += 1;
    const [result = 0] = (await this.#incrementEpoch()) ?? [];
    if (!notifiedResults.has(result)) throw new Error(`the kernel refused to drop its names: ${errnoName(-result)}`);
    const [dropped] = await Promise.all([dropInodes(this.#caches.invalidateMany, inodes, tries), this.#expireListed(listed)]);
    this.counts.inodesDropped += dropped.inodes;
    return dropped;
  }
}

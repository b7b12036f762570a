/** The names that this kernel was told, as the op layer deals with them (kernel-names.ts): names.ts, under the locks that are here. */
import { attach, type Inode, kernelKnows, type Listing } from "./cover.ts";
import type { MaybePromise } from "../../dlmd/base/maybe-promise.ts";
import type { CoherenceState } from "./effect.ts";
import type { Invalidation } from "./kernel/revoke-round.ts";
import type { KernelNames } from "./names/kernel-names.ts";
import type { Heard } from "./names/listings.ts";
import { isCovered } from "./lock/lock-cache.ts";
import {
  dropName,
  exchangeNames,
  hasDoubtfulName,
  hasFewValid,
  moveName,
  namesElsewhere,
  tellName,
  toldName,
  validName,
} from "./names/names.ts";

export interface ToldNamesOptions {
  /** This kernel has epochs: names may be told with validity. */
  readonly mayBeValid: boolean;
  /** Milliseconds of a monotonic clock. */
  readonly now: () => number;
}

export class ToldNames implements KernelNames {
  readonly #state: CoherenceState;
  readonly #invalidation: Invalidation;
  readonly #options: ToldNamesOptions;

  constructor(state: CoherenceState, invalidation: Invalidation, options: ToldNamesOptions) {
    this.#state = state;
    this.#invalidation = invalidation;
    this.#options = options;
  }

  /** Hazard F48. */
  heard(request: Heard, inode: Inode | undefined): void {
    const { listings, epoch } = this.#state;
    if (listings.size > 0) listings.heard(request, inode?.cover ?? null, epoch);
  }

  listing(dir: Inode, fh: number, tid: number): Listing | null {
    return this.#state.listings.of(dir.cover, fh, tid);
  }

  tellEntry(dir: Inode, name: Buffer, child: Inode | null, revalidated = false, listing?: Listing | null): boolean {
    attach(dir);
    if (child !== null) attach(child);
    const state = this.#state;
    const now = this.#options.now();
    const mayBeValid = this.#options.mayBeValid && listing !== null;
    const valid = mayBeValid && isCovered(state, dir.cover) && !state.fought.isHot(dir.cover, now);
    const isListed = listing !== undefined;
    const told = tellName(dir.cover, name, child === null ? null : child.cover, valid, state.epoch, now, revalidated, isListed);
    if (told && listing) state.listings.begin(listing);
    return told;
  }

  dropElsewhere(dir: Inode, child: Inode): MaybePromise<void> {
    if (child.kind !== "directory" || child.nlookup === 0) return undefined;
    const names = namesElsewhere(child.cover, dir.cover);
    return names.length === 0 ? undefined : this.#invalidation.dropNames(names);
  }

  hasDoubtfulName(dir: Inode, name: Buffer, child: Inode): boolean {
    return hasDoubtfulName(child.cover, dir.cover, name, this.#state.epoch);
  }

  isTold(dir: Inode, name: Buffer): boolean {
    const state = this.#state;
    const child = validName(dir.cover, name, state.epoch);
    return child !== null && child.attrTold && kernelKnows(child) && isCovered(state, child) && isCovered(state, dir.cover);
  }

  hasFew(dir: Inode): boolean {
    return hasFewValid(dir.cover, this.#state.epoch);
  }

  toldChild(dir: Inode, name: Buffer): Inode | null | undefined {
    const told = toldName(dir.cover, name);
    if (told === null || told === undefined) return told;
    return told.inode ?? undefined;
  }

  placeOf(child: Inode): { readonly dir: Inode; readonly name: Buffer } | null {
    const told = child.cover.toldIn;
    const dir = told?.dir.inode ?? null;
    return told === null || dir === null ? null : { dir, name: Buffer.from(told.key, "latin1") };
  }

  dropEntry(dir: Inode, name: Buffer): void {
    dropName(dir.cover, name);
  }

  moveEntry(oldDir: Inode, oldName: Buffer, newDir: Inode, newName: Buffer): void {
    moveName(oldDir.cover, oldName, newDir.cover, newName, this.#state.epoch, this.#options.now());
  }

  exchangeEntries(oldDir: Inode, oldName: Buffer, newDir: Inode, newName: Buffer): void {
    exchangeNames(oldDir.cover, oldName, newDir.cover, newName, this.#state.epoch, this.#options.now());
  }
}

/**
 * Test double: the coherence of a single node, where every lock is always here. It counts pins, so that a test can tell whether they are
 * balanced, and keeps the told names truthfully, because operations ask for them.
 */
import { type ChildPin, Cover, type Inode, type InodeKind, type PinMode, type Since } from "../../../overlay/coherence/cover.ts";
import type { Coherence, HeldPageDrop, SessionCoherence, Waiter, Want } from "../../../overlay/coherence/api.ts";
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { type FileId } from "../../../overlay/lower/lower.ts";
import type { KernelNames } from "../../../overlay/coherence/names/kernel-names.ts";
import type { KernelSizes } from "../../../overlay/coherence/size/kernel-sizes.ts";
import { Terms, type TermsPort } from "../../../overlay/coherence/terms.ts";
import { rightSizes } from "../../unit/op/right-sizes.ts";
import type { MaybePromise } from "../../../dlmd/base/maybe-promise.ts";

interface Waiting {
  readonly grant: () => void;
}

export class PermissiveCoherence implements SessionCoherence, Coherence, KernelNames, TermsPort {
  readonly operations: Coherence = this;
  readonly sizes: KernelSizes = rightSizes;
  readonly names: KernelNames = this;
  readonly terms: Terms = new Terms(this);
  pins = 0;
  withheld = false;
  readonly waiting: Set<Waiting> = new Set();
  tokens = 0;
  readonly #told = new Map<Inode, Map<string, Inode | null>>();
  readonly #entryValidity: boolean;

  constructor(entryValidity: boolean) {
    this.#entryValidity = entryValidity;
  }

  createCover(id: FileId, kind: InodeKind): Cover {
    return new Cover(id, kind);
  }
  failWaiters(): void {}
  close(): Promise<void> {
    return Promise.resolve();
  }
  tryPin(_inode: Inode, _mode: PinMode): boolean {
    if (this.withheld) return false;
    this.pins += 1;
    return true;
  }
  has(): boolean {
    return !this.withheld;
  }
  pin(_inode: Inode, _mode: PinMode, waiter: Waiter): Promise<void> {
    return this.#wait(waiter);
  }
  #wait(waiter: Waiter): Promise<void> {
    return new Promise((resolve, reject) => {
      const waiting: Waiting = {
        grant: () => {
          this.pins += 1;
          resolve();
        },
      };
      this.waiting.add(waiting);
      waiter.onInterrupt = (): void => {
        this.waiting.delete(waiting);
        reject(errnoError(E.EINTR));
      };
    });
  }
  /** Locks asked for from now on are elsewhere until `grantAll`. */
  withhold(): void {
    this.withheld = true;
  }
  grantAll(): void {
    this.withheld = false;
    for (const { grant } of this.waiting) grant();
    this.waiting.clear();
  }
  unpin(_inode: Inode, _mode: PinMode): void {
    this.pins -= 1;
  }
  pinAll(wants: readonly Want[], waiter: Waiter): MaybePromise<void> {
    if (this.withheld) return this.#wait(waiter).then(() => void (this.pins += wants.length - 1));
    this.pins += wants.length;
  }
  unpinAll(wants: readonly Want[]): void {
    this.pins -= wants.length;
  }
  since(): Since {
    return 0 as Since;
  }
  ownerDied(): boolean {
    return false;
  }
  namesDropped(): boolean {
    return false;
  }
  attributesChanged(): void {}
  onExpected: ((inode: Inode) => void) | null = null;
  onUnknown: ((inode: Inode) => void) | null = null;
  grantId(): number {
    return 0;
  }
  hold(): number {
    return 0;
  }
  contended(): boolean {
    return false;
  }
  pinChild(_inode: Inode): ChildPin {
    this.pins += 1;
    return { pinned: true, trip: false };
  }
  pinChildren(inodes: readonly Inode[]): readonly ChildPin[] {
    return inodes.map((inode) => this.pinChild(inode));
  }
  pinData(_inode: Inode, _mode: PinMode, _cached: boolean, waiter: Waiter): MaybePromise<void> {
    if (this.withheld) return this.#wait(waiter);
    this.pins += 1;
  }
  repinData(): Promise<void> {
    throw new Error("no lock goes here");
  }
  unpinData(): void {
    this.pins -= 1;
  }
  attrValid(): boolean {
    return true;
  }
  heard(): void {}
  listing(): null {
    return null;
  }
  tellEntry(dir: Inode, name: Buffer, child: Inode | null): boolean {
    let names = this.#told.get(dir);
    if (names === undefined) this.#told.set(dir, (names = new Map()));
    names.set(name.toString("latin1"), child);
    return this.#entryValidity;
  }
  fetchLocks(): Promise<void> {
    return Promise.resolve();
  }
  dropElsewhere(): void {}
  hasDoubtfulName(): boolean {
    return false;
  }
  isTold(): boolean {
    return false;
  }
  hasFew(): boolean {
    return false;
  }
  toldChild(dir: Inode, name: Buffer): Inode | null | undefined {
    return this.#told.get(dir)?.get(name.toString("latin1"));
  }
  placeOf(): null {
    return null;
  }
  dropEntry(dir: Inode, name: Buffer): void {
    this.#told.get(dir)?.delete(name.toString("latin1"));
  }
  moveEntry(oldDir: Inode, oldName: Buffer, newDir: Inode, newName: Buffer): void {
    const child = this.toldChild(oldDir, oldName);
    this.dropEntry(oldDir, oldName);
    if (child === undefined) this.dropEntry(newDir, newName);
    else this.tellEntry(newDir, newName, child);
  }
  exchangeEntries(oldDir: Inode, oldName: Buffer, newDir: Inode, newName: Buffer): void {
    const a = this.toldChild(oldDir, oldName);
    const b = this.toldChild(newDir, newName);
    this.dropEntry(oldDir, oldName);
    this.dropEntry(newDir, newName);
    if (a !== undefined) this.tellEntry(newDir, newName, a);
    if (b !== undefined) this.tellEntry(oldDir, oldName, b);
  }
  enterNew(): boolean {
    return false;
  }
  untilBirthsKnown(): void {}
  forgotten(inode: Inode): void {
    this.#told.delete(inode);
  }
  removed(): void {}
  dropKernelCaches(): Promise<void> {
    return Promise.resolve();
  }
  stillHeld(): boolean {
    return false;
  }

  raiseSize(): Promise<void> {
    return Promise.resolve();
  }

  dropPages(): Promise<void> {
    return Promise.resolve();
  }
  dropHeldPage(): HeldPageDrop {
    return { gone: Promise.resolve(true), dropped: Promise.resolve() };
  }
  retrieved(): void {}
  openForWrite(): "cached" {
    this.tokens += 1;
    return "cached";
  }
  closeForWrite(): void {
    this.tokens -= 1;
  }
  noteCachedWrite(): void {}
  readMode(): PinMode {
    return Mode.PR;
  }
}

/**
 * Test double: a coherence layer that writes down what is asked of it, in order, beside the replies, and checks the pin discipline while
 * it goes: what is unpinned was pinned, and nothing is held while something else is waited for.
 */
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import type { ChildPin, Inode, Listing, PinMode, Since } from "../../../overlay/coherence/cover.ts";
import type { Coherence, HeldPageDrop, PageUsers, Waiter, Want } from "../../../overlay/coherence/api.ts";
import type { KernelNames } from "../../../overlay/coherence/names/kernel-names.ts";
import type { KernelSizes } from "../../../overlay/coherence/size/kernel-sizes.ts";
import { PAGE_BYTES, type PagePart, type PageRange } from "../../../overlay/coherence/page-range.ts";
import type { MaybePromise } from "../../../dlmd/base/maybe-promise.ts";
import { Terms, type TermsPort } from "../../../overlay/coherence/terms.ts";
import { rightSizes } from "./right-sizes.ts";

export type Locks = "here" | "away" | "never";

export class RecordingCoherence implements Coherence, KernelNames, TermsPort {
  sizes: KernelSizes = rightSizes;
  readonly names: KernelNames = this;
  readonly terms: Terms = new Terms(this);
  readonly events: string[] = [];
  readonly violations: string[] = [];
  readonly told: Map<string, Inode | null> = new Map<string, Inode | null>();
  readonly places: Map<Inode, { readonly dir: Inode; readonly name: Buffer }> = new Map();
  /** What the kernel has with validity. */
  readonly valid: Set<string> = new Set<string>();
  few = false;
  /** "away": a wait that ends well; "never": one that only an interruption ends. */
  locks: Locks = "here";
  child: ChildPin = { pinned: true, trip: false };
  childLater = false;
  /** Locks of children that are elsewhere come when they are brought. */
  comes = false;
  token: "cached" | "direct" = "cached";
  entryValid = true;
  /** Set by a test: LOOKUPs do not wait for their directory's lock any more (hazard F4). */
  looksUnpinned = false;
  /** For each data request: may it pass during a revoke? */
  readonly passing: boolean[] = [];
  tokens = 0;
  readonly #pins = new Map<string, number>();

  get held(): number {
    let held = 0;
    for (const count of this.#pins.values()) held += count;
    return held;
  }

  #take(inode: Inode, mode: PinMode): void {
    this.events.push(`pin ${inode.cover.key} ${mode === Mode.EX ? "EX" : "PR"}`);
    const key = `${inode.cover.key} ${mode}`;
    this.#pins.set(key, (this.#pins.get(key) ?? 0) + 1);
  }

  #give(inode: Inode, mode: PinMode): void {
    this.events.push(`unpin ${inode.cover.key} ${mode === Mode.EX ? "EX" : "PR"}`);
    const key = `${inode.cover.key} ${mode}`;
    const count = this.#pins.get(key) ?? 0;
    if (count === 0) this.violations.push(`unpin of ${key}, which is not pinned`);
    this.#pins.set(key, Math.max(0, count - 1));
  }

  async #wait(take: () => void, waiter: Waiter): Promise<void> {
    if (this.held > 0) this.violations.push("a wait for a lock while another is pinned");
    if (this.locks === "away") {
      await new Promise((resolve) => setImmediate(resolve));
    } else {
      await new Promise<void>((_, reject) => {
        waiter.onInterrupt = (): void => reject(errnoError(E.EINTR));
      });
    }
    take();
  }

  tryPin(inode: Inode, mode: PinMode): boolean {
    if (this.locks !== "here") return false;
    this.#take(inode, mode);
    return true;
  }
  has(): boolean {
    return this.locks === "here";
  }
  pin(inode: Inode, mode: PinMode, waiter: Waiter): Promise<void> {
    return this.#wait(() => this.#take(inode, mode), waiter);
  }
  unpin(inode: Inode, mode: PinMode): void {
    this.#give(inode, mode);
  }
  pinAll(wants: readonly Want[], waiter: Waiter): MaybePromise<void> {
    const take = (): void => {
      for (const { inode, mode } of wants) this.#take(inode, mode);
    };
    if (this.locks === "here") return take();
    return this.#wait(take, waiter);
  }
  unpinAll(wants: readonly Want[]): void {
    for (const { inode, mode } of wants) this.#give(inode, mode);
  }
  onExpected: ((inode: Inode) => void) | null = null;
  onUnknown: ((inode: Inode) => void) | null = null;
  /** Set by a test: the hold of PR that is in force, and whether the inode is one to fetch ahead. */
  holdNumber = 0;
  isContended = false;
  /** Set by a test. */
  heldNo = 1;
  bornFirst = true;
  bornSince: Since | null = null;
  grantId(): number {
    return this.heldNo;
  }
  hold(): number {
    return this.holdNumber;
  }
  contended(): boolean {
    return this.isContended;
  }
  #moment = 0;
  readonly #last = { granted: 0, changed: 0, "owner died": 0, "names dropped": 0 };
  /** Called by a test. A lock was granted, or attributes were changed, of whatever inode; or the owner died; or names were dropped for a killed change. */
  happens(what: "granted" | "changed" | "owner died" | "names dropped"): void {
    this.#moment += 1;
    this.#last[what] = this.#moment;
  }
  since(): Since {
    return this.#moment as Since;
  }
  ownerDied(since: Since): boolean {
    return this.#last["owner died"] > since;
  }
  namesDropped(since: Since): boolean {
    return this.#last["names dropped"] > since;
  }
  pinChild(inode: Inode, since: Since): MaybePromise<ChildPin> {
    if (this.child.pinned) this.#take(inode, Mode.PR);
    const pin = { pinned: this.child.pinned, trip: this.child.trip || this.#last.granted > since };
    return this.childLater ? Promise.resolve(pin) : pin;
  }
  pinChildren(inodes: readonly Inode[], since: Since): MaybePromise<readonly ChildPin[]> {
    const pins = inodes.map((inode) => {
      if (this.child.pinned) this.#take(inode, Mode.PR);
      return { pinned: this.child.pinned, trip: this.child.trip || this.#last.granted > since };
    });
    return this.childLater ? Promise.resolve(pins) : pins;
  }
  fetchLocks(inodes: readonly Inode[], mode: PinMode, waitMs: number): Promise<void> {
    if (this.held > 0) this.violations.push("locks brought while another is pinned");
    this.events.push(`bring ${inodes.map((inode) => inode.cover.key).join(" ")} ${mode === Mode.EX ? "EX" : "PR"} in ${waitMs} ms`);
    if (this.comes) this.child = { pinned: true, trip: false };
    return Promise.resolve();
  }
  /** What the last pinData was told that is locked. */
  locked: PageRange | null = null;
  pinData(inode: Inode, mode: PinMode, cached: boolean, waiter: Waiter, pages: PageRange | null = null): MaybePromise<void> {
    this.passing.push(cached);
    this.locked = pages;
    if (this.locks === "here") return this.#take(inode, mode);
    return this.#wait(() => this.#take(inode, mode), waiter);
  }
  /** Pages of READs that have given their pin back. */
  readonly repinned: PageRange[] = [];
  /** What they wait for before they have another. */
  repins: Promise<void> = Promise.resolve();
  async repinData(inode: Inode, mode: PinMode, _waiter: Waiter, pages: PageRange): Promise<void> {
    this.repinned.push(pages);
    this.#give(inode, mode);
    await this.repins;
    this.#take(inode, mode);
  }
  unpinData(inode: Inode, mode: PinMode): void {
    this.#give(inode, mode);
  }
  attrValid(inode: Inode, _caller: number, since: Since): boolean {
    if (this.held === 0) this.violations.push(`attrValid of ${inode.cover.key} without a pin`);
    return this.#last.changed <= since;
  }
  attributesChanged(inode: Inode, caller: number, held: boolean): MaybePromise<void> {
    if (this.held === 0) this.violations.push(`attributesChanged of ${inode.cover.key} without a pin`);
    this.events.push(`outdated ${inode.cover.key} but of ${caller}${held ? "" : ", not held"}`);
  }

  heard(): void {}

  listing({ cover }: Inode, fh: number, tid: number): Listing {
    return { dir: cover, fh, tid, waiters: [] };
  }

  /** With each name that was told as one of a listing. */
  readonly listings: (Listing | null)[] = [];

  tellEntry(dir: Inode, name: Buffer, child: Inode | null, _revalidated?: boolean, listing?: Listing | null): boolean {
    if (listing !== undefined) this.listings.push(listing);
    if (this.held === 0) this.violations.push(`tellEntry of ${name.toString()} without a pin`);
    this.events.push(`tell ${dir.cover.key} ${name.toString()} ${child?.cover.key ?? "-"}`);
    this.told.set(`${dir.cover.key} ${name.toString()}`, child);
    return this.entryValid;
  }
  /** Directories that the kernel may have elsewhere: how long it takes to drop them there. */
  readonly elsewhere: Map<Inode, Promise<void>> = new Map();
  dropElsewhere(dir: Inode, child: Inode): MaybePromise<void> {
    if (this.held === 0 && !this.looksUnpinned) this.violations.push(`dropElsewhere of ${child.cover.key} without a pin`);
    this.events.push(`elsewhere ${dir.cover.key} ${child.cover.key}`);
    return this.elsewhere.get(child);
  }
  /** Set by a test: the kernel knows the file by another name, too. */
  doubtfulName = false;
  hasDoubtfulName(): boolean {
    return this.doubtfulName;
  }
  isTold(dir: Inode, name: Buffer): boolean {
    return this.valid.has(`${dir.cover.key} ${name.toString()}`);
  }
  hasFew(): boolean {
    return this.few;
  }
  toldChild(dir: Inode, name: Buffer): Inode | null | undefined {
    return this.told.get(`${dir.cover.key} ${name.toString()}`);
  }
  placeOf(child: Inode): { readonly dir: Inode; readonly name: Buffer } | null {
    return this.places.get(child) ?? null;
  }
  dropEntry(dir: Inode, name: Buffer): void {
    this.events.push(`drop ${dir.cover.key} ${name.toString()}`);
    this.told.delete(`${dir.cover.key} ${name.toString()}`);
  }
  moveEntry(oldDir: Inode, oldName: Buffer, newDir: Inode, newName: Buffer): void {
    this.events.push(`move ${oldDir.cover.key} ${oldName.toString()} ${newDir.cover.key} ${newName.toString()}`);
  }
  exchangeEntries(oldDir: Inode, oldName: Buffer, newDir: Inode, newName: Buffer): void {
    this.events.push(`exchange ${oldDir.cover.key} ${oldName.toString()} ${newDir.cover.key} ${newName.toString()}`);
  }
  enterNew(inode: Inode, since: Since): boolean {
    this.bornSince = since;
    this.events.push(`born ${inode.cover.key}`);
    // From now on its lock is here.
    this.locks = "here";
    return this.bornFirst;
  }
  untilBirthsKnown(waiter: Waiter): MaybePromise<void> {
    if (this.held > 0) this.violations.push("a wait for births while something is pinned");
    const known = (): void => void this.events.push("births known");
    return this.locks === "here" ? known() : this.#wait(known, waiter);
  }
  forgotten(inode: Inode): void {
    this.events.push(`forgotten ${inode.cover.key}`);
  }
  removed(inode: Inode): void {
    this.events.push(`removed ${inode.cover.key}`);
  }
  stillHeld(_inode: Inode, _since: Since | null): boolean {
    return false;
  }

  raiseSize(inode: Inode, size: number, last: number): Promise<void> {
    this.events.push(`raiseSize ${inode.cover.key} ${size} ${last}`);
    return Promise.resolve();
  }

  dropPages(inode: Inode, offset: number, bytes: number): Promise<void> {
    this.events.push(`dropPages ${inode.cover.key} ${offset} ${bytes}`);
    return Promise.resolve();
  }
  /** Set by a test: what becomes of a page that the WRITE may hold. */
  heldPage: HeldPageDrop = { gone: Promise.resolve(true), dropped: Promise.resolve() };
  /** As the last `dropHeldPage` was given it. */
  pageUsers: PageUsers = { isWrittenBack: () => false, mayLast: () => false };
  /** As the last `dropHeldPage` was given it. */
  madeInPage = "";
  dropHeldPage(inode: Inode, { offset, data }: PagePart, readers: readonly number[], users: PageUsers): HeldPageDrop {
    this.pageUsers = users;
    this.madeInPage = `${data.byteLength} at ${offset}`;
    this.events.push(`dropHeldPage ${inode.cover.key} ${offset - (offset % PAGE_BYTES)} of ${readers.join(" ")}`);
    return this.heldPage;
  }
  dropKernelCaches(inodes: readonly Inode[], pages: boolean): Promise<void> {
    if (this.held === 0) this.violations.push("distrust without a pin");
    this.events.push(`distrust ${inodes.map((inode) => inode.cover.key).join(" ")}${pages ? " with pages" : ""}`);
    return Promise.resolve();
  }
  openForWrite(_inode: Inode, _waiter: Waiter): "cached" | "direct" {
    if (this.token === "cached") this.tokens += 1;
    return this.token;
  }
  closeForWrite(_inode: Inode): void {
    this.tokens -= 1;
  }
  noteCachedWrite(inode: Inode): void {
    this.events.push(`noteCachedWrite ${inode.cover.key}`);
  }
  readMode(_inode: Inode, _writable: boolean): PinMode {
    return Mode.PR;
  }
}

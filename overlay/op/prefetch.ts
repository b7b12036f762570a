/**
 * What a reader will want next, fetched from the owner before it asks: the attributes of a file and the range that was read of it each time
 * before, in one trip. For files that are read here and written elsewhere by turns (Coherence.contended), whose attributes and pages this
 * kernel loses at each turn, and asks for one after the other.
 *
 * It is told under one condition (hazard F8): the hold under which it was asked for is the one in force when it is wanted (Coherence.hold), so
 * nothing can have changed it. It is told once; the kernel keeps it from then on.
 *
 * A kernel that goes past its page cache asks for a few bytes of a page, for the attributes, and for the page: SQLite does for its header, in each transaction
 * that follows one of another node. So the first brings the page and the attributes, and the page answers what is read of it under that hold.
 */
import { keepNewest } from "../../dlmd/base/keep-newest.ts";
import type { Coherence } from "../coherence/api.ts";
import type { Inode } from "../coherence/cover.ts";
import { PAGE_BYTES } from "../coherence/page-range.ts";
import type { Attr, Fetched, Lower, LowerHandle } from "../lower/lower.ts";
import type { MaybePromise } from "../../dlmd/base/maybe-promise.ts";

/** A longer range is not fetched ahead. */
const AHEAD_BYTES_MAX: number = 64 * 1024;
/** Files with something fetched ahead, and those with a page; beyond, the one that came first is forgotten. */
const AHEAD_FILES_MAX = 64;

interface AheadPage {
  readonly hold: number;
  /** Of the file, a whole page. */
  readonly offset: number;
  /** null: it could not be fetched. */
  readonly data: Promise<Uint8Array | null>;
}

interface AheadFile {
  /** The range that was read last, through which handle, and by which thread. */
  handle: LowerHandle;
  tid: number;
  offset: number;
  bytes: number;
  /** It was the same each of the last two times. */
  repeated: boolean;
  /** Coherence.hold under which that was fetched; 0: none. */
  hold: number;
  /** On its way, or here; null: it failed, and a reader asks the lower itself. */
  fetched: Promise<Fetched | null>;
  /** What of it is still to be told. */
  attrLeft: boolean;
  dataLeft: boolean;
}

const nothing: Promise<null> = Promise.resolve(null);

export class Prefetch {
  readonly #lower: Lower;
  readonly #coherence: Coherence;
  readonly #files = new Map<Inode, AheadFile>();
  readonly #pages = new Map<Inode, AheadPage>();

  constructor(lower: Lower, coherence: Coherence) {
    this.#lower = lower;
    this.#coherence = coherence;
  }

  /** With PR pinned and nobody asking yet (Coherence.onExpected). */
  startUnderLock(inode: Inode): void {
    this.#fetched(inode);
  }

  /** With PR pinned: what was fetched under this hold, and stays to be told. */
  attr(inode: Inode): Promise<Attr> | null {
    const file = this.#files.get(inode);
    const hold = this.#coherence.hold(inode);
    return file === undefined || hold === 0 || file.hold !== hold ? null : this.#attrOf(inode, file);
  }

  /** With PR pinned: the attributes, as Lower.getattr gives them. */
  getattr(inode: Inode): MaybePromise<Attr> {
    const file = this.#coherence.contended(inode) ? this.#fetched(inode) : null;
    if (file === null || !file.attrLeft) return this.#lower.getattr(inode.id);
    file.attrLeft = false;
    return this.#attrOf(inode, file);
  }

  async #attrOf(inode: Inode, file: AheadFile): Promise<Attr> {
    return (await file.fetched)?.attr ?? (await this.#lower.getattr(inode.id));
  }

  /** A thread that asks for the attributes, having read the same range each time before. */
  readsNext(inode: Inode, tid: number): boolean {
    const file = this.#coherence.contended(inode) ? this.#files.get(inode) : undefined;
    return file?.repeated === true && file.tid === tid;
  }

  /** With a pin held: the range as Lower.read gives it. */
  read(inode: Inode, handle: LowerHandle, offset: number, bytes: number, tid: number): MaybePromise<Uint8Array> {
    if (!this.#coherence.contended(inode)) return this.#lower.read(handle, offset, bytes);
    const file = this.#note(inode, handle, offset, bytes, tid);
    if (file === null || !file.dataLeft || file.hold !== this.#coherence.hold(inode)) return this.#readPage(inode, handle, offset, bytes);
    file.dataLeft = false;
    return this.#dataOf(file, handle, offset, bytes);
  }

  #readPage(inode: Inode, handle: LowerHandle, offset: number, bytes: number): MaybePromise<Uint8Array> {
    const page = this.#pageOf(inode, handle, offset, bytes);
    return page === null ? this.#lower.read(handle, offset, bytes) : this.#partOf(page, handle, offset, bytes);
  }

  async #partOf(page: AheadPage, handle: LowerHandle, offset: number, bytes: number): Promise<Uint8Array> {
    const data = await page.data;
    const from = offset - page.offset;
    return data?.subarray(from, from + bytes) ?? (await this.#lower.read(handle, offset, bytes));
  }

  /** With those bytes, as it is under the hold that is in force, or fetched now for less than all of it; null: they are of no one page, or it would be of no use. */
  #pageOf(inode: Inode, handle: LowerHandle, offset: number, bytes: number): AheadPage | null {
    const hold = this.#coherence.hold(inode);
    const from = offset - (offset % PAGE_BYTES);
    if (hold === 0 || offset + bytes > from + PAGE_BYTES) return null;
    const known = this.#pages.get(inode);
    if (known !== undefined && known.hold === hold && known.offset === from) return known;
    const fetched = bytes < PAGE_BYTES ? this.#lower.fetch(inode.id, handle, from, PAGE_BYTES) : null;
    if (fetched === null) return null;
    const data = fetched.then(
      (found) => Uint8Array.from(found.data),
      () => null,
    );
    const page = { hold, offset: from, data };
    this.#pages.delete(inode);
    this.#pages.set(inode, page);
    keepNewest(this.#pages, AHEAD_FILES_MAX);
    return page;
  }

  async #dataOf({ fetched }: AheadFile, handle: LowerHandle, offset: number, bytes: number): Promise<Uint8Array> {
    return (await fetched)?.data ?? (await this.#lower.read(handle, offset, bytes));
  }

  /** Null: too long to be fetched ahead. What was fetched of another range goes. */
  #note(inode: Inode, handle: LowerHandle, offset: number, bytes: number, tid: number): AheadFile | null {
    if (bytes > AHEAD_BYTES_MAX) {
      this.#files.delete(inode);
      return null;
    }
    const known = this.#files.get(inode);
    if (known !== undefined) {
      const repeated = known.offset === offset && known.bytes === bytes;
      return Object.assign(known, { handle, tid, offset, bytes, repeated, dataLeft: known.dataLeft && repeated });
    }
    const file = { handle, tid, offset, bytes, repeated: false, hold: 0, fetched: nothing, attrLeft: false, dataLeft: false };
    this.#files.set(inode, file);
    keepNewest(this.#files, AHEAD_FILES_MAX);
    return file;
  }

  /** What was fetched under the hold of PR that is in force, or is fetched now; null: nothing is to be gained. */
  #fetched(inode: Inode): AheadFile | null {
    const hold = this.#coherence.hold(inode);
    const file = this.#files.get(inode);
    if (hold === 0 || file === undefined) return null;
    if (file.hold === hold) return file;
    if (!file.repeated) return null;
    try {
      const fetched = this.#lower.fetch(inode.id, file.handle, file.offset, file.bytes);
      if (fetched === null) return null;
      // What was fetched before and is left of it was not wanted: then it is not fetched again until it was read twice.
      if (file.dataLeft) file.repeated = false;
      // A copy of the data: what arrived may be a piece of something much larger.
      file.fetched = fetched.then(
        ({ attr, data }) => ({ attr, data: Uint8Array.from(data) }),
        () => null,
      );
      return Object.assign(file, { hold, attrLeft: true, dataLeft: true });
    } catch {
      // The handle was closed.
      return null;
    }
  }
}

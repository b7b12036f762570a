/**
 * What a reader will want next, fetched from the owner before he asks: the attributes of a file and the range that was read of it each time
 * before, in one trip. For files that are read here and written elsewhere by turns (Coherence.contended), whose attributes and pages this
 * kernel loses at each turn, and asks for one after the other.
 *
 * What is here is told to nobody unless the hold of PR under which it was asked for is the one in force when it is wanted (Coherence.hold):
 * then nothing can have changed it. It is told once; the kernel keeps it from then on.
 */
import type { Coherence } from "../coherence/api.ts";
import type { Inode } from "../inode/inode.ts";
import type { Attr, Lower, LowerHandle, Maybe } from "../lower/lower.ts";

/** A longer range is not fetched ahead. */
const AHEAD_BYTES_MAX: number = 64 * 1024;
/** Files with something fetched ahead; beyond, the one that came first is forgotten. */
const AHEAD_FILES_MAX = 64;

interface Fetched {
  /** Coherence.hold when it was asked for. */
  hold: number;
  /** null: taken, or not asked for. */
  attr: Promise<Attr> | null;
  data: Promise<Uint8Array> | null;
  /** The range that was read last, and through which handle. */
  handle: LowerHandle | null;
  offset: number;
  bytes: number;
  /** It was the same each of the last two times. */
  repeated: boolean;
}

export class Ahead {
  readonly #lower: Lower;
  readonly #coherence: Coherence;
  readonly #files = new Map<Inode, Fetched>();

  constructor(lower: Lower, coherence: Coherence) {
    this.#lower = lower;
    this.#coherence = coherence;
  }

  /** With PR pinned: the attributes, as Lower.getattr gives them. */
  getattr(inode: Inode): Maybe<Attr> {
    const hold = this.#coherence.contended(inode) ? this.#coherence.hold(inode) : 0;
    const file = hold === 0 ? undefined : this.#files.get(inode);
    if (file === undefined) return this.#lower.getattr(inode.id);
    if (file.hold === hold && file.attr !== null) {
      const { attr } = file;
      file.attr = null;
      return attr;
    }
    const attr = this.#lower.getattr(inode.id);
    // On the owner nothing is gained.
    if (attr instanceof Promise && file.hold !== hold) this.#fetchData(file, hold);
    return attr;
  }

  /** With PR pinned and nobody asking yet (Coherence.onExpected). */
  expected(inode: Inode): void {
    const hold = this.#coherence.hold(inode);
    const file = this.#files.get(inode);
    if (hold === 0 || file === undefined || file.hold === hold) return;
    const attr = this.#lower.getattr(inode.id);
    if (!(attr instanceof Promise)) return;
    file.attr = attr;
    // Whoever wants it meets the error himself.
    attr.catch(() => {
      if (file.attr === attr) file.attr = null;
    });
    this.#fetchData(file, hold);
  }

  /** With a pin held: the range as Lower.read gives it. */
  read(inode: Inode, handle: LowerHandle, offset: number, bytes: number): Maybe<Uint8Array> {
    if (!this.#coherence.contended(inode)) return this.#lower.read(handle, offset, bytes);
    const file = this.#note(inode, handle, offset, bytes);
    const data = file?.data ?? null;
    if (file === null || data === null || file.hold !== this.#coherence.hold(inode)) return this.#lower.read(handle, offset, bytes);
    file.data = null;
    // Another handle may have been closed meanwhile; this one is open.
    return data.catch(() => this.#lower.read(handle, offset, bytes));
  }

  /** Null: too long to be fetched ahead. What was fetched of another range goes. */
  #note(inode: Inode, handle: LowerHandle, offset: number, bytes: number): Fetched | null {
    const known = this.#files.get(inode);
    if (bytes > AHEAD_BYTES_MAX) {
      this.#files.delete(inode);
      return null;
    }
    if (known !== undefined) {
      known.repeated = known.offset === offset && known.bytes === bytes;
      if (!known.repeated) known.data = null;
      known.handle = handle;
      known.offset = offset;
      known.bytes = bytes;
      return known;
    }
    const file: Fetched = { hold: 0, attr: null, data: null, handle, offset, bytes, repeated: false };
    this.#files.set(inode, file);
    if (this.#files.size > AHEAD_FILES_MAX) {
      const [oldest] = this.#files.keys();
      if (oldest !== undefined) this.#files.delete(oldest);
    }
    return file;
  }

  #fetchData(file: Fetched, hold: number): void {
    file.hold = hold;
    // What was fetched and not wanted is not fetched again.
    if (file.data !== null) file.repeated = false;
    file.data = null;
    if (!file.repeated || file.handle === null) return;
    let fetched: Maybe<Uint8Array>;
    try {
      fetched = this.#lower.read(file.handle, file.offset, file.bytes);
    } catch {
      // Closed.
      file.repeated = false;
      return;
    }
    if (!(fetched instanceof Promise)) return;
    // A copy: what arrived may be a piece of something much larger.
    const data = fetched.then((bytes) => Uint8Array.from(bytes));
    file.data = data;
    data.catch(() => {
      if (file.data === data) file.data = null;
    });
  }
}

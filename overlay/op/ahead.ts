/**
 * What a reader will want next, fetched from the owner before he asks: the attributes of a file and the range that was read of it each time
 * before, in one trip. For files that are read here and written elsewhere by turns (Coherence.contended), whose attributes and pages this
 * kernel loses at each turn, and asks for one after the other.
 *
 * Two ways to know that what was fetched is true (hazard F8), and nothing is told to anybody without one of them. Fetched under PR: the hold of it under
 * which it was asked for is the one in force when it is wanted (Coherence.hold), so nothing can have changed it. Fetched while PR was still on
 * its way: the fetch began after the last change that was made before PR came (Coherence.proves), and the hold is that which came.
 * What is here is told once; the kernel keeps it from then on.
 */
import type { Coherence } from "../coherence/api.ts";
import type { Inode } from "../coherence/cover.ts";
import type { Attr, Fetched, Lower, LowerHandle, Maybe } from "../lower/lower.ts";

/** A longer range is not fetched ahead. */
const AHEAD_BYTES_MAX: number = 64 * 1024;
/** Files with something fetched ahead; beyond, the one that came first is forgotten. */
const AHEAD_FILES_MAX = 64;

/** A fetch on its way or done, of that range. */
interface Answer {
  readonly offset: number;
  readonly bytes: number;
  /** Coherence.distrusts when it was asked for. */
  readonly distrusts: number;
  /** null: it failed, and whoever wants it asks himself. */
  readonly fetched: Promise<Fetched | null>;
}

interface AheadFile {
  /** The range that was read last, through which handle, and by which thread. */
  handle: LowerHandle;
  tid: number;
  offset: number;
  bytes: number;
  /** It was the same each of the last two times. */
  repeated: boolean;
  /** Coherence.hold under which `answer` is true; 0: none. */
  hold: number;
  answer: Answer | null;
  /** What of it is still to be told. */
  attrLeft: boolean;
  dataLeft: boolean;
  /** Fetched while PR was still on its way. */
  guess: Answer | null;
}

export class Ahead {
  readonly #lower: Lower;
  readonly #coherence: Coherence;
  readonly #files = new Map<Inode, AheadFile>();

  constructor(lower: Lower, coherence: Coherence) {
    this.#lower = lower;
    this.#coherence = coherence;
  }

  /** Somebody asks for the attributes, and PR is not here. */
  guess(inode: Inode): void {
    if (!this.#coherence.contended(inode)) return;
    const file = this.#files.get(inode);
    if (file === undefined || file.guess !== null) return;
    file.guess = this.#fetch(inode, file);
  }

  /** With PR pinned and nobody asking yet (Coherence.onExpected). */
  expected(inode: Inode): void {
    const hold = this.#coherence.hold(inode);
    const file = this.#files.get(inode);
    if (hold === 0 || file === undefined || file.hold === hold || file.guess !== null) return;
    const answer = this.#fetch(inode, file);
    if (answer !== null) keep(file, hold, answer);
  }

  /** With PR pinned: what was fetched under this hold, and stays to be told. */
  peek(inode: Inode): Promise<Attr> | null {
    const file = this.#files.get(inode);
    const hold = this.#coherence.hold(inode);
    return file === undefined || file.answer === null || hold === 0 || file.hold !== hold ? null : this.#attrOf(inode, file.answer);
  }

  /** With PR pinned: the attributes, as Lower.getattr gives them. */
  getattr(inode: Inode): Maybe<Attr> {
    const file = this.#coherence.contended(inode) ? this.#files.get(inode) : undefined;
    const hold = file === undefined ? 0 : this.#coherence.hold(inode);
    if (file === undefined || hold === 0) return this.#lower.getattr(inode.id);
    if (file.guess !== null) return this.#judge(inode, file, file.guess);
    if (file.hold !== hold) {
      const answer = this.#fetch(inode, file);
      if (answer === null) return this.#lower.getattr(inode.id);
      keep(file, hold, answer);
    }
    if (file.answer === null || !file.attrLeft) return this.#lower.getattr(inode.id);
    file.attrLeft = false;
    return this.#attrOf(inode, file.answer);
  }

  async #judge(inode: Inode, file: AheadFile, guess: Answer): Promise<Attr> {
    const fetched = await guess.fetched;
    if (file.guess === guess) file.guess = null;
    const hold = this.#coherence.hold(inode);
    // An owner's stamps say nothing of what the next one has.
    const distrusted = guess.distrusts !== this.#coherence.distrusts;
    if (fetched === null || hold === 0 || distrusted || !this.#coherence.proves(inode, fetched.stamp)) return this.#lower.getattr(inode.id);
    keep(file, hold, guess);
    file.attrLeft = false;
    return fetched.attr;
  }

  async #attrOf(inode: Inode, answer: Answer): Promise<Attr> {
    return (await answer.fetched)?.attr ?? (await this.#lower.getattr(inode.id));
  }

  /** A thread that asks for the attributes, having read the same range each time before. */
  readsNext(inode: Inode, tid: number): boolean {
    const file = this.#coherence.contended(inode) ? this.#files.get(inode) : undefined;
    return file?.repeated === true && file.tid === tid;
  }

  /** With a pin held: the range as Lower.read gives it. */
  read(inode: Inode, handle: LowerHandle, offset: number, bytes: number, tid: number): Maybe<Uint8Array> {
    if (!this.#coherence.contended(inode)) return this.#lower.read(handle, offset, bytes);
    const file = this.#note(inode, handle, offset, bytes, tid);
    const answer = file?.dataLeft === true && file.hold === this.#coherence.hold(inode) ? file.answer : null;
    // What was read last when it was fetched need not be what is read now: others read in between.
    if (file === null || answer === null || answer.offset !== offset || answer.bytes !== bytes) {
      return this.#lower.read(handle, offset, bytes);
    }
    file.dataLeft = false;
    return this.#dataOf(answer, handle, offset, bytes);
  }

  async #dataOf(answer: Answer, handle: LowerHandle, offset: number, bytes: number): Promise<Uint8Array> {
    return (await answer.fetched)?.data ?? (await this.#lower.read(handle, offset, bytes));
  }

  /** Null: too long to be fetched ahead. What was fetched of another range goes. */
  #note(inode: Inode, handle: LowerHandle, offset: number, bytes: number, tid: number): AheadFile | null {
    if (bytes > AHEAD_BYTES_MAX) {
      this.#files.delete(inode);
      return null;
    }
    const known = this.#files.get(inode);
    if (known !== undefined) {
      known.repeated = known.offset === offset && known.bytes === bytes;
      known.dataLeft &&= known.repeated;
      known.handle = handle;
      known.tid = tid;
      known.offset = offset;
      known.bytes = bytes;
      return known;
    }
    const file: AheadFile = {
      handle,
      tid,
      offset,
      bytes,
      repeated: false,
      hold: 0,
      answer: null,
      attrLeft: false,
      dataLeft: false,
      guess: null,
    };
    this.#files.set(inode, file);
    if (this.#files.size > AHEAD_FILES_MAX) {
      const [oldest] = this.#files.keys();
      if (oldest !== undefined) this.#files.delete(oldest);
    }
    return file;
  }

  /** Null: nothing to be gained. */
  #fetch(inode: Inode, { handle, offset, bytes, repeated }: AheadFile): Answer | null {
    if (!repeated) return null;
    try {
      const fetched = this.#lower.fetch(inode.id, handle, offset, bytes);
      if (fetched === null) return null;
      // A copy of the data: what arrived may be a piece of something much larger.
      const kept = fetched.then(
        ({ stamp, attr, data }) => ({ stamp, attr, data: Uint8Array.from(data) }),
        () => null,
      );
      return { offset, bytes, distrusts: this.#coherence.distrusts, fetched: kept };
    } catch {
      // The handle was closed.
      return null;
    }
  }
}

/** What was fetched before and is left of it was not wanted: then it is not fetched again until it was read twice. */
function keep(file: AheadFile, hold: number, answer: Answer): void {
  if (file.dataLeft) file.repeated = false;
  file.hold = hold;
  file.answer = answer;
  file.attrLeft = true;
  file.dataLeft = true;
}

/**
 * An append, and the READs of its file.
 *
 * Where the kernel believes the end to be behind the true one (the sentinel), the answer makes its size too large, and whoever finds a page then
 * that a short READ has filled, with zeros behind the end, takes them for data (coherence/size/doubt.ts). So there must be no such page: from
 * before the data are written until the answer is out, READs are held back; those under way are let out first; and the pages that
 * they and others have left are dropped.
 *
 * Dropping waits for pages that are locked. Those of a READ that is held back are, and hold nothing yet, so they are left out. If one of them is
 * met all the same (a READ that came while pages were being dropped), all that are held back are let go, and it is done again.
 *
 * A READ that waits until the kernel's size is known (size/check.ts) may be waiting for the end of this very append, since repairs and changes of the
 * size keep out of each other's way. So it asks here before each attempt.
 */
import type { Coherence } from "../api.ts";
import { type PageRange, without } from "../page-range.ts";
import { type AppendEnd, dropRequests, type PagedInode, requestsOf } from "./paged-inode.ts";
import { inTime } from "../../../dlmd/base/maybe-promise.ts";

/** READs under way are let out, and pages dropped, so often: a second at most, as each waits DRAIN_MS. Then the answer goes out. */
const ROUNDS_MAX = 50;
const DRAIN_MS = 20;
/** A page that is being dropped may have been asked for again: after so long in the first round, longer in each one after it, READs are let go. */
const STUCK_MS = 2;

/** READs of that file are held back until `release`. One append at a time: the kernel's writers have the inode's lock. */
export class AppendHold implements AppendEnd {
  readonly #inode: PagedInode;
  readonly #waiting = new Set<PageRange>();
  #held: Promise<void> | null = null;
  #release: () => void = () => {};

  constructor(inode: PagedInode) {
    this.#inode = inode;
    requestsOf(inode).appendEnd = this;
    this.#hold();
  }

  #hold(): void {
    this.#held = new Promise((resolve) => {
      this.#release = resolve;
    });
  }

  #letGo(): void {
    this.#held = null;
    this.#release();
  }

  release(): void {
    const { requests } = this.#inode;
    if (requests?.appendEnd === this) {
      requests.appendEnd = null;
      dropRequests(this.#inode);
    }
    this.#letGo();
  }

  async heldBack(pages: PageRange | null): Promise<void> {
    if (this.#held === null) return;
    if (pages !== null) this.#waiting.add(pages);
    await this.#held;
    if (pages !== null) this.#waiting.delete(pages);
  }

  /** Has the kernel drop its pages of that range: none is left, and none comes before `release`. */
  async clear(coherence: Coherence, range: PageRange): Promise<void> {
    for (let round = 0; round < ROUNDS_MAX; round += 1) {
      if (!(await this.#readsOver())) continue;
      if (this.#held === null) this.#hold();
      let cleared = true;
      for (const { from, to } of without(range, this.#waiting)) {
        cleared = (await this.#during(coherence.dropPages(this.#inode, from, to - from), STUCK_MS * (round + 1))) && cleared;
      }
      if (cleared) return;
    }
  }

  /** False: READs had to be let go. */
  async #during(work: Promise<void>, timeoutMs: number): Promise<boolean> {
    if (await inTime(work, timeoutMs)) return this.#held !== null;
    this.#letGo();
    await work;
    return false;
  }

  /** The READs that are not held back are answered, or wait here. False: not within DRAIN_MS. */
  async #readsOver(): Promise<boolean> {
    const inode = this.#inode;
    if (inode.readsUnderWay === 0) return true;
    const over = new Promise<void>((resolve) => {
      requestsOf(inode).onReadsOver = resolve;
    });
    const ended = await inTime(over, DRAIN_MS);
    requestsOf(inode).onReadsOver = null;
    dropRequests(inode);
    return ended;
  }
}

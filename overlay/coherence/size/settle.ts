/** What a revoke waits for of replies that change the kernel's size of a file, or tell it: that they were taken (doubt.ts, asked.ts). */
import type { Cover, Inode } from "../cover.ts";
import type { KernelRwsem } from "./kernel-rwsem.ts";
import { mustSettle, noteNoAskers } from "./asked.ts";
import { mustBeTaken, noteRaised } from "./doubt.ts";
import type { SizeGates } from "./gate.ts";
import type { SizeThreads } from "./threads.ts";

/** So long for a reply to SETATTR or LINK, or one with a size that was asked for, to be taken ... */
const LATE_WAIT_MS = 250;
/** ... and, before that, for the kernel's size to be what a write(2) raises it to. */
const RAISED_WAIT_MS = 20;

export class Settling {
  /** `sizesUnknown`: revokes that went on although a reply may not have been taken. */
  readonly counts = { sizeSettles: 0, sizesUnknown: 0 };
  readonly #gates: SizeGates;
  readonly #lock: KernelRwsem;
  readonly #threads: SizeThreads;
  readonly #lapsed: () => boolean;

  /** `lapsed`: answers are kept, and no thread takes what it was told. */
  constructor(gates: SizeGates, lock: KernelRwsem, threads: SizeThreads, lapsed: () => boolean) {
    this.#gates = gates;
    this.#lock = lock;
    this.#threads = threads;
    this.#lapsed = lapsed;
  }

  unsettled(cover: Cover): boolean {
    return mustSettle(cover) || this.#gates.get(cover)?.refreshing === true;
  }

  /** Before a revoke stores the sentinel: replies that set the size, or zero pages, must have been taken, and who asked for it must be done with it. */
  async settle(inode: Inode): Promise<void> {
    const { cover } = inode;
    this.counts.sizeSettles += 1;
    this.#threads.forgetEnded(cover);
    const isSettled = (): boolean => !mustSettle(cover);
    while (this.unsettled(cover)) {
      await this.#gates.get(cover)?.quiet();
      if (isSettled() || (await this.#lock.awaitOver(inode, LATE_WAIT_MS, isSettled)) || this.#lapsed()) continue;
      this.counts.sizesUnknown += 1;
      // Not once more in the next round.
      noteNoAskers(cover);
      const late = cover.size?.late ?? null;
      if (late === null) return;
      late.harms = true;
      if (late.effect === "sets" || late.effect === "clears") late.effect = "misplaced";
      late.end = Number.POSITIVE_INFINITY;
      return;
    }
  }

  /** Before a lock is lowered to PR: what was answered under it must have been taken. */
  async taken(inode: Inode): Promise<void> {
    const { cover } = inode;
    this.counts.sizeSettles += 1;
    this.#threads.forgetEnded(cover);
    // Its older reply might be taken after the look.
    await this.#gates.get(cover)?.quiet();
    const late = cover.size?.late ?? null;
    if (late?.effect === "raises") {
      const seen = await this.#threads.look(inode, late.end, Number.POSITIVE_INFINITY, RAISED_WAIT_MS);
      if (noteRaised(cover, seen)) return;
    }
    const isTaken = (): boolean => !mustBeTaken(cover);
    while (!isTaken() && !(await this.#lock.awaitOver(inode, LATE_WAIT_MS, isTaken))) {
      if (this.#lapsed()) continue;
      this.counts.sizesUnknown += 1;
      return;
    }
  }
}

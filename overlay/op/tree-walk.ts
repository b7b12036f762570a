/**
 * A program that goes through a tree does in each directory what it did in the one before (tar, `git status`, `grep -r`). Most directories have a few files
 * only: one that is read ahead after its second file has hardly any left. So where that was of use in some directories, the next one is read ahead from its
 * first file on. Each use pays for two more, and what was begun without use is paid for, too: a program that opens files here and there soon has none.
 */

/** With no longer pause from one directory to the next. */
export const TREE_MS = 1000;
/** A directory that was read ahead to some use pays for so many others. */
const PAID_BY_USE = 2;
/** It takes so many, those of two directories, ... */
const PAID_FIRST = 3;
/** ... and no more are kept: no more than PAID_MAX - PAID_FIRST + 1 are read ahead in vain. */
export const PAID_MAX = 8;

export class TreeWalk {
  #paid = 0;
  #lastMs = Number.NEGATIVE_INFINITY;

  /** Of what was read ahead of a directory some is asked for. Once for each time that one is. */
  noteUse(now: number): void {
    this.#paid = Math.min(this.#left(now) + PAID_BY_USE, PAID_MAX);
    this.#lastMs = now;
  }

  /** While a tree is walked: its next directory is read ahead from its first file on, and that is paid for. */
  begins(now: number): void {
    this.#paid -= 1;
    this.#lastMs = now;
  }

  isWalked(now: number): boolean {
    return this.#left(now) >= PAID_FIRST;
  }

  #left(now: number): number {
    return now - this.#lastMs > TREE_MS ? 0 : this.#paid;
  }
}

/**
 * "The disk is quiet": after a fence nothing may write to the disk any more. Two looks that differ after it show that the fence lied (an agent
 * that says yes, a plug of another machine). Two equal ones, far enough apart, never replace a fence. Pure.
 *
 * A look from before the end of the fence counts for the time in which nothing changed, so that a fence that takes its time, or a device's
 * `settleMs`, need not be followed by one more wait.
 */

/** The least time between the first and the last of equal looks; a share of how often a mounted file system writes, if that is more. */
export const QUIET_MS = 1500;
const QUIET_SHARE = 1.5;

export type Quiet =
  | { readonly kind: "quiet" }
  /** To be looked at again. */
  | { readonly kind: "wait"; readonly forMs: number }
  /** It was written after the fence; stays so. */
  | { readonly kind: "lied" };

export class QuietDisk {
  #mark: string | null = null;
  #sinceMs = 0;
  #fencedSeen = false;
  #lied = false;

  /** `nowMs`: when the look began. `fenced`: the cluster had said before that the life is fenced. */
  look(mark: string, everyMs: number, fenced: boolean, nowMs: number): Quiet {
    if (this.#mark !== mark) {
      if (this.#fencedSeen && fenced) this.#lied = true;
      this.#mark = mark;
      this.#sinceMs = nowMs;
    }
    this.#fencedSeen = fenced;
    if (this.#lied) return { kind: "lied" };
    const forMs = this.#sinceMs + Math.max(QUIET_MS, everyMs * QUIET_SHARE) - nowMs;
    return fenced && forMs <= 0 ? { kind: "quiet" } : { kind: "wait", forMs: Math.max(0, forMs) };
  }
}

/**
 * What a LOOKUP says of an inode that the kernel knows by another name, too: a rename between two names of one inode succeeds in the kernel
 * without a request (fs/namei.c, vfs_rename). Why a thread in rename(2) is shown a stand-in: overlay/op/README.md, "Names that changed
 * meanwhile".
 */
import { setTimeout as sleep } from "node:timers/promises";
import { keepNewest } from "../../dlmd/base/keep-newest.ts";
import type { MaybePromise } from "../../dlmd/base/maybe-promise.ts";
import type { Call } from "./call.ts";
import type { EstaleRetry } from "./estale-retry.ts";

/** "walk again": ESTALE, once. */
export type RenameTarget = "itself" | "another" | "walk again";

/** Threads remembered. Beyond, the oldest is forgotten: what was shown to most of them led to no RENAME. */
const THREADS_MAX = 1024;

/** The numbers that stand for nothing, as long as the kernel has them: each is an inode there. And who goes by them. */
export class PlaceholderInodes {
  readonly #shownTo = new Map<number, number>();
  /** Threads that were shown one and have sent no RENAME since. True: such a thread has walked once more, and sees the truth. */
  readonly #threads = new Map<number, boolean>();

  /** For another process of this mount. */
  all(): { readonly shownTo: readonly (readonly [number, number])[]; readonly threads: readonly (readonly [number, boolean])[] } {
    return { shownTo: [...this.#shownTo], threads: [...this.#threads] };
  }

  restore({ shownTo, threads }: ReturnType<PlaceholderInodes["all"]>): void {
    for (const [fuseNodeid, tid] of shownTo) this.#shownTo.set(fuseNodeid, tid);
    for (const [tid, walked] of threads) this.#threads.set(tid, walked);
  }

  show(fuseNodeid: number, tid: number): void {
    this.#shownTo.set(fuseNodeid, tid);
    if (this.#threads.has(tid)) return;
    this.#threads.set(tid, false);
    keepNewest(this.#threads, THREADS_MAX);
  }

  /** Something was asked of that number, and is ESTALE: its thread walks again. */
  asked(fuseNodeid: number): void {
    const tid = this.#shownTo.get(fuseNodeid);
    if (tid !== undefined) this.#threads.set(tid, true);
  }

  mustSeeTruth(tid: number): boolean {
    return this.#threads.get(tid) === true;
  }

  /**
   * The RENAME of that thread came. True: its kernel may go by such a number, whatever it was told of that name before: it marks nothing of the inode that is
   * really there. And it may have walked twice.
   */
  came(tid: number): boolean {
    return this.#threads.size > 0 && this.#threads.delete(tid);
  }

  forget(fuseNodeid: number): void {
    if (this.#shownTo.size > 0) this.#shownTo.delete(fuseNodeid);
  }
}

/** What it is judged by (mount.ts). */
interface Renames {
  readonly standIns: PlaceholderInodes;
  readonly staleOnce: EstaleRetry;
  readonly isRenaming: (tid: number) => boolean | null;
}

/** A thread that has sent its request and not gone to sleep yet is waited for so many times a millisecond. */
const RUNNING_WAITS_MAX = 20;

export function renameTarget(renames: Renames, call: Call, name: Buffer): MaybePromise<RenameTarget> {
  const renaming = renames.isRenaming(call.pid);
  return renaming === null ? unsureTarget(renames, call, name) : targetOf(renames, call, renaming);
}

function targetOf(renames: Renames, call: Call, renaming: boolean): RenameTarget {
  return renaming && !renames.standIns.mustSeeTruth(call.pid) ? "another" : "itself";
}

async function unsureTarget(renames: Renames, call: Call, name: Buffer): Promise<RenameTarget> {
  for (let waits = 0; waits < RUNNING_WAITS_MAX && call.pid !== 0; waits += 1) {
    await sleep(1);
    const renaming = renames.isRenaming(call.pid);
    if (renaming !== null) return targetOf(renames, call, renaming);
  }
  // A rename looks up both names anew, and is not likely to be overtaken a second time.
  return renames.staleOnce.give(call, name) ? "walk again" : "itself";
}

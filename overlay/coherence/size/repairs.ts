/**
 * What is under way to have the kernel take over the size of a file (threads.ts): system calls by threads of our own, or of a program (caller-repair.ts).
 * There may be several for one file: one whose reply the kernel has dropped waits for a page, and does not help any more. Pure.
 */
import type { Cover } from "../cover.ts";

export interface Repair {
  readonly byCaller: boolean;
  /** The kernel has asked. If the size stays wrong its reply was dropped, and another one is needed. */
  asked: boolean;
  /** The kernel has not asked, and will not: the inode can not be reached. */
  failed: boolean;
  /** The thread is back. */
  over: Promise<void>;
  /** The kernel's size then, and SizeState.mark when it was told; -1: none. */
  seen: number;
  mark: number;
}

export function newRepair(byCaller: boolean, over: Promise<void> = Promise.resolve()): Repair {
  return { byCaller, asked: byCaller, failed: false, over, seen: -1, mark: -1 };
}

export class SizeRepairs {
  readonly #running = new Map<Cover, readonly Repair[]>();

  get none(): boolean {
    return this.#running.size === 0;
  }

  /** The one that was begun last. */
  latest(cover: Cover): Repair | undefined {
    return this.#running.get(cover)?.at(-1);
  }

  add(cover: Cover, repair: Repair): void {
    this.#running.set(cover, [...(this.#running.get(cover) ?? []), repair]);
  }

  remove(cover: Cover, repair: Repair): void {
    const left = this.#running.get(cover)?.filter((other) => other !== repair) ?? [];
    if (left.length === 0) this.#running.delete(cover);
    else this.#running.set(cover, left);
  }

  /** A GETATTR of one of our threads came: of which repair nobody can tell, and it does not matter which is said to have asked. */
  noteAsked(cover: Cover): void {
    const next = this.#running.get(cover)?.find(({ asked }) => !asked);
    if (next !== undefined) next.asked = true;
  }

  /** Whose GETATTR it must be; undefined: that can not be told. */
  asker(cover: Cover): Repair | undefined {
    const own = this.#running.get(cover)?.filter(({ byCaller }) => !byCaller);
    return own?.length === 1 ? own[0] : undefined;
  }
}

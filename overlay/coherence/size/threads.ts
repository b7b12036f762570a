/**
 * The threads that look at the kernel's size of a file and put it right: our own, by system calls on our own mount (own-inodes.ts), and, for a repair, a program's
 * (caller-repair.ts). When that is done, and who waits for it, is check.ts's.
 *
 * The thread that makes the kernel ask us (OwnInodes.refresh) comes back only when the pages behind the new end are gone, and one of them may
 * be locked by a READ that waits here. The size is written before that. So for a READ another thread watches it, and the first one is left
 * alone, while whoever would change the file's size, or give the lock away, waits until it is back (gate.ts). Its GETATTR needs no lock of its own: that
 * of the READ or GETATTR waiting here covers it, in a revoke too; once none waits, it is refused.
 */
import { E } from "../../../dlmd/base/errno.ts";
import { type Cover, type Inode, ROOT_FUSE_NODEID, sizeOf } from "../cover.ts";
import type { CallerRepairs } from "./caller-repair.ts";
import type { CallerThreads } from "../../caller/threads.ts";
import type { CoherenceState } from "../effect.ts";
import type { KernelRwsem } from "./kernel-rwsem.ts";
import type { OwnRequests } from "./kernel-sizes.ts";
import type { OwnInodes } from "./own-inodes.ts";
import { noteThread } from "./doubt.ts";
import type { SizeGate, SizeGates } from "./gate.ts";
import { newRepair, type Repair, SizeRepairs } from "./repairs.ts";

export interface SizeThreadsOptions {
  readonly own: OwnInodes;
  readonly threads: CallerThreads;
  readonly state: CoherenceState;
  readonly gates: SizeGates;
  readonly lock: KernelRwsem;
  readonly callers: CallerRepairs;
}

export class SizeThreads implements OwnRequests {
  readonly counts = { sizeLooks: 0, sizeRepairs: 0, callerRepairs: 0 };
  readonly #own: OwnInodes;
  readonly #threads: CallerThreads;
  readonly #state: CoherenceState;
  readonly #gates: SizeGates;
  readonly #lock: KernelRwsem;
  readonly #callers: CallerRepairs;
  readonly #repairs = new SizeRepairs();
  /** READs and GETATTRs that wait for such threads, by inode. */
  readonly #waiting = new Map<Cover, number>();
  /** Own threads that look at a size, and may ask for the root on their way. */
  #looking = 0;

  constructor({ own, threads, state, gates, lock, callers }: SizeThreadsOptions) {
    this.#own = own;
    this.#threads = threads;
    this.#state = state;
    this.#gates = gates;
    this.#lock = lock;
    this.#callers = callers;
  }

  /** The kernel's size, once it is from `atLeast` to `atMost`, or after so many milliseconds; negative errno. */
  async look(inode: Inode, atLeast: number, atMost: number, timeoutMs: number): Promise<number> {
    this.counts.sizeLooks += 1;
    this.#looking += 1;
    try {
      return await this.#own.look(inode, atLeast, atMost, timeoutMs);
    } finally {
      this.#looking -= 1;
    }
  }

  /** The repair under way that was begun last. */
  latest(cover: Cover): Repair | undefined {
    return this.#repairs.latest(cover);
  }

  /** By a thread of our own. */
  repair(inode: Inode): Repair {
    const repair = newRepair(false);
    this.counts.sizeRepairs += 1;
    this.#repairs.add(inode.cover, repair);
    repair.over = this.#refresh(inode, repair);
    return repair;
  }

  async #refresh(inode: Inode, repair: Repair): Promise<void> {
    const { cover } = inode;
    const gate = this.#gates.take(cover);
    gate.refresh();
    const result = await this.#own.refresh(inode);
    repair.seen = result;
    repair.failed = result < 0 && result !== -E.EAGAIN;
    this.#end(cover, gate, repair);
  }

  #end(cover: Cover, gate: SizeGate, repair: Repair): void {
    this.#repairs.remove(cover, repair);
    gate.refreshed(repair.byCaller);
    this.#gates.release(cover, gate);
  }

  /** May one be made by that thread, which asks for the attributes? */
  mayRepair(cover: Cover, tid: number): boolean {
    return this.#callers.mayBegin(cover, tid) && this.#gates.get(cover)?.refreshing !== true;
  }

  /** To be called in the turn in which that thread is answered. */
  repairBy(cover: Cover, tid: number): void {
    this.counts.callerRepairs += 1;
    const gate = this.#gates.take(cover);
    gate.refresh(true);
    const over = new Promise<void>((resolve) => {
      this.#callers.begin(cover, tid, resolve);
    });
    const repair = newRepair(true, over);
    this.#repairs.add(cover, repair);
    void over.then(() => this.#end(cover, gate, repair));
  }

  /** With a pin held: what our own threads ask about the inode meanwhile needs none. */
  async whileWaiting<T>(cover: Cover, work: () => Promise<T>): Promise<T> {
    this.#waiting.set(cover, (this.#waiting.get(cover) ?? 0) + 1);
    try {
      return await work();
    } finally {
      const left = (this.#waiting.get(cover) ?? 1) - 1;
      if (left === 0) this.#waiting.delete(cover);
      else this.#waiting.set(cover, left);
    }
  }

  /** A thread that has ended has taken what it was answered. (One that is asleep may have been stopped before it did.) */
  forgetEnded(cover: Cover): void {
    const tid = cover.size?.late?.tid ?? 0;
    if (tid === 0 || !this.#threads.hasEnded(tid)) return;
    if (noteThread(this.#state, tid) !== null) this.#lock.tellOver(cover);
  }

  // --- requests of our own threads

  isOwnThread(tid: number): boolean {
    return this.#own.isOwnThread(tid);
  }

  getattr(inode: Inode, tid: number): "no" | "now" | "late" {
    if (this.#looking === 0 && this.#repairs.none && this.#lock.idle && this.#waiting.size === 0) return "no";
    if (!this.#own.isOwnThread(tid)) return "no";
    this.#repairs.noteAsked(inode.cover);
    // On its way to the inode the thread may need the root.
    const root = inode.fuseNodeid === ROOT_FUSE_NODEID;
    return root || this.#waiting.has(inode.cover) ? "now" : "late";
  }

  async tell(inode: Inode, work: () => Promise<void>): Promise<void> {
    const { cover } = inode;
    const gate = this.#gates.take(cover);
    const repair = this.#repairs.asker(cover);
    await gate.tellRefresh();
    try {
      await work();
      if (repair !== undefined && this.#repairs.asker(cover) === repair) repair.mark = sizeOf(cover).mark;
    } finally {
      gate.told();
      this.#gates.release(cover, gate);
    }
  }

  lock(inode: Inode, tid: number): Promise<void> | null {
    return this.#lock.ownRequest(inode, tid);
  }
}

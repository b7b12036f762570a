/**
 * Looks at the kernel's sizes, and has them repaired, as size-doubt.ts wants it.
 *
 * The thread that makes the kernel ask us (OwnInodes.refresh) comes back only when the pages behind the new end are gone, and one of them may
 * be locked by the very READ that waits here. The size is written before that. So another thread watches it, and the first one
 * is left alone. Its GETATTR needs no lock of its own: that of the waiting READ covers it, in a revoke too; once no READ waits, it
 * is refused.
 */
import { E } from "../../dlmd/base/errno.ts";
import type { Inode } from "../inode/inode.ts";
import { ROOT_FUSE_NODEID } from "../inode/table.ts";
import type { Maybe } from "../lower/lower.ts";
import type { Cover } from "./cover.ts";
import type { CoherenceState } from "./effect.ts";
import type { OwnInodes } from "./own-inodes.ts";
import { askedAt, certain, mustSettle, noteAsker, noteLooker, noteNoAskers, noteTaken } from "./size-asked.ts";
import { doubtSize, judgeSize, mustWait, noteKernelLock, noteLateReply, noteThread, noteTold, type SizeEffect } from "./size-doubt.ts";

/** What the op layer tells and asks about the kernel's sizes (api.ts, Coherence.sizes). */
export interface KernelSizes {
  /** A request of that thread came. */
  heard(tid: number): void;
  /** A request came for which the kernel holds the inode's lock: WRITE (not from the page cache), SETATTR, FALLOCATE, LINK ... */
  locked(inode: Inode): void;
  /** Such a request is about to be answered with success. */
  replied(inode: Inode, tid: number, effect: SizeEffect): void;
  /** With a pin held, the kernel is told that the inode has that size. */
  told(inode: Inode, size: number): void;
  /** A LOOKUP of that thread is answered with the sentinel. */
  toldSentinel(inode: Inode, tid: number): void;
  /** A GETATTR came whose caller will believe the kernel's size (size-asked.ts): to be given to `certain`. */
  asked(inode: Inode): number;
  /** With a pin held: may it be answered with that size, in this turn? False: ask for the size again; `tries`: how often that was. */
  certain(inode: Inode, size: number, asked: number, tries: number): Maybe<boolean>;
  /** It is answered: the kernel is told that size, and a READ is likely to follow. */
  toldAsker(inode: Inode, tid: number, size: number): void;
  /** To be taken before the data of a READ are. */
  mark(inode: Inode): number;
  /**
   * With a pin held, a READ is about to be answered that was cut short. True: answer, in this turn. False: read and ask again; `tries`: how
   * often that was.
   */
  confirmEnd(inode: Inode, read: ShortRead, tries: number): Maybe<boolean>;
  /** Is this GETATTR one of our own, that a READ waits for ("now": no lock is needed), or that none does ("late": refuse it)? */
  ownGetattr(inode: Inode, tid: number): "no" | "now" | "late";
  /** Is this REMOVEXATTR only the proof that the inode's lock was free? */
  ownLock(inode: Inode, tid: number): boolean;
}

export interface ShortRead {
  /** Where its data end. */
  readonly end: number;
  /** There were data: the file ends there. */
  readonly exact: boolean;
  readonly mark: number;
}

/** A READ waits so long for one repair, or for the end of one late reply, before it reads again ... */
const ROUND_MS = 20;
/** ... so often, and is then answered as it is: a second at most, most of it in a revoke's way. */
const ROUNDS_MAX = 50;
/** A GETATTR is answered as it is after so many repairs. */
const ASKS_MAX = 20;
/** A reply with attributes is given so long to be taken before a READ that follows it looks by itself. */
const TOLD_MS = 1;
/** A revoke waits so long for a reply to SETATTR or LINK, or one with a size that was asked for, to be taken. */
const LATE_WAIT_MS = 20;

export interface SizeCounters {
  /** Looks at the kernel's size, and repairs. */
  sizeLooks: number;
  sizeRepairs: number;
  /** Proofs asked for that a late reply is over. */
  sizeLocks: number;
  /** GETATTRs whose answer waited for the kernel's size to be right, and revokes that waited for such answers to be taken. */
  sizeAsks: number;
  sizeSettles: number;
  /** READs answered although the kernel's size was wrong: the mount can not be reached, or it took too long. */
  sizesUnknown: number;
}

interface Repair {
  /** The kernel has asked. If the size stays wrong its reply was dropped, and another one is needed. */
  asked: boolean;
  /** The kernel has not asked, and will not: the inode can not be reached. */
  failed: boolean;
}

export class SizeCheck implements KernelSizes {
  readonly counts: SizeCounters = { sizeLooks: 0, sizeRepairs: 0, sizeLocks: 0, sizeAsks: 0, sizeSettles: 0, sizesUnknown: 0 };
  readonly #own: OwnInodes;
  readonly #state: CoherenceState;
  readonly #queueEmptied: (look: boolean) => number;
  /** READs that wait here, by inode. */
  readonly #waiting = new Map<Cover, number>();
  /** Threads of ours under way for that inode. */
  readonly #repairs = new Map<Cover, Repair>();
  readonly #locking = new Set<Cover>();
  /** Looks begun by `told`. */
  readonly #looks = new Map<Cover, Promise<void>>();
  /** Who waits for a late reply to be over. */
  readonly #over = new Map<Cover, Set<(proved: boolean) => void>>();

  constructor(own: OwnInodes, state: CoherenceState, queueEmptied: (look: boolean) => number) {
    this.#own = own;
    this.#queueEmptied = queueEmptied;
    this.#state = state;
  }

  heard(tid: number): void {
    const { lateOf, toldOf } = this.#state;
    const late = lateOf.size === 0 ? null : noteThread(this.#state, tid);
    const taken = toldOf.size === 0 ? null : noteTaken(this.#state, tid);
    if (late !== null) this.#tellOver(late);
    if (taken !== null) this.#tellOver(taken);
  }

  locked(inode: Inode): void {
    noteKernelLock(inode.cover);
    noteNoAskers(inode.cover);
    this.#tellOver(inode.cover);
  }

  replied(inode: Inode, tid: number, effect: SizeEffect): void {
    noteLateReply(this.#state, inode.cover, tid, effect);
  }

  told(inode: Inode, size: number): void {
    noteTold(inode.cover, size);
  }

  toldSentinel(inode: Inode, tid: number): void {
    doubtSize(inode.cover);
    noteLooker(this.#state, inode.cover, tid);
  }

  asked(inode: Inode): number {
    return askedAt(inode.cover, this.#queueEmptied(false));
  }

  certain(inode: Inode, size: number, asked: number, tries: number): Maybe<boolean> {
    return certain(inode.cover, asked) || this.#ascertain(inode, size, tries);
  }

  async #ascertain(inode: Inode, size: number, tries: number): Promise<boolean> {
    const { cover } = inode;
    if (tries >= ASKS_MAX) return this.#giveUp();
    this.counts.sizeAsks += 1;
    return this.#whileWaiting(cover, async () => {
      await this.#looks.get(cover);
      if (!cover.sizeDoubt) return true;
      const mark = cover.sizeMark;
      const seen = await this.#seen(inode, size, 0);
      if (seen < 0) return this.#giveUp();
      if (seen !== size) return this.#mend(inode, size);
      judgeSize(cover, size, true, seen, mark);
      return true;
    });
  }

  /** Repairs the size, and says whether it is that one now. */
  async #mend(inode: Inode, size: number): Promise<boolean> {
    const repair = this.#repairing(inode);
    const seen = await this.#seen(inode, size, ROUND_MS);
    return repair.failed ? this.#giveUp() : seen === size;
  }

  toldAsker(inode: Inode, tid: number, size: number): void {
    const { cover } = inode;
    noteAsker(this.#state, cover, tid);
    noteTold(cover, size);
    if (!cover.sizeDoubt || inode.openCount === 0 || mustWait(cover) || this.#looks.has(cover)) return;
    this.#looks.set(cover, this.#lookAhead(inode, size));
  }

  mark(inode: Inode): number {
    return inode.cover.sizeMark;
  }

  async #lookAhead(inode: Inode, size: number): Promise<void> {
    const { cover } = inode;
    const mark = cover.sizeMark;
    this.counts.sizeLooks += 1;
    const seen = await this.#own.look(inode.fuseNodeid, size, TOLD_MS);
    this.#looks.delete(cover);
    if (seen >= 0) judgeSize(cover, size, true, seen, mark);
  }

  confirmEnd(inode: Inode, read: ShortRead, tries: number): Maybe<boolean> {
    const { sizeDoubt, sizeMark } = inode.cover;
    return sizeDoubt ? this.#confirm(inode, read, tries) : sizeMark === read.mark || tries >= ROUNDS_MAX;
  }

  async #confirm(inode: Inode, read: ShortRead, tries: number): Promise<boolean> {
    const { cover } = inode;
    if (tries >= ROUNDS_MAX) return this.#giveUp();
    return this.#whileWaiting(cover, async () => {
      await this.#looks.get(cover);
      if (!cover.sizeDoubt) return cover.sizeMark === read.mark;
      if (mustWait(cover)) {
        await this.#awaitOver(inode, ROUND_MS);
        return false;
      }
      return (await this.#look(inode, read, 0)) ?? (await this.#repair(inode, read));
    });
  }

  /** With a pin held: what our own threads ask about the inode meanwhile needs none. */
  async #whileWaiting(cover: Cover, work: () => Promise<boolean>): Promise<boolean> {
    this.#waiting.set(cover, (this.#waiting.get(cover) ?? 0) + 1);
    try {
      return await work();
    } finally {
      const left = (this.#waiting.get(cover) ?? 1) - 1;
      if (left === 0) this.#waiting.delete(cover);
      else this.#waiting.set(cover, left);
    }
  }

  /** True: answer; false: read again; null: the size is wrong. */
  async #look(inode: Inode, { end, exact, mark }: ShortRead, timeoutMs: number): Promise<boolean | null> {
    const { cover } = inode;
    const seen = await this.#seen(inode, end, timeoutMs);
    if (seen < 0) return this.#giveUp();
    if (judgeSize(cover, end, exact, seen, mark)) return true;
    return cover.sizeMark === mark && seen > end ? null : false;
  }

  #seen(inode: Inode, atMost: number, timeoutMs: number): Promise<number> {
    this.counts.sizeLooks += 1;
    return this.#own.look(inode.fuseNodeid, atMost, timeoutMs);
  }

  #giveUp(): true {
    this.counts.sizesUnknown += 1;
    return true;
  }

  async #repair(inode: Inode, read: ShortRead): Promise<boolean> {
    const repair = this.#repairing(inode);
    const right = await this.#look(inode, read, ROUND_MS);
    return repair.failed ? this.#giveUp() : right === true;
  }

  /** One that was begun and has not asked yet, or a new one. */
  #repairing(inode: Inode): Repair {
    const running = this.#repairs.get(inode.cover);
    return running === undefined || running.asked ? this.#startRepair(inode) : running;
  }

  #startRepair(inode: Inode): Repair {
    const repair: Repair = { asked: false, failed: false };
    this.counts.sizeRepairs += 1;
    this.#repairs.set(inode.cover, repair);
    void this.#refresh(inode, repair);
    return repair;
  }

  async #refresh(inode: Inode, repair: Repair): Promise<void> {
    const result = await this.#own.refresh(inode.fuseNodeid);
    if (this.#repairs.get(inode.cover) === repair) this.#repairs.delete(inode.cover);
    repair.failed = result < 0 && result !== -E.EAGAIN;
  }

  /** Before a revoke stores the sentinel: replies that set the size must have been taken, and who asked for it must be done with it. */
  async settle(inode: Inode): Promise<void> {
    this.counts.sizeSettles += 1;
    while (mustSettle(inode.cover)) {
      if (await this.#awaitOver(inode, LATE_WAIT_MS)) continue;
      this.counts.sizesUnknown += 1;
      // Not once more in the next round.
      noteNoAskers(inode.cover);
      return;
    }
  }

  /** Until the late reply is over, as the request proves that another thread of ours makes, or somebody else's. False: that took too long. */
  #awaitOver(inode: Inode, timeoutMs: number): Promise<boolean> {
    const { cover } = inode;
    if (!this.#locking.has(cover)) {
      this.#locking.add(cover);
      void this.#lock(inode);
    }
    return new Promise((resolve) => {
      const over = this.#over.get(cover) ?? new Set();
      this.#over.set(cover, over);
      const end = (proved: boolean): void => {
        clearTimeout(timer);
        over.delete(end);
        resolve(proved);
      };
      const timer = setTimeout(() => end(false), timeoutMs);
      over.add(end);
    });
  }

  async #lock(inode: Inode): Promise<void> {
    this.counts.sizeLocks += 1;
    const result = await this.#own.lock(inode.fuseNodeid);
    this.#locking.delete(inode.cover);
    if (result >= 0 || result === -E.ENODATA) return;
    // No proof is to be had: nobody is kept waiting for it.
    this.counts.sizesUnknown += 1;
    this.locked(inode);
  }

  #tellOver(cover: Cover): void {
    const over = this.#over.get(cover);
    if (over === undefined) return;
    this.#over.delete(cover);
    for (const end of over) end(true);
  }

  ownGetattr(inode: Inode, tid: number): "no" | "now" | "late" {
    if (this.#repairs.size === 0 && this.#locking.size === 0 && this.#waiting.size === 0 && this.#looks.size === 0) return "no";
    // On its way to the inode the thread may need the root.
    const root = inode.fuseNodeid === ROOT_FUSE_NODEID;
    const repair = this.#repairs.get(inode.cover);
    if ((!root && repair === undefined) || !this.#own.isOwnThread(tid)) return "no";
    if (repair !== undefined) repair.asked = true;
    return root || this.#waiting.has(inode.cover) ? "now" : "late";
  }

  ownLock(inode: Inode, tid: number): boolean {
    if (!this.#locking.has(inode.cover) || !this.#own.isOwnThread(tid)) return false;
    this.locked(inode);
    return true;
  }
}

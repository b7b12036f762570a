/**
 * Who waits for the kernel's size of a file to be known or right, before it is answered, and for how long, as doubt.ts wants it: calls that change the
 * size, replies that tell it, READs that end at the end of the file. (A revoke: settle.ts. The looks and repairs themselves: threads.ts.)
 *
 * A thread that repairs, still waiting for the page of the end when the READ is answered, cuts what a writer with a page cache puts there before it; and the kernel sends
 * what is in the page then: zeros would go to the disk. So where there are such writers a READ that needs a repair, or meets one, takes the inode's lock first
 * (kernel-rwsem.ts) and keeps it until the repair is over, and nobody is told a size before. A writer that has the lock may be waiting for the page of that very READ: it then gets EINTR, as does
 * one that meets a repair older than the file's size.
 */
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import { type Cover, type Inode, sizeOf } from "../cover.ts";
import type { SizeEffect } from "../cover-parts.ts";
import { inTime, type MaybePromise } from "../../../dlmd/base/maybe-promise.ts";
import { CallerRepairs } from "./caller-repair.ts";
import type { CallerThreads } from "../../caller/threads.ts";
import type { CoherenceState } from "../effect.ts";
import { KernelRwsem } from "./kernel-rwsem.ts";
import type { Asking, Believer, Confirmed, KernelSizes, ShortRead, SizeChange, Sized } from "./kernel-sizes.ts";
import type { OwnInodes } from "./own-inodes.ts";
import { noteAsker, noteTaken } from "./asked.ts";
import {
  doubtSize,
  judgeSize,
  judgeTold,
  keepsReadsBack,
  mayShrink,
  mustWait,
  noteLateReply,
  noteThread,
  noteTold,
  onlyRaises,
  sizeKnown,
} from "./doubt.ts";
import { SizeGates } from "./gate.ts";
import type { Repair } from "./repairs.ts";
import { Settling } from "./settle.ts";
import { SizeThreads } from "./threads.ts";

/** A READ waits so long for one repair, or for the end of one late reply, before it reads again; a reply with a size, for changes that wait beside it ... */
const ROUND_MS = 20;
/** ... so often: a second at most, most of it in a revoke's way, and two of a reply with a size. Then it gets EINTR; a reply with a size is given as it is. */
const ROUNDS_MAX = 50;
/** A READ waits so long for a repair to be over that is older than the file's size. */
const STALE_MS = 2;
/** A reply with a size waits so many rounds for a repair that may cut what its caller writes next. */
const CUT_ROUNDS_MAX = 4;
/** After so many repairs in vain beside a change that waits for the lock, the kernel takes no size from the reply either. */
const SIZELESS_REPAIRS_MIN = 2;
/** Where nothing can put the size right. */
const STUCK_ROUNDS_MAX = 2;
/** A reply with a size waits so long for one repair to be over, and is then given as it is. */
const REPAIR_MS = 1000;

export interface SizeCounters {
  /** Looks at the kernel's size, and repairs. */
  sizeLooks: number;
  sizeRepairs: number;
  /** Repairs by the thread that asked (caller-repair.ts). */
  callerRepairs: number;
  /** Proofs asked for that a late reply is over. */
  sizeLocks: number;
  /** Replies with a size that waited until the kernel's was known, and revokes that waited for such replies to be taken. */
  sizeAsks: number;
  sizeSettles: number;
  /** READs refused with EINTR, because the kernel's size was wrong and stayed so. */
  readsRefused: number;
  /** READs and GETATTRs answered although the kernel's size was not known: the mount can not be reached, or it took too long. */
  sizesUnknown: number;
}

export class SizeCheck implements KernelSizes {
  readonly own: SizeThreads;
  readonly revoke: Settling;
  readonly #counts = { sizeAsks: 0, readsRefused: 0, sizesUnknown: 0 };
  readonly #threads: CallerThreads;
  readonly #state: CoherenceState;
  readonly #gates = new SizeGates();
  readonly #lock: KernelRwsem;
  readonly #callers: CallerRepairs;

  /** `lapsed`: answers are kept, and no thread takes what it was told. */
  constructor(own: OwnInodes, threads: CallerThreads, state: CoherenceState, lapsed: () => boolean = () => false) {
    this.#threads = threads;
    this.#state = state;
    this.#lock = new KernelRwsem(own);
    this.#callers = new CallerRepairs((tid) => threads.isAsleep(tid));
    this.own = new SizeThreads({ own, threads, state, gates: this.#gates, lock: this.#lock, callers: this.#callers });
    this.revoke = new Settling(this.#gates, this.#lock, this.own, lapsed);
  }

  get counts(): SizeCounters {
    const { sizeLocks, unproved } = this.#lock.counts;
    const sizesUnknown = this.#counts.sizesUnknown + this.revoke.counts.sizesUnknown + unproved + this.#callers.unproved;
    return { ...this.#counts, ...this.own.counts, ...this.revoke.counts, sizeLocks, sizesUnknown };
  }

  heard(tid: number): void {
    this.#callers.heard(tid);
    const { lateOf, toldOf } = this.#state;
    const late = lateOf.size === 0 ? null : noteThread(this.#state, tid);
    const taken = toldOf.size === 0 ? null : noteTaken(this.#state, tid);
    if (late !== null) this.#lock.tellOver(late);
    if (taken !== null) this.#lock.tellOver(taken);
  }

  locked(inode: Inode, call: Asking): void {
    if (inode.kind === "file") sizeOf(inode.cover).lockHolder = call;
    this.#lock.wasFree(inode.cover);
  }

  mayBeSeek({ cover }: Inode): boolean {
    return cover.size === null || cover.size.lockHolder === null || cover.size.lockHolder.answered;
  }

  // --- changes

  begin(inode: Inode, change: SizeChange, waiter: Asking, read: () => MaybePromise<Sized>): MaybePromise<void> {
    const entered = this.#gates.take(inode.cover).begin(holdsPages(change), waiter, change === "truncates");
    if (entered !== undefined) return this.#beginAfter(entered, inode, change, waiter, read);
    return this.#begun(inode, change, waiter, read);
  }

  async #beginAfter(
    entered: Promise<void>,
    inode: Inode,
    change: SizeChange,
    waiter: Asking,
    read: () => MaybePromise<Sized>,
  ): Promise<void> {
    await entered;
    await this.#begun(inode, change, waiter, read);
  }

  /** Within the gate. */
  #begun(inode: Inode, change: SizeChange, waiter: Asking, read: () => MaybePromise<Sized>): MaybePromise<void> {
    if (change === "truncates") sizeOf(inode.cover).truncating += 1;
    if (needsKnown(inode, change)) return this.#makeKnown(inode, change, waiter, read);
  }

  /** Out of the gate and in again, which such answers need. */
  async #makeKnown(inode: Inode, change: SizeChange, waiter: Asking, read: () => MaybePromise<Sized>): Promise<void> {
    const { cover } = inode;
    while (needsKnown(inode, change) && !waiter.interrupted) {
      this.#end(cover, change, waiter);
      await this.tell(inode, waiter, read, () => {});
      const unknown = sizeOf(cover).doubt;
      await this.#gates.take(cover).begin(false, waiter);
      if (unknown) return;
    }
  }

  made(inode: Inode, change: SizeChange): void {
    // A READ whose data were read before reads again.
    sizeOf(inode.cover).mark += 1;
    if (holdsPages(change)) this.#gates.get(inode.cover)?.made();
  }

  end(inode: Inode, change: SizeChange, waiter: Asking, sure: boolean): void {
    const { cover } = inode;
    if (!sure) doubtSize(cover);
    const size = sizeOf(cover);
    if (change === "truncates") size.truncating -= 1;
    if (size.lockHolder?.answered === true) size.lockHolder = null;
    this.#end(cover, change, waiter);
  }

  #end(cover: Cover, change: SizeChange, waiter: Asking): void {
    const gate = this.#gates.take(cover);
    gate.end(holdsPages(change), waiter);
    this.#gates.release(cover, gate);
  }

  replied(inode: Inode, tid: number, effect: SizeEffect, end: number = Number.POSITIVE_INFINITY): void {
    if (inode.kind === "file") noteLateReply(this.#state, inode.cover, tid, effect, end);
  }

  unstable({ cover }: Inode): () => void {
    const size = sizeOf(cover);
    size.unstable += 1;
    return () => {
      size.unstable -= 1;
    };
  }

  told(inode: Inode, size: number): void {
    if (inode.kind === "file") noteTold(inode.cover, size);
  }

  toldSentinel(inode: Inode): void {
    doubtSize(inode.cover);
  }

  // --- replies with a size

  known(inode: Inode): boolean {
    const { cover } = inode;
    // What the kernel does not know yet has no size there.
    if (inode.kind !== "file" || inode.nlookup === 0) return true;
    return sizeKnown(cover) && this.#gates.get(cover)?.changing !== true && !this.#mayCut(cover);
  }

  isReading(tid: number): boolean {
    return this.#threads.isReading(tid);
  }

  async tell<T extends Sized>(
    inode: Inode,
    waiter: Asking,
    read: () => MaybePromise<T>,
    answer: (attr: T) => void,
    believer: Believer | null = null,
  ): Promise<void> {
    const { cover } = inode;
    const reader = believer?.reads === true ? believer.tid : 0;
    this.#counts.sizeAsks += 1;
    await this.own.whileWaiting(cover, async () => {
      let repaired: Repair | null = null;
      for (let tries = 0; ; tries += 1) {
        let size: number;
        this.own.forgetEnded(cover);
        // It may wait for the page of a WRITE that waits for this pin.
        if (this.#mayCut(cover)) await inTime(this.#quiet(cover), ROUND_MS);
        // What puts the size right may be a change that waits for others who tell it.
        const entering = tries === 0 ? undefined : this.#gates.get(cover)?.lettingIn();
        if (entering !== undefined) await inTime(entering, ROUND_MS);
        const gate = this.#gates.take(cover);
        await gate.tell();
        try {
          const attr = await read();
          size = attr.size;
          if (this.#mayRepair(cover, reader) && !waiter.interrupted) {
            this.own.repairBy(cover, reader);
            answer(attr);
            return;
          }
          if (waiter.interrupted || (await this.#isTheKernels(inode, attr.size, repaired, tries))) {
            answer(attr);
            return;
          }
        } finally {
          gate.told();
          this.#gates.release(cover, gate);
        }
        repaired = null;
        if (mustWait(cover, size)) await this.#lateOver(inode, believer);
        else if (sizeOf(cover).doubt) {
          repaired = this.own.latest(cover) ?? (await this.#repairAlone(inode, tries));
          if (repaired !== null && !(await inTime(repaired.over, REPAIR_MS))) tries = ROUNDS_MAX;
        }
      }
    });
  }

  /** lseek(2) has the inode's lock, so that no thread of ours can get it: but whoever had it before is done. */
  async #lateOver(inode: Inode, believer: Believer | null): Promise<void> {
    if (believer !== null && this.#threads.isSeeking(believer.tid)) this.#lock.wasFree(inode.cover);
    else await this.#lock.awaitOver(inode, ROUND_MS);
  }

  /** May that thread put the kernel's size right itself? */
  #mayRepair(cover: Cover, tid: number): boolean {
    const plain = isPlainlyWrong(cover) && cover.phase === "idle" && !fillsPages(cover);
    return plain && this.own.mayRepair(cover, tid);
  }

  /**
   * Where writers here fill pages: with the inode's lock held. Who asks may have that himself (lseek), and so may a writer whose request is here, and
   * fills nothing before it is answered; null: to be tried again.
   */
  async #repairAlone(inode: Inode, tries: number): Promise<Repair | null> {
    const { cover } = inode;
    if (!fillsPages(cover) || cover.size?.lockHolder?.answered === false || tries > STUCK_ROUNDS_MAX) return this.own.repair(inode);
    const release = await this.#lock.hold(inode, ROUND_MS);
    if (release === null) return null;
    // Others waited for the lock, too: one of them may have begun one.
    const repair = this.own.latest(cover) ?? this.own.repair(inode);
    void repair.over.then(release);
    return repair;
  }

  async #isTheKernels(inode: Inode, size: number, repaired: Repair | null, tries: number): Promise<boolean> {
    const { cover } = inode;
    if (this.#mayCut(cover) && tries <= CUT_ROUNDS_MAX) return false;
    if (sizeKnown(cover)) return true;
    if (tries >= ROUNDS_MAX || repaired?.failed === true) return this.#giveUp();
    // It took none of two repairs, and takes this one no more: the second began after this was asked, and the change that waits will be later still.
    if (repaired !== null && tries >= SIZELESS_REPAIRS_MIN && keepsReadsBack(cover)) return true;
    const { late, mark } = sizeOf(cover);
    if (repaired?.mark === mark && judgeTold(cover, size, repaired.seen, mark)) return true;
    // After a revoke it is not: that need not be looked at.
    if (tries === 0 && isPlainlyWrong(cover) && cover.phase === "idle") return false;
    // A write(2) that was answered may still have to raise it.
    const seen = await this.own.look(inode, size, size, late !== null && onlyRaises(late) && !late.harms ? ROUND_MS : 0);
    if (seen === -E.EAGAIN) return false;
    return seen < 0 ? this.#giveUp() : judgeTold(cover, size, seen, mark);
  }

  toldAsker(inode: Inode, tid: number): void {
    if (this.mayBeSeek(inode)) noteAsker(this.#state, inode.cover, tid);
  }

  anticipate(inode: Inode): MaybePromise<void> {
    const { cover } = inode;
    // Who waited for the lock, too, does it himself.
    if (cover.pins > 1) return undefined;
    if (cover.size?.doubt !== true || cover.size.late?.harms === true || fillsPages(cover) || this.own.latest(cover) !== undefined)
      return undefined;
    return this.own.whileWaiting(cover, () => this.own.repair(inode).over);
  }

  mark(inode: Inode): number {
    return sizeOf(inode.cover).mark;
  }

  // --- READs

  confirmEnd(inode: Inode, read: ShortRead, tries: number): MaybePromise<Confirmed> {
    const { doubt, mark } = sizeOf(inode.cover);
    const plain = !doubt && !mayShrink(inode.cover) && !this.#mayCut(inode.cover) && !this.#isStale(inode.cover);
    return plain ? mark === read.mark : this.#confirm(inode, read, tries);
  }

  async #confirm(inode: Inode, read: ShortRead, tries: number): Promise<Confirmed> {
    const { cover } = inode;
    return this.own.whileWaiting(cover, async () => {
      if (tries < ROUNDS_MAX && mustWait(cover, read.end)) {
        await this.#lock.awaitOver(inode, ROUND_MS);
        return false;
      }
      // It waits for the page of this READ, and would cut what that brings.
      if (this.#isStale(cover)) return (await inTime(this.#quiet(cover), STALE_MS)) ? false : this.#refuse();
      const shrinks = mayShrink(cover) && tries < ROUNDS_MAX;
      const right = await this.#look(inode, read, shrinks ? ROUND_MS : 0);
      if (right === true && !this.#mayCut(cover)) return !this.#isStale(cover);
      // Nothing else sets it meanwhile.
      if (shrinks) return false;
      // In a revoke who makes the size unstable waits until that is over, and the revoke for the page of this READ.
      const stuck = right === null && sizeOf(cover).unstable > 0 && cover.phase !== "idle";
      if (stuck && read.paged && tries < ROUNDS_MAX && keepsReadsBack(cover)) return "repin";
      if (tries >= (stuck ? STUCK_ROUNDS_MAX : ROUNDS_MAX)) return this.#refuse();
      return fillsPages(cover) ? this.#confirmAlone(inode, read, right, tries) : (right ?? (await this.#repair(inode, read)));
    });
  }

  /** With the inode's lock held, until the repair is over: nobody fills the page of the end before that is cut. */
  async #confirmAlone(inode: Inode, read: ShortRead, right: boolean | null, tries: number): Promise<boolean> {
    const release = await this.#lock.hold(inode, ROUND_MS);
    if (release === null) return tries >= STUCK_ROUNDS_MAX ? this.#refuse() : false;
    try {
      const now = right === null ? await this.#repair(inode, read) : (await this.#look(inode, read, 0)) === true;
      return now && !this.#isStale(inode.cover);
    } finally {
      void this.#quiet(inode.cover).then(release);
    }
  }

  #refuse(): never {
    this.#counts.readsRefused += 1;
    throw errnoError(E.EINTR);
  }

  /** A truncation of the page cache by one of our own threads may come, and cut what a writer has put into the page of the end. */
  #mayCut(cover: Cover): boolean {
    return fillsPages(cover) && this.#gates.get(cover)?.refreshing === true;
  }

  #isStale(cover: Cover): boolean {
    return this.#gates.get(cover)?.stale === true;
  }

  async #quiet(cover: Cover): Promise<void> {
    await this.#gates.get(cover)?.quiet();
  }

  settled({ cover }: Inode): MaybePromise<void> {
    return this.#gates.get(cover)?.quiet();
  }

  /** True: answer; false: read again; null: the size is wrong. */
  async #look(inode: Inode, { end, exact, mark }: ShortRead, timeoutMs: number): Promise<boolean | null> {
    const { cover } = inode;
    const seen = await this.own.look(inode, 0, end, timeoutMs);
    // No answer about the root in time, or no thread.
    if (seen === -E.EAGAIN) return false;
    if (seen < 0) return this.#giveUp();
    if (judgeSize(cover, end, exact, seen, mark)) return true;
    return sizeOf(cover).mark === mark && seen > end ? null : false;
  }

  async seen(inode: Inode): Promise<number | null> {
    const seen = await this.own.look(inode, 0, 0, 0);
    return seen < 0 ? null : seen;
  }

  #giveUp(): true {
    this.#counts.sizesUnknown += 1;
    return true;
  }

  async #repair(inode: Inode, read: ShortRead): Promise<boolean> {
    const running = this.own.latest(inode.cover);
    // The reply to one that was asked for was dropped, if the size is still wrong.
    const repair = running === undefined || running.asked ? this.own.repair(inode) : running;
    const right = await this.#look(inode, read, ROUND_MS);
    return repair.failed ? this.#giveUp() : right === true;
  }
}

/** No reply is on its way that may put it right. */
function isPlainlyWrong({ size }: Cover): boolean {
  return size !== null && size.doubt && size.late === null;
}

function holdsPages(change: SizeChange): boolean {
  return change === "holds" || change === "truncates";
}

/** There are writers here with a page cache. */
function fillsPages(cover: Cover): boolean {
  return (cover.token?.users ?? 0) > 0;
}

/** With nobody but the caller about, no READ comes but from who opens the file now: that is held back (pages/append-end.ts). */
function needsKnown({ cover, openCount }: Inode, change: SizeChange): boolean {
  return change === "drops" && cover.size?.doubt === true && openCount > 1;
}

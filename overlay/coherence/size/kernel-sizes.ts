/** What the op layer tells and asks about the size that the kernel has for a file (hazard F5); check.ts does it, doubt.ts says why. */
import type { Inode } from "../cover.ts";
import type { SizeEffect } from "../cover-parts.ts";
import type { MaybePromise } from "../../../dlmd/base/maybe-promise.ts";

/** api.ts, Coherence.sizes. */
export interface KernelSizes {
  readonly own: OwnRequests;
  /** A request of that thread came. */
  heard(tid: number): void;
  /** Until no truncation by a thread of our own is under way: before there is a new writer with a page cache. */
  settled(inode: Inode): MaybePromise<void>;
  /** A request came for which the kernel holds the inode's lock: WRITE (not from the page cache), SETATTR, FALLOCATE, LINK ... */
  locked(inode: Inode, call: Asking): void;
  /** May a GETATTR with a file handle be one of lseek(2), which has the inode's lock? Not while a request has it that is not answered. */
  mayBeSeek(inode: Inode): boolean;
  /**
   * With EX pinned, before a call of the lower that may change the size. To be followed by `made` when the lower has answered, and by `end` in
   * the turn of the reply.
   */
  begin(inode: Inode, change: SizeChange, waiter: Asking, read: () => MaybePromise<Sized>): MaybePromise<void>;
  made(inode: Inode, change: SizeChange): void;
  /** `sure`: what the call did to the size is known, and `replied` or `told`. */
  end(inode: Inode, change: SizeChange, waiter: Asking, sure: boolean): void;
  /**
   * A call waits for its lock, until what is given is called, and until it is answered the kernel takes no size from any other reply
   * (FUSE_I_SIZE_UNSTABLE): a truncation, FALLOCATE, the target of COPY_FILE_RANGE, a WRITE of a handle with a page cache.
   */
  unstable(inode: Inode): () => void;
  /** Such a request is about to be answered with success; `end`: where one that "raises" the size does to, or what it "sets". */
  replied(inode: Inode, tid: number, effect: SizeEffect, end?: number): void;
  /** With a pin held, the kernel is told that the inode has that size (terms.ts). */
  told(inode: Inode, size: number): void;
  /** A LOOKUP is answered with the sentinel. */
  toldSentinel(inode: Inode): void;
  /** With a pin held: may the kernel be told the inode's size, in this turn? If not: `tell`. */
  known(inode: Inode): boolean;
  /** Is that thread, which waits for an answer, in read(2) or pread(2)? */
  isReading(tid: number): boolean;
  /**
   * With a pin held: calls `answer` with what `read` gives, in a turn in which the kernel has that very size. `believer`: who will go by that; null: nobody.
   */
  tell<T extends Sized>(
    inode: Inode,
    waiter: Asking,
    read: () => MaybePromise<T>,
    answer: (attr: T) => void,
    believer?: Believer | null,
  ): Promise<void>;
  /** The kernel's own size, whatever it is; null: it can not be seen. */
  seen(inode: Inode): Promise<number | null>;
  /** A GETATTR is answered whose caller will believe the kernel's size (asked.ts). */
  toldAsker(inode: Inode, tid: number): void;
  /** With a pin held: has the kernel's size put right before somebody asks. */
  anticipate(inode: Inode): MaybePromise<void>;
  /** To be taken before the data of a READ are. */
  mark(inode: Inode): number;
  /**
   * With a pin held, a READ is about to be answered that was cut short. True: answer, in this turn. False: read and ask again; `tries`: how
   * often that was. "repin": it is to give its pin back, and wait for the lock again (`repinData`). EINTR: the kernel's size is wrong and can not be put right,
   * and whatever is answered would be shown with zeros behind it.
   */
  confirmEnd(inode: Inode, read: ShortRead, tries: number): MaybePromise<Confirmed>;
}

/** Requests that our own threads have the kernel make (threads.ts). */
export interface OwnRequests {
  /** Does a request come from one of our own threads? */
  isOwnThread(tid: number): boolean;
  /** Is this GETATTR one of our own, that somebody waits for ("now": no lock is needed), or that nobody does ("late": refuse it)? */
  getattr(inode: Inode, tid: number): "no" | "now" | "late";
  /** The answer to one of our own. */
  tell(inode: Inode, work: () => Promise<void>): Promise<void>;
  /** Is this REMOVEXATTR one of our own (kernel-rwsem.ts)? Then it gets ENODATA when what is given is over; null: it is not. */
  lock(inode: Inode, tid: number): Promise<void> | null;
}

/** Who asks: a Call (op/call.ts), of which only this is looked at. */
export interface Asking {
  readonly interrupted: boolean;
  readonly answered: boolean;
}

/**
 * "holds": its caller may have pages locked in the kernel. "truncates": the same, for it keeps them from being written back (fuse_set_nowrite); and a READ that it cuts
 * short is answered when the kernel's size is no larger: its page would have zeros where data were. "drops": pages of the old end are dropped before it is answered; readers may hold
 * them who wait for the kernel's size to be known, so with readers about it is known before.
 */
export type SizeChange = "holds" | "truncates" | "drops" | "plain";

/** A thread whose GETATTR has a file handle: it is given the kernel's size, and not that of the reply. */
export interface Believer {
  readonly tid: number;
  /** It is reading, and may be told another size than the kernel has (caller-repair.ts). */
  readonly reads: boolean;
}

export interface Sized {
  readonly size: number;
}

export interface ShortRead {
  /** Where its data end. */
  readonly end: number;
  /** There were data: the file ends there. */
  readonly exact: boolean;
  readonly mark: number;
  /** A revoke can leave its pages alone: they are known, and locked. Absent: it can not. */
  readonly paged?: boolean;
}

/** confirmEnd */
export type Confirmed = boolean | "repin";

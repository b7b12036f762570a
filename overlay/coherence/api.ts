/**
 * What the op layer and the session ask of the coherence layer. An operation pins what it needs, works on the lower, writes its
 * reply while the pins are held, and unpins:
 *
 *     if (!coherence.tryPin(inode, Mode.PR)) await coherence.pin(inode, Mode.PR, request);
 *     try {
 *       const since = coherence.since();
 *       let attr = lower.getattr(inode.id);
 *       if (attr instanceof Promise) attr = await attr;
 *       request.replyAttr(attr, coherence.terms.of(inode, attr.size, request.pid, since, null));
 *     } finally {
 *       coherence.unpin(inode, Mode.PR);
 *     }
 *
 * A pin is never held while waiting for another one, except through `pinAll` (which orders them) and `pinChild`
 * (which never waits for another node).
 */
import type { ChildPin, Cover, Inode, InodeKind, PinMode, Since } from "./cover.ts";
import type { PagePart, PageRange } from "./page-range.ts";
import type { FileId } from "../lower/lower.ts";
import type { KernelNames } from "./names/kernel-names.ts";
import type { KernelSizes } from "./size/kernel-sizes.ts";
import type { Terms } from "./terms.ts";
import type { MaybePromise } from "../../dlmd/base/maybe-promise.ts";

/**
 * A request that may wait. The session calls `onInterrupt` once, when the caller is being killed (hazard F11); the
 * wait then ends with Errno EINTR.
 */
export interface Waiter {
  readonly interrupted: boolean;
  onInterrupt: (() => void) | null;
  /** Key of the inode for whose lock it waits; null: for none. */
  lockKey?: string | null;
}

export interface Want {
  readonly inode: Inode;
  readonly mode: PinMode;
}

/** What goes on with a page. */
export interface PageUsers {
  /** Anything of the file is, by a mapping. */
  readonly isWrittenBack: () => boolean;
  /**
   * It may be locked until the WRITE is answered: a READ has it, and brings what was written; or the WRITE's caller was killed, others have the
   * inode's lock since, and a truncation holds write-backs up that itself waits for this WRITE (fuse_set_nowrite).
   */
  readonly mayLast: () => boolean;
}

export interface HeldPageDrop {
  /** The WRITE can be answered. True: the page is gone; false: it has what was written, or it is the WRITE that has it. It goes after that. */
  readonly gone: Promise<boolean>;
  readonly dropped: Promise<void>;
}

export interface Coherence {
  /** The kernel's idea of how long files are (hazard F5). */
  readonly sizes: KernelSizes;
  /** The names that the kernel has (hazards F6, F12). */
  readonly names: KernelNames;
  /** How a reply may tell of an inode (hazards F4, F5, F6). */
  readonly terms: Terms;
  /** Pins if the lock is here and nobody waits before us. Never waits. */
  tryPin(inode: Inode, mode: PinMode): boolean;
  /** `tryPin` would pin. */
  has(inode: Inode, mode: PinMode): boolean;
  /** Waits for the lock, then pins. Rejects with Errno EINTR. */
  pin(inode: Inode, mode: PinMode, waiter: Waiter): Promise<void>;
  unpin(inode: Inode, mode: PinMode): void;
  /** Pins all or none, in the one lock order; the same inode twice is pinned once in the stronger mode. Undo with unpinAll. */
  pinAll(wants: readonly Want[], waiter: Waiter): MaybePromise<void>;
  unpinAll(wants: readonly Want[]): void;
  /** To be taken before the lower is asked, and given back where its answer is used. */
  since(): Since;
  /**
   * Under a pinned directory: pins PR on a child if that can be had without waiting for another node (hazard F13:
   * NOQUEUE). Attributes read while the lock was not here all the time must be read again after the pin: `trip` tells.
   */
  pinChild(inode: Inode, since: Since): MaybePromise<ChildPin>;
  /** `pinChild` for many, in one message to dlmd. `asks`: false: no other node is asked to give a lock up, for the next time, either. */
  pinChildren(inodes: readonly Inode[], since: Since, asks?: boolean): MaybePromise<readonly ChildPin[]>;

  /**
   * With nothing pinned: asks for locks that are not here, all in one message, and waits until they came or that many milliseconds have passed. Nothing is
   * pinned afterwards: a caller that pins these inodes then finds most locks here.
   */
  fetchLocks(inodes: readonly Inode[], mode: PinMode, waitMs: number): Promise<void>;

  /**
   * For READ, WRITE (from the page cache or not), SETATTR, FALLOCATE, FSYNC, FLUSH, COPY_FILE_RANGE, LSEEK, whose pages the
   * kernel may have locked: during a revoke these go through under the lock still held (hazard F1). `cached`: the request may
   * hold pages: it came through a handle with a page cache, or is a READ. `pages`: those of a READ, all of which the kernel has locked for it.
   */
  pinData(inode: Inode, mode: PinMode, cached: boolean, waiter: Waiter, pages?: PageRange | null): MaybePromise<void>;
  /** In a revoke a READ gives its pin back, and waits for another, as `pinData`. Its pages stay locked and empty, and the revoke leaves them alone. */
  repinData(inode: Inode, mode: PinMode, waiter: Waiter, pages: PageRange): Promise<void>;
  /** After the reply was written: also counts it as answered (hazard F1: the invalidation is then repeated). */
  unpinData(inode: Inode, mode: PinMode): void;

  /**
   * With PR pinned: a number for this hold of it, or of EX that was asked for to look (hazard F47); 0 if there is none to speak of. As long as it is the same
   * again, whatever was read of the inode from the lower, after it was given, is still true.
   */
  hold(inode: Inode): number;
  /**
   * With a pin held: a number for this hold of its lock, in whatever mode above NL; 0 if there is none to speak of. As long as it is the same again no
   * other node has changed the inode.
   */
  grantId(inode: Inode): number;
  /** The inode is read here and written elsewhere by turns. */
  contended(inode: Inode): boolean;
  /** Called with PR pinned, which it must unpin: the lock is here, and somebody is expected to read soon. null: nobody listens. */
  onExpected: ((inode: Inode) => void) | null;
  /** The kernel does not know it, though a process before this one may have told it so (Inode.unsure). */
  onUnknown: ((inode: Inode) => void) | null;

  /** No lock, here or on its way, covers what was read of the lower before. */
  ownerDied(since: Since): boolean;

  /**
   * Names that were looked at before may be those of before a change whose caller was killed: the kernel was told since to drop all that it had
   * (dropKernelCaches).
   */
  namesDropped(since: Since): boolean;

  /**
   * To be awaited when a change was made in the lower after which the kernel only marks the attributes that it has as outdated, before it is answered
   * (told-attributes.ts). `held`: the request names the inode, or a name of it, and its caller waits: it uses the inode as long.
   */
  attributesChanged(inode: Inode, caller: number, held: boolean): MaybePromise<void>;

  /**
   * Just created here under EX of its directory: no other node can know it, so the lock is ours without a message, unless an operation
   * of this node found it first and asks for it, or one of another node may have found it by its number since the lower was asked. True: nobody here had any
   * business with it before.
   */
  enterNew(inode: Inode, since: Since): boolean;

  /**
   * For who has found an inode by its number, before it is pinned: resolves when no node has one as its own of which the lower has told until now (hazard
   * F51). With nothing pinned. Rejects with Errno EINTR.
   */
  untilBirthsKnown(waiter: Waiter): MaybePromise<void>;

  /**
   * Drops the kernel's pages of that range. To be awaited after a WRITE through a direct handle was executed and before it is answered, if
   * the inode has cached handles open here: the kernel drops the pages before it sends such a WRITE, but a READ may bring the old ones back
   * in between.
   */
  dropPages(inode: Inode, offset: number, bytes: number): Promise<void>;

  /**
   * The page of `made`, which the WRITE that is to be answered may itself have locked (pages/held-page.ts). `readers`: threads that have been given it since
   * the last revoke.
   */
  dropHeldPage(inode: Inode, made: PagePart, readers: readonly number[], users: PageUsers): HeldPageDrop;

  /**
   * The kernel's size becomes `size` if it is less, and `last` the byte before it. For an append of which the kernel believes that it ended elsewhere; not while
   * a request holds that page.
   */
  raiseSize(inode: Inode, size: number, last: number): Promise<void>;

  /**
   * What this kernel caches of these inodes is no longer known to be true, whatever the locks say: their attributes go, the pages of files
   * if `pages`, and where there is a directory among them every name of the mount. To be awaited with the pins held.
   */
  dropKernelCaches(inodes: readonly Inode[], pages: boolean): Promise<void>;

  /**
   * At an open that may write. "cached": this node alone has a page cache with write access to the file (a token of its own,
   * taken without waiting); "direct": another node has it, so this handle must be FOPEN_DIRECT_IO. Undo "cached" with closeForWrite.
   * Waits for a lock of an inode of which this mount has never had one, unless `isMadeHere`: whoever waits holds no lock then.
   */
  openForWrite(inode: Inode, waiter: Waiter, isMadeHere?: boolean): MaybePromise<"cached" | "direct">;
  closeForWrite(inode: Inode): void;
  /** A WRITE with FUSE_WRITE_CACHE came: from now until its last close, reads of writable handles need EX (hazard F9). */
  noteCachedWrite(inode: Inode): void;
  /** The mode that a READ through such a handle needs. */
  readMode(inode: Inode, writable: boolean): PinMode;
}

/** What the session asks of it for the mount as a whole. */
export interface SessionCoherence {
  readonly operations: Coherence;
  /** The cover of that inode, cached from before or new: what the inode table puts into its records. */
  createCover(id: FileId, kind: InodeKind): Cover;
  /** nlookup reached 0: the kernel knows it no more. The record may be dropped by the table; the lock stays cached for a while. */
  forgotten(inode: Inode): void;
  /** The last name and the last open handle are gone: its lock will never be wanted again. */
  removed(inode: Inode): void;
  /** The kernel has answered what was asked of its page cache under that number. */
  retrieved(unique: number, data: Uint8Array): void;
  /** The kernel has ended the connection: nobody waits for a lock any more, and nothing is pinned from now on (EIO). */
  failWaiters(): void;
  /**
   * The mount has ended: gives every lock back. No notification is written afterwards, and the device may be closed when this resolves. `isGiven`: another process goes on, and
   * the device stays. A notification may wait in the kernel for a program whose request that one answers (hazards F33 and F35), so it is not waited for. Names went by epoch.
   */
  close(isGiven?: boolean): Promise<void>;
}

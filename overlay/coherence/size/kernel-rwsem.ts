/**
 * The kernel's lock of an inode (i_rwsem), as a thread of our own can take it: by a removexattr(2) of a name that nobody uses, whose REMOVEXATTR comes
 * with the lock held. Writers have it from before they fill their pages until they are done.
 *
 * That the request came proves that whoever had the lock before is done. And for as long as it is not answered the lock is ours.
 */
import { E } from "../../../dlmd/base/errno.ts";
import type { Cover, Inode } from "../cover.ts";
import { inTime } from "../../../dlmd/base/maybe-promise.ts";
import type { OwnInodes } from "./own-inodes.ts";
import { noteNoAskers } from "./asked.ts";
import { noteKernelLock } from "./doubt.ts";

interface Hold {
  users: number;
  readonly came: Promise<void>;
  readonly grant: () => void;
  readonly released: Promise<void>;
  readonly release: () => void;
}

export class KernelRwsem {
  /** Proofs asked for, and those that could not be had. */
  readonly counts: { sizeLocks: number; unproved: number } = { sizeLocks: 0, unproved: 0 };
  readonly #own: OwnInodes;
  /** Own threads under way. */
  readonly #asking = new Map<Cover, number>();
  /** Those of them whose request has not come: whoever wants one waits for that, so they do not pile up behind a lock that is not to be had. */
  readonly #coming = new Map<Cover, number>();
  readonly #holds = new Map<Cover, Hold>();
  /** Who waits for a late reply to be over. */
  readonly #over = new Map<Cover, Set<(proved: boolean) => void>>();

  constructor(own: OwnInodes) {
    this.#own = own;
  }

  get idle(): boolean {
    return this.#asking.size === 0;
  }

  /** A request came with that lock held. */
  wasFree(cover: Cover): void {
    noteKernelLock(cover);
    noteNoAskers(cover);
    this.tellOver(cover);
  }

  tellOver(cover: Cover): void {
    for (const end of this.#over.get(cover) ?? []) end(true);
  }

  /**
   * Until a late reply is over, as the request proves that another thread of ours makes, or somebody else's. False: that took too long. `isOver`: the one that is
   * waited for, since it may be another one that told the size.
   */
  awaitOver(inode: Inode, timeoutMs: number, isOver: () => boolean = () => true): Promise<boolean> {
    const { cover } = inode;
    this.#ask(inode);
    return new Promise((resolve) => {
      const over = this.#over.get(cover) ?? new Set();
      this.#over.set(cover, over);
      const end = (proved: boolean): void => {
        if (proved && !isOver()) return;
        clearTimeout(timer);
        over.delete(end);
        if (over.size === 0 && this.#over.get(cover) === over) this.#over.delete(cover);
        resolve(proved);
      };
      const timer = setTimeout(() => end(false), timeoutMs);
      over.add(end);
    });
  }

  /** Takes the lock, alone or with others who hold it here, until what is given is called; null: somebody else has it. */
  async hold(inode: Inode, timeoutMs: number): Promise<(() => void) | null> {
    const { cover } = inode;
    const hold = this.#holds.get(cover) ?? this.#newHold(inode);
    hold.users += 1;
    const release = (): void => {
      hold.users -= 1;
      if (hold.users > 0) return;
      if (this.#holds.get(cover) === hold) this.#holds.delete(cover);
      hold.release();
    };
    if (await inTime(hold.came, timeoutMs)) return release;
    release();
    return null;
  }

  #newHold(inode: Inode): Hold {
    let grant = (): void => {};
    let release = (): void => {};
    const came = new Promise<void>((resolve) => {
      grant = resolve;
    });
    const released = new Promise<void>((resolve) => {
      release = resolve;
    });
    const hold: Hold = { users: 0, came, grant, released, release };
    this.#holds.set(inode.cover, hold);
    this.#ask(inode);
    return hold;
  }

  #ask(inode: Inode): void {
    if (!this.#coming.has(inode.cover)) void this.#askNow(inode);
  }

  async #askNow(inode: Inode): Promise<void> {
    const { cover } = inode;
    this.counts.sizeLocks += 1;
    add(this.#asking, cover, 1);
    add(this.#coming, cover, 1);
    const result = await this.#own.lock(inode);
    add(this.#asking, cover, -1);
    if (result >= 0 || result === -E.ENODATA) return;
    // It did not come.
    add(this.#coming, cover, -1);
    this.counts.unproved += 1;
    // Not now; who waits does so for a limited time.
    if (result === -E.EAGAIN) return;
    // No proof is to be had: nobody is kept waiting for it.
    this.wasFree(cover);
  }

  /** Is this REMOVEXATTR one of our own? Then it is to be answered with ENODATA when what is given is over; null: it is not. */
  ownRequest({ cover }: Inode, tid: number): Promise<void> | null {
    if (!this.#asking.has(cover) || !this.#own.isOwnThread(tid)) return null;
    add(this.#coming, cover, -1);
    this.wasFree(cover);
    const hold = this.#holds.get(cover);
    if (hold === undefined) return Promise.resolve();
    hold.grant();
    return hold.released;
  }
}

function add(counts: Map<Cover, number>, cover: Cover, change: number): void {
  const count = (counts.get(cover) ?? 0) + change;
  if (count > 0) counts.set(cover, count);
  else counts.delete(cover);
}

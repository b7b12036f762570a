/**
 * The kernel's lock of an inode (i_rwsem), as a thread of our own can take it: by a removexattr(2) of a name that nobody uses, whose REMOVEXATTR comes
 * with the lock held. Writers have it from before they fill their pages until they are done.
 *
 * That the request came proves that whoever had the lock before is done. And for as long as it is not answered the lock is ours.
 */
import { E } from "../../dlmd/base/errno.ts";
import type { Inode } from "../inode/inode.ts";
import { inTime } from "../lower/maybe.ts";
import type { Cover } from "./cover.ts";
import type { OwnInodes } from "./own-inodes.ts";
import { noteNoAskers } from "./size-asked.ts";
import { noteKernelLock } from "./size-doubt.ts";

interface Hold {
  users: number;
  readonly came: Promise<void>;
  readonly grant: () => void;
  readonly released: Promise<void>;
  readonly release: () => void;
}

export class InodeLock {
  /** Proofs asked for, and those that could not be had. */
  readonly counts: { sizeLocks: number; unproved: number } = { sizeLocks: 0, unproved: 0 };
  readonly #own: OwnInodes;
  /** Own threads under way. */
  readonly #asking = new Map<Cover, number>();
  /** Whether a proof is among what they are for. */
  readonly #proving = new Set<Cover>();
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
    const over = this.#over.get(cover);
    if (over === undefined) return;
    this.#over.delete(cover);
    for (const end of over) end(true);
  }

  /** Until the late reply is over, as the request proves that another thread of ours makes, or somebody else's. False: that took too long. */
  awaitOver(inode: Inode, timeoutMs: number): Promise<boolean> {
    const { cover } = inode;
    if (!this.#proving.has(cover)) {
      this.#proving.add(cover);
      void this.#ask(inode).then(() => this.#proving.delete(cover));
    }
    return new Promise((resolve) => {
      const over = this.#over.get(cover) ?? new Set();
      this.#over.set(cover, over);
      const end = (proved: boolean): void => {
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
    void this.#ask(inode);
    return hold;
  }

  async #ask(inode: Inode): Promise<void> {
    const { cover } = inode;
    this.counts.sizeLocks += 1;
    this.#asking.set(cover, (this.#asking.get(cover) ?? 0) + 1);
    const result = await this.#own.lock(inode.fuseNodeid);
    const left = (this.#asking.get(cover) ?? 1) - 1;
    if (left > 0) this.#asking.set(cover, left);
    else this.#asking.delete(cover);
    if (result >= 0 || result === -E.ENODATA) return;
    // No proof is to be had: nobody is kept waiting for it.
    this.counts.unproved += 1;
    this.wasFree(cover);
  }

  /** Is this REMOVEXATTR one of our own? Then it is to be answered with ENODATA when what is given is over; null: it is not. */
  ownRequest({ cover }: Inode, tid: number): Promise<void> | null {
    if (!this.#asking.has(cover) || !this.#own.isOwnThread(tid)) return null;
    this.wasFree(cover);
    const hold = this.#holds.get(cover);
    if (hold === undefined) return Promise.resolve();
    hold.grant();
    return hold.released;
  }
}

/** What this room does when another process goes on with the mount (hazard F33): here all locks are given up, and there the write tokens are asked for. */
import { LockFlag } from "../../dlmd/client/api.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import { attach, type Cover, type Inode, isReleased } from "./cover.ts";
import { type SizeEffect, WriteToken } from "./cover-parts.ts";
import { type CoherenceState, noteGranted } from "./effect.ts";
import type { CoverTable } from "./lock/cover-table.ts";
import { handleBast, unpin } from "./lock/lock-cache.ts";
import type { LockRequests } from "./lock-requests.ts";
import { doubtSize, noteLateReply } from "./size/doubt.ts";

/** Of what keeps a restart waiting. */
const RESTLESS_SHOWN = 10;

export interface RestHost {
  readonly state: CoherenceState;
  readonly covers: CoverTable;
  readonly locks: LockRequests;
  readonly now: () => number;
  /** All that was born here is made known, and its locks are asked for. */
  readonly register: () => void;
  readonly run: () => void;
}

export interface InheritedToken {
  readonly inode: Inode;
  /** Handles that have it. 0: nobody has, and the file's own lock alone is taken over. */
  readonly users: number;
  readonly mapped: boolean;
  /** After a crash: which of its locks dlmd keeps for this process. Those that it does not keep it never knew, or they had gone. */
  readonly kept?: { readonly token: boolean; readonly mode: Mode };
}

/** A LateReply of that inode. */
export interface LateRow {
  readonly fuseNodeid: number;
  readonly effect: SizeEffect;
  readonly tid: number;
  readonly end: number;
}

export class Rest {
  readonly #host: RestHost;
  /** Their locks were taken over after a crash, and each has a pin until `settled`. */
  #unsettled: Cover[] = [];
  /** Locks are given up, and none is asked for ahead. */
  active = false;

  constructor(host: RestHost) {
    this.#host = host;
  }

  /**
   * Gives up every lock that nothing uses here, as if another node wanted it. To be called again until it says true: none is left, and the kernel
   * has nothing that one covered.
   */
  rest(): boolean {
    const { state, covers, locks, now, register, run } = this.#host;
    this.active = true;
    register();
    let rests = true;
    for (const cover of covers.all()) {
      if (isReleased(cover) || locks.keptAlone.has(cover)) continue;
      rests = false;
      const mayGo = cover.phase === "idle" && cover.asking === null && !cover.unregistered && !cover.registering;
      if (mayGo && cover.mode !== Mode.NL) handleBast(state, cover, Mode.EX, now());
    }
    run();
    return rests && state.unregistered.size === 0 && state.registering.size === 0;
  }

  /** Locks are kept again. */
  end(): void {
    this.active = false;
  }

  /** The first of those that do not rest, in words. */
  restless(): readonly string[] {
    const covers = [...this.#host.covers.all()].filter((cover) => !isReleased(cover) || cover.unregistered).slice(0, RESTLESS_SHOWN);
    return covers.map(
      ({ key, kind, mode, phase, asking, pins, waiters, registering, unregistered, revoke }) =>
        `${kind} ${key}: mode ${mode}, ${phase}, asking ${asking}, pins ${pins}, waiters ${waiters.length}, registering ${registering}, unregistered ${unregistered}, round ${revoke?.round}`,
    );
  }

  /** Hazard F42. Those that this kernel cannot drop, by its numbers: nobody may change them until it can. */
  shared(): number[] {
    return [...this.#host.locks.keptAlone].flatMap(({ inode }) => (inode === null ? [] : [inode.fuseNodeid]));
  }

  /** The kernel may have pages of it, or wait for some. */
  mayHavePages({ cover }: Inode): boolean {
    return !isReleased(cover);
  }

  /** Another process of this mount has asked for the write tokens of this one, and gets them. */
  giveTokens(): void {
    const { covers, locks } = this.#host;
    for (const cover of covers.all()) if (cover.token !== null) locks.unlockToken(cover);
  }

  /** Replies that change the kernel's size, and that their threads may not have taken yet. When all rests, each is one that may harm (size/doubt.ts). */
  lates(): LateRow[] {
    const rows: LateRow[] = [];
    for (const { inode, size } of this.#host.covers.all()) {
      if (inode === null || size === null || size.late === null) continue;
      const { effect, tid, end } = size.late;
      // A hole was waited for, as long as for anything.
      rows.push({ fuseNodeid: inode.fuseNodeid, effect: effect === "clears" ? "misplaced" : effect, tid, end });
    }
    return rows;
  }

  /**
   * The process before had these open for writing with a page cache, and has their tokens until `giveTokens`: they are queued for. And what this kernel has
   * of any inode is what a revoke has left.
   */
  restore(
    inodes: ReadonlyMap<number, Inode>,
    tokens: readonly InheritedToken[],
    lates: readonly LateRow[],
    shared: readonly number[] = [],
  ): void {
    const { state, run } = this.#host;
    for (const { fuseNodeid, effect, tid, end } of lates) {
      const inode = inodes.get(fuseNodeid);
      if (inode !== undefined) noteLateReply(state, inode.cover, tid, effect, end);
    }
    for (const { cover, kind } of inodes.values()) if (kind === "file") doubtSize(cover);
    for (const fuseNodeid of shared) {
      const inode = inodes.get(fuseNodeid);
      if (inode !== undefined) this.#adoptLock(inode, Mode.PR, LockFlag.HEADQUE);
    }
    for (const { inode, users, mapped, kept } of tokens) {
      if (users === 0 && kept !== undefined) {
        this.#inheritLock(inode, kept.mode, LockFlag.ORPHAN);
        continue;
      }
      const token = new WriteToken(true);
      token.unregistered = false;
      token.users = users;
      token.mapped = mapped;
      inode.cover.token = token;
      state.registering.add(token);
      if (kept === undefined) state.effects.push({ do: "request-token", cover: inode.cover, how: "first" });
      else this.#adopt(inode, kept);
    }
    run();
  }

  /**
   * Hazard F38. What a program was told to be written may not have left the process before. And what has left may be executed yet, after a change that
   * another node makes as soon as it has the lock.
   */
  #inheritLock(inode: Inode, mode: Mode, flags: number): void {
    this.#adoptLock(inode, mode, flags);
    inode.cover.pins += 1;
    this.#unsettled.push(inode.cover);
  }

  /** What the process before had begun is made, or never will be: locks that were taken over from it go to whoever wants them. */
  settled(): void {
    const { state, now, run } = this.#host;
    const covers = this.#unsettled;
    this.#unsettled = [];
    for (const cover of covers) unpin(state, cover, now());
    run();
  }

  /**
   * Hazard F39. Pages of such a file may not have been written yet, so its lock must not go before they are. One of which dlmd knows nothing, and it has kept all that it knew
   * (AfterCrash.inherits), was born in the process before: nobody else can know it.
   */
  #adopt(inode: Inode, { token, mode }: { readonly token: boolean; readonly mode: Mode }): void {
    const { cover } = inode;
    const { effects } = this.#host.state;
    const born = !token && mode === Mode.NL;
    if (born) this.#inheritLock(inode, Mode.EX, 0);
    else if (mode !== Mode.NL) this.#inheritLock(inode, mode, LockFlag.ORPHAN);
    effects.push({ do: "request-token", cover, how: token ? "kept" : "born" });
  }

  /** It is held from now on: whoever wants it has the kernel's caches dropped first, as ever. */
  #adoptLock(inode: Inode, mode: Mode, flags: number): void {
    const { state, now } = this.#host;
    const { cover } = inode;
    // No operation has been at it yet: else there would be nobody whose caches could be dropped.
    attach(inode);
    cover.mode = mode;
    noteGranted(state, cover, Mode.NL, now());
    cover.registering = true;
    cover.asking = mode;
    state.registering.add(cover);
    state.effects.push({ do: "request", cover, mode, flags });
  }

  /** Every token that `restore` asked for is here, and the locks with them. */
  get hasTokens(): boolean {
    return this.#host.state.registering.size === 0;
  }
}

/** What this room does when another process goes on with the mount (hazard F33): here all locks are given up, and there the write tokens are asked for. */
import { Mode } from "../../dlmd/wire/mode.ts";
import { type Inode, isReleased } from "./cover.ts";
import { type SizeEffect, WriteToken } from "./cover-parts.ts";
import type { CoherenceState } from "./effect.ts";
import type { CoverTable } from "./lock/cover-table.ts";
import { handleBast } from "./lock/lock-cache.ts";
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
  /** Handles that have it. */
  readonly users: number;
  readonly mapped: boolean;
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
    const { state, covers, now, register, run } = this.#host;
    this.active = true;
    register();
    let rests = true;
    for (const cover of covers.all()) {
      if (isReleased(cover)) continue;
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
      rows.push({ fuseNodeid: inode.fuseNodeid, effect, tid, end });
    }
    return rows;
  }

  /**
   * The process before had these open for writing with a page cache, and has their tokens until `giveTokens`: they are queued for. And what this kernel has
   * of any inode is what a revoke has left.
   */
  restore(inodes: ReadonlyMap<number, Inode>, tokens: readonly InheritedToken[], lates: readonly LateRow[]): void {
    const { state, run } = this.#host;
    for (const { fuseNodeid, effect, tid, end } of lates) {
      const inode = inodes.get(fuseNodeid);
      if (inode !== undefined) noteLateReply(state, inode.cover, tid, effect, end);
    }
    for (const { cover, kind } of inodes.values()) if (kind === "file") doubtSize(cover);
    for (const { inode, users, mapped } of tokens) {
      const token = new WriteToken(true);
      token.unregistered = false;
      token.users = users;
      token.mapped = mapped;
      inode.cover.token = token;
      state.registering.add(token);
      state.effects.push({ do: "request-token", cover: inode.cover, first: true });
    }
    run();
  }

  /** Every token that `restore` asked for is here. */
  get hasTokens(): boolean {
    return this.#host.state.registering.size === 0;
  }
}

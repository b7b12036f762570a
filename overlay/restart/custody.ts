/**
 * What the owner keeps for mounts of other nodes whose dlmd is being restarted (hazard F35): it queues first for their write tokens, and for their files with locks, so that
 * no other node has them in between; and for these locks themselves, where other nodes use the file (hazard F45). Their open files stay open in their sessions (../lower/server/server.ts). A mount that may be the next owner does the same for an owner
 * whose dlmd has died (hazard F44).
 */
import type { Log } from "../../dlmd/base/log.ts";
import { type Lock, LockFlag, type Lockspace } from "../../dlmd/client/api.ts";
import type { FileLocks } from "../../dlmd/client/file-lock-api.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import { type FileId, fileKey } from "../lower/lower.ts";
import type { AnswerOf, RequestOf } from "../lower/wire/call-types.ts";
import { KeptFileLocks } from "./kept-file-locks.ts";
import { hasQueued, isServed } from "./queued.ts";

/** It is given up after that: longer than a mount waits for its dlmd (holder.ts). */
export const CUSTODY_LIMIT_MS = 180_000;
/** Mounts that are away at a time. */
export const CUSTODIES_MAX = 64;
/** Locks that are kept for all of them. */
export const CUSTODY_LOCKS_MAX = 131_072;
/** Tickets that are known to be given up. */
export const COLLECTED_MAX = 256;

interface Kept {
  readonly locks: Map<string, Lock>;
  /** Of files that other nodes lock, too; null: none was named. */
  fileLocks: KeptFileLocks | null;
  /** null: its files are open nowhere here. */
  readonly ended: (() => void) | null;
  readonly sinceMs: number;
  readonly timer: NodeJS.Timeout;
  /** All of it has its place in its queue. */
  isWhole: boolean;
}

interface Asked {
  readonly ticket: string;
  readonly kept: Kept;
  readonly resource: string;
  readonly mode: Mode;
}

export interface CustodyOptions {
  readonly lockspace: () => Promise<Lockspace>;
  readonly fileLocks: () => Promise<FileLocks>;
  /** Of the owner to which all is given, or which leaves it (hazard F44). */
  readonly epoch: number;
  readonly log: Log;
  readonly nowMs: () => number;
  /** `away` has another count. */
  readonly changed: () => void;
}

type Deposited = Pick<RequestOf<"deposit">, "tokens" | "locked" | "sharedLocks" | "shared">;

/** The resources of those locks, and how they are held: coherence/lock-requests.ts, file-lock/file-locks.ts. */
function wantedLocks({ tokens, locked, sharedLocks, shared }: Deposited): [string, Mode][] {
  const named = (letter: string, mode: Mode, ids: readonly FileId[]): [string, Mode][] => ids.map((id) => [letter + fileKey(id), mode]);
  const files = new Map(sharedLocks.map(({ id }) => [fileKey(id), id]));
  return [
    ...named("w", Mode.PW, tokens),
    ...named("f", Mode.EX, locked),
    ...named("f", Mode.CW, [...files.values()]),
    ...named("i", Mode.PR, shared),
  ];
}

/** Their resources. */
export function depositedLocks(request: Deposited): string[] {
  return wantedLocks(request).map(([resource]) => resource);
}

export class Custody {
  readonly #options: CustodyOptions;
  readonly #kept = new Map<string, Kept>();
  #epoch: number;
  #closed = false;
  #leaves = false;
  /** The last ones first: a deposit that comes after all is refused. */
  #collected: readonly string[] = [];

  constructor(options: CustodyOptions) {
    this.#options = options;
    this.#epoch = options.epoch;
  }

  get epoch(): number {
    return this.#epoch;
  }

  /** This mount is the next owner, with that epoch: what it keeps was left by the owner before. */
  succeed(epoch: number): void {
    this.#epoch = epoch;
  }

  /** The owner is about to go, and has nothing here: what comes from now on would be given up with it. */
  keepNothingMore(): void {
    this.#leaves = true;
  }

  /**
   * A node is gone, maybe the one that has left it here. What was asked for and is not answered by now may stand behind others in its queue: a mount is kept for as a whole, or not at
   * all.
   */
  keepOnlyWhole(): void {
    for (const [ticket, { isWhole }] of this.#kept) if (!isWhole) this.collect(ticket);
  }

  /** Something is kept for a mount that has files open of which this owner knows nothing. */
  get hasUnopened(): boolean {
    return [...this.#kept.values()].some(({ ended }) => ended === null);
  }

  /** How many mounts are away, and since when the first one is; null: none. */
  get away(): { readonly count: number; readonly sinceMs: number } | null {
    const [first] = this.#kept.values();
    return first === undefined ? null : { count: this.#kept.size, sinceMs: first.sinceMs };
  }

  /**
   * Resolves when all that is named has its place in its queue. The same again does no harm. `ended`: nothing is kept under that ticket any more; null: its files are open
   * nowhere here.
   */
  async deposit(request: RequestOf<"deposit">, ended: (() => void) | null): Promise<AnswerOf<"deposit">> {
    const { ticket } = request;
    const why = this.#objection(request);
    if (why !== null) {
      this.collect(ticket);
      return { refused: why };
    }
    // Before anything is waited for: who collects meanwhile collects this.
    const kept = this.#kept.get(ticket) ?? this.#begin(ticket, ended);
    const isNew = !this.#kept.has(ticket);
    this.#kept.set(ticket, kept);
    if (isNew) this.#options.changed();
    try {
      await this.#queue(kept, request);
    } catch (error) {
      // What a caller names is no matter of this mount's.
      this.#refusedByDlmd(ticket, error);
    }
    if (this.#kept.get(ticket) !== kept) return { refused: "it was given up meanwhile" };
    kept.isWhole = request.isLast;
    return { refused: "" };
  }

  #begin(ticket: string, ended: Kept["ended"]): Kept {
    return { locks: new Map(), fileLocks: null, ended, sinceMs: this.#options.nowMs(), timer: this.#limit(ticket), isWhole: false };
  }

  #objection({ epoch, ticket, tokens, locked, sharedLocks, shared }: RequestOf<"deposit">): string | null {
    if (this.#closed || epoch !== this.#epoch) return "the volume has another owner now";
    if (this.#collected.includes(ticket)) return "it was given up meanwhile";
    if (this.#leaves) return "this owner is about to give the volume up";
    if (!this.#kept.has(ticket) && this.#kept.size >= CUSTODIES_MAX) return `${CUSTODIES_MAX} mounts are away already`;
    const named = tokens.length + locked.length + sharedLocks.length + shared.length;
    const count = [...this.#kept.values()].reduce((sum, { locks, fileLocks }) => sum + locks.size + (fileLocks?.count ?? 0), named);
    return count > CUSTODY_LOCKS_MAX ? `more than ${CUSTODY_LOCKS_MAX} files that are written or locked` : null;
  }

  async #queue(kept: Kept, request: RequestOf<"deposit">): Promise<void> {
    const lockspace = await this.#options.lockspace();
    const { ticket, sharedLocks } = request;
    const service = sharedLocks.length > 0 ? await this.#options.fileLocks() : null;
    if (this.#kept.get(ticket) !== kept) return;
    if (service !== null) kept.fileLocks ??= new KeptFileLocks(service);
    const wanted = wantedLocks(request).filter(([resource]) => !kept.locks.has(resource));
    lockspace.batch(() => {
      for (const [resource, mode] of wanted) this.#ask(lockspace, { ticket, kept, resource, mode });
    });
    kept.fileLocks?.ask(sharedLocks, (error) => this.#refusedByDlmd(ticket, error));
    // Who has died may be the master of some, and nobody answers for these: it is enough that this dlmd asked before the next view (hazard F42).
    if (request.dlmdDied) await isServed(lockspace, ticket);
    else
      await Promise.all([
        ...depositedLocks(request).map((resource) => hasQueued(lockspace, resource)),
        kept.fileLocks?.hasQueued(sharedLocks),
      ]);
  }

  #limit(ticket: string): NodeJS.Timeout {
    const late = (): void => {
      this.#options.log.warn(
        { ticket, limitMs: CUSTODY_LIMIT_MS },
        "a mount of another node did not come back: what was kept for it is given up",
      );
      this.collect(ticket);
    };
    return setTimeout(late, CUSTODY_LIMIT_MS).unref();
  }

  #refusedByDlmd(ticket: string, error: unknown): void {
    this.#options.log.error({ ticket, error: String(error) }, "what a mount of another node named cannot be kept");
    this.collect(ticket);
  }

  #ask(lockspace: Lockspace, { ticket, kept, resource, mode }: Asked): void {
    const lock = lockspace.createLock(resource, {
      ast: (asked, status) => {
        if (status === "error") this.#refusedByDlmd(ticket, asked.error ?? new Error(`dlmd refused a request for ${resource}`));
        // It came when nobody wanted it any more.
        else if (status === "granted" && kept.locks.get(resource) !== asked) asked.unlock(0);
      },
      // It is kept until its owner is back.
      bast: () => {},
    });
    kept.locks.set(resource, lock);
    lock.request(mode, LockFlag.HEADQUE | LockFlag.MAYKEEP);
  }

  /** Gives up what is kept under that ticket. False: nothing is. */
  collect(ticket: string): boolean {
    const kept = this.#kept.get(ticket);
    this.#collected = [ticket, ...this.#collected.filter((other) => other !== ticket)].slice(0, COLLECTED_MAX);
    if (kept === undefined) return false;
    this.#kept.delete(ticket);
    clearTimeout(kept.timer);
    const locks = [...kept.locks.values()];
    kept.locks.clear();
    kept.fileLocks?.end([...this.#kept.values()].flatMap(({ fileLocks }) => fileLocks ?? []));
    for (const lock of locks) {
      if (lock.busy) lock.cancel();
      else if (lock.exists) lock.unlock(0);
    }
    kept.ended?.();
    this.#options.changed();
    return true;
  }

  /** The owner ends. */
  close(): void {
    this.#closed = true;
    for (const ticket of this.#kept.keys()) this.collect(ticket);
  }
}

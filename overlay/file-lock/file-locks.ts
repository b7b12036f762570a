/** File locks of a mount: the core's rules (core.ts) joined to dlmd, its lock of each file's state and its file-lock service. */
import { E, errnoError } from "../../dlmd/base/errno.ts";
import { assert } from "../../dlmd/base/assert.ts";
import { type Lock, LockFlag, type LockStatus, type Lockspace } from "../../dlmd/client/api.ts";
import type { FileLockConflict, FileLocks } from "../../dlmd/client/file-lock-api.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import { maxOffset } from "../../dlmd/wire/plock-range.ts";
import type { LockFound } from "../fuse/reply.ts";
import { inTime, type MaybePromise } from "../../dlmd/base/maybe-promise.ts";
import type { FileLocking, FileLockRow, LockOwner, LockRange, LockRequest, LockWanted } from "./api.ts";
import { FileLockCore } from "./core.ts";
import type { FileLockAnswer, FileLockAsk, FileLockPort, ServiceAsk } from "./core-port.ts";
import { type GivenUp, LateGrants, type OffsetRange, type Waiter } from "./late-grants.ts";
import { certainlyHeldOn, type FileState, hasLocks, heldOn, type LockedFile, ownersOn } from "./locked-file.ts";
import { LockUsers, sameOwner } from "./lock-users.ts";

/**
 * close(2) waits so long until every node sees that the locks are gone: who closes can not be killed. Without lock service they are given up later, and
 * nobody is given any meanwhile.
 */
export const CLOSE_WAIT_MS = 1000;

export interface FileLocksOptions {
  readonly lockspace: Lockspace;
  readonly service: FileLocks;
  /** This client of dlmd: whose locks are of this machine. */
  readonly nodeid: number;
  readonly clientId: number;
  /** Milliseconds of a monotonic clock. */
  readonly now: () => number;
  /** dlmd broke a promise. */
  readonly fail: (error: Error) => void;
  /** For a process that goes on after a crash of this one; null: none can. */
  readonly journal?: FileLocksJournal | null;
  /** There is no room in the journal for them any more: in that turn. */
  readonly beyond?: () => void;
}

/** What is written down of locks (overlay/crash/locks.ts, hazards F40, F45). */
export interface FileLocksJournal {
  set(file: string, row: FileLockRow | null, nowMs: number): void;
  /** It has more locks than are written down. */
  setBeyond(file: string): void;
  /** Of one file. */
  readonly locksMax: number;
  readonly areBeyond: boolean;
}

/** A file with locks of this node, for people. Offsets are text: JSON has no numbers of 64 bits. */
export interface FileLocksHere {
  /** "f" and the inode's number and generation. */
  readonly file: string;
  /** Where all its locks are: in this node's memory, or in dlmd's file-lock service. */
  readonly kept: "here" | "cluster" | "changing";
  readonly held: readonly {
    readonly kind: LockOwner["kind"];
    readonly owner: string;
    readonly pid: number;
    readonly type: LockRange["type"];
    readonly start: string;
    /** null: to the end of the file. */
    readonly end: string | null;
    readonly heldMs: number;
  }[];
  /** Requests of this node that have not ended. */
  readonly waiting: number;
}

export interface FileLocksSeen {
  readonly files: readonly FileLocksHere[];
  readonly truncated: boolean;
}

export interface FileLockCounters {
  /** Files whose state this node has, and those of them that no other node uses. */
  readonly lockedFiles: number;
  readonly lockedFilesHere: number;
  /** Ranges that are held. */
  readonly fileLocks: number;
  /** Asked of the file-lock service. */
  readonly fileLockMessages: number;
}

/** Another node has LOCAL_WAIT_MS for its part; whoever has not answered by then shows less. */
export const GATHER_LIMIT_MS = 1000;
/** An owner that never holds anything. */
const NOBODY: LockOwner = { kind: "posix", owner: 0n };

/** So many files are asked about at a time: dlmd bounds what a client has asked for. */
export const TESTS_AT_A_TIME = 512;

/** Resolves when the masters of these files have taken all that was asked for before. */
export async function masterHas(service: FileLocks, files: readonly string[]): Promise<void> {
  for (let at = 0; at < files.length; at += TESTS_AT_A_TIME)
    await Promise.all(files.slice(at, at + TESTS_AT_A_TIME).map((file) => service.test(file, { ...NOBODY, pid: 0 }, { type: "read" })));
}

/** At most so many files are shown. */
export const FILES_SHOWN = 1000;

interface StateLock {
  readonly lock: Lock;
  /** What it was asked for last. */
  asked: "state" | "back" | "share" | "inherited" | "inherited-shared" | null;
}

interface Timer {
  readonly handle: NodeJS.Timeout;
  readonly atMs: number;
}

/** That are held. */
function rangesOf({ ranges, flock }: LockedFile): number {
  return ranges.size - ranges.waiting + flock.size - flock.waiting;
}

const kept: Record<FileState, FileLocksHere["kept"]> = {
  none: "changing",
  asking: "changing",
  local: "here",
  pushing: "changing",
  shared: "cluster",
  returning: "changing",
};

export class VolumeFileLocks implements FileLocking, FileLockPort {
  readonly #options: FileLocksOptions;
  readonly #core = new FileLockCore(this);
  readonly #users = new LockUsers();
  readonly #states = new Map<string, StateLock>();
  /** Requests of the service by those of the core. */
  readonly #service = new Map<number, number>();
  readonly #timers = new Map<string, Timer>();
  /** Who waits for an answer; of what is answered at once, the answer, until `#ask` takes it. */
  readonly #callers = new Map<number, (answer: FileLockAnswer) => void>();
  readonly #early = new Map<number, FileLockAnswer>();
  #asking = false;
  #asked = 0;
  #over = false;
  /** What is inherited, dlmd keeps of a process that has crashed. */
  #kept = false;
  readonly #inheritedShared: string[] = [];
  readonly #late = new LateGrants();
  readonly #toGiveUp: GivenUp[] = [];

  constructor(options: FileLocksOptions) {
    this.#options = options;
  }

  get counters(): FileLockCounters {
    const files = [...this.#core.files.values()];
    const here = files.filter(({ state }) => state === "local").length;
    return { lockedFiles: files.length, lockedFilesHere: here, fileLocks: this.#core.locks, fileLockMessages: this.#asked };
  }

  /** For `coverlay locks` and `why`. */
  describe(): FileLocksSeen {
    const files: FileLocksHere[] = [];
    const now = this.nowMs();
    for (const file of this.#core.files.values()) {
      const held = heldOn(file).map(({ owner, range, pid, sinceMs }) => ({
        kind: owner.kind,
        owner: owner.owner.toString(),
        pid,
        type: range.type,
        start: range.start.toString(),
        end: range.end === maxOffset ? null : range.end.toString(),
        heldMs: Math.max(0, Math.round(now - sinceMs)),
      }));
      const waiting = file.queue.length + file.waiting.size + file.asked.size;
      if (held.length + waiting === 0) continue;
      if (files.length >= FILES_SHOWN) return { files, truncated: true };
      files.push({ file: file.name, kept: kept[file.state], held, waiting });
    }
    return { files, truncated: false };
  }

  /**
   * Brings the locks of these files to the service, those of other nodes too, so that dlmd shows them all: a node keeps to itself what no other node asks
   * about. For GATHER_LIMIT_MS at most.
   */
  async gather(files: readonly string[]): Promise<void> {
    const work = files.map(async (file) => {
      this.#guard(() => this.#core.share(file));
      return this.test(file, NOBODY, { type: "write", start: 0n, end: maxOffset });
    });
    await inTime(Promise.all(work), GATHER_LIMIT_MS);
  }

  // --- what operations ask

  /** `told`: in the turn of the answer. */
  #ask(
    ask: FileLockAsk,
    told: (answer: FileLockAnswer) => void = () => undefined,
  ): { readonly id: number; readonly answer: MaybePromise<FileLockAnswer> } {
    if (this.#over) throw errnoError(E.EIO);
    this.#asking = true;
    const id = this.#core.request(ask);
    this.#asking = false;
    // What is asked of the service has been noted before (`ask`).
    if (ask.op !== "test" && this.#core.files.get(ask.file)?.state !== "shared") this.#note(ask.file);
    const answer = this.#early.get(id);
    this.#early.clear();
    if (answer !== undefined) {
      told(answer);
      return { id, answer };
    }
    const later = (resolve: (answer: FileLockAnswer) => void): void =>
      void this.#callers.set(id, (late) => {
        told(late);
        resolve(late);
      });
    return { id, answer: new Promise(later) };
  }

  lock(file: string, fh: number, owner: LockOwner, { type, start, end, pid }: LockWanted, wait: boolean): LockRequest {
    this.#users.used(file, fh, owner);
    const waiter = this.#late.begin(file, owner, [start, end]);
    const ask = { file, op: "lock", owner, range: { type, start, end }, pid, wait } as const;
    const { id, answer } = this.#ask(ask, ({ status }) => {
      // Its FLUSH may have come meanwhile. For a file of another thread that is closed the kernel unlocks nothing (README.md).
      if (status === "granted" && waiter.rest === null) this.#users.used(file, fh, owner);
      this.#toGiveUp.push(...this.#late.ended(waiter, status));
    });
    const cancel = (): void => {
      this.#core.cancel(id);
      this.#giveUpLate();
      this.#note(file);
    };
    const done = answer instanceof Promise ? answer.then(({ status }) => status) : answer.status;
    const abandon = (): void => {
      this.#late.killed(waiter, this.#rangesOf(waiter));
      cancel();
    };
    return { done, cancel, abandon };
  }

  /** Before that is written down (hazard F40): who goes on after a crash would keep it. Not while the core is at work. */
  #giveUpLate(): void {
    if (this.#toGiveUp.length === 0) return;
    for (const { file, owner, range } of this.#toGiveUp.splice(0)) if (!this.#over) void this.unlock(file, owner, range[0], range[1]);
  }

  #rangesOf({ file, owner, range: [start, end] }: Waiter): readonly OffsetRange[] {
    const known = this.#core.files.get(file);
    if (known === undefined) return [];
    // Hazard F52. Not what is being given up: another program of the open file unlocks, or a conversion has begun.
    return certainlyHeldOn(known, true)
      .filter((held) => sameOwner(held.owner, owner) && held.range.start <= end && held.range.end >= start)
      .map(({ range }) => [range.start, range.end]);
  }

  unlock(file: string, owner: LockOwner, start: bigint, end: bigint): MaybePromise<"granted" | "limit"> {
    const { answer } = this.#ask({ file, op: "unlock", owner, range: { type: "read", start, end }, pid: 0, wait: false });
    const status = (one: FileLockAnswer): "granted" | "limit" => (one.status === "limit" ? "limit" : "granted");
    return answer instanceof Promise ? answer.then(status) : status(answer);
  }

  test(file: string, owner: LockOwner, { type, start, end }: LockRange): MaybePromise<LockFound | null> {
    const { answer } = this.#ask({ file, op: "test", owner, range: { type, start, end }, pid: 0, wait: false });
    return answer instanceof Promise ? answer.then(({ found }) => found) : answer.found;
  }

  closed(file: string, owner: bigint): MaybePromise<void> {
    const used = this.#users.closed(file, owner);
    if (this.#over) return;
    // Whether or not it was recorded: a request that waited through an earlier FLUSH may have been granted since. Of no lock the core asks nobody.
    const unlocked = this.unlock(file, { kind: "posix", owner }, 0n, maxOffset);
    // Of an unlock of nothing the service is not asked, and nothing is written down.
    if (used && !(unlocked instanceof Promise)) this.#note(file);
    if (unlocked instanceof Promise) return inTime(unlocked, CLOSE_WAIT_MS).then(() => undefined);
  }

  get inUse(): boolean {
    return this.#users.files > 0 || this.#core.files.size > 0;
  }

  released(file: string, fh: number): void {
    if (!this.#users.uses(file, fh)) return;
    for (const owner of this.#users.released(file, fh)) if (!this.#over) void this.unlock(file, owner, 0n, maxOffset);
    // Hazard F49. It may be that nothing was unlocked: the owner lives on in another handle, or had nothing.
    if (!this.#over) this.#note(file);
  }

  forgotten(file: string): void {
    if (!this.#over) this.#core.forget(file);
  }

  /** The mount has ended: who holds something loses it with the connection to dlmd. */
  end(): void {
    this.#over = true;
    for (const { handle } of this.#timers.values()) clearTimeout(handle);
    this.#timers.clear();
  }

  // --- another process goes on with the mount (hazard F33)

  /** To be called again until it says true: each lock is in this node's memory, or in the service, and stays there until `restEnds`. */
  rest(): boolean {
    let rests = false;
    this.#guard(() => {
      rests = this.#core.freeze();
    });
    return rests;
  }

  /** dlmd has died: what it was asked has no answer. */
  stay(): void {
    this.#core.stay();
  }

  /** Why another process could not go on with them after a crash of this one, in words; null: it could. */
  get whyNoCrash(): string | null {
    return this.#options.journal?.areBeyond === true ? "programs hold more file locks than are written down" : null;
  }

  /** In the turn of the change, and before any program hears of it. */
  #note(name: string): void {
    const { journal = null } = this.#options;
    if (journal === null) return;
    const file = this.#core.files.get(name);
    const wereBeyond = journal.areBeyond;
    // Of too many no row is made at each change, only to see that.
    if (file !== undefined && rangesOf(file) > journal.locksMax) journal.setBeyond(name);
    else {
      const row = file !== undefined && hasLocks(file) ? this.#rowOf(file, this.nowMs()) : null;
      journal.set(name, row === null || row.held.length === 0 ? null : row, Date.now());
    }
    if (journal.areBeyond && !wereBeyond) this.#options.beyond?.();
  }

  restEnds(): void {
    this.#guard(() => this.#core.thaw());
  }

  /** What another process is to go on with, when all rests, or there is no service any more. */
  rows(): FileLockRow[] {
    const now = this.nowMs();
    const rows = [...this.#core.files.values()].filter(hasLocks).map((file) => this.#rowOf(file, now));
    return rows.filter(({ held }) => held.length > 0);
  }

  /** Whether its locks count in the service. Else this node has EX, whatever is on its way there or back. */
  #isShared({ name, state }: LockedFile): boolean {
    if (state !== "returning") return state === "shared";
    const { lock, asked } = this.#state(name);
    // What goes down counts from its request on.
    return lock.mode !== Mode.EX || asked === "share";
  }

  #rowOf(file: LockedFile, now: number): FileLockRow {
    const shared = this.#isShared(file);
    const held = certainlyHeldOn(file, shared).flatMap(({ owner, range: { type, start, end }, pid, sinceMs }) =>
      this.#late
        .lasting(file.name, owner, [start, end])
        .map(([first, last]) => ({ owner, range: { type, start: first, end: last }, pid, heldMs: Math.max(0, now - sinceMs) })),
    );
    return {
      file: file.name,
      shared,
      held,
      users: this.#users.of(file.name),
    };
  }

  /** Another process of this mount has asked for the state of these files, and for what it has of them in the service, and gets it. */
  letGo(): void {
    this.end();
    for (const file of this.#core.files.values())
      if (file.state === "shared") for (const owner of ownersOn(file)) this.#options.service.release(file.name, owner);
    for (const file of this.#states.keys()) this.giveUpState(file);
  }

  /** The process before has these until `letGo`. `kept`: it has crashed, and dlmd keeps the state of these files. */
  inherit(rows: readonly FileLockRow[], kept = false): void {
    const now = this.nowMs();
    this.#kept = kept;
    if (kept) this.#core.freeze();
    for (const { file, shared, held, users } of rows) {
      const locks = held.map(({ heldMs, ...lock }) => ({ ...lock, sinceMs: now - heldMs }));
      for (const { owner, handles } of users) for (const fh of handles) this.#users.used(file, fh, owner);
      this.#core.inherit(file, locks, shared);
      if (shared) this.#inheritedShared.push(file);
    }
  }

  /** What `inherit` asked for is here, of files that no other node uses. */
  get hasInheritedHere(): boolean {
    return [...this.#states.values()].every(({ asked }) => asked !== "inherited");
  }

  /** All that `inherit` asked for is here. Throws OperatingError "ENOLCK": dlmd has refused some. */
  get hasInherited(): boolean {
    // First: it throws.
    const isGranted = this.#core.hasInherited;
    return isGranted && this.hasInheritedHere && [...this.#states.values()].every(({ asked }) => asked !== "inherited-shared");
  }

  /** Resolves when the masters of all files that `inherit` took for shared have taken what was asked for. Rejects as `hasInherited` throws. */
  async hasAsked(): Promise<void> {
    await masterHas(this.#options.service, this.#inheritedShared);
    void this.#core.hasInherited;
  }

  // --- FileLockPort

  nowMs(): number {
    return this.#options.now();
  }

  answer(id: number, answer: FileLockAnswer): void {
    const caller = this.#callers.get(id);
    if (caller !== undefined) {
      this.#callers.delete(id);
      caller(answer);
    } else if (this.#asking) this.#early.set(id, answer);
  }

  setTimer(file: string, delayMs: number): void {
    const atMs = this.nowMs() + delayMs;
    const timer = this.#timers.get(file);
    // It comes sooner, and the core looks at what is left then.
    if (timer !== undefined && timer.atMs <= atMs) return;
    if (timer !== undefined) clearTimeout(timer.handle);
    const handle = setTimeout(() => {
      this.#timers.delete(file);
      this.#guard(() => {
        this.#core.handleTimer(file);
        this.#note(file);
      });
    }, Math.ceil(delayMs));
    this.#timers.set(file, { handle, atMs });
  }

  /** A broken invariant: this node does not know any more what it holds. */
  #guard(work: () => void): void {
    if (this.#over) return;
    try {
      work();
      this.#giveUpLate();
    } catch (error) {
      this.#options.fail(error as Error);
    }
  }

  // --- FileLockPort: the file's state

  askState(file: string): void {
    this.#askState(file, "state", LockFlag.ALTCW);
  }

  inheritState(file: string, shared: boolean): void {
    if (shared) this.#askState(file, "inherited-shared", LockFlag.HEADQUE);
    else this.#askState(file, "inherited", this.#kept ? LockFlag.ORPHAN : LockFlag.HEADQUE);
  }

  #askState(file: string, asked: "state" | "inherited" | "inherited-shared", flag: number): void {
    const lock = this.#options.lockspace.createLock(file, {
      ast: (of, status) => this.#guard(() => this.#handleAst(file, of, status)),
      bast: (of) => {
        if (this.#states.get(file)?.lock === of) this.#guard(() => this.#core.stateWanted(file));
      },
    });
    this.#states.set(file, { lock, asked });
    // MAYKEEP: behind a fence gate the service takes no locks, for as long as that is shut, and the file can not be given up before it has.
    lock.request(asked === "inherited-shared" ? Mode.CW : Mode.EX, flag | LockFlag.MAYKEEP);
  }

  #state(file: string): StateLock {
    const state = this.#states.get(file);
    assert(state !== undefined, `no lock of the state of ${file}`);
    return state;
  }

  #handleAst(file: string, lock: Lock, status: LockStatus): void {
    if (status === "error") throw lock.error ?? new Error(`dlmd refused a request for ${lock.resource}`);
    const state = this.#states.get(file);
    if (state?.lock !== lock) return;
    const { asked } = state;
    state.asked = null;
    if (asked === "state" || asked === "back") this.#core.stateGranted(file, lock.mode === Mode.EX ? "local" : "shared");
    this.#note(file);
  }

  shareState(file: string): void {
    // It may be so from the moment on in which dlmd is asked.
    this.#note(file);
    const state = this.#state(file);
    state.asked = "share";
    state.lock.request(Mode.CW, LockFlag.CONVERT);
  }

  takeBackState(file: string): void {
    const state = this.#state(file);
    if (state.lock.busy) return queueMicrotask(() => this.#guard(() => this.#core.stateGranted(file, "shared")));
    state.asked = "back";
    state.lock.request(Mode.EX, LockFlag.CONVERT | LockFlag.NOQUEUE);
  }

  giveUpState(file: string): void {
    const { lock } = this.#state(file);
    this.#states.delete(file);
    lock.unlock(lock.busy ? LockFlag.FORCEUNLOCK : 0);
  }

  // --- FileLockPort: the service

  ask(id: number, { file, op, owner, range, pid, wait, begun, heldMs, first }: ServiceAsk): void {
    this.#asked += 1;
    // It may be done from now on, and this process may not hear of it. (What is held already is held as before.)
    const changes = op !== "test" && heldMs === null;
    if (changes) this.#note(file);
    const requestId = this.#options.service.start(op, file, { ...owner, pid }, range, { wait, begun, heldMs, first }, (result) => {
      this.#service.delete(id);
      this.#guard(() => {
        // The connection to dlmd has ended, or it refused the request as such: the mount is taken out.
        if (result instanceof Error) throw result;
        this.#core.serviceAnswered(id, result.status, this.#shown(result.conflict));
        this.#giveUpLate();
        if (changes) this.#note(file);
      });
    });
    this.#service.set(id, requestId);
  }

  #shown(conflict: FileLockConflict | null): LockFound | null {
    if (conflict === null) return null;
    const { type, start, end, owner, pid } = conflict;
    const here = owner.nodeid === this.#options.nodeid && owner.clientId === this.#options.clientId;
    return { type, start, end, pid: here ? pid : 0 };
  }

  cancel(id: number): void {
    const requestId = this.#service.get(id);
    if (requestId !== undefined) this.#options.service.cancel(requestId);
  }
}

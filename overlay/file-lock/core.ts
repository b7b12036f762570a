/**
 * Where the locks of each file are kept: in this node's memory, while no other node uses them, or in dlmd's file-lock service. Pure: what happens comes
 * in, what is to be done goes out through the port, at once and in order. overlay/file-lock/README.md, "Where the locks of a file are", says why it is right.
 *
 *     none --a request--> asking --EX--> local --it is wanted, and all is unlocked--> none
 *                           |              \--LOCAL_WAIT_MS of a wait, here or elsewhere--> pushing --> shared
 *                           |                                 \--no room there--> returning --> local, for PUSH_AGAIN_MS
 *                           \--CW--> shared --all is unlocked, for SHARED_MIN_MS--> none
 *                                        \--RETURN_AFTER_MS, and EX is to be had--> returning --> local
 *
 * EX of the file's resource: all its locks in the cluster are in this node's tables. CW: all are in the service, and what this node's owners
 * have is in the tables as well.
 */
import { assert, AssertionError } from "../../dlmd/base/assert.ts";
import { OperatingError } from "../../dlmd/base/error.ts";
import type { FileLockStatus } from "../../dlmd/client/file-lock-api.ts";
import { mostAdded } from "../../dlmd/plock/owned.ts";
import { maxOffset } from "../../dlmd/wire/plock-range.ts";
import { type FileLockHolder, PlockTable, type TableSink, type Waiter } from "../../dlmd/plock/table.ts";
import type { LockFound } from "../fuse/reply.ts";
import type { LockOwner } from "./api.ts";
import type { FileLockAnswer, FileLockAsk, FileLockPort } from "./core-port.ts";
import { sameOwner } from "./lock-users.ts";
import {
  foundBy,
  hasLocks,
  type HeldHere,
  heldOn,
  keyOf,
  lastAsked,
  type LockedFile,
  mayAdd,
  noteOvertaken,
  ownersOn,
  plockOwner,
  type Request,
  tableOf,
} from "./locked-file.ts";

/** So long a request waits for a lock of this node, or another node for this file, before dlmd's service is told of all its locks. */
export const LOCAL_WAIT_MS = 50;
/** A file that came to be shared stays so for that time at least, so that nodes that use it by turns do not ask for its state at each turn. */
export const SHARED_MIN_MS = 100;
/** After that time a file that is shared, and has locks, is taken back if no other node uses it; and again after that time. */
export const RETURN_AFTER_MS = 1000;
/** The service had no room for what is locked here: it is told again after that time. Until then all is kept here, and other nodes wait. */
export const PUSH_AGAIN_MS = 1000;
/** Files without locks whose state is kept here; of more, that which was not used for longest is given up. */
export const MAX_IDLE_FILES = 4096;
/** As dlmd has them (dlmd/plock/README.md, "File locks"): what is locked here has room in its service. */
export const MAX_LOCKS_PER_FILE = 100_000;
export const MAX_LOCKS = 100_000;

export interface FileLockLimits {
  readonly locksPerFile: number;
  readonly locks: number;
  readonly idleFiles: number;
}

const defaultLimits: FileLockLimits = { locksPerFile: MAX_LOCKS_PER_FILE, locks: MAX_LOCKS, idleFiles: MAX_IDLE_FILES };

const noRoom = { code: "ENOLCK", hint: "Try again when programs hold fewer of them (coverlay locks --files)." };

/** It asks for nothing that is not in the tables. */
function isOfHeld(own: Request["own"]): boolean {
  return own === "push" || own === "inherit";
}

const granted: FileLockAnswer = { status: "granted", found: null };

/** Each time of one shape: spread, it would cost as much as all that is done with it. */
function requestOf({ file, op, owner, range, pid, wait }: FileLockAsk, id: number, own: Request["own"], heldMs: number | null): Request {
  return { file, op, owner, range, pid, wait, id, own, heldMs, first: own === "inherit", begun: false, overtaken: false, owes: false };
}

export class FileLockCore {
  readonly files: ReadonlyMap<string, LockedFile>;
  readonly #files = new Map<string, LockedFile>();
  readonly #port: FileLockPort;
  readonly #limits: FileLockLimits;
  /** Files without locks whose state is here; the one that was not used for longest first. */
  readonly #idle = new Set<LockedFile>();
  /** Where each request without an answer is. */
  readonly #fileOf = new Map<number, LockedFile>();
  readonly #sink: TableSink;
  #nextId = 1;
  #counter = 0;
  /** Another process of this node is to go on with all that is held: it stays where it is. */
  #frozen = false;
  /** A file of which the service has refused what the process before has there. */
  #notInherited: string | null = null;
  /** In all tables. */
  #locks = 0;
  /** Without an answer, but for those of locks that are in the tables. */
  #requests = 0;

  constructor(port: FileLockPort, limits: Partial<FileLockLimits> = {}) {
    this.files = this.#files;
    this.#port = port;
    this.#limits = { ...defaultLimits, ...limits };
    this.#sink = { granted: (waiter) => this.#granted(waiter), blocked: () => undefined };
  }

  get locks(): number {
    return this.#locks;
  }

  readonly #next = (): number => ++this.#counter;

  #file(name: string): LockedFile {
    let file = this.#files.get(name);
    if (file === undefined) {
      const table = (): PlockTable => new PlockTable(name, this.#sink, this.#next, () => this.#port.nowMs());
      file = {
        name,
        state: "none",
        ranges: table(),
        flock: table(),
        queue: [],
        waiting: new Map(),
        asked: new Map(),
        wantedMs: null,
        sharedMs: 0,
        triedMs: 0,
        keptShared: false,
        pushAfterMs: 0,
      };
      this.#files.set(name, file);
    }
    return file;
  }

  // --------------------------------------------------------------------------------------------------------- requests

  /** Gives its number; the answer may come before. */
  request(ask: FileLockAsk): number {
    const id = this.#nextId++;
    const request = requestOf(ask, id, null, null);
    const known = this.#files.get(ask.file);
    if (ask.op === "unlock" && (known === undefined || !this.#concerns(known, ask.owner))) {
      this.#answer(request, granted);
      return id;
    }
    const file = known ?? this.#file(ask.file);
    this.#note(file, request);
    this.#serve(file, request);
    this.#review(file);
    return id;
  }

  /** Whether the owner has a lock on the file, or a request that may become one. */
  #concerns(file: LockedFile, owner: LockOwner): boolean {
    if (tableOf(file, owner).holders.has(keyOf(owner))) return true;
    if (file.queue.some((one) => sameOwner(one.owner, owner))) return true;
    for (const one of file.asked.values()) if (sameOwner(one.owner, owner)) return true;
    return false;
  }

  #serve(file: LockedFile, request: Request): void {
    switch (file.state) {
      case "none":
        file.queue.push(request);
        file.state = "asking";
        this.#port.askState(file.name);
        return;
      case "asking":
      case "pushing":
      case "returning":
        file.queue.push(request);
        return;
      case "local":
        // Another node waits: whoever has nothing here waits for his turn, so that it comes to an end.
        if (file.wantedMs !== null && !tableOf(file, request.owner).holders.has(keyOf(request.owner))) file.queue.push(request);
        else this.#serveHere(file, request);
        return;
      case "shared":
        if (mayAdd(file, request) && this.#crowded()) return this.#answer(request, { status: "limit", found: null });
        file.asked.set(request.id, request);
        this.#port.ask(request.id, request);
    }
  }

  cancel(id: number): void {
    const file = this.#fileOf.get(id);
    if (file === undefined) return;
    const queued = file.queue.findIndex((one) => one.id === id);
    if (queued >= 0) {
      const [request] = file.queue.splice(queued, 1) as [Request];
      this.#answer(request, { status: "canceled", found: null });
    } else if (file.asked.has(id)) this.#port.cancel(id);
    else {
      const found = file.waiting.get(id);
      if (found === undefined) throw new AssertionError(`file-lock request ${id} is nowhere`);
      file.waiting.delete(id);
      this.#count(found.waiter.table, () => found.waiter.table.cancel(found.waiter));
      this.#answer(found.request, { status: "canceled", found: null });
    }
    this.#review(file);
  }

  #note(file: LockedFile, { id, own }: Request): void {
    this.#fileOf.set(id, file);
    if (!isOfHeld(own)) this.#requests += 1;
  }

  #answer(request: Request, answer: FileLockAnswer): void {
    if (this.#fileOf.delete(request.id) && !isOfHeld(request.own)) this.#requests -= 1;
    if (request.own === null) this.#port.answer(request.id, answer);
  }

  // ------------------------------------------------------------------------------------------------------- local locks

  /** Ranges and requests in the tables are counted, whatever is done to one. */
  #count<T>(table: PlockTable, work: () => T): T {
    const before = table.size;
    const result = work();
    this.#locks += table.size - before;
    return result;
  }

  /** There is room for one more, here and later in the service, which is told of them one by one. */
  #full(table: PlockTable): boolean {
    return table.size + 2 * mostAdded > this.#limits.locksPerFile || this.#crowded();
  }

  #crowded(): boolean {
    return this.#locks + mostAdded * (this.#requests + 2) > this.#limits.locks;
  }

  #serveHere(file: LockedFile, request: Request): void {
    const table = tableOf(file, request.owner);
    const holder = table.holder(plockOwner(request.owner));
    this.#count(table, () => {
      if (request.op === "test") this.#answer(request, { status: "granted", found: foundBy(table, holder, request.range) });
      else if (request.op === "unlock") this.#unlockHere(file, table, holder, request);
      else this.#lockHere(file, table, holder, request);
      table.release(holder);
    });
  }

  #unlockHere(file: LockedFile, table: PlockTable, holder: FileLockHolder, request: Request): void {
    const { start, end } = request.range;
    if (mayAdd(file, request) && this.#full(table)) return this.#answer(request, { status: "limit", found: null });
    this.#answer(request, granted);
    table.take(holder, start, end);
  }

  /** As dlmd does it (dlmd/plock/master.ts). */
  #lockHere(file: LockedFile, table: PlockTable, holder: FileLockHolder, request: Request): void {
    const { range, pid, wait, owner } = request;
    if (this.#full(table)) return this.#answer(request, { status: "limit", found: null });
    const blocker = wait ? table.blocker(holder, range, Number.POSITIVE_INFINITY) : (table.conflict(holder, range)?.holder ?? null);
    if (blocker === null) {
      const { type, start, end } = range;
      this.#answer(request, granted);
      return table.give(holder, { type, start, end, pid });
    }
    if (wait) {
      const name = { nodeid: 0, requestId: request.id, sinceMs: this.#port.nowMs(), heldSinceMs: null };
      const waiter = table.wait(holder, { ...range, pid }, blocker, name);
      file.waiting.set(request.id, { request, waiter });
    } else this.#answer(request, { status: "again", found: null });
    // flock(2): "the existing lock is first removed, and then a new lock is established". Once: overlay/file-lock/README.md,
    // "Two threads on one open file".
    if (owner.kind === "flock" && !request.begun && holder.ranges.size > 0) table.take(holder, 0n, maxOffset);
    request.begun = true;
  }

  #granted(waiter: Waiter): void {
    const file = this.#fileOf.get(waiter.requestId);
    const found = file?.waiting.get(waiter.requestId);
    if (file === undefined || found === undefined)
      throw new AssertionError(`a lock was granted to request ${waiter.requestId}, which does not wait`);
    file.waiting.delete(waiter.requestId);
    this.#answer(found.request, granted);
  }

  // ------------------------------------------------------------------------------------------------------- the service

  /** What the service did. `found`: of a test. */
  serviceAnswered(id: number, status: FileLockStatus, found: LockFound | null): void {
    const file = this.#fileOf.get(id);
    const request = file?.asked.get(id);
    if (file === undefined || request === undefined) throw new AssertionError(`an answer to file-lock request ${id}, which was not made`);
    if (request.own === null) this.#follow(file, request, status);
    else if (request.own === "push" && status === "limit") file.pushAfterMs = Number.POSITIVE_INFINITY;
    else if (request.own === "inherit" && status !== "granted") this.#notInherited ??= file.name;
    else assert(status === "granted", `${request.own} of locks of ${file.name}: ${status}`);
    file.asked.delete(id);
    this.#answer(request, { status, found });
    if (file.state === "pushing" && file.asked.size === 0) this.#pushed(file);
    else if (file.state === "returning" && file.asked.size === 0) this.#enterLocal(file);
    this.#review(file);
  }

  /** The tables follow the service. */
  #follow(file: LockedFile, request: Request, status: FileLockStatus): void {
    if (request.op === "test") return;
    const { owner, range, pid } = request;
    const table = tableOf(file, owner);
    const holder = table.holder(plockOwner(owner));
    this.#count(table, () => {
      if (status === "granted" && request.op === "lock") {
        table.claim(holder, { ...range, pid });
        noteOvertaken(file, request);
      } else if (status === "granted") table.take(holder, range.start, range.end);
      else if (owner.kind === "flock" && request.op === "lock") this.#notGranted(file, request, status, holder);
      table.release(holder);
    });
  }

  /** flock: its conversion began by giving up what its owner had. Of one that has not begun in the service, that is made good. */
  #notGranted(file: LockedFile, request: Request, status: FileLockStatus, holder: FileLockHolder): void {
    const mayHaveBegun = status !== "limit" && !request.begun && !request.overtaken && holder.ranges.size > 0;
    if (!mayHaveBegun && !request.owes) return;
    tableOf(file, request.owner).take(holder, 0n, maxOffset);
    if (status === "again" && !request.begun) return;
    // Hazard F52. What another thread has asked for may be granted by now: an unlock would take it. And a grant takes the place of all.
    const last = lastAsked(file, request);
    if (last === undefined) this.#send(file, { ...request, op: "unlock", wait: false }, "release");
    else last.owes = true;
  }

  #send(file: LockedFile, ask: FileLockAsk, own: "push" | "inherit" | "release", heldMs: number | null = null): void {
    const request = requestOf(ask, this.#nextId++, own, heldMs);
    this.#note(file, request);
    file.asked.set(request.id, request);
    this.#port.ask(request.id, request);
  }

  // ------------------------------------------------------------------------------------------------- the file's state

  /** What `askState` or `takeBackState` led to. */
  stateGranted(name: string, state: "local" | "shared"): void {
    const file = this.#files.get(name);
    if (file === undefined || (file.state !== "asking" && file.state !== "returning"))
      throw new AssertionError(`the state of ${name} came unasked`);
    file.keptShared = this.#frozen && state === "shared" && file.state === "returning";
    if (state === "shared") this.#enterShared(file);
    else if (file.state === "asking") this.#enterLocal(file);
    else this.#takeOut(file);
    this.#review(file);
  }

  /** Another node wants the file. Of CW it is content with CW, and has it as soon as anything is granted. */
  stateWanted(name: string): void {
    const file = this.#files.get(name);
    // Given up meanwhile.
    if (file === undefined) return;
    if (file.state !== "none" && file.state !== "asking" && file.state !== "shared") file.wantedMs ??= this.#port.nowMs();
    this.#review(file);
  }

  #enterLocal(file: LockedFile): void {
    file.state = "local";
    const { queue } = file;
    file.queue = [];
    for (const request of queue) this.#serve(file, request);
  }

  /**
   * All that is held here is told to the service, which nobody else has asked about this file: it can refuse it for its limits only. (What it has of a
   * client that ended is about to go: so these requests wait.)
   */
  #enterPushing(file: LockedFile): void {
    file.state = "pushing";
    const waiting = [...file.waiting.values()];
    file.waiting.clear();
    // From the last: nobody who waits is left to be served by it.
    for (const { waiter } of waiting.toReversed()) this.#count(waiter.table, () => waiter.table.cancel(waiter));
    file.queue = [...waiting.map(({ request }) => request), ...file.queue];
    this.#tell(file, "push");
    if (file.asked.size === 0) this.#pushed(file);
  }

  #tell(file: LockedFile, own: "push" | "inherit"): void {
    const now = this.#port.nowMs();
    for (const { owner, range, pid, sinceMs } of heldOn(file)) {
      const heldMs = Math.max(0, Math.round(now - sinceMs));
      this.#send(file, { file: file.name, op: "lock", owner, range, pid, wait: true }, own, heldMs);
    }
  }

  /** `#crowded` leaves room for them. But dlmd counts what it is to forget, of this node or of one that ended, until it has. */
  #pushed(file: LockedFile): void {
    if (file.pushAfterMs !== Number.POSITIVE_INFINITY) return this.#enterShared(file);
    file.pushAfterMs = this.#port.nowMs() + PUSH_AGAIN_MS;
    file.state = "returning";
    this.#takeOut(file);
  }

  #enterShared(file: LockedFile): void {
    const now = this.#port.nowMs();
    const before = file.state;
    if (before !== "returning") file.sharedMs = now;
    file.triedMs = now;
    file.state = "shared";
    file.wantedMs = null;
    if (before === "pushing") this.#port.shareState(file.name);
    // One by one: with each the file is written down, and an unlock that waits counts (hazard F45).
    for (let request = file.queue.shift(); request !== undefined; request = file.queue.shift()) this.#serve(file, request);
  }

  /** EX is here: nobody else has locks. What this node has in the service is taken out of it before anything is granted here. */
  #takeOut(file: LockedFile): void {
    const range = { type: "read", start: 0n, end: maxOffset } as const;
    for (const owner of ownersOn(file)) this.#send(file, { file: file.name, op: "unlock", owner, range, pid: 0, wait: false }, "release");
    if (file.asked.size === 0) this.#enterLocal(file);
  }

  handleTimer(name: string): void {
    const file = this.#files.get(name);
    if (file !== undefined) this.#review(file);
  }

  /** Whatever happened to the file: does it go into another state now, or at what time? */
  #review(file: LockedFile): void {
    const now = this.#port.nowMs();
    const isEmpty = !hasLocks(file);
    if (file.state === "local") this.#reviewLocal(file, isEmpty, now);
    else if (file.state === "shared" && file.asked.size === 0) this.#reviewShared(file, isEmpty, now);
    this.#noteIdle(file);
  }

  #reviewLocal(file: LockedFile, isEmpty: boolean, now: number): void {
    if (isEmpty) {
      if (file.wantedMs !== null) this.#giveUp(file);
      return;
    }
    const [first] = file.waiting.values();
    const sinceMs = Math.min(file.wantedMs ?? Number.POSITIVE_INFINITY, first?.waiter.sinceMs ?? Number.POSITIVE_INFINITY);
    if (sinceMs === Number.POSITIVE_INFINITY) return;
    const atMs = Math.max(sinceMs + LOCAL_WAIT_MS, file.pushAfterMs);
    if (now < atMs) this.#port.setTimer(file.name, atMs - now);
    else if (!this.#frozen) this.#enterPushing(file);
  }

  #reviewShared(file: LockedFile, isEmpty: boolean, now: number): void {
    if (isEmpty) {
      const untilMs = file.sharedMs + SHARED_MIN_MS;
      if (now >= untilMs) this.#giveUp(file);
      else this.#port.setTimer(file.name, untilMs - now);
    } else if (!this.#frozen && now >= file.triedMs + RETURN_AFTER_MS) this.#takeBack(file, now);
  }

  #takeBack(file: LockedFile, now: number): void {
    file.state = "returning";
    file.triedMs = now;
    this.#port.takeBackState(file.name);
  }

  #giveUp(file: LockedFile): void {
    if (file.waiting.size !== 0 || file.asked.size !== 0) throw new AssertionError(`${file.name} is given up while requests wait`);
    this.#port.giveUpState(file.name);
    file.state = "none";
    file.wantedMs = null;
    const { queue } = file;
    file.queue = [];
    for (const request of queue) this.#serve(file, request);
  }

  #noteIdle(file: LockedFile): void {
    this.#idle.delete(file);
    if (file.state === "none") this.#files.delete(file.name);
    if (file.state !== "local" || hasLocks(file)) return;
    this.#idle.add(file);
    if (this.#idle.size <= this.#limits.idleFiles) return;
    for (const oldest of this.#idle) {
      this.forget(oldest.name);
      break;
    }
  }

  /** All that is held here is told to the service now, for those who want to see it. */
  share(name: string): void {
    const file = this.#files.get(name);
    if (file?.state === "local" && hasLocks(file) && !this.#frozen) this.#enterPushing(file);
  }

  // ------------------------------------------------------------------------- another process goes on (hazards F33, F45)

  /**
   * No locks of this node go to the service until `thaw`, and what is there is taken back where no other node uses the file. To be called until it says true: all stay where they
   * are, and the service has answered all that it was asked about them.
   */
  freeze(): boolean {
    this.#frozen = true;
    const now = this.#port.nowMs();
    let rests = true;
    for (const file of this.#files.values()) {
      if (file.state === "local" || !hasLocks(file)) continue;
      const isShared = file.state === "shared" && file.asked.size === 0;
      if (isShared && file.keptShared) continue;
      rests = false;
      if (isShared) this.#takeBack(file, now);
    }
    return rests;
  }

  /** The same, where there is no service any more: nothing is taken back. */
  stay(): void {
    this.#frozen = true;
  }

  thaw(): void {
    this.#frozen = false;
    for (const file of this.#files.values()) {
      file.keptShared = false;
      this.#review(file);
    }
  }

  /** The process before has these locks, in the service if they are `shared`, and the file's state. Nobody asks for anything before all that is here. */
  inherit(name: string, held: readonly HeldHere[], shared: boolean): void {
    const file = this.#file(name);
    if (file.state !== "none") throw new AssertionError(`locks of ${name} are inherited, and it is ${file.state}`);
    file.state = shared ? "shared" : "local";
    file.sharedMs = file.triedMs = this.#port.nowMs();
    for (const { owner, range, pid, sinceMs } of held) {
      const table = tableOf(file, owner);
      this.#count(table, () => table.claim(table.holder(plockOwner(owner)), { ...range, pid }, sinceMs));
    }
    this.#port.inheritState(name, shared);
    if (shared) this.#tell(file, "inherit");
  }

  /** The service has given all that was inherited in it. Throws if it has refused something. */
  get hasInherited(): boolean {
    if (this.#notInherited !== null)
      throw new OperatingError(`dlmd has no room for the file locks of ${this.#notInherited} once more`, noRoom);
    for (const { asked } of this.#files.values()) for (const { own } of asked.values()) if (own === "inherit") return false;
    return true;
  }

  /** The kernel knows the file no more. */
  forget(name: string): void {
    const file = this.#files.get(name);
    if (file === undefined || !this.#idle.has(file)) return;
    this.#giveUp(file);
    this.#noteIdle(file);
  }
}

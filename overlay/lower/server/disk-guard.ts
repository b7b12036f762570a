/**
 * Between an owner and its disk (disk-fault.ts): an error that says that the disk has failed is told to nobody. From the first one on
 * every call waits: those of other nodes until their sessions are closed, those of this node's own mount until there is another owner
 * (`goOn`). A call that had failed is made again there, and wire/repeat.ts says which answer that leaves open.
 *
 * One guard for each time that this node has the disk mounted. A directory has no disk that could be given up, and no guard.
 */
import { assert } from "../../../dlmd/base/assert.ts";
import { E, Errno, errnoError } from "../../../dlmd/base/errno.ts";
import type { Log } from "../../../dlmd/base/log.ts";
import { type FaultyVolume, judgeError } from "./disk-fault.ts";
import type { LocalLower } from "../local/local.ts";
import { DiskWait } from "./disk-wait.ts";
import { O } from "../linux.ts";
import { changeFor, compareFileIds, type Entry, type FileId, type Lower, type LowerHandle, type OpenFile } from "../lower.ts";
import type { OwnerWait } from "../owner-wait.ts";
import type { OwnJournal } from "../own-journal.ts";
import { encodeOwnChange, isOwnChange, type OwnChange } from "../wire/own-requests.ts";
import { isDoubtful, type Repeat, repeatOf } from "../wire/repeat.ts";
import { OwnChanges } from "./own-changes.ts";
import type { Unsynced } from "../unsynced.ts";
import type { CallName, RequestOf } from "../wire/call-types.ts";
import { type MaybePromise, promised, withErrors } from "../../../dlmd/base/maybe-promise.ts";
import { NumberMap } from "../../../dlmd/base/number-map.ts";

/** Calls of this node's mount that wait; ENOMEM beyond. The kernel's own limit (max_background 65535) comes first. */
export const MAX_PARKED_CALLS = 131_072;

export interface DiskGuardOptions extends FaultyVolume {
  readonly local: LocalLower;
  /** A read of the disk past every cache; true: its path is well. Never rejects. */
  readonly probe: () => Promise<boolean>;
  /** Not if an owner of the volume has withdrawn a moment ago: then the error is told. */
  readonly mayWithdraw: () => boolean;
  /** For a process that goes on after a crash of this one; null: none can. */
  readonly journal?: OwnJournal | null;
  /** Called once: give the volume up. */
  readonly withdraw: (why: string) => void;
  readonly log: Log;
}

const READS = [
  "lookup",
  "lookupMany",
  "byNumber",
  "parentOf",
  "pathOf",
  "getattr",
  "getattrMany",
  "readlink",
  "open",
  "opendir",
  "read",
  "lseek",
  "readdir",
  "statfs",
  "getxattr",
  "fileAttributes",
  "listxattr",
] as const;
const CHANGES = [
  "setattr",
  "create",
  "tmpfile",
  "mkdir",
  "mknod",
  "symlink",
  "unlink",
  "rmdir",
  "rename",
  "link",
  "write",
  "fsync",
  "fsyncdir",
  "fallocate",
  "copyFileRange",
  "setxattr",
  "setFileAttributes",
  "removexattr",
  "syncfs",
] as const;
type Method = (typeof READS)[number] | (typeof CHANGES)[number];
type Work = (lower: Lower) => MaybePromise<unknown>;

interface Parked {
  readonly work: Work;
  /** It was made, and failed with the disk; null: it was not made. */
  readonly repeat: Repeat | null;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

/** The calls of one kind of caller, those of other nodes or those of this one. */
class Side {
  parked: Parked[] = [];
  /** null: they have ended, and what comes later ends with EIO. */
  target: Lower | null;
  /** Lower.madeFor. */
  request = 0;

  constructor(target: Lower) {
    this.target = target;
  }

  take(): Parked[] {
    const { parked } = this;
    this.parked = [];
    return parked;
  }

  end(): void {
    this.target = null;
    for (const { reject } of this.take()) reject(errnoError(E.EIO));
  }
}

export class DiskGuard {
  /** For the server of other nodes' calls. */
  readonly served: LocalLower;
  /** For this node's own mount; goes on with the next owner. */
  readonly own: Lower;
  readonly #options: DiskGuardOptions;
  readonly #served: Side;
  readonly #own: Side;
  readonly #wait = new DiskWait(() => performance.now());
  readonly #handles: NumberMap<OpenFile> = new NumberMap();
  #lastHandle = 0;
  readonly #changes: OwnChanges;
  #why: string | null = null;
  /** Nothing has failed: another node is to be the owner. */
  #handsOver = false;
  /** Errors are told: said once. */
  #broken = false;
  /** One at a time: a bad area of a disk may be read by many. */
  #probing: Promise<boolean> | null = null;

  constructor(options: DiskGuardOptions) {
    const { local } = options;
    this.#options = options;
    this.#served = new Side(local);
    this.#own = new Side(local);
    this.#changes = new OwnChanges(
      (handle) => this.#handles.get(handle)?.id,
      () => this.#own.target === local,
      () => !this.isGiven,
      () => this.#syncInBackground(),
      () => local.failedSyncs(),
    );
    this.served = this.#servedLower(local);
    this.own = this.#ownLower(local);
  }

  /** Why it was given up, in words; null: it was not. */
  get why(): string | null {
    return this.#why;
  }

  /** This node's own calls go on with the next owner. */
  get isGiven(): boolean {
    return this.#why !== null || this.#handsOver;
  }

  /** The volume is for another node: calls of this node's own mount wait from now on. Resolves when those that run have ended. */
  handOver(): Promise<void> {
    this.#handsOver = true;
    return this.#wait.idle();
  }

  /** The disk is another owner's: nothing of this one may be answered, however lately it was given up before. */
  yieldTo(why: string): void {
    this.#giveUp(why);
  }

  /** The disk has failed. From now on every call waits. False: errors are told, because it was given up by another owner just now. */
  withdraw(why: string): boolean {
    if (this.#why !== null) return true;
    if (!this.#options.mayWithdraw()) {
      if (this.#broken) return false;
      this.#broken = true;
      this.#options.log.error({ why }, "the disk failed again right after an owner gave it up: it is broken, and its errors are told");
      return false;
    }
    this.#giveUp(why);
    return true;
  }

  #giveUp(why: string): void {
    if (this.#why !== null) return;
    this.#why = why;
    this.#options.log.error({ why }, "withdrawing from the volume: calls wait");
    this.#options.withdraw(why);
  }

  /** For what this node's own mount waits; null: for nothing. */
  get ownWait(): OwnerWait | null {
    return this.#wait.oldest;
  }

  /** The sessions of other nodes are closed: what they waited for goes nowhere. */
  dropServed(): void {
    this.#served.end();
  }

  /** Files that this node's mount has open. */
  get handles(): OpenFile[] {
    return this.#handles.values();
  }

  get openHandles(): number {
    return this.#handles.size;
  }

  /** That which was opened last; it may be closed by now. */
  get lastHandle(): number {
    return this.#lastHandle;
  }

  /** What this node's mount has changed here, and not synced. */
  get unsynced(): Unsynced {
    return this.#changes.unsynced;
  }

  /** There is another owner, reached through that lower, which has the handles. */
  goOn(next: Lower): void {
    if (this.#own.target === null) return;
    this.#own.target = next;
    this.#handles.clear();
    for (const { work, repeat, resolve, reject } of this.#own.take()) {
      const judge = (error: unknown): void => reject(judgeRepeated(error, repeat));
      if (repeat?.again === false) {
        reject(errnoError(E.EIO));
        continue;
      }
      void promised(() => work(next)).then(resolve, judge);
    }
  }

  /** The mount ends: what waits ends with EIO. */
  end(): void {
    this.#own.end();
  }

  async #syncInBackground(): Promise<void> {
    try {
      await this.own.syncfs();
    } catch (error) {
      this.#options.log.warn({ error: String(error) }, "background sync of the lower failed");
    }
  }

  /* How a call is made ------------------------------------------------------------------------------------------- */

  #make(side: Side, name: Method, args: readonly unknown[], changes: boolean, work: Work): MaybePromise<unknown> {
    const { target } = side;
    if (target === null) throw errnoError(E.EIO);
    if (target !== this.#options.local) return work(target);
    if (this.#why !== null || (this.#handsOver && side === this.#own)) return this.#park(side, null, work);
    const repeat = (): Repeat => repeatOfArguments(name, args);
    const failed = (error: unknown): MaybePromise<unknown> => this.#failed(side, changes, repeat, work, error);
    let result: MaybePromise<unknown>;
    try {
      result = work(target);
    } catch (error) {
      return failed(error);
    }
    if (!(result instanceof Promise)) return result;
    if (side !== this.#own) return result.catch(failed);
    const made = (value: unknown): unknown =>
      this.#why !== null && this.#saysSynced(name, args) ? this.#park(side, repeat(), work) : value;
    return this.#wait.until(name, result).then(made, failed);
  }

  /** A file system that was shut down meanwhile may say so of what it has not written: ext4, before Linux 6.13 or so. */
  #saysSynced(name: Method, args: readonly unknown[]): boolean {
    switch (name) {
      case "fsync":
      case "fsyncdir":
      case "syncfs":
        return true;
      case "write":
      case "fallocate":
        return this.#isSynchronous(args[0] as LowerHandle);
      case "copyFileRange":
        return this.#isSynchronous(args[2] as LowerHandle);
      default:
        return false;
    }
  }

  /** O_SYNC has the bit of O_DSYNC, too. */
  #isSynchronous(handle: LowerHandle): boolean {
    return ((this.#handles.get(handle)?.flags ?? 0) & O.DSYNC) !== 0;
  }

  #failed(side: Side, changes: boolean, repeat: () => Repeat, work: Work, error: unknown): MaybePromise<unknown> {
    if (!(error instanceof Errno)) throw error;
    const fault = judgeError(error.errno, changes, this.#options);
    // Whatever it is: its descriptors may be closed by now. One that is no fault was not made.
    if (this.#why !== null) return this.#park(side, fault === "none" ? null : repeat(), work);
    if (fault === "none") throw error;
    if (fault === "withdraw") {
      if (!this.withdraw(`${error.code} of a ${changes ? "change" : "read"}`)) throw error;
      return this.#park(side, repeat(), work);
    }
    return this.#probe(side, changes, repeat, work, error);
  }

  async #probe(side: Side, changes: boolean, repeat: () => Repeat, work: Work, error: Errno): Promise<unknown> {
    this.#probing ??= this.#options.probe().finally(() => {
      this.#probing = null;
    });
    const well = await this.#probing;
    if (well && this.#why === null) throw error;
    if (!this.withdraw(`${error.code} of a ${changes ? "change" : "read"}, and the superblock cannot be read either`)) throw error;
    return await this.#park(side, repeat(), work);
  }

  #park(side: Side, repeat: Repeat | null, work: Work): Promise<unknown> {
    if (side.target === null) return Promise.reject(errnoError(E.EIO));
    // Asked again where it goes on, if that has begun meanwhile.
    if (side.target !== this.#options.local) {
      const { target } = side;
      if (repeat?.again === false) return Promise.reject(errnoError(E.EIO));
      return promised(() => work(target)).catch((error: unknown) => Promise.reject(judgeRepeated(error, repeat)));
    }
    if (side.parked.length >= MAX_PARKED_CALLS) return Promise.reject(errnoError(E.ENOMEM));
    return new Promise((resolve, reject) => side.parked.push({ work, repeat, resolve, reject }));
  }

  #guarded<K extends Method>(side: Side, name: K): Lower[K] {
    const changes = (CHANGES as readonly string[]).includes(name);
    const ownChange = isOwnChange(name) ? name : null;
    const call = (...args: unknown[]): MaybePromise<unknown> => {
      const { request } = side;
      const noted = ownChange !== null && request !== 0 && side.target === this.#options.local && this.#note(ownChange, args, request);
      const work: Work = (lower) => (lower[name] as (...given: unknown[]) => MaybePromise<unknown>)(...args);
      // Also where it is made by another owner, later.
      const forRequest: Work = (lower) => changeFor(lower, request, () => work(lower));
      const make = (): MaybePromise<unknown> => this.#make(side, name, args, changes, request === 0 ? work : forRequest);
      if (!noted) return make();
      return withErrors(make, (error) => {
        this.#options.journal?.notMade(request);
        throw error;
      });
    };
    return call as unknown as Lower[K];
  }

  /** Hazard F41. Of a change of this node's own mount, before it is made. */
  #note(name: OwnChange, args: readonly unknown[], request: number): boolean {
    const { journal = null } = this.#options;
    if (journal?.wanted !== true) return false;
    const { type, body } = encodeOwnChange(name, name === "write" ? this.#withEnd(args as Parameters<Lower["write"]>) : args);
    journal.making(type, request, body, this.#isSure(name, args));
    return true;
  }

  /** What it takes away is there, under the lock that its request has: nobody changes that meanwhile. False: it is not, or that is not known at once. */
  #isSure(name: OwnChange, args: readonly unknown[]): boolean {
    if (name === "unlink" || name === "rmdir") return this.#stands(...(args as Parameters<Lower["unlink"]>));
    if (name !== "rename") return false;
    const [oldParent, oldName, newParent, newName, , expectedOld, expectedNew] = args as Parameters<Lower["rename"]>;
    return this.#stands(oldParent, oldName, expectedOld) && this.#stands(newParent, newName, expectedNew);
  }

  /** `expected`: null: there is no such name. */
  #stands(parent: FileId, name: Buffer, expected: FileId | null): boolean {
    const found = withErrors<Entry | null | "unknown">(
      () => this.#options.local.lookup(parent, name),
      (error) => {
        if (!(error instanceof Errno)) throw error;
        return error.errno === E.ENOENT ? null : "unknown";
      },
    );
    if (found === "unknown" || found instanceof Promise) return false;
    return found === null || expected === null ? found === expected : compareFileIds(found.id, expected) === 0;
  }

  /** An append, with the place where it begins: what is there after a crash tells whether it was made. */
  #withEnd(args: Parameters<Lower["write"]>): Parameters<Lower["write"]> {
    const [handle, data, , append] = args;
    return append ? [handle, data, this.#options.local.sizeOf(handle), append] : args;
  }

  #methods(side: Side): Pick<Lower, Method> {
    const methods: Partial<Record<Method, unknown>> = {};
    for (const name of [...READS, ...CHANGES]) methods[name] = this.#guarded(side, name);
    return methods as Pick<Lower, Method>;
  }

  /* The two sides ------------------------------------------------------------------------------------------------ */

  #servedLower(local: LocalLower): LocalLower {
    const methods = this.#methods(this.#served);
    return {
      ...methods,
      root: local.root,
      hasAcls: local.hasAcls,
      fileSystem: local.fileSystem,
      get openHandles(): number {
        return local.openHandles;
      },
      identityOf: (handle) => local.identityOf(handle),
      decodeHandle: (handle) => local.decodeHandle(handle),
      knownAs: (parent, name) => local.knownAs(parent, name),
      forgetNames: (parent, name) => local.forgetNames(parent, name),
      exclusive: local.exclusive,
      // Of a disk that was given up nothing is asked.
      xattrNames: (id, cold) => (this.#why === null ? local.xattrNames(id, cold) : null),
      descriptorOf: (handle) => local.descriptorOf(handle),
      sizeOf: (handle) => local.sizeOf(handle),
      openOrphans: (readOnly) => local.openOrphans(readOnly),
      recoverOrphans: () => local.recoverOrphans(),
      leaveOrphans: () => local.leaveOrphans(),
      failedSyncs: () => local.failedSyncs(),
      roomForHandles: () => local.roomForHandles(),
      pin: (id) => local.pin(id),
      unpin: (id) => local.unpin(id),
      get orphanCount(): number {
        return local.orphanCount;
      },
      shutdown: () => local.shutdown(),
      isAbsent: (parent, name) => local.isAbsent(parent, name),
      namesSince: (parent, version) => local.namesSince(parent, version),
      keeps: false,
      knows: () => false,
      made: (id, attr) => local.made(id, attr),
      madeFile: () => undefined,
      setattrBehind: () => null,
      ownership: (id) => methods.getattr(id),
      close: (handle) => local.close(handle),
      fetch: (id, handle, offset, bytes) => local.fetch(id, handle, offset, bytes),
      prefetch: (ids, what) => local.prefetch(ids, what),
      room: () => local.room(),
      madeFor: () => undefined,
      mayWriteBehind: () => false,
      writeBehind: (handle, data, offset) => local.writeBehind(handle, data, offset),
      writtenBehind: () => undefined,
    };
  }

  #ownLower(local: LocalLower): Lower {
    const side = this.#own;
    const methods = { ...this.#methods(side) };
    for (const name of CHANGES)
      methods[name] = this.#changes.noting(name, methods[name] as (...args: readonly unknown[]) => MaybePromise<unknown>) as never;
    const now = (): Lower => side.target ?? local;
    const noted = <T>(opened: MaybePromise<T>, handleOf: (value: T) => OpenFile): MaybePromise<T> => {
      const note = (value: T): T => {
        if (side.target === local) {
          const handle = handleOf(value);
          this.#handles.set(handle.handle, handle);
          this.#lastHandle = handle.handle;
          this.#options.journal?.openedAtOwner(handle);
        }
        return value;
      };
      return opened instanceof Promise ? opened.then(note) : note(opened);
    };
    return {
      ...methods,
      root: local.root,
      hasAcls: local.hasAcls,
      madeFor: (request) => {
        side.request = request;
      },
      isAbsent: (parent, name) => !this.isGiven && now().isAbsent(parent, name),
      get keeps(): boolean {
        return now().keeps;
      },
      knows: (parent, name) => now().knows(parent, name),
      made: (id, attr) => now().made(id, attr),
      madeFile: (handle, attr) => now().madeFile(handle, attr),
      setattrBehind: (id, change) => now().setattrBehind(id, change),
      ownership: (id) => (now() === local ? methods.getattr(id) : now().ownership(id)),
      fetch: (id, handle, offset, bytes) => now().fetch(id, handle, offset, bytes),
      prefetch: (ids, what) => now().prefetch(ids, what),
      mayWriteBehind: (handle, offset, bytes) => now().mayWriteBehind(handle, offset, bytes),
      writeBehind: (handle, data, offset) => now().writeBehind(handle, data, offset),
      writtenBehind: () => now().writtenBehind(),
      open: (id, flags) => noted(methods.open(id, flags), (handle) => ({ handle, id, flags: flags & ~O.TRUNC, directory: false })),
      opendir: (id) => noted(methods.opendir(id), (handle) => ({ handle, id, flags: 0, directory: true })),
      create: (parent, name, flags, mode, caller) =>
        noted(methods.create(parent, name, flags, mode, caller), ({ entry, handle }) => ({
          handle,
          id: entry.id,
          flags: flags & ~O.TRUNC,
          directory: false,
        })),
      tmpfile: (parent, flags, mode, caller, linkable) =>
        noted(methods.tmpfile(parent, flags, mode, caller, linkable), ({ entry, handle }) => ({
          handle,
          id: entry.id,
          flags,
          directory: false,
        })),
      close: (handle) => {
        if (this.#handles.delete(handle)) this.#options.journal?.closedAtOwner(handle);
        now().close(handle);
      },
    };
  }
}

function judgeRepeated(error: unknown, repeat: Repeat | null): Error {
  assert(error instanceof Error, "a failure is an Error");
  const doubtful = repeat?.again === true ? repeat.doubtful : [];
  return error instanceof Errno && isDoubtful(doubtful, error.errno) ? errnoError(E.EIO) : error;
}

/** `repeatOf` of the calls for which it matters what they are asked for. */
function repeatOfArguments(name: Method, args: readonly unknown[]): Repeat {
  const of = <K extends CallName>(call: K, request: Partial<RequestOf<K>>): Repeat => repeatOf(call, request as RequestOf<K>);
  switch (name) {
    case "create":
      return of("create", { flags: args[2] as number, mode: args[3] as number, caller: args[4] as RequestOf<"create">["caller"] });
    case "write":
      return of("write", { append: args[3] as boolean });
    case "fallocate":
      return of("fallocate", { mode: args[1] as number });
    case "setxattr":
      return of("setxattr", { flags: args[3] as number });
    default:
      return repeatOf<CallName>(name, undefined);
  }
}

/**
 * The lower at another node: every call is one message to the volume's owner and one back. While there is no owner
 * calls wait (session: session.ts).
 */
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import { checkName, checkWritable, MAX_DEPOSIT, MAX_GETATTR_MANY, MAX_LOOKUP_MANY, MAX_READ_MANY } from "../limits.ts";
import { NAME_MAX, PATH_MAX, XATTR_SIZE_MAX } from "../linux.ts";
import type { Attr, FileId, Lower } from "../lower.ts";
import type { AnswerOf, RequestOf } from "../wire/call-types.ts";
import { type Adopted, type OpenAtOwner, RemoteCore, type RemoteCoreOptions } from "./core.ts";
import type { OwnerAddress, RemoteCounters } from "./connection.ts";
import type { MaybePromise } from "../../../dlmd/base/maybe-promise.ts";
import type { OwnerWait } from "../owner-wait.ts";

export type RemoteLowerOptions = RemoteCoreOptions;

/** One call takes MAX_DEPOSIT. The first one goes also where nothing is named: what is open stays so. */
async function depositInParts(
  { tokens, locked, ...head }: RequestOf<"deposit">,
  call: (part: RequestOf<"deposit">) => MaybePromise<AnswerOf<"deposit">>,
  signal: AbortSignal,
): Promise<string> {
  const parts = Math.max(1, Math.ceil(Math.max(tokens.length, locked.length) / MAX_DEPOSIT));
  for (let part = 0; part < parts; part += 1) {
    if (signal.aborted) return "it was given up meanwhile";
    const [from, to] = [part * MAX_DEPOSIT, (part + 1) * MAX_DEPOSIT];
    const { refused } = await call({ ...head, tokens: tokens.slice(from, to), locked: locked.slice(from, to) });
    if (refused !== "") return refused;
  }
  return "";
}

export interface RemoteLower extends Lower {
  /** Files that were open at another owner: to be opened at the next one, under the same numbers. Before anything else. */
  adopt(before: Adopted): void;
  /** What this mount has open at the present owner, for its next process; null: not now, something is under way. */
  openAtOwner(): OpenAtOwner | null;
  /** What the process before had open there. Before `connect`. */
  continueWith(before: OpenAtOwner): void;
  /** Files that the owner could not open. */
  readonly brokenFiles: number;
  /** `ownerFound`, and resolves when calls reach the owner. Rejects with OperatingError (code: the refusal). */
  connect(address: OwnerAddress, epoch: number): Promise<void>;
  /** There is an owner. The same again does nothing; a higher epoch is another owner. */
  ownerFound(address: OwnerAddress, epoch: number): void;
  /** Asks the owner of that epoch to give the volume to that node, 0: to the lowest other. */
  handOver(epoch: number, heir: number): Promise<AnswerOf<"handOver">>;
  /** Hazard F35. Any number of files: asked for in parts. Resolves with why it was refused, in words; "": it was not. */
  deposit(request: RequestOf<"deposit">, signal: AbortSignal): Promise<string>;
  /** Resolves with whether it was there. */
  collect(ticket: string): Promise<boolean>;
  /** The lock of that inode is about to leave this node: resolves when the owner has open what is open here (hazard F22). */
  tellOpens(id: FileId): MaybePromise<void>;
  /** A lock waits for what was written behind under it. */
  hurry(): void;
  /** The owner died or gave the volume up: calls wait from now on. */
  ownerLost(): void;
  /** `keyring` is another: an owner that proved a key which is not in it any more has to prove another. */
  keysChanged(): void;
  /** No owner answers now. */
  readonly disconnected: boolean;
  /** Calls that are not answered yet. */
  readonly waitingCalls: number;
  /** The owner was asked for a change, or is to be, and has not answered. */
  readonly hasUnansweredChanges: boolean;
  /** For what its calls wait; null: none waits. */
  readonly ownerWait: OwnerWait | null;
  /** The owner has this mount's connection, or its host takes connections for it. */
  readonly ownerThere: boolean;
  /** The owner does not take this node's cluster key, in words; null: it does. Calls wait meanwhile. */
  readonly keyTrouble: string | null;
  readonly openHandles: number;
  readonly counters: RemoteCounters;
  /** Ends the session: calls that wait fail with EIO. */
  shutdown(): void;
}

function namesOf(
  core: RemoteCore,
): Pick<
  Lower,
  | "isAbsent"
  | "keeps"
  | "knows"
  | "made"
  | "madeFile"
  | "lookup"
  | "lookupMany"
  | "byNumber"
  | "parentOf"
  | "mkdir"
  | "mknod"
  | "symlink"
  | "unlink"
  | "rmdir"
  | "rename"
  | "link"
  | "create"
  | "tmpfile"
> {
  return {
    isAbsent: (parent, name) => name.length <= NAME_MAX && core.known.isAbsent(parent, name),
    keeps: true,
    knows: (parent, name) => name.length > NAME_MAX || core.known.entry(parent, name) !== undefined,
    made: (id, attr) => core.known.made(id, attr),
    madeFile: (handle, attr) => core.madeFile(handle, attr),
    lookup(parent, name) {
      checkName(name);
      return core.lookup(parent, name);
    },
    lookupMany(parent, names) {
      if (names.length > MAX_LOOKUP_MANY) throw errnoError(E.E2BIG);
      for (const name of names) checkName(name);
      return core.lookupMany(parent, names);
    },
    byNumber: (ino) => core.call("byNumber", { ino }),
    parentOf: (id) => core.call("parentOf", { id }),
    create(parent, name, flags, mode, caller) {
      checkName(name);
      return core.create(parent, name, flags, mode, caller);
    },
    tmpfile: (parent, flags, mode, caller, linkable) => core.tmpfile(parent, flags, mode, caller, linkable),
    mkdir: (parent, name, mode, caller) =>
      core.make(parent, name, (tellParent) => core.call("mkdir", { parent, name, tellParent, mode, caller })),
    mknod: (parent, name, mode, rdevMajor, rdevMinor, caller) =>
      core.make(parent, name, (tellParent) => core.call("mknod", { parent, name, tellParent, mode, caller, rdevMajor, rdevMinor })),
    symlink(parent, name, target, caller) {
      if (target.length >= PATH_MAX) throw errnoError(E.ENAMETOOLONG);
      return core.make(parent, name, (tellParent) => core.call("symlink", { parent, name, tellParent, target, caller }));
    },
    unlink: (parent, name, expected) => core.remove("unlink", parent, name, expected),
    rmdir: (parent, name, expected) => core.remove("rmdir", parent, name, expected),
    async rename(oldParent, oldName, newParent, newName, flags, expectedOld, expectedNew) {
      checkName(oldName);
      checkName(newName);
      await core.rename({ oldParent, oldName, newParent, newName, flags, expectedOld, expectedNew });
      for (const id of [oldParent, newParent]) core.noteChanged(id, "all");
    },
    async link(id, newParent, newName) {
      checkName(newName);
      const linked = (): Promise<AnswerOf<"link">> =>
        core.changeNames(
          newParent,
          newName,
          () => id,
          (tellParent) => core.call("link", { id, newParent, newName, tellParent }),
        );
      const { attr } = await core.changingOne(id, linked, (answer) => answer.attr);
      // Hazard F30: fsync of a file brings its names to the disk, too.
      core.noteChanged(id, "all");
      return attr;
    },
  };
}

function attributesOf(
  core: RemoteCore,
): Pick<
  Lower,
  | "getattr"
  | "ownership"
  | "getattrMany"
  | "setattr"
  | "setattrBehind"
  | "readlink"
  | "getxattr"
  | "setxattr"
  | "listxattr"
  | "removexattr"
  | "statfs"
> {
  return {
    getattr: (id) => core.getattr(id),
    ownership: (id) => core.ownership(id),
    getattrMany(ids) {
      if (ids.length > MAX_GETATTR_MANY) throw errnoError(E.E2BIG);
      return core.getattrMany(ids);
    },
    async setattr(id, change, handle) {
      if (change.size !== undefined) checkWritable(change.size, 0);
      const file = handle === null ? null : core.handles.get(handle);
      const set = (): Promise<Attr> => core.withAll("setattr", file === null ? [] : [file], { id, change, handle, promised: false });
      const attr = await core.changingOne(id, set, (answer) => answer);
      core.noteChanged(id, "all");
      return attr;
    },
    setattrBehind: (id, change) => core.setattrBehind(id, change),
    readlink: (id) => core.call("readlink", { id }),
    getxattr: (id, name) => core.getxattr(id, name),
    async setxattr(id, name, value, flags) {
      if (value.length > XATTR_SIZE_MAX) throw errnoError(E.E2BIG);
      await core.changing([core.known.beginXattrs(id)], () => core.call("setxattr", { id, name, value, flags }));
      core.noteChanged(id, "all");
    },
    listxattr: (id) => core.listxattr(id),
    async removexattr(id, name) {
      await core.changing([core.known.beginXattrs(id)], () => core.call("removexattr", { id, name }));
      core.noteChanged(id, "all");
    },
    statfs: () => core.call("statfs", undefined),
  };
}

/** Not connected yet: `root` and `hasAcls` are known from the first `connect` on. */
export function createRemoteLower(options: RemoteLowerOptions): RemoteLower {
  const core = new RemoteCore(options);
  const { session } = core;
  return {
    get root(): FileId {
      return core.welcome.root;
    },
    get hasAcls(): boolean {
      return core.welcome.hasAcls;
    },
    async connect(address, epoch) {
      session.ownerFound(address, epoch);
      await session.whenRunning();
    },
    adopt: (before) => core.adopt(before),
    openAtOwner: () => core.openAtOwner(),
    continueWith: (before) => core.continueWith(before),
    get brokenFiles(): number {
      return core.brokenFiles;
    },
    ownerFound: (address, epoch) => session.ownerFound(address, epoch),
    handOver: (epoch, heir) => core.call("handOver", { epoch, heir }),
    deposit: (request, signal) => depositInParts(request, (part) => core.call("deposit", part), signal),
    collect: async (ticket) => (await core.call("collect", { ticket })).found,
    tellOpens(id) {
      const told = core.tellOpens(id);
      // Closes, too: another node's unlink is not to overtake them.
      session.hurry();
      return told;
    },
    hurry: () => session.hurry(),
    ownerLost: () => core.ownerLost(),
    keysChanged: () => session.keysChanged(),
    get disconnected(): boolean {
      return !session.running;
    },
    get keyTrouble(): string | null {
      return session.keyTrouble;
    },
    get waitingCalls(): number {
      return session.waitingCalls;
    },
    get hasUnansweredChanges(): boolean {
      return session.hasUnansweredChanges;
    },
    get ownerWait(): OwnerWait | null {
      return session.ownerWait;
    },
    get ownerThere(): boolean {
      return session.ownerThere;
    },
    get openHandles(): number {
      return core.handles.count;
    },
    counters: session.counters,
    shutdown: () => core.shutdown(),

    ...namesOf(core),
    ...attributesOf(core),
    open: (id, flags) => core.open(id, flags),
    opendir: (id) => core.opendir(id),
    close: (handle) => core.close(handle),
    fetch: (id, handle, offset, bytes) => core.fetch(id, handle, offset, bytes),
    async prefetch(ids, what) {
      if (ids.length > (what === "data" ? MAX_READ_MANY : MAX_GETATTR_MANY)) throw errnoError(E.E2BIG);
      if (what === "data") await core.prefetchData(ids);
      else await core.getattrMany(ids);
    },
    read: (handle, offset, bytes) => core.read(handle, offset, bytes),
    write: (handle, data, offset, append) => core.write(handle, data, offset, append),
    mayWriteBehind: (handle, offset, bytes) => core.mayWriteBehind(handle, offset, bytes),
    writeBehind: (handle, data, offset) => core.writeBehind(handle, data, offset),
    writtenBehind: () => core.writtenBehind(),
    fsync: (handle, dataOnly) => core.fsync("fsync", handle, dataOnly),
    fsyncdir: (handle, dataOnly) => core.fsync("fsyncdir", handle, dataOnly),
    fallocate: (handle, mode, offset, bytes) => core.fallocate(handle, mode, offset, bytes),
    lseek: (handle, offset, whence) => core.lseek(handle, offset, whence),
    copyFileRange: (inHandle, inOffset, outHandle, outOffset, bytes) => core.copyFileRange(inHandle, inOffset, outHandle, outOffset, bytes),
    readdir(handle, cookie, bytes, listing) {
      if (cookie < 0n || cookie >= 1n << 63n) throw errnoError(E.EINVAL);
      return core.readdir(handle, cookie, bytes, listing);
    },
    fileAttributes: (handle, kind) => core.with("fileAttributes", core.handles.get(handle), { handle, kind }),
    setFileAttributes: (handle, kind, value) => core.setFileAttributes(handle, kind, value),
    syncfs: () => core.syncfs(),
  };
}

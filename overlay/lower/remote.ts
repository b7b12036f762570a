/**
 * The lower at another node: every call is one message to the volume's owner and one back. While there is no owner
 * calls wait (session: remote-session.ts).
 */
import { assert } from "../../dlmd/base/assert.ts";
import { E, errnoError } from "../../dlmd/base/errno.ts";
import type { Welcome } from "./handshake.ts";
import { type DirectoryChange, HeldDirectories } from "./held-directories.ts";
import { checkName, checkWritable, isBeyondAnyFile, MAX_COPY_BYTES, MAX_GETATTR_MANY, MAX_IO_BYTES, MAX_LOOKUP_MANY } from "./limits.ts";
import { NAME_MAX, PATH_MAX, XATTR_SIZE_MAX } from "./linux.ts";
import type { Attr, Caller, Entry, Fetched, FileId, Lower, LowerHandle, Maybe } from "./lower.ts";
import type { OwnerAddress, RemoteCounters } from "./remote-connection.ts";
import { type RemoteHandle, RemoteHandles } from "./remote-handles.ts";
import { isErrno, RemoteSession, type RemoteSessionOptions } from "./remote-session.ts";
import { Unsynced } from "./unsynced.ts";
import type { AnswerOf, CallName, RequestOf } from "./wire-calls.ts";

export type RemoteLowerOptions = RemoteSessionOptions;

export interface RemoteLower extends Lower {
  /** `ownerFound`, and resolves when calls reach the owner. Rejects with OperatingError (code: the refusal). */
  connect(address: OwnerAddress, epoch: number): Promise<void>;
  /** There is an owner. The same again does nothing; a higher epoch is another owner. */
  ownerFound(address: OwnerAddress, epoch: number): void;
  /** The owner died or gave the volume up: calls wait from now on. */
  ownerLost(): void;
  /** `secrets` are others: an owner that proved one which is not among them any more has to prove another. */
  secretsChanged(): void;
  /** No owner answers now. */
  readonly disconnected: boolean;
  /** Calls that are not answered yet. */
  readonly waitingCalls: number;
  /** The owner does not take this node's cluster key, in words; null: it does. Calls wait meanwhile. */
  readonly keyTrouble: string | null;
  readonly openHandles: number;
  readonly counters: RemoteCounters;
  /** Ends the session: calls that wait fail with EIO. */
  shutdown(): void;
}

const EMPTY = new Uint8Array(0);

class RemoteCore {
  readonly session: RemoteSession;
  readonly handles: RemoteHandles = new RemoteHandles();
  readonly unsynced: Unsynced = new Unsynced();
  readonly directories: HeldDirectories = new HeldDirectories();
  readonly #options: RemoteLowerOptions;
  #welcome: Welcome | null = null;

  constructor(options: RemoteLowerOptions) {
    this.#options = options;
    this.session = new RemoteSession(options, {
      welcome: (welcome) => this.#receiveWelcome(welcome),
      newOwner: (first) => this.#enterNewOwner(first),
      // Answers that came with it are noted after this turn.
      farewell: () => setImmediate(() => this.unsynced.allSynced(this.unsynced.now())),
    });
  }

  get welcome(): Welcome {
    assert(this.#welcome !== null, "the remote lower is asked about the volume before it was connected");
    return this.#welcome;
  }

  #receiveWelcome(welcome: Welcome): void {
    const before = this.#welcome;
    this.#welcome ??= welcome;
    if (before === null) return;
    const same = before.root.ino === welcome.root.ino && before.root.generation === welcome.root.generation;
    assert(same, `the volume's root was inode ${before.root.ino}, the new owner has ${welcome.root.ino}: another file system`);
  }

  async #enterNewOwner(first: boolean): Promise<void> {
    if (first) return;
    this.directories.clear();
    const handles = this.handles.all();
    const unsynced = this.unsynced.ownerDied(handles);
    this.#options.log.info({ handles: handles.length, unsynced }, "new owner: opening handles again");
    await Promise.all(handles.map((handle) => this.#reopen(handle)));
  }

  async #reopen(one: RemoteHandle): Promise<void> {
    one.error = null;
    try {
      const { id, flags, handle } = one;
      if (one.directory) await this.session.callFirst("opendir", { id, handle });
      else await this.session.callFirst("open", { id, flags, handle });
    } catch (error) {
      // ECANCELED: the connection broke; with the next one all are opened again.
      if (!isErrno(error) || error.errno === E.ECANCELED) throw error;
      one.error = error;
      this.#options.log.warn({ ino: one.id.ino, errno: error.code }, "an open file could not be opened at the new owner");
    }
  }

  call<K extends CallName>(call: K, request: RequestOf<K>): Promise<AnswerOf<K>> {
    return this.session.call(call, request, []);
  }

  /** A call through an open handle. */
  with<K extends CallName>(call: K, handle: RemoteHandle, request: RequestOf<K>): Promise<AnswerOf<K>> {
    return this.session.call(call, request, [handle]);
  }

  /** A change of data or size was made. */
  noteChanged(id: FileId): void {
    if (!this.unsynced.note(id)) return;
    this.#syncAll().catch((error: unknown) => this.#options.log.warn({ error: String(error) }, "background sync of the lower failed"));
  }

  async #syncAll(): Promise<void> {
    const since = this.unsynced.now();
    await this.call("syncfs", undefined);
    this.unsynced.allSynced(since);
  }

  async open(id: FileId, flags: number): Promise<LowerHandle> {
    const handle = this.handles.allocate();
    await this.call("open", { id, flags, handle });
    return this.handles.add(handle, id, flags, false, this.unsynced.opened(id));
  }

  async opendir(id: FileId): Promise<LowerHandle> {
    const handle = this.handles.allocate();
    await this.call("opendir", { id, handle });
    return this.handles.add(handle, id, 0, true, this.unsynced.opened(id));
  }

  async create(parent: FileId, name: Buffer, flags: number, mode: number, caller: Caller): Promise<{ entry: Entry; handle: LowerHandle }> {
    const handle = this.handles.allocate();
    const { entry } = await this.changeNames(parent, name, (tellParent) =>
      this.call("create", { parent, name, tellParent, mode, caller, flags, handle }),
    );
    return { entry, handle: this.handles.add(handle, entry.id, flags, false, this.unsynced.opened(entry.id)) };
  }

  async make(parent: FileId, name: Buffer, call: (tellParent: boolean) => Promise<AnswerOf<"mkdir">>): Promise<Entry> {
    checkName(name);
    return (await this.changeNames(parent, name, call)).entry;
  }

  async remove(call: "unlink" | "rmdir", parent: FileId, name: Buffer, expected: FileId): Promise<void> {
    checkName(name);
    await this.changeNames(parent, name, (tellParent) => this.call(call, { parent, name, tellParent, expected }));
    if (call === "rmdir") this.directories.forget(expected);
  }

  /** `call` changes the names of that directory. */
  async changeNames<T extends { readonly parent: Attr | null }>(
    parent: FileId,
    name: Buffer,
    call: (tellParent: boolean) => Promise<T>,
  ): Promise<T> {
    const change = this.directories.begin(parent, name);
    if (change === null) return call(false);
    let told: Attr | null = null;
    try {
      const answer = await call(change.alone);
      told = answer.parent;
      return answer;
    } finally {
      this.directories.end(change, told);
    }
  }

  /** `call` changes something of these inodes, of which some may be directories. */
  changing<T>(changes: readonly (DirectoryChange | null)[], call: () => Promise<T>): Promise<T> {
    if (changes.every((change) => change === null)) return call();
    return call().finally(() => {
      for (const change of changes) this.directories.end(change, null);
    });
  }

  close(handle: LowerHandle): void {
    if (!this.handles.remove(handle)) return;
    // Its answer matters to nobody: an owner that is gone has closed it already.
    this.call("close", { handle }).catch((error: unknown) => {
      if (!isErrno(error)) throw error;
    });
  }

  async write(handle: LowerHandle, data: Uint8Array, offset: number, append: boolean): Promise<{ offset: number; bytes: number }> {
    const file = this.handles.get(handle);
    if (data.byteLength > MAX_IO_BYTES) throw errnoError(E.EINVAL);
    if (!append) checkWritable(offset, data.byteLength);
    const answer = await this.with("write", file, { handle, offset: append ? 0 : offset, append, data });
    this.noteChanged(file.id);
    return answer;
  }

  read(handle: LowerHandle, offset: number, bytes: number): Maybe<Uint8Array> {
    const file = this.handles.get(handle);
    if (offset < 0 || bytes < 0 || bytes > MAX_IO_BYTES) throw errnoError(E.EINVAL);
    if (isBeyondAnyFile(offset, bytes)) return EMPTY;
    return this.with("read", file, { handle, offset, bytes });
  }

  fetch(id: FileId, handle: LowerHandle, offset: number, bytes: number): Promise<Fetched> | null {
    const file = this.handles.get(handle);
    if (offset < 0 || bytes < 0 || bytes > MAX_IO_BYTES || isBeyondAnyFile(offset, bytes)) return null;
    return this.with("fetch", file, { id, handle, offset, bytes });
  }

  async fsync(call: "fsync" | "fsyncdir", handle: LowerHandle, dataOnly: boolean): Promise<void> {
    const file = this.handles.get(handle);
    const since = this.unsynced.now();
    await this.with(call, file, { handle, dataOnly });
    this.unsynced.synced(file.id, since);
    if (!this.unsynced.takeLost(file)) return;
    this.#options.log.error({ ino: file.id.ino }, "the owner that took this file's data died before it was on disk: fsync reports EIO");
    throw errnoError(E.EIO);
  }

  async syncfs(): Promise<void> {
    await this.#syncAll();
    if (this.unsynced.takeAnyLost()) throw errnoError(E.EIO);
  }

  async fallocate(handle: LowerHandle, mode: number, offset: number, bytes: number): Promise<void> {
    const file = this.handles.get(handle);
    checkWritable(offset, bytes);
    await this.with("fallocate", file, { handle, mode, offset, bytes });
    this.noteChanged(file.id);
  }

  lseek(handle: LowerHandle, offset: number, whence: number): Promise<number> {
    const file = this.handles.get(handle);
    if (offset < 0 || isBeyondAnyFile(offset, 0)) throw errnoError(E.ENXIO);
    return this.with("lseek", file, { handle, offset, whence });
  }

  async copyFileRange(inHandle: LowerHandle, inOffset: number, outHandle: LowerHandle, outOffset: number, bytes: number): Promise<number> {
    const source = this.handles.get(inHandle);
    const target = this.handles.get(outHandle);
    const length = Math.min(bytes, MAX_COPY_BYTES);
    if (isBeyondAnyFile(inOffset, length)) return 0;
    checkWritable(inOffset, length);
    checkWritable(outOffset, length);
    const request = { inHandle, inOffset, outHandle, outOffset, bytes: length };
    const copied = await this.session.call("copyFileRange", request, [source, target]);
    this.noteChanged(target.id);
    return copied;
  }
}

function namesOf(
  core: RemoteCore,
): Pick<
  Lower,
  | "isAbsent"
  | "made"
  | "heldAttr"
  | "lookup"
  | "lookupMany"
  | "mkdir"
  | "mknod"
  | "symlink"
  | "unlink"
  | "rmdir"
  | "rename"
  | "link"
  | "create"
> {
  return {
    isAbsent: (parent, name, hold) => name.length <= NAME_MAX && core.directories.isAbsent(parent, name, hold),
    made: (id, hold) => core.directories.made(id, hold),
    heldAttr: (id, hold) => core.directories.attr(id, hold),
    lookup(parent, name) {
      checkName(name);
      return core.call("lookup", { parent, name });
    },
    lookupMany(parent, names) {
      if (names.length > MAX_LOOKUP_MANY) throw errnoError(E.E2BIG);
      for (const name of names) checkName(name);
      return core.call("lookupMany", { parent, names });
    },
    create(parent, name, flags, mode, caller) {
      checkName(name);
      return core.create(parent, name, flags, mode, caller);
    },
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
    rename(oldParent, oldName, newParent, newName, flags, expectedOld, expectedNew) {
      checkName(oldName);
      checkName(newName);
      const { directories } = core;
      const names = [directories.begin(oldParent, oldName), directories.begin(newParent, newName)];
      const moved = [expectedOld, expectedNew].map((id) => (id === null ? null : directories.begin(id, null)));
      return core.changing([...names, ...moved], () =>
        core.call("rename", { oldParent, oldName, newParent, newName, flags, expectedOld, expectedNew }),
      );
    },
    async link(id, newParent, newName) {
      checkName(newName);
      const { attr } = await core.changeNames(newParent, newName, (tellParent) =>
        core.call("link", { id, newParent, newName, tellParent }),
      );
      return attr;
    },
  };
}

function attributesOf(
  core: RemoteCore,
): Pick<Lower, "getattr" | "getattrMany" | "setattr" | "readlink" | "getxattr" | "setxattr" | "listxattr" | "removexattr" | "statfs"> {
  return {
    getattr: (id) => core.call("getattr", { id }),
    getattrMany(ids) {
      if (ids.length > MAX_GETATTR_MANY) throw errnoError(E.E2BIG);
      return core.call("getattrMany", { ids });
    },
    async setattr(id, change, handle) {
      if (change.size !== undefined) checkWritable(change.size, 0);
      const file = handle === null ? null : core.handles.get(handle);
      const attr = await core.changing([core.directories.begin(id, null)], () =>
        core.session.call("setattr", { id, change, handle }, file === null ? [] : [file]),
      );
      if (change.size !== undefined) core.noteChanged(id);
      return attr;
    },
    readlink: (id) => core.call("readlink", { id }),
    getxattr: (id, name) => core.call("getxattr", { id, name }),
    setxattr(id, name, value, flags) {
      if (value.length > XATTR_SIZE_MAX) throw errnoError(E.E2BIG);
      return core.changing([core.directories.begin(id, null)], () => core.call("setxattr", { id, name, value, flags }));
    },
    listxattr: (id) => core.call("listxattr", { id }),
    removexattr: (id, name) => core.changing([core.directories.begin(id, null)], () => core.call("removexattr", { id, name })),
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
    ownerFound: (address, epoch) => session.ownerFound(address, epoch),
    ownerLost: () => session.ownerLost(),
    secretsChanged: () => session.secretsChanged(),
    get disconnected(): boolean {
      return !session.running;
    },
    get keyTrouble(): string | null {
      return session.keyTrouble;
    },
    get waitingCalls(): number {
      return session.waitingCalls;
    },
    get openHandles(): number {
      return core.handles.count;
    },
    counters: session.counters,
    shutdown: () => session.close(),

    ...namesOf(core),
    ...attributesOf(core),
    open: (id, flags) => core.open(id, flags),
    opendir: (id) => core.opendir(id),
    close: (handle) => core.close(handle),
    stamps: session,
    fetch: (id, handle, offset, bytes) => core.fetch(id, handle, offset, bytes),
    read: (handle, offset, bytes) => core.read(handle, offset, bytes),
    write: (handle, data, offset, append) => core.write(handle, data, offset, append),
    fsync: (handle, dataOnly) => core.fsync("fsync", handle, dataOnly),
    fsyncdir: (handle, dataOnly) => core.fsync("fsyncdir", handle, dataOnly),
    fallocate: (handle, mode, offset, bytes) => core.fallocate(handle, mode, offset, bytes),
    lseek: (handle, offset, whence) => core.lseek(handle, offset, whence),
    copyFileRange: (inHandle, inOffset, outHandle, outOffset, bytes) => core.copyFileRange(inHandle, inOffset, outHandle, outOffset, bytes),
    readdir(handle, cookie, bytes, listing) {
      if (cookie < 0n || cookie >= 1n << 63n) throw errnoError(E.EINVAL);
      const directory = core.handles.get(handle);
      // Its access time.
      return core.changing([core.directories.begin(directory.id, null)], () =>
        core.with("readdir", directory, { handle, cookie, bytes, listing }),
      );
    },
    syncfs: () => core.syncfs(),
  };
}

/** What the remote lower is made of (remote.ts): the session, the open files, and what is remembered of changes. */
import { assert } from "../../dlmd/base/assert.ts";
import { E, errnoError } from "../../dlmd/base/errno.ts";
import type { Welcome } from "./handshake.ts";
import { type DirectoryChange, HeldDirectories } from "./held-directories.ts";
import { checkName, checkWritable, isBeyondAnyFile, MAX_COPY_BYTES, MAX_IO_BYTES } from "./limits.ts";
import type { Attr, Caller, Entry, Fetched, FileId, LowerHandle, Maybe } from "./lower.ts";
import { inTime } from "./maybe.ts";
import { type RemoteHandle, RemoteHandles } from "./remote-handles.ts";
import { isErrno, RemoteSession, type RemoteSessionOptions } from "./remote-session.ts";
import { type Changed, Unsynced } from "./unsynced.ts";
import type { AnswerOf, CallName, RequestOf } from "./wire-calls.ts";

const EMPTY = new Uint8Array(0);

/** Calls to a new owner wait so long until nobody goes on with what was read from the last one: a page of it may be held by a call that waits. */
const FORGET_MS = 1000;

export class RemoteCore {
  readonly session: RemoteSession;
  readonly handles: RemoteHandles = new RemoteHandles();
  readonly unsynced: Unsynced = new Unsynced();
  readonly directories: HeldDirectories = new HeldDirectories();
  readonly #options: RemoteSessionOptions;
  #welcome: Welcome | null = null;
  #syncing = false;
  /** All that the last owner answered is on disk. */
  #synced = false;

  constructor(options: RemoteSessionOptions) {
    this.#options = options;
    this.session = new RemoteSession(options, {
      welcome: (welcome) => this.#receiveWelcome(welcome),
      newOwner: (first) => this.#enterNewOwner(first),
      // Answers that came with it are noted after this turn.
      farewell: () => {
        this.#synced = true;
        setImmediate(() => this.unsynced.allSynced(this.unsynced.now()));
      },
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
    // Once more: what it had answered may have been told to somebody only after it was lost.
    const forgotten = this.#synced ? true : inTime(this.#forget(), FORGET_MS);
    this.#synced = false;
    await Promise.all([forgotten, ...handles.map((handle) => this.#reopen(handle))]);
  }

  ownerLost(): void {
    const served = this.#welcome !== null && !this.session.ownerless;
    this.session.ownerLost();
    // Now, and not when there is another one: programs there see at once what is left.
    if (served && !this.#synced) void this.#forget();
  }

  /** What was read from the last owner. */
  async #forget(): Promise<void> {
    await this.#options.onOwnerDied?.();
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

  /** A change was made, and may not be on disk. */
  noteChanged(id: FileId, what: Changed): void {
    if (this.unsynced.note(id, what) && !this.#syncing) void this.#syncInBackground();
  }

  async #syncInBackground(): Promise<void> {
    this.#syncing = true;
    try {
      await this.#syncAll();
    } catch (error) {
      this.#options.log.warn({ error: String(error) }, "background sync of the lower failed");
    } finally {
      this.#syncing = false;
    }
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
    let told: Attr | null = null;
    try {
      const answer = await call(change?.alone ?? false);
      this.noteChanged(parent, "all");
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
    this.noteChanged(file.id, "data");
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
    this.unsynced.synced(file.id, since, dataOnly);
    if (!this.unsynced.takeLost(file)) return;
    this.#options.log.error(
      { ino: file.id.ino },
      "the owner that took changes of this file or directory died before they were on disk: fsync reports EIO",
    );
    throw errnoError(E.EIO);
  }

  async syncfs(): Promise<void> {
    await this.#syncAll();
    if (this.unsynced.takeAnyLost()) throw errnoError(E.EIO);
  }

  async fallocate(handle: LowerHandle, mode: number, offset: number, bytes: number): Promise<void> {
    const file = this.handles.get(handle);
    checkWritable(offset, bytes);
    try {
      await this.with("fallocate", file, { handle, mode, offset, bytes });
    } finally {
      // What it made before there was no more room stays.
      this.noteChanged(file.id, "data");
    }
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
    this.noteChanged(target.id, "data");
    return copied;
  }
}

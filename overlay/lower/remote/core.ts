/** What the remote lower is made of (remote.ts): the session, the open files, and what is remembered of changes. */
import { assert } from "../../../dlmd/base/assert.ts";
import { E, type Errno, errnoError } from "../../../dlmd/base/errno.ts";
import type { Welcome } from "../wire/handshake.ts";
import { type Change, type Holds, KnownInodes, NO_HOLDS } from "./known.ts";
import { checkName, checkWritable, isBeyondAnyFile, MAX_COPY_BYTES, MAX_IO_BYTES } from "../limits.ts";
import { O, S } from "../linux.ts";
import type { Attr, Caller, Entry, Fetched, FileId, LowerHandle, OpenFile } from "../lower.ts";
import { andThen, inTime, type MaybePromise } from "../../../dlmd/base/maybe-promise.ts";
import { type RemoteHandle, RemoteHandles } from "./handles.ts";
import { isErrno, RemoteSession, type RemoteSessionOptions } from "./session.ts";
import { type Changed, Unsynced } from "../unsynced.ts";
import type { AnswerOf, CallName, RequestOf } from "../wire/call-types.ts";

const EMPTY = new Uint8Array(0);

const made = ({ entry }: { readonly entry: Entry }): FileId => entry.id;
const gone = (): null => null;

/** Calls to a new owner wait so long until nobody goes on with what was read from the last one: a page of it may be held by a call that waits. */
const FORGET_MS = 1000;
/** What was opened here without the owner is told to it after once to twice this time, read or not. */
export const TELL_OPENS_MS = 1000;
/** So many at a time, the next ones when those are answered: programs' calls wait behind them. */
export const TELL_OPENS_MAX = 256;

export interface RemoteCoreOptions extends RemoteSessionOptions {
  /** Under which locks something may be known without asking; absent: none. */
  readonly holds?: Holds;
}

/** What a mount has had at an owner in its own process that withdrew. */
export interface Adopted {
  readonly handles: readonly OpenFile[];
  readonly unsynced: Unsynced;
  readonly epoch: number;
}

export class RemoteCore {
  readonly session: RemoteSession;
  readonly handles: RemoteHandles = new RemoteHandles();
  #unsynced: Unsynced = new Unsynced();
  readonly known: KnownInodes;
  readonly #options: RemoteSessionOptions;
  #welcome: Welcome | null = null;
  #syncing = false;
  /** All that the last owner answered is on disk. */
  #synced = false;
  #tellTimer: NodeJS.Timeout | null = null;
  #shut = false;

  constructor(options: RemoteCoreOptions) {
    this.#options = options;
    this.known = new KnownInodes(options.holds ?? NO_HOLDS);
    this.session = new RemoteSession(options, {
      welcome: (welcome) => this.#receiveWelcome(welcome),
      newOwner: (first, kept) => this.#enterNewOwner(first, kept),
      // Answers that came with it are noted after this turn.
      farewell: () => {
        this.#synced = true;
        setImmediate(() => this.unsynced.allSynced(this.unsynced.now()));
      },
    });
  }

  get unsynced(): Unsynced {
    return this.#unsynced;
  }

  /** What was open and changed at an owner in this process, before anything else. */
  adopt({ handles, unsynced, epoch }: Adopted): void {
    for (const handle of handles) this.handles.adopt(handle);
    this.#unsynced = unsynced;
    this.session.continueFrom(epoch);
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

  /** `kept`: all that the last owner had executed is on the disk. */
  async #enterNewOwner(first: boolean, kept: boolean): Promise<void> {
    if (first) {
      await Promise.all(this.handles.all().map((handle) => this.#reopen(handle)));
      await this.session.callFirst("claimed", undefined);
      return;
    }
    this.known.clear();
    if (kept) this.unsynced.allSynced(this.unsynced.now());
    const handles = this.handles.all();
    const unsynced = this.unsynced.ownerDied(handles);
    this.#options.log.info({ handles: handles.length, unsynced, kept }, "new owner: opening handles again");
    // Once more: what it had answered may have been told to somebody only after it was lost.
    const forgotten = this.#synced ? true : inTime(this.#forget(), FORGET_MS);
    this.#synced = false;
    await Promise.all([forgotten, ...handles.map((handle) => this.#reopen(handle))]);
    await this.session.callFirst("claimed", undefined);
  }

  ownerLost(): void {
    const served = this.#welcome !== null && !this.session.ownerless;
    this.session.ownerLost();
    this.known.clear();
    // Now, and not when there is another one: programs there see at once what is left.
    if (served && !this.#synced) void this.#forget();
  }

  /** What was read from the last owner. */
  async #forget(): Promise<void> {
    await this.#options.onOwnerDied?.();
  }

  async #reopen(one: RemoteHandle): Promise<void> {
    one.error = null;
    this.handles.noteSent(one);
    try {
      const { id, flags, handle } = one;
      if (one.directory) await this.session.callFirst("opendir", { id, handle });
      else await this.session.callFirst("open", { id, flags, handle, promised: true });
    } catch (error) {
      // ECANCELED: the connection broke; with the next one all are opened again.
      if (!isErrno(error) || error.errno === E.ECANCELED) throw error;
      // Removed: as every listing of a directory that is (fs/readdir.c, iterate_dir).
      one.error = one.directory && error.errno === E.ESTALE ? errnoError(E.ENOENT) : error;
      this.#options.log.warn({ ino: one.id.ino, errno: error.code }, "an open file could not be opened at the new owner");
    }
  }

  call<K extends CallName>(call: K, request: RequestOf<K>): Promise<AnswerOf<K>> {
    return this.session.call(call, request, []);
  }

  /** A call through an open handle. */
  with<K extends CallName>(call: K, handle: RemoteHandle, request: RequestOf<K>): Promise<AnswerOf<K>> {
    return this.withAll(call, [handle], request);
  }

  withAll<K extends CallName>(call: K, handles: readonly RemoteHandle[], request: RequestOf<K>): Promise<AnswerOf<K>> {
    const unsent = handles.filter((handle) => handle.unsent);
    return unsent.length === 0
      ? this.session.call(call, request, handles)
      : this.#openedFor(unsent, () => this.session.call(call, request, handles));
  }

  async #openedFor<T>(unsent: readonly RemoteHandle[], call: () => Promise<T>): Promise<T> {
    for (const failed of await Promise.all(unsent.map((handle) => this.#tellOpen(handle)))) if (failed !== null) throw failed;
    return call();
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

  lookup(parent: FileId, name: Buffer): MaybePromise<Entry> {
    const known = this.known.entry(parent, name);
    if (known === null) throw errnoError(E.ENOENT);
    return known ?? this.#lookUp(parent, name);
  }

  async #lookUp(parent: FileId, name: Buffer): Promise<Entry> {
    const reading = this.known.reading();
    try {
      const entry = await this.call("lookup", { parent, name });
      this.known.readName(reading, parent, name, entry.id);
      this.known.read(reading, entry.id, entry.attr);
      return entry;
    } catch (error) {
      if (isErrno(error) && error.errno === E.ENOENT) this.known.readName(reading, parent, name, null);
      throw error;
    }
  }

  getattr(id: FileId): MaybePromise<Attr> {
    return this.known.attr(id) ?? this.#getattr(id);
  }

  async #getattr(id: FileId): Promise<Attr> {
    const reading = this.known.reading();
    const attr = await this.call("getattr", { id });
    this.known.read(reading, id, attr);
    return attr;
  }

  /**
   * For reading, under a lock that is here, of a file that has a name: the owner is told at the first READ. Who takes that name away needs EX, so the
   * lock leaves this node before, and the owner is told before that (`tellOpens`, hazard F22).
   */
  open(id: FileId, flags: number): MaybePromise<LowerHandle> {
    if (!this.#isSafeHere(id, flags)) return this.#open(id, flags);
    const handle = this.handles.addUnsent(this.handles.allocate(), id, flags, this.unsynced.opened(id));
    this.#tellLater();
    return handle;
  }

  #isSafeHere(id: FileId, flags: number): boolean {
    if ((flags & (O.ACCMODE | O.TRUNC)) !== O.RDONLY || !this.#ownerAnswers) return false;
    const attr = this.known.attr(id);
    return attr !== null && attr.nlink > 0 && (attr.mode & S.IFMT) === S.IFREG;
  }

  /** What is opened while the owner cannot be told would keep the lock here. */
  get #ownerAnswers(): boolean {
    return this.session.running && (this.session.ownerWait?.waitedMs ?? 0) < TELL_OPENS_MS;
  }

  /** The lock of that inode is about to leave, or its name to be taken away here: resolves when the owner has open what is open here. */
  tellOpens(id: FileId): MaybePromise<void> {
    const files = this.handles.unsentOf(id);
    if (files.length > 0) return Promise.all(files.map((file) => this.#tellOpen(file))).then(() => undefined);
  }

  /** Why the owner could not open it, for now; null: it is open there, or never will be. */
  #tellOpen(file: RemoteHandle): Promise<Errno | null> {
    file.sending ??= this.#sendOpen(file).finally(() => (file.sending = null));
    return file.sending;
  }

  async #sendOpen(file: RemoteHandle): Promise<Errno | null> {
    const { id, flags, handle } = file;
    try {
      file.asked = true;
      await this.call("open", { id, flags, handle, promised: true });
    } catch (error) {
      if (!isErrno(error)) throw error;
      this.session.warn(error.code, { ino: id.ino, errno: error.code }, "an open file could not be opened at the owner");
      if (error.errno !== E.ESTALE) {
        // The owner keeps the file, and the next call on it opens it.
        this.handles.noteKept(file);
        return error;
      }
      file.error = error;
    }
    this.handles.noteSent(file);
    return null;
  }

  /** A revoke must not wait for an owner that cannot be reached because of what was opened long ago. */
  async #tellOldOpens(): Promise<void> {
    const unsent = this.handles.unsent();
    const old = unsent.filter((file) => file.old);
    for (const file of unsent) file.old = true;
    for (let at = 0; at < old.length; at += TELL_OPENS_MAX) {
      const some = old.slice(at, at + TELL_OPENS_MAX).filter((file) => file.unsent);
      await Promise.all(some.map((file) => this.#tellOpen(file)));
    }
    this.#tellTimer = null;
    this.#tellLater();
  }

  #tellLater(): void {
    if (this.#shut || this.#tellTimer !== null || !this.handles.hasUnsent) return;
    this.#tellTimer = setTimeout(() => void this.#tellOldOpens(), TELL_OPENS_MS);
  }

  shutdown(): void {
    this.#shut = true;
    if (this.#tellTimer !== null) clearTimeout(this.#tellTimer);
    this.session.close();
  }

  async #open(id: FileId, flags: number): Promise<LowerHandle> {
    const handle = this.handles.allocate();
    const open = (): Promise<void> => this.call("open", { id, flags, handle, promised: false });
    await ((flags & O.TRUNC) === 0 ? open() : this.changing([this.known.begin(id, null)], open));
    return this.handles.add(handle, id, flags, false, this.unsynced.opened(id));
  }

  async opendir(id: FileId): Promise<LowerHandle> {
    const handle = this.handles.allocate();
    await this.call("opendir", { id, handle });
    return this.handles.add(handle, id, 0, true, this.unsynced.opened(id));
  }

  async create(parent: FileId, name: Buffer, flags: number, mode: number, caller: Caller): Promise<{ entry: Entry; handle: LowerHandle }> {
    const handle = this.handles.allocate();
    const { entry } = await this.changeNames<AnswerOf<"create">>(parent, name, made, (tellParent) =>
      this.call("create", { parent, name, tellParent, mode, caller, flags, handle }),
    );
    return { entry, handle: this.handles.add(handle, entry.id, flags, false, this.unsynced.opened(entry.id)) };
  }

  async make(parent: FileId, name: Buffer, call: (tellParent: boolean) => Promise<AnswerOf<"mkdir">>): Promise<Entry> {
    checkName(name);
    return (await this.changeNames<AnswerOf<"mkdir">>(parent, name, made, call)).entry;
  }

  async remove(call: "unlink" | "rmdir", parent: FileId, name: Buffer, expected: FileId): Promise<void> {
    checkName(name);
    // What is opened from now on is opened at the owner.
    await this.changing([this.known.begin(expected, null)], async () =>
      andThen(this.tellOpens(expected), () =>
        this.changeNames(parent, name, gone, (tellParent) => this.call(call, { parent, name, tellParent, expected })),
      ),
    );
    if (call === "rmdir") this.known.forget(expected);
  }

  /** `call` changes the names of that directory; `named`: whose `name` is then. */
  async changeNames<T extends { readonly parent: Attr | null }>(
    parent: FileId,
    name: Buffer,
    named: (answer: T) => FileId | null,
    call: (tellParent: boolean) => Promise<T>,
  ): Promise<T> {
    const change = this.known.begin(parent, name);
    let told: Attr | null = null;
    let id: FileId | null | undefined;
    try {
      const answer = await call(this.known.wantsAttr(change));
      this.noteChanged(parent, "all");
      told = answer.parent;
      id = named(answer);
      return answer;
    } finally {
      this.known.end(change, told, id);
    }
  }

  /** `call` changes something of these inodes. */
  async changing<T>(changes: readonly Change[], call: () => Promise<T>): Promise<T> {
    try {
      return await call();
    } finally {
      for (const change of changes) this.known.end(change, null);
    }
  }

  /** `call` changes that inode; `attrOf` what its answer says of it. */
  async changingOne<T>(id: FileId, call: (change: Change) => Promise<T>, attrOf: (answer: T) => Attr | null): Promise<T> {
    const change = this.known.begin(id, null);
    let attr: Attr | null = null;
    try {
      const answer = await call(change);
      attr = attrOf(answer);
      return answer;
    } finally {
      this.known.end(change, attr);
    }
  }

  close(handle: LowerHandle): void {
    const file = this.handles.remove(handle);
    if (file === null) return;
    const told = !file.unsent || file.asked;
    // A READ that opens it is not sent again: nobody waits for it, and nothing would close what it opens.
    if (file.asked) file.error = errnoError(E.EBADF);
    this.handles.noteSent(file);
    if (!told) return;
    // Its answer matters to nobody: an owner that is gone has closed it already.
    this.call("close", { handle }).catch((error: unknown) => {
      if (!isErrno(error)) throw error;
    });
  }

  async write(handle: LowerHandle, data: Uint8Array, offset: number, append: boolean): Promise<{ offset: number; bytes: number }> {
    const file = this.handles.get(handle);
    if (data.byteLength > MAX_IO_BYTES) throw errnoError(E.EINVAL);
    if (!append) checkWritable(offset, data.byteLength);
    const { id } = file;
    const answer = await this.changingOne(
      id,
      (change) => {
        const tell = this.known.wantsAttr(change) ? id : null;
        return this.with("write", file, { handle, offset: append ? 0 : offset, append, tell, data });
      },
      ({ attr }) => attr,
    );
    this.noteChanged(id, "data");
    return { offset: answer.offset, bytes: answer.bytes };
  }

  read(handle: LowerHandle, offset: number, bytes: number): MaybePromise<Uint8Array> {
    const file = this.handles.get(handle);
    if (offset < 0 || bytes < 0 || bytes > MAX_IO_BYTES) throw errnoError(E.EINVAL);
    if (isBeyondAnyFile(offset, bytes)) return EMPTY;
    if (!file.unsent) return this.with("read", file, { handle, offset, bytes, open: null });
    return this.#readFirst(file, offset, bytes);
  }

  /** The owner opens it for this READ. */
  async #readFirst(file: RemoteHandle, offset: number, bytes: number): Promise<Uint8Array> {
    const { id, flags, handle } = file;
    file.asked = true;
    const data = await this.session.call("read", { handle, offset, bytes, open: { id, flags } }, [file]);
    this.handles.noteSent(file);
    return data;
  }

  fetch(id: FileId, handle: LowerHandle, offset: number, bytes: number): Promise<Fetched> | null {
    const file = this.handles.get(handle);
    if (offset < 0 || bytes < 0 || bytes > MAX_IO_BYTES || isBeyondAnyFile(offset, bytes)) return null;
    return this.#fetch(file, { id, handle, offset, bytes });
  }

  async #fetch(file: RemoteHandle, request: RequestOf<"fetch">): Promise<Fetched> {
    const reading = this.known.reading();
    const fetched = await this.with("fetch", file, request);
    this.known.read(reading, request.id, fetched.attr);
    return fetched;
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
      await this.changing([this.known.begin(file.id, null)], () => this.with("fallocate", file, { handle, mode, offset, bytes }));
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
    const copied = await this.changing([this.known.begin(target.id, null)], () => this.withAll("copyFileRange", [source, target], request));
    this.noteChanged(target.id, "data");
    return copied;
  }
}

/** What the remote lower is made of (remote.ts): the session, the open files, and what is remembered of changes. */
import { assert } from "../../../dlmd/base/assert.ts";
import { E, type Errno, errnoError } from "../../../dlmd/base/errno.ts";
import type { Welcome } from "../wire/handshake.ts";
import { Closes } from "./closes.ts";
import { type Change, type Holds, KnownInodes, NO_HOLDS, type Reading } from "./known.ts";
import { largeBuffers } from "../large-buffers.ts";
import { namesAfterRename } from "../directory-names.ts";
import { checkName, checkWritable, isBeyondAnyFile, MAX_COPY_BYTES, MAX_IO_BYTES, READ_MANY_FILE_BYTES_MAX } from "../limits.ts";
import { ACCESS_ACL, O, S } from "../linux.ts";
import {
  type Attr,
  type AttrChange,
  type AttributesKind,
  type Caller,
  type ChangeBehind,
  type DirPage,
  type Entry,
  type Fetched,
  type FileId,
  fileKey,
  type Listing,
  type LowerHandle,
  type Ownership,
} from "../lower.ts";
import type { OpenFile } from "../lower.ts";
import { andThen, inTime, type MaybePromise } from "../../../dlmd/base/maybe-promise.ts";
import { MAX_REMOTE_HANDLES, type RemoteHandle, RemoteHandles } from "./handles.ts";
import { isErrno, RemoteSession, type RemoteSessionOptions } from "./session.ts";
import { type Changed, Unsynced, type UnsyncedState } from "../unsynced.ts";
import { attrAfter, attrWritten, WritesBehind } from "./write-behind.ts";
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

/** What a process of this mount has at the present owner, for the next process. */
export interface OpenAtOwner {
  readonly files: readonly (OpenFile & { readonly lossesTold: number })[];
  readonly unsynced: UnsyncedState;
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
  readonly behind: WritesBehind = new WritesBehind(() => performance.now());
  readonly closes: Closes = new Closes((handles) => void this.#tellClosed(handles));
  /** Small files whose data is on its way. */
  readonly #bringing = new Map<string, Promise<void>>();

  constructor(options: RemoteCoreOptions) {
    this.#options = options;
    this.known = new KnownInodes(options.holds ?? NO_HOLDS, () => this.#welcome?.exclusive === true);
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

  /** null: something is under way, or a file could not be opened at this owner. */
  openAtOwner(): OpenAtOwner | null {
    const files = this.handles.all();
    if (this.behind.over() !== undefined || files.some(({ error, behind }) => error !== null || behind > 0)) return null;
    return {
      files: files.map(({ handle, id, flags, directory, lossesTold }) => ({ handle, id, flags, directory, lossesTold })),
      unsynced: this.unsynced.state(),
    };
  }

  /** What the process before has open at the present owner. Before `connect`, which opens them. */
  continueWith({ files, unsynced }: OpenAtOwner): void {
    for (const file of files) {
      this.handles.adopt(file);
      this.handles.get(file.handle).lossesTold = file.lossesTold;
    }
    this.unsynced.restore(unsynced);
  }

  /** Files that the owner could not open. */
  get brokenFiles(): number {
    return this.handles.all().filter(({ error }) => error !== null).length;
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
      else await this.#reopenFile(id, flags, handle);
    } catch (error) {
      // ECANCELED: the connection broke; with the next one all are opened again.
      if (!isErrno(error) || error.errno === E.ECANCELED) throw error;
      // Removed: as every listing of a directory that is (fs/readdir.c, iterate_dir).
      one.error = one.directory && error.errno === E.ESTALE ? errnoError(E.ENOENT) : error;
      this.#options.log.warn({ ino: one.id.ino, errno: error.code }, "an open file could not be opened at the new owner");
    }
  }

  /** One that became immutable, or append-only, is read on; what is written through it is refused. */
  async #reopenFile(id: FileId, flags: number, handle: LowerHandle): Promise<void> {
    try {
      await this.session.callFirst("open", { id, flags, handle, promised: true });
    } catch (error) {
      if (!isErrno(error) || error.errno !== E.EPERM || (flags & O.ACCMODE) !== O.RDWR) throw error;
      await this.session.callFirst("open", { id, flags: (flags & ~O.ACCMODE) | O.RDONLY, handle, promised: true });
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
  noteChanged(id: FileId, what: Changed, at?: number): void {
    if (this.unsynced.note(id, what, at) && !this.#syncing) void this.#syncInBackground();
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
    const behind = this.behind.over();
    await this.call("syncfs", undefined);
    await behind;
    this.unsynced.allSynced(since);
  }

  lookup(parent: FileId, name: Buffer): MaybePromise<Entry> {
    const known = this.known.entry(parent, name);
    if (known === null) throw errnoError(E.ENOENT);
    return known ?? this.#lookUp(parent, name);
  }

  async #lookUp(parent: FileId, name: Buffer): Promise<Entry> {
    const since = this.known.namesSince(parent);
    const reading = this.known.reading();
    if (since !== null) return this.#lookUpSince(reading, parent, name, since);
    try {
      const entry = await this.call("lookup", { parent, name });
      this.#noteEntry(reading, parent, name, entry);
      return entry;
    } catch (error) {
      if (isErrno(error) && error.errno === E.ENOENT) this.known.readName(reading, parent, name, null);
      throw error;
    }
  }

  /** Hazard F32: with what was changed of the directory since the lock was here before. */
  async #lookUpSince(reading: Reading, parent: FileId, name: Buffer, since: number): Promise<Entry> {
    const { entry, names } = await this.call("lookupSince", { parent, name, since });
    this.known.readNames(reading, parent, since, names);
    if (entry !== null) {
      this.#noteEntry(reading, parent, name, entry);
      return entry;
    }
    this.known.readName(reading, parent, name, null);
    throw errnoError(E.ENOENT);
  }

  getattr(id: FileId): MaybePromise<Attr> {
    return this.known.attr(id) ?? this.#getattr(id);
  }

  /** What is under way, and what is expected after it, has told it (hazard F23). However long ago: only a change that begins needs the room. */
  ownership(id: FileId): MaybePromise<Ownership> {
    return this.known.attr(id) ?? this.known.expected(id, Number.NEGATIVE_INFINITY) ?? this.#getattr(id);
  }

  async #getattr(id: FileId): Promise<Attr> {
    const reading = this.known.reading();
    const attr = await this.call("getattr", { id });
    this.known.read(reading, id, attr);
    return attr;
  }

  getxattr(id: FileId, name: Buffer): MaybePromise<Buffer> {
    const known = this.known.xattr(id, name);
    if (known === null) throw errnoError(E.ENODATA);
    if (known !== undefined) return known;
    return name.equals(ACCESS_ACL) ? this.#accessAcl(id) : this.call("getxattr", { id, name });
  }

  async #accessAcl(id: FileId): Promise<Buffer> {
    const reading = this.known.reading();
    try {
      const acl = Buffer.from(await this.call("getxattr", { id, name: ACCESS_ACL }));
      this.known.readAcl(reading, id, acl);
      return acl;
    } catch (error) {
      if (isErrno(error) && error.errno === E.ENODATA) this.known.readAcl(reading, id, null);
      throw error;
    }
  }

  listxattr(id: FileId): MaybePromise<Buffer> {
    return this.known.xattrList(id) ?? this.#listxattr(id);
  }

  async #listxattr(id: FileId): Promise<Buffer> {
    return Buffer.from(await this.call("listxattr", { id }));
  }

  async lookupMany(parent: FileId, names: readonly Buffer[]): Promise<readonly (Entry | null)[]> {
    const reading = this.known.reading();
    const entries = await this.call("lookupMany", { parent, names });
    names.forEach((name, at) => {
      const entry = entries[at] ?? null;
      // Else it is not known what there is: nothing, or something damaged.
      if (entry !== null) this.#noteEntry(reading, parent, name, entry);
    });
    return entries;
  }

  async getattrMany(ids: readonly FileId[]): Promise<readonly (Attr | null)[]> {
    const reading = this.known.reading();
    const attrs = await this.call("getattrMany", { ids });
    ids.forEach((id, at) => {
      const attr = attrs[at] ?? null;
      if (attr !== null) this.known.read(reading, id, attr);
    });
    return attrs;
  }

  async prefetchData(ids: readonly FileId[]): Promise<void> {
    const wanted = ids.filter((id) => this.#isSmall(id) && !this.#bringing.has(fileKey(id)));
    if (wanted.length === 0) return;
    const brought = this.#bringData(wanted);
    for (const id of wanted) this.#bringing.set(fileKey(id), brought);
    try {
      await brought;
    } finally {
      for (const id of wanted) this.#bringing.delete(fileKey(id));
    }
  }

  #isSmall(id: FileId): boolean {
    const attr = this.known.attr(id);
    if (attr === null || attr.nlink === 0 || (attr.mode & S.IFMT) !== S.IFREG) return false;
    return attr.size > 0 && attr.size <= READ_MANY_FILE_BYTES_MAX && !this.known.hasData(id);
  }

  /** Hazard F21, as all that is known. */
  async #bringData(ids: readonly FileId[]): Promise<void> {
    const reading = this.known.reading();
    const files = await this.call("readMany", { ids });
    ids.forEach((id, at) => {
      const data = files[at] ?? null;
      if (data !== null) this.known.readData(reading, id, data);
    });
    // All lie in the answer's buffer, and were copied.
    const any = files.find((data) => data !== null);
    if (any !== undefined) largeBuffers.giveBack(any);
  }

  async readdir(handle: LowerHandle, cookie: bigint, bytes: number, listing: Listing): Promise<DirPage> {
    const directory = this.handles.get(handle);
    const reading = this.known.reading();
    const page = await this.with("readdir", directory, { handle, cookie, bytes, listing });
    for (const { name, entry } of page.entries) if (entry !== undefined) this.#noteEntry(reading, directory.id, name, entry);
    return page;
  }

  #noteEntry(reading: Reading, parent: FileId, name: Buffer, { id, attr }: Entry): void {
    this.known.readName(reading, parent, name, id);
    this.known.read(reading, id, attr);
  }

  /**
   * For reading, under a lock that is here, of a file that has a name: the owner is told at the first READ. Who takes that name away needs EX, so the
   * lock leaves this node before, and the owner is told before that (`tellOpens`, hazard F22).
   */
  open(id: FileId, flags: number): MaybePromise<LowerHandle> {
    if (!this.#isSafeHere(id, flags)) return this.#open(id, flags);
    const handle = this.handles.addUnsent(this.#allocate(), id, flags, this.unsynced.opened(id));
    this.#tellLater();
    return handle;
  }

  /** The owner has no more than MAX_REMOTE_HANDLES open for this mount (hazard F31). */
  #allocate(): LowerHandle {
    if (this.handles.count + this.closes.count >= MAX_REMOTE_HANDLES) this.closes.send();
    return this.handles.allocate();
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
    this.#waitForWrites(id);
    this.closes.sendOf(id);
    const files = this.handles.unsentOf(id);
    if (files.length > 0) return Promise.all(files.map((file) => this.#tellOpen(file))).then(() => undefined);
  }

  /** Hazard F27: its lock leaves, and elsewhere it may become immutable. So each write is waited for. */
  #waitForWrites(id: FileId): void {
    this.handles.endRoom(id);
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
    this.closes.stop();
    this.session.close();
  }

  async #open(id: FileId, flags: number): Promise<LowerHandle> {
    const handle = this.#allocate();
    const open = (): Promise<void> => this.call("open", { id, flags, handle, promised: false });
    await ((flags & O.TRUNC) === 0 ? open() : this.changing([this.known.begin(id)], open));
    return this.handles.add(handle, id, flags, false, this.unsynced.opened(id));
  }

  async opendir(id: FileId): Promise<LowerHandle> {
    const handle = this.#allocate();
    await this.call("opendir", { id, handle });
    return this.handles.add(handle, id, 0, true, this.unsynced.opened(id));
  }

  async create(parent: FileId, name: Buffer, flags: number, mode: number, caller: Caller): Promise<{ entry: Entry; handle: LowerHandle }> {
    const handle = this.#allocate();
    const askedMs = this.behind.nowMs;
    const { entry, room } = await this.changeNames<AnswerOf<"create">>(parent, name, made, (tellParent) =>
      this.call("create", { parent, name, tellParent, mode, caller, flags, handle }),
    );
    const roomUntilMs = this.behind.roomUntilMs(room, flags, askedMs);
    return { entry, handle: this.handles.add(handle, entry.id, flags, false, this.unsynced.opened(entry.id), roomUntilMs) };
  }

  /** Nothing of its directory changes, and its writes are waited for. */
  async tmpfile(
    parent: FileId,
    flags: number,
    mode: number,
    caller: Caller,
    linkable: boolean,
  ): Promise<{ entry: Entry; handle: LowerHandle }> {
    const handle = this.#allocate();
    const entry = await this.call("tmpfile", { parent, mode, caller, flags, linkable, handle });
    return { entry, handle: this.handles.add(handle, entry.id, flags, false, this.unsynced.opened(entry.id)) };
  }

  madeFile(handle: LowerHandle, attr: Attr): void {
    const file = this.handles.find(handle);
    if (file !== null && this.behind.nowMs < file.roomUntilMs) this.known.madeFile(file.id, attr, file.roomUntilMs);
  }

  async make(parent: FileId, name: Buffer, call: (tellParent: boolean) => Promise<AnswerOf<"mkdir">>): Promise<Entry> {
    checkName(name);
    return (await this.changeNames<AnswerOf<"mkdir">>(parent, name, made, call)).entry;
  }

  async remove(call: "unlink" | "rmdir", parent: FileId, name: Buffer, expected: FileId): Promise<void> {
    checkName(name);
    // What is opened from now on is opened at the owner.
    await this.changing([this.known.begin(expected)], async () =>
      andThen(this.tellOpens(expected), () =>
        this.changeNames(parent, name, gone, (tellParent) => this.call(call, { parent, name, tellParent, expected })),
      ),
    );
    if (call === "rmdir") this.known.forget(expected);
  }

  async rename(request: Omit<RequestOf<"rename">, "tell">): Promise<void> {
    const { oldParent, oldName, newParent, newName, flags, expectedOld, expectedNew } = request;
    const { known } = this;
    const inOne = fileKey(oldParent) === fileKey(newParent);
    const from = inOne ? known.begin(oldParent, oldName, newName) : known.begin(oldParent, oldName);
    const to = inOne ? null : known.begin(newParent, newName);
    const moved = known.begin(expectedOld);
    const replaced = expectedNew === null ? null : known.begin(expectedNew);
    const changes = [from, moved, ...(to === null ? [] : [to])];
    let answer: AnswerOf<"rename"> | null = null;
    try {
      const tell = changes.some((change) => known.wantsAttr(change));
      answer = await andThen(expectedNew === null ? undefined : this.#beforeReplaced(expectedOld, expectedNew), () =>
        this.call("rename", { ...request, tell }),
      );
    } finally {
      const [old, now] = (answer === null ? null : namesAfterRename(flags, expectedOld, expectedNew)) ?? [];
      const named = (id: FileId | null | undefined): (FileId | null)[] => (id === undefined ? [] : [id]);
      known.end(from, answer?.oldParent ?? null, ...named(old), ...(inOne ? named(now) : []));
      if (to !== null) known.end(to, answer?.newParent ?? null, ...named(now));
      known.end(moved, answer?.moved ?? null);
      // Its link count is asked for by whoever has it open still.
      if (replaced !== null) known.end(replaced, null);
    }
  }

  /**
   * Hazard F23: what replaces a file has all that its program was told to be written. Who writes a new file and renames it over the old one, without an fsync,
   * keeps one of the two, as with auto_da_alloc of ext4 (fs/ext4/namei.c, ext4_rename).
   */
  #beforeReplaced(by: FileId, replaced: FileId): MaybePromise<void> {
    return andThen(this.writtenBehind(), () => {
      if (this.unsynced.takeLostBehind(by)) throw errnoError(E.EIO);
      return this.tellOpens(replaced);
    });
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
      this.known.end(change, told, ...(id === undefined ? [] : [id]));
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
  async changingOne<T>(
    id: FileId,
    call: (change: Change) => Promise<T>,
    attrOf: (answer: T) => Attr | null,
    change: Change = this.known.begin(id),
  ): Promise<T> {
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
    const file = this.handles.find(handle);
    if (file === null) return;
    const attr = this.known.attr(file.id) ?? this.known.expected(file.id, this.behind.nowMs);
    const waits = (attr?.nlink ?? 0) > 0;
    // What is written behind is made again at a new owner, where the handle has to be open for that: it stays until its close is answered.
    if (file.behind > 0) return this.closes.add(file, waits);
    this.handles.remove(handle);
    const told = !file.unsent || file.asked;
    // A READ that opens it is not sent again: nobody waits for it, and nothing would close what it opens.
    if (file.asked) file.error = errnoError(E.EBADF);
    this.handles.noteSent(file);
    if (told) this.closes.add(file, waits);
  }

  async #tellClosed(handles: readonly LowerHandle[]): Promise<void> {
    try {
      await this.call("close", { handles });
    } catch (error) {
      // That matters to nobody: an owner that is gone has closed them already.
      if (!isErrno(error)) throw error;
    }
    for (const handle of handles) this.handles.remove(handle);
  }

  writtenBehind(): MaybePromise<void> {
    this.session.hurry();
    return this.behind.over();
  }

  mayWriteBehind(handle: LowerHandle, offset: number, bytes: number): boolean {
    const file = this.handles.get(handle);
    return file.error === null && this.behind.mayBegin(file, offset, bytes) && this.#ownerAnswers;
  }

  writeBehind(handle: LowerHandle, data: Uint8Array, offset: number): Promise<void> {
    const file = this.handles.get(handle);
    const copy = Uint8Array.from(data);
    return this.behind.write(file, copy.byteLength, () => this.#writeBehind(file, copy, offset));
  }

  /** Hazard F23. */
  async #writeBehind(file: RemoteHandle, data: Uint8Array, offset: number): Promise<void> {
    const { id, handle } = file;
    const begun = this.unsynced.begin();
    const expected = this.known.expected(id, this.behind.nowMs);
    const changing =
      expected === null ? this.known.begin(id) : this.known.beginExpected(id, attrWritten(expected, offset, data.byteLength, Date.now()));
    const write = (change: Change): Promise<AnswerOf<"write">> => {
      const tell = this.known.wantsAttr(change) ? id : null;
      return this.with("write", file, { handle, offset, append: false, promised: true, tell, data });
    };
    try {
      const { bytes } = await this.changingOne(id, write, ({ attr }) => attr, changing);
      this.noteChanged(id, "data", begun);
      if (bytes < data.byteLength) throw errnoError(E.ENOSPC);
    } catch (error) {
      if (this.#isRemovedHere(id, error)) return;
      throw this.#lostBehind(id, error, { offset, bytes: data.byteLength }, "data that a program has written is lost");
    }
  }

  /** `setattrBehind` of Lower. */
  setattrBehind(id: FileId, change: AttrChange): ChangeBehind | null {
    const expected = this.known.expected(id, this.behind.nowMs);
    const attr = expected === null ? null : attrAfter(expected, change, Date.now());
    if (attr === null || this.behind.full || !this.#ownerAnswers) return null;
    return { attr, make: () => this.behind.make(() => this.#setattrBehind(id, change, attr)) };
  }

  async #setattrBehind(id: FileId, change: AttrChange, expected: Attr): Promise<void> {
    const begun = this.unsynced.begin();
    const set = (): Promise<Attr> => this.call("setattr", { id, change, handle: null, promised: true });
    try {
      await this.changingOne(id, set, (attr) => attr, this.known.beginExpected(id, expected));
      this.noteChanged(id, "all", begun);
    } catch (error) {
      if (this.#isRemovedHere(id, error)) return;
      throw this.#lostBehind(id, error, {}, "a change of a file's owner, mode or times, of which a program was told, is lost");
    }
  }

  /** Under its lock nobody else can have removed it: it was removed here since, and an owner that ended has made both. */
  #isRemovedHere(id: FileId, error: unknown): boolean {
    const removed = isErrno(error) && error.errno === E.ESTALE;
    if (removed) this.known.notAsExpected(id);
    return removed;
  }

  /** Gives the error; any other than that of a call is thrown. */
  #lostBehind(id: FileId, error: unknown, fields: object, words: string): Errno {
    if (!isErrno(error)) throw error;
    this.known.notAsExpected(id);
    // The next writes are told what became of them.
    for (const file of this.handles.all()) file.roomUntilMs = Number.NEGATIVE_INFINITY;
    this.unsynced.lost(id, this.handles.all());
    this.#options.log.error({ ino: id.ino, ...fields, errno: error.code }, words);
    return error;
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
        return this.with("write", file, { handle, offset: append ? 0 : offset, append, promised: false, tell, data });
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
    if (file.error === null) {
      const data = this.known.takeData(file.id, offset, bytes);
      if (data !== null) return data;
      const bringing = this.#bringing.size === 0 ? undefined : this.#bringing.get(fileKey(file.id));
      // Of one whose lock is about to leave it will not count.
      if (bringing !== undefined && this.known.attr(file.id) !== null) return this.#readBrought(bringing, file, offset, bytes);
    }
    return this.#read(file, offset, bytes);
  }

  /** Its data is on its way: then it is not asked for twice. */
  async #readBrought(bringing: Promise<void>, file: RemoteHandle, offset: number, bytes: number): Promise<Uint8Array> {
    await bringing.catch(() => undefined);
    return this.known.takeData(file.id, offset, bytes) ?? this.#read(file, offset, bytes);
  }

  #read(file: RemoteHandle, offset: number, bytes: number): Promise<Uint8Array> {
    const { handle } = file;
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
    const behind = this.behind.over();
    await this.with(call, file, { handle, dataOnly });
    // They were answered before.
    await behind;
    this.unsynced.synced(file.id, since, dataOnly);
    if (!this.unsynced.takeLost(file)) return;
    this.#options.log.error(
      { ino: file.id.ino },
      "changes of this file or directory were lost before they were on disk, as with an owner that died: fsync reports EIO",
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
      await this.changing([this.known.begin(file.id)], () => this.with("fallocate", file, { handle, mode, offset, bytes }));
    } finally {
      // What it made before there was no more room stays.
      this.noteChanged(file.id, "data");
    }
  }

  async setFileAttributes(handle: LowerHandle, kind: AttributesKind, value: Buffer): Promise<void> {
    const file = this.handles.get(handle);
    // What is written from now on may be refused.
    this.#waitForWrites(file.id);
    await this.changing([this.known.begin(file.id)], () => this.with("setFileAttributes", file, { handle, kind, value }));
    this.noteChanged(file.id, "all");
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
    const copied = await this.changing([this.known.begin(target.id)], () => this.withAll("copyFileRange", [source, target], request));
    this.noteChanged(target.id, "data");
    return copied;
  }
}

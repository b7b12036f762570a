/**
 * Open files of this node (handles.ts), and the owner: at which of them it is told. What is opened under a lock that is here, and has a name, is told at the first
 * READ or WRITE (hazard F22). Who takes that name away needs EX, so the lock leaves this node before, and the owner is told before that (`tell`).
 */
import { E, Errno, errnoError, isErrno } from "../../../dlmd/base/errno.ts";
import type { Log } from "../../../dlmd/base/log.ts";
import type { MaybePromise } from "../../../dlmd/base/maybe-promise.ts";
import { O, S } from "../linux.ts";
import type { FileId, LowerHandle } from "../lower.ts";
import type { AnswerOf, CallName, RequestOf } from "../wire/call-types.ts";
import type { Changes } from "./changes.ts";
import { Closes } from "./closes.ts";
import type { FileJournal } from "../own-journal.ts";
import { MAX_REMOTE_HANDLES, type RemoteHandle, RemoteHandles } from "./handles.ts";
import type { KnownInodes } from "./known.ts";
import type { CallFirst, RemoteSession } from "./session.ts";
import type { WritesBehind } from "./write-behind.ts";

/** What was opened here without the owner is told to it after once to twice this time, read or not. */
export const TELL_OPENS_MS = 1000;
/** So many at a time, the next ones when those are answered: programs' calls wait behind them. */
export const TELL_OPENS_MAX = 256;

/** The owner makes these when what they go through is open, if that is asked for before (server/session-handles.ts, whenOpen). */
const WAIT_FOR_OPENING: ReadonlySet<CallName> = new Set(["readdir", "fsyncdir", "write", "setattr", "copyFileRange"]);

/** As every listing of a directory that is removed (fs/readdir.c, iterate_dir). */
const REMOVED_DIRECTORY = errnoError(E.ENOENT);

export class Opens {
  readonly handles: RemoteHandles;
  readonly closes: Closes = new Closes((handles) => void this.#tellClosed(handles));
  readonly #session: RemoteSession;
  readonly #known: KnownInodes;
  readonly #behind: WritesBehind;
  readonly #changes: Changes;
  readonly #log: Log;
  #tellTimer: NodeJS.Timeout | null = null;
  #stopped = false;

  constructor(
    session: RemoteSession,
    known: KnownInodes,
    behind: WritesBehind,
    changes: Changes,
    log: Log,
    journal: FileJournal | null = null,
  ) {
    this.handles = new RemoteHandles(1, journal);
    this.#session = session;
    this.#known = known;
    this.#behind = behind;
    this.#changes = changes;
    this.#log = log;
  }

  // --- open, and closed

  open(id: FileId, flags: number): MaybePromise<LowerHandle> {
    return this.#isSafeHere(id, flags, S.IFREG) ? this.#openHere(id, flags, false) : this.#openThere(id, flags);
  }

  #isSafeHere(id: FileId, flags: number, type: number): boolean {
    if ((flags & O.TRUNC) !== 0 || !this.ownerAnswers) return false;
    const reads = (flags & O.ACCMODE) === O.RDONLY;
    if (!reads && !this.#known.isWritable(id, (flags & O.APPEND) !== 0)) return false;
    const attr = reads ? this.#known.attr(id) : this.#known.ownership(id);
    return attr !== null && attr.nlink > 0 && (attr.mode & S.IFMT) === type;
  }

  #openHere(id: FileId, flags: number, directory: boolean): LowerHandle {
    const handle = this.handles.addUnsent(this.allocate(), id, flags, directory, this.#changes.unsynced.opened(id));
    this.#tellLater();
    return handle;
  }

  /** What is opened, or written behind, while the owner cannot be told would keep the lock here. */
  get ownerAnswers(): boolean {
    return this.#session.running && (this.#session.ownerWait?.waitedMs ?? 0) < TELL_OPENS_MS;
  }

  async #openThere(id: FileId, flags: number): Promise<LowerHandle> {
    const handle = this.allocate();
    const reading = this.#known.reading();
    const open = (): Promise<void> => this.#session.call("open", { id, flags, handle, promised: false });
    await ((flags & O.TRUNC) === 0 ? open() : this.#changes.of(id, open));
    if ((flags & O.ACCMODE) !== O.RDONLY) this.#known.readWritable(reading, id, (flags & O.APPEND) !== 0);
    return this.opened(handle, id, flags);
  }

  /** Where others change the lower past its owner, that is asked at once: the place of a directory may have another by now (ESTALE). */
  opendir(id: FileId): MaybePromise<LowerHandle> {
    return this.#known.isExclusive && this.#isSafeHere(id, O.RDONLY, S.IFDIR) ? this.#openHere(id, 0, true) : this.#opendirThere(id);
  }

  async #opendirThere(id: FileId): Promise<LowerHandle> {
    const handle = this.allocate();
    await this.#session.call("opendir", { id, handle, promised: false });
    return this.handles.add(handle, id, 0, true, this.#changes.unsynced.opened(id));
  }

  /** The owner has no more than MAX_REMOTE_HANDLES open for this mount (hazard F31). */
  allocate(): LowerHandle {
    if (this.handles.count + this.closes.count >= MAX_REMOTE_HANDLES) this.closes.send();
    return this.handles.allocate();
  }

  /** The owner has opened that file. */
  opened(handle: LowerHandle, id: FileId, flags: number, roomUntilMs?: number): LowerHandle {
    return this.handles.add(handle, id, flags, false, this.#changes.unsynced.opened(id), roomUntilMs);
  }

  close(handle: LowerHandle): void {
    const file = this.handles.find(handle);
    if (file === null) return;
    const waits = (this.#known.ownership(file.id)?.nlink ?? 0) > 0;
    // What is written behind is made again at a new owner, where the handle has to be open for that: it stays until its close is answered.
    if (this.#behind.has(file)) return this.closes.add(file, waits);
    this.handles.remove(handle);
    const told = !file.unsent || file.asked;
    // A READ that opens it is not sent again: nobody waits for it, and nothing would close what it opens.
    if (file.asked) file.error = errnoError(E.EBADF);
    this.handles.noteSent(file);
    if (told) this.closes.add(file, waits);
  }

  async #tellClosed(handles: readonly LowerHandle[]): Promise<void> {
    try {
      await this.#session.call("close", { handles });
    } catch (error) {
      // That matters to nobody: an owner that is gone has closed them already.
      if (!(error instanceof Errno)) throw error;
    }
    for (const handle of handles) this.handles.remove(handle);
  }

  /** The session ends, and all that it has open with it. */
  stop(): void {
    this.#stopped = true;
    if (this.#tellTimer !== null) clearTimeout(this.#tellTimer);
    this.closes.stop();
  }

  // --- calls through them

  /** The owner has them open before. */
  call<K extends CallName>(call: K, request: RequestOf<K>, handles: readonly RemoteHandle[]): Promise<AnswerOf<K>> {
    const unsent = handles.filter((handle) => handle.unsent);
    const [first] = unsent;
    if (first === undefined) return this.#session.call(call, request, handles);
    const carried = this.#session.carried(() => this.#session.call(call, request, handles));
    return WAIT_FOR_OPENING.has(call) ? this.#behindOpening(unsent, carried) : this.#openedFor(unsent, carried);
  }

  /** The owner opens those first, and makes what is asked behind that then: no trip more. */
  async #behindOpening<T>(files: readonly RemoteHandle[], call: () => Promise<T>): Promise<T> {
    const opening = files.map((file) => this.#tell(file));
    try {
      return await call();
    } catch (error) {
      // Nobody knows whether a change was made: that is said, as it is written down (hazard F38).
      if (isErrno(error, E.EIO)) throw error;
      const failed = (await Promise.all(opening)).find((one) => one !== null);
      throw failed ?? files.find((file) => file.error !== null)?.error ?? error;
    }
  }

  /** The owner opens what is open here of that inode before it makes what is asked next. Nobody waits. */
  tellBeside(id: FileId): void {
    for (const file of this.handles.unsentOf(id)) void this.#tell(file);
  }

  async #openedFor<T>(unsent: readonly RemoteHandle[], call: () => Promise<T>): Promise<T> {
    const told = Promise.all(unsent.map((handle) => this.#tell(handle)));
    this.#session.hurry();
    for (const failed of await told) if (failed !== null) throw failed;
    return call();
  }

  read(file: RemoteHandle, offset: number, bytes: number): Promise<Uint8Array> {
    const { handle } = file;
    return file.unsent ? this.#readFirst(file, offset, bytes) : this.call("read", { handle, offset, bytes, open: null }, [file]);
  }

  /** The owner opens it for this READ. */
  async #readFirst(file: RemoteHandle, offset: number, bytes: number): Promise<Uint8Array> {
    const { id, flags, handle } = file;
    file.asked = true;
    const data = await this.#session.call("read", { handle, offset, bytes, open: { id, flags } }, [file]);
    this.handles.noteSent(file);
    return data;
  }

  /** Nothing is written behind to that file from now on, and whoever opens it for writing asks the owner. */
  endRoom(id: FileId): void {
    this.#known.endWritable(id);
    this.handles.endRoom(id);
    this.#behind.room.end(id);
  }

  /** Nor to any other; and each write to what is open now is waited for. */
  endAllRoom(): void {
    this.handles.endAllRoom();
    this.#behind.room.endAll();
  }

  // --- what was opened without the owner

  /** The lock of that inode is about to leave, or its name to be taken away here: resolves when the owner has open what is open here. */
  tell(id: FileId): MaybePromise<void> {
    // Hazard F27: elsewhere it may become immutable, so each write is waited for.
    this.endRoom(id);
    this.closes.sendOf(id);
    const files = this.handles.unsentOf(id);
    if (files.length === 0) return;
    const told = Promise.all(files.map((file) => this.#tell(file))).then(() => undefined);
    this.#session.hurry();
    return told;
  }

  /** Why the owner could not open it, for now; null: it is open there, or never will be. */
  #tell(file: RemoteHandle): Promise<Errno | null> {
    file.sending ??= this.#send(file).finally(() => (file.sending = null));
    return file.sending;
  }

  async #send(file: RemoteHandle): Promise<Errno | null> {
    const { id, flags, handle, directory } = file;
    try {
      file.asked = true;
      if (directory) await this.#session.call("opendir", { id, handle, promised: true });
      else await this.#session.call("open", { id, flags, handle, promised: true });
    } catch (error) {
      if (!(error instanceof Errno)) throw error;
      this.#session.warn(error.code, { ino: id.ino, errno: error.code }, "an open file could not be opened at the owner");
      if (error.errno !== E.ESTALE) {
        // The owner keeps the file, and the next call on it opens it.
        this.handles.noteKept(file);
        return error;
      }
      file.error = directory ? REMOVED_DIRECTORY : error;
    }
    this.handles.noteSent(file);
    return null;
  }

  /** A revoke must not wait for an owner that cannot be reached because of what was opened long ago. */
  async #tellOld(): Promise<void> {
    const unsent = this.handles.unsent();
    const old = unsent.filter((file) => file.old);
    for (const file of unsent) file.old = true;
    for (let at = 0; at < old.length; at += TELL_OPENS_MAX) {
      const some = old.slice(at, at + TELL_OPENS_MAX).filter((file) => file.unsent);
      await Promise.all(some.map((file) => this.#tell(file)));
    }
    this.#tellTimer = null;
    this.#tellLater();
  }

  #tellLater(): void {
    if (this.#stopped || this.#tellTimer !== null || !this.handles.hasUnsent) return;
    this.#tellTimer = setTimeout(() => void this.#tellOld(), TELL_OPENS_MS);
  }

  // --- at a new owner

  /** All that are open now. */
  async reopen(callFirst: CallFirst): Promise<void> {
    const opened = Promise.all(this.handles.all().map((file) => this.#reopen(file, callFirst)));
    this.#session.hurry();
    await opened;
  }

  async #reopen(file: RemoteHandle, callFirst: CallFirst): Promise<void> {
    file.error = null;
    this.handles.noteSent(file);
    try {
      const { id, flags, handle } = file;
      if (file.directory) await callFirst("opendir", { id, handle, promised: false });
      else await reopenFile(id, flags, handle, callFirst);
    } catch (error) {
      // ECANCELED: the connection broke; with the next one all are opened again.
      if (!(error instanceof Errno) || error.errno === E.ECANCELED) throw error;
      file.error = file.directory && error.errno === E.ESTALE ? REMOVED_DIRECTORY : error;
      this.#log.warn({ ino: file.id.ino, errno: error.code }, "an open file could not be opened at the new owner");
    }
  }
}

/** One that became immutable, or append-only, is read on; what is written through it is refused. */
async function reopenFile(id: FileId, flags: number, handle: LowerHandle, callFirst: CallFirst): Promise<void> {
  try {
    await callFirst("open", { id, flags, handle, promised: true });
  } catch (error) {
    if (!isErrno(error, E.EPERM) || (flags & O.ACCMODE) !== O.RDWR) throw error;
    await callFirst("open", { id, flags: (flags & ~O.ACCMODE) | O.RDONLY, handle, promised: true });
  }
}

/**
 * What a caller has open at the owner, under the caller's own numbers. Also files that could not be opened again here for now: they count as open (hazard H10),
 * until the caller closes them, or the next READ opens them (hazard F22).
 */
import { E, Errno, errnoError } from "../../../dlmd/base/errno.ts";
import { andThen, type MaybePromise, withErrors } from "../../../dlmd/base/maybe-promise.ts";
import type { LocalLower } from "../local/local.ts";
import { type Entry, type FileId, fileKey, type LowerHandle } from "../lower.ts";
import type { Opened } from "../wire/call-types.ts";

/** Open handles of one session, and those that could not be opened again; ENFILE beyond. Of what was promised to a program before, there may be more: pinned. */
export const MAX_SESSION_HANDLES = 65_536;

interface OpenHandle {
  readonly id: FileId;
  readonly handle: LowerHandle;
}

/** A file that the caller has open, and that could not be opened here: why not. */
interface PinnedFile {
  readonly id: FileId;
  error: Errno;
}

export class SessionHandles {
  readonly #lower: LocalLower;
  readonly #open: Map<number, OpenHandle> = new Map();
  /** A caller whose connection broke while it opened its files asks for the same again, under another number of call. */
  readonly #opening: Map<number, Promise<void>> = new Map();
  /** By handle. */
  readonly #pinned: Map<number, PinnedFile> = new Map();
  #hasClaimed = false;
  #closed = false;

  constructor(lower: LocalLower) {
    this.#lower = lower;
  }

  get count(): number {
    return this.#open.size;
  }

  get hasClaimed(): boolean {
    return this.#hasClaimed;
  }

  /** It has opened all that it had open at an earlier owner. */
  claim(): void {
    this.#hasClaimed = true;
  }

  /** EBADF: not open. Of one that is pinned: why it could not be opened. That is noted as the answer (hazard F38), and its program has it open. */
  get(handle: number): LowerHandle {
    const found = this.#open.get(handle);
    if (found === undefined) throw this.#pinned.get(handle)?.error ?? errnoError(E.EBADF);
    return found.handle;
  }

  /** What was asked right behind an opening waits for that, and fails with it. EBADF: not open. */
  whenOpen<T>(handle: number, work: (opened: LowerHandle) => MaybePromise<T>): MaybePromise<T> {
    return andThen(this.#opening.get(handle), () => work(this.get(handle)));
  }

  /** For `handle`: one that is pinned was counted before. ENFILE. */
  #checkRoom(handle: number): void {
    const others = this.#open.size + (this.#pinned.has(handle) ? 0 : this.#pinned.size);
    if (others >= MAX_SESSION_HANDLES) throw errnoError(E.ENFILE);
  }

  /** A new file: it is made and opened in one. EBADF: another file has that number. */
  make<T extends { readonly entry: Entry; readonly handle: LowerHandle }>(handle: number, make: () => MaybePromise<T>): MaybePromise<T> {
    if (this.#open.has(handle) || this.#opening.has(handle)) throw errnoError(E.EBADF);
    this.#checkRoom(handle);
    const making = andThen(make(), (made) => {
      this.#open.set(handle, { id: made.entry.id, handle: made.handle });
      return made;
    });
    if (making instanceof Promise) this.#noteOpening(handle, making);
    return making;
  }

  #noteOpening(handle: number, work: Promise<unknown>): void {
    const over = (): void => void this.#opening.delete(handle);
    this.#opening.set(handle, work.then(over, over));
  }

  opendir(handle: number, id: FileId, promised: boolean): MaybePromise<void> {
    const open = (): MaybePromise<LowerHandle> => this.#withinRoom(handle, () => this.#lower.opendir(id));
    return this.#opened(handle, id, () => (promised ? this.#openPromised(handle, id, open) : open()));
  }

  /** Before its claim a caller opens what it had open at an earlier owner. */
  open(handle: number, { id, flags }: Opened, promised: boolean): MaybePromise<void> {
    const open = (): MaybePromise<LowerHandle> => this.#withinRoom(handle, () => this.#lower.open(id, flags));
    return this.#opened(handle, id, () => (promised || !this.#hasClaimed ? this.#openPromised(handle, id, open) : open()));
  }

  #withinRoom(handle: number, open: () => MaybePromise<LowerHandle>): MaybePromise<LowerHandle> {
    this.#checkRoom(handle);
    return open();
  }

  /** EBADF: another file has that number. */
  #opened(handle: number, id: FileId, open: () => MaybePromise<LowerHandle>): MaybePromise<void> {
    const before = this.#open.get(handle);
    if (before !== undefined && fileKey(before.id) !== fileKey(id)) throw errnoError(E.EBADF);
    // The answer to the first one was lost with its connection.
    if (before !== undefined) return;
    const pending = this.#opening.get(handle);
    if (pending !== undefined) return pending;
    const done = andThen(open(), (opened) => {
      this.#open.set(handle, { id, handle: opened });
      this.#unpin(handle);
    });
    if (!(done instanceof Promise)) return;
    const opening = done.finally(() => this.#opening.delete(handle));
    this.#opening.set(handle, opening);
    return opening;
  }

  /** What a program there has open already. If that fails for now (ENFILE), the next READ, or the next owner, may do better. */
  #openPromised(handle: number, id: FileId, open: () => MaybePromise<LowerHandle>): MaybePromise<LowerHandle> {
    return withErrors(open, (error) => {
      if (error instanceof Errno && error.errno !== E.ESTALE) this.#pin(handle, id, error);
      throw error;
    });
  }

  #pin(handle: number, id: FileId, error: Errno): void {
    if (this.#closed) return;
    const before = this.#pinned.get(handle);
    if (before !== undefined) {
      before.error = error;
      return;
    }
    this.#pinned.set(handle, { id, error });
    this.#lower.pin(id);
  }

  #unpin(handle: number): void {
    const pinned = this.#pinned.get(handle);
    if (pinned === undefined) return;
    this.#pinned.delete(handle);
    this.#lower.unpin(pinned.id);
  }

  close(handles: readonly number[]): MaybePromise<void> {
    const closing = handles.map((handle) => this.#close(handle)).filter((one) => one instanceof Promise);
    if (closing.length > 0) return Promise.all(closing).then(() => undefined);
  }

  #close(handle: number): MaybePromise<void> {
    const opening = this.#opening.get(handle);
    if (opening === undefined) this.#closeNow(handle);
    // It came with a READ whose caller does not wait for it (hazard F22).
    else return opening.catch(() => undefined).then(() => this.#closeNow(handle));
  }

  #closeNow(handle: number): void {
    this.#unpin(handle);
    const found = this.#open.get(handle);
    if (found === undefined) return;
    this.#open.delete(handle);
    this.#lower.close(found.handle);
  }

  /** Nothing is pinned from now on. */
  stop(): void {
    this.#closed = true;
  }

  closeAll(): void {
    for (const { handle } of this.#open.values()) this.#lower.close(handle);
    for (const handle of this.#pinned.keys()) this.#unpin(handle);
    this.#open.clear();
  }
}

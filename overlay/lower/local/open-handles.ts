/**
 * Open files and directories of the local lower: a number -> descriptor. A file that is open here stays alive
 * by its descriptor, which is how a file without a name goes on to be readable (DESIGN 5.4).
 *
 * The number of a closed file is not that of the next one: a call that waits may name it still, if its caller was killed.
 */
import { readdirSync, readFileSync } from "node:fs";
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import type { Log } from "../../../dlmd/base/log.ts";
import { STAT, type Native } from "../../../native/index.ts";
import { O } from "../linux.ts";
import type { FileId, LowerHandle } from "../lower.ts";
import { Exclusive } from "./exclusive.ts";
import { LARGE_FILE_BLOCKS } from "../limits.ts";
import { finallyDo, type MaybePromise } from "../../../dlmd/base/maybe-promise.ts";
import { NumberMap } from "../../../dlmd/base/number-map.ts";

/** More open files than that: ENFILE. */
export const MAX_OPEN_HANDLES = 262_144;
const DESCRIPTORS = 1_048_576;
/** As on the wire: another owner is told of them by these numbers. */
const MAX_HANDLE = 0xffff_ffff;
const NO_DESCRIPTOR: ReadonlySet<string> = new Set(["EMFILE", "ENFILE", "ENOMEM"]);

/** Of a mount's process. Open files of all nodes are open here on the owner. Returns how many there may be. */
export function raiseDescriptors(native: Pick<Native, "setMaxDescriptors">, log: Log): number {
  const descriptors = native.setMaxDescriptors(DESCRIPTORS);
  if (descriptors < MAX_OPEN_HANDLES)
    log.warn(
      { descriptors, wanted: DESCRIPTORS },
      "this process may have few descriptors (RLIMIT_NOFILE), and as the owner it opens the files of all nodes: then programs get EMFILE",
    );
  return descriptors;
}

export interface OpenFile {
  readonly handle: LowerHandle;
  readonly fd: number;
  readonly id: FileId;
  readonly directory: boolean;
  readonly writable: boolean;
  readonly readable: boolean;
  users: number;
  closed: boolean;
  /** When it made the file, in milliseconds of a monotonic clock (small-writes.ts). It opened one, or its writes wait for the disk: -Infinity. */
  readonly madeMs: number;
  /** Data or size were changed through it, otherwise than by small writes: its close may have to write out. */
  changed: boolean;
  /** Directories: where the descriptor stands, so that a listing that goes on needs no seek. */
  position: bigint;
  /** Directories: listings through one descriptor share its position. */
  readonly turn: Exclusive | null;
}

/** Of this process. Where that cannot be looked at for want of one, there is none. */
function descriptorsLeft(): number {
  try {
    const soft = Number(/^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1] ?? 0);
    return soft - readdirSync("/proc/self/fd").length;
  } catch (error) {
    if (NO_DESCRIPTOR.has((error as NodeJS.ErrnoException).code ?? "")) return 0;
    throw error;
  }
}

export class OpenHandles {
  readonly #native: Native;
  readonly #files: NumberMap<OpenFile> = new NumberMap();
  /** The number that was given last. */
  #last: number;
  readonly #stat = new Float64Array(STAT.FIELDS);
  readonly #closing: Set<Promise<number>> = new Set();
  /** Handles of each inode that has some, and opens under way, by its number: one that is open is of one generation. */
  readonly #opens: NumberMap<number> = new NumberMap();
  readonly #lastClosed: (id: FileId) => MaybePromise<void>;
  readonly #waiters: (() => void)[] = [];
  /** Opens under way. */
  #opening = 0;
  /** closeAll was called. */
  #isOver = false;

  /**
   * `lastClosed`: nobody has that inode open any more; its descriptor is closed after it. It never throws, nor rejects.
   * `first`: the number of the first one.
   */
  constructor(native: Native, lastClosed: (id: FileId) => MaybePromise<void>, first: number = 1) {
    this.#native = native;
    this.#lastClosed = lastClosed;
    this.#last = first - 1;
  }

  get count(): number {
    return this.#files.size;
  }

  /** ENFILE when there is room for no other one: to be called before the file is opened or made. */
  checkRoom(): void {
    if (this.count >= MAX_OPEN_HANDLES) throw errnoError(E.ENFILE);
  }

  /** So many more may be opened: of this table, and of this process. */
  get room(): number {
    return Math.min(MAX_OPEN_HANDLES - this.count, descriptorsLeft());
  }

  /** Somebody has it open, or is about to. */
  isOpen(id: FileId): boolean {
    return this.#opens.has(id.ino);
  }

  /** `work` opens it, and may have to wait: what happens to it meanwhile happens to an open inode. */
  opening<T>(id: FileId, work: () => MaybePromise<T>): MaybePromise<T> {
    this.#countUp(id);
    this.#opening += 1;
    return finallyDo(work, () => {
      this.#opening -= 1;
      void this.#countDown(id);
      this.#tellIfClosed();
    });
  }

  /** It counts as open, though there is no descriptor, until `unpin`. */
  pin(id: FileId): void {
    this.#countUp(id);
  }

  unpin(id: FileId): void {
    void this.#countDown(id);
  }

  #countUp({ ino }: FileId): void {
    this.#opens.set(ino, (this.#opens.get(ino) ?? 0) + 1);
  }

  #countDown(id: FileId): MaybePromise<void> {
    const left = (this.#opens.get(id.ino) ?? 0) - 1;
    if (left > 0) {
      this.#opens.set(id.ino, left);
      return undefined;
    }
    this.#opens.delete(id.ino);
    return this.#lastClosed(id);
  }

  /** Takes over `fd`. ESTALE, and it is closed, after closeAll. */
  add(fd: number, id: FileId, flags: number, directory: boolean, madeMs: number = Number.NEGATIVE_INFINITY): LowerHandle {
    if (this.#isOver) {
      this.#native.sync.close(fd);
      throw errnoError(E.ESTALE);
    }
    const handle = this.#allocate();
    const mode = flags & O.ACCMODE;
    this.#files.set(handle, {
      handle,
      fd,
      id,
      directory,
      writable: !directory && mode !== O.RDONLY,
      readable: mode !== O.WRONLY,
      users: 0,
      closed: false,
      madeMs,
      changed: !directory && (flags & O.TRUNC) !== 0,
      position: 0n,
      turn: directory ? new Exclusive() : null,
    });
    this.#countUp(id);
    return handle;
  }

  /** The one that was not in use for the longest time. 0 is left out: it reads like "none". */
  #allocate(): LowerHandle {
    do this.#last = this.#last === MAX_HANDLE ? 1 : this.#last + 1;
    while (this.#files.has(this.#last));
    return this.#last as LowerHandle;
  }

  /** EBADF: not open. */
  get(handle: LowerHandle): OpenFile {
    const file = this.#files.get(handle);
    if (file === undefined || file.closed) throw errnoError(E.EBADF);
    return file;
  }

  getFile(handle: LowerHandle): OpenFile {
    const file = this.get(handle);
    if (file.directory) throw errnoError(E.EISDIR);
    return file;
  }

  getDirectory(handle: LowerHandle): OpenFile {
    const file = this.get(handle);
    if (!file.directory) throw errnoError(E.ENOTDIR);
    return file;
  }

  /** The descriptor stays open until `work` has ended. */
  use<T>(file: OpenFile, work: (fd: number) => MaybePromise<T>): MaybePromise<T> {
    file.users += 1;
    return finallyDo(
      () => work(file.fd),
      () => {
        file.users -= 1;
        if (file.closed && file.users === 0) this.#release(file);
      },
    );
  }

  close(handle: LowerHandle): void {
    const file = this.#files.get(handle);
    if (file === undefined || file.closed) return;
    file.closed = true;
    if (file.users === 0) this.#release(file);
  }

  #release(file: OpenFile): void {
    this.#files.delete(file.handle);
    const last = this.#countDown(file.id);
    if (last instanceof Promise) this.#later(last.then(() => this.#native.pool.data.close(file.fd)));
    else if (!file.changed && this.#closesQuickly(file.fd)) {
      this.#native.sync.close(file.fd);
      this.#tellIfClosed();
    } else this.#later(this.#native.pool.data.close(file.fd));
  }

  #later(closing: Promise<number>): void {
    this.#closing.add(closing);
    void closing.finally(() => {
      this.#closing.delete(closing);
      this.#tellIfClosed();
    });
  }

  /**
   * The last close of a file without a name frees its blocks, ext4 may write out at the close of a file that was truncated, and XFS gives
   * back blocks past the end: these can wait for the disk. A small file's blocks are as soon freed as its name was taken away.
   */
  #closesQuickly(fd: number): boolean {
    if (this.#native.sync.stat(fd, this.#stat) !== 0) return false;
    return this.#stat[STAT.NLINK] !== 0 || (this.#stat[STAT.BLOCKS] as number) <= LARGE_FILE_BLOCKS;
  }

  #tellIfClosed(): void {
    if (this.#waiters.length === 0 || this.#isBusy) return;
    for (const tell of this.#waiters.splice(0)) tell();
  }

  get #isBusy(): boolean {
    return this.count + this.#opening + this.#closing.size > 0;
  }

  /** Closes every handle and resolves when every descriptor is closed, those that calls still use, or are about to open, included. */
  async closeAll(): Promise<void> {
    this.#isOver = true;
    for (const file of this.#files.values()) this.close(file.handle);
    if (!this.#isBusy) return;
    await new Promise<void>((resolve) => this.#waiters.push(resolve));
  }
}

/**
 * Descriptors (O_PATH) of the directories in use, by FileId: every call on a name needs its directory's. Bounded;
 * the one to go is found by the clock algorithm (second chance). A removed directory's descriptor goes at once:
 * it would keep the inode alive.
 */
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import { STAT, type Calls, type Native } from "../../../native/index.ts";
import { FILE_HANDLE_BYTES, type FileHandleFormat } from "./file-handle.ts";
import { O, S } from "../linux.ts";
import { type FileId, fileKey } from "../lower.ts";
import { andThen, checked, finallyDo, type MaybePromise } from "../../../dlmd/base/maybe-promise.ts";
import type { Containment } from "./containment.ts";
import type { RecentInodes } from "./recent-inodes.ts";

/** That many directories keep a descriptor; more only while calls on them run. */
export const DIRECTORY_DESCRIPTORS = 1024;

interface Slot {
  readonly id: FileId;
  readonly fd: number;
  users: number;
  /** Not in the table any more: closed when the last user is done. */
  dropped: boolean;
  touched: boolean;
}

export interface DirectoryDescriptorsOptions {
  readonly native: Native;
  readonly root: FileId;
  /** Borrowed, never closed here. */
  readonly rootFd: number;
  readonly format: FileHandleFormat;
  readonly recent: RecentInodes;
  readonly containment: Containment;
  readonly limit?: number;
}

export class DirectoryDescriptors {
  readonly #calls: Calls<number>;
  readonly #options: DirectoryDescriptorsOptions;
  readonly #limit: number;
  // By inode number: two generations of one number are never in use together for long.
  readonly #slots: Map<number, Slot> = new Map();
  readonly #opening: Map<string, Promise<Slot>> = new Map();
  readonly #stat = new Float64Array(STAT.FIELDS);

  constructor(options: DirectoryDescriptorsOptions) {
    this.#options = options;
    this.#calls = options.native.sync;
    this.#limit = options.limit ?? DIRECTORY_DESCRIPTORS;
  }

  get size(): number {
    return this.#slots.size;
  }

  #isRoot(id: FileId): boolean {
    const root = this.#options.root;
    return id.ino === root.ino && id.generation === root.generation;
  }

  #find(id: FileId): Slot | undefined {
    const slot = this.#slots.get(id.ino);
    if (slot === undefined || slot.id.generation !== id.generation) return undefined;
    if (this.#options.containment.isInside(slot.fd)) return slot;
    // Hazard R19: its open by handle is refused, too.
    this.#drop(slot);
    return undefined;
  }

  /** The descriptor, if it is here: good until the thread is given up. */
  peek(id: FileId): number | undefined {
    if (this.#isRoot(id)) return this.#options.rootFd;
    const slot = this.#find(id);
    if (slot === undefined) return undefined;
    slot.touched = true;
    return slot.fd;
  }

  /** Runs `work` with a descriptor that stays open until it ends. ESTALE: gone; ENOTDIR. */
  use<T>(id: FileId, work: (fd: number) => MaybePromise<T>): MaybePromise<T> {
    if (this.#isRoot(id)) return work(this.#options.rootFd);
    const slot = this.#find(id);
    if (slot !== undefined) return this.#with(slot, work);
    return andThen(this.#open(id), (opened) => this.#with(opened, work));
  }

  #with<T>(slot: Slot, work: (fd: number) => MaybePromise<T>): MaybePromise<T> {
    slot.users += 1;
    slot.touched = true;
    return finallyDo(
      () => work(slot.fd),
      () => {
        slot.users -= 1;
        this.#closeIfUnused(slot);
      },
    );
  }

  #open(id: FileId): MaybePromise<Slot> {
    return andThen(this.#options.containment.prove(id), () => this.#openProven(id));
  }

  #openProven(id: FileId): MaybePromise<Slot> {
    const key = fileKey(id);
    const pending = this.#opening.get(key);
    if (pending !== undefined) return pending;
    const { native, rootFd, format, recent } = this.#options;
    const handle = Buffer.alloc(FILE_HANDLE_BYTES);
    format.encode(id, handle);
    const flags = O.PATH | O.DIRECTORY;
    if (recent.typeOf(id) === S.IFDIR) return this.#opened(id, this.#calls.openByHandle(rootFd, handle, flags));
    const opening = native.pool.metadata
      .openByHandle(rootFd, handle, flags)
      .then((fd) => this.#opened(id, fd))
      .finally(() => this.#opening.delete(key));
    this.#opening.set(key, opening);
    return opening;
  }

  #opened(id: FileId, result: number): Slot {
    const fd = checked(result);
    const status = this.#calls.stat(fd, this.#stat);
    // Removed, but kept alive by somebody's descriptor: ours must not do the same for longer.
    if (status < 0 || this.#stat[STAT.NLINK] === 0 || !this.#options.containment.isInside(fd)) {
      this.#calls.close(fd);
      throw errnoError(status < 0 ? -status : E.ESTALE);
    }
    const slot: Slot = { id, fd, users: 0, dropped: false, touched: true };
    const same = this.#slots.get(id.ino);
    if (same !== undefined) this.#drop(same);
    this.#makeRoom();
    this.#slots.set(id.ino, slot);
    return slot;
  }

  #makeRoom(): void {
    if (this.#slots.size < this.#limit) return;
    // Two rounds: the first may only take second chances away.
    let tries = this.#slots.size * 2;
    for (const slot of this.#slots.values()) {
      tries -= 1;
      if (slot.users === 0 && !slot.touched) {
        this.#drop(slot);
        return;
      }
      if (tries <= 0) return;
      slot.touched = false;
      this.#slots.delete(slot.id.ino);
      this.#slots.set(slot.id.ino, slot);
    }
  }

  #drop(slot: Slot): void {
    this.#slots.delete(slot.id.ino);
    slot.dropped = true;
    this.#closeIfUnused(slot);
  }

  #closeIfUnused(slot: Slot): void {
    if (slot.dropped && slot.users === 0) this.#calls.close(slot.fd);
  }

  /** The directory was removed. */
  drop(id: FileId): void {
    const slot = this.#find(id);
    if (slot !== undefined) this.#drop(slot);
  }

  /** Closes every descriptor; those in use when their calls end. */
  dropAll(): void {
    for (const slot of this.#slots.values()) this.#drop(slot);
  }
}

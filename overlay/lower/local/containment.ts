/**
 * Hazard R19: a file handle reaches each inode of its file system, and a lower directory may be a part of one. So an inode that is named by
 * its number is opened only if it was found from the directory: by a lookup, or by the one walk over the tree that an owner makes when it is
 * first asked for an inode that it does not know. Source: open_by_handle_at(2), proc_pid_fd(5).
 */
import { readlinkSync } from "node:fs";
import { E, Errno, errnoError } from "../../../dlmd/base/errno.ts";
import type { Log } from "../../../dlmd/base/log.ts";
import { checked, type MaybePromise } from "../../../dlmd/base/maybe-promise.ts";
import { NewestMap } from "../../../dlmd/base/newest-map.ts";
import { HANDLE_BUFFER_BYTES, type Native, STAT } from "../../../native/index.ts";
import { O, S } from "../linux.ts";
import { type FileId, fileKey } from "../lower.ts";
import { parseEntries } from "./dirents.ts";
import { FILE_HANDLE_BYTES, type FileHandleFormat } from "./file-handle.ts";

/** Each of two generations holds at most so many inodes. One that is forgotten is ESTALE until its name is looked up again. */
const CONTAINED_INODES_MAX = 1_048_576;
const GETDENTS_BYTES = 32_768;
/** After a walk that an error kept from something the next one begins no sooner. */
const WALK_AGAIN_MS = 5_000;
/** Gone meanwhile, no directory, or another file system: it has no identity in this volume. Any other error keeps the walk from something that may be there. */
const NOT_THERE: ReadonlySet<number> = new Set([E.ENOENT, E.ESTALE, E.EXDEV, E.ENOTDIR, E.ELOOP]);

export interface Containment {
  /** It was found by its name, in the tree. */
  note(id: FileId): void;
  /** Before it is opened by its number. ESTALE: it is not known to be in the tree. */
  prove(id: FileId): MaybePromise<void>;
  /** Of a directory: another program may have moved it out of the tree. */
  isInside(fd: number): boolean;
}

/** The root of a file system: all that a handle reaches is the volume. */
export const wholeFileSystem: Containment = { note: () => undefined, prove: () => undefined, isInside: () => true };

export interface DirectoryTreeOptions {
  readonly native: Native;
  readonly root: FileId;
  readonly rootFd: number;
  readonly format: FileHandleFormat;
  readonly log: Log;
  readonly limit?: number;
  readonly nowMs?: () => number;
}

export class DirectoryTree implements Containment {
  readonly #options: DirectoryTreeOptions;
  readonly #limit: number;
  /** Generations by inode number. */
  readonly #generations: NewestMap<number, number>;
  readonly #nowMs: () => number;
  /** The walk, once it was begun: a peer that names what is not there costs no second one, but where an error kept it from something. */
  #walk: Promise<void> | null = null;
  /** When the last walk ended, if an error kept it from something. */
  #incompleteAtMs: number | null = null;
  /** While it goes on: what is noted meanwhile was perhaps moved from where it has not looked yet to where it has. */
  #walking: { readonly queue: FileId[]; readonly seen: Set<string> } | null = null;
  /** What waits for the walk goes on once its inode is found, also by a lookup meanwhile. */
  readonly #waiting = new Map<string, (() => void)[]>();

  constructor(options: DirectoryTreeOptions) {
    this.#options = options;
    this.#limit = options.limit ?? CONTAINED_INODES_MAX;
    this.#generations = new NewestMap(this.#limit);
    this.#nowMs = options.nowMs ?? ((): number => performance.now());
  }

  /** Of inodes, which the walk may still find. */
  get waitingCount(): number {
    return this.#waiting.size;
  }

  note(id: FileId): void {
    if (this.#walking !== null && !this.#walking.seen.has(fileKey(id))) {
      this.#walking.seen.add(fileKey(id));
      this.#walking.queue.push(id);
    }
    if (this.#generations.getNewest(id.ino) === id.generation) return;
    this.#generations.set(id.ino, id.generation);
    if (this.#waiting.size > 0) this.#wake(fileKey(id));
  }

  #wake(key: string): void {
    const waiting = this.#waiting.get(key) ?? [];
    this.#waiting.delete(key);
    for (const goOn of waiting) goOn();
  }

  #has(id: FileId): boolean {
    const { root } = this.#options;
    if (id.ino === root.ino) return id.generation === root.generation;
    return this.#generations.get(id.ino) === id.generation;
  }

  prove(id: FileId): MaybePromise<void> {
    if (!this.#has(id)) return this.#find(id);
    // What is used is not the oldest, though nobody looks it up any more.
    this.note(id);
    return undefined;
  }

  async #find(id: FileId): Promise<void> {
    const mayWalk = this.#incompleteAtMs === null || this.#nowMs() - this.#incompleteAtMs >= WALK_AGAIN_MS;
    if (mayWalk) this.#walk ??= this.#walkTree();
    // One that has ended finds nothing more: what waited for it would be kept for ever.
    if (this.#walking !== null) await Promise.race([this.#walk, this.#noted(id)]);
    if (!this.#has(id)) throw errnoError(E.ESTALE);
  }

  #noted(id: FileId): Promise<void> {
    const key = fileKey(id);
    return new Promise((goOn) => this.#waiting.set(key, [...(this.#waiting.get(key) ?? []), goOn]));
  }

  isInside(fd: number): boolean {
    try {
      const [root, place] = [shownPath(this.#options.rootFd), shownPath(fd)];
      return place.equals(root) || place.indexOf(Buffer.concat([root, Buffer.from("/")])) === 0;
    } catch (error) {
      // A path of more than 4095 bytes: it cannot be said where it lies.
      if ((error as NodeJS.ErrnoException).code === "ENAMETOOLONG") return false;
      throw error;
    }
  }

  /** Nothing that cannot be read ends it: that is met by those who look it up. */
  async #walkTree(): Promise<void> {
    const { root, log } = this.#options;
    const startedMs = performance.now();
    const queue: FileId[] = [root];
    const seen = new Set<string>([fileKey(root)]);
    this.#walking = { queue, seen };
    let errors = 0;
    for (let at = 0; at < queue.length && seen.size <= this.#limit; at += 1) {
      try {
        await this.#walkDirectory(queue[at] as FileId, (id, isDirectory) => {
          if (seen.has(fileKey(id))) return;
          seen.add(fileKey(id));
          this.note(id);
          if (isDirectory) queue.push(id);
        });
      } catch (error) {
        if (!(error instanceof Errno)) throw error;
        if (!NOT_THERE.has(error.errno)) errors += 1;
        log.debug({ ino: queue[at]?.ino, error: String(error) }, "a directory was left out of the walk over the lower directory");
      }
    }
    this.#walking = null;
    this.#waiting.clear();
    this.#incompleteAtMs = errors > 0 ? this.#nowMs() : null;
    if (errors > 0) this.#walk = null;
    log.info({ inodes: seen.size, tookMs: Math.round(performance.now() - startedMs) }, "the lower directory was walked over");
  }

  async #walkDirectory(directory: FileId, found: (id: FileId, isDirectory: boolean) => void): Promise<void> {
    const { native, rootFd, format } = this.#options;
    const calls = native.pool.metadata;
    const handle = Buffer.alloc(FILE_HANDLE_BYTES);
    format.encode(directory, handle);
    const fd = checked(await calls.openByHandle(rootFd, handle, O.RDONLY | O.DIRECTORY | O.NOATIME));
    try {
      if (!this.isInside(fd)) return;
      const buffer = Buffer.allocUnsafeSlow(GETDENTS_BYTES);
      for (;;) {
        const bytes = checked(await calls.getdents(fd, buffer));
        if (bytes === 0 || (this.#walking?.seen.size ?? 0) > this.#limit) return;
        for (const { name } of parseEntries(buffer.subarray(0, bytes))) {
          const text = name.toString("latin1");
          if (text !== "." && text !== "..") await this.#look(fd, Buffer.from(name), found);
        }
      }
    } finally {
      native.sync.close(fd);
    }
  }

  async #look(dirfd: number, name: Buffer, found: (id: FileId, isDirectory: boolean) => void): Promise<void> {
    const { native, format } = this.#options;
    const [stat, handle] = [new Float64Array(STAT.FIELDS), Buffer.alloc(HANDLE_BUFFER_BYTES)];
    const result = await native.pool.metadata.lookup(dirfd, name, false, stat, handle);
    if (NOT_THERE.has(-result)) return;
    checked(result);
    found(format.decode(handle), ((stat[STAT.MODE] as number) & S.IFMT) === S.IFDIR);
  }
}

export function shownPath(fd: number): Buffer {
  return readlinkSync(`/proc/self/fd/${fd}`, "buffer");
}

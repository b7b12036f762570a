/**
 * Inodes whose last name was taken away a moment ago. On a local file system whoever has walked a path to a file goes on with that
 * file, though its name is gone by the time of the open. The kernel above names it to us by number, so it has to be there still: a
 * descriptor (O_PATH) of each keeps it for a while, and then open_by_handle_at(2) finds it as before.
 *
 * Bounded in time and number, and given up early by whoever needs the room. What it was like is remembered longer: somebody may have it as
 * working directory, and ask.
 */
import { NewestMap } from "../../../dlmd/base/newest-map.ts";
import type { Native } from "../../../native/index.ts";
import type { Attr, FileId } from "../lower.ts";
import type { MaybePromise } from "../../../dlmd/base/maybe-promise.ts";

/** That many are kept; one more, and the oldest goes. */
export const REMOVED_KEPT_MAX = 1024;
/** So long after the removal. The time between a kernel's walk and its open is far below, unless a lock has to be waited for. */
export const REMOVED_KEPT_MS = 2000;
/** Attributes of that many at most, the youngest, and of half as many at least. */
export const REMOVED_REMEMBERED_MAX = 4096;

interface Removed {
  readonly fd: number;
  readonly until: number;
  /** Freeing it waits for the disk. */
  readonly large: boolean;
}

interface Remembered {
  readonly generation: number;
  readonly attr: Attr;
}

export interface RemovedInodesOptions {
  readonly native: Pick<Native, "sync" | "pool">;
  readonly now?: () => number;
  /** 1 at least. */
  readonly limit?: number;
  readonly keepMs?: number;
}

export class RemovedInodes {
  readonly #options: RemovedInodesOptions;
  readonly #now: () => number;
  readonly #limit: number;
  readonly #keepMs: number;
  /** A ring, from the oldest on. */
  readonly #kept: Removed[] = [];
  #oldest = 0;
  #count = 0;
  readonly #remembered: NewestMap<number, Remembered> = new NewestMap(REMOVED_REMEMBERED_MAX / 2);
  readonly #closing: Set<Promise<number>> = new Set();
  #timer: NodeJS.Timeout | null = null;

  constructor(options: RemovedInodesOptions) {
    this.#options = options;
    this.#now = options.now ?? ((): number => performance.now());
    this.#limit = options.limit ?? REMOVED_KEPT_MAX;
    this.#keepMs = options.keepMs ?? REMOVED_KEPT_MS;
  }

  get count(): number {
    return this.#count;
  }

  /** Takes over `fd` (negative: none could be had); `attr`: as it was before its last name went. */
  keep(fd: number, id: FileId, attr: Attr, large: boolean): void {
    this.#remembered.set(id.ino, { generation: id.generation, attr });
    if (fd < 0) return;
    if (this.#count === this.#limit) this.#closeOldest();
    this.#kept[(this.#oldest + this.#count) % this.#limit] = { fd, until: this.#now() + this.#keepMs, large };
    this.#count += 1;
    this.#timer ??= this.#startTimer(this.#keepMs);
  }

  /** What it was like when its last name went. */
  attrOf(id: FileId): Attr | undefined {
    const remembered = this.#remembered.get(id.ino);
    return remembered?.generation === id.generation ? { ...remembered.attr, nlink: 0 } : undefined;
  }

  #startTimer(delayMs: number): NodeJS.Timeout {
    const timer = setTimeout(() => {
      this.#timer = null;
      void this.#closeOutdated();
    }, delayMs);
    timer.unref();
    return timer;
  }

  /** One after the other in the pool: an inode is freed by its last close. */
  async #closeOutdated(): Promise<void> {
    while (this.#count > 0) {
      const left = (this.#kept[this.#oldest] as Removed).until - this.#now();
      if (left > 0) {
        this.#timer ??= this.#startTimer(left);
        return;
      }
      await this.#closeLater(this.#takeOldest().fd);
    }
  }

  #closeOldest(): void {
    const { fd, large } = this.#takeOldest();
    // On this thread, as the removal itself would have freed it.
    if (large) void this.#closeLater(fd);
    else this.#options.native.sync.close(fd);
  }

  /** There is one. */
  #takeOldest(): Removed {
    const oldest = this.#kept[this.#oldest] as Removed;
    this.#oldest = (this.#oldest + 1) % this.#limit;
    this.#count -= 1;
    return oldest;
  }

  async #closeLater(fd: number): Promise<void> {
    const closing = this.#options.native.pool.data.close(fd);
    this.#closing.add(closing);
    await closing;
    this.#closing.delete(closing);
  }

  /** Gives up all that is kept; resolves when their space is free. */
  releaseAll(): MaybePromise<void> {
    if (this.#count === 0 && this.#closing.size === 0) return undefined;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    while (this.#count > 0) void this.#closeLater(this.#takeOldest().fd);
    return this.#settled();
  }

  async #settled(): Promise<void> {
    await Promise.all(this.#closing);
  }
}

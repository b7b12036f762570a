/**
 * Which inodes were seen a moment ago, and are therefore in the kernel's inode cache: what is asked about them needs
 * no disk, so it may be done on the serving thread. Two generations of a bounded map, in place of an exact LRU.
 *
 * What may still stall the thread: memory pressure took the inode out of the kernel's cache meanwhile. Then one
 * inode is read from disk.
 */
import { NewestMap } from "../../../dlmd/base/newest-map.ts";
import type { FileId } from "../lower.ts";

const S_IFMT = 0o170000;

/** Each of the two generations holds at most that many. */
export const RECENT_INODES = 32_768;

interface Seen {
  readonly generation: number;
  readonly type: number;
}

export class RecentInodes {
  readonly #seen: NewestMap<number, Seen>;

  constructor(limit: number = RECENT_INODES) {
    this.#seen = new NewestMap(limit);
  }

  note(id: FileId, mode: number): void {
    if (this.#seen.getNewest(id.ino)?.generation === id.generation) return;
    this.#seen.set(id.ino, { generation: id.generation, type: mode & S_IFMT });
  }

  /** The S_IFMT bits of an inode seen lately; undefined for another. */
  typeOf(id: FileId): number | undefined {
    const seen = this.#seen.get(id.ino);
    return seen !== undefined && seen.generation === id.generation ? seen.type : undefined;
  }

  has(id: FileId): boolean {
    return this.typeOf(id) !== undefined;
  }

  forget(id: FileId): void {
    this.#seen.delete(id.ino);
  }
}

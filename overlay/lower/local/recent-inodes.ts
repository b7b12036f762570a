/**
 * Which inodes were seen a moment ago, and are therefore in the kernel's inode cache: what is asked about them needs
 * no disk, so it may be done on the serving thread. Two generations of a bounded map, in place of an exact LRU.
 *
 * What may still stall the thread: memory pressure took the inode out of the kernel's cache meanwhile. Then one
 * inode is read from disk.
 */
import type { FileId } from "../lower.ts";

const S_IFMT = 0o170000;

/** Each of the two generations holds at most that many. */
export const RECENT_INODES = 32_768;

interface Seen {
  readonly generation: number;
  readonly type: number;
}

export class RecentInodes {
  readonly #limit: number;
  #young: Map<number, Seen> = new Map();
  #old: Map<number, Seen> = new Map();

  constructor(limit: number = RECENT_INODES) {
    this.#limit = limit;
  }

  note(id: FileId, mode: number): void {
    const seen = this.#young.get(id.ino);
    if (seen !== undefined && seen.generation === id.generation) return;
    if (this.#young.size >= this.#limit) {
      this.#old = this.#young;
      this.#young = new Map();
    }
    this.#young.set(id.ino, { generation: id.generation, type: mode & S_IFMT });
  }

  /** The S_IFMT bits of an inode seen lately; undefined for another. */
  typeOf(id: FileId): number | undefined {
    const seen = this.#young.get(id.ino) ?? this.#old.get(id.ino);
    return seen !== undefined && seen.generation === id.generation ? seen.type : undefined;
  }

  has(id: FileId): boolean {
    return this.typeOf(id) !== undefined;
  }

  forget(id: FileId): void {
    this.#young.delete(id.ino);
    this.#old.delete(id.ino);
  }
}

/**
 * What a node that is not the owner knows of directories that it has made itself, for as long as their locks have not left it: nobody else can have
 * changed them, and all that this node changes goes through here. So a name that was never given there is not there, and needs no trip to the
 * owner to be looked for before it is created; nor do the directory's attributes, which the answer to each change of its names brings along.
 *
 * `hold` is the number of the lock's grant (Coherence.heldSince): what is known counts for that one only. Names that were given once are taken
 * for there, whatever becomes of them: what is known is that all others are not.
 */
import type { Attr, FileId } from "./lower.ts";

interface Directory {
  readonly generation: number;
  readonly hold: number;
  /** All names that there may be, in latin1 spelling; null: too many. */
  names: Set<string> | null;
  /** null: not known. */
  attr: Attr | null;
  /** Changes under way. */
  changing: number;
  /** Changes begun. */
  begun: number;
}

/** A change of a directory, from before it is sent to its answer. */
export interface DirectoryChange {
  readonly directory: Directory;
  readonly no: number;
  /** No other was under way when it began. */
  readonly alone: boolean;
}

export const DIRECTORIES_MAX = 512;
/** Names of a directory: with more they are not known any more. */
export const HELD_NAMES_MAX = 4096;
/** Names in all, about 60 bytes each: beyond, the directory that was made first is forgotten. */
export const HELD_NAMES_ALL_MAX = 16_384;

export class HeldDirectories {
  /** By inode number. */
  readonly #directories = new Map<number, Directory>();
  #names = 0;

  /** An empty directory was made, under that hold. */
  made(id: FileId, hold: number): void {
    this.forget(id);
    this.#directories.set(id.ino, { generation: id.generation, hold, names: new Set(), attr: null, changing: 0, begun: 0 });
    if (this.#directories.size > DIRECTORIES_MAX) this.#forgetOldest();
  }

  /** There is no such name. False: not known. */
  isAbsent(id: FileId, name: Buffer, hold: number): boolean {
    const names = this.#under(id, hold)?.names;
    return names !== undefined && names !== null && !names.has(name.toString("latin1"));
  }

  /** null: not known. */
  attr(id: FileId, hold: number): Attr | null {
    return this.#under(id, hold)?.attr ?? null;
  }

  /** Its attributes, and if `name` is given perhaps that name, are about to change. null: nothing is known of it. */
  begin(id: FileId, name: Buffer | null): DirectoryChange | null {
    const directory = this.#find(id);
    if (directory === undefined) return null;
    const alone = directory.changing === 0;
    directory.attr = null;
    directory.changing += 1;
    directory.begun += 1;
    if (name !== null) this.#add(directory, name);
    return { directory, no: directory.begun, alone };
  }

  /** `attr`: read after it was made; null: not known. */
  end(change: DirectoryChange | null, attr: Attr | null): void {
    if (change === null) return;
    const { directory, no, alone } = change;
    directory.changing -= 1;
    if (alone && directory.begun === no) directory.attr = attr;
  }

  forget(id: FileId): void {
    const found = this.#directories.get(id.ino);
    if (found === undefined) return;
    this.#names -= found.names?.size ?? 0;
    this.#directories.delete(id.ino);
  }

  /** There is another owner: what the last one had done need not be so any more. */
  clear(): void {
    this.#directories.clear();
    this.#names = 0;
  }

  #find(id: FileId): Directory | undefined {
    const found = this.#directories.get(id.ino);
    return found !== undefined && found.generation === id.generation ? found : undefined;
  }

  /** If its lock was elsewhere since, it is forgotten. */
  #under(id: FileId, hold: number): Directory | undefined {
    const found = hold === 0 ? undefined : this.#find(id);
    if (found === undefined || found.hold === hold) return found;
    this.forget(id);
    return undefined;
  }

  #add(directory: Directory, name: Buffer): void {
    const { names } = directory;
    if (names === null) return;
    const before = names.size;
    names.add(name.toString("latin1"));
    this.#names += names.size - before;
    if (names.size > HELD_NAMES_MAX) {
      this.#names -= names.size;
      directory.names = null;
    }
    while (this.#names > HELD_NAMES_ALL_MAX) this.#forgetOldest();
  }

  #forgetOldest(): void {
    for (const [ino, { names }] of this.#directories) {
      this.#names -= names?.size ?? 0;
      this.#directories.delete(ino);
      return;
    }
  }
}

/**
 * What names in the lower stand for, as far as this process knows, for as long as it is the only one that changes them: on the owner
 * while it has the lower (local/names.ts).
 * What was found, or made, then stays true until it is changed here. Two things follow for which somebody would have to be asked otherwise:
 *
 *   - the inode behind a name: its generation costs the owner three system calls more than its attributes;
 *   - in a directory all of whose names are known, because it was made here or they were listed (local/names-listed.ts), that there is no
 *     such name. A file is looked for before it is created, and the kernel's own cache does not know a name that never was.
 *
 * A change says so before it begins (`changing`), and only what is known after it is entered again.
 */
import { RENAME } from "./linux.ts";
import { NAMES_TOLD_BYTES_MAX } from "./limits.ts";
import { type FileId, fileKey } from "./lower.ts";

/** Names remembered of one directory. With more it is no longer known completely, and begins anew. */
export const NAMES_OF_A_DIRECTORY_MAX = 16_384;
/** Names remembered in all, about 120 bytes each: beyond, the directory whose first name was entered the longest ago is forgotten. */
export const NAMES_MAX = 32_768;
/** Directories whose changes are noted: beyond, those of the one that was asked about longest ago are forgotten. */
export const NOTED_DIRECTORIES_MAX = 256;
/** Changes noted of one directory: beyond, the older half is forgotten. */
export const NOTED_CHANGES_MAX = 512;

/** What a caller that knew a directory's names before has to ask anew (hazard F32). */
export interface NamesTold {
  /** As of now: what is changed later is told to who asks since then. */
  readonly version: number;
  /** True: these are all that there are; false: those that were changed. */
  readonly all: boolean;
  readonly names: readonly Buffer[];
  /** Were changed, and are not there. */
  readonly gone: readonly Buffer[];
}

interface Directory {
  readonly generation: number;
  /** By the name in latin1 spelling; null: there may be such a name, of whatever inode. */
  readonly names: Map<string, FileId | null>;
  /** Every name that there is, is in `names`. */
  complete: boolean;
  /** Null: they are not noted. */
  changes: Changes | null;
}

interface Changes {
  /** All later ones are in `noted`, in their order. */
  since: number;
  noted: { readonly version: number; readonly name: string }[];
}

export class DirectoryNames {
  readonly #limits: { readonly directory: number; readonly all: number };
  /** By inode number. */
  readonly #directories: Map<number, Directory> = new Map();
  #count = 0;
  /** Counts noted changes, and beginnings of noting: so none of these has the number of an earlier one. */
  #version = 0;
  readonly #noted = new Set<Directory>();
  /** Inode numbers of those that are being listed, and were not changed since that began. */
  readonly #listing = new Set<number>();
  // One operation asks for its name again and again, and a string costs more than looking for it.
  #lastName: Buffer | null = null;
  #lastKey = "";

  constructor(limits: { readonly directory: number; readonly all: number } = { directory: NAMES_OF_A_DIRECTORY_MAX, all: NAMES_MAX }) {
    this.#limits = limits;
  }

  get count(): number {
    return this.#count;
  }

  #keyOf(name: Buffer): string {
    if (name !== this.#lastName) {
      this.#lastName = name;
      this.#lastKey = name.toString("latin1");
    }
    return this.#lastKey;
  }

  #find(directory: FileId): Directory | undefined {
    const found = this.#directories.get(directory.ino);
    return found !== undefined && found.generation === directory.generation ? found : undefined;
  }

  /** null: there is no such name; undefined: not known. */
  get(directory: FileId, name: Buffer): FileId | null | undefined {
    const found = this.#find(directory);
    if (found === undefined) return undefined;
    const id = found.names.get(this.#keyOf(name));
    if (id === undefined) return found.complete ? null : undefined;
    return id ?? undefined;
  }

  /** An empty directory was made. */
  made(directory: FileId): void {
    this.forget(directory);
    this.#enter(directory, true);
  }

  /** The name is about to be given, taken away, or given to another inode. */
  changing(directory: FileId, name: Buffer): void {
    this.#listing.delete(directory.ino);
    const found = this.#find(directory);
    // Where not everything is known, what is not there is not known.
    if (found === undefined) return;
    if (found.changes !== null) this.#note(found.changes, this.#keyOf(name));
    if (found.complete) this.#set(directory, found, this.#keyOf(name), null);
    else this.#delete(found, this.#keyOf(name));
  }

  /** The names that were changed since that version, or all, at most `most`, and NAMES_TOLD_BYTES_MAX of bytes; null: that cannot be told. From now on changes are noted. */
  since(directory: FileId, version: number, most: number): NamesTold | null {
    const found = this.#find(directory);
    if (found === undefined) return null;
    const { changes } = found;
    const all = changes === null || version < changes.since;
    if (all && (!found.complete || found.names.size > most)) return null;
    const changed = all ? found.names.keys() : changes.noted.filter((one) => one.version > version).map(({ name }) => name);
    const keys = [...new Set(changed)];
    if (keys.length > most || keys.reduce((bytes, key) => bytes + key.length, 0) > NAMES_TOLD_BYTES_MAX) return null;
    if (changes === null) this.#beginToNote(found);
    else this.#noteOn(found);
    // Changes are noted where all names are known.
    const isGone = (key: string): boolean => !found.names.has(key);
    const bytes = (some: readonly string[]): Buffer[] => some.map((key) => Buffer.from(key, "latin1"));
    return { version: this.#version, all, names: bytes(keys.filter((key) => !isGone(key))), gone: bytes(keys.filter(isGone)) };
  }

  knowsAll(directory: FileId): boolean {
    return this.#find(directory)?.complete === true;
  }

  /** All names of that directory are about to be listed, while nothing is changed there by this process. False: they are known. */
  listing(directory: FileId): boolean {
    if (this.knowsAll(directory)) return false;
    this.#listing.add(directory.ino);
    return true;
  }

  /** These are all that there are; null: they could not be listed. Of no use if somebody else has changed one meanwhile. */
  listed(directory: FileId, names: readonly Buffer[] | null): void {
    if (!this.#listing.delete(directory.ino) || names === null) return;
    const found = this.#find(directory) ?? this.#enter(directory, false);
    for (const name of names) {
      const key = name.toString("latin1");
      if (!found.names.has(key)) this.#set(directory, found, key, null);
      // There is no room for all of them.
      if (this.#find(directory) !== found) return;
    }
    found.complete = true;
  }

  #beginToNote(found: Directory): void {
    this.#version += 1;
    found.changes = { since: this.#version, noted: [] };
    this.#noted.add(found);
    if (this.#noted.size <= NOTED_DIRECTORIES_MAX) return;
    const [oldest] = this.#noted;
    if (oldest !== undefined) this.#noteNoMore(oldest);
  }

  /** Nodes that only look for names begin as many as they look in; who fights for one asks about it again and again. */
  #noteOn(found: Directory): void {
    this.#noted.delete(found);
    this.#noted.add(found);
  }

  #noteNoMore(found: Directory): void {
    found.changes = null;
    this.#noted.delete(found);
  }

  #note(changes: Changes, name: string): void {
    this.#version += 1;
    changes.noted.push({ version: this.#version, name });
    if (changes.noted.length <= NOTED_CHANGES_MAX) return;
    const gone = changes.noted.splice(0, NOTED_CHANGES_MAX / 2);
    changes.since = gone.at(-1)?.version ?? changes.since;
  }

  /** The name was found, or made: it is that inode's. */
  is(directory: FileId, name: Buffer, id: FileId): void {
    this.#set(directory, this.#find(directory) ?? this.#enter(directory, false), this.#keyOf(name), id);
  }

  /** The name was taken away. */
  gone(directory: FileId, name: Buffer): void {
    const found = this.#find(directory);
    if (found !== undefined) this.#delete(found, this.#keyOf(name));
  }

  /** The directory was removed. */
  forget(directory: FileId): void {
    this.#listing.delete(directory.ino);
    this.#forgetNames(directory);
  }

  #forgetNames({ ino }: FileId): void {
    const found = this.#directories.get(ino);
    if (found !== undefined) this.#drop(ino, found);
  }

  #drop(ino: number, found: Directory): void {
    this.#count -= found.names.size;
    this.#directories.delete(ino);
    this.#noteNoMore(found);
  }

  clear(): void {
    this.#directories.clear();
    this.#noted.clear();
    this.#listing.clear();
    this.#count = 0;
  }

  #enter(directory: FileId, complete: boolean): Directory {
    this.#forgetNames(directory);
    // A directory without names takes memory too.
    if (this.#directories.size >= this.#limits.all / 4) this.#forgetOldest();
    const entered: Directory = { generation: directory.generation, names: new Map(), complete, changes: null };
    this.#directories.set(directory.ino, entered);
    return entered;
  }

  #forgetOldest(): void {
    for (const [ino, found] of this.#directories) {
      this.#drop(ino, found);
      return;
    }
  }

  #set(directory: FileId, found: Directory, key: string, id: FileId | null): void {
    const before = found.names.size;
    found.names.set(key, id);
    this.#count += found.names.size - before;
    if (found.names.size > this.#limits.directory) {
      this.#forgetNames(directory);
      return;
    }
    while (this.#count > this.#limits.all) this.#forgetOldest();
  }

  #delete(found: Directory, key: string): void {
    if (found.names.delete(key)) this.#count -= 1;
  }
}

/** Whose the old and the new name are after a rename that went well, null: nobody's. Null as a whole: whatever other flags do is not known here. */
export function namesAfterRename(flags: number, moved: FileId, replaced: FileId | null): readonly [old: FileId | null, now: FileId] | null {
  if ((flags & ~(RENAME.NOREPLACE | RENAME.EXCHANGE)) !== 0) return null;
  // Two names of one inode: rename(2) leaves both.
  const stays = replaced !== null && ((flags & RENAME.EXCHANGE) !== 0 || fileKey(replaced) === fileKey(moved));
  return [stays ? replaced : null, moved];
}

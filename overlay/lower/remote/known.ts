/**
 * What a node that is not the owner knows of inodes without asking: attributes, names, and names that are not there. Hazard F21 has the one rule for all of
 * it: it counts while the lock has not left since before it was read, and nothing was changed here since. overlay/lower/README.md, "What is known under locks".
 */
import { type Attr, type Entry, type FileId, fileKey } from "../lower.ts";

/** The locks of this node, as coherence has them. */
export interface Holds {
  /** Locks granted so far. */
  grants(): number;
  /** Which grant it is under which this node has the inode's lock, whatever its mode; 0: it has not, or is about to give it up. */
  of(id: FileId): number;
}

/** Nothing is held: nothing is known. */
export const NO_HOLDS: Holds = { grants: () => 0, of: () => 0 };

/** Inodes of which something is known; beyond, the one that was read or changed longest ago is forgotten. */
export const KNOWN_INODES_MAX = 8192;
/** Names of a directory: with more, none of them is known any more. */
export const KNOWN_NAMES_MAX = 4096;
/** Names in all: beyond, those of the directory that has had some for longest are forgotten. */
export const KNOWN_NAMES_ALL_MAX = 16_384;

/** So many that are being changed are passed over at a time. */
const FORGET_TRIES = 64;

/** "unsure": there may be such a name, of whatever inode. */
type Named = FileId | null | "unsure";

interface Known {
  readonly id: FileId;
  readonly key: string;
  /** The grant under which all of it is true. */
  hold: number;
  attr: Attr | null;
  /** Of a directory. */
  names: Map<string, Named> | null;
  /** Every name that there is, is in `names`. */
  complete: boolean;
  /** Changes under way. */
  changing: number;
  /** When the last one began, and when the last one began or ended. */
  begunAt: number;
  changedAt: number;
}

/** A call that reads, from before it is sent. */
export interface Reading {
  readonly grants: number;
  readonly at: number;
}

/** A change of an inode, from before it is sent to its answer. */
export interface Change extends Reading {
  readonly known: Known;
  readonly name: string | null;
  /** No other was under way when it began. */
  readonly alone: boolean;
}

const nameKey = (name: Buffer): string => name.toString("latin1");

export class KnownInodes {
  readonly #holds: Holds;
  readonly #inodes = new Map<string, Known>();
  /** Those with names. */
  readonly #directories = new Set<Known>();
  #names = 0;
  /** Counts beginnings and ends of changes. */
  #now = 0;
  /** What was changed until then may have been forgotten. */
  #forgotAt = 0;

  constructor(holds: Holds) {
    this.#holds = holds;
  }

  // --- what is known

  attr(id: FileId): Attr | null {
    return this.#inForce(id)?.attr ?? null;
  }

  /** null: there is no such name; undefined: not known. */
  entry(directory: FileId, name: Buffer): Entry | null | undefined {
    const id = this.#named(directory, name);
    if (id === null || id === undefined) return id;
    const attr = this.attr(id);
    return attr === null ? undefined : { id, attr };
  }

  isAbsent(directory: FileId, name: Buffer): boolean {
    return this.#named(directory, name) === null;
  }

  #named(directory: FileId, name: Buffer): FileId | null | undefined {
    const known = this.#inForce(directory);
    if (known === undefined) return undefined;
    const named = known.names?.get(nameKey(name));
    if (named === "unsure") return undefined;
    return named === undefined && known.complete ? null : named;
  }

  #inForce(id: FileId): Known | undefined {
    const known = this.#inodes.get(fileKey(id));
    return known !== undefined && known.hold !== 0 && known.hold === this.#holds.of(id) ? known : undefined;
  }

  // --- what is read

  reading(): Reading {
    return { grants: this.#holds.grants(), at: this.#now };
  }

  read(reading: Reading, id: FileId, attr: Attr): void {
    const known = this.#stillTrue(reading, id);
    if (known !== null) known.attr = attr;
  }

  /** `id`: null where there is no such name. */
  readName(reading: Reading, directory: FileId, name: Buffer, id: FileId | null): void {
    const known = this.#stillTrue(reading, directory);
    if (known !== null) this.#setName(known, nameKey(name), id);
  }

  /** null: the lock was elsewhere since, or something was changed. */
  #stillTrue(reading: Reading, id: FileId): Known | null {
    const found = this.#inodes.get(fileKey(id));
    if ((found?.changing ?? 0) > 0 || (found?.changedAt ?? this.#forgotAt) > reading.at) return null;
    const hold = this.#grantId(reading, id);
    return hold === 0 ? null : this.#under(this.#enter(id), hold);
  }

  #grantId(reading: Reading, id: FileId): number {
    const hold = this.#holds.of(id);
    return hold > reading.grants ? 0 : hold;
  }

  // --- what is changed

  /** The inode is about to be changed; if `name` is given, that name of it too. */
  begin(id: FileId, name: Buffer | null): Change {
    const known = this.#enter(id);
    const key = name === null ? null : nameKey(name);
    const alone = known.changing === 0;
    known.attr = null;
    known.changing += 1;
    this.#now += 1;
    known.begunAt = this.#now;
    known.changedAt = this.#now;
    if (key !== null && known.complete) this.#setName(known, key, "unsure");
    else if (key !== null) this.#deleteName(known, key);
    return { known, name: key, alone, grants: this.#holds.grants(), at: this.#now };
  }

  /** True: attributes that the answer brings will count, unless something comes in between. */
  wantsAttr({ known, alone }: Change): boolean {
    return alone && this.#holds.of(known.id) !== 0;
  }

  /** `attr`: read after it was made; null: not known. `named`: whose name it is now; undefined: not known. */
  end(change: Change, attr: Attr | null, named?: FileId | null): void {
    const { known, alone, name } = change;
    known.changing -= 1;
    this.#now += 1;
    known.changedAt = this.#now;
    // One that was under way beside it may have been made before or after it.
    if (!alone || known.begunAt !== change.at) return;
    const hold = this.#grantId(change, known.id);
    if (hold === 0) return;
    this.#under(known, hold).attr = attr;
    if (name !== null && named !== undefined) this.#setName(known, name, named);
  }

  /** An empty directory was made here, and its lock is here. */
  made(id: FileId): void {
    const known = this.#under(this.#enter(id), this.#holds.of(id));
    this.#dropNames(known);
    known.complete = known.hold !== 0 && known.changing === 0;
  }

  // --- what is forgotten

  /** It was removed. */
  forget(id: FileId): void {
    const known = this.#inodes.get(fileKey(id));
    if (known !== undefined) this.#under(known, 0);
  }

  /** There is another owner: what the last one had done need not be so any more. What is under way stays under way. */
  clear(): void {
    this.#now += 1;
    this.#forgotAt = this.#now;
    for (const known of this.#inodes.values()) {
      this.#under(known, 0);
      known.changedAt = this.#now;
      if (known.changing === 0) this.#inodes.delete(known.key);
    }
  }

  /** As of that hold. */
  #under(known: Known, hold: number): Known {
    if (known.hold === hold && hold !== 0) return known;
    known.hold = hold;
    known.attr = null;
    this.#dropNames(known);
    return known;
  }

  #enter(id: FileId): Known {
    const key = fileKey(id);
    let known = this.#inodes.get(key);
    if (known === undefined) {
      const changedAt = this.#forgotAt;
      known = { id, key, hold: 0, attr: null, names: null, complete: false, changing: 0, begunAt: 0, changedAt };
    } else this.#inodes.delete(key);
    this.#inodes.set(key, known);
    if (this.#inodes.size > KNOWN_INODES_MAX) this.#forgetOldest();
    return known;
  }

  #forgetOldest(): void {
    let tries = FORGET_TRIES;
    for (const known of this.#inodes.values()) {
      this.#inodes.delete(known.key);
      if (known.changing === 0) {
        this.#under(known, 0);
        this.#forgotAt = this.#now;
        return;
      }
      // A change under way is not forgotten: what is read beside it may be older than it.
      this.#inodes.set(known.key, known);
      tries -= 1;
      if (tries === 0) return;
    }
  }

  // --- names

  #setName(known: Known, key: string, named: Named): void {
    known.names ??= new Map();
    this.#directories.add(known);
    const before = known.names.size;
    known.names.set(key, named);
    this.#names += known.names.size - before;
    if (known.names.size > KNOWN_NAMES_MAX) return this.#dropNames(known);
    if (this.#names <= KNOWN_NAMES_ALL_MAX) return;
    const [oldest] = this.#directories;
    if (oldest !== undefined) this.#dropNames(oldest);
  }

  #deleteName(known: Known, key: string): void {
    if (known.names?.delete(key) === true) this.#names -= 1;
  }

  #dropNames(known: Known): void {
    this.#names -= known.names?.size ?? 0;
    known.names = null;
    known.complete = false;
    this.#directories.delete(known);
  }
}

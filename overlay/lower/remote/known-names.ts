/** Names of directories as known.ts has them: within limits, and which of them were changed last. A name is a string of bytes here (`nameKey`). */
import { Recency, type Recent } from "../../../dlmd/base/recency.ts";
import { LastKey } from "../file-id-map.ts";
import type { FileId } from "../lower.ts";

/** Names of a directory: with more, none of them is known any more. */
export const KNOWN_NAMES_MAX = 4096;
/** Names in all: beyond, those of the directory that has had some for longest are forgotten. */
export const KNOWN_NAMES_ALL_MAX = 16_384;

/** Names, in all, whose last change is remembered; what was asked for of any name before an older change does not count. */
export const CHANGED_NAMES_MAX = 4096;

/** So many that are being changed, or of which all is known, are passed over at a time. */
const FORGET_TRIES = 64;

export const nameKey = (name: Buffer): string => name.toString("latin1");

/** "unsure": there may be such a name, of whatever inode. */
type Named = FileId | null | "unsure";

export interface Directory {
  /** The grant under which it is known. */
  readonly hold: number;
  names: Map<string, Named> | null;
  /** Every name that there is, is in `names`. */
  complete: boolean;
  /** The grant under which `names` are true. If it is an earlier one, they are what was so at `version` (hazard F32). */
  namesHold: number;
  /** The owner's, of a time at which `names` were all that there were; 0: not known. */
  version: number;
}

export class KnownNames {
  /** Those with names. */
  readonly #directories = new Set<Directory>();
  #count = 0;

  set(directory: Directory, key: string, named: Named): void {
    if (directory.names === null) {
      directory.names = new Map();
      if (!directory.complete) directory.namesHold = directory.hold;
    }
    this.#directories.add(directory);
    const before = directory.names.size;
    directory.names.set(key, named);
    this.#count += directory.names.size - before;
    if (directory.names.size > KNOWN_NAMES_MAX) return this.drop(directory);
    if (this.#count > KNOWN_NAMES_ALL_MAX) this.#dropOldest();
  }

  /** After a change of it. Where all names are known, one that is not there takes no room: else a program that renames all files would need it twice. */
  changed(directory: Directory, key: string, named: FileId | null): void {
    if (named === null && directory.complete && directory.namesHold === directory.hold) this.delete(directory, key);
    else this.set(directory, key, named);
  }

  /** Of a directory of which all is known, last: it says what is not there, too. */
  #dropOldest(): void {
    let [oldest] = this.#directories;
    let tries = FORGET_TRIES;
    for (const directory of this.#directories) {
      if (!directory.complete) oldest = directory;
      tries -= 1;
      if (!directory.complete || tries === 0) break;
    }
    if (oldest !== undefined) this.drop(oldest);
  }

  delete(directory: Directory, key: string): void {
    if (directory.names?.delete(key) === true) this.#count -= 1;
  }

  drop(directory: Directory): void {
    this.#count -= directory.names?.size ?? 0;
    directory.names = null;
    directory.complete = false;
    directory.version = 0;
    directory.namesHold = 0;
    this.#directories.delete(directory);
  }
}

interface Changed extends Recent<Changed> {
  readonly path: string;
  /** Changes under way. */
  changing: number;
  changedAt: number;
}

/** The oldest, but none that is being changed: what is read beside that may be older than it. Those count as used. null: it found none. */
export function oldestUnchanged<T extends Recent<T> & Pick<Changed, "changing">>(all: Recency<T>): T | null {
  for (let tries = 0; tries < FORGET_TRIES; tries++) {
    const { oldest } = all;
    if (oldest === null || oldest.changing === 0) return oldest;
    all.use(oldest);
  }
  return null;
}

/** When each name was changed last (hazard F21). Times are those of known.ts, which counts beginnings and ends of changes. */
export class ChangedNames {
  /** By directory and name. */
  readonly #changed = new Map<string, Changed>();
  readonly #recency = new Recency<Changed>();
  readonly #keys = new LastKey();
  /** Until then there may have been others. */
  #forgotAt = 0;

  /** `by`: 1: a change begins; -1: it ends. */
  note(directory: FileId, name: string, by: 1 | -1, now: number): void {
    const path = this.#pathOf(directory, name);
    const before = this.#changed.get(path);
    if (before === undefined) {
      const changed = { path, changing: by, changedAt: now, older: null, newer: null };
      this.#changed.set(path, changed);
      this.#recency.add(changed);
    } else {
      before.changing += by;
      before.changedAt = now;
      this.#recency.use(before);
    }
    const oldest = this.#changed.size > CHANGED_NAMES_MAX ? oldestUnchanged(this.#recency) : null;
    if (oldest === null) return;
    this.#drop(oldest);
    this.#forgotAt = Math.max(this.#forgotAt, oldest.changedAt);
  }

  #pathOf(directory: FileId, name: string): string {
    return `${this.#keys.of(directory)}/${name}`;
  }

  #drop(changed: Changed): void {
    this.#changed.delete(changed.path);
    this.#recency.remove(changed);
  }

  /** It is being changed, or may have been since then. */
  isSince(directory: FileId, name: string, at: number): boolean {
    const changed = this.#changed.get(this.#pathOf(directory, name));
    return (changed?.changing ?? 0) > 0 || Math.max(changed?.changedAt ?? 0, this.#forgotAt) > at;
  }

  /** What is under way stays under way. */
  forget(now: number): void {
    this.#forgotAt = now;
    for (const changed of this.#changed.values()) if (changed.changing === 0) this.#drop(changed);
  }
}

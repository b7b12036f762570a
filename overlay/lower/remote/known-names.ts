/** Names of directories as known.ts has them: within limits, and which of them were changed last. A name is a string of bytes here (`nameKey`). */
import { type FileId, fileKey } from "../lower.ts";

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

interface Changed {
  /** Changes under way. */
  readonly changing: number;
  readonly changedAt: number;
}

/** Takes the oldest out, but none that is being changed: what is read beside that may be older than it. null: it found none. */
export function takeOldest<T extends Pick<Changed, "changing">>(all: Map<string, T>): T | null {
  let tries = FORGET_TRIES;
  for (const [key, one] of all) {
    all.delete(key);
    if (one.changing === 0) return one;
    all.set(key, one);
    tries -= 1;
    if (tries === 0) break;
  }
  return null;
}

/** When each name was changed last (hazard F21). Times are those of known.ts, which counts beginnings and ends of changes. */
export class ChangedNames {
  /** By directory and name. */
  readonly #changed = new Map<string, Changed>();
  /** Until then there may have been others. */
  #forgotAt = 0;

  /** `by`: 1: a change begins; -1: it ends. */
  note(directory: FileId, name: string, by: 1 | -1, now: number): void {
    const path = pathOf(directory, name);
    const changing = (this.#changed.get(path)?.changing ?? 0) + by;
    this.#changed.delete(path);
    this.#changed.set(path, { changing, changedAt: now });
    if (this.#changed.size <= CHANGED_NAMES_MAX) return;
    const oldest = takeOldest(this.#changed);
    if (oldest !== null) this.#forgotAt = Math.max(this.#forgotAt, oldest.changedAt);
  }

  /** It is being changed, or may have been since then. */
  isSince(directory: FileId, name: string, at: number): boolean {
    const changed = this.#changed.get(pathOf(directory, name));
    return (changed?.changing ?? 0) > 0 || Math.max(changed?.changedAt ?? 0, this.#forgotAt) > at;
  }

  /** What is under way stays under way. */
  forget(now: number): void {
    this.#forgotAt = now;
    for (const [path, { changing }] of this.#changed) if (changing === 0) this.#changed.delete(path);
  }
}

const pathOf = (directory: FileId, name: string): string => `${fileKey(directory)}/${name}`;

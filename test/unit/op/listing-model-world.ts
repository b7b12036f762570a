/** What the nodes of the model of listings (listing-model.ts) share: directories and files of the owner, what they were at each moment, and what was found to be wrong. */
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import { type Attr, type DirEntry, type Entry, type FileId, fileKey } from "../../../overlay/lower/lower.ts";
import type { NamesTold } from "../../../overlay/lower/directory-names.ts";
import { ModelSteps } from "../coherence/model-steps.ts";
import { attrOf } from "./scripted-lower.ts";

export const DT_DIR = 4;
export const DT_REG = 8;
export const RENAME_EXCHANGE = 2;
const DIRECTORY_MODE = 0o040755;
const FILE_MODE = 0o100644;
const DOT_COOKIE = 1n;
const DOTS_COOKIE = 2n;

/** From that moment on, until the next one of the name. */
interface Named {
  readonly at: number;
  /** null: nothing has that name. */
  readonly id: FileId | null;
}

/** A name of a directory. */
export interface Cell {
  readonly history: Named[];
  /** A program was told that it is that one of the history, or a later one. */
  committed: number;
}

export interface LowerInode {
  readonly id: FileId;
  readonly isDirectory: boolean;
  /** Its ctime. */
  version: number;
  /** A program was told that it is of that version, or of a later one. */
  committed: number;
  links: number;
  readonly names: Map<string, Cell>;
  /** Changes of names, by when. */
  readonly changed: { readonly at: number; readonly name: string }[];
}

/** Which request of which node; null: of none. */
export type Tag = string | null;

function positionOf(name: string): bigint {
  let hash = 7;
  for (const letter of name) hash = (hash * 31 + letter.charCodeAt(0)) % 65_521;
  return BigInt(hash + 3);
}

export class ListingWorld {
  readonly root: FileId = { ino: 2, generation: 0 };
  readonly steps: ModelSteps;
  readonly random: () => number;
  violation: string | null = null;
  /** Counts moments. */
  moment = 1;
  /** Threads that were answered and have not taken that yet. */
  unsettled = 0;
  readonly counts: Record<string, number> = {};
  readonly log: string[] = [];
  readonly #inodes = new Map<string, LowerInode>();
  /** What a request has changed, to be known when its program is told. */
  readonly #made = new Map<string, (() => void)[]>();
  readonly #freeInos: FileId[] = [];
  #nextIno = 10;

  constructor(random: () => number) {
    this.random = random;
    this.steps = new ModelSteps(random);
    this.#enter(this.root, true);
  }

  note(text: string): void {
    if (this.violation === null) this.say(`VIOLATION ${text}`);
    this.violation ??= text;
  }

  say(text: string): void {
    const line = `${this.moment} ${text}`;
    if (line === this.log.at(-1)) return;
    this.log.push(line);
    if (this.log.length > 500) this.log.shift();
  }

  count(what: string): void {
    this.counts[what] = (this.counts[what] ?? 0) + 1;
  }

  below(limit: number): number {
    return Math.floor(this.random() * limit);
  }

  pick<T>(some: readonly T[]): T {
    return some[this.below(some.length)] as T;
  }

  /** Another moment. */
  now(): number {
    this.moment += 1;
    return this.moment;
  }

  turn(): Promise<void> {
    return new Promise((resolve) => this.steps.free.push(resolve));
  }

  /** Mostly few. */
  few(most: number): number {
    return Math.floor(this.random() ** 3 * (most + 1));
  }

  async turns(most: number): Promise<void> {
    for (let left = this.few(most); left > 0; left -= 1) await this.turn();
  }

  // --- inodes

  #enter(id: FileId, isDirectory: boolean): LowerInode {
    const made: LowerInode = { id, isDirectory, version: 1, committed: 1, links: isDirectory ? 2 : 1, names: new Map(), changed: [] };
    this.#inodes.set(fileKey(id), made);
    return made;
  }

  /** Also one that is gone. */
  inode(id: FileId): LowerInode {
    const found = this.#inodes.get(fileKey(id));
    if (found === undefined) throw new Error(`there never was an inode ${fileKey(id)}`);
    return found;
  }

  /** ESTALE: it is gone. */
  living(id: FileId): LowerInode {
    const found = this.inode(id);
    if (found.links === 0) throw errnoError(E.ESTALE);
    return found;
  }

  attr(id: FileId): Attr {
    const { isDirectory, version, links } = this.living(id);
    return attrOf(id, { mode: isDirectory ? DIRECTORY_MODE : FILE_MODE, nlink: links, size: 0, ctimeSec: version });
  }

  entry(id: FileId): Entry {
    return { id, attr: this.attr(id) };
  }

  // --- names

  cell(directory: FileId, name: string): Cell {
    const { names } = this.inode(directory);
    const cell = names.get(name) ?? { history: [{ at: 0, id: null }], committed: 0 };
    names.set(name, cell);
    return cell;
  }

  named(directory: FileId, name: string): FileId | null {
    return this.cell(directory, name).history.at(-1)?.id ?? null;
  }

  /** Each that had the name at some moment since, until then. */
  between({ history }: Cell, begin: number, end: number): readonly (FileId | null)[] {
    return history.filter(({ at }, index) => at <= end && (history[index + 1]?.at ?? Number.POSITIVE_INFINITY) > begin).map(({ id }) => id);
  }

  lookup(parent: FileId, name: string): Entry {
    this.living(parent);
    const id = this.named(parent, name);
    if (id === null) throw errnoError(E.ENOENT);
    return this.entry(id);
  }

  lookupMany(parent: FileId, names: readonly string[]): (Entry | null)[] {
    this.living(parent);
    return names.map((name) => {
      const id = this.named(parent, name);
      return id === null ? null : this.entry(id);
    });
  }

  /** Hazard F32. */
  namesSince(directory: FileId, since: number): NamesTold {
    const { names, changed } = this.living(directory);
    const all = since === 0;
    const keys = all ? [...names.keys()] : changed.filter(({ at }) => at > since).map(({ name }) => name);
    const isThere = (name: string): boolean => this.named(directory, name) !== null;
    const bytes = (some: readonly string[]): Buffer[] => some.map((name) => Buffer.from(name));
    const told = [...new Set(keys)];
    return { version: this.moment, all, names: bytes(told.filter(isThere)), gone: bytes(told.filter((name) => !isThere(name))) };
  }

  /** Those behind that position, as the hash of their names has them; at most so many. */
  list(directory: FileId, cookie: bigint, most: number): DirEntry[] {
    const { id, links, names } = this.inode(directory);
    if (links === 0) throw errnoError(E.ENOENT);
    const dots = [
      { name: Buffer.from("."), type: DT_DIR, ino: id.ino, cookie: DOT_COOKIE },
      { name: Buffer.from(".."), type: DT_DIR, ino: this.root.ino, cookie: DOTS_COOKIE },
    ];
    const named = [...names.keys()].flatMap((name) => {
      const child = this.named(directory, name);
      if (child === null) return [];
      return [{ name: Buffer.from(name), type: this.typeOf(child), ino: child.ino, cookie: positionOf(name) }];
    });
    const all = [...dots, ...named].toSorted((a, b) => Number(a.cookie - b.cookie));
    return all.filter((entry) => entry.cookie > cookie).slice(0, most);
  }

  typeOf(id: FileId): number {
    return this.inode(id).isDirectory ? DT_DIR : DT_REG;
  }

  // --- changes

  #changed(tag: Tag, id: FileId): void {
    const inode = this.inode(id);
    inode.version += 1;
    const { version } = inode;
    this.#note(tag, () => (inode.committed = Math.max(inode.committed, version)));
  }

  #note(tag: Tag, commit: () => void): void {
    if (tag !== null) this.#made.set(tag, [...(this.#made.get(tag) ?? []), commit]);
  }

  #name(tag: Tag, directory: FileId, name: string, id: FileId | null): void {
    const cell = this.cell(directory, name);
    const at = this.now();
    cell.history.push({ at, id });
    this.inode(directory).changed.push({ at, name });
    const index = cell.history.length - 1;
    this.#note(tag, () => (cell.committed = Math.max(cell.committed, index)));
    this.say(`lower: ${name} of ${fileKey(directory)} is ${id === null ? "gone" : fileKey(id)} by ${tag}`);
  }

  /** Its program was told that it is made. */
  commit(tag: string): void {
    for (const commit of this.#made.get(tag) ?? []) commit();
    this.#made.delete(tag);
  }

  make(tag: Tag, parent: FileId, name: string, isDirectory: boolean): Entry {
    this.living(parent);
    if (this.named(parent, name) !== null) throw errnoError(E.EEXIST);
    const old = this.random() < 0.7 ? this.#freeInos.pop() : undefined;
    this.#nextIno += 1;
    const id = old === undefined ? { ino: this.#nextIno, generation: 1 } : { ino: old.ino, generation: old.generation + 1 };
    this.#enter(id, isDirectory);
    this.#name(tag, parent, name, id);
    if (isDirectory) this.inode(parent).links += 1;
    this.#changed(tag, parent);
    return this.entry(id);
  }

  #unlink(tag: Tag, id: FileId): void {
    const inode = this.inode(id);
    inode.links = inode.isDirectory ? 0 : inode.links - 1;
    this.#changed(tag, id);
    if (inode.links === 0) this.#freeInos.push(id);
  }

  #expect(parent: FileId, name: string, expected: FileId | null): void {
    this.living(parent);
    const id = this.named(parent, name);
    if (id === null && expected !== null) throw errnoError(E.ENOENT);
    if ((id === null ? null : fileKey(id)) !== (expected === null ? null : fileKey(expected))) throw errnoError(E.ESTALE);
  }

  remove(tag: Tag, parent: FileId, name: string, expected: FileId, isDirectory: boolean): void {
    this.#expect(parent, name, expected);
    const { isDirectory: wasDirectory, names } = this.living(expected);
    if (wasDirectory !== isDirectory) throw errnoError(isDirectory ? E.ENOTDIR : E.EISDIR);
    if ([...names.keys()].some((one) => this.named(expected, one) !== null)) throw errnoError(E.ENOTEMPTY);
    this.#name(tag, parent, name, null);
    this.#unlink(tag, expected);
    if (isDirectory) this.inode(parent).links -= 1;
    this.#changed(tag, parent);
  }

  link(tag: Tag, id: FileId, parent: FileId, name: string): Attr {
    this.living(parent);
    if (this.living(id).isDirectory) throw errnoError(E.EPERM);
    if (this.named(parent, name) !== null) throw errnoError(E.EEXIST);
    this.#name(tag, parent, name, id);
    this.inode(id).links += 1;
    this.#changed(tag, id);
    this.#changed(tag, parent);
    return this.attr(id);
  }

  /** Of files. */
  rename(
    tag: Tag,
    [from, to]: readonly [FileId, FileId],
    [oldName, newName]: readonly [string, string],
    moved: FileId,
    replaced: FileId | null,
    flags: number,
  ): void {
    this.#expect(from, oldName, moved);
    this.living(to);
    if (replaced === null && this.named(to, newName) !== null) throw errnoError(E.ESTALE);
    this.#expect(to, newName, replaced);
    const exchange = (flags & RENAME_EXCHANGE) !== 0;
    if (exchange && replaced === null) throw errnoError(E.ENOENT);
    if (replaced !== null && fileKey(replaced) === fileKey(moved)) return;
    this.#name(tag, to, newName, moved);
    this.#name(tag, from, oldName, exchange ? replaced : null);
    this.#changed(tag, moved);
    if (replaced !== null && exchange) this.#changed(tag, replaced);
    if (replaced !== null && !exchange) this.#unlink(tag, replaced);
    this.#changed(tag, from);
    if (fileKey(to) !== fileKey(from)) this.#changed(tag, to);
  }

  touch(tag: Tag, id: FileId): Attr {
    this.living(id);
    this.#changed(tag, id);
    this.say(`lower: ${fileKey(id)} is of version ${this.inode(id).version} by ${tag}`);
    return this.attr(id);
  }
}

/**
 * A program that reads the small files of a directory one after the other (tar, grep -r, cp -r) pays a trip for each. After the second one the data of
 * those that are next is brought, in the order in which they were listed, or in that of the reads (name-order.ts). The lower keeps it under their locks until it is read (lower/remote/known.ts, hazard F21). Of
 * files whose locks and attributes came with a listing, or were read ahead (walk-ahead.ts). In a tree that is read that is done from the first one on (tree-walk.ts).
 */
import { UnderWay } from "../../dlmd/base/under-way.ts";
import { Errno } from "../../dlmd/base/errno.ts";
import { READ_MANY_FILE_BYTES_MAX } from "../lower/limits.ts";
import { type Entry, type FileId, fileKey, type Lower } from "../lower/lower.ts";
import { S_IFMT, S_IFREG } from "./linux.ts";
import { NameOrder, type Named, type Order } from "./name-order.ts";
import { TreeWalk } from "./tree-walk.ts";

/** Two such reads of a directory's files, with no longer pause between reads of such. */
const READS_MS = 1000;
/** So many files at first, then twice as many each time, up to so many at a time. */
const FILES_FIRST = 16;
const FILES_MAX = 64;
/** So many whose data was brought, and that were not read yet: with as many no more is brought. Of a directory. */
const UNREAD_MAX = 256;
/** While so many are, in all that are read now, what comes next waits until a read costs a trip: the lower keeps KNOWN_DATA_BYTES_MAX. */
const EARLY_UNREAD_MAX = 32;
/** Files of which the data may be brought: of one directory the first ones, of all those of the directories that were listed last. */
const DIRECTORY_FILES_MAX = 4096;
const FILES_ALL_MAX = 8192;
const DIRECTORIES_MAX = 256;

export interface NamedEntry extends Entry {
  readonly name: Buffer;
}

interface File extends Named {
  readonly id: FileId;
  /** Its place in the listing. */
  readonly at: number;
}

/** A directory's files. */
interface Listed {
  /** Those whose data was not brought, by key, in their order; and those whose data was, and that were not read yet. */
  readonly files: Map<string, File>;
  readonly unread: Map<string, File>;
  /** In which order they are read; what was read last, and how many in a row as they are listed. */
  order: NameOrder;
  lastAt: number;
  asListed: number;
  /** Keys of those that come next in that order; some may have been brought since. null: not sorted yet. */
  sorted: { readonly order: Order; readonly keys: readonly string[]; next: number } | null;
  /** Of the listing. */
  places: number;
  /** When one was last read, and how many were at the cost of a trip since nothing was read for READS_MS. */
  readMs: number;
  reads: number;
  next: number;
  /** How many were brought last. */
  last: number;
  underWay: boolean;
  /** What was read first, if all was brought from there on; a file was read then that was brought before. */
  first: string | null;
  used: boolean;
}

function noteOrder(listed: Listed, read: File | undefined): void {
  if (read === undefined) return;
  listed.order.note(read);
  listed.asListed = read.at > listed.lastAt ? listed.asListed + 1 : 1;
  listed.lastAt = read.at;
}

/** As they are listed, but where the reads went by another order for longer; and what is being read now comes first. */
function* nextOf(listed: Listed): Generator<readonly [string, File]> {
  const { files, first, order } = listed;
  const reading = first === null ? undefined : files.get(first);
  if (first !== null && reading !== undefined) yield [first, reading];
  if (order.order === null || order.lasted <= listed.asListed) yield* files;
  else yield* inOrder(listed, order.order);
}

function* inOrder(listed: Listed, order: Order): Generator<readonly [string, File]> {
  const { files } = listed;
  if (listed.sorted?.order !== order) {
    const keys = listed.order.rest([...files.values()], order).map(({ id }) => fileKey(id));
    listed.sorted = { order, keys, next: 0 };
  }
  for (const { sorted } = listed; sorted.next < sorted.keys.length; sorted.next += 1) {
    const key = sorted.keys[sorted.next] as string;
    const file = files.get(key);
    if (file !== undefined) yield [key, file];
  }
}

export interface FilesAheadOptions {
  readonly lower: Pick<Lower, "keeps" | "prefetch">;
  /** Milliseconds of a monotonic clock. */
  readonly now: () => number;
}

export class FilesAhead {
  readonly #options: FilesAheadOptions;
  /** By directory. */
  readonly #listed = new Map<string, Listed>();
  readonly #byFile = new Map<string, Listed>();
  readonly #byUnread = new Map<string, Listed>();
  readonly #underWay: UnderWay = new UnderWay();
  readonly #tree: TreeWalk = new TreeWalk();
  #stopped = false;

  constructor(options: FilesAheadOptions) {
    this.#options = options;
  }

  /** Files that data may be brought of. */
  get files(): number {
    return this.#byFile.size;
  }

  /** No more of it; resolves when nothing is under way. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#underWay.idle();
  }

  /** Their locks and attributes are here. `directory`: any key of it; `first`: its listing begins with them. */
  listed(directory: string, entries: readonly NamedEntry[], first: boolean): void {
    // On the owner nothing is gained.
    if (!this.#options.lower.keeps) return;
    if (first) this.#forget(directory);
    const listed: Listed = this.#listed.get(directory) ?? {
      files: new Map(),
      unread: new Map(),
      order: new NameOrder(),
      lastAt: -1,
      asListed: 0,
      sorted: null,
      places: 0,
      readMs: Number.NEGATIVE_INFINITY,
      reads: 0,
      next: FILES_FIRST,
      last: 0,
      underWay: false,
      first: null,
      used: false,
    };
    this.#listed.delete(directory);
    this.#listed.set(directory, listed);
    listed.sorted = null;
    for (const { id, attr, name } of entries) {
      if (listed.files.size >= DIRECTORY_FILES_MAX) break;
      if ((attr.mode & S_IFMT) !== S_IFREG || attr.size === 0 || attr.size > READ_MANY_FILE_BYTES_MAX) continue;
      const key = fileKey(id);
      this.#byFile.get(key)?.files.delete(key);
      // A name as it came is a view of the whole listing, and that may lie in more than a megabyte (large-buffers.ts).
      listed.files.set(key, { id, ino: id.ino, name: Buffer.from(name), at: listed.places });
      listed.places += 1;
      this.#byFile.set(key, listed);
    }
    for (const oldest of this.#listed.keys()) {
      if (this.#byFile.size <= FILES_ALL_MAX && this.#listed.size <= DIRECTORIES_MAX) break;
      this.#forget(oldest);
    }
  }

  #forget(directory: string): void {
    const listed = this.#listed.get(directory);
    if (listed === undefined) return;
    for (const key of listed.files.keys()) this.#byFile.delete(key);
    this.#forgetUnread(listed);
    this.#listed.delete(directory);
  }

  #forgetUnread(listed: Listed): void {
    for (const key of listed.unread.keys()) this.#byUnread.delete(key);
    listed.unread.clear();
  }

  /** Its beginning is about to be read: what comes with that is waited for. `key`: fileKey. */
  noteReading(key: string): void {
    const now = this.#options.now();
    if (!this.#tree.isWalked(now)) return;
    const listed = this.#byFile.get(key);
    if (listed === undefined || listed.underWay || now - listed.readMs <= READS_MS || this.#stopped) return;
    this.#tree.begins(now);
    this.#restart(listed);
    Object.assign(listed, { readMs: now, first: key });
    this.#beginBringing(listed);
  }

  /** Its beginning was read. `key`: fileKey; `cost`: a trip, or a wait for one. */
  noteRead(key: string, cost: boolean): void {
    const brought = this.#byUnread.get(key);
    if (brought !== undefined) {
      noteOrder(brought, brought.unread.get(key));
      this.#byUnread.delete(key);
      brought.unread.delete(key);
      this.#noteBroughtRead(brought, key);
      return;
    }
    const listed = cost ? this.#byFile.get(key) : undefined;
    if (listed === undefined) return;
    const now = this.#options.now();
    if (now - listed.readMs > READS_MS) this.#restart(listed);
    noteOrder(listed, listed.files.get(key));
    // It is not what was expected.
    listed.sorted = null;
    this.#take(listed, key);
    listed.readMs = now;
    listed.reads += 1;
    if (listed.reads >= 2) this.#beginBringing(listed);
  }

  #restart(listed: Listed): void {
    const order = { order: new NameOrder(), lastAt: -1, asListed: 0, sorted: null };
    Object.assign(listed, { ...order, reads: 0, next: FILES_FIRST, first: null, used: false });
    this.#forgetUnread(listed);
  }

  /** What comes next is asked for when fewer than half of the last are unread: else one read of each piece would wait for it. */
  #noteBroughtRead(listed: Listed, key: string): void {
    const now = this.#options.now();
    if (!listed.used && key !== listed.first) {
      listed.used = true;
      this.#tree.noteUse(now);
    }
    const isInRow = now - listed.readMs <= READS_MS;
    listed.readMs = now;
    if (!isInRow || listed.unread.size >= listed.last / 2) return;
    if (this.#unreadNow(now) < EARLY_UNREAD_MAX) this.#beginBringing(listed);
  }

  /** In all directories that are being read. */
  #unreadNow(now: number): number {
    let sum = 0;
    for (const { readMs, unread } of this.#listed.values()) if (now - readMs <= READS_MS) sum += unread.size;
    return sum;
  }

  #beginBringing(listed: Listed): void {
    if (!this.#stopped && !listed.underWay) this.#underWay.add(this.#bring(listed));
  }

  #take(listed: Listed, key: string): void {
    listed.files.delete(key);
    this.#byFile.delete(key);
  }

  async #bring(listed: Listed): Promise<void> {
    const most = Math.min(listed.next, UNREAD_MAX - listed.unread.size);
    if (most === 0) return;
    const ids: FileId[] = [];
    for (const [key, file] of nextOf(listed)) {
      if (ids.length === most) break;
      ids.push(file.id);
      this.#take(listed, key);
      // It has another name in a directory that was listed before.
      this.#byUnread.get(key)?.unread.delete(key);
      listed.unread.set(key, file);
      this.#byUnread.set(key, listed);
    }
    if (ids.length === 0) return;
    listed.next = Math.min(2 * listed.next, FILES_MAX);
    listed.last = ids.length;
    listed.underWay = true;
    try {
      await this.#options.lower.prefetch(ids, "data");
    } catch (error) {
      // Whoever reads the same meets the same error.
      if (!(error instanceof Errno)) throw error;
    } finally {
      listed.underWay = false;
    }
  }
}

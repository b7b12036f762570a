/**
 * A program that removes the files of a directory one after the other, moves them, or changes their owner or mode, pays for the lock of each, and where another
 * node has it that node must give it up first. `rm -r` goes by the listing. So after the second change that cost a lock the locks of the names that are listed
 * first are asked for ahead, in one message, with the attributes under them: a LOOKUP comes before each change. Names that are gone are not listed, so these
 * are the ones that such a program comes to; `chown -R` comes to the first ones first as well. Where that was in vain, and the changes go by another order
 * (name-order.ts), those that come next in that order are asked for. In a tree that is gone through that is done from the first change of a directory on
 * (tree-walk.ts).
 *
 * Other nodes give their locks up for this, before anything is changed. So names have to be earned, by changes that found such a lock here. Writes are none of
 * these: nodes that each write to their own files of one directory would take them from each other.
 */
import { UnderWay } from "../../dlmd/base/under-way.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import type { Coherence } from "../coherence/api.ts";
import type { InodeRecord, InodeTable } from "../inode/table.ts";
import type { DirEntry, DirPage, FileId, Lower, LowerHandle } from "../lower/lower.ts";
import { LISTING_BYTES_MAX } from "./call.ts";
import { DT_DIR, S_IFDIR, S_IFMT } from "./linux.ts";
import { type Named, NameOrder, type Order } from "./name-order.ts";
import { TreeWalk } from "./tree-walk.ts";
import { listAhead, NAME_BYTES } from "./walk-ahead.ts";

/** Two changes that cost a lock, with no longer pause between them. */
const CHANGES_MS = 1000;
/** So many directories at a time. */
const CHANGES_MAX = 4;
/** So many names at first, then twice as many each time, up to so many. */
const CHANGES_FIRST = 16;
const CHANGES_NAMES_MAX = 64;
/** And never more than so many for each change that was one of those, which are kept up to so many. */
const NAMES_A_HIT = 8;
const NAMES_EARNED_MAX = 256;
/** The first names may be asked for again so long after the last ones: so many are in vain at most where the changes go by another order. */
const CHANGES_AGAIN_MS = 10_000;
/** Locks that have not come are waited for no longer before more are asked for. */
const FETCH_WAIT_MS = 250;
/** A directory of more names is not sorted. */
export const SORTED_DIRECTORY_MAX = 16_384;
/** So many of the names that come next are kept, of one directory, the last that was sorted. */
export const SORTED_NAMES_MAX = 1024;

interface Piece {
  readonly cookie: bigint;
  readonly names: number;
  /** Of the directory's lock. */
  readonly hold: number;
}

interface Found {
  readonly entries: readonly Pick<DirEntry, "name" | "entry">[];
  /** Where it goes on; null: it has ended. */
  readonly cookie: bigint | null;
}

/** The names that come next in a directory in that order, as it was listed. What stands behind each is looked up when its turn comes. */
interface Left {
  readonly of: Changing;
  readonly order: Order;
  /** Of the directory's lock. */
  readonly hold: number;
  readonly names: readonly Named[];
  /** More names come behind them. */
  readonly more: boolean;
}

interface Changing {
  /** The last change that cost a lock; when names were last asked for. */
  costlyMs: number;
  askedMs: number;
  /** Names that may be asked for; how many are next. */
  earned: number;
  next: number;
  /** Changes since something was asked for last: of that, and of others, which cost a lock. */
  hits: number;
  misses: number;
  /** Something was changed that was asked for. */
  used: boolean;
  /** Generations, by number, of what was asked for and not changed since: of the last piece, and of those before it. */
  newer: Map<number, number>;
  older: Map<number, number>;
  /** Where the listing goes on; null: it has ended. */
  cookie: bigint | null;
  readonly order: NameOrder;
  /** What is asked for goes by that; null: by the listing. */
  sorted: Order | null;
  /** When each was begun. */
  readonly sortedMs: Record<Order, number>;
  /** Numbers of what is changed since a listing was asked for, which may still name it; null: none is under way. */
  gone: Set<number> | null;
}

export interface ChangesAheadOptions {
  readonly lower: Pick<Lower, "opendir" | "readdir" | "lookupMany" | "knows" | "prefetch" | "close">;
  readonly coherence: Pick<Coherence, "has" | "fetchLocks" | "grantId">;
  readonly inodes: InodeTable;
  /** Milliseconds of a monotonic clock. */
  readonly now: () => number;
}

/** True: it was asked for. What was listed before is not come to any more. */
function takeOut({ newer, older }: Changing, { ino, generation }: FileId): boolean {
  if (newer.get(ino) === generation) {
    older.clear();
    return newer.delete(ino);
  }
  return older.get(ino) === generation && older.delete(ino);
}

export class ChangesAhead {
  readonly #options: ChangesAheadOptions;
  readonly #changing = new WeakMap<InodeRecord, Changing>();
  readonly #fetches: UnderWay = new UnderWay();
  readonly #tree: TreeWalk = new TreeWalk();
  /** Of the directory that was sorted last. */
  #left: Left | null = null;
  #stopped = false;
  #held = false;

  constructor(options: ChangesAheadOptions) {
    this.#options = options;
  }

  /** No more of it; resolves when nothing is under way. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#fetches.idle();
  }

  /** True: locks are given up for the next process of this mount (hazard F33), and none is asked for ahead; false: they are kept again. */
  hold(held: boolean): void {
    this.#held = held;
  }

  /** A change begins. */
  note(dir: InodeRecord, victim: InodeRecord, name: Buffer): void {
    const changing = this.#changing.get(dir);
    const isHere = this.#options.coherence.has(victim, Mode.EX);
    const { ino } = victim.id;
    if (changing === undefined) {
      if (!isHere) this.#begin(dir, victim, name);
      return;
    }
    // chown(2) and chmod(2) of one, one that is begun again, or nodes that replace a file by turns: no other name follows from that.
    const isSame = changing.order.isLast(name);
    if (!isSame) changing.order.note({ name, ino });
    changing.gone?.add(ino);
    const wasAhead = takeOut(changing, victim.id);
    if (isSame) return;
    if (wasAhead && !changing.used) {
      changing.used = true;
      this.#tree.noteUse(this.#options.now());
    }
    if (!isHere) this.#noteCostly(dir, changing, victim);
    else if (wasAhead) {
      changing.hits += 1;
      changing.earned = Math.min(changing.earned + NAMES_A_HIT, NAMES_EARNED_MAX);
      this.#start(dir, changing, victim);
    }
  }

  /** The first change of it. */
  #begin(dir: InodeRecord, victim: InodeRecord, name: Buffer): void {
    const changing = this.#enter(dir);
    changing.order.note({ name, ino: victim.id.ino });
    const now = this.#options.now();
    if (!this.#tree.isWalked(now)) return;
    Object.assign(changing, { earned: CHANGES_FIRST, cookie: 0n });
    this.#start(dir, changing, victim);
    if (changing.gone !== null) this.#tree.begins(now);
  }

  #enter(dir: InodeRecord): Changing {
    const [costlyMs, never] = [this.#options.now(), Number.NEGATIVE_INFINITY];
    const none = { newer: new Map(), older: new Map(), cookie: null, gone: null, sorted: null };
    const times = { costlyMs, askedMs: never, sortedMs: { name: never, count: never, number: never } };
    const changing: Changing = {
      ...times,
      earned: 0,
      next: CHANGES_FIRST,
      hits: 0,
      misses: 0,
      used: false,
      order: new NameOrder(),
      ...none,
    };
    this.#changing.set(dir, changing);
    return changing;
  }

  #noteCostly(dir: InodeRecord, changing: Changing, victim: InodeRecord): void {
    const now = this.#options.now();
    const again = now - changing.costlyMs <= CHANGES_MS;
    changing.costlyMs = now;
    changing.misses += 1;
    if (!again || changing.gone !== null) return;
    const { order } = changing.order;
    const isOther = order !== null && order !== changing.sorted && now - changing.sortedMs[order] >= CHANGES_AGAIN_MS;
    if (now - changing.askedMs >= CHANGES_AGAIN_MS || (changing.misses > changing.hits && isOther)) {
      const earned = Math.max(changing.earned, CHANGES_FIRST);
      Object.assign(changing, { earned, next: CHANGES_FIRST, cookie: null, sorted: order });
      if (order !== null) changing.sortedMs[order] = now;
    }
    // Others have made names since it ended.
    if (changing.cookie === null) Object.assign(changing, { newer: new Map(), older: new Map(), cookie: 0n });
    this.#start(dir, changing, victim);
  }

  /** `victim`: the listing will name it still. */
  #start(dir: InodeRecord, changing: Changing, victim: InodeRecord): void {
    const { cookie, earned, next, newer, older } = changing;
    if (this.#stopped || this.#held || cookie === null || changing.gone !== null || this.#fetches.count >= CHANGES_MAX) return;
    const hold = this.#options.coherence.grantId(dir);
    if (hold === 0 || earned < next || newer.size + older.size > next) return;
    changing.gone = new Set([victim.id.ino]);
    changing.earned -= next;
    Object.assign(changing, { hits: 0, misses: 0 });
    changing.askedMs = this.#options.now();
    changing.next = Math.min(2 * next, CHANGES_NAMES_MAX);
    changing.cookie = null;
    this.#fetches.add(
      this.#fetch(dir, changing, { cookie, names: next, hold }).finally(() => {
        changing.gone = null;
      }),
    );
  }

  #fetch(dir: InodeRecord, changing: Changing, piece: Piece): Promise<void> {
    const { sorted } = changing;
    return listAhead(this.#options, dir, async (handle) => {
      const found = sorted === null ? await this.#listed(handle, piece) : await this.#inOrder(dir, handle, changing, sorted, piece);
      // Else it may name what another node has just made, and holds without a message (hazard F21).
      if (this.#stopped || this.#held || this.#options.coherence.grantId(dir) !== piece.hold) return;
      changing.cookie = found.cookie;
      await this.#lock(dir, changing, found.entries);
    });
  }

  async #listed(handle: LowerHandle, { cookie, names }: Piece): Promise<Found> {
    const page = await this.#options.lower.readdir(handle, cookie, Math.min(names * NAME_BYTES, LISTING_BYTES_MAX), "entries");
    const entries = page.entries.slice(0, names);
    const goesOn = entries.length < page.entries.length || !page.end;
    return { entries, cookie: goesOn ? (entries.at(-1)?.cookie ?? null) : null };
  }

  /** The cookie says only whether something is left. */
  async #inOrder(dir: InodeRecord, handle: LowerHandle, changing: Changing, order: Order, piece: Piece): Promise<Found> {
    const { names, hold } = piece;
    const left = this.#leftOf(changing, order, hold) ?? (await this.#listInOrder(handle, changing, order, hold));
    const some = left.names.slice(0, names);
    this.#left = { ...left, names: left.names.slice(names) };
    const entries =
      some.length === 0
        ? []
        : await this.#options.lower.lookupMany(
            dir.id,
            some.map(({ name }) => name),
          );
    const found = some.flatMap(({ name }, at) => (entries[at] == null ? [] : [{ name, entry: entries[at] }]));
    return { entries: found, cookie: left.names.length > names || left.more ? 0n : null };
  }

  /** null: the directory is to be listed for it. Others may have changed names since it was: those that they made are not met. */
  #leftOf(changing: Changing, order: Order, hold: number): Left | null {
    const left = this.#left;
    if (left === null || left.of !== changing || left.order !== order) return null;
    const names = changing.order.rest(left.names, order);
    return names.length > 0 || (left.hold === hold && !left.more) ? { ...left, names } : null;
  }

  /** Nothing of a directory that is too large. */
  async #listInOrder(handle: LowerHandle, of: Changing, order: Order, hold: number): Promise<Left> {
    let names: readonly Named[] = [];
    let more = false;
    let listed = 0;
    for (let cookie: bigint | null = 0n; cookie !== null; ) {
      const page: DirPage = await this.#options.lower.readdir(handle, cookie, LISTING_BYTES_MAX, "plain");
      listed += page.entries.length;
      if (listed > SORTED_DIRECTORY_MAX) return { of, order, hold, names: [], more: false };
      const next = of.order.rest([...names, ...page.entries.filter(({ type }) => type !== DT_DIR)], order);
      more ||= next.length > SORTED_NAMES_MAX;
      // A name as it came is a view of the whole page.
      names = next.slice(0, SORTED_NAMES_MAX).map(({ name, ino }) => ({ name: Buffer.from(name), ino }));
      cookie = page.end ? null : (page.entries.at(-1)?.cookie ?? null);
    }
    return { of, order, hold, names, more };
  }

  async #lock(dir: InodeRecord, changing: Changing, entries: Found["entries"]): Promise<void> {
    const { inodes, lower, coherence } = this.#options;
    changing.older = new Map([...changing.older, ...changing.newer]);
    changing.newer = new Map();
    const named: { readonly child: InodeRecord; readonly name: Buffer }[] = [];
    for (const { entry, name } of entries) {
      if (entry === undefined || (entry.attr.mode & S_IFMT) === S_IFDIR || changing.gone?.has(entry.id.ino) === true) continue;
      named.push({ child: inodes.remember(entry.id, entry.attr.mode), name });
      changing.newer.set(entry.id.ino, entry.id.generation);
    }
    const has = (child: InodeRecord): boolean => coherence.has(child, Mode.EX);
    try {
      const away = named.flatMap(({ child }) => (has(child) ? [] : [child]));
      await coherence.fetchLocks(away, Mode.EX, FETCH_WAIT_MS);
      // What was known of it under a weaker lock may be so no more.
      const unknown = named.flatMap(({ child, name }) => (has(child) && !lower.knows(dir.id, name) ? [child.id] : []));
      if (unknown.length > 0 && !this.#stopped) await lower.prefetch(unknown, "attributes");
    } finally {
      for (const { child } of named) inodes.leave(child);
    }
  }
}

/**
 * A program that removes the files of a directory one after the other pays for the lock of each, and where another node has it that node must give it up first.
 * `rm -r` goes by the listing. So after the second removal that cost a lock the locks of the names that are listed first are asked for ahead, in one message,
 * with the attributes under them: a LOOKUP comes before each removal. Names that are gone are not listed, so these are the ones that such a program comes to.
 * It goes on as long as it does.
 *
 * Other nodes give their locks up for this, before anything is removed. So it ends soon where the removals go by another order.
 */
import { UnderWay } from "../../dlmd/base/under-way.ts";
import { Errno } from "../../dlmd/base/errno.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import type { Coherence } from "../coherence/api.ts";
import type { InodeRecord, InodeTable } from "../inode/table.ts";
import type { DirEntry, Lower } from "../lower/lower.ts";
import { LISTING_BYTES_MAX } from "./call.ts";
import { S_IFDIR, S_IFMT } from "./linux.ts";

/** With a longer pause between its removals a directory is begun anew. */
const REMOVALS_MS = 1000;
/** After removals by another order nothing is asked for ahead in that directory for so long. */
const REMOVALS_AGAIN_MS = 10_000;
/** So many directories at a time. */
const REMOVALS_MAX = 4;
/** So many names at first, then twice as many each time, up to so many. */
const REMOVALS_FIRST = 16;
const REMOVALS_NAMES_MAX = 64;
/** And so many more for each removal that was one of those. */
const NAMES_A_HIT = 8;
/** So many removals in a row may cost a lock all the same. */
const MISSES_MAX = 2;
/** Locks that have not come are waited for no longer before more are asked for. */
const FETCH_WAIT_MS = 250;
/** Of a listing, for a name. What comes beside is cut off. */
const NAME_BYTES = 320;

interface Removing {
  /** The last removal that was one of those or cost a lock; when it may begin. */
  removedMs: number;
  fromMs: number;
  /** Numbers of inodes that were asked for, and not removed since; how many are next. */
  readonly ahead: Set<number>;
  next: number;
  /** Names that were asked for since it was begun, and removals of those. */
  asked: number;
  hits: number;
  /** Removals in a row that cost a lock and were none of those. */
  misses: number;
  /** Where the listing goes on; null: it has ended. */
  cookie: bigint | null;
  underWay: boolean;
}

const begun = { next: REMOVALS_FIRST, asked: 0, hits: 0, misses: 0, cookie: 0n };

export interface RemovalsAheadOptions {
  readonly lower: Pick<Lower, "opendir" | "readdir" | "knows" | "prefetch" | "close">;
  readonly coherence: Pick<Coherence, "has" | "fetchLocks" | "grantId">;
  readonly inodes: InodeTable;
  /** Milliseconds of a monotonic clock. */
  readonly now: () => number;
}

export class RemovalsAhead {
  readonly #options: RemovalsAheadOptions;
  readonly #removing = new WeakMap<InodeRecord, Removing>();
  readonly #fetches: UnderWay = new UnderWay();
  #stopped = false;

  constructor(options: RemovalsAheadOptions) {
    this.#options = options;
  }

  /** No more of it; resolves when nothing is under way. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#fetches.idle();
  }

  /** A removal begins. */
  note(dir: InodeRecord, victim: InodeRecord): void {
    const removing = this.#removing.get(dir);
    if (removing?.ahead.delete(victim.id.ino) === true) {
      removing.removedMs = this.#options.now();
      removing.misses = 0;
      removing.hits += 1;
      const { ahead, next, asked, hits } = removing;
      if (ahead.size <= next && asked + next <= REMOVALS_FIRST + NAMES_A_HIT * hits) this.#start(dir, removing);
    } else if (!this.#options.coherence.has(victim, Mode.EX)) this.#noteCostly(dir, removing);
  }

  #noteCostly(dir: InodeRecord, removing: Removing | undefined): void {
    const now = this.#options.now();
    if (removing === undefined) {
      this.#removing.set(dir, { removedMs: now, fromMs: now, ahead: new Set(), underWay: false, ...begun });
      return;
    }
    const paused = now - removing.removedMs > REMOVALS_MS;
    removing.removedMs = now;
    if (removing.underWay || now < removing.fromMs) return;
    if (paused) return this.#restart(removing);
    if (removing.ahead.size === 0) {
      removing.cookie ??= 0n;
      return this.#start(dir, removing);
    }
    removing.misses += 1;
    if (removing.misses <= MISSES_MAX) return;
    removing.fromMs = now + REMOVALS_AGAIN_MS;
    this.#restart(removing);
  }

  #restart(removing: Removing): void {
    removing.ahead.clear();
    Object.assign(removing, begun);
  }

  #start(dir: InodeRecord, removing: Removing): void {
    const { cookie } = removing;
    const hold = this.#options.coherence.grantId(dir);
    if (this.#stopped || cookie === null || hold === 0 || removing.underWay || this.#fetches.count >= REMOVALS_MAX) return;
    removing.underWay = true;
    this.#fetches.add(
      this.#fetch(dir, removing, cookie, hold).finally(() => {
        removing.underWay = false;
      }),
    );
  }

  /** `hold`: of the directory's lock. */
  async #fetch(dir: InodeRecord, removing: Removing, cookie: bigint, hold: number): Promise<void> {
    const { inodes, lower, coherence } = this.#options;
    const { next } = removing;
    removing.next = Math.min(2 * next, REMOVALS_NAMES_MAX);
    removing.asked += next;
    removing.cookie = null;
    inodes.use(dir);
    try {
      const handle = await lower.opendir(dir.id);
      try {
        const page = await lower.readdir(handle, cookie, Math.min(next * NAME_BYTES, LISTING_BYTES_MAX), "entries");
        // Else it may name what another node has just made, and holds without a message (hazard F21).
        if (this.#stopped || coherence.grantId(dir) !== hold) return;
        const entries = page.entries.slice(0, next);
        if (entries.length < page.entries.length || !page.end) removing.cookie = entries.at(-1)?.cookie ?? null;
        await this.#lock(dir, removing, entries);
      } finally {
        lower.close(handle);
      }
    } catch (error) {
      // Whoever asks for the same meets the same error.
      if (!(error instanceof Errno)) throw error;
    } finally {
      inodes.leave(dir);
    }
  }

  async #lock(dir: InodeRecord, { ahead }: Removing, entries: readonly DirEntry[]): Promise<void> {
    const { inodes, lower, coherence } = this.#options;
    const children: InodeRecord[] = [];
    const named = new Map<InodeRecord, Buffer>();
    for (const { entry, name } of entries) {
      if (entry === undefined || (entry.attr.mode & S_IFMT) === S_IFDIR) continue;
      const child = inodes.remember(entry.id, entry.attr.mode);
      children.push(child);
      named.set(child, name);
      ahead.add(child.id.ino);
    }
    const has = (child: InodeRecord): boolean => coherence.has(child, Mode.EX);
    try {
      const away = children.filter((child) => !has(child));
      await coherence.fetchLocks(away, Mode.EX, FETCH_WAIT_MS);
      // What was known of it under a weaker lock may be so no more.
      const unknown = [...named].flatMap(([child, name]) => (has(child) && !lower.knows(dir.id, name) ? [child.id] : []));
      if (unknown.length > 0 && !this.#stopped) await lower.prefetch(unknown, "attributes");
    } finally {
      for (const child of children) inodes.leave(child);
    }
  }
}

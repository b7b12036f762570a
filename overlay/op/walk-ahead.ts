/**
 * A program that looks at the files of a directory one after the other pays a lock and a trip or two for each. After the second one that cost a lock,
 * the directory is read ahead: its names, the locks of what they name, and the attributes under those. No other node has to give up the lock of a file. The kernel is
 * told nothing. The lower keeps what it may (lower/remote/known.ts, hazard F21), and the LOOKUPs that follow are answered from that. In a tree that is walked it is
 * read ahead from the first LOOKUP on, which waits for that (tree-walk.ts).
 *
 * For each LOOKUP that cost a lock WALK_NAMES_A_LOOK are read ahead at most, and WALK_NAMES_A_HIT for one that did not, which shows that it is of use, or where
 * some in a row go by an order (name-order.ts): that is no look here and there. But
 * never more than WALK_UNUSED_MAX beyond what was looked at: who goes through a huge directory by its sorted names meets few of those that are listed next,
 * and the locks that nobody used are given back before he comes to them.
 */
import { UnderWay } from "../../dlmd/base/under-way.ts";
import { Errno } from "../../dlmd/base/errno.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import type { Coherence } from "../coherence/api.ts";
import type { ChildPin } from "../coherence/cover.ts";
import type { InodeRecord, InodeTable } from "../inode/table.ts";
import type { Entry, Lower, LowerHandle } from "../lower/lower.ts";
import { LISTING_BYTES_MAX } from "./call.ts";
import type { NamedEntry } from "./files-ahead.ts";
import { S_IFDIR, S_IFMT } from "./linux.ts";
import { NameOrder } from "./name-order.ts";
import { TreeWalk } from "./tree-walk.ts";

/** Two such LOOKUPs in a directory, of different files, with no longer pause between its LOOKUPs. */
const WALK_MS = 1000;
/** A directory that was read to its end is not read ahead again before this time is over since its beginning. */
const WALK_AGAIN_MS = 10_000;
/** So many directories at a time; of the others nothing is read ahead. */
const WALKS_MAX = 4;
/** So many names for each LOOKUP of the walk that cost a lock ... */
const WALK_NAMES_A_LOOK = 16;
/** ... and for one that did not. A program that goes by the names, and not by the listing, meets few of the first that are read ahead. */
const WALK_NAMES_A_HIT = 256;
/** So many names of one pass through the directory that nobody has looked at yet. A directory of that size is read ahead whole, in whatever order it is met. */
const WALK_UNUSED_MAX = 8192;
/** So many names at first, then twice as many each time, up to so many at a time. */
const WALK_NAMES_FIRST = 64;
const WALK_NAMES_MAX = 512;
/** Of a listing, for a name: enough for one of some 100 bytes. What comes beside is cut off. */
export const NAME_BYTES = 320;
const LISTING_BYTES_MIN = 4096;
/** Locks of directories that have not come are waited for no longer. */
const BRING_WAIT_MS = 20;
/** What is known already is passed over, but so many pieces of a listing are asked for at a time. */
const WALK_PAGES_MAX = 8;

interface Walked {
  /** The last LOOKUP. */
  lookedMs: number;
  /** What the last one that cost a lock found; 0: nothing, or what is changed since. */
  costlyNodeid: number;
  /** Of its LOOKUPs. */
  order: NameOrder;
  /** Earned by LOOKUPs of this walk; names that were read ahead in it, and how many are next. */
  earned: number;
  names: number;
  next: number;
  /** Names read ahead since the directory was last begun, less the LOOKUPs since then. */
  unused: number;
  /** When the directory was last begun, and where that goes on; null: at its end. */
  begunMs: number;
  cookie: bigint | null;
  underWay: boolean;
  /** It waits for other nodes: no LOOKUP waits for that (hazard F13). */
  bringing: boolean;
  /** A LOOKUP was answered by what was read ahead in this walk. */
  used: boolean;
  /** LOOKUPs that wait for the piece of the listing that is being read. */
  waiting: (() => void)[];
}

interface Wanted {
  readonly from: bigint;
  readonly names: number;
}

/** What they wait for is known now, or will not be in time. */
function letGo(walked: Walked): void {
  const { waiting } = walked;
  walked.waiting = [];
  for (const resolve of waiting) resolve();
}

/** `work` with a handle of that directory, which is in use meanwhile. An errno ends it: whoever asks for the same meets the same error. */
export async function listAhead(
  { inodes, lower }: { readonly inodes: InodeTable; readonly lower: Pick<Lower, "opendir" | "close"> },
  dir: InodeRecord,
  work: (handle: LowerHandle) => Promise<void>,
): Promise<void> {
  inodes.use(dir);
  try {
    const handle = await lower.opendir(dir.id);
    try {
      await work(handle);
    } finally {
      lower.close(handle);
    }
  } catch (error) {
    if (!(error instanceof Errno)) throw error;
  } finally {
    inodes.leave(dir);
  }
}

export interface WalkAheadOptions {
  readonly lower: Pick<Lower, "opendir" | "readdir" | "keeps" | "knows" | "prefetch" | "close">;
  readonly coherence: Pick<Coherence, "tryPin" | "unpin" | "grantId" | "pinChildren" | "since" | "fetchLocks" | "has">;
  readonly inodes: InodeTable;
  /** Of these the locks came. `first`: the directory's listing begins with them. */
  readonly listed: (dir: InodeRecord, entries: readonly NamedEntry[], first: boolean) => void;
  /** Milliseconds of a monotonic clock. */
  readonly now: () => number;
}

export class WalkAhead {
  readonly #options: WalkAheadOptions;
  readonly #walked = new WeakMap<InodeRecord, Walked>();
  readonly #walks: UnderWay = new UnderWay();
  readonly #tree: TreeWalk = new TreeWalk();
  #stopped = false;
  #held = false;

  constructor(options: WalkAheadOptions) {
    this.#options = options;
  }

  /** Directories that are being read ahead. */
  get walks(): number {
    return this.#walks.count;
  }

  /** No more of it; resolves when nothing is under way. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#walks.idle();
  }

  /** True: locks are given up for the next process of this mount (hazard F33), and other nodes are asked for none; false: they are again. */
  hold(held: boolean): void {
    this.#held = held;
  }

  /** Of that name. Where it would ask the owner while the directory is read ahead: what it waits for; else null. */
  noteLookup(dir: InodeRecord, name: Buffer): Promise<void> | null {
    const { lower } = this.#options;
    const now = this.#options.now();
    // In a tree its first LOOKUP of all is as one after a pause.
    const walked = this.#walked.get(dir) ?? (this.#tree.isWalked(now) ? this.#begin(dir, 0, Number.NEGATIVE_INFINITY) : null);
    if (walked === null) return null;
    const isFirst = now - walked.lookedMs > WALK_MS;
    if (isFirst) this.#restart(walked);
    walked.lookedMs = now;
    walked.order.note({ name, ino: 0 });
    // As one that cost no lock, until it has (`noteCostly`).
    walked.earned += WALK_NAMES_A_HIT;
    walked.unused = Math.max(walked.unused - 1, 0);
    // On the owner itself a look takes no longer than that.
    if (!lower.keeps) return null;
    if (lower.knows(dir.id, name)) {
      if (walked.names > 0 && !walked.used) this.#tree.noteUse(now);
      walked.used ||= walked.names > 0;
      return null;
    }
    if (isFirst) this.#startInTree(dir, walked, now);
    if (!walked.underWay || walked.bringing) return null;
    return new Promise((resolve) => walked.waiting.push(resolve));
  }

  #startInTree(dir: InodeRecord, walked: Walked, now: number): void {
    if (!this.#tree.isWalked(now) || !this.#mayStart(walked, now)) return;
    this.#start(dir, walked, now);
    if (walked.underWay) this.#tree.begins(now);
  }

  /** One of the LOOKUPs that were noted had to ask for the lock of what it found, and has it. */
  noteCostly(dir: InodeRecord, child: InodeRecord): void {
    const now = this.#options.now();
    const walked = this.#walked.get(dir);
    if (walked === undefined) {
      this.#begin(dir, child.fuseNodeid, now);
      return;
    }
    if (walked.order.order === null) walked.earned += WALK_NAMES_A_LOOK - WALK_NAMES_A_HIT;
    const { costlyNodeid } = walked;
    walked.costlyNodeid = child.fuseNodeid;
    if (costlyNodeid === 0 || costlyNodeid === child.fuseNodeid) return;
    if (this.#mayStart(walked, now)) this.#start(dir, walked, now);
  }

  #mayStart(walked: Walked, now: number): boolean {
    if (this.#stopped || walked.underWay || this.#walks.count >= WALKS_MAX) return false;
    if (walked.cookie === null && now - walked.begunMs < WALK_AGAIN_MS) return false;
    return walked.names + walked.next <= WALK_NAMES_FIRST + walked.earned;
  }

  #start(dir: InodeRecord, walked: Walked, now: number): void {
    if (walked.cookie === null) Object.assign(walked, { begunMs: now, unused: 0 });
    if (walked.unused + walked.next > WALK_UNUSED_MAX) return;
    walked.underWay = true;
    this.#walks.add(
      this.#walk(dir, walked).finally(() => {
        walked.underWay = false;
        letGo(walked);
      }),
    );
  }

  /** What is changed is no file of a walk, though a LOOKUP came before: its locks are asked for by changes-ahead.ts, in EX, and one in PR would be in the way of that. */
  noteChange(dir: InodeRecord, child: InodeRecord): void {
    const walked = this.#walked.get(dir);
    if (walked?.costlyNodeid === child.fuseNodeid) walked.costlyNodeid = 0;
  }

  #begin(dir: InodeRecord, costlyNodeid: number, now: number): Walked {
    const begun = { begunMs: Number.NEGATIVE_INFINITY, cookie: null, underWay: false, bringing: false, used: false, waiting: [] };
    const order = new NameOrder();
    const walked: Walked = { lookedMs: now, costlyNodeid, order, earned: 0, names: 0, next: WALK_NAMES_FIRST, unused: 0, ...begun };
    this.#walked.set(dir, walked);
    return walked;
  }

  /** Another walk, which goes on where the last one was. */
  #restart(walked: Walked): void {
    Object.assign(walked, { costlyNodeid: 0, order: new NameOrder(), earned: 0, names: 0, next: WALK_NAMES_FIRST, used: false });
  }

  async #walk(dir: InodeRecord, walked: Walked): Promise<void> {
    const { inodes, lower } = this.#options;
    const { cookie, next } = walked;
    walked.cookie = null;
    walked.names += next;
    walked.unused += next;
    walked.next = Math.min(2 * next, WALK_NAMES_MAX);
    await listAhead({ inodes, lower }, dir, async (handle) => {
      walked.cookie = await this.#read(dir, walked, handle, { from: cookie ?? 0n, names: next });
    });
  }

  /** Gives where it is to go on; null: there is no more. */
  async #read(dir: InodeRecord, walked: Walked, handle: LowerHandle, { from, names }: Wanted): Promise<bigint | null> {
    const { lower } = this.#options;
    let cookie = from;
    let left = names;
    let pageNames = names;
    for (let pages = 0; left > 0 && pages < WALK_PAGES_MAX; pages++) {
      const hold = this.#holdOf(dir);
      if (this.#stopped || hold === 0) return null;
      const bytes = Math.min(Math.max(pageNames * NAME_BYTES, LISTING_BYTES_MIN), LISTING_BYTES_MAX);
      const page = await lower.readdir(handle, cookie, bytes, "entries");
      // Else it may name what another node has just made, and holds without a message (hazard F21).
      if (this.#holdOf(dir) !== hold) return null;
      const some: NamedEntry[] = [];
      const first = cookie === 0n;
      for (const { name, entry, cookie: after } of page.entries) {
        if (some.length === left) break;
        if (entry !== undefined && !lower.knows(dir.id, name)) some.push({ id: entry.id, attr: entry.attr, name });
        cookie = after;
      }
      if (page.entries.length === 0) return null;
      const away = await this.#readChildren(dir, some, first);
      letGo(walked);
      await this.#bringDirectories(dir, walked, away);
      if (page.end && cookie === page.entries.at(-1)?.cookie) return null;
      left -= some.length;
      pageNames = some.length === 0 ? WALK_NAMES_MAX : left;
    }
    return cookie;
  }

  /** As long as it is the same the directory's lock has not left. 0: it is not here, or wanted elsewhere. Nothing stays pinned: the owner may take long. */
  #holdOf(dir: InodeRecord): number {
    const { coherence } = this.#options;
    if (!coherence.tryPin(dir, Mode.PR)) return 0;
    const hold = coherence.grantId(dir);
    coherence.unpin(dir, Mode.PR);
    return hold;
  }

  /** Gives the directories that other nodes keep to themselves. */
  async #readChildren(dir: InodeRecord, entries: readonly NamedEntry[], first: boolean): Promise<readonly Entry[]> {
    if (entries.length === 0) return [];
    const pins = await this.#lockChildren(entries);
    const came = entries.filter((_, at) => pins[at]?.pinned === true && pins[at].trip);
    if (this.#stopped || this.#holdOf(dir) === 0) return [];
    if (came.length > 0) {
      await this.#prefetch(came);
      this.#options.listed(dir, came, first);
    }
    return entries.filter(({ attr }, at) => pins[at]?.pinned === false && (attr.mode & S_IFMT) === S_IFDIR);
  }

  async #prefetch(entries: readonly Entry[]): Promise<void> {
    await this.#options.lower.prefetch(
      entries.map(({ id }) => id),
      "attributes",
    );
  }

  /** Who has made a directory has it in EX, whatever it does now, and keeps PR when it is asked, as by a listing (dir.ts). */
  async #bringDirectories(dir: InodeRecord, walked: Walked, entries: readonly Entry[]): Promise<void> {
    if (entries.length === 0 || this.#stopped || this.#held) return;
    const { coherence, inodes } = this.#options;
    const children = entries.map(({ id, attr }) => inodes.remember(id, attr.mode));
    walked.bringing = true;
    try {
      await coherence.fetchLocks(children, Mode.PR, BRING_WAIT_MS);
      const came = entries.filter((_, at) => coherence.has(children[at] as InodeRecord, Mode.PR));
      if (came.length > 0 && !this.#stopped && this.#holdOf(dir) !== 0) await this.#prefetch(came);
    } finally {
      walked.bringing = false;
      for (const child of children) inodes.leave(child);
    }
  }

  /** Nothing stays pinned. No other node is asked to give one of these up, not even later. */
  async #lockChildren(entries: readonly Entry[]): Promise<readonly ChildPin[]> {
    const { coherence, inodes } = this.#options;
    const children = entries.map(({ id, attr }) => inodes.remember(id, attr.mode));
    try {
      const pins = await coherence.pinChildren(children, coherence.since(), false);
      children.forEach((child, at) => {
        if (pins[at]?.pinned === true) coherence.unpin(child, Mode.PR);
      });
      return pins;
    } finally {
      for (const child of children) inodes.leave(child);
    }
  }
}

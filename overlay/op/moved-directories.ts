/**
 * Directories that another node gave another place, and that this kernel may have at the old one (hazard F46). No message moves a directory in a kernel's cache of names;
 * a LOOKUP at the new place does (fs/dcache.c, d_splice_alias). So a thread of our own looks there: before the directory's attributes are told, for which the
 * kernel asks before it goes up from it (fs/namei.c, link_path_walk), and soon after the move, for getcwd(2), before which it asks nothing.
 */
import { E, Errno, errnoError } from "../../dlmd/base/errno.ts";
import type { Log } from "../../dlmd/base/log.ts";
import { inTime, type MaybePromise } from "../../dlmd/base/maybe-promise.ts";
import type { Inode } from "../coherence/cover.ts";
import type { InodeRecord, InodeTable } from "../inode/table.ts";
import type { MoveListener } from "../lower/directory-moves.ts";
import type { FileId } from "../lower/lower.ts";
import type { Call } from "./call.ts";

/** A GETATTR waits so long: whoever asks may have the lock of a directory on the way there. Then it is answered without validity. */
export const PLACE_WAIT_MS = 1000;
/** After the last move that was told of, directories are looked at that nobody has asked about: many moves are not to wait for looks. */
export const PLACE_QUIET_MS = 50;
/** Of those at most so many; the others are looked at when they are asked about. */
export const PLACE_LOOKS_MAX = 64;
/** A thread of our own waits no longer for an answer on its way: else it would keep the mount busy for as long as an owner is away. */
export const WALK_ANSWER_MS = 1000;
/** The directory may move while it is looked for. */
const PLACE_TRIES_MAX = 3;
/** By another look: it has moved again, or something else moves. */
const MAY_BE_FOUND: ReadonlySet<number> = new Set([E.ENOENT, E.ENOTDIR, E.ESTALE]);

export interface MovedDirectoriesOptions {
  readonly inodes: Pick<InodeTable, "root" | "find" | "all">;
  /** Lower.pathOf */
  readonly pathOf: (id: FileId) => MaybePromise<Buffer>;
  /** OwnInodes.walk; null: this kernel caches no places. */
  readonly walk: ((path: Buffer) => Promise<number>) | null;
  readonly log: Log;
}

export class MovedDirectories implements MoveListener {
  readonly #options: MovedDirectoriesOptions;
  /** Those that may be at another place than this kernel has them, with the number of the last move. */
  readonly #moved = new Map<Inode, number>();
  readonly #looks = new Map<Inode, Promise<void>>();
  readonly #toLook = new Set<Inode>();
  #moves = 0;
  #timer: NodeJS.Timeout | null = null;
  #walking = 0;
  #isOver = false;
  #held = false;

  constructor(options: MovedDirectoriesOptions) {
    this.#options = options;
  }

  moved(id: FileId): void {
    const { inodes, walk } = this.#options;
    const inode = inodes.find(id);
    if (walk === null || this.#isOver || inode === undefined || inode === inodes.root) return;
    this.#note(inode);
    if (this.#toLook.size < PLACE_LOOKS_MAX) this.#toLook.add(inode);
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#lookAtAll(), PLACE_QUIET_MS);
    this.#timer.unref();
  }

  missed(): void {
    const { inodes, walk } = this.#options;
    if (walk === null || this.#isOver) return;
    for (const inode of inodes.all()) if (inode.kind === "directory" && inode !== inodes.root) this.#note(inode);
  }

  #note(inode: InodeRecord): void {
    this.#moved.set(inode, (this.#moves += 1));
  }

  /** This kernel may have it at another place: what is told of it has no validity. */
  mayBeElsewhere(inode: Inode): boolean {
    return this.#moved.size > 0 && this.#moved.has(inode);
  }

  /** Which move of it this kernel may not have; 0: none. */
  lastMove(inode: Inode): number {
    return this.#moved.size === 0 ? 0 : (this.#moved.get(inode) ?? 0);
  }

  /** A thread of our own is on its way: what it asks about names and directories is answered. */
  get walking(): boolean {
    return this.#walking > 0;
  }

  /** Another process is about to go on with this mount (hazard F33): nobody looks, and a thread that is on its way comes back. */
  hold(held: boolean): void {
    this.#held = held;
  }

  /** What a thread of our own asks on its way: for so long, or not at all. Errno EAGAIN. */
  askedOnTheWay(call: Pick<Call, "interrupt" | "kept">): void {
    if (this.#held) throw errnoError(E.EAGAIN);
    const end = (): void => {
      // What waits for the lease must not go out without it.
      if (!call.kept) call.interrupt();
    };
    setTimeout(end, WALK_ANSWER_MS).unref();
  }

  /** This kernel has moved it, or forgotten it. */
  isPlaced(inode: Inode): void {
    this.#moved.delete(inode);
    this.#toLook.delete(inode);
  }

  /** Resolves when this kernel has that directory where it is, or after PLACE_WAIT_MS. Without a pin: the look needs locks of other directories. */
  placed(inode: Inode): MaybePromise<unknown> {
    return this.mayBeElsewhere(inode) ? inTime(this.#look(inode), PLACE_WAIT_MS) : undefined;
  }

  async #lookAtAll(): Promise<void> {
    this.#timer = null;
    const inodes = [...this.#toLook];
    this.#toLook.clear();
    // One after the other: each may take a lock from who moves the next.
    for (const inode of inodes) if (this.mayBeElsewhere(inode)) await this.#look(inode);
  }

  /** One at a time of each. */
  #look(inode: Inode): Promise<void> {
    const running = this.#looks.get(inode);
    if (running !== undefined) return running;
    const look = this.#lookUntilPlaced(inode).finally(() => this.#looks.delete(inode));
    this.#looks.set(inode, look);
    return look;
  }

  async #lookUntilPlaced(inode: Inode): Promise<void> {
    for (let tries = 0; tries < PLACE_TRIES_MAX && !this.#isOver && !this.#held; tries += 1) {
      const move = this.#moved.get(inode);
      if (move === undefined) return;
      const ino = await this.#lookOnce(inode.id);
      // Removed: it is nowhere, and can not come back.
      if (ino === null) return this.isPlaced(inode);
      if (ino === inode.id.ino && this.#moved.get(inode) === move) return this.isPlaced(inode);
      if (ino >= 0 || MAY_BE_FOUND.has(-ino)) continue;
      this.#options.log.debug({ inode: inode.key, errno: -ino }, "this node can not look at the place of a directory that was moved");
      return;
    }
  }

  /** The inode number at the place of that directory, or a negative errno; null: it has no place. */
  async #lookOnce(id: FileId): Promise<number | null> {
    const { pathOf, walk } = this.#options;
    if (walk === null) return null;
    this.#walking += 1;
    try {
      return await walk(await pathOf(id));
    } catch (error) {
      if (!(error instanceof Errno)) throw error;
      return error.errno === E.ESTALE ? null : -error.errno;
    } finally {
      this.#walking -= 1;
    }
  }

  end(): void {
    this.#isOver = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#moved.clear();
    this.#toLook.clear();
  }
}

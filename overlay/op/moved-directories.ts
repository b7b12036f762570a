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
/** When no move was told of for so long, directories are looked at that nobody has asked about: many moves are not to wait for looks. */
export const PLACE_QUIET_MS = 50;
/** That is put off no more often: somebody may move directories all the time. */
export const PUT_OFF_MAX = 20;
/** Of those at most so many; the others are looked at when they are asked about. */
export const PLACE_LOOKS_MAX = 64;
/** Those that could not be looked at are tried again so late. */
export const PLACE_AGAIN_MS = 1000;
/** Threads that look, at a time: each waits for other nodes, and there are others who need such threads (native/src/pool.cc). */
export const WALKS_MAX = 16;
/** A thread of our own waits no longer for an answer on its way: else it would keep the mount busy for as long as an owner is away. */
export const WALK_ANSWER_MS = 1000;
/** Between two tries of one look: the kernel moves a directory only if two of its locks are free at that moment (`__d_unalias`). */
const TRY_AGAIN_MS = 10;
/** By another try: it has moved again, or something else moves. */
const MAY_BE_FOUND: ReadonlySet<number> = new Set([E.ENOENT, E.ENOTDIR, E.ELOOP, E.ESTALE]);
/** This node can not look there, whenever: the mount's path leads elsewhere, something is mounted on the way, or the path is too long. */
const CAN_NOT_LOOK: ReadonlySet<number> = new Set([E.EXDEV, E.ENAMETOOLONG]);

export interface MovedDirectoriesOptions {
  readonly inodes: Pick<InodeTable, "root" | "find" | "all">;
  /** Lower.pathOf */
  readonly pathOf: (id: FileId) => MaybePromise<Buffer>;
  /** OwnInodes.walk; null: this kernel caches no places. */
  readonly walk: ((path: Buffer) => Promise<number>) | null;
  readonly log: Log;
}

interface Look {
  readonly over: Promise<void>;
  /** It has lasted longer than anybody waits. */
  isLate: boolean;
}

export class MovedDirectories implements MoveListener {
  readonly #options: MovedDirectoriesOptions;
  /** Those that may be at another place than this kernel has them, with the number of the last move. */
  readonly #moved = new Map<Inode, number>();
  readonly #looks = new Map<Inode, Look>();
  readonly #toLook = new Set<Inode>();
  readonly #queue: (() => void)[] = [];
  #moves = 0;
  #timer: NodeJS.Timeout | null = null;
  #putOff = 0;
  /** No move was told of since the timer began. */
  #isQuiet = true;
  #looking = false;
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
    this.#isQuiet = this.#timer === null;
    this.#lookIn(PLACE_QUIET_MS);
  }

  #lookIn(ms: number): void {
    if (this.#timer !== null || this.#looking || this.#held || this.#isOver) return;
    this.#timer = setTimeout(() => {
      this.#lookAtAll().catch((error: unknown) => this.#options.log.error({ err: error }, "a look at a directory that was moved failed"));
    }, ms);
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
    return this.lastMove(inode) !== 0;
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
    if (!held && this.#toLook.size > 0) this.#lookIn(PLACE_QUIET_MS);
  }

  /** Before what a thread of our own asks on its way. Errno EAGAIN: it is not to go on. */
  askedOnTheWay(): void {
    if (this.#held) throw errnoError(E.EAGAIN);
  }

  /** What a thread of our own asks on its way ends with EINTR, if it is not answered in time. */
  endInTime(call: Pick<Call, "interrupt" | "kept">): void {
    const end = (): void => {
      // What waits for the lease must not go out without it.
      if (call.kept) this.endInTime(call);
      else call.interrupt();
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
    if (!this.mayBeElsewhere(inode)) return undefined;
    const look = this.#look(inode);
    // Nobody waits for the same one twice.
    return look.isLate ? undefined : this.#inTime(look);
  }

  async #inTime(look: Look): Promise<void> {
    if (!(await inTime(look.over, PLACE_WAIT_MS))) look.isLate = true;
  }

  /** One after the other: each may take a lock from who moves the next. */
  async #lookAtAll(): Promise<void> {
    this.#timer = null;
    if (!this.#isQuiet && this.#putOff < PUT_OFF_MAX) {
      this.#putOff += 1;
      this.#isQuiet = true;
      return this.#lookIn(PLACE_QUIET_MS);
    }
    this.#putOff = 0;
    this.#looking = true;
    try {
      for (const inode of this.#toLook) {
        if (this.mayBeElsewhere(inode)) await this.#look(inode).over;
        if (!this.mayBeElsewhere(inode)) this.#toLook.delete(inode);
      }
    } finally {
      this.#looking = false;
      if (this.#toLook.size > 0) this.#lookIn(PLACE_AGAIN_MS);
    }
  }

  /** One at a time of each. */
  #look(inode: Inode): Look {
    const running = this.#looks.get(inode);
    if (running !== undefined) return running;
    const over = this.#lookUntilPlaced(inode).finally(() => this.#looks.delete(inode));
    const look: Look = { over, isLate: false };
    this.#looks.set(inode, look);
    return look;
  }

  async #lookUntilPlaced(inode: Inode): Promise<void> {
    for (let waitedMs = 0; !this.#isOver && !this.#held; waitedMs += TRY_AGAIN_MS) {
      const move = this.#moved.get(inode);
      if (move === undefined) return;
      const ino = await this.#lookOnce(inode.id);
      // Removed: it is nowhere, and can not come back.
      if (ino === null) return this.isPlaced(inode);
      if (ino === inode.id.ino && this.#moved.get(inode) === move) return this.isPlaced(inode);
      if (ino < 0 && CAN_NOT_LOOK.has(-ino)) {
        this.#options.log.debug(
          { inode: inode.cover.key, errno: -ino },
          "this node can not look at the place of a directory that was moved",
        );
        return this.isPlaced(inode);
      }
      if ((ino < 0 && !MAY_BE_FOUND.has(-ino)) || waitedMs >= PLACE_WAIT_MS) return;
      await new Promise((resolve) => setTimeout(resolve, TRY_AGAIN_MS));
    }
  }

  /** The inode number at the place of that directory, or a negative errno; null: it has no place. */
  async #lookOnce(id: FileId): Promise<number | null> {
    const { pathOf, walk } = this.#options;
    if (walk === null) return null;
    let path: Buffer;
    try {
      path = await pathOf(id);
    } catch (error) {
      if (!(error instanceof Errno)) throw error;
      return error.errno === E.ESTALE ? null : -error.errno;
    }
    if (this.#walking >= WALKS_MAX) await new Promise<void>((resolve) => this.#queue.push(resolve));
    this.#walking += 1;
    try {
      return await walk(path);
    } finally {
      this.#walking -= 1;
      this.#queue.shift()?.();
    }
  }

  end(): void {
    this.#isOver = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#moved.clear();
    this.#toLook.clear();
  }
}

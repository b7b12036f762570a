/**
 * All covers of a mount, and when one goes: a lock outlives the kernel's knowledge of its inode for as long as there is room, because the
 * inode may be looked up again.
 */
import { Mode } from "../../../dlmd/wire/mode.ts";
import { Cover, type Inode, type InodeKind, NO_TAKER } from "../cover.ts";
import { FileIdMap } from "../../lower/file-id-map.ts";
import type { FileId } from "../../lower/lower.ts";
import { dropUnregistered, mayNameBorn } from "./new-inodes.ts";
import type { CoherenceState } from "../effect.ts";
import { dropNames, forgetNames } from "../names/names.ts";

/** Locks of inodes that the kernel has forgotten are kept up to this many, the longest unused go first. */
const IDLE_COVERS_MAX = 65_536;
/** Idle locks given back at once when the limit is passed. */
const IDLE_BATCH = 256;

export class CoverTable {
  readonly #state: CoherenceState;
  /** Gives back what dlmd has of it. */
  readonly #unlock: (cover: Cover) => void;
  readonly #covers = new FileIdMap<Cover>();
  /** Of lost inodes, whose identity one of another kind has now (inode/table.ts), but the kernel knows them, or something still goes on with their locks. */
  readonly #replaced = new Set<Cover>();
  readonly #idle = new Set<Cover>();
  /** Forgotten, and not worth keeping, but something was still going on with their locks. */
  readonly #lingering = new Set<Cover>();

  constructor(state: CoherenceState, unlock: (cover: Cover) => void) {
    this.#state = state;
    this.#unlock = unlock;
  }

  get size(): number {
    return this.#covers.size;
  }

  find(id: FileId): Cover | undefined {
    return this.#covers.get(id);
  }

  *all(): IterableIterator<Cover> {
    yield* this.#covers.values();
    yield* this.#replaced;
  }

  /** Cached from before, or new. */
  take(id: FileId, kind: InodeKind): Cover {
    let cover = this.#covers.get(id);
    if (cover !== undefined && cover.kind !== kind) {
      if (!this.#drop(cover)) {
        this.#covers.delete(cover);
        this.#replaced.add(cover);
        if (cover.inode === null) this.#lingering.add(cover);
      }
      cover = undefined;
    }
    if (cover === undefined) {
      cover = new Cover(id, kind);
      this.#covers.add(cover);
    }
    this.#idle.delete(cover);
    this.#lingering.delete(cover);
    return cover;
  }

  removed(inode: Inode): void {
    inode.cover.doomed = true;
    if (inode.cover.unregistered && inode.nlookup === 0) this.#drop(inode.cover);
  }

  forgotten(inode: Inode): void {
    const { cover } = inode;
    if (cover.size !== null) {
      cover.size.least = -1;
      // Of what the kernel does not know it asks for nothing; the lock may stay for long.
      cover.size.lockHolder = null;
    }
    if (cover.inode === inode) cover.inode = null;
    cover.attrTold = false;
    cover.attrTaker = NO_TAKER;
    cover.turn = null;
    forgetNames(cover);
    if (cover.doomed || cover.mode === Mode.NL || this.#replaced.has(cover)) {
      if (!this.#drop(cover)) this.#lingering.add(cover);
      return;
    }
    cover.bornUntilForgotten = this.#state.births;
    this.#idle.add(cover);
    // Not with each one more, where nothing can go for now.
    if (this.#idle.size > IDLE_COVERS_MAX && (this.#idle.size - IDLE_COVERS_MAX) % IDLE_BATCH === 1) this.#giveBack();
  }

  #giveBack(): void {
    let left = IDLE_BATCH;
    for (const idle of this.#idle) {
      if (mayNameBorn(this.#state, idle)) {
        // What was born is made known by the time it comes to it again.
        this.#idle.delete(idle);
        this.#idle.add(idle);
      } else this.#drop(idle);
      left -= 1;
      if (left === 0) return;
    }
  }

  /** Something that was going on with it ended. */
  ended(cover: Cover): void {
    if (this.#lingering.size > 0 && this.#lingering.has(cover)) this.#drop(cover);
  }

  /** Of what the kernel does not know; left alone while something goes on with it. */
  #drop(cover: Cover): boolean {
    const busy = cover.pins > 0 || cover.waiters.length > 0 || cover.asking !== null || cover.registering || cover.phase !== "idle";
    const { token } = cover;
    const tokenBusy = token !== null && (token.users > 0 || token.state === "asking" || this.#state.registering.has(token));
    if (cover.inode !== null || busy || tokenBusy) return false;
    this.#idle.delete(cover);
    this.#lingering.delete(cover);
    if (!this.#replaced.delete(cover)) this.#covers.delete(cover);
    dropUnregistered(this.#state, cover);
    dropNames(cover);
    this.#unlock(cover);
    cover.mode = Mode.NL;
    cover.token = null;
    return true;
  }
}

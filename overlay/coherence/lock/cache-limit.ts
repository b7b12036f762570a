/**
 * How many inodes this kernel may have cached at a time (hazard H1): so many as it drops, at the end of the lease, before others may take their locks. When
 * there are more, some that nobody has open give their lock up, as if another node had asked for it: the kernel then has nothing of them. Pure.
 *
 * Which ones: a hand goes round over all, and nothing says what the kernel finds in its caches, so it is the order in which they came. Directories
 * stay: their names would go one by one.
 *
 * The hand is a place in an array, and no iterator over the covers: V8 keeps each table that a Map or Set has outgrown, and all that was in it, for an
 * iterator that began there and rests.
 */
import { Mode } from "../../../dlmd/wire/mode.ts";
import { type Cover, mayBeCached } from "../cover.ts";
import type { CoherenceState } from "../effect.ts";
import { enterRevoke } from "./revoke.ts";

/** Reckoned for each: 1.2 us without pages, 2.5 with one, more beside others' work; and the thread has to get there first. */
const DROP_US = 4.5;
/** Looked at for each that is to go. */
const STEPS_MAX = 64;
/** Begun with in one turn. */
const AT_ONCE_MAX = 64;
/** Gaps that are left as they are, however few covers there are. */
const GAPS_MIN = 64;

export function cachedInodesMax(marginMs: number): number {
  return Math.floor((marginMs * 1000) / DROP_US);
}

export class CacheLimit {
  readonly counts = { inodesEvicted: 0 };
  readonly #max: number;
  /** Those that count, in the order in which they were told; null: it does not any more. */
  #told: (Cover | null)[] = [];
  #cached = 0;
  #hand = 0;

  constructor(max: number) {
    this.#max = max;
  }

  /** Told to the kernel as valid. True: there are too many now. */
  told(cover: Cover): boolean {
    if (cover.cachedAt < 0) {
      cover.cachedAt = this.#told.length;
      this.#told.push(cover);
      this.#cached += 1;
    }
    return this.#cached > this.#max;
  }

  /** The kernel has forgotten it, or dropped what it had; or not: then nothing is done. */
  changed(cover: Cover): void {
    if (cover.cachedAt < 0 || mayBeCached(cover)) return;
    this.#told[cover.cachedAt] = null;
    cover.cachedAt = -1;
    this.#cached -= 1;
    if (this.#told.length > 2 * this.#cached + GAPS_MIN) this.#closeGaps();
  }

  #closeGaps(): void {
    const passed = this.#told.slice(0, this.#hand).filter((cover) => cover !== null);
    const ahead = this.#told.slice(this.#hand).filter((cover) => cover !== null);
    this.#hand = passed.length;
    this.#told = [...passed, ...ahead];
    for (const [at, cover] of this.#told.entries()) if (cover !== null) cover.cachedAt = at;
  }

  /** Leaves effects in `state`. */
  evict(state: CoherenceState, now: number): void {
    for (let more = Math.min(this.#cached - this.#max, AT_ONCE_MAX); more > 0; more -= 1) this.#evictOne(state, now);
  }

  #evictOne(state: CoherenceState, now: number): void {
    for (let step = 0; step < STEPS_MAX; step += 1) {
      const cover = this.#told[this.#hand];
      this.#hand = cover === undefined ? 0 : this.#hand + 1;
      if (cover !== undefined && cover !== null && mayGo(cover)) {
        this.counts.inodesEvicted += 1;
        // Nobody else has it: it does not go to and fro (revoke.ts, returnExpected).
        cover.read = false;
        cover.fight = null;
        enterRevoke(state, cover, Mode.NL, now);
        return;
      }
    }
  }
}

function mayGo(cover: Cover): boolean {
  const resting = cover.phase === "idle" && cover.asking === null && cover.pins === 0 && !cover.unregistered && !cover.registering;
  const awaited = cover.waiters.length > 0 || cover.childWaiters.length > 0 || cover.wanted !== Mode.NL || (cover.token?.users ?? 0) > 0;
  return resting && !awaited && cover.kind !== "directory" && cover.inode?.openCount === 0;
}

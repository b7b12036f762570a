/**
 * When this owner itself changed which inode. A change leaves its time in the inode (ctime), which no program can set: one that is in none of these times was
 * made by another program (hazard R21). Pure; times are milliseconds of the real-time clock.
 */
import { NewestMap } from "../../dlmd/base/newest-map.ts";
import { type FileId, fileKey } from "../lower/lower.ts";

/** Each of two generations has so many inodes. One that is forgotten counts as changed by another program, which costs a revoke. */
export const OWN_TIMES_MAX = 32_768;
/** The kernel takes the time of a change from its last tick, of which there are at least a hundred a second (ktime_get_coarse_real_ts64). */
export const TICK_MS = 10;

/** Times of one inode that are remembered: one may have been looked at, and changed again before that is judged. */
export const TIMES_MAX = 8;

interface Span {
  readonly fromMs: number;
  toMs: number;
}

interface OwnTime {
  /** The last one is that of calls under way, if there are some. */
  readonly spans: Span[];
  running: number;
}

export class OwnTimes {
  readonly #times: NewestMap<string, OwnTime>;

  constructor(limit: number = OWN_TIMES_MAX) {
    this.#times = new NewestMap(limit);
  }

  /** A call that changes them begins. */
  begin(ids: readonly FileId[], nowMs: number): void {
    for (const id of ids) {
      const time = this.#enter(fileKey(id));
      const last = time.spans.at(-1);
      time.running += 1;
      if (last !== undefined && (time.running > 1 || nowMs - TICK_MS <= last.toMs)) {
        last.toMs = nowMs;
        continue;
      }
      time.spans.push({ fromMs: nowMs - TICK_MS, toMs: nowMs });
      if (time.spans.length > TIMES_MAX) time.spans.shift();
    }
  }

  end(ids: readonly FileId[], nowMs: number): void {
    for (const id of ids) {
      const time = this.#times.get(fileKey(id));
      const last = time?.spans.at(-1);
      if (time === undefined || last === undefined) continue;
      time.running -= 1;
      last.toMs = nowMs;
    }
  }

  /** `changedMs`: its ctime. */
  isOwn(id: FileId, changedMs: number): boolean {
    const time = this.#times.get(fileKey(id));
    if (time === undefined) return false;
    const last = time.spans.length - 1;
    // The clock that is asked here has whole milliseconds.
    return time.spans.some(({ fromMs, toMs }, at) => changedMs >= fromMs && (changedMs < toMs + 1 || (at === last && time.running > 0)));
  }

  #enter(key: string): OwnTime {
    const newest = this.#times.getNewest(key);
    if (newest !== undefined) return newest;
    const time = this.#times.get(key) ?? { spans: [], running: 0 };
    this.#times.set(key, time);
    return time;
  }
}

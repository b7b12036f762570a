/**
 * While the lease of this node does not hold (hazards C4, H1): all that the kernel caches is dropped, and dlmd is asked for nothing and given nothing
 * back. What it is to be asked waits until the lease holds again.
 */
import type { Log } from "../../dlmd/base/log.ts";
import { type Inode, inodesOf } from "./cover.ts";
import { inTime } from "../../dlmd/base/maybe-promise.ts";
import type { Effect } from "./effect.ts";
import type { Dropped } from "./kernel/drop-all.ts";

/** What is given up after a lapse of the lease is dropped once more before, for at most so long. */
const RESUME_DROP_MS = 250;

const asks: ReadonlySet<Effect["do"]> = new Set(["request", "unlock-token", "request-token", "ask-births", "unlock-births"]);

export interface SuspensionHost {
  /** All whose caches may have something. */
  readonly cached: () => readonly Inode[];
  /** Every name of the mount, and attributes and pages of these. */
  readonly drop: (inodes: readonly Inode[]) => Promise<Dropped>;
  /** To be done now. */
  readonly goOn: (effects: readonly Effect[]) => void;
  readonly now: () => number;
  readonly log: Log;
  readonly fail: (error: Error) => void;
}

export class Suspension {
  readonly #host: SuspensionHost;
  /** What dlmd is to be asked then; null: the lease holds. */
  #waiting: Effect[] | null = null;
  /** Which lapse it is. */
  #lapse = 0;
  #dropping = false;
  /** Once more, when that is done. */
  #again = false;
  /** Answers of before were given after what was dropped: what is given up next is dropped once more. */
  #answered = false;

  constructor(host: SuspensionHost) {
    this.#host = host;
  }

  get active(): boolean {
    return this.#waiting !== null;
  }

  /** True: it waits. */
  takes(effect: Effect): boolean {
    if (this.#waiting === null || !asks.has(effect.do)) return false;
    this.#waiting.push(effect);
    return true;
  }

  /** Again while it lasts: all is dropped once more, when what is being dropped is gone. So there is one pass at a time, whoever asks for them. */
  begin(): void {
    this.#waiting ??= [];
    this.#lapse += 1;
    this.#again = true;
    if (!this.#dropping) void this.#drop();
  }

  async #drop(): Promise<void> {
    const { cached, drop, now, log, fail } = this.#host;
    this.#dropping = true;
    try {
      while (this.#again && this.active) {
        this.#again = false;
        const beganMs = now();
        const { inodes, waiting, absent, over } = await drop(cached());
        over.catch(fail);
        log.info({ inodes, waiting, absent, ms: Math.round(now() - beganMs) }, "all that the kernel had cached was dropped");
      }
    } catch (error) {
      fail(error as Error);
    } finally {
      this.#dropping = false;
    }
  }

  /** The lease holds again. `answered`: answers of before have just been given. */
  end(answered: boolean): void {
    this.#answered ||= answered || this.#again;
    const inodes = this.#answered
      ? inodesOf((this.#waiting ?? []).flatMap((effect) => (effect.do === "request" ? [effect.cover] : [])))
      : [];
    if (inodes.length === 0) return this.release();
    this.#releaseAfter(inodes).catch(this.#host.fail);
  }

  async #releaseAfter(inodes: readonly Inode[]): Promise<void> {
    const lapse = this.#lapse;
    // Not for ever: a page may belong to a READ that waits for what is asked for here.
    await inTime(this.#dropWhole(inodes), RESUME_DROP_MS);
    // If it lapsed once more meanwhile, that has an end of its own.
    if (lapse === this.#lapse) this.release();
  }

  async #dropWhole(inodes: readonly Inode[]): Promise<void> {
    const { over } = await this.#host.drop(inodes);
    await over;
  }

  /** All that waits is done, whatever the lease. */
  release(): void {
    const waiting = this.#waiting ?? [];
    this.#waiting = null;
    this.#answered = false;
    this.#host.goOn(waiting);
  }
}

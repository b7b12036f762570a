/**
 * How long files without a name keep their space because one mounter has not opened its files at the present owner (hazard H10; README.md of this
 * room, "Files without a name"). A mounter that has no path to the owner for so long is of no use to its own programs either. It ends its own mount,
 * and then the owner knows that it has nothing open. Nobody else decides that: a file that a living mount has open is never dropped.
 *
 * Time counts while only a path is missing. While the owner has calls of the mount, or there is no quorum or lease, none does.
 */
import type { Log } from "../../dlmd/base/log.ts";

/** A mount that could not open its files at the owner in that time ends. As for a lock that others want (serve/answer-limit.ts). */
export const REOPEN_LIMIT_MS = 60_000;
/** So often the time is looked at in one limit: it is known to a quarter. */
export const REOPEN_LOOKS = 4;

export interface ReopenLimitOptions {
  readonly log: Log;
  /** This mount's files are to be opened at the owner that serves. */
  readonly mustReopen: () => boolean;
  /** As the owner: the names of nodes whose mounters have not opened their files here. */
  readonly awaited: () => readonly string[];
  /** Only a path to the owner is missing: there are a quorum and a lease, and the owner has no call of this mount. */
  readonly isCutOff: () => boolean;
  readonly late: (why: string) => void;
}

export class ReopenLimit {
  readonly #options: ReopenLimitOptions;
  #timer: NodeJS.Timeout | undefined;
  #cutOffLooks = 0;
  #awaitedLooks = 0;

  constructor(options: ReopenLimitOptions) {
    this.#options = options;
  }

  /** What it asks about may have changed. */
  changed(): void {
    const isNeeded = this.#options.mustReopen() || this.#options.awaited().length > 0;
    if (!isNeeded) return this.end();
    this.#timer ??= setInterval(() => this.#look(), REOPEN_LIMIT_MS / REOPEN_LOOKS).unref();
  }

  end(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#cutOffLooks = 0;
    this.#awaitedLooks = 0;
  }

  #look(): void {
    const { mustReopen, isCutOff, late } = this.#options;
    this.#warn();
    this.#cutOffLooks = mustReopen() && isCutOff() ? this.#cutOffLooks + 1 : 0;
    if (this.#cutOffLooks < REOPEN_LOOKS) return;
    this.end();
    late(
      `this mount could not open its files at the volume's owner in ${REOPEN_LIMIT_MS / 1000} s, and keeps the space of files without a name`,
    );
  }

  /** Once for each limit that passes. */
  #warn(): void {
    const { awaited, log } = this.#options;
    const names = awaited();
    this.#awaitedLooks = names.length > 0 ? this.#awaitedLooks + 1 : 0;
    if (this.#awaitedLooks === 0 || this.#awaitedLooks % REOPEN_LOOKS !== 0) return;
    log.warn(
      { waitsFor: names, forMs: (this.#awaitedLooks / REOPEN_LOOKS) * REOPEN_LIMIT_MS },
      "space of files without a name is not given back: these have not opened their files at this owner",
    );
  }
}

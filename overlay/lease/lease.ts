/**
 * The node's lease as a mount sees it: the page that the heartbeat thread of dlmd keeps (dlmd/wire/lease-page.ts), mapped, and compared with
 * CLOCK_BOOTTIME. Looked at before each request (50 ns; reading the file instead took 780), before each answer that had to wait, and by a timer.
 *
 * While it has lapsed nothing is begun and nothing is answered: requests and answers wait here, in their order. Nothing is given up meanwhile
 * either. Whoever is killed while he waits gets EINTR.
 */
import { closeSync, openSync, readFileSync } from "node:fs";
import path from "node:path";
import { E, errnoError, errnoName } from "../../dlmd/base/errno.ts";
import { OperatingError, WireError } from "../../dlmd/base/error.ts";
import type { Log } from "../../dlmd/base/log.ts";
import { decodeLeasePage, LEASE_ENDS_AT, LEASE_FILE, LEASE_PAGE_BYTES, type LeasePage } from "../../dlmd/wire/lease-page.ts";
import type { Waiter } from "../coherence/api.ts";
import type { Native } from "../../native/index.ts";
import { LeaseCore } from "./lease-core.ts";

/** An answer that waits for the lease. */
export interface KeptAnswer {
  /** It may leave. */
  release(): void;
  /** The mount is taken out: its caller gets an error instead. */
  giveUp(): void;
}

/** As the session sees it. */
export interface LeaseGate {
  /** May this node act on its locks now? */
  holds(): boolean;
  /** Resolves when it holds again; rejects with EINTR when the waiter is interrupted, EIO when the mount is taken out. */
  again(waiter: Waiter): Promise<void>;
  keep(answer: KeptAnswer): void;
  /** It leaves now, because its caller is being killed: what the kernel takes from it must be dropped once more. */
  hurried(answer: KeptAnswer): void;
}

/** Where no lock is held by more than this process: tests. */
export const endlessLease: LeaseGate = {
  holds: () => true,
  again: () => Promise.resolve(),
  keep: (answer) => answer.release(),
  hurried: () => undefined,
};

export interface LeaseOptions {
  /** Until when, and now: CLOCK_BOOTTIME, ms. */
  readonly endMs: () => number;
  readonly nowMs: () => number;
  readonly log: Log;
  /** Drops all that the kernel caches, and gives up nothing until `resume`. */
  readonly suspend: () => void;
  /** `answered`: answers that waited were given since the caches were dropped. */
  readonly resume: (answered: boolean) => void;
}

interface Waiting {
  readonly waiter: Waiter;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

export class Lease implements LeaseGate {
  readonly #options: LeaseOptions;
  readonly #core = new LeaseCore();
  readonly #waiting = new Set<Waiting>();
  readonly #kept = new Set<KeptAnswer>();
  #timer: NodeJS.Timeout | null = null;
  #lapsedAtMs = 0;

  constructor(options: LeaseOptions) {
    this.#options = options;
    this.#look();
  }

  get state(): "holds" | "lapsed" | "over" {
    return this.#core.state;
  }

  get lapses(): number {
    return this.#core.lapses;
  }

  holds(): boolean {
    const { endMs, nowMs } = this.#options;
    if (this.#core.state === "holds" && nowMs() < endMs()) return true;
    this.#look();
    return this.#core.state === "holds";
  }

  again(waiter: Waiter): Promise<void> {
    if (waiter.interrupted) return Promise.reject(errnoError(E.EINTR));
    if (this.#core.state === "over") return Promise.reject(errnoError(E.EIO));
    return new Promise((resolve, reject) => {
      const waiting: Waiting = { waiter, resolve, reject };
      waiter.onInterrupt = (): void => {
        this.#waiting.delete(waiting);
        reject(errnoError(E.EINTR));
      };
      this.#waiting.add(waiting);
    });
  }

  keep(answer: KeptAnswer): void {
    if (this.#core.state === "over") answer.giveUp();
    else this.#kept.add(answer);
  }

  hurried(answer: KeptAnswer): void {
    this.#kept.delete(answer);
    if (this.#core.state === "lapsed") this.#options.suspend();
  }

  /** The mount is taken out: whoever waits gets EIO. */
  end(): void {
    this.#core.end();
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    for (const { waiter, reject } of this.#takeWaiting()) {
      waiter.onInterrupt = null;
      reject(errnoError(E.EIO));
    }
    for (const answer of this.#takeKept()) answer.giveUp();
  }

  #takeWaiting(): Waiting[] {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    return waiting;
  }

  #takeKept(): KeptAnswer[] {
    const kept = [...this.#kept];
    this.#kept.clear();
    return kept;
  }

  #look(): void {
    const { endMs, nowMs } = this.#options;
    const change = this.#core.look(endMs(), nowMs());
    this.#arm();
    if (change === "lapse") this.#lapse();
    else if (change === "renew") this.#renew();
  }

  #arm(): void {
    const { endMs, nowMs } = this.#options;
    const delayMs = this.#core.nextLookMs(endMs(), nowMs());
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = delayMs === null ? null : setTimeout(() => this.#look(), Math.ceil(delayMs));
  }

  #lapse(): void {
    const { log, nowMs, endMs, suspend } = this.#options;
    this.#lapsedAtMs = nowMs();
    log.warn(
      { lateMs: Math.round(nowMs() - endMs()) },
      "the lease of this node ended: its dlmd has not said for too long that a quorum hears it. Nothing is served until it does",
    );
    suspend();
  }

  #renew(): void {
    const { log, nowMs, resume } = this.#options;
    const kept = this.#takeKept();
    const waiting = this.#takeWaiting();
    const fields = { lapsedMs: Math.round(nowMs() - this.#lapsedAtMs), requests: waiting.length, answers: kept.length };
    log.info(fields, "the lease of this node holds again: what waited goes on");
    // First what was done before: whatever asks for a lock back from now on finds its answer given.
    for (const answer of kept) answer.release();
    resume(kept.length > 0);
    for (const { waiter, resolve } of waiting) {
      waiter.onInterrupt = null;
      resolve();
    }
  }
}

export interface OpenLeasePage {
  readonly endMs: () => number;
  /** After the end others may take the locks no sooner than after that time. */
  readonly marginMs: number;
}

/** Beside dlmd's local socket. */
export function leaseFile(dlmdSocket: string): string {
  return path.join(path.dirname(dlmdSocket), LEASE_FILE);
}

/** The page of that dlmd, mapped. Throws OperatingError if there is none of that incarnation. */
export function openLeasePage(native: Native, dlmdSocket: string, incarnation: string): OpenLeasePage {
  const file = leaseFile(dlmdSocket);
  const fd = openPage(file);
  try {
    const mapped = native.mapShared(fd, LEASE_PAGE_BYTES);
    const found = decodePage(readFileSync(fd), file);
    if (typeof mapped === "number") throw refused(`the lease page ${file} can not be mapped: ${errnoName(-mapped)}`);
    if (found.incarnation !== incarnation)
      throw refused(`the lease page ${file} of dlmd ${incarnation} expected, found that of ${found.incarnation}`);
    const page = new DataView(mapped);
    const endMs = (): number => Math.min(page.getFloat64(LEASE_ENDS_AT, true), page.getFloat64(LEASE_ENDS_AT + 8, true));
    return { endMs, marginMs: found.marginMs };
  } finally {
    closeSync(fd);
  }
}

function openPage(file: string): number {
  try {
    return openSync(file, "r");
  } catch (error) {
    throw refused(`the lease page of dlmd can not be opened: ${(error as Error).message}`);
  }
}

function decodePage(bytes: Uint8Array, file: string): LeasePage {
  try {
    return decodeLeasePage(bytes);
  } catch (error) {
    if (!(error instanceof WireError)) throw error;
    throw refused(`${file}: ${error.message}`);
  }
}

function refused(message: string): OperatingError {
  return new OperatingError(message, {
    code: "no-lease",
    hint: "Restart dlmd if it is of another version than this program; else mount again.",
  });
}

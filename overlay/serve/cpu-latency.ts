/**
 * Idle processors do not sleep deeply while programs wait for one answer after the other. Whoever asks sleeps until the answer is there, and to get its
 * processor out of a deep state takes longer than most operations (README of lower, "Processors that sleep").
 *
 * The kernel is told so by /dev/cpu_dma_latency: a limit in us, for all processors, as long as the descriptor is open
 * (Documentation/power/pm_qos_interface.rst; kernel/power/qos.c).
 */
import { closeSync, openSync, readFileSync, writeSync } from "node:fs";
import type { Log } from "../../dlmd/base/log.ts";

/** So many requests within so long are a row of them. */
export const ROW_REQUESTS = 16;
export const ROW_MS = 16;
/** While the limit is there: fewer requests than that within that time, and the row is over. */
export const ROW_LOOK_MS = 20;
export const ROW_REQUESTS_MIN = 4;

/** Of a virtual machine that may look on itself before its host is asked to stop its processor: it does, always. */
export const GUEST_LIMIT_US = 0;
/** Of other machines: the first state takes less, all others more. What tuned's profile latency-performance has, too. */
export const LIMIT_US = 3;
/** PM_QOS_DEFAULT_VALUE: no limit. */
const NONE: Int32Array = Int32Array.of(-1);

/** A row of requests: begins and ends. Pure. */
export class RequestRow {
  readonly #options: RequestRowOptions;
  #count = 0;
  /** When the ROW_REQUESTS before were begun. */
  #sinceMs = Number.NEGATIVE_INFINITY;
  #stop: (() => void) | null = null;

  constructor(options: RequestRowOptions) {
    this.#options = options;
  }

  get goesOn(): boolean {
    return this.#stop !== null;
  }

  /** A request has come. */
  noted(): void {
    this.#count += 1;
    if (this.#count < ROW_REQUESTS || this.#stop !== null) return;
    this.#count = 0;
    const sinceMs = this.#sinceMs;
    this.#sinceMs = this.#options.nowMs();
    if (this.#sinceMs - sinceMs > ROW_MS) return;
    this.#stop = this.#options.every(ROW_LOOK_MS, () => this.#look());
    this.#options.changed(true);
  }

  #look(): void {
    const count = this.#count;
    this.#count = 0;
    if (count >= ROW_REQUESTS_MIN) return;
    this.#stop?.();
    this.#stop = null;
    this.#sinceMs = Number.NEGATIVE_INFINITY;
    this.#options.changed(false);
  }
}

export interface RequestRowOptions {
  readonly nowMs: () => number;
  /** Gives what ends it. */
  readonly every: (intervalMs: number, tick: () => void) => () => void;
  readonly changed: (goesOn: boolean) => void;
}

/** Where the kernel is asked; arguments for tests. */
export interface CpuLatencyFiles {
  readonly limit: string;
  readonly driver: string;
}

export const CPU_LATENCY_FILES: CpuLatencyFiles = {
  limit: "/dev/cpu_dma_latency",
  driver: "/sys/devices/system/cpu/cpuidle/current_driver",
};

export interface CpuLatencyOptions extends Omit<RequestRowOptions, "changed"> {
  /** False: processors may sleep as they like (-o deepidle). */
  readonly limits: boolean;
  readonly log: Log;
  readonly files?: CpuLatencyFiles;
}

/** For people: `limitUs` null: there is none, and `why`. */
export interface CpuLatencyState {
  readonly limitUs: number | null;
  readonly why: string | null;
  /** It is there now. */
  readonly held: boolean;
  /** How often it was set. */
  readonly times: number;
}

export class CpuLatency {
  readonly #log: Log;
  readonly #row: RequestRow;
  #limit: { readonly fd: number; readonly us: number } | null = null;
  /** There is none. */
  #why: string | null = null;
  #times = 0;

  /** Never throws: without a limit the mount is slower, and nothing else. */
  constructor({ limits, log, files = CPU_LATENCY_FILES, nowMs, every }: CpuLatencyOptions) {
    this.#log = log;
    this.#row = new RequestRow({ nowMs, every, changed: (goesOn) => this.#set(goesOn) });
    if (!limits) this.#why = "the mount has the option deepidle";
    else this.#open(files);
  }

  /** A request of the kernel or of another node has come. */
  noted(): void {
    if (this.#limit !== null) this.#row.noted();
  }

  describe(): CpuLatencyState {
    return { limitUs: this.#limit?.us ?? null, why: this.#why, held: this.#limit !== null && this.#row.goesOn, times: this.#times };
  }

  #open(files: CpuLatencyFiles): void {
    try {
      const driver = readFileSync(files.driver, "utf8").trim();
      if (driver === "none") {
        this.#why = "the kernel has no idle states to choose from";
        return;
      }
      this.#limit = { fd: openSync(files.limit, "r+"), us: driver === "haltpoll" ? GUEST_LIMIT_US : LIMIT_US };
    } catch (error) {
      this.#refused(error);
    }
  }

  #set(held: boolean): void {
    if (this.#limit === null) return;
    const { fd, us } = this.#limit;
    try {
      writeSync(fd, held ? Int32Array.of(us) : NONE);
      if (held) this.#times += 1;
    } catch (error) {
      closeSync(fd);
      this.#limit = null;
      this.#refused(error);
    }
  }

  #refused(error: unknown): void {
    this.#why = error instanceof Error ? error.message : String(error);
    this.#log.debug({ error: this.#why }, "idle processors may sleep deeply: their latency can not be limited here");
  }
}

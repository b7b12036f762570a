/**
 * The process of a mount while the dlmd of its node is restarted (README.md, hazard F35): it keeps /dev/fuse and the state, is no client of dlmd, and answers nobody. When dlmd runs
 * again it starts a new process, which goes on with the mount.
 */
import { OperatingError } from "../../dlmd/base/error.ts";
import { inTime } from "../../dlmd/base/maybe-promise.ts";
import type { Log } from "../../dlmd/base/log.ts";
import { Channel, FINAL } from "./channel.ts";
import { HELLO_LIMIT_MS, type NextProcess, requireVersion, SERVING_LIMIT_MS, wordsOf } from "./give.ts";
import { encodeState, type RestartState } from "./state.ts";

/** From the pause on. Then the mount ends: its owner keeps its files for CUSTODY_LIMIT_MS, which is longer. */
export const HOLD_LIMIT_MS = 120_000;
/** A dlmd that was not restarted by then is gone on with. */
export const SAME_DLMD_MS = 20_000;
/** How often the holder looks for dlmd, and whether the mount is there still. */
export const HOLD_LOOK_MS = 100;
/** A new process has to open all files at the owner within this time; else another one is started. There is no way back, so it is longer than READY_LIMIT_MS. */
export const HOLD_READY_LIMIT_MS = 60_000;
/** After a new process that could not go on. */
export const HOLD_RETRY_MS = 1000;
/** A process that the holder would leave behind is waited for so long. It is killed after END_LIMIT_MS, which is less, and SIGKILL may do nothing. */
export const LEFT_LIMIT_MS = 12_000;

export interface HolderHost {
  readonly log: Log;
  readonly state: RestartState;
  /** performance.now(), since when calls wait. */
  readonly sinceMs: number;
  /** performance.now(): the limits of the wait count from then. */
  readonly heldSinceMs: number;
  /**
   * Hazard F43. That process, which could not go on and is gone, has become the owner after that epoch, and has given its disk back clean: its epoch. Nobody was the owner in between.
   * Never rejects. Absent: the disk is another owner's.
   */
  readonly givenBackBy?: (pid: number, after: number) => Promise<number | null>;
  /** Of the dlmd before. */
  readonly incarnation: string;
  /** For people: what it waits for. */
  readonly why: string;
  readonly start: () => NextProcess;
  /** Incarnation of the dlmd that runs here, if it serves locks; null: it does not. Never rejects. */
  readonly dlmd: () => Promise<string | null>;
  /** The mount is there, at whatever place. */
  readonly isMounted: () => boolean;
  /** It is taken out of the tree: it ends. */
  readonly detach: () => void;
  /** Its calls end with ENOTCONN. The kernel has nothing cached of it. */
  readonly abort: () => void;
}

interface Next {
  readonly process: NextProcess;
  readonly channel: Channel;
}

export type HolderEnd =
  | { readonly kind: "given"; readonly pid: number; readonly pauseMs: number }
  | { readonly kind: "unmounted" }
  | { readonly kind: "lost"; readonly why: string };

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

export class Holder {
  readonly #host: HolderHost;
  /** Any dlmd will do. */
  #goOn = false;
  #terminated = false;
  /** "go" was said: the mount is the new process's. */
  #isGoing = false;
  /** It is loaded, or loads, and waits for dlmd. */
  #next: Next | null = null;
  /** performance.now(): the next process is not started before. */
  #notBeforeMs = 0;
  #why: string;
  #state: RestartState;
  /** It could not go on, and may have been the owner. */
  #former: NextProcess | null = null;
  /** They were started, and have not ended. */
  readonly #alive = new Set<NextProcess>();

  constructor(host: HolderHost) {
    this.#host = host;
    this.#state = host.state;
    this.#why = host.why;
  }

  /** For people: for what calls wait. */
  get why(): string {
    return `${this.#why}; calls have waited for ${Math.round((performance.now() - this.#host.sinceMs) / 1000)} s`;
  }

  /** It need not be another one than before. */
  get anyDlmd(): boolean {
    return this.#goOn;
  }

  /** dlmd is not restarted after all, or was. */
  goOn(): void {
    this.#goOn = true;
  }

  terminate(): void {
    this.#terminated = true;
    // The new process finds the mount taken out, whenever it serves.
    if (this.#isGoing) this.#host.detach();
  }

  async run(): Promise<HolderEnd> {
    for (;;) {
      const end = this.#end() ?? (await this.#look());
      if (end !== null) {
        const next = this.#next;
        this.#next = null;
        next?.process.end();
        next?.channel.close();
        if (end.kind !== "given") await this.#untilAllEnded();
        return end;
      }
    }
  }

  /** Whoever unmounts waits for this process alone. One of them may have the disk, and is killed only as long as this process is there. */
  async #untilAllEnded(): Promise<void> {
    const alive = [...this.#alive];
    if (await inTime(Promise.all(alive.map(({ ended }) => ended)), LEFT_LIMIT_MS)) return;
    const pids = alive.filter((one) => this.#alive.has(one)).map(({ pid }) => pid);
    this.#host.log.error({ pids, waitedMs: LEFT_LIMIT_MS }, "new processes of this mount do not end, though they were killed");
    // They have /dev/fuse, too: calls would wait for them.
    try {
      this.#host.abort();
    } catch (error) {
      this.#host.log.error({ error: wordsOf(error) }, "the connection could not be aborted");
    }
  }

  #end(): HolderEnd | null {
    if (!this.#host.isMounted()) return { kind: "unmounted" };
    if (this.#terminated) {
      this.#host.detach();
      return { kind: "unmounted" };
    }
    if (this.#heldMs <= HOLD_LIMIT_MS) return null;
    return { kind: "lost", why: `it could not go on in ${HOLD_LIMIT_MS / 1000} s: ${this.#why}` };
  }

  get #heldMs(): number {
    return performance.now() - this.#host.heldSinceMs;
  }

  async #look(): Promise<HolderEnd | null> {
    if (this.#next === null && performance.now() >= this.#notBeforeMs) {
      // It is not awaited: it may sleep in the kernel for good, and then this mount ends by its limit.
      if (this.#former !== null && this.#host.givenBackBy !== undefined && this.#alive.has(this.#former)) {
        await sleep(HOLD_LOOK_MS);
        return null;
      }
      if (this.#former !== null) await this.#followFormer(this.#former);
      this.#begin();
    }
    const next = this.#next;
    const found = await this.#host.dlmd();
    const ready = found !== null && (this.#goOn || found !== this.#host.incarnation || this.#heldMs > SAME_DLMD_MS);
    if (!ready || next === null || next !== this.#next) {
      await sleep(HOLD_LOOK_MS);
      return null;
    }
    this.#next = null;
    return this.#give(next);
  }

  /** It has ended. */
  async #followFormer(former: NextProcess): Promise<void> {
    this.#former = null;
    const { givenBackBy } = this.#host;
    if (givenBackBy === undefined) return;
    const ownerEpoch = await givenBackBy(former.pid, this.#state.ownerEpoch);
    if (ownerEpoch !== null) this.#state = { ...this.#state, ownerEpoch };
  }

  /** Before dlmd is there: it takes a second and more to load its program. */
  #begin(): void {
    try {
      const process = this.#host.start();
      this.#alive.add(process);
      void process.ended.then(() => this.#alive.delete(process));
      const channel = new Channel(process.stream);
      const next = { process, channel };
      this.#next = next;
      process.failed(() => channel.close());
      void this.#watch(next);
    } catch (error) {
      this.#failed(null, error);
    }
  }

  async #watch(next: Next): Promise<void> {
    await next.channel.closed;
    if (this.#next === next) this.#failed(next, new Error("the new process has ended"));
  }

  /** null: the new process could not go on, and another one may. */
  async #give(next: Next): Promise<HolderEnd | null> {
    const { log, sinceMs } = this.#host;
    const { channel, process } = next;
    let pid: number;
    try {
      channel.say({ say: "dlmd" });
      const hello = await channel.expect("hello", HELLO_LIMIT_MS);
      pid = hello.pid;
      requireVersion(hello.versions);
      channel.say({ say: "state", state: encodeState(this.#state).toString("base64") });
      await channel.expect("ready", HOLD_READY_LIMIT_MS);
      await channel.silent();
      if (this.#terminated) throw new OperatingError("it was told to end", { code: "interrupted", hint: "" });
    } catch (error) {
      this.#failed(next, error);
      return error instanceof OperatingError && error.code === FINAL ? { kind: "lost", why: error.message } : null;
    }
    try {
      this.#isGoing = true;
      channel.say({ say: "go" });
      await channel.expect("serving", SERVING_LIMIT_MS, () => log.warn({ pid }, "the new process waits for its locks"));
    } catch (error) {
      process.kill();
      return { kind: "lost", why: `the new process did not answer: ${wordsOf(error)}` };
    }
    process.leave();
    channel.close();
    return { kind: "given", pid, pauseMs: Math.round(performance.now() - sinceMs) };
  }

  #failed(next: Next | null, error: unknown): void {
    this.#next = null;
    this.#former = next?.process ?? null;
    this.#notBeforeMs = performance.now() + HOLD_RETRY_MS;
    next?.channel.close();
    next?.process.end();
    this.#why = wordsOf(error);
    this.#host.log.warn({ why: this.#why }, "a new process could not go on with the mount; another one is started");
  }
}

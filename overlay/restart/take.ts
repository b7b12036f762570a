/** The new process of a mount: says that it is there, gets the state of the old one, and goes on (README.md, hazard F33). */
import { readFileSync } from "node:fs";
import { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { OperatingError } from "../../dlmd/base/error.ts";
import { LockFlag, type Lockspace } from "../../dlmd/client/api.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import { Channel, CHANNEL_FD, FUSE_FD } from "./channel.ts";
import { decodeState, type RestartState, STATE_VERSION } from "./state.ts";

/** The old process comes to rest and writes its state within its own limits; this is beyond all of them. */
export const STATE_LIMIT_MS = 120_000;
/** dlmd is being restarted: the old process says when it serves, and ends before (HOLD_LIMIT_MS). */
export const DLMD_LIMIT_MS = 150_000;
/** The old process lets go, or ends this one. */
export const GO_LIMIT_MS = 60_000;

/** For tests: names a file with a step, at which this process ends, or a step and another signal to itself. */
const DIE_FILE = "COVERLAY_RESTART_DIE_FILE";
const DIE_WAIT_MS = 100;

/** Code of the error with which a rehearsal ends that went well. */
export const REHEARSED = "rehearsed";
/** What the owner had of this mount is gone, or the state is none. */
export const OTHER_OWNER = "other-owner";
const FINAL_CODES: ReadonlySet<string> = new Set([OTHER_OWNER, "bad-state"]);

export type Rehearsal = "no" | "joined" | "whole";

export class TakeOver {
  readonly fuseFd: number = FUSE_FD;
  /** It goes on with nothing: it only shows that another process could. "joined": an owner's: no other owner is to be reached. */
  readonly rehearses: Rehearsal;
  /** The process before has paused: it is no client of dlmd, and has no locks. */
  isAfterPause = false;
  readonly #channel: Channel;
  /** The old one has let go: its end is no matter any more. */
  #isOurs = false;
  /** This process ends. */
  #failed: Error | null = null;

  /** `fail`: the old process is gone, and has given nothing. `stream`: but in tests, what this process has inherited. */
  constructor(
    fail: (error: Error) => void,
    rehearses: Rehearsal = "no",
    stream: Duplex = new Socket({ fd: CHANNEL_FD, readable: true, writable: true }),
  ) {
    this.rehearses = rehearses;
    this.#channel = new Channel(stream);
    void this.#watch(fail);
  }

  async #watch(fail: (error: Error) => void): Promise<void> {
    await this.#channel.closed;
    if (this.#isOurs) return;
    fail(new OperatingError("the process before has ended, and gave nothing", { code: "restart-cut-off", hint: "Mount again." }));
  }

  /** Resolves when dlmd of this node serves. This process is loaded by then. */
  async dlmd(): Promise<void> {
    await this.#channel.expect("dlmd", DLMD_LIMIT_MS);
    this.isAfterPause = true;
  }

  /** This process has joined all that it needs. */
  hello(): void {
    this.#mayDie("hello");
    this.#channel.say({ say: "hello", versions: [STATE_VERSION], pid: process.pid });
  }

  /** The same. Resolves with what the old one had. */
  async state(): Promise<RestartState> {
    this.hello();
    const { state } = await this.#channel.expect("state", STATE_LIMIT_MS);
    this.#mayDie("state");
    return decodeState(Buffer.from(state, "base64"));
  }

  /** All is open at the owner. Resolves when the old process has let go. */
  async ready(): Promise<void> {
    this.check();
    // A signal to this process itself is heard in another turn.
    if (this.#mayDie("ready")) await new Promise((resolve) => setTimeout(resolve, DIE_WAIT_MS));
    this.check();
    this.#channel.say({ say: "ready" });
    await this.#channel.expect("go", GO_LIMIT_MS);
    this.#isOurs = true;
    this.check();
    this.#mayDie("go");
  }

  waiting(): void {
    this.#channel.say({ say: "waiting" });
  }

  /** Throws why this process ends, if it does. */
  check(): void {
    if (this.#failed !== null) throw this.#failed;
  }

  serving(): void {
    this.#channel.say({ say: "serving" });
  }

  /** This process ends: nothing is taken over any more, and the old one is told at once. */
  giveUp(error: Error): void {
    if (this.#failed !== null) return;
    this.#failed = error;
    this.#channel.say({ say: "failed", why: error.message, final: error instanceof OperatingError && FINAL_CODES.has(error.code) });
  }

  /** Resolves when the old process was told. */
  async failed(error: Error): Promise<void> {
    this.giveUp(error);
    await this.#channel.flushed();
  }

  #mayDie(step: string): boolean {
    const file = process.env[DIE_FILE];
    if (file === undefined) return false;
    try {
      const [at, signal = "SIGKILL"] = readFileSync(file, "utf8").trim().split(" ");
      if (at === step) process.kill(process.pid, signal);
      return at === step;
    } catch {
      // No file: no step.
      return false;
    }
  }
}

/**
 * Resolves when dlmd has taken all that was asked of that lockspace before: its answers come in order. What another process of this node asks later comes
 * to each master later, too.
 */
export function askedAll(lockspace: Lockspace, clientId: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const lock = lockspace.createLock(`restart.${clientId}`, {
      ast: (held, status) => {
        if (status === "granted") held.unlock(0);
        // "again": in a blocked lockspace nothing is granted, and that is the answer.
        else if (status === "unlocked" || status === "again") resolve();
        else
          reject(held.error ?? new OperatingError(`a lock of this process alone: ${status}`, { code: "lock-refused", hint: "Try again." }));
      },
      bast: () => {},
    });
    lock.request(Mode.EX, LockFlag.NOQUEUE);
  });
}

/**
 * The process that serves a mount gives it to a new one (README.md, hazard F33). Until it has said "go" it can go on by itself, and does whenever anything is not as it
 * should be.
 */
import { type ChildProcess, spawn } from "node:child_process";
import type { Duplex } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { OperatingError } from "../../dlmd/base/error.ts";
import type { Log } from "../../dlmd/base/log.ts";
import type { LateRow } from "../coherence/rest.ts";
import type { FileLockRow } from "../file-lock/api.ts";
import type { OpenAtOwner } from "../lower/remote/core.ts";
import type { HoldRules } from "../session/dispatch.ts";
import type { SessionHandOff } from "../session/mount-session.ts";
import { coverlayProgram, NODE_FLAGS, ownWords } from "../volume/start-overlay.ts";
import { Channel, CHANNEL_FD, type Message } from "./channel.ts";
import { encodeState, type RestartState, STATE_VERSION } from "./state.ts";
import { stateOf } from "./tables.ts";

/** The new process has to join the lock manager and its group within this time; calls go on meanwhile. */
export const HELLO_LIMIT_MS = 30_000;
/** What is in the way for so long while that is awaited, stays: as where this node has become the owner, and the new process cannot join. */
export const REFUSED_LIMIT_MS = 3000;
const REFUSED_LOOK_MS = 250;
/** Operations that run have to end, and locks to go, within this time; else the old process goes on. */
export const REST_LIMIT_MS = 10_000;
/** How often it looks whether they have. */
const REST_LOOK_MS = 2;
/** The new process has to open all files at the owner within this time; else the old process goes on. */
export const READY_LIMIT_MS = 15_000;
/** The new process has to answer within this time, or to say that it waits for dlmd, and then anew; else the mount ends. */
export const SERVING_LIMIT_MS = 30_000;
/** So many requests are held at most, and so much of them; else the old process goes on. */
export const HELD_MAX = 65_536;
export const HELD_BYTES_MAX: number = 64 * 1024 * 1024;
/** A new process that is to end may take so long. */
export const END_LIMIT_MS = 10_000;

/**
 * Of `coverlay serve`: how far it is to go. `dlmd-away`: it waits until it is told that dlmd serves. `rehearse`: it ends when it has said hello. `rehearse-owner`: the same,
 * where this process is the owner: on its node the new one has to wait for another owner.
 */
const TAKE_OVER = "--take-over";
export type TakeOverWay = "dlmd-away" | "rehearse" | "rehearse-owner";

export interface GiveHost {
  readonly log: Log;
  readonly handOff: SessionHandOff;
  readonly connection: number;
  /** Why it cannot be now, in words; null: it can. Asked again before each step. */
  readonly refusal: () => string | null;
  readonly ownerEpoch: () => number | null;
  readonly openAtOwner: () => OpenAtOwner | null;
  /** All file locks that are held stay where they are until `restEnds`. */
  readonly fileLocksRest: () => boolean;
  /** Calls that wait for file locks end, and are kept: they begin again (hazard F45). */
  readonly yieldFileLocks: () => void;
  readonly rest: () => boolean;
  readonly restEnds: () => void;
  readonly rules: HoldRules;
  /** For the log: what does not rest. */
  readonly restless: () => readonly string[];
  /** Write tokens, and files with locks: the new process has asked for all. */
  readonly giveLocks: () => void;
  /** Rest.lates */
  readonly lates: () => readonly LateRow[];
  /** Rest.shared */
  readonly shared: () => readonly number[];
  /** Since `rest`. */
  readonly fileLocks: () => readonly FileLockRow[];
  /** PreferredOwner: this mount was the owner once. */
  readonly hasOwned: () => boolean;
  /** Nobody is to find this process any more. */
  readonly leaveStatus: () => void;
  /** The new process died after it was told to go on. */
  readonly fail: (error: Error) => void;
  /** Another one serves. */
  readonly given: () => void;
}

/** What it takes to come to rest. */
export type RestingHost = Omit<GiveHost, "fail" | "given">;

/** For the command. */
export type RestartAnswer =
  | { readonly kind: "refused"; readonly why: string }
  /** The mount goes on in its process. */
  | { readonly kind: "failed"; readonly why: string }
  /** The mount has ended. */
  | { readonly kind: "lost"; readonly why: string }
  /** `pauseMs`: calls waited so long. */
  | {
      readonly kind: "done";
      readonly pid: number;
      readonly pauseMs: number;
      readonly inodes: number;
      readonly files: number;
      readonly requests: number;
    };

export function notNow(why: string): OperatingError {
  return new OperatingError(why, { code: "not-now", hint: "The mount goes on as before. Try again." });
}

/** Throws if a new process that knows these does not know the states of this one. */
export function requireVersion(versions: readonly number[]): void {
  if (versions.includes(STATE_VERSION)) return;
  throw notNow(`the installed program knows states of version ${versions.join(", ")}, this process has version ${STATE_VERSION}`);
}

/** The new process, as far as it matters here. */
export interface NextProcess {
  readonly stream: Duplex;
  /** 0: it could not be started. */
  readonly pid: number;
  /** Resolves when it is gone. */
  readonly ended: Promise<void>;
  readonly failed: (listener: () => void) => void;
  /** It is not waited for any more. */
  readonly leave: () => void;
  readonly kill: () => void;
  /** It leaves its groups by itself, or is killed after END_LIMIT_MS. */
  readonly end: () => void;
}

export async function giveMount(host: GiveHost, start: (fd: number) => NextProcess = (fd) => startNext(fd)): Promise<RestartAnswer> {
  const refusal = host.refusal();
  if (refusal !== null) return { kind: "refused", why: refusal };
  let next: NextProcess;
  try {
    next = start(host.handOff.fd);
  } catch (error) {
    return { kind: "failed", why: wordsOf(error) };
  }
  const channel = new Channel(next.stream);
  next.failed(() => channel.close());
  const pause = { beganMs: 0 };
  try {
    const { versions, pid } = await helloOf(host, channel);
    requireVersion(versions);
    const state = await bringToRest(host, pause);
    channel.say({ say: "state", state: encodeState(state).toString("base64") });
    await channel.expect("ready", READY_LIMIT_MS);
    await channel.silent();
    const changed = host.refusal() ?? (host.ownerEpoch() === state.ownerEpoch ? null : "the volume has another owner now");
    if (changed !== null) throw notNow(changed);
    return await letGo(host, channel, next, { state, pid, beganMs: pause.beganMs });
  } catch (error) {
    channel.close();
    next.end();
    host.restEnds();
    host.handOff.goOn();
    const why = wordsOf(error);
    const pauseMs = pause.beganMs === 0 ? 0 : Math.round(performance.now() - pause.beganMs);
    host.log.warn({ why, pauseMs }, "the mount was not given to a new process, and goes on");
    return { kind: "failed", why };
  }
}

async function helloOf(host: GiveHost, channel: Channel): Promise<Extract<Message, { say: "hello" }>> {
  let looking: NodeJS.Timeout | undefined;
  const refused = new Promise<never>((_, reject) => {
    let sinceMs: number | null = null;
    looking = setInterval(() => {
      const why = host.refusal();
      sinceMs = why === null ? null : (sinceMs ?? performance.now());
      if (why !== null && sinceMs !== null && performance.now() - sinceMs >= REFUSED_LIMIT_MS) reject(notNow(why));
    }, REFUSED_LOOK_MS);
  });
  try {
    return await Promise.race([channel.expect("hello", HELLO_LIMIT_MS), refused]);
  } finally {
    clearInterval(looking);
  }
}

export function wordsOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** As this process was started itself. `fd`: /dev/fuse. */
export function startNext(fd: number, way?: TakeOverWay): NextProcess {
  const flags = way === undefined ? [TAKE_OVER] : [TAKE_OVER, `--${way}`];
  const child = spawn(process.execPath, [...NODE_FLAGS, coverlayProgram(), ...ownWords(), ...flags], {
    detached: true,
    cwd: "/",
    stdio: ["ignore", "inherit", "inherit", "ignore", "pipe", fd],
  });
  return {
    stream: child.stdio[CHANNEL_FD] as Duplex,
    pid: child.pid ?? 0,
    ended: new Promise((resolve) => void child.once("exit", () => resolve()).on("error", () => resolve())),
    failed: (listener) => void child.on("error", listener),
    leave: () => child.unref(),
    kill: () => void child.kill("SIGKILL"),
    end: () => endNext(child),
  };
}

/** Resolves when nothing is under way, no lock is held, the kernel has nothing cached, and nothing is read from it any more. */
export async function bringToRest(host: RestingHost, pause: { beganMs: number }): Promise<RestartState> {
  const { handOff } = host;
  pause.beganMs = performance.now();
  const endMs = pause.beganMs + REST_LIMIT_MS;
  handOff.hold(host.rules);
  const restless = (): void =>
    host.log.warn({ covers: host.restless(), running: handOff.running, held: handOff.held.length }, "what does not rest");
  for (;;) {
    const refusal = host.refusal();
    if (refusal !== null) {
      restless();
      throw notNow(refusal);
    }
    const rests = host.rest();
    host.yieldFileLocks();
    handOff.passHeld();
    if (rests && handOff.running === 0 && host.fileLocksRest()) {
      const state = takeState(host);
      if (state !== null) return state;
    }
    if (handOff.held.length > HELD_MAX) throw notNow(`more than ${HELD_MAX} calls came meanwhile`);
    if (handOff.heldBytes > HELD_BYTES_MAX) throw notNow(`calls with more than ${HELD_BYTES_MAX} bytes came meanwhile`);
    if (performance.now() > endMs) {
      restless();
      throw notNow(`${handOff.running} calls have not ended in ${REST_LIMIT_MS / 1000} s, or locks could not be given up`);
    }
    await sleep(REST_LOOK_MS);
  }
}

/** In the turn in which all rests. null: something is on its way to the owner. */
function takeState({ handOff, connection, ownerEpoch, openAtOwner, lates, shared, fileLocks, hasOwned }: RestingHost): RestartState | null {
  const open = openAtOwner();
  const epoch = ownerEpoch();
  if (open === null || epoch === null) return null;
  handOff.stop();
  const state = stateOf({
    handOff,
    connection,
    ownerEpoch: epoch,
    open,
    lates: lates(),
    shared: shared(),
    fileLocks: fileLocks(),
    hasOwned: hasOwned(),
  });
  if (state === null) throw notNow("the kernel still knows a file that was lost with an owner");
  return state;
}

interface Going {
  readonly state: RestartState;
  readonly pid: number;
  readonly beganMs: number;
}

/** From here on there is no way back: two processes would serve the mount. */
async function letGo(host: GiveHost, channel: Channel, next: NextProcess, { state, pid, beganMs }: Going): Promise<RestartAnswer> {
  host.leaveStatus();
  try {
    host.giveLocks();
    channel.say({ say: "go" });
    await channel.expect("serving", SERVING_LIMIT_MS, () => host.log.warn({ pid }, "the new process waits for locks of the one before"));
  } catch (error) {
    const why = `the new process did not answer, and this one had let go: ${wordsOf(error)}`;
    next.kill();
    host.fail(new OperatingError(why, { code: "restart-lost", hint: "umount (-l), and mount again." }));
    return { kind: "lost", why };
  }
  next.leave();
  const pauseMs = Math.round(performance.now() - beganMs);
  const { inodes, openFiles, held } = state;
  host.log.info({ pid, pauseMs, inodes: inodes.length, files: openFiles.length, requests: held.length }, "a new process serves the mount");
  setImmediate(() => {
    channel.close();
    host.given();
  });
  return { kind: "done", pid, pauseMs, inodes: inodes.length, files: openFiles.length, requests: held.length };
}

/** Exported for tests. */
export function endNext(child: ChildProcess): void {
  child.unref();
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill("SIGTERM");
  const timer = setTimeout(() => child.kill("SIGKILL"), END_LIMIT_MS).unref();
  child.once("exit", () => clearTimeout(timer));
}

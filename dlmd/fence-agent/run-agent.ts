/**
 * Runs a fence agent once (FenceAgentAPI): options as lines on its standard input, and an exit status. It is a process group of its own, so that
 * what it has started ends with it, and it dies with this dlmd (PR_SET_PDEATHSIG by setpriv(1), and the guard): the next node begins only when
 * this one's lease is over, and nothing of it may run then (hazard M2). A dlmd that stands still ends nothing: the guard does, at the time limit.
 * One that waits in the kernel for a disk does not end by SIGKILL: it runs no instruction more, so nothing waits for it.
 */
import { type ChildProcess, spawn, type SpawnOptions } from "node:child_process";
import { constants } from "node:fs";
import { access, stat } from "node:fs/promises";
import { OperatingError } from "../base/error.ts";

/** After SIGTERM, which an agent takes to log out of its device. */
export const KILL_AFTER_MS = 1000;
/** After SIGKILL: what has not ended waits in the kernel, maybe for good. */
export const STUCK_AFTER_MS = 2000;
/** Such processes of the same run, which are tried again for as long as a node is to be fenced. */
export const MAX_STUCK_RUNS = 4;
/** Of standard output; metadata of the largest agent is 12 KiB. */
export const MAX_OUTPUT_BYTES: number = 256 * 1024;
/** The last words of standard error that are kept. */
export const MAX_STDERR_CHARS = 2048;

const AGENT_FOLDER = "/usr/sbin";
const SETPRIV = "/usr/bin/setpriv";
const BASH = "/bin/bash";

/**
 * A process beside the agent that kills its whole group when the time is over, or when this dlmd is dead: then its standard input ends.
 * Killed itself, it does nothing.
 */
const GUARD_SCRIPT = 'read -r -t "$1" || kill -KILL -- "-$2"';
/** Of the guard, after the moment at which a dlmd that runs has killed the agent itself. */
const GUARD_AFTER_MS = 1000;

export interface AgentEnd {
  /** null: a signal ended it. */
  readonly status: number | null;
  readonly signal: string | null;
  readonly isTooLate: boolean;
  /** It was killed and has not ended: it waits in the kernel. Status and signal are null. */
  readonly isStuck: boolean;
  readonly stdout: string;
  readonly isTooLong: boolean;
  readonly stderr: string;
}

/** What is wrong with an agent, or with an option, before it could be run. */
function unusable(message: string, hint: string, cause?: unknown): OperatingError {
  return new OperatingError(message, { code: "fence-agent", hint, cause });
}

/** Whether others than root and this dlmd's user could put their own words there. */
export function isOthers({ uid, mode }: { readonly uid: number; readonly mode: number }, forbidden: number): boolean {
  return (uid !== 0 && uid !== process.geteuid?.()) || (mode & forbidden) !== 0;
}

/** Its path, and what changes with its file. Throws OperatingError: it is not there, cannot be executed, or others may write it. */
export async function findAgent(agent: string, folder: string = AGENT_FOLDER): Promise<{ readonly path: string; readonly state: string }> {
  const path = agent.startsWith("/") ? agent : `${folder}/${agent}`;
  const reinstall = "Install the agents on every node (Debian: fence-agents), or correct `agent` of the device.";
  let found: Awaited<ReturnType<typeof stat>>;
  try {
    found = await stat(path);
  } catch (cause) {
    throw unusable(`the fence agent ${path} is not there (${(cause as NodeJS.ErrnoException).code ?? "?"})`, reinstall, cause);
  }
  if (!found.isFile()) throw unusable(`the fence agent ${path} is not a program`, reinstall);
  if (isOthers(found, 0o022))
    throw unusable(`the fence agent ${path} could be written by others than root`, `chown root ${path}; chmod go-w ${path}`);
  try {
    await access(path, constants.X_OK);
  } catch (cause) {
    throw unusable(`the fence agent ${path} cannot be executed`, `chmod +x ${path}`, cause);
  }
  return { path, state: `${found.ino} ${found.mtimeMs} ${found.size}` };
}

function signalGroup({ pid }: ChildProcess, signal: NodeJS.Signals): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, signal);
  } catch (error) {
    // All of it has ended.
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

/** Where descriptors are all in use it has no pipes, and "error" follows: to be listened to before anything else. */
function start(program: string, words: readonly string[], options: SpawnOptions): ChildProcess {
  try {
    return spawn(program, words, options);
  } catch (cause) {
    // Such as ENOMEM, for which Node.js throws.
    throw unusable(
      `${program} could not be started: ${(cause as Error).message}`,
      "Free memory and descriptors, and look for what has taken them.",
      cause,
    );
  }
}

function startGuard(groupPid: number, limitMs: number): ChildProcess {
  const args = ["-c", GUARD_SCRIPT, "guard", String(limitMs / 1000), String(groupPid)];
  return start(BASH, args, { detached: true, stdio: ["pipe", "ignore", "ignore"], cwd: "/", env: { LC_ALL: "C" } });
}

const neverRun: AgentEnd = { status: null, signal: "SIGKILL", isTooLate: false, isStuck: false, stdout: "", isTooLong: false, stderr: "" };

/** Processes that wait in the kernel, for each run. */
const stuckRuns = new Map<string, number>();

function countStuck(run: string, by: 1 | -1): void {
  const count = (stuckRuns.get(run) ?? 0) + by;
  if (count === 0) stuckRuns.delete(run);
  else stuckRuns.set(run, count);
}

export interface AgentRun {
  /** For errors; of a program that is no fence agent. */
  readonly what?: string;
  readonly path: string;
  /** Arguments beside the input; mostly none. */
  readonly words?: readonly string[];
  readonly input: string;
  readonly timeoutMs: number;
  /** Aborted: it is killed at once. */
  readonly signal: AbortSignal;
}

/** Rejects with OperatingError if it cannot be started. */
export function runAgent({ path, what = `the fence agent ${path}`, words = [], input, timeoutMs, signal }: AgentRun): Promise<AgentEnd> {
  if (signal.aborted) return Promise.resolve(neverRun);
  const sameRun = JSON.stringify([path, words, input]);
  if ((stuckRuns.get(sameRun) ?? 0) >= MAX_STUCK_RUNS) {
    const hint = "Look at the disk that they wait for (state D in ps). A restart of this machine ends them.";
    return Promise.reject(unusable(`${what} is not run again: ${MAX_STUCK_RUNS} of its processes wait in the kernel`, hint));
  }
  return new Promise((resolve, reject) => {
    const child = start(SETPRIV, ["--pdeathsig", "KILL", path, ...words], {
      detached: true,
      stdio: ["pipe", "pipe", "pipe"],
      cwd: "/",
      env: { ...process.env, LC_ALL: "C" },
    });
    child.on("error", (cause) => {
      done();
      reject(unusable(`${what} could not be started: ${cause.message}`, `${SETPRIV} (Debian: util-linux) must be there.`, cause));
    });
    // Without it the agent runs on if this dlmd stands still: it is killed, and the device says what is missing.
    let guardError: Error | null = null;
    let guard: ChildProcess | null = null;
    try {
      if (child.pid !== undefined) guard = startGuard(child.pid, timeoutMs + KILL_AFTER_MS + GUARD_AFTER_MS);
    } catch (error) {
      guardError = error as Error;
    }
    guard?.on("error", (cause) => {
      guardError = cause;
      stop();
    });
    guard?.stdin?.on("error", () => undefined);
    let [stdout, stderr] = ["", ""];
    let [isTooLate, isTooLong] = [false, false];
    let kill: NodeJS.Timeout | null = null;
    let stuck: NodeJS.Timeout | null = null;
    const late = setTimeout(() => {
      isTooLate = true;
      signalGroup(child, "SIGTERM");
      kill = setTimeout(stop, KILL_AFTER_MS);
    }, timeoutMs);
    const stop = (): void => {
      signalGroup(child, "SIGKILL");
      stuck ??= setTimeout(giveUp, STUCK_AFTER_MS);
    };
    const giveUp = (): void => {
      done();
      countStuck(sameRun, 1);
      child.once("exit", () => countStuck(sameRun, -1));
      for (const pipe of [child.stdin, child.stdout, child.stderr]) pipe?.destroy();
      child.unref();
      resolve({ status: null, signal: null, isTooLate, isStuck: true, stdout, isTooLong, stderr });
    };
    const done = (): void => {
      clearTimeout(late);
      if (kill !== null) clearTimeout(kill);
      if (stuck !== null) clearTimeout(stuck);
      signal.removeEventListener("abort", stop);
      guard?.kill("SIGKILL");
    };
    signal.addEventListener("abort", stop);
    child.stdout?.setEncoding("utf8").on("data", (chunk: string) => {
      if (stdout.length + chunk.length > MAX_OUTPUT_BYTES) isTooLong = true;
      else stdout += chunk;
    });
    child.stderr?.setEncoding("utf8").on("data", (chunk: string) => (stderr = (stderr + chunk).slice(-MAX_STDERR_CHARS)));
    child.on("exit", (status, signalName) => {
      if (stuck !== null) clearTimeout(stuck);
      // A process that it has left behind would go on.
      signalGroup(child, "SIGKILL");
      // One that is in no group of it any more may hold its output open.
      const drained = setTimeout(() => {
        child.stdout?.destroy();
        child.stderr?.destroy();
      }, KILL_AFTER_MS);
      child.once("close", () => {
        clearTimeout(drained);
        done();
        if (guardError !== null) {
          const hint = `${BASH} must be there, and memory and descriptors free.`;
          return reject(unusable(`no guard for ${what} could be started: ${guardError.message}`, hint, guardError));
        }
        resolve({ status, signal: signalName, isTooLate, isStuck: false, stdout, isTooLong, stderr });
      });
    });
    // One that does not read its options says so by its status.
    child.stdin?.on("error", () => undefined);
    child.stdin?.end(input);
    if (guardError !== null) stop();
  });
}

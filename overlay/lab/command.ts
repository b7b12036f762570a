/** Runs the machine's own tools (ip, losetup, mkfs ...) and turns what they say into errors that name them. */
import { type SpawnOptions, spawn } from "node:child_process";
import { OperatingError } from "../../dlmd/base/error.ts";

/** A tool that takes longer is stuck, on a disk or on a mount. */
const TOOL_TIMEOUT_MS = 60_000;
/** More than this of a tool's output is not kept. */
const MAX_OUTPUT_BYTES = 1024 * 1024;

export interface RunOptions {
  readonly input?: string;
  readonly env?: NodeJS.ProcessEnv;
  readonly timeoutMs?: number;
  /** Ends the tool when it fires. */
  readonly signal?: AbortSignal | undefined;
}

export interface RunResult {
  /** Exit status; null when a signal ended it. */
  readonly status: number | null;
  readonly endedBy: NodeJS.Signals | null;
  readonly timedOut: boolean;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Runs a tool to its end, in a session of its own so that Ctrl-C at the terminal reaches only coverlay. Rejects only if it
 * cannot be started. After the time limit it gets SIGKILL; where even that does not end it (it waits for a dead
 * disk) the result says so, and it is left to itself.
 */
export function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  return new Promise((resolve, reject) => {
    const spawnOptions: SpawnOptions = { detached: true, env: options.env ?? process.env, stdio: ["pipe", "pipe", "pipe"] };
    const child = spawn(command, args, spawnOptions);
    let stdout = "";
    let stderr = "";
    let timedOut = false;
    const settle = (status: number | null, endedBy: NodeJS.Signals | null): void => {
      clearTimeout(timer);
      clearTimeout(graceTimer);
      options.signal?.removeEventListener("abort", kill);
      resolve({ status, endedBy, timedOut, stdout, stderr });
    };
    const leave = (): void => {
      child.unref();
      child.stdout?.destroy();
      child.stderr?.destroy();
      settle(null, "SIGKILL");
    };
    let graceTimer: NodeJS.Timeout | undefined;
    const kill = (): void => {
      child.kill("SIGKILL");
      graceTimer = setTimeout(leave, 1000);
    };
    const timer = setTimeout(() => {
      timedOut = true;
      kill();
    }, options.timeoutMs ?? TOOL_TIMEOUT_MS);
    child.stdout?.on("data", (chunk: Buffer) => (stdout = (stdout + chunk.toString("utf8")).slice(0, MAX_OUTPUT_BYTES)));
    child.stderr?.on("data", (chunk: Buffer) => (stderr = (stderr + chunk.toString("utf8")).slice(0, MAX_OUTPUT_BYTES)));
    child.on("error", (error) => {
      clearTimeout(timer);
      reject(notStarted(command, error));
    });
    child.on("close", settle);
    child.stdin?.on("error", () => undefined); // The tool ended without reading; its status says what that means.
    child.stdin?.end(options.input ?? "");
    if (options.signal?.aborted === true) kill();
    else options.signal?.addEventListener("abort", kill, { once: true });
  });
}

function notStarted(command: string, cause: Error): OperatingError {
  const missing = (cause as NodeJS.ErrnoException).code === "ENOENT";
  return new OperatingError(missing ? `the tool ${command} is not there` : `${command} cannot be started: ${cause.message}`, {
    code: "no-tool",
    hint: missing
      ? `Install the package that has ${command}, or correct PATH.`
      : "See what ulimit -u and the memory of this machine allow.",
    cause,
  });
}

/** The tool's own words about how it ended. */
export function describeRun(command: string, args: readonly string[], result: RunResult): string {
  const how = result.timedOut ? "took too long" : result.endedBy !== null ? `ended by ${result.endedBy}` : `exit status ${result.status}`;
  const words = (result.stderr.trim() || result.stdout.trim()).split("\n").slice(-6).join("\n  ");
  return `${command} ${args.join(" ")}: ${how}${words === "" ? "" : `\n  ${words}`}`;
}

/** What to do where a tool that works elsewhere fails, and its own words do not say it. */
const NOT_ALLOWED = "In a container: it must be privileged. Elsewhere: see dmesg.";

export interface MustOptions extends RunOptions {
  /** What to do if it fails. */
  readonly hint?: string;
}

/** Runs a tool that must succeed; gives its stdout. Throws OperatingError "tool-failed" with the tool's words. */
export async function must(command: string, args: readonly string[], options: MustOptions = {}): Promise<string> {
  const result = await run(command, args, options);
  if (result.status === 0) return result.stdout;
  throw new OperatingError(describeRun(command, args, result), { code: "tool-failed", hint: options.hint ?? NOT_ALLOWED });
}

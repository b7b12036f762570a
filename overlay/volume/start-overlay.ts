/** Starts the overlay of a mount as a process of its own and waits for its word (ready-pipe.ts). */
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, existsSync, mkdirSync, openSync } from "node:fs";
import path from "node:path";
import type { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import { OperatingError } from "../../dlmd/base/error.ts";
import { EXIT } from "../../dlmd/base/exit-status.ts";
import { NAME_MAX } from "../lower/linux.ts";
import { placeFile } from "./mount-record.ts";
import { readReady } from "./ready-pipe.ts";

export interface OverlayArguments {
  /** The source that mount tables show (canonical-path.ts): its process has another working directory. */
  readonly device: string;
  readonly mountPoint: string;
  /** The text after -o. */
  readonly options: string;
  readonly runDir: string;
}

/** Who is told what comes of it. */
interface StartListener {
  /** The overlay's pid, at once. If it throws, the overlay is ended, and that is thrown: nobody else would know of it. */
  readonly started?: (pid: number) => void;
  /** For what it waits, in words. */
  readonly waiting?: (why: string) => void;
}

/** The compiled program, from the sources and from dist/ alike. Throws OperatingError "not-built". */
export function coverlayProgram(): string {
  const candidates = ["../main.js", "../../dist/overlay/main.js"].map((at) => fileURLToPath(new URL(at, import.meta.url)));
  const found = candidates.find((file) => existsSync(file));
  if (found !== undefined) return found;
  throw new OperatingError(`the compiled program is missing: ${candidates.join(" or ")} expected`, {
    code: "not-built",
    hint: "Run: npm run build",
  });
}

/**
 * How V8 is to keep the heap: so much more than what lives in it at most (V8 takes 8 MB at least), and little room for young objects, of which an overlay
 * has few at a time. An overlay at rest takes 80 MB instead of 120, one with 100,000 cached inodes a third less than by default.
 * (`--optimize-for-size` does that too, but it makes create, close and unlink a sixth slower.)
 */
const HEAP_GROWTH: readonly { readonly belowMib: number; readonly percent: number }[] = [
  // A collection for each 8 MB that a burst of changes leaves behind takes a tenth of the processor, and there is room (150 MB and 1 KiB for each inode).
  { belowMib: 48, percent: 50 },
  { belowMib: 96, percent: 16 },
  { belowMib: 256, percent: 6 },
  // From some 200,000 cached inodes on a collection takes a second or more, and one after each sixteenth takes half of the processor.
  { belowMib: Number.POSITIVE_INFINITY, percent: 25 },
];

/** What `--heap-growing-percent` is to be from now on, with so much in the heap. */
export function heapGrowthPercent(usedBytes: number): number {
  return HEAP_GROWTH.find(({ belowMib }) => usedBytes < belowMib * 1024 * 1024)?.percent ?? 0;
}

export const NODE_FLAGS: readonly string[] = [`--heap-growing-percent=${heapGrowthPercent(0)}`, "--max-semi-space-size=4"];

/** malloc(3) otherwise gives each thread that meets another one there an arena of its own, up to eight for each processor, and none gives much back. */
const ENVIRONMENT: NodeJS.ProcessEnv = { MALLOC_ARENA_MAX: "2" };

/** How long an overlay that does not serve yet may take to undo what it has begun. */
const INTERRUPT_LIMIT_MS = 10_000;

/** Options of `serve` that say how a process came to be. */
const BEGUN_BY: ReadonlySet<string> = new Set(["--take-over", "--dlmd-away", "--rehearse", "--rehearse-owner", "--after-crash"]);

/** Those of this process, for another one that is to go on with its mount. */
export function ownWords(): string[] {
  return process.argv.slice(2).filter((word) => !BEGUN_BY.has(word));
}

/** Named after the mount point, as far as the name of a file has room for it. */
export function overlayLogFile({ mountPoint, runDir }: Pick<OverlayArguments, "mountPoint" | "runDir">): string {
  const name = `mount${mountPoint.replaceAll("/", "-")}.log`;
  return path.join(runDir, Buffer.byteLength(name) > NAME_MAX ? `mount-${placeFile(mountPoint, ".log", "")}` : name);
}

/**
 * Resolves with the overlay's pid once the mount answers; the overlay goes on without us. Rejects with the overlay's own error, after it
 * has ended. An interrupt of this command ends the overlay too: after INTERRUPT_LIMIT_MS, or a second one, without asking. Then it rejects with
 * "interrupted", whatever the overlay said: nobody is to try again (mount-wait.ts). So does an abort of `signal`.
 */
export async function startOverlay(
  args: OverlayArguments,
  program: string = coverlayProgram(),
  signal?: AbortSignal,
  listener: StartListener = {},
): Promise<number> {
  const logFile = overlayLogFile(args);
  mkdirSync(args.runDir, { recursive: true, mode: 0o700 });
  const log = openSync(logFile, "a", 0o640);
  let child: ChildProcess;
  try {
    const words = ["serve", "--device", args.device, "--mountpoint", args.mountPoint, "--options", args.options, "--run-dir", args.runDir];
    const env = { ...ENVIRONMENT, ...process.env };
    child = spawn(process.execPath, [...NODE_FLAGS, program, ...words], {
      detached: true,
      cwd: "/",
      env,
      stdio: ["ignore", log, log, "pipe"],
    });
  } finally {
    closeSync(log);
  }
  return waitForOverlay(child, logFile, signal, listener);
}

async function waitForOverlay(
  child: ChildProcess,
  logFile: string,
  signal: AbortSignal | undefined,
  { started = () => {}, waiting = () => {} }: StartListener,
): Promise<number> {
  const ended = new Promise<void>((resolve) => {
    child.once("exit", () => resolve());
    child.on("error", () => resolve());
  });
  let killing: NodeJS.Timeout | undefined;
  let isInterrupted = false;
  const end = (): void => {
    child.kill(killing === undefined ? "SIGTERM" : "SIGKILL");
    killing ??= setTimeout(() => child.kill("SIGKILL"), INTERRUPT_LIMIT_MS);
  };
  const interrupt = (): void => {
    isInterrupted = true;
    end();
  };
  let signals = 0;
  const signalled = (): void => {
    signals += 1;
    // Whoever gave `signal` hears the first one, too, and aborts.
    if (signal === undefined || signals > 1) interrupt();
  };
  process.on("SIGINT", signalled).on("SIGTERM", signalled);
  signal?.addEventListener("abort", interrupt);
  if (signal?.aborted === true) interrupt();
  const pipe = child.stdio[3] as Readable;
  try {
    if (child.pid !== undefined) told(child.pid, started, end);
    const pid = await readReady(pipe, logFile, (why) => {
      process.stderr.write(`coverlay: waiting: ${why}\n`);
      waiting(why);
    });
    // It unmounts: it may have been on its way to say that it serves.
    if (isInterrupted) throw new Error(`the overlay ${pid} was told to end just before it served`);
    child.unref();
    return pid;
  } catch (error) {
    await ended;
    throw isInterrupted ? interrupted(error) : error;
  } finally {
    clearTimeout(killing);
    pipe.destroy();
    process.off("SIGINT", signalled).off("SIGTERM", signalled);
    signal?.removeEventListener("abort", interrupt);
  }
}

function told(pid: number, started: (pid: number) => void, end: () => void): void {
  try {
    started(pid);
  } catch (error) {
    end();
    throw error;
  }
}

function interrupted(cause: unknown): OperatingError {
  if (cause instanceof OperatingError && cause.code === "interrupted") return cause;
  const how = cause instanceof Error ? cause.message : String(cause);
  return new OperatingError(`interrupted before the mount was there: ${how}`, {
    code: "interrupted",
    hint: "Nothing is left of it: mount again.",
    cause,
    exitStatus: EXIT.INTERRUPTED,
  });
}

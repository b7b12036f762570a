/** Runs the small tools of the file systems (e2fsprogs, xfsprogs, util-linux), in the C locale and with a time limit. */
import { execFile, spawn, spawnSync } from "node:child_process";
import type { Readable } from "node:stream";
import { OperatingError } from "../../dlmd/base/error.ts";

const TOOL_TIMEOUT_MS = 60_000;
const TOOL_OUTPUT_BYTES = 16 * 1024 * 1024;
/** mount(8) and systemd give helpers a short PATH; the tools of file systems stand in sbin. */
export const TOOL_PATH = "/usr/sbin:/usr/bin:/sbin:/bin";

export interface ToolResult {
  readonly status: number;
  readonly stdout: Buffer;
  readonly stderr: string;
}

const environment = (): NodeJS.ProcessEnv => ({
  ...process.env,
  LC_ALL: "C",
  PATH: `${process.env["PATH"] ?? ""}:${TOOL_PATH}`,
  DEBUGFS_PAGER: "cat",
});

/** `debianPackage` is named where the tool is missing. Any exit status is a result. Throws OperatingError "tool-missing", "tool-failed". */
export function runTool(tool: string, args: readonly string[], debianPackage: string): ToolResult {
  const run = spawnSync(tool, args, {
    env: environment(),
    timeout: TOOL_TIMEOUT_MS,
    maxBuffer: TOOL_OUTPUT_BYTES,
    stdio: ["ignore", "pipe", "pipe"],
  });
  if (run.error !== undefined && (run.error as NodeJS.ErrnoException).code === "ENOENT") throw missing(tool, debianPackage);
  if (run.error !== undefined || run.status === null) {
    throw unfinished(tool, args, run.error?.message ?? `ended by ${run.signal}`, run.error);
  }
  return { status: run.status, stdout: run.stdout, stderr: run.stderr.toString("utf8") };
}

/**
 * The same, while this process goes on with its work. Only for a tool that writes nothing: the end of a killed one is not waited for, because a hung
 * disk may hold it.
 */
export function runToolInBackground(tool: string, args: readonly string[], debianPackage: string): Promise<ToolResult> {
  const options = { env: environment(), maxBuffer: TOOL_OUTPUT_BYTES, encoding: "buffer" } as const;
  return new Promise((resolve, reject) => {
    const child = execFile(tool, args, options, (error, stdout, stderr) => {
      clearTimeout(timer);
      if (error !== null && error.code === "ENOENT") return reject(missing(tool, debianPackage));
      if (error !== null && typeof error.code !== "number") return reject(unfinished(tool, args, error.message, error));
      resolve({ status: error === null ? 0 : Number(error.code), stdout, stderr: stderr.toString("utf8") });
    });
    const timer = setTimeout(() => {
      child.kill("SIGKILL");
      child.stdout?.destroy();
      child.stderr?.destroy();
      child.unref();
      reject(unfinished(tool, args, `no end after ${TOOL_TIMEOUT_MS / 1000} s`, undefined));
    }, TOOL_TIMEOUT_MS);
    child.stdin?.end();
  });
}

export interface Writer {
  /** A descriptor of the device, opened with O_EXCL: it stays the tool's, also when this process is killed. Null: the tool opens it so itself. */
  readonly heldFd: number | null;
  /** Beside what every tool gets. */
  readonly env?: NodeJS.ProcessEnv;
  /** Why it takes so long. */
  readonly report: (why: string) => void;
}

/**
 * For a tool that writes to a device (hazard C11). It settles only when the tool has ended, killed or not: its last write may come late. The
 * descriptor is 3, below those that the tool opens: at its end the kernel closes the others before, and each look with O_EXCL says "busy" until then.
 * It has a session of its own: Ctrl-C at a terminal, which every process of the foreground gets, does not end it amid its writes.
 */
export function runWriterInBackground(
  tool: string,
  args: readonly string[],
  debianPackage: string,
  { heldFd, env, report }: Writer,
): Promise<ToolResult> {
  return new Promise((resolve, reject) => {
    const held = heldFd === null ? [] : [heldFd];
    const child = spawn(tool, args, { env: { ...environment(), ...env }, stdio: ["ignore", "pipe", "pipe", ...held], detached: true });
    // Where descriptors are all in use there are no pipes, and "error" follows.
    const { stdout, stderr } = child as typeof child & { readonly stdout?: Readable; readonly stderr?: Readable };
    const [words, complaints] = [collect(stdout), collect(stderr)];
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      child.kill("SIGKILL");
      stdout?.destroy();
      stderr?.destroy();
      report(`${tool} does not end after SIGKILL: the disk does not answer`);
    }, TOOL_TIMEOUT_MS);
    child.on("error", (error: NodeJS.ErrnoException) => {
      // One that was started is waited for.
      if (child.pid !== undefined) return;
      clearTimeout(timer);
      reject(error.code === "ENOENT" ? missing(tool, debianPackage) : unfinished(tool, args, error.message, error));
    });
    child.on("close", (status, signal) => {
      clearTimeout(timer);
      if (isLate) return reject(unfinished(tool, args, `no end after ${TOOL_TIMEOUT_MS / 1000} s`, undefined));
      if (status === null) return reject(unfinished(tool, args, `ended by ${signal}`, undefined));
      resolve({ status, stdout: words(), stderr: complaints().toString("utf8") });
    });
  });
}

/** What comes, up to TOOL_OUTPUT_BYTES. */
function collect(stream: Readable | undefined): () => Buffer {
  const chunks: Buffer[] = [];
  let bytes = 0;
  stream?.on("data", (chunk: Buffer) => {
    bytes += chunk.length;
    if (bytes <= TOOL_OUTPUT_BYTES) chunks.push(chunk);
  });
  return () => Buffer.concat(chunks);
}

function missing(tool: string, debianPackage: string): OperatingError {
  return new OperatingError(`${tool} is not installed`, {
    code: "tool-missing",
    hint: `Install it: apt-get install ${debianPackage}`,
    exitStatus: 32,
  });
}

function unfinished(tool: string, args: readonly string[], why: string, cause: unknown): OperatingError {
  return new OperatingError(`${tool} ${args.join(" ")} did not finish: ${why}`, {
    code: "tool-failed",
    hint: "If the device does not answer, look at its path (dmesg).",
    cause,
    exitStatus: 32,
  });
}

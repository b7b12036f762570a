/** Runs the small tools of the file systems (e2fsprogs, xfsprogs, util-linux), in the C locale and with a time limit. */
import { spawnSync } from "node:child_process";
import { OperatingError } from "../../dlmd/base/error.ts";

const TOOL_TIMEOUT_MS = 60_000;
const TOOL_OUTPUT_BYTES = 16 * 1024 * 1024;
/** mount(8) and systemd give helpers a short PATH; the tools of file systems stand in sbin. */
const TOOL_PATH = "/usr/sbin:/usr/bin:/sbin:/bin";

export interface ToolResult {
  readonly status: number;
  readonly stdout: Buffer;
  readonly stderr: string;
}

/** `debianPackage` is named where the tool is missing. Any exit status is a result. Throws OperatingError "tool-missing", "tool-failed". */
export function runTool(tool: string, args: readonly string[], debianPackage: string): ToolResult {
  const env = { ...process.env, LC_ALL: "C", PATH: `${process.env["PATH"] ?? ""}:${TOOL_PATH}`, DEBUGFS_PAGER: "cat" };
  const run = spawnSync(tool, args, { env, timeout: TOOL_TIMEOUT_MS, maxBuffer: TOOL_OUTPUT_BYTES, stdio: ["ignore", "pipe", "pipe"] });
  if (run.error !== undefined && (run.error as NodeJS.ErrnoException).code === "ENOENT") {
    throw new OperatingError(`${tool} is not installed`, {
      code: "tool-missing",
      hint: `Install it: apt-get install ${debianPackage}`,
      exitStatus: 32,
    });
  }
  if (run.error !== undefined || run.status === null) {
    const why = run.error?.message ?? `ended by ${run.signal}`;
    throw new OperatingError(`${tool} ${args.join(" ")} did not finish: ${why}`, {
      code: "tool-failed",
      hint: "If the device does not answer, look at its path (dmesg).",
      cause: run.error,
      exitStatus: 32,
    });
  }
  return { status: run.status, stdout: run.stdout, stderr: run.stderr.toString("utf8") };
}

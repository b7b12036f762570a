/** mount -o bg, as nfs(5) has it: the first try is the command's; a process of its own goes on, and the command has succeeded. */
import { closeSync, mkdirSync, openSync } from "node:fs";
import { startWaiter } from "./mount-waiter.ts";
import { type OverlayArguments, coverlayProgram, overlayLogFile } from "./start-overlay.ts";

/**
 * Whether systemd has started the command that started this one (systemd.exec(5), SYSTEMD_EXEC_PID): mount(8) of a mount unit. That unit would fail
 * without its mount, and a process that goes on is none of it.
 */
export function startedBySystemd(env: NodeJS.ProcessEnv, parentPid: number): boolean {
  return Number(env["SYSTEMD_EXEC_PID"]) === parentPid;
}

/** `waitMs`: infinity: without end. What the process says goes to the log of the mount. Throws OperatingError "already-waiting", "no-background". */
export async function mountInBackground(
  args: OverlayArguments & { readonly sloppy: boolean },
  waitMs: number,
  program: string = coverlayProgram(),
): Promise<{ readonly pid: number; readonly logFile: string }> {
  const limit = Number.isFinite(waitMs) ? `timeout=${Math.ceil(waitMs / 1000)}` : "wait";
  // Of options that exclude each other the last one counts.
  const options = [args.options, "fg", limit].filter((part) => part !== "").join(",");
  const logFile = overlayLogFile(args);
  mkdirSync(args.runDir, { recursive: true, mode: 0o700 });
  const log = openSync(logFile, "a", 0o640);
  try {
    const command = [
      process.execPath,
      program,
      "mount",
      args.device,
      args.mountPoint,
      "-o",
      options,
      ...(args.sloppy ? ["-s"] : []),
      "--waiter",
    ];
    const about = { source: args.device, mountPoint: args.mountPoint, runDir: args.runDir, logFile };
    return { pid: await startWaiter(about, command, log), logFile };
  } finally {
    closeSync(log);
  }
}

/**
 * The process that waits in the background for a mount (`-o bg`): one for each mount point of this machine. The kernel holds its claim: it has a flock(2)
 * on a file that is never removed. A second file, beside the records of mounts (mount-record.ts), says which process it is, and an umount ends that.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, existsSync, mkdirSync, openSync, renameSync, rmSync, writeFileSync, writeSync } from "node:fs";
import path from "node:path";
import type { Readable } from "node:stream";
import { OperatingError } from "../../dlmd/base/error.ts";
import { EXIT } from "../../dlmd/base/exit-status.ts";
import { startTimeOf } from "../../dlmd/base/process.ts";
import { canonicalPlace } from "./canonical-path.ts";
import {
  RECORD_DIR,
  type MountRecord,
  type ProcessName,
  type RecordFile,
  isOfRunDir,
  isServing,
  mountRecordFiles,
  placeFile,
  readRecordIfThere,
  recordFiles,
  waitForExit,
} from "./mount-record.ts";
import { TOOL_PATH } from "./tool.ts";

/** Not that of records: a script that looks for overlays takes those. */
const EXTENSION = ".waiter";
const LOCK_EXTENSION = ".lock";
/** It may be starting an overlay, which has ten seconds to undo what it has begun (start-overlay.ts). */
const END_LIMIT_MS = 20_000;
/** Where the process in the background says that it has the claim. */
const CLAIMED_FD = 3;
const CLAIMED = "claimed\n";
/** Of flock(1), where another process has the lock. No command of ours ends with it. */
const LOCKED_STATUS = 75;

export interface Waiter extends Omit<MountRecord, "localFlocks"> {
  readonly logFile: string;
  /** That it has started last. It outlives a waiter that was killed. */
  readonly overlay?: ProcessName | null;
}

type WaiterAbout = Pick<Waiter, "source" | "mountPoint" | "runDir" | "logFile">;

/** A path by which it is known already is not looked up: what it lies in may hang. */
function fileOf(mountPoint: string, dir: string): string {
  const named = placeFile(path.resolve(mountPoint), EXTENSION, dir);
  return existsSync(named) ? named : placeFile(canonicalPlace(mountPoint), EXTENSION, dir);
}

/** null: there is none, or it is damaged. Throws OperatingError "permission". */
function readWaiter(file: string): Waiter | null {
  return readRecordIfThere(file) as Waiter | null;
}

function writeWaiter(file: string, waiter: Waiter): void {
  const temporary = `${file}.${process.pid}`;
  writeFileSync(temporary, `${JSON.stringify(waiter)}\n`);
  renameSync(temporary, file);
}

/** Its overlay that has not mounted; one that has is ended by an unmount. */
function startingOverlay({ overlay }: Waiter, dir: string): ProcessName | null {
  if (overlay === null || overlay === undefined || !isServing(overlay)) return null;
  const hasMounted = mountRecordFiles(dir).some(({ record }) => record?.pid === overlay.pid && record.startTime === overlay.startTime);
  return hasMounted ? null : overlay;
}

/** null: none runs. */
export function waiterOf(mountPoint: string, dir: string = RECORD_DIR): Waiter | null {
  const waiter = readWaiter(fileOf(mountPoint, dir));
  return waiter !== null && isServing(waiter) ? waiter : null;
}

/** Those whose process runs, or an overlay that it was starting; and files that are damaged. */
export function waiterFiles(dir: string = RECORD_DIR): RecordFile<Waiter>[] {
  return recordFiles<Waiter>(EXTENSION, dir).filter(
    ({ record }) => record === null || isServing(record) || startingOverlay(record, dir) !== null,
  );
}

/** Of that run directory. Throws OperatingError "permission". */
export function waitersOf(runDir: string, dir: string = RECORD_DIR): Waiter[] {
  return waiterFiles(dir).flatMap(({ record }) => (record !== null && isOfRunDir(record, runDir) ? [record] : []));
}

/**
 * Runs `command` as the process that waits for that mount point, and resolves with its pid once it has the claim: from then on an umount finds it. Its
 * output goes to the descriptor `log`. Throws OperatingError "already-waiting", "no-background".
 */
export async function startWaiter(about: WaiterAbout, command: readonly string[], log: number, dir: string = RECORD_DIR): Promise<number> {
  mkdirSync(dir, { recursive: true, mode: 0o755 });
  const lock = placeFile(canonicalPlace(about.mountPoint), LOCK_EXTENSION, dir);
  // Root's alone: a lock needs no more than a descriptor for reading.
  closeSync(openSync(lock, "a", 0o600));
  // --no-fork: the lock is that of the process that flock(1) becomes. Node.js gives it to no child.
  const words = ["--nonblock", "--no-fork", "--conflict-exit-code", String(LOCKED_STATUS), lock, ...command];
  const env = { ...process.env, PATH: `${process.env["PATH"] ?? ""}:${TOOL_PATH}` };
  const child = spawn("flock", words, { detached: true, cwd: "/", env, stdio: ["ignore", log, log, "pipe"] });
  const ended = endOf(child);
  // Where descriptors are all in use there is no pipe.
  const pipe = (child.stdio as typeof child.stdio | undefined)?.[CLAIMED_FD] as Readable | undefined;
  child.on("error", () => pipe?.destroy());
  const claimed = pipe !== undefined && (await hasSaid(pipe, CLAIMED));
  pipe?.destroy();
  if (claimed && child.pid !== undefined) {
    child.unref();
    return child.pid;
  }
  const how = await ended;
  if (how === LOCKED_STATUS) throw alreadyWaiting(about, waiterOf(about.mountPoint, dir));
  throw new OperatingError(`no process could be started in the background: ${String(how)}`, {
    code: "no-background",
    hint: `Its log is ${about.logFile}. Without bg the command itself waits.`,
    exitStatus: 32,
  });
}

async function endOf(child: ChildProcess): Promise<number | string> {
  try {
    const [status, signal] = (await once(child, "exit")) as [number | null, NodeJS.Signals | null];
    return status ?? `ended by ${signal}`;
  } catch (error) {
    return (error as Error).message;
  }
}

async function hasSaid(pipe: Readable, word: string): Promise<boolean> {
  let text = "";
  try {
    for await (const chunk of pipe) {
      text += String(chunk);
      if (text.length >= word.length) break;
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ERR_STREAM_PREMATURE_CLOSE") throw error;
  }
  return text === word;
}

/** `other`: null: it has only just begun. */
function alreadyWaiting({ source, mountPoint, logFile }: WaiterAbout, other: Waiter | null): OperatingError {
  const name = other === null ? "another process" : `process ${other.pid}`;
  return new OperatingError(`${name} waits in the background already to mount ${other?.source ?? source} at ${mountPoint}`, {
    code: "already-waiting",
    hint: `It says in ${other?.logFile ?? logFile} for what. To end it: coverlay umount ${mountPoint}`,
    exitStatus: 32,
  });
}

/** What the process in the background says of itself, which has the lock. */
interface WaiterClaim {
  /** Ends an overlay that a waiter before this one was starting when it was killed. Rejects with OperatingError "still-waiting". */
  endLeftOverlay(): Promise<void>;
  overlayStarted(pid: number): void;
  end(): void;
}

/** `say` takes the word for the command that has started this process. Throws OperatingError "interrupted": that is gone. */
export function claimWaiting(about: WaiterAbout, dir: string = RECORD_DIR, say: (word: string) => void = sayToCommand): WaiterClaim {
  const file = placeFile(canonicalPlace(about.mountPoint), EXTENSION, dir);
  const before = readWaiter(file);
  let own: Waiter = { ...nameOf(process.pid), ...about, overlay: before === null ? null : startingOverlay(before, dir) };
  const left: Waiter = own;
  writeWaiter(file, own);
  const end = (): void => rmSync(file, { force: true });
  try {
    say(CLAIMED);
  } catch (cause) {
    end();
    throw new OperatingError("the command that has started this process is gone", {
      code: "interrupted",
      hint: "Nothing is left of it: mount again.",
      cause,
      exitStatus: EXIT.INTERRUPTED,
    });
  }
  return {
    endLeftOverlay: async () => void (await endOverlay(left, dir, END_LIMIT_MS)),
    overlayStarted(pid) {
      own = { ...own, overlay: nameOf(pid) };
      writeWaiter(file, own);
    },
    end,
  };
}

function sayToCommand(word: string): void {
  writeSync(CLAIMED_FD, word);
  closeSync(CLAIMED_FD);
}

function nameOf(pid: number): ProcessName {
  return { pid, startTime: startTimeOf(pid) ?? "" };
}

/** Resolves with the one that has ended, whose pid is its overlay's if only that ran; null: there was none. Rejects with OperatingError "still-waiting". */
export async function endWaiter(mountPoint: string, dir: string = RECORD_DIR, limitMs: number = END_LIMIT_MS): Promise<Waiter | null> {
  const file = fileOf(mountPoint, dir);
  const waiter = readWaiter(file);
  if (waiter === null) return null;
  const has = isServing(waiter);
  if (has) await endProcess(waiter, waiter, limitMs);
  // It ends its overlay itself, if it is not killed.
  const last = readWaiter(file) ?? waiter;
  const overlay = await endOverlay(last, dir, limitMs);
  if (has) return waiter;
  return overlay === null ? null : { ...last, ...overlay };
}

async function endOverlay(waiter: Waiter, dir: string, limitMs: number): Promise<ProcessName | null> {
  const overlay = startingOverlay(waiter, dir);
  if (overlay !== null) await endProcess(overlay, waiter, limitMs);
  return overlay;
}

async function endProcess(name: ProcessName, { source, mountPoint, logFile }: Waiter, limitMs: number): Promise<void> {
  try {
    process.kill(name.pid, "SIGTERM");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
  if (await waitForExit(name, limitMs)) return;
  throw new OperatingError(`process ${name.pid}, which waits to mount ${source} at ${mountPoint}, does not end`, {
    code: "still-waiting",
    hint: `Look into ${logFile}, or end it: kill -KILL ${name.pid}`,
    exitStatus: 32,
  });
}

/** A look at one device by a process of its own (disk-process.ts), within limits. What was known before a disk hung is kept. */
import { spawn } from "node:child_process";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { type CheckName, type Finding, crossedLimit, judge } from "./finding.ts";
import { findLeftLook } from "./left-look.ts";
import type { DiskFacts } from "./judge-volume.ts";

/** Node.js loads the program: on a busy machine that takes seconds, and says nothing of the disk. */
export const START_LIMIT_MS = 30_000;
/** After SIGKILL. A process that waits for a dead disk does not end by it, and is left behind. */
const END_LIMIT_MS = 1000;

export interface DiskLook {
  readonly device: string;
  /** Null: nothing is known. */
  readonly facts: DiskFacts | null;
  /** That what is not in the facts could not be looked at. */
  readonly findings: readonly Finding[];
}

interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
  /** The limit that was crossed; null: none. */
  readonly crossedMs: number | null;
}

const PROGRAM: readonly string[] = [process.execPath, fileURLToPath(new URL("./disk-process.js", import.meta.url))];

/**
 * `sources`: of fstab and mount units. Only those below /dev are looked at: any other may be on a mount that hangs. `limitMs`: of each step of the
 * look, and not of all: a look at MMP waits for intervals of it. `program`: instead of disk-process.ts.
 */
export async function lookAtDisk(
  device: string,
  sources: readonly string[],
  limitMs: number,
  program: readonly string[] = PROGRAM,
): Promise<DiskLook> {
  const paths = [...new Set(sources.filter((source) => path.normalize(source).startsWith("/dev/")))];
  const left = findLeftLook([...program, device]);
  if (left !== null) {
    const found = `process ${left} of an earlier look still waits for it: the disk hangs`;
    return {
      device,
      facts: null,
      findings: [judge("device", device, "a look at it").unknown(found, "See dmesg, and what is between this machine and the disk.")],
    };
  }
  const { status, stdout, stderr, crossedMs } = await watch([...program, device, String(limitMs), String(process.pid), ...paths], limitMs);
  const facts = factsOf(device, stdout);
  if (crossedMs === null && status === 0 && facts !== null) return { device, facts, findings: [] };
  const words = stderr.trim() || `exit status ${status}`;
  const findings = missingChecks(facts).map((check) =>
    crossedMs === null
      ? judge(check, device, "a look at it").unknown(words, "Run it as root; see dmesg.")
      : crossedLimit(check, device, crossedMs),
  );
  return { device, facts, findings };
}

/** How long a process may be silent: START_LIMIT_MS up to its first line, then `limitMs` after each. `giveUp` has the limit that was crossed. */
export interface Silence {
  readonly heard: () => void;
  readonly end: () => void;
}

export function allowSilence(limitMs: number, giveUp: (crossedMs: number) => void): Silence {
  const wait = (forMs: number): NodeJS.Timeout => setTimeout(() => giveUp(forMs), forMs);
  let timer = wait(START_LIMIT_MS);
  return {
    heard() {
      clearTimeout(timer);
      timer = wait(limitMs);
    },
    end: () => clearTimeout(timer),
  };
}

/** Resolves when the process has ended, or is left behind. It has a session of its own: Ctrl-C reaches coverlay alone. */
function watch([command = "", ...args]: readonly string[], limitMs: number): Promise<Ended> {
  return new Promise((resolve) => {
    const child = spawn(command, args, { detached: true, stdio: ["ignore", "pipe", "pipe"] });
    let stdout = "";
    let stderr = "";
    let crossedMs: number | null = null;
    let graceTimer: NodeJS.Timeout | undefined;
    const end = (status: number | null): void => {
      silence.end();
      clearTimeout(graceTimer);
      resolve({ status, stdout, stderr, crossedMs });
    };
    const silence = allowSilence(limitMs, (crossed) => {
      crossedMs = crossed;
      endSession(child.pid);
      graceTimer = setTimeout(() => {
        child.unref();
        child.stdout.destroy();
        child.stderr.destroy();
        end(null);
      }, END_LIMIT_MS);
    });
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      stdout += text;
      if (crossedMs === null) silence.heard();
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
    child.on("error", (error) => {
      stderr = error.message;
      end(null);
    });
    child.on("close", end);
  });
}

/** With the tools that it has started. */
function endSession(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // It has ended by itself.
  }
}

/** A last line that is not whole does not count; an empty one says that the look goes on. */
export function factsOf(device: string, stdout: string): DiskFacts | null {
  const lines = stdout.split("\n").slice(0, -1);
  const parts = lines.map((line) => JSON.parse(line) as Partial<DiskFacts>);
  if (parts.every((part) => part.identity === undefined)) return null;
  const notLooked = { message: "it was not looked at", hint: "See what is said of the device." };
  const nothing: Pick<DiskFacts, "tags" | "isInUse" | "plainMounts" | "identity"> = {
    identity: notLooked,
    tags: {},
    isInUse: notLooked,
    plainMounts: notLooked,
  };
  return Object.assign({ device, ...nothing }, ...parts) as DiskFacts;
}

/** In the order in which they are looked at: what comes after the last fact was not reached. */
export function missingChecks(facts: DiskFacts | null): CheckName[] {
  if (facts === null) return ["device"];
  const { fileSystem, bit, mmp, identity } = facts;
  if ("message" in identity) return [];
  const missing: CheckName[] = [];
  if (fileSystem === undefined) missing.push("file-system");
  if (bit === undefined) missing.push("bit", "owner");
  if (mmp === undefined) missing.push("mmp");
  return missing;
}

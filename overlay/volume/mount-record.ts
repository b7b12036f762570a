/**
 * Which overlay process serves a mount: one small file for each FUSE mount of this machine, named by the mount's st_dev, so that
 * `umount` can wait for the process whose mount point it took away, whatever run directory that uses.
 */
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { startTimeOf } from "../../dlmd/base/process.ts";

export const RECORD_DIR = "/run/coverlay-mounts";

export interface MountRecord {
  readonly pid: number;
  /** Field 22 of /proc/PID/stat: with the pid, it names one process for ever. */
  readonly startTime: string;
  readonly source: string;
  readonly mountPoint: string;
  readonly runDir: string;
  /** -o localflocks; not in records of 0.1.0. */
  readonly localFlocks?: boolean;
}

function fileOf(device: string): string {
  return path.join(RECORD_DIR, `${device}.json`);
}

/** `device`: "major:minor" of the FUSE mount, from mountinfo. Called by the overlay before it says that it is ready. */
export function writeMountRecord(device: string, mount: Pick<MountRecord, "source" | "mountPoint" | "runDir" | "localFlocks">): void {
  const record: MountRecord = { pid: process.pid, startTime: startTimeOf(process.pid) ?? "", ...mount };
  mkdirSync(RECORD_DIR, { recursive: true, mode: 0o755 });
  const temporary = `${fileOf(device)}.${process.pid}`;
  writeFileSync(temporary, `${JSON.stringify(record)}\n`);
  renameSync(temporary, fileOf(device));
}

/** Called by the overlay as it ends. Another process's record stays. */
export function removeMountRecord(device: string): void {
  if (readMountRecord(device)?.pid === process.pid) rmSync(fileOf(device), { force: true });
}

export function readMountRecord(device: string): MountRecord | null {
  try {
    return JSON.parse(readFileSync(fileOf(device), "utf8")) as MountRecord;
  } catch (error) {
    // A record that is not there, or was cut off by a crash, tells nothing.
    if ((error as NodeJS.ErrnoException).code === "ENOENT" || error instanceof SyntaxError) return null;
    throw error;
  }
}

export function isServing(record: Pick<MountRecord, "pid" | "startTime">): boolean {
  return startTimeOf(record.pid) === record.startTime;
}

const EXIT_POLL_MS = 10;

/** True once the process has ended; false after `limitMs`. It is not our child, so /proc is all there is to ask. */
export async function waitForExit(record: MountRecord, limitMs: number): Promise<boolean> {
  const deadline = performance.now() + limitMs;
  while (isServing(record)) {
    if (performance.now() > deadline) return false;
    await sleep(EXIT_POLL_MS);
  }
  return true;
}

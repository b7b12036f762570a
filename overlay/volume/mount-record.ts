/**
 * Which overlay process serves a mount: one small file for each FUSE mount of this machine, named by the mount's st_dev, so that
 * `umount` can wait for the process whose mount point it took away, whatever run directory that uses.
 */
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { OperatingError } from "../../dlmd/base/error.ts";
import { startTimeOf } from "../../dlmd/base/process.ts";
import { NoSmallFileError, readSmallFile } from "../../dlmd/base/small-file.ts";
import { canonicalPath } from "./canonical-path.ts";
import { unreadable } from "./unreadable.ts";

export const RECORD_DIR = "/run/coverlay-mounts";
const EXTENSION = ".json";

/** With the start time, field 22 of /proc/PID/stat, a pid names one process for ever. */
export interface ProcessName {
  readonly pid: number;
  readonly startTime: string;
}

export interface MountRecord extends ProcessName {
  readonly source: string;
  readonly mountPoint: string;
  readonly runDir: string;
  /** -o localflocks; not in records of 0.1.0. */
  readonly localFlocks?: boolean;
  /** -o deepidle; not in older records. */
  readonly deepIdle?: boolean;
  /** Its process has let go of dlmd, and waits until that was restarted. */
  readonly paused?: boolean;
  /** It is the owner, and keeps the files of so many mounts that are paused. */
  readonly keeps?: number;
  /** Its process has ended, and the disk is not released, or not clean: in words. */
  readonly unreleased?: string;
  /** Its process has ended, and has released what it had. The mount was still there. */
  readonly ended?: boolean;
}

/** What belongs to a place of this machine, mounted or not. */
export function placeFile(place: string, extension: string, dir: string): string {
  return path.join(dir, createHash("sha256").update(place).digest("hex").slice(0, 32) + extension);
}

function fileOf(device: string, dir: string = RECORD_DIR): string {
  return path.join(dir, device + EXTENSION);
}

/** `device`: "major:minor" of the FUSE mount, from mountinfo. Called by the overlay before it says that it is ready. */
export function writeMountRecord(device: string, mount: Omit<MountRecord, keyof ProcessName>): void {
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

/**
 * What is wrong with the release of that process's disk, once; null: all was well. `wasServing`: it ran when the mount was taken away. It takes its record away
 * itself then, so one that is left shows that it was ended.
 */
export function takeUnreleased(
  device: string,
  { pid, startTime }: ProcessName,
  wasServing: boolean,
  dir: string = RECORD_DIR,
): string | null {
  const record = readMountRecord(device, dir);
  if (record === null || record.pid !== pid || record.startTime !== startTime) return null;
  const { unreleased, ended = false, paused = false, source } = record;
  // Who waits for dlmd's restart has given its disk back.
  if (unreleased === undefined && (!wasServing || ended || paused)) return null;
  rmSync(fileOf(device, dir), { force: true });
  return unreleased ?? `its process ${pid} ended before it had released ${source}`;
}

/** One that is not there, or is damaged, tells nothing. Throws OperatingError "permission". */
export function readMountRecord(device: string, dir: string = RECORD_DIR): MountRecord | null {
  return readRecordIfThere(fileOf(device, dir));
}

/** null: it is not there, or damaged. Throws OperatingError "permission". */
export function readRecordIfThere(file: string): MountRecord | null {
  try {
    return readRecord(file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw unreadable(file, error);
  }
}

/** null: it is damaged. */
function readRecord(file: string): MountRecord | null {
  try {
    const text = readSmallFile(file);
    const record = JSON.parse(text) as Partial<MountRecord> | null;
    const { pid, startTime, source, mountPoint, runDir } = record ?? {};
    const isWhole = Number.isSafeInteger(pid) && [startTime, source, mountPoint, runDir].every((value) => typeof value === "string");
    return isWhole ? (record as MountRecord) : null;
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof NoSmallFileError) return null;
    throw error;
  }
}

export interface RecordFile<T> {
  readonly file: string;
  /** The name of the file without its extension. */
  readonly name: string;
  /** null: it cannot be read, or is damaged. */
  readonly record: T | null;
}

/** Throws OperatingError "permission". */
export function recordFiles<T extends MountRecord>(extension: string, dir: string): RecordFile<T>[] {
  return namesIn(dir)
    .filter((name) => name.endsWith(extension))
    .flatMap((name) => {
      const found = { file: path.join(dir, name), name: name.slice(0, -extension.length) };
      try {
        return [{ ...found, record: readRecord(found.file) as T | null }];
      } catch (caught) {
        const error = unreadable(found.file, caught);
        if (error instanceof OperatingError) throw error;
        return (caught as NodeJS.ErrnoException).code === "ENOENT" ? [] : [{ ...found, record: null }];
      }
    });
}

function namesIn(dir: string): string[] {
  try {
    return readdirSync(dir);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw unreadable(dir, error);
  }
}

/** All of this machine; `name` is the device of the mount, also where it is mounted no more. */
export function mountRecordFiles(dir: string = RECORD_DIR): RecordFile<MountRecord>[] {
  return recordFiles(EXTENSION, dir);
}

export function isOfRunDir(record: Pick<MountRecord, "runDir">, runDir: string): boolean {
  return canonicalPath(record.runDir) === canonicalPath(runDir);
}

export function isServing(record: ProcessName): boolean {
  return startTimeOf(record.pid) === record.startTime;
}

const EXIT_POLL_MS = 10;

/** True once the process has ended; false after `limitMs`. It is not our child, so /proc is all there is to ask. */
export async function waitForExit(record: ProcessName, limitMs: number): Promise<boolean> {
  const deadline = performance.now() + limitMs;
  while (isServing(record)) {
    if (performance.now() > deadline) return false;
    await sleep(EXIT_POLL_MS);
  }
  return true;
}

/**
 * Asks the overlays of this node about themselves, one for each mount. The overlay of FUSE connection N keeps `<runDir>/overlay-N.json`,
 * replaced whole at each change of role, and listens on `<runDir>/overlay-N.sock`: one JSON line {"query":"status"} in, one JSON line out.
 */
import { createConnection } from "node:net";
import { readdirSync, rmSync } from "node:fs";
import path from "node:path";
import * as z from "zod";
import { OperatingError } from "../../dlmd/base/error.ts";
import { isOfRunDir, isServing, type MountRecord, readMountRecord, RECORD_DIR } from "../volume/mount-record.ts";
import { unreadable } from "../volume/unreadable.ts";
import { mountAt, type MountEntry, minorOf, mountTable } from "../../dlmd/base/mount-table.ts";
import { readSmallFile } from "../../dlmd/base/small-file.ts";
import type { OwnerChangesSeen } from "../status/facts.ts";

/** An overlay answers from memory; one that takes longer is stuck, and the caller wants to say so. */
const QUERY_TIMEOUT_MS = 5000;
/** An answer longer than this is not one. */
const MAX_ANSWER_BYTES = 64 * 1024 * 1024;

const overlayFile = z.looseObject({
  pid: z.int().positive(),
  startTime: z.string().optional(),
  role: z.string(),
  mountpoint: z.string(),
  volume: z.string(),
  device: z.string(),
  fileLocks: z.enum(["cluster", "local"]).optional(),
});

/** What overlay-N.json says; the overlay may add to it. */
export interface OverlayFile {
  readonly pid: number;
  /** Field 22 of /proc/PID/stat: the file may outlive its overlay, and the pid be another's. */
  readonly startTime?: string | undefined;
  /** "owner", or what the overlay is instead ("remote" ...). */
  readonly role: string;
  readonly mountpoint: string;
  readonly volume: string;
  readonly device: string;
  /** Whether file locks count in the whole cluster, or, with -o localflocks, on this node. */
  readonly fileLocks?: "cluster" | "local" | undefined;
}

/** Of a mount in the group of its volume's mounters, what people are shown. */
export interface MountGroupStatus {
  readonly jid: number | null;
  readonly block: boolean;
  /** For what it waits, in words. */
  readonly wait: string | null;
  readonly operatorBlocks?: boolean | undefined;
  /** Until when dead mounters' jids are not free, in words; null: none is dirty. */
  readonly recovery?: string | null | undefined;
  readonly members?: readonly { readonly nodeid: number; readonly jid: number | null }[] | undefined;
  readonly dirty?: readonly { readonly nodeid: number; readonly jid: number }[] | undefined;
  readonly [more: string]: unknown;
}

const mountGroupStatus = z.looseObject({
  jid: z.number().nullable(),
  block: z.boolean(),
  wait: z.string().nullable(),
  operatorBlocks: z.boolean().optional(),
  recovery: z.string().nullable().optional(),
  members: z.array(z.looseObject({ nodeid: z.number(), jid: z.number().nullable() })).optional(),
  dirty: z.array(z.looseObject({ nodeid: z.number(), jid: z.number() })).optional(),
});

/** What {"query":"status"} answers: at least what is in overlay-N.json. */
export interface OverlayStatus extends OverlayFile {
  /** Requests of the kernel served since the mount. */
  readonly ops?: number | undefined;
  /** What the mount is, or waits for, in words. */
  readonly why?: string | undefined;
  /** What is wrong with the disk that this node has, or had, mounted as the owner; null: nothing that is known. */
  readonly disk?: string | null | undefined;
  /** For what calls to the owner wait, in words; null: for nothing that lasts. */
  readonly ownerWait?: string | null | undefined;
  /** Of an owner: open files without a name that it keeps, and nodes whose files have to be open here before others of them go. */
  readonly orphans?: { readonly kept: number; readonly waitsFor: readonly number[] } | null | undefined;
  /** Long work that goes on by itself, and how far it is (serve/mount-status.ts); null: none. */
  readonly work?: { readonly kind: string; readonly words: string; readonly tookMs: number } | null | undefined;
  /** Why a crash of its process would end the mount, in words; null: it would be a pause (crash/). */
  readonly crash?: string | null | undefined;
  readonly uuid?: string | undefined;
  readonly lease?: string | null | undefined;
  /** It was mounted read-only. */
  readonly readOnly?: boolean | undefined;
  readonly diskFault?: string | null | undefined;
  /** What of a lower directory is not watched. */
  readonly unwatched?: string | null | undefined;
  readonly ownerChanges?: OwnerChangesSeen | undefined;
  readonly inodes?: number | undefined;
  readonly handles?: number | undefined;
  readonly counters?: Readonly<Record<string, number>> | undefined;
  readonly memory?: { readonly rss: number } | undefined;
  /** What it is in the group of the volume's mounters. */
  readonly group?: MountGroupStatus | null | undefined;
  /** Cluster locks held or cached now. */
  readonly locks?: number | undefined;
  /** Why it does not answer, in words. */
  readonly problem?: string | undefined;
  readonly [more: string]: unknown;
}

const ownerChanges = z.looseObject({
  count: z.number(),
  last: z
    .looseObject({ fromNodeid: z.number(), toNodeid: z.number(), pauseMs: z.number(), atMs: z.number(), reason: z.string() })
    .nullable(),
  withoutMs: z.number().nullable(),
});

const overlayStatus = overlayFile.extend({
  ops: z.number().optional(),
  locks: z.number().optional(),
  why: z.string().optional(),
  disk: z.string().nullable().optional(),
  ownerWait: z.string().nullable().optional(),
  orphans: z
    .object({ kept: z.number(), waitsFor: z.array(z.number()) })
    .nullable()
    .optional(),
  group: mountGroupStatus.nullable().optional(),
  work: z.looseObject({ kind: z.string(), words: z.string(), tookMs: z.number() }).nullable().optional(),
  crash: z.string().nullable().optional(),
  uuid: z.string().optional(),
  lease: z.string().nullable().optional(),
  readOnly: z.boolean().optional(),
  diskFault: z.string().nullable().optional(),
  unwatched: z.string().nullable().optional(),
  ownerChanges: ownerChanges.optional(),
  inodes: z.number().optional(),
  handles: z.number().optional(),
  counters: z.record(z.string(), z.number()).optional(),
  memory: z.looseObject({ rss: z.number() }).optional(),
});

/** `connection`: N of /sys/fs/fuse/connections/N, which names one mount of this machine. */
export function overlayFilePath(runDir: string, connection: number): string {
  return path.join(runDir, `overlay-${connection}.json`);
}

export function overlaySocketPath(runDir: string, connection: number): string {
  return path.join(runDir, `overlay-${connection}.sock`);
}

/** One mount of this node. */
export interface OverlayEntry {
  readonly connection: number;
  readonly file: OverlayFile;
  /** False: its process is gone, and it could not remove its files. */
  readonly alive: boolean;
}

/** The mounts that overlays of that run directory have written of. Throws OperatingError "overlay-bad-record", "permission". */
export function listOverlays(runDir: string): OverlayEntry[] {
  return overlayConnections(runDir).flatMap((connection) => {
    const file = readFile(runDir, connection);
    return file === null ? [] : [{ connection, file, alive: isAlive(file) }];
  });
}

/** The clustered mounts that are there, by connection, and which process serves each, or served it last; null: there is no record. */
type Mounted = ReadonlyMap<number, MountRecord | null>;

function mountedNow(table: readonly MountEntry[], records: string): Mounted {
  const clustered = table.filter(({ type }) => type === "fuse.clustered");
  return new Map(clustered.map((entry) => [minorOf(entry), readMountRecord(entry.device, records)]));
}

/**
 * Whether the mount of which the overlay wrote is there. The number alone does not say so: the kernel gives a freed one to the next mount of
 * this machine (get_anon_bdev(), fs/super.c). Nor does the path: the kernel's has no symbolic links.
 */
function isMounted(connection: number, { pid, startTime }: OverlayFile, mounted: Mounted): boolean {
  const record = mounted.get(connection);
  if (record === undefined || record === null) return record === null;
  return record.pid === pid && (startTime === undefined || record.startTime === startTime);
}

function isAlive({ pid, startTime }: OverlayFile): boolean {
  return startTime === undefined || isServing({ pid, startTime });
}

function noDirectory(runDir: string, cause: unknown): OperatingError {
  return new OperatingError(`the run directory of dlmd expected at ${runDir}, found: no directory`, {
    code: "bad-run-dir",
    hint: "Give the directory that dlmd was started with as --run-dir, or that of this node: /run/dlmd.",
    cause,
  });
}

function overlayConnections(runDir: string): number[] {
  let names: string[];
  try {
    names = readdirSync(runDir);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") return [];
    if (code === "ENOTDIR") throw noDirectory(runDir, error);
    throw unreadable(runDir, error);
  }
  const found = names.map((name) => /^overlay-(\d+)\.json$/.exec(name)?.[1]);
  return found.flatMap((digits) => (digits === undefined ? [] : [Number(digits)])).toSorted((a, b) => a - b);
}

/** null: it went meanwhile. */
function readFile(runDir: string, connection: number): OverlayFile | null {
  const file = overlayFilePath(runDir, connection);
  let text: string;
  try {
    text = readSmallFile(file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    const caught = unreadable(file, error);
    throw caught instanceof OperatingError ? caught : damagedRecord(file, (error as Error).message, error);
  }
  try {
    return parseAnswer(overlayFile, text, file);
  } catch (error) {
    throw damagedRecord(file, (error as Error).message, error);
  }
}

function damagedRecord(file: string, found: string, cause: unknown): OperatingError {
  return new OperatingError(`the record of a mount is damaged: ${found}`, {
    code: "overlay-bad-record",
    hint: `Look for a full or failing disk below ${path.dirname(file)}. The mount itself goes on: findmnt -t fuse.clustered has it. Unmount it, and mount it again.`,
    cause,
  });
}

/**
 * Removes what overlays left that are gone, and files that are damaged: before a new mount writes its own. What was left by one whose mount is still
 * there says that every call fails there.
 */
export function removeGoneOverlays(runDir: string, table: readonly MountEntry[] = mountTable(), records: string = RECORD_DIR): void {
  const mounted = mountedNow(table, records);
  for (const connection of overlayConnections(runDir)) {
    if (isKept(runDir, connection, mounted)) continue;
    rmSync(overlayFilePath(runDir, connection), { force: true });
    rmSync(overlaySocketPath(runDir, connection), { force: true });
  }
}

function isKept(runDir: string, connection: number, mounted: Mounted): boolean {
  try {
    const file = readFile(runDir, connection);
    return file !== null && (isAlive(file) || isMounted(connection, file, mounted));
  } catch (error) {
    if (error instanceof OperatingError && error.code !== "permission") return false;
    throw error;
  }
}

/** Of several that are meant by a word the one that is seen at its mount point: after `umount -l` the process of another mount may be there still. */
export function seenFirst(meant: readonly OverlayEntry[], table?: readonly MountEntry[]): OverlayEntry | null {
  const [first, ...others] = meant;
  if (first === undefined || others.length === 0) return first ?? null;
  const mounts = table ?? mountTable();
  return meant.find(({ connection, file }) => mountAt(file.mountpoint, mounts)?.device === `0:${connection}`) ?? first;
}

/** The living overlay of that mount point, or the only one; null: there is none. Throws OperatingError "several-mounts". */
export function findOverlay(runDir: string, mountpoint: string | null, table?: readonly MountEntry[]): OverlayEntry | null {
  const living = listOverlays(runDir).filter(({ alive }) => alive);
  if (mountpoint !== null)
    return seenFirst(
      living.filter(({ file }) => file.mountpoint === mountpoint),
      table,
    );
  if (living.length <= 1) return living[0] ?? null;
  throw new OperatingError(`this node has several mounts: ${living.map(({ file }) => file.mountpoint).join(", ")}`, {
    code: "several-mounts",
    hint: "Name one of them.",
  });
}

/** What the overlay of that mount point last wrote of itself, or that of the only one; null: there is none. */
export function readOverlayFile(runDir: string, mountpoint: string | null = null): OverlayFile | null {
  return findOverlay(runDir, mountpoint)?.file ?? null;
}

function parseAnswer<T>(shape: z.ZodType<T>, text: string, source: string): T {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw badAnswer(source, "JSON", text, error);
  }
  if (typeof value === "object" && value !== null && "error" in value) {
    throw new OperatingError(`${source}: ${String(value.error)}`, {
      code: "overlay-refused",
      hint: "The log of the mount says more. If it is served by another version of coverlay: unmount it, and mount it again.",
    });
  }
  const result = shape.safeParse(value);
  if (!result.success) throw badAnswer(source, z.prettifyError(result.error).replaceAll(/\s*\n\s*/g, " "), text, result.error);
  return result.data;
}

function badAnswer(source: string, expected: string, text: string, cause: unknown): OperatingError {
  return new OperatingError(`${source}: expected ${expected}, found ${JSON.stringify(text.slice(0, 200))}`, {
    code: "overlay-bad-answer",
    hint: "Is the mount served by another version of coverlay? Unmount and mount it again.",
    cause,
  });
}

/** One question to the overlay of that connection. Throws OperatingError "no-overlay", "overlay-silent" or "overlay-bad-answer". */
export async function askOverlay<T>(
  runDir: string,
  connection: number,
  question: object,
  shape: z.ZodType<T>,
  timeoutMs: number = QUERY_TIMEOUT_MS,
  signal?: AbortSignal,
): Promise<T> {
  const socketPath = overlaySocketPath(runDir, connection);
  return parseAnswer(shape, await askSocket(socketPath, question, timeoutMs, signal), socketPath);
}

/** Rejects with the reason of `signal`, too. */
function askSocket(socketPath: string, question: object, timeoutMs: number, signal: AbortSignal | undefined): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(socketPath);
    const chunks: Buffer[] = [];
    let bytes = 0;
    const end = (error: OperatingError | null, answer = ""): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", aborted);
      socket.destroy();
      if (error === null) resolve(answer);
      else reject(error);
    };
    const silent = (found: string): OperatingError =>
      new OperatingError(`the overlay behind ${socketPath} does not answer: ${found}`, {
        code: "overlay-silent",
        hint: "Its log says what it is doing; a mount that hangs for good is ended with umount -l.",
      });
    const aborted = (): void => end(signal?.reason as OperatingError);
    signal?.addEventListener("abort", aborted, { once: true });
    const timer = setTimeout(() => end(silent(`no answer within ${timeoutMs} ms`)), timeoutMs);
    socket.on("connect", () => socket.write(`${JSON.stringify(question)}\n`));
    socket.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes > MAX_ANSWER_BYTES) return end(silent(`more than ${MAX_ANSWER_BYTES} bytes without a line end`));
      chunks.push(chunk);
      if (chunk.includes(0x0a)) end(null, Buffer.concat(chunks).toString("utf8").split("\n")[0]);
    });
    socket.on("end", () => end(silent("it closed the connection")));
    socket.on("error", (cause) => end(noOverlay(socketPath, cause)));
  });
}

function noOverlay(where: string, cause?: Error): OperatingError {
  const why = cause === undefined ? "" : `: ${(cause as NodeJS.ErrnoException).code ?? cause.message}`;
  return new OperatingError(`no overlay listens on ${where}${why}`, {
    code: "no-overlay",
    hint: "Nothing is mounted on this node, or its run directory is another one: name it with --run-dir.",
    cause,
  });
}

/** The status of the overlay of that mount point, or of the only one of that run directory. */
export async function queryOverlayStatus(
  runDir: string,
  timeoutMs: number = QUERY_TIMEOUT_MS,
  mountpoint: string | null = null,
): Promise<OverlayStatus> {
  const found = findOverlay(runDir, mountpoint);
  if (found === null) throw noOverlay(mountpoint ?? runDir);
  return askStatus(runDir, found.connection, timeoutMs);
}

function askStatus(runDir: string, connection: number, timeoutMs: number): Promise<OverlayStatus> {
  return askOverlay(runDir, connection, { query: "status" }, overlayStatus, timeoutMs);
}

/**
 * Every mount of that run directory: what its overlay answers, or what it last wrote, and why it does not answer. A mount that has no file there is
 * known by its record.
 */
export async function queryOverlays(
  runDir: string,
  timeoutMs: number = QUERY_TIMEOUT_MS,
  table: readonly MountEntry[] = mountTable(),
  records: string = RECORD_DIR,
): Promise<OverlayStatus[]> {
  const mounted = mountedNow(table, records);
  const entries = listOverlays(runDir);
  const told = new Set(
    entries.filter((one) => one.alive || isMounted(one.connection, one.file, mounted)).map(({ connection }) => connection),
  );
  const reports = entries.map(async ({ connection, file, alive }): Promise<OverlayStatus[]> => {
    const isThere = isMounted(connection, file, mounted);
    if (!alive) return isThere ? [{ ...file, role: "gone", problem: goneWords(file) }] : [];
    try {
      return [await askStatus(runDir, connection, timeoutMs)];
    } catch (error) {
      if (!(error instanceof OperatingError)) throw error;
      // It ended while it was asked.
      return error.code === "no-overlay" && !isThere ? [] : [{ ...file, problem: error.message }];
    }
  });
  return [...(await Promise.all(reports)).flat(), ...withoutFile(runDir, mounted, told)];
}

function withoutFile(runDir: string, mounted: Mounted, told: ReadonlySet<number>): OverlayStatus[] {
  return [...mounted].flatMap(([connection, record]): OverlayStatus[] => {
    if (told.has(connection) || record === null || !isOfRunDir(record, runDir)) return [];
    const { pid, startTime, source: device, mountPoint: mountpoint } = record;
    // The name of the volume is not in the record.
    const file = { pid, startTime, mountpoint, volume: device, device };
    if (!isServing(record)) return [{ ...file, role: "gone", problem: goneWords({ ...file, role: "gone" }) }];
    const problem = `its process ${pid} runs, but cannot be asked: ${overlayFilePath(runDir, connection)} is not there`;
    return [{ ...file, role: "unknown", problem }];
  });
}

function goneWords({ pid, mountpoint }: OverlayFile): string {
  return `its process ${pid} is gone, and every call there fails: umount ${mountpoint}, and mount it again`;
}

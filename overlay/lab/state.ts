/**
 * DIR/lab.json: what a lab has made or is about to make. It is replaced whole, and before each thing is made, so that
 * `lab down` finds everything after `lab up` was killed at any moment. What cannot be known before (the number of a
 * loop device, a process id) is found again by what is: the image behind a loop device, the lab's mark in the
 * environment of a process.
 */
import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  openSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  type Stats,
  statSync,
  writeFileSync,
} from "node:fs";
import os from "node:os";
import { createHash } from "node:crypto";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import * as z from "zod";
import { errnoName } from "../../dlmd/base/errno.ts";
import { OperatingError } from "../../dlmd/base/error.ts";
import { nativeAddon } from "../../native/index.ts";
import { type LabEngine, type LowerKind, labFiles, nodeLayout } from "./layout.ts";

/** How long one command of a lab waits for another one on the same lab. */
const LOCK_TIMEOUT_MS = 120_000;
/** How often it looks whether that one is done. */
const LOCK_POLL_MS = 20;

/** A process that cannot be taken for a later one with the same id. */
export interface ProcessRef {
  readonly pid: number;
  /** Field 22 of /proc/PID/stat: clock ticks since boot. */
  readonly startTicks: string;
}

/** A node's place in the network; the nodes of one `group` hear each other. */
export interface NodeNetwork {
  readonly group: string;
  readonly lossPercent: number;
  readonly delayMs: number;
}

export interface LabNodeState {
  readonly nodeid: number;
  /** "off": killed as a whole; "stopped": shut down cleanly. */
  readonly power: "on" | "off" | "stopped";
  /** The loop device; the lower directory; null before it is there, and while the node is off. */
  readonly device: string | null;
  /** The loop device that is being attached: if the image is behind it, it is the lab's, though `device` does not say so yet. */
  readonly attaching: string | null;
  readonly cut: boolean;
  readonly network: NodeNetwork;
  readonly dlmd: ProcessRef | null;
}

export interface LabState {
  readonly format: 1;
  readonly id: string;
  readonly dir: string;
  /** The directory itself was made by `up`. */
  readonly madeDir: boolean;
  readonly lower: LowerKind;
  readonly engine: LabEngine;
  readonly sizeBytes: number;
  /** The file given with --image, which is not the lab's to make or to remove; null: DIR/disk.img. */
  readonly givenImage: string | null;
  readonly volumeUuid: string;
  /** "making" until every mount answers; "down" once somebody takes the lab down. */
  readonly phase: "making" | "up" | "down";
  /** What is made at this moment. */
  readonly step: string;
  /** The `up` that stays in the foreground, or is still at work. */
  readonly up: ProcessRef | null;
  /** Commands that are changing the lab now (`start`, `kill` ...): `down` ends them first. */
  readonly workers: readonly ProcessRef[];
  /** Device nodes that were missing and that `up` made (no devtmpfs). */
  readonly madeDevices: readonly string[];
  readonly nodes: readonly LabNodeState[];
}

const processRefShape = z.object({ pid: z.int().positive(), startTicks: z.string() });
const labState: z.ZodType<LabState> = z.object({
  format: z.literal(1),
  id: z.string().regex(/^[0-9a-f]{6}$/),
  dir: z.string(),
  madeDir: z.boolean(),
  lower: z.enum(["ext4", "xfs", "directory"]),
  engine: z.enum(["builtin", "corosync"]),
  sizeBytes: z.number(),
  givenImage: z.string().nullable(),
  volumeUuid: z.string(),
  phase: z.enum(["making", "up", "down"]),
  step: z.string(),
  up: processRefShape.nullable(),
  workers: z.array(processRefShape),
  madeDevices: z.array(z.string().regex(/^\/dev\/loop\d+$/)),
  nodes: z.array(
    z.object({
      nodeid: z.int(),
      power: z.enum(["on", "off", "stopped"]),
      device: z.string().nullable(),
      attaching: z.string().nullable().default(null),
      cut: z.boolean(),
      network: z.object({ group: z.string(), lossPercent: z.number(), delayMs: z.number() }),
      dlmd: processRefShape.nullable(),
    }),
  ),
});

/** What is behind the loop devices of the nodes. */
export function imageOf({ dir, givenImage }: LabState): string {
  return givenImage ?? labFiles(dir).image;
}

/** The group of the nodes that nobody took apart. */
export const WHOLE_NETWORK: NodeNetwork = { group: "", lossPercent: 0, delayMs: 0 };

/** DIR of a lab for which none is named. */
export function defaultLabDir(): string {
  return path.join(os.tmpdir(), "coverlay-lab");
}

/** The one name of a lab's directory, whether it is there already or not. */
export function realLabDir(dir: string): string {
  const whole = path.resolve(dir);
  return existsSync(whole) ? realpathSync(whole) : path.join(realLabDir(path.dirname(whole)), path.basename(whole));
}

/** `lab down` ends the processes and removes the files that lab.json names: nobody else but root may have written it. Throws OperatingError "lab-owner". */
export function requireOwn(file: string, { uid, mode }: Stats): void {
  const self = process.geteuid?.() ?? 0;
  const isOwn = uid === self || uid === 0;
  if (isOwn && (mode & 0o022) === 0) return;
  const found = isOwn ? `its mode is ${(mode & 0o7777).toString(8)}` : `it belongs to user id ${uid}`;
  throw new OperatingError(`${file} should belong to user id ${self}, and nobody else should be able to write it, but ${found}`, {
    code: "lab-owner",
    hint: "Another user could say there what this command ends and removes. Name another directory with --dir, or mend owner and mode.",
  });
}

/** null: there is none. */
function textOfLab(dir: string): string | null {
  const file = labFiles(dir).state;
  let fd: number;
  try {
    fd = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") return null;
    throw error;
  }
  try {
    requireOwn(dir, statSync(dir));
    requireOwn(file, fstatSync(fd));
    return readFileSync(fd, "utf8");
  } finally {
    closeSync(fd);
  }
}

/** The state of the lab in `dir`; null where there is none. Throws OperatingError when lab.json is not one, or another user may have written it. */
export function readLab(dir: string): LabState | null {
  const file = labFiles(dir).state;
  const text = textOfLab(dir);
  if (text === null) return null;
  let found: string;
  try {
    const result = labState.safeParse(JSON.parse(text));
    if (result.success && result.data.dir === dir) return result.data;
    found = result.success ? `a lab made in ${result.data.dir}` : z.prettifyError(result.error);
  } catch (error) {
    found = (error as Error).message;
  }
  throw new OperatingError(`${file} should describe the lab in ${dir}, found: ${found}`, {
    code: "lab-state",
    hint: "A lab cannot be moved. If nothing of it runs any more, remove the file.",
  });
}

/** The lab in `dir`, for commands that need one. */
export function existingLab(dir: string): LabState {
  const lab = readLab(dir);
  if (lab !== null) return lab;
  throw new OperatingError(`there is no lab in ${dir}`, {
    code: "no-lab",
    hint: "Start one with `coverlay lab up`, or name the directory of one with --dir.",
  });
}

/** Replaces lab.json whole: a reader, and a kill, sees the old one or the new one. For a new lab; later: updateLab. Throws OperatingError "lab-full". */
export function writeLab(lab: LabState): LabState {
  const file = labFiles(lab.dir).state;
  const next = `${file}.new`;
  // One that is left from before, or a link that another user has put there, is not written through.
  rmSync(next, { force: true });
  try {
    writeFileSync(next, `${JSON.stringify(lab, null, 1)}\n`, { mode: 0o644, flag: "wx" });
    renameSync(next, file);
  } catch (error) {
    rmSync(next, { force: true });
    const { code } = error as NodeJS.ErrnoException;
    if (code !== "ENOSPC" && code !== "EDQUOT") throw error;
    throw new OperatingError(`${lab.dir} is full: lab.json cannot be written there (${code})`, {
      code: "lab-full",
      hint: "Make room there, and run the command again. `coverlay lab down` needs none.",
      cause: error,
    });
  }
  return lab;
}

/** Changes lab.json; changes of several commands follow one another. */
export function updateLab(dir: string, change: (lab: LabState) => LabState): Promise<LabState> {
  return withLabLock(dir, async () => writeLab(change(existingLab(dir))));
}

/** Changes one node in lab.json. */
export function updateNode(dir: string, nodeid: number, change: Partial<LabNodeState>): Promise<LabState> {
  return updateLab(dir, (lab) => ({ ...lab, nodes: lab.nodes.map((node) => (node.nodeid === nodeid ? { ...node, ...change } : node)) }));
}

/**
 * Does something to a lab that is up. It is recorded that this process is at it, so that `down` ends it before it looks for
 * what there is to take down.
 */
export async function withWorker<T>(dir: string, self: ProcessRef, use: (lab: LabState) => Promise<T>): Promise<T> {
  const lab = await updateLab(dir, (found) => {
    if (found.phase === "up") return { ...found, workers: [...found.workers, self] };
    throw new OperatingError(`the lab in ${dir} is not up, but ${found.phase === "down" ? "being taken down" : "still being made"}`, {
      code: "lab-phase",
      hint: "`coverlay lab status` shows how far it is; `coverlay lab down` takes it down from any state.",
    });
  });
  try {
    return await use(lab);
  } finally {
    if (readLab(dir) !== null) {
      await updateLab(dir, (found) => ({ ...found, workers: found.workers.filter(({ pid }) => pid !== self.pid) }));
    }
  }
}

/** A node by its name, from state and layout together. */
export type LabNode = LabNodeState & ReturnType<typeof nodeLayout>;

export function labNodes(lab: LabState): LabNode[] {
  return lab.nodes.map((node) => ({ ...nodeLayout(lab.dir, lab.id, node.nodeid), ...node }));
}

export function labNode(lab: LabState, name: string): LabNode {
  const nodes = labNodes(lab);
  const found = nodes.find(({ node }) => node === name);
  if (found !== undefined) return found;
  throw new OperatingError(`the lab in ${lab.dir} has no node ${JSON.stringify(name)}`, {
    code: "no-node",
    hint: `Its nodes are ${nodes.map(({ node }) => node).join(", ")}.`,
  });
}

/** "power-N": node N is switched on or off. */
type LockedPart = "state" | "teardown" | `power-${number}`;

/** Where another user makes no file. Without root there is no lab, but for tests. */
const LOCK_DIR = process.geteuid?.() === 0 ? "/run" : os.tmpdir();

/** The file that is the lab's lock: DIR itself comes and goes while it is held. */
export function labLockFile(dir: string, what: LockedPart = "state"): string {
  return path.join(LOCK_DIR, `coverlay-lab-${what}-${createHash("sha256").update(dir).digest("hex").slice(0, 32)}.lock`);
}

/**
 * One process at a time changes lab.json, switches a node, or takes the lab down (`what`). The lock is flock(2): the kernel frees it when its
 * holder dies, however that happens. `dir` is as realLabDir gives it; `waits`: another process has it.
 */
export async function withLabLock<T>(
  dir: string,
  use: () => Promise<T>,
  what: LockedPart = "state",
  waits: () => void = () => undefined,
): Promise<T> {
  const file = labLockFile(dir, what);
  const deadline = Date.now() + LOCK_TIMEOUT_MS;
  for (;;) {
    const release = tryLabLock(file);
    if (release !== null) {
      try {
        return await use();
      } finally {
        release();
      }
    }
    waits();
    if (Date.now() >= deadline) {
      throw new OperatingError(`another command has been working on the lab in ${dir} for ${LOCK_TIMEOUT_MS / 1000} s`, {
        code: "lab-busy",
        hint: "Wait for it, or end it, and try again.",
      });
    }
    await sleep(LOCK_POLL_MS);
  }
}

/** Null: another process has it, or had it until now. */
function tryLabLock(file: string): (() => void) | null {
  const fd = openSync(file, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
  let release: (() => void) | null = null;
  try {
    requireOwn(file, fstatSync(fd));
    const result = nativeAddon().tryLock(fd);
    if (result < 0 && errnoName(-result) !== "EAGAIN") {
      throw new OperatingError(`flock of ${file} failed: ${errnoName(-result)}`, { code: "lab-lock", hint: "See flock(2)." });
    }
    // Its last holder has removed it: a lock of what has no name keeps nobody out.
    const isThere = statSync(file, { throwIfNoEntry: false })?.ino === fstatSync(fd).ino;
    if (result === 0 && isThere) {
      release = () => {
        rmSync(file, { force: true });
        closeSync(fd);
      };
    }
    return release;
  } finally {
    if (release === null) closeSync(fd);
  }
}

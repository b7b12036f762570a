/**
 * Brings a lab up, step by step, each recorded in lab.json before it is begun. If a step fails, or the user interrupts,
 * everything made so far is taken down again.
 */
import { randomBytes, randomUUID } from "node:crypto";
import { existsSync, lstatSync, mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { assert } from "../../dlmd/base/assert.ts";
import { OperatingError } from "../../dlmd/base/error.ts";
import { EXIT } from "../cli/output.ts";
import { waitForView } from "../query/dlmd-query.ts";
import { writeClusterKey } from "../../dlmd/driver/cluster-files.ts";
import { VIEW_TIMEOUT_MS, checkPrograms, enableVolume, mountNode, programs, startDlmd } from "./boot.ts";
import { startCorosync, writeCorosyncFiles } from "./corosync.ts";
import { makeDisk } from "./disk.ts";
import { dismantle, foreignFiles } from "./down.ts";
import {
  type LabEngine,
  type LowerKind,
  MAX_LAB_NODES,
  MIN_IMAGE_BYTES,
  MIN_XFS_IMAGE_BYTES,
  clusterYaml,
  fenceAgentScript,
  hubName,
  labFiles,
} from "./layout.ts";
import { makeHub, makeNodeNetwork } from "./network.ts";
import { attachDisk } from "./power.ts";
import { checkPrerequisites } from "./prerequisites.ts";
import { netnsInode, processRef } from "./processes.ts";
import {
  type LabNode,
  type LabState,
  WHOLE_NETWORK,
  existingLab,
  labNodes,
  readLab,
  requireOwn,
  updateLab,
  withLabLock,
  writeLab,
} from "./state.ts";
import { type LabWork, UNFOLLOWED } from "./work.ts";

export interface UpOptions {
  /** As realLabDir gives it. */
  readonly dir: string;
  readonly nodes: number;
  readonly lower: LowerKind;
  readonly engine: LabEngine;
  readonly sizeBytes: number;
  /** Each node has a fence device, whose agent is the lab's. */
  readonly fencing: boolean;
  /** Each of the two nodes is a quorum alone, and the fence decides between them. */
  readonly twoNode: boolean;
  /** Absolute, without symbolic links; null: the lab makes an image of `sizeBytes`. */
  readonly image: string | null;
}

/** Throws OperatingError "usage". */
export function checkOptions({ nodes, lower, sizeBytes, dir, twoNode, fencing, engine }: UpOptions): void {
  if (!Number.isInteger(nodes) || nodes < 1 || nodes > MAX_LAB_NODES) {
    throw new OperatingError(`a lab has 1 to ${MAX_LAB_NODES} nodes, found --nodes ${nodes}`, {
      code: "usage",
      hint: "For example --nodes 3.",
    });
  }
  if (twoNode && (nodes !== 2 || !fencing || engine !== "builtin")) {
    throw new OperatingError(
      `--two-node is for two nodes with fence devices over the builtin engine, found --nodes ${nodes}, ${fencing ? "fence devices" : "--no-fencing"}, --engine ${engine}`,
      { code: "usage", hint: "For example --nodes 2 --two-node." },
    );
  }
  const least = lower === "xfs" ? MIN_XFS_IMAGE_BYTES : MIN_IMAGE_BYTES;
  if (lower !== "directory" && sizeBytes < least) {
    throw new OperatingError(`an image for ${lower} has at least ${least / 2 ** 20}M, found ${Math.floor(sizeBytes / 2 ** 20)}M`, {
      code: "usage",
      hint: "Give a larger --size.",
    });
  }
  if (dir === "/") {
    throw new OperatingError("the directory of a lab may not be /", {
      code: "usage",
      hint: "Name another one with --dir: /tmp/lab, for example.",
    });
  }
  // Commas part mount options, and the run directory is one.
  if (/[,\p{Cc}]/u.test(dir)) {
    throw new OperatingError(`the directory of a lab may not have commas or control characters in its name: ${JSON.stringify(dir)}`, {
      code: "usage",
      hint: "Name another one with --dir.",
    });
  }
}

/** With those above it, one by one: Node.js itself tries for ever where none can be made (/proc). True: it was not there. */
function makeDirectory(real: string): boolean {
  try {
    if (existsSync(real)) {
      if (lstatSync(real).isDirectory()) return false;
      throw new Error("there is something else of that name");
    }
    if (!existsSync(path.dirname(real))) makeDirectory(path.dirname(real));
    mkdirSync(real, { mode: 0o755 });
    return true;
  } catch (error) {
    if (error instanceof OperatingError) throw error;
    throw new OperatingError(`${real} should be a directory for the lab, but cannot be: ${(error as Error).message}`, {
      code: "lab-dir",
      hint: "Name one that may be written with --dir.",
      cause: error,
    });
  }
}

/** Makes DIR where it is not there; refuses one that is not safe or not free. True: it was made. */
function openDirectory(real: string, nodes: number): boolean {
  const made = makeDirectory(real);
  requireOwn(real, lstatSync(real));
  const there = readLab(real);
  if (there !== null) {
    throw new OperatingError(`there is a lab in ${real} already (${there.phase})`, {
      code: "lab-exists",
      hint: `Take it down with \`coverlay lab down --dir ${real}\`, or name another directory with --dir.`,
    });
  }
  const foreign = foreignFiles(
    real,
    Array.from({ length: nodes }, (_, at) => path.join(real, `node${at + 1}`)),
  );
  if (foreign.length > 0) {
    throw new OperatingError(`${real} has something of the names that a lab makes: ${foreign.join(", ")}`, {
      code: "lab-dir",
      hint: "They are not removed, because no lab made them: move them away, or name another directory with --dir.",
    });
  }
  return made;
}

/** An id that no other lab has now: its namespaces would be taken for ours. */
function freeId(): string {
  for (;;) {
    const id = randomBytes(3).toString("hex");
    if (netnsInode(hubName(id)) === null) return id;
  }
}

function newLab(options: UpOptions, madeDir: boolean): LabState {
  return {
    format: 1,
    id: freeId(),
    dir: options.dir,
    madeDir,
    lower: options.lower,
    engine: options.engine,
    sizeBytes: options.sizeBytes,
    givenImage: options.image,
    volumeUuid: randomUUID(),
    phase: "making",
    step: "begin",
    up: processRef(process.pid),
    workers: [],
    madeDevices: [],
    nodes: Array.from({ length: options.nodes }, (_, at) => ({
      nodeid: at + 1,
      power: "on" as const,
      device: null,
      attaching: null,
      cut: false,
      network: WHOLE_NETWORK,
      dlmd: null,
    })),
  };
}

/** Brings a lab up; when it returns every mount answers. Throws after taking down what was made. */
export async function bringUp(options: UpOptions, work: LabWork): Promise<LabState> {
  checkOptions(options);
  checkPrerequisites(options.lower, options.engine);
  checkPrograms();
  const { dir } = options;
  const lab = await withLabLock(dir, async () => {
    const made = openDirectory(dir, options.nodes);
    return writeLab(newLab(options, made));
  });
  try {
    return await makeAll(lab, options, work);
  } catch (error) {
    work.note("taking down what was made");
    // To its end: nothing is left of it.
    await takeBack(dir, { ...work, signal: UNFOLLOWED.signal }, error);
    throw work.signal.aborted ? interrupted(error) : error;
  }
}

function interrupted(cause: unknown): OperatingError {
  return new OperatingError("interrupted: there is no lab", {
    code: "interrupted",
    hint: "What was made of it is taken down again, and nothing is left.",
    cause,
    exitStatus: EXIT.INTERRUPTED,
  });
}

/** Takes the lab down because of `cause`. Throws OperatingError "lab-down", which tells both, if that cannot be. */
export async function takeBack(dir: string, work: LabWork, cause: unknown): Promise<void> {
  try {
    await dismantle(dir, work);
  } catch (error) {
    const first = cause instanceof Error ? cause.message : String(cause);
    throw new OperatingError(`${first}\n  and then the lab could not be taken down: ${(error as Error).message}`, {
      code: "lab-down",
      hint: `Run \`coverlay lab down --dir ${dir}\`.`,
      cause,
    });
  }
}

/** Records what is begun. */
type Step = (name: string) => Promise<LabState>;

async function makeAll(lab: LabState, options: UpOptions, { say, signal }: LabWork): Promise<LabState> {
  const { dir } = lab;
  const step: Step = (name) => {
    signal.throwIfAborted();
    say(`making the lab: ${name}`);
    return updateLab(dir, (now) => ({ ...now, step: name }));
  };
  await step("files");
  makeFiles(lab, options);
  await step("disk");
  await makeDisk(lab, signal);
  await step("network");
  await makeHub(lab, signal);
  for (const node of labNodes(lab)) await makeNodeNetwork(lab, node, signal);
  await attachAndEnable(lab, step, signal);
  for (const node of labNodes(lab)) startCorosync(lab, node);
  await step("dlmd");
  await allSettled(labNodes(existingLab(dir)).map((node) => startDlmd(lab, node, signal)));
  await step("view");
  const all = lab.nodes.length;
  const whole = labNodes(lab).map(({ runDir }) =>
    waitForView(runDir, (view) => view.quorate && view.running && view.members.length === all, VIEW_TIMEOUT_MS, signal),
  );
  await Promise.all(whole);
  // The first one owns the volume.
  const [first, ...others] = labNodes(existingLab(dir));
  assert(first !== undefined, "a lab has a node");
  const mount = async (node: LabNode): Promise<void> => {
    await step(`mount ${node.node}`);
    await mountNode(lab, node, signal);
  };
  await mount(first);
  await allSettled(others.map(mount));
  return updateLab(dir, (now) => ({ ...now, phase: "up", step: "up" }));
}

/** Whoever takes down what was made must not do so while some of it is still being made. */
async function allSettled(tasks: readonly Promise<void>[]): Promise<void> {
  const results = await Promise.allSettled(tasks);
  const failed = results.find((result) => result.status === "rejected");
  if (failed !== undefined) throw failed.reason;
}

function makeFiles(lab: LabState, { fencing, twoNode }: UpOptions): void {
  const files = labFiles(lab.dir);
  const nodes = labNodes(lab);
  writeClusterKey(files.key);
  const config = clusterYaml(lab.id, lab.volumeUuid, lab.lower, nodes, fencing ? lab.dir : null, lab.engine, twoNode);
  writeFileSync(files.config, config, { flag: "wx", mode: 0o644 });
  writeFileSync(files.fenceAgent, fenceAgentScript(lab.id, [process.execPath, programs.fenceAgent]), { flag: "wx", mode: 0o755 });
  for (const { nodeDir, runDir, mount } of nodes) {
    mkdirSync(nodeDir, { mode: 0o755 });
    mkdirSync(runDir, { mode: 0o700 });
    mkdirSync(mount, { mode: 0o755 });
  }
  writeCorosyncFiles(lab);
}

/** The bit is set through the first node's device, before the others could have read anything through theirs. */
async function attachAndEnable(lab: LabState, step: Step, signal: AbortSignal): Promise<void> {
  for (const node of lab.nodes) {
    await step(`device of node${node.nodeid}`);
    const device = await attachDisk(lab, node.nodeid, signal);
    if (node.nodeid !== 1) continue;
    await step("clustered bit");
    await enableVolume(lab, device, signal);
  }
}

/** The lab stays without an `up` in the foreground. */
export function detach(dir: string): Promise<LabState> {
  return updateLab(dir, (lab) => ({ ...lab, up: null }));
}

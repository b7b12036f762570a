/**
 * A node's power and its path to the disk: for `lab kill`, `lab stop` and `lab start`, and for the fence agent. One process at a time switches
 * a node, so that a fence and a start of it do not meet.
 */
import { OperatingError } from "../../dlmd/base/error.ts";
import { tryExclusive } from "../volume/device.ts";
import { attachLoop, detachLoops, type LoopNotes, setCut, trimImage } from "./disk.ts";
import { forceUnmountUnder, removeMountRecords } from "./fuse-mounts.ts";
import { HungGroup } from "./hang.ts";
import { labFiles } from "./layout.ts";
import { setCable } from "./network.ts";
import { findProcesses, KILL_TIMEOUT_MS, netnsInode, type ProcessesOf, signalProcess, waitGone } from "./processes.ts";
import {
  existingLab,
  imageOf,
  type LabNode,
  type LabState,
  labNodes,
  type ProcessRef,
  updateLab,
  updateNode,
  withLabLock,
} from "./state.ts";

function processesOf(lab: LabState, node: LabNode): ProcessesOf {
  const inode = netnsInode(node.netns);
  return { netns: new Set(inode === null ? [] : [inode]), marks: [`${lab.id}:${node.node}\0`] };
}

/** Everything that runs on a node, whoever started it. */
export function nodeProcesses(lab: LabState, node: LabNode): ProcessRef[] {
  return findProcesses(processesOf(lab, node));
}

/** SIGKILL to everything on the node, until nothing is left. */
async function killProcesses(lab: LabState, node: LabNode): Promise<void> {
  await killAll(processesOf(lab, node), node.node);
}

/** SIGKILL to every such process and to what they start meanwhile. Throws if one does not end. */
export async function killAll(of: ProcessesOf, where: string): Promise<void> {
  const deadline = Date.now() + KILL_TIMEOUT_MS;
  for (;;) {
    const found = findProcesses(of);
    if (found.length === 0) return;
    for (const ref of found) signalProcess(ref, "SIGKILL");
    const left = await waitGone(found, Math.max(0, deadline - Date.now()));
    if (left.length > 0) {
      throw new OperatingError(`processes of ${where} do not end after SIGKILL: ${left.map(({ pid }) => pid).join(", ")}`, {
        code: "unkillable",
        hint: "They wait in the kernel, for a disk or a mount: /proc/PID/stack says where.",
      });
    }
  }
}

/** `use` has those nodes as they are now, and to itself. */
async function withPower<T>(lab: LabState, nodes: readonly LabNode[], use: (nodes: readonly LabNode[]) => Promise<T>): Promise<T> {
  const nodeids = nodes.map(({ nodeid }) => nodeid).toSorted((a, b) => a - b);
  const lock = (at: number): Promise<T> => {
    const nodeid = nodeids[at];
    if (nodeid === undefined) return use(labNodes(existingLab(lab.dir)).filter((node) => nodeids.includes(node.nodeid)));
    return withLabLock(lab.dir, () => lock(at + 1), `power-${nodeid}`);
  };
  return lock(0);
}

/* Off ----------------------------------------------------------------------------------------------------------- */

/**
 * Power-off: network, disk and processes at once. The disk is cut before the processes die: the kernel of a
 * machine that lost power does not write back either, but this one would, when the last user of the lower goes.
 */
export function powerOff(lab: LabState, nodes: readonly LabNode[]): Promise<void> {
  return withPower(lab, nodes, async (now) => {
    for (const node of now) await updateNode(lab.dir, node.nodeid, { power: "off" });
    await Promise.all(now.map((node) => setCable(lab, node, false)));
    // None of them says anything more, such as that its disk does not answer.
    for (const ref of now.flatMap((node) => nodeProcesses(lab, node))) signalProcess(ref, "SIGSTOP");
    await Promise.all(now.map((node) => cutPath(lab, node)));
    for (const node of now) {
      await endProcesses(lab, node);
      await giveDiskBack(lab, node);
    }
  });
}

/** The end of a clean shutdown, after its programs were told to leave. The node may have been fenced meanwhile, and its loop device be another's. */
export function endStopped(lab: LabState, node: LabNode, note: (words: string) => void): Promise<void> {
  return withPower(lab, [node], async ([now]) => {
    if (now === undefined) return;
    await killProcesses(lab, now);
    await giveDiskBack(lab, now, note);
    await updateNode(lab.dir, now.nodeid, { power: "stopped", dlmd: null });
  });
}

/**
 * The fence (hazard R11): first nothing of the node reaches the image any more, then it loses its power. Gives what could not be done, in
 * words, though the node is fenced; null: nothing.
 */
export function fenceOff(lab: LabState, node: LabNode): Promise<string | null> {
  return withPower(lab, [node], async ([now]) => {
    if (now === undefined) return null;
    await updateNode(lab.dir, now.nodeid, { power: "off" });
    await cutPath(lab, now);
    await setCable(lab, now, false);
    await endProcesses(lab, now);
    try {
      await giveDiskBack(lab, now);
      return null;
    } catch (error) {
      // It stays cut, and `start` does not give it back as long as that lasts.
      if (error instanceof OperatingError && error.code === "loop-busy") return error.message;
      throw error;
    }
  });
}

/** A disk that hangs answers first: LOOP_SET_STATUS64 writes back what the kernel has of the device, and would wait for ever. */
async function cutPath(lab: LabState, node: LabNode): Promise<void> {
  letDiskGo(lab, node);
  if (lab.lower === "directory" || node.device === null) return;
  await updateNode(lab.dir, node.nodeid, { cut: true });
  await setCut(lab, node.device, true);
}

function hungGroup(lab: LabState, node: LabNode): HungGroup {
  return new HungGroup(`coverlay-lab-${lab.id}-${node.node}`);
}

/** Its disk does not answer. */
export function isHung(lab: LabState, node: LabNode): boolean {
  return lab.lower !== "directory" && node.device !== null && hungGroup(lab, node).hangs(node.device);
}

/** Its disk does not answer any more. Throws OperatingError "no-disk", "node-off", "cut", "no-hang". */
export function hangDisk(lab: LabState, node: LabNode): Promise<void> {
  return withPower(lab, [node], async ([now]) => {
    const device = diskOf(lab, now ?? node);
    if (now?.cut === true) {
      throw new OperatingError(`${node.node} is cut off its disk`, { code: "cut", hint: `First: coverlay lab uncut ${node.node}.` });
    }
    const pids = nodeProcesses(lab, node).map(({ pid }) => pid);
    hungGroup(lab, node).hang(device, pids, true);
  });
}

/** Its disk answers again, if it did not. Whoever switches the node may wait for just that. */
export function letDiskGo(lab: LabState, node: LabNode): void {
  const group = hungGroup(lab, node);
  if (node.device !== null && lab.lower !== "directory") group.letGo(node.device);
  group.end();
}

/** Its loop device. Throws OperatingError "no-disk", "node-off". */
function diskOf(lab: LabState, node: LabNode): string {
  if (lab.lower === "directory") {
    throw new OperatingError("this lab has no disk: its lower is a directory", {
      code: "no-disk",
      hint: "Use a lab with --lower ext4 or xfs.",
    });
  }
  if (node.device !== null && node.power === "on") return node.device;
  throw new OperatingError(`${node.node} is off`, { code: "node-off", hint: `Boot it with lab start ${node.node}.` });
}

/** Cuts its path to the disk, or joins it again. Throws OperatingError "no-disk", "node-off". */
export function cutDisk(lab: LabState, node: LabNode, cut: boolean): Promise<void> {
  return withPower(lab, [node], async ([now]) => {
    const device = diskOf(lab, now ?? node);
    if (cut) return cutPath(lab, now ?? node);
    await updateNode(lab.dir, node.nodeid, { cut });
    await setCut(lab, device, cut);
  });
}

async function endProcesses(lab: LabState, node: LabNode): Promise<void> {
  for (const ref of nodeProcesses(lab, node)) signalProcess(ref, "SIGKILL");
  await forceUnmountUnder(node.nodeDir);
  await killProcesses(lab, node);
  removeMountRecords(node.nodeDir);
  await updateNode(lab.dir, node.nodeid, { dlmd: null });
}

function warn(words: string): void {
  process.stderr.write(`coverlay: ${words}\n`);
}

async function giveDiskBack(lab: LabState, node: LabNode, note: (words: string) => void = warn): Promise<void> {
  if (lab.lower === "directory" || node.device === null) return;
  // Else who has the loop device next would have a disk that hangs.
  letDiskGo(lab, node);
  await detachLoops(imageOf(lab), [node.device]);
  if (trimImage(lab)) note(`${node.node}: a write that the kernel held back when its disk was cut was answered, and is lost`);
  await updateNode(lab.dir, node.nodeid, { device: null, cut: false });
}

/** Nothing of it runs, and it does not reach the disk. */
export function isOff(lab: LabState, node: LabNode): boolean {
  const reaches = lab.lower !== "directory" && node.device !== null && !node.cut;
  return node.power !== "on" && !reaches && nodeProcesses(lab, node).length === 0;
}

/* On ------------------------------------------------------------------------------------------------------------ */

/** Its cable and its disk; no program. A node that is on is left as it is. Throws OperatingError what `requireWhollyOff` does. */
export function powerOn(lab: LabState, node: LabNode): Promise<void> {
  return withPower(lab, [node], async ([now]) => {
    if (now === undefined) return;
    if (now.power !== "on") await requireWhollyOff(lab, now);
    await setCable(lab, now, true);
    if (now.power !== "on" || now.device === null) await attachDisk(lab, now.nodeid);
    await updateNode(lab.dir, now.nodeid, { power: "on" });
  });
}

/**
 * Hazard C3: what its kernel still has in memory would go over the data of the next owner as soon as the path is back. Throws OperatingError
 * "still-runs", "superblock-live".
 */
async function requireWhollyOff(lab: LabState, node: LabNode): Promise<void> {
  const [first, ...more] = nodeProcesses(lab, node);
  if (first !== undefined) {
    throw new OperatingError(`${node.node} is ${node.power}, but ${more.length + 1} of its processes run (${first.pid})`, {
      code: "still-runs",
      hint: `End them with \`coverlay lab kill ${node.node}\`: only then it may have its disk back.`,
    });
  }
  if (lab.lower === "directory" || node.device === null) return;
  if (tryExclusive(node.device) === "busy") {
    throw new OperatingError(`${node.node} was cut off its disk, and a file system of it is still mounted on ${node.device}`, {
      code: "superblock-live",
      hint: `Its unwritten data would come to the disk with the path. Find what keeps it (findmnt -S ${node.device}; other mount namespaces, too), and end that.`,
    });
  }
  await giveDiskBack(lab, node);
}

/** Gives a node its path to the disk: the loop device, or the lower directory. */
export async function attachDisk(lab: LabState, nodeid: number, signal?: AbortSignal): Promise<string> {
  const { dir } = lab;
  const notes: LoopNotes = {
    deviceNode: (made) => updateLab(dir, (now) => ({ ...now, madeDevices: [...now.madeDevices, made] })),
    attaching: (attaching) => updateNode(dir, nodeid, { attaching }),
  };
  const device = lab.lower === "directory" ? labFiles(dir).lowerDirectory : await attachLoop(lab, null, notes, signal);
  await updateNode(dir, nodeid, { device, attaching: null });
  return device;
}

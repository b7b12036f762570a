/**
 * Takes a lab down from whatever state it is in: up, half made, half taken down, its `up` killed. Each step looks for
 * what is there instead of trusting what was recorded, and none of them minds finding nothing, so it can be run
 * again. What `up` did not make stays.
 */
import { existsSync, lstatSync, readdirSync, rmSync, rmdirSync, statSync } from "node:fs";
import path from "node:path";
import { OperatingError } from "../../dlmd/base/error.ts";
import { unfinishedKeys } from "../../dlmd/driver/cluster-files.ts";
import { unlessAborted } from "../cli/interrupt.ts";
import { overlayProcess } from "./boot.ts";
import { readOverlayFile } from "../query/overlay-query.ts";
import { removeQbFiles } from "./corosync.ts";
import { detachLoops, loopsOf, removeDeviceNodes } from "./disk.ts";
import { cleanUnmount, forceUnmountUnder, mountsUnder, removeMountRecords } from "./fuse-mounts.ts";
import { hubName, labFiles } from "./layout.ts";
import { removeNetworks } from "./network.ts";
import { killAll, letDiskGo } from "./power.ts";
import { isAlive, netnsInode, signalProcess, waitGone } from "./processes.ts";
import { type LabNode, type LabState, type ProcessRef, existingLab, imageOf, labNodes, readLab, updateLab, withLabLock } from "./state.ts";
import { type LabWork, UNFOLLOWED } from "./work.ts";

/** A foreground `up` takes its lab down itself when asked; so long it is given. */
const UP_LEAVES_TIMEOUT_MS = 60_000;
/** After SIGKILL. */
const WORKERS_LEAVE_TIMEOUT_MS = 10_000;
/** The data goes anyway, so a mount that does not leave soon is aborted. */
const CLEAN_UNMOUNT_TIMEOUT_MS = 5000;
/** Dlmds that all leave at once wait for one another; nothing depends on how these go. */
const DLMD_LEAVES_TIMEOUT_MS = 1000;

/**
 * Takes the lab in `dir` down. False: there is none. Throws OperatingError when something will not go, and the reason of its signal; then lab.json
 * stays.
 */
export async function takeDown(dir: string, work: LabWork = UNFOLLOWED): Promise<boolean> {
  const found = readLab(dir);
  if (found === null) return false;
  if (found.up !== null && found.up.pid !== process.pid) {
    work.say("waits for the `lab up` that made it, which takes it down");
    await unlessAborted(endProcess(found.up), work.signal);
  }
  await dismantle(dir, work);
  return true;
}

/** Ends a process of ours that works on the lab: `up` takes what it made down itself when asked. */
async function endProcess(ref: ProcessRef): Promise<void> {
  if (ref.pid === process.pid || !signalProcess(ref, "SIGTERM")) return;
  if ((await waitGone([ref], UP_LEAVES_TIMEOUT_MS)).length === 0) return;
  signalProcess(ref, "SIGKILL");
  await waitGone([ref], UP_LEAVES_TIMEOUT_MS);
}

/** Takes down whatever there is of the lab, one process at a time. */
export function dismantle(dir: string, work: LabWork = UNFOLLOWED): Promise<void> {
  const waits = (): void => work.say("waits for another command that takes it down");
  return unlessAborted(
    withLabLock(dir, () => dismantleAlone(dir, work), "teardown", waits),
    work.signal,
  );
}

async function dismantleAlone(dir: string, { say, note, signal }: LabWork): Promise<void> {
  // Each step can be the last one: the next `lab down` looks for what is there.
  const step = (words: string): void => {
    signal.throwIfAborted();
    say(words);
  };
  const found = readLab(dir);
  if (found === null) return; // Somebody else was faster.
  step("ends commands that work on it");
  const { lab, unrecorded } = await recordDown(dir);
  try {
    await takeApart(lab, found.phase, step);
  } catch (error) {
    if (unrecorded !== null) note(`${unrecorded.message}: other commands do not know that the lab is being taken down`);
    throw error;
  }
}

/** A disk that is full does not keep a lab: most of what fills it may be the lab's own. */
async function recordDown(dir: string): Promise<{ readonly lab: LabState; readonly unrecorded: OperatingError | null }> {
  try {
    return { lab: await updateLab(dir, (now) => ({ ...now, phase: "down", step: "down" })), unrecorded: null };
  } catch (error) {
    if (!(error instanceof OperatingError) || error.code !== "lab-full") throw error;
    return { lab: existingLab(dir), unrecorded: error };
  }
}

async function takeApart(lab: LabState, phase: LabState["phase"], step: (words: string) => void): Promise<void> {
  // No new command begins in this phase, and those that are at it must not make anything behind our back.
  for (const worker of lab.workers) if (worker.pid !== process.pid) signalProcess(worker, "SIGKILL");
  await waitGone(
    lab.workers.filter(({ pid }) => pid !== process.pid),
    WORKERS_LEAVE_TIMEOUT_MS,
  );
  const nodes = labNodes(lab);
  for (const node of nodes) letDiskGo(lab, node);
  if (phase === "up") await leaveInOrder(lab, nodes, step);
  step("takes its mounts away, and ends what runs on its nodes");
  // A mount that is aborted lets its users go; what died may have let go of another mount.
  await forceUnmountAll(nodes);
  await killAll({ netns: netnsInodes(lab, nodes), marks: [`${lab.id}:`] }, `the lab in ${lab.dir}`);
  await forceUnmountAll(nodes);
  for (const node of nodes) {
    removeMountRecords(node.nodeDir);
    removeQbFiles(node);
  }
  step("takes its disks and its network away");
  if (lab.lower === "directory") await forceUnmountUnder(labFiles(lab.dir).lowerDirectory);
  else await detachLoops(imageOf(lab), loopsOf(existingLab(lab.dir)));
  removeDeviceNodes(lab.madeDevices);
  await removeNetworks(lab);
  removeFiles(lab, nodes);
}

/** Only in the lab's own folders: DIR may have other mounts, or be one. */
async function forceUnmountAll(nodes: readonly LabNode[]): Promise<void> {
  for (const { nodeDir } of nodes) await forceUnmountUnder(nodeDir);
}

function netnsInodes(lab: LabState, nodes: readonly LabNode[]): Set<number> {
  const names = [hubName(lab.id), ...nodes.map(({ netns }) => netns)];
  return new Set(names.map(netnsInode).filter((inode) => inode !== null));
}

/** The way a cluster is shut down: the owner last, then the dlmds. What does not follow in time is left to force. */
async function leaveInOrder(lab: LabState, nodes: readonly LabNode[], step: (words: string) => void): Promise<void> {
  const isOwner = (node: LabNode): boolean => {
    try {
      return readOverlayFile(node.runDir, node.mount)?.role === "owner";
    } catch {
      return false; // A damaged file must not stop the lab from going down; it is removed with the rest.
    }
  };
  const leave = async (node: LabNode): Promise<void> => {
    if (mountsUnder(node.mount).length === 0) return;
    const overlay = overlayProcessOrNull(lab, node);
    if ((await cleanUnmount(node.mount, CLEAN_UNMOUNT_TIMEOUT_MS)) !== null || overlay === null) return;
    await waitGone([overlay], CLEAN_UNMOUNT_TIMEOUT_MS);
  };
  step("unmounts where the volume is not owned");
  await Promise.all(nodes.filter((node) => !isOwner(node)).map(leave));
  step("unmounts on its owner");
  await Promise.all(nodes.filter(isOwner).map(leave));
  step("its dlmds leave");
  const daemons = nodes.map(({ dlmd }) => dlmd).filter((dlmd) => dlmd !== null && isAlive(dlmd));
  for (const dlmd of daemons) if (dlmd !== null) signalProcess(dlmd, "SIGTERM");
  await waitGone(
    daemons.filter((dlmd) => dlmd !== null),
    DLMD_LEAVES_TIMEOUT_MS,
  );
}

function overlayProcessOrNull(lab: LabState, node: LabNode): ReturnType<typeof overlayProcess> {
  try {
    return overlayProcess(lab, node);
  } catch {
    return null; // A damaged file: the process is found by its namespace when it is killed.
  }
}

/** Removes what `up` wrote, lab.json last, and never through a mount. */
function removeFiles(lab: LabState, nodes: readonly LabNode[]): void {
  const left = [...nodes.map(({ nodeDir }) => nodeDir), labFiles(lab.dir).lowerDirectory].flatMap(mountsUnder);
  if (left.length > 0) {
    throw new OperatingError(
      `nothing should be mounted under ${lab.dir} any more, found: ${left.map(({ mountPoint }) => mountPoint).join(", ")}`,
      {
        code: "still-mounted",
        hint: "Unmount it, then run `coverlay lab down` again.",
      },
    );
  }
  const files = labFiles(lab.dir);
  const made = [
    ...(lab.lower === "directory" ? [files.lowerDirectory] : lab.givenImage === null ? [files.image] : []),
    files.key,
    ...unfinishedKeys(files.key),
    files.config,
    files.fenceAgent,
    ...nodes.map(({ nodeDir }) => nodeDir),
    `${files.state}.new`,
  ];
  for (const file of made) rmSync(file, { recursive: true, force: true });
  rmSync(files.state, { force: true });
  if (lab.madeDir && existsSync(lab.dir) && readdirSync(lab.dir).length === 0) rmdirSync(lab.dir);
}

/** Where something of that name is already there, so that `up` would take over, and `down` remove, what is not the lab's. */
export function foreignFiles(dir: string, nodeDirs: readonly string[]): string[] {
  const files = labFiles(dir);
  const next = `${files.state}.new`;
  // A file of that name is left of an `up` that was killed.
  const foreignNext = statSync(next, { throwIfNoEntry: false })?.isDirectory() === true ? [next] : [];
  return [files.image, files.lowerDirectory, files.key, files.config, files.fenceAgent, ...nodeDirs]
    .filter((file) => lstatSync(file, { throwIfNoEntry: false }) !== undefined)
    .concat(foreignNext)
    .map((file) => path.basename(file));
}

/**
 * A node of the lab from power-on to power-off: its cable, its disk, its dlmd, its mount. Everything here goes through
 * the programs that a user runs; the lab has no way of its own into them.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, existsSync, openSync, readFileSync, statSync, watch } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { OperatingError } from "../../dlmd/base/error.ts";
import type { ViewInfo } from "../../dlmd/client/api.ts";
import { askDlmd, waitForView } from "../query/dlmd-query.ts";
import { unlessAborted } from "../cli/interrupt.ts";
import { EXIT } from "../cli/output.ts";
import { queryOverlayStatus, readOverlayFile, removeGoneOverlays } from "../query/overlay-query.ts";
import { must, run } from "./command.ts";
import { corosyncAmong, startCorosync } from "./corosync.ts";
import { cleanUnmount, forceUnmountUnder, mountsUnder, removeMountRecords } from "./fuse-mounts.ts";
import { waitForFence } from "./fence-wait.ts";
import { labFiles, netnsArguments } from "./layout.ts";
import { SERVES_WAIT_MS, waitForMount } from "./mount-wait.ts";
import { endStopped, nodeProcesses, powerOn } from "./power.ts";
import { isAlive, KILL_TIMEOUT_MS, markedEnvironment, processRef, signalProcess, waitGone } from "./processes.ts";
import { type LabNode, type LabState, type ProcessRef, existingLab, labNode, labNodes, updateNode } from "./state.ts";
import { type LabWork, UNFOLLOWED } from "./work.ts";

/** Starting a Node.js program on a busy machine. */
const DLMD_READY_TIMEOUT_MS = 30_000;
/** From the first dlmd to a view of all: several heartbeats and one recovery. */
export const VIEW_TIMEOUT_MS = 60_000;
const MOUNT_TIMEOUT_MS = 60_000;
const ANSWER_TIMEOUT_MS = 20_000;
/** An unmount writes back what is held. */
const UNMOUNT_TIMEOUT_MS = 60_000;
const LEAVE_TIMEOUT_MS = 15_000;
/** Lines of a program's log that an error shows. */
const LOG_LINES = 12;

/** The compiled programs; the lab runs them the way a user does. */
export const programs: { readonly coverlay: string; readonly dlmd: string; readonly fenceAgent: string } = {
  coverlay: fileURLToPath(new URL("../main.js", import.meta.url)),
  dlmd: fileURLToPath(new URL("../../dlmd/main.js", import.meta.url)),
  fenceAgent: fileURLToPath(new URL("./fence-agent.js", import.meta.url)),
};

/** The environment of a program on a node: the lab's mark, and where the node's programs find each other. */
export function nodeEnvironment(lab: LabState, node: LabNode): NodeJS.ProcessEnv {
  return { ...markedEnvironment(lab.id, node.node), COVERLAY_RUN_DIR: node.runDir };
}

/** The process that serves the node's mount; null where none is alive. */
export function overlayProcess(lab: LabState, node: LabNode): ProcessRef | null {
  const file = readOverlayFile(node.runDir, node.mount);
  if (file === null) return null;
  // A file may be left over and its pid taken by another: it must be one of this node's.
  return nodeProcesses(lab, node).find(({ pid }) => pid === file.pid) ?? null;
}

/** A process has the node's mount: that which serves it, one that is to go on with it, or its keeper (overlay/crash/, overlay/restart/). */
function isKept(lab: LabState, node: LabNode): boolean {
  return nodeProcesses(lab, node).some(({ pid }) => {
    try {
      const [program, ...words] = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
      return words.includes(node.mount) && (words.includes("serve") || program?.endsWith("/coverlay-keeper") === true);
    } catch {
      // It has ended.
      return false;
    }
  });
}

/* Starting ------------------------------------------------------------------------------------------------------ */

/** Starts the node's dlmd and waits until its socket listens. */
export async function startDlmd(lab: LabState, node: LabNode, signal?: AbortSignal): Promise<void> {
  const logFile = `${node.nodeDir}/dlmd.log`;
  const log = openSync(logFile, "a", 0o600);
  const from = statSync(logFile).size;
  const args = [programs.dlmd, "--config", labFiles(lab.dir).config, "--node", node.node, "--run-dir", node.runDir];
  const child = spawn("nsenter", netnsArguments(node.netns, [process.execPath, ...args]), {
    cwd: "/",
    detached: true,
    stdio: ["ignore", log, log],
    env: nodeEnvironment(lab, node),
  });
  closeSync(log);
  const ready = dlmdReady(child, logFile, from, signal);
  ready.catch(() => undefined); // Handled below, after its process is on record.
  try {
    await updateNode(lab.dir, node.nodeid, { dlmd: child.pid === undefined ? null : processRef(child.pid) });
    await ready;
  } finally {
    child.unref();
  }
}

/** Waits for the line `ready` in its log, or for its end. */
function dlmdReady(child: ChildProcess, logFile: string, from: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const text = (): string => readFileSync(logFile).subarray(from).toString("utf8");
    const end = (problem: string | null): void => {
      clearTimeout(timer);
      watcher.close();
      signal?.removeEventListener("abort", interrupted);
      child.removeListener("exit", ended);
      if (problem === null) return resolve();
      const hint = `Its log is ${logFile}.`;
      reject(new OperatingError(`dlmd did not start: ${problem}${lastLines(text())}`, { code: "dlmd-start", hint }));
    };
    const look = (): void => {
      if (/^ready$/m.test(text())) end(null);
    };
    const ended = (status: number | null, by: string | null): void => end(`it ended with ${by ?? `exit status ${status}`}`);
    const notStarted = (error: Error): void => end(error.message);
    const interrupted = (): void => end("interrupted");
    const timer = setTimeout(() => end(`it did not say "ready" within ${DLMD_READY_TIMEOUT_MS / 1000} s`), DLMD_READY_TIMEOUT_MS);
    const watcher = watch(logFile, look);
    child.on("exit", ended).on("error", notStarted);
    signal?.addEventListener("abort", interrupted, { once: true });
    look();
  });
}

function lastLines(text: string): string {
  const lines = text.trimEnd().split("\n").slice(-LOG_LINES);
  return lines.join("").trim() === "" ? "" : `\n  ${lines.join("\n  ")}`;
}

/** Runs the same program that `mount -t clustered` runs, in the node's network, and looks whether the mount answers. */
export async function mountNode(lab: LabState, node: LabNode, signal?: AbortSignal): Promise<void> {
  if (node.device === null) throw new OperatingError(`${node.node} has no disk`, { code: "no-device", hint: "Start the node first." });
  const logFile = `${node.nodeDir}/mount.log`;
  // A file and no pipe: the process that goes on serving keeps what it was given.
  const log = openSync(logFile, "a", 0o600);
  const from = statSync(logFile).size;
  // A directory is one node's: the others go through it.
  const source = lab.lower === "directory" && node.nodeid !== 1 ? "lab" : node.device;
  const args = [process.execPath, programs.coverlay, "mount", source, node.mount, "-o", `runDir=${node.runDir}`];
  const options = { cwd: "/", detached: true, stdio: ["ignore", log, log] as ["ignore", number, number], env: nodeEnvironment(lab, node) };
  const child = spawn("nsenter", netnsArguments(node.netns, args), options);
  closeSync(log);
  const problem = await mountEnded(child, signal);
  if (problem !== null) {
    throw new OperatingError(
      `${node.node}: the mount failed: ${problem}${lastLines(readFileSync(logFile).subarray(from).toString("utf8"))}`,
      {
        code: "mount-failed",
        exitStatus: EXIT.FAILURE,
        hint: `Its log is ${logFile}.`,
      },
    );
  }
  await mountAnswers(node, signal);
}

/** null: exit status 0. */
function mountEnded(child: ChildProcess, signal: AbortSignal | undefined): Promise<string | null> {
  return new Promise((resolve) => {
    const kill = (why: string): void => {
      child.kill("SIGKILL");
      end(why);
    };
    const end = (problem: string | null): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", interrupted);
      child.unref();
      resolve(problem);
    };
    // It takes back what it has begun, and ends.
    const interrupted = (): void => void child.kill("SIGTERM");
    const timer = setTimeout(() => kill(`it took longer than ${MOUNT_TIMEOUT_MS / 1000} s`), MOUNT_TIMEOUT_MS);
    signal?.addEventListener("abort", interrupted, { once: true });
    child.on("error", (error) => end(error.message));
    child.on("exit", (status, by) => end(status === 0 ? null : (by ?? `exit status ${status}`)));
  });
}

/** A mount that is there and whose server answers; asked by another process, which may hang. */
async function mountAnswers(node: LabNode, signal?: AbortSignal): Promise<void> {
  const entry = mountsUnder(node.mount)[0];
  const found = entry === undefined ? "nothing is mounted there" : entry.type === "fuse.clustered" ? null : `type ${entry.type}`;
  const asked = found === null ? await run("stat", ["-f", node.mount], { timeoutMs: ANSWER_TIMEOUT_MS, signal }) : null;
  if (asked?.status === 0) return;
  throw new OperatingError(`${node.node}: ${node.mount} should be a mount of type fuse.clustered that answers`, {
    code: "mount-silent",
    hint: `Found: ${found ?? (asked?.timedOut === true ? "it does not answer" : (asked?.stderr.trim() ?? ""))}.`,
  });
}

/** One that does not end is said: the node may be switched off while it boots. A node that is on is left as it is. */
async function fenceEnded(lab: LabState, { nodeid, node, power }: LabNode, { say, note, signal }: LabWork): Promise<void> {
  if (power === "on") return;
  say(`${node}: waits until no other node fences it`);
  const others = labNodes(existingLab(lab.dir)).filter((one) => one.nodeid !== nodeid && one.dlmd !== null && isAlive(one.dlmd));
  // A dlmd that does not answer fences nobody now.
  const ask = ({ runDir }: LabNode): Promise<unknown> =>
    askDlmd(runDir, "status").then(
      ({ answer }) => answer,
      () => null,
    );
  const statuses = (): Promise<unknown[]> => Promise.all(others.map(ask));
  if (await waitForFence(nodeid, { statuses, sleep: sleepUntil(signal), nowMs: () => performance.now() })) return;
  note(`${node} is still being fenced: it is started all the same, and may be switched off again`);
}

/** A sleep that ends with the reason of the signal. */
function sleepUntil(signal: AbortSignal): (ms: number) => Promise<unknown> {
  return async (ms) => {
    await sleep(ms, undefined, { signal }).catch(() => undefined);
    signal.throwIfAborted();
  };
}

/** Throws OperatingError "mount-waits" where its mount is there and does not come to serve. */
async function servedAlready(lab: LabState, node: LabNode, { say, signal }: LabWork): Promise<boolean> {
  const { nodeid, runDir, mount } = node;
  const isThere = (): boolean => mountsUnder(mount).length > 0 && isKept(lab, node);
  // dlmd or the overlay may end, or begin anew, while it is asked.
  const serves = async (): Promise<boolean> => {
    const view = await askDlmd(runDir, null).then(
      (answer) => answer.view,
      () => null,
    );
    if (view === null || !serving(view, nodeid)) return false;
    const status = await queryOverlayStatus(runDir, ANSWER_TIMEOUT_MS, mount).catch(() => null);
    return status?.["lease"] === "holds";
  };
  if (isThere()) say(`${node.node}: waits until its mount, which is there, serves`);
  const found = await waitForMount({ isThere, serves, sleep: sleepUntil(signal), nowMs: () => performance.now() });
  if (found !== "waits") return found === "serves";
  throw new OperatingError(`${node.node}: ${mount} is mounted, but does not serve within ${SERVES_WAIT_MS / 1000} s`, {
    code: "mount-waits",
    hint: `\`coverlay status --run-dir ${runDir}\` tells for what it waits.`,
  });
}

const serving = (view: ViewInfo, nodeid: number): boolean => view.quorate && view.running && view.members.includes(nodeid);

/** Boots nodes: whatever of each does not run is started: cable, disk, dlmd, then the mount. Throws the reason of its signal. */
export async function bootNodes(lab: LabState, names: readonly string[], work: LabWork = UNFOLLOWED): Promise<void> {
  const { say, signal } = work;
  for (const name of names) {
    signal.throwIfAborted();
    await fenceEnded(lab, labNode(lab, name), work);
    say(`${name}: gets its power, its network and its disk`);
    await powerOn(lab, labNode(lab, name));
    const node = labNode(existingLab(lab.dir), name);
    startCorosync(lab, node);
    if (node.dlmd !== null && isAlive(node.dlmd)) continue;
    signal.throwIfAborted();
    say(`${name}: dlmd starts`);
    await startDlmd(lab, node, signal);
  }
  for (const name of names) {
    signal.throwIfAborted();
    const node = labNode(existingLab(lab.dir), name);
    if (await servedAlready(lab, node, work)) continue;
    await forceUnmountUnder(node.nodeDir);
    removeMountRecords(node.nodeDir);
    removeGoneOverlays(node.runDir);
    say(`${name}: waits for a view of the cluster that has a quorum`);
    await waitForView(node.runDir, (view) => serving(view, node.nodeid), VIEW_TIMEOUT_MS, signal);
    say(`${name}: mounts`);
    await mountNode(lab, node, signal);
  }
}

/* Ending -------------------------------------------------------------------------------------------------------- */

/**
 * Shuts a node down in order: unmount, wait for its overlay to leave, end dlmd, end corosync, end what else runs there. Throws the reason of its
 * signal: what was told to leave goes on.
 */
export async function stopNode(lab: LabState, { node: name }: LabNode, { say, note, signal }: LabWork = UNFOLLOWED): Promise<void> {
  // Others were stopped before it, which takes time.
  const node = labNode(existingLab(lab.dir), name);
  const overlay = overlayProcess(lab, node);
  if (mountsUnder(node.mount).length > 0) {
    signal.throwIfAborted();
    say(`${node.node}: unmounts`);
    const problem = await cleanUnmount(node.mount, UNMOUNT_TIMEOUT_MS, signal);
    signal.throwIfAborted();
    if (problem !== null) {
      throw new OperatingError(`${node.node} cannot unmount ${node.mount}: ${problem}`, {
        code: "unmount-failed",
        hint: `Leave the directory (fuser -vm ${node.mount} tells who is in it), or use \`coverlay lab kill ${node.node}\`.`,
      });
    }
  }
  const leave = async (ref: ProcessRef | null, program: string, told: NodeJS.Signals | null): Promise<void> => {
    signal.throwIfAborted();
    if (ref === null) return;
    say(`${node.node}: ${program} leaves`);
    await unlessAborted(mustLeave(ref, `${program} of ${node.node}`, told), signal);
  };
  await leave(overlay, "the overlay", null);
  await leave(node.dlmd, "dlmd", "SIGTERM");
  // A ring that is not told waits until the token is lost, and orders nothing meanwhile.
  await leave(corosyncAmong(node, nodeProcesses(lab, node)), "corosync", "SIGTERM");
  signal.throwIfAborted();
  say(`${node.node}: ends what is left, and gives its disk back`);
  await endStopped(lab, node, note);
}

async function mustLeave(ref: ProcessRef, what: string, signal: NodeJS.Signals | null): Promise<void> {
  if (signal !== null) signalProcess(ref, signal);
  const left = await waitGone([ref], LEAVE_TIMEOUT_MS);
  if (left.length === 0) return;
  throw new OperatingError(`${what} (process ${ref.pid}) should have left within ${LEAVE_TIMEOUT_MS / 1000} s, but runs on`, {
    code: "does-not-leave",
    hint: "Its log says what it waits for; `coverlay lab kill` ends it the hard way.",
  });
}

/** SIGKILL to one program of the node. */
export async function killProgram(lab: LabState, node: LabNode, what: "dlmd" | "overlay"): Promise<void> {
  const ref = what === "dlmd" ? node.dlmd : overlayProcess(lab, node);
  if (ref === null || !signalProcess(ref, "SIGKILL")) throw notRunning(node, what);
  await waitGone([ref], KILL_TIMEOUT_MS);
}

function notRunning(node: LabNode, what: string): OperatingError {
  return new OperatingError(`${node.node} has no ${what} running`, {
    code: "not-running",
    hint: "`coverlay lab status` shows what runs.",
  });
}

/** Both programs of the node, or one of them: SIGSTOP, or SIGCONT. Those that do not run are left alone. */
export function signalPrograms(lab: LabState, node: LabNode, what: "dlmd" | "overlay" | null, signal: "SIGSTOP" | "SIGCONT"): void {
  const programs = { dlmd: node.dlmd, overlay: overlayProcess(lab, node) };
  const wanted = what === null ? Object.values(programs) : [programs[what]];
  const running = wanted.filter((ref) => ref !== null);
  const reached = running.filter((ref) => signalProcess(ref, signal));
  if (reached.length === 0) throw notRunning(node, what ?? "program");
}

/** Sets the clustered bit through the user's own command. */
export async function enableVolume(lab: LabState, device: string, signal?: AbortSignal): Promise<void> {
  const args = [programs.coverlay, "volume", "enable", device, "--cluster", `lab-${lab.id}`, "--name", "lab", "--uuid", lab.volumeUuid];
  await must(process.execPath, args, { env: markedEnvironment(lab.id, ""), signal });
}

/** Both programs are compiled. */
export function checkPrograms(): void {
  const missing = Object.values(programs).filter((program) => !existsSync(program));
  if (missing.length === 0) return;
  throw new OperatingError(`${missing.join(" and ")} should be there, compiled, but ${missing.length === 1 ? "is" : "are"} not`, {
    code: "not-built",
    hint: "Run npm run build.",
  });
}

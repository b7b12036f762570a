/**
 * The corosync of a node of the lab (`lab up --engine corosync`): Debian's program, in the node's network namespace, where dlmd finds it by
 * its abstract sockets. It has a /run of its own, since all daemons of a machine write /run/corosync.pid.
 */
import { spawn } from "node:child_process";
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { LEAVE_COPIES } from "./fuse-mounts.ts";
import { NETNS_DIR, corosyncConf } from "./layout.ts";
import { markedEnvironment, processRef } from "./processes.ts";
import { type LabNode, type LabState, labNodes, type ProcessRef } from "./state.ts";

/** Where libqb keeps what a daemon and its clients map; names have process ids in them. */
const QB_DIR = "/dev/shm";

const pidsFile = ({ nodeDir }: LabNode): string => `${nodeDir}/corosync/pids`;

export function writeCorosyncFiles(lab: LabState): void {
  if (lab.engine !== "corosync") return;
  const nodes = labNodes(lab);
  for (const { nodeDir } of nodes) {
    mkdirSync(`${nodeDir}/corosync`, { mode: 0o700 });
    writeFileSync(`${nodeDir}/corosync.conf`, corosyncConf(lab.id, nodeDir, nodes), { flag: "wx", mode: 0o644 });
  }
}

/** dlmd waits for it, so nothing waits here. */
export function startCorosync(lab: LabState, node: LabNode): void {
  if (lab.engine !== "corosync" || pidsOf(node).some((pid) => processRef(pid) !== null)) return;
  removeQbFiles(node);
  const log = openSync(`${node.nodeDir}/corosync.log`, "a", 0o600);
  // Each becomes the next one, and keeps its process id.
  const script = `${LEAVE_COPIES}; echo $$ >>"$1" && mount -t tmpfs -o size=1m tmpfs /run && exec corosync -f -c "$0"`;
  const command = ["unshare", "--mount", "sh", "-c", script, `${node.nodeDir}/corosync.conf`, pidsFile(node)];
  const env = markedEnvironment(lab.id, node.node);
  const child = spawn("nsenter", [`--net=${NETNS_DIR}/${node.netns}`, "--", ...command], {
    cwd: "/",
    detached: true,
    stdio: ["ignore", log, log],
    env,
  });
  closeSync(log);
  child.on("error", () => undefined); // dlmd says in its log that it waits for corosync.
  child.unref();
}

function pidsOf(node: LabNode): number[] {
  const file = pidsFile(node);
  if (!existsSync(file)) return [];
  return readFileSync(file, "utf8")
    .split("\n")
    .filter((line) => line !== "")
    .map(Number);
}

/** Of those processes of the node. */
export function corosyncAmong(node: LabNode, processes: readonly ProcessRef[]): ProcessRef | null {
  const pids = pidsOf(node);
  return processes.find(({ pid }) => pids.includes(pid)) ?? null;
}

/** What libqb leaves of daemons that were killed. None of this node runs. */
export function removeQbFiles(node: LabNode): void {
  const prefixes = pidsOf(node).flatMap((pid) => [`qb-${pid}-`, `qb-corosync-${pid}-`]);
  for (const name of prefixes.length === 0 ? [] : readdirSync(QB_DIR)) {
    if (prefixes.some((prefix) => name.startsWith(prefix))) rmSync(path.join(QB_DIR, name), { recursive: true, force: true });
  }
}

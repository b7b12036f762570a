/** Three nodes of a lab as the bench needs them, through the lab's command line as any outside program uses it. */
import { readdirSync, readFileSync, readlinkSync, statSync, statfsSync } from "node:fs";
import path from "node:path";
import { OperatingError } from "../../dlmd/base/error.ts";
import { decodeClusterLocks } from "../../overlay/query/cluster-locks.ts";
import { askClusterAll, askDlmd } from "../../overlay/query/dlmd-query.ts";
import { listOverlays, queryOverlayStatus } from "../../overlay/query/overlay-query.ts";
import { queryOverlayInode } from "../../overlay/query/overlay-requests.ts";
import { describeRun, run } from "../../overlay/lab/command.ts";
import { netnsArguments } from "../../overlay/lab/layout.ts";
import type { NodeReport } from "../../overlay/lab/observe.ts";
import type { Placement } from "./dlmd/placement.ts";
import { interrupted, projectRoot } from "./load.ts";
import type { Cluster, ClusterNode, Counters } from "./system.ts";

export const NODES = 3;
const UP_TIMEOUT_MS = 180_000;
const COMMAND_TIMEOUT_MS = 120_000;

const LOOK = "Run the bench again; if it fails anew, bring a lab up by hand (`coverlay lab up`), where its logs stay to be read.";

const program = path.join(projectRoot, "dist/overlay/main.js");

export interface LabCluster extends Cluster {
  /** Each node unmounts and leaves, so that its processes end by themselves. */
  stop(): Promise<void>;
}

/** Brings a lab up in `dir`, which it may be the only one to use. `env`: of all its processes. */
export async function startLabCluster(
  dir: string,
  sizeBytes: number,
  placement: Placement,
  signal: AbortSignal,
  env: NodeJS.ProcessEnv = process.env,
): Promise<LabCluster> {
  const lab = async (words: readonly string[], timeoutMs: number, abort?: AbortSignal): Promise<string> => {
    const args = [program, "lab", ...words, "--dir", dir];
    const result = await run(process.execPath, args, { timeoutMs, signal: abort, env });
    if (abort?.aborted === true) throw interrupted();
    if (result.status !== 0) throw new OperatingError(describeRun("coverlay", args.slice(1), result), { code: "lab-failed", hint: LOOK });
    return result.stdout;
  };
  const end = async (): Promise<void> => void (await lab(["down"], COMMAND_TIMEOUT_MS));
  try {
    const size = String(sizeBytes);
    await lab(["up", "--detach", "--json", "--nodes", String(NODES), "--lower", "ext4", "--size", size], UP_TIMEOUT_MS, signal);
    const owner = (await lab(["owner"], COMMAND_TIMEOUT_MS, signal)).trim();
    const status = JSON.parse(await lab(["status", "--json"], COMMAND_TIMEOUT_MS, signal)) as { nodes: NodeReport[] };
    const ordered = [...status.nodes].sort((a, b) => Number(b.node === owner) - Number(a.node === owner));
    const nodes = ordered.map((node, at) => clusterNode(node, placement, at + 1));
    const [first, other, third] = nodes[0]?.name === owner ? nodes : [];
    if (first === undefined || other === undefined || third === undefined) {
      throw new OperatingError(
        `a lab of ${NODES} nodes with an owner was expected, found ${nodes.length} and the owner ${JSON.stringify(owner)}`,
        {
          code: "lab-failed",
          hint: LOOK,
        },
      );
    }
    const setCables = async (delayMs: number): Promise<void> => {
      const names = nodes.map(({ name }) => name).join(",");
      await lab(["net", names, "--delay", String(delayMs)], COMMAND_TIMEOUT_MS, signal);
    };
    const lockMaster = async (file: string): Promise<ClusterNode | null> => {
      const masterNodeid = await lockMasterOf(ordered[1]?.runDir ?? "", statSync(file).ino);
      return nodes[ordered.findIndex(({ nodeid }) => nodeid === masterNodeid)] ?? null;
    };
    const stop = async (): Promise<void> => {
      for (const { name } of [third, other, first]) await lab(["stop", name], COMMAND_TIMEOUT_MS, signal);
    };
    return { owner: first, other, third, setCables, lockMaster, stop, end };
  } catch (error) {
    await end();
    throw error;
  }
}

/** `place`: its number in the placement. */
function clusterNode(node: NodeReport, placement: Placement, place: number): ClusterNode {
  if (node.overlayPid === null) {
    throw new OperatingError(`${node.node} should have a mount, but is: ${node.state}`, { code: "lab-failed", hint: LOOK });
  }
  for (const pid of [node.overlayPid, node.dlmdPid]) if (pid !== null) placement.place(pid, place);
  return {
    name: node.node,
    mount: node.mount,
    processors: placement.processors(place),
    address: node.address,
    pid: node.overlayPid,
    enter: (command) => ["nsenter", ...netnsArguments(node.netns, [...placement.prefix(place), ...command])],
    counters: async () => {
      const status = await queryOverlayStatus(node.runDir);
      return numbersOf({ ...(status["counters"] as object | undefined), inodes: status["inodes"] });
    },
    cpuUs: () => [node.overlayPid, node.dlmdPid].reduce((sum: number, pid) => sum + (pid === null ? 0 : cpuUsOf(pid)), 0),
    peerFrames: async () => {
      const { answer } = await askDlmd(node.runDir, "status");
      const counters = (answer as { counters?: object } | null)?.counters;
      return numbersOf(counters ?? {})["peer_frames_received"] ?? null;
    },
  };
}

/** Of all threads (Documentation/scheduler/sched-stats.rst); of one that has ended meanwhile nothing is counted. */
function cpuUsOf(pid: number): number {
  const threads = `/proc/${pid}/task`;
  let ns = 0;
  for (const tid of readdirSync(threads)) {
    try {
      ns += Number(readFileSync(`${threads}/${tid}/schedstat`, "utf8").split(" ")[0]);
    } catch (error) {
      if (!["ENOENT", "ESRCH"].includes((error as NodeJS.ErrnoException).code ?? "")) throw error;
    }
  }
  return ns / 1000;
}

/** The nodeid; null: the node has no lock for file locks of that inode. */
async function lockMasterOf(runDir: string, ino: number): Promise<number | null> {
  const overlay = listOverlays(runDir).find(({ alive }) => alive);
  if (overlay === undefined) return null;
  const { keys, lockspace } = await queryOverlayInode(runDir, overlay.connection, ino);
  const wanted = keys.map((key) => ({ lockspace, resource: `f${key}`, nodeid: 0, waitingMs: null }));
  const { answers } = await askClusterAll(runDir, wanted);
  return answers.flatMap((answer) => decodeClusterLocks(answer).resources)[0]?.masterNodeid ?? null;
}

function numbersOf(value: object): Counters {
  return Object.fromEntries(Object.entries(value).filter((entry): entry is [string, number] => typeof entry[1] === "number"));
}

const EXT4_MAGIC = 0xef53;

/** The root of the volume as the owner has it mounted: in no namespace, so it can be reached through the overlay's descriptors only. */
export function lowerRoot(overlayPid: number): string {
  const descriptors = `/proc/${overlayPid}/fd`;
  for (const name of readdirSync(descriptors)) {
    const descriptor = path.join(descriptors, name);
    if (linkOf(descriptor) === "/" && statfsSync(`${descriptor}/.`).type === EXT4_MAGIC) return descriptor;
  }
  throw new OperatingError(`the owner's overlay (${overlayPid}) should have the root of an ext4 open`, { code: "lab-failed", hint: LOOK });
}

/** null: closed meanwhile. */
function linkOf(descriptor: string): string | null {
  try {
    return readlinkSync(descriptor);
  } catch {
    return null;
  }
}

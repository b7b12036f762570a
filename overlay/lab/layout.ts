/**
 * What a lab is made of, by name: everything follows from its directory, its random id and the number of its nodes, so
 * that all of it is known, and recorded, before the first thing is made. Pure.
 *
 * The bridge stands in a network namespace of its own (the hub), so that no interface, address or route of the
 * machine is touched and every lab can use the same addresses.
 */

/** One segment, one /24, and a status that fits a screen. */
export const MAX_LAB_NODES = 16;
/** The smallest image on which mkfs.ext4 makes a journal and an application still finds room. */
export const MIN_IMAGE_BYTES: number = 64 * 1024 * 1024;
/** mkfs.xfs (xfsprogs 5.19 and later) refuses less. */
export const MIN_XFS_IMAGE_BYTES: number = 300 * 1024 * 1024;

/** ip-netns(8). */
export const NETNS_DIR = "/run/netns";

const ADDRESS_PREFIX = "10.209.77";

export type LowerKind = "ext4" | "xfs" | "directory";
export type LabEngine = "builtin" | "corosync";

export interface LabFiles {
  readonly state: string;
  readonly image: string;
  readonly lowerDirectory: string;
  readonly key: string;
  readonly config: string;
  /** The fence agent that the lock managers run. */
  readonly fenceAgent: string;
}

export function labFiles(dir: string): LabFiles {
  return {
    state: `${dir}/lab.json`,
    image: `${dir}/disk.img`,
    lowerDirectory: `${dir}/lower`,
    key: `${dir}/cluster.key`,
    config: `${dir}/cluster.yaml`,
    fenceAgent: `${dir}/fence_lab`,
  };
}

export interface NodeLayout {
  readonly node: string;
  readonly nodeid: number;
  readonly address: string;
  /** Name under NETNS_DIR. */
  readonly netns: string;
  /** The hub's end of the node's cable. */
  readonly port: string;
  readonly nodeDir: string;
  readonly runDir: string;
  readonly mount: string;
}

/** What nsenter(1) is told to run a command in a network namespace, and only its network, not its mounts. */
export function netnsArguments(netns: string, command: readonly string[], workingDirectory?: string): string[] {
  const enter = workingDirectory === undefined ? [] : [`--wd=${workingDirectory}`];
  return [`--net=${NETNS_DIR}/${netns}`, ...enter, "--", ...command];
}

export function hubName(id: string): string {
  return `coverlay-${id}-hub`;
}

/** A name for the network namespace in which the lab's commands run: a fence agent is started in that of a node, and goes there. */
export function homeName(id: string): string {
  return `coverlay-${id}-home`;
}

/** The text of DIR/fence_lab. `command`: node and the compiled agent. */
export function fenceAgentScript(id: string, command: readonly string[]): string {
  const words = ["nsenter", ...netnsArguments(homeName(id), command)].map((word) => `'${word.replaceAll("'", `'\\''`)}'`);
  return `#!/bin/sh\nexec ${words.join(" ")} "$@"\n`;
}

/** `nodeid` from 1 to MAX_LAB_NODES. */
export function nodeLayout(dir: string, id: string, nodeid: number): NodeLayout {
  const node = `node${nodeid}`;
  const nodeDir = `${dir}/${node}`;
  return {
    node,
    nodeid,
    address: `${ADDRESS_PREFIX}.${nodeid}`,
    netns: `coverlay-${id}-${node}`,
    port: `port${nodeid}`,
    nodeDir,
    runDir: `${nodeDir}/run`,
    mount: `${nodeDir}/mnt`,
  };
}

/** After the fence's success, as long as the next owner watches the disk (volume/quiet-disk.ts): then it need not wait once more. */
const FENCE_SETTLE_MS = 1500;

/** Longer than the lab's agent needs, so that the node without priority is off before it can fence the other one. */
const TWO_NODE_DELAY_MS = 5000;

/**
 * The text of the lab's cluster.yaml. `fenceIn`: the lab's directory, whose agent fences each node; null: no node has a fence device. `twoNode`: one of
 * two nodes is a quorum; if they fence each other the second one wins, which is not the first owner.
 */
export function clusterYaml(
  id: string,
  volumeUuid: string,
  lower: LowerKind,
  nodes: readonly NodeLayout[],
  fenceIn: string | null,
  engine: LabEngine = "builtin",
  twoNode = false,
): string {
  const device = ({ node }: NodeLayout): string => `power-${node}`;
  const agent = fenceIn === null ? "" : JSON.stringify(labFiles(fenceIn).fenceAgent);
  const options = `{ dir: ${JSON.stringify(fenceIn)} }`;
  const devices = nodes.map((node) => `  - { name: ${device(node)}, agent: ${agent}, settleMs: ${FENCE_SETTLE_MS}, options: ${options} }`);
  const fence = (node: NodeLayout): string => (fenceIn === null ? "" : `, fence: [[${device(node)}]]`);
  const priority = ({ nodeid }: NodeLayout): string => (twoNode && nodeid === 2 ? ", priority: 1" : "");
  return [
    `cluster: lab-${id}`,
    "version: 1",
    "keyFile: cluster.key",
    "multicast: { group: 239.192.77.1, port: 7700 }",
    "peerPort: 7701",
    ...(engine === "builtin" ? [] : [`engine: ${engine}`]),
    "timeoutMs: 3000",
    ...(twoNode ? ["quorum: { two_node: true }", `fencePriorityDelayMs: ${TWO_NODE_DELAY_MS}`] : []),
    "nodes:",
    ...nodes.map((node) => `  - { nodeid: ${node.nodeid}, name: ${node.node}, address: ${node.address}${fence(node)}${priority(node)} }`),
    ...(fenceIn === null ? [] : ["fenceDevices:", ...devices]),
    "volumes:",
    `  - { name: lab, uuid: ${volumeUuid}, lower: ${lower === "directory" ? "directory" : "device"} }`,
    "",
  ].join("\n");
}

/**
 * The text of the corosync.conf of one node. With that token a dead node is noticed about as soon as dlmd's heartbeats notice it. What no
 * machine may share with another has a place of its own, but for /run/corosync.pid, which is compiled in.
 */
export function corosyncConf(id: string, nodeDir: string, nodes: readonly NodeLayout[]): string {
  return [
    "totem {",
    "  version: 2",
    `  cluster_name: lab-${id}`,
    "  transport: udpu",
    "  token: 1200",
    "  token_coefficient: 0",
    "  secauth: off",
    "}",
    "system {",
    `  state_dir: ${nodeDir}/corosync`,
    `  run_dir: ${nodeDir}/corosync`,
    "  sched_rr: no",
    "  move_to_root_cgroup: no",
    "}",
    "logging {",
    "  to_stderr: yes",
    "  to_syslog: no",
    "  timestamp: hires",
    "}",
    "quorum {",
    "  provider: corosync_votequorum",
    "}",
    "nodelist {",
    ...nodes.flatMap(({ nodeid, node, address }) => [
      "  node {",
      `    nodeid: ${nodeid}`,
      `    name: ${node}`,
      `    ring0_addr: ${address}`,
      "  }",
    ]),
    "}",
    "",
  ].join("\n");
}

const unitBytes: Readonly<Record<string, number>> = { "": 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 };

/** "2G", "512M", "1.5GiB" in bytes; null where it is no size. */
export function parseSize(text: string): number | null {
  const found = /^(\d+(?:\.\d+)?)\s*([KMGT]?)(?:I?B)?$/.exec(text.trim().toUpperCase());
  const unit = unitBytes[found?.[2] ?? ""];
  if (found === null || unit === undefined) return null;
  const bytes = Math.floor(Number(found[1]) * unit);
  return Number.isSafeInteger(bytes) ? bytes : null;
}

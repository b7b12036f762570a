/**
 * All checks of a cluster from one node: looks at files, ports, devices and this machine at one time, each within its limit, lets the other nodes
 * check theirs, and gives what is to be said. It writes nothing. README.md says what is seen of which node, and how.
 */
import { createHash } from "node:crypto";
import { OperatingError } from "../../dlmd/base/error.ts";
import { canonicalConfig, type ClusterConfig } from "../../dlmd/config/cluster-config.ts";
import { clusterKeyPath, minTimeoutMs, readClusterConfig, readKeyring } from "../../dlmd/driver/cluster-files.ts";
import type { Keyring } from "../../dlmd/tls/keyring.ts";
import { type Finding, type NodeFinding, crossedLimit } from "./finding.ts";
import { judgeMountLines, pathOf } from "./fstab.ts";
import { judgeConfigFile, judgeKeyFile, judgeMachine, judgeName, judgeSelf } from "./judge-machine.ts";
import { type ClusterFacts, type NodeFact, judgeNodes } from "./judge-nodes.ts";
import { type OtherNode, judgeAll } from "./judge-others.ts";
import { type DiskFacts, judgeBareDisk, judgeDisk, judgeVolumes, type VolumeContext } from "./judge-volume.ts";
import {
  type MountLines,
  fileFact,
  folderFacts,
  lookAtMachine,
  mountLines,
  mountedDevices,
  ownAddresses,
  resolveName,
} from "./look-machine.ts";
import { type DiskLook, lookAtDisk } from "./look-disk.ts";
import { askPeerToCheck, lookAtPeer, probeUdp } from "./look-peers.ts";

/** Of one check. A TCP connection is tried anew after 1 s and 3 s. */
export const LOOK_LIMIT_MS = 4000;
const PROBE_SHARE = 0.4;

export interface DoctorOptions {
  readonly configFile: string;
  /** Which node this is; null: the one whose address this machine has. */
  readonly node: string | null;
  /** Beside those that cluster.yaml names, and those of this node's mounts. */
  readonly devices: readonly string[];
  readonly runDir: string;
  /** Above etc/fstab and the folders of systemd. */
  readonly root: string;
  readonly fstab: string;
  readonly limitMs: number;
  /** Before anything runs: a refused port is well, and a bit is not set yet. */
  readonly isBefore: boolean;
  /** The other nodes are looked at from here alone. */
  readonly isHere: boolean;
  /** Progress: the nodes whose own checks are waited for. */
  readonly say: (nodes: readonly string[]) => void;
}

export interface DoctorReport {
  readonly findings: readonly NodeFinding[];
  /** Null: this machine is no node, or cluster.yaml cannot be used. */
  readonly self: string | null;
}

type NodeEntry = ClusterConfig["nodes"][number];

const problemOf = (error: unknown): { message: string; hint: string } => {
  if (!(error instanceof OperatingError)) throw error;
  return { message: error.message, hint: error.hint };
};

export async function examine(options: DoctorOptions): Promise<DoctorReport> {
  const machine = judgeMachine(lookAtMachine());
  const files = readFiles(options.configFile);
  const { config, keyring } = files;
  const lines = mountLines(options.root, options.fstab);
  const sources = lines.lines.flatMap(({ source }) => pathOf(source) ?? []);
  const lookAt = (devices: readonly string[]): Promise<DiskLook[]> =>
    Promise.all(devices.map((device) => lookAtDisk(device, sources, options.limitMs)));
  if (config === null) {
    const disks = await lookAt(options.devices);
    const alone = disks.flatMap(({ facts, findings }) =>
      facts === null ? findings : [...judgeBareDisk(facts), ...judgeLines(facts, lines), ...findings],
    );
    return { findings: judgeAll([...files.findings, ...alone, ...machine], null, [], options.isBefore), self: null };
  }
  const self = findSelf(config, options.node);
  const named = config.volumes.flatMap(({ lower, path }) => (lower === "device" && path !== undefined ? [path] : []));
  const devices = new Set([...named, ...mountedDevices(options.runDir), ...options.devices]);
  // While others start processes, this one's looks would be late where all are on one machine: a lab.
  const looking = lookAtNodes(config, self.entry, keyring, options);
  const asking = looking.then((seen) => (options.isHere ? [] : askOthers(config, self.entry, keyring, seen, options)));
  const [nodes, others, names, disks] = await Promise.all([
    looking,
    asking,
    Promise.all(config.nodes.map((node) => checkName(node, options.limitMs))),
    lookAt([...devices]),
  ]);
  const context = contextOf(config, self.entry, nodes, options);
  const cluster: ClusterFacts = {
    cluster: config.cluster,
    peerPort: config.peerPort,
    multicast: config.multicast,
    timeoutMs: config.timeoutMs,
    isBefore: options.isBefore,
    hasHeartbeats: config.engine === "builtin",
    nodes,
    fileHash: files.hash,
  };
  const onDisks = disks.flatMap(({ facts, findings }) =>
    facts === null ? findings : [...judgeDisk(facts, context), ...judgeLines(facts, lines), ...findings],
  );
  const looks = disks.map(({ device, facts }) => facts ?? { device });
  const volumes = judgeVolumes(config.volumes, looks);
  const own = [...files.findings, self.finding, ...names, ...judgeNodes(cluster), ...onDisks, ...volumes, ...machine];
  const name = self.entry?.name ?? null;
  return { findings: judgeAll(own, name, others, options.isBefore), self: name };
}

interface Files {
  readonly config: ClusterConfig | null;
  readonly hash: Uint8Array | null;
  readonly keyring: Keyring | null;
  readonly findings: readonly Finding[];
}

function readFiles(configFile: string): Files {
  let config: ClusterConfig;
  let hash: Uint8Array;
  try {
    const read = readClusterConfig(configFile, minTimeoutMs(process.env));
    config = read.config;
    hash = createHash("sha256").update(canonicalConfig(config)).digest();
  } catch (error) {
    return { config: null, hash: null, keyring: null, findings: [judgeConfigFile(configFile, problemOf(error), null, "")] };
  }
  const summary = `version ${config.version} of cluster ${config.cluster}, ${config.nodes.length} nodes`;
  const keyFile = clusterKeyPath(configFile, config);
  let keyring: Keyring | null = null;
  let problem: { message: string; hint: string } | null = null;
  try {
    keyring = readKeyring(keyFile);
  } catch (error) {
    problem = problemOf(error);
  }
  const ids = keyring?.all.map(({ id }) => id) ?? [];
  const findings = [
    judgeConfigFile(configFile, null, fileFact(configFile), summary, folderFacts(configFile)),
    judgeKeyFile(keyFile, fileFact(keyFile), { ids, problem }, folderFacts(keyFile)),
  ];
  return { config, hash, keyring, findings };
}

function findSelf(config: ClusterConfig, named: string | null): { readonly entry: NodeEntry | null; readonly finding: Finding } {
  const addresses = ownAddresses();
  const found = config.nodes.filter(({ address }) => addresses.includes(address));
  const entry = found.length === 1 ? (found[0] ?? null) : (found.find(({ name }) => name === named) ?? null);
  const names = found.map(({ name }) => name);
  return {
    entry,
    finding: judgeSelf(
      named,
      names,
      addresses.filter((address) => !address.startsWith("127.")),
    ),
  };
}

async function checkName({ name, address }: NodeEntry, limitMs: number): Promise<Finding> {
  try {
    return judgeName(name, address, await resolveName(name, limitMs));
  } catch {
    return crossedLimit("name", name, limitMs);
  }
}

function lookAtNodes(config: ClusterConfig, self: NodeEntry | null, keyring: Keyring | null, options: DoctorOptions): Promise<NodeFact[]> {
  const localAddress = self?.address ?? null;
  const limitMs = options.limitMs * (1 - PROBE_SHARE);
  return Promise.all(
    config.nodes.map(async ({ nodeid, name, address }): Promise<NodeFact> => {
      const isSelf = nodeid === self?.nodeid;
      const { tcp, look } = await lookAtPeer({ address, port: config.peerPort, localAddress }, keyring, limitMs, options.limitMs);
      // A dlmd says itself what it hears, and an empty datagram would be a line in its log.
      const isProbed = !isSelf && (tcp.kind === "refused" || (tcp.kind === "silent" && options.isBefore));
      const wanted = isProbed ? [config.peerPort, config.multicast.port] : [];
      const udp = await Promise.all(
        wanted.map(async (port) => [port, await probeUdp({ address, port, localAddress }, options.limitMs * PROBE_SHARE)] as const),
      );
      return { nodeid, name, address, isSelf, tcp, look, udp: new Map(udp) };
    }),
  );
}

/** Those that answered the look are asked to check their machines. */
async function askOthers(
  { peerPort: port }: ClusterConfig,
  self: NodeEntry | null,
  keyring: Keyring | null,
  nodes: readonly NodeFact[],
  { limitMs, say }: DoctorOptions,
): Promise<OtherNode[]> {
  const others = nodes.filter(({ isSelf }) => !isSelf);
  const waiting = new Set(others.flatMap(({ name, look }) => (look.kind === "seen" ? [name] : [])));
  if (waiting.size > 0) say([...waiting]);
  return Promise.all(
    others.map(async ({ name, address, tcp, look }): Promise<OtherNode> => {
      if (look.kind !== "seen") return { name, address, tcp, check: look };
      const check = await askPeerToCheck({ address, port, localAddress: self?.address ?? null, node: name }, keyring, limitMs);
      waiting.delete(name);
      if (waiting.size > 0) say([...waiting]);
      return { name, address, tcp, check };
    }),
  );
}

function contextOf(config: ClusterConfig, self: NodeEntry | null, nodes: readonly NodeFact[], { isBefore }: DoctorOptions): VolumeContext {
  const lives = nodes.flatMap(({ nodeid, look }): [number, string][] => (look.kind === "seen" ? [[nodeid, look.seen.incarnation]] : []));
  return {
    cluster: config.cluster,
    volumes: config.volumes,
    incarnations: new Map(lives),
    selfNodeid: self?.nodeid ?? null,
    nameOf: (nodeid) => config.nodes.find((node) => node.nodeid === nodeid)?.name ?? `node ${nodeid}`,
    isBefore,
  };
}

function judgeLines({ device, identity, tags, paths }: DiskFacts, { lines, unread }: MountLines): Finding[] {
  if ("message" in identity) return [];
  const known = paths === undefined || "message" in paths ? null : new Set(paths);
  return [judgeMountLines(lines, { device, tags: new Map(Object.entries(tags)), paths: known }, unread)];
}

/**
 * Everything that is looked at before a clustered mount is tried, in the order in which a person would want to hear of it. Each
 * refusal has words and a code of its own and exit status 32, that of mount(8) for a mount that failed.
 */
import { statSync } from "node:fs";
import { OperatingError } from "../../dlmd/base/error.ts";
import type { ClusterInfo, ViewInfo, VolumeConfig } from "../../dlmd/client/api.ts";
import { type Bit, requireOwnerBlock } from "./bit.ts";
import { clusteredMountsOf, describeHolders, requireBlockDevice, tryExclusive } from "./device.ts";
import { type LowerSource, noBit } from "./lower-mount.ts";
import { isServing, readMountRecord } from "./mount-record.ts";
import { mountAt, mountTable } from "../../dlmd/base/mount-table.ts";
import { type BitState, probeDevice, requireJournal } from "./probe.ts";
import { probeDirectory, requireOwnPlace } from "./bit-writer.ts";

export const MOUNT_REFUSED = 32;

export interface MountPlan {
  /** What this node mounts if it becomes the owner; null: it does not reach the lower and only goes through the owner. */
  readonly source: LowerSource | null;
  readonly volume: VolumeConfig;
  /** What the volume's bit says or, without the lower, what cluster.yaml says. */
  readonly bit: Bit;
  readonly info: ClusterInfo;
}

/** What dlmd of this node says; throws OperatingError where there is none. */
export type AskCluster = (runDir: string) => Promise<{ readonly info: ClusterInfo; readonly view: ViewInfo }>;

/** `sourceName`: a device, a directory, or the name or uuid of a volume whose lower this node does not reach. */
export async function checkMount(sourceName: string, mountPoint: string, runDir: string, ask: AskCluster): Promise<MountPlan> {
  try {
    const source = resolveSource(sourceName);
    const bit = source === null ? null : requireBit(source);
    const { info, view } = await ask(runDir);
    const volume = bit === null || source === null ? findVolume(sourceName, info) : requireKnown(sourceName, source.kind, bit, info);
    if (source !== null) requireKind(source, volume);
    if (!view.quorate) throw noQuorum(view);
    requireNotMounted(sourceName, source, mountPoint, runDir);
    requireMountPoint(mountPoint);
    return { source, volume, bit: bit ?? { cluster: info.clusterName, volume: volume.name, uuid: volume.uuid }, info };
  } catch (error) {
    throw asRefusal(error);
  }
}

/** The same error with the exit status of a refused mount. */
function asRefusal(error: unknown): unknown {
  if (!(error instanceof OperatingError) || error.exitStatus === MOUNT_REFUSED) return error;
  const { code, hint, cause } = error;
  return new OperatingError(error.message, { code, cause, exitStatus: MOUNT_REFUSED, hint });
}

function refuse(code: string, message: string, hint: string): OperatingError {
  return new OperatingError(message, { code, hint, exitStatus: MOUNT_REFUSED });
}

function resolveSource(name: string): LowerSource | null {
  // A name without a slash names a volume: the process of the mount has another working directory.
  if (!name.includes("/")) return null;
  if (statSync(name, { throwIfNoEntry: false })?.isDirectory() === true) return { kind: "directory", path: name };
  requireBlockDevice(name);
  return { kind: "device", path: name };
}

function readBit(source: LowerSource): BitState {
  if (source.kind === "directory") return probeDirectory(source.path);
  const { superblock, bit } = probeDevice(source.path);
  requireJournal(source.path, superblock);
  return bit;
}

function requireBit(source: LowerSource): Bit {
  const state = readBit(source);
  switch (state.kind) {
    case "set":
      if (source.kind === "device") requireOwnerBlock(state.bit, source.path);
      else requireOwnPlace(source.path);
      return state.bit;
    case "none":
      throw noBit(source.path);
    case "bad":
      throw state.error;
  }
}

function requireKnown(name: string, lower: LowerSource["kind"], bit: Bit, info: ClusterInfo): VolumeConfig {
  if (bit.cluster !== info.clusterName) {
    throw refuse(
      "wrong-cluster",
      `${name} belongs to cluster ${bit.cluster}; this node is in cluster ${info.clusterName}`,
      `Mount it on a node of ${bit.cluster}. If ${bit.cluster} does not use it any more: coverlay volume disable ${name}, then enable.`,
    );
  }
  const volume = info.volumes.find((candidate) => candidate.uuid === bit.uuid);
  if (volume !== undefined) return volume;
  throw refuse(
    "unknown-volume",
    `${name} is volume ${bit.volume} (${bit.uuid}), which cluster ${info.clusterName} does not know; it knows ${listVolumes(info)}`,
    `Put { name: ${bit.volume}, uuid: ${bit.uuid}, lower: ${lower} } under volumes in cluster.yaml, raise its version, and run on one node: coverlay config apply cluster.yaml`,
  );
}

function requireKind(source: LowerSource, volume: VolumeConfig): void {
  if (source.kind === volume.lower) return;
  throw refuse(
    "wrong-lower",
    `${source.path} is a ${source.kind}; cluster.yaml says that volume ${volume.name} is a ${volume.lower}`,
    `Name the ${volume.lower}, or correct "lower" in every node's cluster.yaml.`,
  );
}

function findVolume(name: string, info: ClusterInfo): VolumeConfig {
  const volume = info.volumes.find((candidate) => candidate.name === name || candidate.uuid === name);
  if (volume !== undefined) return volume;
  throw refuse(
    "unknown-volume",
    `${name} is neither a device or directory here nor a volume of cluster ${info.clusterName}, which knows ${listVolumes(info)}`,
    "Name the device with its path (/dev/...), or a volume as in cluster.yaml.",
  );
}

function listVolumes(info: ClusterInfo): string {
  return info.volumes.length === 0 ? "none" : info.volumes.map((volume) => `${volume.name} (${volume.uuid})`).join(", ");
}

export function noQuorumWords({ quorumReason, members }: ViewInfo): string {
  return `the cluster has no quorum: ${quorumReason}; this node sees ${members.length === 0 ? "nobody" : `nodes ${members.join(", ")}`}`;
}

export const NO_QUORUM_HINT = "Start dlmd on more nodes, or mend the network between them; `coverlay nodes` shows who is missing.";

function noQuorum(view: ViewInfo): OperatingError {
  return refuse("no-quorum", noQuorumWords(view), NO_QUORUM_HINT);
}

/** Nor the device in use otherwise. Throws OperatingError "already-mounted", "stale-mount", "device-busy". */
export function requireNotMounted(name: string, source: LowerSource | null, mountPoint: string, runDir: string): void {
  for (const place of clusteredPlaces(name, source, runDir)) {
    if (place.serving) {
      throw refuse(
        "already-mounted",
        `${name} is already mounted clustered on this node, at ${place.mountPoint}`,
        `Use it there, or umount ${place.mountPoint} first.`,
      );
    }
    throw refuse(
      "stale-mount",
      `${place.mountPoint} is what an overlay of ${name} left behind that is gone`,
      `umount ${place.mountPoint} (or umount -l), then mount again.`,
    );
  }
  if (source?.kind === "device" && tryExclusive(source.path) === "busy") {
    throw refuse(
      "device-busy",
      `${source.path} is ${describeHolders(source.path)}`,
      "A volume of the cluster must not be mounted in another way at the same time: it would be destroyed. Unmount it there.",
    );
  }
  const covered = mountAt(mountPoint);
  if (covered?.type === "fuse.clustered") {
    throw refuse("already-mounted", `${covered.source} is already mounted clustered at ${mountPoint}`, `umount ${mountPoint} first.`);
  }
}

interface ClusteredPlace {
  readonly mountPoint: string;
  readonly serving: boolean;
}

/** This node's clustered mounts of that source. A device is one node's; a directory may be used by several run directories (nodes of a lab). */
function clusteredPlaces(name: string, source: LowerSource | null, runDir: string): ClusteredPlace[] {
  const points = source?.kind === "device" ? clusteredMountsOf(source.path) : [];
  return mountTable()
    .filter((entry) => entry.type === "fuse.clustered")
    .map((entry) => ({ entry, record: readMountRecord(entry.device) }))
    .filter(({ entry, record }) => points.includes(entry.mountPoint) || (entry.source === name && record?.runDir === runDir))
    .map(({ entry, record }) => ({ mountPoint: entry.mountPoint, serving: record === null || isServing(record) }));
}

function requireMountPoint(mountPoint: string): void {
  let isDirectory: boolean;
  try {
    isDirectory = statSync(mountPoint).isDirectory();
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? String(error);
    throw refuse("bad-mount-point", `mount point ${mountPoint}: ${code}`, `Make it first: mkdir -p ${mountPoint}`);
  }
  if (!isDirectory) throw refuse("bad-mount-point", `mount point ${mountPoint} is not a directory`, "Name a directory.");
}

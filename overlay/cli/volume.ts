/** `coverlay volume enable|disable|show|release`: the clustered bit of a device or directory, and a device's owner's block. `grow`: grow.ts. */
import { randomUUID } from "node:crypto";
import { statSync } from "node:fs";
import path from "node:path";
import type { Argv, CommandModule } from "yargs";
import { OperatingError } from "../../dlmd/base/error.ts";
import { type Bit, bitProblem, requireOwnerBlock } from "../volume/bit.ts";
import { type BitWork, disableDevice, disableDirectory, enableDevice, enableDirectory, probeDirectory } from "../volume/bit-writer.ts";
import { describeHolders, readDirect, requireBlockDevice, tryExclusive } from "../volume/device.ts";
import { parseOwnerBlock } from "../volume/direct-block.ts";
import { MMP_BYTES, decodeMmp } from "../volume/mmp.ts";
import { releaseByWord } from "../volume/operator-release.ts";
import { OWNER_BLOCK_BYTES } from "../volume/owner-block.ts";
import { type BitState, type Probe, dirtyReason, probeDevice } from "../volume/probe.ts";
import { askDlmd } from "../query/dlmd-query.ts";
import { growCommand } from "./grow.ts";
import { hearSignals, interruptedError } from "./interrupt.ts";
import { longWork } from "./long-work.ts";
import { requireRoot } from "./mount.ts";
import { nodeOptions } from "./node-options.ts";
import { EXIT, print, printJson, runCommand, usageError } from "./output.ts";

interface TargetArguments {
  readonly target: string;
  readonly json: boolean;
}

interface EnableArguments extends TargetArguments {
  readonly cluster: string;
  readonly name: string | undefined;
  readonly uuid: string | undefined;
}

const CHANGE_BIT = "change the clustered bit";

function isDirectory(target: string): boolean {
  return statSync(target, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

/** A name for cluster.yaml made from the target's: sdb1, shared. */
function defaultName(target: string): string {
  return (
    path
      .basename(target)
      .replace(/[^A-Za-z0-9._-]/g, "-")
      .slice(0, 63) || "volume"
  );
}

/** Nobody looks on, and no signal ends it. */
const UNFOLLOWED: BitWork = { say: () => undefined, begin: () => Promise.resolve() };

/** Sets the bit. */
export async function enableVolume(target: string, bit: Bit, work: BitWork = UNFOLLOWED): Promise<void> {
  const problem = bitProblem(bit);
  if (problem !== null) throw usageError(problem, "The cluster's name and the volume's uuid are those of cluster.yaml.");
  if (!isDirectory(target)) return enableDevice(target, bit, work);
  await work.begin();
  enableDirectory(target, bit);
}

/** True: there was a bit. */
export async function disableVolume(target: string, work: BitWork = UNFOLLOWED): Promise<boolean> {
  if (!isDirectory(target)) return disableDevice(target, work);
  await work.begin();
  return disableDirectory(target);
}

/**
 * A signal ends it as long as nothing was written. Later ones are heard, and the change is brought to its end: what it leaves is the old state or
 * the new one.
 */
async function changingBit<T>(target: string, json: boolean, change: (work: BitWork) => Promise<T>): Promise<T> {
  const unchanged = (): OperatingError => interruptedError(`nothing was changed on ${target}`, "Run it again, or leave it as it is.");
  return longWork(json, unchanged, async ({ say, note, signal }) => {
    let hasBegun = false;
    const begin = async (): Promise<void> => {
      await hearSignals();
      signal.throwIfAborted();
      hasBegun = true;
      signal.addEventListener("abort", () => note(`interrupted too late: the change of ${target} has begun, and is brought to its end`));
    };
    try {
      return await change({ say, begin });
    } catch (error) {
      await hearSignals();
      // A tool that reads gets Ctrl-C, too, and fails of it.
      if (!hasBegun) signal.throwIfAborted();
      throw error;
    }
  });
}

export interface VolumeReport {
  readonly target: string;
  readonly lower: "device" | "directory";
  /** "ext4", "xfs", "directory" */
  readonly type: string;
  readonly clustered: boolean;
  readonly cluster?: string;
  readonly volume?: string;
  readonly uuid?: string;
  /** Why the bit that is there cannot be used. */
  readonly problem?: string;
  /** Who has the device on this machine; absent: nobody. */
  readonly inUse?: string;
  /** Why its file system is not clean; absent: it is, or it is in use. */
  readonly dirty?: string;
  /** What the owner's block says; absent: there is none, or `problem` says why it cannot be read. */
  readonly owner?: OwnerReport;
  /** ext4's multiple-mount protection; absent: it is off, or the file system has none. */
  readonly mmp?: MmpReport;
}

export interface OwnerReport {
  /** `owned`: by the life that is named; `released`: by the last one. */
  readonly state: "owned" | "released";
  readonly epoch: number;
  /** When the block was written, by that machine's clock, as ISO 8601. */
  readonly since: string;
  readonly nodeid?: number;
  readonly hostName?: string;
  readonly device?: string;
  readonly pid?: number;
}

export interface MmpReport {
  readonly state: "clean" | "in-use" | "fsck";
  readonly intervalS: number;
  readonly hostName: string;
  readonly device: string;
}

function reportBit(state: BitState): Pick<VolumeReport, "clustered" | "cluster" | "volume" | "uuid" | "problem"> {
  switch (state.kind) {
    case "none":
      return { clustered: false };
    case "bad":
      return { clustered: true, problem: state.error.message };
    case "set": {
      const { cluster, volume, uuid } = state.bit;
      return { clustered: true, cluster, volume, uuid };
    }
  }
}

function reportOwner(device: string, state: BitState): Pick<VolumeReport, "owner" | "problem"> {
  if (state.kind !== "set") return {};
  try {
    const offset = requireOwnerBlock(state.bit, device);
    const block = parseOwnerBlock(readDirect(device, offset, OWNER_BLOCK_BYTES), device, offset, state.bit.uuid);
    const { life } = block;
    const named = life === null ? {} : { nodeid: life.nodeid, hostName: life.hostName, device: life.device, pid: life.pid };
    return { owner: { state: block.state, epoch: block.epoch, since: new Date(block.atMs).toISOString(), ...named } };
  } catch (error) {
    if (error instanceof OperatingError) return { problem: `${error.message}. ${error.hint}` };
    throw error;
  }
}

function reportMmp({ device, superblock }: Probe): Pick<VolumeReport, "mmp"> {
  if (superblock.type !== "ext4" || !superblock.hasMmp) return {};
  const mmp = decodeMmp(readDirect(device, superblock.mmpOffset, MMP_BYTES));
  if (mmp === null) return {};
  return { mmp: { state: mmp.state, intervalS: superblock.mmpIntervalS, hostName: mmp.hostName, device: mmp.deviceName } };
}

export function showVolume(target: string): VolumeReport {
  if (isDirectory(target)) return { target, lower: "directory", type: "directory", ...reportBit(probeDirectory(target)) };
  requireBlockDevice(target);
  const probe = probeDevice(target);
  const inUse = tryExclusive(target) === "free" ? undefined : describeHolders(target);
  const dirty = inUse === undefined ? dirtyReason(target, probe.superblock) : null;
  return {
    target,
    lower: "device",
    type: probe.superblock.type,
    ...reportBit(probe.bit),
    ...reportOwner(target, probe.bit),
    ...reportMmp(probe),
    ...(inUse === undefined ? {} : { inUse }),
    ...(dirty === null ? {} : { dirty }),
  };
}

function describeVolume(report: VolumeReport, kind: string): string {
  return `${report.target} (${kind}): volume ${report.volume} of cluster ${report.cluster}, uuid ${report.uuid}`;
}

function describeOwner(owner: OwnerReport): string {
  if (owner.nodeid === undefined) return "none so far";
  const life = `node ${owner.nodeid} (process ${owner.pid} on ${owner.hostName}, ${owner.device})`;
  return owner.state === "owned"
    ? `${life}, since ${owner.since}, epoch ${owner.epoch}`
    : `none; released by ${life} at ${owner.since}, epoch ${owner.epoch}`;
}

function describeMmp(mmp: MmpReport): string {
  if (mmp.state === "clean") return `on, every ${mmp.intervalS} s; not mounted`;
  const holder = `${mmp.device} on ${mmp.hostName}`;
  return mmp.state === "fsck" ? `e2fsck runs, or was interrupted: ${holder}` : `on, every ${mmp.intervalS} s; mounted as ${holder}`;
}

function describeReport(report: VolumeReport): string {
  const kind = report.lower === "directory" ? "directory" : report.type;
  const lines = [report.clustered ? (report.problem ?? describeVolume(report, kind)) : `${report.target} (${kind}): no clustered bit`];
  if (report.clustered && report.problem !== undefined && report.volume !== undefined) lines.unshift(describeVolume(report, kind));
  if (report.owner !== undefined) lines.push(`  owner: ${describeOwner(report.owner)}`);
  if (report.mmp !== undefined) lines.push(`  MMP: ${describeMmp(report.mmp)}`);
  if (report.inUse !== undefined) lines.push(`  in use: ${report.inUse}`);
  if (report.dirty !== undefined) lines.push(`  not clean: ${report.dirty}`);
  return lines.join("\n");
}

function target<T>(yargs: Argv<T>): Argv<T & TargetArguments> {
  return yargs
    .positional("target", { type: "string", demandOption: true, describe: "block device, or the directory of a `directory` volume" })
    .option("json", { type: "boolean", default: false, describe: "print JSON" });
}

const enableCommand: CommandModule<object, EnableArguments> = {
  command: "enable <target>",
  describe: "mark a file system as a volume of a cluster",
  builder: (yargs) =>
    target(yargs)
      .option("cluster", { type: "string", demandOption: true, describe: "the cluster's name, as in cluster.yaml" })
      .option("name", { type: "string", describe: "the volume's name [default: made from the target's]" })
      .option("uuid", { type: "string", describe: "the volume's uuid [default: a new one]" })
      .example("$0 volume enable /dev/sdb1 --cluster demo --name shared", "prints what to add to cluster.yaml"),
  handler: ({ target, json, cluster, name, uuid }) =>
    runCommand(json, async () => {
      requireRoot(CHANGE_BIT);
      const bit: Bit = { cluster, volume: name ?? defaultName(target), uuid: uuid ?? randomUUID() };
      const lower = isDirectory(target) ? "directory" : "device";
      await changingBit(target, json, (work) => enableVolume(target, bit, work));
      if (json) return printJson({ target, ...bit });
      print(`${target}: the clustered bit is set. In every node's cluster.yaml, under volumes:`);
      print(`  - name: ${bit.volume}\n    uuid: ${bit.uuid}\n    lower: ${lower}`);
      print("Where the cluster runs already: in a copy of the file, its version raised by one, with coverlay config apply COPY.");
    }),
};

const disableCommand: CommandModule<object, TargetArguments> = {
  command: "disable <target>",
  describe: "make it a plain file system again",
  builder: (yargs) => target(yargs).example("$0 volume disable /dev/sdb1", "afterwards: mount /dev/sdb1 /mnt, as before coverlay"),
  handler: ({ target, json }) =>
    runCommand(json, async () => {
      requireRoot(CHANGE_BIT);
      const was = await changingBit(target, json, (work) => disableVolume(target, work));
      if (json) return printJson({ target, clustered: false, was });
      print(was ? `${target}: the clustered bit is cleared; it is a plain file system again.` : `${target}: there was no clustered bit.`);
    }),
};

const showCommand: CommandModule<object, TargetArguments> = {
  command: "show <target>",
  describe: "what the clustered bit and the owner's block say; exit status 1 if there is none or one is damaged",
  builder: (yargs) => target(yargs).example("$0 volume show /dev/sdb1 --json", "for programs"),
  handler: ({ target, json }) =>
    runCommand(json, async () => {
      requireRoot("read the clustered bit: others would not see one that is there");
      if (statSync(target, { throwIfNoEntry: false }) === undefined) {
        throw new OperatingError(`${target} does not exist`, {
          code: "device-missing",
          hint: "lsblk -f lists the devices of this machine.",
        });
      }
      const report = showVolume(target);
      if (json) printJson(report);
      else print(describeReport(report));
      return report.clustered && report.problem === undefined ? EXIT.OK : EXIT.FAILURE;
    }),
};

interface ReleaseArguments extends TargetArguments {
  readonly owner: string;
  readonly yes: boolean;
  readonly runDir: string;
}

const releaseCommand: CommandModule<object, ReleaseArguments> = {
  command: "release <target>",
  describe: "say that the owner that the volume names is gone for good",
  builder: (yargs) =>
    nodeOptions(target(yargs))
      .option("owner", { type: "string", demandOption: true, describe: "the node that the owner's block names" })
      .option("yes", { type: "boolean", default: false, describe: "its machine is powered off for good, or cannot reach the disk" })
      .example("coverlay volume release /dev/sdb1 --owner node3 --yes", "only after node3's machine is powered off for good")
      .epilogue(RELEASE_DETAILS),
  handler: ({ target, json, owner, yes, runDir }) =>
    runCommand(json, async () => {
      requireRoot("write the owner's block");
      if (!yes) {
        throw usageError(
          `if ${owner} still runs, this destroys the file system on ${target}`,
          `Power its machine off, for good, then give --yes.`,
        );
      }
      requireBlockDevice(target);
      const life = await releaseByWord(target, owner, () => askDlmd(runDir, null));
      if (json) return printJson({ target, released: { nodeid: life.nodeid, epoch: life.epoch, pid: life.pid, hostName: life.hostName } });
      print(`${target}: node ${life.nodeid} (process ${life.pid} on ${life.hostName}) does not count as its owner any more.`);
    }),
};

const RELEASE_DETAILS = `A volume names the node that has it mounted. When that node is lost, another one mounts the volume only with a proof: the
node itself tells that its process has ended or that its machine was started anew, or it was fenced. A machine that is gone for good gives
none, nor does one without a lasting /etc/machine-id. Then this command takes your word for it. It is refused while the device is in use here, or
the node is in the cluster; but the node itself may say it of another boot, or of the machine that had its place.
On ext4 the kernel then waits for up to 22 seconds at the next mount, to see whether another machine writes.`;

export const volumeCommand: CommandModule = {
  command: "volume",
  describe: "the clustered bit of a device or directory: enable, disable, show, release; grow a volume",
  builder: (yargs) =>
    yargs
      .command(enableCommand)
      .command(disableCommand)
      .command(showCommand)
      .command(releaseCommand)
      .command(growCommand)
      .demandCommand(1, "enable, disable, show, release or grow is expected")
      .strict()
      .example("$0 volume enable /dev/sdb1 --cluster demo --name shared", "once, while it is mounted nowhere")
      .example("$0 volume show /dev/sdb1", "whose it is")
      .example("$0 volume grow data", "after its disk was made larger")
      .example("$0 volume disable /dev/sdb1", "plain ext4 or XFS again"),
  handler: () => {},
};

/** `coverlay volume enable|disable|show`: the clustered bit of a device or directory. */
import { randomUUID } from "node:crypto";
import { statSync } from "node:fs";
import path from "node:path";
import type { Argv, CommandModule } from "yargs";
import { OperatingError } from "../../dlmd/base/error.ts";
import { type Bit, bitProblem } from "../volume/bit.ts";
import { disableDevice, disableDirectory, enableDevice, enableDirectory, probeDirectory } from "../volume/bit-writer.ts";
import { describeHolders, requireBlockDevice, tryExclusive } from "../volume/device.ts";
import { type BitState, dirtyReason, probeDevice } from "../volume/probe.ts";
import { requireRoot } from "./mount.ts";
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

/** Sets the bit and gives what was set; the seam that `lab up` uses too. */
export async function enableVolume(target: string, bit: Bit): Promise<void> {
  const problem = bitProblem(bit);
  if (problem !== null) throw usageError(problem, "The cluster's name and the volume's uuid are those of cluster.yaml.");
  if (isDirectory(target)) enableDirectory(target, bit);
  else await enableDevice(target, bit);
}

/** True: there was a bit. */
export async function disableVolume(target: string): Promise<boolean> {
  return isDirectory(target) ? disableDirectory(target) : disableDevice(target);
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
}

function reportBit(state: BitState): Pick<VolumeReport, "clustered" | "cluster" | "volume" | "uuid" | "problem"> {
  switch (state.kind) {
    case "none":
      return { clustered: false };
    case "bad":
      return { clustered: true, problem: state.error.message };
    case "set":
      return { clustered: true, ...state.bit };
  }
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
    ...(inUse === undefined ? {} : { inUse }),
    ...(dirty === null ? {} : { dirty }),
  };
}

function describeReport(report: VolumeReport): string {
  const kind = report.lower === "directory" ? "directory" : report.type;
  const lines = [
    report.clustered
      ? (report.problem ?? `${report.target} (${kind}): volume ${report.volume} of cluster ${report.cluster}, uuid ${report.uuid}`)
      : `${report.target} (${kind}): no clustered bit`,
  ];
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
      await enableVolume(target, bit);
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
      const was = await disableVolume(target);
      if (json) return printJson({ target, clustered: false, was });
      print(was ? `${target}: the clustered bit is cleared; it is a plain file system again.` : `${target}: there was no clustered bit.`);
    }),
};

const showCommand: CommandModule<object, TargetArguments> = {
  command: "show <target>",
  describe: "what the clustered bit says; exit status 1 if there is none or it is damaged",
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

export const volumeCommand: CommandModule = {
  command: "volume <command>",
  describe: "the clustered bit of a device or directory: enable, disable, show",
  builder: (yargs) =>
    yargs
      .command(enableCommand)
      .command(disableCommand)
      .command(showCommand)
      .demandCommand(1, "enable, disable or show is expected")
      .strict()
      .example("$0 volume enable /dev/sdb1 --cluster demo --name shared", "once, while it is mounted nowhere")
      .example("$0 volume show /dev/sdb1", "whose it is")
      .example("$0 volume disable /dev/sdb1", "plain ext4 or XFS again"),
  handler: () => {},
};

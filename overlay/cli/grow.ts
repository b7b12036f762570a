/**
 * `coverlay volume grow`: the file system of a volume gets the size of its device, while programs on all nodes go on. The owner's overlay does it
 * (../volume/growth.ts), so it is typed on the owner's node; elsewhere the command names that node.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { CommandModule } from "yargs";
import * as z from "zod";
import { EXIT } from "../../dlmd/base/exit-status.ts";
import { OperatingError } from "../../dlmd/base/error.ts";
import type { ClusterInfo } from "../../dlmd/client/api.ts";
import { decodeClusterLocks } from "../query/cluster-locks.ts";
import { askCluster, askDlmd, nodeName } from "../query/dlmd-query.ts";
import { volumeOwners } from "../query/lock-waits.ts";
import { askOverlay, listOverlays, type OverlayEntry, seenFirst } from "../query/overlay-query.ts";
import { type GrowAnswer } from "../serve/grow.ts";
import { sizeWords } from "../status/problem.ts";
import { READ_SIZE_AGAIN, sameDevice } from "../volume/device.ts";
import type { GrowthReport } from "../volume/growth.ts";
import { probeDevice } from "../volume/probe.ts";
import { interruptedError } from "./interrupt.ts";
import { longWork } from "./long-work.ts";
import { requireRoot } from "./mount.ts";
import { type NodeOptions, nodeOptions } from "./node-options.ts";
import { printJson, print, runCommand } from "./output.ts";

/** How often it is asked how far it is. */
export const GROW_LOOK_MS = 200;
/** Progress is said no more often. */
export const GROW_SAY_MS = 1000;
/** The overlay reads the superblock and the owner's block before it begins, and gives the disk 5 s for each. */
const BEGIN_ANSWER_MS = 15_000;

interface GrowArguments extends NodeOptions {
  readonly volume: string;
}

const reportFields = {
  fromBytes: z.number(),
  bytes: z.number(),
  toBytes: z.number(),
  tookMs: z.number(),
  code: z.string().nullable(),
  why: z.string().nullable(),
  hint: z.string().nullable(),
};
const reportShape: z.ZodType<GrowthReport> = z.looseObject({ kind: z.enum(["growing", "grown", "stopped", "failed"]), ...reportFields });
const answerShape: z.ZodType<GrowAnswer> = z.union([
  reportShape,
  z.looseObject({ kind: z.literal("refused"), code: z.string(), why: z.string(), hint: z.string() }),
  z.looseObject({ kind: z.literal("elsewhere"), owner: z.number().nullable(), why: z.string() }),
]);
const growthShape: z.ZodType<{ readonly growth: GrowthReport | null }> = z.looseObject({ growth: reportShape.nullable() });

/** The mount of this node that is meant; null: it has none. */
function findMount(runDir: string, volume: string): OverlayEntry | null {
  const living = listOverlays(runDir).filter(({ alive }) => alive);
  const isMeant = ({ file }: OverlayEntry): boolean =>
    [file.volume, file.mountpoint, file.device].includes(volume) || sameDevice(volume, file.device);
  return seenFirst(living.filter(isMeant));
}

function elsewhere(volume: string, owner: number | null, info: ClusterInfo, why: string): OperatingError {
  const name = owner === null ? null : nodeName(info)(owner);
  if (name === null) {
    return new OperatingError(`volume ${volume} has no owner now, which alone can grow it: ${why}`, {
      code: "no-owner",
      hint: "Mount it, or wait until it has an owner: coverlay status says for what it waits.",
      exitStatus: EXIT.MOUNT,
    });
  }
  return new OperatingError(`${name} has volume ${volume} mounted as its owner, and it alone can grow it`, {
    code: "not-owner",
    hint: `On ${name}: coverlay volume grow ${volume}`,
    exitStatus: EXIT.MOUNT,
  });
}

/** Throws what says where to type it. */
async function nameOwner(runDir: string, volume: string): Promise<never> {
  const { info, answer } = await askCluster(runDir, () => ({ lockspace: "", resource: "next", nodeid: 0, waitingMs: null }));
  const uuid = info.volumes.find(({ name }) => name === volume)?.uuid ?? uuidOn(volume);
  const known = info.volumes.find((one) => one.uuid === uuid);
  if (known === undefined) {
    throw new OperatingError(`a volume of the cluster expected, found ${volume}`, {
      code: "no-volume",
      hint: `Its name, its device, or where it is mounted here. Volumes: ${info.volumes.map(({ name }) => name).join(", ")}.`,
      exitStatus: EXIT.MOUNT,
    });
  }
  const owner = volumeOwners(decodeClusterLocks(answer), info).get(known.uuid) ?? null;
  throw elsewhere(known.name, owner, info, "it is not mounted here");
}

/** What the clustered bit of a device says; null: the word is no device, or has none. */
function uuidOn(volume: string): string | null {
  if (!volume.startsWith("/dev/")) return null;
  const { bit } = probeDevice(volume);
  return bit.kind === "set" ? bit.bit.uuid : null;
}

/** Throws as `askOverlay`. Exported for tests. */
export function askGrow(runDir: string, connection: number): Promise<GrowAnswer> {
  return askOverlay(runDir, connection, { query: "grow" }, answerShape, BEGIN_ANSWER_MS);
}

async function begin(runDir: string, { connection, file }: OverlayEntry): Promise<GrowthReport> {
  const answer = await askGrow(runDir, connection);
  switch (answer.kind) {
    case "refused":
      throw new OperatingError(`volume ${file.volume} is not grown: ${answer.why}`, {
        code: answer.code,
        hint: answer.hint,
        exitStatus: EXIT.MOUNT,
      });
    case "elsewhere":
      throw elsewhere(file.volume, answer.owner, (await askDlmd(runDir, null)).info, answer.why);
    default:
      return answer;
  }
}

export interface FollowPort {
  readonly look: () => Promise<GrowthReport | null>;
  readonly sleep: (ms: number) => Promise<unknown>;
  readonly nowMs: () => number;
  readonly say: (words: string) => void;
  /** SIGINT or SIGTERM came. */
  readonly signal: AbortSignal;
}

/** Until it has an end. Throws the reason of `signal`, and OperatingError "released": the volume has moved. */
export async function followGrowth(
  first: GrowthReport,
  volume: string,
  { look, sleep: pause, nowMs, say, signal }: FollowPort,
): Promise<GrowthReport> {
  let report = first;
  let [saidMs, saidBytes] = [nowMs(), first.bytes];
  while (report.kind === "growing") {
    signal.throwIfAborted();
    if (report.bytes !== saidBytes && nowMs() - saidMs >= GROW_SAY_MS) {
      [saidMs, saidBytes] = [nowMs(), report.bytes];
      say(`volume ${volume} has ${sizeWords(report.bytes)} of ${sizeWords(report.toBytes)}`);
    }
    await pause(GROW_LOOK_MS);
    const next = await look();
    if (next === null) throw moved(volume, report);
    report = next;
  }
  return report;
}

/** Exported for tests. */
export function interrupted(volume: string, report: GrowthReport | null): OperatingError {
  const size = report === null ? "" : `, which has ${sizeWords(report.bytes)} of ${sizeWords(report.toBytes)}`;
  return interruptedError(
    `the owner goes on with volume ${volume}${size}`,
    "coverlay status here says how far it is, and so does the same command. Programs are not disturbed.",
  );
}

function moved(volume: string, { bytes, toBytes }: GrowthReport): OperatingError {
  return new OperatingError(`this node does not have volume ${volume} any more: it had ${sizeWords(bytes)} of ${sizeWords(toBytes)}`, {
    code: "released",
    hint: "What was grown stays. coverlay status names the node that has the volume: type it there to go on.",
  });
}

function requireGrown({ kind, code, why, hint }: GrowthReport, volume: string): void {
  if (kind === "grown") return;
  throw new OperatingError(`volume ${volume} is not grown to its end: ${why ?? kind}`, {
    code: code ?? "not-grown",
    hint: hint ?? "See dmesg.",
    ...(code === "no-room" ? { exitStatus: EXIT.MOUNT } : {}),
  });
}

const details = `It is typed on the node that has the volume mounted as its owner; on another one it names that node. Programs on all nodes go on.
ext4 grows as by resize2fs, XFS as by xfs_growfs. It never becomes smaller. If the owner dies meanwhile, the file system is whole; type it again.
First the disk is made larger, and each node reads its size anew. ${READ_SIZE_AGAIN} A node that sees the old size cannot take the volume over later; coverlay doctor on it says so.
Ctrl-C ends the command alone: the owner goes on. Exit status: 0 it has the size of the device; 1 it failed; 8 interrupted; 32 refused.`;

export const growCommand: CommandModule<object, GrowArguments> = {
  command: "grow <volume>",
  describe: "give the file system of a mounted volume the size of its device, which was made larger",
  builder: (yargs) =>
    nodeOptions(yargs)
      .positional("volume", { type: "string", demandOption: true, describe: "its name, its device, or where it is mounted here" })
      .example("$0 volume grow data", "after the disk was made larger")
      .example("$0 volume grow /dev/sdb1 --json", "for programs")
      .epilogue(details),
  handler: ({ runDir, json, volume }) =>
    runCommand(json, async () => {
      requireRoot("grow a volume");
      const found = findMount(runDir, volume) ?? (await nameOwner(runDir, volume));
      const { connection, file } = found;
      let seen: GrowthReport | null = null;
      const report = await longWork(
        json,
        () => interrupted(file.volume, seen),
        async ({ say, signal }) => {
          const first = await begin(runDir, found);
          const { fromBytes, toBytes } = first;
          say(`growing volume ${file.volume} from ${sizeWords(fromBytes)} to ${sizeWords(toBytes)}`);
          return followGrowth(first, file.volume, {
            look: async () => (seen = (await askOverlay(runDir, connection, { query: "growth" }, growthShape)).growth),
            sleep,
            nowMs: () => performance.now(),
            say,
            signal,
          });
        },
      );
      requireGrown(report, file.volume);
      if (json) return printJson({ volume: file.volume, device: file.device, ...report });
      print(`volume ${file.volume} on ${file.device} has ${sizeWords(report.bytes)} now, before ${sizeWords(report.fromBytes)}`);
      print("A node that still sees the old size of the disk cannot take it over: coverlay doctor on each other node.");
    }),
};

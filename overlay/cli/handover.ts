/** `coverlay handover VOLUME [NODE]`: the owner gives the volume to another node, while programs on all nodes go on. */
import type { CommandModule } from "yargs";
import * as z from "zod";
import { OperatingError } from "../../dlmd/base/error.ts";
import type { MountEntry } from "../../dlmd/base/mount-table.ts";
import type { ClusterInfo } from "../../dlmd/client/api.ts";
import { askDlmd } from "../query/dlmd-query.ts";
import { askOverlay, listOverlays, type OverlayEntry, seenFirst } from "../query/overlay-query.ts";
import { HAND_OVER_ANSWER_MS, type HandOverAnswer, type HandOverStage, handOverStages } from "../serve/hand-over.ts";
import { NO_QUORUM_HINT, noQuorumWords } from "../volume/mount-checks.ts";
import { interruptedError } from "./interrupt.ts";
import { longWork } from "./long-work.ts";
import { requireRoot } from "./mount.ts";
import { type NodeOptions, nodeOptions } from "./node-options.ts";
import { print, printJson, runCommand, usageError } from "./output.ts";

/** The overlay answers within its own limit. */
const ANSWER_TIMEOUT_MS: number = HAND_OVER_ANSWER_MS + 10_000;

interface HandoverArguments extends NodeOptions {
  readonly volume: string;
  readonly node: string | undefined;
}

const answerShape: z.ZodType<HandOverAnswer> = z.discriminatedUnion("kind", [
  // A mount of an older version does not say it.
  z.looseObject({ kind: z.literal("refused"), why: z.string(), nobodyElse: z.boolean().default(false) }),
  z.looseObject({ kind: z.literal("no-quorum"), stage: z.enum(handOverStages), why: z.string() }),
  z.looseObject({ kind: z.literal("under-way"), from: z.number(), to: z.number(), why: z.string() }),
  z.looseObject({ kind: z.literal("done"), from: z.number(), to: z.number(), owner: z.number(), pauseMs: z.number(), why: z.string() }),
]);

/** The living overlay of that volume or mount point. Throws "not-mounted". */
export function findMount(runDir: string, volume: string, table?: readonly MountEntry[]): OverlayEntry {
  const living = listOverlays(runDir).filter(({ alive }) => alive);
  const found = seenFirst(
    living.filter(({ file }) => file.volume === volume || file.mountpoint === volume),
    table,
  );
  if (found !== null) return found;
  const names = living.map(({ file }) => `${file.volume} on ${file.mountpoint}`).join(", ");
  throw new OperatingError(`a volume that is mounted on this node expected, found ${volume}`, {
    code: "not-mounted",
    hint: names === "" ? "Nothing is mounted here: ask on a node that has the volume mounted." : `Mounted here: ${names}.`,
  });
}

function nodeidOf(info: ClusterInfo, node: string): number {
  const found = info.nodes.find(({ name, nodeid }) => name === node || String(nodeid) === node);
  if (found !== undefined) return found.nodeid;
  throw usageError(`a node of the cluster expected, found ${node}`, `Nodes: ${info.nodes.map(({ name }) => name).join(", ")}.`);
}

/** `heir`: 0 is any. Throws as `askOverlay`. Exported for tests. */
export function askHandover(runDir: string, connection: number, heir: number, signal?: AbortSignal): Promise<HandOverAnswer> {
  return askOverlay(runDir, connection, { query: "hand-over", heir }, answerShape, ANSWER_TIMEOUT_MS, signal);
}

/** Words for people, and whether it is as it was asked for. Exported for tests. */
export function describeHandover(answer: HandOverAnswer, volume: string, nameOf: (nodeid: number) => string): string {
  switch (answer.kind) {
    case "done":
      if (answer.owner === answer.to)
        return `${nameOf(answer.owner)} has volume ${volume} mounted now, before it ${nameOf(answer.from)}; calls waited for ${answer.pauseMs} ms`;
      throw new OperatingError(
        `${nameOf(answer.to)} did not mount volume ${volume}: ${nameOf(answer.owner)} has it now; calls waited for ${answer.pauseMs} ms`,
        { code: "not-taken", hint: `The log of the overlay on ${nameOf(answer.to)} says why; so does coverlay status there.` },
      );
    case "under-way":
      throw new OperatingError(`volume ${volume} has no owner yet after ${HAND_OVER_ANSWER_MS / 1000} s: ${answer.why}`, {
        code: "under-way",
        hint: "It goes on by itself; coverlay status on each node says what it waits for.",
      });
    case "no-quorum":
      throw noQuorum(volume, answer.stage, answer.why);
    case "refused":
      throw new OperatingError(`volume ${volume} is not handed over: ${answer.why}`, {
        code: "not-handed-over",
        hint: "coverlay status on each node shows its mounts, and which of them is the owner.",
      });
  }
}

function noQuorum(volume: string, stage: HandOverStage, why: string): OperatingError {
  const then: Readonly<Record<HandOverStage, string>> = {
    "not-asked": "",
    asked: " The owner was asked and has not answered: it may still hand the volume over then.",
    begun: " The owner has begun: the volume has a new owner then.",
  };
  return new OperatingError(`volume ${volume} is not handed over: ${why}`, { code: "no-quorum", hint: `${NO_QUORUM_HINT}${then[stage]}` });
}

export const handoverCommand: CommandModule<object, HandoverArguments> = {
  command: "handover <volume> [node]",
  describe: "give a volume to another node that has it mounted; programs on all nodes go on",
  builder: (yargs) =>
    nodeOptions(yargs)
      .positional("volume", { type: "string", demandOption: true, describe: "its name, or where it is mounted here" })
      .positional("node", { type: "string", describe: "the next owner: name or nodeid [the lowest other node that reaches the device]" })
      .example("$0 handover data", "before this machine is switched off, say")
      .example("$0 handover data node2", "node2 is to have the disk mounted")
      .example("$0 handover /shared node2 --json", "for programs")
      .epilogue(
        "Works on any node that has the volume mounted. Calls wait meanwhile, and none ends with an error. It needs a quorum: without one, or if it is lost meanwhile, the command ends at once. Ctrl-C ends the command, and not the move; coverlay status on the owner says how far it is. Exit status: 0 that node is the owner; 1 it is not, with the reason; 8 interrupted.",
      ),
  handler: ({ runDir, json, volume, node }) =>
    runCommand(json, async () => {
      requireRoot("hand a volume over");
      const { info, view } = await askDlmd(runDir, null);
      const heir = node === undefined ? 0 : nodeidOf(info, node);
      const nameOf = (nodeid: number): string => info.nodes.find((one) => one.nodeid === nodeid)?.name ?? `node ${nodeid}`;
      const { connection, file } = findMount(runDir, volume);
      if (!view.quorate) throw noQuorum(file.volume, "not-asked", noQuorumWords(view));
      const goesOn = `the move of volume ${file.volume} goes on if the owner has begun it`;
      const answer = await longWork(
        json,
        () => interruptedError(goesOn, "coverlay status names the owner, and how far it is."),
        ({ say, signal }) => {
          say(`handing volume ${file.volume} over to ${heir === 0 ? "another node" : nameOf(heir)}`);
          return askHandover(runDir, connection, heir, signal);
        },
      );
      const words = describeHandover(answer, file.volume, nameOf);
      if (json) printJson(answer);
      else print(words);
    }),
};

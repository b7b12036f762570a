/**
 * `coverlay fence show|ack NODE`: nodes that went without a word and are not yet known to be dead, what waits for that, and a person's word that
 * one is. There is no fence device yet, so that word is the only one (hazards M2, C11).
 */
import { userInfo } from "node:os";
import type { CommandModule } from "yargs";
import * as z from "zod";
import { OperatingError } from "../../dlmd/base/error.ts";
import { askAdmin } from "../../dlmd/client/admin.ts";
import type { ClusterInfo } from "../../dlmd/client/api.ts";
import { askDlmd } from "../query/dlmd-query.ts";
import { type NodeOptions, nodeOptions } from "./node-options.ts";
import { print, printJson, runCommand, usageError } from "./output.ts";

interface Victim {
  readonly nodeid: number;
  readonly incarnation: string;
  readonly failingView: string;
}
interface OpenVictim extends Victim {
  /** Those that wait for it. */
  readonly lockspaces: readonly string[];
}
export interface Fences {
  readonly unfenced: readonly OpenVictim[];
  readonly fenced: readonly Victim[];
  readonly fencedLockspaces: readonly string[];
}
const victim = { nodeid: z.number(), incarnation: z.string(), failingView: z.string() };
const victims: z.ZodType<readonly Victim[]> = z.array(z.looseObject(victim));
const openVictims: z.ZodType<readonly OpenVictim[]> = z.array(z.looseObject({ ...victim, lockspaces: z.array(z.string()) }));
/** Of dlmd's answer to the query "status". */
export const fencesShape: z.ZodType<Fences> = z.looseObject({
  unfenced: openVictims,
  fenced: victims,
  fencedLockspaces: z.array(z.string()),
});

type Name = (nodeid: number) => string;

/** Lines for people; none if nothing waits. */
export function describeWaits({ unfenced }: Fences, name: Name): string[] {
  return unfenced.map(
    ({ nodeid, incarnation, failingView, lockspaces }) =>
      `${name(nodeid)} (incarnation ${incarnation}) went without a word before view ${failingView} and is not known to be dead: nothing is granted in ${lockspaces.join(", ")}. No fence device: when it is off for sure, \`coverlay fence ack ${name(nodeid)} --yes\``,
  );
}

function describeFences(fences: Fences, name: Name): string {
  if (fences.fencedLockspaces.length === 0) return "no lockspace of this cluster needs fencing (fencedLockspaces in cluster.yaml)";
  const waits = describeWaits(fences, name);
  return [
    ...(waits.length === 0 ? ["nothing waits for a node to be dead"] : waits),
    ...fences.fenced.map(
      ({ nodeid, incarnation, failingView }) =>
        `${name(nodeid)} (incarnation ${incarnation}), gone since view ${failingView}: known to be dead`,
    ),
  ].join("\n");
}

const nameIn =
  (info: ClusterInfo): Name =>
  (nodeid) =>
    info.nodes.find((node) => node.nodeid === nodeid)?.name ?? String(nodeid);

const showCommand: CommandModule<object, NodeOptions> = {
  command: "show",
  describe: "nodes that are not known to be dead, and what waits for that; the last ones that are",
  builder: (yargs) => nodeOptions(yargs).example("$0 fence show", "who is waited for, and what waits"),
  handler: ({ runDir, json }) =>
    runCommand(json, async () => {
      const { info, answer } = await askDlmd(runDir, "status");
      const { success, data } = fencesShape.safeParse(answer);
      if (!success) {
        throw new OperatingError("dlmd's answer to `status` says nothing about fencing", {
          code: "dlmd-bad-answer",
          hint: "Is a dlmd of another version? Restart it after an upgrade.",
        });
      }
      const { unfenced, fenced, fencedLockspaces } = data;
      if (json) printJson({ unfenced, fenced, fencedLockspaces });
      else print(describeFences(data, nameIn(info)));
    }),
};

interface AckArguments extends NodeOptions {
  readonly node: string;
  readonly yes: boolean;
}

const ackCommand: CommandModule<object, AckArguments> = {
  command: "ack <node>",
  describe: "say that a node is dead for sure: what waits for that goes on, on every node",
  builder: (yargs) =>
    nodeOptions(yargs)
      .positional("node", { type: "string", demandOption: true, describe: "its name, or its nodeid" })
      .option("yes", { type: "boolean", default: false, describe: "it is off, or cannot reach the disk any more: I have looked" })
      .example("$0 fence ack node3 --yes", "node3 is off: the others may go on"),
  handler: ({ runDir, json, node, yes }) =>
    runCommand(json, async () => {
      if (!yes) {
        throw usageError(
          `--yes is needed: if ${node} is not dead, and writes again, data is lost for good`,
          "Switch it off or take its path to the disk away, look that it is so, then say --yes.",
        );
      }
      const { info } = await askDlmd(runDir, null);
      const found = info.nodes.find(({ name, nodeid }) => name === node || String(nodeid) === node);
      if (found === undefined) {
        throw usageError(`a node of the cluster expected, found ${node}`, `Nodes: ${info.nodes.map(({ name }) => name).join(", ")}.`);
      }
      const acknowledged = await askAdmin(runDir, { what: "fence-ack", nodeid: found.nodeid, by: userInfo().username });
      if (json) printJson(acknowledged);
      else print(`${found.name} is taken to be dead: what waited for that goes on`);
    }),
};

export const fenceCommand: CommandModule = {
  command: "fence",
  describe: "nodes that must be known to be dead before others go on: show them, acknowledge one",
  builder: (yargs) =>
    yargs
      .command(showCommand)
      .command(ackCommand)
      .demandCommand(1, "show or ack is needed")
      .example("$0 fence show", "who is waited for, and what waits")
      .example("$0 fence ack node3 --yes", "node3 is off: the others may go on")
      .epilogue("On any node that is in the view. A member of the view is never taken to be dead: switch it off first."),
  handler: () => undefined,
};

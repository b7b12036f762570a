/**
 * `coverlay fence NODE`, `show`, `ack NODE`, `history`: nodes of which it must be sure that they write no more. Devices do it by themselves after a
 * death; a person may order it, or say that a node is off (hazards M2, C11).
 */
import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { userInfo } from "node:os";
import type { CommandModule } from "yargs";
import { OperatingError } from "../../dlmd/base/error.ts";
import { type AdminQuestion, askAdmin } from "../../dlmd/client/admin.ts";
import type { ClusterInfo } from "../../dlmd/client/api.ts";
import { askDlmd, nodeName } from "../query/dlmd-query.ts";
import { followOrder, WAIT_MS } from "./fence-follow.ts";
import { describeFences, fencesOf, type Fences, historyCells, type HistoryRow } from "./fence-words.ts";
import { interruptedError } from "./interrupt.ts";
import { longWork } from "./long-work.ts";
import { type NodeOptions, nodeOptions } from "./node-options.ts";
import { EXIT, print, printJson, runCommand, table, usageError } from "./output.ts";

async function askFences(runDir: string): Promise<{ info: ClusterInfo; fences: Fences }> {
  const { info, answer } = await askDlmd(runDir, "status");
  const fences = fencesOf(answer);
  if (fences !== null) return { info, fences };
  throw new OperatingError("dlmd's answer to `status` says nothing about fencing", {
    code: "dlmd-bad-answer",
    hint: "Is a dlmd of another version? Restart it after an upgrade.",
  });
}

const showCommand: CommandModule<object, NodeOptions> = {
  command: "show",
  describe: "nodes with a device; nodes that are being fenced, or are not known to be dead, and what waits for that",
  builder: (yargs) => nodeOptions(yargs).example("$0 fence show", "who is waited for, and what waits"),
  handler: ({ runDir, json }) =>
    runCommand(json, async () => {
      const { info, fences } = await askFences(runDir);
      const { unfenced, fenced, fencedLockspaces, fencing } = fences;
      const { devices, wanted, unfencing } = fencing;
      if (json) return printJson({ unfenced, fenced, fencedLockspaces, devices, wanted, unfencing });
      const nodeids = info.nodes.map(({ nodeid }) => nodeid);
      print(describeFences(fences, nodeids, nodeName(info), Date.now()));
    }),
};

const historyCommand: CommandModule<object, NodeOptions> = {
  command: "history",
  describe: "what was done about nodes that were to be fenced: the last 64, the latest at the end",
  builder: (yargs) =>
    nodeOptions(yargs)
      .example("$0 fence history", "which node was fenced when, by which device")
      .example("$0 fence history --json | jq '.[] | select(.outcome == \"failed\")'", "what failed"),
  handler: ({ runDir, json }) =>
    runCommand(json, async () => {
      const { info, fences } = await askFences(runDir);
      const { history } = fences.fencing;
      if (json) printJson(history);
      else print(history.length === 0 ? "no node was fenced" : table(history.map((row) => historyCells(row, nodeName(info)))));
    }),
};

interface NodeArguments extends NodeOptions {
  readonly node: string;
  readonly yes: boolean;
}

/** One that is waited for, too: it may have been taken out of the configuration since it died. */
export function waitedNode(info: ClusterInfo, { unfenced, fencing }: Pick<Fences, "unfenced" | "fencing">, node: string): number {
  const found = [...unfenced, ...fencing.wanted].find(({ nodeid }) => String(nodeid) === node);
  return found?.nodeid ?? nodeNamed(info, node).nodeid;
}

function nodeNamed(info: ClusterInfo, node: string): ClusterInfo["nodes"][number] {
  const found = info.nodes.find(({ name, nodeid }) => name === node || String(nodeid) === node);
  if (found !== undefined) return found;
  throw usageError(`a node of the cluster expected, found ${node}`, `Nodes: ${info.nodes.map(({ name }) => name).join(", ")}.`);
}

async function tell(
  runDir: string,
  what: "fence-ack" | "fence-node",
  node: string,
  by: string = userInfo().username,
): Promise<{ info: ClusterInfo; nodeid: number; said: unknown }> {
  const { info, fences } = await askFences(runDir);
  const nodeid = what === "fence-ack" ? waitedNode(info, fences, node) : nodeNamed(info, node).nodeid;
  const question: AdminQuestion = { what, nodeid, by };
  return { info, nodeid, said: await askAdmin(runDir, question) };
}

const ackCommand: CommandModule<object, NodeArguments> = {
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
      const { info, nodeid, said } = await tell(runDir, "fence-ack", node);
      if (json) printJson(said);
      else print(`${nodeName(info)(nodeid)} is taken to be dead: what waited for that goes on`);
    }),
};

interface OrderArguments extends NodeArguments {
  readonly wait: number;
}

const writesNoMore: ReadonlySet<HistoryRow["outcome"]> = new Set(["fenced", "acknowledged"]);

const nodeCommand: CommandModule<object, OrderArguments> = {
  command: "$0 [node]",
  describe: "put a node out of the cluster and fence it, now; returns when it is fenced, or every level has failed",
  builder: (yargs) =>
    nodeOptions(yargs)
      .positional("node", { type: "string", default: "", describe: "its name, or its nodeid" })
      .option("yes", { type: "boolean", default: false, describe: "it loses its power, or its disks, whatever it is doing" })
      .option("wait", {
        type: "number",
        default: WAIT_MS / 1000,
        describe: "seconds to wait for the end; then the fence goes on all the same",
      })
      .example("$0 fence node3 --yes", "node3 hangs: cut it off now, member or not")
      .example("$0 fence node3 --yes --wait 0", "ask for it, and do not wait for the end")
      .epilogue(
        "Exit status: 0 the node can write no more; 1 it is not fenced; 8 interrupted. What is done is said on standard error. Ctrl-C ends the waiting, not the fence. The devices are used even if the node was fenced before: what is known of a former life says nothing of the one that runs now.",
      ),
  handler: ({ runDir, json, node, yes, wait }) =>
    runCommand(json, async () => {
      if (node === "") throw usageError("show, history, ack NODE or a node is expected", "coverlay fence --help");
      const { info, fences } = await askFences(runDir);
      const { name } = nodeNamed(info, node);
      if (!Number.isFinite(wait) || wait < 0) throw usageError("--wait expects seconds, 0 or more", "coverlay fence --help");
      if (!yes) throw usageError(`--yes is needed: ${name} loses its power, or its disks`, `coverlay fence ${name} --yes`);
      const by = `${userInfo().username}, order ${randomBytes(4).toString("hex")}`;
      const { nodeid } = await tell(runDir, "fence-node", node, by);
      const row = await longWork(
        json,
        () =>
          interruptedError(
            `the fence of ${name} goes on`,
            "`coverlay fence show` says what is done, `coverlay fence history` how it ended.",
          ),
        ({ say, signal }) =>
          followOrder({
            nodeid,
            by,
            before: fences,
            waitMs: wait * 1000,
            look: async () => (await askFences(runDir)).fences,
            sleep,
            nowMs: () => performance.now(),
            say,
            signal,
          }),
      );
      if (json) printJson(row);
      else print(historyCells(row, nodeName(info)).join("  "));
      return writesNoMore.has(row.outcome) ? EXIT.OK : EXIT.FAILURE;
    }),
};

export const fenceCommand: CommandModule = {
  command: "fence",
  describe: "nodes that must write no more: fence one, show what is done, acknowledge that one is off",
  builder: (yargs) =>
    yargs
      .command(nodeCommand)
      .command(showCommand)
      .command(historyCommand)
      .command(ackCommand)
      .example("$0 fence show", "who is waited for, and what waits")
      .example("$0 fence node3 --yes", "node3 hangs: cut it off now, member or not")
      .example("$0 fence ack node3 --yes", "node3 is off: the others may go on")
      .example("$0 fence history", "what was done, and by which device")
      .epilogue(
        "On any node that is in the view. After a death devices are used without being asked. A member of the view is never taken to be dead: `fence NODE` puts it out first.",
      ),
  handler: () => undefined,
};

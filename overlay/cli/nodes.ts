/** `coverlay nodes`: the nodes of the configuration, and which of them this node sees. */
import type { CommandModule } from "yargs";
import { type DlmdAnswer, askDlmd } from "./dlmd-query.ts";
import { type NodeOptions, nodeOptions } from "./node-options.ts";
import { print, printJson, runCommand, table } from "./output.ts";

export function describeNodes({ info, view }: DlmdAnswer): string {
  const rows = info.nodes.map(({ nodeid, name, address }) => [
    String(nodeid),
    name,
    address,
    view.members.includes(nodeid) ? "member" : "away",
    nodeid === info.nodeid ? "this node" : "",
  ]);
  return table([["NODEID", "NAME", "ADDRESS", "STATE", ""], ...rows]).replace(/ +$/gm, "");
}

export const nodesCommand: CommandModule<object, NodeOptions> = {
  command: "nodes",
  describe: "the nodes of the cluster, and which of them are members now",
  builder: (yargs) => nodeOptions(yargs).example("$0 nodes", "a line per node").example("$0 nodes --json", "for programs"),
  handler: ({ runDir, json }) =>
    runCommand(json, async () => {
      const asked = await askDlmd(runDir, "nodes");
      if (json) printJson({ nodeid: asked.info.nodeid, view: asked.view, configured: asked.info.nodes, nodes: asked.answer });
      else print(describeNodes(asked));
    }),
};

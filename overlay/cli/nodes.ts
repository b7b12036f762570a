/** `coverlay nodes`: the nodes of the configuration, and what this node knows of each. */
import type { CommandModule } from "yargs";
import * as z from "zod";
import { OperatingError } from "../../dlmd/base/error.ts";
import { askDlmd } from "../query/dlmd-query.ts";
import { type NodeOptions, nodeOptions } from "./node-options.ts";
import { print, printJson, runCommand, table } from "./output.ts";

/** Of dlmd's answer to the query "nodes". `state`: "this", "member", "heard", "connected", "silent" ...; `heardAgoMs` null: never. */
export interface NodeRow {
  readonly nodeid: number;
  readonly name: string;
  readonly address: string;
  readonly votes: number;
  readonly state: string;
  readonly heardAgoMs: number | null;
  /** Why it is not connected; dlmd of before version 0.2 does not say. */
  readonly refused?: string | null | undefined;
}

const answerShape: z.ZodType<readonly NodeRow[]> = z.array(
  z.looseObject({
    nodeid: z.number(),
    name: z.string(),
    address: z.string(),
    votes: z.number(),
    state: z.string(),
    heardAgoMs: z.number().nullable(),
    refused: z.string().nullable().optional(),
  }),
);

/** Checks what dlmd answered. Throws OperatingError "dlmd-bad-answer". */
export function decodeNodes(answer: unknown): readonly NodeRow[] {
  const result = answerShape.safeParse(answer);
  if (result.success) return result.data;
  throw new OperatingError(`dlmd's answer about its nodes should be a list of nodes, found: ${z.prettifyError(result.error)}`, {
    code: "dlmd-bad-answer",
    hint: "Is dlmd of another version? Restart it after an upgrade.",
  });
}

export function describeNodes(nodes: readonly NodeRow[]): string {
  const rows = nodes.map(({ nodeid, name, address, votes, state, heardAgoMs }) => [
    String(nodeid),
    name,
    address,
    String(votes),
    state,
    heardAgoMs === null ? "never" : state === "this" ? "-" : `${Math.round(heardAgoMs)} ms ago`,
  ]);
  const refusals = nodes.flatMap(({ name, refused }) => (typeof refused === "string" ? [`${name} is not connected: ${refused}`] : []));
  return [table([["NODEID", "NAME", "ADDRESS", "VOTES", "STATE", "HEARD"], ...rows]), ...refusals].join("\n");
}

export const nodesCommand: CommandModule<object, NodeOptions> = {
  command: "nodes",
  describe: "the nodes of the cluster, and what this node knows of each",
  builder: (yargs) => nodeOptions(yargs).example("$0 nodes", "a line per node").example("$0 nodes --json", "for programs"),
  handler: ({ runDir, json }) =>
    runCommand(json, async () => {
      const { answer, info, view } = await askDlmd(runDir, "nodes");
      const nodes = decodeNodes(answer);
      if (json) printJson({ nodeid: info.nodeid, view, nodes });
      else print(describeNodes(nodes));
    }),
};

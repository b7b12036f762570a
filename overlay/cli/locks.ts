/** `coverlay locks`: the locks that this node's dlmd knows of, by resource. */
import type { CommandModule } from "yargs";
import * as z from "zod";
import { OperatingError } from "../../dlmd/base/error.ts";
import { askDlmd } from "./dlmd-query.ts";
import { type NodeOptions, nodeOptions } from "./node-options.ts";
import { print, printJson, runCommand } from "./output.ts";

interface LocksArguments extends NodeOptions {
  readonly resource: string | undefined;
}

export interface LockRow {
  readonly nodeid: number;
  readonly clientId: number;
  readonly granted: string | null;
  readonly requested: string | null;
  readonly waitingMs: number | null;
}
export interface ResourceRow {
  readonly lockspace: string;
  readonly resource: string;
  readonly masterNodeid: number;
  readonly grantQueue: readonly LockRow[];
  readonly convertQueue: readonly LockRow[];
  readonly waitQueue: readonly LockRow[];
}
/** dlmd's answer to the query "locks": the queues of the resources it masters, and its own locks on others. */
export interface LocksAnswer {
  readonly resources: readonly ResourceRow[];
  readonly truncated: boolean;
}

const lockShape: z.ZodType<LockRow> = z.looseObject({
  nodeid: z.number(),
  clientId: z.number(),
  granted: z.string().nullable(),
  requested: z.string().nullable(),
  waitingMs: z.number().nullable(),
});
const resourceShape: z.ZodType<ResourceRow> = z.looseObject({
  lockspace: z.string(),
  resource: z.string(),
  masterNodeid: z.number(),
  grantQueue: z.array(lockShape),
  convertQueue: z.array(lockShape),
  waitQueue: z.array(lockShape),
});
const answerShape: z.ZodType<LocksAnswer> = z.looseObject({ resources: z.array(resourceShape), truncated: z.boolean() });

/** Checks what dlmd answered. Throws OperatingError "dlmd-bad-answer". */
export function decodeLocks(answer: unknown): LocksAnswer {
  const result = answerShape.safeParse(answer);
  if (result.success) return result.data;
  throw new OperatingError(`dlmd's answer about its locks should be resources with their queues, found: ${z.prettifyError(result.error)}`, {
    code: "dlmd-bad-answer",
    hint: "Is dlmd of another version? Restart it after an upgrade.",
  });
}

export function onlyResource(locks: LocksAnswer, resource: string): LocksAnswer {
  return { ...locks, resources: locks.resources.filter((row) => row.resource === resource) };
}

/** For people: a resource, its master, and below it who has what and who waits for what. `name`: of a nodeid. */
export function describeLocks({ resources, truncated }: LocksAnswer, name: (nodeid: number) => string): string {
  const queue = (title: string, rows: readonly LockRow[], words: (row: LockRow) => string): string[] =>
    rows.length === 0 ? [] : [`  ${title} ${rows.map((row) => `${name(row.nodeid)}/${row.clientId} ${words(row)}`).join(", ")}`];
  const wait = ({ waitingMs }: LockRow): string => (waitingMs === null ? "" : ` for ${waitingMs} ms`);
  const lines = resources.flatMap(({ lockspace, resource, masterNodeid, grantQueue, convertQueue, waitQueue }) => [
    `${lockspace} ${resource}  master ${name(masterNodeid)}`,
    ...queue("granted   ", grantQueue, ({ granted }) => granted ?? "-"),
    ...queue("converting", convertQueue, (row) => `${row.granted ?? "-"} to ${row.requested ?? "-"}${wait(row)}`),
    ...queue("waiting   ", waitQueue, (row) => `${row.requested ?? "-"}${wait(row)}`),
  ]);
  if (truncated) lines.push(`(and more: only ${resources.length} resources are shown)`);
  return lines.length === 0 ? "no locks" : lines.join("\n");
}

export const locksCommand: CommandModule<object, LocksArguments> = {
  command: "locks [resource]",
  describe: "the locks this node masters or holds, by resource",
  builder: (yargs) =>
    nodeOptions(yargs)
      .positional("resource", { type: "string", describe: "only this resource" })
      .example("$0 locks", "all of them")
      .example("$0 locks --json | jq '.resources[].resource'", "for programs"),
  handler: ({ runDir, json, resource }) =>
    runCommand(json, async () => {
      const { answer, info } = await askDlmd(runDir, "locks");
      const all = decodeLocks(answer);
      const shown = resource === undefined ? all : onlyResource(all, resource);
      if (json) printJson(shown);
      else print(describeLocks(shown, (nodeid) => info.nodes.find((node) => node.nodeid === nodeid)?.name ?? String(nodeid)));
    }),
};

/** `coverlay locks`: the locks of the cluster, by resource, as their masters have them. */
import type { CommandModule } from "yargs";
import type { ClusterInfo } from "../../dlmd/client/api.ts";
import type { FileRangeAnswer, LockAnswer } from "../../dlmd/wire/inspect-answer.ts";
import { type ClusterLocks, decodeClusterLocks, fileRangeWords, longestWaitMs } from "../query/cluster-locks.ts";
import { askCluster, nodeName } from "../query/dlmd-query.ts";
import { pathsHere, reportFiles } from "./file-locks.ts";
import { gatherLocks } from "../query/gather-locks.ts";
import { inodeLock, lockTitle, volumeName } from "../query/lock-names.ts";
import { type NodeOptions, nodeOptions } from "./node-options.ts";
import { print, printJson, runCommand, usageError } from "./output.ts";
import { describeService, describeWhy, heldWords, NOBODY, type PathOf } from "./why-words.ts";

interface LocksArguments extends NodeOptions {
  readonly resource: string | undefined;
  readonly node: string | undefined;
  readonly waiting: string | undefined;
  readonly files: boolean;
}

/** Longest waiting first. */
export function byWaiting(locks: ClusterLocks): ClusterLocks {
  const longest = ({ waiting }: ClusterLocks["files"][number]): number => Math.max(-1, ...waiting.map(({ waitingMs }) => waitingMs));
  return {
    ...locks,
    resources: locks.resources.toSorted((a, b) => longestWaitMs(b) - longestWaitMs(a)),
    files: locks.files.toSorted((a, b) => longest(b) - longest(a)),
  };
}

/** What a lock of a volume is: "inode lock of inode 131 of volume data (/shared/file), "; "": a program's own, or not known. */
export function titleIn(info: Pick<ClusterInfo, "volumes">, pathOf: PathOf): (lockspace: string, resource: string) => string {
  return (lockspace, resource) => {
    const title = lockTitle(lockspace, resource);
    if (title === null) return "";
    const path = inodeLock(lockspace, resource) === null ? null : pathOf(lockspace, resource);
    return `${title} of volume ${volumeName(lockspace, info.volumes)}${path === null ? "" : ` (${path})`}, `;
  };
}

/** For people: a resource, its master, and below it who has what and who waits for what. `name`: of a nodeid. `title`: as titleIn. */
export function describeLocks(
  locks: ClusterLocks,
  name: (nodeid: number) => string,
  title: (lockspace: string, resource: string) => string = () => "",
): string {
  const queue = (title: string, rows: readonly LockAnswer[], words: (row: LockAnswer) => string): string[] =>
    rows.length === 0 ? [] : [`  ${title} ${rows.map((row) => `${name(row.nodeid)}/${row.clientId} ${words(row)}`).join(", ")}`];
  const wait = ({ waitingMs }: LockAnswer): string => (waitingMs === null ? "" : ` for ${waitingMs} ms`);
  const lines = locks.resources.flatMap(({ lockspace, resource, masterNodeid, grantQueue, convertQueue, waitQueue }) => [
    `${lockspace} ${resource}  ${title(lockspace, resource)}master ${name(masterNodeid)}`,
    ...queue("granted   ", grantQueue, ({ granted }) => granted ?? "-"),
    ...queue("converting", convertQueue, (row) => `${row.granted ?? "-"} to ${row.requested ?? "-"}${wait(row)}`),
    ...queue("waiting   ", waitQueue, (row) => `${row.requested ?? "-"}${wait(row)}`),
  ]);
  const who = (row: FileRangeAnswer): string => `${name(row.nodeid)}/${row.clientId} (pid ${row.pid}) ${fileRangeWords(row)}`;
  for (const { lockspace, file, masterNodeid, held, waiting } of locks.files) {
    lines.push(`${lockspace} ${file}  ${title(lockspace, file) || "file locks, "}master ${name(masterNodeid)}`);
    if (held.length > 0) lines.push(`  held       ${held.map((row) => `${who(row)}${heldWords(row)}`).join(", ")}`);
    if (waiting.length > 0) lines.push(`  waiting    ${waiting.map((row) => `${who(row)} for ${row.waitingMs} ms`).join(", ")}`);
  }
  if (locks.truncated) lines.push(`(and more: only ${locks.resources.length} resources and ${locks.files.length} files are shown)`);
  if (lines.length === 0) lines.push("no locks");
  return [...lines, ...describeService(locks, name)].join("\n");
}

/** --waiting, or --waiting MS; null: not given. Throws OperatingError "usage". */
export function waitingMsOf(waiting: string | undefined): number | null {
  if (waiting === undefined) return null;
  const waitingMs = waiting === "" ? 0 : Number(waiting);
  if (Number.isInteger(waitingMs) && waitingMs >= 0 && waitingMs < 0xffffffff) return waitingMs;
  throw usageError(`--waiting ${waiting}: milliseconds expected`, "Say --waiting, or for example --waiting 5000.");
}

/** File locks alone, with what is known here of their files. */
function showFiles(runDir: string, all: ClusterLocks, info: ClusterInfo, json: boolean): void {
  const locks = { ...all, resources: [] };
  const pathOf = pathsHere(runDir, info, locks);
  if (json) return printJson({ ...locks, files: reportFiles(locks, info, pathOf) });
  const words = describeWhy(locks, nodeName(info), pathOf);
  print(locks.files.length === 0 ? words.replace(NOBODY, "no file locks") : words);
}

export const locksCommand: CommandModule<object, LocksArguments> = {
  command: "locks [resource]",
  describe: "the locks of the whole cluster, by resource",
  builder: (yargs) =>
    nodeOptions(yargs)
      .positional("resource", { type: "string", describe: "only this resource" })
      .option("node", { type: "string", requiresArg: true, describe: "only resources on which a program of that node has or wants a lock" })
      .option("files", { type: "boolean", default: false, describe: "only file locks: node, process, program, file and bytes of each" })
      .option("waiting", { type: "string", describe: "only resources on which somebody waits (so many ms), the longest first" })
      .example("$0 locks", "all of them; a long answer says that it is not whole")
      .example("$0 locks --node node2", "those that node2 has to do with")
      .example("$0 locks --waiting 5000", "where a program has waited for 5 s; then `coverlay why` says what for")
      .example("$0 locks --files", "fcntl, OFD and flock locks of all nodes; `coverlay why PATH` explains those of one file")
      .example("$0 locks --json | jq '.resources[].resource'", "for programs")
      .example("$0 locks --files --json | jq '.files[].held[].heldMs'", "for how long each has been held; null: not known"),
  handler: ({ runDir, json, resource = "", node, waiting, files }) =>
    runCommand(json, async () => {
      const waitingMs = waitingMsOf(waiting);
      const ask = (): ReturnType<typeof askCluster> =>
        askCluster(runDir, ({ nodes }) => {
          const found = nodes.find(({ name }) => name === node);
          if (node !== undefined && found === undefined) {
            throw usageError(
              `--node ${node}: a node of the cluster expected`,
              `Its nodes are: ${nodes.map(({ name }) => name).join(", ")}.`,
            );
          }
          return { lockspace: "", resource, nodeid: found?.nodeid ?? 0, waitingMs };
        });
      let { answer, info } = await ask();
      if (files && (await gatherLocks(runDir, decodeClusterLocks(answer)))) ({ answer, info } = await ask());
      const all = decodeClusterLocks(answer);
      const shown = waitingMs === null ? all : byWaiting(all);
      if (files) return showFiles(runDir, shown, info, json);
      if (json) printJson(shown);
      else print(describeLocks(shown, nodeName(info), titleIn(info, pathsHere(runDir, info, shown))));
    }),
};

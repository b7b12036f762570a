/** `coverlay why`: who has a lock, who waits for it, since when, and what for, in words, asked of the whole cluster. */
import type { CommandModule } from "yargs";
import { type Mode, modeNames, modesCompatible } from "../../dlmd/lock/mode.ts";
import {
  type ClusterLocks,
  decodeClusterLocks,
  fileRangeWords,
  type FileLocksRow,
  type FileRow,
  type LockRow,
  type ResourceRow,
} from "./cluster-locks.ts";
import { askCluster } from "./dlmd-query.ts";
import { type NodeOptions, nodeOptions } from "./node-options.ts";
import { EXIT, print, printJson, runCommand, usageError } from "./output.ts";

/** A program that has not answered a blocking AST for so long hangs (hazard H13). */
const HANGS_MS = 60_000;
/** Of those that wait for or have a lock, so many are told in words; --json has all. */
const TOLD = 50;

interface WhyArguments extends NodeOptions {
  readonly names: readonly string[];
}

const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;
const modeOf = (name: string): Mode => modeNames.indexOf(name as (typeof modeNames)[number]) as Mode;
const clashes = (a: string, b: string): boolean => !modesCompatible(modeOf(a), modeOf(b));

class Words {
  readonly #name: (nodeid: number) => string;
  readonly #programs: ReadonlyMap<string, { readonly pid: number; readonly program: string }>;

  constructor(locks: ClusterLocks, name: (nodeid: number) => string) {
    this.#name = name;
    this.#programs = new Map(locks.programs.map(({ nodeid, clientId, ...program }) => [`${nodeid}/${clientId}`, program]));
  }

  who({ nodeid, clientId, orphan }: LockRow): string {
    const known = this.#programs.get(`${nodeid}/${clientId}`);
    const program = known === undefined || known.program === "" ? "" : `, ${known.program.split("/").at(-1) ?? ""}`;
    const pid = known === undefined || known.pid === 0 ? "" : ` (pid ${known.pid}${program})`;
    return `${this.#name(nodeid)}/client ${clientId}${pid}${orphan ? " (an orphan: its program is gone)" : ""}`;
  }

  has(row: LockRow): string {
    const asked =
      row.asked === null
        ? ""
        : `; a blocking AST (${row.asked} is wanted) was sent${row.askedMs === null ? "" : ` ${seconds(row.askedMs)} ago`} and is not answered`;
    const hangs =
      row.askedMs !== null && row.askedMs >= HANGS_MS ? `: longer than ${HANGS_MS / 1000} s, so the program hangs, or ignores it` : "";
    return `${this.who(row)} has ${row.granted}${asked}${hangs}`;
  }

  waits(row: LockRow, resource: ResourceRow & { readonly fromMaster: boolean }): string {
    const what = row.granted === null ? row.requested : `${row.requested} (it has ${row.granted})`;
    const since = row.waitingMs === null ? "" : ` since ${seconds(row.waitingMs)}`;
    return `${this.who(row)} waits for ${what}${since}, ${this.#because(row, resource)}`;
  }

  #whose({ nodeid, clientId, pid }: Pick<FileRow, "nodeid" | "clientId" | "pid">): string {
    return `${this.#name(nodeid)}/client ${clientId} (pid ${pid})`;
  }

  /** Of a file: who has what, who waits for what and for whom. */
  file({ lockspace, file, masterNodeid, held, waiting }: FileLocksRow): string[] {
    return [
      `${lockspace} ${file}  file locks, master ${this.#name(masterNodeid)}`,
      ...held.map((row) => `  ${this.#whose(row)} has ${fileRangeWords(row)}`),
      ...waiting.map((row) => {
        const { blocker } = row;
        const its = (one: FileRow): boolean =>
          blocker !== null &&
          [one.nodeid, one.clientId, one.kind, one.owner].join() === [blocker.nodeid, blocker.clientId, blocker.kind, blocker.owner].join();
        const found = held.find(its) ?? waiting.find(its);
        const by = found === undefined ? "somebody" : this.#whose(found);
        const why = blocker?.behind === true ? `its turn comes after that of ${by}` : `${by} has what excludes it`;
        return `  ${this.#whose(row)} waits for ${fileRangeWords(row)} since ${seconds(row.waitingMs)}, because ${why}`;
      }),
    ];
  }

  #because(row: LockRow, resource: ResourceRow & { readonly fromMaster: boolean }): string {
    const { grantQueue, convertQueue, waitQueue, masterNodeid } = resource;
    if (!resource.fromMaster) return `and ${this.#name(masterNodeid)}, its master, does not say why`;
    const wanted = row.requested ?? "NL";
    const inTheWay = [...grantQueue, ...convertQueue].filter((other) => other !== row && clashes(other.granted ?? "NL", wanted));
    if (inTheWay.length > 0) {
      const more = inTheWay.length > 3 ? ` (and ${inTheWay.length - 3} more have modes in its way)` : "";
      return `because ${inTheWay
        .slice(0, 3)
        .map((other) => this.has(other))
        .join("; and ")}${more}`;
    }
    const converts = convertQueue.includes(row);
    const before = converts
      ? convertQueue.slice(0, convertQueue.indexOf(row))
      : [...convertQueue, ...waitQueue.slice(0, waitQueue.indexOf(row))];
    const [first] = before;
    if (first === undefined) return "and nobody is in its way: it is granted as soon as lock service in this lockspace runs";
    return `because its turn comes after ${this.who(first)}, which waits for ${first.requested}${before.length > 1 ? ` (${before.length} are before it)` : ""}`;
  }
}

/** Why lock service does not run, a line for each reason; empty: it runs everywhere. */
export function describeService({ notServing, missing }: ClusterLocks, name: (nodeid: number) => string): string[] {
  return [
    ...notServing.map(({ nodeid, state }) => `lock service does not run on ${name(nodeid)}: ${state}`),
    ...missing.map(({ nodeid, reason }) => `${name(nodeid)} was not heard: ${reason}`),
  ];
}

/** For people. */
export function describeWhy(locks: ClusterLocks, name: (nodeid: number) => string): string {
  const words = new Words(locks, name);
  const some = (lines: readonly string[]): string[] =>
    lines.length <= TOLD ? [...lines] : [...lines.slice(0, TOLD), `  (and ${lines.length - TOLD} more: --json shows them)`];
  const lines = locks.resources.flatMap((resource) => {
    const { grantQueue, convertQueue, waitQueue } = resource;
    return [
      `${resource.lockspace} ${resource.resource}  master ${name(resource.masterNodeid)}${resource.fromMaster ? "" : ", which says nothing of it: below is what its holders know"}`,
      ...some(grantQueue.map((row) => `  ${words.has(row)}`)),
      ...some([...convertQueue, ...waitQueue].map((row) => `  ${words.waits(row, resource)}`)),
    ];
  });
  lines.push(...locks.files.flatMap((file) => some(words.file(file))));
  if (lines.length === 0) lines.push("nobody has it or waits for it");
  if (locks.truncated) lines.push("(and more: the answer is as long as it may be)");
  return [...lines, ...describeService(locks, name)].join("\n");
}

export const whyCommand: CommandModule<object, WhyArguments> = {
  command: "why <names..>",
  describe: "a lock: who has it, who waits for it, since when, and what for; exit status 1 if nobody has it or waits for it",
  builder: (yargs) =>
    nodeOptions(yargs)
      .positional("names", {
        type: "string",
        array: true,
        demandOption: true,
        describe: "[LOCKSPACE] RESOURCE; without a lockspace: in any",
      })
      .usage("$0 why [LOCKSPACE] RESOURCE")
      .example("$0 why my-program job", "the lock `job` of the lockspace `my-program`")
      .example("$0 why job", "a lock of that name in any lockspace")
      .example("$0 why job --json | jq '.resources[].waitQueue[].waitingMs'", "for programs")
      .epilogue("The lock's master and the nodes of its holders are asked, from whichever node. Who does not answer within 2 s is named."),
  handler: ({ runDir, json, names }) =>
    runCommand(json, async () => {
      const [resource, lockspace = "", ...rest] = names.map(String).toReversed();
      if (resource === undefined || resource === "" || rest.length > 0) {
        throw usageError(`[LOCKSPACE] RESOURCE expected, found ${names.length} names`, "Quote a name that has blanks.");
      }
      const { answer, info } = await askCluster(runDir, () => ({ lockspace, resource, nodeid: 0, waitingMs: null }));
      const locks = decodeClusterLocks(answer);
      if (json) printJson(locks);
      else print(describeWhy(locks, (nodeid) => info.nodes.find((node) => node.nodeid === nodeid)?.name ?? String(nodeid)));
      return locks.resources.length + locks.files.length > 0 ? EXIT.OK : EXIT.FAILURE;
    }),
};

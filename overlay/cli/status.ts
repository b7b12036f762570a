/** `coverlay status`: this node's dlmd, its view of the cluster, and its mounts. */
import type { CommandModule } from "yargs";
import * as z from "zod";
import { OperatingError } from "../../dlmd/base/error.ts";
import type { DlmdAnswer } from "../query/dlmd-query.ts";
import { lookAtNode, NODE_LIMIT_MS, type NodeLook } from "../query/node-facts.ts";
import { listOverlays, type MountGroupStatus, type OverlayStatus } from "../query/overlay-query.ts";
import { quorumAction } from "../status/judge-cluster.ts";
import type { Level } from "../status/problem.ts";
import { type Report, reportOf } from "../status/report.ts";
import { visible } from "../status/visible.ts";
import { describeLevel, describeReport } from "../status/words.ts";
import { describeWaits, fencesOf } from "./fence-words.ts";
import { type NodeOptions, nodeOptions } from "./node-options.ts";
import type { Waiter } from "../volume/mount-waiter.ts";
import { describeError, EXIT, jsonText, print, runCommand, usageError } from "./output.ts";
import { watchNode } from "./watch.ts";

/** Of --watch, where none are said; and those that may be said. */
const WATCH_SECONDS = 2;
const WATCH_SECONDS_MIN = 0.2;
const WATCH_SECONDS_MAX = 3600;
/** Of --limit: who waits longer wants to know why, and a timer of Node.js that is much longer fires at once. */
const LIMIT_SECONDS_MAX = 3600;

type Name = (nodeid: number) => string;

/** Of dlmd's answer to the query "status", what people are shown beside the view. */
const statusShape = z.looseObject({
  state: z.string(),
  engine: z.looseObject({
    stopped: z.boolean(),
    sequencerNodeid: z.number(),
    underWay: z.number(),
    window: z.number(),
    waiting: z.number(),
    full: z.boolean(),
    kept: z.number(),
    groups: z.number(),
  }),
  refused: z.array(z.looseObject({ nodeid: z.number(), reason: z.string() })).optional(),
  counting: z.array(z.number()).nullable().optional(),
  lockspaces: z.array(z.looseObject({ lockspace: z.string(), nodeids: z.array(z.number()) })).optional(),
  lockspacesUnknown: z.array(z.number()).optional(),
  channels: z.array(
    z.looseObject({ nodeid: z.number(), downMs: z.number().nullable(), unacked: z.number(), held: z.number(), paused: z.boolean() }),
  ),
});
type DlmdStatus = z.infer<typeof statusShape>;

function engineWords(
  { stopped, sequencerNodeid, underWay, window, waiting, full, kept, groups }: DlmdStatus["engine"],
  name: Name,
): string {
  if (sequencerNodeid === 0) return "nothing is ordered before the first quorate view";
  const by = stopped
    ? `stopped (view change, or no quorum); the last sequencer is ${name(sequencerNodeid)}`
    : `sequencer ${name(sequencerNodeid)}`;
  const own = `${underWay} of ${window} packets under way, ${waiting} messages wait${full ? " (full: senders wait)" : ""}`;
  return `${by}; ${own}; ${kept} packets not yet known to be everywhere; ${groups} groups`;
}

function channelWords({ nodeid, downMs, unacked, held, paused }: DlmdStatus["channels"][number], name: Name): string {
  const up = downMs === null ? "up" : `down for ${(downMs / 1000).toFixed(1)} s`;
  const wait = held === 0 ? "" : `, ${held} received wait for lock service${paused ? " (not read)" : ""}`;
  return `${name(nodeid)} ${up}, ${unacked} unacknowledged${wait}`;
}

function lockspaceLines({ lockspaces = [], lockspacesUnknown = [] }: DlmdStatus, name: Name): string[] {
  const unknown = lockspacesUnknown.map((nodeid) => `what ${name(nodeid)} has open is not known yet: it counts as all`);
  const known = lockspaces.map(({ lockspace, nodeids }) => `${lockspace} is open on ${nodeids.map(name).join(", ")}`);
  return [...known, ...unknown].map((line, at) => `${at === 0 ? "open    " : "        "} ${line}`);
}

function describeGroup({ jid, block, wait, recovery, members = [], dirty = [] }: MountGroupStatus, name: Name): string {
  const left = dirty.length === 0 ? "" : `; dirty: ${dirty.map((one) => `jid ${one.jid} of ${name(one.nodeid)}`).join(", ")}`;
  const blocked = block && wait === null ? "; blocked" : "";
  const waits = [wait, wait === null ? recovery : null].filter((words) => words != null).map((words) => `; ${words}`);
  return `         jid ${jid ?? "none yet"}; ${members.length} mounters${left}${blocked}${waits.join("")}`;
}

/** Space that no name leads to. */
function orphanWords({ kept, waitsFor }: NonNullable<OverlayStatus["orphans"]>, name: Name): string {
  const files = `${kept} open ${kept === 1 ? "file" : "files"} without a name`;
  return waitsFor.length === 0
    ? files
    : `${files}; those that nobody has open go once ${waitsFor.map(name).join(", ")} said which they have`;
}

function describeMount(mount: OverlayStatus, name: Name): string[] {
  const { mountpoint, volume, device, role, pid, why, disk, ownerWait, problem, fileLocks, orphans, crash, ops, locks, group } = mount;
  return [
    `mount    ${mountpoint}: volume ${volume} on ${device}, ${role}, process ${pid}`,
    ...((role === "waiting" || role === "paused") && why !== undefined ? [`         ${why}`] : []),
    ...(ownerWait == null ? [] : [`         ${ownerWait}`]),
    ...(disk == null ? [] : [`         disk: ${disk}`]),
    ...(group == null ? [] : [describeGroup(group, name)]),
    ...(problem === undefined ? [] : [`         ${problem}`]),
    ...(fileLocks === "local" ? ["         file locks are local to this node (localflocks)"] : []),
    ...(crash == null ? [] : [`         a crash of its process ends it: ${crash}`]),
    ...(orphans == null || orphans.kept === 0 ? [] : [`         ${orphanWords(orphans, name)}`]),
    ...(ops === undefined ? [] : [`         ${ops} operations, ${locks ?? "?"} locks`]),
  ];
}

/** For people: a few lines. */
export function describeStatus(
  { info, view, answer }: DlmdAnswer,
  mounts: readonly OverlayStatus[],
  waiters: readonly Waiter[] = [],
): string {
  const { data: status } = statusShape.safeParse(answer);
  const fences = fencesOf(answer);
  const action = quorumAction(status?.counting ?? null, view.members, info.nodes);
  const name: Name = (nodeid) => info.nodes.find((node) => node.nodeid === nodeid)?.name ?? String(nodeid);
  const away = info.nodes.filter(({ nodeid }) => !view.members.includes(nodeid)).map((node) => node.name);
  return [
    `cluster  ${info.clusterName}`,
    `node     ${name(info.nodeid)} (nodeid ${info.nodeid})`,
    `view     ${view.members.map(name).join(", ")}${away.length === 0 ? "" : `; away: ${away.join(", ")}`}`,
    ...(status?.refused ?? []).map(({ nodeid, reason }) => `         ${name(nodeid)} is not connected: ${reason}`),
    `quorum   ${view.quorumReason}`,
    ...(view.quorate || action === null ? [] : [`         ${action}`]),
    `locks    ${view.running ? "granted" : "requests wait (recovery, or no quorum)"}${status === undefined || status.state === "running" ? "" : `: ${status.state}`}`,
    ...(status === undefined ? [] : lockspaceLines(status, name)),
    ...(fences === null ? [] : describeWaits(fences, name, Date.now()).map((line) => `fencing  ${line}`)),
    ...(status === undefined ? [] : [`engine   ${engineWords(status.engine, name)}`]),
    ...(status?.channels ?? []).map((channel, at) => `${at === 0 ? "channels" : "        "} ${channelWords(channel, name)}`),
    ...describeMounts(mounts, name),
    ...describeWaiters(waiters),
  ]
    .map((line) => visible(line, ""))
    .join("\n");
}

function describeMounts(mounts: readonly OverlayStatus[], name: Name): string[] {
  return mounts.length === 0 ? ["mount    none"] : mounts.flatMap((mount) => describeMount(mount, name));
}

function describeWaiters(waiters: readonly Waiter[]): string[] {
  return waiters.map(
    ({ mountPoint, source, pid, logFile }) => `waiting  ${mountPoint}: to mount ${source}, process ${pid}; for what: ${logFile}`,
  );
}

interface StatusArguments extends NodeOptions {
  readonly check: boolean;
  readonly watch: string | undefined;
  readonly limit: number;
}

/** One turn: what goes to stdout, and the exit status. `error`: why dlmd could not be asked, for stderr. */
interface Turn {
  readonly text: string;
  readonly status: number;
  readonly error: OperatingError | null;
}

const checkStatuses: Readonly<Record<Level, number>> = { well: 0, degraded: 1, down: 2, unknown: 3 };

function jsonOf({ seen, overlays, waiters }: NodeLook, report: Report): object {
  const { overlayKeys: _, ...info } = seen?.info ?? { overlayKeys: [] };
  // `overlay` is the first of `overlays`, for programs that know of one mount.
  const asked = seen === null ? { cluster: null, view: null, dlmd: null } : { cluster: info, view: seen.view, dlmd: seen.answer };
  return { ...asked, overlay: overlays[0] ?? null, overlays, waiters, ...report };
}

/** What is read in five seconds, then all that is known. */
function describeNode({ seen, overlays, waiters }: NodeLook, report: Report): string {
  const ofMounts = (): string[] => [...describeMounts(overlays, String), ...describeWaiters(waiters)].map((line) => visible(line, ""));
  const details = seen === null ? ofMounts() : [describeStatus(seen, overlays, waiters)];
  return [...describeReport(report), "", ...details].join("\n");
}

interface How extends Pick<StatusArguments, "check" | "json"> {
  readonly limitMs: number;
}

export async function takeTurn(runDir: string, { check, json, limitMs }: How): Promise<Turn> {
  const look = await lookAtNode(runDir, limitMs);
  const report = reportOf(look.facts);
  const text = json ? jsonText(jsonOf(look, report)) : check ? describeLevel(report) : describeNode(look, report);
  if (check) return { text, status: checkStatuses[report.level], error: null };
  return { text, status: look.seen?.view.quorate === true ? EXIT.OK : EXIT.FAILURE, error: look.error };
}

/** Seconds of --watch; null: once. Throws OperatingError "usage". */
export function watchSecondsOf(watch: string | undefined): number | null {
  if (watch === undefined) return null;
  const seconds = watch === "" ? WATCH_SECONDS : Number(watch);
  if (seconds >= WATCH_SECONDS_MIN && seconds <= WATCH_SECONDS_MAX) return seconds;
  throw usageError(
    `--watch ${watch}: seconds from ${WATCH_SECONDS_MIN} to ${WATCH_SECONDS_MAX} expected`,
    "Say --watch, or for example --watch 5.",
  );
}

/** Milliseconds of --limit. Throws OperatingError "usage". */
function limitMsOf(limit: number): number {
  if (limit > 0 && limit <= LIMIT_SECONDS_MAX) return limit * 1000;
  throw usageError(`--limit ${limit}: seconds above 0, up to ${LIMIT_SECONDS_MAX}, expected`, "`coverlay status --limit 20`");
}

/** Once. What the mounts say is shown without dlmd, too; the error is as that of any command. */
async function showOnce(runDir: string, how: How): Promise<number> {
  const { text, status, error } = await takeTurn(runDir, how);
  if (error === null || how.json || listOverlays(runDir).length > 0) print(text);
  if (error !== null) throw error;
  return status;
}

/** For --check and --watch: what went wrong is an answer, too. To monitoring a defect is one: its exit status would say that the node is degraded. */
async function takeAnyTurn(runDir: string, how: How): Promise<Turn> {
  try {
    const { text, status, error } = await takeTurn(runDir, how);
    const words = error === null || how.json ? [] : [describeError(error, false).text.trimEnd()];
    return { text: [text, ...words].join("\n"), status, error: null };
  } catch (error) {
    if (!(error instanceof OperatingError) && !how.check) throw error;
    const status = how.check ? checkStatuses.unknown : EXIT.FAILURE;
    if (how.json) {
      const { text } = describeError(error, true);
      return { text: jsonText({ level: "unknown", error: JSON.parse(text) as unknown }), status, error: null };
    }
    if (!how.check) return { text: describeError(error, false).text.trimEnd(), status, error: null };
    const code = error instanceof OperatingError ? error.code : "internal";
    return { text: visible(`unknown: ${code}: ${error instanceof Error ? error.message : String(error)}`, ""), status, error: null };
  }
}

const details = `The first lines say whether all is well, what is wrong and what to do, who owns which volume, and who waits for whom.
Exit status: 0 this node is in a quorate view; 1 it is not, or dlmd cannot be asked.
With --check: 0 well; 1 degraded; 2 something is down on this node; 3 it cannot be told, because dlmd does not run or answer.
With --watch: that of the last turn, after SIGINT or SIGTERM.`;

export const statusCommand: CommandModule<object, StatusArguments> = {
  command: "status",
  describe: "this node: whether it is well, what to do, its view of the cluster, quorum, its mounts",
  builder: (yargs) =>
    nodeOptions(yargs)
      .option("check", { type: "boolean", default: false, describe: "one line, and an exit status for monitoring: 0, 1, 2 or 3" })
      .option("watch", { type: "string", describe: `again each so many seconds, ${WATCH_SECONDS} if none are said, until a signal` })
      .option("limit", {
        type: "number",
        default: NODE_LIMIT_MS / 1000,
        requiresArg: true,
        describe: "seconds that dlmd and each mount have to answer; more on a machine that is very slow",
      })
      .example("$0 status", "this node, and the cluster as it sees it")
      .example("$0 status --watch", "the same, again every 2 s")
      .example("$0 status --check", "as a plugin of monitoring")
      .example("$0 status --json | jq .view.members", "for programs")
      .example("$0 status --json | jq '.problems[] | {code, action}'", "what is wrong, and what to do")
      .example("$0 status --json | jq '.overlays[] | {mountpoint, role}'", "each mount of this node")
      .epilogue(details),
  handler: ({ runDir, json, check, watch, limit }) =>
    runCommand(json, async () => {
      const seconds = watchSecondsOf(watch);
      const how = { check, json, limitMs: limitMsOf(limit) };
      if (seconds !== null) {
        const as = json ? "lines" : process.stdout.isTTY ? "screen" : "blocks";
        return watchNode({ turn: () => takeAnyTurn(runDir, how), seconds, as });
      }
      if (!check) return showOnce(runDir, how);
      const { text, status } = await takeAnyTurn(runDir, how);
      print(text);
      return status;
    }),
};

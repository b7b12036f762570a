/** `coverlay status`: this node's dlmd, its view of the cluster, and its mounts. */
import type { CommandModule } from "yargs";
import * as z from "zod";
import { type DlmdAnswer, askDlmd } from "../query/dlmd-query.ts";
import { describeWaits, fencesOf } from "./fence-words.ts";
import { type NodeOptions, nodeOptions } from "./node-options.ts";
import { EXIT, print, printJson, runCommand } from "./output.ts";
import { type MountGroupStatus, type OverlayStatus, queryOverlays } from "../query/overlay-query.ts";

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

/** What to do about a quorum that is not there. `counting`: nodes that went on without others, and know what these do not; null: all nodes count. */
function waitedFor(counting: readonly number[] | null, members: readonly number[], nodeids: readonly number[], name: Name): string[] {
  const away = (counting ?? nodeids).filter((nodeid) => !members.includes(nodeid)).map(name);
  if (away.length === 0) return [];
  if (counting !== null) return [`         start ${away.join(", ")}; gone for good: coverlay quorum reset --help`];
  return [`         start ${away.join(", ")}, or mend the network to them; gone for good: coverlay config --help`];
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
  const { mountpoint, volume, device, role, pid, why, disk, ownerWait, problem, fileLocks, orphans, ops, locks, group } = mount;
  return [
    `mount    ${mountpoint}: volume ${volume} on ${device}, ${role}, process ${pid}`,
    ...(role === "waiting" && why !== undefined ? [`         ${why}`] : []),
    ...(ownerWait == null ? [] : [`         ${ownerWait}`]),
    ...(disk == null ? [] : [`         disk: ${disk}`]),
    ...(group == null ? [] : [describeGroup(group, name)]),
    ...(problem === undefined ? [] : [`         ${problem}`]),
    ...(fileLocks === "local" ? ["         file locks are local to this node (localflocks)"] : []),
    ...(orphans == null || orphans.kept === 0 ? [] : [`         ${orphanWords(orphans, name)}`]),
    ...(ops === undefined ? [] : [`         ${ops} operations, ${locks ?? "?"} locks`]),
  ];
}

/** For people: a few lines. */
export function describeStatus({ info, view, answer }: DlmdAnswer, mounts: readonly OverlayStatus[]): string {
  const { data: status } = statusShape.safeParse(answer);
  const fences = fencesOf(answer);
  const name: Name = (nodeid) => info.nodes.find((node) => node.nodeid === nodeid)?.name ?? String(nodeid);
  const away = info.nodes.filter(({ nodeid }) => !view.members.includes(nodeid)).map((node) => node.name);
  return [
    `cluster  ${info.clusterName}`,
    `node     ${name(info.nodeid)} (nodeid ${info.nodeid})`,
    `view     ${view.members.map(name).join(", ")}${away.length === 0 ? "" : `; away: ${away.join(", ")}`}`,
    ...(status?.refused ?? []).map(({ nodeid, reason }) => `         ${name(nodeid)} is not connected: ${reason}`),
    `quorum   ${view.quorumReason}`,
    ...(view.quorate
      ? []
      : waitedFor(
          status?.counting ?? null,
          view.members,
          info.nodes.map(({ nodeid }) => nodeid),
          name,
        )),
    `locks    ${view.running ? "granted" : "requests wait (recovery, or no quorum)"}${status === undefined || status.state === "running" ? "" : `: ${status.state}`}`,
    ...(status === undefined ? [] : lockspaceLines(status, name)),
    ...(fences === null ? [] : describeWaits(fences, name, Date.now()).map((line) => `fencing  ${line}`)),
    ...(status === undefined ? [] : [`engine   ${engineWords(status.engine, name)}`]),
    ...(status?.channels ?? []).map((channel, at) => `${at === 0 ? "channels" : "        "} ${channelWords(channel, name)}`),
    ...(mounts.length === 0 ? ["mount    none"] : mounts.flatMap((mount) => describeMount(mount, name))),
  ].join("\n");
}

export const statusCommand: CommandModule<object, NodeOptions> = {
  command: "status",
  describe: "this node: its view of the cluster, quorum, its mounts; exit status 1 without quorum",
  builder: (yargs) =>
    nodeOptions(yargs)
      .example("$0 status", "this node, and the cluster as it sees it")
      .example("$0 status --json | jq .view.members", "for programs")
      .example("$0 status --json | jq '.overlays[] | {mountpoint, role}'", "each mount of this node"),
  handler: ({ runDir, json }) =>
    runCommand(json, async () => {
      const asked = await askDlmd(runDir, "status");
      const overlays = await queryOverlays(runDir);
      const { overlayKeys: _, ...info } = asked.info;
      // `overlay` is the first of `overlays`, for programs that know of one mount.
      if (json) printJson({ cluster: info, view: asked.view, dlmd: asked.answer, overlay: overlays[0] ?? null, overlays });
      else print(describeStatus(asked, overlays));
      return asked.view.quorate ? EXIT.OK : EXIT.FAILURE;
    }),
};

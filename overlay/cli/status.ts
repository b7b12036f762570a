/** `coverlay status`: this node's dlmd, its view of the cluster, and its mount. */
import type { CommandModule } from "yargs";
import * as z from "zod";
import { OperatingError } from "../../dlmd/base/error.ts";
import { type DlmdAnswer, askDlmd } from "./dlmd-query.ts";
import { describeWaits, fencesShape } from "./fence.ts";
import { type NodeOptions, nodeOptions } from "./node-options.ts";
import { EXIT, print, printJson, runCommand } from "./output.ts";
import { type OverlayStatus, queryOverlayStatus } from "./overlay-query.ts";

/** The overlay of this node; null where nothing is mounted. */
async function overlayOrNone(runDir: string): Promise<OverlayStatus | null> {
  try {
    return await queryOverlayStatus(runDir);
  } catch (error) {
    if (error instanceof OperatingError && error.code === "no-overlay") return null;
    throw error;
  }
}

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

/** For people: a few lines. */
export function describeStatus({ info, view, answer }: DlmdAnswer, overlay: OverlayStatus | null): string {
  const { data: status } = statusShape.safeParse(answer);
  const { data: fences } = fencesShape.safeParse(answer);
  const name: Name = (nodeid) => info.nodes.find((node) => node.nodeid === nodeid)?.name ?? String(nodeid);
  const away = info.nodes.filter(({ nodeid }) => !view.members.includes(nodeid)).map((node) => node.name);
  return [
    `cluster  ${info.clusterName}`,
    `node     ${name(info.nodeid)} (nodeid ${info.nodeid})`,
    `view     ${view.members.map(name).join(", ")}${away.length === 0 ? "" : `; away: ${away.join(", ")}`}`,
    `quorum   ${view.quorumReason}`,
    `locks    ${view.running ? "granted" : "requests wait (recovery, or no quorum)"}${status === undefined || status.state === "running" ? "" : `: ${status.state}`}`,
    ...(fences === undefined ? [] : describeWaits(fences, name).map((line) => `fencing  ${line}`)),
    ...(status === undefined ? [] : [`engine   ${engineWords(status.engine, name)}`]),
    ...(status?.channels ?? []).map((channel, at) => `${at === 0 ? "channels" : "        "} ${channelWords(channel, name)}`),
    overlay === null
      ? "mount    none"
      : `mount    ${overlay.mountpoint}: volume ${overlay.volume} on ${overlay.device}, ${overlay.role}, process ${overlay.pid}`,
    ...(overlay?.ops === undefined ? [] : [`         ${overlay.ops} operations, ${overlay.locks ?? "?"} locks`]),
  ].join("\n");
}

export const statusCommand: CommandModule<object, NodeOptions> = {
  command: "status",
  describe: "this node: its view of the cluster, quorum, its mount; exit status 1 without quorum",
  builder: (yargs) =>
    nodeOptions(yargs)
      .example("$0 status", "this node, and the cluster as it sees it")
      .example("$0 status --json | jq .view.members", "for programs"),
  handler: ({ runDir, json }) =>
    runCommand(json, async () => {
      const asked = await askDlmd(runDir, "status");
      const overlay = await overlayOrNone(runDir);
      const { overlaySecrets: _, ...info } = asked.info;
      if (json) printJson({ cluster: info, view: asked.view, dlmd: asked.answer, overlay });
      else print(describeStatus(asked, overlay));
      return asked.view.quorate ? EXIT.OK : EXIT.FAILURE;
    }),
};

/** `coverlay status`: this node's dlmd, its view of the cluster, and its mount. */
import type { CommandModule } from "yargs";
import { OperatingError } from "../../dlmd/base/error.ts";
import { type DlmdAnswer, askDlmd } from "./dlmd-query.ts";
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

/** For people: a few lines. */
export function describeStatus({ info, view }: DlmdAnswer, overlay: OverlayStatus | null): string {
  const name = (nodeid: number): string => info.nodes.find((node) => node.nodeid === nodeid)?.name ?? String(nodeid);
  const away = info.nodes.filter(({ nodeid }) => !view.members.includes(nodeid)).map((node) => node.name);
  return [
    `cluster  ${info.clusterName}`,
    `node     ${name(info.nodeid)} (nodeid ${info.nodeid})`,
    `view     ${view.members.map(name).join(", ")}${away.length === 0 ? "" : `; away: ${away.join(", ")}`}`,
    `quorum   ${view.quorumReason}`,
    `locks    ${view.running ? "granted" : "requests wait (recovery, or no quorum)"}`,
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
      const { overlaySecret: _, ...info } = asked.info;
      if (json) printJson({ cluster: info, view: asked.view, dlmd: asked.answer, overlay });
      else print(describeStatus(asked, overlay));
      return asked.view.quorate ? EXIT.OK : EXIT.FAILURE;
    }),
};

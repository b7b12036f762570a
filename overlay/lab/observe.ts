/** What a lab looks like now, from what runs, without touching a mount. */
import { askDlmd } from "../query/dlmd-query.ts";
import { readOverlayFile, queryOverlayStatus } from "../query/overlay-query.ts";
import type { ViewInfo } from "../../dlmd/client/api.ts";
import { overlayProcess } from "./boot.ts";
import { mountsUnder } from "./fuse-mounts.ts";
import { isHung } from "./power.ts";
import { isAlive, isStopped, processRef } from "./processes.ts";
import { type LabNode, type LabState, type NodeNetwork, labNodes } from "./state.ts";

/** The live view asks every second; an overlay that takes longer is shown as such. */
const LOOK_TIMEOUT_MS = 900;

/** A node as `lab up --json` prints it (LAB contract), for each node one line. */
export interface NodeLine {
  readonly node: string;
  readonly nodeid: number;
  readonly mount: string;
  /** Name under /run/netns. */
  readonly netns: string;
  /** null: not running. */
  readonly dlmdPid: number | null;
  readonly overlayPid: number | null;
  readonly runDir: string;
}

export interface NodeReport extends NodeLine {
  /** "up", or what is missing: "off", "stopped", "no dlmd", "not mounted", "mount dead", "not answering". */
  readonly state: string;
  /** "owner" or what the overlay says it is; null: no overlay. */
  readonly role: string | null;
  readonly address: string;
  readonly device: string | null;
  readonly cut: boolean;
  /** Its disk does not answer. */
  readonly hung: boolean;
  /** Its programs that stand still. */
  readonly stalled: readonly string[];
  readonly network: NodeNetwork;
  readonly ops: number | null;
  readonly locks: number | null;
  /** The node's own view of the cluster; null where it was not asked or did not answer. */
  readonly view: ViewInfo | null;
}

export function nodeLine(lab: LabState, node: LabNode): NodeLine {
  return {
    node: node.node,
    nodeid: node.nodeid,
    mount: node.mount,
    netns: node.netns,
    dlmdPid: node.dlmd !== null && isAlive(node.dlmd) ? node.dlmd.pid : null,
    overlayPid: overlayProcess(lab, node)?.pid ?? null,
    runDir: node.runDir,
  };
}

async function observeNode(lab: LabState, node: LabNode, withView: boolean): Promise<NodeReport> {
  const line = nodeLine(lab, node);
  // Whoever does not answer in time is what the report is about, so the reason is not an error here.
  const status = line.overlayPid === null ? null : await queryOverlayStatus(node.runDir, LOOK_TIMEOUT_MS, node.mount).catch(() => null);
  const view =
    withView && line.dlmdPid !== null
      ? await askDlmd(node.runDir, null).then(
          (answer) => answer.view,
          () => null,
        )
      : null;
  const programs = { dlmd: node.dlmd, overlay: line.overlayPid === null ? null : processRef(line.overlayPid) };
  const mounted = mountsUnder(node.mount).length > 0;
  return {
    ...line,
    state: stateWord(node, line, mounted, status !== null),
    role: status?.role ?? (line.overlayPid === null ? null : (readOverlayFile(node.runDir, node.mount)?.role ?? null)),
    address: node.address,
    device: node.device,
    cut: node.cut,
    hung: isHung(lab, node),
    stalled: Object.entries(programs).flatMap(([name, ref]) => (ref !== null && isStopped(ref) ? [name] : [])),
    network: node.network,
    ops: status?.ops ?? null,
    locks: status?.locks ?? null,
    view,
  };
}

function stateWord(node: LabNode, line: NodeLine, mounted: boolean, answers: boolean): string {
  if (node.power !== "on") return node.power;
  if (line.dlmdPid === null) return "no dlmd";
  if (!mounted) return "not mounted";
  if (line.overlayPid === null) return "mount dead";
  return answers ? "up" : "not answering";
}

/** `withView`: asks each dlmd too, through a connection made for it. */
export function observe(lab: LabState, withView: boolean): Promise<NodeReport[]> {
  return Promise.all(labNodes(lab).map((node) => observeNode(lab, node, withView)));
}

/** The name of the node whose overlay has the lower mounted; null where no living overlay says so. */
export function ownerOf(lab: LabState): string | null {
  const owner = labNodes(lab).find(
    (node) => overlayProcess(lab, node) !== null && readOverlayFile(node.runDir, node.mount)?.role === "owner",
  );
  return owner?.node ?? null;
}

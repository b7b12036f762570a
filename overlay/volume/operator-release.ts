/**
 * An operator's word that the life in an owner's block is over: for a machine that is gone for good, where no proof can come any more.
 * Refused where it can be seen to be wrong: while that node is in the view, or the device is in use here. This node itself may say it of a
 * machine, or a boot, that had its place before.
 */
import { isDeepStrictEqual } from "node:util";
import { OperatingError } from "../../dlmd/base/error.ts";
import type { ClusterInfo, ViewInfo } from "../../dlmd/client/api.ts";
import { bootId } from "../../dlmd/base/machine.ts";
import { requireOwnerBlock } from "./bit.ts";
import { describeHolders, tryExclusive } from "./device.ts";
import { readOwnerBlock, writeOwnerBlock } from "./direct-block.ts";
import type { Life } from "./life.ts";
import { probeDevice } from "./probe.ts";

/** What dlmd of this node says now. */
type AskCluster = () => Promise<{ readonly info: ClusterInfo; readonly view: ViewInfo }>;

/** Gives the life that is over. `owner`: its node, by name or nodeid. Throws OperatingError. */
export async function releaseByWord(device: string, owner: string, ask: AskCluster): Promise<Life> {
  const cluster = await ask();
  const { bit } = probeDevice(device);
  if (bit.kind === "none") throw refused("no-bit", `${device} has no clustered bit`, "Name the device of a volume.");
  if (bit.kind === "bad") throw bit.error;
  const offset = requireOwnerBlock(bit.bit, device);
  const block = await readOwnerBlock(device, offset, bit.bit.uuid);
  if (block.state === "released") {
    throw refused("not-owned", `${device}: its owner's block names nobody`, "Nothing has to be released: mount it.");
  }
  const { life } = block;
  requireNamed(device, life, owner, cluster.info);
  requireGone(life, owner, cluster);
  if (tryExclusive(device) === "busy") {
    throw refused("device-busy", `${device} is ${describeHolders(device)}`, "Unmount it here first.");
  }
  // All of that may have taken long. An owner that is back does not write its block while it is mounted: the view alone shows it.
  requireGone(life, owner, await ask());
  // Another word or proof may have let a node claim it meanwhile. Between this look and the write nothing is waited for.
  if (!isDeepStrictEqual(await readOwnerBlock(device, offset, bit.bit.uuid), block)) {
    const hint = `See what it says now: coverlay volume show ${device}`;
    throw refused("changed-meanwhile", `${device}: its owner's block has been written since this command read it`, hint);
  }
  await writeOwnerBlock(device, offset, { ...block, state: "released", sequence: block.sequence + 1, atMs: Date.now() });
  return life;
}

function requireNamed(device: string, life: Life, owner: string, info: ClusterInfo): void {
  const name = info.nodes.find((node) => node.nodeid === life.nodeid)?.name ?? `node ${life.nodeid}`;
  if (owner === name || owner === String(life.nodeid)) return;
  throw refused(
    "other-owner",
    `${device}: its owner's block names ${name} (nodeid ${life.nodeid}), not ${owner}`,
    "Name the node that is gone for good: coverlay volume show tells which one the block names.",
  );
}

/** In a view without quorum nobody knows who else is there. */
function requireGone(life: Life, owner: string, { info, view }: Awaited<ReturnType<AskCluster>>): void {
  if (!view.quorate) throw refused("no-quorum", `the cluster has no quorum: ${view.quorumReason}`, "Start dlmd on more nodes first.");
  if (!view.members.includes(life.nodeid)) return;
  // The life is not of this boot: what had this nodeid then is gone, or another machine, and the operator knows which.
  if (life.nodeid === info.nodeid && life.bootId !== bootId()) return;
  throw refused(
    "node-is-there",
    `${owner} is in the cluster: it can be asked whether it has the volume mounted`,
    `Mount the volume: if the life in the block has ended there, that is found out by itself. If no proof comes, run this on ${owner}.`,
  );
}

function refused(code: string, message: string, hint: string): OperatingError {
  return new OperatingError(message, { code, hint });
}

/**
 * What may change while the cluster runs: nodes and votes (config/change.ts says how), volumes, and, with every node there, how votes are
 * counted. The rest needs all nodes to be stopped, because nodes that differ in it would not hear each other. Pure.
 */
import type { ClusterConfig } from "./cluster-config.ts";
import type { NodeConfig } from "./votes.ts";

const fixed = ["cluster", "keyFile", "multicast", "peerPort", "engine", "timeoutMs", "fencedLockspaces"] as const;

/** What differs and cannot be changed while a dlmd runs: it keeps these for its life. Null: nothing does. */
export function fixedDifference(from: ClusterConfig, to: ClusterConfig): string | null {
  return fixed.find((key) => JSON.stringify(from[key]) !== JSON.stringify(to[key])) ?? null;
}

/** Why that change is not allowed with those members; null: it is. One node and one vote at a time is config/change.ts's to say. */
export function changeObjection(from: ClusterConfig, to: ClusterConfig, members: readonly number[]): string | null {
  const different = fixedDifference(from, to);
  if (different !== null) {
    return `${different} cannot be changed while the cluster runs: stop dlmd on every node, put the same new file on each, and start each with --new-config`;
  }
  if (from.engine === "corosync") {
    return "with engine: corosync nothing changes while the cluster runs: stop dlmd on every node, put the same new file on each (and the same nodes and votes into corosync.conf), and start each with --new-config";
  }
  const before = new Map(from.nodes.map((node) => [node.nodeid, node]));
  const moved = to.nodes.find((node) => isMoved(before.get(node.nodeid), node) && members.includes(node.nodeid));
  if (moved !== undefined) return `node ${moved.nodeid} runs: stop its dlmd before its name or address is changed`;
  if (JSON.stringify(from.quorum) === JSON.stringify(to.quorum)) return null;
  if (JSON.stringify(from.nodes.map(votesOf)) !== JSON.stringify(to.nodes.map(votesOf)))
    return "one at a time: either the nodes or how votes are counted";
  const away = from.nodes.filter(({ nodeid }) => !members.includes(nodeid)).map(({ nodeid }) => nodeid);
  return away.length === 0 ? null : `every node must be there when it changes how votes are counted: nodes ${away.join(", ")} are away`;
}

/** Fence devices may change together with anything: they count nobody. */
function votesOf({ nodeid, name, address, votes }: NodeConfig): unknown {
  return [nodeid, name, address, votes];
}

function isMoved(before: NodeConfig | undefined, after: NodeConfig): boolean {
  return before !== undefined && (before.name !== after.name || before.address !== after.address);
}

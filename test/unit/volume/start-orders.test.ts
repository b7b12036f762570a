/**
 * All nodes lose their power, and are started one at a time, in every order there is: nobody has the lower before the last owner has ended for
 * sure, and once it has, one node is the owner and the others go through it. Each mount is tried again, as with -o wait.
 */
import { describe, expect, it } from "vitest";
import { OwnerCluster, seeded } from "./owner-cluster.ts";

function permutations(nodeids: readonly number[]): number[][] {
  if (nodeids.length === 0) return [[]];
  return nodeids.flatMap((first) => permutations(nodeids.filter((one) => one !== first)).map((rest) => [first, ...rest]));
}

/** Until nothing changes any more: a first mount asks three times for its proof, and fails. */
function rest(cluster: OwnerCluster): void {
  for (let turn = 0; turn < 4; turn++) {
    cluster.settle();
    cluster.askAgain();
  }
  cluster.settle();
}

/** Mounts again on those nodes whose mount was refused. */
function mountAgain(cluster: OwnerCluster, nodeids: readonly number[]): void {
  for (const nodeid of nodeids) if (!cluster.liveClients().some((client) => client.nodeid === nodeid)) cluster.start(nodeid);
  rest(cluster);
}

/** All of them have mounted, and all died. */
function afterDeath(nodes: number, owner: number, seed: number): OwnerCluster {
  const cluster = new OwnerCluster(nodes, seeded(seed));
  cluster.start(owner);
  rest(cluster);
  for (let nodeid = 1; nodeid <= nodes; nodeid++) if (nodeid !== owner) cluster.start(nodeid);
  rest(cluster);
  expect(cluster.owner()?.nodeid).toBe(owner);
  for (const client of cluster.liveClients()) cluster.kill(client);
  rest(cluster);
  return cluster;
}

const ascending = (nodeids: readonly number[]): number[] => nodeids.toSorted((a, b) => a - b);

const cases = [3, 4].flatMap((nodes) => Array.from({ length: nodes }, (_, at) => ({ nodes, owner: at + 1 })));

describe.each(cases)("$nodes nodes, of which node $owner was the owner", ({ nodes, owner }) => {
  const nodeids = Array.from({ length: nodes }, (_, at) => at + 1);

  it("started in every order: nobody mounts before it is there, and then all do", () => {
    for (const order of permutations(nodeids)) {
      const cluster = afterDeath(
        nodes,
        owner,
        order.reduce((seed, nodeid) => seed * 5 + nodeid, owner),
      );
      for (const [at, nodeid] of order.entries()) {
        // Its machine is there in another boot, and says so.
        if (nodeid === owner) cluster.fence(owner);
        const started = order.slice(0, at + 1);
        mountAgain(cluster, started);
        const mounted = cluster.liveClients().map((client) => client.nodeid);
        expect([started, ascending(mounted)]).toEqual([started, started.includes(owner) ? ascending(started) : []]);
        expect([started, cluster.owner() !== null]).toEqual([started, started.includes(owner)]);
      }
      expect(cluster.liveClients().filter((client) => client.core.role === "remote")).toHaveLength(nodes - 1);
    }
  });

  it("the others are started, and it never is: they are refused, and name it; with a proof they go on", () => {
    const cluster = afterDeath(nodes, owner, owner);
    const others = nodeids.filter((nodeid) => nodeid !== owner);
    mountAgain(cluster, others);
    expect(cluster.liveClients()).toEqual([]);
    for (const { left } of cluster.clients.slice(nodes)) {
      expect(left?.error).toMatchObject({ code: "still-owned", message: expect.stringContaining(`node${owner} has the volume mounted`) });
    }
    cluster.fence(owner);
    mountAgain(cluster, others);
    expect(others).toContain(cluster.owner()?.nodeid);
    expect(cluster.liveClients()).toHaveLength(nodes - 1);
  });
});

/** One node at a time runs a fence agent, with a lease (hazard M2): also one that was a quorum by itself for a while, whose lease had no end then. */
import { describe, expect, test } from "vitest";
import { FenceWorld, failed, ok, plansFor, running } from "./fence-world.ts";

/** Node 5 dies, node 1 runs its agent, and is cut off from 2, 3 and 4. Node 2 fences it; it boots and serves. Then node 1's try fails. */
function executorCutOff(aloneFirst: boolean): readonly string[] {
  const world = new FenceWorld(5, plansFor([1, 2, 3, 4, 5], { retries: 1 }));
  world.together();
  if (aloneFirst) {
    for (const nodeid of [5, 4, 3, 2]) {
      world.input(nodeid, { kind: "announce-leave" });
      world.pass(700);
      world.input(nodeid, { kind: "leave" });
      world.pass(400);
      world.crash(nodeid);
    }
    world.until("node 1 is a quorum by itself", () => world.core(1).engine.leaseEndMs === Number.POSITIVE_INFINITY);
    for (const nodeid of [2, 3, 4, 5]) world.restart(nodeid);
    world.together();
    world.pass(1000);
  }
  const life = world.life(5);
  world.crash(5);
  world.together();
  world.fence(2, life);
  world.until("node 1 runs an agent", () => world.agents.length === 1);
  for (const nodeid of [2, 3, 4]) world.cut(1, nodeid);
  world.until("node 2 runs one", () => world.ran.length === 2, 5000);
  const two = world.agents.findIndex(({ executor }) => executor === 2);
  const [agent] = world.agents.splice(two, 1);
  world.input(2, { kind: "fence-ran", runId: agent?.runId ?? 0, result: ok });
  world.settle();
  world.until("node 5 is fenced", () => world.fence(3, life).kind === "fenced");
  world.restart(5);
  world.settle();
  world.cut(1, 5);
  world.until("node 5 serves", () => world.core(5).recovery.serving);
  if (world.agents.length > 0) {
    world.end(failed, 5);
    world.pass(500);
  }
  return world.ran;
}

describe("an executor that is cut off", () => {
  test.each([false, true])("tries once; it was alone before: %s", (aloneFirst) => {
    expect(executorCutOff(aloneFirst)).toEqual(["1>5 ipmi5", "2>5 ipmi5"]);
  });
});

test("a node that is taken out of the configuration and put in again stays out while an agent runs against it", () => {
  const { world } = running(plansFor([1, 2, 3, 4, 5]), 3);
  const { configuration } = world.core(1);
  const { nodes } = configuration;
  const without = nodes.filter(({ nodeid }) => nodeid !== 3);
  for (const nodeid of [1, 2])
    world.input(nodeid, { kind: "configuration", configuration: { ...configuration, version: 2, nodes: without } });
  world.pass(2000);
  for (const nodeid of [1, 2]) world.input(nodeid, { kind: "configuration", configuration: { ...configuration, version: 3, nodes } });
  world.pass(1000);
  expect(world.agents).toHaveLength(1);
  world.restart(3);
  world.input(3, { kind: "configuration", configuration: { ...configuration, version: 3, nodes } });
  const members = (): number[] => world.view(1)?.members.map(({ nodeid }) => nodeid) ?? [];
  world.pass(5000, () => members().length === 3);
  expect(members()).toEqual([1, 2]);
  world.end(ok);
  world.until("it is a member again", () => members().length === 3);
});

/** A change of the configuration that comes to a member in the midst of a proposal: the proposer cannot count by it, and leaves the view to that member. */
import { expect, it } from "vitest";
import type { NodeConfiguration } from "../../../dlmd/engine/boot.ts";
import { timeoutMs, World } from "../../scenario/world.ts";

it("the member with the later configuration makes the next view, and the first proposer does not hold it up", () => {
  const proposals: Set<string> = new Set();
  let watched = false;
  const world: World = new World(3, {}, [], 0, {
    effect: (nodeid, effect) => {
      if (!watched || effect.kind !== "datagram" || effect.message.kind !== "propose") return;
      // Node 2 has it before the proposal comes, and node 1 has not heard of it.
      const configuration: NodeConfiguration = { version: 2, nodes: world.configs };
      if (proposals.size === 0) world.input(2, { kind: "configuration", configuration });
      proposals.add(`node ${nodeid}, view ${effect.message.view.epoch}`);
    },
  });
  expect(world.pass(100 * timeoutMs, () => world.serving())).toBe(true);
  watched = true;
  world.crash(3);
  expect(world.pass(100 * timeoutMs, () => world.serving())).toBe(true);
  // The promise to node 1 keeps node 2 back once; each further proposal of node 1 would do so again.
  expect([...proposals]).toEqual(["node 1, view 2", "node 2, view 3"]);
});

it("a configuration that comes to the members within moments makes one proposal, of the lowest of them, whoever had it first", () => {
  const proposals: string[] = [];
  let watched = false;
  const world: World = new World(3, {}, [], 0, {
    effect: (nodeid, effect) => {
      if (watched && effect.kind === "log" && effect.message === "proposing a view")
        proposals.push(`node ${nodeid}: ${String(effect.fields["why"])}`);
    },
  });
  expect(world.pass(100 * timeoutMs, () => world.serving())).toBe(true);
  // The view is not new any more.
  world.pass(timeoutMs, () => false);
  watched = true;
  for (const version of [2, 3, 4]) {
    for (const nodeid of [3, 2, 1]) {
      world.input(nodeid, { kind: "configuration", configuration: { version, nodes: world.configs } });
      world.pass(0.03 * timeoutMs, () => false);
    }
    world.pass(timeoutMs, () => false);
    expect([version, world.serving(), proposals.splice(0)]).toEqual([version, true, ["node 1: votes changed"]]);
  }
});

/** For which programs corosync must not end on a node (corosync/link.ts). */
import { expect, it } from "vitest";
import type { NodeCore } from "../../../dlmd/node.ts";
import { World } from "../../scenario/world.ts";

it("programs with an open lockspace, and not those that have ended, though others have not let go of them yet", () => {
  const world = new World(2, {}, [], 0);
  expect(world.pass(20_000, () => world.serving())).toBe(true);
  const core = (world.nodes.get(1) as { core: NodeCore }).core;
  expect(core.programsAtWork()).toEqual([]);
  world.program("p", 1, "", false);
  world.program("q", 2, "", false);
  world.pass(500);
  expect(core.programsAtWork()).toHaveLength(1);
  world.stand(2);
  world.die("p");
  world.pass(100);
  expect([core.clients.all.size, core.programsAtWork()]).toEqual([1, []]);
});

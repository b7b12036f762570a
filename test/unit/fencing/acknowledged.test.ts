/** A person's word for a node that is dead, where several wait for it, or where the configuration does not name it any more. */
import { expect, test } from "vitest";
import { nodeWord } from "../../../dlmd/base/node-word.ts";
import { acknowledgeFence } from "../../../dlmd/driver/fence-acknowledgement.ts";
import type { ClusterInfo } from "../../../dlmd/client/api.ts";
import { waitedNode } from "../../../overlay/cli/fence.ts";
import { FenceWorld, failed, plansFor } from "./fence-world.ts";

test("a lockspace and a fence both wait for it: one word is enough, and is said to be taken", () => {
  const world = new FenceWorld(3, plansFor([1, 2, 3]), () => ({}), ["space"]);
  world.together();
  world.program("p", 3, "", false);
  world.program("q", 1, "", false);
  world.pass(500);
  world.crash(3);
  world.until("an agent runs", () => world.agents.length > 0);
  world.end(failed);
  const waits = (): number[] => [world.status(1).unfenced.length, world.status(1).fencing.wanted.length];
  world.until("both wait", () => world.agents.length === 0 && waits().join() === "1,1");
  const life = world.status(1).unfenced[0];
  const taken = acknowledgeFence(3, "anna", world.status(1), (event) => {
    const answer = world
      .core(1)
      .step(event, world.nowMs)
      .find(({ kind }) => kind === "fence-answer");
    return answer?.kind === "fence-answer" ? answer.refused : null;
  });
  expect(taken).toEqual(life);
  expect(waits()).toEqual([0, 0]);
});

test("by its number, if only that is known of it: what is waited for counts, and not the configuration alone", () => {
  const info = { nodes: [{ nodeid: 2, name: "node2", address: "" }] } as unknown as ClusterInfo;
  const waits = { unfenced: [{ nodeid: 1 }], fencing: { wanted: [{ nodeid: 3 }] } } as unknown as Parameters<typeof waitedNode>[1];
  expect(["1", "3", "2", "node2"].map((node) => waitedNode(info, waits, node))).toEqual([1, 3, 2, 2]);
  expect(() => waitedNode(info, waits, "4")).toThrow("a node of the cluster expected, found 4");
  expect(["node 1", "node1", "a node 1"].map(nodeWord)).toEqual(["1", "node1", "a node 1"]);
});

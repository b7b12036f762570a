/** What a node remembers of the views that it was in. */
import { expect, it } from "vitest";
import type { NodeCore } from "../../../dlmd/node.ts";
import type { StatusAnswer } from "../../../dlmd/query/answer.ts";
import { MAX_VIEWS, ViewHistory } from "../../../dlmd/query/view-history.ts";
import type { ViewInfo } from "../../../dlmd/wire/program.ts";
import { World } from "../../scenario/world.ts";

function view(epoch: number): ViewInfo {
  const incarnations = ["00000000000000aa"];
  const viewId = `${epoch}.1.${incarnations[0]}`;
  return { viewId, quorate: false, members: [1], incarnations, quorumReason: "1 of 3 votes", running: false };
}

it("has the last views with their time, and forgets the oldest", () => {
  const history = new ViewHistory();
  expect(history.records).toEqual([]);
  for (let epoch = 1; epoch <= MAX_VIEWS + 3; epoch++) history.enterView(view(epoch), 1000 + epoch);
  expect(history.records).toHaveLength(MAX_VIEWS);
  expect(history.records[0]).toEqual({
    viewId: "4.1.00000000000000aa",
    quorate: false,
    members: [1],
    incarnations: ["00000000000000aa"],
    quorumReason: "1 of 3 votes",
    atMs: 1004,
  });
  expect(history.records.at(-1)?.atMs).toBe(1000 + MAX_VIEWS + 3);
});

it("a node tells in its status that another one went, and when", () => {
  const world = new World(3, {}, [], 0);
  expect(world.pass(20_000, () => world.serving())).toBe(true);
  const core = (world.nodes.get(1) as { core: NodeCore }).core;
  const seen = (): StatusAnswer => core.query("status", world.nowMs) as StatusAnswer;
  const before = seen();
  expect(before.views.at(-1)).toMatchObject({ viewId: before.viewId, members: [1, 2, 3], quorate: true });
  world.crash(3);
  expect(world.pass(20_000, () => seen().members.length === 2)).toBe(true);
  const after = seen();
  expect(after.views).toHaveLength(before.views.length + 1);
  expect(after.views.at(-1)).toMatchObject({ viewId: after.viewId, members: [1, 2], quorumReason: after.quorumReason });
  expect((after.views.at(-1)?.atMs ?? 0) - (before.views.at(-1)?.atMs ?? 0)).toBeGreaterThan(0);
});

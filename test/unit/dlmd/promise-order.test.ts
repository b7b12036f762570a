/**
 * A node that promises a view acknowledges nothing in the one before (hazard C4). Its main thread may stand still in the midst of a step: so the thread of its
 * heartbeats is told before the promise is written to the disk, and its last word is there when that has ended.
 */
import { expect, it } from "vitest";
import { timeoutMs, World } from "../../scenario/world.ts";

it("C4: heartbeats are told of a promise before the disk is", () => {
  /** Of each node, what its heartbeats were told last; and the epoch of its view. */
  const stopped = new Map<number, boolean>();
  const epochs = new Map<number, number>();
  const promised: (boolean | undefined)[] = [];
  const world = new World(3, {}, [], 0, {
    effect: (nodeid, effect) => {
      if (effect.kind === "beat" && effect.content !== null) {
        stopped.set(nodeid, effect.content.stopped);
        epochs.set(nodeid, effect.content.view.epoch);
      }
      if (effect.kind === "persist" && effect.promisedEpoch > effect.lineage.id.epoch) promised.push(stopped.get(nodeid));
    },
  });
  expect(world.pass(100 * timeoutMs, () => world.serving())).toBe(true);
  world.cut(1, 3);
  world.cut(2, 3);
  world.pass(6 * timeoutMs);
  expect(promised.length).toBeGreaterThan(5);
  expect(new Set(promised)).toEqual(new Set([true]));
  expect(Math.max(...epochs.values())).toBeGreaterThan(1);
});

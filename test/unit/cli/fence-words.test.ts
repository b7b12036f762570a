/** What `coverlay status` and `fence show` say of a node that has not got its storage back. */
import { expect, test } from "vitest";
import { describeWaits, type Fences, fencesOf } from "../../../overlay/cli/fence-words.ts";

const before = { unfenced: [], fenced: [], fencedLockspaces: [] };
const name = (nodeid: number): string => `node${nodeid}`;
const lines = (unfencing: Fences["fencing"]["unfencing"]): string[] =>
  describeWaits({ ...before, fencing: { devices: [1], wanted: [], unfencing, history: [] } }, name, 0);

test("an `on` that failed is a line, with when it is tried again", () => {
  expect(lines([])).toEqual([]);
  const failure = "array: no such disk";
  expect(lines([{ device: "array", rounds: 3, failure, againAfterMs: 4000 }])).toEqual([
    "this node is not unfenced at array and cannot write to that storage: 3 rounds failed, the last: array: no such disk; again in 4.0 s",
  ]);
  expect(lines([{ device: "array", rounds: 1, failure, againAfterMs: 0 }])).toEqual([
    "this node is not unfenced at array and cannot write to that storage: one round failed, the last: array: no such disk",
  ]);
});

test("a dlmd that says nothing of it says the rest", () => {
  expect(fencesOf({ ...before, fencing: { devices: [1], wanted: [], history: [] } })?.fencing.unfencing).toEqual([]);
});

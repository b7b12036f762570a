/** How the cluster came to its configuration, as a node remembers it (dlmd/config/trail.ts). */
import { expect, test } from "vitest";
import { type AgreedVersion, MAX_TRAIL, follows, hasAll, mergeTrails } from "../../../dlmd/config/trail.ts";

const step = (version: number, nodeids: readonly number[], agreedBy: readonly number[]): AgreedVersion => ({
  version,
  nodes: nodeids.map((nodeid) => ({ nodeid, votes: 1 })),
  agreedBy,
});

test("the newest versions are remembered, and the oldest are forgotten", () => {
  const all = Array.from({ length: MAX_TRAIL + 1 }, (_, at) => step(at + 1, [1, 2, 3], [1, 2]));
  expect(mergeTrails(MAX_TRAIL + 1, all).map(({ version }) => version)).toEqual(all.slice(0, -1).map(({ version }) => version));
  expect(mergeTrails(MAX_TRAIL + 2, all).map(({ version }) => version)).toEqual(all.slice(1).map(({ version }) => version));
});

test("what two nodes know of one version is one thing; files of one version with other votes stay apart", () => {
  const merged = mergeTrails(
    9,
    [step(2, [1, 2, 3], [1, 2]), step(3, [1, 2], [])],
    [step(2, [1, 2, 3], [2, 3]), step(2, [3], [3]), step(9, [1], [1])],
  );
  expect(merged).toEqual([step(2, [1, 2, 3], [1, 2, 3]), step(2, [3], [3])]);
  expect(hasAll(merged, [step(2, [1, 2, 3], [1, 3])])).toBe(true);
  expect(hasAll([step(2, [1, 2, 3], [1, 2])], merged)).toBe(false);
  expect(hasAll([step(2, [1, 2, 3], [1, 2, 3])], merged)).toBe(false);
});

test("a version follows by the votes of each version before it, and versions may be missing in between", () => {
  const from = step(1, [1, 2, 3, 4, 5], []);
  const last = step(7, [1, 2], [1, 2]);
  const trail = [step(3, [1, 2, 3, 4], [1, 2, 3]), step(5, [1, 2, 3], [1, 2, 3])];
  expect(follows(from, trail, last)).toBe(true);
  expect(follows(from, [], last)).toBe(false);
  // Four votes: two are no majority, and version 5 was the link.
  expect(follows(from, trail.slice(0, 1), last)).toBe(false);
  // It says nothing that comes before what this node has itself.
  expect(follows({ ...from, version: 5 }, trail, last)).toBe(false);
});

/** The parts of a failover, from the logs of those that live. */
import { describe, expect, it } from "vitest";
import { failoverParts, firstAfter, nodeLog } from "../../bench/failover-parts.ts";

const KILLED_MS = Date.parse("2026-11-22T23:59:58.000Z");
const VIEW = "viewId=4.1.06b5";

describe("of an owner on node 3 that dies just before midnight", () => {
  const one = nodeLog("node1", [
    [
      `23:59:57.000 info  view ${VIEW} members=[1,2] quorate=true running=true`,
      "ready",
      `23:59:58.500 info  view ${VIEW} members=[1,2,3] quorate=true running=false`,
      `23:59:58.700 info  view ${VIEW} members=[1,2] quorate=false running=false`,
      `00:00:00.900 info  proposing a view view=4.1.06b5 members=[1,2] why="lost node 3"`,
      `00:00:01.000 info  view ${VIEW} members=[1,2] quorate=true running=false`,
      `00:00:01.100 info  view ${VIEW} members=[1,2] quorate=true running=true`,
    ].join("\n"),
  ]);
  const two = nodeLog("node2", [
    "00:00:03.000 info  the owner before is fenced, and its disk is quiet node=node3\n",
    "00:00:03.250 info  lower mounted epoch=5\n",
  ]);

  it("are one after the other, and together the whole pause", () => {
    expect(failoverParts([one, two], KILLED_MS, 3, 5400)).toEqual({
      detectionMs: 2900,
      viewMs: 100,
      fenceMs: 2000,
      mountMs: 250,
      answerMs: 150,
    });
  });

  it("are null where the logs do not have them", () => {
    expect(failoverParts([one], KILLED_MS, 3, 5400)).toEqual({
      detectionMs: 2900,
      viewMs: 100,
      fenceMs: null,
      mountMs: null,
      answerMs: 5400,
    });
    expect(firstAfter([one, two], KILLED_MS, 5000, /lower mounted/)).toBeNull();
    expect(firstAfter([one, two], KILLED_MS, 5250, /lower mounted/)).toBe(5250);
  });

  it("a view that has a node of two digits is not one without node 3", () => {
    const lines = [
      '23:59:59.000 info  proposing a view why="lost node 3"',
      `23:59:59.100 info  view ${VIEW} members=[1,13] quorate=true running=true`,
    ];
    const log = nodeLog("node1", [lines.join("\n")]);
    expect(failoverParts([log], KILLED_MS, 3, 9000).viewMs).toBe(100);
    expect(failoverParts([log], KILLED_MS, 13, 9000).viewMs).toBeNull();
    expect(failoverParts([log], KILLED_MS, 1, 9000).viewMs).toBeNull();
  });
});

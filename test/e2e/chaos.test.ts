/** Ten cycles of chaos (test/chaos/README.md) under one seed: each node, its network and its disk are broken under load. */
import { expect, it } from "vitest";
import { faultKinds } from "../chaos/fault.ts";
import { runChaos } from "../chaos/run.ts";

it("ten cycles of faults under load: nothing synced is lost, all nodes agree, the disk is clean, and nothing is left", {
  timeout: 600_000,
}, async () => {
  const options = {
    seed: 9,
    from: 1,
    cycles: 10,
    lower: "ext4",
    nodes: 3,
    kinds: faultKinds,
    holdPercent: 50,
    fence: true,
    keep: null,
  } as const;
  const report = await runChaos(options, () => undefined);
  expect([report.violations, report.cycles.flatMap(({ violations }) => violations)]).toEqual([[], []]);
  expect(report.cycles).toHaveLength(10);
  // It was under load, faults of several kinds have happened, and a disk has lost what was not flushed.
  expect(Math.min(...report.cycles.map(({ calls }) => calls))).toBeGreaterThan(100);
  expect(new Set(report.cycles.flatMap(({ faults }) => faults.map((words) => words.split(" ")[0]))).size).toBeGreaterThan(4);
  // The others have gone on by themselves before it came back: it was fenced.
  expect(report.cycles.flatMap(({ faults }) => (faults.length === 1 ? faults : []))).toContainEqual(
    expect.stringMatching(/^(power-off|partition|deaf|mute) of the owner/),
  );
  expect(report.cycles.at(-1)?.lostWrites).toBeGreaterThan(0);
  expect(report.cycles.flatMap(({ undecided }) => undecided)).toEqual([]);
});

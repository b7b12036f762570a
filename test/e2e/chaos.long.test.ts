/** More cycles of chaos (test/chaos/README.md): on XFS, and with two faults at a time on nodes whose owner's disk fails too. */
import { expect, it } from "vitest";
import { faultKinds } from "../chaos/fault.ts";
import { runChaos } from "../chaos/run.ts";

it.each([
  { seed: 20, from: 1, lower: "xfs" },
  { seed: 13, from: 17, lower: "ext4" },
] as const)("ten cycles of seed $seed on $lower", { timeout: 600_000 }, async (chosen) => {
  const report = await runChaos(
    { ...chosen, cycles: 10, nodes: 3, kinds: faultKinds, holdPercent: 100, fence: false, keep: null },
    () => undefined,
  );
  expect([report.violations, report.cycles.flatMap(({ violations }) => violations)]).toEqual([[], []]);
  expect(report.cycles).toHaveLength(10);
});

/** Chaos (test/chaos/README.md): each node, its network and its disk are broken under load; on both file systems, with a fence and without one. */
import { expect, it } from "vitest";
import { faultKinds } from "../chaos/fault.ts";
import { runChaos } from "../chaos/run.ts";

/** Of each seed. */
const CYCLES = Number(process.env["COVERLAY_CHAOS_CYCLES"] ?? 2);
/** With what a cycle takes at most: four waits of EVENT_TIMEOUT_MS each. */
const CYCLE_LIMIT_MS = 300_000;

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

it.each([
  { seed: 31, lower: "ext4", fence: true },
  { seed: 32, lower: "xfs", fence: false },
] as const)(
  "$lower, seed $seed, fence $fence: nothing synced is lost, all nodes agree, the disk is clean, and nothing is left",
  {
    timeout: CYCLES * CYCLE_LIMIT_MS,
  },
  async ({ seed, lower, fence }) => {
    const options = { seed, from: 1, cycles: CYCLES, lower, nodes: 3, kinds: faultKinds, holdPercent: 100, fence, keep: null } as const;
    const report = await runChaos(options, () => undefined);
    expect([report.violations, report.cycles.flatMap(({ violations }) => violations)]).toEqual([[], []]);
    expect(report.cycles).toHaveLength(CYCLES);
    expect(report.cycles.flatMap(({ undecided }) => undecided)).toEqual([]);
    expect(Math.min(...report.cycles.map(({ calls }) => calls))).toBeGreaterThan(100);
  },
);

/** More chaos than chaos.test.ts has (test/chaos/README.md): other seeds, both file systems, with a fence and without one. */
import { expect, it } from "vitest";
import { faultKinds } from "../chaos/fault.ts";
import { runChaos } from "../chaos/run.ts";

/** Of each seed. */
const CYCLES = Number(process.env["COVERLAY_CHAOS_CYCLES"] ?? 4);
/** With what a cycle takes at most: four waits of EVENT_TIMEOUT_MS each. */
const CYCLE_LIMIT_MS = 300_000;

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

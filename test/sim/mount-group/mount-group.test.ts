/** Mounters of a volume under random joins, ends and faults. More: COVERLAY_MOUNT_GROUP_SEEDS=500, or `npm run sim -- --of mount-group`. */
import { expect, it } from "vitest";
import { MountGroupSim } from "./mount-group-sim.ts";

const seeds = Number(process.env["COVERLAY_MOUNT_GROUP_SEEDS"] ?? 32);
const steps = 1800;

it("jids, recovery and blocks hold under joins, ends and faults, and at rest everybody goes on", { timeout: 60_000 + 4000 * seeds }, () => {
  const total = new Map<string, number>();
  for (let seed = 1; seed <= seeds; seed++) {
    const sim = new MountGroupSim(seed);
    try {
      sim.run(steps);
    } catch (error) {
      const { engines } = sim;
      const where = `seed ${seed}, step ${engines.steps}, ${engines.agenda.nowMs.toFixed(2)} ms`;
      throw new Error(`${where}: ${String(error)}; last events:\n${engines.lastEvents()}`, { cause: error });
    }
    for (const [what, count] of Object.entries(sim.checker.counts)) total.set(what, (total.get(what) ?? 0) + count);
  }
  // Each of them happened, and not by chance.
  expect([...total].filter(([, count]) => count <= seeds / 8)).toEqual([]);
  expect(total.size).toBeGreaterThan(8);
});

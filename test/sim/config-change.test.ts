import { expect, test } from "vitest";
import { ConfigSim } from "./config-change.ts";

const seeds = Number(process.env["COVERLAY_CONFIG_SEEDS"] ?? 40);
const steps = Number(process.env["COVERLAY_CONFIG_STEPS"] ?? 1500);

test("hazard C8: never two quorums, whatever crashes between the steps of a change; after a rest all agree", () => {
  let changes = 0;
  let refused = 0;
  for (let seed = 1; seed <= seeds; seed++) {
    const sim = new ConfigSim(seed);
    try {
      changes += sim.run(steps).committedVersion - 1;
      refused += sim.refused;
    } catch (error) {
      throw new Error(`seed ${seed}: ${(error as Error).message}\n${sim.story.slice(-40).join("\n")}`, { cause: error });
    }
  }
  // The changes must have happened, or nothing was shown.
  expect(changes).toBeGreaterThan(seeds);
  // And some came at the same time as another.
  expect(refused).toBeGreaterThan(seeds);
});

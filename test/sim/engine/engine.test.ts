/** A short run of the engine's simulation; a long one: `node dist/test/sim/engine/run.js` with SEEDS and STEPS. */
import { expect, it } from "vitest";
import { EngineTrouble } from "./trouble.ts";

it.each([1, 11, 21, 31, 41, 51, 61, 71])("seeds from %i: order and virtual synchrony hold in 3000 steps of trouble", (from) => {
  let delivered = 0;
  for (let seed = from; seed < from + 10; seed++) {
    const trouble = new EngineTrouble({ seed, steps: 3000 });
    const { sim } = trouble;
    try {
      trouble.run(3000);
    } catch (error) {
      throw new Error(`seed ${seed}, step ${sim.steps}, ${sim.agenda.nowMs.toFixed(2)} ms; last events:\n${sim.lastEvents()}`, {
        cause: error,
      });
    }
    delivered += sim.checker.delivered;
  }
  expect(delivered).toBeGreaterThan(1000);
});

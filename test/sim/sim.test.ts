/** A short run of the simulation; a long one: `npm run sim`. */
import { expect, it } from "vitest";
import { Cluster } from "./cluster.ts";

const seeds = 40;

it.each(Array.from({ length: seeds / 10 }, (_, i) => i * 10 + 1))("seeds from %i: nothing wrong in 3000 steps of trouble", (from) => {
  for (let seed = from; seed < from + 10; seed++) {
    const cluster = Cluster.drawn({ seed });
    try {
      cluster.run(3000);
    } catch (error) {
      throw new Error(`seed ${seed}, step ${cluster.steps}, ${cluster.agenda.nowMs.toFixed(2)} ms; last events:\n${cluster.lastEvents()}`, {
        cause: error,
      });
    }
    expect(cluster.checker.grants).toBeGreaterThan(20);
  }
});

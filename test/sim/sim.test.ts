/** A short run of the simulation; a long one: `npm run sim`. */
import { expect, it } from "vitest";
import { Cluster } from "./cluster.ts";
import { runCluster } from "./simulations.ts";

const seeds = 40;
/** Of all seeds together. */
const happened = new Map<string, number>();

it.each(Array.from({ length: seeds / 10 }, (_, i) => i * 10 + 1))("seeds from %i: nothing wrong in 3000 steps of trouble", (from) => {
  for (let seed = from; seed < from + 10; seed++) {
    const { failure, counts } = runCluster(Cluster.drawn({ seed }), 3000);
    if (failure !== null) {
      throw new Error(
        `seed ${seed}, step ${failure.step}, ${failure.nowMs?.toFixed(2)} ms: ${failure.words}; last events:\n${failure.lastEvents}`,
      );
    }
    expect(counts["grants"]).toBeGreaterThan(20);
    for (const [name, count] of Object.entries(counts)) happened.set(name, (happened.get(name) ?? 0) + count);
  }
});

it("and all that can go wrong did, in one of them at least", () => {
  const never = [...happened].filter(([, count]) => count === 0).map(([name]) => name);
  expect(never).toEqual([]);
  expect(happened.size).toBeGreaterThan(10);
});

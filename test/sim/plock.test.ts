/** A short run of the simulation of file locks; a long one: `npm run sim -- --of file-locks`. */
import { expect, it } from "vitest";
import { PlockCluster } from "./plock-cluster.ts";

it.each([1, 11, 21, 31, 41, 51])("file locks, seeds from %i: nothing wrong in 3000 steps of trouble", (from) => {
  let grants = 0;
  for (let seed = from; seed < from + 10; seed++) {
    const cluster = new PlockCluster(seed);
    try {
      cluster.run(3000);
    } catch (error) {
      throw new Error(`seed ${seed}, step ${cluster.steps}; last events:\n${cluster.lastEvents()}`, { cause: error });
    }
    grants += cluster.checker.grants;
  }
  expect(grants).toBeGreaterThan(500);
});

import { describe, expect, it } from "vitest";
import { runModel } from "./cluster-model.ts";

const SEEDS = Number(process.env["COHERENCE_SEEDS"] ?? 300);
const STEPS = Number(process.env["COHERENCE_STEPS"] ?? 3000);

describe("F1 F9 F13: nodes that read and write one file through their page caches", () => {
  const shapes = [
    { nodes: 2, readersPerNode: 1, writersPerNode: 1 },
    { nodes: 3, readersPerNode: 2, writersPerNode: 1 },
    { nodes: 3, readersPerNode: 1, writersPerNode: 2 },
    { nodes: 3, readersPerNode: 1, writersPerNode: 1, truncatersPerNode: 1 },
    { nodes: 4, readersPerNode: 3, writersPerNode: 0 },
    { nodes: 3, readersPerNode: 2, writersPerNode: 2, truncatersPerNode: 1, lookersPerNode: 1, killed: 0.2 },
    { nodes: 2, readersPerNode: 1, writersPerNode: 1, lookersPerNode: 2, killed: 0.5 },
    { nodes: 3, readersPerNode: 1, writersPerNode: 2, born: true },
    { nodes: 2, readersPerNode: 1, writersPerNode: 2, truncatersPerNode: 1, lookersPerNode: 1, killed: 0.3, born: true },
  ];
  for (const shape of shapes) {
    it(`never reads what was overwritten, and everything ends: ${JSON.stringify(shape)}`, () => {
      let operations = 0;
      let heldBack = 0;
      let killed = 0;
      let implied = 0;
      let registered = 0;
      for (let seed = 1; seed <= SEEDS; seed += 1) {
        const result = runModel(seed, { ...shape, steps: STEPS });
        expect(result.violation, `seed ${seed}`).toBeNull();
        expect(result.unfinished, `operations unfinished, seed ${seed} after ${result.steps} steps`).toBe(0);
        operations += result.operations;
        heldBack += result.heldBack;
        killed += result.killed;
        implied += result.implied;
        registered += result.registered;
      }
      expect(operations).toBeGreaterThan(SEEDS * 20);
      expect(killed > SEEDS).toBe("killed" in shape);
      expect([implied > SEEDS, registered > SEEDS / 2]).toEqual(Array(2).fill("born" in shape));
      expect(heldBack > 0).toBe(shape.writersPerNode > 0);
    });
  }
});

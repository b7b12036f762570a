import { describe, expect, it } from "vitest";
import { runDirectoryModel } from "./directory-model.ts";

const SEEDS = Number(process.env["COHERENCE_SEEDS"] ?? 300);
const STEPS = Number(process.env["COHERENCE_STEPS"] ?? 3000);

describe("F6 F13 F48: nodes that look at two directories, change them and rename between them", () => {
  const shapes = [
    { nodes: 2, lookersPerNode: 1, listersPerNode: 0, changersPerNode: 1, renamersPerNode: 0 },
    { nodes: 2, lookersPerNode: 1, listersPerNode: 0, changersPerNode: 1, renamersPerNode: 1 },
    { nodes: 3, lookersPerNode: 2, listersPerNode: 0, changersPerNode: 1, renamersPerNode: 1 },
    { nodes: 4, lookersPerNode: 1, listersPerNode: 0, changersPerNode: 0, renamersPerNode: 1 },
    { nodes: 2, lookersPerNode: 1, listersPerNode: 2, changersPerNode: 1, renamersPerNode: 1 },
    { nodes: 3, lookersPerNode: 1, listersPerNode: 1, changersPerNode: 1, renamersPerNode: 1 },
    { nodes: 3, lookersPerNode: 2, listersPerNode: 0, changersPerNode: 2, renamersPerNode: 1, killed: 0.2 },
    { nodes: 3, lookersPerNode: 2, listersPerNode: 1, changersPerNode: 1, renamersPerNode: 1, killed: 0.2 },
  ];
  for (const shape of shapes) {
    it(`no name is believed that is not true any more, and everything ends: ${JSON.stringify(shape)}`, () => {
      const sums = { operations: 0, raised: 0, refused: 0, epochs: 0, listed: 0, waited: 0, killed: 0 };
      for (let seed = 1; seed <= SEEDS; seed += 1) {
        const result = runDirectoryModel(seed, { ...shape, steps: STEPS });
        expect(result.violation, `seed ${seed}`).toBeNull();
        expect(result.unfinished, `operations unfinished, seed ${seed} after ${result.steps} steps`).toBe(0);
        for (const key of ["operations", "raised", "refused", "epochs", "listed", "waited", "killed"] as const) sums[key] += result[key];
      }
      expect(sums.operations).toBeGreaterThan(SEEDS * 20);
      // Locks were raised in place, and two nodes met in that.
      expect([sums.raised > SEEDS, sums.refused > 0, sums.epochs > 0]).toEqual([true, true, true]);
      expect(sums.killed > SEEDS).toBe("killed" in shape);
      // A listing was under way when its directory was to go by epoch.
      expect([sums.listed > SEEDS, sums.waited > 0]).toEqual([shape.listersPerNode > 0, shape.listersPerNode > 0]);
    });
  }
});

import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { fakeClock } from "./fake-clock.ts";
import { runShellModel } from "./shell-model.ts";

// Its own functions are not played by fake timers.
vi.mock("node:timers/promises", () => ({ setTimeout: (ms: number) => new Promise((resolve) => setTimeout(resolve, ms)) }));

const [FIRST, LAST = FIRST] = (process.env["COVERLAY_SHELL_SEEDS"] ?? "1-12").split("-").map(Number) as [number, number?];
const STEPS = 2500;

beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "Date"] }));
afterEach(() => void vi.useRealTimers());

describe("F4 F6 F9 F13 F42: shells of several nodes whose programs make, find, change, move and remove files", () => {
  const shapes = [
    { nodes: 2, programsPerNode: 2, killed: 0 },
    { nodes: 3, programsPerNode: 2, killed: 0.1 },
    { nodes: 3, programsPerNode: 3, killed: 0.1, lapses: true },
    { nodes: 2, programsPerNode: 3, killed: 0, cachedMax: 3 },
    { nodes: 3, programsPerNode: 2, killed: 0.05, alone: true },
    { nodes: 3, programsPerNode: 2, killed: 0.05, lapses: true, cachedMax: 4, alone: true },
    { nodes: 3, programsPerNode: 2, killed: 0.05, lapses: true, cachedMax: 4, opensMade: true },
  ];
  for (const shape of shapes) {
    it(`nothing outdated is shown, all ends, and no lock is left: ${JSON.stringify(shape)}`, async () => {
      const sums: Record<string, number> = {};
      for (let seed = FIRST; seed <= LAST; seed += 1) {
        vi.clearAllTimers();
        const { violation, counts } = await runShellModel(seed, { ...shape, steps: STEPS }, fakeClock);
        expect(violation, `seed ${seed}`).toBeNull();
        for (const [key, count] of Object.entries(counts)) sums[key] = (sums[key] ?? 0) + count;
      }
      const { born = 0, notBorn = 0, implied = 0, reused = 0, missing = 0, waitedForPage = 0, epochs = 0, evicted = 0, killed = 0 } = sums;
      expect([born > 0, notBorn > 0, reused > 0, missing > 0, waitedForPage > 0, epochs > 0]).toEqual(Array(6).fill(true));
      expect([evicted > 0, killed > 0, implied > 0]).toEqual(["cachedMax" in shape, shape.killed > 0, "opensMade" in shape]);
    });
  }
});

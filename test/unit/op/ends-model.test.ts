import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { fakeClock } from "../coherence/fake-clock.ts";
import { runEndsModel } from "./ends-model.ts";

// Its own functions are not played by fake timers.
vi.mock("node:timers/promises", () => ({ setTimeout: (ms: number) => new Promise((resolve) => setTimeout(resolve, ms)) }));

const [FIRST, LAST = FIRST] = (process.env["COVERLAY_ENDS_SEEDS"] ?? "1-12").split("-").map(Number) as [number, number?];
const STEPS = 2000;
const TIMEOUT_MS = 60_000 + 3000 * (LAST - FIRST);

beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "Date"] }));
afterEach(() => void vi.useRealTimers());

describe("F5: programs that append to, cut and read one file", () => {
  const shapes = [
    { nodes: 1, programsPerNode: 4, appendsOnly: true },
    { nodes: 2, programsPerNode: 3, appendsOnly: true },
    { nodes: 1, programsPerNode: 4 },
    { nodes: 2, programsPerNode: 3 },
    { nodes: 3, programsPerNode: 3 },
    { nodes: 2, programsPerNode: 2, holes: true },
    { nodes: 1, programsPerNode: 4, mapped: true },
    { nodes: 2, programsPerNode: 3, mapped: true },
    { nodes: 1, programsPerNode: 4, killed: 0.1 },
    { nodes: 2, programsPerNode: 3, killed: 0.05 },
    { nodes: 2, programsPerNode: 3, lapses: true },
    { nodes: 3, programsPerNode: 2, lapses: true, killed: 0.1 },
  ];
  let repairsOfAll = 0;
  for (const shape of shapes) {
    it(
      `are shown what was in it, and its end: ${JSON.stringify(shape)}`,
      async () => {
        const sums: Record<string, number> = {};
        for (let seed = FIRST; seed <= LAST; seed += 1) {
          vi.clearAllTimers();
          const { violation, history, counts } = await runEndsModel(seed, { ...shape, steps: STEPS }, fakeClock);
          expect(violation, `seed ${seed}\n${violation === null ? "" : history}`).toBeNull();
          for (const [key, count] of Object.entries(counts)) sums[key] = (sums[key] ?? 0) + count;
        }
        const { reads = 0, readsRefused = 0, sentinels = 0, seeks = 0, callerRepairs = 0, sizeSettles = 0, killed = 0, writes = 0 } = sums;
        expect(readsRefused).toBeLessThan(reads / ("holes" in shape ? 5 : "mapped" in shape ? 8 : 20));
        expect([sentinels > 0, sizeSettles > 0]).toEqual(Array(2).fill(shape.nodes > 1));
        expect(seeks > 0 || "holes" in shape).toBe(true);
        const { stores = 0, writeBacks = 0, laundered = 0 } = sums;
        expect([stores, writeBacks, laundered].map((count) => count > 0)).toEqual(Array(3).fill("mapped" in shape));
        repairsOfAll += callerRepairs;
        expect([killed > 0, writes > 0]).toEqual(["killed" in shape, !("appendsOnly" in shape)]);
      },
      TIMEOUT_MS,
    );
  }

  it("and some of them put the size right themselves", () => expect(repairsOfAll).toBeGreaterThan(0));
});

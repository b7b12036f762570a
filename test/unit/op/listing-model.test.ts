/** Hazards F4, F6, F48. Seeds: COVERLAY_LISTING_SEEDS. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { fakeClock } from "../coherence/fake-clock.ts";
import { runListingModel } from "./listing-model.ts";

// Its own functions are not played by fake timers.
vi.mock("node:timers/promises", () => ({ setTimeout: (ms: number) => new Promise((resolve) => setTimeout(resolve, ms)) }));

const [FIRST, LAST = FIRST] = (process.env["COVERLAY_LISTING_SEEDS"] ?? "1-12").split("-").map(Number) as [number, number?];
const STEPS = 2500;
const TIMEOUT_MS = 60_000 + 3000 * (LAST - FIRST);

beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "Date"] }));
afterEach(() => void vi.useRealTimers());

describe("programs that list directories whose names others change", () => {
  const shapes = [
    { nodes: 1, programsPerNode: 4 },
    { nodes: 2, programsPerNode: 3 },
    { nodes: 3, programsPerNode: 2 },
    { nodes: 2, programsPerNode: 3, killed: 0.05 },
    { nodes: 3, programsPerNode: 2, lapses: true },
    { nodes: 3, programsPerNode: 2, lapses: true, killed: 0.05 },
  ];
  for (const shape of shapes) {
    it(
      `are shown what was there, and nothing outdated afterwards: ${JSON.stringify(shape)}`,
      async () => {
        const sums: Record<string, number> = {};
        for (let seed = FIRST; seed <= LAST; seed += 1) {
          vi.clearAllTimers();
          const { violation, history, counts } = await runListingModel(seed, { ...shape, steps: STEPS }, fakeClock);
          expect(violation, `seed ${seed}\n${violation === null ? "" : history}`).toBeNull();
          for (const [key, count] of Object.entries(counts)) sums[key] = (sums[key] ?? 0) + count;
        }
        const { linkedValid = 0, namesByCache = 0, statsByCache = 0, waitedForLookup = 0, seeks = 0, rewinds = 0, revokes = 0 } = sums;
        expect([linkedValid, namesByCache, statsByCache, waitedForLookup, seeks, rewinds].map((count) => count > 0)).toEqual(
          Array(6).fill(true),
        );
        expect([revokes > 0, (sums["killed"] ?? 0) > 0]).toEqual([shape.nodes > 1, "killed" in shape]);
      },
      TIMEOUT_MS,
    );
  }
});

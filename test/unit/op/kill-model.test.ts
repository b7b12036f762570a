/** Hazard F50: nothing that was answered is overtaken or undone by the change of a caller that was killed before. Seeds: COVERLAY_KILL_SEEDS. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { runKillModel } from "./kill-model.ts";

/** How many, or the first and the last. */
const [LAST = 3000, FIRST = 1] = (process.env["COVERLAY_KILL_SEEDS"] ?? "3000").split("-").map(Number).toReversed();

/** Ten seconds where nothing else runs. */
const SEEDS_LIMIT_MS = 600_000;

/** Times of a read that an append waits for (coherence/pages/append-end.ts). */
function timers(): boolean {
  if (vi.getTimerCount() === 0) return false;
  vi.advanceTimersToNextTimer();
  return true;
}

describe("callers that are killed (hazard F50)", () => {
  beforeEach(() => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  it.each([
    ["some are killed", true],
    ["nobody is killed", false],
  ] as const)(
    "%s: what was answered has an order, and everything ends",
    async (_title, deadly) => {
      let kills = 0;
      for (let seed = FIRST; seed <= LAST; seed += deadly ? 1 : 10) {
        const result = await runKillModel(seed, deadly, timers);
        expect(result.violation, `seed ${seed}:\n${result.history}\n`).toBeNull();
        kills += result.kills;
      }
      expect(kills).toBeGreaterThanOrEqual(deadly ? Math.floor((LAST - FIRST) / 3) : 0);
    },
    SEEDS_LIMIT_MS,
  );
});

/** For models: what fake timers go by. */
import { vi } from "vitest";
import type { ModelClock } from "./shell-model.ts";

export const fakeClock: ModelClock = {
  now: () => Date.now(),
  advance: (ms) => vi.advanceTimersByTimeAsync(ms),
  waiting: () => vi.getTimerCount(),
};

import { afterAll, afterEach, beforeEach, vi } from "vitest";

/** performance.now() in the tests of a file: it stands still but for what a test adds. On a busy machine the times of hazard F23 are soon over. */
export function handClock(): { nowMs: number } {
  const clock = { nowMs: 0 };
  const spy = vi.spyOn(performance, "now");
  beforeEach(() => {
    clock.nowMs = 1_000_000;
    spy.mockImplementation(() => clock.nowMs);
  });
  afterEach(() => void spy.mockReset());
  afterAll(() => spy.mockRestore());
  return clock;
}

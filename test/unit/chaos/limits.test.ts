/** The limits of a cycle of chaos: what does not come, and a node that does not stay up, are violations and no endless waits. */
import { describe, expect, it } from "vitest";
import { EVENT_TIMEOUT_MS, Overdue, type Pace, STARTS, untilReached, withStarts } from "../../chaos/limits.ts";

describe("a cycle of chaos", () => {
  it("waits for an event up to EVENT_TIMEOUT_MS, and says what each program waits for", async () => {
    let nowMs = 0;
    const pace: Pace = { nowMs: () => nowMs, sleep: async (ms) => void (nowMs += ms) };
    await untilReached(
      "the last moment",
      () => nowMs >= EVENT_TIMEOUT_MS,
      () => "",
      pace,
    );
    expect(nowMs).toBe(EVENT_TIMEOUT_MS);
    nowMs = 0;
    const never = untilReached(
      "all programs have ended",
      () => false,
      () => "client0 waits",
      pace,
    );
    await expect(never).rejects.toThrow(new Overdue("all programs have ended: not within 60 s\nclient0 waits"));
    expect(nowMs).toBeGreaterThan(EVENT_TIMEOUT_MS);
  });

  it("starts a node STARTS times; the last start that is well counts, and one more is not made", async () => {
    const starts: number[] = [];
    await withStarts(async (start) => {
      starts.push(start);
      return start === STARTS - 1 ? null : "node2 is down";
    });
    expect(starts).toEqual(Array.from({ length: STARTS }, (_, at) => at));
    await expect(withStarts(async (start) => `node2 is down after start ${starts.push(start)}`)).rejects.toThrow(
      new Overdue(`node2 is down after start ${2 * STARTS}`),
    );
    expect(starts).toHaveLength(2 * STARTS);
  });
});

/** Whether dlmd is dead, or has ended one connection (hazard F42). */
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { DLMD_END_MS, DlmdProcess } from "../../../overlay/serve/dlmd-process.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const seen = (pidfd: number, endsAtMs: number) => {
  const begunMs = performance.now();
  return new DlmdProcess({ peerPidfd: () => pidfd, pidfdEnded: () => (performance.now() - begunMs >= endsAtMs ? 1 : 0) }, 9).hasEnded();
};

it("is waited for until it has ended", async () => {
  const ended = seen(7, 100);
  await vi.advanceTimersByTimeAsync(110);
  expect(await ended).toBe(true);
});

it("lives if it has not ended in time, and where nobody can know", async () => {
  const late = seen(7, DLMD_END_MS + 100);
  await vi.advanceTimersByTimeAsync(DLMD_END_MS + 10);
  expect([await late, await seen(-3, 0)]).toEqual([false, false]);
});

/** The start of a node waits for the end of a fence of it. */
import { expect, test } from "vitest";
import { FENCE_WAIT_MS, isBeingFenced, waitForFence } from "../../../overlay/lab/fence-wait.ts";

const status = (more: object = {}, want: object = {}) => ({
  quorate: true,
  fencing: { devices: [2, 3], wanted: [{ nodeid: 3, againAfterMs: 0, ...want }], ...more },
});

test("an agent runs or is about to: that is being fenced; what fails, or cannot begin, is not", () => {
  expect([isBeingFenced(status(), 3), isBeingFenced(status(), 2)]).toEqual([true, false]);
  expect(isBeingFenced(status({}, { againAfterMs: 900 }), 3)).toBe(false);
  expect(isBeingFenced(status({ devices: [2] }), 3)).toBe(false);
  expect(isBeingFenced({ ...status(), quorate: false }, 3)).toBe(false);
  expect(isBeingFenced("no dlmd", 3)).toBe(false);
});

test("it waits until no node says so any more, and for so long at most", async () => {
  let nowMs = 0;
  const sleep = (ms: number): Promise<number> => Promise.resolve((nowMs += ms));
  let looks = 0;
  const ends = (): Promise<unknown[]> => Promise.resolve(++looks < 5 ? [null, status()] : [status({ wanted: [] })]);
  expect([await waitForFence(3, { statuses: ends, sleep, nowMs: () => nowMs }), looks]).toEqual([true, 5]);
  nowMs = 0;
  const never = (): Promise<unknown[]> => Promise.resolve([status()]);
  expect([await waitForFence(3, { statuses: never, sleep, nowMs: () => nowMs }), nowMs]).toEqual([false, FENCE_WAIT_MS]);
});

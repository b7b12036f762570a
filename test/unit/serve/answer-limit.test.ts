/** When a mount has to answer blocking ASTs within a limit (hazard H13): by a clock of the test's own. */
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import type { OwnerWait } from "../../../overlay/lower/owner-wait.ts";
import { AnswerLimit, ASK_ALIVE_MS, BAST_LIMIT_MS, LOOKS_PER_LIMIT } from "../../../overlay/serve/answer-limit.ts";

const LOOK_MS = BAST_LIMIT_MS / LOOKS_PER_LIMIT;

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

/** dlmd's part: for how long at most one lock has been unanswered under one limit. */
function scene() {
  const calls = { oldest: null as number | null, inOwnersHands: true, waitedMs: 15_000, ofDisk: false };
  const logged: string[] = [];
  const wait = (): OwnerWait | null =>
    calls.oldest === null
      ? null
      : {
          id: calls.oldest,
          call: "write",
          waitedMs: calls.waitedMs,
          calls: 2,
          inOwnersHands: calls.inOwnersHands,
          trouble: calls.inOwnersHands ? null : "cut off",
          ...(calls.ofDisk ? { ofDisk: true as const } : {}),
        };
  const asked = { limitMs: 0, times: 0, sinceMs: 0 };
  const limit = new AnswerLimit({
    limitMs: BAST_LIMIT_MS,
    ownerWait: () => wait(),
    log: { ...silentLog, warn: ({ limit: what }, message) => void logged.push(`${message}: ${String(what)}`) },
    setLimitMs: (limitMs) => Object.assign(asked, { limitMs, times: asked.times + 1, sinceMs: Date.now() }),
  });
  let askedMounts = 0;
  limit.begin(() => void (askedMounts += 1));
  const ended = (): boolean => asked.limitMs > 0 && Date.now() - asked.sinceMs >= asked.limitMs;
  return { calls, asked, limit, ended, logged, askedMounts: () => askedMounts };
}

it("has a limit while there is an owner, and none without", () => {
  const { asked, limit } = scene();
  expect(asked).toMatchObject({ limitMs: 0, times: 1 });
  limit.ownerFound(null);
  expect(asked.limitMs).toBe(BAST_LIMIT_MS);
  limit.ownerLost();
  expect(asked.limitMs).toBe(0);
  vi.advanceTimersByTime(10 * BAST_LIMIT_MS);
  limit.ownerFound(null);
  expect(asked).toMatchObject({ limitMs: BAST_LIMIT_MS, times: 4 });
});

it("has none while the mount is blocked, whether there is an owner or not", () => {
  const { asked, limit } = scene();
  limit.ownerFound(null);
  limit.setBlocked(true);
  expect(asked.limitMs).toBe(0);
  limit.ownerLost();
  limit.ownerFound(null);
  expect(asked.limitMs).toBe(0);
  limit.setBlocked(false);
  expect(asked.limitMs).toBe(BAST_LIMIT_MS);
});

it("is not ended while the owner leaves a call unanswered, however long; its time begins anew with the answer", () => {
  const { calls, limit, ended } = scene();
  limit.ownerFound(null);
  vi.advanceTimersByTime(LOOK_MS - 1);
  calls.oldest = 7;
  for (let passed = 0; passed < 10 * BAST_LIMIT_MS; passed += LOOK_MS / 2) {
    vi.advanceTimersByTime(LOOK_MS / 2);
    expect(ended()).toBe(false);
  }
  calls.oldest = null;
  vi.advanceTimersByTime(BAST_LIMIT_MS - 2 * LOOK_MS);
  expect(ended()).toBe(false);
  vi.advanceTimersByTime(2 * LOOK_MS);
  expect(ended()).toBe(true);
});

it("is ended if it stands still itself, though a call waits: nothing here looks then", () => {
  const { calls, limit, ended } = scene();
  limit.ownerFound(null);
  calls.oldest = 7;
  vi.advanceTimersByTime(3 * BAST_LIMIT_MS);
  vi.setSystemTime(Date.now() + BAST_LIMIT_MS);
  expect(ended()).toBe(true);
});

it("is ended if the owner can not be reached, with calls that wait for it, and says both once", () => {
  const { calls, limit, ended, logged } = scene();
  limit.ownerFound(null);
  calls.oldest = 7;
  vi.advanceTimersByTime(10 * BAST_LIMIT_MS);
  expect([ended(), logged]).toEqual([
    false,
    ["the owner has not answered: 2 calls wait, a write for 15.0 s: this mount is not ended for it"],
  ]);
  calls.inOwnersHands = false;
  vi.advanceTimersByTime(BAST_LIMIT_MS - 1);
  expect(ended()).toBe(false);
  vi.advanceTimersByTime(1);
  expect(ended()).toBe(true);
  expect(logged.slice(1)).toEqual([
    "no connection to the owner (cut off): 2 calls wait, a write for 15.0 s: " +
      "this mount is ended if another node waits 60000 ms for a lock that it has",
  ]);
});

it("asks whether the owner lives at each look at which a call has waited for it; not itself, and not its disk", () => {
  const { calls, limit } = scene();
  let asked = 0;
  limit.ownerFound(() => void (asked += 1));
  vi.advanceTimersByTime(LOOK_MS);
  expect(asked).toBe(0);
  calls.oldest = 7;
  vi.advanceTimersByTime(3 * LOOK_MS);
  expect(asked).toBe(3);
  calls.waitedMs = ASK_ALIVE_MS - 1;
  vi.advanceTimersByTime(LOOK_MS);
  expect(asked).toBe(3);
  calls.waitedMs = ASK_ALIVE_MS;
  // Out of reach for this node is not dead.
  calls.inOwnersHands = false;
  vi.advanceTimersByTime(LOOK_MS);
  expect(asked).toBe(4);
  calls.ofDisk = true;
  vi.advanceTimersByTime(LOOK_MS);
  expect(asked).toBe(4);
  calls.ofDisk = false;
  limit.ownerLost();
  vi.advanceTimersByTime(LOOK_MS);
  limit.ownerFound(null);
  vi.advanceTimersByTime(LOOK_MS);
  expect(asked).toBe(4);
});

it("asks whether all mounts live at each look at which there is no owner: before the first one, and after the last", () => {
  const { calls, limit, askedMounts } = scene();
  limit.setBlocked(true);
  vi.advanceTimersByTime(2 * LOOK_MS);
  expect(askedMounts()).toBe(2);
  limit.ownerFound(() => undefined);
  calls.oldest = 7;
  vi.advanceTimersByTime(3 * LOOK_MS);
  expect(askedMounts()).toBe(2);
  limit.ownerLost();
  vi.advanceTimersByTime(3 * LOOK_MS);
  expect(askedMounts()).toBe(5);
  limit.ownerFound(null);
  vi.advanceTimersByTime(LOOK_MS);
  limit.ownerLost();
  limit.close();
  vi.advanceTimersByTime(LOOK_MS);
  expect(askedMounts()).toBe(5);
});

it("has its limit while the owner answers, however many calls are under way", () => {
  const { calls, asked, limit } = scene();
  limit.ownerFound(null);
  for (let look = 1; look < 20; look += 1) {
    calls.oldest = look;
    vi.advanceTimersByTime(LOOK_MS);
  }
  expect(asked.times).toBe(2);
});

it("has none without an owner, though calls wait, and does not look when it is closed", () => {
  const { calls, asked, limit } = scene();
  limit.ownerFound(null);
  calls.oldest = 7;
  limit.ownerLost();
  vi.advanceTimersByTime(BAST_LIMIT_MS);
  expect(asked.limitMs).toBe(0);
  limit.ownerFound(null);
  limit.close();
  vi.advanceTimersByTime(BAST_LIMIT_MS);
  expect(asked.times).toBe(4);
});

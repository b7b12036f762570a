/** H10: how long files without a name keep their space for a mounter that does not reach the owner. */
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import type { Log } from "../../../dlmd/base/log.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import { REOPEN_LIMIT_MS, REOPEN_LOOKS, ReopenLimit } from "../../../overlay/mount-group/reopen-limit.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const LOOK_MS = REOPEN_LIMIT_MS / REOPEN_LOOKS;

function limit() {
  const now = { mustReopen: true, isCutOff: true, awaited: [] as string[] };
  const [late, warned]: [string[], object[]] = [[], []];
  const log: Log = { ...silentLog, warn: (fields: object) => void warned.push(fields) };
  const one = new ReopenLimit({
    log,
    mustReopen: () => now.mustReopen,
    awaited: () => now.awaited,
    isCutOff: () => now.isCutOff,
    late: (why) => late.push(why),
  });
  one.changed();
  return { now, late, warned, one };
}

it(`a mount that has no path to the owner ends after ${REOPEN_LIMIT_MS} ms, once, and says why`, () => {
  const { late, one } = limit();
  vi.advanceTimersByTime(REOPEN_LIMIT_MS - 1);
  // What happens in the group meanwhile gives it no more time.
  one.changed();
  expect(late).toEqual([]);
  vi.advanceTimersByTime(1);
  expect(late).toEqual(["this mount could not open its files at the volume's owner in 60 s, and keeps the space of files without a name"]);
  vi.advanceTimersByTime(10 * REOPEN_LIMIT_MS);
  expect(late).toHaveLength(1);
});

it("a mount that waits for the owner, a quorum or its lease is not ended, and has its time anew when only a path is missing", () => {
  const { now, late } = limit();
  vi.advanceTimersByTime(REOPEN_LIMIT_MS - LOOK_MS);
  now.isCutOff = false;
  vi.advanceTimersByTime(10 * REOPEN_LIMIT_MS);
  now.isCutOff = true;
  vi.advanceTimersByTime(REOPEN_LIMIT_MS - 1);
  expect(late).toEqual([]);
  vi.advanceTimersByTime(1);
  expect(late).toHaveLength(1);
});

it("a mount whose files are open is not ended, nor one that has ended; with the next owner the time begins anew", () => {
  const { now, late, one } = limit();
  vi.advanceTimersByTime(REOPEN_LIMIT_MS - 1);
  now.mustReopen = false;
  one.changed();
  vi.advanceTimersByTime(10 * REOPEN_LIMIT_MS);
  now.mustReopen = true;
  one.changed();
  vi.advanceTimersByTime(REOPEN_LIMIT_MS - 1);
  expect(late).toEqual([]);
  one.end();
  vi.advanceTimersByTime(10 * REOPEN_LIMIT_MS);
  expect(late).toEqual([]);
});

it("the owner says for whom it waits, once each limit", () => {
  const { now, warned, late, one } = limit();
  now.mustReopen = false;
  now.awaited = ["node2"];
  one.changed();
  vi.advanceTimersByTime(REOPEN_LIMIT_MS - 1);
  expect(warned).toEqual([]);
  vi.advanceTimersByTime(1);
  expect(warned).toEqual([{ waitsFor: ["node2"], forMs: REOPEN_LIMIT_MS }]);
  vi.advanceTimersByTime(REOPEN_LIMIT_MS);
  expect([warned.length, late]).toEqual([2, []]);
});

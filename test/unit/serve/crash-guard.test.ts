/** Whether a crash would be a pause is looked at by a timer: what that look throws would be a failure of the mount. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import { nativeAddon } from "../../../native/index.ts";
import { leaseFile } from "../../../overlay/lease/lease.ts";
import { CRASH_LOOK_MS, CRASH_LOOK_SOON_FOR_MS, CRASH_LOOK_SOON_MS, CrashGuard, type Guarded } from "../../../overlay/serve/crash-guard.ts";

vi.mock("../../../dlmd/client/client.ts", () => ({ connectDlm: async () => ({ descriptor: 0, close: () => Promise.resolve() }) }));
vi.mock("../../../overlay/crash/keeper.ts", async (original) => ({
  ...(await original<object>()),
  Keeper: { start: () => ({ farewell: () => undefined }) },
}));

const negotiated = { incEpoch: true, entryExpire: true, major: 7, minor: 45, flags: 0n, maxWrite: 4096, maxReadahead: 4096, maxPages: 256 };
const EMFILE = "EMFILE: too many open files, open '/proc/self/mountinfo'";

let dir: string;
let look: () => string | null;
let guard: CrashGuard;

beforeEach(async () => {
  vi.useFakeTimers({ toFake: ["setInterval", "clearInterval", "setTimeout", "clearTimeout", "performance"] });
  dir = mkdtempSync(path.join(tmpdir(), "coverlay-guard-"));
  const dlmdSocket = path.join(dir, "dlmd.sock");
  writeFileSync(leaseFile(dlmdSocket), "");
  look = () => null;
  guard = new CrashGuard({ native: nativeAddon(), log: silentLog, dlmdSocket }, false);
  const guarded = {
    client: { info: { clientId: 1 }, keepLocks: () => Promise.resolve() },
    fuseFd: 0,
    connection: 40,
    negotiated,
    why: () => look(),
    ownerEpoch: () => 1,
    isOwner: () => true,
    hasOwned: () => true,
  };
  await guard.begin(guarded as unknown as Guarded);
});

afterEach(() => {
  guard.end();
  rmSync(dir, { recursive: true, force: true });
  vi.useRealTimers();
});

it("a look that cannot be made is why a crash ends the mount, until one can be made again", () => {
  expect([guard.why, guard.journal?.resumable]).toEqual([null, true]);
  look = () => {
    throw new Error(EMFILE);
  };
  vi.advanceTimersByTime(1000);
  expect([guard.why, guard.journal?.resumable]).toEqual([`it cannot be seen whether another process could go on: ${EMFILE}`, false]);
  look = () => null;
  vi.advanceTimersByTime(1000);
  expect([guard.why, guard.journal?.resumable]).toEqual([null, true]);
});

it("what is in the way for a moment is looked at soon again, and what stays once a second", () => {
  let looks = 0;
  let reason: string | null = "the owner is changing";
  look = () => {
    looks += 1;
    return reason;
  };
  guard.review();
  expect(guard.journal?.resumable).toBe(false);
  vi.advanceTimersByTime(5 * CRASH_LOOK_SOON_MS);
  expect(looks).toBe(6);
  // Another one follows, and its time is counted anew.
  reason = "there is no connection to the owner";
  vi.advanceTimersByTime(CRASH_LOOK_SOON_FOR_MS - CRASH_LOOK_SOON_MS);
  reason = null;
  vi.advanceTimersByTime(CRASH_LOOK_SOON_MS);
  expect([guard.why, guard.journal?.resumable]).toEqual([null, true]);
  looks = 0;
  vi.advanceTimersByTime(10 * CRASH_LOOK_MS);
  expect(looks).toBe(10);
  reason = "the volume is a directory";
  guard.review();
  vi.advanceTimersByTime(CRASH_LOOK_SOON_FOR_MS + CRASH_LOOK_SOON_MS);
  looks = 0;
  vi.advanceTimersByTime(10 * CRASH_LOOK_MS);
  expect(looks).toBe(10);
});

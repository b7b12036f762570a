/** A state that its disk does not take: written again for a while, then the node has to leave (driver/state-keeper.ts). */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { OperatingError } from "../../../dlmd/base/error.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import { EXIT } from "../../../dlmd/base/exit-status.ts";
import type { StoredState } from "../../../dlmd/driver/state-file.ts";
import { KEEP_PAUSE_MS, keepShare, silenceShare, STALL_MS, StateKeeper } from "../../../dlmd/driver/state-keeper.ts";

// Its own function is not played by fake timers.
vi.mock("node:timers/promises", () => ({ setTimeout: (ms: number) => new Promise((resolve) => setTimeout(resolve, ms)) }));

const TIMEOUT_MS = 3000;
let dir: string;
let file: string;
let now: number;
let failed: OperatingError[];
let said: string[];
let onSaid: (message: string) => void;
beforeEach(() => {
  dir = mkdtempSync(path.join(tmpdir(), "coverlay-state-"));
  file = path.join(dir, "state/state.json");
  [now, failed, said, onSaid] = [0, [], [], () => {}];
});
afterEach(() => rmSync(dir, { recursive: true }));

function keeper(write?: (file: string, state: StoredState) => Promise<void>): StateKeeper {
  const say = (_: unknown, message: string): void => {
    said.push(message);
    onSaid(message);
  };
  const log = { ...silentLog, info: say, error: say };
  const options = { file, timeoutMs: () => TIMEOUT_MS, nowMs: () => now, log, failed: (error: OperatingError) => failed.push(error) };
  return new StateKeeper(write === undefined ? options : { ...options, write });
}
const kept = (): unknown => JSON.parse(readFileSync(file, "utf8"));

test("a state is written again until the disk takes it; those that come meanwhile follow, each with what is before it", async () => {
  const state = keeper();
  const waits = new Promise<void>((resolve) => (onSaid = () => resolve()));
  const first = state.keep({ promisedEpoch: 7 }, () => true);
  const second = state.keep({ fences: { open: [], fenced: [] } }, () => true);
  await waits;
  mkdirSync(path.dirname(file));
  const from = performance.now();
  expect(await Promise.all([first, second])).toEqual([true, true]);
  expect(performance.now() - from).toBeLessThan(20 * KEEP_PAUSE_MS);
  expect(kept()).toEqual({ promisedEpoch: 7, fences: { open: [], fenced: [] } });
  expect(said).toEqual(["a view waits for the disk, and then this node leaves", "this node's state is kept again"]);
  expect(failed).toEqual([]);
});

test("at its limit it has failed for good: it says so once, with what to do, and acts upon nothing after that", async () => {
  const state = keeper();
  onSaid = () => (now += keepShare * TIMEOUT_MS - 1);
  const first = state.keep({ promisedEpoch: 7 }, () => true);
  const before = new Promise<void>((resolve) => setTimeout(resolve, 2 * KEEP_PAUSE_MS));
  await before;
  expect(failed).toEqual([]);
  now += 1;
  expect(await first).toBe(false);
  mkdirSync(path.dirname(file));
  expect(await state.keep({ promisedEpoch: 8 }, () => true)).toBe(false);
  await state.settle();
  expect(failed).toMatchObject([{ code: "unkept", exitStatus: EXIT.UNKEPT, hint: expect.stringContaining(path.dirname(file)) as string }]);
  expect(readdirSync(path.dirname(file))).toEqual([]);
});

test("what a life asked for that has ended is given up, and the next life begins with what was stored", async () => {
  const state = keeper();
  let isLife = true;
  onSaid = () => (isLife = false);
  expect(await state.keep({ promisedEpoch: 7 }, () => isLife)).toBe(false);
  expect(await state.read()).toEqual({ promisedEpoch: 0 });
  expect(failed).toEqual([]);
});

test("what waits behind another writing when its life ends is stored all the same, once", async () => {
  mkdirSync(path.dirname(file));
  const state = keeper();
  const fences = {
    open: [{ nodeid: 3, incarnation: "aa", failingView: { epoch: 2, proposer: 1, incarnation: "bb" }, lockspaces: null }],
    fenced: [],
  };
  let isLife = true;
  const first = state.keep({ promisedEpoch: 7 }, () => isLife);
  const second = state.keep({ fences }, () => isLife);
  isLife = false;
  expect(await Promise.all([first, second])).toEqual([true, true]);
  await state.settle();
  expect(await keeper().read()).toEqual({ promisedEpoch: 7, fences });
});

describe("a disk that hangs: a stand-in for it, whose writing never ends, and a clock of the test's own", () => {
  const DISK_SILENT = "the disk does not answer: a view waits for it, and then this node leaves";
  beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] }));
  afterEach(() => void vi.useRealTimers());
  const pass = async (ms: number): Promise<void> => {
    now += ms;
    await vi.advanceTimersByTimeAsync(ms);
  };

  test("is named after half of the time-out; after all of it the node has to leave, and nothing is written any more", async () => {
    let writes = 0;
    const state = keeper(() => {
      writes++;
      return new Promise(() => {});
    });
    const results: boolean[] = [];
    const keep = (promisedEpoch: number): void => void state.keep({ promisedEpoch }, () => true).then((kept) => results.push(kept));
    keep(7);
    keep(8);
    await pass(0);
    await pass(silenceShare * TIMEOUT_MS - 1);
    expect([said, failed]).toEqual([[], []]);
    await pass(1);
    expect([said, failed]).toEqual([[DISK_SILENT], []]);
    await pass((keepShare - silenceShare) * TIMEOUT_MS - 1);
    expect([failed, results]).toEqual([[], []]);
    await pass(1);
    expect(failed).toMatchObject([{ code: "unkept", exitStatus: EXIT.UNKEPT }]);
    expect(failed[0]?.message).toBe(`this node's state cannot be kept in ${file}: its disk has not answered for ${TIMEOUT_MS} ms`);
    expect([results, writes]).toEqual([[false, false], 1]);
    // The end of the life waits for it.
    await state.settle();
    expect(vi.getTimerCount()).toBe(0);
  });

  test("after it was full has its time all the same", async () => {
    const full = Object.assign(new Error("no room"), { code: "ENOSPC" });
    let tries = 0;
    const state = keeper(() => (++tries === 1 ? Promise.reject(full) : new Promise(() => {})));
    const kept = state.keep({ promisedEpoch: 7 }, () => true);
    await pass(0);
    // The next try comes at the last moment.
    now += keepShare * TIMEOUT_MS - KEEP_PAUSE_MS - 1;
    await pass(KEEP_PAUSE_MS);
    await pass(silenceShare * TIMEOUT_MS - 1);
    expect([tries, failed]).toEqual([2, []]);
    await pass(1);
    expect(await kept).toBe(false);
    expect(failed).toHaveLength(1);
  });

  test("that answers in time is a slow one", async () => {
    let answer = (): void => {};
    const state = keeper(() => new Promise((resolve) => (answer = resolve)));
    const kept = state.keep({ promisedEpoch: 7 }, () => true);
    await pass(0);
    await pass(keepShare * TIMEOUT_MS - 1);
    answer();
    expect(await kept).toBe(true);
    await pass(TIMEOUT_MS);
    expect([said, failed]).toEqual([[DISK_SILENT], []]);
  });

  /** This thread stands still for the whole limit and `more`, and its timers come after it. */
  const standStill = async (more: number): Promise<void> => {
    now += keepShare * TIMEOUT_MS + more;
    await vi.advanceTimersByTimeAsync(keepShare * TIMEOUT_MS);
  };

  test("is not what a thread says that stood still itself: the answer that waits for it counts", async () => {
    let answer = (): void => {};
    const state = keeper(() => new Promise((resolve) => (answer = resolve)));
    const kept = state.keep({ promisedEpoch: 7 }, () => true);
    await pass(0);
    await standStill(STALL_MS);
    answer();
    expect(await kept).toBe(true);
    expect(failed).toEqual([]);
    expect(vi.getTimerCount()).toBe(0);
  });

  test("may be a little late, and a thread that stands still is waited for once", async () => {
    for (const more of [STALL_MS - 1, 100 * TIMEOUT_MS]) {
      failed = [];
      const kept = keeper(() => new Promise(() => {})).keep({ promisedEpoch: 7 }, () => true);
      await pass(0);
      await standStill(more);
      expect(failed).toHaveLength(more < STALL_MS ? 1 : 0);
      await pass(keepShare * TIMEOUT_MS);
      expect(failed).toHaveLength(1);
      expect(await kept).toBe(false);
    }
  });
});

test("a damaged state is called that, not a disk that takes nothing", async () => {
  mkdirSync(path.dirname(file));
  writeFileSync(file, "{");
  await expect(keeper().tryKeeping()).rejects.toMatchObject({ code: "bad-state" });
});

test("a node that has never run makes sure that its disk takes something, and leaves nothing behind", async () => {
  await expect(keeper().tryKeeping()).rejects.toMatchObject({ code: "unkept", exitStatus: EXIT.UNKEPT });
  mkdirSync(path.dirname(file));
  await keeper().tryKeeping();
  expect(readdirSync(path.dirname(file))).toEqual([]);
});

/** When idle processors may not sleep deeply: rows of requests by a clock of the test's own, and what the kernel is told. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import {
  CpuLatency,
  GUEST_LIMIT_US,
  LIMIT_US,
  RequestRow,
  ROW_LOOK_MS,
  ROW_MS,
  ROW_REQUESTS,
  ROW_REQUESTS_MIN,
} from "../../../overlay/serve/cpu-latency.ts";
import { cpuLatencyLimitUs, noCpuLatency } from "../../cpu-latency.ts";

/** A clock, and the timer that runs, if one does. */
function clock() {
  const timer = { intervalMs: 0, tick: null as (() => void) | null };
  return {
    nowMs: 0,
    timer,
    options: {
      every: (intervalMs: number, tick: () => void): (() => void) => {
        Object.assign(timer, { intervalMs, tick });
        return () => void (timer.tick = null);
      },
    },
  };
}

function times(count: number, what: () => void): void {
  for (let at = 0; at < count; at += 1) what();
}

describe("a row of requests", () => {
  function scene() {
    const here = clock();
    const changes: boolean[] = [];
    const row = new RequestRow({ nowMs: () => here.nowMs, every: here.options.every, changed: (goesOn) => void changes.push(goesOn) });
    /** ROW_REQUESTS requests, of which the last comes then. */
    const until = (nowMs: number): void => {
      times(ROW_REQUESTS - 1, () => row.noted());
      here.nowMs = nowMs;
      row.noted();
    };
    return { row, changes, until, timer: here.timer };
  }

  it("begins when ROW_REQUESTS have come within ROW_MS, at the last of them", () => {
    const { row, changes, until, timer } = scene();
    until(1000);
    expect([row.goesOn, timer.tick]).toEqual([false, null]);
    times(ROW_REQUESTS - 1, () => row.noted());
    expect(row.goesOn).toBe(false);
    until(1000 + ROW_MS);
    expect([row.goesOn, changes, timer.intervalMs]).toEqual([true, [true], ROW_LOOK_MS]);
  });

  it("does not begin when they took longer", () => {
    const { row, changes, until } = scene();
    for (let turn = 1; turn < 100; turn += 1) until(turn * (ROW_MS + 1));
    expect([row.goesOn, changes]).toEqual([false, []]);
  });

  it("goes on as long as ROW_REQUESTS_MIN come within ROW_LOOK_MS, and is over when fewer did", () => {
    const { row, changes, until, timer } = scene();
    until(0);
    until(0);
    for (let turn = 0; turn < 5; turn += 1) {
      times(ROW_REQUESTS_MIN, () => row.noted());
      timer.tick?.();
      expect([row.goesOn, changes]).toEqual([true, [true]]);
    }
    times(ROW_REQUESTS_MIN - 1, () => row.noted());
    timer.tick?.();
    expect([row.goesOn, changes, timer.tick]).toEqual([false, [true, false], null]);
  });

  it("begins anew after its end, and by new requests only", () => {
    const { row, changes, until, timer } = scene();
    until(0);
    until(0);
    timer.tick?.();
    expect(row.goesOn).toBe(false);
    until(1);
    expect(row.goesOn).toBe(false);
    until(1);
    expect([row.goesOn, changes]).toEqual([true, [true, false, true]]);
  });
});

describe("the kernel's limit", () => {
  let dir = "";
  beforeEach(() => void (dir = mkdtempSync(path.join(os.tmpdir(), "cpu-latency-"))));
  afterEach(() => rmSync(dir, { recursive: true }));

  /** A plain file stands in for the device: what is written to it stays there. */
  function scene({
    driver = "intel_idle",
    limits = true,
    limit = "limit",
  }: {
    driver?: string | null;
    limits?: boolean;
    limit?: string;
  } = {}) {
    const here = clock();
    const files = { limit: path.resolve(dir, limit), driver: path.join(dir, "driver") };
    if (driver !== null) writeFileSync(files.driver, `${driver}\n`);
    if (limit === "limit") writeFileSync(files.limit, "");
    const logged: unknown[] = [];
    const log = { ...silentLog, debug: (fields: Readonly<Record<string, unknown>>) => void logged.push(fields["error"]) };
    const latency = new CpuLatency({ limits, log, files, nowMs: () => here.nowMs, every: here.options.every });
    const written = (): number[] => {
      const bytes = readFileSync(files.limit);
      return [...new Int32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length))];
    };
    return { latency, written, logged, timer: here.timer, row: (): void => times(2 * ROW_REQUESTS, () => latency.noted()) };
  }

  it.each([
    ["haltpoll", GUEST_LIMIT_US],
    ["intel_idle", LIMIT_US],
  ])("with driver %s is %i us while a row goes on, and gone after it", (driver, limitUs) => {
    const { latency, written, timer, row } = scene({ driver });
    expect([written(), latency.describe()]).toEqual([[], { limitUs, why: null, held: false, times: 0 }]);
    row();
    expect([written(), latency.describe()]).toEqual([[limitUs], { limitUs, why: null, held: true, times: 1 }]);
    timer.tick?.();
    expect([written(), latency.describe()]).toEqual([[limitUs, -1], { limitUs, why: null, held: false, times: 1 }]);
  });

  it.each([
    ["there are no idle states", { driver: "none" }, /no idle states to choose from$/, false],
    ["the kernel says nothing of them", { driver: null }, /ENOENT.*driver/, true],
    ["there is no such device", { limit: "nowhere" }, /ENOENT.*nowhere/, true],
    ["the mount has the option deepidle", { limits: false }, /^the mount has the option deepidle$/, false],
  ])("is left alone where %s", (_what, given, why, isLogged) => {
    const { latency, logged, timer, row } = scene(given);
    row();
    expect(latency.describe()).toEqual({
      limitUs: null,
      why: expect.stringMatching(why),
      held: false,
      times: 0,
    });
    expect([timer.tick, logged.length > 0]).toEqual([null, isLogged]);
  });

  it("is left alone from the first refusal on, and says which", () => {
    const { latency, logged, row } = scene({ limit: "/dev/full" });
    expect(latency.describe().limitUs).toBe(LIMIT_US);
    row();
    expect(latency.describe()).toEqual({ limitUs: null, why: expect.stringContaining("ENOSPC"), held: false, times: 0 });
    row();
    expect(logged).toEqual([expect.stringContaining("ENOSPC")]);
  });

  it("is that of the running kernel: it takes both, and one process' limit is that of all", ({ skip }) => {
    skip(noCpuLatency !== null, noCpuLatency ?? "");
    const here = clock();
    const latency = new CpuLatency({ limits: true, log: silentLog, nowMs: () => here.nowMs, every: here.options.every });
    const { limitUs } = latency.describe();
    times(2 * ROW_REQUESTS, () => latency.noted());
    expect([latency.describe(), cpuLatencyLimitUs() <= Number(limitUs)]).toEqual([{ limitUs, why: null, held: true, times: 1 }, true]);
    here.timer.tick?.();
    expect(latency.describe()).toEqual({ limitUs, why: null, held: false, times: 1 });
  });
});

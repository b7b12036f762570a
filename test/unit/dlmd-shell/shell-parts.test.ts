import {
  chmodSync,
  chownSync,
  lstatSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect, test, vi } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import { createMetrics } from "../../../dlmd/base/metric.ts";
import { seededRandom } from "../../seeded-random.ts";
import { writeInPlace } from "../../../dlmd/driver/atomic-file.ts";
import { bootClock } from "../../../dlmd/driver/clock.ts";
import { createLimitedWarn, MAX_LOG_INTERVAL_MS } from "../../../dlmd/base/log-limiter.ts";
import { readableLine } from "../../../dlmd/base/pino-log.ts";
import { readState, type StoredState, writeState } from "../../../dlmd/driver/state-file.ts";
import { nativeAddon } from "../../../native/index.ts";

test("nothing in dlmd but the history of fences reads the clock of the wall, which people and NTP set in both directions", () => {
  const dlmd = path.resolve(import.meta.dirname, "../../../dlmd");
  // Compiled, where the mutations run.
  const files = readdirSync(dlmd, { recursive: true, encoding: "utf8" }).filter((file) => /(?<!\.d)\.ts$|\.js$/.test(file));
  expect(files.length).toBeGreaterThan(80);
  const readers = files.filter((file) => /\bDate\.now\b|\bnew Date\b|\bDate\(/.test(readFileSync(path.join(dlmd, file), "utf8")));
  expect(readers.map((file) => file.replace(/\.[jt]s$/, ""))).toEqual(["driver/wall-clock"]);
});

test("the clock is the kernel's, which counts while the machine sleeps, at each look, and never goes back", () => {
  const now = bootClock();
  const uptimeMs = (): number => Number.parseFloat(readFileSync("/proc/uptime", "latin1")) * 1000;
  let last = now();
  for (let read = 0; read < 1000; read++) {
    // In steps of 10 ms, rounded down.
    const least = uptimeMs();
    const next = now();
    const most = uptimeMs() + 10;
    expect([next >= last, next >= least, next <= most]).toEqual([true, true, true]);
    last = next;
  }
});

test("what the machine slept counts at the first look after it, though no time has passed for the process", () => {
  const boot = vi.spyOn(nativeAddon(), "bootTimeMs").mockReturnValue(5000);
  const now = bootClock();
  const before = now();
  boot.mockReturnValue(3_605_000);
  const awake = now();
  boot.mockRestore();
  expect([before, awake]).toEqual([5000, 3_605_000]);
});

test("a file of a person's keeps its mode and its owner, and is found through a link; one that is not there is its writer's alone", async () => {
  const dir = mkdtempSync(path.join(tmpdir(), "coverlay-place-"));
  const [file, link, fresh] = ["file", "link", "new"].map((name) => path.join(dir, name)) as [string, string, string];
  writeFileSync(file, "before");
  chmodSync(file, 0o640);
  chownSync(file, 12, 34);
  symlinkSync("file", link);
  for (const name of [link, fresh]) await writeInPlace(name, "after");
  const of = (name: string): (number | string)[] => {
    const { mode, uid, gid } = statSync(name);
    return [(mode & 0o7777).toString(8), uid, gid, readFileSync(name, "utf8")];
  };
  expect([of(file), lstatSync(link).isSymbolicLink(), of(fresh)]).toEqual([
    ["640", 12, 34, "after"],
    true,
    ["600", process.getuid?.(), process.getgid?.(), "after"],
  ]);
  expect(readdirSync(dir).toSorted()).toEqual(["file", "link", "new"]);
  await expect(writeInPlace(path.join(file, "below"), "x")).rejects.toMatchObject({ code: "ENOTDIR" });
  rmSync(dir, { recursive: true });
});

test("a warning once in the interval for each key, with the number left out", () => {
  const said: unknown[] = [];
  let now = 0;
  const warn = createLimitedWarn({ ...silentLog, warn: (fields, message) => said.push([message, fields]) }, 1000, () => now);
  for (let at = 0; at < 5; at++) warn("a", { at }, "dropped");
  warn("b", {}, "other");
  now = 1000;
  warn("a", { at: 9 }, "dropped");
  warn("b", {}, "other");
  expect(said).toEqual([
    ["dropped", { at: 0 }],
    ["other", {}],
    ["dropped", { at: 9, leftOut: 4 }],
    ["other", {}],
  ]);
});

test("a warning that goes on is logged ever less often, down to once an hour; after a pause it is new", () => {
  const said: number[] = [];
  let now = 0;
  const warn = createLimitedWarn({ ...silentLog, warn: () => said.push(now) }, 1000, () => now);
  for (; now <= 4 * MAX_LOG_INTERVAL_MS; now += 500) warn("a", {}, "dropped");
  expect(said.slice(0, 5)).toEqual([0, 1000, 3000, 7000, 15_000]);
  const [before = 0, last = 0] = said.slice(-2);
  expect(last - before).toBe(MAX_LOG_INTERVAL_MS);
  expect(said.length).toBeLessThan(20);
  now = last + MAX_LOG_INTERVAL_MS;
  warn("a", {}, "dropped");
  now += MAX_LOG_INTERVAL_MS;
  for (const at of [0, 500, 1000]) {
    now += at;
    warn("a", {}, "dropped");
  }
  expect(said.slice(-2)).toEqual([now - 1500, now]);
});

test("the promised epoch is read back; a damaged file is refused", async () => {
  const dir = mkdtempSync(path.join(tmpdir(), "coverlay-state-"));
  try {
    const file = path.join(dir, "state.json");
    const lineage = {
      id: { epoch: 8, proposer: 2, incarnation: "00000000000000aa" },
      members: [{ nodeid: 2, incarnation: "00000000000000aa" }],
      electorate: { nodeids: [1, 2], former: [1, 2, 3] },
    };
    expect(await readState(file)).toEqual({ promisedEpoch: 0 });
    await writeState(file, { promisedEpoch: 7 });
    expect(await readState(file)).toEqual({ promisedEpoch: 7 });
    await writeState(file, { promisedEpoch: 8, lineage });
    expect(await readState(file)).toEqual({ promisedEpoch: 8, lineage });
    const older = { id: lineage.id, members: lineage.members };
    writeFileSync(file, JSON.stringify({ promisedEpoch: 8, lineage: older }));
    expect(await readState(file)).toEqual({ promisedEpoch: 8, lineage: { ...older, electorate: null } });
    const victim = { nodeid: 3, incarnation: "00000000000000cc", failingView: lineage.id };
    const fences = { open: [{ ...victim, lockspaces: ["guarded"] }], fenced: [{ ...victim, nodeid: 2 }] };
    await writeState(file, { promisedEpoch: 8, lineage, fences });
    expect(await readState(file)).toEqual({ promisedEpoch: 8, lineage, fences });
    // Of a version that did not know what a node had open: all.
    writeFileSync(file, JSON.stringify({ promisedEpoch: 8, fences: { open: [victim], fenced: [] } }));
    expect(await readState(file)).toEqual({ promisedEpoch: 8, fences: { open: [{ ...victim, lockspaces: null }], fenced: [] } });
    await writeState(file, { promisedEpoch: 8, lineage, fences });
    expect(readdirSync(dir)).toEqual(["state.json"]);
    writeFileSync(file, `{"promisedEpoch":-1}`);
    await expect(readState(file)).rejects.toMatchObject({ code: "bad-state" });
    const last = 2 ** 48 - 1;
    const highest: StoredState = { promisedEpoch: last, lineage: { ...lineage, id: { ...lineage.id, epoch: last } } };
    await writeState(file, highest);
    expect(await readState(file)).toEqual(highest);
    const tooHigh: StoredState[] = [
      { ...highest, promisedEpoch: 2 ** 53 - 1 },
      { ...highest, lineage: { ...lineage, id: { ...lineage.id, epoch: 2 ** 53 - 1 } } },
    ];
    for (const state of tooHigh) {
      await writeState(file, state);
      await expect(readState(file)).rejects.toMatchObject({
        code: "bad-state",
        message: `the state file ${file} has the epoch 9007199254740991, and less than 281474976710656 is expected: no view can follow`,
      });
    }
  } finally {
    rmSync(dir, { recursive: true });
  }
});

test("a log line to read", () => {
  const line = JSON.stringify({
    level: "info",
    time: "2026-11-20T08:01:02.345Z",
    viewId: "7.1.ab",
    members: [1, 2],
    why: "2 of 3",
    msg: "view",
  });
  expect(readableLine(line)).toBe(`08:01:02.345 info  view viewId=7.1.ab members=[1,2] why="2 of 3"\n`);
});

test("metrics count by name", () => {
  const metrics = createMetrics();
  metrics.count("b");
  metrics.count("a", 3);
  metrics.count("b");
  expect(metrics.snapshot()).toEqual({ a: 3, b: 2 });
});

test("the same seed, the same numbers, all in range", () => {
  const draw = (seed: number): number[] => {
    const random = seededRandom(seed);
    return Array.from({ length: 1000 }, () => random.below(7));
  };
  expect(draw(1)).toEqual(draw(1));
  expect(draw(1)).not.toEqual(draw(2));
  expect(new Set(draw(3))).toEqual(new Set([0, 1, 2, 3, 4, 5, 6]));
});

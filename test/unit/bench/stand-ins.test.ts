/** The bench from end to end over plain directories that stand in for the systems; and the load program itself. */
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { compileLoad, runHeldLoad, runLoad } from "../../bench/load.ts";
import { runRounds } from "../../bench/rounds.ts";
import { runBench } from "../../bench/run.ts";
import { placeNodes } from "../../bench/dlmd/placement.ts";
import {
  type Cluster,
  type ClusterNode,
  type Counters,
  QUICK,
  SYSTEM_NAMES,
  type Scale,
  type System,
  type SystemName,
  createBench,
} from "../../bench/system.ts";
import { STEPS } from "../../bench/steps.ts";
import { ping, serve } from "../../bench/tcp-peer.ts";

const tiny: Scale = {
  ...QUICK,
  rounds: 2,
  longRounds: 1,
  files: 20,
  creates: 10,
  warmCreates: 10,
  warmMs: 0,
  dataMib: 1,
  cachedReads: 50,
  directReads: 5,
  sequentialMib: 1,
  untarFiles: 20,
  cloneFiles: 20,
  handovers: 5,
  warmHandovers: 5,
  longHandovers: 5,
  transactions: 4,
  longTransactions: 2,
  pings: 20,
  settledMs: 1,
  treeDirectories: 2,
  treeFiles: 10,
  directoryFiles: 50,
};

let root = "";
let program = "";
let dir = "";

beforeAll(async () => {
  root = mkdtempSync(path.join(os.tmpdir(), "coverlay-bench-unit-"));
  program = await compileLoad(root);
});
beforeEach(() => {
  dir = mkdtempSync(path.join(root, "case-"));
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

function made(name: string): string {
  const place = path.join(dir, name);
  mkdirSync(place);
  return place;
}

function standIn(name: string, mount: string, counters: () => Counters): ClusterNode {
  return {
    name,
    mount,
    address: "127.0.0.1",
    pid: process.pid,
    processors: null,
    enter: (command) => command,
    counters: async () => counters(),
    cpuUs: () => 0,
    peerFrames: async () => null,
  };
}

/** What is underneath it, is itself. */
function standInSystem(name: SystemName): System {
  const dir = made(name);
  return { name, dir, lowerDir: dir };
}

function parts(cluster: Cluster | null, systems = SYSTEM_NAMES.map(standInSystem)) {
  const dropped: number[] = [];
  return {
    dropped,
    scale: tiny,
    scratch: made("scratch"),
    program,
    systems,
    cluster,
    placement: placeNodes(0),
    signal: new AbortController().signal,
    dropCaches: async (what: 1 | 2) => void dropped.push(what),
    settle: async () => undefined,
    note: () => undefined,
  };
}

const quiet: Counters = {
  fuseRequests: 5,
  lockMessagesSent: 1,
  lockMessagesReceived: 1,
  lowerMessagesSent: 0,
  lowerMessagesReceived: 0,
  revokes: 0,
  inodes: 7,
};

/** Three nodes that see one directory, with no network between them: only what was asked of it is noted. */
function threeNodes(counters: () => Counters, delays: number[] = []): Cluster {
  const volume = made("volume");
  const [owner, other, third] = [1, 2, 3].map((nodeid) => standIn(`node${nodeid}`, volume, counters)) as [
    ClusterNode,
    ClusterNode,
    ClusterNode,
  ];
  let asked = 0;
  return {
    setCables: async (delayMs) => void delays.push(delayMs),
    lockMaster: async () => [null, owner, owner, third, other][asked++] ?? null,
    owner,
    other,
    third,
    end: async () => undefined,
  };
}

describe("the bench over stand-ins", () => {
  it("gives every figure for every system, twice, and every section", async () => {
    const delays: number[] = [];
    const given = parts(threeNodes(() => quiet, delays));
    const report = await runBench({ ...given, only: null, nodePeer: null, stagesDir: null, setting: {} });
    expect(report.failures).toEqual([]);
    for (const step of STEPS) {
      const counts = Object.fromEntries(step.systems.map((name) => [name, step.long === true ? 1 : 2]));
      for (const { name } of step.figures) {
        const samples = Object.entries(report.figures.find((figure) => figure.name === name)?.samples ?? {});
        const good = samples.map(([system, values]) => [system, values.filter((value) => value > 0).length]);
        expect({ name, ...Object.fromEntries(good) }).toEqual({ name, ...counts });
      }
    }
    expect(report.handovers.map(({ pair }) => pair)).toEqual([
      "native, one node",
      "bindfs, one node",
      "owner to other",
      "other to owner",
      "other to third",
    ]);
    expect(report.handovers.every(({ stale, reads }) => stale === 0 && reads === 15)).toBe(true);
    expect(report.roundTrip.cUs).toBeGreaterThan(0);
    expect(report.longHandovers?.handovers.map(({ pair }) => pair)).toEqual(["owner to other", "other to owner", "other to third"]);
    expect(report.longLocks.map(({ tripMs, us }) => [tripMs, us > 0])).toEqual(
      [0.5, 2, 10].flatMap((ms) => Array.from({ length: 6 }, () => [ms, true])),
    );
    expect(report.longLocks.slice(0, 4).map(({ kind, master }) => `${kind} ${master}`)).toEqual([
      "posix last user",
      "posix third node",
      "posix asker",
      "flock last user",
    ]);
    expect(delays).toEqual([0.125, 0, 0.125, 0.5, 2.5, 0, 0, 0.5, 2.5, 0]);
    expect(report.sqliteTrips.map(({ tripMs, us }) => [tripMs, us > 0])).toEqual([0, 0, 0, 2, 2, 2, 10, 10, 10].map((ms) => [ms, true]));
    expect(report.messages.map(({ operation, lock, lower }) => [operation, lock, lower])).toHaveLength(31);
    expect(report.messages.every(({ lock, lower, fuse }) => lock === 0 && lower === 0 && fuse === 0)).toBe(true);
    expect(report.memory.map(({ node, files, inodes }) => [node, files, inodes])).toEqual([
      ["node1", 20, 7],
      ["node2", 20, 7],
    ]);
    expect(report.directories.map(({ system }) => system)).toEqual(["native", "bindfs", "owner", "other"]);
    // Cold figures, each time, and two counted ones; sequential reads, in their one round.
    const cold = STEPS.filter(({ name }) => name.startsWith("cold") || name === "lookup").flatMap(({ systems }) => systems).length;
    expect(given.dropped.filter((what) => what === 2)).toHaveLength(2 * cold + 2);
    expect(given.dropped.filter((what) => what === 1)).toHaveLength(4);
  });

  it("leaves nothing in the systems but what it reuses", async () => {
    const given = parts(null, [standInSystem("native")]);
    const only = new Set(["create-unlink", "create-write", "sequential", "untar", "clone", "handover", "directory"]);
    await runBench({ ...given, only, nodePeer: null, stagesDir: null, setting: {} });
    expect(readdirSync(path.join(dir, "native"))).toEqual([]);
  });

  it("calls a message for what is cached a failure", async () => {
    let sent = 0;
    const given = parts(threeNodes(() => ({ ...quiet, lockMessagesSent: sent++ })));
    const report = await runBench({ ...given, only: new Set(["messages"]), nodePeer: null, stagesDir: null, setting: {} });
    expect(report.failures.map(({ where }) => where)).toEqual([
      "warm stat, owner",
      "cached 4 KiB read, owner",
      "lock and unlock, owner",
      "warm stat, other",
      "cached 4 KiB read, other",
      "lock and unlock, other",
    ]);
  });

  it("says n/a for a counter that is not offered, and does not call it silence", async () => {
    const given = parts(threeNodes(() => ({ fuseRequests: 1 })));
    const report = await runBench({ ...given, only: new Set(["messages"]), nodePeer: null, stagesDir: null, setting: {} });
    expect(report.failures).toEqual([]);
    expect(report.messages.every(({ lock, revokes }) => lock === null && revokes === null)).toBe(true);
    expect(report.targets.filter(({ name }) => name.startsWith("messages")).map(({ reached }) => reached)).toEqual([
      null,
      null,
      null,
      null,
      null,
      null,
    ]);
  });

  it("goes on after a system failed a step, and does not try it again there", async () => {
    const given = parts(null, [standInSystem("native"), { ...standInSystem("bindfs"), dir: path.join(dir, "absent") }]);
    let tries = 0;
    const step = STEPS.find(({ name }) => name === "create-unlink");
    if (step === undefined) throw new Error("no such step");
    const counted = { ...step, run: (...args: Parameters<typeof step.run>) => (tries++, step.run(...args)) };
    const result = await runRounds(createBench(given), [counted], async () => undefined);
    expect(result.failures.map(({ where }) => where)).toEqual(["create-unlink on bindfs"]);
    expect(result.figures[0]?.samples.native).toHaveLength(2);
    expect(tries).toBe(3);
  });

  it("ends when it is interrupted", async () => {
    const controller = new AbortController();
    const given = { ...parts(null), signal: controller.signal };
    const run = runBench({ ...given, note: () => controller.abort(), only: null, nodePeer: null, stagesDir: null, setting: {} });
    await expect(run).rejects.toMatchObject({ code: "interrupted" });
  });
});

describe("the load program", () => {
  it("counts a read that does not see the write as stale", async () => {
    const [a, b] = [made("a"), made("b")];
    for (const place of [a, b]) writeFileSync(path.join(place, "f0"), Buffer.alloc(4096));
    const values = await runLoad(program, ["handover", path.join(a, "f0"), path.join(b, "f0"), 5]);
    expect(values).toMatchObject({ stale: 5, ops: 5 });
    const same = await runLoad(program, ["handover", path.join(a, "f0"), path.join(a, "f0"), 5]);
    expect(same).toMatchObject({ stale: 0, ops: 5 });
  });

  it("refuses a listing that lacks a name, a missing file, a wrong command line", async () => {
    await runLoad(program, ["make", dir, 3, 10]);
    await expect(runLoad(program, ["list", dir, 4, 0])).rejects.toThrow(/should have 4 entries, but lists 3/);
    await expect(runLoad(program, ["stat", dir, 4, 0, 0])).rejects.toThrow(/stat f3: No such file/);
    await expect(runLoad(program, ["make", dir, "-1", 0])).rejects.toThrow(/expected a count/);
    await expect(runLoad(program, ["make", dir])).rejects.toThrow(/takes 3 arguments/);
    await expect(runLoad(program, ["dance"])).rejects.toThrow(/unknown operation/);
    await runLoad(program, ["remove", dir, 3]);
    expect(readdirSync(dir)).toEqual([]);
  });

  it("waits before and after what is timed", async () => {
    await runLoad(program, ["make", dir, 3, 0]);
    const order: string[] = [];
    const values = await runHeldLoad(program, ["stat", dir, 3, 1, 0], {
      ready: async () => void order.push("ready"),
      done: async () => void order.push("done"),
    });
    expect(order).toEqual(["ready", "done"]);
    expect(values).toMatchObject({ ops: 3 });
    await expect(
      runHeldLoad(program, ["stat", dir, 4, 1, 0], { ready: async () => undefined, done: async () => undefined }),
    ).rejects.toThrow(/No such file/);
  });
});

describe("the round trip from Node", () => {
  it("is measured over a connection of its own", async () => {
    const ends: Promise<void>[] = [];
    const port = await new Promise<number>((resolve) => ends.push(serve("127.0.0.1", resolve)));
    expect(await ping("127.0.0.1", port, 50)).toBeGreaterThan(0);
    await Promise.all(ends);
  });
});

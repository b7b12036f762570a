/** The bench's arithmetic, its command line, its judgement and its tables, on made-up figures. */
import { describe, expect, it } from "vitest";
import { decodeLoadValues } from "../../bench/load.ts";
import { tripsByCables, tripsOfLock } from "../../bench/long-locks.ts";
import { type MessageCount, speedByTrips } from "../../bench/messages.ts";
import { parseOptions } from "../../bench/options.ts";
import { type Report, columns, ratiosOf, renderReport, reportJson } from "../../bench/report.ts";
import type { FigureResult } from "../../bench/rounds.ts";
import { lies } from "../../bench/run.ts";
import { decodeRss } from "../../bench/size.ts";
import { shareOfTrips, tripsByClock } from "../../bench/sqlite-trips.ts";
import { fastest, median, rotated, speedRatio } from "../../bench/stats.ts";
import { type Measured, type Target, judge } from "../../bench/targets.ts";

const nothing: Measured = {
  figures: [],
  handovers: [],
  roundTrip: { cUs: null, nodeUs: null },
  longHandovers: null,
  longLocks: [],
  messages: [],
  sqliteTrips: [],
  memory: [],
  directories: [],
  tls: [],
  stages: [],
};

function figure(name: string, values: FigureResult["median"], unit: FigureResult["unit"] = "us"): FigureResult {
  return { name, title: name, unit, samples: {}, median: values };
}

it("compares an operation with its round trips, one after the other", () => {
  const one = silent("SQLite transaction", { lower: 6, peer: 4, us: 2000 });
  expect(speedByTrips(one, 100)).toEqual({ trips: 5, allowedUs: 500, ratio: 0.25 });
  expect(speedByTrips(one, null)).toBeNull();
  expect(speedByTrips({ ...one, lower: 0, peer: 0 }, 100)).toBeNull();
  expect(speedByTrips({ ...one, us: null }, 100)).toBeNull();
});

it("says what share of a transaction's time its round trips take, and how many of them the clock has", () => {
  const one = { who: "other", tripMs: 10, us: 250_000, ownerTrips: 20, lockTrips: 4 };
  expect(shareOfTrips(one)).toBe(0.96);
  expect([shareOfTrips({ ...one, tripMs: 0 }), shareOfTrips({ ...one, ownerTrips: null })]).toEqual([null, null]);
  const all = [{ ...one, tripMs: 0, us: 10_000 }, { ...one, who: "third", tripMs: 0, us: 1 }, one];
  expect([tripsByClock(one, all), tripsByClock(one, [one])]).toEqual([24, null]);
  const name = "SQLite, round trips of 10 ms, other";
  expect(target({ sqliteTrips: all }, name)).toEqual({ found: "96 %", reached: true });
  expect(target({ sqliteTrips: [{ ...one, us: 500_000 }] }, name).reached).toBe(false);
});

function silent(operation: string, change: Partial<MessageCount> = {}): MessageCount {
  return {
    operation,
    ops: 1000,
    fuse: 0,
    trips: 0,
    lock: 0,
    lower: 0,
    revokes: 0,
    peer: null,
    cpuUs: null,
    us: null,
    mustBeNone: true,
    ...change,
  };
}

function target(measured: Partial<Measured>, name: string): { found: string; reached: boolean | null } {
  const found = judge({ ...nothing, ...measured }).find((one) => one.name === name);
  if (found === undefined) throw new Error(`no target ${name}`);
  return { found: found.found, reached: found.reached };
}

describe("arithmetic", () => {
  it("takes the middle, and the mean of the two in the middle", () => {
    expect(median([9, 1, 5])).toBe(5);
    expect(median([4, 1, 3, 2])).toBe(2.5);
    expect(median([])).toBeNaN();
  });

  it("knows that less time and more throughput are both faster", () => {
    expect(speedRatio("us", 10, 20)).toBe(2);
    expect(speedRatio("MiB/s", 20, 10)).toBe(2);
    expect(fastest("us", [undefined, 7, 5])).toBe(5);
    expect(fastest("MiB/s", [7, 5])).toBe(7);
    expect(fastest("us", [undefined])).toBeNull();
  });

  it("begins each round with another system", () => {
    expect([0, 1, 2, 3].map((round) => rotated(["a", "b", "c"], round).join(""))).toEqual(["abc", "bca", "cab", "abc"]);
    expect(rotated([], 1)).toEqual([]);
  });

  it("reads what a load prints, and nothing else", () => {
    expect(decodeLoadValues("nsPerOp 12.50\nops 3\n")).toEqual({ nsPerOp: 12.5, ops: 3 });
    expect(() => decodeLoadValues("hello\n")).toThrow(/found "hello"/);
    expect(() => decodeLoadValues("nsPerOp fast\n")).toThrow(/found "nsPerOp fast"/);
  });

  it("reads VmRSS in bytes", () => {
    expect(decodeRss("VmPeak:\t 9 kB\nVmRSS:\t    1000 kB\n")).toBe(1_024_000);
    expect(() => decodeRss("VmPeak:\t 9 kB\n")).toThrow(/VmRSS/);
  });
});

describe("the command line", () => {
  it("knows its options", () => {
    const options = parseOptions(["--quick", "--json", "-", "--only", "warm-stat,memory", "--systems", "native,owner", "--rounds", "2"]);
    expect(options).toMatchObject({ quick: true, json: "-", rounds: 2, dir: null, help: false });
    expect([...(options.only ?? [])]).toEqual(["warm-stat", "memory"]);
    expect([...options.systems]).toEqual(["native", "owner"]);
    expect(parseOptions([]).systems.size).toBe(5);
  });

  it.each([[["--only", "warm-stta"]], [["--systems", "nfs"]], [["--rounds", "0"]], [["--quack"]]])("refuses %j", (args) => {
    expect(() => parseOptions(args)).toThrow(expect.objectContaining({ code: "usage" }) as Error);
  });
});

describe("targets", () => {
  it("compares with bindfs that is asked each time, where the limit itself is reached, and shows bindfs as it comes", () => {
    const lookup = (owner: number): Partial<Measured> => ({ figures: [figure("lookup", { bindfs: 15, "bindfs-uncached": 30, owner })] });
    expect(target(lookup(20), "lookup, owner")).toEqual({ found: "1.50x", reached: true });
    expect(target(lookup(21), "lookup, owner").reached).toBe(false);
    expect(target(lookup(20), "lookup, owner, as it comes")).toEqual({ found: "0.75x", reached: null });
    expect(target({}, "lookup, owner").reached).toBeNull();
  });

  it("says how many times as long as the faster mount of bindfs an operation takes", () => {
    const made = (other: number): Partial<Measured> => ({
      figures: [figure("create-write", { bindfs: 100, "bindfs-uncached": 200, owner: 90, other })],
    });
    expect(target(made(300), "create-write, other, beside bindfs")).toEqual({ found: "3.00", reached: true });
    expect(target(made(301), "create-write, other, beside bindfs").reached).toBe(false);
    expect(target(made(301), "create-write, owner, beside bindfs")).toEqual({ found: "0.90", reached: true });
    expect(target({}, "create-write, owner, beside bindfs")).toEqual({ found: "not measured", reached: null });
  });

  it("compares what is cached with native, on both nodes", () => {
    const figures = [figure("warm-stat", { native: 9, owner: 10, other: 11 })];
    expect(target({ figures }, "warm-stat, owner").reached).toBe(true);
    expect(target({ figures }, "warm-stat, other").reached).toBe(false);
  });

  it("allows no message at all for what is cached, and does not guess where nobody counted", () => {
    const name = "messages: warm stat, owner";
    expect(target({ messages: [silent("warm stat, owner")] }, name).reached).toBe(true);
    expect(target({ messages: [silent("warm stat, owner", { lock: 0.001 })] }, name)).toEqual({ found: "1 in 1000", reached: false });
    expect(target({ messages: [silent("warm stat, owner", { lower: 0.002 })] }, name).reached).toBe(false);
    expect(target({ messages: [silent("warm stat, owner", { lock: null })] }, name).reached).toBeNull();
    const chmod = (more: Partial<MessageCount>): Pick<Target, "found" | "reached"> =>
      target(
        { messages: [silent("chmod of its own, other", { trips: 1, lower: 2.5, ...more })] },
        "trips and messages: chmod of its own, other",
      );
    expect(chmod({ lock: 0.25, peer: 0.25 })).toEqual({ found: "1.000 and 3.00", reached: true });
    expect(chmod({ lock: 0.25, peer: 0.35 }).reached).toBe(false);
    expect(chmod({ trips: 1.2, peer: 0 })).toEqual({ found: "1.200 and 2.50", reached: false });
    expect(chmod({ peer: null })).toEqual({ found: "not counted", reached: null });
  });

  it("measures the slowest pair of nodes in round trips, and leaves out what is on one node, or on the same processors", () => {
    const handover = (pair: string, readUs: number, apart = true) => ({
      pair,
      apart,
      writeUs: 1,
      readUs,
      read90Us: readUs,
      totalUs: readUs + 1,
      stale: 0,
      reads: 9,
    });
    const handovers = [
      handover("native, one node", 900, false),
      handover("owner to other", 40),
      handover("other to owner", 50),
      handover("other to third", 60, false),
    ];
    const measured = { handovers, roundTrip: { cUs: 10, nodeUs: 20 } };
    expect(target(measured, "read of what another node wrote (C round trip)")).toEqual({ found: "5.0 (other to owner)", reached: false });
    expect(target(measured, "read of what another node wrote (Node round trip)").reached).toBe(true);
    const longHandovers = { delayMs: 0.25, handovers: [handover("owner to other", 45)], roundTrip: { cUs: 10, nodeUs: 20 } };
    const long = "the same, 0.25 ms from node to node";
    expect(target({ longHandovers }, `${long} (C round trip)`)).toEqual({ found: "4.5 (owner to other)", reached: false });
    expect(target({ longHandovers }, `${long} (Node round trip)`).reached).toBe(true);
  });

  it("measures a file lock that another node used last in round trips", () => {
    const measured = { figures: [figure("lock-handover", { owner: 30, other: 31 })], roundTrip: { cUs: 1, nodeUs: 10 } };
    const name = (system: string): string => `file lock that another node used last, ${system} (Node round trip)`;
    expect(target(measured, name("owner"))).toEqual({ found: "3.0", reached: true });
    expect(target(measured, name("other")).reached).toBe(false);
    expect(target({ ...measured, roundTrip: { cUs: 1, nodeUs: null } }, name("owner")).reached).toBeNull();
  });

  it("measures file locks over long cables in round trips of these cables", () => {
    const one = { kind: "posix", master: "asker", tripMs: 10, us: 30_600, nodeTripUs: 10_200 } as const;
    const longLocks = [one, { ...one, master: "last user", us: 30_601 } as const, { ...one, kind: "flock", nodeTripUs: null } as const];
    const name = (kind: string, master: string): string => `${kind} lock, round trips of 10 ms, master: ${master}`;
    expect(target({ longLocks }, name("posix", "asker"))).toEqual({ found: "3.0", reached: true });
    expect(target({ longLocks }, name("posix", "last user")).reached).toBe(false);
    expect(target({ longLocks }, name("flock", "asker")).reached).toBeNull();
    expect(longLocks.map(tripsOfLock)).toEqual([3, 30_601 / 10_200, null]);
    const all = [{ ...one, tripMs: 0.5, us: 2_600, nodeTripUs: 700 } as const, ...longLocks];
    expect(all.map((each) => tripsByCables(each, all))).toEqual([null, 28_000 / 9_500, null, null]);
  });

  it("limits the overlay's memory", () => {
    const result = { node: "node1", files: 1000, inodes: 1000, rssBeforeBytes: 1, rssBytes: 151e6, limitBytes: 151e6, statUs: 1 };
    const name = "overlay's memory with 1000 inodes, owner";
    expect(target({ memory: [result] }, name).reached).toBe(true);
    expect(target({ memory: [{ ...result, rssBytes: 151e6 + 1 }] }, name).reached).toBe(false);
  });
});

describe("what no figure makes up for", () => {
  it("is a stale read, or a message for what is cached", () => {
    const handovers = [{ pair: "owner to other", apart: true, writeUs: 1, readUs: 1, read90Us: 1, totalUs: 2, stale: 1, reads: 300 }];
    const messages = [silent("warm stat, other", { lower: 2 }), silent("create, other", { lower: 2, mustBeNone: false })];
    const longHandovers = { delayMs: 0.25, handovers: [{ ...handovers[0]!, pair: "far" }], roundTrip: nothing.roundTrip };
    expect(lies({ handovers, longHandovers, messages }).map(({ where }) => where)).toEqual(["owner to other", "far", "warm stat, other"]);
    expect(
      lies({ handovers: [], longHandovers: null, messages: [silent("warm stat, other"), silent("uncounted", { lock: null })] }),
    ).toEqual([]);
  });
});

describe("the report", () => {
  const report: Report = {
    version: 1,
    setting: { rounds: 3 },
    ...nothing,
    figures: [figure("stat", { native: 10, bindfs: 40, owner: 20 }), figure("big", { native: 100, bindfs: 50, owner: 75 }, "MiB/s")],
    messages: [silent("warm stat, owner", { peer: null })],
    targets: [{ name: "a", wanted: ">= 1", found: "0.5x", reached: false }],
    failures: [{ where: "untar on other", message: "no such file" }],
  };

  it("gives ratios as times as fast", () => {
    expect(report.figures.map((one) => ratiosOf(one, "owner"))).toEqual([
      { toNative: 0.5, toBindfs: 2 },
      { toNative: 0.75, toBindfs: 1.5 },
    ]);
  });

  it("aligns its columns", () => {
    expect(
      columns([
        ["a", "b"],
        ["long", "1"],
        ["x", "222"],
      ]).split("\n"),
    ).toEqual(["a       b", "long    1", "x     222"]);
  });

  it("shows values, ratios, what was not measured, targets and failures", () => {
    const lines = renderReport(report).split("\n");
    expect(lines.find((line) => line.startsWith("stat "))?.split(/\s+/)).toEqual([
      "stat",
      "us",
      "10.0",
      "40.0",
      "-",
      "20.0",
      "-",
      "0.50x",
      "2.00x",
      "-",
      "-",
    ]);
    expect(
      lines
        .find((line) => line.startsWith("warm stat"))
        ?.trim()
        .split(/\s{2,}/),
    ).toEqual(["warm stat, owner", "0", "0", "0", "0", "0", "n/a", "n/a", "1000"]);
    expect(lines).toContain("FAILED untar on other: no such file");
    expect(lines.at(-3)).toMatch(/^a\s+>= 1\s+0\.5x\s+NO$/);
  });

  it("is JSON too, with its ratios", () => {
    const value = JSON.parse(reportJson(report)) as { figures: { ratios: { owner: { toBindfs: number } } }[]; targets: unknown[] };
    expect(value.figures[0]?.ratios.owner.toBindfs).toBe(2);
    expect(value.targets).toEqual(report.targets);
  });
});

/** The models of caches, of blocks and of deaths: what they promise holds in all their states, and a broken rule is seen. */
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { afterAnyCrash, afterCrash, type Journal, MAX_UNFLUSHED_WRITES, replay, transaction } from "../../model/blocks.ts";
import { brokenRule, type Move, move, nothingCached, type Shared } from "../../model/caches.ts";
import { brokenPromises, type Change, fates } from "../../model/deaths.ts";

describe("blocks", () => {
  const journal: Journal<string> = { copies: [10, 11], commit: 12, committed: "commit", empty: "empty" };
  const before = new Map([
    [1, "old 1"],
    [2, "old 2"],
    [12, "empty"],
  ]);
  const changes = [
    [1, "new 1"],
    [2, "new 2"],
  ] as const;
  const both = (calls: ReturnType<typeof transaction<string>>): Set<string> =>
    new Set(
      afterAnyCrash(before, calls)
        .map((disk) => replay(disk, [1, 2], journal))
        .map((disk) => `${disk.get(1)}, ${disk.get(2)}`),
    );

  it("a transaction is there whole or not at all, wherever it is cut", () => {
    expect(both(transaction(changes, journal))).toEqual(new Set(["old 1, old 2", "new 1, new 2"]));
  });

  it("after the second flush it is there", () => {
    const told = transaction(changes, journal).findIndex(({ kind }, at) => kind === "flush" && at > 3) + 1;
    const disks = afterCrash(before, transaction(changes, journal), told).map((disk) => replay(disk, [1, 2], journal));
    expect(disks.map((disk) => disk.get(2))).toEqual(["new 2"]);
  });

  it.each([0, 1])("without flush %i it may be there in part", (which) => {
    const calls = transaction(changes, journal);
    const flushes = calls.flatMap(({ kind }, at) => (kind === "flush" ? [at] : []));
    expect(both(calls.toSpliced(flushes[which] ?? -1, 1)).size).toBeGreaterThan(2);
  });

  it("refuses to go through more than it can", () => {
    const writes = Array.from({ length: MAX_UNFLUSHED_WRITES + 1 }, (_, block) => ({ kind: "write" as const, block, content: "x" }));
    expect(() => afterCrash(new Map(), writes, writes.length)).toThrow(RangeError);
  });
});

describe("caches", () => {
  const node = fc.nat(2);
  const moves = fc.array(
    fc.oneof(
      fc.record({ kind: fc.constant("lock" as const), node, mode: fc.constantFrom("PR" as const, "EX" as const) }),
      fc.record({ kind: fc.constantFrom("drop" as const, "read" as const, "change" as const), node }),
    ),
    { minLength: 5, maxLength: 60 },
  );
  const play = (played: readonly Move[]): { states: Shared[]; shown: [number, number][] } => {
    let shared = nothingCached;
    const states = [shared];
    const shown: [number, number][] = [];
    for (const one of played) {
      const moved = move(shared, one);
      if (moved.kind !== "done") continue;
      if (moved.shown !== null) shown.push([moved.shown, shared.version]);
      shared = moved.after;
      states.push(shared);
    }
    return { states, shown };
  };

  it("no node ever shows what is old", () => {
    fc.assert(
      fc.property(moves, (drawn) => {
        const { states, shown } = play(drawn);
        expect(states.map(brokenRule).filter((why) => why !== null)).toEqual([]);
        expect(shown.filter(([seen, now]) => seen !== now)).toEqual([]);
      }),
    );
  });

  it("a cache that outlives its lock is seen as broken", () => {
    const { states } = play([
      { kind: "lock", node: 1, mode: "PR" },
      { kind: "read", node: 1 },
    ]);
    const shared = states.at(-1) ?? nothingCached;
    expect(brokenRule({ ...shared, modes: new Map([[1, "NL"]]) })).toBe("node 1 caches something without a lock");
    expect(brokenRule({ ...shared, version: 1 })).toBe("node 1 would show version 0 of 1");
    expect(move(shared, { kind: "lock", node: 2, mode: "EX" })).toEqual({ kind: "waits", for: [1] });
  });
});

describe("deaths", () => {
  const change = (number: number, author: number, more: Partial<Change> = {}): Change => ({
    number,
    author,
    answered: true,
    onDisk: false,
    upon: [],
    ...more,
  });

  it("the owner alone dies: no survivor loses an answered change", () => {
    expect([...fates([change(1, 2), change(2, 3, { upon: [1] })], 1, new Set([1])).values()]).toEqual(["kept", "kept"]);
  });

  it("what was fsynced is never lost", () => {
    fc.assert(
      fc.property(fc.subarray([1, 2, 3]), (dead) => {
        const found = fates([change(1, 2, { onDisk: true }), change(2, 3, { onDisk: true, upon: [1] })], 1, new Set(dead));
        expect([...found.values()]).toEqual(["kept", "kept"]);
      }),
    );
  });

  it("owner and author die: what a survivor built upon that is reported, never silent", () => {
    const changes = [change(1, 2), change(2, 3, { upon: [1] }), change(3, 3)];
    const dead = new Set([1, 2]);
    expect([...fates(changes, 1, dead).values()]).toEqual(["lost", "reported", "kept"]);
    const there = new Set([3]);
    expect(brokenPromises(changes, 1, dead, { there, reportedTo: new Set() })).toEqual([
      "change 2 of node 3 is gone, and node 3 was not told",
    ]);
    expect(brokenPromises(changes, 1, dead, { there, reportedTo: new Set([3]) })).toEqual([]);
    expect(brokenPromises(changes, 1, dead, { there: new Set(), reportedTo: new Set([3]) })).toEqual(["change 3 of node 3 is gone"]);
  });

  it("a remote that dies takes nothing with it", () => {
    expect([...fates([change(1, 2), change(2, 2, { answered: false })], 1, new Set([2])).values()]).toEqual(["kept", "either"]);
  });
});

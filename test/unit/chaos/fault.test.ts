import { describe, expect, it } from "vitest";
import {
  drawFaults,
  expectation,
  failsOwnersDisk,
  type FaultDraw,
  type FaultKind,
  faultKinds,
  faultRow,
  type Role,
} from "../../chaos/fault.ts";
import { drawLoad, objects, STEPS } from "../../chaos/load-plan.ts";
import { Random, Streams } from "../../sim/random.ts";

function draws(seed: number, cycles: number): FaultDraw[][] {
  return Array.from({ length: cycles }, (_, at) => drawFaults(new Streams(seed).of(`faults ${at + 1}`), faultKinds, at + 1));
}

function fault(kind: FaultKind, role: Role): FaultDraw {
  return { kind, role, which: 0, delayMs: 0, holdMs: 0, seed: 1, keepPercent: 50 };
}

describe("the faults of a cycle", () => {
  it("follow from the seed", () => {
    expect(draws(7, 20)).toEqual(draws(7, 20));
    expect(draws(7, 20)).not.toEqual(draws(8, 20));
  });

  it("of many seeds are all kinds, of both roles, alone and as pairs on two nodes, within their times", () => {
    const all = Array.from({ length: 60 }, (_, at) => draws(at + 1, 20)).flat();
    expect(new Set(all.flat().map(({ kind, role }) => `${kind} ${role}`)).size).toBe(2 * faultKinds.length);
    const pairs = all.filter(({ length }) => length === 2);
    expect(pairs.length).toBeGreaterThan(100);
    for (const [first, second] of pairs) expect(new Set([first?.role, second?.role])).toEqual(new Set(["other", "owner"]));
    for (const { kind, holdMs } of all.flat()) {
      const [least, most] = faultRow(kind).holdMs;
      expect(holdMs >= least && holdMs < most).toBe(true);
    }
  });

  it("fail an owner's disk in every eighth cycle only", () => {
    const cycles = Array.from({ length: 100 }, (_, at) => draws(at + 1, 17)).flatMap((list) =>
      list.flatMap((cycle, at) => (cycle.some(failsOwnersDisk) ? [at + 1] : [])),
    );
    expect(new Set(cycles)).toEqual(new Set([1, 9, 17]));
  });

  it("fail no other disk beside the owner's: the other node may be the next owner", () => {
    const pairs = Array.from({ length: 2000 }, (_, at) => draws(at + 1, 1))
      .flat()
      .filter((cycle) => cycle.length === 2 && cycle.some(failsOwnersDisk));
    expect(pairs.length).toBeGreaterThan(20);
    expect(pairs.filter((cycle) => cycle.every(({ kind }) => kind === "cut" || kind === "hang"))).toEqual([]);
  });
});

describe("what must hold", () => {
  it("an owner's loss of power: with a fence the others go on, without one they wait; what is not synced may be lost", () => {
    const drawn = [fault("power-off", "owner")];
    expect(expectation(drawn, false)).toEqual({ losses: 1, othersGoOn: false, sufferers: "all", losesLocks: true });
    expect(expectation(drawn, true)).toEqual({ losses: 1, othersGoOn: true, sufferers: "all", losesLocks: true });
  });

  it("another node's: nothing is lost, its own calls fail, the others go on", () => {
    const drawn = [fault("power-off", "other")];
    expect(expectation(drawn, false)).toEqual({ losses: 0, othersGoOn: true, sufferers: "victim", losesLocks: true });
  });

  it("an owner's disk that fails: it lets go of it, and the others go on without a fence; one that hangs is not told from a slow one", () => {
    for (const fences of [false, true]) {
      expect(expectation([fault("cut", "owner")], fences)).toMatchObject({ losses: 1, othersGoOn: true, sufferers: "all" });
      expect(expectation([fault("hang", "owner")], fences)).toMatchObject({ losses: 1, othersGoOn: false, sufferers: "all" });
    }
  });

  it("a bad network: nobody notices", () => {
    expect(expectation([fault("loss", "owner")], false)).toEqual({ losses: 0, othersGoOn: true, sufferers: "nobody", losesLocks: false });
  });

  it("the first of two may make the victim of the second the owner", () => {
    const drawn = [fault("kill-overlay", "owner"), fault("power-off", "other")];
    expect(expectation(drawn, false)).toMatchObject({ losses: 1, sufferers: "all" });
  });

  it("two at a time: the sum of both, and nobody needs to go on", () => {
    const drawn = [fault("loss", "other"), fault("power-off", "owner")];
    expect(expectation(drawn, true)).toEqual({ losses: 1, othersGoOn: false, sufferers: "all", losesLocks: true });
  });
});

describe("the load", () => {
  it("follows from the seed, and is of every kind of object and action", () => {
    const load = drawLoad(new Random(3), 2, 15);
    expect(load).toEqual(drawLoad(new Random(3), 2, 15));
    expect(load.length).toBeGreaterThanOrEqual(STEPS);
    expect(new Set(load.map(({ object }) => object))).toEqual(new Set(objects));
    const kinds = [
      "write",
      "read",
      "append",
      "readAll",
      "create",
      "mkdir",
      "rename",
      "link",
      "unlink",
      "rmdir",
      "look",
      "sync",
      "lock",
      "unlock",
    ];
    expect(new Set(load.map(({ action }) => action.kind))).toEqual(new Set(kinds));
  });

  it("makes nothing twice with one tag, writes nothing twice, and waits for no lock with another in its hands", () => {
    const all = Array.from({ length: 15 }, (_, client) => drawLoad(new Random(client), client, 15));
    const made = all
      .flat()
      .flatMap(({ object, action }) => ("tag" in action ? [`${object} ${action.tag}`] : "value" in action ? [`${action.value}`] : []));
    expect(new Set(made).size).toBe(made.length);
    expect(all.flat().every(({ action }) => !("tag" in action) || (action.tag >= 0 && action.tag < 512))).toBe(true);
    for (const load of all) {
      const next = [...load.entries()].filter(([, { action }]) => action.kind === "lock").map(([at]) => load[at + 1]?.action.kind);
      expect(new Set(next)).toEqual(new Set(["unlock"]));
    }
  });
});

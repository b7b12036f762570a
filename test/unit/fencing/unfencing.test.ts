/** A node gets its storage back once in a life, and not in a boot that was fenced (hazard C3). */
import { describe, expect, it } from "vitest";
import type { UnfencePlan } from "../../../dlmd/config/fence-plan.ts";
import type { AgentResult } from "../../../dlmd/fencing/fence-run.ts";
import { FenceWorld, failed, missing, ok, plansFor, storageOf } from "./fence-world.ts";

const all = plansFor([1, 2, 3, 4, 5]);

/** Node 1 has those from now on. */
function configure(world: FenceWorld, unfence: readonly UnfencePlan[]): void {
  const { configuration } = world.core(1);
  const [plan] = plansFor([1]).values();
  if (plan === undefined) throw new Error("no plan");
  world.input(1, { kind: "configuration", configuration: { ...configuration, fencePlans: new Map([[1, { ...plan, unfence }]]) } });
  world.settle();
}

/** Node 1 hears that another life of it in this boot was fenced. */
function fencedBefore(world: FenceWorld): void {
  const { bootId } = world.life(1);
  const { table } = world.core(1).fencing;
  const proofs = [{ nodeid: 1, incarnation: "00000000000000ff", bootId, by: "ipmi1", atMs: 5 }];
  table.receiveTable({ nodeid: 2, incarnation: world.incarnation(2) }, { ...table.message("boot1of2", 5, [], false), proofs });
}

describe("unfencing", () => {
  it("is once in a life, when the node serves and knows what the others know; not after a fence in the same boot", () => {
    const world = new FenceWorld(3, all, (nodeid) => ({ bootId: `boot of ${nodeid}` }));
    world.together();
    world.until("all are unfenced", () => world.unfenced.length === 3);
    expect(world.unfenced.toSorted(([a], [b]) => a - b)).toEqual([
      [1, true],
      [2, true],
      [3, true],
    ]);
    const life = world.life(3);
    world.crash(3);
    world.together();
    world.fence(1, life);
    world.until("an agent runs", () => world.agents.length === 1);
    world.end(ok);
    world.until("it is fenced", () => world.fence(1, life).kind === "fenced");
    world.crash(2);
    world.restart(2);
    world.restart(3);
    world.together();
    world.until("both have been looked at", () => world.unfenced.length === 5);
    expect(world.unfenced.slice(3).toSorted(([a], [b]) => a - b)).toEqual([
      [2, true],
      [3, false],
    ]);
  });
});

describe("a device that the configuration brings", () => {
  const scsi = storageOf(1);
  const other = { device: "other", means: "other" };

  function without(): FenceWorld {
    const world = new FenceWorld(3, new Map());
    world.together();
    expect(world.unfenced).toEqual([]);
    return world;
  }

  it("has its `on` run at once, and no other has it again", () => {
    const world = without();
    configure(world, [scsi]);
    expect(world.unfencedBy).toEqual(["scsi1"]);
    configure(world, [scsi]);
    configure(world, [scsi, other]);
    expect(world.unfencedBy).toEqual(["scsi1", "other"]);
    world.crash(2);
    world.together();
    expect(world.unfencedBy).toEqual(["scsi1", "other"]);
  });

  it("has it again when it says something else, and when it was gone", () => {
    const world = without();
    configure(world, [scsi]);
    configure(world, [storageOf(1, " of another disk")]);
    configure(world, []);
    configure(world, [scsi]);
    expect(world.unfencedBy).toEqual(["scsi1", "scsi1", "scsi1"]);
  });

  it("waits for the one before it; an agent of a device that is gone, or says something else, is stopped", () => {
    const world = without();
    world.hanging.add(1);
    configure(world, [scsi, other]);
    expect(world.unfencedBy).toEqual(["scsi1"]);
    configure(world, [other]);
    expect([world.unfencedBy, world.unfencing.length]).toEqual([["scsi1", "other"], 1]);
    configure(world, [{ ...other, means: "another" }]);
    expect([world.unfencedBy, world.unfencing.length]).toEqual([["scsi1", "other", "other"], 1]);
  });

  it("does not have it in a boot that was fenced", () => {
    const world = without();
    fencedBefore(world);
    configure(world, [scsi, other]);
    expect(world.unfenced).toEqual([
      [1, false],
      [1, false],
    ]);
  });
});

describe("an `on` that failed", () => {
  /** Of node 1: it runs. */
  function running(): FenceWorld {
    const world = new FenceWorld(3, all);
    world.hanging.add(1);
    world.together();
    return world;
  }
  function end(world: FenceWorld, result: AgentResult): void {
    world.until("its agent runs", () => world.unfencing.length === 1, 100_000);
    const [on] = world.unfencing.splice(0, 1);
    if (on === undefined) throw new Error("none runs");
    world.input(1, { kind: "fence-ran", runId: on.runId, result });
    world.settle();
  }
  const shown = (world: FenceWorld) => world.status(1).fencing.unfencing;

  it.each([
    [failed, "no answer"],
    [missing, "is not there"],
  ])("is run again after a pause that doubles up to a minute, and shown meanwhile: %o", (result, failure) => {
    const world = running();
    for (let rounds = 1; rounds <= 8; rounds++) {
      end(world, result);
      const fromMs = world.nowMs;
      const [row] = shown(world);
      const pauseMs = Math.min(60_000, 1000 * 2 ** (rounds - 1));
      expect(row).toEqual({ device: "scsi1", rounds, failure, againAfterMs: pauseMs });
      world.until("it runs again", () => world.unfencing.length === 1, 100_000);
      expect(world.nowMs - fromMs).toBeGreaterThan(0.9 * pauseMs);
      expect(world.nowMs - fromMs).toBeLessThan(pauseMs + 1000);
      expect(shown(world)).toMatchObject([{ rounds, againAfterMs: 0 }]);
    }
    end(world, ok);
    expect(shown(world)).toEqual([]);
    const before = world.unfencedBy.length;
    world.pass(70_000);
    expect(world.unfencedBy).toHaveLength(before);
  });

  it("keeps no other device waiting", () => {
    const world = running();
    end(world, failed);
    configure(world, [storageOf(1), { device: "other", means: "other" }]);
    expect(world.unfencedBy.at(-1)).toBe("other");
    end(world, ok);
    expect(shown(world)).toMatchObject([{ device: "scsi1" }]);
    world.until("the first is run again", () => world.unfencedBy.at(-1) === "scsi1");
  });

  it("is not run again when its device is gone, nor when its boot was fenced meanwhile", () => {
    const world = running();
    end(world, failed);
    configure(world, []);
    expect(shown(world)).toEqual([]);
    configure(world, [storageOf(1)]);
    end(world, failed);
    fencedBefore(world);
    world.pass(2000);
    expect([world.unfenced.at(-1), shown(world)]).toEqual([[1, false], []]);
  });
});

describe("an `on` that hangs", () => {
  /** Node 3 has not got its storage back yet. */
  function hanging(): FenceWorld {
    const world = new FenceWorld(3, all);
    world.hanging.add(3);
    world.together();
    world.until("its agent runs", () => world.unfencing.length === 1);
    return world;
  }

  it("is stopped before others serve without its node, which may then be fenced", () => {
    const world = hanging();
    world.cut(1, 3);
    world.cut(2, 3);
    world.until("the others serve without it", () =>
      [1, 2].every((nodeid) => {
        const { recovery } = world.core(nodeid);
        return world.core(nodeid).servesAt(world.nowMs) && recovery.view?.members.length === 2;
      }),
    );
    expect(world.unfencing).toEqual([]);
  });

  it("begins again in the next view", () => {
    const world = hanging();
    const [first] = world.unfencing;
    world.crash(2);
    world.until("it is stopped", () => world.unfencing.length === 0);
    world.together();
    world.until("it runs again", () => world.unfencing.length === 1);
    expect(world.unfencing[0]?.runId).not.toBe(first?.runId);
    expect(world.unfenced.slice(3)).toEqual([[3, true]]);
  });

  it("is stopped when it is known that its boot was fenced", () => {
    const world = hanging();
    const { bootId } = world.life(3);
    const { table } = world.core(3).fencing;
    table.receiveTable(
      { nodeid: 1, incarnation: world.incarnation(1) },
      {
        ...table.message("boot1of1", 5, [], false),
        proofs: [{ nodeid: 3, incarnation: "00000000000000ff", bootId, by: "ipmi3", atMs: 5 }],
      },
    );
    world.input(3, { kind: "tick" });
    world.settle();
    expect(world.unfencing).toEqual([]);
    expect(world.unfenced.at(-1)).toEqual([3, false]);
  });
});

describe("a boot that was fenced", () => {
  const sameBoot = (nodeid: number) => ({ bootId: `boot of ${nodeid}` });

  it("is known from the state of the others, though their dlmd was started again since and a program asks without it", () => {
    const world = new FenceWorld(3, all, sameBoot);
    world.together();
    const life = world.life(3);
    world.crash(3);
    world.together();
    for (const nodeid of [1, 2]) world.crash(nodeid);
    for (const nodeid of [1, 2]) world.restart(nodeid);
    world.together();
    const question = { ...life, bootId: "" };
    world.fence(1, question);
    world.until("an agent runs", () => world.agents.length === 1);
    world.end(ok);
    world.until("it is fenced", () => world.fence(2, question).kind === "fenced");
    // Its own state is lost, as with a disk that was replaced: the others know.
    world.kept.delete(3);
    expect(world.kept.get(1)?.proofs).toMatchObject([{ nodeid: 3, bootId: life.bootId }]);
    world.restart(3);
    world.together();
    world.until("it was looked at", () => world.unfenced.some(([nodeid, isAllowed]) => nodeid === 3 && !isAllowed));
  });

  it("is known to its own node, if no other knows it", () => {
    const world = new FenceWorld(3, all, sameBoot);
    world.together();
    const life = world.life(3);
    world.crash(3);
    for (const nodeid of [1, 2]) world.crash(nodeid);
    for (const nodeid of [1, 2]) world.kept.delete(nodeid);
    for (const nodeid of [1, 2]) world.restart(nodeid);
    world.together();
    const question = { ...life, bootId: "" };
    world.fence(1, question);
    world.until("an agent runs", () => world.agents.length === 1);
    world.end(ok);
    world.until("it is fenced", () => world.fence(2, question).kind === "fenced");
    expect(world.kept.get(1)?.proofs).toMatchObject([{ nodeid: 3, bootId: "" }]);
    world.restart(3);
    world.together();
    world.until("it was looked at", () => world.unfenced.some(([nodeid, isAllowed]) => nodeid === 3 && !isAllowed));
  });
});

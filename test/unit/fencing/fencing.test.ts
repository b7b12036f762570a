/** Fencing between node cores: who runs agents against whom, when, and what is told (dlmd/fencing/README.md). */
import { describe, expect, it } from "vitest";
import { WANT_AGAIN_MS } from "../../../dlmd/fencing/fencing.ts";
import { MAX_WANTED_LIVES } from "../../../dlmd/wire/fencing-group.ts";
import { type FenceAnswer, shortened } from "../../../dlmd/wire/fence-life.ts";
import { FenceWorld, failed, missing, ok, plansFor, running } from "./fence-world.ts";

const all = plansFor([1, 2, 3, 4, 5]);

describe("a fence that is asked for", () => {
  it("runs at the lowest member, once; all know of it, and hear when it is done", () => {
    const { world, life } = running();
    expect(world.fence(1, life)).toEqual({ kind: "running", sinceMs: expect.any(Number), step: "node1 runs fence_ipmilan ipmi3" });
    expect(world.fence(2, life)).toMatchObject({ kind: "running", step: "node1 runs fence_ipmilan ipmi3" });
    world.end(ok);
    world.until("it is known", () => world.fence(2, life).kind === "fenced");
    expect([world.fence(1, life), world.fence(2, life)].map((answer) => (answer as FenceAnswer & { by: string }).by)).toEqual([
      "ipmi3",
      "ipmi3",
    ]);
    expect(world.status(2).fencing).toMatchObject({ wanted: [], history: [{ nodeid: 3, outcome: "fenced", by: "ipmi3" }] });
    // Asked again, nothing is done again.
    world.pass(2000);
    expect(world.ran).toHaveLength(1);
  });

  it("is refused for a member, without a device, and without a quorum", () => {
    const world = new FenceWorld(3, plansFor([1, 3]));
    world.together();
    const [two, three] = [world.life(2), world.life(3)];
    expect(world.fence(1, three)).toMatchObject({ kind: "refused", why: expect.stringContaining("node3 is a member of the view") });
    world.crash(2);
    world.together();
    expect(world.fence(1, two)).toMatchObject({ kind: "refused", why: expect.stringContaining("no fence device is configured for node2") });
    world.crash(3);
    world.until("it has no quorum", () => !world.core(1).engine.quorum.quorate);
    expect(world.fence(1, three)).toMatchObject({ kind: "refused", why: expect.stringContaining("no quorum") });
    expect(world.ran).toEqual([]);
  });

  it("is answered by a person where there is no device, and for a life that nobody asked for not", () => {
    const world = new FenceWorld(3, plansFor([1]));
    world.together();
    const life = world.life(3);
    world.crash(3);
    world.together();
    world.fence(2, life);
    world.until("both know what is asked for", () => world.status(1).fencing.wanted.length === 1);
    world.input(1, { kind: "fence-ack", nodeid: 3, by: "anna" });
    world.input(1, { kind: "fence-ack", nodeid: 2, by: "anna" });
    world.settle();
    expect(world.answers).toEqual([
      [1, ""],
      [1, "node 2 is a member of the view: fence it before saying so"],
    ]);
    expect(world.fence(2, life)).toEqual({ kind: "fenced", by: "anna", atMs: expect.any(Number) });
    expect(world.fence(2, { ...life, incarnation: "00000000000000ff" })).toMatchObject({ kind: "refused" });
    expect(world.status(2).fencing.history).toMatchObject([{ outcome: "acknowledged", by: "anna" }]);
  });

  it("is bound to that life: another incarnation, or another boot, is not fenced by it", () => {
    const { world, life } = running();
    world.end(ok);
    world.until("it is fenced", () => world.fence(1, life).kind === "fenced");
    expect(world.fence(1, { ...life, bootId: "another" }).kind).toBe("running");
    expect(world.fence(1, { ...life, bootId: "" }).kind).toBe("fenced");
    expect(world.fence(1, { ...life, incarnation: "00000000000000ff" }).kind).toBe("running");
  });

  it("proves only what was asked for when it began; for what came later it is done again", () => {
    const { world, life } = running();
    const older = { ...life, incarnation: "00000000000000ff" };
    expect(world.fence(1, older).kind).toBe("running");
    world.end(ok);
    world.until("the first is fenced", () => world.fence(1, life).kind === "fenced");
    expect(world.fence(1, older).kind).toBe("running");
    world.until("a second agent runs", () => world.ran.length === 2);
    world.end(ok);
    world.until("the second is fenced", () => world.fence(2, older).kind === "fenced");
  });
});

describe("a fence that loses its quorum", () => {
  // Node 3 is needed for the next one, and it is back because that fence, or somebody, restarted it.
  for (const dies of [1, 2]) {
    it(`lets its victim come back: node ${dies} dies, and the agent ran at node 1`, () => {
      const { world } = running();
      world.crash(dies);
      const rest = 3 - dies;
      world.until("the quorum is lost", () => !world.core(rest).engine.quorum.quorate);
      world.restart(3);
      world.together();
      expect(world.agents).toEqual([]);
      world.until("nothing is asked for any more", () => world.status(rest).fencing.wanted.length === 0);
      expect(world.status(rest).fencing.history).toMatchObject([{ nodeid: 3, outcome: "rebooted" }]);
    });
  }

  it("lets its victim come back after the lease, for which its agent runs on", () => {
    const { world } = running();
    world.input(2, { kind: "leave" });
    world.until("the quorum is lost", () => world.core(1).engine.membership.view?.quorum.quorate === false);
    world.crash(2);
    expect([world.agents.length, world.core(1).fencing.table.barred()]).toEqual([1, [3]]);
    world.until("it had to stop", () => world.agents.length === 0);
    world.restart(3);
    world.together();
  });

  it("says so to a person who answers for it there", () => {
    const { world } = running();
    world.crash(1);
    world.until("the quorum is lost", () => !world.core(2).engine.quorum.quorate);
    world.input(2, { kind: "fence-ack", nodeid: 3, by: "anna" });
    world.settle();
    expect(world.answers).toEqual([[2, expect.stringContaining("this node has no quorum")]]);
  });

  it("is told since when there was one: through all views, and anew after it was lost", () => {
    const world = new FenceWorld(3, all);
    world.together();
    const forMs = (): number | null => world.status(1).fencing.quorumForMs;
    const atMs = world.nowMs - (forMs() ?? 0);
    world.crash(3);
    world.together();
    expect(world.nowMs - (forMs() ?? 0)).toBe(atMs);
    world.crash(2);
    world.until("the quorum is lost", () => !world.core(1).engine.quorum.quorate);
    expect(forMs()).toBeNull();
    const lostMs = world.nowMs;
    world.restart(2);
    world.together();
    expect(world.nowMs - (forMs() ?? 0)).toBeGreaterThan(lostMs);
  });

  it("that a person ordered lets the node in again as well", () => {
    const world = new FenceWorld(3, all);
    world.together();
    world.input(1, { kind: "fence-order", nodeid: 3, by: "anna" });
    world.until("an agent runs", () => world.agents.length === 1);
    world.crash(3);
    world.end(missing);
    world.until("the other one tries", () => world.ran.length === 2);
    expect(world.status(1).fencing.wanted).toMatchObject([{ rounds: 0 }]);
    world.crash(2);
    world.until("the quorum is lost", () => !world.core(1).engine.quorum.quorate);
    world.restart(3);
    world.together();
    world.until("nothing is asked for any more", () => world.status(1).fencing.wanted.length === 0);
  });
});

describe("an executor that leaves", () => {
  it("ends its agent while it is a member, begins nothing, and only then does the next node begin", () => {
    const { world } = running(all, 5);
    world.input(1, { kind: "announce-leave" });
    world.settle();
    expect(world.agents).toEqual([]);
    world.until("the others know", () => world.status(2).fencing.wanted[0]?.step === "node1 is about to begin");
    expect(world.core(2).engine.membership.view?.members.map(({ nodeid }) => nodeid)).toEqual([1, 2, 4, 5]);
    world.input(1, { kind: "leave" });
    world.until("the next node begins", () => world.agents.length === 1);
    expect(world.ran).toEqual(["1>3 ipmi3", "2>3 ipmi3"]);
  });
});

describe("what goes wrong", () => {
  it("a round that failed is tried by the next node, after a pause that doubles, and told meanwhile", () => {
    const { world, life } = running();
    world.end(failed);
    const told = world.fence(2, life);
    expect(told).toMatchObject({ kind: "failed", why: "ipmi3: no answer" });
    const fromMs = world.nowMs;
    world.until("node 2 tries", () => world.ran.length === 2);
    expect(world.nowMs - fromMs).toBeGreaterThanOrEqual(990);
    world.end(failed);
    const secondMs = world.nowMs;
    world.until("node 1 tries again", () => world.ran.length === 3);
    expect(world.nowMs - secondMs).toBeGreaterThanOrEqual(1990);
    expect(world.ran).toEqual(["1>3 ipmi3", "2>3 ipmi3", "1>3 ipmi3"]);
    expect(world.status(1).fencing.wanted).toMatchObject([{ nodeid: 3, rounds: 2, failure: "ipmi3: no answer", executor: 1 }]);
    world.end(ok);
    world.until("it is fenced", () => world.fence(2, life).kind === "fenced");
  });

  it("the pause has an end: a minute", () => {
    const { world } = running(all, 3);
    for (let round = 0; round < 8; round++) {
      world.end(failed);
      const [count, fromMs] = [world.ran.length, world.nowMs];
      world.until("another round", () => world.ran.length > count, 200_000);
      const expected = Math.min(60_000, 1000 * 2 ** round);
      expect(world.nowMs - fromMs).toBeGreaterThan(0.9 * expected);
      expect(world.nowMs - fromMs).toBeLessThan(expected + 1000);
    }
  });

  it("the pause ends with what was asked for, and an order of a person does not wait for it", () => {
    const { world } = running(all, 3);
    const failRounds = (rounds: number): void => {
      for (let round = 0; round < rounds; round++) {
        world.until("an agent runs", () => world.agents.length === 1, 200_000);
        world.end(failed);
      }
    };
    failRounds(8);
    const count = world.ran.length;
    world.input(2, { kind: "fence-order", nodeid: 3, by: "anna" });
    world.until("an agent runs", () => world.ran.length > count, 1000);
    world.end(failed);
    world.restart(3);
    world.together();
    expect(world.status(1).fencing.wanted).toEqual([]);
    const life = world.life(3);
    world.crash(3);
    world.together();
    const before = world.ran.length;
    world.fence(2, life);
    world.until("an agent runs", () => world.ran.length > before, 1000);
  });

  it("a round that was said and came to nothing is begun again in the same view", () => {
    const { world } = running(new Map(), 3, false);
    const { fencing, configuration } = world.core(1);
    // In one step: its own word that it is off, before its own "begun".
    expect(fencing.requests.acknowledge(3, "anna")).toBe(true);
    world.input(1, { kind: "configuration", configuration: { ...configuration, fencePlans: all } });
    world.until("it is acknowledged", () => world.status(1).fencing.wanted.length === 0);
    expect(world.ran).toEqual([]);
    world.input(1, { kind: "fence-order", nodeid: 3, by: "anna" });
    world.until("an agent runs", () => world.ran.length === 1, 5000);
  });

  it("a life that the table let go of, or had no room for, is asked for again in the same view, once a second", () => {
    const { world, life } = running();
    const lives = Array.from({ length: MAX_WANTED_LIVES + 1 }, (_, at) => ({ ...life, incarnation: `00000000000000f${at}` }));
    for (const one of lives) world.fence(2, one);
    world.until("the last one is asked for", () => {
      const asked = world.core(1).fencing.table.want(3)?.lives ?? [];
      return asked.some(({ incarnation }) => incarnation === lives.at(-1)?.incarnation);
    });
    const asked = (): boolean => world.core(1).fencing.table.hasAsked(lives[0] ?? life);
    world.fence(2, lives[0] ?? life);
    world.pass(WANT_AGAIN_MS / 5);
    expect(asked()).toBe(false);
    world.until("a second is over since it was asked for", () => world.fence(2, lives[0] ?? life).kind === "running" && asked(), 1500);
    for (let round = 0; round < 3; round++) {
      world.end(ok);
      const all = [...lives, life];
      const isOver = (): boolean => all.every((one) => world.fence(2, one).kind === "fenced");
      world.until("an agent runs, or all are fenced", () => isOver() || world.agents.length === 1);
      if (isOver()) break;
    }
    expect([life, ...lives].map((one) => world.fence(1, one).kind)).toEqual(Array(lives.length + 1).fill("fenced"));
  });

  it("a node that cannot run the agent leaves it to the next at once", () => {
    const { world, life } = running();
    const fromMs = world.nowMs;
    world.end(missing);
    world.until("node 2 runs it", () => world.ran.length === 2);
    expect(world.ran[1]).toBe("2>3 ipmi3");
    expect(world.nowMs - fromMs).toBeLessThan(500);
    world.end(ok);
    world.until("it is fenced", () => world.fence(1, life).kind === "fenced");
  });

  it("the next node begins again if the executor dies, and only when no lease of it runs", () => {
    const { world, life } = running(all, 5);
    world.crash(1);
    world.until("node 2 runs it", () => world.ran.length === 2);
    expect(world.ran[1]).toBe("2>3 ipmi3");
    expect(world.agents).toHaveLength(1);
    world.end(ok);
    world.until("it is fenced", () => world.fence(4, life).kind === "fenced");
  });

  it("an executor that is cut off kills its agent before another node begins", () => {
    const { world } = running(all, 5);
    world.stand(2);
    world.stand(4);
    world.stand(5);
    world.until("its agent was stopped", () => world.agents.length === 0);
    expect(world.ran).toHaveLength(1);
  });

  it("a change of the view that leaves the executor in it stops nothing", () => {
    const { world, life } = running(all, 5);
    world.crash(5);
    world.together();
    expect([world.agents.length, world.ran.length]).toEqual([1, 1]);
    world.end(ok);
    world.until("it is fenced", () => world.fence(4, life).kind === "fenced");
  });

  it("a device that was taken out of the configuration is not used", () => {
    const { world, life } = running();
    const { configuration } = world.core(1);
    for (const nodeid of [1, 2]) world.input(nodeid, { kind: "configuration", configuration: { ...configuration, fencePlans: new Map() } });
    world.end(failed);
    world.pass(5000);
    expect(world.ran).toHaveLength(1);
    expect(world.fence(1, life)).toMatchObject({ kind: "refused", why: expect.stringContaining("no fence device") });
  });
});

describe("lockspaces that need a fence", () => {
  it("are opened by the device, with nobody's word", () => {
    const world = new FenceWorld(3, all, () => ({}), ["space"]);
    world.together();
    world.program("p", 3, "", false);
    world.program("q", 1, "", false);
    world.pass(500);
    world.crash(3);
    world.until("an agent runs", () => world.agents.length === 1);
    expect([world.status(1).unfenced.length, world.core(2).recovery.blocks("space")]).toEqual([1, true]);
    world.end(ok);
    world.until("it is known to be dead", () => world.status(2).unfenced.length === 0);
    expect(world.core(2).recovery.blocks("space")).toBe(false);
    expect(world.status(1).fenced).toMatchObject([{ nodeid: 3 }]);
  });
});

describe("two nodes", () => {
  const quorum = { twoNode: true, waitForAll: true, autoTieBreaker: "none" } as const;
  const plans = new Map([...plansFor([1]), ...plansFor([2], { delayMs: 2000 })]);

  it("that are cut off from each other grant nothing before one has fenced the other, and the delay decides which", () => {
    const world = new FenceWorld(2, plans, () => ({ quorum }));
    world.together();
    world.program("p", 1, "", false);
    world.program("q", 2, "", false);
    world.pass(500);
    world.cut(1, 2);
    world.until("both go on alone", () => [1, 2].every((nodeid) => world.core(nodeid).engine.membership.view?.members.length === 1));
    world.until("the faster one shoots", () => world.agents.length > 0);
    expect(world.ran).toEqual(["2>1 ipmi1"]);
    expect([1, 2].map((nodeid) => [world.core(nodeid).servesAt(world.nowMs), world.core(nodeid).recovery.blocks("space")])).toEqual([
      [true, true],
      [true, true],
    ]);
    world.crash(1);
    world.end(ok);
    world.until("the other one goes on", () => !world.core(2).recovery.blocks("space"));
    expect(world.ran).toEqual(["2>1 ipmi1"]);
  });

  it("what the half that was fenced has stored holds nothing up, also when the winner has started again before it is back", () => {
    const world = new FenceWorld(2, plans, () => ({ quorum }));
    world.together();
    world.cut(1, 2);
    world.until("both go on alone, and an agent runs", () => world.agents.length > 0);
    world.crash(1);
    world.end(ok);
    world.until("the winner goes on", () => !world.core(2).recovery.blocks("space"));
    world.crash(2);
    world.heal(1, 2);
    world.restart(1);
    world.restart(2);
    world.together();
    world.pass(5000);
    expect([1, 2].map((nodeid) => [world.status(nodeid).unfenced, world.core(nodeid).recovery.blocks("space")])).toEqual([
      [[], false],
      [[], false],
    ]);
  });
});

it("what is too long for a message is cut between two characters", () => {
  expect(shortened("é".repeat(200))).toBe(`${"é".repeat(125)}...`);
  expect(shortened("short")).toBe("short");
});

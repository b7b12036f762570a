/** A node that comes back while it is to be fenced, or is being fenced (hazard M2). */
import { describe, expect, it } from "vitest";
import { RETURN_LIMIT_MS, Returning } from "../../../dlmd/fencing/returning.ts";
import type { Want } from "../../../dlmd/wire/fencing-group.ts";
import type { FencedLife } from "../../../dlmd/wire/fence-life.ts";
import type { NodeAnswer } from "../../../dlmd/query/answer.ts";
import { FenceWorld, failed, ok, plansFor, running } from "./fence-world.ts";

describe("a node that is back (hazard M2)", () => {
  it("is no member as long as an agent runs against it, and is one between two tries", () => {
    const { world, life } = running();
    world.restart(3);
    world.pass(5000);
    expect(world.core(1).engine.membership.view?.members.map(({ nodeid }) => nodeid)).toEqual([1, 2]);
    expect(world.agents).toHaveLength(1);
    world.end(failed);
    world.until("it joins", () => world.serving());
    expect(world.ran).toHaveLength(1);
    expect(world.fence(1, life)).toMatchObject({ kind: "refused", why: expect.stringContaining("is a member") });
    expect(world.status(1).fencing).toMatchObject({ wanted: [], history: [{ outcome: "failed" }, { outcome: "rebooted" }] });
    world.pass(5000);
    expect(world.ran).toHaveLength(1);
  });

  it("in the same boot ends the request as well, by another word", () => {
    const world = new FenceWorld(3, plansFor([1]), () => ({ bootId: "same" }));
    world.together();
    const life = world.life(3);
    world.crash(3);
    world.together();
    world.fence(1, life);
    world.until("it is asked for", () => world.status(2).fencing.wanted.length === 1);
    world.restart(3);
    world.until("it joins", () => world.serving() && world.status(2).fencing.wanted.length === 0);
    expect(world.status(2).fencing.history).toMatchObject([{ outcome: "returned", nodeid: 3 }]);
  });

  it("learns what is known of its own former life", () => {
    const { world, life } = running();
    world.end(ok);
    world.until("it is fenced", () => world.fence(1, life).kind === "fenced");
    world.restart(3);
    world.together();
    world.until("it knows", () => world.fence(3, life).kind === "fenced");
    expect(world.kept.get(3)?.proofs).toMatchObject([{ nodeid: 3, incarnation: life.incarnation, by: "ipmi3" }]);
  });

  it("a restart of every node forgets no proof", () => {
    const { world, life } = running();
    world.end(ok);
    world.until("it is fenced", () => world.fence(2, life).kind === "fenced");
    for (const nodeid of [1, 2]) world.crash(nodeid);
    for (const nodeid of [1, 2]) world.restart(nodeid);
    world.until("they serve", () => world.serving());
    expect(world.fence(2, life).kind).toBe("fenced");
    expect(world.ran).toHaveLength(1);
  });
});

describe("a node that is heard in another life before it was shot", () => {
  const want: Want = {
    nodeid: 3,
    lives: [{ incarnation: "a", bootId: "" }],
    why: "",
    by: "",
    sinceMs: 0,
    evict: false,
    tried: [],
    rounds: 0,
    failure: "",
  };
  /** `hold`: how long its fence waits, when that is heard and one looks then. */
  function held(gapMs: number): { returning: Returning; hold: (heard: string | null, nowMs: number) => number } {
    const returning = new Returning(gapMs);
    const hold = (heard: string | null, nowMs: number): number => {
      returning.look([want], () => heard, nowMs);
      return returning.leftMs(want, heard);
    };
    return { returning, hold };
  }

  /** Node 3 is to be fenced, by an agent that waits for its delay. */
  function aboutToRun(more: object): { world: FenceWorld; life: ReturnType<FenceWorld["life"]> } {
    const world = new FenceWorld(3, plansFor([3], more));
    world.together();
    const life = world.life(3);
    world.crash(3);
    world.together();
    world.fence(1, life);
    world.until("a round has begun", () => world.core(1).fencing.table.runs.has(3));
    expect(world.ran).toEqual([]);
    return { world, life };
  }

  it("is not shot during the delay, and joins", () => {
    const { world } = aboutToRun({ delayMs: 20_000 });
    world.restart(3);
    world.until("it joins", () => world.serving());
    world.until("nothing is asked for", () => world.status(1).fencing.wanted.length === 0);
    expect(world.status(1).fencing.history).toMatchObject([{ outcome: "rebooted", nodeid: 3 }]);
    world.pass(30_000);
    expect(world.ran).toEqual([]);
  });

  it("is not shot when it has connections, and no heartbeat of it has come yet", () => {
    const { world, life } = aboutToRun({ delayMs: 1000 });
    for (const nodeid of [1, 2]) world.cut(nodeid, 3);
    world.restart(3);
    world.until("the fence waits for it", () => !world.core(1).fencing.table.runs.has(3));
    expect(world.fence(2, life)).toMatchObject({ kind: "running", step: expect.stringContaining("node3 is heard in another life") });
    const answer = { state: "connected", heardAgoMs: null, tcpUp: true, incarnation: world.incarnation(3) };
    expect((world.core(1).query("nodes", world.nowMs) as NodeAnswer[])[2]).toMatchObject(answer);
    for (const nodeid of [1, 2]) world.heal(nodeid, 3);
    world.until("it joins", () => world.serving());
    expect(world.ran).toEqual([]);
  });

  it("is not shot by a further try, and joins", () => {
    const world = new FenceWorld(3, plansFor([3], { retries: 3 }));
    world.together();
    const life = world.life(3);
    world.crash(3);
    world.together();
    world.fence(1, life);
    world.until("an agent runs", () => world.agents.length === 1);
    world.restart(3);
    world.pass(1000);
    expect(world.serving()).toBe(false);
    world.end(failed);
    world.until("it joins", () => world.serving());
    expect(world.ran).toHaveLength(1);
  });

  it("is shot after all if it has not joined for long: its connections do not come about", () => {
    const { world, life } = aboutToRun({ delayMs: 1000 });
    world.restart(3);
    for (const nodeid of [1, 2]) world.disconnect(nodeid, 3);
    const fromMs = world.nowMs;
    world.until("the fence waits for it", () => !world.core(1).fencing.table.runs.has(3));
    expect(world.fence(2, life)).toMatchObject({ kind: "running", step: expect.stringContaining("node3 is heard in another life") });
    // As a program does. For moments it may be a member, without a connection to the others, and then is put out.
    world.until("it is shot", () => world.fence(2, life).kind === "running" && world.agents.length === 1, 60_000);
    expect(world.nowMs - fromMs).toBeGreaterThanOrEqual(RETURN_LIMIT_MS);
    expect(world.nowMs - fromMs).toBeLessThan(RETURN_LIMIT_MS + 5000);
  });

  it("is shot if a person orders it, or lockspaces wait for its former life: a member of another life is no proof for them", () => {
    const { world } = aboutToRun({ delayMs: 1000 });
    world.restart(3);
    for (const nodeid of [1, 2]) world.disconnect(nodeid, 3);
    world.until("the fence waits for it", () => !world.core(1).fencing.table.runs.has(3));
    const fromMs = world.nowMs;
    world.input(2, { kind: "fence-order", nodeid: 3, by: "anna" });
    world.until("it is shot", () => world.agents.length === 1);
    expect(world.nowMs - fromMs).toBeLessThan(5000);

    const gated = new FenceWorld(3, plansFor([3], { delayMs: 5000 }), () => ({}), ["space"]);
    gated.together();
    gated.program("p", 3, "", false);
    gated.pass(500);
    gated.crash(3);
    gated.until("a round has begun", () => gated.status(1).fencing.wanted[0]?.executor === 1);
    gated.restart(3);
    gated.until("it is shot", () => gated.agents.length === 1);
    expect(gated.core(1).recovery.blocks("space")).toBe(true);
  });

  it("has its time once, for all the lives in which it is heard meanwhile: a node that starts again and again is fenced", () => {
    const { returning, hold } = held(Number.POSITIVE_INFINITY);
    const leftMs = RETURN_LIMIT_MS - 10_000;
    expect([hold(null, 0), hold("a", 0), hold("b", 10), hold("b", 10_010)]).toEqual([0, 0, RETURN_LIMIT_MS, leftMs]);
    // Silent, or in a life that is asked for, it is not held, and spends nothing.
    expect([hold(null, 10_010), hold("c", 90_000), hold("a", 90_000), hold("d", 95_000)]).toEqual([0, leftMs, 0, leftMs]);
    expect([hold("e", 95_000 + leftMs - 1), hold("f", 95_000 + leftMs), hold("g", 9e9)]).toEqual([1, 0, 0]);
    returning.ended(2);
    expect(hold("g", 9e9)).toBe(0);
    returning.ended(3);
    expect(hold("g", 9e9)).toBe(RETURN_LIMIT_MS);
  });

  it("spends only time in which it was heard: one gap counts as one time-out at most, and words for people count nothing", () => {
    const { returning, hold } = held(3000);
    expect([hold("b", 0), hold("b", 1000), hold("b", 61_000)]).toEqual([30_000, 29_000, 26_000]);
    expect([returning.leftMs(want, "c"), returning.leftMs(want, "c"), returning.leftMs(want, null)]).toEqual([26_000, 26_000, 0]);
    // Silent since some time in the gap.
    expect([hold(null, 70_000), hold("c", 99_000), hold("c", 100_000)]).toEqual([0, 23_000, 22_000]);
    // Nobody asks for it any more: a later request finds its time whole, one that comes at once does not.
    returning.look([], () => "c", 100_000 + RETURN_LIMIT_MS - 1);
    expect(returning.leftMs(want, "c")).toBe(22_000);
    returning.look([], () => "c", 100_000 + RETURN_LIMIT_MS);
    expect(returning.leftMs(want, "c")).toBe(RETURN_LIMIT_MS);
  });

  it("is not shot while it starts again after a time without quorum, in which nobody heard it", () => {
    const { world, life } = aboutToRun({ delayMs: 1000 });
    world.restart(3);
    for (const nodeid of [1, 2]) world.disconnect(nodeid, 3);
    world.until("the fence waits for it", () => !world.core(1).fencing.table.runs.has(3));
    for (const nodeid of [2, 3]) world.crash(nodeid);
    world.pass(60_000);
    // As a program does.
    const step = (): string => {
      const answer = world.fence(1, life);
      return answer.kind === "running" ? answer.step : answer.kind;
    };
    for (const nodeid of [2, 3]) world.restart(nodeid);
    for (const nodeid of [1, 2]) world.disconnect(nodeid, 3);
    world.until("the fence waits again", () => step().includes("node3 is heard in another life"));
    expect(Number(/within ([0-9.]+) s/.exec(step())?.[1])).toBeGreaterThan(15);
    expect(world.ran).toEqual([]);
  });

  it("has its time anew after a fence that was proved", () => {
    const { world, life } = aboutToRun({ delayMs: 1000 });
    // As a program does.
    const shot = (asked: FencedLife): number => {
      world.restart(3);
      for (const nodeid of [1, 2]) world.disconnect(nodeid, 3);
      const fromMs = world.nowMs;
      world.until("it is shot", () => world.fence(2, asked).kind === "running" && world.agents.length === 1, 60_000);
      return world.nowMs - fromMs;
    };
    expect(shot(life)).toBeGreaterThanOrEqual(RETURN_LIMIT_MS);
    const later = world.life(3);
    world.crash(3);
    world.together();
    world.fence(1, later);
    world.until("both lives are asked for", () => world.core(1).fencing.table.want(3)?.lives.length === 2);
    world.end(ok);
    world.until("it is fenced", () => world.fence(1, life).kind === "fenced");
    world.fence(1, later);
    world.until("a round has begun", () => world.core(1).fencing.table.runs.has(3));
    expect(shot(later)).toBeGreaterThanOrEqual(RETURN_LIMIT_MS);
  });
});

/** A person orders a fence, of a member or of a node that is gone. */
import { describe, expect, it } from "vitest";
import { FenceTable, noFencing } from "../../../dlmd/fencing/fence-table.ts";
import type { Member } from "../../../dlmd/wire/view-id.ts";
import { FenceWorld, failed, ok, plansFor, running } from "./fence-world.ts";

const all = plansFor([1, 2, 3, 4, 5]);

describe("a person's order", () => {
  const order = (world: FenceWorld, at: number, nodeid: number): string => {
    world.input(at, { kind: "fence-order", nodeid, by: "anna" });
    world.settle();
    return world.answers.at(-1)?.[1] ?? "none";
  };

  it("puts a member out of the view and fences it; it cannot come back in the midst", () => {
    const world = new FenceWorld(3, all);
    world.together();
    const life = world.life(3);
    expect(order(world, 2, 3)).toBe("");
    world.until("an agent runs", () => world.agents.length === 1);
    expect(world.core(1).engine.membership.view?.members.map(({ nodeid }) => nodeid)).toEqual([1, 2]);
    world.pass(5000);
    expect(world.core(1).engine.membership.view?.members.map(({ nodeid }) => nodeid)).toEqual([1, 2]);
    world.crash(3);
    world.end(ok);
    world.until("it is fenced", () => world.fence(1, life).kind === "fenced");
  });

  it("of two nodes that fence each other one is: the order of the group decides", () => {
    const world = new FenceWorld(4, all);
    world.together();
    world.input(1, { kind: "fence-order", nodeid: 2, by: "anna" });
    world.input(2, { kind: "fence-order", nodeid: 1, by: "ben" });
    world.until("an agent runs", () => world.agents.length > 0);
    world.pass(5000);
    expect(world.ran).toHaveLength(1);
    const victim = world.agents[0]?.nodeid;
    expect([1, 2]).toContain(victim);
    const other = victim === 1 ? 2 : 1;
    expect(world.status(3).fencing.history).toMatchObject([
      { outcome: "refused", nodeid: other, words: expect.stringContaining("is being fenced itself") },
    ]);
  });

  it("is refused for the node itself, for one without a device, where no quorum would be left, and for strangers", () => {
    const world = new FenceWorld(3, plansFor([1, 3]));
    world.together();
    expect(order(world, 1, 1)).toContain("does not fence itself");
    expect(order(world, 1, 2)).toContain("no fence device is configured for node2");
    expect(order(world, 1, 9)).toContain("not in the configuration");
    world.crash(2);
    world.together();
    expect(order(world, 1, 3)).toContain("has no quorum, and nobody could fence it");
    expect(world.ran).toEqual([]);
  });

  it("that fails lets the node in again", () => {
    const world = new FenceWorld(3, all);
    world.together();
    expect(order(world, 1, 3)).toBe("");
    world.until("an agent runs", () => world.agents.length === 1);
    world.crash(3);
    world.restart(3);
    world.end(failed);
    world.until("it joins", () => world.serving());
    expect(world.status(1).fencing.wanted).toEqual([]);
  });

  it("of a life that is fenced already runs the agents, as often as it is given: the node may have a later life that nobody heard", () => {
    const { world, life } = running();
    world.end(ok);
    world.until("it is fenced", () => world.fence(1, life).kind === "fenced");
    const row = { outcome: "fenced", nodeid: 3, by: "ipmi3" };
    for (const times of [1, 2]) {
      world.pass(20);
      expect(order(world, 2, 3)).toBe("");
      world.until("an agent runs", () => world.agents.length === 1);
      expect(world.status(2).fencing.history).toHaveLength(times);
      world.end(ok);
      world.until("it is answered", () => world.status(2).fencing.history.length === times + 1);
    }
    expect(world.status(1).fencing).toMatchObject({ wanted: [], history: [row, row, row] });
    expect(world.kept.get(1)?.proofs).toMatchObject([{ nodeid: 3, incarnation: life.incarnation }]);
    world.pass(5000);
    expect([world.ran.length, world.core(1).fencing.table.barred()]).toEqual([3, []]);
  });

  it("of a life that is fenced already ends when the agents fail: no former proof is its answer", () => {
    const { world, life } = running();
    world.end(ok);
    world.until("it is fenced", () => world.fence(1, life).kind === "fenced");
    expect(order(world, 1, 3)).toBe("");
    world.until("an agent runs", () => world.agents.length === 1);
    world.end(failed);
    world.until("it is answered", () => world.status(2).fencing.history.length === 2);
    expect(world.status(2).fencing).toMatchObject({ wanted: [{ rounds: 1 }], history: [{ outcome: "fenced" }, { outcome: "failed" }] });
    world.restart(3);
    world.until("it joins", () => world.serving());
    expect(world.status(1).fencing.wanted).toEqual([]);
  });

  it("that was given before its life was proved elsewhere is still to be carried out; without quorum it is over", () => {
    const world = new FenceWorld(3, all);
    world.together();
    const life = world.life(3);
    const table = new FenceTable(noFencing);
    const [one, two] = [1, 2].map((nodeid) => ({ nodeid, incarnation: world.incarnation(nodeid) })) as [Member, Member];
    table.enterView([one, two]);
    const wanted = { kind: "fence-wanted", ...life, why: "w", by: "anna", atMs: 1, evict: true } as const;
    expect(table.receiveWanted(one, wanted)).toBe("");
    const proofs = [{ ...life, by: "ipmi3", atMs: 1 }];
    table.receiveTable(two, { ...new FenceTable(noFencing).message("b", 1, [], true), proofs });
    expect([table.proof(life)?.by, table.wants.length, table.barred()]).toEqual(["ipmi3", 1, [3]]);
    table.loseQuorum(new Map());
    expect([table.wants, table.barred()]).toEqual([[], []]);
  });
});

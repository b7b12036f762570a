/** A node gets its storage back once in a life, and not in a boot that was fenced (hazard C3). */
import { describe, expect, it } from "vitest";
import { FenceWorld, ok, plansFor } from "./fence-world.ts";

const all = plansFor([1, 2, 3, 4, 5]);

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

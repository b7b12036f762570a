/**
 * Hazard H14: links that work one way only. Whoever is left out for that waits, and does not tear a quorate view apart; and whoever waits comes in
 * when the reason for it is gone, so that a quorate view there can be will be.
 */
import { expect, it } from "vitest";
import { Random } from "../random.ts";
import type { EngineSim } from "./engine-sim.ts";
import { cluster, lastView, members, together, until } from "./scenes.ts";
import type { EngineSimNode } from "./sim-node.ts";

const seeds = Number(process.env["COVERLAY_ONE_WAY_SEEDS"] ?? 12);

it("H14: a node that is heard by one member only does not displace another", () => {
  const sim = cluster(3);
  sim.partition([[1, 2], [3]]);
  together(sim, 1, 2);
  for (const oneWay of ["3>1", "1>3"]) {
    sim.heal();
    sim.cut.add(oneWay);
    sim.run(10 * sim.timeoutMs);
    // Node 3 may try for one of them; what comes of it is the two again.
    together(sim, 1, 2);
    expect(lastView(sim.node(1))?.quorum.quorate).toBe(true);
  }
  sim.heal();
  together(sim, 1, 2, 3);
});

it.each(["3>1", "1>3"])("H14: a link that is one-way (%s is cut) makes no view after the other: the excluded node waits", (oneWay) => {
  const sim = cluster(3);
  together(sim, 1, 2, 3);
  sim.cut.add(oneWay);
  together(sim, 1, 2);
  sim.run(5 * sim.timeoutMs);
  const view = lastView(sim.node(1))?.id;
  sim.run(20 * sim.timeoutMs);
  expect(members(sim.node(1))).toBe("1 2");
  expect(lastView(sim.node(1))?.id).toEqual(view);
  expect(lastView(sim.node(1))?.quorum.quorate).toBe(true);
});

it.each([
  ["the one that it does not hear", "1>3", 1],
  ["the one that does not hear it", "3>1", 1],
  ["the one that does not hear it, and would lead", "3>2", 2],
])("H14: an excluded node comes in when the reason for it is gone: %s dies", (_, oneWay, dies) => {
  const sim = cluster(3);
  together(sim, 1, 2, 3);
  sim.cut.add(oneWay);
  const stays = 3 - dies;
  sim.run(10 * sim.timeoutMs);
  together(sim, 1, 2);
  sim.node(dies).crash();
  together(sim, stays, 3);
  expect(lastView(sim.node(3))?.quorum.quorate).toBe(true);
});

it("H14: an excluded node comes in when it is heard again, though it hears nobody else than before", () => {
  const sim = cluster(4);
  together(sim, 1, 2, 3, 4);
  sim.cut.add("4>2");
  together(sim, 1, 2, 3);
  sim.run(10 * sim.timeoutMs);
  expect(members(sim.node(1))).toBe("1 2 3");
  sim.cut.clear();
  together(sim, 1, 2, 3, 4);
});

/** Nodes that all hear each other, both ways, most of them first. */
function linkedSets(sim: EngineSim): number[][] {
  const alive = sim.nodes.filter((node) => node.alive).map(({ nodeid }) => nodeid);
  const linked = (a: number, b: number): boolean => !sim.cut.has(`${a}>${b}`) && !sim.cut.has(`${b}>${a}`);
  const subsets = Array.from({ length: 1 << alive.length }, (__, set) => alive.filter((___, at) => (set & (1 << at)) !== 0));
  const whole = subsets.filter((set) => set.every((a) => set.every((b) => a === b || linked(a, b))));
  return whole.sort((a, b) => b.length - a.length);
}

/** Links that are cut one way or both, and nodes that die and come, at random. */
function trouble(sim: EngineSim, random: Random): void {
  for (let round = 0; round < 5; round++) {
    for (const { nodeid: a } of sim.nodes) {
      for (const { nodeid: b } of sim.nodes) {
        if (a !== b && random.chance(0.15)) sim.cut.add(`${a}>${b}`);
        else if (random.chance(0.5)) sim.cut.delete(`${a}>${b}`);
      }
    }
    const victim = random.pick(sim.nodes);
    if (random.chance(0.3)) victim.crash();
    else victim.start();
    sim.run(random.between(1, 12) * sim.timeoutMs);
  }
}

const quorateNode = (sim: EngineSim): EngineSimNode | undefined =>
  sim.nodes.find((node) => node.alive && node.engine.membership.view?.quorum.quorate === true && members(node) !== "");

it(
  "H14: whatever links are one-way, where more than half hear each other a quorate view comes, and stays",
  () => {
    let shown = 0;
    for (let seed = 1; seed <= seeds; seed++) {
      const sim = cluster(5, { seed });
      trouble(sim, new Random(seed));
      const [most = []] = linkedSets(sim);
      if (most.length < 3) continue;
      shown++;
      const words = `seed ${seed}: ${most.join(" ")} hear each other, without ${[...sim.cut].join(" ")}`;
      until(sim, `a quorate view, ${words}`, () => quorateNode(sim) !== undefined);
      sim.run(20 * sim.timeoutMs);
      const settled = quorateNode(sim)?.engine.membership.view?.id;
      sim.run(20 * sim.timeoutMs);
      expect({ words, id: quorateNode(sim)?.engine.membership.view?.id }).toEqual({ words, id: settled });
      expect(settled).toBeDefined();
    }
    expect(shown).toBeGreaterThan(seeds / 5);
  },
  20_000 + 2000 * seeds,
);

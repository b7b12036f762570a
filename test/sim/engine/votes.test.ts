/** How views go with the version of the configuration that their votes are counted by (hazard C8). */
import { expect, it } from "vitest";
import { plainQuorum } from "../../../dlmd/membership/quorum.ts";
import type { EngineSim } from "./engine-sim.ts";
import { cluster, lastView, together, until } from "./scenes.ts";

/** Every node hears that it has a connection to every other. */
function link(sim: EngineSim): void {
  for (const a of sim.nodes) for (const b of sim.nodes) if (a !== b) a.linked(b);
}

/** `laterMs`: if nothing happened until then. */
function settled(sim: EngineSim, nodeid: number, laterMs = 0): boolean {
  return sim.node(nodeid).engine.membership.settledView(sim.agenda.nowMs + laterMs) !== null;
}

it("a view has settled when it was counted by the votes in force, none of them open, and has lasted for 0.8 time-outs", () => {
  const sim = cluster(3);
  together(sim, 1, 2, 3);
  const view = lastView(sim.node(1))?.id;
  sim.run(0.7 * sim.timeoutMs);
  expect(settled(sim, 1)).toBe(false);
  sim.run(0.15 * sim.timeoutMs);
  expect(settled(sim, 1)).toBe(true);
  link(sim);
  const next = sim.configs.map((node) => ({ ...node, votes: node.nodeid === 3 ? 2 : 1 }));
  // Open at all: counted by what is proposed and by what was before, it has not settled.
  for (const node of sim.nodes) node.engine.membership.configure({ version: 2, nodes: next, former: sim.configs }, sim.agenda.nowMs);
  expect(settled(sim, 1)).toBe(false);
  until(sim, "they count by it", () => lastView(sim.node(1))?.quorum.configVersion === 2);
  sim.run(sim.timeoutMs);
  expect(settled(sim, 1)).toBe(false);
  // A member may have had another proposal on disk until now, and a lease by that.
  for (const node of sim.nodes) node.engine.membership.configure({ version: 2, nodes: next }, sim.agenda.nowMs);
  expect(settled(sim, 1)).toBe(false);
  sim.run(0.85 * sim.timeoutMs);
  expect(settled(sim, 1)).toBe(true);
  // Decided, but the view is of the votes before.
  for (const node of sim.nodes) node.engine.membership.configure({ version: 3, nodes: sim.configs }, sim.agenda.nowMs);
  expect(settled(sim, 1, sim.timeoutMs)).toBe(false);
  until(sim, "they count by version 3", () => lastView(sim.node(1))?.quorum.configVersion === 3);
  expect(settled(sim, 1)).toBe(false);
  until(sim, "it has settled", () => settled(sim, 1));
  expect(lastView(sim.node(1))?.id.epoch).toBeGreaterThan(view?.epoch ?? 0);
  // Who is alone is in no view that settles.
  sim.partition([[1], [2, 3]]);
  together(sim, 1);
  sim.run(sim.timeoutMs);
  expect(settled(sim, 1)).toBe(false);
});

it("a view has settled only so long after its last member came: until then that one has the lease of its last view renewed", () => {
  const sim = cluster(3);
  together(sim, 1, 2, 3);
  until(sim, "the first view has settled", () => settled(sim, 1));
  const [one, three] = [sim.node(1), sim.node(3)];
  const before = three.engine.membership.view?.id.epoch ?? 0;
  const isLater = (node: typeof one): boolean => (node.engine.membership.view?.id.epoch ?? 0) > before;
  sim.lost = ({ kind }, _, to) => kind === "install" && to === 3;
  one.engine.membership.setBroken();
  until(sim, "node 1 is in the next view", () => isLater(one));
  sim.run(0.85 * sim.timeoutMs);
  expect([isLater(three), three.engine.membership.stopped, settled(sim, 1)]).toEqual([false, true, false]);
  sim.lost = () => false;
  until(sim, "node 3 came", () => isLater(three));
  expect(one.engine.membership.view).toMatchObject({ id: three.engine.membership.view?.id });
  sim.run(0.75 * sim.timeoutMs);
  expect(settled(sim, 1)).toBe(false);
  until(sim, "it has settled", () => settled(sim, 1));
  expect(one.engine.membership.view).toMatchObject({ id: three.engine.membership.view?.id });
});

it("lock service ends by both counts: a node that would be a quorum alone by a change that is open needs the others still", () => {
  const sim = cluster(3);
  together(sim, 1, 2, 3);
  sim.run(sim.timeoutMs);
  const { membership } = sim.node(1).engine;
  const nodes = sim.configs.map((node) => ({ ...node, votes: node.nodeid === 1 ? 9 : 1 }));
  membership.configure({ version: 2, nodes, former: sim.configs }, sim.agenda.nowMs);
  expect(membership.leaseEndMs()).toBeLessThan(sim.agenda.nowMs + sim.timeoutMs);
  membership.configure({ version: 2, nodes }, sim.agenda.nowMs);
  expect(membership.leaseEndMs()).toBe(Number.POSITIVE_INFINITY);
});

it("a view that is not quorate by votes that a member does not know gives it no lease: others may serve", () => {
  const sim = cluster(3);
  together(sim, 1, 2, 3);
  link(sim);
  const quorum = { ...plainQuorum, autoTieBreaker: "highest" } as const;
  const votes = (third: number) => sim.configs.map((node) => ({ ...node, votes: node.nodeid === 3 ? third : 1 }));
  for (const { engine } of sim.nodes) engine.membership.configure({ version: 2, nodes: votes(2), quorum }, sim.agenda.nowMs);
  until(sim, "they count by it", () => sim.nodes.every((node) => lastView(node)?.quorum.configVersion === 2));
  // Only node 1 has the next change on disk, and it is open.
  sim.node(1).engine.membership.configure({ version: 3, nodes: votes(3), quorum, former: votes(2) }, sim.agenda.nowMs);
  sim.partition([[1, 2], [3]]);
  until(sim, "node 3 serves by the tie", () => lastView(sim.node(3))?.members.length === 1);
  expect(lastView(sim.node(3))?.quorum).toMatchObject({ quorate: true, rule: "tie-won" });
  together(sim, 1, 2);
  expect(lastView(sim.node(2))?.quorum).toMatchObject({ quorate: false, rule: "old-votes", configVersion: 3 });
  sim.run(2 * sim.timeoutMs);
  expect(sim.node(2).leaseEndMs).toBeLessThan(sim.agenda.nowMs);
});

it("C8: those who are a quorum while a change is open stay one when another node is missing for the window of last_man_standing", () => {
  const quorum = { ...plainQuorum, autoTieBreaker: "lowest", lastManStandingMs: 500 } as const;
  const sim = cluster(3, { quorum });
  together(sim, 1, 2, 3);
  link(sim);
  const nodes = sim.configs.map((node) => ({ ...node, votes: node.nodeid === 3 ? 0 : 1 }));
  for (const { engine } of sim.nodes) engine.membership.configure({ version: 2, nodes, quorum, former: sim.configs }, sim.agenda.nowMs);
  until(sim, "they count by both", () => sim.nodes.every((node) => lastView(node)?.quorum.configVersion === 2));
  sim.node(2).crash();
  together(sim, 1, 3);
  expect(lastView(sim.node(3))?.quorum.quorate).toBe(true);
  sim.run(10 * sim.timeoutMs);
  together(sim, 1, 3);
  expect(lastView(sim.node(3))?.quorum).toMatchObject({ quorate: true, electorate: null });
});

it("C8: a node with an open proposal of a version is in no view with one that has another decided, if they have not let each other in", () => {
  const quorum = { ...plainQuorum, autoTieBreaker: "lowest" } as const;
  const sim = cluster(3, { quorum });
  together(sim, 1, 2, 3);
  sim.node(1).crash();
  together(sim, 2, 3);
  const [two, three] = [2, 3].map((nodeid) => sim.node(nodeid).engine);
  const decided = sim.configs.map((node) => ({ ...node, votes: node.nodeid === 1 ? 0 : 1 }));
  for (const engine of [two, three]) engine?.membership.configure({ version: 2, nodes: decided, quorum }, sim.agenda.nowMs);
  until(sim, "they count by it", () => lastView(sim.node(3))?.quorum.configVersion === 2);
  sim.partition([[1, 3], [2]]);
  sim.node(1).start();
  sim.node(1).engine.membership.configure({ version: 2, nodes: sim.configs, quorum, former: sim.configs }, sim.agenda.nowMs);
  until(sim, "node 2 serves by the tie", () => lastView(sim.node(2))?.members.length === 1);
  expect(lastView(sim.node(2))?.quorum).toMatchObject({ quorate: true, rule: "tie-won" });
  sim.run(10 * sim.timeoutMs);
  for (const nodeid of [1, 3]) expect(lastView(sim.node(nodeid))?.quorum.quorate ?? false).toBe(false);
});

/** How views go with the version of the configuration that their votes are counted by (hazard C8). */
import { expect, it } from "vitest";
import type { QuorumOptions } from "../../../dlmd/engine/boot.ts";
import { plainQuorum } from "../../../dlmd/membership/quorum.ts";
import type { EngineSim } from "./engine-sim.ts";
import { cluster, lastView, members, together, until } from "./scenes.ts";

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
  // Node 1 asked for no view of both. The one that node 3 asked for is counted by what is decided.
  expect(lastView(sim.node(3))).toMatchObject({ id: { proposer: 3 }, quorum: { rule: "tie-lost" } });
});

/**
 * Node 1 has decided version 2, which takes the vote of node 2. Node 3 has stored it, and did not hear that it is decided. Node 2 comes back with another
 * proposal of version 2 on its disk.
 */
function twoProposals(autoTieBreaker: "none" | "lowest" = "lowest"): {
  sim: EngineSim;
  votes: (...each: number[]) => EngineSim["configs"];
  quorum: QuorumOptions;
} {
  const quorum = { ...plainQuorum, autoTieBreaker };
  const sim = cluster(3, { quorum });
  together(sim, 1, 2, 3);
  const votes = (...each: number[]) => sim.configs.map((node, at) => ({ ...node, votes: each[at] as number }));
  sim.node(2).crash();
  together(sim, 1, 3);
  link(sim);
  const [one, three] = [sim.node(1), sim.node(3)];
  const decided = { version: 2, nodes: votes(1, 0, 1), quorum };
  for (const { engine } of [one, three]) engine.membership.configure({ ...decided, former: sim.configs }, sim.agenda.nowMs);
  until(sim, "they count by both", () => lastView(three)?.quorum.configVersion === 2);
  one.engine.membership.configure(decided, sim.agenda.nowMs);
  sim.partition([[1], [2, 3]]);
  sim.node(2).start();
  sim.node(2).engine.membership.configure({ version: 2, nodes: votes(1, 2, 1), quorum, former: sim.configs }, sim.agenda.nowMs);
  link(sim);
  return { sim, votes, quorum };
}

it("C8: those who count by one of two proposals of a version are no quorum if others can be one by the one that a member has stored", () => {
  const { sim } = twoProposals();
  together(sim, 1);
  expect(lastView(sim.node(1))?.quorum).toMatchObject({ quorate: true, rule: "tie-won" });
  together(sim, 2, 3);
  for (const nodeid of [2, 3]) expect(lastView(sim.node(nodeid))?.quorum).toMatchObject({ quorate: false, rule: "other-proposal" });
  const epoch = lastView(sim.node(3))?.id.epoch;
  sim.run(10 * sim.timeoutMs);
  // Nothing has changed, so nobody asked again.
  expect(lastView(sim.node(3))).toMatchObject({ id: { epoch }, quorum: { quorate: false } });
  // All three are a quorum by any proposal. Node 3 comes with another life: node 1 went on without it.
  sim.heal();
  until(sim, "all are quorate", () => {
    link(sim);
    return sim.nodes.every((node) => members(node) === "1 2 3" && lastView(node)?.quorum.quorate === true);
  });
});

it("C8: two proposals of one version hold up nobody where the nodes that are away can be no quorum by either", () => {
  const { sim } = twoProposals("none");
  together(sim, 2, 3);
  for (const nodeid of [2, 3]) expect(lastView(sim.node(nodeid))?.quorum).toMatchObject({ quorate: true, rule: "votes" });
  until(sim, "node 1 is alone", () => lastView(sim.node(1))?.members.length === 1);
  expect(lastView(sim.node(1))?.quorum.quorate).toBe(false);
});

it("C8: they ask again when the votes that a member had stored are withdrawn or decided there", () => {
  const { sim, votes, quorum } = twoProposals();
  together(sim, 2, 3);
  const [two, three] = [sim.node(2), sim.node(3)];
  expect(lastView(three)?.quorum).toMatchObject({ quorate: false, rule: "other-proposal" });
  sim.node(1).crash();
  // That of node 2 was decided after all.
  three.engine.membership.configure({ version: 2, nodes: votes(1, 2, 1), quorum }, sim.agenda.nowMs);
  until(sim, "they are quorate", () => [two, three].every((node) => lastView(node)?.quorum.quorate === true));
  together(sim, 2, 3);
});

it("C8: a member that has decided a version is not overruled by who has another proposal of it", () => {
  const { sim, votes, quorum } = twoProposals();
  const decided = { version: 2, nodes: votes(1, 0, 1), quorum };
  sim.node(3).engine.membership.configure(decided, sim.agenda.nowMs);
  link(sim);
  together(sim, 2, 3);
  expect(lastView(sim.node(2))?.quorum).toMatchObject({ quorate: false, rule: "other-proposal" });
  sim.node(2).engine.membership.configure(decided, sim.agenda.nowMs);
  until(sim, "they count anew", () => lastView(sim.node(2))?.quorum.rule === "tie-lost");
  expect(lastView(sim.node(2))?.quorum.quorate).toBe(false);
});

it.each([
  [null, 1, 2],
  [1, 2, 3],
  [3, null, null],
])("C8: all nodes are quorate at once, whatever each has stored: more votes for nodes %s, %s and %s", (...more) => {
  const quorum = { ...plainQuorum, autoTieBreaker: "lowest" } as const;
  const sim = cluster(3, { quorum });
  for (const [at, node] of sim.nodes.entries()) {
    const nodes = sim.configs.map((each) => ({ ...each, votes: each.nodeid === more[at] ? 2 : 1 }));
    if (more[at] !== null) node.engine.membership.configure({ version: 2, nodes, quorum, former: sim.configs }, sim.agenda.nowMs);
  }
  link(sim);
  together(sim, 1, 2, 3);
  for (const node of sim.nodes) expect(lastView(node)?.quorum.quorate).toBe(true);
});

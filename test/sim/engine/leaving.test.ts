/** Nodes that leave one after the other, and what becomes of their votes (dlmd/membership/README.md, "Nodes that leave"). */
import { expect, it } from "vitest";
import { plainQuorum } from "../../../dlmd/membership/quorum.ts";
import type { EngineSim } from "./engine-sim.ts";
import { cluster, lastView, members, together, until } from "./scenes.ts";

/** It has left, and does not come back before it is started. */
function gone(sim: EngineSim, nodeid: number): void {
  until(sim, `node ${nodeid} has left`, () => !sim.node(nodeid).alive);
}

function leaves(sim: EngineSim, nodeid: number): void {
  sim.node(nodeid).stays = true;
  sim.node(nodeid).leave();
  gone(sim, nodeid);
}

it.each([
  [1, 2, 3],
  [3, 2, 1],
  [2, 1, 3],
])("three nodes leave in the order %i %i %i, and each has the quorum until then", (...order) => {
  const sim = cluster(3);
  together(sim, 1, 2, 3);
  const [first, second, last] = order;
  leaves(sim, first);
  together(sim, ...[second, last].sort((a, b) => a - b));
  expect(lastView(sim.node(last))?.quorum).toMatchObject({ quorate: true, expected: 2 });
  leaves(sim, second);
  together(sim, last);
  expect(lastView(sim.node(last))?.quorum).toMatchObject({ quorate: true, votes: 1, expected: 1, needed: 1 });
  sim.run(2 * sim.timeoutMs);
  expect(sim.node(last).leaseEndMs).toBeGreaterThan(sim.agenda.nowMs);
  leaves(sim, last);
  // Started again: who left before waits for the one that left last, alone and together.
  sim.node(first).start();
  together(sim, first);
  expect(lastView(sim.node(first))?.quorum).toMatchObject({ quorate: false, votes: 0, expected: 2 });
  sim.node(second).start();
  together(sim, ...[first, second].sort((a, b) => a - b));
  expect(lastView(sim.node(second))?.quorum).toMatchObject({ quorate: false, votes: 0, electorate: { nodeids: [last] } });
  expect(sim.node(first).engine.quorum.reason).toContain(`node ${last} is waited for`);
  sim.node(last).start();
  until(sim, "all count", () => sim.nodes.every((node) => members(node) === "1 2 3" && node.engine.membership.electorate === null));
});

it("five nodes become one, which serves; nodes that come back count again", () => {
  const sim = cluster(5);
  together(sim, 1, 2, 3, 4, 5);
  for (const nodeid of [5, 1, 4, 2]) leaves(sim, nodeid);
  together(sim, 3);
  expect(lastView(sim.node(3))?.quorum).toMatchObject({ quorate: true, expected: 1 });
  for (const nodeid of [1, 2]) sim.node(nodeid).start();
  const counts = (nodeid: number): boolean => {
    const { electorate } = sim.node(nodeid).engine.membership;
    return electorate?.nodeids.join() === "1,2,3" && electorate.former === null;
  };
  until(sim, "three count", () => counts(1) && counts(2));
  sim.node(3).crash();
  together(sim, 1, 2);
  expect(lastView(sim.node(1))?.quorum).toMatchObject({ quorate: true, votes: 2, expected: 3 });
});

it("all that leave at once leave at once, and their votes count: any majority of them starts again", () => {
  const sim = cluster(3);
  together(sim, 1, 2, 3);
  sim.run(sim.timeoutMs);
  // Between a heartbeat of all and the next.
  for (const node of sim.nodes) node.stays = true;
  for (const node of sim.nodes) node.leave();
  for (const { nodeid } of sim.nodes) gone(sim, nodeid);
  for (const nodeid of [1, 3]) sim.node(nodeid).start();
  together(sim, 1, 3);
  expect(lastView(sim.node(1))?.quorum).toMatchObject({ quorate: true, votes: 2 });
});

it("the last word of one that leaves says that all have it on disk: its heartbeat that said so was lost", () => {
  const sim = cluster(2);
  together(sim, 1, 2);
  sim.run(sim.timeoutMs);
  let lost = 0;
  sim.lost = (message, from) => {
    const is = from === 2 && message.kind === "heartbeat" && message.leaving && message.stored && message.view.epoch > 1;
    if (is) lost++;
    return is && members(sim.node(2)) !== "";
  };
  leaves(sim, 2);
  expect(lost).toBeGreaterThan(0);
  until(sim, "node 1 is alone", () => members(sim.node(1)) === "1");
  expect(lastView(sim.node(1))?.quorum).toMatchObject({ quorate: true, expected: 1 });
});

it("one that leaves while no view can be agreed on goes after two time-outs, and its vote counts", () => {
  const sim = cluster(3);
  together(sim, 1, 2, 3);
  sim.run(sim.timeoutMs);
  sim.lost = ({ kind }) => kind === "propose";
  const sinceMs = sim.agenda.nowMs;
  leaves(sim, 3);
  expect(sim.agenda.nowMs - sinceMs).toBeGreaterThanOrEqual(2 * sim.timeoutMs);
  expect(sim.agenda.nowMs - sinceMs).toBeLessThan(4 * sim.timeoutMs);
  sim.lost = () => false;
  together(sim, 1, 2);
  expect(lastView(sim.node(1))?.quorum).toMatchObject({ quorate: true, votes: 2, expected: 3, electorate: null });
});

it("C8: while members leave no change of the configuration begins", () => {
  const sim = cluster(3);
  together(sim, 1, 2, 3);
  const { membership } = sim.node(1).engine;
  until(sim, "settled", () => membership.settledView(sim.agenda.nowMs) !== null);
  // Node 3 waits for that disk until its limit.
  sim.node(2).keeps = ({ electorate }) => electorate === null;
  sim.node(3).stays = true;
  sim.node(3).leave();
  until(sim, "node 3 counts no more", () => membership.electorate !== null && members(sim.node(1)) === "1 2 3");
  let looks = 0;
  until(sim, "node 3 has gone", () => {
    if (!sim.node(3).alive) return true;
    expect(membership.settledView(sim.agenda.nowMs)).toBe(null);
    looks++;
    return false;
  });
  expect(looks).toBeGreaterThan(100);
});

it("wait_for_all waits for all, whoever left last", () => {
  const sim = cluster(3, { quorum: { ...plainQuorum, waitForAll: true } });
  together(sim, 1, 2, 3);
  leaves(sim, 3);
  leaves(sim, 2);
  together(sim, 1);
  expect(lastView(sim.node(1))?.quorum.quorate).toBe(true);
  sim.node(1).crash();
  sim.node(1).start();
  together(sim, 1);
  expect(lastView(sim.node(1))?.quorum).toMatchObject({ quorate: false, rule: "wait-for-all" });
});

it.each([
  [4, 5],
  [5, 4],
])("of two that know the same, the word of an operator to node %i counts only when node %i has it too", (first, second) => {
  const sim = cluster(7);
  together(sim, 1, 2, 3, 4, 5, 6, 7);
  for (const nodeid of [7, 6]) leaves(sim, nodeid);
  together(sim, 1, 2, 3, 4, 5);
  for (const nodeid of [1, 2, 3]) sim.node(nodeid).crash();
  together(sim, 4, 5);
  expect(lastView(sim.node(4))?.quorum).toMatchObject({ quorate: false, electorate: { nodeids: [1, 2, 3, 4, 5] } });
  for (const nodeid of [6, 7]) sim.node(nodeid).start();
  together(sim, 4, 5, 6, 7);
  expect(sim.node(first).engine.membership.countAll()).toBe(true);
  sim.run(4 * sim.timeoutMs);
  expect(lastView(sim.node(6))?.quorum).toMatchObject({ quorate: false, electorate: { nodeids: [1, 2, 3, 4, 5] } });
  expect(sim.node(second).engine.membership.countAll()).toBe(true);
  until(sim, "they have the quorum", () => lastView(sim.node(6))?.quorum.quorate === true);
});

it("an operator's word that who is waited for is gone for good: the others go on once each was told so, and not before", () => {
  const sim = cluster(3);
  together(sim, 1, 2, 3);
  leaves(sim, 3);
  expect(sim.node(1).engine.membership.countAll()).toBe(false);
  leaves(sim, 2);
  together(sim, 1);
  expect(sim.node(1).engine.membership.countAll()).toBe(false);
  sim.node(1).crash();
  for (const nodeid of [2, 3]) sim.node(nodeid).start();
  together(sim, 2, 3);
  expect(sim.node(3).engine.membership.countAll()).toBe(true);
  sim.run(4 * sim.timeoutMs);
  expect(lastView(sim.node(3))?.quorum.quorate).toBe(false);
  expect(sim.node(2).engine.membership.countAll()).toBe(true);
  until(sim, "they have the quorum", () => lastView(sim.node(2))?.quorum.quorate === true);
  // It is kept.
  sim.node(2).crash();
  sim.node(3).crash();
  for (const nodeid of [2, 3]) sim.node(nodeid).start();
  together(sim, 2, 3);
  expect(lastView(sim.node(2))?.quorum).toMatchObject({ quorate: true, electorate: null });
});

/**
 * A node kept that some nodes count alone. The others went on, all count again, and later votes are given to it before it is in a view (hazard C8). With
 * the votes it is told who counts, so it is no quorum by its own word.
 */
import { beforeEach, expect, it } from "vitest";
import type { NodeConfig } from "../../../dlmd/config/votes.ts";
import type { NodeConfiguration } from "../../../dlmd/engine/boot.ts";
import { BuiltinEngine } from "../../../dlmd/engine/builtin/engine-core.ts";
import { plainQuorum } from "../../../dlmd/membership/quorum.ts";
import type { Counting, Lineage } from "../../../dlmd/wire/view-id.ts";
import { timeoutMs, World } from "../../scenario/world.ts";

const nodes: readonly NodeConfig[] = [0, 1, 1].map((votes, at) => ({ nodeid: at + 1, name: `node${at + 1}`, address: "", votes }));
const quorum = { ...plainQuorum, autoTieBreaker: "lowest" } as const;
const viewAt = (epoch: number): Counting["id"] => ({ epoch, proposer: 1, incarnation: "00000000000000a1" });
/** Nodes 1 and 3 were left alone, in a view of before. */
const alone: Lineage = { id: viewAt(5), members: [], electorate: { nodeids: [1, 3], former: null } };
const all: Counting = { id: viewAt(9), electorate: null };

let world: World;
const effects: string[] = [];

/** `told`: with the votes, at the start of node 3. `agreed`: these are not only of its file. */
function begin(told: Counting | null, agreed = true): void {
  world = new World(3, {}, [], 0, {
    boot: (nodeid) => ({
      configVersion: 4,
      nodes,
      quorum,
      ...(nodeid === 3 ? { promisedEpoch: 5, lineage: alone, counting: told, agreed } : {}),
    }),
    effect: (nodeid, effect) => {
      if (effect.kind === "count-all-answer") effects.push(`${nodeid} reset: ${effect.isReset}`);
    },
  });
}

function quorate(): number[] {
  return [...world.nodes].filter(([, { alive, core }]) => alive && core.engine.quorum.quorate).map(([nodeid]) => nodeid);
}

/** Alone, for as long as views take. */
function cutOff(): void {
  for (const nodeid of [1, 2]) world.cut(nodeid, 3);
  world.pass(6 * timeoutMs);
}

beforeEach(() => effects.splice(0));

it("by what it kept alone it would be a quorum", () => {
  begin(null);
  cutOff();
  expect(quorate()).toContain(3);
});

it("told with its votes that all count, it is none, and says that it lacks votes", () => {
  begin(all);
  cutOff();
  expect(quorate()).not.toContain(3);
  expect(world.nodes.get(3)?.core.engine.quorum.reason).toContain("not quorate");
  expect(world.nodes.get(3)?.core.engine.counting).toBeNull();
});

it("with votes of a file it is none: who decided them knows who counts, and a majority of all has one of those", () => {
  begin(null, false);
  cutOff();
  expect(quorate()).not.toContain(3);
  expect(world.nodes.get(3)?.core.engine.quorum.reason).toContain("1 of 2 votes, not quorate because 1 < 2");
});

it("with votes of a file, and a majority of all, it counts by what it kept as well", () => {
  begin(null, false);
  world.cut(1, 3);
  world.cut(1, 2);
  expect(world.pass(100 * timeoutMs, () => quorate().includes(3))).toBe(true);
  expect(quorate()).toEqual([2, 3]);
});

it("told while it runs, it is none from then on", () => {
  begin(null);
  const configuration: NodeConfiguration = { version: 4, nodes, quorum, counting: all };
  world.input(3, { kind: "configuration", configuration });
  cutOff();
  expect(quorate()).not.toContain(3);
});

it("who makes a view counts by what another member was told", () => {
  begin(all);
  world.cut(1, 2);
  world.cut(1, 3);
  expect(world.pass(100 * timeoutMs, () => quorate().includes(3))).toBe(true);
  const { engine } = world.nodes.get(2)?.core ?? {};
  const view = engine instanceof BuiltinEngine ? engine.membership.view : null;
  expect(view?.members.map(({ nodeid }) => nodeid)).toEqual([2, 3]);
  // It is of all nodes: node 3 alone would have 1 of 1.
  expect(view?.quorum).toMatchObject({ quorate: true, votes: 2, expected: 2, electorate: null });
});

it("an operator may end what it was told: then all nodes count", () => {
  begin({ id: viewAt(9), electorate: { nodeids: [2], former: null } });
  cutOff();
  expect(quorate()).not.toContain(3);
  expect(world.nodes.get(3)?.core.engine.counting).toEqual([2]);
  world.input(3, { kind: "count-all", by: "operator" });
  world.pass(6 * timeoutMs);
  expect(effects).toEqual(["3 reset: true"]);
  expect(world.nodes.get(3)?.core.engine.counting).toBeNull();
});

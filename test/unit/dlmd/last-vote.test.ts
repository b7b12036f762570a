/**
 * A change of votes is decided while a view is agreed upon in which one node alone comes to count, and takes its only vote (hazard C8). All nodes
 * together must be a quorum still, and no two sets without a common node.
 */
import { beforeEach, expect, it } from "vitest";
import type { NodeConfig } from "../../../dlmd/config/votes.ts";
import type { NodeConfiguration } from "../../../dlmd/engine/boot.ts";
import type { Electorate, Lineage } from "../../../dlmd/wire/view-id.ts";
import { timeoutMs, World } from "../../scenario/world.ts";

function nodesWith(...votes: number[]): NodeConfig[] {
  return votes.map((each, at) => ({ nodeid: at + 1, name: `node${at + 1}`, address: "", votes: each }));
}

const before: NodeConfiguration = { version: 2, nodes: nodesWith(1, 0, 1) };
const after: NodeConfiguration = { version: 3, nodes: nodesWith(1, 0, 0) };

/** Which configuration each node has, and its disk. */
const configured: Map<number, NodeConfiguration> = new Map();
const stored: Map<number, { readonly promisedEpoch: number; readonly lineage: Lineage }> = new Map();
let world: World;

function begin(configuration: NodeConfiguration, installing: (electorate: Electorate | null) => void): void {
  for (const nodeid of [1, 2, 3]) configured.set(nodeid, configuration);
  world = new World(3, {}, [], 0, {
    boot: (nodeid) => {
      const { version: configVersion, nodes } = configured.get(nodeid) as NodeConfiguration;
      return { configVersion, nodes, ...stored.get(nodeid) };
    },
    effect: (nodeid, effect) => {
      if (effect.kind === "persist") stored.set(nodeid, effect);
      if (effect.kind === "may-leave") world.input(nodeid, { kind: "leave" });
      if (effect.kind === "datagram" && effect.message.kind === "install") installing(effect.message.quorum.electorate);
    },
  });
  expect(world.pass(100 * timeoutMs, () => world.serving())).toBe(true);
  world.pass(timeoutMs);
}

/** Node 1 leaves, so node 3 is to count alone. All have answered for that view by the old votes: now the new ones come to `told`. */
function leaveWhileItChanges(told: readonly number[]): void {
  let last: Electorate | null = null;
  begin(before, (electorate) => {
    if (last !== null || electorate === null) return;
    last = electorate;
    for (const nodeid of told) {
      configured.set(nodeid, after);
      world.input(nodeid, { kind: "configuration", configuration: after });
    }
  });
  world.input(1, { kind: "announce-leave" });
  expect(world.pass(10 * timeoutMs, () => last !== null)).toBe(true);
  expect(last).toEqual({ nodeids: [3], former: [1, 3] });
}

function comeBack(...nodeids: number[]): void {
  for (const nodeid of nodeids) world.restart(nodeid);
}

function quorate(): number[] {
  return [...world.nodes].filter(([, { alive, core }]) => alive && core.engine.quorum.quorate).map(([nodeid]) => nodeid);
}

beforeEach(() => stored.clear());

it("who left comes back, and all serve: the node that counts without a vote decides nothing", () => {
  leaveWhileItChanges([1, 2, 3]);
  world.pass(4 * timeoutMs);
  world.crash(1);
  comeBack(1);
  expect(world.pass(100 * timeoutMs, () => world.serving())).toBe(true);
  // Later changes and views are counted as if nobody had left.
  expect(world.nodes.get(2)?.core.engine.counting).toBeNull();
  expect(stored.get(3)?.lineage.electorate).toBeNull();
});

it("the node without a vote does not count alone by the old votes beside those who have the new ones", () => {
  leaveWhileItChanges([1, 2]);
  // Its heartbeats and those of the others: enough to hear that all have stored who counts.
  world.pass(0.25 * timeoutMs);
  for (const nodeid of [1, 2]) {
    world.crash(nodeid);
    world.cut(nodeid, 3);
  }
  comeBack(1, 2);
  for (const nodeid of [1, 2]) world.cut(nodeid, 3);
  world.pass(20 * timeoutMs);
  expect(quorate()).toEqual([1, 2]);
});

it("once those who counted have no vote, all count, and a node that leaves stops counting as ever", () => {
  const id = { epoch: 5, proposer: 3, incarnation: "00000000000000f3" };
  const lineage = { id, members: [{ nodeid: 3, incarnation: id.incarnation }], electorate: { nodeids: [3], former: null } };
  for (const nodeid of [1, 2, 3]) stored.set(nodeid, { promisedEpoch: 5, lineage });
  const installed: (Electorate | null)[] = [];
  begin({ version: 3, nodes: nodesWith(1, 1, 0) }, (electorate) => installed.push(electorate));
  world.input(2, { kind: "announce-leave" });
  world.pass(4 * timeoutMs);
  expect(installed).toContainEqual({ nodeids: [1], former: [1, 2] });
});

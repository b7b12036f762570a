import { describe, expect, it } from "vitest";
import { nodeLayout } from "../../../overlay/lab/layout.ts";
import { firewallRules } from "../../../overlay/lab/network.ts";
import type { LabNode, NodeNetwork } from "../../../overlay/lab/state.ts";

function nodes(...networks: Partial<NodeNetwork>[]): LabNode[] {
  return networks.map((network, at) => ({
    ...nodeLayout("/lab", "abcdef", at + 1),
    power: "on",
    device: null,
    attaching: null,
    cut: false,
    dlmd: null,
    network: { group: "", lossPercent: 0, delayMs: 0, ...network },
  }));
}

function rulesOf(nodeid: number, all: LabNode[]): string {
  const node = all[nodeid - 1];
  if (node === undefined) throw new Error(`no node ${nodeid}`);
  return firewallRules(node, all);
}

/** Node ids whose packets that node drops. */
function deaf(nodeid: number, all: LabNode[]): number[] {
  const list = /ip saddr \{ (.*) \} drop/.exec(rulesOf(nodeid, all))?.[1]?.split(", ") ?? [];
  return list.map((address) => all.find((node) => node.address === address)?.nodeid ?? 0);
}

describe("the rules of a node", () => {
  it("are none in a whole network, and take former ones away", () => {
    expect(rulesOf(1, nodes({}, {}, {}))).toBe("table inet coverlay\ndelete table inet coverlay\n");
  });

  it("part a group from the rest in both directions, and keep it together", () => {
    const all = nodes({ group: "node1,node2" }, { group: "node1,node2" }, {}, {});
    expect(all.map(({ nodeid }) => deaf(nodeid, all))).toEqual([
      [3, 4],
      [3, 4],
      [1, 2],
      [1, 2],
    ]);
  });

  it("part two groups from each other", () => {
    const all = nodes({ group: "node1" }, { group: "node2" }, {});
    expect(all.map(({ nodeid }) => deaf(nodeid, all))).toEqual([
      [2, 3],
      [1, 3],
      [1, 2],
    ]);
  });

  it("lose packets in both directions, but never those a node sends to itself", () => {
    const rules = rulesOf(1, nodes({ lossPercent: 2.5 }, {}));
    expect(rules.match(/numgen random mod 1000000 < 25000 drop/g)).toHaveLength(2);
    // However few: it is not none.
    expect(rulesOf(1, nodes({ lossPercent: 0.000_01 }, {})).match(/ < 1 drop/g)).toHaveLength(2);
    for (const chain of rules.split("chain ").slice(1)) expect(chain.indexOf('"lo" accept')).toBeLessThan(chain.indexOf("drop"));
  });
});

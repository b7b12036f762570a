/** Quorum, who may be in a view, leases, mastering. */
import { describe, expect, it } from "vitest";
import { masterOf } from "../../../dlmd/lock/mastering.ts";
import { largestClique, nextMembers } from "../../../dlmd/membership/clique.ts";
import { leaseEnd, newSendTimes, noteSent, sentAt } from "../../../dlmd/membership/lease.ts";
import { plainQuorum, type QuorumBasis, quorumOf, quorumReason } from "../../../dlmd/membership/quorum.ts";
import { createNode } from "../../../dlmd/node.ts";
import type { NodeConfig } from "../../../dlmd/node-api.ts";
import { noLineage } from "../../../dlmd/wire/view-id.ts";

const nodes = (count: number): NodeConfig[] =>
  Array.from({ length: count }, (_, i) => ({ nodeid: i + 1, name: `node${i + 1}`, address: "", votes: 1 }));
const basis = (count: number): QuorumBasis => ({ version: 1, nodes: nodes(count), options: plainQuorum });
const members = (...ids: number[]): { nodeid: number; incarnation: string }[] =>
  ids.map((nodeid) => ({ nodeid, incarnation: "00000000000000aa" }));

describe("quorum", () => {
  it.each([
    [1, 1],
    [2, 2],
    [3, 2],
    [4, 3],
    [5, 3],
  ])("of %i votes needs %i", (expected, needed) => {
    expect(quorumOf(basis(expected), [], false).needed).toBe(needed);
  });

  it("says why", () => {
    expect(quorumReason(quorumOf(basis(3), members(1, 2), false))).toBe("2 of 3 votes, quorate because 2 >= 2");
    expect(quorumReason(quorumOf(basis(3), members(2), false))).toBe("1 of 3 votes, not quorate because 1 < 2");
  });
});

describe("H14: the largest set that hears each other both ways", () => {
  const linked =
    (...pairs: string[]) =>
    (a: number, b: number): boolean =>
      pairs.includes(`${a}-${b}`) || pairs.includes(`${b}-${a}`);

  it("a node that hears one but not the other is left out; ties go to the lowest ids", () => {
    expect(largestClique([1, 2, 3], linked("1-2", "1-3"))).toEqual([1, 2]);
    expect(largestClique([1, 2, 3, 4], linked("1-2", "2-3", "3-4", "2-4"))).toEqual([2, 3, 4]);
    expect(largestClique([5], linked())).toEqual([5]);
    expect(largestClique([], linked())).toEqual([]);
  });

  it("a node that joins, and is heard by one member before the other, displaces nobody", () => {
    expect(nextMembers([1, 2, 3], [1, 3], linked("1-2", "1-3"))).toEqual([1, 3]);
    expect(nextMembers([1, 2, 3], [1, 3], linked("1-2", "1-3", "2-3"))).toEqual([1, 2, 3]);
    expect(nextMembers([1, 2, 3, 4], [3], linked("1-2", "2-4", "1-4"))).toEqual([3]);
    expect(nextMembers([1, 2, 3], [], linked("1-2", "1-3"))).toEqual([1, 2]);
    expect(nextMembers([1, 2, 3, 4], [1, 2, 3], linked("1-2", "1-4", "2-4"))).toEqual([1, 2, 4]);
  });

  it("31 nodes that all hear each other", () => {
    const all = Array.from({ length: 31 }, (_, i) => i + 1);
    expect(largestClique(all, () => true)).toEqual(all);
  });
});

describe("C4: the lease", () => {
  it("runs from the send time of what a quorum acked", () => {
    const acked = new Map([
      [2, 100],
      [3, 400],
      [4, 300],
      [5, Number.NEGATIVE_INFINITY],
    ]);
    expect(leaseEnd(nodes(5), 1, 3, acked, 1000)).toBe(900);
    expect(leaseEnd(nodes(5), 1, 5, acked, 1000)).toBe(Number.NEGATIVE_INFINITY);
    expect(leaseEnd(nodes(1), 1, 1, new Map(), 1000)).toBe(Number.POSITIVE_INFINITY);
  });

  it("forgets old heartbeats", () => {
    const sent = newSendTimes();
    for (let seq = 1; seq <= 100; seq++) noteSent(sent, seq, seq * 10);
    expect(sentAt(sent, 100)).toBe(1000);
    expect(sentAt(sent, 30)).toBe(null);
    expect(sentAt(sent, 0)).toBe(null);
  });
});

describe("mastering", () => {
  const names = Array.from({ length: 30_000 }, (_, i) => `i:${i}:7`);

  it("spreads evenly, and moves only what the missing node had", () => {
    const share = new Map<number, number>();
    const moved: string[] = [];
    for (const name of names) {
      const master = masterOf(members(1, 2, 3), "volume", name);
      share.set(master, (share.get(master) ?? 0) + 1);
      if (master !== 2 && masterOf(members(1, 3), "volume", name) !== master) moved.push(name);
    }
    expect(moved).toEqual([]);
    for (const nodeid of [1, 2, 3]) expect(Math.abs((share.get(nodeid) as number) - 10_000)).toBeLessThan(500);
  });
});

describe("a node", () => {
  const boot = { nodeid: 1, incarnation: "00000000000000aa", configVersion: 1, timeoutMs: 1000, promisedEpoch: 41, seed: 1, nowMs: 0 };

  it("without the others waits, refuses nothing and says why", () => {
    const node = createNode({ ...boot, nodes: nodes(3), limits: { savedRequestsPerClient: 1 } });
    node.step({ kind: "client-connected", clientId: 1 }, 0);
    const effects = [];
    for (let ms = node.nextDeadline() as number; ms < 2000; ms = node.nextDeadline() as number) {
      for (const effect of node.step({ kind: "tick" }, ms)) {
        effects.push(effect);
        if (effect.kind === "persist") effects.push(...node.step({ kind: "persisted", promisedEpoch: effect.promisedEpoch }, ms));
      }
    }
    expect(effects).toContainEqual({ kind: "persist", promisedEpoch: 42, lineage: noLineage });
    const lock = { kind: "lock", lockspaceId: 1, lockId: 1, resource: "r", mode: 3, flags: 0 } as const;
    const open = { kind: "open", lockspaceId: 1, name: "v" } as const;
    const told = node.step({ kind: "client-requests", clientId: 1, requests: [open, lock, { ...lock, lockId: 2 }] }, 2000);
    expect(told).toEqual([
      { kind: "client-events", clientId: 1, events: [{ kind: "opened", lockspaceId: 1, error: "" }] },
      { kind: "pause-client", clientId: 1 },
    ]);
    expect(node.query("status", 2000)).toMatchObject({
      viewId: "42.1.00000000000000aa",
      members: [1],
      running: false,
      quorumReason: "1 of 3 votes, not quorate because 1 < 2",
      state: "waiting for quorum",
    });
  });

  it("H4: answers no proposal before its promise is on disk", () => {
    const node = createNode({ ...boot, nodes: nodes(2) });
    node.step({ kind: "tick" }, 0);
    const view = { epoch: 50, proposer: 2, incarnation: "00000000000000bb" };
    const propose = {
      kind: "propose",
      from: 2,
      incarnation: "00000000000000bb",
      view,
      members: [...members(1), { nodeid: 2, incarnation: "00000000000000bb" }],
    };
    const effects = node.step({ kind: "datagram", message: propose as never }, 1);
    expect(effects.filter(({ kind }) => kind !== "beat")).toEqual([{ kind: "persist", promisedEpoch: 50, lineage: noLineage }]);
    expect(node.step({ kind: "datagram", message: propose as never }, 2)).toEqual([]);
    expect(node.step({ kind: "persisted", promisedEpoch: 50 }, 3).filter(({ kind }) => kind !== "beat")).toMatchObject([
      { kind: "datagram", to: 2, message: { kind: "state", view } },
    ]);
    const lower = { ...propose, view: { ...view, epoch: 49 } };
    expect(node.step({ kind: "datagram", message: lower as never }, 4)).toEqual([]);
    // Of another life of that node, so that nothing but the epoch speaks against it.
    const incarnation = "00000000000000cc";
    const rival = { ...propose, incarnation, view: { ...view, incarnation }, members: [...members(1), { nodeid: 2, incarnation }] };
    expect(node.step({ kind: "datagram", message: rival as never }, 5).filter(({ kind }) => kind !== "beat")).toEqual([]);
  });
});

/** Quorum, who may be in a view, leases, mastering. */
import { describe, expect, it } from "vitest";
import { masterOf } from "../../../dlmd/lock/mastering.ts";
import { largestClique, nextMembers } from "../../../dlmd/membership/clique.ts";
import type { InstalledView } from "../../../dlmd/membership/agreement.ts";
import type { Detector } from "../../../dlmd/membership/detector.ts";
import { isJoining, type Situation } from "../../../dlmd/membership/next-view.ts";
import { newPeer, type Peer } from "../../../dlmd/membership/peer-table.ts";
import { leaseEnd, newSendTimes, noteSent, sentAt } from "../../../dlmd/membership/lease.ts";
import { leaseGrounds, plainQuorum, type QuorumBasis, quorumOf, quorumReason } from "../../../dlmd/membership/quorum.ts";
import { createNode } from "../../../dlmd/node.ts";
import type { NodeConfig } from "../../../dlmd/config/votes.ts";
import type { NodeAnswer } from "../../../dlmd/query/answer.ts";
import { type Member, noLineage } from "../../../dlmd/wire/view-id.ts";

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

describe("C8: a lease while votes change", () => {
  const of = members(1, 2);
  const quorum = quorumOf(basis(3), of, true);
  const [one, two, three] = nodes(3) as [NodeConfig, NodeConfig, NodeConfig];
  const later: QuorumBasis = { version: 2, nodes: [one, { ...two, votes: 2 }, three], options: plainQuorum };
  const endOf = (counted: QuorumBasis, self: number, acked: readonly (readonly [number, number])[]): number =>
    Math.min(...leaseGrounds(counted, of, quorum, null).map((ground) => leaseEnd(ground.nodes, self, ground.needed, new Map(acked), 1000)));

  it("new votes are not held against what the view needed by the old ones", () => {
    expect(endOf(later, 2, [])).toBe(Number.NEGATIVE_INFINITY);
    expect(endOf(later, 2, [[1, 100]])).toBe(700);
  });

  it("the votes of before must have acknowledged it as well, until the change is decided", () => {
    const alone: QuorumBasis = { version: 2, nodes: [{ ...two, votes: 2 }, one], options: plainQuorum, former: nodes(3) };
    expect(leaseGrounds({ ...alone, former: undefined }, of, quorum, null)).toHaveLength(1);
    expect(endOf({ ...alone, former: undefined }, 2, [])).toBe(Number.POSITIVE_INFINITY);
    expect(endOf(alone, 2, [])).toBe(Number.NEGATIVE_INFINITY);
    expect(endOf(alone, 2, [[1, 100]])).toBe(700);
  });

  it("C4: of a half that won a tie every node must have acknowledged it", () => {
    const half: QuorumBasis = { ...basis(4), options: { ...plainQuorum, autoTieBreaker: "lowest" } };
    const won = quorumOf(half, of, true);
    expect(won.rule).toBe("tie-won");
    const [ground] = leaseGrounds(half, of, won, null);
    expect(ground?.needed).toBe(2);
  });

  it("of a view that was counted by votes not known here, every member must have acknowledged it", () => {
    const known: QuorumBasis = { ...basis(3), version: 0, nodes: [{ ...two, votes: 3 }, one, three] };
    expect(endOf(known, 2, [])).toBe(Number.NEGATIVE_INFINITY);
    expect(endOf(known, 2, [[1, 100]])).toBe(700);
  });

  it("of a view that was counted by another proposal of the version that is open here, every member must have acknowledged it", () => {
    const all = members(1, 2, 3);
    const proposed = (nodeid: number): QuorumBasis => {
      const votes = nodes(3).map((node) => (node.nodeid === nodeid ? { ...node, votes: 2 } : node));
      return { version: 2, nodes: votes, options: plainQuorum, former: nodes(3) };
    };
    const counted = quorumOf(proposed(2), all, true);
    const acked = new Map([[2, 200] as const, [3, 100] as const]);
    const ends = (known: QuorumBasis): number[] =>
      leaseGrounds(known, all, counted, null).map((ground) => leaseEnd(ground.nodes, 1, ground.needed, acked, 1000));
    // Nodes 1 and 2 are a majority by what is open at node 1. A change after the other one may need neither of them.
    expect(ends(proposed(1))).toEqual([700]);
    expect(ends({ ...proposed(2), former: undefined })).toEqual([800]);
  });

  it("a view that is not quorate gives none, whoever acknowledges and whatever votes are known", () => {
    const tie = { ...plainQuorum, autoTieBreaker: "highest" } as const;
    const inForce: QuorumBasis = { version: 3, nodes: [one, two, { ...three, votes: 2 }], options: tie };
    const open: QuorumBasis = { version: 4, nodes: [one, two, { ...three, votes: 3 }], options: tie, former: inForce.nodes };
    const lost = quorumOf(open, of, true);
    expect(lost).toMatchObject({ quorate: false, rule: "old-votes", configVersion: 4 });
    const equal: QuorumBasis = { version: 5, nodes: nodes(3), options: tie };
    for (const counted of [inForce, open, equal]) {
      const grounds = leaseGrounds(counted, of, lost, null);
      for (const { nodes, needed } of grounds) expect(leaseEnd(nodes, 2, needed, new Map([[1, 100]]), 1000)).toBe(Number.NEGATIVE_INFINITY);
    }
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

describe("H14: a node that joins", () => {
  const [one, two, three] = members(1, 2, 3) as [Member, Member, Member];
  const joining = (change: (peer: Peer) => void, inView: readonly Member[] = [two, three], incarnation = one.incarnation): boolean => {
    const peer = newPeer(nodes(1)[0] as NodeConfig);
    peer.incarnation = one.incarnation;
    change(peer);
    const view = { members: inView } as unknown as InstalledView;
    const detector = { peers: new Map([[1, peer]]) } as unknown as Detector;
    return isJoining({ view, detector } as unknown as Situation, { epoch: 5, proposer: 1, incarnation }, 1000);
  };

  it("has proposed a view, and is no member of this one", () => {
    expect(joining(() => undefined)).toBe(true);
    expect(joining(() => undefined, [one, two])).toBe(false);
    expect(joining(() => undefined, [{ nodeid: 1, incarnation: "00000000000000bb" }, two])).toBe(true);
  });

  it.each<[string, (peer: Peer) => void]>([
    ["is left out for a while", (peer) => (peer.shunnedUntilMs = 1001)],
    ["has left", (peer) => (peer.left = peer.incarnation)],
    ["was told to go", (peer) => (peer.evicted = peer.incarnation)],
    ["has an agent running against it", (peer) => (peer.barred = true)],
    ["has begun another life", (peer) => (peer.incarnation = "00000000000000bb")],
  ])("is not waited for if it %s", (_, change) => {
    expect(joining(change)).toBe(false);
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

  it("starts while a change that removes it is open", () => {
    const removed = { nodes: nodes(3).slice(1), former: nodes(3) };
    const node = createNode({ ...boot, ...removed });
    node.step({ kind: "tick" }, 0);
    expect(node.query("status", 10)).toMatchObject({ running: false });
    expect(() => createNode({ ...boot, nodes: removed.nodes })).toThrow("node 1 is not among the configured ones");
  });

  it("shows why a node is not connected, until it is, or for half a minute", () => {
    const node = createNode({ ...boot, nodes: nodes(3), limits: {} });
    const reason = "wrong key: the peer speaks with cluster key 1b08123b, this node has 30116dc4";
    const shown = (nowMs: number): unknown =>
      (node.query("nodes", nowMs) as NodeAnswer[]).flatMap(({ nodeid, refused }) => (refused === null ? [] : [`${nodeid} ${refused}`]));
    node.step({ kind: "peer-refused", nodeid: 2, reason }, 10);
    node.step({ kind: "peer-refused", nodeid: 9, reason }, 10);
    expect(shown(30_009)).toEqual([`2 ${reason}`]);
    expect(node.query("status", 20)).toMatchObject({ refused: [{ nodeid: 2, reason }] });
    expect(shown(30_010)).toEqual([]);
    node.step({ kind: "peer-refused", nodeid: 2, reason }, 40_000);
    expect(shown(40_001)).toEqual([`2 ${reason}`]);
    node.step({ kind: "peer-up", nodeid: 2, incarnation: "00000000000000bb" }, 40_002);
    expect(shown(40_003)).toEqual([]);
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

/** Several engines over a simulated corosync: what each rule of dlmd/engine/corosync/README.md does to a cluster. */
import { describe, expect, it } from "vitest";
import { CpgSim, timeoutMs } from "../../compliance/cpg-sim.ts";

const together = (sim: CpgSim, ...nodeids: number[]): boolean =>
  nodeids.every((nodeid) => {
    const view = sim.node(nodeid).views.at(-1);
    return view?.quorum.quorate === true && view.members.map((member) => member.nodeid).join() === nodeids.join();
  });

function cluster(size = 3): CpgSim {
  const sim = new CpgSim(size);
  for (const node of sim.all) node.start();
  expect(sim.runUntil(() => together(sim, ...sim.all.map(({ nodeid }) => nodeid)))).toBe(true);
  return sim;
}

describe("several dlmds", () => {
  it.each([
    { hanging: 1, others: [2, 3] },
    { hanging: 2, others: [1, 3] },
    { hanging: 3, others: [1, 2] },
  ])("node $hanging hangs: it is left out after a time-out, though CPG never reports it, and comes back", ({ hanging, others }) => {
    const sim = cluster();
    sim.node(hanging).hangs = true;
    const from = sim.nowMs;
    expect(sim.runUntil(() => together(sim, ...others), 4 * timeoutMs)).toBe(true);
    expect(sim.nowMs - from).toBeGreaterThanOrEqual(timeoutMs);
    sim.node(hanging).hangs = false;
    expect(sim.runUntil(() => together(sim, 1, 2, 3))).toBe(true);
    expect(sim.node(hanging).ends.join()).toContain("leaves this node out");
  });

  it("the lowest node comes back while a member hangs: the others leave that one out", () => {
    const sim = cluster();
    sim.node(1).deaf = true;
    expect(sim.runUntil(() => together(sim, 2, 3), 6 * timeoutMs)).toBe(true);
    sim.run(4 * timeoutMs);
    sim.node(1).deaf = false;
    sim.node(3).hangs = true;
    expect(sim.runUntil(() => together(sim, 1, 2), 6 * timeoutMs)).toBe(true);
  });

  it("one that hangs in a round is left out of it", () => {
    const sim = cluster();
    sim.node(3).hangs = true;
    sim.node(2).step((engine) => engine.rebuildView("a test"));
    expect(sim.runUntil(() => together(sim, 1, 2), 4 * timeoutMs)).toBe(true);
  });

  it("one whose heartbeats do not go through comes back when they do, and disturbs nobody meanwhile", () => {
    const sim = cluster();
    sim.node(2).deaf = true;
    expect(sim.runUntil(() => together(sim, 1, 3), 6 * timeoutMs)).toBe(true);
    const settled = sim.nowMs;
    sim.run(5 * timeoutMs);
    const views = sim.node(1).views.filter(({ installedMs }) => installedMs > settled + 2 * timeoutMs);
    expect(views).toEqual([]);
    sim.node(2).deaf = false;
    expect(sim.runUntil(() => together(sim, 1, 2, 3))).toBe(true);
  });

  it("votes change within a ring: quorum is lost and comes back", () => {
    const sim = cluster();
    sim.quorate = () => false;
    sim.tellQuorum();
    expect(sim.runUntil(() => sim.all.every(({ views }) => views.at(-1)?.quorum.quorate === false), 5 * timeoutMs)).toBe(true);
    expect(sim.node(2).engine?.quorum).toEqual({ quorate: false, reason: "votequorum of node 1 2 3 says that its ring is not quorate" });
    sim.quorate = () => true;
    sim.tellQuorum();
    expect(sim.runUntil(() => together(sim, 1, 2, 3))).toBe(true);
    expect(sim.node(3).ends).toEqual([]);
  });

  it("one leaves: the others hear of it, and wait for nobody", () => {
    const sim = cluster();
    const incarnation = sim.node(3).views.at(-1)?.members[2]?.incarnation;
    sim.node(3).step((engine) => engine.leave());
    expect(sim.runUntil(() => together(sim, 1, 2), timeoutMs)).toBe(true);
    expect([sim.node(3).ends, sim.node(1).engine?.peers.get(3)?.left]).toEqual([["left"], incarnation]);
    const view = sim.node(1).views.at(-1);
    expect(view?.serveFromMs).toBe(view?.installedMs);
  });

  it("one dies: the others serve when its lease must be over", () => {
    const sim = cluster();
    sim.run(timeoutMs);
    const leaseEndMs = sim.node(3).engine?.leaseEndMs ?? 0;
    // Whatever corosync's time-outs are: this ring comes long before that.
    sim.tokenMs = 50;
    expect(leaseEndMs).toBeGreaterThan(sim.nowMs + 2 * sim.tokenMs);
    sim.crash(3);
    expect(sim.runUntil(() => together(sim, 1, 2))).toBe(true);
    expect(sim.nowMs).toBeLessThan(leaseEndMs);
    expect(sim.node(1).views.at(-1)?.serveFromMs).toBeGreaterThan(leaseEndMs);
  });

  it("without its disk a node is in no view, and the others go on without it", () => {
    const sim = cluster();
    sim.node(2).persists = false;
    sim.node(1).step((engine) => engine.rebuildView("a test"));
    expect(sim.runUntil(() => together(sim, 1, 3), 4 * timeoutMs)).toBe(true);
    const from = sim.nowMs;
    sim.node(2).persists = true;
    expect(sim.runUntil(() => together(sim, 1, 2, 3))).toBe(true);
    // Two time-outs, counted from when it was left out.
    expect(sim.nowMs - from).toBeGreaterThan(timeoutMs);
  });

  it("one that is being fenced goes, and no life of it comes in before that is over (M2)", () => {
    const sim = cluster();
    for (const nodeid of [1, 2]) sim.node(nodeid).step((engine) => engine.bar([3]));
    expect(sim.runUntil(() => together(sim, 1, 2), 4 * timeoutMs)).toBe(true);
    sim.run(4 * timeoutMs);
    expect([together(sim, 1, 2), sim.node(3).ends.length > 0]).toEqual([true, true]);
    for (const nodeid of [1, 2]) sim.node(nodeid).step((engine) => engine.bar([]));
    expect(sim.runUntil(() => together(sim, 1, 2, 3))).toBe(true);
  });

  describe.each([
    { goneFor: "a moment", share: 0 },
    { goneFor: "a time-out", share: 1 },
  ])("the network was gone for all for $goneFor, and two are in one ring before the third", ({ share }) => {
    const back = (): CpgSim => {
      const sim = cluster();
      sim.partition([[1], [2], [3]]);
      expect(sim.runUntil(() => sim.all.every(({ views }) => views.at(-1)?.quorum.quorate === false))).toBe(true);
      sim.run(share * timeoutMs);
      sim.tokenMs = 50;
      sim.partition([[1, 2], [3]]);
      sim.run(sim.tokenMs);
      expect(together(sim, 1, 2)).toBe(false);
      return sim;
    };

    it("which comes a moment later, and goes on as well", () => {
      const sim = back();
      sim.run(0.3 * timeoutMs);
      sim.heal();
      expect(sim.runUntil(() => together(sim, 1, 2, 3), 2 * timeoutMs)).toBe(true);
      expect(sim.all.map(({ ends }) => ends)).toEqual([[], [], []]);
    });

    it("which does not come: the two go on", () => {
      const sim = back();
      const fromMs = sim.nowMs;
      expect(sim.runUntil(() => together(sim, 1, 2), timeoutMs)).toBe(true);
      expect(sim.nowMs - fromMs).toBeGreaterThan(0.4 * timeoutMs);
    });

    it("one that left in order is not waited for", () => {
      const sim = cluster();
      sim.node(3).step((engine) => engine.leave());
      expect(sim.runUntil(() => together(sim, 1, 2))).toBe(true);
      sim.partition([[1], [2], [3]]);
      expect(sim.runUntil(() => [1, 2].every((nodeid) => sim.node(nodeid).views.at(-1)?.quorum.quorate === false))).toBe(true);
      sim.run(share * timeoutMs);
      sim.tokenMs = 50;
      sim.partition([[1, 2], [3]]);
      expect(sim.runUntil(() => together(sim, 1, 2), 0.3 * timeoutMs)).toBe(true);
    });
  });

  it("votequorum has said no for a ring that no view came of: the next ring waits as well", () => {
    const sim = cluster();
    sim.tokenMs = 50;
    const isToldOfRing = (nodeid: number): boolean => sim.node(nodeid).engine?.figures.stopped === true;
    sim.partition([[1], [2], [3]]);
    expect(sim.runUntil(() => [1, 2].every(isToldOfRing), timeoutMs)).toBe(true);
    expect([1, 2].map((nodeid) => sim.node(nodeid).views.at(-1)?.quorum.quorate)).toEqual([true, true]);
    sim.partition([[1, 2], [3]]);
    sim.run(0.3 * timeoutMs);
    sim.heal();
    expect(sim.runUntil(() => together(sim, 1, 2, 3), 2 * timeoutMs)).toBe(true);
    expect(sim.all.map(({ ends }) => ends)).toEqual([[], [], []]);
  });

  it("votequorum has said no of a later ring when the view of an older one begins: that is not forgotten", () => {
    const sim = cluster();
    sim.tokenMs = 50;
    const views = sim.node(1).views.length;
    sim.node(2).step((engine) => engine.rebuildView("a test"));
    expect(sim.runUntil(() => sim.node(1).engine?.figures.stopped === true)).toBe(true);
    sim.node(1).inbox.push({ kind: "quorum", ring: { nodeid: 1, seq: 1_000_000 }, quorate: false });
    expect(sim.runUntil(() => sim.node(1).views.length > views && together(sim, 1, 2, 3))).toBe(true);
    sim.partition([[1, 2], [3]]);
    sim.run(0.3 * timeoutMs);
    expect(together(sim, 1, 2)).toBe(false);
    sim.heal();
    expect(sim.runUntil(() => together(sim, 1, 2, 3), 2 * timeoutMs)).toBe(true);
    expect(sim.all.map(({ ends }) => ends)).toEqual([[], [], []]);
  });

  it("one that is back from a minority keeps nobody waiting, and begins anew", () => {
    const sim = cluster(5);
    sim.tokenMs = 50;
    sim.down.add(5);
    sim.partition([[1], [2, 3, 4]]);
    expect(sim.runUntil(() => together(sim, 2, 3, 4) && sim.node(1).views.at(-1)?.quorum.quorate === false)).toBe(true);
    sim.run(timeoutMs);
    const fromMs = sim.nowMs;
    sim.partition([[1, 2, 3, 4]]);
    expect(sim.runUntil(() => sim.node(1).ends.length > 0, timeoutMs)).toBe(true);
    expect(sim.nowMs - fromMs).toBeLessThan(0.4 * timeoutMs);
    expect(sim.node(2).ends).toEqual([]);
  });

  it("one that has left, or is being fenced, while there was no quorum is not waited for", () => {
    const gone: readonly ((sim: CpgSim) => void)[] = [
      (sim) => sim.node(3).step((engine) => engine.leave()),
      (sim) => {
        sim.down.add(3);
        for (const nodeid of [1, 2]) sim.node(nodeid).step((engine) => engine.bar([3]));
      },
    ];
    for (const go of gone) {
      const sim = cluster();
      sim.tokenMs = 50;
      sim.quorate = () => false;
      sim.tellQuorum();
      expect(sim.runUntil(() => sim.all.every(({ views }) => views.at(-1)?.quorum.quorate === false))).toBe(true);
      go(sim);
      sim.run(sim.tokenMs);
      sim.quorate = () => true;
      const fromMs = sim.nowMs;
      sim.partition([[1, 2], [3]]);
      expect(sim.runUntil(() => together(sim, 1, 2), timeoutMs)).toBe(true);
      expect(sim.nowMs - fromMs).toBeLessThan(0.4 * timeoutMs);
    }
  });

  it("the other's dlmd has ended, though votequorum counts its node: who is back waits for the third", () => {
    const sim = cluster();
    sim.tokenMs = 50;
    sim.quorate = () => true;
    sim.node(2).stop();
    sim.partition([[1, 2], [3]]);
    expect(sim.runUntil(() => sim.node(1).views.at(-1)?.quorum.quorate === false)).toBe(true);
    sim.node(2).start();
    sim.run(0.3 * timeoutMs);
    expect(together(sim, 1, 2)).toBe(false);
    sim.heal();
    expect(sim.runUntil(() => together(sim, 1, 2, 3), 2 * timeoutMs)).toBe(true);
    expect([sim.node(1).ends, sim.node(3).ends]).toEqual([[], []]);
  });

  it("of three one dies, and the others have one ring at once: nobody waits", () => {
    const sim = cluster();
    sim.tokenMs = 50;
    const fromMs = sim.nowMs;
    sim.crash(3);
    expect(sim.runUntil(() => together(sim, 1, 2), timeoutMs)).toBe(true);
    expect(sim.nowMs - fromMs).toBeLessThan(0.4 * timeoutMs);
  });

  it("a quorum that was lost and is back is forgotten: nobody waits for one that dies later", () => {
    const sim = cluster();
    sim.tokenMs = 50;
    sim.partition([[1], [2], [3]]);
    expect(sim.runUntil(() => sim.all.every(({ views }) => views.at(-1)?.quorum.quorate === false))).toBe(true);
    sim.heal();
    expect(sim.runUntil(() => together(sim, 1, 2, 3))).toBe(true);
    const fromMs = sim.nowMs;
    sim.crash(3);
    expect(sim.runUntil(() => together(sim, 1, 2), timeoutMs)).toBe(true);
    expect(sim.nowMs - fromMs).toBeLessThan(0.4 * timeoutMs);
  });

  it("a peer that is believed no more is left out", () => {
    const sim = cluster();
    expect(sim.node(1).step((engine) => engine.distrust(2))).toBe(true);
    expect(sim.node(1).step((engine) => engine.distrust(2))).toBe(false);
    expect(sim.runUntil(() => sim.node(2).ends.length > 0, 2 * timeoutMs)).toBe(true);
    expect(sim.node(2).ends[0]).toContain("a quorum goes on without it");
    // Its next life is another one.
    expect(sim.runUntil(() => together(sim, 1, 2, 3))).toBe(true);
    expect([sim.node(1).ends, sim.node(3).ends]).toEqual([[], []]);
  });
});

describe("versions of cluster.yaml", () => {
  const membersOf = (sim: CpgSim, nodeid: number): number[] | undefined =>
    sim
      .node(nodeid)
      .views.at(-1)
      ?.members.map((each) => each.nodeid);

  it("a node that was left with an older one takes the quorum from nobody, and its next life is a member", () => {
    const sim = new CpgSim(3);
    for (const node of sim.all) node.configVersion = node.nodeid === 3 ? 1 : 2;
    for (const node of sim.all) node.start();
    expect(sim.runUntil(() => together(sim, 1, 2), 4 * timeoutMs)).toBe(true);
    sim.run(2 * timeoutMs);
    expect([together(sim, 1, 2), sim.node(3).views]).toEqual([true, []]);
    expect(sim.node(3).engine?.quorum.reason).toBe("this node has version 1 of cluster.yaml, and node 1 2 version 2");
    // The others' handshake gives it their version.
    sim.node(3).configVersion = 2;
    sim.node(3).step((engine) => engine.configure({ version: 2, nodes: sim.nodes }));
    expect(sim.runUntil(() => together(sim, 1, 2, 3), 4 * timeoutMs)).toBe(true);
    expect(sim.node(3).ends).toEqual(["evicted: version 2 of cluster.yaml is in force, and this life began with version 1"]);
    expect([sim.node(1).ends, sim.node(2).ends]).toEqual([[], []]);
  });

  it("one that ran on while the others were started with the next version has to begin anew, though it alone knows the locks", () => {
    const sim = cluster();
    for (const nodeid of [1, 2]) {
      sim.crash(nodeid);
      sim.node(nodeid).configVersion = 2;
    }
    expect(sim.runUntil(() => sim.node(3).views.at(-1)?.quorum.quorate === false)).toBe(true);
    for (const nodeid of [1, 2]) sim.start(nodeid);
    expect(sim.runUntil(() => together(sim, 1, 2), 8 * timeoutMs)).toBe(true);
    expect(sim.node(3).ends[0]).toContain("a quorum goes on without it: it has version 1 of cluster.yaml, and node 1 2 version 2");
  });

  it("one that was started with a later version than all others disturbs nobody", () => {
    const sim = cluster();
    sim.crash(3);
    expect(sim.runUntil(() => together(sim, 1, 2))).toBe(true);
    sim.node(3).configVersion = 2;
    sim.start(3);
    sim.run(5 * timeoutMs);
    expect([together(sim, 1, 2), membersOf(sim, 3), sim.node(1).ends, sim.node(2).ends]).toEqual([true, undefined, [], []]);
  });

  it("without a quorum of any version nobody serves, and each says why", () => {
    const sim = new CpgSim(3);
    for (const node of sim.all) node.configVersion = node.nodeid;
    for (const node of sim.all) node.start();
    sim.run(5 * timeoutMs);
    expect(sim.all.map(({ engine }) => engine?.quorum)).toEqual([
      { quorate: false, reason: "this node has version 1 of cluster.yaml, and node 3 version 3" },
      { quorate: false, reason: "this node has version 2 of cluster.yaml, and node 3 version 3" },
      { quorate: false, reason: "node 1 2 has another version of cluster.yaml than 3" },
    ]);
  });
});

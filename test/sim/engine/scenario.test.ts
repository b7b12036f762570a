/** Single faults in a simulated cluster of engines, each named after the hazard or rule that it shows. */
import { describe, expect, it } from "vitest";
import { leaseGrounds, quorumOf, quorumReason } from "../../../dlmd/membership/quorum.ts";
import type { QuorumOptions } from "../../../dlmd/engine/boot.ts";
import type { Datagram } from "../../../dlmd/wire/datagram.ts";
import { compareViews, type ViewId } from "../../../dlmd/wire/view-id.ts";
import type { EngineSim } from "./engine-sim.ts";
import { cluster, groupOf, heard, join, lastView, members, say, together, until } from "./scenes.ts";
import type { EngineSimNode } from "./sim-node.ts";

describe("views and messages", () => {
  it("a message that only one survivor had received is delivered to all before the next view", () => {
    const sim = cluster(3);
    together(sim, 1, 2, 3);
    join(sim, 1, 2, 3);
    sim.run(50);
    // What the sequencer orders from here on reaches node 2 only; then it dies.
    sim.cut.add("1>3");
    say(sim.node(1), 1);
    say(sim.node(1), 2);
    until(sim, "node 2 has both", () => heard(sim.node(2)).length === 2);
    sim.node(1).crash();
    sim.heal();
    together(sim, 2, 3);
    expect(heard(sim.node(3))).toEqual(["1:1", "1:2"]);
    const events = sim.node(3).events;
    const view = events.findIndex((event) => event.kind === "view" && event.view.members.length === 2);
    expect(events.findIndex((event) => event.kind === "message")).toBeLessThan(view);
    expect(lastView(sim.node(3))?.together).toEqual([2, 3]);
  });

  it("M3: a joiner that becomes the sequencer goes on with every sender's numbers", () => {
    const sim = cluster(3);
    sim.node(1).crash();
    together(sim, 2, 3);
    join(sim, 2, 3);
    for (let n = 1; n <= 30; n++) say(sim.node(3), n);
    until(sim, "30 heard", () => heard(sim.node(2)).length === 30);
    sim.node(1).start();
    for (let n = 31; n <= 60; n++) say(sim.node(3), n);
    together(sim, 1, 2, 3);
    for (let n = 61; n <= 90; n++) say(sim.node(3), n);
    until(sim, "90 heard", () => heard(sim.node(2)).length === 90);
    expect(sim.node(2).engine.ordering.sequencerNodeid).toBe(1);
    expect(heard(sim.node(2))).toEqual(Array.from({ length: 90 }, (_, i) => `3:${i + 1}`));
  });

  it("a message of a mebibyte goes through in pieces, and not over two views", () => {
    const sim = cluster(3);
    together(sim, 1, 2, 3);
    join(sim, 1, 2, 3);
    say(sim.node(2), 1, 1_000_000);
    sim.run(3);
    expect(heard(sim.node(3))).toEqual([]);
    sim.node(1).crash();
    until(sim, "it comes in the next view", () => heard(sim.node(3)).length === 1 && heard(sim.node(2)).length === 1);
    const events = sim.node(3).events;
    const view = events.findIndex((event) => event.kind === "view" && event.view.members.length === 2);
    expect(events.findIndex((event) => event.kind === "message")).toBeGreaterThan(view);
  });

  it("H14: a member of a new view from which nothing has come yet is not left out before a time-out", () => {
    const sim = cluster(3);
    // Node 2 hears that node 1 is there, before that one hears anybody, and then nothing more of it for a while.
    const hears = (node: EngineSimNode, nodeid: number): boolean => node.engine.membership.peers.get(nodeid)?.heartbeat !== null;
    sim.lost = (message, _from, to) => message.kind === "heartbeat" && to === 1;
    until(sim, "node 2 hears node 1", () => hears(sim.node(2), 1));
    sim.lost = (message, from, to) => message.kind === "heartbeat" && from === 1 && to === 2;
    until(sim, "nodes 1 and 3 have the view of all", () => [1, 3].every((nodeid) => members(sim.node(nodeid)) === "1 2 3"));
    until(sim, "node 2 has it too", () => members(sim.node(2)) === "1 2 3");
    expect(sim.node(2).engine.membership.peers.get(1)?.heartbeat?.heard).toEqual([]);
    const { view } = sim.node(2).engine.membership;
    sim.run(0.8 * sim.timeoutMs);
    sim.lost = () => false;
    sim.run(3 * sim.timeoutMs);
    for (const node of sim.nodes) {
      expect(node.engine.membership.view?.id).toEqual(view?.id);
      expect(node.evictions).toBe(0);
    }
  });

  describe("H14: a node that joins has proposed a view, and who promised it has not heard all of it yet", () => {
    const hearsSomebody = (message: Datagram, from: number, to: number): boolean =>
      from === 1 && to === 2 && message.kind === "heartbeat" && message.heard.length > 0;

    const withoutNode1 = (seed: number): EngineSim => {
      const sim = cluster(3, { seed });
      together(sim, 1, 2, 3);
      join(sim, 1, 2, 3);
      sim.node(1).crash();
      together(sim, 2, 3);
      return sim;
    };

    const joining = (seed = 7): EngineSim => {
      const sim = withoutNode1(seed);
      sim.node(1).start();
      // Of its heartbeats only those come to node 2 that say that it hears nobody yet; and it does not get to the end with its view.
      sim.lost = (message, from, to) => hearsSomebody(message, from, to) || (message.kind === "flush" && from === 1 && to === 2);
      until(sim, "node 2 has promised it", () => sim.node(2).engine.membership.stopped);
      return sim;
    };

    it("the others wait for it, and it is a member of the next view", () => {
      const sim = joining();
      expect(sim.node(1).engine.membership.view).toBeNull();
      expect(sim.node(2).engine.membership.peers.get(1)?.heartbeat?.heard).toEqual([]);
      sim.run(0.3 * sim.timeoutMs);
      sim.lost = () => false;
      until(sim, "a view", () => !sim.node(2).engine.membership.stopped);
      expect(members(sim.node(2))).toBe("1 2 3");
      expect(sim.node(1).evictions).toBe(0);
    });

    it("when it dies the others go on", () => {
      const sim = joining();
      const sinceMs = sim.agenda.nowMs;
      sim.node(1).crash();
      together(sim, 2, 3);
      expect(sim.agenda.nowMs - sinceMs).toBeLessThan(0.8 * sim.timeoutMs);
    });

    it("the others wait for it also if they had promised another view for long", () => {
      const sim = withoutNode1(7);
      sim.run(1.2 * sim.timeoutMs);
      sim.lost = (message, from, to) => hearsSomebody(message, from, to) || message.kind === "flush";
      sim.node(2).engine.membership.setBroken();
      until(sim, "they have promised one", () => [2, 3].every((nodeid) => sim.node(nodeid).engine.membership.stopped));
      sim.run(0.7 * sim.timeoutMs);
      sim.node(1).start();
      until(sim, "node 1 proposes", () => sim.node(1).engine.membership.stopped);
      const { promisedEpoch } = sim.node(1).engine.membership;
      until(sim, "node 2 promises it", () => sim.node(2).engine.membership.promisedEpoch === promisedEpoch);
      sim.run(0.4 * sim.timeoutMs);
      expect([2, 3].map((nodeid) => sim.node(nodeid).engine.membership.promisedEpoch)).toEqual([promisedEpoch, promisedEpoch]);
    });

    it("when it proposes another one, which does not come either, the others wait no longer for that", () => {
      let twice = 0;
      for (let seed = 1; seed <= 12; seed++) {
        const sim = joining(seed);
        const { promisedEpoch } = sim.node(2).engine.membership;
        const sinceMs = sim.agenda.nowMs;
        until(sim, "another one", () => sim.node(2).engine.membership.promisedEpoch > promisedEpoch);
        // It waits for a random time before it does: mostly for longer than the others do.
        const isWaiting = members(sim.node(2)) === "" && sim.node(1).engine.membership.view === null;
        if (sim.node(1).engine.membership.promisedEpoch > promisedEpoch && isWaiting) twice++;
        together(sim, 2, 3);
        expect(sim.agenda.nowMs - sinceMs).toBeLessThan(0.8 * sim.timeoutMs);
      }
      expect(twice).toBeGreaterThan(0);
    });
  });

  describe.each([
    { goneFor: "a time-out and a moment", share: 0 },
    { goneFor: "two time-outs", share: 1 },
  ])("the network was gone for all for $goneFor, and two hear each other before the third", ({ share }) => {
    const back = (): EngineSim => {
      const sim = cluster(3);
      together(sim, 1, 2, 3);
      join(sim, 1, 2, 3);
      const pairs = [1, 2, 3].flatMap((from) => [1, 2, 3].filter((to) => to !== from).map((to) => `${from}>${to}`));
      for (const pair of pairs) sim.cut.add(pair);
      until(sim, "all are alone", () => sim.nodes.every((node) => members(node) === String(node.nodeid)));
      sim.run(share * sim.timeoutMs);
      for (const pair of ["1>2", "2>1"]) sim.cut.delete(pair);
      return sim;
    };

    it("which comes a moment later, and goes on as well", () => {
      const sim = back();
      sim.run(0.4 * sim.timeoutMs);
      sim.heal();
      together(sim, 1, 2, 3);
      expect(sim.nodes.map(({ evictions }) => evictions)).toEqual([0, 0, 0]);
    });

    it("which is being fenced: nobody waits for it", () => {
      const sim = back();
      for (const nodeid of [1, 2]) sim.node(nodeid).engine.bar([3]);
      const fromMs = sim.agenda.nowMs;
      together(sim, 1, 2);
      expect(sim.agenda.nowMs - fromMs).toBeLessThan(0.5 * sim.timeoutMs);
    });

    it("which does not come: the two go on", () => {
      const sim = back();
      const fromMs = sim.agenda.nowMs;
      together(sim, 1, 2);
      expect(sim.agenda.nowMs - fromMs).toBeGreaterThan(0.5 * sim.timeoutMs);
      expect(sim.agenda.nowMs - fromMs).toBeLessThan(1.1 * sim.timeoutMs);
    });
  });

  it("H14: a member that dies at the first moment of a view is left out after a time-out", () => {
    const sim = cluster(3);
    until(sim, "node 2 has the view of all", () => members(sim.node(2)) === "1 2 3");
    sim.node(1).crash();
    const sinceMs = sim.agenda.nowMs;
    together(sim, 2, 3);
    expect(sim.agenda.nowMs - sinceMs).toBeGreaterThan(0.9 * sim.timeoutMs);
    expect(sim.agenda.nowMs - sinceMs).toBeLessThan(1.3 * sim.timeoutMs);
  });

  it("a view that was installed at one member only is caught up with", () => {
    const sim = cluster(3);
    together(sim, 1, 2, 3);
    join(sim, 1, 2, 3);
    sim.run(400);
    sim.node(3).crash();
    until(sim, "node 3 is suspected", () => members(sim.node(1)) === "");
    while (members(sim.node(1)) !== "1 2" && sim.agenda.step());
    // The word of it that is under way, and what is repeated, is lost: node 2 has promised the view, and proposes another one in the end.
    sim.cut.add("1>2");
    sim.run(0.8 * sim.timeoutMs);
    expect(members(sim.node(2))).toBe("");
    sim.heal();
    together(sim, 1, 2);
    say(sim.node(1), 1);
    say(sim.node(2), 2);
    until(sim, "both hear both", () => heard(sim.node(1)).length === 2 && heard(sim.node(2)).length === 2);
    expect(heard(sim.node(1))).toEqual(heard(sim.node(2)));
    expect(sim.node(2).evictions).toBe(0);
    const views = (node: EngineSimNode): number[] =>
      node.events.flatMap((event) => (event.kind === "view" && event.view.quorum.quorate ? [event.view.id.epoch] : []));
    expect(views(sim.node(2))).toEqual(views(sim.node(1)));
  });
});

describe("faults", () => {
  it("a minority that holds state is evicted when it comes back, never merged", () => {
    const sim = cluster(3);
    together(sim, 1, 2, 3);
    join(sim, 1, 2, 3);
    sim.partition([[1], [2, 3]]);
    together(sim, 2, 3);
    say(sim.node(1), 1);
    say(sim.node(2), 2);
    until(sim, "the majority goes on", () => heard(sim.node(3)).includes("2:2"));
    until(sim, "the minority knows", () => lastView(sim.node(1))?.quorum.quorate === false);
    expect(heard(sim.node(1))).toEqual([]);
    sim.heal();
    together(sim, 1, 2, 3);
    expect(sim.node(1).evictions).toBe(1);
    expect(groupOf(sim.node(2))).toEqual([2, 3]);
  });

  it("nobody had quorum in between: all go on together", () => {
    const sim = cluster(3);
    together(sim, 1, 2, 3);
    join(sim, 1, 2, 3);
    sim.partition([[1], [2], [3]]);
    until(sim, "all alone", () => sim.nodes.every((node) => lastView(node)?.quorum.quorate === false));
    for (const node of sim.nodes) say(node, 1);
    sim.heal();
    until(sim, "all hear all", () => sim.nodes.every((node) => heard(node).length === 3));
    expect(sim.nodes.map((node) => node.evictions)).toEqual([0, 0, 0]);
    expect(sim.nodes.map((node) => lastView(node)?.together)).toEqual([
      [1, 2, 3],
      [1, 2, 3],
      [1, 2, 3],
    ]);
  });

  it("a main thread that is busy for longer than the time-out is not suspected", () => {
    const sim = cluster(3);
    together(sim, 1, 2, 3);
    const view = lastView(sim.node(1))?.id;
    sim.node(2).busyUntilMs = sim.agenda.nowMs + 2 * sim.timeoutMs;
    sim.run(3 * sim.timeoutMs);
    expect(sim.nodes.map((node) => lastView(node)?.id)).toEqual([view, view, view]);
  });

  it("H13: a main thread that stands still for many time-outs is left out, although its heartbeats go on", () => {
    const sim = cluster(3);
    together(sim, 1, 2, 3);
    sim.node(1).busyUntilMs = sim.agenda.nowMs + 20 * sim.timeoutMs;
    together(sim, 2, 3);
    expect(sim.agenda.nowMs).toBeLessThan(sim.node(1).busyUntilMs);
  });

  it("a member that receives no ordered messages is taken out after the time-out", () => {
    const sim = cluster(3);
    together(sim, 1, 2, 3);
    join(sim, 1, 2, 3);
    // Its main thread is busy for too long while messages wait for it; its heartbeats go on.
    sim.node(3).busyUntilMs = sim.agenda.nowMs + 3 * sim.timeoutMs;
    sim.run(1);
    say(sim.node(1), 1);
    together(sim, 1, 2);
    expect(sim.agenda.nowMs).toBeLessThan(sim.node(3).busyUntilMs);
    together(sim, 1, 2, 3);
    expect(sim.node(3).evictions).toBe(1);
  });

  it("M1: a process that stood still orders nothing before a quorum acknowledged it anew", () => {
    const sim = cluster(3);
    together(sim, 1, 2, 3);
    const node = sim.node(1);
    // Right after an ack: by the time alone the lease would be longer than it stands still.
    until(sim, "a fresh lease", () => node.engine.leaseEndMs - sim.agenda.nowMs > 0.57 * sim.timeoutMs);
    expect(node.engine.mayOrder(sim.agenda.nowMs)).toBe(true);
    node.pausedUntilMs = sim.agenda.nowMs + 0.52 * sim.timeoutMs;
    sim.run(0.52 * sim.timeoutMs - 0.01);
    const before = sim.agenda.nowMs;
    until(sim, "it ran again", () => sim.agenda.nowMs > before + 0.02);
    expect(node.engine.mayOrder(sim.agenda.nowMs)).toBe(false);
    until(sim, "it was acknowledged", () => node.engine.mayOrder(sim.agenda.nowMs));
    expect(members(node)).toBe("1 2 3");
  });
});

describe("single messages that are lost", () => {
  it("C4: an acknowledgement counts in its own view only: who was left out and does not know it orders nothing", () => {
    const sim = cluster(3);
    together(sim, 1, 2, 3);
    // Node 3 hears the others, and they it; but they go on without it, and it is told nothing of that.
    sim.lost = ({ kind }, from, to) => kind !== "heartbeat" && (from === 3 || to === 3);
    for (const nodeid of [1, 2]) sim.node(nodeid).engine.membership.shun(3, "this is a test", sim.agenda.nowMs);
    until(sim, "1 and 2 order without 3", () => members(sim.node(1)) === "1 2" && sim.node(1).engine.mayOrder(sim.agenda.nowMs));
    expect(members(sim.node(3))).toBe("1 2 3");
    expect(sim.node(3).engine.mayOrder(sim.agenda.nowMs)).toBe(false);
  });

  it("who missed a quorate view is evicted, also by those without quorum, and also when it is asked before it is heard", () => {
    const sim = cluster(7);
    sim.node(1).crash();
    together(sim, 2, 3, 4, 5, 6, 7);
    sim.partition([[7], [2, 3, 4, 5, 6]]);
    together(sim, 2, 3, 4, 5, 6);
    for (const nodeid of [2, 3, 4, 5]) sim.node(nodeid).crash();
    // Node 1 is new and knows of no view; what node 6 knows node 7 does not hear.
    sim.lost = ({ kind }, from) => kind === "evict" && from === 6;
    sim.heal();
    sim.node(1).start();
    until(sim, "node 7 is evicted", () => sim.node(7).evictions === 1);
    expect(sim.node(6).evictions).toBe(0);
  });

  it("an installation that is lost is repeated, so that no other view is needed", () => {
    const sim = cluster(3);
    together(sim, 1, 2, 3);
    let lost = 0;
    sim.lost = ({ kind }, _, to) => kind === "install" && to === 2 && lost++ < 2;
    sim.node(3).crash();
    until(sim, "node 1 is in it", () => members(sim.node(1)) === "1 2");
    const view = lastView(sim.node(1))?.id;
    until(sim, "node 2 too", () => members(sim.node(2)) === "1 2");
    expect(lost).toBeGreaterThan(2);
    expect(lastView(sim.node(2))?.id).toEqual(view);
  });

  it("H13: who is heard and answers no proposal is left out in the end", () => {
    const sim = cluster(2);
    sim.lost = ({ kind }, _, to) => kind !== "heartbeat" && to === 2;
    together(sim, 1);
    expect(lastView(sim.node(1))?.quorum.quorate).toBe(false);
  });
});

describe("back-pressure", () => {
  it("says full, then room; nothing that was accepted is lost", () => {
    const sim = cluster(3);
    together(sim, 1, 2, 3);
    join(sim, 1, 2, 3);
    const node = sim.node(2);
    let accepted = 0;
    let full = 0;
    for (let n = 1; n <= 300; n++) {
      const data = new Uint8Array(50_000);
      new DataView(data.buffer).setUint32(0, accepted + 1, true);
      for (let i = 4; i < data.byteLength; i += 97) data[i] = accepted + 1 + i;
      node.command(
        () => ({ kind: "multicast", group: "g", clientId: 1, data }),
        (result) => (result === "accepted" ? accepted++ : full++),
      );
    }
    expect(full).toBeGreaterThan(0);
    // A member that acknowledges late makes the window fill.
    sim.cut.add("3>1");
    sim.run(0.5 * sim.timeoutMs);
    const kept = Math.max(...sim.nodes.map((node) => node.engine.ordering.kept));
    sim.heal();
    until(sim, "room", () => node.events.some((event) => event.kind === "room"));
    until(sim, "all came", () => heard(sim.node(3)).length === accepted);
    expect(kept).toBeLessThanOrEqual(256);
  });
});

describe("quorum", () => {
  const quorum = (options: Partial<QuorumOptions>): QuorumOptions => ({
    twoNode: false,
    waitForAll: false,
    autoTieBreaker: "none",
    ...options,
  });

  it("two_node: after both were seen one goes on; a restart alone waits for all", () => {
    const sim = cluster(2, { quorum: quorum({ twoNode: true, waitForAll: true }) });
    together(sim, 1, 2);
    sim.node(2).crash();
    together(sim, 1);
    expect(lastView(sim.node(1))?.quorum).toMatchObject({ quorate: true, rule: "two-node" });
    until(sim, "it serves", () => sim.node(1).engine.mayOrder(sim.agenda.nowMs));
    sim.node(1).crash();
    sim.node(1).start();
    together(sim, 1);
    expect(lastView(sim.node(1))?.quorum).toMatchObject({ quorate: false, rule: "wait-for-all" });
    sim.node(2).start();
    together(sim, 1, 2);
    expect(lastView(sim.node(1))?.quorum.quorate).toBe(true);
  });

  it("H4: two quorate views with one epoch are two: the side of the lower proposer was left behind, and they never merge", () => {
    const sim = cluster(2, { quorum: quorum({ twoNode: true, waitForAll: true }), twoQuorums: true });
    together(sim, 1, 2);
    sim.run(100);
    sim.partition([[1], [2]]);
    together(sim, 1);
    together(sim, 2);
    const views = [1, 2].map((nodeid) => lastView(sim.node(nodeid)));
    expect(views.map((view) => view?.quorum.quorate)).toEqual([true, true]);
    expect(new Set(views.map((view) => view?.id.epoch)).size).toBe(1);
    sim.heal();
    together(sim, 1, 2);
    expect(sim.nodes.map(({ evictions }) => evictions)).toEqual([1, 0]);
    expect(lastView(sim.node(2))?.together).toEqual([2]);
  });

  it.each([1, 2])("M2: with two_node the half that has fenced the other one goes on when that comes back: node %i", (winner) => {
    const loser = 3 - winner;
    const sim = cluster(2, { quorum: quorum({ twoNode: true, waitForAll: true }), twoQuorums: true });
    together(sim, 1, 2);
    sim.run(100);
    const seen = (nodeid: number): ViewId => sim.node(nodeid).engine.membership.seen.id;
    const epochOf = (nodeid: number): number => lastView(sim.node(nodeid))?.id.epoch ?? 0;
    const joint = seen(1);
    sim.partition([[1], [2]]);
    together(sim, winner);
    together(sim, loser);
    // However many views it makes alone.
    for (const last = epochOf(winner) + 3; epochOf(loser) < last; sim.run(100)) sim.node(loser).engine.rebuildView("a test");
    expect([1, 2].map((nodeid) => lastView(sim.node(nodeid))?.quorum.quorate)).toEqual([true, true]);
    expect(compareViews(seen(loser), seen(winner))).toBeGreaterThan(0);
    sim.node(loser).crash();
    sim.node(winner).engine.proved();
    const alone = seen(winner);
    sim.heal();
    sim.node(loser).start();
    expect(seen(loser)).toEqual(joint);
    together(sim, 1, 2);
    expect(sim.nodes.map(({ evictions }) => evictions)).toEqual([0, 0]);
    expect(lastView(sim.node(winner))?.together).toEqual([winner]);
    // What the winner was proved to have is kept by both.
    for (const nodeid of [1, 2]) expect(compareViews(seen(nodeid), alone)).toBeGreaterThan(0);
  });

  it("M2: the winner that starts again after its proof knows its own view; without the proof the last one of both", () => {
    for (const proved of [true, false]) {
      const sim = cluster(2, { quorum: quorum({ twoNode: true, waitForAll: true }), twoQuorums: true });
      together(sim, 1, 2);
      sim.run(100);
      const seen = (): ViewId => sim.node(1).engine.membership.seen.id;
      const joint = seen();
      sim.partition([[1], [2]]);
      together(sim, 1);
      const alone = seen();
      expect(compareViews(alone, joint)).toBeGreaterThan(0);
      if (proved) sim.node(1).engine.proved();
      sim.run(100);
      sim.node(1).crash();
      sim.node(1).start();
      expect(seen()).toEqual(proved ? alone : joint);
    }
  });

  /** Node 2 is alone in a later view than node 1, and its word that it went on is kept back. */
  function evictKeptBack(): { readonly sim: EngineSim; readonly evict: () => Datagram } {
    const sim = cluster(2, { quorum: quorum({ twoNode: true, waitForAll: true }), twoQuorums: true });
    together(sim, 1, 2);
    sim.run(100);
    sim.partition([[1], [2]]);
    together(sim, 1);
    together(sim, 2);
    const epochOf = (nodeid: number): number => lastView(sim.node(nodeid))?.id.epoch ?? 0;
    for (const last = epochOf(1) + 3; epochOf(2) < last; sim.run(100)) sim.node(2).engine.rebuildView("a test");
    let evict: Datagram | null = null;
    sim.lost = (message) => {
      if (message.kind === "evict") evict = message;
      return message.kind === "evict";
    };
    sim.cut.delete("1>2");
    until(sim, "node 2 says that it went on", () => evict !== null);
    return { sim, evict: () => evict as unknown as Datagram };
  }

  it("M2: a late word of the half that was fenced does not end the life of the winner", () => {
    const { sim, evict } = evictKeptBack();
    sim.node(2).crash();
    sim.node(1).engine.proved();
    sim.node(1).arrive(evict());
    sim.run(100);
    expect(sim.node(1).evictions).toBe(0);
    // Its next life is let in.
    sim.lost = () => false;
    sim.heal();
    sim.node(2).start();
    together(sim, 1, 2);
    expect(sim.nodes.map(({ evictions }) => evictions)).toEqual([0, 0]);
  });

  it("M2: the half that was fenced lives after all, in the later view: the winner goes on", () => {
    const { sim } = evictKeptBack();
    sim.node(1).engine.proved();
    sim.lost = () => false;
    sim.heal();
    together(sim, 1, 2);
    expect(sim.nodes.map(({ evictions }) => evictions)).toEqual([0, 1]);
    expect(lastView(sim.node(1))?.together).toEqual([1]);
  });

  it("M2: two halves that hear each other again leave it to an agent that runs already who goes on", () => {
    const { sim, evict } = evictKeptBack();
    sim.node(1).engine.bar([2]);
    sim.node(1).arrive(evict());
    sim.run(100);
    expect(sim.node(1).evictions).toBe(0);
    // It has failed.
    sim.node(1).engine.bar([]);
    sim.node(1).arrive(evict());
    sim.run(1);
    expect(sim.node(1).evictions).toBe(1);
  });

  it("M2: with two_node a node that is alone because the other one has left knows so in its next life", () => {
    const sim = cluster(2, { quorum: quorum({ twoNode: true, waitForAll: true }) });
    together(sim, 1, 2);
    sim.node(2).engine.membership.leave(sim.agenda.nowMs);
    together(sim, 1);
    const alone = sim.node(1).engine.membership.seen.id;
    sim.run(100);
    sim.node(1).crash();
    sim.node(1).start();
    expect(sim.node(1).engine.membership.seen.id).toEqual(alone);
  });

  it("a node that leaves tells the members of its view, also when it hears another view with a higher epoch", () => {
    const sim = cluster(3);
    sim.partition([[1, 2], [3]]);
    together(sim, 1, 2);
    const epoch = (nodeid: number): number => sim.node(nodeid).engine.membership.view?.id.epoch ?? 0;
    together(sim, 3);
    while (epoch(3) <= epoch(1)) {
      sim.node(3).crash();
      sim.node(3).start();
      together(sim, 3);
    }
    // Heard by node 1 and not by node 2, it stays outside.
    sim.heal();
    for (const way of ["2>3", "3>2"]) sim.cut.add(way);
    const heard = sim.node(1).engine.membership.peers;
    until(sim, "node 1 hears of it", () => (heard.get(3)?.heartbeat?.view.epoch ?? 0) > epoch(1));
    let told = 0;
    sim.lost = (message, from, to) => {
      if (message.kind === "leave" && from === 1 && to === 2) told++;
      return false;
    };
    sim.node(1).engine.membership.leave(sim.agenda.nowMs);
    until(sim, "node 1 is away", () => members(sim.node(2)) === "2");
    expect(told).toBeGreaterThan(0);
  });

  it("C4: in two_node the lease ends when the peer is silent", () => {
    const sim = cluster(2, { quorum: quorum({ twoNode: true, waitForAll: true }) });
    together(sim, 1, 2);
    sim.run(100);
    expect(sim.node(1).engine.mayOrder(sim.agenda.nowMs)).toBe(true);
    sim.partition([[1], [2]]);
    sim.run(0.75 * sim.timeoutMs);
    expect(members(sim.node(1))).toBe("1 2");
    expect(sim.node(1).engine.mayOrder(sim.agenda.nowMs)).toBe(false);
  });

  it("auto_tie_breaker: of two halves the one with the lowest node goes on", () => {
    const sim = cluster(4, { quorum: quorum({ autoTieBreaker: "lowest" }) });
    together(sim, 1, 2, 3, 4);
    sim.partition([
      [1, 4],
      [2, 3],
    ]);
    together(sim, 1, 4);
    together(sim, 2, 3);
    expect(lastView(sim.node(4))?.quorum).toMatchObject({ quorate: true, rule: "tie-won" });
    expect(lastView(sim.node(3))?.quorum).toMatchObject({ quorate: false, rule: "tie-lost" });
  });

  const standing = { lastManStandingMs: 900 };

  it("last_man_standing: who is missing for the window does not count, one after the other, and counts again when it is back", () => {
    const sim = cluster(5, { quorum: quorum(standing) });
    const counts = (...nodeids: number[]): void =>
      until(sim, `${nodeids.join(" ")} count`, () => {
        const { electorate } = sim.node(1).engine.membership;
        return electorate !== null && electorate.former === null && electorate.nodeids.join(" ") === nodeids.join(" ");
      });
    together(sim, 1, 2, 3, 4, 5);
    sim.node(5).crash();
    sim.node(4).crash();
    together(sim, 1, 2, 3);
    expect(lastView(sim.node(1))?.quorum).toMatchObject({ quorate: true, expected: 5, electorate: null });
    sim.run(0.8 * standing.lastManStandingMs);
    expect(sim.node(1).engine.membership.electorate).toBe(null);
    counts(1, 2, 3);
    expect(lastView(sim.node(1))?.quorum).toMatchObject({ quorate: true, votes: 3, expected: 3, needed: 2 });
    sim.node(3).crash();
    together(sim, 1, 2);
    counts(1, 2);
    sim.node(4).start();
    counts(1, 2, 4);
    sim.node(4).crash();
    counts(1, 2);
    sim.node(2).crash();
    together(sim, 1);
    // Two do not become one without auto_tie_breaker.
    expect(lastView(sim.node(1))?.quorum).toMatchObject({ quorate: false, votes: 1, expected: 2, needed: 2 });
    for (const nodeid of [2, 3, 4, 5]) sim.node(nodeid).start();
    until(sim, "all count", () => sim.nodes.every((node) => node.engine.membership.electorate === null && members(node) === "1 2 3 4 5"));
  });

  it("last_man_standing with auto_tie_breaker: two become one, which stands alone", () => {
    const sim = cluster(3, { quorum: quorum({ ...standing, autoTieBreaker: "highest" }) });
    together(sim, 1, 2, 3);
    sim.node(3).crash();
    together(sim, 1, 2);
    until(sim, "1 2 count", () => sim.node(2).engine.membership.electorate?.former === null);
    sim.node(1).crash();
    together(sim, 2);
    expect(lastView(sim.node(2))?.quorum).toMatchObject({ quorate: true, rule: "tie-won", votes: 1, expected: 2 });
    until(sim, "2 counts alone", () => lastView(sim.node(2))?.quorum.expected === 1);
    // The others together were more than half of all nodes. They do not know that they count no more, but node 1 knows that 2 does.
    sim.partition([[2], [1, 3]]);
    sim.node(1).start();
    sim.node(3).start();
    together(sim, 1, 3);
    expect(lastView(sim.node(3))?.quorum).toMatchObject({ quorate: false, electorate: { nodeids: [1, 2] } });
  });

  it("last_man_standing: partitions that change their shape never make a second quorum", () => {
    const sim = cluster(5, { quorum: quorum(standing) });
    together(sim, 1, 2, 3, 4, 5);
    sim.partition([
      [1, 2, 3],
      [4, 5],
    ]);
    together(sim, 1, 2, 3);
    until(sim, "1 2 3 count", () => sim.node(3).engine.membership.electorate?.former === null);
    sim.partition([
      [1, 2],
      [3, 4, 5],
    ]);
    together(sim, 1, 2);
    expect(lastView(sim.node(1))?.quorum).toMatchObject({ quorate: true, votes: 2, expected: 3 });
    sim.run(10 * sim.timeoutMs);
    // Three of five nodes, but one of the three that count: 4 and 5 stay with 3 only until it tells them.
    expect(lastView(sim.node(3))?.quorum).toMatchObject({ quorate: false });
    expect(lastView(sim.node(4))?.quorum.quorate).toBe(false);
  });

  it("last_man_standing: a change counts when every member has it on disk; until then both majorities do", () => {
    const five = [1, 2, 3, 4, 5].map((nodeid) => ({ nodeid, votes: 1 }));
    const basis = { version: 1, nodes: five, options: quorum(standing) };
    const of = (...nodeids: number[]) => nodeids.map((nodeid) => ({ nodeid }));
    const changing = { nodeids: [1, 2, 3], former: [1, 2, 3, 4, 5] };
    expect(quorumOf(basis, of(1, 2), true, { ...changing, former: null })).toMatchObject({ quorate: true, expected: 3 });
    expect(quorumOf(basis, of(1, 2), true, changing)).toMatchObject({ quorate: false, rule: "old-voters", expected: 5 });
    expect(quorumOf(basis, of(3, 4, 5), true, changing)).toMatchObject({ quorate: false, expected: 3 });
    const grounds = leaseGrounds(basis, of(1, 2, 3), quorumOf(basis, of(1, 2, 3), true, changing), changing);
    expect(grounds.map(({ nodes, needed }) => [nodes.length, needed])).toEqual([
      [3, 2],
      [5, 3],
    ]);
    expect(quorumReason(quorumOf(basis, of(1, 2), true, { ...changing, former: null }))).toBe(
      "2 of 3 votes, quorate because 2 >= 2; only nodes 1 2 3 count",
    );
  });

  it("last_man_standing with wait_for_all: after a restart of all nothing is quorate before all were there", () => {
    const sim = cluster(3, { quorum: quorum({ ...standing, waitForAll: true }) });
    together(sim, 1, 2, 3);
    sim.node(3).crash();
    together(sim, 1, 2);
    until(sim, "1 2 count", () => sim.node(2).engine.membership.electorate?.former === null);
    for (const node of sim.nodes) node.crash();
    sim.node(1).start();
    sim.node(2).start();
    together(sim, 1, 2);
    expect(lastView(sim.node(1))?.quorum).toMatchObject({ quorate: false, rule: "wait-for-all" });
    sim.node(3).start();
    together(sim, 1, 2, 3);
    expect(lastView(sim.node(1))?.quorum.quorate).toBe(true);
  });

  it("votes: one heavy node outweighs two others", () => {
    const sim = cluster(3, { votes: [3, 1, 1] });
    together(sim, 1, 2, 3);
    sim.partition([[1], [2, 3]]);
    together(sim, 1);
    expect(lastView(sim.node(1))?.quorum).toMatchObject({ quorate: true, votes: 3, expected: 5, needed: 3 });
  });
});

/** The rules of the engine over corosync (dlmd/engine/corosync/README.md), each where it decides. */
import { describe, expect, it } from "vitest";
import type { NodeConfig } from "../../../dlmd/config/votes.ts";
import { CorosyncEngine, type CorosyncEvent } from "../../../dlmd/engine/corosync/corosync-core.ts";
import { decodeGroupMessage, encodeGroupMessage, type GroupMessage, type StateMessage } from "../../../dlmd/engine/corosync/message.ts";
import { type Answer, decide } from "../../../dlmd/engine/corosync/round.ts";
import type { EngineEvent, View } from "../../../dlmd/engine/engine.ts";
import { plainQuorum } from "../../../dlmd/membership/quorum.ts";
import { noLineage, noView, type ViewId } from "../../../dlmd/wire/view-id.ts";
import { CpgSim, timeoutMs } from "../../compliance/cpg-sim.ts";

const incarnationOf = (nodeid: number): string => `00000000000000a${nodeid}`;
const nodes: NodeConfig[] = [1, 2, 3].map((nodeid) => ({ nodeid, name: `node${nodeid}`, address: `10.0.0.${nodeid}`, votes: 1 }));
const basis = { version: 1, nodes, options: plainQuorum };
const viewOf = (epoch: number): ViewId => ({ epoch, proposer: 1, incarnation: incarnationOf(1) });
const lineageOf = (epoch: number): Answer["seen"] => ({
  id: viewOf(epoch),
  members: [1, 2, 3].map((nodeid) => ({ nodeid, incarnation: incarnationOf(nodeid) })),
  electorate: null,
});

function answer(nodeid: number, more: Partial<Answer> = {}): Answer {
  return {
    nodeid,
    incarnation: incarnationOf(nodeid),
    epoch: 10 + nodeid,
    lived: noView,
    seen: noLineage,
    packets: 0,
    digest: 0,
    synced: true,
    quorate: true,
    configVersion: 1,
    cutOff: [],
    ackedAgo: [],
    ...more,
  };
}
const lived = (nodeid: number, epoch: number, more: Partial<Answer> = {}): Answer =>
  answer(nodeid, { lived: viewOf(epoch), seen: lineageOf(epoch), ...more });
const nodeidsOf = (rows: readonly { readonly nodeid: number }[]): number[] => rows.map(({ nodeid }) => nodeid);

describe("what becomes of the states", () => {
  it("the view has the name of whoever said the highest epoch: it says each once", () => {
    const decision = decide([answer(1, { epoch: 7 }), answer(2, { epoch: 9 }), answer(3, { epoch: 8 })], basis, timeoutMs);
    expect(decision.id).toEqual({ epoch: 9, proposer: 2, incarnation: incarnationOf(2) });
  });

  it("who comes from an older view than another has to begin anew", () => {
    const decision = decide([lived(1, 4), lived(2, 5), lived(3, 5)], basis, timeoutMs);
    expect([nodeidsOf(decision.behind), nodeidsOf(decision.members), nodeidsOf(decision.together)]).toEqual([[1], [2, 3], [2, 3]]);
    expect(decision.behind[0]?.reason).toContain("went on without it");
  });

  it("so does one whose view a former life of another has outlived", () => {
    const decision = decide([lived(1, 4), answer(2, { seen: lineageOf(5) })], basis, timeoutMs);
    expect(nodeidsOf(decision.behind)).toEqual([1]);
  });

  it("members of one view that saw different packets do not go on together: those with more votes do", () => {
    const decision = decide([lived(1, 5, { packets: 9 }), lived(2, 5, { packets: 8 }), lived(3, 5, { packets: 8 })], basis, timeoutMs);
    expect([nodeidsOf(decision.behind), nodeidsOf(decision.together)]).toEqual([[1], [2, 3]]);
    const others = decide(
      [lived(1, 5, { packets: 8, digest: 1 }), lived(2, 5, { packets: 8 }), lived(3, 5, { packets: 8 })],
      basis,
      timeoutMs,
    );
    expect(nodeidsOf(others.behind)).toEqual([1]);
  });

  it("of two with as many votes the one that saw more goes on", () => {
    const decision = decide([lived(1, 5, { packets: 8 }), lived(2, 5, { packets: 9 })], basis, timeoutMs);
    expect(nodeidsOf(decision.behind)).toEqual([1]);
  });

  it("a member that another does not reach goes, where a quorum goes on without it", () => {
    const decision = decide([lived(1, 5), lived(2, 5), lived(3, 5, { cutOff: [1] })], basis, timeoutMs);
    expect([nodeidsOf(decision.members), nodeidsOf(decision.behind), decision.waiting]).toEqual([[1, 2], [3], []]);
  });

  it("without quorum it keeps what it has, and a new one waits", () => {
    const alone = decide([lived(1, 5), lived(3, 5, { cutOff: [1] })], basis, timeoutMs);
    expect([nodeidsOf(alone.members), nodeidsOf(alone.behind), alone.waiting]).toEqual([[1], [], [3]]);
    const joining = decide([lived(1, 5), lived(2, 5), answer(3, { cutOff: [2] })], basis, timeoutMs);
    expect([nodeidsOf(joining.members), joining.waiting]).toEqual([[1, 2], [3]]);
  });

  it("votequorum's no at one member is a no, and it is said", () => {
    const decision = decide([answer(1), answer(2, { quorate: false }), answer(3)], basis, timeoutMs);
    expect([decision.quorum.quorate, decision.objection]).toEqual([false, "votequorum of node 2 says that its ring is not quorate"]);
  });

  it("its yes is not enough: dlmds with more than half of the votes must be there", () => {
    expect(decide([answer(1)], basis, timeoutMs).quorum).toMatchObject({ quorate: false, votes: 1, needed: 2 });
  });

  it("nobody serves with another version of cluster.yaml", () => {
    const decision = decide([answer(1), answer(2, { configVersion: 2 })], basis, timeoutMs);
    expect([decision.quorum.quorate, decision.objection]).toEqual([false, "node 2 has another version of cluster.yaml"]);
  });

  it("service waits for leases of nodes outside, counted from the last ack of any member (C4)", () => {
    const ackedAgo = (nodeid: number, ms: number): Partial<Answer> => ({ ackedAgo: [{ nodeid, ms }] });
    const states = [answer(1, ackedAgo(3, 500)), answer(2, ackedAgo(3, 100))];
    expect(decide(states, basis, timeoutMs).waitMs).toBe(0.8 * timeoutMs - 100);
    expect(decide([answer(1, ackedAgo(2, 0)), answer(2, ackedAgo(1, 0))], basis, timeoutMs).waitMs).toBe(0);
  });
});

// --------------------------------------------------------------------------------------- one engine, by hand

const ring = { nodeid: 1, seq: 8 };
const seats = [1, 2, 3].map((nodeid) => ({ nodeid, pid: 100 + nodeid }));

class Bench {
  nowMs = 1000;
  readonly sent: GroupMessage[] = [];
  readonly events: EngineEvent[] = [];
  readonly views: View[] = [];
  readonly protests: string[] = [];
  readonly logs: string[] = [];
  readonly persists: number[] = [];
  evicted: string | null = null;
  readonly engine: CorosyncEngine;

  constructor() {
    const boot = { nodeid: 1, incarnation: incarnationOf(1), configVersion: 1, nodes, timeoutMs, promisedEpoch: 5, seed: 1, nowMs: 1000 };
    this.engine = new CorosyncEngine(
      { ...boot, connections: false },
      { pid: 101 },
      {
        beat: () => {},
        persist: (epoch) => void this.persists.push(epoch),
        multicast: (data) => void this.sent.push(decodeGroupMessage(data)),
        stop: () => {},
        install: (view) => void this.views.push(view),
        event: (event) => void this.events.push(event),
        evicted: (reason) => {
          this.evicted = reason;
        },
        mayLeave: () => undefined,
        left: () => {},
        log: (_, message) => void this.logs.push(message),
        protest: (_, message) => void this.protests.push(message),
      },
    );
  }

  step(run: () => void, ms = 1): this {
    this.nowMs += ms;
    this.engine.begin(this.nowMs);
    run();
    this.engine.end();
    return this;
  }
  event(event: CorosyncEvent): this {
    return this.step(() => this.engine.receive(event));
  }
  says(nodeid: number, message: GroupMessage): this {
    return this.event({ kind: "message", from: { nodeid, pid: 100 + nodeid }, data: encodeGroupMessage(message) });
  }
  /** In small steps: a longer one counts as having stood still. */
  wait(ms: number): this {
    for (let left = ms; left > 0; left -= 50) this.step(() => this.engine.tick(), Math.min(50, left));
    return this;
  }
  joined(quorate = true): this {
    return this.event({ kind: "seats", seats }).event({ kind: "ring", ring }).event({ kind: "quorum", ring, quorate });
  }
  last<K extends GroupMessage["kind"]>(kind: K): Extract<GroupMessage, { kind: K }> | undefined {
    return this.sent.findLast((message): message is Extract<GroupMessage, { kind: K }> => message.kind === kind);
  }
  /** All three have stated; node 2 said the highest epoch. */
  stated(): this {
    this.joined().wait(600);
    const own = this.last("state") as StateMessage;
    // It heard nobody; that is not what is tried here.
    this.says(1, { ...own, cutOff: [] });
    for (const nodeid of [2, 3])
      this.says(nodeid, { ...own, incarnation: incarnationOf(nodeid), epoch: own.epoch + 30 - nodeid, cutOff: [] });
    return this;
  }
  installed(): this {
    this.stated().step(() => this.engine.persisted(this.persists.at(-1) as number));
    const ready = this.last("ready") as GroupMessage;
    for (const nodeid of [1, 2, 3]) this.says(nodeid, ready);
    return this;
  }
}

describe("one dlmd and its corosync", () => {
  it("states nothing before votequorum has spoken of the same ring", () => {
    const bench = new Bench().event({ kind: "seats", seats }).event({ kind: "ring", ring });
    bench.event({ kind: "quorum", ring: { nodeid: 1, seq: 4 }, quorate: true }).wait(600);
    expect(bench.sent).toEqual([]);
    bench.event({ kind: "quorum", ring, quorate: true });
    expect(bench.last("state")).toMatchObject({ tag: { ring, seats, count: 0 }, epoch: 6, quorate: true });
  });

  it("waits half a time-out to hear the others, then says who is cut off", () => {
    const bench = new Bench().joined().wait(450);
    expect(bench.sent).toEqual([]);
    bench.wait(100);
    expect(bench.last("state")?.cutOff).toEqual([2, 3]);
  });

  it("is ready when the epoch is on disk, and installs when all members are: no other view can have that epoch or a lower one (H4)", () => {
    const bench = new Bench().stated();
    expect([bench.persists, bench.last("ready"), bench.engine.stable]).toEqual([[34], undefined, false]);
    bench.step(() => bench.engine.persisted(34));
    const ready = bench.last("ready") as GroupMessage;
    expect(ready).toEqual({ kind: "ready", view: { epoch: 34, proposer: 2, incarnation: incarnationOf(2) } });
    bench.says(1, ready).says(3, ready);
    expect(bench.views).toEqual([]);
    bench.says(2, ready);
    expect(bench.views.map(({ id }) => id.epoch)).toEqual([34]);
  });

  it("a ring in the midst of it: what was stated counts no more, and the next epoch is higher", () => {
    const bench = new Bench().stated();
    const next = { nodeid: 1, seq: 12 };
    bench.event({ kind: "ring", ring: next }).event({ kind: "quorum", ring: next, quorate: true }).wait(600);
    expect(bench.last("state")).toMatchObject({ tag: { ring: next }, epoch: 35 });
    bench.step(() => bench.engine.persisted(34));
    expect(bench.last("ready")).toBeUndefined();
  });

  it("a packet of another view is dropped; one that is missing makes a new view", () => {
    const bench = new Bench().installed();
    const view = bench.views[0]?.id as ViewId;
    const packet = { kind: "packet", view, n: 1, body: new Uint8Array(0) } as const;
    bench.says(2, { ...packet, view: viewOf(3), n: 4 });
    expect([bench.protests, bench.engine.broken]).toEqual([[], false]);
    bench.says(2, packet).says(2, { ...packet, n: 3 });
    expect([bench.protests, bench.engine.broken]).toEqual([["packet 3 after 1"], true]);
    expect(bench.last("again")).toMatchObject({ without: [], why: "packets of node 2 are missing" });
  });

  it("orders nothing before it has the view on disk, a lease, and waited for nodes outside", () => {
    const bench = new Bench().installed();
    bench.step(() => bench.engine.command({ kind: "join", group: "g", clientId: 1 }));
    expect([bench.engine.stable, bench.engine.leaseEndMs, bench.last("packet")]).toEqual([false, Number.NEGATIVE_INFINITY, undefined]);
  });

  it("corosync goes: this life is over, with words", () => {
    const bench = new Bench().installed().event({ kind: "lost", reason: "cpg_dispatch(3) of corosync failed: CS_ERR_LIBRARY" });
    expect(bench.evicted).toBe("cpg_dispatch(3) of corosync failed: CS_ERR_LIBRARY: what this node had in the cluster is void");
    const sent = bench.sent.length;
    bench.wait(2000).event({ kind: "seats", seats });
    expect(bench.sent.length).toBe(sent);
  });

  it("garbage in the group is dropped, and its sender is named", () => {
    const bench = new Bench().joined();
    const from = { nodeid: 2, pid: 102 };
    bench.event({ kind: "message", from, data: new Uint8Array([1, 2, 3, 4]) });
    bench.event({ kind: "message", from, data: encodeGroupMessage({ kind: "leave", incarnation: incarnationOf(2) }).subarray(0, 7) });
    expect(bench.protests).toHaveLength(2);
    expect(bench.protests[0]).toContain("wrong magic");
    // A process that is not in the group, as it left before: nothing of it counts.
    bench.event({ kind: "message", from: { nodeid: 2, pid: 999 }, data: new Uint8Array(0) });
    expect(bench.protests).toHaveLength(2);
  });

  it("messages with a reason or a list that is too long are dropped", () => {
    const bench = new Bench().joined();
    const again = { kind: "again", tag: { ring, seats: [], count: 0 }, without: [], why: "" } as const;
    const from = { nodeid: 2, pid: 102 };
    bench.event({ kind: "message", from, data: encodeGroupMessage({ ...again, why: "y".repeat(201) }) });
    const data = encodeGroupMessage(again);
    // Magic, version and type, ring: then the number of processes.
    data[4 + 12] = 63;
    bench.event({ kind: "message", from, data });
    expect(bench.protests.map((words) => words.slice(0, 60))).toEqual([
      expect.stringContaining("message of the group dropped"),
      expect.stringContaining("63 processes"),
    ]);
  });

  it("looks at its members every twentieth of a time-out, and at none before a view has lasted a quarter", () => {
    const bench = new Bench().installed();
    const { nowMs } = bench;
    let seq = 0;
    const hear = (): void => {
      const heard = [{ nodeid: 1, incarnation: incarnationOf(1), seq: 0, tcpUp: true }];
      const state = {
        promisedEpoch: 0,
        lineage: noView,
        configVersion: 1,
        running: false,
        stopped: false,
        broken: false,
        stored: true,
        leaving: false,
      };
      const beat = { kind: "heartbeat", from: 2, incarnation: incarnationOf(2), seq: ++seq, view: noView, ...state } as const;
      const message = { ...beat, progress: seq, padding: 0, heard };
      bench.step(() => bench.engine.heartbeat({ message, heardMs: bench.nowMs, ackedMs: Number.NEGATIVE_INFINITY }));
    };
    for (hear(); bench.last("again") === undefined && bench.nowMs < nowMs + 1000; hear()) {
      bench.wait(10);
      expect(bench.engine.nextDeadline() - bench.nowMs).toBeLessThanOrEqual(0.05 * timeoutMs);
    }
    expect(bench.last("again")?.without).toEqual([{ nodeid: 3, pid: 103 }]);
    expect(bench.nowMs - nowMs).toBeGreaterThanOrEqual(0.25 * timeoutMs);
    expect(bench.nowMs - nowMs).toBeLessThan(0.4 * timeoutMs);
  });

  it("two dlmds of one node: no view, and it says why", () => {
    const bench = new Bench();
    bench.event({ kind: "seats", seats: [...seats, { nodeid: 2, pid: 7 }] }).event({ kind: "ring", ring });
    bench.event({ kind: "quorum", ring, quorate: true }).wait(600);
    const own = bench.last("state") as StateMessage;
    bench.says(1, own);
    for (const nodeid of [2, 3]) bench.says(nodeid, { ...own, incarnation: incarnationOf(nodeid), cutOff: [] });
    bench.wait(2000);
    expect([bench.persists, bench.last("again")]).toEqual([[], undefined]);
    expect(bench.logs).toContain("two dlmds of one node are in the group: no view before one of them ends");
  });

  it("a dlmd of a node that cluster.yaml does not have is not waited for", () => {
    const bench = new Bench().event({ kind: "seats", seats: [...seats, { nodeid: 9, pid: 1 }] });
    bench.event({ kind: "ring", ring }).event({ kind: "quorum", ring, quorate: true }).wait(600);
    expect(bench.last("state")?.tag.seats).toEqual(seats);
    expect(bench.logs).toContain("a dlmd of a node that is not in cluster.yaml is in the group of this cluster");
  });

  it("says once in a round that it wants another", () => {
    const bench = new Bench().installed();
    const asked = (): number => bench.sent.filter(({ kind }) => kind === "again").length;
    bench.step(() => bench.engine.rebuildView("a test"));
    bench.step(() => bench.engine.rebuildView("a test"));
    expect([asked(), bench.engine.broken]).toEqual([1, true]);
    bench.says(1, bench.last("again") as GroupMessage);
    expect(bench.events.at(-1)).toEqual({ kind: "blocked" });
  });

  it("is told to go, by those who go on", () => {
    const bench = new Bench().installed();
    const tag = { ring, seats, count: 0 };
    bench.says(2, { kind: "again", tag: { ...tag, count: 4 }, without: [{ nodeid: 1, pid: 101 }], why: "late" });
    expect(bench.evicted).toBeNull();
    bench.says(2, { kind: "again", tag, without: [{ nodeid: 1, pid: 101 }], why: "it says nothing" });
    expect(bench.evicted).toBe("node 2 leaves this node out: it says nothing");
  });
});

// ------------------------------------------------------------------------------------ several, over a simulated corosync

const together = (sim: CpgSim, ...nodeids: number[]): boolean =>
  nodeids.every((nodeid) => {
    const view = sim.node(nodeid).views.at(-1);
    return view?.quorum.quorate === true && view.members.map((member) => member.nodeid).join() === nodeids.join();
  });

function cluster(): CpgSim {
  const sim = new CpgSim(3);
  for (const node of sim.all) node.start();
  expect(sim.runUntil(() => together(sim, 1, 2, 3))).toBe(true);
  return sim;
}

describe("several dlmds", () => {
  it("one that hangs is left out after a time-out, though CPG never reports it", () => {
    const sim = cluster();
    sim.node(3).hangs = true;
    const from = sim.nowMs;
    expect(sim.runUntil(() => together(sim, 1, 2), 4 * timeoutMs)).toBe(true);
    expect(sim.nowMs - from).toBeGreaterThanOrEqual(timeoutMs);
    sim.node(3).hangs = false;
    expect(sim.runUntil(() => together(sim, 1, 2, 3))).toBe(true);
    expect(sim.node(3).ends.join()).toContain("leaves this node out");
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

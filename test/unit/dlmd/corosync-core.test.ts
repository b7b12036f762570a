/** The rules of the engine over corosync (dlmd/engine/corosync/README.md), each where it decides. */
import { describe, expect, it } from "vitest";
import type { NodeConfig } from "../../../dlmd/config/votes.ts";
import type { CorosyncEvent } from "../../../dlmd/engine/corosync/corosync-api.ts";
import { CorosyncEngine } from "../../../dlmd/engine/corosync/corosync-core.ts";
import { decodeGroupMessage, encodeGroupMessage, type GroupMessage, type StateMessage } from "../../../dlmd/engine/corosync/message.ts";
import type { EngineEvent, View } from "../../../dlmd/engine/engine.ts";
import { noView, type ViewId } from "../../../dlmd/wire/view-id.ts";
import { timeoutMs } from "../../compliance/cpg-sim.ts";

const incarnationOf = (nodeid: number): string => `00000000000000a${nodeid}`;
const nodes: NodeConfig[] = [1, 2, 3].map((nodeid) => ({ nodeid, name: `node${nodeid}`, address: `10.0.0.${nodeid}`, votes: 1 }));
const viewOf = (epoch: number): ViewId => ({ epoch, proposer: 1, incarnation: incarnationOf(1) });
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
  /** What its beater was told and has not yet answered; it does so at once, where the test does not hold it. */
  readonly unanswered: number[] = [];
  holdsAnswers = false;
  readonly engine: CorosyncEngine;

  constructor() {
    const boot = { nodeid: 1, incarnation: incarnationOf(1), configVersion: 1, nodes, timeoutMs, promisedEpoch: 5, seed: 1, nowMs: 1000 };
    this.engine = new CorosyncEngine(
      { ...boot, connections: false },
      { pid: 101 },
      {
        beat: (content) => void (content?.stopped === true && this.unanswered.push(content.stops)),
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
    return this.holdsAnswers ? this : this.answer();
  }
  answer(): this {
    for (const stops of this.unanswered.splice(0)) {
      this.engine.begin(this.nowMs);
      this.engine.acksStopped(stops);
      this.engine.end();
    }
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

  it("states nothing before its heartbeats have said what they acknowledged by themselves, and states that (C4)", () => {
    const bench = new Bench().installed();
    const sentBefore = bench.sent.length;
    bench.holdsAnswers = true;
    bench.event({ kind: "seats", seats: seats.slice(0, 2) }).event({ kind: "ring", ring: { nodeid: 1, seq: 12 } });
    bench.event({ kind: "quorum", ring: { nodeid: 1, seq: 12 }, quorate: true }).wait(600);
    expect(bench.sent.slice(sentBefore)).toEqual([]);
    const state = { promisedEpoch: 34, lineage: noView, configVersion: 1, running: true, stopped: false };
    const says = { ...state, broken: false, stored: true, leaving: false, progress: 1, padding: 0, heard: [] };
    const message = { kind: "heartbeat", from: 3, incarnation: incarnationOf(3), seq: 1, view: noView, ...says } as const;
    bench.step(() => bench.engine.heartbeat({ message, heardMs: bench.nowMs - 100, ackedMs: Number.NEGATIVE_INFINITY }));
    expect(bench.sent.slice(sentBefore)).toEqual([]);
    bench.answer();
    const ackedAgo = new Map(bench.last("state")?.ackedAgo.map(({ nodeid, ms }) => [nodeid, ms]));
    expect(ackedAgo.get(3)).toBe(100);
  });

  it("what its heartbeats said of a view before is no answer for the one that it leaves now (C4)", () => {
    const bench = new Bench().installed();
    bench.says(2, { kind: "again", tag: { ring, seats, count: 0 }, without: [], why: "a test" }).wait(600);
    const own = bench.last("state") as StateMessage;
    for (const nodeid of [1, 2, 3])
      bench.says(nodeid, { ...own, incarnation: incarnationOf(nodeid), epoch: own.epoch + 3 - nodeid, cutOff: [] });
    bench.step(() => bench.engine.persisted(bench.persists.at(-1) as number));
    for (const nodeid of [1, 2, 3]) bench.says(nodeid, bench.last("ready") as GroupMessage);
    expect(bench.views).toHaveLength(2);
    bench.holdsAnswers = true;
    bench.says(2, { kind: "again", tag: { ring, seats, count: 1 }, without: [], why: "a test" });
    bench.step(() => bench.engine.acksStopped(1)).wait(600);
    expect(bench.last("state")?.tag.count).toBe(1);
    bench.answer();
    expect(bench.last("state")?.tag.count).toBe(2);
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

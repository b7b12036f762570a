/**
 * The lease over corosync where a main thread is busy (hazard C4): its heartbeats go on and acknowledge, and it hears of that later than of what
 * corosync said. koffi's callbacks come before the messages of a port.
 */
import { expect, it } from "vitest";
import type { CorosyncEvent } from "../../../dlmd/engine/corosync/corosync-api.ts";
import { CorosyncEngine } from "../../../dlmd/engine/corosync/corosync-core.ts";
import type { Seat } from "../../../dlmd/engine/corosync/message.ts";
import type { View } from "../../../dlmd/engine/engine.ts";
import { Heartbeater } from "../../../dlmd/membership/heartbeater.ts";

const timeoutMs = 1000;
const turnMs = 5;
const nodes = [2, 1].map((votes, at) => ({ nodeid: at + 1, name: `n${at + 1}`, address: "", votes }));

class Node {
  /** Its main thread. Its heartbeats go on. */
  isBusy = false;
  /** Busy with many steps in one turn of its loop, and not with one that stands still. */
  inSmallSteps = false;
  /** Its corosync says nothing. */
  isMute = false;
  nowMs = 1000;
  stops = 0;
  readonly inbox: CorosyncEvent[] = [];
  readonly port: (() => void)[] = [];
  readonly persists: number[] = [];
  readonly views: View[] = [];
  readonly beater: Heartbeater;
  readonly engine: CorosyncEngine;
  readonly seat: Seat;

  constructor(nodeid: number, say: (from: Node, data: Uint8Array) => void) {
    const self = { nodeid, incarnation: `00000000000000a${nodeid}` };
    this.seat = { nodeid, pid: 100 + nodeid };
    this.beater = new Heartbeater(self, timeoutMs, this.nowMs);
    const boot = { ...self, configVersion: 1, nodes, timeoutMs, connections: false, promisedEpoch: 0, seed: 1, nowMs: this.nowMs };
    this.engine = new CorosyncEngine(boot, this.seat, {
      beat: (content, soon) => {
        this.beater.tell(content, soon);
        this.stops = content?.stops ?? this.stops;
        if (content?.stopped === true) this.port.push(() => this.engine.acksStopped(content.stops));
      },
      persist: (epoch) => void this.persists.push(epoch),
      multicast: (data) => say(this, data),
      stop: () => undefined,
      install: (view) => void this.views.push(view),
      event: () => undefined,
      mayLeave: () => undefined,
      left: () => undefined,
      log: () => undefined,
      protest: (_, message) => expect.unreachable(message),
      evicted: (reason) => expect.unreachable(reason),
    });
  }

  #step(run: () => void): void {
    this.engine.begin(this.nowMs);
    run();
    this.engine.end();
  }

  turn(): void {
    if (this.isBusy && this.inSmallSteps && this.nowMs % 100 === 0) this.#step(() => this.engine.tick());
    if (this.isBusy) return;
    for (const event of this.inbox.splice(0)) this.#step(() => this.engine.receive(event));
    for (const run of this.port.splice(0)) this.#step(run);
    for (const epoch of this.persists.splice(0)) this.#step(() => this.engine.persisted(epoch));
    this.#step(() => this.engine.tick());
  }

  /** In a view that is quorate, at this moment. */
  get serves(): boolean {
    const view = this.views.at(-1);
    return view !== undefined && view.quorum.quorate && this.nowMs >= view.serveFromMs && this.engine.mayOrder();
  }
}

class Pair {
  readonly stays: Node;
  readonly cutOff: Node;
  #together = true;

  constructor() {
    const say = (from: Node, data: Uint8Array): void => {
      for (const node of this.#together ? this.#all : [from]) if (!node.isMute) node.inbox.push({ kind: "message", from: from.seat, data });
    };
    this.stays = new Node(1, say);
    this.cutOff = new Node(2, say);
    this.ring(this.#all, 8);
  }

  get #all(): Node[] {
    return [this.stays, this.cutOff];
  }

  ring(members: readonly Node[], seq: number): void {
    for (const { inbox } of members) {
      const ring = { nodeid: 1, seq };
      inbox.push(
        { kind: "seats", seats: members.map(({ seat }) => seat) },
        { kind: "ring", ring },
        { kind: "quorum", ring, quorate: true },
      );
    }
  }

  part(): void {
    this.#together = false;
    this.cutOff.isMute = true;
  }

  /** For how long the one served while the other had a lease in a view without it. */
  run(ms: number): number {
    let overlapMs = 0;
    for (let left = ms; left > 0; left -= turnMs) {
      for (const node of this.#all) node.nowMs += turnMs;
      for (const [node, other] of [this.#all, this.#all.toReversed()] as [Node, Node][]) {
        const message = node.beater.beat(node.nowMs, node.engine.progress, node.stops);
        const beat = message === null ? null : other.beater.receive(message, other.nowMs);
        if (beat !== null) other.port.push(() => other.engine.heartbeat(beat));
      }
      for (const node of this.#all) node.turn();
      const isAlone = this.stays.views.at(-1)?.members.length === 1;
      if (isAlone && this.stays.serves && this.cutOff.beater.leaseEndMs > this.cutOff.nowMs) overlapMs += turnMs;
    }
    return overlapMs;
  }
}

it.each([
  { busyMs: 400, inSmallSteps: false },
  { busyMs: 480, inSmallSteps: false },
  { busyMs: 600, inSmallSteps: true },
  { busyMs: 950, inSmallSteps: true },
])(
  "node 1 is busy for $busyMs ms while the ring goes on without node 2, small steps: $inSmallSteps; it waits for that lease",
  ({ busyMs, inSmallSteps }) => {
    const pair = new Pair();
    const { stays } = pair;
    pair.run(4 * timeoutMs);
    expect(stays.views.at(-1)?.members).toHaveLength(2);
    pair.part();
    Object.assign(stays, { isBusy: true, inSmallSteps });
    let overlapMs = pair.run(busyMs / 2);
    pair.ring([stays], 12);
    overlapMs += pair.run(busyMs / 2);
    stays.isBusy = false;
    overlapMs += pair.run(2 * timeoutMs);
    expect([stays.views.at(-1)?.members.length, stays.serves, overlapMs]).toEqual([1, true, 0]);
  },
);

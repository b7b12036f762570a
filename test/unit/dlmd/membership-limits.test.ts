/** How long membership waits before it proposes a view: the clock, the disk and the other nodes are the test's. */
import { describe, expect, it } from "vitest";
import { Membership } from "../../../dlmd/membership/membership.ts";
import type { Datagram, Heartbeat } from "../../../dlmd/wire/datagram.ts";
import { noLineage, noView, type ViewId } from "../../../dlmd/wire/view-id.ts";

const self = { nodeid: 1, incarnation: "00000000000000a1" };
const incarnationOf = (nodeid: number): string => `00000000000000a${nodeid}`;
const tickMs = 10;

/** Node 1, with a time-out of 1000 ms; the others do and say what the test wants. */
class Lone {
  nowMs = 0;
  readonly membership: Membership;
  readonly proposals: { at: number; why: string }[] = [];
  /** Says what that node does with a datagram. */
  answers: (to: number, message: Datagram) => void = () => {};
  view: ViewId = noView;
  #seq = 0;
  #done: (() => void)[] = [];

  constructor(nodes: number) {
    const order = { started: null, received: 0, held: new Uint8Array(0) };
    this.membership = new Membership(
      {
        ...self,
        configVersion: 1,
        nodes: Array.from({ length: nodes }, (_, at) => ({ nodeid: at + 1, name: `node${at + 1}`, address: "", votes: 1 })),
        timeoutMs: 1000,
        promisedEpoch: 0,
        seed: 1,
        nowMs: 0,
      },
      {
        datagram: (to, message) => void (typeof to === "number" && this.answers(to, message)),
        beat: () => {},
        persist: (epoch) => void this.#done.push(() => this.membership.persisted(epoch, this.nowMs)),
        stop: () => {},
        install: (view) => void (this.view = view.id),
        orderState: () => order,
        flush: ({ view }) =>
          this.#done.push(() => this.membership.flushed(view, { together: false, synced: false, lasts: [] }, this.nowMs)),
        evicted: (reason) => expect.unreachable(reason),
        mayLeave: () => undefined,
        left: () => {},
        log: (_, message, { why }) => void (message === "proposing a view" && this.proposals.push({ at: this.nowMs, why: String(why) })),
      },
    );
  }

  pass(ms: number, each: () => void = () => {}): void {
    for (const until = this.nowMs + ms; this.nowMs < until; ) {
      this.nowMs += tickMs;
      each();
      this.membership.tick(this.nowMs);
      while (this.#done.length > 0) for (const done of this.#done.splice(0)) done();
    }
  }

  /** A heartbeat of that node, which hears and is connected to all of these. */
  heard(from: number, view: ViewId, others: readonly number[]): void {
    const message: Heartbeat = {
      kind: "heartbeat",
      from,
      incarnation: incarnationOf(from),
      seq: ++this.#seq,
      view,
      promisedEpoch: view.epoch,
      lineage: view,
      configVersion: 1,
      running: false,
      stopped: false,
      broken: false,
      stored: true,
      leaving: false,
      progress: this.#seq,
      padding: 0,
      heard: others.map((nodeid) => ({ nodeid, incarnation: incarnationOf(nodeid), seq: 1, tcpUp: true })),
    };
    this.membership.heartbeat({ message, heardMs: this.nowMs, ackedMs: this.nowMs }, this.nowMs);
  }

  /** In the next turn. */
  comes(message: Extract<Datagram, { kind: "propose" }>): void {
    this.#done.push(() => this.membership.receive(message, this.nowMs));
  }

  /** Node 2 answers proposals from now on. */
  withNode2(): void {
    const from = { from: 2, incarnation: incarnationOf(2) };
    const order = { started: null, received: 0, held: new Uint8Array(0) };
    this.membership.linkUp(2, from.incarnation);
    this.answers = (_, message) => {
      const { membership } = this;
      if (message.kind === "propose") {
        const state = {
          kind: "state",
          ...from,
          view: message.view,
          configVersion: 1,
          lineage: noView,
          seen: noLineage,
          counting: noLineage,
          agreed: true,
          ackedAgo: [],
          order,
        };
        this.#done.push(() => membership.receive(state as Extract<Datagram, { kind: "state" }>, this.nowMs));
      } else if (message.kind === "flush") {
        const { view } = message;
        const flushed = { kind: "flushed", ...from, view, together: false, synced: false, lasts: [], agrees: true } as const;
        this.#done.push(() => membership.receive(flushed, this.nowMs));
      }
    };
  }
}

describe("a view is proposed", () => {
  it("with a node that joins a tenth of the time-out later, so that others may come along", () => {
    const lone = new Lone(4);
    lone.pass(500);
    expect(lone.view.epoch).toBe(1);
    lone.proposals.length = 0;
    lone.membership.linkUp(2, incarnationOf(2));
    const at = lone.nowMs;
    lone.pass(300, () => lone.heard(2, noView, [1]));
    expect(lone.proposals[0]?.why).toBe("nodes join");
    const waitedMs = (lone.proposals[0]?.at ?? 0) - at;
    expect(waitedMs).toBeGreaterThanOrEqual(100);
    expect(waitedMs).toBeLessThanOrEqual(200);
  });

  it("with all who leave it unanswered, while a member makes another one each time: they may have promised that", () => {
    const asked = (collides: boolean): Record<number, number> => {
      const lone = new Lone(3);
      for (const nodeid of [2, 3]) lone.membership.linkUp(nodeid, incarnationOf(nodeid));
      const epochs: Record<number, Set<number>> = { 2: new Set(), 3: new Set() };
      lone.answers = (to, message) => {
        if (message.kind !== "propose") return;
        epochs[to]?.add(message.view.epoch);
        const from = { from: 2, incarnation: incarnationOf(2) };
        const view: ViewId = { epoch: message.view.epoch, proposer: 2, incarnation: from.incarnation };
        if (collides && to === 2) lone.comes({ kind: "propose", ...from, view, members: message.members });
      };
      lone.pass(2500, () => {
        lone.heard(2, noView, [1, 3]);
        lone.heard(3, noView, [1, 2]);
      });
      return Object.fromEntries(Object.entries(epochs).map(([nodeid, seen]) => [nodeid, seen.size]));
    };
    // Left out after two, for two time-outs.
    expect(asked(false)).toEqual({ 2: 2, 3: 2 });
    const again = asked(true);
    expect([again[2] ?? 0, again[3] ?? 0].every((times) => times > 2)).toBe(true);
  });

  it("when a member has been in another view for more than half of the time-out", () => {
    const lone = new Lone(2);
    lone.pass(500);
    lone.withNode2();
    lone.pass(100, () => lone.heard(2, lone.membership.view?.members.length === 2 ? lone.view : noView, [1]));
    const both = lone.membership.view;
    expect(both?.members.map(({ nodeid }) => nodeid)).toEqual([1, 2]);
    lone.proposals.length = 0;
    // It says that it never was in it.
    lone.pass(1000, () => lone.heard(2, noView, [1]));
    expect(lone.proposals[0]?.why).toBe("node 2 is astray");
    const waitedMs = (lone.proposals[0]?.at ?? 0) - (both?.installedMs ?? 0);
    expect(waitedMs).toBeGreaterThan(500);
    expect(waitedMs).toBeLessThanOrEqual(600);
  });

  it("three tenths of the time-out after this process stood still, and not before: it was not heard", () => {
    const waited = (standsStill: boolean): number => {
      const lone = new Lone(2);
      lone.pass(500);
      lone.proposals.length = 0;
      lone.membership.linkUp(2, incarnationOf(2));
      const at = lone.nowMs;
      if (standsStill) lone.membership.stoodStill(5000, at);
      lone.pass(600, () => lone.heard(2, noView, [1]));
      expect(lone.proposals[0]?.why).toBe("nodes join");
      return (lone.proposals[0]?.at ?? 0) - at;
    };
    expect(waited(false)).toBeLessThanOrEqual(60);
    expect(waited(true)).toBeGreaterThanOrEqual(300);
    expect(waited(true)).toBeLessThanOrEqual(360);
  });
});

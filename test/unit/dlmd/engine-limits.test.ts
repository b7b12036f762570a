/** Timers and limits of the ordered channel and of the heartbeats, each with the clock of the test. */
import { describe, expect, it } from "vitest";
import type { Message } from "../../../dlmd/engine/builtin/chunk.ts";
import { Groups } from "../../../dlmd/engine/builtin/groups.ts";
import { Ordering } from "../../../dlmd/engine/builtin/ordering.ts";
import { queueLimitBytes, Sender } from "../../../dlmd/engine/builtin/sender.ts";
import { Sequencer } from "../../../dlmd/engine/builtin/sequencer.ts";
import type { EngineEvent } from "../../../dlmd/engine/engine.ts";
import { type BeatContent, Heartbeater } from "../../../dlmd/membership/heartbeater.ts";
import { type PacketHolder, planFlush } from "../../../dlmd/membership/flush-plan.ts";
import type { Datagram } from "../../../dlmd/wire/datagram.ts";
import { orderWindow, type Range, type StartedView } from "../../../dlmd/wire/order-datagram.ts";
import { type Member, noView, type ViewId } from "../../../dlmd/wire/view-id.ts";

const memberOf = (nodeid: number): Member => ({ nodeid, incarnation: `00000000000000a${nodeid}` });
const members = [1, 2, 3].map(memberOf);
const id = { epoch: 7, proposer: 1, incarnation: memberOf(1).incarnation };
const quorum = { votes: 3, expected: 3, needed: 2, quorate: true, rule: "votes", configVersion: 1, electorate: null } as const;
const view: StartedView = { id, members, quorum, start: { previous: noView, cut: 0, together: [], lasts: [] } };
const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);
const message = (): Message => ({ kind: "data", group: utf8("g"), clientId: 1, data: new Uint8Array(10) });

/** A member of a view whose other members are the test; node 1 is the sequencer. */
class Channel {
  nowMs = 0;
  readonly sent: { at: number; to: number | readonly number[]; kind: Datagram["kind"] }[] = [];
  readonly asked: Range[] = [];
  readonly protests: string[] = [];
  readonly flushed: ViewId[] = [];
  readonly ordering: Ordering;

  constructor(nodeid: number) {
    this.ordering = new Ordering(memberOf(nodeid), 1e6, {
      datagram: (to, message) => {
        this.sent.push({ at: this.nowMs, to, kind: message.kind });
        if (message.kind === "nack") this.asked.push(...message.ranges);
      },
      deliver: () => {},
      entered: () => null,
      mayOrder: () => true,
      synced: () => true,
      flushed: (view) => void this.flushed.push(view),
      protest: (from, message) => void this.protests.push(`${from}: ${message}`),
      stuck: () => {},
      lost: () => {},
    });
    this.ordering.install(view, 0);
  }

  /** Packet `seq` of node 3, from the sequencer. */
  ordered(seq: number): void {
    const head = { kind: "ordered", from: 1, incarnation: memberOf(1).incarnation, view: id } as const;
    this.ordering.receive({ ...head, seq, origin: 3, n: seq, stable: 0, body: new Uint8Array(0) }, this.nowMs);
  }

  advance(ms: number): void {
    this.nowMs = ms;
    this.ordering.advance(ms);
  }

  /** Goes from deadline to deadline; when datagrams of that kind left. */
  timesOf(kind: Datagram["kind"], count: number): number[] {
    for (let steps = 0; steps < 100; steps++) {
      const times = this.sent.filter((datagram) => datagram.kind === kind).map(({ at }) => at);
      if (times.length >= count) return times;
      this.advance(this.ordering.deadline());
    }
    throw new Error(`no ${count} datagrams "${kind}" in 100 steps`);
  }
}

describe("the ordered channel", () => {
  it("asks for a gap after 2 ms, then after pauses that double up to 64 ms", () => {
    const channel = new Channel(2);
    channel.ordered(2);
    channel.advance(0);
    expect(channel.timesOf("nack", 8)).toEqual([2, 6, 14, 30, 62, 126, 190, 254]);
  });

  it("the sequencer names a packet that this channel cannot have: what is asked for ends at two windows", () => {
    const channel = new Channel(2);
    const status = { kind: "order-status", from: 1, incarnation: memberOf(1).incarnation, view: id, received: 0, stable: 0 } as const;
    channel.ordering.receive({ ...status, highest: 2 ** 52 }, 0);
    expect(channel.timesOf("nack", 1)).toEqual([2]);
    expect(channel.asked).toEqual([{ from: 1, to: 2 * orderWindow }]);
  });

  it("a flush up to a packet that this channel cannot have is no flush; up to a window it is", () => {
    const flush = (cut: number): Channel => {
      const channel = new Channel(2);
      channel.ordered(1);
      channel.ordering.stop();
      const next = { ...id, epoch: 8 };
      const sources = [{ nodeid: 1, from: 2, to: 3 }];
      const head = { kind: "flush", from: 1, incarnation: memberOf(1).incarnation, view: next } as const;
      const counted = { configVersion: 1, open: false, electorate: null };
      channel.ordering.flush({ ...head, last: view, cut, sources, counted }, 0);
      return channel;
    };
    const [within, beyond, far] = [flush(1 + orderWindow), flush(2 + orderWindow), flush(2 ** 52)];
    expect([within, beyond, far].map(({ sent }) => sent.map(({ kind }) => kind))).toEqual([["nack"], [], []]);
    expect([within, beyond, far].map(({ flushed }) => flushed)).toEqual([[], [], []]);
    expect(far.protests).toEqual(["1: flush up to packet 4503599627370496, and this node has 1: no view has so many on their way"]);
    expect([within.protests, beyond.protests.length]).toEqual([[], 1]);
  });

  it("who states that it has more than others can lack, or less, is no part of the plan of a flush", () => {
    const state = (nodeid: number, received: number): PacketHolder => ({
      nodeid,
      order: { started: view, received, held: new Uint8Array(0) },
    });
    const good = [state(2, 1000), state(3, 1000 + orderWindow), state(4, 1001)];
    const plan = { cut: 1000 + orderWindow, sources: [{ nodeid: 3, from: 1001, to: 1000 + orderWindow }] };
    expect(planFlush(good)).toEqual(plan);
    for (const received of [2 ** 52, 1002 + orderWindow, 0]) expect(planFlush([state(1, received), ...good])).toEqual(plan);
    expect(planFlush([state(1, 2 ** 52), state(2, 7)])).toEqual({ cut: 7, sources: [] });
  });

  it("acknowledges 16 packets at once", () => {
    const channel = new Channel(2);
    for (let seq = 1; seq <= 15; seq++) channel.ordered(seq);
    channel.advance(0);
    expect(channel.sent).toEqual([]);
    channel.ordered(16);
    channel.advance(0);
    expect(channel.sent).toEqual([{ at: 0, to: 1, kind: "order-status" }]);
  });

  it("acknowledges fewer packets after 3 ms", () => {
    const channel = new Channel(2);
    channel.ordered(1);
    channel.advance(0);
    channel.advance(2.9);
    expect(channel.sent).toEqual([]);
    channel.advance(3);
    expect(channel.sent).toEqual([{ at: 3, to: 1, kind: "order-status" }]);
  });

  it("submits again after 10 ms, then after pauses that double up to 250 ms", () => {
    const channel = new Channel(2);
    channel.ordering.sender.push(message());
    channel.advance(0);
    expect(channel.timesOf("submit", 8)).toEqual([0, 10, 30, 70, 150, 310, 560, 810]);
  });

  it("as its sequencer says how far everybody can be after 10 ms, then after pauses that double up to 100 ms", () => {
    const channel = new Channel(1);
    channel.ordering.sender.push(message());
    channel.advance(0);
    expect(channel.sent).toEqual([{ at: 0, to: [2, 3], kind: "ordered" }]);
    expect(channel.timesOf("order-status", 6)).toEqual([10, 30, 70, 150, 250, 350]);
  });

  it("keeps 128 packets of a sender that wait for an earlier one, and drops those beyond", () => {
    const sequencer = new Sequencer([1, 2], () => 0, 0);
    sequencer.submit(2, 129, new Uint8Array(1), 0);
    expect(sequencer.gapDeadline(2)).toBe(Number.POSITIVE_INFINITY);
    sequencer.submit(2, 128, new Uint8Array(1), 0);
    expect(sequencer.gaps(2, 2)).toEqual([{ nodeid: 2, range: { from: 1, to: 127 } }]);
  });
});

describe("memberships of groups", () => {
  function groupsOf(nodeid: number): { groups: Groups; pushed: Message[]; events: EngineEvent[] } {
    const pushed: Message[] = [];
    const events: EngineEvent[] = [];
    const host = {
      push: (each: Message) => void pushed.push(each),
      full: () => false,
      event: (event: EngineEvent) => void events.push(event),
      protest: () => {},
    };
    const groups = new Groups(memberOf(nodeid), host);
    groups.enterView(view);
    return { groups, pushed, events };
  }
  const join = (clientId: number): { kind: "join"; group: string; clientId: number } => ({ kind: "join", group: `g${clientId}`, clientId });
  /** What that node sent arrives there, in its packets. */
  function deliver(groups: Groups, from: number, messages: readonly Message[]): void {
    const sender = new Sender();
    for (const each of messages) sender.push(each);
    for (let packet = sender.pack(); packet !== null; packet = sender.pack()) {
      groups.deliver(memberOf(from), packet.body);
      sender.came(packet.n);
    }
  }

  it("of one node: 4096 may be asked for, one more is refused", () => {
    const { groups, pushed } = groupsOf(1);
    for (let clientId = 1; clientId <= 4096; clientId++) expect(groups.command(join(clientId))).toBe("accepted");
    expect(groups.command(join(4097))).toBe("limit");
    expect(pushed).toHaveLength(4096);
    expect(groups.command({ kind: "leave", group: "g1", clientId: 1, reason: "left" })).toBe("accepted");
    expect(groups.command(join(4097))).toBe("accepted");
  });

  it("joins and leaves that wait for a quorum are bounded: a join has to wait then, and a leave never", () => {
    const sender = new Sender();
    const host = { push: (each: Message) => sender.push(each), full: () => sender.full, event: () => {}, protest: () => {} };
    const groups = new Groups(memberOf(1), host);
    const leave = (clientId: number) => ({ ...join(clientId), kind: "leave", reason: "left" }) as const;
    groups.command(join(1));
    let last = groups.command(join(2));
    for (let asked = 0; asked < 200_000 && last === "accepted"; asked++) {
      groups.command(leave(2));
      last = groups.command(join(2));
    }
    expect(last).toBe("full");
    // With the last leave, which nothing holds up.
    expect(sender.waiting).toBe(queueLimitBytes / 64 + 1);
    expect(groups.command(join(3))).toBe("full");
    expect(groups.command(leave(3))).toBe("not-joined");
    expect(groups.command(leave(1))).toBe("accepted");
  });

  it("of the cluster: 8192, one more is refused everywhere, and its node is told", () => {
    const { groups, pushed, events } = groupsOf(1);
    const joins = (first: number, count: number): Message[] =>
      Array.from({ length: count }, (_, at) => ({
        kind: "join",
        group: utf8(`g${first + at}`),
        clientId: first + at,
        data: new Uint8Array(0),
      }));
    deliver(groups, 2, joins(1, 4096));
    deliver(groups, 3, joins(5001, 4095));
    groups.command(join(1));
    groups.command(join(2));
    deliver(groups, 1, pushed);
    expect(groups.table().reduce((sum, group) => sum + group.members.length, 0)).toBe(8192);
    expect(events.map(({ kind }) => kind)).toEqual(["members", "join-refused"]);
    expect(events[1]).toEqual({ kind: "join-refused", group: "g2", clientId: 2 });
  });
});

it("each 16th heartbeat has the largest size, the first one too", () => {
  const beater = new Heartbeater(memberOf(1), 1000, 0);
  const content: BeatContent = {
    view: noView,
    promisedEpoch: 0,
    lineage: noView,
    configVersion: 1,
    running: false,
    stopped: false,
    broken: false,
    stored: true,
    leaving: false,
    stops: 0,
    lease: null,
    peers: [],
  };
  beater.tell(content, true);
  const padded: number[] = [];
  for (let beat = 1; beat <= 40; beat++) if ((beater.beat(beat * 100, beat)?.padding ?? 0) > 0) padded.push(beat);
  expect(padded).toEqual([1, 17, 33]);
});

/** The channel of a pair over broken connections: in order, nothing twice, nothing lost (hazards H3, H9). */
import { describe, expect, it } from "vitest";
import { Channel } from "../../../dlmd/transport/channel.ts";
import type { PeerMessage } from "../../../dlmd/wire/peer-message.ts";
import { noView } from "../../../dlmd/wire/view-id.ts";

/** Two channels; what is on the wire between them can be lost. */
function pair(limit = 1000) {
  const wires: [PeerMessage[], PeerMessage[]] = [[], []];
  const got: [number[], number[]] = [[], []];
  const lost: number[] = [];
  const ends = [0, 1].map(
    (me) => new Channel(me + 1, { transmit: (_, __, message) => void (wires[me] as PeerMessage[]).push(message) }, limit),
  ) as [Channel, Channel];
  const names = ["0000000000000001", "0000000000000002"] as const;
  const deliver = (to: 0 | 1, count = Number.POSITIVE_INFINITY): void => {
    for (const message of (wires[1 - to] as PeerMessage[]).splice(0, count)) {
      const arrival = ends[to].receive(message);
      if (arrival === "lost") lost.push(to);
      if (arrival === "message") got[to].push((message as { clientId: number }).clientId);
    }
  };
  const flow = (): void => {
    while (wires[0].length + wires[1].length > 0) {
      deliver(0);
      deliver(1);
    }
  };
  return {
    ends,
    got,
    lost,
    wires,
    deliver,
    flow,
    up() {
      ends[0].linkUp(names[1]);
      ends[1].linkUp(names[0]);
    },
    cut(nowMs = 0) {
      wires[0].length = 0;
      wires[1].length = 0;
      ends[0].linkDown(nowMs);
      ends[1].linkDown(nowMs);
    },
    send: (from: 0 | 1, clientId: number) =>
      ends[from].send(names[1 - from] as string, noView, { kind: "client-gone", lockspaces: [], clientId }),
    names,
  };
}

describe("the channel of a pair", () => {
  it("sends again what a broken connection lost, once and in order", () => {
    const p = pair();
    p.up();
    p.flow();
    for (let n = 1; n <= 6; n++) p.send(0, n);
    p.deliver(1, 2);
    p.cut();
    p.send(0, 7);
    expect(p.got[1]).toEqual([1, 2]);
    p.up();
    p.flow();
    p.send(0, 8);
    p.flow();
    expect(p.got[1]).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
    expect(p.lost).toEqual([]);
  });

  it("keeps what was sent before there was a connection, and until it is acknowledged", () => {
    const p = pair();
    p.send(0, 1);
    p.up();
    p.flow();
    expect(p.got[1]).toEqual([1]);
    expect(p.ends[0].unacked).toBe(1);
    p.ends[1].acknowledge();
    p.flow();
    expect(p.ends[0].unacked).toBe(0);
    p.ends[1].acknowledge();
    expect(p.wires[1]).toEqual([]);
  });

  it("breaks while it resumes: again from the beginning", () => {
    const p = pair();
    p.up();
    p.flow();
    for (let n = 1; n <= 4; n++) p.send(0, n);
    p.cut();
    p.up();
    p.deliver(0);
    p.deliver(1, 4);
    p.cut();
    p.up();
    p.flow();
    expect(p.got[1]).toEqual([1, 2, 3, 4]);
    expect(p.lost).toEqual([]);
  });

  it("acknowledges by itself when much has come", () => {
    const p = pair(10_000);
    p.up();
    p.flow();
    for (let n = 1; n <= 2000; n++) p.send(0, n);
    p.flow();
    expect(p.ends[0].unacked).toBeLessThan(600);
  });

  it("gives up at its limit, and then the peer knows that something is missing (hazard H9)", () => {
    const p = pair(5);
    p.up();
    p.flow();
    p.cut();
    for (let n = 1; n <= 6; n++) p.send(0, n);
    expect([p.ends[0].overflowed, p.ends[0].unacked]).toEqual([true, 0]);
    p.ends[0].reopen();
    p.send(0, 7);
    p.up();
    p.flow();
    expect([p.got[1], p.lost]).toEqual([[7], [1]]);
  });

  it("says so on a connection that stays, too", () => {
    const p = pair(5);
    p.up();
    p.flow();
    for (let n = 1; n <= 8; n++) p.send(0, n);
    p.deliver(1, 3);
    p.ends[0].reopen();
    p.send(0, 9);
    p.flow();
    expect([p.got[1], p.lost]).toEqual([[1, 2, 3, 4, 5, 6, 9], [1]]);
  });

  it.each([true, false])(
    "both sides count alike after that: nothing is sent twice, nothing stays unacknowledged (connection up: %s)",
    (isUp) => {
      const p = pair(5);
      p.up();
      p.flow();
      if (!isUp) p.cut();
      for (let n = 1; n <= 8; n++) p.send(0, n);
      expect(p.ends[0].overflowed).toBe(true);
      p.ends[0].reopen();
      p.send(0, 9);
      if (!isUp) p.up();
      p.flow();
      expect(p.lost).toEqual([1]);
      p.ends[1].acknowledge();
      p.flow();
      expect(p.ends[0].unacked).toBe(0);
      const before = [...p.got[1]];
      p.cut();
      p.send(0, 10);
      p.up();
      p.flow();
      p.ends[1].acknowledge();
      p.flow();
      expect([p.got[1], p.lost, p.ends[0].unacked]).toEqual([[...before, 10], [1], 0]);
    },
  );

  it("a new life of the peer begins at nothing", () => {
    const p = pair();
    p.up();
    p.flow();
    p.send(0, 1);
    p.cut();
    const reborn = new Channel(2, { transmit: (_, __, message) => void p.wires[1].push(message) }, 10);
    p.ends[1] = reborn;
    p.ends[0].linkUp("00000000000000ff");
    reborn.linkUp(p.names[0]);
    p.flow();
    expect([p.got[1], p.lost]).toEqual([[], []]);
  });
});

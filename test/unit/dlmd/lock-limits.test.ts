/** Limits of the lock service's tables and messages: at them all is well, and beyond them only what the limit says happens. */
import { describe, expect, it } from "vitest";
import { newClient } from "../../../dlmd/clients/client.ts";
import { DeadlineQueue } from "../../../dlmd/lock/deadline-queue.ts";
import { type Lkb, newLkb, newResource } from "../../../dlmd/lock/lkb.ts";
import { masterOf } from "../../../dlmd/lock/mastering.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { SearchWork } from "../../../dlmd/plock/search-work.ts";
import { DeadlockSearch } from "../../../dlmd/plock/search.ts";
import type { Waiter } from "../../../dlmd/plock/table.ts";
import { Channel } from "../../../dlmd/transport/channel.ts";
import { PeerChannels } from "../../../dlmd/transport/peer-channels.ts";
import type { PeerMessage } from "../../../dlmd/wire/peer-message.ts";
import type { PlockEdge } from "../../../dlmd/wire/peer-plock.ts";
import { noView } from "../../../dlmd/wire/view-id.ts";
import { loneLocks } from "./lone-locks.ts";

const members = [1, 2].map((nodeid) => ({ nodeid, incarnation: `00000000000000a${nodeid}` }));
const mark: PeerMessage = { kind: "mark" };

/** Names of resources whose home is node 1. */
function* homesHere(): Generator<string, never> {
  for (let i = 0; ; i++) if (masterOf(members, "v", `r${i}`) === 1) yield `r${i}`;
}

function managerOf(): ReturnType<typeof loneLocks> & { sent: PeerMessage[] } {
  const sent: PeerMessage[] = [];
  const port = {
    toPeer: (_: number, message: PeerMessage) => void sent.push(message),
    toClient: () => {},
    protest: (_: number, message: string) => expect.unreachable(message),
  };
  const lone = loneLocks(port);
  lone.manager.tables.members = members;
  return { ...lone, sent };
}

const request = (lkbId: number, resource: string): PeerMessage => ({
  kind: "request",
  lkbId,
  clientId: lkbId,
  lockspace: "v",
  resource,
  mode: Mode.PR,
  flags: 0,
  transaction: lkbId,
});

describe("locks", () => {
  it("a probe goes on to 64 blockers, the next one to others", () => {
    const { manager, time, sent } = managerOf();
    const resource = homesHere().next().value;
    for (let lkbId = 1; lkbId <= 100; lkbId++) manager.receive(2, request(lkbId, resource));
    const client = newClient(1);
    manager.holder.open(client, 1, "v");
    manager.holder.request(client, { kind: "lock", lockspaceId: 1, lockId: 1, resource, mode: Mode.EX, flags: 0, transaction: 7 });
    const blockers = (nowMs: number): number[] => {
      sent.length = 0;
      time.nowMs = nowMs;
      manager.deadlocks.sweep(nowMs);
      return sent.flatMap((message) => (message.kind === "probe" ? message.path.map(({ blocker }) => blocker.lkbId) : []));
    };
    expect(blockers(999)).toEqual([]);
    const first = blockers(2000);
    expect([first.length, new Set(first).size]).toEqual([64, 64]);
    const all = new Set(first);
    for (let nowMs = 3000; nowMs < 60_000; nowMs += 1000) for (const lkbId of blockers(nowMs)) all.add(lkbId);
    expect(all.size).toBe(100);
  });

  it("after 1024 dropped deadlines they are swept out", () => {
    const queue = new DeadlineQueue();
    const resource = newResource({ name: "v", resources: new Map(), opens: 0, blocked: false }, "r", 1);
    const locks: Lkb[] = Array.from({ length: 1025 }, (_, id) => newLkb(resource, 1, id, null, 1, id));
    for (const lkb of locks) {
      lkb.deadlineMs = 100;
      queue.add(lkb);
      lkb.deadlineMs = 0;
    }
    for (let drop = 1; drop <= 1024; drop++) queue.drop();
    // What is in the queue still would count again with its old deadline.
    const [one] = locks as [Lkb];
    one.deadlineMs = 100;
    expect(queue.nextMs).toBe(100);
    one.deadlineMs = 0;
    queue.drop();
    one.deadlineMs = 100;
    expect(queue.nextMs).toBe(Number.POSITIVE_INFINITY);
  });
});

it("256 searches for deadlocks of file locks run at one time; the next one begins when one has ended", () => {
  const asked: number[] = [];
  const waiterOf = (at: number): Waiter => ({ requestId: at, holder: { key: `1/${at}/posix/1` } }) as unknown as Waiter;
  const edgeOf = (waiter: Waiter): PlockEdge => ({
    masterNodeid: 1,
    request: { nodeid: 1, requestId: waiter.requestId },
    from: { nodeid: 1, clientId: waiter.requestId, kind: "posix", owner: 1n },
    to: { nodeid: 2, clientId: 1, kind: "posix", owner: 1n },
    soft: false,
    stamp: 1,
  });
  const work = new SearchWork();
  const search = new DeadlockSearch({
    nodeid: 1,
    later: (piece) => work.add(piece),
    send: (_, message) => void (message.kind === "plock-probe" && asked.push(message.searchId)),
    judge: () => 1,
    edges: (waiter) => [edgeOf(waiter)],
    waits: () => true,
  });
  for (let at = 1; at <= 257; at++) search.start(waiterOf(at));
  expect(asked).toHaveLength(256);
  work.add(() => search.reply(2, { kind: "plock-probe-reply", searchId: asked[0] as number, waits: [], edges: [] }));
  work.take(Number.POSITIVE_INFINITY);
  expect(asked).toHaveLength(257);
});

describe("messages between two nodes", () => {
  it("512 received are acknowledged at once, fewer with the next tick", () => {
    const sent: PeerMessage[] = [];
    const channel = new Channel(2, { transmit: (_, __, message) => void sent.push(message) }, 10);
    channel.linkUp("00000000000000a2");
    sent.length = 0;
    for (let message = 1; message <= 511; message++) channel.receive(mark);
    expect(sent).toEqual([]);
    channel.receive(mark);
    expect(sent).toEqual([{ kind: "ack", received: 512 }]);
    channel.receive(mark);
    channel.acknowledge();
    expect(sent).toEqual([
      { kind: "ack", received: 512 },
      { kind: "ack", received: 513 },
    ]);
  });

  it("four times what is saved for a client may be unacknowledged; beyond, it is given up and a new view is asked for", () => {
    const broken: string[] = [];
    const channels = new PeerChannels(
      { nowMs: 0 },
      { transmit() {}, pausePeer() {}, crowding() {}, broken: (why) => void broken.push(why) },
      25,
    );
    const [, peer] = members;
    for (let message = 1; message <= 100; message++) channels.send(peer as (typeof members)[0], noView, mark);
    expect([broken, channels.get(2).channel.unacked]).toEqual([[], 100]);
    channels.send(peer as (typeof members)[0], noView, mark);
    expect([broken, channels.get(2).channel.unacked]).toEqual([["more than 100 messages to node 2 unacknowledged"], 0]);
  });
});

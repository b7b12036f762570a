/** Questions about a process of another node: each ends with one answer, within its time. */
import { expect, it } from "vitest";
import type { LifeAnswer, LifeSeen, ProcessLife } from "../../../dlmd/wire/peer-life.ts";
import { LIFE_ASK_LIMIT_MS, LifeAsks } from "../../../dlmd/query/life-asks.ts";
import { newClient } from "../../../dlmd/clients/client.ts";
import type { PeerMessage } from "../../../dlmd/wire/peer-message.ts";
import type { Member } from "../../../dlmd/wire/view-id.ts";

const member = (nodeid: number, incarnation = "00000000000000aa"): Member => ({ nodeid, incarnation });
const seen: LifeSeen = { bootId: "b1", machineId: "m1", process: "gone", device: "free" };
const wanted = { pid: 7, startTime: 8, device: "/dev/sdb" };

function bench(): {
  members: Member[];
  sent: [number, PeerMessage][];
  looks: [number, Omit<ProcessLife, "nodeid">][];
  answers: LifeAnswer[];
  asks: LifeAsks;
  ask(nodeid: number, nowMs?: number): void;
} {
  const state = {
    members: [member(1), member(2), member(3)],
    sent: [] as [number, PeerMessage][],
    looks: [] as [number, Omit<ProcessLife, "nodeid">][],
    answers: [] as LifeAnswer[],
  };
  const asks = new LifeAsks(1, {
    members: () => state.members,
    look: (lookId, life) => void state.looks.push([lookId, life]),
    send: (nodeid, message) => void state.sent.push([nodeid, message]),
    toClient: (_, { data }) => void state.answers.push(data as LifeAnswer),
  });
  return Object.assign(state, {
    asks,
    ask: (nodeid: number, nowMs = 0) => asks.ask(newClient(5), { queryId: 9, nodeid, ...wanted }, nowMs),
  });
}

it("asks the node of the process, and takes its answer alone, once", () => {
  const b = bench();
  b.ask(2);
  expect(b.sent).toEqual([[2, { kind: "ask-life", askId: 1, ...wanted }]]);
  b.asks.receive(3, { kind: "life-seen", askId: 1, ...seen });
  b.asks.receive(2, { kind: "life-seen", askId: 2, ...seen });
  expect(b.answers).toEqual([]);
  b.asks.receive(2, { kind: "life-seen", askId: 1, ...seen });
  b.asks.receive(2, { kind: "life-seen", askId: 1, ...seen, process: "alive" });
  expect(b.answers).toEqual([{ seen }]);
  expect(b.asks.deadlineMs).toBe(Number.POSITIVE_INFINITY);
});

it("looks by itself when the process is of this node", () => {
  const b = bench();
  b.ask(1);
  expect(b.sent).toEqual([]);
  expect(b.looks).toEqual([[2, wanted]]);
  b.asks.seen(2, seen);
  b.asks.seen(2, seen);
  expect(b.answers).toEqual([{ seen }]);
});

it("says why there is no answer: a node that is not there, leaves, or is silent", () => {
  const b = bench();
  b.ask(4);
  expect(b.answers.pop()).toEqual({ missing: "node 4 is not in the view" });
  b.ask(2);
  b.members = [member(1), member(2, "00000000000000bb")];
  b.asks.viewChanged();
  expect(b.answers.pop()).toEqual({ missing: "node 2 left the view before it answered" });
  b.ask(2, 100);
  expect(b.asks.deadlineMs).toBe(100 + LIFE_ASK_LIMIT_MS);
  b.asks.expire(99 + LIFE_ASK_LIMIT_MS);
  expect(b.answers).toEqual([]);
  b.asks.expire(100 + LIFE_ASK_LIMIT_MS);
  expect(b.answers.pop()).toEqual({ missing: "dlmd of node 2 did not answer within 2 s" });
});

it("asks 64 questions at once", () => {
  const b = bench();
  for (let i = 0; i < 64; i++) b.ask(2);
  expect(b.answers).toEqual([]);
  b.ask(2);
  expect(b.answers).toEqual([{ missing: "this node has 64 such questions under way" }]);
  expect(b.sent).toHaveLength(64);
});

it("answers members, 64 at once, and nobody else", () => {
  const b = bench();
  const question = { kind: "ask-life", askId: 9, ...wanted } as const;
  b.asks.receive(4, question);
  expect(b.looks).toEqual([]);
  b.asks.receive(2, question);
  b.asks.seen(1, seen);
  expect(b.sent).toEqual([[2, { kind: "life-seen", askId: 9, ...seen }]]);
  for (let i = 0; i <= 64; i++) b.asks.receive(2, question);
  expect(b.looks).toHaveLength(65);
  // The answer is for the life that asked.
  b.members = [member(1), member(2, "00000000000000bb")];
  b.asks.seen(2, seen);
  expect(b.sent).toHaveLength(1);
});

/** Questions about locks to all nodes: each ends, with what was said and with why others said nothing. */
import { expect, it } from "vitest";
import { type InspectAnswer, inspectLimitMs, Inspections, type NodeInspected } from "../../../dlmd/inspect.ts";
import { newClient } from "../../../dlmd/lock/client.ts";
import type { PeerMessage } from "../../../dlmd/wire/peer-message.ts";
import type { Member } from "../../../dlmd/wire/view-id.ts";

const here: NodeInspected = { serving: true, state: "running", resources: [], files: [], clients: [], truncated: false };
const member = (nodeid: number, incarnation = "00000000000000aa"): Member => ({ nodeid, incarnation });
const bytes = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value));

function bench(): {
  members: Member[];
  sent: [number, PeerMessage][];
  answers: InspectAnswer["nodes"][];
  protests: string[];
  inspections: Inspections;
  ask(nowMs?: number): void;
} {
  const made = { members: [member(1), member(2), member(3)], sent: [] as [number, PeerMessage][], answers: [] as InspectAnswer["nodes"][] };
  const protests: string[] = [];
  const state = { ...made, protests };
  const inspections = new Inspections(1, {
    members: () => state.members,
    configured: () => [1, 2, 3, 4],
    viewInfo: () => ({ viewId: "1.1.aa", quorate: true, members: [1, 2, 3], quorumReason: "", running: true }),
    here: () => here,
    send: (nodeid, message) => void state.sent.push([nodeid, message]),
    toClient: (_, { data }) => void state.answers.push((data as InspectAnswer).nodes),
    protest: (_, message) => void protests.push(message),
  });
  const request = { kind: "inspect", queryId: 7, lockspace: "", resource: "job", nodeid: 0, waitingMs: null } as const;
  return Object.assign(state, { inspections, ask: (nowMs = 0) => inspections.ask(newClient(5), request, nowMs) });
}

it("asks every member and answers when all have", () => {
  const b = bench();
  b.ask();
  expect(b.sent).toMatchObject([
    [2, { kind: "inspect", askId: 1, resource: "job" }],
    [3, { kind: "inspect", askId: 1, resource: "job" }],
  ]);
  b.inspections.receive(3, { kind: "inspected", askId: 1, json: bytes(here) });
  // Not asked, asked before: no part of it.
  b.inspections.receive(4, { kind: "inspected", askId: 1, json: bytes(here) });
  b.inspections.receive(3, { kind: "inspected", askId: 1, json: bytes({ ...here, state: "again" }) });
  expect(b.answers).toEqual([]);
  b.inspections.receive(2, { kind: "inspected", askId: 1, json: bytes(here) });
  expect(b.answers).toEqual([
    [
      { nodeid: 1, answer: here },
      { nodeid: 2, answer: here },
      { nodeid: 3, answer: here },
      { nodeid: 4, missing: "it is not in the view" },
    ],
  ]);
  expect(b.inspections.deadlineMs).toBe(Number.POSITIVE_INFINITY);
});

it("ends with a reason when a node leaves, restarts, is silent or says nonsense", () => {
  const b = bench();
  b.ask();
  b.members = [member(1), member(2, "00000000000000bb"), member(3)];
  b.inspections.viewChanged();
  expect(b.answers).toEqual([]);
  b.inspections.receive(3, { kind: "inspected", askId: 1, json: new TextEncoder().encode("{") });
  expect(b.answers[0]?.slice(1, 3)).toEqual([
    { nodeid: 2, missing: "it left the view before it answered" },
    { nodeid: 3, missing: "its answer cannot be read" },
  ]);
  expect(b.protests).toHaveLength(1);
  b.ask(100);
  expect(b.inspections.deadlineMs).toBe(100 + inspectLimitMs);
  b.inspections.expire(99 + inspectLimitMs);
  expect(b.answers).toHaveLength(1);
  b.inspections.expire(100 + inspectLimitMs);
  expect(b.answers[1]?.slice(1, 3)).toEqual([2, 3].map((nodeid) => ({ nodeid, missing: "it did not answer within 2 s" })));
});

it("has a limit of questions, and of bytes", () => {
  const b = bench();
  for (let i = 0; i < 64; i++) b.ask();
  b.ask();
  expect(b.answers[0]?.[0]).toEqual({ nodeid: 1, missing: "not asked: this node has 64 such questions under way" });
  b.inspections.receive(2, { kind: "inspected", askId: 1, json: bytes({ ...here, state: "x".repeat(2_000_000) }) });
  b.inspections.receive(3, { kind: "inspected", askId: 1, json: bytes({ ...here, state: "x".repeat(2_000_000) }) });
  expect(b.answers[1]?.[2]).toMatchObject({ nodeid: 3, missing: expect.stringContaining("too much for one answer") as string });
});

it("answers members, nobody else", () => {
  const b = bench();
  const question = { kind: "inspect", askId: 9, lockspace: "", resource: "", nodeid: 0, waitingMs: null, limit: 10 } as const;
  b.inspections.receive(4, question);
  expect(b.sent).toEqual([]);
  b.inspections.receive(2, question);
  expect(b.sent).toEqual([[2, { kind: "inspected", askId: 9, json: bytes(here) }]]);
});

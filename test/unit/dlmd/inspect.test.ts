/** Questions about locks to all nodes: each ends, with what was said and with why others said nothing. */
import { expect, it } from "vitest";
import { WireError } from "../../../dlmd/base/error.ts";
import { inspectLimitMs, Inspections } from "../../../dlmd/query/inspect.ts";
import { decodeInspected, type InspectAnswer, type NodeInspected } from "../../../dlmd/wire/inspect-answer.ts";
import { newClient } from "../../../dlmd/clients/client.ts";
import type { PeerMessage } from "../../../dlmd/wire/peer-message.ts";
import type { Member } from "../../../dlmd/wire/view-id.ts";

const here: NodeInspected = {
  serving: true,
  state: "running",
  resources: [],
  files: [],
  clients: [],
  processes: [],
  lockspaces: [],
  truncated: false,
};
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
    viewInfo: () => ({
      viewId: "1.1.aa",
      quorate: true,
      members: [1, 2, 3],
      incarnations: ["aa", "bb", "cc"],
      quorumReason: "",
      running: true,
    }),
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

const lock = {
  nodeid: 2,
  clientId: 7,
  lockId: null,
  granted: "PR",
  requested: null,
  waitingMs: null,
  orphan: false,
  asked: null,
  askedMs: null,
  mayKeep: false,
};
const range = { nodeid: 2, clientId: 7, kind: "posix", owner: "18446744073709551615", pid: 5, type: "write", start: "0", end: null };
const full = {
  ...here,
  resources: [
    {
      lockspace: "v",
      resource: "job",
      masterNodeid: 2,
      lvb: { bytes: 4, seq: 9, valid: true },
      grantQueue: [lock],
      convertQueue: [],
      waitQueue: [],
    },
  ],
  files: [
    {
      lockspace: "v",
      file: "f",
      masterNodeid: 2,
      held: [{ ...range, heldMs: 7 }],
      waiting: [{ ...range, waitingMs: 3, blocker: { nodeid: 2, clientId: 7, kind: "ofd", owner: "1", behind: false } }],
    },
  ],
  clients: [{ clientId: 7, pid: 5, program: "mount" }],
  processes: [{ pid: 5, program: "mount" }],
};

it("takes over what a peer says of locks, as far as it is known here", () => {
  expect(decodeInspected(bytes(full))).toEqual(full);
  expect(decodeInspected(bytes({ ...full, more: "of another version", clients: [{ ...full.clients[0], more: 1 }] }))).toEqual(full);
  // JSON.parse takes it, and JSON.stringify would end the dlmd that hands it on.
  const deep = `${JSON.stringify(here).slice(0, -1)},"deep":${"[".repeat(200_000)}${"]".repeat(200_000)}}`;
  expect(decodeInspected(new TextEncoder().encode(deep))).toEqual(here);
});

it.each([
  ["no position", { start: "0x" }, "a position in decimal expected at files[0].held[0].start"],
  ["a negative one", { start: "-1" }, "a position in decimal expected at files[0].held[0].start"],
  ["one without digits", { end: "" }, "a position in decimal expected at files[0].held[0].end"],
  ["one of 21 digits", { end: "1".repeat(21) }, "a position in decimal expected at files[0].held[0].end"],
  ["a number that is none", { heldMs: 4321 }, "a number expected at files[0].held[0].heldMs"],
])("refuses a file lock with %s", (_, change, expected) => {
  const answer = { ...full, files: [{ ...full.files[0], held: [{ ...range, heldMs: 7, ...change }] }] };
  // Infinity for JSON.parse, which JSON cannot say otherwise.
  const text = JSON.stringify(answer).replace("4321", "1e999");
  expect(() => decodeInspected(new TextEncoder().encode(text))).toThrow(new WireError(expected));
});

/** Every value of it, with something else in its place. */
function damaged(value: unknown, rebuild: (value: unknown) => unknown): unknown[] {
  const inside =
    typeof value === "object" && value !== null
      ? Object.entries(value).flatMap(([key, each]) =>
          damaged(each, (other) => rebuild(Array.isArray(value) ? value.with(Number(key), other) : { ...value, [key]: other })),
        )
      : [];
  return [rebuild(undefined), rebuild({}), rebuild(typeof value === "boolean" ? "none" : true), ...inside];
}

it("refuses every answer that has something else in one place, and ends no dlmd", () => {
  const answers = damaged(full, (value) => value);
  expect(answers.length).toBeGreaterThan(100);
  for (const answer of answers) expect(() => decodeInspected(bytes(answer ?? null))).toThrow(WireError);
  const b = bench();
  b.ask();
  b.inspections.receive(3, { kind: "inspected", askId: 1, json: bytes({ ...here, resources: [{}] }) });
  b.inspections.receive(2, { kind: "inspected", askId: 1, json: bytes(here) });
  expect(b.answers[0]?.[2]).toEqual({ nodeid: 3, missing: "its answer cannot be read" });
  expect(b.protests).toEqual(["answer about locks that cannot be read: text expected at resources[0].lockspace"]);
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

/** What programs of a node may leave behind, or send, while nothing can be done for them. */
import { describe, expect, it } from "vitest";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { NodeCore } from "../../../dlmd/node.ts";
import type { Effect } from "../../../dlmd/node-api.ts";
import type { ClientEvent, ClientRequest } from "../../../dlmd/wire/program.ts";
import { GONE_LIMIT_MS } from "../../../dlmd/clients/death-barrier.ts";
import { MAX_GROUP_BYTES, MAX_LEAVING_CLIENTS, MAX_SAVED_SHARE } from "../../../dlmd/clients/clients.ts";

/** One of two nodes, alone: without quorum, so nothing is served. */
function loneNode(savedRequestsPerClient = 8): NodeCore {
  const config = (nodeid: number) => ({ nodeid, name: `node${nodeid}`, address: "", votes: 1 });
  return new NodeCore({
    nodeid: 1,
    incarnation: "00000000000000a1",
    configVersion: 1,
    nodes: [config(1), config(2)],
    timeoutMs: 300,
    promisedEpoch: 0,
    seed: 1,
    nowMs: 0,
    limits: { savedRequestsPerClient },
  });
}

const events = (effects: readonly Effect[], clientId: number): readonly ClientEvent[] =>
  effects.flatMap((effect) => (effect.kind === "client-events" && effect.clientId === clientId ? effect.events : []));
const open: ClientRequest = { kind: "open", lockspaceId: 1, name: "space" };

it(`beyond ${MAX_LEAVING_CLIENTS} programs that ended and are not released no lockspace is opened`, () => {
  const node = loneNode();
  const start = (clientId: number): readonly ClientEvent[] => {
    node.step({ kind: "client-connected", clientId }, clientId);
    return events(node.step({ kind: "client-requests", clientId, requests: [open] }, clientId), clientId);
  };
  for (let clientId = 1; clientId <= MAX_LEAVING_CLIENTS; clientId++) {
    expect(start(clientId)).toMatchObject([{ kind: "opened", error: "" }]);
    node.step({ kind: "client-gone", clientId }, clientId);
  }
  const refused = start(MAX_LEAVING_CLIENTS + 1);
  expect(refused).toMatchObject([{ kind: "opened", error: expect.stringContaining("their locks are not released yet") as string }]);
});

it("hazard C12: a program whose heir waits for its end is read, whatever is saved; without an heir it is not", () => {
  const node = loneNode();
  const identity = { uid: 0, pid: 1, owner: "mine" };
  const ask = (clientId: number, ...requests: ClientRequest[]): Effect[] => node.step({ kind: "client-requests", clientId, requests }, 0);
  const fill = (): Effect[] =>
    ask(
      1,
      ...Array.from({ length: 9 }, (_, lockId) => ({ kind: "lock", lockspaceId: 1, lockId, resource: "r", mode: 0, flags: 0 }) as const),
    );
  node.step({ kind: "client-connected", clientId: 1, identity }, 0);
  ask(1, open, { kind: "keep-locks", requestId: 1, limitMs: 5000, held: false });
  expect(fill()).toContainEqual({ kind: "pause-client", clientId: 1 });
  node.step({ kind: "client-connected", clientId: 2, identity }, 0);
  const inherit = { kind: "inherit", requestId: 1, lockspace: "space", fromClientId: 0, skip: 0 } as const;
  expect(ask(2, inherit)).toContainEqual({ kind: "resume-client", clientId: 1 });
  expect(fill()).not.toContainEqual({ kind: "pause-client", clientId: 1 });
  // What was saved was never asked for, so nothing of it is outstanding.
  const ended = node.step({ kind: "client-gone", clientId: 1 }, 0);
  expect(events(ended, 2)).toEqual([{ kind: "inherited", requestId: 1, clients: [{ clientId: 1, locks: [] }], next: null }]);
});

it('a program that is read for its answer to "gone" alone, and sends something else without end, is ended', () => {
  const savedLimit = 8;
  const node = loneNode(savedLimit);
  node.step({ kind: "client-connected", clientId: 1 }, 0);
  node.step({ kind: "client-requests", clientId: 1, requests: [open] }, 0);
  const client = node.clients.all.get(1);
  node.deaths.ask(
    node.clients.all.values(),
    { gone: [{ nodeid: 2, incarnation: "00000000000000a2", clientId: null }], concerns: () => true, ofNode: true, done: () => {} },
    0,
  );
  const send = (lockId: number): Effect[] =>
    node.step(
      { kind: "client-requests", clientId: 1, requests: [{ kind: "lock", lockspaceId: 1, lockId, resource: "r", mode: 0, flags: 0 }] },
      1,
    );
  const most = MAX_SAVED_SHARE * savedLimit;
  const kinds = Array.from({ length: most }, (_, at) => send(at + 1)).flat();
  expect(kinds.filter(({ kind }) => kind === "pause-client" || kind === "end-client")).toEqual([]);
  expect(send(most + 1)).toContainEqual(expect.objectContaining({ kind: "end-client", clientId: 1 }));
  for (let at = 0; at < 100; at++) expect(send(most + 2 + at).filter(({ kind }) => kind === "end-client")).toEqual([]);
  expect(client?.saved).toHaveLength(most);
  // Its process waits for a disk. Requests of it are lost, so it is not served again, and is ended when it can be.
  expect(node.step({ kind: "client-spared", clientId: 1 }, 2).filter(({ kind }) => kind === "end-client")).toEqual([]);
  expect(client?.ending).toBe(true);
  const ends: number[] = [];
  // A longer pause would be a standstill, and not count.
  for (let nowMs = 20; nowMs < 40_000; nowMs += 20)
    if (node.step({ kind: "tick" }, nowMs).some(({ kind }) => kind === "end-client")) ends.push(nowMs);
  expect(ends).toHaveLength(1);
  expect(ends[0]).toBeGreaterThan(GONE_LIMIT_MS);
});

describe('a program that owes an answer to "gone", and sends to a group for which there is no room', () => {
  const start = (): { node: NodeCore; ask: (...requests: ClientRequest[]) => Effect[]; send: (requestId: number) => Effect[] } => {
    const node = loneNode();
    const ask = (...requests: ClientRequest[]): Effect[] => node.step({ kind: "client-requests", clientId: 1, requests }, 0);
    const data = new Uint8Array(60_000);
    node.step({ kind: "client-connected", clientId: 1 }, 0);
    ask(open, { kind: "group-join", requestId: 1, group: "g" });
    node.deaths.ask(
      node.clients.all.values(),
      { gone: [{ nodeid: 2, incarnation: "00000000000000a2", clientId: null }], concerns: () => true, ofNode: true, done: () => {} },
      0,
    );
    return { node, ask, send: (requestId) => ask({ kind: "group-send", requestId, group: "g", count: 1, data }) };
  };
  const full = (node: NodeCore): boolean => node.groups.waits(node.clients.all.get(1) as never);

  it("is read no more once it has answered", () => {
    const { node, ask, send } = start();
    for (let at = 2; !full(node); at += 1) send(at);
    expect(node.clients.all.get(1)?.paused).toBe(false);
    ask({ kind: "gone-ack", goneId: 1 });
    expect(node.clients.all.get(1)?.paused).toBe(true);
  });

  it(`is ended beyond ${MAX_GROUP_BYTES} bytes, and no more of it is kept`, () => {
    const { node, send } = start();
    const waiting = (): number => node.groups.bytesWaiting(node.clients.all.get(1) as never);
    let ended = 0;
    for (let at = 2; ended === 0; at += 1) {
      expect(waiting()).toBeLessThan(MAX_GROUP_BYTES + 100_000);
      ended += send(at).filter(({ kind }) => kind === "end-client").length;
    }
    const before = waiting();
    expect(before).toBeGreaterThanOrEqual(MAX_GROUP_BYTES);
    for (let at = 0; at < 100; at += 1) ended += send(100_000 + at).filter(({ kind }) => kind === "end-client").length;
    expect([waiting(), ended]).toEqual([before, 1]);
  });
});

it("H2: a request that runs out of time while nothing is served ends in the mode that was given up before it", () => {
  const node = loneNode();
  node.step({ kind: "client-connected", clientId: 1 }, 0);
  const quiet = { flags: 0, lvb: null, silent: true } as const;
  const timed = { flags: 0, timeoutMs: 100 } as const;
  const requests: ClientRequest[] = [
    open,
    { kind: "convert", lockId: 1, mode: Mode.PR, ...quiet },
    { kind: "convert", lockId: 1, mode: Mode.CR, ...quiet },
    { kind: "convert", lockId: 1, mode: Mode.EX, lvb: null, ...timed },
    { kind: "convert", lockId: 2, mode: Mode.PR, ...quiet },
    { kind: "unlock", lockId: 2, ...quiet },
    { kind: "lock", lockspaceId: 1, lockId: 2, resource: "r", mode: Mode.EX, ...timed },
  ];
  node.step({ kind: "client-requests", clientId: 1, requests }, 0);
  const ends: unknown[] = [];
  for (let nowMs = 20; nowMs <= 120; nowMs += 20) {
    for (const event of events(node.step({ kind: "tick" }, nowMs), 1))
      if (event.kind === "ast") ends.push([event.lockId, event.status, event.mode]);
  }
  expect(ends).toEqual([
    [1, "timeout", Mode.CR],
    [2, "timeout", Mode.NL],
  ]);
});

/** What a master makes of what homes name after its predecessor died, and when an edge between owners is the same as before. */
import { expect, it } from "vitest";
import { PlockMaster } from "../../../dlmd/plock/master.ts";
import { maxOffset } from "../../../dlmd/wire/plock-range.ts";
import { defaultPlockLimits } from "../../../dlmd/plock/service.ts";
import type { PlockEdge, PlockMessage } from "../../../dlmd/wire/peer-plock.ts";
import { LoneService, ofd } from "./lone-service.ts";

it("a request for less that the dead master had granted is granted, with what was unlocked after it", () => {
  const sent: [number, PlockMessage][] = [];
  const master = new PlockMaster(
    {
      nodeid: 9,
      nowMs: () => 0,
      send: (nodeid, message) => sent.push([nodeid, message]),
      protest: (_, message) => {
        throw new Error(message);
      },
      blocks: () => false,
      blocked: () => {},
    },
    defaultPlockLimits,
  );
  const file = { lockspace: "test", file: "f", clientId: 1, ownerKind: "posix", owner: 1n } as const;
  const claim = (from: number, type: "read" | "write", start: bigint, end: bigint): void =>
    master.claim(from, { kind: "plock-held", ...file, ranges: [{ type, start, end, pid: from, heldMs: 3000 }] });
  // Node 1 wrote 0-10, asked to read 5-15, was granted that, and unlocked 11-15; so 2 may read 5-6 and 3 write 12-13.
  claim(1, "write", 0n, 10n);
  claim(2, "read", 5n, 6n);
  claim(3, "write", 12n, 13n);
  const again = {
    kind: "plock-again",
    ...file,
    pid: 1,
    wait: false,
    entangled: true,
    begun: false,
    heldMs: null,
    first: false,
    waitedMs: 5,
    canceled: false,
  } as const;
  master.again(1, { ...again, requestId: 7, op: "lock", type: "read", start: 5n, end: 15n });
  master.again(1, { ...again, requestId: 8, op: "unlock", type: "read", start: 11n, end: 15n });
  for (const _ of master.settle());
  expect(sent).toEqual([7, 8].map((requestId) => [1, { kind: "plock-answer", requestId, status: "ok", conflict: null }]));
  const ranges = [...(master.files.get("test\0f")?.ranges.holders.values() ?? [])].flatMap((holder) =>
    holder.ranges.overlapping(0n, maxOffset).map((held) => `${holder.owner.nodeid} ${held.type} ${held.start}-${held.end}`),
  );
  expect(ranges).toEqual(["1 write 0-4", "1 read 5-10", "2 read 5-6", "3 write 12-13"]);
});

it("an edge that went and came again is another one", () => {
  const lone = new LoneService();
  for (const owner of [1, 2]) {
    lone.lock("f", ofd(owner), "read", 0n, 0n);
    lone.lock("f", ofd(owner), "read", 5n, 5n);
  }
  lone.lock("f", ofd(3), "write", 5n, 9n);
  const { master } = lone.service;
  const [waiter] = [...master.waiters()];
  const edges = waiter === undefined ? [] : master.edges(waiter);
  const there = (): boolean[] => edges.map((edge: PlockEdge) => master.stillThere(edge));
  expect(there()).toEqual([true, true]);
  lone.unlock("f", ofd(1), 5n, 5n);
  expect(there()).toEqual([false, true]);
  lone.lock("f", ofd(1), "read", 5n, 5n, false);
  expect(there()).toEqual([false, true]);
});

it("a request that goes first waits for holders only, and all who wait wait behind it (hazard F45)", () => {
  const lone = new LoneService();
  const answered = (id: number): boolean => lone.results.has(id);
  lone.lock("f", ofd(1), "write", 0n, 9n);
  const waits = lone.lock("f", ofd(2), "write", 0n, 9n);
  const first = lone.ask({
    ownerKind: "ofd",
    owner: 3n,
    pid: 3,
    file: "f",
    op: "lock",
    type: "write",
    start: 5n,
    end: 9n,
    wait: true,
    first: true,
  });
  lone.unlock("f", ofd(1), 0n, 9n);
  expect([answered(first), answered(waits)]).toEqual([true, false]);
  lone.unlock("f", ofd(3), 0n, 9n);
  expect(answered(waits)).toBe(true);
});

it("waits for what another client has for the same owner, also where both are readers; and for no other reader (hazard F45)", () => {
  const lone = new LoneService();
  const before = lone.connect(2);
  const read = { file: "f", op: "lock", ownerKind: "posix", owner: 7n, pid: 1, type: "read", start: 0n, end: 9n, wait: true } as const;
  lone.ask(read, before);
  lone.lock("f", { kind: "posix", owner: 8n }, "read", 0n, 9n);
  const first = lone.ask({ ...read, first: true });
  expect(lone.errno(first)).toBeNull();
  const more = lone.ask({ ...read, owner: 8n, start: 20n, end: 29n });
  expect(lone.errno(more)).toBe(0);
  lone.service.releaseClient(before);
  expect(lone.errno(first)).toBe(0);
});

it("so it is at the next master: it is asked again before all others, though it is younger (hazard F45)", () => {
  const sent: PlockMessage[] = [];
  const port = { nodeid: 9, nowMs: () => 0, protest: () => undefined, blocks: () => false, blocked: () => undefined };
  const master = new PlockMaster({ ...port, send: (_, message) => void sent.push(message) }, defaultPlockLimits);
  const what = { lockspace: "test", file: "f", clientId: 1, ownerKind: "posix", type: "write", start: 0n, end: 9n, pid: 1 } as const;
  const again = {
    kind: "plock-again",
    ...what,
    op: "lock",
    wait: true,
    entangled: false,
    begun: false,
    heldMs: null,
    canceled: false,
  } as const;
  master.again(1, { ...again, requestId: 1, owner: 1n, first: false, waitedMs: 5000 });
  master.again(2, { ...again, requestId: 2, owner: 2n, first: true, waitedMs: 10 });
  for (const _ of master.settle());
  expect(sent).toEqual([{ kind: "plock-answer", requestId: 2, status: "ok", conflict: null }]);
});

it("what an owner gave up before it asked to go first is given up before (hazard F45)", () => {
  const sent: PlockMessage[] = [];
  const port = { nodeid: 9, nowMs: () => 0, protest: () => undefined, blocks: () => false, blocked: () => undefined };
  const master = new PlockMaster({ ...port, send: (_, message) => void sent.push(message) }, defaultPlockLimits);
  const what = {
    lockspace: "test",
    file: "f",
    clientId: 1,
    ownerKind: "posix",
    owner: 1n,
    type: "write",
    start: 0n,
    end: 9n,
    pid: 1,
  } as const;
  const again = { kind: "plock-again", ...what, wait: true, entangled: false, begun: false, heldMs: null, canceled: false } as const;
  master.again(1, { ...again, requestId: 2, op: "lock", first: true, waitedMs: 50 });
  master.again(1, { ...again, requestId: 1, op: "unlock", first: false, waitedMs: 100 });
  for (const _ of master.settle());
  expect(sent.map((message) => (message.kind === "plock-answer" ? message.requestId : 0))).toEqual([1, 2]);
  expect(master.files.get("test\0f")?.ranges.size).toBe(1);
});

it("what was being taken back when its master died is not granted by the next one: its program may be dead", () => {
  const sent: PlockMessage[] = [];
  const port = { nodeid: 9, nowMs: () => 0, protest: () => undefined, blocks: () => false, blocked: () => undefined };
  const master = new PlockMaster({ ...port, send: (_, message) => void sent.push(message) }, defaultPlockLimits);
  const names = {
    lockspace: "test",
    file: "f",
    clientId: 1,
    ownerKind: "flock",
    owner: 9n,
    type: "write",
    start: 0n,
    end: 9n,
    pid: 1,
  } as const;
  const again = {
    kind: "plock-again",
    ...names,
    op: "lock",
    wait: true,
    entangled: false,
    begun: false,
    heldMs: null,
    first: false,
  } as const;
  master.again(2, { ...again, requestId: 5, waitedMs: 10, canceled: true });
  for (const _ of master.settle());
  expect(sent).toEqual([{ kind: "plock-answer", requestId: 5, status: "canceled", conflict: null }]);
  expect(master.files.get("test\0f")?.flock.size ?? 0).toBe(0);
});

it("two that go first and wait for each other are no deadlock: one of those who keep them gives all up (hazard F45)", () => {
  const lone = new LoneService();
  const ask = (client: typeof lone.client, file: string): number =>
    lone.ask(
      { file, op: "lock", ownerKind: "posix", owner: 7n, pid: 1, type: "write", start: 0n, end: 9n, wait: true, first: true },
      client,
    );
  const [one, other] = [lone.connect(2), lone.connect(3)];
  ask(one, "f");
  ask(other, "g");
  const waits = [ask(one, "g"), ask(other, "f")] as const;
  expect(waits.map((id) => lone.errno(id))).toEqual([null, null]);
  lone.service.releaseClient(other);
  expect(lone.errno(waits[0])).toBe(0);
});

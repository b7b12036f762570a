/** Requests that wait for their lockspace: their order, who passes, and how many one client may have there (dlmd/plock/gated.ts). */
import { expect, it } from "vitest";
import { GatedRequests } from "../../../dlmd/plock/gated.ts";
import { PlockMaster } from "../../../dlmd/plock/master.ts";
import { defaultPlockLimits } from "../../../dlmd/plock/service.ts";
import type { PlockAsk, PlockMessage } from "../../../dlmd/wire/peer-plock.ts";

function ask(requestId: number, change: Partial<PlockAsk> = {}): PlockAsk {
  const names = { requestId, lockspace: "a", file: "f", clientId: 1, ownerKind: "posix", owner: 1n } as const;
  return {
    ...names,
    op: "lock",
    wait: true,
    entangled: false,
    begun: false,
    heldMs: null,
    first: false,
    type: "read",
    start: 0n,
    end: 9n,
    pid: 1,
    ...change,
  };
}
const held = { type: "read", start: 0n, end: 9n, pid: 1 } as const;
const idsOf = (gated: GatedRequests, free: (lockspace: string) => boolean = () => true): string[] =>
  gated.release((lockspace) => !free(lockspace)).map(({ from, message }) => `${from}/${message.requestId}`);

it("those of a lockspace that is free again go on in the order in which they came; the rest stay", () => {
  const gated = new GatedRequests(10);
  for (const [from, requestId, lockspace] of [
    [2, 7, "a"],
    [1, 9, "b"],
    [1, 7, "a"],
    [2, 1, "a"],
  ] as const)
    expect(gated.take(from, ask(requestId, { lockspace }), 0)).toBe("waits");
  expect([gated.has(2, 7), gated.has(2, 9)]).toEqual([true, false]);
  expect(gated.cancel(2, 7)).toBe(true);
  expect(gated.cancel(2, 7)).toBe(false);
  expect(idsOf(gated, (lockspace) => lockspace === "a")).toEqual(["1/7", "2/1"]);
  expect([idsOf(gated), idsOf(gated)]).toEqual([["1/9"], []]);
});

it("an unlock passes, unless its owner has something here", () => {
  const gated = new GatedRequests(10);
  const unlock = (change: Partial<PlockAsk> = {}): string => gated.take(1, ask(99, { op: "unlock", ...change }), 0);
  expect(unlock()).toBe("passes");
  gated.take(1, ask(1), 0);
  for (const other of [{ owner: 2n }, { clientId: 2 }, { ownerKind: "ofd" }, { file: "g" }, { lockspace: "b" }] as const)
    expect(unlock(other)).toBe("passes");
  expect(gated.take(2, ask(99, { op: "unlock" }), 0)).toBe("passes");
  gated.cancel(1, 1);
  expect(unlock()).toBe("passes");
  gated.take(1, ask(1), 0);
  expect([unlock(), idsOf(gated)]).toEqual(["waits", ["1/1", "1/99"]]);
});

it("a client has as many locks and tests here as it may have locks; others have theirs", () => {
  const limit = defaultPlockLimits.fileLocksPerClient;
  const gated = new GatedRequests(limit);
  for (let requestId = 1; requestId <= limit; requestId++) gated.take(1, ask(requestId, { op: "test", file: `f${requestId % 7}` }), 0);
  expect(gated.take(1, ask(limit + 1), 0)).toBe("full");
  // An unlock would be lost, and what it unlocks held for ever.
  expect(gated.take(1, ask(limit + 3, { op: "unlock", file: "f1" }), 0)).toBe("waits");
  gated.cancel(1, limit + 3);
  expect([gated.take(1, ask(limit + 2, { clientId: 2 }), 0), gated.take(2, ask(1), 0)]).toEqual(["waits", "waits"]);
  // Each is found at once, however many there are.
  for (let requestId = limit; requestId > 0; requestId--) expect(gated.has(1, requestId) && gated.cancel(1, requestId)).toBe(true);
  expect(gated.take(1, ask(limit + 1), 0)).toBe("waits");
  gated.clear();
  expect(idsOf(gated)).toEqual([]);
});

it("an unlock is never refused: beyond twice as many requests its client's locks there end, and its unlocks pass", () => {
  const sent: PlockMessage[] = [];
  const port = {
    nodeid: 1,
    nowMs: () => 0,
    send: (_: number, message: PlockMessage) => sent.push(message),
    blocks: () => true,
    protest: (_: number, message: string) => expect.fail(message),
    blocked: () => {},
  };
  const limit = 50;
  const master = new PlockMaster(port, { fileLocksPerFile: limit, fileLocksPerClient: limit });
  master.claim(2, {
    kind: "plock-held",
    lockspace: "a",
    file: "f",
    clientId: 1,
    ownerKind: "posix",
    owner: 1n,
    ranges: [{ ...held, heldMs: 0 }],
  });
  const unlock = (requestId: number): void => master.request(2, ask(requestId, { op: "unlock", start: 2n, end: 3n }));
  master.request(2, ask(1, { type: "write" }));
  for (let requestId = 2; requestId <= 2 * limit; requestId++) unlock(requestId);
  expect(sent).toEqual([]);
  unlock(2 * limit + 1);
  const answers = sent.map((message) => (message.kind === "plock-answer" ? [message.requestId, message.status] : []));
  expect([answers.length, answers[0], answers[1], answers.at(-1)]).toEqual([2 * limit + 1, [1, "limit"], [2, "ok"], [2 * limit + 1, "ok"]]);
  const [owner] = [...(master.files.get("a\0f")?.ranges.holders.values() ?? [])];
  expect(owner?.ranges.overlapping(0n, 99n).map(({ start, end }) => [start, end])).toEqual([
    [0n, 1n],
    [4n, 9n],
  ]);
  unlock(1);
  expect(sent.at(-1)).toMatchObject({ requestId: 1, status: "ok" });
});

it("a lockspace comes free between two turns of a recovery: an unlock stays behind the lock of its owner", () => {
  const answered: number[] = [];
  let blocked = true;
  const port = {
    nodeid: 1,
    nowMs: () => 0,
    send: (_: number, message: PlockMessage) => void (message.kind === "plock-answer" && answered.push(message.requestId)),
    blocks: () => blocked,
    protest: (_: number, message: string) => expect.fail(message),
    blocked: () => {},
  };
  const master = new PlockMaster(port, defaultPlockLimits);
  const again = (requestId: number, change: Partial<PlockAsk>): void =>
    master.again(2, { ...ask(requestId, change), kind: "plock-again", waitedMs: 100 - requestId, canceled: false });
  again(1, {});
  again(2, { op: "unlock", wait: false });
  again(3, { op: "unlock", wait: false, owner: 2n });
  const settling = master.settle();
  settling.next();
  blocked = false;
  for (const _ of settling);
  expect(answered).toEqual([3]);
  // Later, but before the gates are reviewed.
  master.request(2, ask(4, { op: "test", wait: false }));
  master.unblock();
  expect([answered, master.files.size]).toEqual([[3, 1, 2, 4], 0]);
});

it("what goes first does so here, too, whoever came before (hazard F45)", () => {
  const gated = new GatedRequests(10);
  for (const [requestId, first] of [
    [1, false],
    [2, true],
    [3, false],
    [4, true],
  ] as const)
    gated.take(1, ask(requestId, { first, owner: BigInt(requestId) }), 0);
  expect(idsOf(gated)).toEqual(["1/2", "1/4", "1/1", "1/3"]);
});

it("but not before what its own owner asked for earlier on that file (hazard F45)", () => {
  const gated = new GatedRequests(10);
  gated.take(1, ask(1, { owner: 5n }), 0);
  gated.take(1, ask(2, { owner: 5n, first: true }), 0);
  gated.take(1, ask(3, { owner: 5n, first: true, file: "g" }), 0);
  gated.take(1, ask(4, { owner: 6n, first: true }), 0);
  expect(idsOf(gated)).toEqual(["1/3", "1/4", "1/1", "1/2"]);
});

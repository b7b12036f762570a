/** C12: what a program had is kept for its heir when its connection breaks: for whom, for how long, and what the heir finds. */
import { describe, expect, it } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import { MAX_INHERIT_ASKS, MAX_KEEP_MS, MAX_KEPT_CLIENTS } from "../../../dlmd/clients/kept-clients.ts";
import { ORPHAN, PERSISTENT, VALBLK } from "../../../dlmd/wire/flag.ts";
import { type HeirResult, type InheritedClient, MAX_INHERITED_ROWS } from "../../../dlmd/wire/local-heir.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import type { ClientIdentity } from "../../../dlmd/wire/program.ts";
import type { StatusAnswer } from "../../../dlmd/query/answer.ts";
import { type Bench, createBench } from "./bench-node.ts";

const { NL, PR, EX } = Mode;
const me = { uid: 1000, pid: 11, owner: "mine", program: "/usr/bin/mount" };
const limitMs = 10_000;
/** A time-out of one second: the limit is so much longer (base/program-time.ts). */
const slackMs = 300;

function keep(b: Bench, clientId: number, ms: number, held = false): HeirResult | undefined {
  b.request(clientId, { kind: "keep-locks", requestId: 1, limitMs: ms, held });
  return b.heard(clientId, "heir-result").at(-1)?.result;
}

/** Undefined: it waits. */
function inherited(b: Bench, clientId: number, lockspace = "space"): readonly InheritedClient[] | undefined {
  const before = b.heard(clientId, "inherited").length;
  b.request(clientId, { kind: "inherit", requestId: 2, lockspace, fromClientId: 0, skip: 0 });
  return b.heard(clientId, "inherited")[before]?.clients;
}

function endKept(b: Bench, clientId: number, kept: number): HeirResult | undefined {
  b.request(clientId, { kind: "end-kept", requestId: 3, clientId: kept });
  return b.heard(clientId, "heir-result").at(-1)?.result;
}

/** Lets time pass without a standstill: none of it is longer than a node may hear nothing. */
function pass(b: Bench, fromMs: number, toMs: number): void {
  for (let at = fromMs; at < toMs; at += 100) b.at(at);
  b.at(toMs);
}

function member(b: Bench, clientId: number): void {
  b.request(clientId, { kind: "group-join", requestId: 9, group: "g" });
}

/** Client 1 holds "r" at EX, is kept, and its connection has broken; client 2 waits for "r". Both are in group "g". */
function broken(identity: ClientIdentity = me): Bench {
  const b = createBench([]);
  b.connect(1, identity);
  b.connect(2, { uid: 1000, pid: 12, owner: "other" });
  member(b, 1);
  member(b, 2);
  b.lock(1, 1, EX, VALBLK);
  keep(b, 1, limitMs);
  b.gone(1);
  b.lock(2, 1, PR, VALBLK);
  return b;
}

const goneOf = (b: Bench, clientId: number): (number | null)[] =>
  b.heard(clientId, "gone").flatMap(({ clients }) => clients.map((gone) => gone.clientId));
const leftOf = (b: Bench, clientId: number): string[] =>
  b.heard(clientId, "group-members").flatMap(({ left }) => left.map(({ member: { clientId: who }, reason }) => `${who} ${reason}`));
const status = (b: Bench, nowMs = 1): StatusAnswer => b.node.query("status", nowMs) as StatusAnswer;

it("C12: a lock of a client that was ended for hanging, and is kept, is adopted by nobody: its kernel may have what it covers", () => {
  const b = createBench([]);
  b.connect(1, { ...me, bastLimitMs: 200 });
  b.connect(2, { uid: 1000, pid: 12, owner: "other" });
  b.connect(3, me);
  b.lock(1, 1, EX);
  keep(b, 1, limitMs, true);
  b.lock(2, 1, PR);
  pass(b, 1, 501);
  expect(b.effects.some(({ kind }) => kind === "end-client")).toBe(true);
  b.gone(1, true);
  b.told();
  b.lock(3, 1, EX, ORPHAN);
  b.unlock(3, 1);
  expect(b.told().filter((told) => /granted/.test(told))).toEqual([]);
});

describe("a client that is kept", () => {
  it("holds its locks, whatever their flags, and stays in its groups; nobody is asked to let go of it", () => {
    const b = broken();
    b.told();
    b.request(2, { kind: "group-send", requestId: 8, group: "g", count: 1, data: Uint8Array.of(1) });
    expect([b.told(), goneOf(b, 2), leftOf(b, 2)]).toEqual([[], [], []]);
    expect(b.heard(1, "group-message")).toEqual([]);
    const members = b.heard(2, "group-members").at(-1)?.members ?? [];
    expect(members.map(({ clientId }) => clientId)).toEqual([1, 2]);
    expect(b.inspected().resources).toMatchObject([{ grantQueue: [{ clientId: 1, granted: "EX", orphan: true }] }]);
  });

  it("is shown with how long it is kept, and counts as a program at work", () => {
    const b = broken();
    expect(b.inspected(1001).clients[0]).toEqual({
      clientId: 1,
      pid: 11,
      program: "/usr/bin/mount, kept for an heir for 9.3 s at most",
    });
    expect(status(b, 1001).kept).toEqual([
      { clientId: 1, pid: 11, program: "/usr/bin/mount", lockspaces: ["space"], locks: 1, leftMs: limitMs + slackMs - 1000 },
    ]);
    expect(b.node.programsAtWork()).toEqual(["/usr/bin/mount (process 11, kept for an heir)", expect.stringContaining("(process 12)")]);
  });

  it("is gone when its time is over: asked about, out of its groups, its locks released and its block not valid", () => {
    const b = broken();
    pass(b, 1, limitMs + slackMs);
    expect(goneOf(b, 2)).toEqual([]);
    b.at(limitMs + slackMs + 1);
    expect([goneOf(b, 2), leftOf(b, 2)]).toEqual([[1], ["1 client-died"]]);
    // Between the question and its answer nobody is its heir any more.
    b.connect(3, me);
    expect(inherited(b, 3)).toEqual([]);
    b.lock(3, 1, EX, ORPHAN);
    expect(b.last(3, 1).error?.errno).toBe(E.ENOENT);
    b.told();
    b.request(2, { kind: "gone-ack", goneId: 1 });
    b.request(3, { kind: "gone-ack", goneId: 1 });
    expect(b.told()).toEqual(["2:1 granted PR"]);
    expect(b.last(2, 1).lvbValid).toBe(false);
    expect(status(b)).toMatchObject({ clients: 2, kept: [] });
  });

  it("loses no time in which its node stood still", () => {
    const b = broken();
    b.at(limitMs * 10);
    expect(goneOf(b, 2)).toEqual([]);
    pass(b, limitMs * 10, limitMs * 11 + slackMs);
    expect(goneOf(b, 2)).toEqual([1]);
  });

  it("wakes its node when its time is over", () => {
    const b = createBench([]);
    b.connect(1, me);
    keep(b, 1, 150);
    b.gone(1);
    b.at(100);
    expect(b.node.nextDeadline()).toBeLessThanOrEqual(151 + slackMs);
  });

  it("keeps its persistent locks when its time is over, as other clients do", () => {
    const b = createBench([]);
    b.connect(1, me);
    b.lock(1, 1, EX, PERSISTENT);
    keep(b, 1, limitMs);
    b.gone(1);
    b.connect(3, me);
    expect(endKept(b, 3, 1)).toBe("done");
    b.request(3, { kind: "gone-ack", goneId: 1 });
    b.lock(3, 1, EX, ORPHAN);
    expect(b.last(3, 1).status).toBe("granted");
  });

  it("is purged as other orphans are: it is kept no more", () => {
    const b = broken();
    b.told();
    b.request(2, { kind: "purge", purgeId: 1, lockspaceId: 1, nodeid: 1, pid: 11 });
    expect([b.told(), goneOf(b, 2), leftOf(b, 2)]).toEqual([["2 purged 1"], [1], ["1 client-died"]]);
    b.request(2, { kind: "gone-ack", goneId: 1 });
    expect(b.told()).toEqual(["2:1 granted PR"]);
  });

  it("ends with its node's membership", () => {
    const b = broken();
    b.node.step({ kind: "announce-leave" }, 2);
    expect(status(b, 2).kept).toEqual([]);
  });

  it("takes back what it had asked for: a new lock and a conversion", () => {
    const b = createBench([2]);
    b.connect(1, me);
    b.lock(2, 1, PR);
    b.lock(1, 1, PR);
    b.convert(1, 1, EX);
    b.request(2, { kind: "lock", lockspaceId: 1, lockId: 2, resource: "s", mode: EX, flags: 0 });
    b.request(1, { kind: "lock", lockspaceId: 1, lockId: 2, resource: "s", mode: EX, flags: 0 });
    keep(b, 1, limitMs);
    b.gone(1);
    b.unlock(2, 1);
    b.unlock(2, 2);
    b.connect(3, me);
    expect(inherited(b, 3)).toEqual([{ clientId: 1, locks: [{ resource: "r", mode: PR }] }]);
    expect(status(b).locks).toBe(1);
  });
});

describe("a client is gone at once", () => {
  it.each<[string, (b: Bench) => void]>([
    ["that never said anything of heirs", (b) => b.gone(1)],
    [
      "that took it back, as a good end does",
      (b) => {
        keep(b, 1, limitMs);
        keep(b, 1, 0);
        b.gone(1);
      },
    ],
    [
      "whose connection dlmd closed",
      (b) => {
        keep(b, 1, limitMs);
        b.gone(1, true);
      },
    ],
  ])("%s", (_, end) => {
    const b = createBench([2]);
    b.connect(1, me);
    b.lock(1, 1, EX);
    end(b);
    expect(goneOf(b, 2)).toEqual([1]);
    b.request(2, { kind: "gone-ack", goneId: 1 });
    b.lock(2, 1, EX);
    expect(b.last(2, 1).status).toBe("granted");
  });

  it("that hangs and was killed", () => {
    const b = createBench([2]);
    b.connect(1, { ...me, bastLimitMs: 200 });
    b.lock(1, 1, EX);
    keep(b, 1, limitMs);
    b.lock(2, 1, PR);
    pass(b, 1, 501);
    expect(b.effects).toContainEqual(expect.objectContaining({ kind: "end-client", clientId: 1 }));
    b.gone(1);
    expect(goneOf(b, 2)).toEqual([1]);
  });

  it("that is one too many", () => {
    const b = createBench([2]);
    const total = MAX_KEPT_CLIENTS + 1;
    for (let at = 0; at < total; at++) {
      b.connect(10 + at, { ...me, owner: `owner ${at}` });
      keep(b, 10 + at, limitMs);
      b.gone(10 + at);
    }
    expect(goneOf(b, 2)).toEqual([10 + MAX_KEPT_CLIENTS]);
    expect(status(b).kept).toHaveLength(MAX_KEPT_CLIENTS);
  });
});

describe("keep-locks", () => {
  it("needs an owner key", () => {
    const b = createBench([]);
    b.connect(1, { ...me, owner: "" });
    expect(keep(b, 1, limitMs)).toBe("no-owner");
    expect(keep(b, 1, 0)).toBe("done");
  });

  it("is for so long at most", () => {
    const b = createBench([]);
    b.connect(1, me);
    expect(keep(b, 1, MAX_KEEP_MS + 1)).toBe("too-long");
    expect(status(b)).toMatchObject({ kept: [] });
    expect(keep(b, 1, MAX_KEEP_MS)).toBe("done");
  });

  it("may count only as long as another connection of its owner is there: whichever ends last, all is given away then", () => {
    const b = createBench([]);
    for (const [clientId, owner] of [
      [1, "mine"],
      [2, "other"],
      [3, "mine"],
      [4, "mine"],
    ] as const)
      b.connect(clientId, { ...me, owner });
    b.lock(1, 1, EX);
    b.lock(2, 1, PR);
    keep(b, 1, limitMs, true);
    b.gone(1);
    expect([status(b).kept?.length, goneOf(b, 2)]).toEqual([1, []]);
    b.gone(3);
    expect([status(b).kept?.length, goneOf(b, 2)]).toEqual([1, [3]]);
    b.gone(4);
    expect([status(b).kept?.length, new Set(goneOf(b, 2))]).toEqual([0, new Set([1, 3, 4])]);
    // There is none from the first.
    b.connect(5, { ...me, owner: "alone" });
    b.lock(5, 1, NL);
    keep(b, 5, limitMs, true);
    b.gone(5);
    expect(goneOf(b, 2)).toContain(5);
  });

  it("of one that this node has killed: its locks stay until who holds its other connection has let go, and nobody inherits them", () => {
    const b = createBench([]);
    b.connect(1, { ...me, bastLimitMs: 200 });
    b.connect(2, { ...me, owner: "other" });
    b.connect(3, me);
    b.lock(1, 1, EX);
    keep(b, 1, limitMs, true);
    b.lock(2, 1, PR);
    pass(b, 1, 501);
    expect(b.effects).toContainEqual(expect.objectContaining({ kind: "end-client", clientId: 1 }));
    b.told();
    b.gone(1, true);
    expect([b.told(), goneOf(b, 2)]).toEqual([[], []]);
    expect(inherited(b, 3)).toEqual([]);
    expect(endKept(b, 3, 1)).toBe("not-kept");
    b.gone(3);
    expect(goneOf(b, 2)).toContain(1);
  });

  it("that was refused changes nothing", () => {
    const b = createBench([2]);
    b.connect(1, me);
    keep(b, 1, MAX_KEEP_MS + 1);
    b.gone(1);
    expect(goneOf(b, 2)).toEqual([1]);
  });
});

describe("an heir", () => {
  it("finds the locks, adopts them one by one and hears the blocking AST; the rest goes when it is done", () => {
    const b = broken();
    b.connect(3, { ...me, pid: 13 });
    expect(inherited(b, 3)).toEqual([{ clientId: 1, locks: [{ resource: "r", mode: EX }] }]);
    b.told();
    b.lock(3, 9, EX, ORPHAN | VALBLK);
    expect(b.told()).toEqual(["3:9 granted EX", "3:9 bast PR"]);
    // All is adopted, and it is kept still: its groups are.
    expect(inherited(b, 3)).toEqual([{ clientId: 1, locks: [] }]);
    expect(endKept(b, 3, 1)).toBe("done");
    // Of the lock nothing is left; the others hear of it all the same.
    expect([goneOf(b, 2), goneOf(b, 3), leftOf(b, 2)]).toEqual([[1], [1], ["1 client-died"]]);
    expect(endKept(b, 3, 1)).toBe("not-kept");
    b.request(2, { kind: "gone-ack", goneId: 1 });
    b.request(3, { kind: "gone-ack", goneId: 1 });
    expect(b.told()).toEqual([]);
    b.unlock(3, 9);
    expect(b.told()).toEqual(["2:1 granted PR", "3:9 unlocked NL"]);
    expect(status(b)).toMatchObject({ clients: 2, kept: [] });
  });

  it("leaves what it did not adopt to others, when all have let go of the dead", () => {
    const b = broken();
    b.connect(3, me);
    endKept(b, 3, 1);
    b.told();
    b.request(2, { kind: "gone-ack", goneId: 1 });
    expect(b.told()).toEqual([]);
    b.request(3, { kind: "gone-ack", goneId: 1 });
    expect(b.told()).toEqual(["2:1 granted PR"]);
  });

  it("hears at once that the dead one is gone, where that had no lockspace", () => {
    const b = createBench([2]);
    b.connect(4, me, []);
    keep(b, 4, limitMs);
    b.gone(4);
    b.connect(5, me);
    expect(endKept(b, 5, 4)).toBe("done");
  });

  it.each<[string, ClientIdentity]>([
    ["another key", { ...me, owner: "yours" }],
    ["another user", { ...me, uid: 1001 }],
    ["root, with that key", { ...me, uid: 0 }],
    ["no key", { ...me, owner: "" }],
  ])("is nobody with %s", (_, stranger) => {
    const b = broken();
    b.connect(3, stranger);
    expect(inherited(b, 3)).toEqual([]);
    expect(endKept(b, 3, 1)).toBe("not-kept");
    // The same words as for a client that never was.
    expect(endKept(b, 3, 77)).toBe("not-kept");
    b.request(3, { kind: "group-farewell", requestId: 4, clientId: 1, group: "g", data: Uint8Array.of(1) });
    expect(b.heard(3, "group-result").at(-1)?.result).toBe("not-kept");
    expect([goneOf(b, 2), leftOf(b, 2)]).toEqual([[], []]);
  });

  it("of a client without a key is nobody, not even a client without one", () => {
    const b = broken({ ...me, owner: "" });
    expect(goneOf(b, 2)).toEqual([1]);
  });

  it("says farewell in the name of the dead, with its next number, and takes it out of the group in good order", () => {
    const b = createBench([]);
    b.connect(1, me);
    b.connect(2);
    member(b, 1);
    member(b, 2);
    b.request(1, { kind: "group-send", requestId: 8, group: "g", count: 1, data: Uint8Array.of(5) });
    keep(b, 1, limitMs);
    b.gone(1);
    b.connect(3, me);
    const farewell = { kind: "group-farewell", requestId: 4, clientId: 1, group: "g", data: Uint8Array.of(7) } as const;
    b.request(3, farewell);
    expect(b.heard(3, "group-result")).toEqual([{ kind: "group-result", requestId: 4, result: "accepted" }]);
    expect(b.heard(2, "group-message").map(({ from, seq, data }) => [from.clientId, seq, [...data]])).toEqual([
      [1, 1, [5]],
      [1, 2, [7]],
    ]);
    expect(leftOf(b, 2)).toEqual(["1 left"]);
    b.request(3, farewell);
    b.request(3, { ...farewell, group: "h" });
    expect(b.heard(3, "group-result").map(({ result }) => result)).toEqual(["accepted", "not-joined", "not-joined"]);
    endKept(b, 3, 1);
    expect([leftOf(b, 2), goneOf(b, 2)]).toEqual([["1 left"], [1]]);
  });

  it("gets file locks that it asks for before all that wait, when it is done with the dead (hazard F45)", () => {
    const b = createBench([1, 2, 3]);
    b.connect(4, me);
    const range = { type: "write", start: 0n, end: 9n } as const;
    const file = { kind: "plock", lockspaceId: 1, file: "f", op: "lock", wait: true, begun: false, heldMs: null, ...range } as const;
    const ask = (clientId: number, requestId: number, first = false): void =>
      b.request(clientId, { ...file, requestId, ownerKind: "posix", owner: 1n, pid: clientId, first });
    const granted = (clientId: number): number[] => b.heard(clientId, "plock-result").map(({ errno }) => errno);
    keep(b, 4, limitMs);
    ask(4, 5);
    expect(granted(4)).toEqual([0]);
    ask(2, 6);
    b.gone(4);
    expect(status(b).kept).toHaveLength(1);
    b.connect(5, me);
    b.request(5, { kind: "open", lockspaceId: 1, name: "space" });
    ask(5, 7, true);
    expect([granted(2), granted(5)]).toEqual([[], []]);
    // Answered when all have let go of it.
    expect(endKept(b, 5, 4)).toBeUndefined();
    for (const clientId of [1, 2, 3, 5]) {
      const [gone] = b.heard(clientId, "gone");
      if (gone !== undefined) b.request(clientId, { kind: "gone-ack", goneId: gone.goneId });
    }
    expect([granted(2), granted(5)]).toEqual([[], [0]]);
    expect(b.heard(5, "heir-result").at(-1)?.result).toBe("done");
  });

  it("that dies before the dead one is gone leaves no lock to others: its requests that go first stay (hazard F45)", () => {
    const b = createBench([1, 2]);
    b.connect(4, me);
    const range = { type: "write", start: 0n, end: 9n } as const;
    const file = { kind: "plock", lockspaceId: 1, file: "f", op: "lock", wait: true, begun: false, heldMs: null, ...range } as const;
    const ask = (clientId: number, requestId: number, first = false): void =>
      b.request(clientId, { ...file, requestId, ownerKind: "posix", owner: 1n, pid: clientId, first });
    const letGo = (dead: number): void => {
      for (const clientId of [1, 2, 6])
        for (const gone of b.heard(clientId, "gone"))
          if (gone.clients.some((one) => one.clientId === dead)) b.request(clientId, { kind: "gone-ack", goneId: gone.goneId });
    };
    keep(b, 4, limitMs);
    ask(4, 5);
    ask(2, 6);
    b.gone(4);
    b.connect(5, me);
    keep(b, 5, limitMs);
    ask(5, 7, true);
    endKept(b, 5, 4);
    b.gone(5);
    letGo(4);
    b.connect(6, me);
    ask(6, 8, true);
    endKept(b, 6, 5);
    letGo(5);
    expect([2, 6].map((clientId) => b.heard(clientId, "plock-result").map(({ errno }) => errno))).toEqual([[], [0]]);
  });

  it("is told at once that it is done where the dead one had no file lock", () => {
    const b = createBench([2]);
    b.connect(4, me);
    b.lock(4, 1, EX);
    keep(b, 4, limitMs);
    b.gone(4);
    b.connect(5, me);
    expect(endKept(b, 5, 4)).toBe("done");
  });

  it("has nothing of the dead one's requests that wait: others get what they wait for (hazard F45)", () => {
    const b = createBench([1, 2]);
    b.connect(4, me);
    const range = { type: "write", start: 0n, end: 9n } as const;
    const file = { kind: "plock", lockspaceId: 1, file: "f", wait: true, begun: false, heldMs: null, first: false, ...range } as const;
    const ask = (clientId: number, requestId: number, op: "lock" | "unlock" = "lock"): void =>
      b.request(clientId, { ...file, op, requestId, ownerKind: "posix", owner: 1n, pid: clientId });
    keep(b, 4, limitMs);
    ask(1, 5);
    ask(4, 6);
    ask(2, 7);
    b.gone(4);
    ask(1, 8, "unlock");
    expect(b.heard(2, "plock-result").map(({ errno }) => errno)).toEqual([0]);
  });

  it("takes over from two dead clients, also where both have one lock of one resource", () => {
    const b = createBench([]);
    for (const clientId of [1, 2]) {
      b.connect(clientId, me);
      keep(b, clientId, limitMs);
      b.lock(clientId, 1, PR);
      b.gone(clientId);
    }
    b.connect(3, me);
    const lock = { resource: "r", mode: PR };
    expect(inherited(b, 3)).toEqual([
      { clientId: 1, locks: [lock] },
      { clientId: 2, locks: [lock] },
    ]);
    b.told();
    for (const lockId of [1, 2, 3]) b.lock(3, lockId, PR, ORPHAN);
    expect(b.told()).toEqual(["3:1 granted PR", "3:2 granted PR", "3:3 error NL"]);
    endKept(b, 3, 1);
    endKept(b, 3, 2);
    expect(status(b)).toMatchObject({ locks: 2 });
  });

  it("waits until an earlier connection of its owner has ended, which is read for that; not for a later one", () => {
    const b = createBench([], { savedRequestsPerClient: 2 });
    b.connect(1, me);
    b.lock(1, 1, EX);
    keep(b, 1, limitMs);
    b.connect(3, me);
    expect(inherited(b, 3)).toBeUndefined();
    expect(inherited(b, 1)).toEqual([]);
    b.gone(1);
    expect(b.heard(3, "inherited").at(-1)?.clients).toEqual([{ clientId: 1, locks: [{ resource: "r", mode: EX }] }]);
  });

  it("that is gone itself is kept for the next one", () => {
    const b = broken();
    b.connect(3, me);
    keep(b, 3, limitMs);
    b.lock(3, 9, EX, ORPHAN);
    b.gone(3);
    b.connect(4, me);
    expect(inherited(b, 4)).toEqual([
      { clientId: 1, locks: [] },
      { clientId: 3, locks: [{ resource: "r", mode: EX }] },
    ]);
  });

  it("is told 'busy' where too many wait", () => {
    const b = createBench([]);
    b.connect(1, me);
    keep(b, 1, limitMs);
    b.connect(3, me);
    for (let at = 0; at < MAX_INHERIT_ASKS; at++) inherited(b, 3);
    expect(b.heard(3, "heir-result")).toEqual([]);
    inherited(b, 3);
    expect(b.heard(3, "heir-result").map(({ result }) => result)).toEqual(["busy"]);
    b.gone(3);
    b.connect(4, me);
    b.gone(1);
    expect(inherited(b, 4)).toHaveLength(1);
  });

  it("hears of more locks than a message takes in several, each lock once, of that lockspace alone", () => {
    const b = createBench([]);
    const each = MAX_INHERITED_ROWS - 1;
    for (const clientId of [1, 2]) {
      b.connect(clientId, me);
      b.request(clientId, { kind: "open", lockspaceId: 2, name: "other" });
      keep(b, clientId, limitMs);
      for (let lockId = 0; lockId < each; lockId++)
        b.request(clientId, { kind: "lock", lockspaceId: 1, lockId, resource: `${clientId}/${lockId}`, mode: NL, flags: 0 });
      b.request(clientId, { kind: "lock", lockspaceId: 2, lockId: each, resource: "elsewhere", mode: NL, flags: 0 });
      b.gone(clientId);
    }
    b.connect(3, me);
    const found = new Set<string>();
    let messages = 0;
    for (let next: { fromClientId: number; skip: number } | null = { fromClientId: 0, skip: 0 }; next !== null; messages++) {
      b.request(3, { kind: "inherit", requestId: messages, lockspace: "space", ...next });
      const answer = b.heard(3, "inherited").at(-1);
      expect(answer?.clients.reduce((sum, { locks }) => sum + locks.length, 0)).toBeLessThanOrEqual(MAX_INHERITED_ROWS);
      for (const { clientId, locks } of answer?.clients ?? []) for (const { resource } of locks) found.add(`${clientId}: ${resource}`);
      next = answer?.next ?? null;
    }
    expect([messages, found.size]).toEqual([2, 2 * each]);
  });
});

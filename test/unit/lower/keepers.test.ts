/** What an owner leaves to its callers (hazard F44): all are asked, in parts; who keeps it, and how long the others are waited for. */
import { expect, it, vi } from "vitest";
import { MAX_DEPOSIT } from "../../../overlay/lower/limits.ts";
import type { Keeper } from "../../../overlay/lower/remote/session.ts";
import type { RemoteLower } from "../../../overlay/lower/remote/remote.ts";
import { AskedKeepers, KEEPERS_WAIT_MS } from "../../../overlay/lower/server/keepers.ts";
import type { ServerSession } from "../../../overlay/lower/server/session.ts";
import type { RequestOf } from "../../../overlay/lower/wire/call-types.ts";
import { TEST_OWNER } from "../../compliance/lower-fixture.ts";
import { remoteLab, until } from "./remote-lab.ts";

const lab = remoteLab();
const IN_TIME = new AbortController().signal;

const request = (change: Partial<RequestOf<"deposit">> = {}): RequestOf<"deposit"> => ({
  epoch: 1,
  ticket: "t1",
  isLast: true,
  dlmdDied: true,
  tokens: [],
  locked: [],
  sharedLocks: [],
  shared: [],
  ...change,
});

/** Answers as it is told. */
class PlayedKeeper implements Keeper {
  readonly asked: RequestOf<"deposit">[] = [];
  readonly tickets: string[] = [];
  answer: (request: RequestOf<"deposit">) => Promise<{ readonly refused: string }> = () => Promise.resolve({ refused: "" });
  readonly keep: Keeper["keep"] = (asked) => {
    this.asked.push(asked);
    return this.answer(asked);
  };
  readonly keepNot: Keeper["keepNot"] = (ticket) => void this.tickets.push(ticket);
}

async function caller(nodeid: number, keeper: Keeper | null, address: Parameters<RemoteLower["connect"]>[0]): Promise<RemoteLower> {
  const remote = lab.remote({ nodeid, clientId: 10 + nodeid }, undefined, keeper === null ? {} : { keeper });
  await remote.connect(address, 1);
  return remote;
}

it("asks the mounts of all other nodes, and tells who keeps it, and why not", async () => {
  const owner = await lab.owner(1);
  const [one, other, own] = [new PlayedKeeper(), new PlayedKeeper(), new PlayedKeeper()];
  other.answer = () => Promise.resolve({ refused: "it cannot be the owner" });
  await caller(6, one, owner.address);
  await caller(5, other, owner.address);
  await caller(7, null, owner.address);
  await caller(TEST_OWNER.nodeid, own, owner.address);
  const found = await owner.server.askToKeep(request({ tokens: [{ ino: 2, generation: 3 }] }), IN_TIME);
  expect(found).toEqual({
    nodeids: [6],
    refused: expect.arrayContaining(["node 5: it cannot be the owner", "node 7: it keeps nothing for others"]) as unknown,
  });
  expect([one.asked, own.asked]).toEqual([[request({ tokens: [{ ino: 2, generation: 3 }] })], []]);
  owner.server.keepNot("t1");
  await until(() => one.tickets.length > 0 && other.tickets.length > 0);
  expect([one.tickets, own.tickets]).toEqual([["t1"], []]);
});

it("names it in parts, one after the other, and says which is the last", async () => {
  const owner = await lab.owner(1);
  const keeper = new PlayedKeeper();
  await caller(6, keeper, owner.address);
  const ids = Array.from({ length: 2 * MAX_DEPOSIT + 1 }, (_, ino) => ({ ino, generation: 1 }));
  expect(await owner.server.askToKeep(request({ tokens: ids, locked: ids.slice(0, 3) }), IN_TIME)).toEqual({ nodeids: [6], refused: [] });
  expect(keeper.asked.map(({ tokens, locked, isLast }) => [tokens.length, locked.length, isLast])).toEqual([
    [MAX_DEPOSIT, 3, false],
    [MAX_DEPOSIT, 0, false],
    [1, 0, true],
  ]);
  expect(keeper.asked.flatMap(({ tokens }) => tokens)).toEqual(ids);
  keeper.answer = ({ locked }) => Promise.resolve({ refused: locked.length > 0 ? "" : "too many" });
  expect(await owner.server.askToKeep(request({ tokens: ids, locked: ids.slice(0, 3) }), IN_TIME)).toEqual({
    nodeids: [],
    refused: ["node 6: too many"],
  });
  expect(keeper.asked.length).toBe(5);
});

it("a caller that is gone when it has decided answers nobody; the session of the next owner knows nothing of it", async () => {
  const [owner, next] = [await lab.owner(1), await lab.owner(2)];
  const keeper = new PlayedKeeper();
  let decide: () => void = () => undefined;
  keeper.answer = () => new Promise((resolve) => (decide = () => resolve({ refused: "" })));
  const remote = await caller(6, keeper, owner.address);
  let answered = false;
  void owner.server.askToKeep(request(), IN_TIME).then(() => (answered = true));
  await until(() => keeper.asked.length === 1);
  remote.ownerLost();
  decide();
  await new Promise(setImmediate);
  // No call waits for an owner because of that.
  expect(remote.ownerWait).toBeNull();
  await remote.connect(next.address, 2);
  await remote.statfs();
  expect(remote.ownerWait).toBeNull();
  expect(answered).toBe(false);
});

it("those that do not answer are waited for no longer than KEEPERS_WAIT_MS after the first one that keeps it", async () => {
  vi.useFakeTimers();
  try {
    const said: [number, number][] = [];
    const session = (nodeid: number): ServerSession =>
      ({ id: { nodeid }, say: (_type: number, id: number) => void said.push([nodeid, id]) }) as unknown as ServerSession;
    const [first, hangs, late] = [session(4), session(3), session(2)];
    const keepers = new AskedKeepers();
    let found: unknown = null;
    void keepers.ask([first, hangs, late], request(), IN_TIME).then((all) => (found = all));
    await vi.advanceTimersByTimeAsync(10 * KEEPERS_WAIT_MS);
    expect([said, found]).toEqual([
      [
        [4, 1],
        [3, 2],
        [2, 3],
      ],
      null,
    ]);
    // Of another question.
    keepers.answered(first, { id: 2, refused: "" });
    keepers.answered(first, { id: 1, refused: "" });
    await vi.advanceTimersByTimeAsync(KEEPERS_WAIT_MS - 1);
    keepers.answered(late, { id: 3, refused: "" });
    expect(found).toBeNull();
    await vi.advanceTimersByTimeAsync(1);
    expect(found).toEqual({ nodeids: [2, 4], refused: [] });
    keepers.answered(hangs, { id: 2, refused: "" });
    // There is no more time: who has said so by then keeps it.
    const over = new AbortController();
    void keepers.ask([first, hangs], request(), over.signal).then((all) => (found = all));
    await vi.advanceTimersByTimeAsync(10);
    keepers.answered(first, { id: 4, refused: "" });
    await vi.advanceTimersByTimeAsync(KEEPERS_WAIT_MS - 10);
    over.abort();
    await vi.advanceTimersByTimeAsync(0);
    expect(found).toEqual({ nodeids: [4], refused: [] });
  } finally {
    vi.useRealTimers();
  }
});

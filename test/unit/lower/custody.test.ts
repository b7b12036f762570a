/** Callers that go away for a moment (hazard F35): what they have open stays open at the owner, until it is collected. */
import fs from "node:fs";
import path from "node:path";
import { expect, it, vi } from "vitest";
import type { GoneClient } from "../../../dlmd/client/api.ts";
import { MAX_DEPOSIT, TICKET_CHARS } from "../../../overlay/lower/limits.ts";
import type { LocalLower } from "../../../overlay/lower/local/local.ts";
import type { OwnerAddress } from "../../../overlay/lower/remote/connection.ts";
import type { RemoteLower } from "../../../overlay/lower/remote/remote.ts";
import { createLowerServer, type LowerServer, type OwnerCustody } from "../../../overlay/lower/server/server.ts";
import type { RequestOf } from "../../../overlay/lower/wire/call-types.ts";
import { listenOn, ownedLower, TEST_CALLER, testServerOptions } from "../../compliance/lower-fixture.ts";
import { caller, name, RDWR, remoteLab, until } from "./remote-lab.ts";

const lab = remoteLab();
const CLIENT: GoneClient = { nodeid: TEST_CALLER.nodeid, incarnation: TEST_CALLER.incarnation, clientId: TEST_CALLER.clientId };
const ORPHANS = ".coverlay.orphans";

/** Keeps what it is told to. */
class PlayedCustody implements OwnerCustody {
  readonly kept = new Map<string, () => void>();
  readonly requests: RequestOf<"deposit">[] = [];
  answer = (): Promise<{ readonly refused: string }> => Promise.resolve({ refused: "" });
  deposit(request: RequestOf<"deposit">, ended: () => void): Promise<{ readonly refused: string }> {
    this.requests.push(request);
    this.kept.set(request.ticket, ended);
    return this.answer();
  }
  collect(ticket: string): boolean {
    const ended = this.kept.get(ticket);
    this.kept.delete(ticket);
    ended?.();
    return ended !== undefined;
  }
}

interface Scene {
  readonly lower: LocalLower;
  readonly server: LowerServer;
  readonly address: OwnerAddress;
  readonly custody: PlayedCustody;
  readonly away: RemoteLower;
  readonly other: RemoteLower;
  /** Files in the hidden directory of the volume. */
  readonly orphans: () => string[];
}

/** A caller that has a file open which has no name any more, and another caller. */
async function withScene(work: (scene: Scene) => Promise<void>): Promise<void> {
  const lower = await ownedLower(lab.place.rootFd);
  await lower.recoverOrphans();
  const custody = new PlayedCustody();
  const server = createLowerServer({ ...testServerOptions(lower, 1), custody });
  try {
    const address = await listenOn(server);
    const [away, other] = [lab.remote(), lab.remote({ clientId: 6 })];
    await away.connect(address, 1);
    await other.connect(address, 1);
    const made = await away.create(lower.root, name("gone"), RDWR, 0o600, caller);
    await away.unlink(lower.root, name("gone"), made.entry.id);
    await work({ lower, server, address, custody, away, other, orphans: () => fs.readdirSync(path.join(lab.place.path, ORPHANS)) });
  } finally {
    for (const end of custody.kept.values()) end();
    await server.close();
    await lower.shutdown();
  }
}

const NO_END = new AbortController().signal;
const deposit = (ticket: string): RequestOf<"deposit"> => ({
  epoch: 1,
  ticket,
  isLast: true,
  dlmdDied: false,
  tokens: [],
  locked: [],
  sharedLocks: [],
  shared: [],
});

it("keeps the files of a caller that has left, and closes them when they are collected", async () => {
  await withScene(async ({ server, lower, address, away, other, orphans }) => {
    expect(orphans().length).toBe(1);
    expect(await away.deposit(deposit("t1"), NO_END)).toBe("");
    await server.closeSessions([CLIENT]);
    expect([server.sessions.length, orphans().length]).toEqual([2, 1]);
    // Its client may not come back as the same.
    expect(await lab.refusal({}, { server, lower, address, epoch: 1 })).toBe("gone");
    expect(await other.collect("t1")).toBe(true);
    await until(() => server.sessions.length === 1 && orphans().length === 0);
    expect(await other.collect("t1")).toBe(false);
  });
});

it("leaves a caller that goes on after all as it is", async () => {
  await withScene(async ({ server, lower, away, orphans }) => {
    expect(await away.deposit(deposit("t1"), NO_END)).toBe("");
    expect(await away.collect("t1")).toBe(true);
    const made = await away.create(lower.root, name("new"), RDWR, 0o600, caller);
    expect((await away.write(made.handle, Buffer.from("x"), 0, false)).bytes).toBe(1);
    expect([server.sessions.length, orphans().length]).toEqual([2, 1]);
    await server.closeSessions([CLIENT]);
    expect([server.sessions.length, orphans().length]).toEqual([1, 0]);
  });
});

it("closes what was not kept after all", async () => {
  await withScene(async ({ server, custody, away, orphans }) => {
    custody.answer = () => Promise.resolve({ refused: "too many" });
    expect(await away.deposit(deposit("t1"), NO_END)).toBe("too many");
    expect(custody.kept.size).toBe(0);
    await server.closeSessions([CLIENT]);
    expect([server.sessions.length, orphans().length]).toEqual([1, 0]);
  });
});

it("a session that ends waits for no deposit: dlmd may wait for its end", async () => {
  await withScene(async ({ server, custody, away, orphans }) => {
    custody.answer = () => new Promise(() => undefined);
    const answer = away.deposit(deposit("t1"), NO_END).catch((error: unknown) => String(error));
    await until(() => custody.kept.size === 1);
    await server.closeSessions([CLIENT]);
    expect([server.sessions.length, orphans().length, custody.kept.size]).toEqual([1, 0, 0]);
    away.shutdown();
    await answer;
  });
});

it("a server that ends waits for no deposit either, and leaves the files for the next owner", async () => {
  await withScene(async ({ server, custody, away, orphans }) => {
    custody.answer = () => new Promise(() => undefined);
    const answer = away.deposit(deposit("t1"), NO_END).catch((error: unknown) => String(error));
    await until(() => custody.kept.size === 1);
    await server.close();
    expect([server.sessions.length, orphans().length]).toEqual([0, 1]);
    away.shutdown();
    await answer;
  });
});

it("names more files than one call takes in several", async () => {
  await withScene(async ({ custody, away }) => {
    const many = (count: number) => Array.from({ length: count }, (_, ino) => ({ ino, generation: 1 }));
    expect(await away.deposit({ ...deposit("t1"), tokens: many(MAX_DEPOSIT + 1), locked: many(1) }, NO_END)).toBe("");
    expect(custody.requests.map(({ tokens, locked }) => [tokens.length, locked.length])).toEqual([
      [MAX_DEPOSIT, 1],
      [1, 0],
    ]);
    custody.answer = () => Promise.resolve({ refused: "no" });
    expect(await away.deposit({ ...deposit("t2"), tokens: many(3 * MAX_DEPOSIT) }, NO_END)).toBe("no");
    expect(custody.requests.length).toBe(3);
  });
});

it("names nothing more when it is given up", async () => {
  await withScene(async ({ custody, away }) => {
    const ending = new AbortController();
    custody.answer = () => {
      ending.abort();
      return Promise.resolve({ refused: "" });
    };
    const many = Array.from({ length: 2 * MAX_DEPOSIT }, (_, ino) => ({ ino, generation: 1 }));
    expect(await away.deposit({ ...deposit("t1"), tokens: many }, ending.signal)).toBe("it was given up meanwhile");
    expect(custody.requests.length).toBe(1);
  });
});

it("refuses a second part beside the first, and another mount's ticket, and ends with the session all the same", async () => {
  await withScene(async ({ server, address, custody, away, other }) => {
    custody.answer = () => new Promise(() => undefined);
    const first = away.deposit(deposit("t1"), NO_END).catch((error: unknown) => String(error));
    await until(() => custody.kept.size === 1);
    expect(await away.deposit(deposit("t2"), NO_END)).toBe("another part is under way");
    await server.closeSessions([CLIENT]);
    expect(server.sessions.length).toBe(1);
    away.shutdown();
    await first;
    custody.answer = () => Promise.resolve({ refused: "" });
    const third = lab.remote({ clientId: 7 });
    await third.connect(address, 1);
    expect(await other.deposit(deposit("t3"), NO_END)).toBe("");
    expect(await third.deposit(deposit("t3"), NO_END)).toBe("another mount has that ticket");
  });
});

it("refuses where all files cannot be open twice", async () => {
  await withScene(async ({ lower, custody, away }) => {
    vi.spyOn(lower, "roomForHandles").mockReturnValue(0);
    expect(await away.deposit(deposit("t1"), NO_END)).toBe("1 files are open, and the owner has no room for them twice");
    expect(custody.requests.length).toBe(0);
  });
});

it("tells once that it was there, also where the answer was lost with its connection", async () => {
  await withScene(async ({ lower, server, address, custody, away }) => {
    expect(await away.deposit(deposit("t1"), NO_END)).toBe("");
    const proxy = await lab.proxyTo({ lower, server, address, epoch: 1 });
    const next = lab.remote({ clientId: 8 });
    await next.connect(proxy.address, 1);
    proxy.holdAnswers = true;
    const collected = next.collect("t1");
    await until(() => custody.kept.size === 0);
    proxy.holdAnswers = false;
    proxy.cut();
    expect(await collected).toBe(true);
  });
});

it("a longer ticket ends the connection", async () => {
  await withScene(async ({ custody, other }) => {
    expect(await other.deposit(deposit("t".repeat(TICKET_CHARS)), NO_END)).toBe("");
    other.deposit(deposit("t".repeat(TICKET_CHARS + 1)), NO_END).catch(() => undefined);
    await until(() => other.disconnected);
    expect(custody.requests.length).toBe(1);
    other.shutdown();
  });
});

it("an owner without custody refuses", async () => {
  const { address } = await lab.owner();
  const remote = lab.remote();
  await remote.connect(address, 1);
  expect(await remote.deposit(deposit("t1"), NO_END)).toBe("this owner keeps nothing for others");
  expect(await remote.collect("t1")).toBe(false);
});

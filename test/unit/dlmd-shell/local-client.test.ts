/** The client of the local socket: what a program asks for, in which order, and what it is told. */
import path from "node:path";
import { afterEach, describe, expect, test, vi } from "vitest";
import { type GoneClient, LockFlag, type LockStatus } from "../../../dlmd/client/api.ts";
import { connectDlm } from "../../../dlmd/client/client.ts";
import { SOON_MS } from "../../../dlmd/client/connection.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import type { ClientEvent } from "../../../dlmd/wire/program.ts";
import { granted, heard, hello, info, localSocketLab, view } from "./local-socket-lab.ts";

const current = localSocketLab();

test("nobody there: what to do", async () => {
  const lab = current();
  await expect(connectDlm(path.join(lab.dir, "none.sock"), { view() {}, gone: async () => {}, disconnected() {} })).rejects.toMatchObject({
    code: "dlmd-not-running",
    hint: expect.stringContaining("Start dlmd"),
  });
});

test("welcome, lockspace, query, lock", async () => {
  const lab = current();
  const client = await lab.connect();
  expect(client.info).toEqual({ ...info, clientId: 1 });
  expect(client.view).toEqual(view);
  const space = await client.lockspace("data");
  expect(await client.lockspace("data")).toBe(space);
  await expect(client.lockspace("refused")).rejects.toMatchObject({ code: "lockspace-refused", message: "no" });
  expect(await client.query("nodes")).toEqual({ asked: "nodes" });
  expect(await client.query("status")).toEqual({ asked: "status", counters: { clients_connected: 1 }, multicast: heard });
  const status = await new Promise<LockStatus>((resolve) => {
    space.createLock("r", { ast: (_, ended) => resolve(ended), bast() {} }).request(Mode.EX, 0);
  });
  expect(status).toBe("granted");
});

test("what one turn asks for arrives as one read", async () => {
  const lab = current();
  const client = await lab.connect();
  const space = await client.lockspace("data");
  lab.reads.length = 0;
  let left = 100;
  await new Promise<void>((resolve) => {
    const ast = (): void => {
      if (--left === 0) resolve();
    };
    for (let lock = 0; lock < 100; lock++) space.createLock(`r${lock}`, { ast, bast() {} }).request(Mode.PR, 0);
  });
  expect(lab.reads.map(({ requests }) => requests.length)).toEqual([100]);
});

test("one request at a time; a conversion down and an unlock take effect when they are sent (hazard H2)", async () => {
  const lab = current();
  const client = await lab.connect();
  const space = await client.lockspace("data");
  const statuses: LockStatus[] = [];
  const basts: Mode[] = [];
  const lock = space.createLock("r", {
    ast(_, status) {
      statuses.push(status);
      lab.happened();
    },
    bast(_, wanted) {
      basts.push(wanted);
      lab.happened();
    },
  });
  expect(() => lock.unlock(0)).toThrow("nothing to unlock");
  lock.request(Mode.EX, 0);
  expect(() => lock.request(Mode.EX, 0)).toThrow("a request is outstanding");
  await lab.until(() => statuses.length === 1);
  expect([lock.mode, lock.busy]).toEqual([Mode.EX, false]);

  lab.onRequests = () => {};
  lock.request(Mode.PR, 0);
  expect([lock.mode, lock.busy]).toEqual([Mode.PR, true]);
  // On its way when the lock stepped down: PR does not block PR, but blocks EX.
  lab.send(client.info.clientId, { kind: "bast", lockId: 0, wanted: Mode.PR }, { kind: "bast", lockId: 0, wanted: Mode.EX });
  await lab.until(() => basts.length > 0);
  expect([statuses.length, basts]).toEqual([2, [Mode.EX]]);

  lock.unlock(0);
  expect(lock.mode).toBe(Mode.NL);
  expect(() => lock.unlock(0)).toThrow("a request is outstanding");
  await lab.until(() => statuses.length === 3);
  expect([statuses.at(-1), lock.exists, lock.busy]).toEqual(["unlocked", false, false]);
  await lab.until(() => lab.reads.at(-1)?.requests[0]?.kind === "unlock");
  expect(lab.reads.at(-1)?.requests).toEqual([{ kind: "unlock", lockId: 0, flags: 0, lvb: null, silent: true }]);
  expect([client.counters.sent, client.counters.received]).toEqual([5, 5]);
});

test("H2: what is asked for when a lock was given up goes along with it, under its number; a late blocking AST means nothing there", async () => {
  const lab = current();
  const client = await lab.connect();
  const space = await client.lockspace("data");
  const ends: string[] = [];
  const basts: Mode[] = [];
  const handlers = {
    ast(ended: { resource: string }, status: LockStatus) {
      ends.push(`${ended.resource} ${status}`);
      if (status === "unlocked" && ends.length === 2) next.request(Mode.PR, 0);
      lab.happened();
    },
    bast(_: unknown, wanted: Mode) {
      basts.push(wanted);
      lab.happened();
    },
  };
  const lock = space.createLock("r", handlers);
  const next = space.createLock("s", handlers);
  lock.request(Mode.EX, 0);
  await lab.until(() => ends.length === 1);
  lab.onRequests = () => {};
  lab.reads.length = 0;
  lock.unlock(0);
  // It goes whether it is forced or not, and there is one end.
  lock.unlock(LockFlag.FORCEUNLOCK);
  await lab.until(() => lab.reads.length === 1);
  expect(lab.reads[0]?.requests.map((request) => [request.kind, "lockId" in request && request.lockId])).toEqual([
    ["unlock", 0],
    ["lock", 0],
  ]);
  lab.send(client.info.clientId, { kind: "bast", lockId: 0, wanted: Mode.EX }, granted(0, Mode.PR), {
    kind: "bast",
    lockId: 0,
    wanted: Mode.PW,
  });
  await lab.until(() => basts.length > 0);
  expect([ends, basts, next.mode]).toEqual([["r granted", "r unlocked", "s granted"], [Mode.PW], Mode.PR]);
});

describe("an unlock that can wait", () => {
  afterEach(() => void vi.useRealTimers());

  /** Two locks that are held, of which the first is given up so. From then on timers are the test's. */
  async function givenUp() {
    const lab = current();
    const client = await lab.connect();
    const space = await client.lockspace("data");
    const statuses: LockStatus[] = [];
    const handlers = {
      ast(_: unknown, status: LockStatus) {
        statuses.push(status);
        lab.happened();
      },
      bast() {},
    };
    const [lock, other] = [space.createLock("r", handlers), space.createLock("s", handlers)];
    for (const one of [lock, other]) one.request(Mode.EX, 0);
    await lab.until(() => statuses.length === 2);
    lab.onRequests = () => {};
    lab.reads.length = 0;
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    lock.unlock(0, undefined, true);
    expect([lock.mode, vi.getTimerCount()]).toEqual([Mode.NL, 1]);
    const kinds = (): string[] => lab.reads.flatMap(({ requests }) => requests.map(({ kind }) => kind));
    const read = (): Promise<void> => lab.until(() => lab.reads.length > 0);
    await new Promise((resolve) => setImmediate(resolve));
    expect([statuses, kinds()]).toEqual([["granted", "granted", "unlocked"], []]);
    return { lab, client, other, kinds, read };
  }

  test("leaves SOON_MS later", async () => {
    const { kinds, read } = await givenUp();
    vi.advanceTimersByTime(SOON_MS - 1);
    await new Promise((resolve) => setImmediate(resolve));
    expect(kinds()).toEqual([]);
    vi.advanceTimersByTime(1);
    await read();
    expect([kinds(), vi.getTimerCount()]).toEqual([["unlock"], 0]);
  });

  test("leaves with what is asked for next, before it", async () => {
    const { other, kinds, read } = await givenUp();
    other.request(Mode.PR, 0);
    await read();
    expect([kinds(), vi.getTimerCount()]).toEqual([["unlock", "convert"], 0]);
  });

  test("leaves when dlmd says something: somebody may wait for that lock", async () => {
    const { lab, client, kinds, read } = await givenUp();
    lab.send(client.info.clientId, { kind: "bast", lockId: 0, wanted: Mode.PR });
    await read();
    expect(kinds()).toEqual(["unlock"]);
  });

  test("leaves at the end of the connection", async () => {
    const { client, kinds, read } = await givenUp();
    await client.close();
    await read();
    expect(kinds()).toEqual(["unlock"]);
  });
});

test("an unlock whose end only dlmd knows waits for it", async () => {
  const lab = current();
  const client = await lab.connect();
  const space = await client.lockspace("data");
  const statuses: LockStatus[] = [];
  const lock = space.createLock("r", {
    ast(_, status) {
      statuses.push(status);
      lab.happened();
    },
    bast() {},
  });
  lock.request(Mode.EX, 0);
  await lab.until(() => statuses.length === 1);
  lab.onRequests = () => {};
  lab.reads.length = 0;
  // dlmd refuses its flags.
  lock.unlock(LockFlag.NOQUEUE);
  await lab.until(() => lab.reads.length === 1);
  expect(lab.reads[0]?.requests).toEqual([{ kind: "unlock", lockId: 0, flags: LockFlag.NOQUEUE, lvb: null }]);
  expect([statuses.length, lock.busy]).toEqual([1, true]);
});

test("what is asked for when a conversion down has ended goes along with it: each request has its own result", async () => {
  const lab = current();
  const client = await lab.connect();
  const space = await client.lockspace("data");
  const ends: [LockStatus, Mode][] = [];
  const lock = space.createLock("r", {
    ast(ended, status) {
      ends.push([status, ended.mode]);
      if (ends.length === 2) ended.request(Mode.EX, LockFlag.VALBLK);
      lab.happened();
    },
    bast() {},
  });
  lock.request(Mode.EX, 0);
  await lab.until(() => ends.length === 1);
  lab.onRequests = () => {};
  lab.reads.length = 0;
  lock.request(Mode.NL, LockFlag.VALBLK, new Uint8Array(8));
  await lab.until(() => lab.reads.length === 1);
  expect(lab.reads[0]?.requests.map((request) => request.kind === "convert" && [request.mode, request.silent])).toEqual([
    [Mode.NL, true],
    [Mode.EX, undefined],
  ]);
  expect(ends.slice(1)).toEqual([["granted", Mode.NL]]);
  expect([lock.mode, lock.busy]).toEqual([Mode.NL, true]);
  lab.send(client.info.clientId, granted(0, Mode.EX));
  await lab.until(() => ends.length === 3);
  expect(ends[2]).toEqual(["granted", Mode.EX]);

  // Cut short before it is told: its own result, then the end of the lock.
  lock.request(Mode.CR, 0);
  lock.unlock(LockFlag.FORCEUNLOCK);
  lab.send(client.info.clientId, { ...granted(0, Mode.NL), status: "unlocked" } as ClientEvent);
  await lab.until(() => ends.length === 5);
  expect(ends.slice(3)).toEqual([
    ["granted", Mode.NL],
    ["unlocked", Mode.NL],
  ]);
});

test("a conversion whose result only dlmd knows waits for it", async () => {
  const lab = current();
  const client = await lab.connect();
  const space = await client.lockspace("data");
  const statuses: LockStatus[] = [];
  const lock = space.createLock("r", {
    ast(_, status) {
      statuses.push(status);
      lab.happened();
    },
    bast() {},
  });
  lock.request(Mode.PR, 0);
  await lab.until(() => statuses.length === 1);
  lab.onRequests = () => {};
  // It reads the block; it is not down; dlmd refuses its flags.
  for (const [mode, flags] of [
    [Mode.PR, LockFlag.VALBLK],
    [Mode.CW, 0],
    [Mode.NL, LockFlag.QUECVT],
  ] as const) {
    lab.reads.length = 0;
    lock.request(mode, flags);
    await lab.until(() => lab.reads.length === 1);
    expect([statuses.length, lock.busy]).toEqual([1, true]);
    lab.send(client.info.clientId, granted(0, Mode.PR));
    await lab.until(() => statuses.length === 2);
    statuses.pop();
  }
});

test("what one turn says to a group leaves as one, and arrives as what was said", async () => {
  const lab = current();
  const client = await lab.connect();
  const self = { nodeid: 1, incarnation: "aa", clientId: client.info.clientId };
  lab.onRequests = (clientId, requests) => {
    for (const request of requests) {
      if (request.kind !== "group-join" && request.kind !== "group-send" && request.kind !== "group-leave") continue;
      const { requestId, group } = request;
      lab.send(clientId, { kind: "group-result", requestId, result: "accepted" });
      if (request.kind === "group-join") lab.send(clientId, { kind: "group-members", group, members: [self], joined: [self], left: [] });
      if (request.kind === "group-send") lab.send(clientId, { ...request, kind: "group-message", from: self, seq: 7 });
    }
  };
  const heard: string[] = [];
  const group = await client.join("g", {
    members: () => {},
    message({ seq, data }) {
      heard.push(`${seq} ${Buffer.from(data).toString()}`);
      lab.happened();
    },
    ended: () => {},
  });
  lab.reads.length = 0;
  const word = Buffer.from("one");
  const said = [group.multicast(word)];
  // It was taken when it was said.
  word.fill(0);
  said.push(group.multicast(Buffer.from("")), group.multicast(Buffer.from("three")));
  await Promise.all(said);
  await lab.until(() => heard.length === 3);
  expect(heard).toEqual(["7 one", "8 ", "9 three"]);
  // Too long to go with others.
  const long = Buffer.alloc(40_000, "x");
  await Promise.all([group.multicast(Buffer.from("a")), group.multicast(long), group.multicast(Buffer.from("b"))]);
  await lab.until(() => heard.length === 6);
  expect(heard.slice(3)).toEqual(["7 a", `7 ${long.toString()}`, "7 b"]);
  // In its place among the others.
  const last = group.multicast(Buffer.from("last"));
  void group.leave().catch(() => undefined);
  await last;
  const asked = lab.reads.flatMap(({ requests }) =>
    requests.map((request) => (request.kind === "group-send" ? request.count : request.kind)),
  );
  expect(asked).toEqual([3, 1, 1, 1, 1, "group-leave"]);
});

test("a refusal carries its reason, and a first request that failed leaves no lock", async () => {
  const lab = current();
  const client = await lab.connect();
  const space = await client.lockspace("data");
  lab.onRequests = (clientId, requests) => {
    for (const request of requests) {
      if (request.kind !== "lock") continue;
      const error = { errno: 37, message: "too many locks" };
      lab.send(clientId, { ...granted(request.lockId, Mode.NL), status: "error", error } as ClientEvent);
    }
  };
  const ends: [LockStatus, string | undefined][] = [];
  const lock = space.createLock("r", {
    ast(ended, status) {
      ends.push([status, ended.error?.message]);
      lab.happened();
    },
    bast() {},
  });
  lock.request(Mode.EX, 0);
  await lab.until(() => ends.length === 1);
  expect(ends).toEqual([["error", "lock r: too many locks"]]);
  expect(lock.error).toMatchObject({ code: "ENOLCK" });
  expect(() => lock.unlock(0)).toThrow("nothing to unlock");
  lock.request(Mode.EX, 0);
  await lab.until(() => ends.length === 2);
  expect(lab.reads.at(-1)?.requests[0]).toMatchObject({ kind: "lock", lockId: 0 });
});

test("names that no dlmd takes are refused here", async () => {
  const lab = current();
  const space = await (await lab.connect()).lockspace("data");
  const handlers = { ast() {}, bast() {} };
  expect(() => space.createLock("", handlers)).toThrow("1 to 64 bytes");
  expect(() => space.createLock("é".repeat(33), handlers)).toThrow("found 66 bytes");
  expect(space.createLock("é".repeat(32), handlers).resource).toHaveLength(32);
});

test("gone is acknowledged when the handler has resolved, not before (hazard C7)", async () => {
  const lab = current();
  let stopServing = (): void => {};
  const named: GoneClient[] = [];
  const client = await lab.connect({
    gone(clients_) {
      named.push(...clients_);
      lab.happened();
      return new Promise((resolve) => (stopServing = resolve));
    },
  });
  lab.send(client.info.clientId, { kind: "gone", goneId: 7, clients: [{ nodeid: 2, incarnation: "bb", clientId: null }] });
  await lab.until(() => named.length === 1);
  await client.query("status");
  expect(lab.reads.flatMap(({ requests }) => requests).some((request) => request.kind === "gone-ack")).toBe(false);
  stopServing();
  await lab.until(() => lab.reads.at(-1)?.requests[0]?.kind === "gone-ack");
  expect(lab.reads.at(-1)?.requests).toEqual([{ kind: "gone-ack", goneId: 7 }]);
});

test("who has closed is gone for dlmd: others who ask it after that hear so (coverlay restart --dlmd)", async () => {
  const lab = current();
  const client = await lab.connect();
  await client.lockspace("data");
  expect(lab.gone).toEqual([]);
  await client.close();
  expect(lab.gone).toEqual([1]);
});

test("a lost connection is told once, and ends what waits", async () => {
  const lab = current();
  const reasons: Error[] = [];
  const tolds: boolean[] = [];
  lab.onRequests = () => {};
  const client = await lab.connect({
    disconnected(reason, told) {
      reasons.push(reason);
      tolds.push(told);
      lab.happened();
    },
  });
  const waiting = client.lockspace("data");
  lab.server.dropClients("evicted");
  await expect(waiting).rejects.toMatchObject({ code: "disconnected", message: "dlmd ended the connection: evicted" });
  await lab.until(() => reasons.length > 0);
  await expect(client.query("status")).rejects.toThrow("over");
  expect([reasons.length, tolds]).toEqual([1, [true]]);
  expect(lab.gone).toEqual([1]);
});

test("a life of dlmd ends: who has not had its welcome yet waits for the next one, and has not been refused", async () => {
  const lab = current();
  const silent = await lab.stranger();
  lab.onConnected = () => {};
  const waiting = lab.connect();
  await lab.until(() => lab.connected.length === 1);
  lab.server.dropClients("evicted");
  lab.onConnected = (clientId) => lab.send(clientId, { kind: "view", view });
  silent.socket.write(hello());
  await lab.until(() => silent.heard.length > 0);
  lab.send(2, { kind: "view", view });
  expect((await waiting).view).toEqual(view);
  expect(silent.heard).toEqual(["welcome"]);
  expect(lab.gone).toEqual([]);
});

test("dlmd ends before the welcome: the connection has ended, dlmd has not refused", async () => {
  const lab = current();
  lab.onConnected = () => {};
  const waiting = lab.connect();
  waiting.catch(() => undefined);
  await lab.until(() => lab.connected.length === 1);
  await lab.server.close("dlmd stops");
  await expect(waiting).rejects.toMatchObject({ code: "disconnected" });
  expect([lab.gone, lab.endedHere]).toEqual([[1], [1]]);
});

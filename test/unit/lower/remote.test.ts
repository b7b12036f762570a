/** The wire between a caller and one owner: sessions, answers that were lost, refusals. */
import fs from "node:fs";
import { connect } from "node:net";
import { afterEach, expect, it, vi } from "vitest";
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import { createLocalLower } from "../../../overlay/lower/local/local.ts";
import type { Fetched } from "../../../overlay/lower/lower.ts";
import { ACKS_MIN } from "../../../overlay/lower/remote/acknowledgements.ts";
import { UNAWAITED_MS } from "../../../overlay/lower/remote/connection.ts";
import { MAX_RUNNING_CALLS } from "../../../overlay/lower/server/session.ts";
import { nativeAddon } from "../../../native/index.ts";
import { caller, errnoOf, name, RDWR, remoteLab, until } from "./remote-lab.ts";
import type { MaybePromise } from "../../../dlmd/base/maybe-promise.ts";

const lab = remoteLab();
const { owner, proxyTo, refusal, remote } = lab;
afterEach(() => void vi.useRealTimers());

it("an append whose file is cut before it is answered, because its caller was killed, does not take the owner down", async () => {
  const real = nativeAddon();
  const write: typeof real.pool.data.write = async (...args) => {
    const count = await real.pool.data.write(...args);
    fs.truncateSync(`${lab.place.path}/f`, 0);
    return count;
  };
  const native = { ...real, pool: { ...real.pool, data: { ...real.pool.data, write } } };
  const lower = createLocalLower({ native, rootFd: lab.place.rootFd, metadataCalls: "inline", log: silentLog });
  const to = await owner(1, () => lower);
  try {
    const from = remote();
    await from.connect(to.address, 1);
    const { handle } = await from.create(from.root, name("f"), RDWR, 0o644, caller);
    expect(await from.write(handle, Buffer.from("some text"), 0, true)).toEqual({ offset: 0, bytes: 9 });
  } finally {
    await to.server.close();
    await lower.shutdown();
  }
});

it("fetches attributes and data in one trip, as they are then", async () => {
  const to = await owner();
  const [writer, reader] = [remote(), remote({ nodeid: 3 })];
  for (const one of [writer, reader]) await one.connect(to.address, 1);
  const { entry, handle } = await writer.create(writer.root, name("f"), RDWR, 0o644, caller);
  const open = await reader.open(entry.id, RDWR);
  const fetched = async (): Promise<Fetched> => {
    const answer = await reader.fetch(entry.id, open, 0, 100);
    if (answer === null) throw new Error("the lower of another node fetches");
    return answer;
  };
  const before = await fetched();
  expect([before.attr.size, before.data.byteLength]).toEqual([0, 0]);
  await writer.write(handle, Buffer.from("text"), 0, false);
  const after = await fetched();
  expect([after.attr.size, Buffer.from(after.data).toString()]).toEqual([4, "text"]);
});

it("is refused with a reason: another cluster, volume", async () => {
  const one = await owner();
  expect(await refusal({}, one)).toBe("welcome");
  expect(await refusal({ clusterName: "other" }, one)).toBe("other-cluster");
  expect(await refusal({ volumeUuid: "other" }, one)).toBe("other-volume");
  expect(one.server.sessions.length).toBe(1);
});

it("does not show itself to an owner without the secret, nor the owner to a stranger's frames", async () => {
  const one = await owner();
  const stranger = connect(one.address.port, "127.0.0.1");
  await new Promise<void>((resolve) => stranger.once("connect", () => resolve()));
  const closed = new Promise<void>((resolve) => stranger.once("close", () => resolve()));
  stranger.on("error", () => undefined);
  stranger.write(Buffer.from("GET / HTTP/1.1\r\n\r\n"));
  await closed;
  expect(one.server.sessions.length).toBe(0);
});

it("does a change once, though its connection broke before the answer came", async () => {
  const one = await owner();
  const proxy = await proxyTo(one);
  const lower = remote();
  await lower.connect(proxy.address, 1);
  proxy.holdAnswers = true;
  const changes = Array.from({ length: 20 }, (_, n) => lower.mkdir(lower.root, name(`d${n}`), 0o755, caller));
  const file = lower.create(lower.root, name("f"), RDWR, 0o644, caller);
  const attr = lower.getattr(lower.root);
  await until(() => fs.existsSync(`${lab.place.path}/f`));
  proxy.cut();
  proxy.holdAnswers = false;
  // A second execution would be EEXIST.
  await Promise.all(changes.map(async (one) => await one));
  const { handle } = await file;
  expect((await attr).ino).toBe(lower.root.ino);
  await lower.write(handle, Buffer.from("through the same handle"), 0, false);
  proxy.cut();
  await lower.write(handle, Buffer.from("!"), 0, true);
  expect(fs.readFileSync(`${lab.place.path}/f`, "utf8")).toBe("through the same handle!");
  expect(one.server.sessions.length).toBe(1);
  expect(one.server.sessions[0]?.openHandles).toBe(1);
});

it("is welcomed also where large packets are lost: the answers that it gets again come behind that", async () => {
  const one = await owner();
  const proxy = await proxyTo(one);
  let welcomes = 0;
  const lower = remote({}, silentLog, { moves: { missed: () => void (welcomes += 1), moved: () => undefined } });
  await lower.connect(proxy.address, 1);
  proxy.holdAnswers = true;
  const changes = Array.from({ length: 20 }, (_, n) => lower.mkdir(lower.root, name(`d${n}`), 0o755, caller));
  await until(() => fs.existsSync(`${lab.place.path}/d19`));
  await until(() => one.server.sessions[0]?.rememberedAnswers === changes.length);
  proxy.recordMax = 1400;
  proxy.cut();
  await until(() => welcomes === 2);
  proxy.recordMax = Number.POSITIVE_INFINITY;
  proxy.holdAnswers = false;
  proxy.cut();
  const names = (await Promise.all(changes.map(async (one) => await one))).map(({ attr }) => attr.nlink);
  expect(names).toEqual(changes.map(() => 2));
});

it("tells of a sync that failed, though its connection broke before the answer came: the kernel tells it once", async () => {
  const ran: string[] = [];
  const once = (call: string, good: () => MaybePromise<void>): MaybePromise<void> => {
    ran.push(call);
    if (ran.filter((one) => one === call).length === 1) throw errnoError(E.ENOSPC);
    return good();
  };
  const one = await owner(1, (lower) => ({
    ...lower,
    fsync: (handle, dataOnly) => once("fsync", () => lower.fsync(handle, dataOnly)),
    fsyncdir: (handle, dataOnly) => once("fsyncdir", () => lower.fsyncdir(handle, dataOnly)),
    syncfs: async () => await once("syncfs", () => lower.syncfs()),
  }));
  const proxy = await proxyTo(one);
  const lower = remote();
  await lower.connect(proxy.address, 1);
  const { handle } = await lower.create(lower.root, name("f"), RDWR, 0o644, caller);
  const dir = await lower.opendir(lower.root);
  proxy.holdAnswers = true;
  const errnos = Promise.all([() => lower.fsync(handle, false), () => lower.fsyncdir(dir, false), () => lower.syncfs()].map(errnoOf));
  await until(() => ran.length === 3);
  proxy.cut();
  proxy.holdAnswers = false;
  expect(await errnos).toEqual([E.ENOSPC, E.ENOSPC, E.ENOSPC]);
  expect(ran).toEqual(["fsync", "fsyncdir", "syncfs"]);
  // And its answer is forgotten when the caller has it: create and these three, with some more, are as many as go together.
  for (let n = 4; n < ACKS_MIN; n += 1) await lower.mkdir(lower.root, name(`d${n}`), 0o755, caller);
  expect(one.server.sessions[0]?.rememberedAnswers).toBe(ACKS_MIN);
  await lower.getattr(lower.root);
  expect(one.server.sessions[0]?.rememberedAnswers).toBe(0);
});

it("forgets answers that the caller has", async () => {
  const one = await owner();
  const lower = remote();
  await lower.connect(one.address, 1);
  for (let n = 0; n < 3 * ACKS_MIN; n += 1) {
    await lower.mkdir(lower.root, name(`d${n}`), 0o755, caller);
    expect(one.server.sessions[0]?.rememberedAnswers).toBeLessThanOrEqual(ACKS_MIN);
  }
  await lower.getattr(lower.root);
  expect(one.server.sessions[0]?.rememberedAnswers).toBe(0);
});

it("acknowledges again what was acknowledged on a connection that broke", async () => {
  const one = await owner();
  const proxy = await proxyTo(one);
  const lower = remote();
  await lower.connect(proxy.address, 1);
  for (let round = 0; round < 3; round += 1) {
    await Promise.all(Array.from({ length: 20 }, async (_, n) => await lower.mkdir(lower.root, name(`d${round}-${n}`), 0o755, caller)));
    const swallowed = new Promise<void>((resolve) => {
      proxy.onRequest = resolve;
    });
    proxy.dropRequests = true;
    const question = lower.getattr(lower.root);
    await swallowed;
    proxy.onRequest = null;
    proxy.cut();
    proxy.dropRequests = false;
    await question;
  }
  await lower.getattr(lower.root);
  await lower.getattr(lower.root);
  expect(one.server.sessions.length).toBe(1);
  expect(one.server.sessions[0]?.rememberedAnswers).toBe(0);
});

it("is served no more when declared gone, though a read of it waits for a slow disk; then its handles are closed (C7)", async () => {
  let release: () => void = () => undefined;
  const gate = new Promise<void>((resolve) => {
    release = resolve;
  });
  let reads = 0;
  const one = await owner(1, (lower) => ({
    ...lower,
    async read(...args) {
      reads += 1;
      await gate;
      return await lower.read(...args);
    },
  }));
  const victim = remote();
  await victim.connect(one.address, 1);
  const { handle } = await victim.create(victim.root, name("f"), RDWR, 0o644, caller);
  const dead = errnoOf(async () => victim.read(handle, 0, 10));
  await until(() => reads === 1);
  await one.server.closeSessions([{ nodeid: 2, incarnation: "i1", clientId: 5 }]);
  expect([await dead, one.lower.openHandles, one.server.sessions.length]).toEqual([E.EIO, 1, 1]);
  release();
  await until(() => one.server.sessions.length === 0);
  expect([one.lower.openHandles, await refusal({}, one)]).toEqual([0, "gone"]);
});

it("is closed for ever when declared gone, after what runs of it has ended (C7)", async () => {
  let release: () => void = () => undefined;
  const gate = new Promise<void>((resolve) => {
    release = resolve;
  });
  let writes = 0;
  const one = await owner(1, (lower) => ({
    ...lower,
    async write(...args) {
      writes += 1;
      await gate;
      return await lower.write(...args);
    },
  }));
  const victim = remote();
  const neighbour = remote({ clientId: 6 });
  await victim.connect(one.address, 1);
  await neighbour.connect(one.address, 1);
  const { handle } = await victim.create(victim.root, name("f"), RDWR, 0o644, caller);
  const dead = errnoOf(() => victim.write(handle, Buffer.from("late"), 0, false));
  await until(() => writes === 1);
  let closed = false;
  const closing = (async () => {
    await one.server.closeSessions([{ nodeid: 2, incarnation: "i1", clientId: 5 }]);
    closed = true;
  })();
  // The victim comes back at once, and is told.
  expect(await dead).toBe(E.EIO);
  expect(closed).toBe(false);
  expect(fs.readFileSync(`${lab.place.path}/f`, "utf8")).toBe("");
  release();
  await closing;
  // What ran has ended before the answer: nothing of it happens later.
  expect(fs.readFileSync(`${lab.place.path}/f`, "utf8")).toBe("late");
  expect(one.lower.openHandles).toBe(0);
  expect(await refusal({}, one)).toBe("gone");
  expect((await neighbour.getattr(neighbour.root)).nlink).toBeGreaterThan(0);
  await one.server.closeSessions([{ nodeid: 2, incarnation: "i1", clientId: null }]);
  expect(one.server.sessions.length).toBe(0);
  expect(await refusal({ clientId: 7 }, one)).toBe("gone");
  expect(await refusal({ incarnation: "i2" }, one)).toBe("welcome");
});

it("asks thousands at once, a bounded number at a time, several in a message", async () => {
  let running = 0;
  let most = 0;
  const one = await owner(1, (lower) => ({
    ...lower,
    async statfs() {
      running += 1;
      most = Math.max(most, running);
      await new Promise((resolve) => setImmediate(resolve));
      running -= 1;
      return await lower.statfs();
    },
  }));
  const lower = remote();
  await lower.connect(one.address, 1);
  const before = { ...lower.counters };
  const answers = await Promise.all(Array.from({ length: 5000 }, async () => await lower.statfs()));
  expect(answers.length).toBe(5000);
  expect(most).toBeGreaterThan(1);
  expect(most).toBeLessThanOrEqual(MAX_RUNNING_CALLS);
  expect(lower.counters.roundTrips - before.roundTrips).toBe(5000);
  expect(lower.counters.messagesSent - before.messagesSent).toBe(5000);
  expect(lower.counters.flushes - before.flushes).toBeLessThan(2500);
});

it("sends the first of a turn before the turn is over, the others of that turn in one more write", async () => {
  const one = await owner();
  const lower = remote();
  await lower.connect(one.address, 1);
  await lower.statfs();
  // A turn of its own.
  await new Promise((resolve) => setImmediate(resolve));
  const before = { ...lower.counters };
  const turnOver = new Promise((resolve) => setImmediate(resolve));
  const answers = [lower.statfs()];
  await new Promise<void>((resolve) => process.nextTick(resolve));
  expect(lower.counters.flushes - before.flushes).toBe(1);
  for (let i = 0; i < 9; i++) {
    answers.push(lower.statfs());
    await new Promise<void>((resolve) => process.nextTick(resolve));
  }
  expect(lower.counters.flushes - before.flushes).toBe(1);
  await turnOver;
  await Promise.all(answers.map(async (answer) => await answer));
  expect(lower.counters.flushes - before.flushes).toBe(2);
  expect(lower.counters.messagesSent - before.messagesSent).toBe(10);
});

it("sends what nobody waits for in one write with the next call that is waited for, or a moment later", async () => {
  const one = await owner();
  const lower = remote();
  await lower.connect(one.address, 1);
  const made = await Promise.all(
    ["a", "b", "c", "d", "e"].map(async (it) => await lower.create(lower.root, name(it), RDWR, 0o644, caller)),
  );
  const [a, b, c, d, e] = made.map(({ handle }) => handle);
  if (a === undefined || b === undefined || c === undefined || d === undefined || e === undefined) throw new Error("five files are made");
  // A turn of its own.
  await new Promise((resolve) => setImmediate(resolve));
  // On a busy machine that moment is over before the turn is.
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  const before = { ...lower.counters };
  const grown = (): number[] => [lower.counters.flushes - before.flushes, lower.counters.roundTrips - before.roundTrips];
  lower.close(a);
  const turnOver = new Promise((resolve) => setImmediate(resolve));
  await new Promise<void>((resolve) => process.nextTick(resolve));
  expect(grown()).toEqual([0, 0]);
  const answer = lower.statfs();
  await new Promise<void>((resolve) => process.nextTick(resolve));
  expect(grown()).toEqual([1, 0]);
  lower.close(b);
  lower.close(c);
  await new Promise<void>((resolve) => process.nextTick(resolve));
  expect(grown()).toEqual([1, 0]);
  await turnOver;
  expect(grown()[0]).toBe(1);
  vi.advanceTimersByTime(UNAWAITED_MS);
  expect(grown()[0]).toBe(2);
  // Once more: the timer is the same one.
  lower.close(d);
  await new Promise<void>((resolve) => process.nextTick(resolve));
  vi.advanceTimersByTime(UNAWAITED_MS - 1);
  expect(grown()[0]).toBe(2);
  vi.advanceTimersByTime(1);
  expect(grown()[0]).toBe(3);
  vi.useRealTimers();
  await answer;
  await until(() => grown()[1] === 5);
  expect(grown()[0]).toBe(3);
  lower.close(e);
  lower.hurry();
  expect(grown()[0]).toBe(4);
  lower.hurry();
  expect(grown()[0]).toBe(4);
});

it("costs one message each way", async () => {
  const one = await owner();
  const lower = remote();
  await lower.connect(one.address, 1);
  const { handle } = await lower.create(lower.root, name("f"), RDWR, 0o644, caller);
  await lower.write(handle, Buffer.alloc(4096), 0, false);
  await lower.getattr(lower.root);
  const before = { ...lower.counters };
  await lower.read(handle, 0, 4096);
  expect(lower.counters.messagesSent - before.messagesSent).toBe(1);
  expect(lower.counters.messagesReceived - before.messagesReceived).toBe(1);
  expect(lower.counters.bytesReceived - before.bytesReceived).toBe(4096 + 9);
});

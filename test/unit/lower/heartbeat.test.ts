/** The sign of life on a connection between two overlays (hazard H13), by a clock of the test's own: what each end says, and what silence means. */
import { type AddressInfo, createServer, type Socket } from "node:net";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import { createKeyring } from "../../../dlmd/tls/keyring.ts";
import { createSecureAcceptor } from "../../../dlmd/tls/secure-connection.ts";
import { WELCOME_TIMEOUT_MS } from "../../../overlay/lower/remote/connection.ts";
import { LONG_SILENCE_MS, MAX_FRUITLESS_CONNECTIONS } from "../../../overlay/lower/remote/fruitless-connections.ts";
import { ownerWaitWords } from "../../../overlay/lower/owner-wait.ts";
import type { RemoteLower } from "../../../overlay/lower/remote/remote.ts";
import { DEAD_MS, Heartbeat, PING_MS } from "../../../overlay/lower/wire/heartbeat.ts";
import { TEST_OWNER } from "../../compliance/lower-fixture.ts";
import { caller, name, remoteLab, until } from "./remote-lab.ts";

const lab = remoteLab();

beforeEach(() => void vi.useFakeTimers({ toFake: ["setInterval", "clearInterval", "setTimeout", "clearTimeout", "performance"] }));
afterEach(() => {
  vi.useRealTimers();
});

describe("a heartbeat", () => {
  function scene() {
    const seen = { alive: 0, dead: 0, listening: true };
    const heartbeat = new Heartbeat({
      sendAlive: () => void (seen.alive += 1),
      dead: () => void (seen.dead += 1),
      isListening: () => seen.listening,
    });
    return { heartbeat, seen };
  }

  it("speaks when nothing else was said for PING_MS, and is silent otherwise", () => {
    const { heartbeat, seen } = scene();
    for (let look = 0; look < 10; look += 1) {
      heartbeat.heard();
      heartbeat.sent();
      vi.advanceTimersByTime(PING_MS);
    }
    expect(seen).toMatchObject({ alive: 0, dead: 0 });
    heartbeat.heard();
    vi.advanceTimersByTime(PING_MS);
    expect(seen).toMatchObject({ alive: 1, dead: 0 });
    heartbeat.stop();
  });

  it("calls the peer dead DEAD_MS after it was heard last, once, and not before", () => {
    const { heartbeat, seen } = scene();
    vi.advanceTimersByTime(PING_MS - 1);
    heartbeat.heard();
    vi.advanceTimersByTime(1);
    vi.advanceTimersByTime(DEAD_MS - 1);
    expect(seen.dead).toBe(0);
    vi.advanceTimersByTime(1);
    expect(seen).toMatchObject({ dead: 1, alive: DEAD_MS / PING_MS });
    vi.advanceTimersByTime(10 * DEAD_MS);
    expect(seen).toMatchObject({ dead: 1, alive: DEAD_MS / PING_MS });
  });

  it("may be told to wait longer for a sign of life", () => {
    let dead = 0;
    const events = { sendAlive: () => undefined, dead: () => void (dead += 1), isListening: () => true };
    const heartbeat = new Heartbeat(events, LONG_SILENCE_MS);
    vi.advanceTimersByTime(LONG_SILENCE_MS - 1);
    expect(dead).toBe(0);
    vi.advanceTimersByTime(1);
    expect(dead).toBe(1);
    heartbeat.stop();
  });

  it("speaks, but calls nobody dead, while it does not read what comes", () => {
    const { seen } = scene();
    seen.listening = false;
    vi.advanceTimersByTime(10 * DEAD_MS);
    expect(seen).toMatchObject({ dead: 0, alive: (10 * DEAD_MS) / PING_MS });
    seen.listening = true;
    vi.advanceTimersByTime(DEAD_MS);
    expect(seen.dead).toBe(1);
  });
});

/** Lets the clock go on, in steps, while what was sent arrives. */
async function pass(ms: number): Promise<void> {
  const step = Math.min(ms, PING_MS / 2);
  for (let passed = 0; passed < ms; passed += step) {
    vi.advanceTimersByTime(step);
    for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  }
}

const words = (lower: RemoteLower): string | null => (lower.ownerWait === null ? null : ownerWaitWords(lower.ownerWait));

describe("two overlays", () => {
  it("keep a connection on which nothing happens", async () => {
    const owner = await lab.owner();
    const proxy = await lab.proxyTo(owner);
    const lower = lab.remote();
    await lower.connect(proxy.address, 1);
    const before = { ...lower.counters };
    await pass(5 * DEAD_MS);
    expect(lower.disconnected).toBe(false);
    expect(lower.counters.bytesReceived).toBeGreaterThan(before.bytesReceived);
    // They are no messages of calls.
    expect(lower.counters.messagesSent).toBe(before.messagesSent);
    expect(owner.server.sessions).toHaveLength(1);
  });

  it("go on over another connection when the path was cut without a word, and a change whose answer was lost is made once", async () => {
    const owner = await lab.owner();
    const proxy = await lab.proxyTo(owner);
    const reasons: unknown[] = [];
    const lower = lab.remote({}, { ...silentLog, warn: ({ reason }) => void reasons.push(reason) });
    await lower.connect(proxy.address, 1);
    proxy.holdAnswers = true;
    proxy.onRequest = () => void (proxy.dropRequests = true);
    const made = Promise.resolve(lower.mkdir(lower.root, name("once"), 0o755, caller));
    await until(() => proxy.dropRequests);
    await pass(2 * PING_MS);
    expect(words(lower)).toMatch(/^the owner has not answered: 1 call waits, a mkdir for \d\.\d s$/);
    expect(lower.ownerWait?.inOwnersHands).toBe(true);
    await pass(DEAD_MS);
    expect(reasons[0]).toBe("nothing was heard of the owner for 10000 ms");
    expect(words(lower)).toMatch(/^no connection to the owner \(.*\): 1 call waits, a mkdir for/);
    proxy.holdAnswers = false;
    proxy.dropRequests = false;
    proxy.onRequest = null;
    await pass(WELCOME_TIMEOUT_MS + 2000);
    expect((await made).attr.nlink).toBe(2);
    expect([lower.ownerWait, lower.disconnected]).toEqual([null, false]);
  });

  it("end a connection at the owner, too, when nothing is heard of the caller; the session stays", async () => {
    const owner = await lab.owner();
    const proxy = await lab.proxyTo(owner);
    const lower = lab.remote();
    await lower.connect(proxy.address, 1);
    proxy.dropRequests = true;
    const [session] = owner.server.sessions;
    expect(session?.sink).not.toBeNull();
    await pass(DEAD_MS + 2 * PING_MS);
    expect(session?.sink).toBeNull();
    expect(owner.server.sessions).toEqual([session]);
  });
});

describe("a caller tells apart", () => {
  /** With a call that waits. */
  async function callerOf(host: string, port: number): Promise<RemoteLower> {
    const owner = await lab.owner();
    const lower = lab.remote({}, silentLog);
    await lower.connect(owner.address, 1);
    lower.ownerFound({ ...TEST_OWNER, host, port }, 2);
    void Promise.resolve(lower.statfs()).catch(() => undefined);
    return lower;
  }

  it("an owner whose host takes connections and that says nothing: the call waits for the owner", async () => {
    const taken: Socket[] = [];
    const server = createServer((socket) => void taken.push(socket.on("error", () => undefined)));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const lower = await callerOf("127.0.0.1", (server.address() as AddressInfo).port);
    expect(lower.ownerWait?.inOwnersHands).toBe(false);
    await until(() => taken.length > 0);
    await pass(WELCOME_TIMEOUT_MS);
    expect(lower.ownerWait?.inOwnersHands).toBe(true);
    expect(words(lower)).toMatch(/no answer within 5000 ms: the owner's host takes connections, and the owner says nothing/);
    // And from one try to the next.
    await pass(DEAD_MS);
    expect(lower.ownerWait?.inOwnersHands).toBe(true);
    lower.shutdown();
    for (const socket of taken) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  });

  /** Something at the owner's port, and what a caller makes of it after some tries. */
  async function inOwnersHands(taken: (socket: Socket) => void, after = MAX_FRUITLESS_CONNECTIONS + 1): Promise<boolean | undefined> {
    const tries: Socket[] = [];
    const server = createServer((socket) => {
      tries.push(socket.on("error", () => undefined));
      taken(socket);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const lower = await callerOf("127.0.0.1", (server.address() as AddressInfo).port);
    while (tries.length < after) await pass(1);
    const found = lower.ownerWait?.inOwnersHands;
    lower.shutdown();
    for (const socket of tries) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
    return found;
  }

  it("an owner that ends connections now and then: the call waits for it; from the third in a row on it can not be reached", async () => {
    for (const end of [(socket: Socket) => void socket.destroy(), (socket: Socket) => void socket.resetAndDestroy()]) {
      expect(await inOwnersHands(end, MAX_FRUITLESS_CONNECTIONS - 1)).toBe(true);
      expect(await inOwnersHands(end)).toBe(false);
    }
  });

  it("another program at the owner's port, or an owner without a key in common: the call is not the owner's", async () => {
    expect(await inOwnersHands((socket) => void socket.end("HTTP/1.1 400 Bad Request\r\n\r\n"))).toBe(false);
    const acceptor = createSecureAcceptor(() => createKeyring([Buffer.alloc(32, 99)]));
    const end = (socket: Socket) => (): void => void socket.destroy();
    expect(await inOwnersHands((socket) => acceptor.accept(socket, { secured: end(socket), failed: end(socket) }))).toBe(false);
  });

  it("an owner that is not there: the call is not the owner's", async () => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    await new Promise((resolve) => server.close(resolve));
    const lower = await callerOf("127.0.0.1", port);
    await pass(WELCOME_TIMEOUT_MS);
    expect(lower.ownerWait?.inOwnersHands).toBe(false);
    expect(words(lower)).toMatch(/^no connection to the owner \(connect ECONNREFUSED/);
  });
});

/** Timers and limits of the sockets on one machine: the clock is the test's, a hundred times too fast where Node.js keeps it. */
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import type { Server as HttpServer } from "node:http";
import { type Server, Socket, createConnection, createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { Duplex } from "node:stream";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import { createMetrics } from "../../../dlmd/base/metric.ts";
import { askAdmin } from "../../../dlmd/client/admin.ts";
import { connectDlm } from "../../../dlmd/client/client.ts";
import { Connection } from "../../../dlmd/client/connection.ts";
import { startAdminServer } from "../../../dlmd/server/admin-server.ts";
import { LocalClient } from "../../../dlmd/server/local-client.ts";
import { serveMetrics } from "../../../dlmd/server/metrics-page.ts";
import { listenOnOwnSocket } from "../../../dlmd/server/own-socket.ts";
import { peerProcesses } from "../../../dlmd/server/peer-process.ts";
import { startServer } from "../../../dlmd/server/server.ts";
import { info, view } from "./local-socket-lab.ts";

/** What the tests change of Node.js. */
const node = vi.hoisted(() => ({
  /** Connections are never made. */
  silent: false,
  /** How much faster than real the clock of HTTP servers is. */
  httpSpeed: 1,
  http: [] as { requestTimeout?: number; headersTimeout?: number; connectionsCheckingInterval?: number }[],
  servers: [] as Server[],
}));
vi.mock("node:net", async (original) => {
  const net = await original<typeof import("node:net")>();
  const connect = (...words: Parameters<typeof net.createConnection>): Socket =>
    node.silent ? new net.Socket() : net.createConnection(...words);
  const create = (...words: Parameters<typeof net.createServer>): Server => {
    const server = net.createServer(...words);
    node.servers.push(server);
    return server;
  };
  return { ...net, createConnection: connect, createServer: create };
});
vi.mock("node:http", async (original) => {
  const http = await original<typeof import("node:http")>();
  const create = (options: { requestTimeout?: number; headersTimeout?: number }, serve: never): HttpServer => {
    node.http.push(options);
    const { requestTimeout = 0, headersTimeout = 0 } = options;
    const fast = {
      requestTimeout: requestTimeout / node.httpSpeed,
      headersTimeout: headersTimeout / node.httpSpeed,
      connectionsCheckingInterval: 5,
    };
    return http.createServer({ ...options, ...fast }, serve);
  };
  return { ...http, createServer: create };
});

let dir = "";
let socketPath = "";
const closers: (() => unknown)[] = [];
beforeEach(() => {
  dir = mkdtempSync(path.join(tmpdir(), "coverlay-limits-"));
  socketPath = path.join(dir, "dlmd-admin.sock");
});
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
  vi.useRealTimers();
  vi.restoreAllMocks();
  Object.assign(node, { silent: false, httpSpeed: 1 });
  rmSync(dir, { recursive: true });
});

/** The clock of Socket.setTimeout, which timers of a test do not reach. */
function socketClock(): { waiting: () => number; pass: (ms: number) => void } {
  const limits = new Map<Socket, number>();
  vi.spyOn(Socket.prototype, "setTimeout").mockImplementation(function (this: Socket, ms: number, callback?: () => void) {
    if (callback !== undefined) this.once("timeout", callback);
    if (ms === 0) limits.delete(this);
    else limits.set(this, ms);
    return this;
  });
  const pass = (ms: number): void => {
    for (const [socket, limitMs] of limits) if (limitMs <= ms) socket.emit("timeout");
  };
  return { waiting: () => limits.size, pass };
}

interface Visitor {
  readonly socket: Socket;
  readonly heard: () => string;
  readonly closed: Promise<void>;
  isClosed: () => boolean;
}
async function visit(at: string): Promise<Visitor> {
  const socket = createConnection(at);
  closers.push(() => socket.destroy());
  let heard = "";
  let over = false;
  socket.on("error", () => undefined);
  socket.on("data", (chunk: Buffer) => (heard += chunk.toString("latin1")));
  const closed = new Promise<void>((resolve) =>
    socket.once("close", () => {
      over = true;
      resolve();
    }),
  );
  await new Promise<void>((resolve) => socket.once("connect", resolve));
  return { socket, heard: () => heard, closed, isClosed: () => over };
}
/** A server that takes connections and says nothing. */
async function silentServer(at: string): Promise<{ server: Server; taken: Promise<Socket> }> {
  const server = createServer();
  const taken = new Promise<Socket>((resolve) => server.once("connection", resolve));
  await new Promise<void>((resolve) => server.listen(at, resolve));
  closers.push(async () => {
    (await taken).destroy();
    server.close();
  });
  return { server, taken };
}
const someTurns = async (): Promise<void> => {
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
};

describe("the administrator's socket", () => {
  const start = async (): Promise<void> => {
    const server = await startAdminServer({
      socketPath,
      log: silentLog,
      processes: peerProcesses(),
      answer: (question) => Promise.resolve(question),
    });
    closers.push(() => server.close());
  };

  test("takes 16 connections, closes the 17th, and takes another when one has gone", async () => {
    await start();
    const visitors: Visitor[] = [];
    for (let at = 1; at <= 16; at++) visitors.push(await visit(socketPath));
    const [first] = visitors as [Visitor];
    await (await visit(socketPath)).closed;
    expect(visitors.filter((visitor) => visitor.isClosed())).toEqual([]);
    first.socket.write("[7]\n");
    await first.closed;
    expect(first.heard()).toBe('{"answer":[7]}\n');
    await someTurns();
    const next = await visit(socketPath);
    next.socket.write("[8]\n");
    await next.closed;
    expect(next.heard()).toBe('{"answer":[8]}\n');
  });

  test("closes a connection that has asked nothing for ten seconds", async () => {
    const clock = socketClock();
    await start();
    const { closed, isClosed } = await visit(socketPath);
    while (clock.waiting() === 0) await someTurns();
    clock.pass(9999);
    await someTurns();
    expect(isClosed()).toBe(false);
    clock.pass(10_000);
    await closed;
  });

  test("closes a connection whose answer is not taken, and that stays open, after ten seconds", async () => {
    const clock = socketClock();
    await start();
    const socket = createConnection({ path: socketPath, allowHalfOpen: true });
    closers.push(() => void socket.destroy());
    const errors: unknown[] = [];
    socket.on("error", (error: NodeJS.ErrnoException) => errors.push(error.code));
    socket.write("[7]\n");
    socket.resume();
    await once(socket, "end");
    clock.pass(9999);
    socket.write("[8]\n");
    await someTurns();
    expect([errors, clock.waiting()]).toEqual([[], 1]);
    clock.pass(10_000);
    await expect.poll(() => [socket.write("[8]\n"), ...errors]).toContain("EPIPE");
  });

  test("takes a question of 1 MiB, refuses a longer one before its end", async () => {
    await start();
    const whole = await visit(socketPath);
    const text = "x".repeat(1024 * 1024 - 2);
    whole.socket.write(JSON.stringify(text));
    await someTurns();
    whole.socket.write("\n");
    await whole.closed;
    expect(whole.heard().length).toBe(`{"answer":"${text}"}\n`.length);
    const long = await visit(socketPath);
    long.socket.write(`"${"x".repeat(1024 * 1024)}`);
    await long.closed;
    expect(long.heard()).toContain('"code":"bad-question"');
  });

  test("an answer is awaited for forty seconds", async () => {
    const clock = socketClock();
    const { taken } = await silentServer(socketPath);
    let failed: unknown = null;
    const asked = askAdmin(dir, { what: "config-show" }).catch((error: unknown) => (failed = error));
    await taken;
    clock.pass(39_999);
    await someTurns();
    expect(failed).toBeNull();
    clock.pass(40_000);
    await asked;
    expect(failed).toMatchObject({
      code: "dlmd-not-answering",
      message: expect.stringContaining("no answer within 40 s"),
      hint: expect.stringContaining("It hangs"),
    });
  });

  test("one that closes the connection is there; only where nobody listens a dlmd is to be started", async () => {
    const { server } = await silentServer(socketPath);
    server.on("connection", (socket) => socket.destroy());
    await expect(askAdmin(dir, { what: "config-show" })).rejects.toMatchObject({ code: "dlmd-not-answering" });
    await expect(askAdmin(path.join(dir, "none"), { what: "config-show" })).rejects.toMatchObject({
      code: "dlmd-not-running",
      hint: expect.stringContaining("Start dlmd"),
    });
  });
});

describe("the page of metrics", () => {
  const start = async (): Promise<void> => {
    const server = await serveMetrics({ path: socketPath }, { metrics: createMetrics(), query: () => null }, silentLog);
    closers.push(() => server.close());
  };

  test("is shown to 16 readers at a time, the 17th is sent away", async () => {
    await start();
    const readers: Visitor[] = [];
    for (let at = 1; at <= 16; at++) {
      readers.push(await visit(socketPath));
      readers.at(-1)?.socket.write("GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".slice(0, -2));
    }
    const late = await visit(socketPath);
    await late.closed;
    expect(late.heard()).toBe("");
    const [first] = readers as [Visitor];
    first.socket.write("\r\n");
    await first.closed;
    expect(first.heard()).toContain("200 OK");
  });

  test("is not for a reader that does not finish its request within five seconds", async () => {
    node.http.length = 0;
    node.httpSpeed = 100;
    await start();
    // Node.js looks by itself only every 30 s.
    expect(node.http).toMatchObject([{ requestTimeout: 5000, headersTimeout: 5000, connectionsCheckingInterval: 1000 }]);
    const reader = await visit(socketPath);
    reader.socket.write("GET /metrics HTTP/1.1\r\n");
    // 50 ms by the server's clock.
    await reader.closed;
    expect(reader.heard()).toContain("408 Request Timeout");
  });
});

describe("a socket of this process alone", () => {
  test("is not taken from what has not answered for a second: it may be busy", async () => {
    const { server } = await silentServer(socketPath);
    // Nobody connects to that one here.
    server.emit("connection", new Socket());
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    node.silent = true;
    let failed: unknown = null;
    const other = createServer();
    const words = { path: socketPath, other: "another dlmd", code: "cannot-listen", option: "--run-dir", failed: () => undefined };
    const listening = listenOnOwnSocket(other, words).catch((error: unknown) => (failed = error));
    while (vi.getTimerCount() === 0) await someTurns();
    vi.advanceTimersByTime(999);
    await someTurns();
    expect(failed).toBeNull();
    vi.advanceTimersByTime(1);
    await listening;
    expect(failed).toMatchObject({ code: "already-running" });
  });
});

describe("programs", () => {
  /** A connection that takes everything and never ends by itself. */
  const quiet = (): Duplex => new Duplex({ read() {}, write: (_chunk, _encoding, done) => done(), final() {} });
  const handlers = { view() {}, gone: async () => {}, disconnected() {} };

  test("are told after ten seconds that dlmd does not answer", async () => {
    const { taken } = await silentServer(socketPath);
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    let failed: unknown = null;
    const connected = connectDlm(socketPath, handlers).catch((error: unknown) => (failed = error));
    await taken;
    await someTurns();
    vi.advanceTimersByTime(9999);
    await someTurns();
    expect(failed).toBeNull();
    vi.advanceTimersByTime(1);
    await connected;
    expect(failed).toMatchObject({ code: "dlmd-not-answering" });
  });

  test("that close wait a second for dlmd to hear that it is to keep nothing for an heir", async () => {
    const server = await startServer({
      socketPath,
      log: silentLog,
      metrics: createMetrics(),
      processes: peerProcesses(),
      info: () => info,
      multicast: () => null,
      connected(clientId) {
        server.send(clientId, [{ kind: "view", view }]);
        server.flush();
      },
      requests() {},
      slow() {},
      gone() {},
      spared() {},
    });
    closers.push(() => server.close("the test is over"));
    const client = await connectDlm(socketPath, handlers, { owner: "mine" });
    client.keepLocks(5000).catch(() => undefined);
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    let isClosed = false;
    const closing = client.close().then(() => (isClosed = true));
    await someTurns();
    vi.advanceTimersByTime(999);
    await someTurns();
    expect(isClosed).toBe(false);
    vi.advanceTimersByTime(1);
    await closing;
    expect(isClosed).toBe(true);
  });

  test("that close wait for dlmd to hear of it, a second at most", () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    const socket = quiet();
    const connection = new Connection(socket as Socket, { message() {}, disconnected() {} });
    void connection.end(new Error("closed here"));
    expect(socket.writableEnded).toBe(true);
    vi.advanceTimersByTime(999);
    expect(socket.destroyed).toBe(false);
    vi.advanceTimersByTime(1);
    expect(socket.destroyed).toBe(true);
  });

  test("may ask for 256 MiB in one turn", () => {
    const connection = new Connection(quiet() as Socket, { message() {}, disconnected() {} });
    const ask = (bytes: number): void =>
      connection.send({ kind: "group-send", requestId: 1, group: "g", count: 1, data: new Uint8Array(bytes) });
    const limit = 256 * 1024 * 1024;
    ask(limit / 16);
    connection.flush();
    ask(1000);
    expect(() => ask(limit)).toThrow(`at most ${limit} allowed`);
  });

  test("that are over keep nothing of what is asked all the same", () => {
    const socket = quiet();
    const connection = new Connection(socket as Socket, { message() {}, disconnected() {} });
    socket.destroy(new Error("it has ended"));
    void connection.end(new Error("closed here"));
    expect(connection.over).toBe(true);
    const data = new Uint8Array(200 * 1024 * 1024);
    const numbers = [1, 2, 3].map(() => {
      connection.send({ kind: "group-send", requestId: 1, group: "g", count: 1, data });
      connection.flush();
      return connection.register({} as never);
    });
    expect(numbers).toEqual([0, 0, 0]);
  });

  test("are told 1 GiB in one turn at most", () => {
    const client = new LocalClient(quiet() as Socket, 1, {
      counters: () => ({}),
      multicast: () => null,
      hello() {},
      requests() {},
      slow() {},
      refused() {},
      gone() {},
    });
    const limit = 1024 * 1024 * 1024;
    const from = { nodeid: 1, incarnation: "aa", clientId: 1 };
    const tell = (bytes: number): void =>
      client.send([{ kind: "group-message", group: "g", from, seq: 1, count: 1, data: new Uint8Array(bytes) }], () => info);
    client.send([{ kind: "view", view }], () => info);
    tell(limit / 64);
    client.flush();
    expect(() => tell(limit)).toThrow(`at most ${limit} allowed`);
  });

  test("that were refused have two seconds to read why, then the connection is destroyed", () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    const socket = quiet();
    const client = new LocalClient(socket as Socket, 1, {
      counters: () => ({}),
      multicast: () => null,
      hello() {},
      requests() {},
      slow() {},
      refused() {},
      gone() {},
    });
    client.close("it is over");
    expect(socket.writableEnded).toBe(true);
    vi.advanceTimersByTime(1999);
    expect(socket.destroyed).toBe(false);
    vi.advanceTimersByTime(1);
    expect(socket.destroyed).toBe(true);
  });

  test("are 4096 at a time; one more is refused with the reason, and the others stay", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    const server = await startServer({
      socketPath,
      log: silentLog,
      metrics: createMetrics(),
      processes: { credentialsOf: () => ({ pid: process.pid, uid: process.getuid?.() ?? 0 }), open: () => null },
      info: () => info,
      multicast: () => null,
      connected() {},
      requests() {},
      slow() {},
      gone() {},
      spared() {},
    });
    closers.push(() => server.close("the test is over"));
    const come = (): { socket: Duplex; heard: () => string } => {
      let heard = "";
      const write = (chunk: Buffer, _: unknown, done: () => void): void => {
        heard += chunk.toString("latin1");
        done();
      };
      const socket = new Duplex({ read() {}, write, final() {} });
      node.servers.at(-1)?.emit("connection", socket);
      return { socket, heard: () => heard };
    };
    const guests = Array.from({ length: 4096 }, come);
    expect(guests.filter(({ socket, heard }) => socket.writableEnded || heard() !== "")).toEqual([]);
    const more = come();
    expect(more.socket.writableEnded).toBe(true);
    expect(more.heard()).toContain("too many clients: at most 4096 at one time");
    expect(guests.filter(({ socket }) => socket.writableEnded)).toEqual([]);
  });
});

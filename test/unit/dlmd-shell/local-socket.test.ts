/** Server and client of the local socket, with a core that the test plays. */
import { type ChildProcess, spawn } from "node:child_process";
import { chmodSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { type Socket, createConnection, createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { ByteWriter } from "../../../dlmd/base/bytes.ts";
import { OperatingError } from "../../../dlmd/base/error.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import { createMetrics } from "../../../dlmd/base/metric.ts";
import {
  type ClusterInfo,
  type DlmClient,
  type DlmClientHandlers,
  type GoneClient,
  LockFlag,
  type LockStatus,
  type ViewInfo,
} from "../../../dlmd/client/api.ts";
import { connectDlm } from "../../../dlmd/client/client.ts";
import type { ClientIdentity } from "../../../dlmd/lock/client.ts";
import { Mode } from "../../../dlmd/lock/mode.ts";
import type { ClientEvent, ClientRequest } from "../../../dlmd/node-api.ts";
import { SLOW_BYTES, UNREAD_PAUSE_BYTES } from "../../../dlmd/server/local-client.ts";
import { peerProcesses } from "../../../dlmd/server/peer-process.ts";
import { type LocalServer, startServer } from "../../../dlmd/server/server.ts";
import { createFrameReader } from "../../../dlmd/wire/frame.ts";
import { LOCAL_VERSION, decodeServerMessage, encodeClientMessage } from "../../../dlmd/wire/local.ts";

const view: ViewInfo = { viewId: "1.1.aa", quorate: true, members: [1], quorumReason: "1 of 1", running: true };
const info: Omit<ClusterInfo, "clientId"> = {
  clusterName: "lab",
  nodeid: 1,
  incarnation: "aa",
  nodes: [{ nodeid: 1, name: "node1", address: "127.0.0.1" }],
  volumes: [],
  overlaySecrets: [new Uint8Array(32)],
};

let dir: string;
let socketPath: string;
let server: LocalServer;
let reads: { clientId: number; requests: readonly ClientRequest[] }[];
let gone: number[];
let slow: { clientId: number; unreadBytes: number }[];
let onRequests: (clientId: number, requests: readonly ClientRequest[]) => void;
let wake: (() => void)[];
let connected: ClientIdentity[];
const clients: DlmClient[] = [];
const children: ChildProcess[] = [];
const sockets: Socket[] = [];

/** Resolves when the condition holds; looked at after everything that happens at the server or a client. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise<void>((resolve) => wake.push(resolve));
}
function happened(): void {
  for (const resolve of wake.splice(0)) resolve();
}
function send(clientId: number, ...events: ClientEvent[]): void {
  server.send(clientId, events);
  server.flush();
}
const granted = (lockId: number, mode: Mode): ClientEvent => ({
  kind: "ast",
  lockId,
  status: "granted",
  mode,
  sbFlags: 0,
  lvbRead: false,
  lvb: null,
  lvbValid: false,
  error: null,
});

beforeEach(async () => {
  dir = mkdtempSync(path.join(tmpdir(), "coverlay-socket-"));
  socketPath = path.join(dir, "run", "dlmd.sock");
  reads = [];
  gone = [];
  slow = [];
  connected = [];
  wake = [];
  onRequests = (clientId, requests) => {
    for (const request of requests) {
      if (request.kind === "open")
        server.send(clientId, [{ kind: "opened", lockspaceId: request.lockspaceId, error: request.name === "refused" ? "no" : "" }]);
      if (request.kind === "lock" || request.kind === "convert") server.send(clientId, [granted(request.lockId, request.mode)]);
      if (request.kind === "query") server.send(clientId, [{ kind: "answer", queryId: request.queryId, data: { asked: request.what } }]);
    }
    server.flush();
  };
  server = await start();
});
afterEach(async () => {
  for (const client of clients.splice(0)) await client.close();
  for (const socket of sockets.splice(0)) socket.destroy();
  for (const child of children.splice(0)) child.kill("SIGKILL");
  await server.close("the test is over");
  rmSync(dir, { recursive: true });
});

function start(): Promise<LocalServer> {
  return startServer({
    socketPath,
    log: silentLog,
    metrics: createMetrics(),
    processes: peerProcesses(),
    info: () => info,
    connected(clientId, identity) {
      connected.push(identity);
      send(clientId, { kind: "view", view });
    },
    requests(clientId, requests) {
      reads.push({ clientId, requests });
      onRequests(clientId, requests);
      happened();
    },
    slow(clientId, unreadBytes) {
      slow.push({ clientId, unreadBytes });
      happened();
    },
    gone(clientId) {
      gone.push(clientId);
      happened();
    },
  });
}

async function connect(handlers: Partial<DlmClientHandlers> = {}): Promise<DlmClient> {
  const client = await connectDlm(socketPath, { view() {}, gone: async () => {}, disconnected() {}, ...handlers });
  clients.push(client);
  return client;
}

/** A connection that says what it likes; everything received as [kind, reason]. */
async function stranger(): Promise<{ socket: Socket; heard: string[]; ended: Promise<void> }> {
  const socket = createConnection(socketPath);
  sockets.push(socket);
  const heard: string[] = [];
  const reader = createFrameReader({ maxBytes: 1 << 20, crc32: null });
  socket.on("data", (chunk) =>
    reader.push(chunk, (body) => {
      const message = decodeServerMessage(body);
      heard.push(message.kind === "error" ? `error: ${message.reason}` : message.kind);
      happened();
    }),
  );
  const ended = new Promise<void>((resolve) => socket.on("end", resolve));
  await new Promise<void>((resolve) => socket.once("connect", resolve));
  return { socket, heard, ended };
}
function frame(...bytes: number[]): Buffer {
  const head = Buffer.alloc(4);
  head.writeUInt32LE(bytes.length);
  return Buffer.concat([head, Buffer.from(bytes)]);
}
function hello(version = LOCAL_VERSION): Buffer {
  const writer = new ByteWriter();
  encodeClientMessage(writer, { kind: "hello", version, pid: 1, program: "test", owner: "", bastLimitMs: 0 });
  return frame(...writer.view());
}

test("modes: the socket 0600, its folder 0700", () => {
  expect(statSync(socketPath).mode & 0o777).toBe(0o600);
  expect(statSync(path.dirname(socketPath)).mode & 0o777).toBe(0o700);
});

/** A program of its own, of that user; it prints what it hears until it is killed. `says`: a whole hello, hex. */
function otherProgram(uid: number, says: Buffer): { child: ChildProcess; said: Promise<string>; ended: Promise<NodeJS.Signals | null> } {
  const source = `
    const socket = require("node:net").createConnection(${JSON.stringify(socketPath)});
    socket.on("connect", () => socket.write(Buffer.from("${says.toString("hex")}", "hex")));
    socket.on("data", (chunk) => process.stdout.write(chunk.toString("latin1")));
    socket.on("error", (error) => process.stdout.write(error.code));
    socket.on("close", () => process.exit(0));`;
  const child = spawn(process.execPath, ["-e", source], { uid, cwd: "/", stdio: ["ignore", "pipe", "inherit"] });
  const said = new Promise<string>((resolve) => child.stdout?.once("data", (chunk: Buffer) => resolve(chunk.toString("latin1"))));
  const ended = new Promise<NodeJS.Signals | null>((resolve) => child.once("exit", (_, signal) => resolve(signal)));
  children.push(child);
  return { child, said, ended };
}

test.runIf(process.getuid?.() === 0)(
  "another user is kept out by the modes, and refused by the kernel's word where these were changed",
  async () => {
    const nobody = 65_534;
    expect(await otherProgram(nobody, hello()).said).toBe("EACCES");
    chmodSync(dir, 0o755);
    chmodSync(path.dirname(socketPath), 0o755);
    chmodSync(socketPath, 0o666);
    expect(await otherProgram(nobody, hello()).said).toContain("this socket is for root and for uid 0, not for process");
    expect(connected).toEqual([]);
    await connect();
    expect(connected).toMatchObject([{ uid: 0, pid: process.pid }]);
  },
);

test("who a program is, is what the kernel says, not what it says itself", async () => {
  const { child, said } = otherProgram(process.getuid?.() ?? 0, hello());
  await said;
  // It says that it is process 1.
  expect(connected).toMatchObject([{ uid: process.getuid?.(), pid: child.pid }]);
});

test("H13: a program that hangs is killed, and is gone when it has ended", async () => {
  const { child, said, ended } = otherProgram(process.getuid?.() ?? 0, hello());
  await said;
  // It would answer no other signal.
  child.kill("SIGSTOP");
  server.kill(1, "it hangs");
  server.kill(1, "it hangs");
  expect(gone).toEqual([]);
  expect(await ended).toBe("SIGKILL");
  await until(() => gone.length > 0);
  expect(gone).toEqual([1]);
});

test("a second dlmd is told; the first goes on", async () => {
  await expect(start()).rejects.toMatchObject({ code: "already-running" });
  expect((await connect()).info.clusterName).toBe("lab");
});

test("a socket that nobody answers on is replaced; another file is not", async () => {
  await server.close("stopping");
  const stale = createServer();
  await new Promise<void>((resolve) => stale.listen(path.join(dir, "run", "other.sock"), resolve));
  // A socket file without a listener, as a killed process leaves it.
  const { renameSync } = await import("node:fs");
  renameSync(path.join(dir, "run", "other.sock"), socketPath);
  await new Promise<void>((resolve) => stale.close(() => resolve()));
  expect(statSync(socketPath).isSocket()).toBe(true);
  server = await start();
  expect((await connect()).info.nodeid).toBe(1);
  await server.close("stopping");
  writeFileSync(socketPath, "not a socket");
  await expect(start()).rejects.toBeInstanceOf(OperatingError);
  rmSync(socketPath);
  server = await start();
});

test("nobody there: what to do", async () => {
  await expect(connectDlm(path.join(dir, "none.sock"), { view() {}, gone: async () => {}, disconnected() {} })).rejects.toMatchObject({
    code: "dlmd-not-running",
    hint: expect.stringContaining("Start dlmd"),
  });
});

test("welcome, lockspace, query, lock", async () => {
  const client = await connect();
  expect(client.info).toEqual({ ...info, clientId: 1 });
  expect(client.view).toEqual(view);
  const space = await client.lockspace("data");
  expect(await client.lockspace("data")).toBe(space);
  await expect(client.lockspace("refused")).rejects.toMatchObject({ code: "lockspace-refused", message: "no" });
  expect(await client.query("nodes")).toEqual({ asked: "nodes" });
  expect(await client.query("status")).toEqual({ asked: "status", counters: { clients_connected: 1 } });
  const status = await new Promise<LockStatus>((resolve) => {
    space.createLock("r", { ast: (_, ended) => resolve(ended), bast() {} }).request(Mode.EX, 0);
  });
  expect(status).toBe("granted");
});

test("what one turn asks for arrives as one read", async () => {
  const client = await connect();
  const space = await client.lockspace("data");
  reads.length = 0;
  let left = 100;
  await new Promise<void>((resolve) => {
    const ast = (): void => {
      if (--left === 0) resolve();
    };
    for (let lock = 0; lock < 100; lock++) space.createLock(`r${lock}`, { ast, bast() {} }).request(Mode.PR, 0);
  });
  expect(reads.map(({ requests }) => requests.length)).toEqual([100]);
});

test("one request at a time; a conversion down and an unlock take effect when they are sent (hazard H2)", async () => {
  const client = await connect();
  const space = await client.lockspace("data");
  const statuses: LockStatus[] = [];
  const basts: Mode[] = [];
  const lock = space.createLock("r", {
    ast(_, status) {
      statuses.push(status);
      happened();
    },
    bast(_, wanted) {
      basts.push(wanted);
      happened();
    },
  });
  expect(() => lock.unlock(0)).toThrow("nothing to unlock");
  lock.request(Mode.EX, 0);
  expect(() => lock.request(Mode.EX, 0)).toThrow("a request is outstanding");
  await until(() => statuses.length === 1);
  expect([lock.mode, lock.busy]).toEqual([Mode.EX, false]);

  onRequests = () => {};
  lock.request(Mode.PR, 0);
  expect([lock.mode, lock.busy]).toEqual([Mode.PR, true]);
  // On its way when the lock stepped down: PR does not block PR, but blocks EX.
  send(
    client.info.clientId,
    { kind: "bast", lockId: 0, wanted: Mode.PR },
    { kind: "bast", lockId: 0, wanted: Mode.EX },
    granted(0, Mode.PR),
  );
  await until(() => basts.length > 0);
  expect([statuses.length, basts]).toEqual([2, [Mode.EX]]);

  lock.unlock(0);
  expect(lock.mode).toBe(Mode.NL);
  expect(() => lock.unlock(0)).toThrow("a request is outstanding");
});

test("what is asked for when a conversion down has ended goes along with it: each request has its own result", async () => {
  const client = await connect();
  const space = await client.lockspace("data");
  const ends: [LockStatus, Mode][] = [];
  const lock = space.createLock("r", {
    ast(ended, status) {
      ends.push([status, ended.mode]);
      if (ends.length === 2) ended.request(Mode.EX, LockFlag.VALBLK);
      happened();
    },
    bast() {},
  });
  lock.request(Mode.EX, 0);
  await until(() => ends.length === 1);
  onRequests = () => {};
  reads.length = 0;
  lock.request(Mode.NL, LockFlag.VALBLK, new Uint8Array(8));
  await until(() => reads.length === 1);
  expect(reads[0]?.requests.map((request) => request.kind === "convert" && request.mode)).toEqual([Mode.NL, Mode.EX]);
  expect(ends.slice(1)).toEqual([["granted", Mode.NL]]);
  expect([lock.mode, lock.busy]).toEqual([Mode.NL, true]);
  send(client.info.clientId, granted(0, Mode.NL), granted(0, Mode.EX));
  await until(() => ends.length === 3);
  expect(ends[2]).toEqual(["granted", Mode.EX]);

  // Cut short before it is told: its own result, then the end of the lock.
  lock.request(Mode.CR, 0);
  lock.unlock(LockFlag.FORCEUNLOCK);
  send(client.info.clientId, granted(0, Mode.CR), { ...granted(0, Mode.NL), status: "unlocked" } as ClientEvent);
  await until(() => ends.length === 5);
  expect(ends.slice(3)).toEqual([
    ["granted", Mode.NL],
    ["unlocked", Mode.NL],
  ]);
});

test("a conversion whose result only dlmd knows waits for it", async () => {
  const client = await connect();
  const space = await client.lockspace("data");
  const statuses: LockStatus[] = [];
  const lock = space.createLock("r", {
    ast(_, status) {
      statuses.push(status);
      happened();
    },
    bast() {},
  });
  lock.request(Mode.PR, 0);
  await until(() => statuses.length === 1);
  onRequests = () => {};
  // It reads the block; it is not down; dlmd refuses its flags.
  for (const [mode, flags] of [
    [Mode.PR, LockFlag.VALBLK],
    [Mode.CW, 0],
    [Mode.NL, LockFlag.QUECVT],
  ] as const) {
    reads.length = 0;
    lock.request(mode, flags);
    await until(() => reads.length === 1);
    expect([statuses.length, lock.busy]).toEqual([1, true]);
    send(client.info.clientId, granted(0, Mode.PR));
    await until(() => statuses.length === 2);
    statuses.pop();
  }
});

test("what one turn says to a group leaves as one, and arrives as what was said", async () => {
  const client = await connect();
  const self = { nodeid: 1, incarnation: "aa", clientId: client.info.clientId };
  onRequests = (clientId, requests) => {
    for (const request of requests) {
      if (request.kind !== "group-join" && request.kind !== "group-send" && request.kind !== "group-leave") continue;
      const { requestId, group } = request;
      send(clientId, { kind: "group-result", requestId, result: "accepted" });
      if (request.kind === "group-join") send(clientId, { kind: "group-members", group, members: [self], joined: [self], left: [] });
      if (request.kind === "group-send") send(clientId, { ...request, kind: "group-message", from: self, seq: 7 });
    }
  };
  const heard: string[] = [];
  const group = await client.join("g", {
    members: () => {},
    message({ seq, data }) {
      heard.push(`${seq} ${Buffer.from(data).toString()}`);
      happened();
    },
    ended: () => {},
  });
  reads.length = 0;
  const word = Buffer.from("one");
  const said = [group.multicast(word)];
  // It was taken when it was said.
  word.fill(0);
  said.push(group.multicast(Buffer.from("")), group.multicast(Buffer.from("three")));
  await Promise.all(said);
  await until(() => heard.length === 3);
  expect(heard).toEqual(["7 one", "8 ", "9 three"]);
  // Too long to go with others.
  const long = Buffer.alloc(40_000, "x");
  await Promise.all([group.multicast(Buffer.from("a")), group.multicast(long), group.multicast(Buffer.from("b"))]);
  await until(() => heard.length === 6);
  expect(heard.slice(3)).toEqual(["7 a", `7 ${long.toString()}`, "7 b"]);
  // In its place among the others.
  const last = group.multicast(Buffer.from("last"));
  void group.leave().catch(() => undefined);
  await last;
  const asked = reads.flatMap(({ requests }) => requests.map((request) => (request.kind === "group-send" ? request.count : request.kind)));
  expect(asked).toEqual([3, 1, 1, 1, 1, "group-leave"]);
});

test("a refusal carries its reason, and a first request that failed leaves no lock", async () => {
  const client = await connect();
  const space = await client.lockspace("data");
  onRequests = (clientId, requests) => {
    for (const request of requests) {
      if (request.kind !== "lock") continue;
      const error = { errno: 37, message: "too many locks" };
      send(clientId, { ...granted(request.lockId, Mode.NL), status: "error", error } as ClientEvent);
    }
  };
  const ends: [LockStatus, string | undefined][] = [];
  const lock = space.createLock("r", {
    ast(ended, status) {
      ends.push([status, ended.error?.message]);
      happened();
    },
    bast() {},
  });
  lock.request(Mode.EX, 0);
  await until(() => ends.length === 1);
  expect(ends).toEqual([["error", "lock r: too many locks"]]);
  expect(lock.error).toMatchObject({ code: "ENOLCK" });
  expect(() => lock.unlock(0)).toThrow("nothing to unlock");
  lock.request(Mode.EX, 0);
  await until(() => ends.length === 2);
  expect(reads.at(-1)?.requests[0]).toMatchObject({ kind: "lock", lockId: 0 });
});

test("names that no dlmd takes are refused here", async () => {
  const space = await (await connect()).lockspace("data");
  const handlers = { ast() {}, bast() {} };
  expect(() => space.createLock("", handlers)).toThrow("1 to 64 bytes");
  expect(() => space.createLock("é".repeat(33), handlers)).toThrow("found 66 bytes");
  expect(space.createLock("é".repeat(32), handlers).resource).toHaveLength(32);
});

test("gone is acknowledged when the handler has resolved, not before (hazard C7)", async () => {
  let stopServing = (): void => {};
  const named: GoneClient[] = [];
  const client = await connect({
    gone(clients_) {
      named.push(...clients_);
      happened();
      return new Promise((resolve) => (stopServing = resolve));
    },
  });
  send(client.info.clientId, { kind: "gone", goneId: 7, clients: [{ nodeid: 2, incarnation: "bb", clientId: null }] });
  await until(() => named.length === 1);
  await client.query("status");
  expect(reads.flatMap(({ requests }) => requests).some((request) => request.kind === "gone-ack")).toBe(false);
  stopServing();
  await until(() => reads.at(-1)?.requests[0]?.kind === "gone-ack");
  expect(reads.at(-1)?.requests).toEqual([{ kind: "gone-ack", goneId: 7 }]);
});

test("a lost connection is told once, and ends what waits", async () => {
  const reasons: Error[] = [];
  onRequests = () => {};
  const client = await connect({
    disconnected(reason) {
      reasons.push(reason);
      happened();
    },
  });
  const waiting = client.lockspace("data");
  server.dropClients("evicted");
  await expect(waiting).rejects.toThrow("dlmd ended the connection: evicted");
  await until(() => reasons.length > 0);
  await expect(client.query("status")).rejects.toThrow("over");
  expect(reasons).toHaveLength(1);
  expect(gone).toEqual([1]);
});

test.each<[name: string, bytes: () => Buffer, reason: string]>([
  ["before the hello", () => frame(5, 0, 0, 0, 0, 0), "query before the hello"],
  ["another program", () => Buffer.from("GET / HTTP/1.1\r\n\r\n"), "frame of 542393671 bytes, at most 4194304 allowed"],
  ["another version", () => hello(9), `version 9 of the local protocol; this dlmd speaks ${LOCAL_VERSION}`],
  ["an unknown kind", () => Buffer.concat([hello(), frame(77)]), "message of kind 77 from a client"],
  ["a cut message", () => Buffer.concat([hello(), frame(2, 0)]), "truncated"],
  ["a mode that is none", () => Buffer.concat([hello(), frame(3, 2, 0, 0, 0, 0, 9, 0, 255, 255)]), "lock mode 9"],
])("damaged, %s: told why and closed; nothing else is disturbed", async (_name, bytes, reason) => {
  const other = await connect();
  const { socket, heard, ended } = await stranger();
  socket.write(bytes());
  await ended;
  expect(heard.at(-1)).toContain(`error: ${reason}`);
  expect(await other.query("nodes")).toEqual({ asked: "nodes" });
  expect(gone).toEqual(heard.includes("welcome") ? [2] : []);
});

test("requests before the damage count", async () => {
  const { socket, ended } = await stranger();
  socket.write(Buffer.concat([hello(), frame(5, 1, 0, 0, 0, 0), frame(77)]));
  await ended;
  expect(reads).toEqual([{ clientId: 1, requests: [{ kind: "query", queryId: 1, what: "status" }] }]);
});

test("a client that does not read is not read either, never disconnected, and goes on when it has read", async () => {
  const { socket, heard } = await stranger();
  socket.write(hello());
  await until(() => heard.length === 1);
  socket.pause();
  const data = "x".repeat(1 << 20);
  for (let sent = 0; sent <= UNREAD_PAUSE_BYTES * 1.5; sent += data.length) {
    send(1, { kind: "answer", queryId: 1, data: data.slice(16) });
  }
  socket.write(frame(5, 9, 0, 0, 0, 0));
  // Another client's trip there and back shows that the server had its turn.
  await (await connect()).query("status");
  expect(reads.filter(({ clientId }) => clientId === 1)).toEqual([]);
  expect(gone).toEqual([]);
  socket.resume();
  await until(() => reads.some(({ clientId }) => clientId === 1));
  expect(gone).toEqual([]);
});

test("a client that leaves too much unread is named once, and again only after it has read all", async () => {
  const { socket, heard } = await stranger();
  socket.write(hello());
  await until(() => heard.length === 1);
  const data = "x".repeat(1 << 20);
  const flood = (): void => {
    for (let sent = 0; sent <= SLOW_BYTES * 1.2; sent += data.length) send(1, { kind: "answer", queryId: 1, data: data.slice(16) });
  };
  socket.pause();
  flood();
  await until(() => slow.length === 1);
  expect(slow[0]?.unreadBytes).toBeGreaterThan(SLOW_BYTES);
  send(1, { kind: "answer", queryId: 2, data: "more" });
  socket.write(frame(5, 9, 0, 0, 0, 0));
  socket.resume();
  // It is read again when it has read: then all was.
  await until(() => reads.some(({ clientId }) => clientId === 1));
  expect(slow).toHaveLength(1);
  socket.pause();
  flood();
  await until(() => slow.length === 2);
  expect(gone).toEqual([]);
});

test("the core may pause a client", async () => {
  const client = await connect();
  const other = await connect();
  server.setPaused(client.info.clientId, true);
  const answer = client.query("nodes");
  await other.query("status");
  expect(reads.map(({ clientId }) => clientId)).toEqual([2]);
  server.setPaused(client.info.clientId, false);
  expect(await answer).toEqual({ asked: "nodes" });
});

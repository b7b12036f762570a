/**
 * Server and client of the local socket for a test, with a core that the test plays: what clients asked for is kept, what it answers
 * can be replaced. Ended after each test.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { type Socket, createConnection } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach } from "vitest";
import { ByteWriter } from "../../../dlmd/base/bytes.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import { createMetrics } from "../../../dlmd/base/metric.ts";
import type { ClusterInfo, DlmClient, DlmClientHandlers, ViewInfo } from "../../../dlmd/client/api.ts";
import { connectDlm } from "../../../dlmd/client/client.ts";
import type { Mode } from "../../../dlmd/wire/mode.ts";
import type { MulticastAnswer } from "../../../dlmd/query/answer.ts";
import type { ClientEvent, ClientRequest, ClientIdentity } from "../../../dlmd/wire/program.ts";
import { type PeerProcesses, peerProcesses } from "../../../dlmd/server/peer-process.ts";
import { type LocalServer, startServer } from "../../../dlmd/server/server.ts";
import { createFrameReader } from "../../../dlmd/wire/frame.ts";
import { LOCAL_VERSION, decodeServerMessage, encodeClientMessage } from "../../../dlmd/wire/local.ts";

export const view: ViewInfo = {
  viewId: "1.1.aa",
  quorate: true,
  members: [1],
  incarnations: ["aa"],
  quorumReason: "1 of 1",
  running: true,
};
/** By multicast, as status says. */
export const heard: MulticastAnswer = { group: "239.192.77.1", nodes: [{ nodeid: 2, agoMs: 7 }] };

export const info: Omit<ClusterInfo, "clientId"> = {
  clusterName: "lab",
  nodeid: 1,
  incarnation: "aa",
  nodes: [{ nodeid: 1, name: "node1", address: "127.0.0.1" }],
  volumes: [],
  preferredOwners: [],
  overlayKeys: [{ id: "00000000", bytes: new Uint8Array(32) }],
};

export const granted = (lockId: number, mode: Mode): ClientEvent => ({
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

/** A frame of the local socket. */
export function frame(...bytes: number[]): Buffer {
  const head = Buffer.alloc(4);
  head.writeUInt32LE(bytes.length);
  return Buffer.concat([head, Buffer.from(bytes)]);
}

export function hello(version: number = LOCAL_VERSION): Buffer {
  const writer = new ByteWriter();
  encodeClientMessage(writer, { kind: "hello", version, pid: 1, program: "test", owner: "", bastLimitMs: 0 });
  return frame(...writer.view());
}

export class LocalSocketLab {
  readonly dir: string = mkdtempSync(path.join(tmpdir(), "coverlay-socket-"));
  readonly socketPath: string = path.join(this.dir, "run", "dlmd.sock");
  readonly reads: { clientId: number; requests: readonly ClientRequest[] }[] = [];
  readonly gone: number[] = [];
  /** Those of them whose connections the server has closed. */
  readonly endedHere: number[] = [];
  readonly spared: number[] = [];
  readonly slow: { clientId: number; unreadBytes: number }[] = [];
  readonly connected: ClientIdentity[] = [];
  readonly processes: PeerProcesses = peerProcesses();
  readonly #clients: DlmClient[] = [];
  readonly #children: ChildProcess[] = [];
  readonly #sockets: Socket[] = [];
  #server: LocalServer | null = null;
  #wake: (() => void)[] = [];

  /** The core: what it does with what arrived in one read. */
  onRequests: (clientId: number, requests: readonly ClientRequest[]) => void = (clientId, requests) => {
    for (const request of requests) {
      if (request.kind === "open") {
        const error = request.name === "refused" ? "no" : "";
        this.server.send(clientId, [{ kind: "opened", lockspaceId: request.lockspaceId, error }]);
      }
      if (request.kind === "lock" || request.kind === "convert") this.server.send(clientId, [granted(request.lockId, request.mode)]);
      if (request.kind === "query")
        this.server.send(clientId, [{ kind: "answer", queryId: request.queryId, data: { asked: request.what } }]);
    }
    this.server.flush();
  };

  /** The core: what it does when a program has come. */
  onConnected: (clientId: number) => void = (clientId) => this.send(clientId, { kind: "view", view });

  get server(): LocalServer {
    if (this.#server === null) throw new Error("the server was not started");
    return this.#server;
  }

  /** The server from now on; another one at the same socket is refused. */
  async start(): Promise<void> {
    this.#server = await startServer({
      socketPath: this.socketPath,
      log: silentLog,
      metrics: createMetrics(),
      processes: this.processes,
      info: () => info,
      multicast: () => heard,
      connected: (clientId, identity) => {
        this.connected.push(identity);
        this.onConnected(clientId);
        this.happened();
      },
      requests: (clientId, requests) => {
        this.reads.push({ clientId, requests });
        this.onRequests(clientId, requests);
        this.happened();
      },
      slow: (clientId, unreadBytes) => {
        this.slow.push({ clientId, unreadBytes });
        this.happened();
      },
      gone: (clientId, endedHere) => {
        this.gone.push(clientId);
        if (endedHere) this.endedHere.push(clientId);
        this.happened();
      },
      spared: (clientId) => {
        this.spared.push(clientId);
        this.happened();
      },
    });
  }

  /** Resolves when the condition holds; looked at after everything that happens at the server or a client. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => this.#wake.push(resolve));
  }

  happened(): void {
    for (const resolve of this.#wake.splice(0)) resolve();
  }

  send(clientId: number, ...events: ClientEvent[]): void {
    this.server.send(clientId, events);
    this.server.flush();
  }

  async connect(handlers: Partial<DlmClientHandlers> = {}): Promise<DlmClient> {
    const client = await connectDlm(this.socketPath, { view() {}, gone: async () => {}, disconnected() {}, ...handlers });
    this.#clients.push(client);
    return client;
  }

  /** A connection that says what it likes; everything received as [kind, reason]. */
  async stranger(): Promise<{ socket: Socket; heard: string[]; ended: Promise<void> }> {
    const socket = createConnection(this.socketPath);
    this.#sockets.push(socket);
    const heard: string[] = [];
    const reader = createFrameReader({ maxBytes: 1 << 20, crc32: null });
    socket.on("data", (chunk) =>
      reader.push(chunk, (body) => {
        const message = decodeServerMessage(body);
        heard.push(message.kind === "error" ? `error: ${message.reason}` : message.kind);
        this.happened();
      }),
    );
    const ended = new Promise<void>((resolve) => socket.on("end", resolve));
    await new Promise<void>((resolve) => socket.once("connect", resolve));
    return { socket, heard, ended };
  }

  /** A program of its own, of that user; it prints what it hears until it is killed. `says`: a whole hello, hex. */
  otherProgram(uid: number, says: Buffer): { child: ChildProcess; said: Promise<string>; ended: Promise<NodeJS.Signals | null> } {
    const source = `
    const socket = require("node:net").createConnection(${JSON.stringify(this.socketPath)});
    socket.on("connect", () => socket.write(Buffer.from("${says.toString("hex")}", "hex")));
    socket.on("data", (chunk) => process.stdout.write(chunk.toString("latin1")));
    socket.on("error", (error) => process.stdout.write(error.code));
    socket.on("close", () => process.exit(0));`;
    const child = spawn(process.execPath, ["-e", source], { uid, cwd: "/", stdio: ["ignore", "pipe", "inherit"] });
    const said = new Promise<string>((resolve) => child.stdout?.once("data", (chunk: Buffer) => resolve(chunk.toString("latin1"))));
    const ended = new Promise<NodeJS.Signals | null>((resolve) => child.once("exit", (_, signal) => resolve(signal)));
    this.#children.push(child);
    return { child, said, ended };
  }

  async end(): Promise<void> {
    for (const client of this.#clients.splice(0)) await client.close();
    for (const socket of this.#sockets.splice(0)) socket.destroy();
    for (const child of this.#children.splice(0)) child.kill("SIGKILL");
    await this.#server?.close("the test is over");
    rmSync(this.dir, { recursive: true });
  }
}

/** One for each test of the file; what is given tells which it is now. */
export function localSocketLab(): () => LocalSocketLab {
  let lab: LocalSocketLab | null = null;
  beforeEach(async () => {
    lab = new LocalSocketLab();
    await lab.start();
  });
  afterEach(() => lab?.end());
  return () => {
    if (lab === null) throw new Error("there is none before the test");
    return lab;
  };
}

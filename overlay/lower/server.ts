/**
 * The owner's end of the wire: other nodes' calls, done on the local lower. It plays no part in locking (DESIGN 3); it
 * makes sure only that a session which was declared gone is served no more (hazard C7).
 */
import { randomBytes } from "node:crypto";
import { createServer, type Server, type Socket } from "node:net";
import { ByteReader } from "../../dlmd/base/bytes.ts";
import { OperatingError, WireError } from "../../dlmd/base/error.ts";
import type { Log } from "../../dlmd/base/log.ts";
import type { GoneClient } from "../../dlmd/client/api.ts";
import * as handshake from "./handshake.ts";
import { LARGE_BYTES, largeBuffers } from "./large-buffers.ts";
import type { LocalLower } from "./local.ts";
import { inTime } from "./maybe.ts";
import { MAX_REMEMBERED_ANSWERS, ServerSession } from "./server-session.ts";
import { encodeStamp, type Stamp } from "./stamp.ts";
import { FrameBatch, FrameReader, FrameType, LOWER_WIRE_VERSION, MAX_FRAME_BYTES } from "./wire.ts";
import { callOfType } from "./wire-calls.ts";

/** Sessions at a time; further ones are refused. */
export const MAX_SESSIONS = 1024;
/** Connections that have not proved who they are; further ones are closed at once. */
export const MAX_STRANGERS = 256;
/** A connection that has not proved who it is after that long is closed. */
export const HANDSHAKE_TIMEOUT_MS = 10_000;
/** A caller that has not gone so long after the owner's last word is not waited for. */
const FAREWELL_MS = 1000;
/** Answers waiting in one socket: beyond, no calls are read from it. */
const MAX_UNSENT_BYTES: number = 16 * 1024 * 1024;

/** Chunks of that size and larger ones are freed once their frames are out of them: as garbage they would be V8's reason to look for more (large-buffers.ts). */
const FREED_BYTES: number = 16 * 1024;

export interface LowerServerOptions {
  readonly lower: LocalLower;
  /** ClusterInfo.overlaySecrets, of now. */
  readonly secrets: () => readonly Uint8Array[];
  readonly clusterName: string;
  readonly volumeUuid: string;
  /** Of this ownership: sessions of another are refused. */
  readonly epoch: number;
  readonly log: Log;
  /** Whether this node may serve now; while it may not, no calls are read. Then `resume`. */
  readonly mayServe?: () => boolean;
  /** Frees memory at once, which is garbage otherwise (Native.freeArrayBuffer). */
  readonly freeMemory: (memory: ArrayBuffer) => void;
  /** A session that was declared gone before this server was made. */
  readonly isGone?: (session: handshake.LowerSessionId) => boolean;
}

export interface LowerServerCounters {
  received: number;
  sent: number;
  bytesReceived: number;
  bytesSent: number;
}

export interface LowerServer {
  /** Port 0: any. Gives the port. OperatingError "can-not-listen". */
  listen(address: string, port: number): Promise<number>;
  /** Ends these clients' sessions for ever; resolves when their running calls have ended and their handles are closed. */
  closeSessions(clients: readonly GoneClient[]): Promise<void>;
  /** This node may serve again. */
  resume(): void;
  /** `secrets` are others: a connection whose caller proved one that is not among them any more ends; its session may go on in another. */
  secretsChanged(): void;
  /** Ends all sessions and the listening; resolves when nothing runs any more. */
  close(): Promise<void>;
  readonly sessions: readonly ServerSession[];
  readonly counters: LowerServerCounters;
}

/** A session of that client, or of that node if it is the node that is gone. */
export function isOf(session: handshake.LowerSessionId, client: GoneClient): boolean {
  const sameNode = session.nodeid === client.nodeid && session.incarnation === client.incarnation;
  return sameNode && (client.clientId === null || session.clientId === client.clientId);
}

class Connection {
  readonly #server: ServerCore;
  readonly #socket: Socket;
  readonly #reader = new FrameReader();
  readonly #batch = new FrameBatch();
  #hello: { readonly body: Uint8Array; readonly value: handshake.Hello; readonly nonce: Uint8Array } | null = null;
  #session: ServerSession | null = null;
  /** With which the caller proved who it is. */
  #secret: Uint8Array | null = null;
  #timer: NodeJS.Timeout;
  #inChunk = false;
  #stampTold: Stamp | null = null;
  #flushAsked = false;

  constructor(server: ServerCore, socket: Socket) {
    this.#server = server;
    this.#socket = socket;
    socket.setNoDelay(true);
    this.#timer = setTimeout(() => this.destroy("it did not prove who it is in time"), HANDSHAKE_TIMEOUT_MS);
    socket.on("data", (chunk: Buffer) => this.#receive(chunk));
    socket.on("drain", () => this.resume());
    // Always followed by "close", which is where it is handled.
    socket.on("error", (error) => server.options.log.debug({ error: error.message }, "connection of another node failed"));
    socket.on("close", () => this.#closed());
  }

  get proved(): boolean {
    return this.#session !== null;
  }

  destroy(why: string): void {
    if (this.#socket.destroyed) return;
    this.#server.options.log.info({ peer: this.#socket.remoteAddress, why }, "closing a connection of another node");
    this.#socket.destroy();
  }

  /** Resolves when the caller has heard it, or after FAREWELL_MS: the word that there is another owner may otherwise be faster. */
  async farewell(): Promise<void> {
    if (this.#socket.destroyed) return;
    this.#batch.add(FrameType.FAREWELL, 0, new Uint8Array(0), null);
    this.#flush();
    const heard = new Promise<void>((resolve) => this.#socket.once("close", () => resolve()));
    // What the caller still sends goes unread; that it has gone shows only where somebody reads.
    this.#socket.resume();
    await inTime(heard, FAREWELL_MS);
  }

  secretsChanged(secrets: readonly Uint8Array[]): void {
    if (this.#secret !== null && !handshake.isAmong(this.#secret, secrets)) this.destroy("the key that it proved was replaced");
  }

  #closed(): void {
    clearTimeout(this.#timer);
    this.#server.connections.delete(this);
    if (this.#session?.sink === this) this.#session.sink = null;
  }

  #receive(chunk: Buffer): void {
    if (!this.#server.mayServe) {
      this.#socket.pause();
      this.#socket.unshift(chunk);
      return;
    }
    this.#server.counters.bytesReceived += chunk.length;
    this.#inChunk = true;
    const memory = memoryOf(chunk);
    const frame = (type: number, id: number, body: Uint8Array): void => {
      if (!this.#socket.destroyed) this.#frame(type, id, body);
    };
    try {
      this.#reader.push(chunk, frame, memory !== null);
      if (memory !== null) this.#server.options.freeMemory(memory);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      this.destroy(error.message);
    } finally {
      this.#inChunk = false;
    }
    this.#flush();
    if (this.#mustPause()) this.#socket.pause();
  }

  #mustPause(): boolean {
    return !this.#server.mayServe || this.#session?.full === true || this.#socket.writableLength > MAX_UNSENT_BYTES;
  }

  resume(): void {
    if (this.#socket.isPaused() && !this.#mustPause()) this.#socket.resume();
  }

  answer(type: number, id: number, body: Uint8Array, data: Uint8Array | null, passing: boolean): void {
    this.#server.counters.sent += 1;
    const stamp = this.#server.options.lower.stamps.since(0);
    if (stamp !== null && stamp !== this.#stampTold) {
      this.#stampTold = stamp;
      this.#batch.add(FrameType.STAMP, 0, encodeStamp(stamp), null);
    }
    this.#batch.add(type, id, body, data, passing);
    if (this.#inChunk || this.#flushAsked) return;
    // Answers that the pools gave together leave together: after the promises of this callback, before the next one.
    this.#flushAsked = true;
    process.nextTick(() => {
      this.#flushAsked = false;
      this.#flush();
    });
  }

  #flush(): void {
    if (this.#batch.empty || this.#socket.destroyed) return;
    this.#server.counters.bytesSent += this.#batch.bytes;
    const parts = this.#batch.take();
    if (parts.length > 1) this.#socket.cork();
    for (const part of parts) writePart(this.#socket, part);
    if (parts.length > 1) this.#socket.uncork();
  }

  #frame(type: number, id: number, body: Uint8Array): void {
    this.#server.counters.received += 1;
    const session = this.#session;
    if (session === null) {
      if (type === FrameType.HELLO && this.#hello === null) this.#receiveHello(body);
      else if (type === FrameType.PROOF && this.#hello !== null) this.#receiveProof(body);
      else throw new WireError(`frame of type 0x${type.toString(16)} before the caller proved who it is`);
      return;
    }
    if (type === FrameType.ACK) {
      const reader = new ByteReader(body);
      session.acknowledge(Array.from({ length: reader.u16() }, () => reader.u32()));
      reader.end();
      return;
    }
    const call = callOfType(type);
    if (call === undefined) throw new WireError(`unknown call 0x${type.toString(16)}`);
    if (session.rememberedAnswers > MAX_REMEMBERED_ANSWERS) throw new WireError("answers are not acknowledged");
    session.receive(call, id, body);
  }

  #refuse(reason: handshake.Refusal, text: string): void {
    this.#server.options.log.warn({ peer: this.#socket.remoteAddress, reason, text }, "refusing another node's session");
    this.#batch.add(FrameType.REFUSED, 0, handshake.encodeRefused({ reason, text }), null);
    this.#flush();
    this.#socket.end();
  }

  #receiveHello(body: Uint8Array): void {
    const value = handshake.decodeHello(body);
    if (value.version !== LOWER_WIRE_VERSION) {
      this.#refuse("version", `protocol version ${LOWER_WIRE_VERSION} expected, found ${value.version}`);
      return;
    }
    const nonce = randomBytes(handshake.NONCE_BYTES);
    const kept = Uint8Array.from(body);
    this.#hello = { body: kept, value: handshake.decodeHello(kept), nonce };
    const [first] = this.#server.options.secrets();
    if (first === undefined) throw new Error("this node has no key of the cluster");
    const proof = handshake.proofOf("owner", first, body, nonce);
    this.#batch.add(FrameType.CHALLENGE, 0, handshake.encodeChallenge({ nonce, proof }), null);
  }

  #receiveProof(body: Uint8Array): void {
    const hello = this.#hello;
    if (hello === null) throw new WireError("proof before hello");
    const secret = handshake.secretOfProof("caller", this.#server.options.secrets(), hello.body, hello.nonce, handshake.decodeProof(body));
    if (secret === null) {
      this.#refuse("wrong-secret", "the caller does not have this cluster's key");
      return;
    }
    const refused = this.#server.check(hello.value);
    if (refused !== null) {
      this.#refuse(refused.reason, refused.text);
      return;
    }
    clearTimeout(this.#timer);
    this.#secret = secret;
    const { session, resumed } = this.#server.attach(hello.value.session, this);
    this.#session = session;
    this.#reader.setLimit(MAX_FRAME_BYTES);
    const { root, hasAcls } = this.#server.options.lower;
    this.#batch.add(FrameType.WELCOME, 0, handshake.encodeWelcome({ resumed, root, hasAcls }), null);
  }
}

/** Of a large chunk that is alone in its memory, as the socket gives them (net.Socket fills a new one of 64 KiB at each turn); null: another. */
function memoryOf(chunk: Buffer): ArrayBuffer | null {
  const { buffer } = chunk;
  return chunk.length >= FREED_BYTES && buffer.byteLength === chunk.length && buffer instanceof ArrayBuffer ? buffer : null;
}

/** What has left is not needed any more; what has not, because the connection broke, may still be looked into. */
function writePart(socket: Socket, part: Uint8Array): void {
  if (part.byteLength < LARGE_BYTES) {
    socket.write(part);
    return;
  }
  socket.write(part, (error) => {
    if (error === undefined || error === null) largeBuffers.giveBack(part);
  });
}

class ServerCore {
  readonly options: LowerServerOptions;
  readonly connections: Set<Connection> = new Set();
  readonly counters: LowerServerCounters = { received: 0, sent: 0, bytesReceived: 0, bytesSent: 0 };
  readonly #sessions: Map<string, ServerSession> = new Map();
  readonly #connectionOf: Map<ServerSession, Connection> = new Map();
  // One entry for each client that went away under this owner: a few bytes a mount or a node's death.
  readonly #gone: GoneClient[] = [];
  #closing = false;

  constructor(options: LowerServerOptions) {
    this.options = options;
  }

  get mayServe(): boolean {
    return this.options.mayServe?.() ?? true;
  }

  get sessions(): ServerSession[] {
    return [...this.#sessions.values()];
  }

  accept(socket: Socket): void {
    let strangers = 0;
    for (const connection of this.connections) if (!connection.proved) strangers += 1;
    if (this.#closing || strangers >= MAX_STRANGERS) {
      socket.destroy();
      return;
    }
    this.connections.add(new Connection(this, socket));
  }

  check(hello: handshake.Hello): handshake.Refused | null {
    const { clusterName, volumeUuid, epoch } = this.options;
    const { session } = hello;
    const other = (reason: handshake.Refusal, what: string, expected: string | number, found: string | number): handshake.Refused => ({
      reason,
      text: `${what} ${expected} expected, found ${found}`,
    });
    if (hello.clusterName !== clusterName) return other("other-cluster", "cluster", clusterName, hello.clusterName);
    if (hello.volumeUuid !== volumeUuid) return other("other-volume", "volume", volumeUuid, hello.volumeUuid);
    if (session.ownerEpoch !== epoch) return other("other-epoch", "owner epoch", epoch, session.ownerEpoch);
    if (this.#gone.some((client) => isOf(session, client)) || this.options.isGone?.(session) === true) {
      return { reason: "gone", text: `client ${session.clientId} of node ${session.nodeid} was declared gone` };
    }
    if (!this.#sessions.has(handshake.sessionKey(session)) && this.#sessions.size >= MAX_SESSIONS) {
      return { reason: "too-many", text: `${MAX_SESSIONS} sessions are open` };
    }
    return null;
  }

  /** The session's connection is this one from now on. */
  attach(id: handshake.LowerSessionId, connection: Connection): { session: ServerSession; resumed: boolean } {
    const key = handshake.sessionKey(id);
    const known = this.#sessions.get(key);
    const session = known ?? new ServerSession(id, this.options.lower, this.options.log);
    this.#sessions.set(key, session);
    const before = this.#connectionOf.get(session);
    this.#connectionOf.set(session, connection);
    session.sink = connection;
    before?.destroy("the caller has connected again");
    return { session, resumed: known !== undefined };
  }

  async #end(sessions: readonly ServerSession[]): Promise<void> {
    await Promise.all(
      sessions.map(async (session) => {
        this.#connectionOf.get(session)?.destroy("its session has ended");
        this.#connectionOf.delete(session);
        await session.close();
        this.#sessions.delete(handshake.sessionKey(session.id));
      }),
    );
  }

  async closeSessions(clients: readonly GoneClient[]): Promise<void> {
    this.#gone.push(...clients);
    await this.#end(this.sessions.filter((session) => clients.some((client) => isOf(session.id, client))));
  }

  /** Who is connected is told what became of his calls, so that none of them ends with EIO and no fsync at the next owner does. */
  async #leave(): Promise<void> {
    const proved = [...this.connections].filter((connection) => connection.proved);
    if (proved.length === 0) return;
    await Promise.all(this.sessions.map((session) => session.retire()));
    try {
      await this.options.lower.syncfs();
    } catch (error) {
      this.options.log.warn({ error: String(error) }, "the lower could not be synced before the end: callers are told nothing");
      return;
    }
    await Promise.all(proved.map((connection) => connection.farewell()));
  }

  async closeAll(): Promise<void> {
    this.#closing = true;
    await this.#leave();
    await this.#end(this.sessions);
    for (const connection of this.connections) connection.destroy("the owner stops serving");
  }
}

async function listen(server: Server, address: string, port: number): Promise<number> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", (cause) => {
      const hint = "Check the node's address in cluster.yaml, and that no other program has the port.";
      reject(new OperatingError(`can not listen on ${address} port ${port}: ${cause.message}`, { code: "can-not-listen", hint, cause }));
    });
    server.listen(port, address, resolve);
  });
  const bound = server.address();
  if (bound === null || typeof bound === "string") throw noPort();
  return bound.port;
}

function noPort(): OperatingError {
  return new OperatingError("the server has no port", { code: "can-not-listen", hint: "Check the node's address in cluster.yaml." });
}

export function createLowerServer(options: LowerServerOptions): LowerServer {
  const core = new ServerCore(options);
  const server = createServer({ noDelay: true }, (socket) => core.accept(socket));
  return {
    listen: (address, port) => listen(server, address, port),
    closeSessions: (clients) => core.closeSessions(clients),
    resume() {
      for (const connection of core.connections) connection.resume();
    },
    secretsChanged() {
      for (const connection of core.connections) connection.secretsChanged(options.secrets());
    },
    async close() {
      await core.closeAll();
      if (server.listening) await new Promise<void>((resolve) => server.close(() => resolve()));
    },
    get sessions(): readonly ServerSession[] {
      return core.sessions;
    },
    counters: core.counters,
  };
}

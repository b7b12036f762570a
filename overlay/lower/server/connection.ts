/**
 * One secured connection of a caller at the owner: HELLO, then its calls in and their answers out. It knows one session, and is replaced by
 * the next connection of that session.
 */
import type { Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import { ByteReader } from "../../../dlmd/base/bytes.ts";
import { WireError } from "../../../dlmd/base/error.ts";
import type { Keyring } from "../../../dlmd/tls/keyring.ts";
import type { SecureConnection } from "../../../dlmd/tls/secure-connection.ts";
import * as handshake from "../wire/handshake.ts";
import { LARGE_BYTES, largeBuffers } from "../large-buffers.ts";
import { inTime } from "../../../dlmd/base/maybe-promise.ts";
import { MAX_REMEMBERED_ANSWERS, type ServerSession } from "./session.ts";
import { FrameBatch, FrameReader, FrameType, LOWER_WIRE_VERSION, MAX_FRAME_BYTES } from "../wire/frame.ts";
import { DEAD_MS, decodeAlive, encodeAlive, Heartbeat } from "../wire/heartbeat.ts";
import { callOfType } from "../wire/calls.ts";

/** A caller that has not gone so long after the owner's last word is not waited for. */
const FAREWELL_MS = 1000;
/** Answers waiting in one socket: beyond, no calls are read from it. */
const MAX_UNSENT_BYTES: number = 16 * 1024 * 1024;
/**
 * Chunks of that size are freed once their frames are out of them: as garbage they would be V8's reason to look for more
 * (large-buffers.ts). TLS gives at most so much at a time, in memory that it made for it and does not look into again.
 */
const FREED_BYTES: number = 16 * 1024;

export interface LowerServerCounters {
  received: number;
  sent: number;
  bytesReceived: number;
  bytesSent: number;
  /** Connections that were closed before there was a session. */
  refused: number;
}

/** The server as its connections see it. */
export interface ConnectionHost {
  readonly owner: handshake.OwnerId;
  readonly mayServe: boolean;
  /** It ends its service: nobody gets a session any more. */
  readonly closing: boolean;
  readonly counters: LowerServerCounters;
  /** A message has come. */
  received(): void;
  readonly freeMemory: (memory: ArrayBuffer) => void;
  /** Why that caller gets no session; null: it does. */
  check(hello: handshake.Hello): Omit<handshake.Refused, "owner"> | null;
  /** The session's connection is this one from now on. */
  attach(id: handshake.LowerSessionId, connection: ServerConnection): { session: ServerSession; resumed: boolean };
  welcome(): Omit<handshake.Welcome, "resumed">;
  /** WELCOME goes out: what waits in the session may be begun, and answered behind it. */
  welcomed(session: ServerSession): void;
  refused(address: string, reason: string): void;
  ended(connection: ServerConnection, address: string, why: string): void;
}

export class ServerConnection {
  readonly #server: ConnectionHost;
  readonly #socket: TLSSocket;
  readonly #address: string;
  /** With which the caller proved that it is one of the cluster. */
  readonly #keyId: string;
  readonly #proved: () => void;
  readonly #reader = new FrameReader();
  readonly #batch = new FrameBatch();
  #session: ServerSession | null = null;
  #refused = false;
  #saidFarewell = false;
  #why = "closed by the caller";
  #inChunk = false;
  #flushAsked = false;
  #heartbeat: Heartbeat | null = null;

  /** `proved`: is called once the caller has a session. */
  constructor(server: ConnectionHost, { socket, key }: SecureConnection, proved: () => void) {
    this.#server = server;
    this.#socket = socket;
    this.#address = socket.remoteAddress ?? "?";
    this.#keyId = key.id;
    this.#proved = proved;
    socket.on("data", (chunk: Buffer) => this.#receive(chunk));
    socket.on("drain", () => {
      if (this.#session?.sink === this) this.#session.startQueued();
      this.resume();
    });
    // Always followed by "close", which is where it is handled.
    socket.on("error", (error) => {
      this.#why = error.message;
    });
    socket.on("close", () => this.#closed());
  }

  get served(): boolean {
    return this.#session !== null;
  }

  destroy(why: string): void {
    if (this.#socket.destroyed) return;
    this.#why = why;
    this.#socket.destroy();
  }

  /** Resolves when the caller has heard it, or after FAREWELL_MS: the word that there is another owner may otherwise be faster. */
  async farewell(): Promise<void> {
    if (this.#socket.destroyed) return;
    this.#batch.add(FrameType.FAREWELL, 0, new Uint8Array(0), null);
    this.#flush();
    const heard = new Promise<void>((resolve) => this.#socket.once("close", () => resolve()));
    // What the caller still sends counts no more; that it has gone shows only where somebody reads.
    this.#saidFarewell = true;
    this.#socket.resume();
    await inTime(heard, FAREWELL_MS);
  }

  keysChanged(keyring: Keyring): void {
    if (keyring.find(this.#keyId) === null) this.destroy("the key that it proved was replaced");
  }

  #closed(): void {
    this.#heartbeat?.stop();
    this.#server.ended(this, this.#address, this.#why);
    if (this.#session?.sink === this) this.#session.sink = null;
  }

  #beginHeartbeat(): void {
    this.#heartbeat = new Heartbeat({
      // What waits in the socket is a sign of life itself, once it leaves.
      sendAlive: () => {
        if (this.#socket.writableLength > 0) return;
        this.#batch.add(FrameType.ALIVE, 0, encodeAlive(), null);
        this.#flush();
      },
      dead: () => this.destroy(`nothing was heard of the caller for ${DEAD_MS} ms`),
      isListening: () => !this.#socket.isPaused(),
    });
  }

  #receive(chunk: Buffer): void {
    this.#heartbeat?.heard();
    if (this.#refused || this.#saidFarewell) return;
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
      if (memory !== null) this.#server.freeMemory(memory);
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
    return !this.#server.mayServe || this.#session?.full === true || this.isFull;
  }

  get isFull(): boolean {
    return this.#batch.bytes + this.#socket.writableLength > MAX_UNSENT_BYTES;
  }

  resume(): void {
    if (this.#socket.isPaused() && !this.#mustPause()) this.#socket.resume();
  }

  answer(type: number, id: number, body: Uint8Array, data: Uint8Array | null, passing: boolean): void {
    this.#server.counters.sent += 1;
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
    this.#heartbeat?.sent();
    this.#server.counters.bytesSent += this.#batch.bytes;
    const parts = this.#batch.take();
    if (parts.length > 1) this.#socket.cork();
    for (const part of parts) writePart(this.#socket, part);
    if (parts.length > 1) this.#socket.uncork();
  }

  #frame(type: number, id: number, body: Uint8Array): void {
    if (type === FrameType.ALIVE && this.#session !== null) return decodeAlive(body);
    this.#server.received();
    const session = this.#session;
    if (session === null) {
      if (type !== FrameType.HELLO) throw new WireError(`frame of type 0x${type.toString(16)} before the caller said which client it is`);
      this.#receiveHello(body);
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
    this.#refused = true;
    this.#server.refused(this.#address, `${reason}: ${text}`);
    this.#batch.add(FrameType.REFUSED, 0, handshake.encodeRefused({ reason, text, owner: this.#server.owner }), null);
    this.#flush();
    // One that does not close its end has proved nothing, and its time ends (UnprovedConnections).
    this.#socket.end();
  }

  #receiveHello(body: Uint8Array): void {
    const hello = handshake.decodeHello(body);
    if (hello.version !== LOWER_WIRE_VERSION) {
      this.#refuse("version", `protocol version ${LOWER_WIRE_VERSION} expected, found ${hello.version}`);
      return;
    }
    // A change of its own after the sync of the farewell would be told to be on the disk. It asks the next owner.
    if (this.#server.closing) return this.destroy("the owner ends its service");
    const refused = this.#server.check(hello);
    if (refused !== null) {
      this.#refuse(refused.reason, refused.text);
      return;
    }
    this.#proved();
    const { session, resumed } = this.#server.attach(hello.session, this);
    this.#session = session;
    this.#beginHeartbeat();
    this.#reader.setLimit(MAX_FRAME_BYTES);
    this.#batch.add(FrameType.WELCOME, 0, handshake.encodeWelcome({ ...this.#server.welcome(), resumed }), null);
    // By itself: what follows at once may be too large for the path, and that the owner lives is to be seen all the same (hazard H13).
    this.#flush();
    this.#server.welcomed(session);
  }
}

/** Of a large chunk that is alone in its memory, as TLS gives them; null: another. */
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

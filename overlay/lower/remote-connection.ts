/** One TCP connection to an owner: the handshake, then frames both ways. Knows nothing of calls. */
import { randomBytes } from "node:crypto";
import { connect, type Socket } from "node:net";
import { WireError } from "../../dlmd/base/error.ts";
import * as handshake from "./handshake.ts";
import { FrameBatch, FrameReader, FrameType, LOWER_WIRE_VERSION, MAX_FRAME_BYTES } from "./wire.ts";

export interface OwnerAddress {
  readonly host: string;
  readonly port: number;
}

export interface RemoteCounters {
  /** Calls answered. */
  roundTrips: number;
  messagesSent: number;
  messagesReceived: number;
  bytesSent: number;
  bytesReceived: number;
  /** Writes to the socket: several messages leave in one. */
  flushes: number;
}

export interface CallerIdentity {
  readonly clusterName: string;
  readonly volumeUuid: string;
  /** ClusterInfo.overlaySecrets, of now. */
  readonly secrets: () => readonly Uint8Array[];
  readonly nodeid: number;
  readonly incarnation: string;
  readonly clientId: number;
}

export interface ConnectionHandlers {
  readonly ready: (welcome: handshake.Welcome) => void;
  readonly refused: (refused: handshake.Refused) => void;
  readonly frame: (type: number, id: number, body: Uint8Array) => void;
  /** Once, last. */
  readonly closed: (reason: string) => void;
  /** Before what was collected leaves. */
  readonly beforeFlush: () => void;
}

/** Without an answer to the hello for that long the connection is made anew. */
const HANDSHAKE_TIMEOUT_MS = 5_000;

/** Looked for at a time: a quarter of the largest read. */
const RECEIVE_BYTES: number = 256 * 1024;

export class RemoteConnection {
  readonly epoch: number;
  readonly #identity: CallerIdentity;
  readonly #handlers: ConnectionHandlers;
  readonly #counters: RemoteCounters;
  readonly #socket: Socket;
  readonly #reader = new FrameReader();
  readonly #batch = new FrameBatch();
  readonly #hello: Uint8Array;
  #state: "hello" | "proof" | "ready" | "refused" | "closed" = "hello";
  /** With which the owner proved who it is. */
  #secret: Uint8Array | null = null;
  #reason = "the owner closed the connection";
  #flushAsked = false;
  /** The first of this turn has left, or is about to. */
  #firstLeft = false;
  #timer: NodeJS.Timeout;

  constructor(address: OwnerAddress, epoch: number, identity: CallerIdentity, handlers: ConnectionHandlers, counters: RemoteCounters) {
    this.epoch = epoch;
    this.#identity = identity;
    this.#handlers = handlers;
    this.#counters = counters;
    const { clusterName, volumeUuid, nodeid, incarnation, clientId } = identity;
    const session = { nodeid, incarnation, clientId, ownerEpoch: epoch };
    const nonce = randomBytes(handshake.NONCE_BYTES);
    this.#hello = handshake.encodeHello({ version: LOWER_WIRE_VERSION, clusterName, volumeUuid, session, nonce });
    this.#timer = setTimeout(() => this.#fail(`no answer within ${HANDSHAKE_TIMEOUT_MS} ms`), HANDSHAKE_TIMEOUT_MS);
    // One buffer for all that comes.
    const onread = {
      buffer: Buffer.allocUnsafeSlow(RECEIVE_BYTES),
      callback: (bytes: number, buffer: Uint8Array): boolean => {
        this.#receive(Buffer.from(buffer.buffer, buffer.byteOffset, bytes));
        return true;
      },
    };
    this.#socket = connect({ host: address.host, port: address.port, noDelay: true, keepAlive: true, onread });
    this.#socket.on("connect", () => {
      this.send(FrameType.HELLO, 0, this.#hello, null);
      this.flush();
    });
    // Always followed by "close", which tells the reason on.
    this.#socket.on("error", (error) => {
      this.#reason = error.message;
    });
    this.#socket.on("close", () => this.#closed());
  }

  /** An owner that proved a key which was replaced since is to prove another. */
  secretsChanged(): void {
    if (this.#secret !== null && !handshake.isAmong(this.#secret, this.#identity.secrets()))
      this.#fail("the key that the owner proved was replaced");
  }

  /** No handler is called any more. */
  destroy(): void {
    this.#state = "closed";
    clearTimeout(this.#timer);
    this.#socket.destroy();
  }

  #fail(reason: string): void {
    this.#reason = reason;
    this.#socket.destroy();
  }

  #closed(): void {
    clearTimeout(this.#timer);
    const told = this.#state === "closed" || this.#state === "refused";
    this.#state = "closed";
    if (!told) this.#handlers.closed(this.#reason);
  }

  /**
   * `data` must stay as it is until the call is answered. The first of a turn of the loop leaves as soon as the code that made it is done: the
   * turn may go on for long, since the device is looked at for more. What comes after it leaves at the turn's end, all in one write.
   */
  send(type: number, id: number, body: Uint8Array, data: Uint8Array | null): void {
    this.#counters.messagesSent += 1;
    this.#batch.add(type, id, body, data);
    if (this.#flushAsked) return;
    this.#flushAsked = true;
    const flush = (): void => {
      this.#flushAsked = false;
      this.flush();
    };
    if (this.#firstLeft) return void setImmediate(flush);
    this.#firstLeft = true;
    process.nextTick(flush);
    setImmediate(() => {
      this.#firstLeft = false;
    });
  }

  flush(): void {
    if (this.#state === "closed") return;
    if (this.#state === "ready") this.#handlers.beforeFlush();
    if (this.#batch.empty) return;
    this.#counters.flushes += 1;
    this.#counters.bytesSent += this.#batch.bytes;
    const parts = this.#batch.take();
    if (parts.length > 1) this.#socket.cork();
    for (const part of parts) this.#socket.write(part);
    if (parts.length > 1) this.#socket.uncork();
  }

  #receive(chunk: Buffer): void {
    this.#counters.bytesReceived += chunk.length;
    try {
      this.#reader.push(chunk, (type, id, body) => this.#frame(type, id, body), true);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      this.#fail(error.message);
    }
  }

  #frame(type: number, id: number, body: Uint8Array): void {
    if (this.#state === "closed" || this.#state === "refused") return;
    this.#counters.messagesReceived += 1;
    if (this.#state === "ready") {
      this.#handlers.frame(type, id, body);
    } else if (type === FrameType.REFUSED) {
      const refused = handshake.decodeRefused(body);
      this.#refuse(refused);
    } else if (type === FrameType.CHALLENGE && this.#state === "hello") {
      this.#receiveChallenge(handshake.decodeChallenge(body));
    } else if (type === FrameType.WELCOME && this.#state === "proof") {
      clearTimeout(this.#timer);
      this.#state = "ready";
      this.#reader.setLimit(MAX_FRAME_BYTES);
      this.#handlers.ready(handshake.decodeWelcome(body));
    } else {
      throw new WireError(`frame of type 0x${type.toString(16)} in the handshake`);
    }
  }

  #refuse(refused: handshake.Refused): void {
    this.#state = "refused";
    clearTimeout(this.#timer);
    this.#socket.destroy();
    this.#handlers.refused(refused);
  }

  #receiveChallenge(challenge: handshake.Challenge): void {
    const secret = handshake.secretOfProof("owner", this.#identity.secrets(), this.#hello, challenge.nonce, challenge.proof);
    if (secret === null) {
      this.#refuse({ reason: "wrong-secret", text: "the owner does not have this cluster's key" });
      return;
    }
    this.#secret = secret;
    this.#state = "proof";
    this.send(FrameType.PROOF, 0, handshake.proofOf("caller", secret, this.#hello, challenge.nonce), null);
    this.flush();
  }
}

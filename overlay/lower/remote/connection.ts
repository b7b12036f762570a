/** One connection to an owner: TLS with the cluster's key, the handshake, then frames both ways. Knows nothing of calls. */
import type { TLSSocket } from "node:tls";
import { WireError } from "../../../dlmd/base/error.ts";
import type { Keyring } from "../../../dlmd/tls/keyring.ts";
import { type SecureConnection, secureInitiator } from "../../../dlmd/tls/secure-connection.ts";
import * as handshake from "../wire/handshake.ts";
import { FrameBatch, FrameReader, FrameType, LOWER_WIRE_VERSION, MAX_FRAME_BYTES } from "../wire/frame.ts";
import { decodeAlive, encodeAlive, Heartbeat } from "../wire/heartbeat.ts";

/** Where an owner listens, and which client of which node it is (OwnerRecord). */
export interface OwnerAddress {
  readonly host: string;
  readonly port: number;
  readonly nodeid: number;
  readonly incarnation: string;
  readonly clientId: number;
}

export interface RemoteCounters {
  /** Calls answered. */
  roundTrips: number;
  /** Of these, those that somebody waits for. */
  awaited: number;
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
  /** Of ClusterInfo.overlayKeys, of now. */
  readonly keyring: () => Keyring;
  readonly nodeid: number;
  readonly incarnation: string;
  readonly clientId: number;
}

/** How a connection ended. */
export interface ConnectionEnd {
  readonly reason: string;
  /** It seems that the two have no key of the cluster in common (SecureHandlers). */
  readonly noCommonKey: boolean;
  /**
   * The owner is there as far as is known: it had served this connection, or its host took it, and the owner said nothing or closed it. So
   * does an owner whose turns are longer than the time that it gives to connections that have proved nothing.
   */
  readonly ownerThere: boolean;
  /** More than silence came: WELCOME, or the end of the handshake. An owner that hangs takes connections, and does neither. */
  readonly answered: boolean;
  /** After WELCOME nothing was heard for long. */
  readonly silent: boolean;
}

/** How long the owner is waited for. */
export interface Patience {
  /** For WELCOME, once the owner's host has taken the connection. */
  readonly welcomeMs: number;
  /** For anything, after WELCOME. */
  readonly silenceMs: number;
}

export interface ConnectionHandlers {
  /** `tookMs`: since the owner's host took the connection. */
  readonly ready: (welcome: handshake.Welcome, tookMs: number) => void;
  /** By the very owner that was called. */
  readonly refused: (refused: handshake.Refused) => void;
  readonly frame: (type: number, id: number, body: Uint8Array) => void;
  /** Once, last. */
  readonly closed: (end: ConnectionEnd) => void;
  /** Before what was collected leaves. */
  readonly beforeFlush: () => void;
}

/** From the first SYN to WELCOME or REFUSED; the connection is made anew then. Twice as long, if the last one ended so, up to the maximum. */
export const WELCOME_TIMEOUT_MS = 5_000;
/** Each connection takes one of ACCEPT_BACKLOG_MAX places of an owner that hangs, also after its end. */
export const WELCOME_TIMEOUT_MAX_MS = 30_000;

/**
 * What nobody waits for leaves with the next call that is waited for: a program that writes a file mostly makes another. It waits so long for that, or until there
 * is so much of it, or until its answer is waited for all the same (`hurry`).
 */
export const UNAWAITED_MS = 2;
export const UNAWAITED_BYTES_MAX: number = 64 * 1024;

/** Looked for at a time: a quarter of the largest read. */
const RECEIVE_BYTES: number = 256 * 1024;

export class RemoteConnection {
  readonly epoch: number;
  readonly #address: OwnerAddress;
  readonly #identity: CallerIdentity;
  readonly #handlers: ConnectionHandlers;
  readonly #counters: RemoteCounters;
  readonly #socket: TLSSocket;
  readonly #reader = new FrameReader();
  readonly #batch = new FrameBatch();
  #state: "tls" | "hello" | "ready" | "refused" | "closed" = "tls";
  /** With which the owner proved that it is one of the cluster. */
  #keyId: string | null = null;
  #reason = "the owner closed the connection";
  #noCommonKey = false;
  /** This end gave up, for #reason. */
  #failing = false;
  /** What is collected leaves at the end of this turn. */
  #turnEnds = false;
  /** What is collected, and nobody waits for, leaves then. Made once: a timer that is cleared and made anew takes longer than a message. */
  #unawaited: NodeJS.Timeout | null = null;
  #lingers = false;
  /** The first of this turn that is waited for has left, or is about to. */
  #firstLeft = false;
  #timer: NodeJS.Timeout;
  #heartbeat: Heartbeat | null = null;
  #ownerThere = false;
  #answered = false;
  #silent = false;
  readonly #silenceMs: number;
  #takenMs = performance.now();

  constructor(
    address: OwnerAddress,
    epoch: number,
    { welcomeMs, silenceMs }: Patience,
    identity: CallerIdentity,
    handlers: ConnectionHandlers,
    counters: RemoteCounters,
  ) {
    this.epoch = epoch;
    this.#address = address;
    this.#identity = identity;
    this.#handlers = handlers;
    this.#counters = counters;
    this.#silenceMs = silenceMs;
    this.#timer = setTimeout(() => {
      if (this.#socket.connecting || welcomeMs <= WELCOME_TIMEOUT_MS) return this.#noWelcome(WELCOME_TIMEOUT_MS);
      this.#timer = setTimeout(() => this.#noWelcome(welcomeMs), welcomeMs - WELCOME_TIMEOUT_MS);
    }, WELCOME_TIMEOUT_MS);
    // One buffer for all that comes.
    const onread = {
      buffer: Buffer.allocUnsafeSlow(RECEIVE_BYTES),
      callback: (bytes: number, buffer: Uint8Array): boolean => {
        this.#receive(Buffer.from(buffer.buffer, buffer.byteOffset, bytes));
        return true;
      },
    };
    this.#socket = secureInitiator({ host: address.host, port: address.port, onread }, identity.keyring(), {
      secured: (connection) => this.#secured(connection),
      failed: (reason, noCommonKey, hungUp) => {
        // Of #fail, if there was one.
        if (!this.#failing) this.#reason = reason;
        if (hungUp) this.#hungUp();
        this.#noCommonKey = noCommonKey;
        this.#closed();
      },
    });
    this.#socket.once("connect", () => {
      this.#takenMs = performance.now();
    });
  }

  #secured({ socket, key }: SecureConnection): void {
    this.#keyId = key.id;
    // Always followed by "close", which tells the reason on.
    socket.on("error", (error) => {
      this.#reason = error.message;
    });
    socket.on("close", () => {
      this.#hungUp();
      this.#closed();
    });
    if (this.#state !== "tls") return void socket.destroy();
    this.#state = "hello";
    const { clusterName, volumeUuid, nodeid, incarnation, clientId } = this.#identity;
    const session = { nodeid, incarnation, clientId, ownerEpoch: this.epoch };
    this.send(FrameType.HELLO, 0, handshake.encodeHello({ version: LOWER_WIRE_VERSION, clusterName, volumeUuid, session }), null, true);
    this.flush();
  }

  #noWelcome(waitedMs: number): void {
    this.#ownerThere = !this.#socket.connecting;
    const what = this.#ownerThere ? "the owner's host takes connections, and the owner says nothing" : "the owner's host does not answer";
    this.#fail(`no answer within ${waitedMs} ms: ${what}`);
  }

  /** Its host had taken the connection: one that takes none is ECONNREFUSED to a caller, never a reset. */
  #hungUp(): void {
    if (this.#failing) return;
    this.#ownerThere = true;
    this.#answered = true;
  }

  /** An owner that proved a key which was replaced since is to prove another. */
  keysChanged(): void {
    if (this.#keyId !== null && this.#identity.keyring().find(this.#keyId) === null)
      this.#fail("the key that the owner proved was replaced");
  }

  /** No handler is called any more. */
  destroy(): void {
    this.#state = "closed";
    this.#stopTimers();
    this.#socket.destroy();
  }

  #fail(reason: string): void {
    this.#failing = true;
    this.#reason = reason;
    this.#socket.destroy();
  }

  #closed(): void {
    this.#stopTimers();
    const told = this.#state === "closed" || this.#state === "refused";
    this.#state = "closed";
    if (told) return;
    this.#handlers.closed({
      reason: this.#reason,
      noCommonKey: this.#noCommonKey,
      ownerThere: this.#ownerThere,
      answered: this.#answered,
      silent: this.#silent,
    });
  }

  #stopTimers(): void {
    clearTimeout(this.#timer);
    if (this.#unawaited !== null) clearTimeout(this.#unawaited);
    this.#unawaited = null;
    this.#heartbeat?.stop();
  }

  #beginHeartbeat(): void {
    const events = {
      // What waits in the socket is a sign of life itself, once it leaves.
      sendAlive: (): void => {
        if (this.#socket.writableLength > 0) return;
        this.#batch.add(FrameType.ALIVE, 0, encodeAlive(), null);
        this.flush();
      },
      dead: (): void => {
        this.#silent = true;
        this.#fail(`nothing was heard of the owner for ${this.#silenceMs} ms`);
      },
      isListening: (): boolean => true,
    };
    this.#heartbeat = new Heartbeat(events, this.#silenceMs);
  }

  /**
   * `data` must stay as it is until the call is answered. The first of a turn of the loop that somebody waits for leaves as soon as the code that made it is
   * done: the turn may go on for long, since the device is looked at for more. All else that is waited for leaves with it, or at the turn's end, all in one write.
   */
  send(type: number, id: number, body: Uint8Array, data: Uint8Array | null, awaited: boolean): void {
    this.#counters.messagesSent += 1;
    this.#batch.add(type, id, body, data);
    if (!awaited && this.#batch.bytes < UNAWAITED_BYTES_MAX) {
      if (!this.#lingers) this.#linger();
      return;
    }
    if (awaited && !this.#firstLeft) {
      this.#firstLeft = true;
      process.nextTick(() => this.flush());
    }
    if (this.#turnEnds) return;
    this.#turnEnds = true;
    setImmediate(() => {
      this.#turnEnds = false;
      this.#firstLeft = false;
      this.flush();
    });
  }

  #linger(): void {
    this.#lingers = true;
    if (this.#unawaited === null) this.#unawaited = setTimeout(() => this.hurry(), UNAWAITED_MS);
    else this.#unawaited.refresh();
  }

  /** What nobody waited for is waited for now. */
  hurry(): void {
    if (this.#lingers) this.flush();
  }

  flush(): void {
    if (this.#state === "tls" || this.#state === "closed") return;
    if (this.#state === "ready") this.#handlers.beforeFlush();
    this.#lingers = false;
    if (this.#batch.empty) return;
    this.#heartbeat?.sent();
    this.#counters.flushes += 1;
    this.#counters.bytesSent += this.#batch.bytes;
    const parts = this.#batch.take();
    if (parts.length > 1) this.#socket.cork();
    for (const part of parts) this.#socket.write(part);
    if (parts.length > 1) this.#socket.uncork();
  }

  #receive(chunk: Buffer): void {
    this.#counters.bytesReceived += chunk.length;
    this.#heartbeat?.heard();
    try {
      this.#reader.push(chunk, (type, id, body) => this.#frame(type, id, body), true);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      this.#fail(error.message);
    }
  }

  #frame(type: number, id: number, body: Uint8Array): void {
    if (this.#state === "closed" || this.#state === "refused") return;
    if (this.#state === "ready" && type === FrameType.ALIVE) return decodeAlive(body);
    this.#counters.messagesReceived += 1;
    if (this.#state === "ready") {
      this.#handlers.frame(type, id, body);
    } else if (type === FrameType.REFUSED) {
      const refused = handshake.decodeRefused(body);
      if (this.#isOwner(refused.owner)) this.#refuse(refused);
    } else if (type === FrameType.WELCOME) {
      const welcome = handshake.decodeWelcome(body);
      if (this.#isOwner(welcome.owner)) this.#welcome(welcome);
    } else {
      throw new WireError(`frame of type 0x${type.toString(16)} in the handshake`);
    }
  }

  /** The owner that was called answers, and not another one that has its port by now. */
  #isOwner(found: handshake.OwnerId): boolean {
    const { nodeid, incarnation, clientId } = this.#address;
    const expected = { nodeid, incarnation, clientId, epoch: this.epoch };
    if (handshake.isSameOwner(expected, found)) return true;
    const words = (owner: handshake.OwnerId): string =>
      `client ${owner.clientId} of node ${owner.nodeid} (${owner.incarnation}), epoch ${owner.epoch}`;
    this.#fail(`another owner answers: ${words(expected)} expected, found ${words(found)}`);
    return false;
  }

  #welcome(welcome: handshake.Welcome): void {
    clearTimeout(this.#timer);
    this.#state = "ready";
    this.#ownerThere = true;
    this.#answered = true;
    this.#beginHeartbeat();
    this.#reader.setLimit(MAX_FRAME_BYTES);
    this.#handlers.ready(welcome, performance.now() - this.#takenMs);
  }

  #refuse(refused: handshake.Refused): void {
    this.#state = "refused";
    clearTimeout(this.#timer);
    this.#socket.destroy();
    this.#handlers.refused(refused);
  }
}

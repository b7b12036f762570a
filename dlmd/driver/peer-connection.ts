/**
 * One TLS connection to another dlmd (tls/secure-connection.ts): handshake (handshake.ts), then frames (wire/frame.ts) whose first byte names a
 * channel: the locks' messages (wire/peer.ts), proofs of keys, the configuration. Messages gathered between two flushes leave in one
 * write; a damaged frame ends the connection. TLS guards the bytes, so frames have no checksum of their own.
 */
import { timingSafeEqual } from "node:crypto";
import type { TLSSocket } from "node:tls";
import { WireError } from "../base/error.ts";
import { createFrameReader, frameHeadBytes } from "../wire/frame.ts";
import { type PeerMessage, decodeFrame, encodeFrames, maxFrameBytes } from "../wire/peer.ts";
import { type ViewId, sameView } from "../wire/view-id.ts";
import { type ConfigOffer, HANDSHAKE_FRAME_BYTES, type Handshake, type HandshakeStep, type Identity, type Role } from "./handshake.ts";
import { type Keyring, connectionProof } from "../tls/keyring.ts";
import type { SecureConnection } from "../tls/secure-connection.ts";

/** More than that unsent: the peer takes nothing, and the connection ends. */
export const PEER_UNSENT_BYTES: number = 64 * 1024 * 1024;
/** A connection that was refused stays that long, so that the reason arrives. */
const REFUSED_LINGER_MS = 1000;
const HEAD_BYTES = frameHeadBytes(false);
/** An empty frame: "I am here". */
const PING: Buffer = Buffer.alloc(HEAD_BYTES);
const Channel = { LOCKS: 0, KEYS: 1, CONFIG: 2 } as const;
const KEY_ID_BYTES = 4;
const PROOF_BYTES = 32;
/** Of one frame on the channel of keys; more are refused. */
const MAX_PROOFS = 16;

export interface PeerConnectionHandlers {
  /** The peer proved who it is. */
  readonly established: (connection: PeerConnection, peer: Identity) => void;
  /** Why one of the two does not want the other. */
  readonly refused: (reason: string, offer: ConfigOffer | null) => void;
  /** It is a program that asks for a check of this machine (wire/self-check.ts), and has the key: its answer is sent by `say`. */
  readonly asked: (connection: PeerConnection, limitMs: number) => void;
  readonly frame: (connection: PeerConnection, view: ViewId, messages: readonly PeerMessage[]) => void;
  /** After the frames of one read. */
  readonly read: () => void;
  /** A frame on the channel of the configuration; valid during the call. */
  readonly config: (connection: PeerConnection, body: Uint8Array) => void;
  /** Once. `unreadable`: it was established, and then the peer sent what cannot be read. */
  readonly closed: (connection: PeerConnection, reason: string, unreadable: boolean) => void;
}

export interface PeerConnectionOptions {
  readonly secure: SecureConnection;
  readonly role: Role;
  readonly keyring: Keyring;
  readonly handshake: Handshake;
  readonly nowMs: () => number;
  readonly handlers: PeerConnectionHandlers;
}

/** `channel` null: frames of the handshake, which have none. */
function framed(channel: number | null, bodies: readonly Uint8Array[]): Buffer {
  const head = channel === null ? HEAD_BYTES : HEAD_BYTES + 1;
  let bytes = 0;
  for (const body of bodies) bytes += head + body.byteLength;
  const frames = Buffer.allocUnsafe(bytes);
  let at = 0;
  for (const body of bodies) {
    frames.writeUInt32LE(head - HEAD_BYTES + body.byteLength, at);
    if (channel !== null) frames.writeUInt8(channel, at + HEAD_BYTES);
    frames.set(body, at + head);
    at += head + body.byteLength;
  }
  return frames;
}

export class PeerConnection {
  readonly #socket: TLSSocket;
  readonly #role: Role;
  readonly #binding: Uint8Array;
  readonly #handshake: Handshake;
  readonly #handlers: PeerConnectionHandlers;
  readonly #nowMs: () => number;
  #keyring: Keyring;
  /** The proofs of keys that the peer sent last, and its key of TLS, by key id: checked against our keys whenever those change. */
  readonly #provedKeys: Set<string>;
  #proofs = new Map<string, Uint8Array>();
  #peer: Identity | null = null;
  #receivedAt: number;
  #paused = false;
  #over = false;
  #unsentView: ViewId | null = null;
  #unsentMessages: PeerMessage[] = [];
  #unsentBodies: Uint8Array[] = [];

  constructor({ secure, role, keyring, handshake, nowMs, handlers }: PeerConnectionOptions) {
    const { socket } = secure;
    this.#socket = socket;
    this.#role = role;
    this.#binding = secure.binding;
    this.#provedKeys = new Set([secure.key.id]);
    this.#keyring = keyring;
    this.#handshake = handshake;
    this.#handlers = handlers;
    this.#nowMs = nowMs;
    this.#receivedAt = nowMs();
    const frames = createFrameReader({ maxBytes: maxFrameBytes + 1, crc32: null });
    const onFrame = (body: Uint8Array): void => this.#receive(body);
    socket.on("data", (chunk: Buffer) => {
      this.#receivedAt = this.#nowMs();
      try {
        frames.push(chunk, onFrame);
      } catch (error) {
        if (!(error instanceof WireError)) throw error;
        this.#close(error.message, this.#peer !== null);
      }
      handlers.read();
    });
    socket.on("error", (error) => this.close(error.message));
    socket.on("end", () => this.close("closed by the peer"));
    socket.on("close", () => this.close("closed"));
    socket.write(framed(null, [handshake.hello]));
  }

  get nodeid(): number | null {
    return this.#peer?.nodeid ?? null;
  }

  get incarnation(): string {
    return this.#peer?.incarnation ?? "";
  }

  /** Milliseconds since the peer was last heard; 0 while it is not read. */
  silentMs(): number {
    return this.#paused ? 0 : this.#nowMs() - this.#receivedAt;
  }

  #receive(body: Uint8Array): void {
    if (this.#over) return;
    if (this.#peer === null) {
      if (body.byteLength > HANDSHAKE_FRAME_BYTES) throw new WireError(`handshake frame of ${body.byteLength} bytes`);
      this.#shake(this.#handshake.receive(body));
    } else if (body.byteLength > 0) {
      this.#receiveOn(body[0] as number, body.subarray(1));
    }
  }

  #receiveOn(channel: number, body: Uint8Array): void {
    if (channel === Channel.LOCKS) {
      const { view, messages } = decodeFrame(body);
      this.#handlers.frame(this, view, messages);
    } else if (channel === Channel.KEYS) {
      this.#receiveProofs(body);
    } else if (channel === Channel.CONFIG) {
      this.#handlers.config(this, body);
    } else {
      throw new WireError(`frame on the unknown channel ${channel}`);
    }
  }

  #receiveProofs(body: Uint8Array): void {
    const each = KEY_ID_BYTES + PROOF_BYTES;
    if (body.byteLength % each !== 0 || body.byteLength > MAX_PROOFS * each) throw new WireError(`${body.byteLength} bytes of key proofs`);
    const bytes = Buffer.from(body);
    this.#proofs = new Map();
    for (let at = 0; at < bytes.length; at += each) {
      this.#proofs.set(bytes.toString("hex", at, at + KEY_ID_BYTES), bytes.subarray(at + KEY_ID_BYTES, at + each));
    }
    this.#checkProofs();
  }

  /** Proofs of keys that we do not have (yet) say nothing. */
  #checkProofs(): void {
    for (const [id, proof] of this.#proofs) {
      const key = this.#keyring.find(id);
      if (key === null) continue;
      const theirs = this.#role === "initiator" ? "acceptor" : "initiator";
      if (timingSafeEqual(proof, connectionProof(key, theirs, this.#binding, "keys"))) this.#provedKeys.add(id);
    }
  }

  /**
   * The keys changed: proves to the peer which this node has, and ends the connection if the peer has proved none of those that are
   * accepted now.
   */
  setKeyring(keyring: Keyring): void {
    this.#keyring = keyring;
    if (this.#over || this.#peer === null) return;
    this.#checkProofs();
    const proofs = keyring.all.map((key) =>
      Buffer.concat([Buffer.from(key.id, "hex"), connectionProof(key, this.#role, this.#binding, "keys")]),
    );
    this.#socket.write(framed(Channel.KEYS, [Buffer.concat(proofs)]));
    if (keyring.all.some(({ id }) => this.#provedKeys.has(id))) return;
    this.close(`key removed: the peer has only proved keys that this node does not accept any more (${[...this.#provedKeys].join(", ")})`);
  }

  #shake(step: HandshakeStep): void {
    if (step.kind === "done") {
      this.#peer = step.peer;
      this.#handlers.established(this, step.peer);
      return;
    }
    if (step.kind === "check") return this.#handlers.asked(this, step.limitMs);
    if (step.send !== null) this.#socket.write(framed(null, [step.send]));
    if (step.kind === "refused") {
      this.#handlers.refused(step.reason, step.offer);
      this.close(step.reason);
    }
  }

  /** To a program that is no peer; nothing if the connection is over. `last`: it is closed then. */
  say(body: Uint8Array, last: boolean): void {
    if (this.#over) return;
    this.#socket.write(framed(null, [body]));
    if (last) this.close("its question is answered");
  }

  /** Messages of that view; `flush` writes them. */
  send(view: ViewId, messages: readonly PeerMessage[]): void {
    if (this.#unsentView !== null && !sameView(this.#unsentView, view)) this.#encode();
    this.#unsentView = view;
    for (const message of messages) this.#unsentMessages.push(message);
  }

  #encode(): void {
    if (this.#unsentView === null) return;
    this.#unsentBodies.push(...encodeFrames(this.#unsentView, this.#unsentMessages));
    this.#unsentView = null;
    this.#unsentMessages = [];
  }

  flush(): void {
    this.#encode();
    if (this.#over || this.#unsentBodies.length === 0) return;
    this.#socket.write(framed(Channel.LOCKS, this.#unsentBodies));
    this.#unsentBodies = [];
    this.#checkUnsent();
  }

  /** One frame on the channel of the configuration. */
  sendConfig(body: Uint8Array): void {
    if (this.#over || this.#peer === null) return;
    this.#socket.write(framed(Channel.CONFIG, [body]));
    this.#checkUnsent();
  }

  #checkUnsent(): void {
    if (this.#socket.writableLength > PEER_UNSENT_BYTES) {
      this.close(`more than ${PEER_UNSENT_BYTES} bytes unsent: the peer does not read`);
    }
  }

  ping(): void {
    if (!this.#over && this.#peer !== null) this.#socket.write(PING);
  }

  setPaused(paused: boolean): void {
    if (this.#over) return;
    this.#paused = paused;
    this.#receivedAt = this.#nowMs();
    if (paused) this.#socket.pause();
    else this.#socket.resume();
  }

  close(reason: string): void {
    this.#close(reason, false);
  }

  #close(reason: string, unreadable: boolean): void {
    if (this.#over) return;
    this.#over = true;
    if (this.#peer === null && !this.#socket.destroyed) {
      // The last word was a refusal: read and throw away, so that closing does not take it back.
      this.#socket.resume();
      this.#socket.end();
      const linger = setTimeout(() => this.#socket.destroy(), REFUSED_LINGER_MS);
      this.#socket.once("close", () => clearTimeout(linger));
    } else {
      this.#socket.destroy();
    }
    this.#handlers.closed(this, reason, unreadable);
  }
}

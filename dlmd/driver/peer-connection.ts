/**
 * One TCP connection to another dlmd: handshake (handshake.ts), then checksummed frames (wire/frame.ts, wire/peer.ts).
 * Messages gathered between two flushes leave in one write; a damaged frame ends the connection.
 */
import type { Socket } from "node:net";
import { crc32 } from "node:zlib";
import { WireError } from "../base/error.ts";
import { createFrameReader, frameHeadBytes } from "../wire/frame.ts";
import { type PeerMessage, decodeFrame, encodeFrames, maxFrameBytes } from "../wire/peer.ts";
import { type ViewId, sameView } from "../wire/view-id.ts";
import { HANDSHAKE_FRAME_BYTES, type Handshake, type HandshakeStep, type Identity } from "./handshake.ts";

/** More than that unsent: the peer takes nothing, and the connection ends. */
export const PEER_UNSENT_BYTES: number = 64 * 1024 * 1024;
/** A connection that was refused stays that long, so that the reason arrives. */
const REFUSED_LINGER_MS = 1000;
const HEAD_BYTES = frameHeadBytes(true);
/** An empty frame: "I am here". */
const PING: Buffer = Buffer.alloc(HEAD_BYTES);

export interface PeerConnectionHandlers {
  /** The peer proved who it is. */
  readonly established: (connection: PeerConnection, peer: Identity) => void;
  /** Why one of the two does not want the other. */
  readonly refused: (reason: string) => void;
  readonly frame: (connection: PeerConnection, view: ViewId, messages: readonly PeerMessage[]) => void;
  /** Once. `established`: it had been called. */
  readonly closed: (connection: PeerConnection, reason: string, established: boolean) => void;
}

function framed(bodies: readonly Uint8Array[]): Buffer {
  let bytes = 0;
  for (const body of bodies) bytes += HEAD_BYTES + body.byteLength;
  const frames = Buffer.allocUnsafe(bytes);
  let at = 0;
  for (const body of bodies) {
    frames.writeUInt32LE(body.byteLength, at);
    frames.writeUInt32LE(crc32(body), at + 4);
    frames.set(body, at + HEAD_BYTES);
    at += HEAD_BYTES + body.byteLength;
  }
  return frames;
}

export class PeerConnection {
  readonly #socket: Socket;
  readonly #handshake: Handshake;
  readonly #handlers: PeerConnectionHandlers;
  readonly #nowMs: () => number;
  #peer: Identity | null = null;
  #receivedAt: number;
  #paused = false;
  #over = false;
  #unsentView: ViewId | null = null;
  #unsentMessages: PeerMessage[] = [];
  #unsentBodies: Uint8Array[] = [];

  constructor(socket: Socket, handshake: Handshake, nowMs: () => number, handlers: PeerConnectionHandlers) {
    this.#socket = socket;
    this.#handshake = handshake;
    this.#handlers = handlers;
    this.#nowMs = nowMs;
    this.#receivedAt = nowMs();
    socket.setNoDelay(true);
    const frames = createFrameReader({ maxBytes: maxFrameBytes, crc32 });
    const onFrame = (body: Uint8Array): void => this.#receive(body);
    socket.on("data", (chunk) => {
      this.#receivedAt = this.#nowMs();
      try {
        frames.push(chunk, onFrame);
      } catch (error) {
        if (!(error instanceof WireError)) throw error;
        this.close(error.message);
      }
    });
    socket.on("error", (error) => this.close(error.message));
    socket.on("end", () => this.close("closed by the peer"));
    socket.on("close", () => this.close("closed"));
    socket.write(framed([handshake.hello]));
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
      const { view, messages } = decodeFrame(body);
      this.#handlers.frame(this, view, messages);
    }
  }

  #shake(step: HandshakeStep): void {
    if (step.kind === "done") {
      this.#peer = step.peer;
      this.#handlers.established(this, step.peer);
      return;
    }
    if (step.send !== null) this.#socket.write(framed([step.send]));
    if (step.kind === "refused") {
      this.#handlers.refused(step.reason);
      this.close(step.reason);
    }
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
    this.#socket.write(framed(this.#unsentBodies));
    this.#unsentBodies = [];
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
    this.#handlers.closed(this, reason, this.#peer !== null);
  }
}

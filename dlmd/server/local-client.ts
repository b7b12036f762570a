/**
 * One program on the local socket: its frames become requests, events for it become frames.
 */
import type { Socket } from "node:net";
import { AssertionError, assertNever } from "../base/assert.ts";
import { WireError } from "../base/error.ts";
import type { MulticastAnswer } from "../query/answer.ts";
import type { ClusterInfo, OverlayKey, ClientEvent, ClientRequest } from "../wire/program.ts";
import type { Mode } from "../wire/mode.ts";
import { FrameGatherer, createFrameReader } from "../wire/frame.ts";
import {
  LOCAL_BATCH_BYTES,
  LOCAL_FRAME_BYTES,
  type RequestSink,
  beginResults,
  decodeRequests,
  encodeResult,
  gatherAst,
} from "../wire/local-batch.ts";
import { type ClientMessage, LOCAL_VERSION, type ServerMessage, decodeClientMessage, encodeServerMessage } from "../wire/local.ts";

/** A client that has so much unread is not read itself until it has read. */
export const UNREAD_PAUSE_BYTES: number = 8 * 1024 * 1024;
/** A client that has so much unread is taken out of its groups. */
export const SLOW_BYTES: number = 64 * 1024 * 1024;
/** What one turn of the event loop may have for one client. */
const MAX_UNSENT_BYTES: number = 1024 * 1024 * 1024;
/** A client that was refused has that long to read why. */
const REFUSED_LINGER_MS = 2000;

export interface LocalClientHandlers {
  /** What the shell counted, for answers to "status". */
  readonly counters: () => Readonly<Record<string, number>>;
  /** What of other nodes arrives by multicast, for the same answers; null: the cluster uses none. */
  readonly multicast: () => MulticastAnswer | null;
  readonly hello: (hello: Omit<Extract<ClientMessage, { kind: "hello" }>, "kind" | "version">) => void;
  /** As many as one read of the socket gave. */
  readonly requests: (requests: readonly ClientRequest[]) => void;
  /** So much is unread: more than SLOW_BYTES. Not said again before it has read all. */
  readonly slow: (unreadBytes: number) => void;
  /** It sent what cannot be understood; `gone` follows. */
  readonly refused: (reason: string) => void;
  /** Once, after its last requests. `greeted`: `hello` was called. `endedHere`: by `close` or `refuse`. */
  readonly gone: (reason: string, greeted: boolean, endedHere: boolean) => void;
}

type PauseReason = "core" | "unread";

export class LocalClient implements RequestSink {
  readonly #socket: Socket;
  readonly #clientId: number;
  readonly #handlers: LocalClientHandlers;
  readonly #gatherer: FrameGatherer = new FrameGatherer(MAX_UNSENT_BYTES, LOCAL_BATCH_BYTES, beginResults);
  readonly #pauses = new Set<PauseReason>();
  /** Outstanding queries for the status: their answers get what the shell knows. */
  readonly #statusQueries = new Set<number>();
  #requests: ClientRequest[] = [];
  #greeted = false;
  #welcomed = false;
  #over = false;
  #slow = false;

  constructor(socket: Socket, clientId: number, handlers: LocalClientHandlers) {
    this.#socket = socket;
    this.#clientId = clientId;
    this.#handlers = handlers;
    const frames = createFrameReader({ maxBytes: LOCAL_FRAME_BYTES, crc32: null });
    const onFrame = (body: Uint8Array): void => this.#receive(decodeClientMessage(body));
    socket.on("data", (chunk) => {
      if (this.#over) return;
      let damaged: WireError | null = null;
      try {
        frames.push(chunk, onFrame);
      } catch (error) {
        if (!(error instanceof WireError)) throw error;
        damaged = error;
      }
      // What came whole before the damage counts.
      this.#handRequests();
      if (damaged !== null) this.refuse(damaged);
    });
    socket.on("drain", () => {
      this.#slow = false;
      this.setPaused("unread", false);
    });
    socket.on("error", (error) => this.#end(error.message, false));
    socket.on("close", () => this.#end("disconnected", false));
  }

  #handRequests(): void {
    if (this.#requests.length === 0) return;
    const requests = this.#requests;
    this.#requests = [];
    this.#handlers.requests(requests);
  }

  #receive(message: ClientMessage): void {
    if (message.kind !== "hello") {
      if (!this.#greeted) throw new WireError(`${message.kind} before the hello`);
      if (message.kind === "requests") decodeRequests(message.entries, this);
      else this.#requests.push(message);
      if (message.kind === "query" && message.what === "status") this.#statusQueries.add(message.queryId);
      return;
    }
    if (this.#greeted) throw new WireError("a second hello");
    if (message.version !== LOCAL_VERSION) {
      // Most often a package was upgraded under a dlmd that runs.
      const todo = message.version > LOCAL_VERSION ? "restart dlmd, which is the older one" : "run programs of its release, which is newer";
      throw new WireError(`version ${message.version} of the local protocol; this dlmd speaks ${LOCAL_VERSION}: ${todo}`);
    }
    this.#greeted = true;
    this.#handlers.hello(message);
  }

  lock(lockId: number, lockspaceId: number, resource: string, mode: Mode, flags: number, timeoutMs: number, transaction: number): void {
    this.#requests.push({ kind: "lock", lockspaceId, lockId, resource, mode, flags, timeoutMs, transaction });
  }
  // A value block is a view of what the socket read: copied, because it is kept.
  convert(lockId: number, mode: Mode, flags: number, lvb: Uint8Array | null, timeoutMs: number, transaction: number | undefined): void {
    const block = lvb === null ? null : Uint8Array.from(lvb);
    const request = { kind: "convert", lockId, mode, flags, lvb: block, timeoutMs } as const;
    this.#requests.push(transaction === undefined ? request : { ...request, transaction });
  }
  unlock(lockId: number, flags: number, lvb: Uint8Array | null): void {
    this.#requests.push({ kind: "unlock", lockId, flags, lvb: lvb === null ? null : Uint8Array.from(lvb) });
  }
  down(lockId: number, mode: Mode, flags: number, lvb: Uint8Array | null): void {
    this.#requests.push({ kind: "convert", lockId, mode, flags, lvb: lvb === null ? null : Uint8Array.from(lvb), silent: true });
  }
  giveUp(lockId: number, flags: number, lvb: Uint8Array | null): void {
    this.#requests.push({ kind: "unlock", lockId, flags, lvb: lvb === null ? null : Uint8Array.from(lvb), silent: true });
  }
  cancel(lockId: number): void {
    this.#requests.push({ kind: "cancel", lockId });
  }

  /** Gathers events; `flush` writes them. `info` is asked for the welcome. */
  send(events: readonly ClientEvent[], info: () => Omit<ClusterInfo, "clientId">): void {
    for (const event of events) this.#gather(event, info);
  }

  #gather(event: ClientEvent, info: () => Omit<ClusterInfo, "clientId">): void {
    switch (event.kind) {
      case "ast": {
        const { lockId, status, mode, sbFlags, lvbRead, lvb, lvbValid, error } = event;
        if (error !== null) encodeResult.refused(this.#gatherer.entry(), lockId, mode, error.errno, error.message);
        else gatherAst(this.#gatherer, lockId, status, mode, sbFlags, lvbRead, lvb, lvbValid);
        return;
      }
      case "bast":
        encodeResult.bast(this.#gatherer.entry(), event.lockId, event.wanted);
        return;
      case "view":
        if (this.#welcomed) this.#message(event);
        else this.#message({ kind: "welcome", info: { ...info(), clientId: this.#clientId }, view: event.view });
        this.#welcomed = true;
        return;
      case "opened":
      case "purged":
      case "gone":
      case "heir-result":
      case "inherited":
      case "plock-result":
      case "group-result":
      case "group-members":
      case "group-message":
      case "group-ended":
        this.#message(event);
        return;
      case "answer":
        this.#answer(event.queryId, event.data);
        return;
      default:
        assertNever(event, "client event");
    }
  }

  #answer(queryId: number, data: unknown): void {
    const ofStatus = this.#statusQueries.delete(queryId) && typeof data === "object" && data !== null;
    const whole = ofStatus ? { ...data, counters: this.#handlers.counters(), multicast: this.#handlers.multicast() } : data;
    this.#message({ kind: "answer", queryId, json: Buffer.from(JSON.stringify(whole)) });
  }

  #message(message: Exclude<ServerMessage, { kind: "results" }>): void {
    if (message.kind !== "error" && message.kind !== "welcome" && !this.#welcomed)
      throw new AssertionError(`${message.kind} before the welcome`);
    this.#gatherer.message((writer) => encodeServerMessage(writer, message));
  }

  /** The cluster's keys were replaced. Who is not welcomed yet is told then. */
  tellOverlayKeys(keys: readonly OverlayKey[]): void {
    if (this.#welcomed && !this.#over) this.#message({ kind: "overlay-keys", keys });
  }

  flush(): void {
    if (this.#over || this.#gatherer.length === 0) return;
    this.#socket.write(this.#gatherer.take());
    const unread = this.#socket.writableLength;
    if (unread > UNREAD_PAUSE_BYTES) this.setPaused("unread", true);
    if (unread <= SLOW_BYTES || this.#slow) return;
    this.#slow = true;
    this.#handlers.slow(unread);
  }

  setPaused(reason: PauseReason, paused: boolean): void {
    if (paused) this.#pauses.add(reason);
    else this.#pauses.delete(reason);
    if (this.#over) return;
    if (this.#pauses.size > 0) this.#socket.pause();
    else this.#socket.resume();
  }

  /** Tells it why and closes. */
  refuse(error: WireError): void {
    if (this.#over) return;
    this.#handlers.refused(error.message);
    this.#message({ kind: "error", reason: error.message });
    this.flush();
    this.#end(error.message, true);
  }

  get welcomed(): boolean {
    return this.#welcomed;
  }

  /** Tells it why and closes; the handlers hear `gone`. Before its welcome the word would be a refusal, and it may come again: it is told nothing. */
  close(reason: string): void {
    if (this.#over) return;
    if (this.#welcomed) this.#message({ kind: "error", reason });
    this.flush();
    this.#end(reason, true);
  }

  /** Its process is dead: what it would still read is for nobody. */
  broken(reason: string): void {
    this.#end(reason, false);
  }

  #end(reason: string, endedHere: boolean): void {
    if (this.#over) return;
    this.#over = true;
    // Read and thrown away: closing with bytes unread would take the reason away from the peer.
    this.#socket.resume();
    this.#socket.end();
    const linger = setTimeout(() => this.#socket.destroy(), REFUSED_LINGER_MS);
    this.#socket.once("close", () => clearTimeout(linger));
    this.#handlers.gone(reason, this.#greeted, endedHere);
  }
}

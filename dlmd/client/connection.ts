/**
 * The bytes of a connection to dlmd: what is requested within one turn of the event loop leaves in one write, and what
 * arrives goes to its lock. The lock numbers of this connection live here.
 */
import type { Socket } from "node:net";
import { AssertionError } from "../base/assert.ts";
import type { ByteWriter } from "../base/bytes.ts";
import { WireError } from "../base/error.ts";
import type { Mode } from "../wire/mode.ts";
import { FrameGatherer, createFrameReader } from "../wire/frame.ts";
import { LOCAL_BATCH_BYTES, LOCAL_FRAME_BYTES, type ResultSink, beginRequests, decodeResults, gatherRequest } from "../wire/local-batch.ts";
import { type ClientMessage, type ServerMessage, decodeServerMessage, encodeClientMessage } from "../wire/local.ts";
import type { LockStatus } from "./api.ts";

/** What one turn of the event loop may ask for. */
const MAX_UNSENT_BYTES: number = 256 * 1024 * 1024;

/** What can wait leaves with what is asked for next, when dlmd says something, or so much later (hazard H2). */
export const SOON_MS = 20;

/** A dlmd that hangs hears of the end of a connection when it goes on: the program does not wait longer for that. */
const HEARD_LIMIT_MS = 1000;

/** What comes for one lock. */
export interface LockResults {
  receiveAst(status: LockStatus, mode: Mode, sbFlags: number, lvbRead: boolean, lvb: Uint8Array | null, lvbValid: boolean): void;
  receiveBast(wanted: Mode): void;
  receiveRefused(mode: Mode, errno: number, reason: string): void;
}

export interface ConnectionHandlers {
  readonly message: (message: Exclude<ServerMessage, { kind: "results" }>) => void;
  /** Once, when the connection is over for whatever reason but `end`. */
  readonly disconnected: (reason: Error) => void;
}

export class Connection implements ResultSink {
  readonly counters: { sent: number; received: number } = { sent: 0, received: 0 };
  readonly #socket: Socket;
  readonly #handlers: ConnectionHandlers;
  readonly #gatherer: FrameGatherer = new FrameGatherer(MAX_UNSENT_BYTES, LOCAL_BATCH_BYTES, beginRequests);
  readonly #locks: (LockResults | null)[] = [];
  readonly #freeLockIds: number[] = [];
  readonly #flush: () => void;
  #flushScheduled = false;
  /** Something was gathered that can wait. */
  #soon: NodeJS.Timeout | null = null;
  /** Who gathers on his own what this turn asks for, and has not given it here yet. */
  readonly #gathering: (() => void)[] = [];
  /** Why it has ended. */
  #over: Error | null = null;
  readonly #whenOver = new Set<(why: Error) => void>();

  constructor(socket: Socket, handlers: ConnectionHandlers) {
    this.#socket = socket;
    this.#handlers = handlers;
    this.#flush = () => this.flush();
    const frames = createFrameReader({ maxBytes: LOCAL_FRAME_BYTES, crc32: null });
    const onFrame = (body: Uint8Array): void => this.#receive(body);
    socket.on("data", (chunk) => {
      try {
        frames.push(chunk, onFrame);
      } catch (error) {
        // An assertion, or a callback that throws, is not dlmd's fault: it goes on to end this program.
        if (!(error instanceof WireError)) throw error;
        this.#fail(error);
      }
    });
    socket.on("error", (error) => this.#fail(error));
    socket.on("close", () => this.#fail(new Error("dlmd closed the connection")));
  }

  get descriptor(): number {
    // No public name of net.Socket's.
    const { _handle: handle } = this.#socket as Socket & { readonly _handle: { readonly fd: number } | null };
    return handle?.fd ?? -1;
  }

  get over(): boolean {
    return this.#over !== null;
  }

  /** Lockspace.whenOver of api.ts */
  whenOver(told: (why: Error) => void): () => void {
    const over = this.#over;
    if (over === null) this.#whenOver.add(told);
    else queueMicrotask(() => told(over));
    return () => void this.#whenOver.delete(told);
  }

  #tellOver(why: Error): void {
    const told = [...this.#whenOver];
    this.#whenOver.clear();
    for (const tell of told) tell(why);
  }

  /** The writer, ready for one more entry of the batch of this turn. */
  entry(): ByteWriter {
    this.#schedule();
    this.counters.sent++;
    return this.#gatherer.entry();
  }

  /** A request for a lock, in one entry with those before it that are alike. */
  lock(lockId: number, lockspaceId: number, resource: string, mode: Mode, flags: number): void {
    this.#schedule();
    gatherRequest.lock(this.#gatherer, lockId, lockspaceId, resource, mode, flags);
    this.#countList();
  }

  /** `canWait`: it leaves SOON_MS later, if nothing leaves before. */
  giveUp(lockId: number, flags: number, lvb: Uint8Array | null, canWait: boolean): void {
    if (canWait) this.#soon ??= setTimeout(this.#flush, SOON_MS);
    else this.#schedule();
    gatherRequest.giveUp(this.#gatherer, lockId, flags, lvb);
    this.#countList();
  }

  #countList(): void {
    if (this.#gatherer.beganList) this.counters.sent++;
  }

  send(message: Exclude<ClientMessage, { kind: "requests" }>): void {
    this.#schedule();
    this.counters.sent++;
    this.#gatherer.message((writer) => encodeClientMessage(writer, message));
  }

  /** `give` is called before the next write, to send what was gathered until then. */
  gather(give: () => void): void {
    this.#gathering.push(give);
    this.#schedule();
  }

  /** Sends what was gathered at once. */
  flush(): void {
    for (const give of this.#gathering.splice(0)) give();
    this.#flushScheduled = false;
    if (this.#soon !== null) clearTimeout(this.#soon);
    this.#soon = null;
    if (this.#gatherer.length === 0) return;
    const unsent = this.#gatherer.take();
    if (!this.over) this.#socket.write(unsent);
  }

  #schedule(): void {
    if (this.#flushScheduled) return;
    this.#flushScheduled = true;
    setImmediate(this.#flush);
  }

  register(lock: LockResults): number {
    const lockId = this.#freeLockIds.pop() ?? this.#locks.length;
    // Of one that is over nobody hears any more.
    if (!this.over) this.#locks[lockId] = lock;
    return lockId;
  }

  /** Results come in order, so after the last one of a lock its number is free at once. */
  release(lockId: number): void {
    this.#locks[lockId] = null;
    this.#freeLockIds.push(lockId);
  }

  ast(lockId: number, status: LockStatus, mode: Mode, sbFlags: number, lvbRead: boolean, lvb: Uint8Array | null, lvbValid: boolean): void {
    const lock = this.#locks[lockId] ?? null;
    if (lock === null) throw new AssertionError(`a result for lock ${lockId}, which is not there`);
    lock.receiveAst(status, mode, sbFlags, lvbRead, lvb, lvbValid);
  }

  bast(lockId: number, wanted: Mode): void {
    this.#locks[lockId]?.receiveBast(wanted);
  }

  refused(lockId: number, mode: Mode, errno: number, reason: string): void {
    const lock = this.#locks[lockId] ?? null;
    if (lock === null) throw new AssertionError(`a refusal for lock ${lockId}, which is not there`);
    lock.receiveRefused(mode, errno, reason);
  }

  #receive(body: Uint8Array): void {
    if (this.over) return;
    // It may be for somebody who waits for what was given up.
    if (this.#soon !== null) this.flush();
    const message = decodeServerMessage(body);
    if (message.kind === "results") {
      this.counters.received += decodeResults(message.entries, this);
      return;
    }
    this.counters.received++;
    this.#handlers.message(message);
  }

  #fail(reason: Error): void {
    if (this.over) return;
    this.#over = reason;
    if (this.#soon !== null) clearTimeout(this.#soon);
    this.#socket.destroy();
    this.#handlers.disconnected(reason);
    this.#tellOver(reason);
  }

  /** Sends what was gathered and closes; `disconnected` is not called. Resolves when dlmd has heard of it, so that what others ask after that comes later; or after HEARD_LIMIT_MS. */
  async end(reason: Error): Promise<void> {
    this.flush();
    this.#over ??= reason;
    this.#tellOver(reason);
    if (this.#socket.closed) return;
    const late = setTimeout(() => this.#socket.destroy(), HEARD_LIMIT_MS);
    await new Promise<void>((resolve) => {
      this.#socket.once("close", () => resolve());
      this.#socket.end();
    });
    clearTimeout(late);
  }
}

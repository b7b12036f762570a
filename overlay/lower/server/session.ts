/**
 * One caller's session at the owner: its running calls, and the answers it may not have seen. What it has open: session-handles.ts.
 * It outlives connections: a caller that connects again finds its handles open and its changes made once.
 */
import { ByteWriter } from "../../../dlmd/base/bytes.ts";
import { E, Errno, errnoError } from "../../../dlmd/base/errno.ts";
import { WireError } from "../../../dlmd/base/error.ts";
import type { Log } from "../../../dlmd/base/log.ts";
import type { LowerSessionId } from "../wire/handshake.ts";
import { largeBuffers } from "../large-buffers.ts";
import type { LocalLower } from "../local/local.ts";
import { type MaybePromise, promised } from "../../../dlmd/base/maybe-promise.ts";
import { FrameType } from "../wire/frame.ts";
import { answerBytesOf, SessionCalls } from "./session-calls.ts";
import { SessionHandles } from "./session-handles.ts";
import { type Codec, decodeWith } from "../wire/call-codecs.ts";
import type { AnswerOf, AskedCall, CallName, Outcome, RequestOf } from "../wire/call-types.ts";
import { callOfType, CALLS, type CallRow, isBehind } from "../wire/calls.ts";

/** Calls of one session that run at a time: beyond, its connection is not read. */
export const MAX_RUNNING_CALLS = 1024;
/** Their data, and that of their answers. Beyond, what has come with them waits. */
export const MAX_RUNNING_BYTES: number = 32 * 1024 * 1024;
/** Answers of changes and syncs that the caller has not acknowledged; a caller with more is not one of ours. */
export const MAX_REMEMBERED_ANSWERS: number = 8 * MAX_RUNNING_CALLS;

/** Gives the volume to another node, after the answer. */
export type HandOver = (request: RequestOf<"handOver">) => Promise<AnswerOf<"handOver">>;

/** Where answers go: the session's present connection. */
export interface AnswerSink {
  /** `data` must stay as it is until sent, unless `passing`: then it is copied now. */
  answer(type: number, id: number, body: Uint8Array, data: Uint8Array | null, passing: boolean): void;
  /** Too much of what was answered has not left: what would be answered waits. */
  readonly isFull: boolean;
  /** There is room for more calls again. */
  resume(): void;
}

export const UNKNOWN: Outcome = { state: "unknown-session" };

/** Of a change or a sync: none of them has data. */
interface Answer {
  readonly type: number;
  readonly body: Uint8Array;
}

/** What is asked about other sessions: what a caller leaves here while it is away (hazard F35), and what became of a caller that died (hazard F38). */
export interface OtherSessions {
  readonly deposit: (session: ServerSession, request: RequestOf<"deposit">) => MaybePromise<AnswerOf<"deposit">>;
  readonly kept: (session: ServerSession, request: RequestOf<"kept">) => void;
  readonly collect: (request: RequestOf<"collect">) => AnswerOf<"collect">;
  readonly outcomes: (session: ServerSession, request: RequestOf<"outcomes">) => Promise<AnswerOf<"outcomes">>;
}

const noOthers: OtherSessions = {
  deposit: () => ({ refused: "this owner keeps nothing for others" }),
  kept: () => undefined,
  collect: () => ({ found: false }),
  outcomes: (_session, { calls }) => Promise.resolve(calls.map(() => UNKNOWN)),
};

/** Of writes that wait and go on in each other so many bytes are written in one call. */
export const TOGETHER_BYTES_MAX: number = 64 * 1024;

interface WriteTogether {
  readonly id: number;
  readonly write: RequestOf<"write">;
  readonly body: Uint8Array;
}

function goesOn(before: RequestOf<"write">, { handle, append, offset }: RequestOf<"write">): boolean {
  return handle === before.handle && !append && !before.append && offset === before.offset + before.data.byteLength;
}

/** A call that waits. `write`: of one of which a program was told that it is made. */
interface Queued {
  readonly start: () => void;
  readonly write: RequestOf<"write"> | null;
  readonly body: Uint8Array;
}

interface Running {
  readonly call: CallName;
  readonly bytes: number;
}

/** An open may cut its file (O_TRUNC); what a caller leaves is this owner's to keep. */
const CHANGES_TOO: ReadonlySet<CallName> = new Set(["open", "deposit"]);
const NONE: ReadonlySet<number> = new Set();

export class ServerSession {
  readonly id: LowerSessionId;
  sink: AnswerSink | null = null;
  readonly #log: Log;
  readonly #mayServe: () => boolean;
  readonly #handles: SessionHandles;
  readonly #calls: SessionCalls;
  /** By its id, the call and the bytes of its frame and of its answer. */
  readonly #running: Map<number, Running> = new Map();
  readonly #answers: Map<number, Answer> = new Map();
  readonly #writer = new ByteWriter();
  #runningBytes = 0;
  /** Hazard F23: running changes of which programs were told that they are made: what came after them waits here, in its order. */
  #promised = 0;
  readonly #queued: Map<number, Queued> = new Map();
  #closed = false;
  #retired = false;
  /** Its process has died. */
  #callerDied = false;
  /** Told when a call has ended, or one that waited will not begin any more. */
  #watching: (() => void)[] = [];

  /** `claimed`: this caller has opened all that it had open at an earlier owner. */
  constructor(
    id: LowerSessionId,
    lower: LocalLower,
    log: Log,
    claimed: () => void,
    handOver: HandOver,
    mayServe: () => boolean = () => true,
    others: OtherSessions = noOthers,
  ) {
    this.id = id;
    this.#log = log;
    this.#mayServe = mayServe;
    this.#handles = new SessionHandles(lower);
    this.#calls = new SessionCalls(lower, this.#handles, {
      claimed,
      handOver,
      deposit: (request) => others.deposit(this, request),
      kept: (request) => others.kept(this, request),
      collect: (request) => others.collect(request),
      outcomes: (request) => others.outcomes(this, request),
    });
  }

  get hasClaimed(): boolean {
    return this.#handles.hasClaimed;
  }

  get full(): boolean {
    return (
      this.#promised > 0 || this.#queued.size > 0 || this.#running.size >= MAX_RUNNING_CALLS || this.#runningBytes >= MAX_RUNNING_BYTES
    );
  }

  get runningCalls(): number {
    return this.#running.size;
  }

  get openHandles(): number {
    return this.#handles.count;
  }

  get rememberedAnswers(): number {
    return this.#answers.size;
  }

  /** What is no answer. It is lost with the connection. */
  say(type: number, id: number, body: Uint8Array): void {
    this.sink?.answer(type, id, body, null, false);
  }

  /**
   * Over a connection that was just made, before anything else: the caller may not have seen them. So it sees no later call answered before a write behind that came
   * first, and makes none at another owner over what was answered since (hazard F23).
   */
  answerAgain(): void {
    for (const [id, { type, body }] of this.#answers) this.sink?.answer(type, id, body, null, false);
  }

  acknowledge(ids: readonly number[]): void {
    for (const id of ids) this.#answers.delete(id);
  }

  /** Takes no new calls any more; resolves when those that run have been answered. */
  async retire(): Promise<void> {
    this.#retired = true;
    this.#tellEnded();
    while (this.#running.size > 0) await this.#oneEnds();
  }

  #oneEnds(): Promise<void> {
    return new Promise((resolve) => this.#watching.push(resolve));
  }

  #tellEnded(): void {
    if (this.#watching.length > 0) for (const tell of this.#watching.splice(0)) tell();
  }

  /**
   * Hazard F38. Its process has died: takes nothing that still comes, and gives what became of these calls. What had come is executed before, and then, in the order
   * given, what has a body and had not come. For what changes nothing, and is not asked about, nobody waits: a disk may be slow. EINVAL: it is none that is remembered, or one
   * with a body of which no program was told that it is made.
   */
  async outcomes(calls: readonly AskedCall[]): Promise<readonly Outcome[]> {
    const made = calls.map((asked) => this.#redo(asked));
    this.#callerDied = true;
    this.sink = null;
    const ids = new Set(calls.map(({ id }) => id));
    await this.#allMade(ids);
    for (const { id, queued } of made) if (queued !== null && !this.#has(id)) this.#queued.set(id, queued);
    await this.#allMade(ids);
    return calls.map(({ id }) => this.#outcome(id));
  }

  /** It came. */
  #has(id: number): boolean {
    return this.#running.has(id) || this.#queued.has(id) || this.#answers.has(id);
  }

  #redo({ id, type, body }: AskedCall): { readonly id: number; readonly queued: Queued | null } {
    const call = callOfType(type);
    if (call === undefined || !CALLS[call].remembered) throw errnoError(E.EINVAL);
    if (body === null) return { id, queued: null };
    try {
      // The frame that it lies in is given back before.
      const copy = Uint8Array.from(body);
      if (isBehind(call, decodeWith(CALLS[call].request as Codec<RequestOf<CallName>>, copy)))
        return { id, queued: this.#decode(call, id, copy) };
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
    }
    throw errnoError(E.EINVAL);
  }

  /** Nothing runs that changes something, or is one of these, and nothing waits to; also where it never will: this owner ends. */
  async #allMade(asked: ReadonlySet<number>): Promise<void> {
    this.startQueued();
    while (this.#isMaking(asked) || (this.#queued.size > 0 && !this.#retired)) await this.#oneEnds();
  }

  #isMaking(asked: ReadonlySet<number>): boolean {
    for (const [id, { call }] of this.#running) if (CALLS[call].mutates || CHANGES_TOO.has(call) || asked.has(id)) return true;
    return false;
  }

  #outcome(id: number): Outcome {
    if (this.#closed) return UNKNOWN;
    const answer = this.#answers.get(id);
    return answer === undefined ? { state: "not-made" } : { state: "answered", ...answer };
  }

  /**
   * Hazard C7. Takes no calls any more, and answers none; resolves when nothing runs that changes something. Nobody waits for what a read finds, and a disk may be slow.
   */
  async servesNoMore(): Promise<void> {
    this.#closed = true;
    this.#handles.stop();
    this.sink = null;
    this.#retired = true;
    this.#tellEnded();
    while (this.#isMaking(NONE)) await this.#oneEnds();
  }

  /** As `servesNoMore`; resolves when all that runs has ended, and the handles are closed. */
  async close(): Promise<void> {
    await this.servesNoMore();
    await this.retire();
    this.#handles.closeAll();
    this.#answers.clear();
    this.#queued.clear();
  }

  /** Runs a call, unless it is one that came before. Throws WireError for one that does not decode. */
  receive(call: CallName, id: number, body: Uint8Array): void {
    if (this.#closed || this.#callerDied || this.#running.has(id) || this.#queued.has(id)) return;
    const remembered = this.#answers.get(id);
    if (remembered !== undefined) {
      this.sink?.answer(remembered.type, id, remembered.body, null, false);
      return;
    }
    if (this.#retired) return;
    const queued = this.#decode(call, id, body);
    if (this.#mayStart && this.#queued.size === 0) return queued.start();
    if (this.#queued.size >= MAX_RUNNING_CALLS) throw new WireError("more calls than a caller has outstanding");
    this.#queued.set(id, queued);
  }

  /** One chunk has requests for many times the memory that it takes itself: it is looked at before each. */
  get #mayStart(): boolean {
    return this.#promised === 0 && this.#runningBytes < MAX_RUNNING_BYTES && this.sink?.isFull !== true;
  }

  /** Also when the owner may serve again, and when answers have left. */
  startQueued(): void {
    // Asked first: it may find that the node may serve again, and come here by itself.
    while (this.#queued.size > 0 && this.#mayServe() && this.#mayStart) {
      const [first] = this.#queued;
      if (first === undefined) return;
      const [id, { start }] = first;
      const together = this.#retired ? [] : this.#writesTogether();
      if (together.length > 1) {
        this.#startTogether(together);
        continue;
      }
      this.#queued.delete(id);
      if (!this.#retired) start();
    }
    this.#tellEnded();
  }

  /** The first ones that wait, as far as each goes on where the one before ends: the pool writes them in one call. */
  #writesTogether(): WriteTogether[] {
    const writes: WriteTogether[] = [];
    let bytes = 0;
    for (const [id, { write, body }] of this.#queued) {
      const before = writes.at(-1)?.write;
      bytes += write?.data.byteLength ?? 0;
      if (write === null || bytes > TOGETHER_BYTES_MAX || (before !== undefined && !goesOn(before, write))) break;
      writes.push({ id, write, body });
    }
    return writes;
  }

  #startTogether(writes: readonly WriteTogether[]): void {
    const row = CALLS.write;
    const [first, last] = [writes[0] as WriteTogether, writes.at(-1) as WriteTogether];
    const data = Buffer.concat(writes.map(({ write }) => write.data));
    const room = writes.some(({ write }) => write.room);
    for (const { id, body } of writes) {
      this.#queued.delete(id);
      this.#begun(id, "write", body, true);
    }
    const ended = (tell: (one: WriteTogether) => void): void => {
      for (const one of writes) this.#ended(one.id, "write", one.body, true, () => tell(one));
    };
    const made = promised(() => this.#calls.execute("write", { ...first.write, data, room, tell: last.write.tell }));
    void made.then(
      (all) =>
        ended(({ id, write }) => {
          const bytes = Math.min(write.data.byteLength, Math.max(0, all.offset + all.bytes - write.offset));
          this.#succeed(row, id, { offset: write.offset, bytes, room: all.room, attr: id === last.id ? all.attr : null }, false);
        }),
      (error: unknown) => ended(({ id }) => this.#fail(row, "write", id, error)),
    );
  }

  // oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- it ties the row, its request and its answer together
  #decode<K extends CallName>(call: K, id: number, body: Uint8Array): Queued {
    const row: CallRow<K> = CALLS[call];
    const request = decodeWith(row.request, body);
    const write = call === "write" && isBehind(call, request) ? (request as RequestOf<"write">) : null;
    return { start: () => this.#start(row, call, id, request, body), write, body };
  }

  #start<K extends CallName>(row: CallRow<K>, call: K, id: number, request: RequestOf<K>, body: Uint8Array): void {
    let answer: MaybePromise<AnswerOf<K>>;
    try {
      answer = this.#calls.execute(call, request);
    } catch (error) {
      this.#fail(row, call, id, error);
      return;
    }
    if (!(answer instanceof Promise)) {
      if (call === "write") largeBuffers.giveBack(body);
      this.#succeed(row, id, answer, true);
      return;
    }
    const behind = isBehind(call, request);
    this.#begun(id, call, body, behind, answerBytesOf(call, request));
    const ended = (tell: () => void): void => this.#ended(id, call, body, behind, tell);
    answer.then(
      (value) => ended(() => this.#succeed(row, id, value, false)),
      (error: unknown) => ended(() => this.#fail(row, call, id, error)),
    );
  }

  #begun(id: number, call: CallName, body: Uint8Array, behind: boolean, answerBytes = 0): void {
    const bytes = body.byteLength + answerBytes;
    this.#running.set(id, { call, bytes });
    this.#runningBytes += bytes;
    if (behind) this.#promised += 1;
  }

  #ended(id: number, call: CallName, body: Uint8Array, behind: boolean, answer: () => void): void {
    // Of other calls the lower may remember a name.
    if (call === "write") largeBuffers.giveBack(body);
    const wasFull = this.full;
    if (behind) this.#promised -= 1;
    this.#runningBytes -= this.#running.get(id)?.bytes ?? 0;
    this.#running.delete(id);
    answer();
    this.startQueued();
    if (wasFull && !this.full) this.sink?.resume();
  }

  #succeed<K extends CallName>(row: CallRow<K>, id: number, value: AnswerOf<K>, shared: boolean): void {
    this.#writer.reset();
    row.answer.write(this.#writer, value);
    this.#answer(row, id, row.type | FrameType.ANSWER, row.answer.data?.(value) ?? null, shared);
  }

  #fail<K extends CallName>(row: CallRow<K>, call: CallName, id: number, error: unknown): void {
    // Anything but the answer of a system call is a fault of this program: an assertion goes up and takes the node out.
    if (!(error instanceof Errno)) {
      this.#log.error({ call, error: String(error) }, "a call of another node ended with an error that is no errno");
      throw error;
    }
    this.#writer.reset().u32(error.errno);
    this.#answer(row, id, FrameType.FAILED, null, false);
  }

  /** With the body that was just written. `shared`: a view of the lower's own buffer, which the next call overwrites. */
  #answer<K extends CallName>(row: CallRow<K>, id: number, type: number, data: Uint8Array | null, shared: boolean): void {
    if (this.#closed) return;
    if (row.remembered) this.#answers.set(id, { type, body: this.#writer.copy() });
    this.sink?.answer(type, id, this.#writer.view(), data, shared);
  }
}

/**
 * Calls of this node to the volume's owner that are not answered yet, in the order in which they were made (pending-call.ts), and what becomes of them when a
 * connection breaks and at a new owner. session.ts has the connection, and says when they may go.
 */
import { assert } from "../../../dlmd/base/assert.ts";
import { ByteWriter } from "../../../dlmd/base/bytes.ts";
import { E, type Errno, errnoError } from "../../../dlmd/base/errno.ts";
import { WireError } from "../../../dlmd/base/error.ts";
import type { Log } from "../../../dlmd/base/log.ts";
import type { AnswerOf, CallName, RequestOf } from "../wire/call-types.ts";
import { FrameType } from "../wire/frame.ts";
import { isDoubtful } from "../wire/repeat.ts";
import { Acknowledgements } from "./acknowledgements.ts";
import type { CallJournal } from "./call-journal.ts";
import type { RemoteConnection, RemoteCounters } from "./connection.ts";
import { createPendingCall, decodeErrno, type Hindrance, type PendingCall } from "./pending-call.ts";

/** Calls sent and not answered; further ones wait here. */
export const MAX_OUTSTANDING_CALLS = 512;
/** Calls that wait; ENOMEM beyond. The kernel's own limit (max_background 65535) comes first. */
export const MAX_WAITING_CALLS = 131_072;

export class WaitingCalls {
  readonly #log: Log;
  readonly #counters: RemoteCounters;
  readonly #journal: CallJournal;
  readonly #answered: () => void;
  readonly #calls: Map<number, PendingCall> = new Map();
  readonly #unsent: PendingCall[] = [];
  #outstanding = 0;
  readonly #acks = new Acknowledgements();
  readonly #writer = new ByteWriter();
  #transmissions = 0;
  #nextId = 1;
  #connection: RemoteConnection | null = null;
  #running = false;
  /** Of the kernel, for which the next call is made whose answer is remembered; 0: none. */
  #request = 0;

  /** `answered`: the owner answers. */
  constructor(log: Log, counters: RemoteCounters, journal: CallJournal, answered: () => void) {
    this.#log = log;
    this.#counters = counters;
    this.#journal = journal;
    this.#answered = answered;
  }

  /** Made once more at another owner: what that one says of them is not the truth (`#judge`). */
  get hasDoubtful(): boolean {
    for (const { doubtful } of this.#calls.values()) if (doubtful.length > 0) return true;
    return false;
  }

  get count(): number {
    return this.#calls.size;
  }

  /** Calls may be sent. Reopening goes before, on its own. */
  get running(): boolean {
    return this.#running;
  }

  get hasChanges(): boolean {
    for (const call of this.#calls.values()) if (call.repeat !== null) return true;
    return false;
  }

  get oldest(): PendingCall | undefined {
    return this.#calls.values().next().value;
  }

  // --- made

  madeFor(request: number): void {
    this.#request = request;
  }

  takeRequest(): number {
    const request = this.#request;
    this.#request = 0;
    return request;
  }

  call<K extends CallName>(call: K, request: RequestOf<K>, hindrances: readonly Hindrance[]): Promise<AnswerOf<K>> {
    if (this.#calls.size >= MAX_WAITING_CALLS) return Promise.reject(errnoError(E.ENOMEM));
    return this.#create(call, request, hindrances, false, (pending) => {
      this.#unsent.push(pending);
      this.#pump();
    });
  }

  /** Of the reopening. */
  callFirst<K extends CallName>(call: K, request: RequestOf<K>): Promise<AnswerOf<K>> {
    return this.#create(call, request, [], true, (pending) => {
      this.#outstanding += 1;
      this.#transmit(pending);
    });
  }

  #create<K extends CallName>(
    call: K,
    request: RequestOf<K>,
    hindrances: readonly Hindrance[],
    reopening: boolean,
    send: (pending: PendingCall) => void,
  ): Promise<AnswerOf<K>> {
    return new Promise((resolve, reject) => {
      const id = this.#nextId;
      assert(!this.#calls.has(id), "a call is outstanding since 2^32 calls");
      const pending = createPendingCall(this.#writer, call, request, { id, hindrances, reopening }, resolve, reject);
      this.#nextId = id === 0xffff_ffff ? 1 : id + 1;
      this.#calls.set(id, pending);
      if (pending.remembered) this.#note(pending);
      send(pending);
    });
  }

  #note({ id, type, awaited, body, data }: PendingCall): void {
    const request = this.takeRequest();
    if (awaited) this.#journal.begun(id, type, request, request === 0 ? null : body, null);
    else this.#journal.begun(id, type, 0, body, data);
  }

  // --- sent

  /** What goes out goes by that one. */
  connect(connection: RemoteConnection): void {
    this.#connection = connection;
  }

  disconnect(): void {
    this.#connection = null;
    this.#running = false;
    this.#failAll(errnoError(E.ECANCELED), (call) => call.reopening);
  }

  /** The owner knows this session. */
  repeatAcks(): void {
    this.#acks.sendAgain();
  }

  /**
   * All that were sent on an earlier connection go first, with the numbers they had: the owner does no change twice. `asked`: this owner was asked for them. It
   * may have made such a change, so nothing hinders that any more, and its answer comes and is acknowledged.
   */
  run(asked: boolean): void {
    for (const call of this.#calls.values()) {
      if (!call.sent) continue;
      call.repeated = true;
      if (asked && call.remembered) this.#send(call);
      else this.#transmit(call);
    }
    this.#running = true;
    this.#pump();
  }

  #pump(): void {
    while (this.#running && this.#outstanding < MAX_OUTSTANDING_CALLS) {
      const call = this.#unsent.shift();
      if (call === undefined) return;
      if (!this.#calls.has(call.id)) continue;
      call.sent = true;
      this.#outstanding += 1;
      this.#transmit(call);
    }
  }

  #transmit(call: PendingCall): void {
    for (const { error } of call.hindrances) if (error !== null) return this.#hinder(call, error);
    this.#send(call);
  }

  #send(call: PendingCall): void {
    this.#transmissions += 1;
    call.transmission = this.#transmissions;
    this.#connection?.send(call.type, call.id, call.body, call.data, call.awaited);
  }

  /** One that was made once more may have been made before: whichever process answers its request is to say that, too. */
  #hinder(call: PendingCall, error: Errno): void {
    if (call.remembered && call.repeated) this.#noteFailed(call.id, error.errno);
    else if (call.remembered) this.#journal.over(call.id);
    this.#finish(call, () => call.failed(error));
  }

  sendAcks(): void {
    const connection = this.#connection;
    if (connection === null) return;
    for (let ids = this.#acks.take(this.#transmissions); ids !== null; ids = this.#acks.take(this.#transmissions)) {
      this.#writer.reset().u16(ids.length);
      for (const id of ids) this.#writer.u32(id);
      connection.send(FrameType.ACK, 0, this.#writer.view(), null, false);
    }
  }

  // --- answered

  receive(type: number, id: number, body: Uint8Array): void {
    const call = this.#calls.get(id);
    // Answered twice: sent again after a connection broke, while the first answer was still under way.
    if (call === undefined) return;
    if (type !== (call.type | FrameType.ANSWER) && type !== FrameType.FAILED) {
      throw new WireError(`answer of type 0x${type.toString(16)} to ${call.call}`);
    }
    this.#counters.roundTrips += 1;
    if (call.awaited) this.#counters.awaited += 1;
    this.#answered();
    // Of one that was sent again the owner may give the answer that it had, before that comes.
    if (!call.repeated) this.#acks.answered(call.transmission);
    const errno = type === FrameType.FAILED ? this.#judge(call, decodeErrno(body)) : null;
    if (call.remembered) {
      if (errno === null) this.#journal.answered(id, false, body);
      else this.#noteFailed(id, errno);
      if (this.#acks.add(id)) this.#connection?.flush();
    }
    this.#finish(call, () => {
      if (errno !== null) call.failed(errnoError(errno));
      else call.answered(body);
    });
    this.#pump();
  }

  #noteFailed(id: number, errno: number): void {
    this.#journal.answered(id, true, this.#writer.reset().u32(errno).view());
  }

  #judge(call: PendingCall, errno: number): number {
    if (!isDoubtful(call.doubtful, errno)) return errno;
    this.#log.error({ call: call.call, errno }, "made again at the next owner, and it may have been made before: not known, EIO");
    return E.EIO;
  }

  #finish(call: PendingCall, tell: () => void): void {
    if (!this.#calls.delete(call.id)) return;
    if (call.sent) this.#outstanding -= 1;
    tell();
  }

  /** Without an answer. */
  #end(call: PendingCall, error: Error): void {
    if (call.remembered) this.#journal.over(call.id);
    this.#finish(call, () => call.failed(error));
  }

  failAll(error: Error): void {
    this.#failAll(error, () => true);
    this.#unsent.length = 0;
  }

  #failAll(error: Error, which: (call: PendingCall) => boolean): void {
    for (const call of this.#calls.values()) if (which(call)) this.#end(call, error);
  }

  // --- at an owner's end

  /** In good order: what it has not answered waits for the next owner, as if it had not been sent. */
  takeBack(): void {
    const unmade = [...this.#calls.values()].filter((call) => call.sent && !call.repeated && !call.reopening);
    for (const call of unmade) call.sent = false;
    this.#outstanding -= unmade.length;
    this.#unsent.unshift(...unmade);
  }

  /** There is another owner. `again`: nobody has seen what the last one did not answer, so it is made once more. */
  settleUnknownOutcomes(again: boolean): void {
    this.#acks.clear();
    const unknown = [...this.#calls.values()].filter((call) => call.sent && call.repeat !== null);
    const lost = unknown.filter(({ repeat }) => !again || repeat?.again !== true);
    for (const call of unknown) if (again && call.repeat?.again === true) call.doubtful = call.repeat.doubtful;
    if (lost.length === 0) return;
    const calls = lost.slice(0, 16).map((call) => call.call);
    this.#log.error({ count: lost.length, calls }, "the owner died before it answered: whether these changes were made is not known, EIO");
    for (const call of lost) {
      // Its request is to be told that, whichever process answers it.
      if (call.remembered) this.#noteFailed(call.id, E.EIO);
      this.#finish(call, () => call.failed(errnoError(E.EIO)));
    }
  }
}

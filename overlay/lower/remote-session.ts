/**
 * The calls of this node to the volume's owner, whoever that is. While there is none they wait. A connection that
 * breaks is made again and the session goes on; at a new owner handles are opened again, calls that change nothing
 * are sent again, and a change that the old owner did not answer has an unknown outcome: EIO.
 */
import { assert } from "../../dlmd/base/assert.ts";
import { ByteReader, ByteWriter } from "../../dlmd/base/bytes.ts";
import { E, Errno, errnoError } from "../../dlmd/base/errno.ts";
import { OperatingError, WireError } from "../../dlmd/base/error.ts";
import type { Log } from "../../dlmd/base/log.ts";
import { Acknowledgements } from "./acknowledgements.ts";
import type { Refused, Welcome } from "./handshake.ts";
import { type CallerIdentity, type OwnerAddress, RemoteConnection, type RemoteCounters } from "./remote-connection.ts";
import type { RemoteHandle } from "./remote-handles.ts";
import { decodeStamp, type Stamp, type Stamps } from "./stamp.ts";
import { FrameType } from "./wire.ts";
import { type AnswerOf, CALLS, type CallName, type CallRow, decodeWith, type RequestOf } from "./wire-calls.ts";

/** Calls sent and not answered; further ones wait here. */
export const MAX_OUTSTANDING_CALLS = 512;
/** Calls that wait; ENOMEM beyond. The kernel's own limit (max_background 65535) comes first. */
export const MAX_WAITING_CALLS = 131_072;
const RECONNECT_MIN_MS = 10;
const RECONNECT_MAX_MS = 1000;

interface PendingCall {
  readonly id: number;
  /** Calls of the session so far, this one included. */
  readonly made: number;
  readonly call: CallName;
  readonly type: number;
  readonly mutates: boolean;
  readonly body: Uint8Array;
  readonly data: Uint8Array | null;
  readonly handles: readonly RemoteHandle[];
  readonly answered: (body: Uint8Array) => void;
  readonly failed: (error: Error) => void;
  sent: boolean;
  /** Sent on an earlier connection, too: it may have been made then. */
  repeated: boolean;
  /** When it was sent last, by #transmissions. */
  transmission: number;
  /** Of the reopening: made anew with each connection. */
  readonly reopening: boolean;
}

export interface RemoteSessionOptions extends CallerIdentity {
  readonly log: Log;
  /** The owner will never serve this session: calls end with EIO from now on. */
  readonly onRefused?: (error: OperatingError) => void;
  /** The owner died, and what it had answered may be gone with it: nobody may go on with that. Resolves when nobody does. */
  readonly onOwnerDied?: () => Promise<unknown>;
}

export interface RemoteSessionHandlers {
  /**
   * An owner that does not know this session: all handles are to be opened again (`callFirst`) before other calls go on. May be
   * called again for the same owner, if the connection broke meanwhile. `first`: there was none before.
   */
  readonly newOwner: (first: boolean) => Promise<void>;
  readonly welcome: (welcome: Welcome) => void;
  /** All that this owner answered is on disk, and it answers no more. */
  readonly farewell: () => void;
}

export class RemoteSession implements Stamps {
  readonly counters: RemoteCounters = {
    roundTrips: 0,
    messagesSent: 0,
    messagesReceived: 0,
    bytesSent: 0,
    bytesReceived: 0,
    flushes: 0,
  };
  readonly #options: RemoteSessionOptions;
  readonly #handlers: RemoteSessionHandlers;
  readonly #writer = new ByteWriter();
  // In the order in which they were made.
  readonly #calls: Map<number, PendingCall> = new Map();
  readonly #unsent: PendingCall[] = [];
  #outstanding = 0;
  #stamp: Stamp | null = null;
  /** Calls made, and the latest of them that was answered. */
  #made = 0;
  #answered = 0;
  readonly #acks = new Acknowledgements();
  #transmissions = 0;
  #nextId = 1;
  #owner: { readonly address: OwnerAddress; readonly epoch: number } | null = null;
  #connection: RemoteConnection | null = null;
  /** Calls may be sent. Reopening goes before, on its own. */
  #running = false;
  #welcomedEpoch: number | null = null;
  #refused: OperatingError | null = null;
  /** Why the owner does not take this node's key, while it does not; null: it does, or was not asked. */
  keyTrouble: string | null = null;
  #retryMs = RECONNECT_MIN_MS;
  #retryTimer: NodeJS.Timeout | null = null;
  #waiters: { readonly resolve: () => void; readonly reject: (error: Error) => void }[] = [];

  constructor(options: RemoteSessionOptions, handlers: RemoteSessionHandlers) {
    this.#options = options;
    this.#handlers = handlers;
  }

  mark(): number {
    return this.#made;
  }

  since(mark: number): Stamp | null {
    return this.#answered > mark ? this.#stamp : null;
  }

  get running(): boolean {
    return this.#running;
  }

  /** No owner is known. */
  get ownerless(): boolean {
    return this.#owner === null;
  }

  get waitingCalls(): number {
    return this.#calls.size;
  }

  /** Resolves when calls are being sent to an owner; rejects when it refused this session. */
  whenRunning(): Promise<void> {
    if (this.#refused !== null) return Promise.reject(this.#refused);
    if (this.#running) return Promise.resolve();
    return new Promise((resolve, reject) => this.#waiters.push({ resolve, reject }));
  }

  ownerFound(address: OwnerAddress, epoch: number): void {
    if (this.#refused !== null) return;
    const same = this.#owner?.epoch === epoch && this.#owner.address.host === address.host && this.#owner.address.port === address.port;
    if (same && this.#connection !== null) return;
    this.ownerLost();
    this.#owner = { address, epoch };
    this.#retryMs = RECONNECT_MIN_MS;
    this.#connect();
  }

  /** Nothing that an earlier owner still says counts from now on (hazard C7). */
  ownerLost(): void {
    this.#owner = null;
    this.#disconnect();
  }

  /** `secrets` are others. */
  secretsChanged(): void {
    this.#connection?.secretsChanged();
  }

  /** Every call fails with EIO. */
  close(): void {
    this.ownerLost();
    this.#failAll(errnoError(E.EIO));
    this.#refused ??= new OperatingError("the mount has ended", { code: "closed", hint: "Mount it again." });
    for (const waiter of this.#waiters.splice(0)) waiter.reject(this.#refused);
  }

  #disconnect(): void {
    if (this.#retryTimer !== null) clearTimeout(this.#retryTimer);
    this.#retryTimer = null;
    this.#connection?.destroy();
    this.#connection = null;
    this.#running = false;
    for (const call of this.#calls.values()) {
      if (call.reopening) this.#finish(call, () => call.failed(errnoError(E.ECANCELED)));
    }
  }

  #connect(): void {
    const owner = this.#owner;
    if (owner === null) return;
    const connection: RemoteConnection = new RemoteConnection(
      owner.address,
      owner.epoch,
      this.#options,
      {
        ready: (welcome) => this.#ready(connection, welcome),
        refused: (refused) => this.#receiveRefusal(refused),
        frame: (type, id, body) => this.#receive(type, id, body),
        closed: (reason) => this.#lostConnection(reason),
        beforeFlush: () => this.#sendAcks(),
      },
      this.counters,
    );
    this.#connection = connection;
  }

  #lostConnection(reason: string): void {
    this.#disconnect();
    const owner = this.#owner;
    if (owner === null) return;
    const { host, port } = owner.address;
    this.#options.log.info({ host, port, reason, retryMs: this.#retryMs }, "no connection to the owner: trying again");
    this.#retryTimer = setTimeout(() => {
      this.#retryTimer = null;
      this.#connect();
    }, this.#retryMs);
    this.#retryMs = Math.min(this.#retryMs * 2, RECONNECT_MAX_MS);
  }

  #receiveRefusal(refused: Refused): void {
    // A key is being replaced, and one of the two has not heard of it: calls wait, as for an owner that does not answer.
    if (refused.reason === "wrong-secret" && this.#welcomedEpoch !== null) {
      this.#noteKeyTrouble(refused.text);
      return this.#lostConnection(refused.text);
    }
    this.#disconnect();
    const error = new OperatingError(`the owner refuses this node: ${refused.text} (${refused.reason})`, {
      code: refused.reason,
      hint: "Look at the owner's log; unmount and mount again once the cause is gone.",
    });
    this.#options.log.error({ reason: refused.reason, text: refused.text }, "the owner refuses this node's session");
    for (const waiter of this.#waiters.splice(0)) waiter.reject(error);
    // The owner changed, and the word of it is on its way; or its table is full for now.
    if (refused.reason === "other-epoch" || refused.reason === "too-many") {
      this.#owner = null;
      return;
    }
    this.#refused = error;
    this.#failAll(errnoError(E.EIO));
    this.#options.onRefused?.(error);
  }

  /** Said once: it is tried again every second, for as long as it takes somebody to finish what he began. */
  #noteKeyTrouble(text: string): void {
    const first = this.keyTrouble === null;
    this.keyTrouble = `the owner and this node have no cluster key in common: ${text}`;
    if (!first) return;
    const hint = "A rotation of the key is not finished here or there: compare the key files (coverlay keygen --help), or unmount.";
    this.#options.log.error({ text, hint }, "the owner does not take the cluster key of this node: calls wait until it does");
  }

  #ready(connection: RemoteConnection, welcome: Welcome): void {
    if (this.keyTrouble !== null) this.#options.log.info({}, "the owner takes the cluster key of this node again");
    this.keyTrouble = null;
    this.#retryMs = RECONNECT_MIN_MS;
    this.#handlers.welcome(welcome);
    if (welcome.resumed && this.#welcomedEpoch === connection.epoch) {
      this.#acks.sendAgain();
      this.#sendAgain();
      this.#run();
      return;
    }
    const first = this.#welcomedEpoch === null;
    this.#acks.clear();
    this.#failUnknownOutcomes();
    void this.#enterNewOwner(connection, first);
  }

  async #enterNewOwner(connection: RemoteConnection, first: boolean): Promise<void> {
    try {
      await this.#handlers.newOwner(first);
    } catch (error) {
      // It fails only with its connection: the next one does it again.
      if (this.#connection !== connection && isErrno(error)) return;
      throw error;
    }
    if (this.#connection !== connection) return;
    this.#welcomedEpoch = connection.epoch;
    this.#sendAgain();
    this.#run();
  }

  #run(): void {
    this.#running = true;
    for (const waiter of this.#waiters.splice(0)) waiter.resolve();
    this.#pump();
  }

  #failUnknownOutcomes(): void {
    const lost = [...this.#calls.values()].filter((call) => call.sent && call.mutates);
    if (lost.length === 0) return;
    const calls = lost.slice(0, 16).map((call) => call.call);
    this.#options.log.error(
      { count: lost.length, calls },
      "the owner died before it answered: whether these changes were made is not known, EIO",
    );
    for (const call of lost) this.#finish(call, () => call.failed(errnoError(E.EIO)));
  }

  #failAll(error: Error): void {
    for (const call of this.#calls.values()) this.#finish(call, () => call.failed(error));
    this.#unsent.length = 0;
  }

  /** All that were sent on an earlier connection, with the numbers they had: the owner does no change twice. */
  #sendAgain(): void {
    for (const call of this.#calls.values()) {
      if (!call.sent) continue;
      call.repeated = true;
      this.#transmit(call);
    }
  }

  /** What it has not answered waits for the next owner, as if it had not been sent. */
  #receiveFarewell(): void {
    const unmade = [...this.#calls.values()].filter((call) => call.sent && !call.repeated && !call.reopening);
    for (const call of unmade) call.sent = false;
    this.#outstanding -= unmade.length;
    this.#unsent.unshift(...unmade);
    this.#handlers.farewell();
    this.#lostConnection("the owner ends its service");
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
    const broken = call.handles.find((handle) => handle.error !== null);
    if (broken?.error !== undefined && broken.error !== null) {
      const { error } = broken;
      this.#finish(call, () => call.failed(error));
      return;
    }
    this.#transmissions += 1;
    call.transmission = this.#transmissions;
    this.#connection?.send(call.type, call.id, call.body, call.data);
  }

  #finish(call: PendingCall, tell: () => void): void {
    if (!this.#calls.delete(call.id)) return;
    if (call.sent) this.#outstanding -= 1;
    tell();
  }

  #sendAcks(): void {
    const connection = this.#connection;
    if (connection === null) return;
    for (let ids = this.#acks.take(this.#transmissions); ids !== null; ids = this.#acks.take(this.#transmissions)) {
      this.#writer.reset().u16(ids.length);
      for (const id of ids) this.#writer.u32(id);
      connection.send(FrameType.ACK, 0, this.#writer.view(), null);
    }
  }

  #receive(type: number, id: number, body: Uint8Array): void {
    if (type === FrameType.STAMP) {
      this.#stamp = decodeStamp(body);
      return;
    }
    if (type === FrameType.FAREWELL) {
      this.#receiveFarewell();
      return;
    }
    const call = this.#calls.get(id);
    // Answered twice: sent again after a connection broke, while the first answer was still under way.
    if (call === undefined) return;
    if (type !== (call.type | FrameType.ANSWER) && type !== FrameType.FAILED) {
      throw new WireError(`answer of type 0x${type.toString(16)} to ${call.call}`);
    }
    this.counters.roundTrips += 1;
    this.#answered = Math.max(this.#answered, call.made);
    this.#acks.answered(call.transmission);
    if (call.mutates && this.#acks.add(id)) this.#connection?.flush();
    this.#finish(call, () => {
      if (type === FrameType.FAILED) call.failed(errnoError(decodeErrno(body)));
      else call.answered(body);
    });
    this.#pump();
  }

  #create<K extends CallName>(
    call: K,
    request: RequestOf<K>,
    handles: readonly RemoteHandle[],
    reopening: boolean,
  ): { pending: PendingCall; answer: Promise<AnswerOf<K>> } {
    const row: CallRow<K> = CALLS[call];
    this.#writer.reset();
    row.request.write(this.#writer, request);
    const body = this.#writer.copy();
    const id = this.#nextId;
    this.#nextId = id === 0xffff_ffff ? 1 : id + 1;
    assert(!this.#calls.has(id), "a call is outstanding since 2^32 calls");
    let pending: PendingCall | undefined;
    const answer = new Promise<AnswerOf<K>>((resolve, reject) => {
      const answered = (bytes: Uint8Array): void => {
        try {
          resolve(decodeWith(row.answer, bytes));
        } catch (error) {
          reject(errnoError(E.EIO));
          throw error;
        }
      };
      const data = row.request.data?.(request) ?? null;
      this.#made += 1;
      pending = {
        id,
        made: this.#made,
        call,
        type: row.type,
        mutates: row.mutates,
        body,
        data,
        handles,
        answered,
        failed: reject,
        sent: reopening,
        repeated: false,
        transmission: 0,
        reopening,
      };
    });
    assert(pending !== undefined, "a promise runs its executor");
    this.#calls.set(id, pending);
    return { pending, answer };
  }

  /** Errno of the owner's answer; EIO if the outcome is not known, or the owner refuses this node. */
  call<K extends CallName>(call: K, request: RequestOf<K>, handles: readonly RemoteHandle[]): Promise<AnswerOf<K>> {
    if (this.#refused !== null) return Promise.reject(errnoError(E.EIO));
    if (this.#calls.size >= MAX_WAITING_CALLS) return Promise.reject(errnoError(E.ENOMEM));
    const { pending, answer } = this.#create(call, request, handles, false);
    this.#unsent.push(pending);
    this.#pump();
    return answer;
  }

  /** A call of the reopening: goes before the others wait for. Rejects with ECANCELED if the connection goes first. */
  callFirst<K extends CallName>(call: K, request: RequestOf<K>): Promise<AnswerOf<K>> {
    const { pending, answer } = this.#create(call, request, [], true);
    this.#outstanding += 1;
    this.#transmit(pending);
    return answer;
  }
}

function decodeErrno(body: Uint8Array): number {
  const reader = new ByteReader(body);
  const errno = reader.u32();
  reader.end();
  if (errno === 0 || errno > 4095) throw new WireError(`no errno: ${errno}`);
  return errno;
}

export function isErrno(error: unknown): error is Errno {
  return error instanceof Errno;
}

/**
 * The calls of this node to the volume's owner, whoever that is. While there is none they wait. A connection that
 * breaks is made again and the session goes on; at a new owner handles are opened again, calls that change nothing
 * are sent again, and a change that the old owner did not answer has an unknown outcome: EIO. If all that it had executed is on the
 * disk, the change is made again instead, and only what the second answer leaves open is EIO (wire/repeat.ts).
 */
import { assert } from "../../../dlmd/base/assert.ts";
import { ByteWriter } from "../../../dlmd/base/bytes.ts";
import { E, Errno, errnoError } from "../../../dlmd/base/errno.ts";
import { OperatingError, WireError } from "../../../dlmd/base/error.ts";
import type { Log } from "../../../dlmd/base/log.ts";
import { createLimitedWarn, type LimitedWarn } from "../../../dlmd/base/log-limiter.ts";
import { Acknowledgements } from "./acknowledgements.ts";
import type { Refused, Welcome } from "../wire/handshake.ts";
import { FruitlessConnections } from "./fruitless-connections.ts";
import {
  type CallerIdentity,
  type ConnectionEnd,
  type OwnerAddress,
  RemoteConnection,
  type RemoteCounters,
  WELCOME_TIMEOUT_MAX_MS,
  WELCOME_TIMEOUT_MS,
} from "./connection.ts";
import type { RemoteHandle } from "./handles.ts";
import type { OwnerWait } from "../owner-wait.ts";
import { createPendingCall, decodeErrno, type PendingCall } from "./pending-call.ts";
import { FrameType } from "../wire/frame.ts";
import type { AnswerOf, CallName, RequestOf } from "../wire/call-types.ts";

/** Calls sent and not answered; further ones wait here. */
export const MAX_OUTSTANDING_CALLS = 512;
/** Calls that wait; ENOMEM beyond. The kernel's own limit (max_background 65535) comes first. */
export const MAX_WAITING_CALLS = 131_072;
const RECONNECT_MIN_MS = 10;
export const RECONNECT_MAX_MS = 1000;
/** Each reason for which there is no connection to the owner is logged once in that time, and less often while it lasts. */
const LOG_INTERVAL_MS = 10_000;
/** All calls of a reopening, for FruitlessConnections: each connection makes them anew. No call has this id. */
const REOPENING = 0;

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
   * called again for the same owner, if the connection broke meanwhile. `first`: there was none before. `kept`: all that the last one had
   * executed is on the disk.
   */
  readonly newOwner: (first: boolean, kept: boolean) => Promise<void>;
  readonly welcome: (welcome: Welcome) => void;
  /** All that this owner answered is on disk, and it answers no more. */
  readonly farewell: () => void;
}

export class RemoteSession {
  readonly counters: RemoteCounters = {
    roundTrips: 0,
    awaited: 0,
    messagesSent: 0,
    messagesReceived: 0,
    bytesSent: 0,
    bytesReceived: 0,
    flushes: 0,
  };
  readonly #options: RemoteSessionOptions;
  readonly #handlers: RemoteSessionHandlers;
  /** What goes wrong again and again. */
  readonly warn: LimitedWarn;
  readonly #writer = new ByteWriter();
  // In the order in which they were made.
  readonly #calls: Map<number, PendingCall> = new Map();
  readonly #unsent: PendingCall[] = [];
  #outstanding = 0;
  readonly #acks = new Acknowledgements();
  #transmissions = 0;
  #nextId = 1;
  #owner: { readonly address: OwnerAddress; readonly epoch: number } | null = null;
  #connection: RemoteConnection | null = null;
  /** Calls may be sent. Reopening goes before, on its own. */
  #running = false;
  /** At the present owner. Calls wait for it. */
  #reopened = false;
  /** As far as is known: ConnectionEnd.ownerThere of the last connection, while there is no other. */
  #ownerThere = false;
  /** Why there is no connection to the owner. */
  #trouble = "it is being made";
  #welcomedEpoch: number | null = null;
  #refused: OperatingError | null = null;
  /** Why the two seem to have no key in common, while they seem to; null: they do, or nothing was tried. */
  keyTrouble: string | null = null;
  #retryMs = RECONNECT_MIN_MS;
  #patienceMs = WELCOME_TIMEOUT_MS;
  readonly #fruitless = new FruitlessConnections(() => performance.now());
  #retryTimer: NodeJS.Timeout | null = null;
  #waiters: { readonly resolve: () => void; readonly reject: (error: Error) => void }[] = [];

  constructor(options: RemoteSessionOptions, handlers: RemoteSessionHandlers) {
    this.#options = options;
    this.warn = createLimitedWarn(options.log, LOG_INTERVAL_MS, () => performance.now());
    this.#handlers = handlers;
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

  get hasUnansweredChanges(): boolean {
    for (const call of this.#calls.values()) if (call.repeat !== null) return true;
    return false;
  }

  /** null: no call waits. */
  get ownerWait(): OwnerWait | null {
    const oldest = this.#calls.values().next().value;
    if (oldest === undefined) return null;
    const { id, call, madeMs } = oldest;
    const waitedMs = performance.now() - madeMs;
    const inVain = this.#inVain;
    const trouble = inVain ?? (this.#running ? null : this.#trouble);
    return { id, call, waitedMs, calls: this.#calls.size, inOwnersHands: this.#ownerThere && inVain === null, trouble };
  }

  /** What waits the longest. A reopening that is not over waits, too: nothing goes before it. */
  get #longest(): number | null {
    if (!this.#reopened) return REOPENING;
    const [oldest] = this.#calls.keys();
    return oldest ?? null;
  }

  get #inVain(): string | null {
    return this.#longest === null ? null : this.#fruitless.words(this.#longest);
  }

  /** The owner has this mount's connection, or its host takes connections for it; and what waits gets there. */
  get ownerThere(): boolean {
    return this.#ownerThere && this.#inVain === null;
  }

  /** Resolves when calls are being sent to an owner; rejects when it refused this session. */
  whenRunning(): Promise<void> {
    if (this.#refused !== null) return Promise.reject(this.#refused);
    if (this.#running) return Promise.resolve();
    return new Promise((resolve, reject) => this.#waiters.push({ resolve, reject }));
  }

  ownerFound(address: OwnerAddress, epoch: number): void {
    if (this.#refused !== null) return;
    const known = this.#owner;
    const same = known?.epoch === epoch && known.address.host === address.host && known.address.port === address.port;
    if (same && this.#connection !== null) return;
    this.ownerLost();
    this.#owner = { address, epoch };
    this.#reopened &&= epoch === this.#welcomedEpoch;
    this.#ownerThere = false;
    this.#trouble = "it is being made";
    this.#retryMs = RECONNECT_MIN_MS;
    this.#patienceMs = WELCOME_TIMEOUT_MS;
    this.#fruitless.clear();
    this.#connect();
  }

  /** Nothing that an earlier owner still says counts from now on (hazard C7). */
  ownerLost(): void {
    this.#owner = null;
    this.#disconnect();
  }

  /** `keyring` is another. */
  keysChanged(): void {
    this.#connection?.keysChanged();
  }

  /** Before the first owner: what goes on here was begun with that one, without a session. */
  continueFrom(epoch: number): void {
    assert(this.#welcomedEpoch === null && this.#calls.size === 0, "a session that has begun");
    this.#welcomedEpoch = epoch;
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
      { welcomeMs: this.#patienceMs, silenceMs: this.#fruitless.silenceMs },
      this.#options,
      {
        ready: (welcome, tookMs) => this.#ready(connection, welcome, tookMs),
        refused: (refused) => this.#receiveRefusal(refused),
        frame: (type, id, body) => this.#receive(type, id, body),
        closed: (end) => this.#closed(end),
        beforeFlush: () => this.#sendAcks(),
      },
      this.counters,
    );
    this.#connection = connection;
  }

  #closed({ reason, noCommonKey, ownerThere, answered, silent }: ConnectionEnd): void {
    if (noCommonKey) this.#noteKeyTrouble(reason);
    if (answered) this.#fruitless.ended(this.#longest, reason, silent);
    else if (ownerThere) {
      this.#fruitless.stoodStill();
      this.#patienceMs = Math.min(2 * this.#patienceMs, WELCOME_TIMEOUT_MAX_MS);
    }
    this.#lostConnection(reason, ownerThere);
  }

  #lostConnection(reason: string, ownerThere: boolean): void {
    this.#disconnect();
    this.#ownerThere = ownerThere;
    this.#trouble = reason;
    const owner = this.#owner;
    if (owner === null) return;
    const { host, port } = owner.address;
    this.warn(reason, { host, port, reason, retryMs: this.#retryMs }, "no connection to the owner: trying again");
    this.#retryTimer = setTimeout(() => {
      this.#retryTimer = null;
      this.#connect();
    }, this.#retryMs);
    this.#retryMs = Math.min(this.#retryMs * 2, RECONNECT_MAX_MS);
  }

  #receiveRefusal(refused: Refused): void {
    // The owner's node has not heard yet of the view that this node is in.
    if (refused.reason === "not-a-member") return this.#lostConnection(refused.text, false);
    this.#disconnect();
    const error = new OperatingError(`the owner refuses this node: ${refused.text} (${refused.reason})`, {
      code: refused.reason,
      hint: "Look at the owner's log; unmount and mount again once the cause is gone.",
    });
    for (const waiter of this.#waiters.splice(0)) waiter.reject(error);
    // Tried again, and said so, within limits.
    if (refused.reason === "too-many") return this.#lostConnection(`the owner refuses this node's session: ${refused.text}`, false);
    this.#options.log.error({ reason: refused.reason, text: refused.text }, "the owner refuses this node's session");
    this.#refused = error;
    this.#failAll(errnoError(E.EIO));
    this.#options.onRefused?.(error);
  }

  /** Said once: it is tried again every second, until the rotation of the key is finished here and there. */
  #noteKeyTrouble(text: string): void {
    const first = this.keyTrouble === null;
    this.keyTrouble = `the owner and this node seem to have no cluster key in common: ${text}`;
    if (!first) return;
    const hint = "A rotation of the key is not finished here or there: compare the key files (coverlay keygen --help), or unmount.";
    this.#options.log.error({ text, hint }, "the owner does not take the cluster key of this node: calls wait until it does");
  }

  #ready(connection: RemoteConnection, welcome: Welcome, tookMs: number): void {
    if (this.keyTrouble !== null) this.#options.log.info({}, "the owner takes the cluster key of this node again");
    this.keyTrouble = null;
    this.#ownerThere = true;
    this.#trouble = "open files are being opened again";
    this.#patienceMs = WELCOME_TIMEOUT_MS;
    this.#fruitless.welcomed(tookMs);
    this.#handlers.welcome(welcome);
    if (welcome.resumed && this.#welcomedEpoch === connection.epoch) {
      this.#acks.sendAgain();
      this.#sendAgain();
      this.#run();
      return;
    }
    const first = this.#welcomedEpoch === null;
    const kept = !first && welcome.cleanAfter === this.#welcomedEpoch;
    this.#reopened = false;
    const again = kept || (!first && welcome.letGoAfter === this.#welcomedEpoch);
    this.#acks.clear();
    this.#settleUnknownOutcomes(again);
    void this.#enterNewOwner(connection, first, kept);
  }

  async #enterNewOwner(connection: RemoteConnection, first: boolean, kept: boolean): Promise<void> {
    try {
      await this.#handlers.newOwner(first, kept);
    } catch (error) {
      // It fails only with its connection: the next one does it again.
      if (this.#connection !== connection && error instanceof Errno) return;
      throw error;
    }
    if (this.#connection !== connection) return;
    this.#welcomedEpoch = connection.epoch;
    this.#sendAgain();
    this.#run();
  }

  #run(): void {
    this.#running = true;
    this.#reopened = true;
    for (const waiter of this.#waiters.splice(0)) waiter.resolve();
    this.#pump();
  }

  /** `again`: nobody has seen what the last owner did not answer, so it is made once more. */
  #settleUnknownOutcomes(again: boolean): void {
    const unknown = [...this.#calls.values()].filter((call) => call.sent && call.repeat !== null);
    const lost = unknown.filter(({ repeat }) => !again || repeat?.again !== true);
    for (const call of unknown) if (again && call.repeat?.again === true) call.doubtful = call.repeat.doubtful;
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
    this.#lostConnection("the owner ends its service", false);
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
    this.#connection?.send(call.type, call.id, call.body, call.data, call.awaited);
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
      connection.send(FrameType.ACK, 0, this.#writer.view(), null, false);
    }
  }

  #receive(type: number, id: number, body: Uint8Array): void {
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
    if (call.awaited) this.counters.awaited += 1;
    this.#retryMs = RECONNECT_MIN_MS;
    this.#acks.answered(call.transmission);
    if (call.remembered && this.#acks.add(id)) this.#connection?.flush();
    this.#finish(call, () => {
      if (type === FrameType.FAILED) call.failed(errnoError(this.#judge(call, decodeErrno(body))));
      else call.answered(body);
    });
    this.#pump();
  }

  #judge(call: PendingCall, errno: number): number {
    if (!call.doubtful.includes(errno)) return errno;
    this.#options.log.error({ call: call.call, errno }, "made again at the next owner, and it may have been made before: not known, EIO");
    return E.EIO;
  }

  #create<K extends CallName>(
    call: K,
    request: RequestOf<K>,
    handles: readonly RemoteHandle[],
    reopening: boolean,
    send: (pending: PendingCall) => void,
  ): Promise<AnswerOf<K>> {
    return new Promise((resolve, reject) => {
      const id = this.#nextId;
      assert(!this.#calls.has(id), "a call is outstanding since 2^32 calls");
      const pending = createPendingCall(this.#writer, call, request, { id, handles, reopening }, resolve, reject);
      this.#nextId = id === 0xffff_ffff ? 1 : id + 1;
      this.#calls.set(id, pending);
      send(pending);
    });
  }

  /** Errno of the owner's answer; EIO if the outcome is not known, or the owner refuses this node. */
  call<K extends CallName>(call: K, request: RequestOf<K>, handles: readonly RemoteHandle[] = []): Promise<AnswerOf<K>> {
    if (this.#refused !== null) return Promise.reject(errnoError(E.EIO));
    if (this.#calls.size >= MAX_WAITING_CALLS) return Promise.reject(errnoError(E.ENOMEM));
    return this.#create(call, request, handles, false, (pending) => {
      this.#unsent.push(pending);
      this.#pump();
    });
  }

  /** The answers of calls that nobody waited for are waited for from now on. */
  hurry(): void {
    this.#connection?.hurry();
  }

  /** A call of the reopening: goes before the others wait for. Rejects with ECANCELED if the connection goes first. */
  callFirst<K extends CallName>(call: K, request: RequestOf<K>): Promise<AnswerOf<K>> {
    return this.#create(call, request, [], true, (pending) => {
      this.#outstanding += 1;
      this.#transmit(pending);
    });
  }
}

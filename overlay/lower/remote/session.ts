/**
 * The calls of this node to the volume's owner, whoever that is. While there is none they wait. A connection that
 * breaks is made again and the session goes on; at a new owner handles are opened again, calls that change nothing
 * are sent again, and a change that the old owner did not answer has an unknown outcome: EIO. If all that it had executed is on the
 * disk, the change is made again instead, and only what the second answer leaves open is EIO (wire/repeat.ts).
 */
import { assert } from "../../../dlmd/base/assert.ts";
import { E, Errno, errnoError } from "../../../dlmd/base/errno.ts";
import { OperatingError } from "../../../dlmd/base/error.ts";
import type { MoveListener } from "../directory-moves.ts";
import type { Log } from "../../../dlmd/base/log.ts";
import { createLimitedWarn, type LimitedWarn } from "../../../dlmd/base/log-limiter.ts";
import type { Refused, Welcome } from "../wire/handshake.ts";
import { type CallJournal, NO_JOURNAL } from "./call-journal.ts";
import { changeFor } from "../lower.ts";
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
import type { Hindrance } from "./pending-call.ts";
import type { OwnerWait } from "../owner-wait.ts";
import { WaitingCalls } from "./waiting-calls.ts";
import { FrameType } from "../wire/frame.ts";
import { decodeWith } from "../wire/call-codecs.ts";
import type { AnswerOf, CallName, RequestOf } from "../wire/call-types.ts";
import { CALLS } from "../wire/calls.ts";

const RECONNECT_MIN_MS = 10;
export const RECONNECT_MAX_MS = 1000;
/** Each reason for which there is no connection to the owner is logged once in that time, and less often while it lasts. */
const LOG_INTERVAL_MS = 10_000;
/** All calls of a reopening, for FruitlessConnections: each connection makes them anew. No call has this id. */
const REOPENING = 0;

/** What an owner leaves here whose dlmd has died: this mount may be the next owner (hazard F44). */
export interface Keeper {
  readonly keep: (request: RequestOf<"deposit">) => Promise<AnswerOf<"deposit">>;
  readonly keepNot: (ticket: string) => void;
}

export interface RemoteSessionOptions extends CallerIdentity {
  readonly log: Log;
  /** Of calls whose answers the owner remembers; absent: nobody's. */
  readonly journal?: CallJournal;
  /** Absent: it keeps nothing. */
  readonly keeper?: Keeper;
  /** What the owner tells of directories; absent: nobody listens. */
  readonly moves?: MoveListener;
  /** The owner will never serve this session: calls end with EIO from now on. */
  readonly onRefused?: (error: OperatingError) => void;
  /** The owner died, and what it had answered may be gone with it: nobody may go on with that. Resolves when nobody does. */
  readonly onOwnerDied?: () => Promise<unknown>;
}

/** A call of the reopening: goes before the others wait for. Rejects with ECANCELED if the connection that it is of goes first, or has gone. */
export type CallFirst = <K extends CallName>(call: K, request: RequestOf<K>) => Promise<AnswerOf<K>>;

export interface RemoteSessionHandlers {
  /**
   * An owner that does not know this session: all handles are to be opened again (`callFirst`) before other calls go on. May be
   * called again for the same owner, if the connection broke meanwhile. `first`: there was none before. `kept`: all that the last one had
   * executed is on the disk.
   */
  readonly newOwner: (first: boolean, kept: boolean, callFirst: CallFirst) => Promise<void>;
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
  readonly #calls: WaitingCalls;
  /** What goes wrong again and again. */
  readonly warn: LimitedWarn;
  #owner: { readonly address: OwnerAddress; readonly epoch: number } | null = null;
  #connection: RemoteConnection | null = null;
  /** At the present owner. Calls wait for it. */
  #reopened = false;
  /** As far as is known: ConnectionEnd.ownerThere of the last connection, while there is no other. */
  #ownerThere = false;
  /** Why there is no connection to the owner. */
  #trouble = "it is being made";
  #welcomedEpoch: number | null = null;
  /** Of its welcome. */
  #cleanAfter = 0;
  #refused: OperatingError | null = null;
  /** Why the owner and this node seem to have no key in common, while they seem to; null: they do, nothing was tried, or there is no owner. */
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
    this.#calls = new WaitingCalls(options.log, this.counters, options.journal ?? NO_JOURNAL, () => {
      this.#retryMs = RECONNECT_MIN_MS;
    });
  }

  get running(): boolean {
    return this.#calls.running;
  }

  /** No owner is known. */
  get ownerless(): boolean {
    return this.#owner === null;
  }

  /** RemoteLower.openedAt */
  get openedAt(): { readonly epoch: number; readonly cleanAfter: number } | null {
    return this.#welcomedEpoch === null ? null : { epoch: this.#welcomedEpoch, cleanAfter: this.#cleanAfter };
  }

  get hasUnansweredChanges(): boolean {
    return this.#calls.hasChanges;
  }

  /** null: no call waits. */
  get ownerWait(): OwnerWait | null {
    const { oldest } = this.#calls;
    if (oldest === undefined) return null;
    const { id, call, madeMs } = oldest;
    const waitedMs = performance.now() - madeMs;
    const inVain = this.#inVain;
    const trouble = inVain ?? (this.running ? null : this.#trouble);
    return { id, call, waitedMs, calls: this.#calls.count, inOwnersHands: this.#ownerThere && inVain === null, trouble };
  }

  /** What waits the longest. A reopening that is not over waits, too: nothing goes before it. */
  get #longest(): number | null {
    if (!this.#reopened) return REOPENING;
    return this.#calls.oldest?.id ?? null;
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
    if (this.running) return Promise.resolve();
    return new Promise((resolve, reject) => this.#waiters.push({ resolve, reject }));
  }

  ownerFound(address: OwnerAddress, epoch: number): void {
    if (this.#refused !== null) return;
    const known = this.#owner;
    const same = known?.epoch === epoch && known.address.host === address.host && known.address.port === address.port;
    if (same && this.#connection !== null) return;
    const { keyTrouble } = this;
    this.ownerLost();
    if (same) this.keyTrouble = keyTrouble;
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
    this.keyTrouble = null;
    this.#disconnect();
  }

  /** `keyring` is another. */
  keysChanged(): void {
    this.#connection?.keysChanged();
  }

  /** Before the first owner: what goes on here was begun with that one, without a session. */
  continueFrom(epoch: number): void {
    assert(this.#welcomedEpoch === null && this.#calls.count === 0, "a session that has begun");
    this.#welcomedEpoch = epoch;
  }

  /** Every call fails with EIO. */
  close(): void {
    this.ownerLost();
    this.#calls.failAll(errnoError(E.EIO));
    this.#refused ??= new OperatingError("the mount has ended", { code: "closed", hint: "Mount it again." });
    for (const waiter of this.#waiters.splice(0)) waiter.reject(this.#refused);
  }

  #disconnect(): void {
    if (this.#retryTimer !== null) clearTimeout(this.#retryTimer);
    this.#retryTimer = null;
    this.#connection?.destroy();
    this.#connection = null;
    this.#calls.disconnect();
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
        beforeFlush: () => this.#calls.sendAcks(),
      },
      this.counters,
    );
    this.#connection = connection;
    this.#calls.connect(connection);
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
    this.#calls.failAll(errnoError(E.EIO));
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
    // Hazard F46: what was told meanwhile went with the connection before.
    this.#options.moves?.missed();
    if (welcome.resumed && this.#welcomedEpoch === connection.epoch) {
      this.#calls.repeatAcks();
      this.#run(true);
      return;
    }
    const first = this.#welcomedEpoch === null;
    const kept = !first && welcome.cleanAfter === this.#welcomedEpoch;
    this.#reopened = false;
    const again = kept || (!first && welcome.letGoAfter === this.#welcomedEpoch);
    this.#calls.settleUnknownOutcomes(again);
    void this.#enterNewOwner(connection, welcome, first, kept);
  }

  async #enterNewOwner(connection: RemoteConnection, { cleanAfter }: Welcome, first: boolean, kept: boolean): Promise<void> {
    try {
      await this.#handlers.newOwner(first, kept, (call, request) => this.#callFirst(connection, call, request));
    } catch (error) {
      if (!(error instanceof Errno)) throw error;
      // The next connection does it again. Without the end of this one it fails only where an owner answers as none of ours does.
      if (this.#connection === connection) this.#lostConnection(`the owner does not take this node's open files: ${error.code}`, true);
      return;
    }
    if (this.#connection !== connection) return;
    this.#welcomedEpoch = connection.epoch;
    this.#cleanAfter = cleanAfter;
    this.#run(false);
  }

  /** `asked`: this owner has been asked for what was sent. */
  #run(asked: boolean): void {
    this.#calls.run(asked);
    this.#reopened = true;
    for (const waiter of this.#waiters.splice(0)) waiter.resolve();
  }

  #receive(type: number, id: number, body: Uint8Array): void {
    if (type === FrameType.KEEP) return void this.#keep(id, decodeWith(CALLS.deposit.request, body));
    if (type === FrameType.MOVED) return this.#options.moves?.moved(decodeWith(CALLS.pathOf.request, body).id);
    if (type === FrameType.KEEP_NOT) return this.#options.keeper?.keepNot(decodeWith(CALLS.collect.request, body).ticket);
    if (type !== FrameType.FAREWELL) return this.#calls.receive(type, id, body);
    this.#calls.takeBack();
    this.#handlers.farewell();
    this.#lostConnection("the owner ends its service", false);
  }

  async #keep(id: number, request: RequestOf<"deposit">): Promise<void> {
    const asker = this.#connection;
    const { refused } = (await this.#options.keeper?.keep(request)) ?? { refused: "it keeps nothing for others" };
    if (asker === null) return;
    // Before what waits: there is little time. The next owner has not asked.
    await this.#callFirst(asker, "kept", { id, refused }).catch((error: unknown) => {
      if (!(error instanceof Errno)) throw error;
    });
  }

  /** Errno of the owner's answer; EIO if the outcome is not known, or the owner refuses this node. */
  call<K extends CallName>(call: K, request: RequestOf<K>, hindrances: readonly Hindrance[] = []): Promise<AnswerOf<K>> {
    if (this.#refused !== null) return Promise.reject(errnoError(E.EIO));
    return this.#calls.call(call, request, hindrances);
  }

  get hasDoubtful(): boolean {
    return this.#calls.hasDoubtful;
  }

  /** Lower.madeFor. */
  madeFor(request: number): void {
    this.#calls.madeFor(request);
  }

  /** `call` makes, maybe in a later turn, the change that is asked for in this one: for the same request of the kernel (hazard F38). */
  carried<T>(call: () => T): () => T {
    const request = this.#calls.takeRequest();
    return () => changeFor(this, request, call);
  }

  /** The answers of calls that nobody waited for are waited for from now on. */
  hurry(): void {
    this.#connection?.hurry();
  }

  #callFirst<K extends CallName>(connection: RemoteConnection, call: K, request: RequestOf<K>): Promise<AnswerOf<K>> {
    // What it says is true at that owner alone: the next one may have nothing open yet (hazard H10).
    if (this.#connection !== connection) return Promise.reject(errnoError(E.ECANCELED));
    return this.#calls.callFirst(call, request);
  }
}

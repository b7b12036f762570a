/**
 * The owner's end of the wire: other nodes' calls, done on the local lower. It plays no part in locking (DESIGN 3); it
 * makes sure only that a session which was declared gone is served no more (hazard C7).
 */
import { createServer, type Server, type Socket } from "node:net";
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import { OperatingError } from "../../../dlmd/base/error.ts";
import type { Log } from "../../../dlmd/base/log.ts";
import { startListening } from "../../../dlmd/base/listening.ts";
import { createLimitedWarn, type LimitedWarn } from "../../../dlmd/base/log-limiter.ts";
import type { GoneClient } from "../../../dlmd/client/api.ts";
import type { Keyring } from "../../../dlmd/tls/keyring.ts";
import { createSecureAcceptor, type SecureAcceptor } from "../../../dlmd/tls/secure-connection.ts";
import { UnprovedConnections } from "../../../dlmd/tls/unproved.ts";
import type { FileId } from "../lower.ts";
import { encodeWith } from "../wire/call-codecs.ts";
import type { AnswerOf, RequestOf } from "../wire/call-types.ts";
import { CALLS } from "../wire/calls.ts";
import { FrameType } from "../wire/frame.ts";
import * as handshake from "../wire/handshake.ts";
import type { LocalLower } from "../local/local.ts";
import { type ConnectionHost, type LowerServerCounters, ServerConnection } from "./connection.ts";
import { AskedKeepers, type Keepers } from "./keepers.ts";
import { type HandOver, ServerSession, UNKNOWN } from "./session.ts";

/** Sessions at a time; further ones are refused. */
export const MAX_SESSIONS = 1024;
/**
 * Connections that the kernel takes for an owner that hangs. Beyond, it leaves SYNs unanswered, and callers take the host for gone.
 * net.core.somaxconn may make it less; it is 4096 since Linux 5.4.
 */
export const ACCEPT_BACKLOG_MAX = 4096;
/** Each kind of refusal of an address is logged once in that time, and less often while it goes on. */
const LOG_INTERVAL_MS = 10_000;

export interface LowerServerOptions {
  readonly lower: LocalLower;
  /** Of ClusterInfo.overlayKeys, of now. */
  readonly keyring: () => Keyring;
  readonly clusterName: string;
  readonly volumeUuid: string;
  /** The client of the lock manager that this owner is, and its epoch: sessions of another are refused. */
  readonly owner: handshake.OwnerId;
  /** Epoch of the owner before, if all that it had executed is on the disk; 0: not known. */
  readonly cleanAfter?: number;
  /** Epoch of the owner before, if it let go of a failed disk; 0: it did not. */
  readonly letGoAfter?: number;
  /** Addresses of the configured nodes: each has room of its own for connections that have proved nothing. */
  readonly nodeAddresses: () => readonly string[];
  readonly log: Log;
  /**
   * False: the disk was given up, or is another owner's (hazard C3): nothing more may be written to it, and nothing said of it. Asked at the end,
   * before the last sync and after it. Never rejects.
   */
  readonly hasDisk?: () => Promise<boolean>;
  /** Whether this node may serve now; while it may not, no calls are read. Then `resume`. */
  readonly mayServe?: () => boolean;
  /** Frees memory at once, which is garbage otherwise (Native.freeArrayBuffer). */
  readonly freeMemory: (memory: ArrayBuffer) => void;
  /** That life of the node is in the present view. A node that was evicted, has left or was removed from the configuration is not. */
  readonly isMember: (nodeid: number, incarnation: string) => boolean;
  /** A message of a caller has come. */
  readonly received?: () => void;
  /** A caller has opened all that it had open at an earlier owner, and there may be no other that has not: `hasClaimed`. */
  readonly claimed?: () => void;
  /** A caller asks for the volume to be given to another node; without it the answer is a refusal. */
  readonly handOver?: HandOver;
  /** What callers leave while they are away (hazard F35); without it the answer is a refusal. */
  readonly custody?: OwnerCustody;
  /** False: not yet, and the caller is to try again. */
  readonly admits?: (session: handshake.LowerSessionId) => boolean;
  /** A session that was declared gone before this server was made. */
  readonly isGone?: (session: handshake.LowerSessionId) => boolean;
}

/** The locks that are kept for callers that are away: restart/custody.ts. */
export interface OwnerCustody {
  /** `ended`: nothing is kept under that ticket any more. */
  deposit(request: RequestOf<"deposit">, ended: () => void): Promise<AnswerOf<"deposit">>;
  /** False: nothing was kept under it. */
  collect(ticket: string): boolean;
}

export interface LowerServer {
  /** Port 0: any. Gives the port. OperatingError "can-not-listen". */
  listen(address: string, port: number): Promise<number>;
  /** Ends these clients' sessions for ever; resolves when nothing of them changes anything any more. Their handles are closed when all has ended. */
  closeSessions(clients: readonly GoneClient[]): Promise<void>;
  /** This node may serve again. */
  resume(): void;
  /** `keyring` is another: a connection whose caller proved a key that is not in it any more ends; its session may go on in another. */
  keysChanged(): void;
  /**
   * Ends all sessions at once, without a word: the disk has failed, and nothing may be answered any more. Resolves when their calls have
   * ended; `close` is still to be called.
   */
  abandon(): Promise<void>;
  /** Hazard F44. Asks the mounts of other nodes to keep that, since one of them is the next owner. `signal`: there is no more time. */
  askToKeep(request: RequestOf<"deposit">, signal: AbortSignal): Promise<Keepers>;
  /** To each caller: that directory has another name now (hazard F46). */
  tellMoved(id: FileId): void;
  /** They need not. */
  keepNot(ticket: string): void;
  /** Ends all sessions and the listening; resolves when nothing runs any more. */
  close(): Promise<void>;
  readonly sessions: readonly ServerSession[];
  /** That client has a session, and has opened all that it had open at an earlier owner. */
  hasClaimed(client: Pick<handshake.LowerSessionId, "nodeid" | "incarnation" | "clientId">): boolean;
  readonly counters: LowerServerCounters;
}

/** A session of that client, or of that node if it is the node that is gone. */
export function isOf(session: handshake.LowerSessionId, client: GoneClient): boolean {
  const sameNode = session.nodeid === client.nodeid && session.incarnation === client.incarnation;
  return sameNode && (client.clientId === null || session.clientId === client.clientId);
}

class ServerCore implements ConnectionHost {
  readonly options: LowerServerOptions;
  readonly connections: Set<ServerConnection> = new Set();
  readonly counters: LowerServerCounters = { received: 0, sent: 0, bytesReceived: 0, bytesSent: 0, refused: 0 };
  readonly #sessions: Map<string, ServerSession> = new Map();
  readonly #connectionOf: Map<ServerSession, ServerConnection> = new Map();
  /** Sessions of which something is kept, by its ticket: also when their client is gone, their files stay open. */
  readonly #keptFor: Map<ServerSession, string> = new Map();
  /** Ends the wait of a deposit. */
  readonly #depositing: Map<ServerSession, () => void> = new Map();
  // One entry for each client that went away under this owner: a few bytes a mount or a node's death.
  readonly #gone: GoneClient[] = [];
  /** Sessions whose process has died, and whose calls the next one has asked for. One entry for each such death. */
  readonly #deadCallers = new Set<string>();
  readonly #keepers = new AskedKeepers();
  readonly #unproved: UnprovedConnections;
  readonly #acceptor: SecureAcceptor;
  readonly #warn: LimitedWarn;
  #closing = false;
  #abandoned = false;

  constructor(options: LowerServerOptions) {
    this.options = options;
    this.#acceptor = createSecureAcceptor(options.keyring);
    this.#warn = createLimitedWarn(options.log, LOG_INTERVAL_MS, () => performance.now());
    this.#unproved = new UnprovedConnections({
      isNode: (address) => options.nodeAddresses().includes(address),
    });
  }

  get owner(): handshake.OwnerId {
    return this.options.owner;
  }

  get freeMemory(): (memory: ArrayBuffer) => void {
    return this.options.freeMemory;
  }

  welcome(): Omit<handshake.Welcome, "resumed"> {
    const { owner, cleanAfter = 0, letGoAfter = 0, lower } = this.options;
    return { owner, cleanAfter, letGoAfter, root: lower.root, hasAcls: lower.hasAcls, exclusive: lower.exclusive };
  }

  get mayServe(): boolean {
    return this.options.mayServe?.() ?? true;
  }

  get closing(): boolean {
    return this.#closing;
  }

  get sessions(): ServerSession[] {
    return [...this.#sessions.values()];
  }

  accept(raw: Socket): void {
    const address = raw.remoteAddress ?? "?";
    // The end of the socket tells what went wrong.
    raw.on("error", () => undefined);
    if (this.#closing) return void raw.destroy();
    if (!this.#unproved.makeRoom(address)) {
      this.refused(address, "too many connections without a handshake");
      return void raw.resetAndDestroy();
    }
    let late = false;
    const proved = this.#unproved.add(raw, address, (reason) => {
      late = true;
      this.refused(address, reason);
    });
    this.#acceptor.accept(raw, {
      secured: (secure) => {
        if (this.#closing) return void secure.socket.destroy();
        this.connections.add(new ServerConnection(this, secure, proved));
      },
      failed: (reason) => {
        raw.destroy();
        if (!this.#closing && !late) this.refused(address, reason);
      },
    });
  }

  /** Such as ENFILE: the next connection may be taken again. */
  acceptFailed(error: Error): void {
    this.#warn("accept", { error: error.message }, "a connection to the volume's owner could not be taken");
  }

  received(): void {
    this.counters.received += 1;
    this.options.received?.();
  }

  refused(address: string, reason: string): void {
    this.counters.refused += 1;
    this.#warn(this.#unproved.refusalKey(address, reason), { peer: address, reason }, "connection to the volume's owner refused");
  }

  ended(connection: ServerConnection, address: string, why: string): void {
    this.connections.delete(connection);
    if (connection.served) this.options.log.info({ peer: address, why }, "connection of another node ended");
  }

  check(hello: handshake.Hello): Omit<handshake.Refused, "owner"> | null {
    const { clusterName, volumeUuid, owner } = this.options;
    const { session } = hello;
    const other = (reason: handshake.Refusal, what: string, expected: string | number, found: string | number) => ({
      reason,
      text: `${what} ${expected} expected, found ${found}`,
    });
    if (hello.clusterName !== clusterName) return other("other-cluster", "cluster", clusterName, hello.clusterName);
    if (hello.volumeUuid !== volumeUuid) return other("other-volume", "volume", volumeUuid, hello.volumeUuid);
    if (session.ownerEpoch !== owner.epoch) return other("other-epoch", "owner epoch", owner.epoch, session.ownerEpoch);
    if (this.#isGone(session) || this.#deadCallers.has(handshake.sessionKey(session)) || this.options.isGone?.(session) === true) {
      return { reason: "gone", text: `client ${session.clientId} of node ${session.nodeid} was declared gone` };
    }
    if (!this.options.isMember(session.nodeid, session.incarnation)) {
      return { reason: "not-a-member", text: `node ${session.nodeid} (incarnation ${session.incarnation}) is not in the view` };
    }
    // For the caller that is what a node is that the owner has not heard of yet.
    if (this.options.admits?.(session) === false) return { reason: "not-a-member", text: "this owner opens its own files first" };
    if (!this.#sessions.has(handshake.sessionKey(session)) && this.#sessions.size >= MAX_SESSIONS) {
      return { reason: "too-many", text: `${MAX_SESSIONS} sessions are open` };
    }
    return null;
  }

  #isGone(session: handshake.LowerSessionId): boolean {
    return this.#gone.some((client) => isOf(session, client));
  }

  attach(id: handshake.LowerSessionId, connection: ServerConnection): { session: ServerSession; resumed: boolean } {
    const key = handshake.sessionKey(id);
    const known = this.#sessions.get(key);
    const session =
      known ??
      new ServerSession(
        id,
        this.options.lower,
        this.options.log,
        () => this.options.claimed?.(),
        async (request) => (await this.options.handOver?.(request)) ?? { heir: 0, refused: "this owner hands nothing over" },
        () => this.mayServe,
        {
          deposit: (of, request) => this.#deposit(of, request),
          kept: (of, request) => this.#keepers.answered(of, request),
          collect: ({ ticket }) => this.#collect(ticket),
          outcomes: (of, request) => this.#outcomes(of, request),
        },
      );
    this.#sessions.set(key, session);
    const before = this.#connectionOf.get(session);
    this.#connectionOf.set(session, connection);
    session.sink = connection;
    before?.destroy("the caller has connected again");
    return { session, resumed: known !== undefined };
  }

  welcomed(session: ServerSession): void {
    session.answerAgain();
    session.startQueued();
  }

  /** Those that hear what is said, and whose dlmd is not the one that has died. */
  get #elsewhere(): ServerSession[] {
    return this.sessions.filter(({ id, sink }) => id.nodeid !== this.owner.nodeid && sink !== null);
  }

  askToKeep(request: RequestOf<"deposit">, signal: AbortSignal): Promise<Keepers> {
    return this.#keepers.ask(this.#elsewhere, request, signal);
  }

  tellMoved(id: FileId): void {
    const body = encodeWith(CALLS.pathOf.request, { id });
    for (const session of this.#sessions.values()) session.say(FrameType.MOVED, 0, body);
  }

  keepNot(ticket: string): void {
    this.#keepers.takeBack(this.#elsewhere, ticket);
  }

  async #deposit(session: ServerSession, request: RequestOf<"deposit">): Promise<AnswerOf<"deposit">> {
    const { custody } = this.options;
    const { ticket } = request;
    if (custody === undefined) return { refused: "this owner keeps nothing for others" };
    if (this.#depositing.has(session)) return { refused: "another part is under way" };
    if ([...this.#keptFor].some(([other, its]) => other !== session && its === ticket)) return { refused: "another mount has that ticket" };
    if (!this.#hasRoomFor(session)) return { refused: `${session.openHandles} files are open, and the owner has no room for them twice` };
    // A session that is to end does not wait for dlmd, which may wait for that end (hazard C7).
    const answer = await new Promise<AnswerOf<"deposit">>((resolve, reject) => {
      this.#depositing.set(session, () => resolve({ refused: "the session has ended" }));
      custody.deposit(request, () => this.#custodyEnded(session, ticket)).then(resolve, reject);
    }).finally(() => this.#depositing.delete(session));
    if (answer.refused === "") this.#keptFor.set(session, ticket);
    else if (this.#keptFor.get(session) !== ticket) custody.collect(ticket);
    return answer;
  }

  /** The new process opens all before the session of the old one is closed. */
  #hasRoomFor({ openHandles }: ServerSession): boolean {
    return this.options.lower.roomForHandles() >= openHandles;
  }

  #collect(ticket: string): AnswerOf<"collect"> {
    return { found: this.options.custody?.collect(ticket) === true };
  }

  /** The caller that deposited it may be here still. */
  #custodyEnded(session: ServerSession, ticket: string): void {
    if (this.#keptFor.get(session) !== ticket) return;
    this.#keptFor.delete(session);
    if (this.#isGone(session.id)) void this.#close(session);
  }

  /** Hazard F38. Its connection may still come out of the queue of the socket that listens, with calls: so it gets no session from now on. */
  async #outcomes({ id: asker }: ServerSession, { client, calls }: RequestOf<"outcomes">): Promise<AnswerOf<"outcomes">> {
    if (client === asker.clientId) throw errnoError(E.EINVAL);
    const key = handshake.sessionKey({ ...asker, clientId: client });
    this.#deadCallers.add(key);
    const session = this.#sessions.get(key);
    if (session === undefined) return calls.map(() => UNKNOWN);
    this.#disconnect(session);
    return await session.outcomes(calls);
  }

  async #close(session: ServerSession): Promise<void> {
    this.#disconnect(session);
    await session.close();
    this.#sessions.delete(handshake.sessionKey(session.id));
  }

  /** Hazard C7. Its locks go once nothing of it changes anything. What only reads takes as long as the disk does, and its handles stay open so long. */
  async #serveNoMore(session: ServerSession): Promise<void> {
    const closed = this.#close(session);
    await session.servesNoMore();
    if (session.runningCalls === 0) await closed;
  }

  #disconnect(session: ServerSession): void {
    this.#depositing.get(session)?.();
    this.#connectionOf.get(session)?.destroy("its session has ended");
    this.#connectionOf.delete(session);
  }

  async #end(sessions: readonly ServerSession[]): Promise<void> {
    await Promise.all(sessions.map((session) => this.#close(session)));
  }

  async closeSessions(clients: readonly GoneClient[]): Promise<void> {
    this.#gone.push(...clients);
    const gone = this.sessions.filter((session) => clients.some((client) => isOf(session.id, client)));
    const kept = gone.filter((session) => this.#keptFor.has(session));
    for (const session of kept) this.#disconnect(session);
    const others = gone.filter((session) => !this.#keptFor.has(session));
    await Promise.all([...others.map((session) => this.#serveNoMore(session)), ...kept.map((session) => session.retire())]);
  }

  /** Who is connected is told what became of his calls, so that none of them ends with EIO and no fsync at the next owner does. */
  async #leave(): Promise<void> {
    const served = (): ServerConnection[] => [...this.connections].filter((connection) => connection.served);
    for (const end of this.#depositing.values()) end();
    await Promise.all(this.sessions.map((session) => session.retire()));
    // Also where nobody is to be told: the handles that are closed next may write.
    if (!(await this.#hasDisk()) || served().length === 0) return;
    try {
      await this.options.lower.syncfs();
    } catch (error) {
      this.options.log.warn({ error: String(error) }, "the lower could not be synced before the end: callers are told nothing");
      return;
    }
    // An earlier one was told what is lost, and this one is not (hazard H8).
    if (this.options.lower.failedSyncs() > 0) {
      this.options.log.warn({}, "a sync of the lower has failed, and what it did not write may be lost: callers are told nothing");
      return;
    }
    // A sync that a shutdown overlapped may have said that all is well.
    if (!(await this.#hasDisk())) return;
    await Promise.all(served().map((connection) => connection.farewell()));
  }

  async #hasDisk(): Promise<boolean> {
    if (this.#abandoned) return false;
    return ((await this.options.hasDisk?.()) ?? true) && !this.#abandoned;
  }

  async abandon(): Promise<void> {
    this.#closing = true;
    this.#abandoned = true;
    this.options.lower.leaveOrphans();
    const ended = this.#end(this.sessions);
    for (const connection of this.connections) connection.destroy("the owner withdraws from its disk");
    await ended;
  }

  async closeAll(): Promise<void> {
    this.#closing = true;
    if (!this.#abandoned) await this.#leave();
    // What the callers had open they will open at the next owner.
    this.options.lower.leaveOrphans();
    await this.#end(this.sessions);
    for (const connection of this.connections) connection.destroy("the owner stops serving");
    this.#unproved.destroyAll();
  }
}

async function listen(server: Server, address: string, port: number, failedLater: (error: Error) => void): Promise<number> {
  try {
    await startListening(
      server,
      (listening) => server.listen({ port, host: address, backlog: ACCEPT_BACKLOG_MAX }, listening),
      failedLater,
    );
  } catch (error) {
    const hint = "Check the node's address in cluster.yaml, and that no other program has the port.";
    const cause = error as Error;
    throw new OperatingError(`can not listen on ${address} port ${port}: ${cause.message}`, { code: "can-not-listen", hint, cause });
  }
  const bound = server.address();
  if (bound === null || typeof bound === "string") throw noPort();
  return bound.port;
}

function noPort(): OperatingError {
  return new OperatingError("the server has no port", { code: "can-not-listen", hint: "Check the node's address in cluster.yaml." });
}

export function createLowerServer(options: LowerServerOptions): LowerServer {
  const core = new ServerCore(options);
  const server = createServer((socket) => core.accept(socket));
  return {
    listen: (address, port) => listen(server, address, port, (error) => core.acceptFailed(error)),
    closeSessions: (clients) => core.closeSessions(clients),
    resume() {
      for (const session of core.sessions) session.startQueued();
      for (const connection of core.connections) connection.resume();
    },
    keysChanged() {
      const keyring = options.keyring();
      for (const connection of core.connections) connection.keysChanged(keyring);
    },
    abandon: () => core.abandon(),
    askToKeep: (request, signal) => core.askToKeep(request, signal),
    tellMoved: (id) => core.tellMoved(id),
    keepNot: (ticket) => core.keepNot(ticket),
    async close() {
      await core.closeAll();
      if (server.listening) await new Promise<void>((resolve) => server.close(() => resolve()));
    },
    get sessions(): readonly ServerSession[] {
      return core.sessions;
    },
    hasClaimed({ nodeid, incarnation, clientId }) {
      return core.sessions.some(({ id, hasClaimed }) => hasClaimed && isOf(id, { nodeid, incarnation, clientId }));
    },
    counters: core.counters,
  };
}

/**
 * The client of dlmd's local socket: `connectDlm` of api.ts. One connection, any number of lockspaces on it.
 */
import { type Socket, createConnection } from "node:net";
import { assert } from "../base/assert.ts";
import { OperatingError } from "../base/error.ts";
import { type ClientMessage, LOCAL_VERSION, PROGRAM_BYTES, type ServerMessage } from "../wire/local.ts";
import type { QueryWhat } from "../wire/program.ts";
import type { HeirEvent } from "../wire/local-heir.ts";
import { type FenceAnswer, type FenceQuestion, MAX_BOOT_ID_BYTES, shortened } from "../wire/fence-life.ts";
import { maxMessageBytes } from "../wire/group.ts";
import { isIncarnation } from "../wire/view-id.ts";
import { MAX_DEVICE_BYTES, type LifeAnswer, type ProcessLife } from "../wire/peer-life.ts";
import type {
  ClusterInfo,
  ConnectDlm,
  DlmClient,
  DlmClientHandlers,
  InheritedClient,
  KeepOptions,
  InspectRequest,
  Lock,
  LockHandlers,
  Lockspace,
  ViewInfo,
} from "./api.ts";
import { Connection } from "./connection.ts";
import { askForAll, heirRefusal } from "./heir.ts";
import { ClientFileLocks, FileLockRequests } from "./file-lock.ts";
import type { FileLocks } from "./file-lock-api.ts";
import { Groups } from "./group.ts";
import type { Group, GroupHandlers } from "./group-api.ts";
import { ClientLock, type OpenLockspace, checkName } from "./lock.ts";

/** dlmd accepts at once; if not, it hangs. */
const CONNECT_TIMEOUT_MS = 10_000;
/** dlmd hears that a connection ends in good order. If it has not said so by then, the connection ends all the same. */
const FAREWELL_LIMIT_MS = 1000;

interface Pending {
  readonly resolve: (value: unknown) => void;
  readonly reject: (reason: Error) => void;
}

function checkLimit(limitMs: number): number {
  if (Number.isInteger(limitMs) && limitMs >= 0 && limitMs <= 0xffff_ffff) return limitMs;
  throw new OperatingError(`a limit of whole milliseconds expected, found ${limitMs}`, {
    code: "bad-limit",
    hint: "Milliseconds from 0 (none) to 4294967295.",
  });
}

const u16Max = 0xffff;
/** Of process ids, client ids and times. */
const u32Max = 0xffff_ffff;

/** On the wire a larger number would be another one: another node would be fenced, or the orphans of all purged. */
function checkWhole(what: string, value: number, max: number): void {
  if (Number.isInteger(value) && value >= 0 && value <= max) return;
  throw new OperatingError(`${what} from 0 to ${max} expected, found ${value}`, {
    code: "EINVAL",
    hint: "Nothing was asked for: ask again.",
  });
}

function checkInspect({ lockspace, resource, nodeid, waitingMs }: InspectRequest): void {
  if (lockspace !== "") checkName("a lockspace's name", lockspace);
  if (resource !== "") checkName("a resource's name", resource);
  checkWhole("a nodeid", nodeid, u16Max);
  // The largest one says on the wire that there is none.
  if (waitingMs !== null) checkWhole("whole milliseconds", waitingMs, u32Max - 1);
}

function closed(how: string): OperatingError {
  return new OperatingError(`the connection to dlmd ${how}`, { code: "closed", hint: "Connect anew." });
}

function connectError(socketPath: string, cause: NodeJS.ErrnoException): OperatingError {
  if (cause.code === "EACCES" || cause.code === "EPERM") {
    return new OperatingError(`dlmd at ${socketPath} may not be asked by user id ${process.geteuid?.() ?? "?"}`, {
      code: "permission",
      hint: "Use sudo, or be the user that runs it.",
      cause,
    });
  }
  const found = cause.code === "ENOENT" ? "no socket there" : cause.code === "ECONNREFUSED" ? "nobody answers" : cause.message;
  return new OperatingError(`dlmd expected at ${socketPath}, found: ${found}`, {
    code: "dlmd-not-running",
    hint: "Start dlmd on this node: dlmd --config /etc/coverlay/cluster.yaml",
    cause,
  });
}

function openSocket(socketPath: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(socketPath);
    const fail = (error: NodeJS.ErrnoException): void => reject(connectError(socketPath, error));
    socket.on("error", fail);
    socket.once("connect", () => resolve(socket));
  });
}

class ClientLockspace implements Lockspace, OpenLockspace {
  readonly name: string;
  readonly lockspaceId: number;
  readonly connection: Connection;

  constructor(connection: Connection, name: string, lockspaceId: number) {
    this.connection = connection;
    this.name = name;
    this.lockspaceId = lockspaceId;
  }

  createLock(resource: string, handlers: LockHandlers): Lock;
  createLock<A>(resource: string, handlers: LockHandlers<A>, astarg: A): Lock;
  createLock<A>(resource: string, handlers: LockHandlers<A | undefined>, astarg?: A): Lock {
    checkName("a resource's name", resource);
    return new ClientLock(this, resource, handlers, astarg);
  }

  batch(make: () => void): void {
    // Everything of one turn is one write already; a batch leaves at its end instead of the turn's.
    make();
    this.connection.flush();
  }

  whenOver(told: (why: Error) => void): () => void {
    return this.connection.whenOver(told);
  }
}

class Client implements DlmClient {
  info: ClusterInfo;
  view: ViewInfo;
  readonly counters: { sent: number; received: number };
  readonly #connection: Connection;
  readonly #handlers: DlmClientHandlers;
  readonly #pending = new Map<number, Pending>();
  readonly #fileLocks: FileLockRequests;
  readonly #groups: Groups;
  readonly #lockspaces = new Map<string, Promise<ClientLockspace>>();
  /** Of lockspaces and queries alike. */
  #nextId = 1;
  /** dlmd keeps what this program has if the connection breaks, or may do so. */
  #isKept = false;

  constructor(connection: Connection, handlers: DlmClientHandlers, info: ClusterInfo, view: ViewInfo) {
    this.#connection = connection;
    this.#fileLocks = new FileLockRequests((request) => connection.send(request));
    const { nodeid, incarnation, clientId } = info;
    this.#groups = new Groups({ nodeid, incarnation, clientId }, connection);
    this.#handlers = handlers;
    this.info = info;
    this.view = view;
    this.counters = connection.counters;
  }

  lockspace(name: string): Promise<Lockspace> {
    return this.#open(name);
  }

  async fileLocks(lockspace: string): Promise<FileLocks> {
    return new ClientFileLocks(this.#fileLocks, (await this.#open(lockspace)).lockspaceId);
  }

  join(group: string, handlers: GroupHandlers): Promise<Group> {
    checkName("a group's name", group);
    return this.#groups.join(group, handlers);
  }

  #open(name: string): Promise<ClientLockspace> {
    checkName("a lockspace's name", name);
    const known = this.#lockspaces.get(name);
    if (known !== undefined) return known;
    const lockspaceId = this.#nextId++;
    const opened = this.#ask(lockspaceId, { kind: "open", lockspaceId, name }).then(
      () => new ClientLockspace(this.#connection, name, lockspaceId),
    );
    opened.catch(() => this.#lockspaces.delete(name));
    this.#lockspaces.set(name, opened);
    return opened;
  }

  async purge(lockspace: string, nodeid: number, pid: number): Promise<number> {
    checkWhole("a nodeid", nodeid, u16Max);
    checkWhole("a process id", pid, u32Max);
    const opened = await this.#lockspaces.get(lockspace);
    if (opened === undefined) {
      throw new OperatingError(`lockspace ${lockspace} is not open here`, { code: "not-open", hint: "Open it before purging in it." });
    }
    const purgeId = this.#nextId++;
    return (await this.#ask(purgeId, { kind: "purge", purgeId, lockspaceId: opened.lockspaceId, nodeid, pid })) as number;
  }

  setBastLimitMs(limitMs: number): void {
    this.#connection.send({ kind: "bast-limit", limitMs: checkLimit(limitMs) });
  }

  get descriptor(): number {
    return this.#connection.descriptor;
  }

  async keepLocks(limitMs: number, { held = false }: KeepOptions = {}): Promise<void> {
    const requestId = this.#nextId++;
    checkLimit(limitMs);
    this.#isKept ||= limitMs > 0;
    await this.#ask(requestId, { kind: "keep-locks", requestId, limitMs, held });
  }

  async inherited(lockspace: string): Promise<InheritedClient[]> {
    checkName("a lockspace's name", lockspace);
    return askForAll(lockspace, async (request) => {
      const requestId = this.#nextId++;
      return (await this.#ask(requestId, { ...request, requestId })) as Extract<HeirEvent, { kind: "inherited" }>;
    });
  }

  async farewell(clientId: number, group: string, data: Uint8Array): Promise<void> {
    checkName("a group's name", group);
    checkWhole("a client id", clientId, u32Max);
    if (data.byteLength > maxMessageBytes) {
      const words = `a message of at most ${maxMessageBytes} bytes expected, found ${data.byteLength}`;
      throw new OperatingError(words, { code: "too-large", hint: "Nothing was said: send less." });
    }
    await this.#groups.farewell(clientId, group, data);
  }

  async endKept(clientId: number): Promise<void> {
    checkWhole("a client id", clientId, u32Max);
    const requestId = this.#nextId++;
    await this.#ask(requestId, { kind: "end-kept", requestId, clientId });
  }

  query(what: QueryWhat): Promise<unknown> {
    const queryId = this.#nextId++;
    return this.#ask(queryId, { kind: "query", queryId, what });
  }

  async inspect(request: InspectRequest): Promise<unknown> {
    checkInspect(request);
    const queryId = this.#nextId++;
    return this.#ask(queryId, { kind: "inspect", queryId, ...request });
  }

  async askLife(life: ProcessLife): Promise<LifeAnswer> {
    const { nodeid, pid, startTime, device } = life;
    checkWhole("a nodeid", nodeid, u16Max);
    checkWhole("a process id", pid, u32Max);
    checkWhole("a start time", startTime, Number.MAX_SAFE_INTEGER);
    const bytes = Buffer.byteLength(device);
    if (bytes > MAX_DEVICE_BYTES)
      return { missing: `the device has a name of ${bytes} bytes, at most ${MAX_DEVICE_BYTES} can be asked for` };
    const queryId = this.#nextId++;
    return (await this.#ask(queryId, { kind: "ask-life", queryId, nodeid, pid, startTime, device })) as LifeAnswer;
  }

  async fenceLife(question: FenceQuestion): Promise<FenceAnswer> {
    const { nodeid, incarnation, bootId, why } = question;
    checkWhole("a nodeid", nodeid, u16Max);
    if (!isIncarnation(incarnation) || Buffer.byteLength(bootId) > MAX_BOOT_ID_BYTES) {
      return { kind: "refused", why: `incarnation ${incarnation} in boot ${bootId} is no life of a node` };
    }
    const queryId = this.#nextId++;
    return (await this.#ask(queryId, { kind: "fence-life", queryId, nodeid, incarnation, bootId, why: shortened(why) })) as FenceAnswer;
  }

  /** dlmd hears that this is no break. A bare end may come to it without what was sent before, if it writes at that moment. */
  async #sayFarewell(): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, FAREWELL_LIMIT_MS)));
    await Promise.race([this.keepLocks(0).catch(() => undefined), late]);
    clearTimeout(timer);
  }

  async close(): Promise<void> {
    if (this.#isKept) await this.#sayFarewell();
    const reason = closed("was closed here");
    this.#rejectPending(reason);
    this.#fileLocks.end(reason);
    this.#groups.end(reason, false);
    await this.#connection.end(reason);
  }

  #ask(
    id: number,
    question: ClientMessage & {
      readonly kind: "ask-life" | "end-kept" | "fence-life" | "inherit" | "inspect" | "keep-locks" | "open" | "purge" | "query";
    },
  ): Promise<unknown> {
    if (this.#connection.over) return Promise.reject(closed("is over"));
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject });
      this.#connection.send(question);
    });
  }

  #settle(id: number): Pending {
    const pending = this.#pending.get(id);
    assert(pending !== undefined, `an answer to request ${id}, which nobody made`);
    this.#pending.delete(id);
    return pending;
  }

  #rejectPending(reason: Error): void {
    for (const { reject } of this.#pending.values()) reject(reason);
    this.#pending.clear();
  }

  receive(message: Exclude<ServerMessage, { kind: "results" | "welcome" | "error" }>): void {
    switch (message.kind) {
      case "opened":
        if (message.error === "") this.#settle(message.lockspaceId).resolve(null);
        else
          this.#settle(message.lockspaceId).reject(
            new OperatingError(message.error, { code: "lockspace-refused", hint: "See the limits in dlmd/LIMITS.md." }),
          );
        return;
      case "answer":
        this.#settle(message.queryId).resolve(JSON.parse(Buffer.from(message.json).toString()));
        return;
      case "heir-result":
        if (message.result === "done") this.#settle(message.requestId).resolve(null);
        else this.#settle(message.requestId).reject(heirRefusal(message.result));
        return;
      case "inherited":
        this.#settle(message.requestId).resolve(message);
        return;
      case "plock-result":
        this.#fileLocks.receive(message);
        return;
      case "group-result":
      case "group-members":
      case "group-message":
      case "group-ended":
        this.#groups.receive(message);
        return;
      case "purged":
        if (message.error === "") this.#settle(message.purgeId).resolve(message.locks);
        else
          this.#settle(message.purgeId).reject(
            new OperatingError(message.error, { code: "purge-refused", hint: "`coverlay nodes` shows who is in the view." }),
          );
        return;
      case "view":
        this.view = message.view;
        this.#handlers.view(message.view);
        return;
      case "overlay-keys":
        this.info = { ...this.info, overlayKeys: message.keys };
        this.#handlers.overlayKeysChanged?.();
        return;
      case "gone":
        // No catch: a handler that fails has not stopped serving the dead, so their locks must stay held.
        void this.#acknowledge(message.goneId, this.#handlers.gone(message.clients));
        return;
    }
  }

  async #acknowledge(goneId: number, stopped: Promise<void>): Promise<void> {
    await stopped;
    if (!this.#connection.over) this.#connection.send({ kind: "gone-ack", goneId });
  }

  /** `told`: dlmd has said so itself. */
  disconnected(reason: Error, told: boolean): void {
    // First: what ends with the connection, ends by that.
    this.#handlers.disconnected(reason, told);
    this.#rejectPending(reason);
    this.#fileLocks.end(reason);
    this.#groups.end(reason, true);
  }
}

/** Connects to the dlmd of this node. Rejects with OperatingError ("dlmd-not-running", "dlmd-refused"). */
export const connectDlm: ConnectDlm = async (socketPath, handlers, options = {}) => {
  const owner = options.owner ?? "";
  if (owner !== "") checkName("an owner", owner);
  const bastLimitMs = checkLimit(options.bastLimitMs ?? 0);
  const socket = await openSocket(socketPath);
  return new Promise<DlmClient>((resolve, reject) => {
    let client: Client | null = null;
    let refusal: OperatingError | null = null;
    const limitMs = options.answerLimitMs ?? CONNECT_TIMEOUT_MS;
    const timer = setTimeout(() => {
      refusal = new OperatingError(`dlmd at ${socketPath} did not answer within ${limitMs} ms`, {
        code: "dlmd-not-answering",
        hint: "It hangs, or has no processor time: its log says what it is doing.",
      });
      socket.destroy();
    }, limitMs);
    const connection = new Connection(socket, {
      message(message) {
        if (message.kind === "error") {
          // A refusal stays one, a dlmd that ends the connection may be there again soon: mount -o wait goes by the code.
          const [what, code] = client === null ? ["dlmd refused", "dlmd-refused"] : ["dlmd ended the connection", "disconnected"];
          refusal = new OperatingError(`${what}: ${message.reason}`, { code, hint: "The log of dlmd says more." });
        } else if (message.kind === "welcome") {
          assert(client === null, "a second welcome");
          clearTimeout(timer);
          client = new Client(connection, handlers, message.info, message.view);
          resolve(client);
        } else {
          assert(client !== null, `${message.kind} before the welcome`);
          client.receive(message);
        }
      },
      disconnected(reason) {
        clearTimeout(timer);
        const why =
          refusal ??
          new OperatingError(`the connection to dlmd ended: ${reason.message}`, {
            code: "disconnected",
            hint: "The log of dlmd says why it ended; start it again and connect anew.",
            cause: reason,
          });
        if (client === null) reject(why);
        else client.disconnected(why, refusal !== null);
      },
    });
    const program = lastOf(process.argv[1] ?? "node", PROGRAM_BYTES);
    connection.send({ kind: "hello", version: LOCAL_VERSION, pid: process.pid, program, owner, bastLimitMs });
  });
};

/** As much of its end as has room: what people know a program by. */
function lastOf(text: string, bytes: number): string {
  let rest = Buffer.from(text).subarray(-bytes);
  // Not in the middle of a character.
  while (((rest[0] ?? 0) & 0xc0) === 0x80) rest = rest.subarray(1);
  return rest.toString();
}

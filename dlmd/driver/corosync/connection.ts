/**
 * A connection to the corosync of this node: its callbacks become events of the engine's core, in the order of CPG, and what the core sends goes
 * to CPG in order, however often corosync says "try again". Nothing here waits on the main thread.
 */
import { OperatingError } from "../../base/error.ts";
import type { Voter } from "../../config/votes.ts";
import type { CorosyncEvent } from "../../engine/corosync/corosync-api.ts";
import type { RingId, Seat } from "../../engine/corosync/message.ts";
import { type CorosyncLibraries, loadCorosyncLibraries, type NativeFunction, type VotequorumInfo } from "./libraries.ts";
import { Poller } from "./poller.ts";

const CS_OK = 1;
const CS_ERR_TRY_AGAIN = 6;
const CS_ERR_EXIST = 14;
const CS_DISPATCH_ONE_NONBLOCKING = 4;
const CS_TRACK_CURRENT_AND_CHANGES = 3;
const CPG_MODEL_V1 = 1;
const CPG_DELIVER_INITIAL_TOTEM_CONF = 1;
const CPG_TYPE_AGREED = 2;
const QUORUM_MODEL_V1 = 1;
/** `corosync-cfgtool -H`. Another value comes of --force: corosync ends whatever is answered, but waits 5 s for answers all the same. */
const SHUTDOWN_REQUEST = 0;
const SHUTDOWN_NO = 0;
const SHUTDOWN_YES = 1;
/** Options of votequorum under which it is quorate with half of the votes, or fewer. */
const MINORITY_FLAGS: readonly (readonly [number, string])[] = [
  [1, "two_node"],
  [8, "last_man_standing"],
  [16, "auto_tie_breaker"],
  [32, "allow_downscale"],
  [64, "a quorum device"],
];
/** Callbacks dispatched before timers and sockets have their turn. */
const dispatchLimit = 256;
/** Messages that corosync did not take yet; beyond, it hangs, and the connection counts as lost. */
const waitingLimit = 1024;
const retryMs = 2;
/** The connection before may still be in the group, by corosync's word. */
const joinRetryMs = 20;
const joinRetries = 250;
const errorNames: Readonly<Record<number, string>> = {
  2: "CS_ERR_LIBRARY: it is not running, or has ended",
  5: "CS_ERR_TIMEOUT",
  6: "CS_ERR_TRY_AGAIN",
  9: "CS_ERR_BAD_HANDLE",
  11: "CS_ERR_ACCESS: it lets in root, and users that corosync.conf's uidgid names",
  12: "CS_ERR_NOT_EXIST",
  14: "CS_ERR_EXIST",
  100: "CS_ERR_SECURITY: it lets in root, and users that corosync.conf's uidgid names",
};

export interface CorosyncOptions {
  /** Of CPG; at most 128 bytes. */
  readonly group: string;
  readonly nodeid: number;
  /** What cluster.yaml says. */
  readonly nodes: readonly Voter[];
  readonly event: (event: CorosyncEvent) => void;
  /** After the events of one turn. */
  readonly dispatched: () => void;
  /** A person asks corosync of this node to end: why it must not, in words; null: it may. */
  readonly shutdown?: () => string | null;
  /** Connects on this thread, as tests need that change its network namespace for it. */
  readonly blocking?: boolean;
}

export interface CorosyncConnection {
  send(data: Uint8Array): void;
  /** No events afterwards. */
  close(): void;
}

/** One for all connections: each has a thread that waits. */
const pollers = new WeakMap<CorosyncLibraries, Poller>();

/** Rejects with OperatingError: corosync does not run, or is not configured for what cluster.yaml says. */
export async function connectCorosync(options: CorosyncOptions, given?: CorosyncLibraries): Promise<CorosyncConnection> {
  const libraries = given ?? (await loadCorosyncLibraries());
  const poller = pollers.get(libraries) ?? new Poller(libraries);
  pollers.set(libraries, poller);
  const connection = new Connection(options, libraries, poller);
  try {
    await connection.open();
  } catch (error) {
    connection.close();
    throw error;
  }
  return connection;
}

function failed(what: string, code: number): OperatingError {
  return new OperatingError(`${what} of corosync failed: ${errorNames[code] ?? `error ${code}`}`, {
    code: "corosync-failed",
    hint: "See whether corosync runs on this node: corosync-quorumtool -s; systemctl start corosync.",
  });
}

class Connection implements CorosyncConnection {
  readonly #options: CorosyncOptions;
  readonly #libraries: CorosyncLibraries;
  readonly #poller: Poller;
  readonly #registered: unknown[] = [];
  #cpg: unknown = null;
  #quorum: unknown = null;
  #cfg: unknown = null;
  /** How corosync is to end, of each question that is not answered yet. */
  #shutdownAsked: number[] = [];
  readonly #fds: number[] = [];
  #events: CorosyncEvent[] = [];
  #waiting: Uint8Array[] = [];
  #retry: NodeJS.Timeout | null = null;
  #closed = false;

  constructor(options: CorosyncOptions, libraries: CorosyncLibraries, shared: Poller) {
    this.#options = options;
    this.#libraries = libraries;
    this.#poller = shared;
  }

  async open(): Promise<void> {
    const { cpg, quorum, cfg } = this.#libraries;
    const handle = [0n];
    const type = [0];
    await this.#must("cpg_model_initialize(3)", cpg.initialize, handle, CPG_MODEL_V1, this.#cpgModel(), null);
    this.#cpg = handle[0];
    await this.#checkSelf();
    const quorumHandle = [0n];
    await this.#must("quorum_model_initialize(3)", quorum.initialize, quorumHandle, QUORUM_MODEL_V1, this.#quorumModel(), type, null);
    this.#quorum = quorumHandle[0];
    if (type[0] !== 1) throw refused("no quorum provider in corosync.conf", "Set quorum { provider: corosync_votequorum }.");
    await this.#checkVotes();
    await this.#must("quorum_trackstart(3)", quorum.track, this.#quorum, CS_TRACK_CURRENT_AND_CHANGES);
    const cfgHandle = [0n];
    await this.#must("corosync_cfg_initialize(3)", cfg.initialize, cfgHandle, this.#cfgCallbacks());
    this.#cfg = cfgHandle[0];
    await this.#must("corosync_cfg_trackstart(3)", cfg.track, this.#cfg, 0);
    await this.#join();
    for (const [fdGet, handleOf] of [
      [cpg.fdGet, this.#cpg],
      [quorum.fdGet, this.#quorum],
      [cfg.fdGet, this.#cfg],
    ] as const) {
      const fd = [-1];
      await this.#must("fd_get(3)", fdGet, handleOf, fd);
      this.#fds.push(fd[0] as number);
    }
    for (const fd of this.#fds) this.#poller.add(fd, () => this.#dispatch());
  }

  #call(call: NativeFunction, ...args: unknown[]): Promise<number> {
    if (this.#options.blocking === true) return Promise.resolve(call(...args));
    return new Promise((resolve, reject) =>
      call.async(...args, (error: Error | null, result: number) => (error === null ? resolve(result) : reject(error))),
    );
  }

  async #must(what: string, call: NativeFunction, ...args: unknown[]): Promise<void> {
    const result = await this.#call(call, ...args);
    if (result !== CS_OK) throw failed(what, result);
  }

  async #checkSelf(): Promise<void> {
    const local = [0];
    await this.#must("cpg_local_get(3)", this.#libraries.cpg.localGet, this.#cpg, local);
    const { nodeid } = this.#options;
    if (local[0] === nodeid) return;
    throw refused(
      `this node is ${nodeid} in cluster.yaml and ${local[0]} in corosync.conf`,
      "Give each node one nodeid in both: nodelist { node { nodeid: ... } }.",
    );
  }

  /** What votequorum decides must be a majority of what cluster.yaml says (hazard C8). */
  async #checkVotes(): Promise<void> {
    const { votequorum } = this.#libraries;
    const handle = [0n];
    await this.#must("votequorum_initialize(3)", votequorum.initialize, handle, null);
    try {
      const info = [{}];
      await this.#must("votequorum_getinfo(3)", votequorum.getInfo, handle[0], this.#options.nodeid, info);
      const { node_votes, highest_expected, flags } = info[0] as unknown as VotequorumInfo;
      const { nodes, nodeid } = this.#options;
      const votes = nodes.find((node) => node.nodeid === nodeid)?.votes ?? 0;
      const expected = nodes.reduce((sum, node) => sum + node.votes, 0);
      if (node_votes !== votes || highest_expected !== expected) {
        throw refused(
          `cluster.yaml gives this node ${votes} of ${expected} votes, and corosync.conf ${node_votes} of ${highest_expected}`,
          "Give each node the same votes in both: quorum_votes in corosync.conf's nodelist, votes in cluster.yaml.",
        );
      }
      const minority = MINORITY_FLAGS.find(([bit]) => (flags & bit) !== 0);
      if (minority !== undefined) {
        throw refused(
          `corosync.conf has ${minority[1]}, with which less than a majority is quorate: coverlay needs a majority here`,
          "Take the option out of corosync.conf's quorum section, or use engine: builtin, which has options of its own.",
        );
      }
    } finally {
      await this.#call(votequorum.finalize, handle[0]);
    }
  }

  async #join(): Promise<void> {
    const name = Buffer.from(this.#options.group);
    const group = { length: name.byteLength, value: [...name, ...new Uint8Array(128 - name.byteLength)] };
    for (let tries = 0; ; tries++) {
      const result = await this.#call(this.#libraries.cpg.join, this.#cpg, group);
      if (result === CS_OK) return;
      if ((result !== CS_ERR_TRY_AGAIN && result !== CS_ERR_EXIST) || tries >= joinRetries || this.#closed)
        throw failed("cpg_join(3)", result);
      await new Promise((resolve) => setTimeout(resolve, joinRetryMs));
    }
  }

  // ------------------------------------------------------------------------------------------------------- callbacks

  #register(callback: (...args: never[]) => void, type: string): unknown {
    const registered = this.#libraries.koffi.register(callback, type);
    this.#registered.push(registered);
    return registered;
  }

  /** Callbacks only note what they are given: the core is not called within one of the library. */
  #cpgModel(): object {
    const { koffi } = this.#libraries;
    const seats = (pointer: unknown, n: number | bigint): Seat[] => {
      const rows = Number(n) === 0 ? [] : (koffi.decode(pointer, "cpg_address", Number(n)) as Seat[]);
      return rows.map(({ nodeid, pid }) => ({ nodeid, pid }));
    };
    return {
      model: CPG_MODEL_V1,
      deliver: this.#register((_handle: never, _group: never, nodeid: number, pid: number, message: unknown, bytes: number | bigint) => {
        const data = Number(bytes) === 0 ? new Uint8Array(0) : new Uint8Array(koffi.view(message, Number(bytes))).slice();
        this.#events.push({ kind: "message", from: { nodeid, pid }, data });
      }, "cpg_deliver *"),
      confchg: this.#register((_handle: never, _group: never, members: unknown, n: number | bigint) => {
        this.#events.push({ kind: "seats", seats: seats(members, n) });
      }, "cpg_confchg *"),
      totem_confchg: this.#register((_handle: never, ring: { nodeid: number; seq: number | bigint }) => {
        this.#events.push({ kind: "ring", ring: ringOf(ring) });
      }, "cpg_totem_confchg *"),
      flags: CPG_DELIVER_INITIAL_TOTEM_CONF,
    };
  }

  #quorumModel(): object {
    return {
      model: QUORUM_MODEL_V1,
      notify: this.#register((_handle: never, quorate: number, ring: { nodeid: number; seq: number | bigint }) => {
        this.#events.push({ kind: "quorum", ring: ringOf(ring), quorate: quorate !== 0 });
      }, "quorum_notify *"),
      nodelist: this.#register(() => undefined, "quorum_nodelist *"),
    };
  }

  #cfgCallbacks(): object {
    const asked = (_handle: never, how: number): void => void this.#shutdownAsked.push(how);
    return { shutdown: this.#register(asked, "cfg_shutdown *") };
  }

  #dispatch(): void {
    if (this.#closed) return;
    const { cpg, quorum, cfg } = this.#libraries;
    const reason =
      this.#drain("cpg_dispatch(3)", cpg.dispatch, this.#cpg) ??
      this.#drain("quorum_dispatch(3)", quorum.dispatch, this.#quorum) ??
      this.#drain("corosync_cfg_dispatch(3)", cfg.dispatch, this.#cfg) ??
      this.#answerShutdown();
    this.#tell(reason);
  }

  /** What corosync says of the answer is nothing to us: it may have been told enough by others. */
  #answerShutdown(): null {
    for (const how of this.#shutdownAsked.splice(0)) {
      const refusal = how === SHUTDOWN_REQUEST ? (this.#options.shutdown?.() ?? null) : null;
      this.#libraries.cfg.replyToShutdown(this.#cfg, refusal === null ? SHUTDOWN_YES : SHUTDOWN_NO);
    }
    return null;
  }

  /** null: all is well. */
  #drain(what: string, dispatch: NativeFunction, handle: unknown): string | null {
    for (let left = dispatchLimit; left > 0; left--) {
      const result = dispatch(handle, CS_DISPATCH_ONE_NONBLOCKING);
      if (result === CS_ERR_TRY_AGAIN) return null;
      if (result !== CS_OK) return failed(what, result).message;
    }
    return null;
  }

  #tell(lost: string | null): void {
    const events = this.#events;
    this.#events = [];
    for (const event of events) if (!this.#closed) this.#options.event(event);
    if (lost !== null) this.#lost(lost);
    if (!this.#closed) this.#options.dispatched();
  }

  #lost(reason: string): void {
    if (this.#closed) return;
    const { event, dispatched } = this.#options;
    this.close();
    event({ kind: "lost", reason });
    dispatched();
  }

  // --------------------------------------------------------------------------------------------------------- sending

  send(data: Uint8Array): void {
    if (this.#closed) return;
    this.#waiting.push(data);
    if (this.#retry !== null) return;
    this.#flush();
  }

  #flush(): void {
    let sent = 0;
    for (const data of this.#waiting) {
      const parts = [{ base: data, length: data.byteLength }];
      const result = this.#libraries.cpg.multicast(this.#cpg, CPG_TYPE_AGREED, parts, 1);
      if (result === CS_ERR_TRY_AGAIN) break;
      if (result !== CS_OK) return this.#fail(failed("cpg_mcast_joined(3)", result).message);
      sent++;
    }
    this.#waiting.splice(0, sent);
    if (this.#waiting.length > waitingLimit) return this.#fail(`corosync has not taken ${this.#waiting.length} messages`);
    if (this.#waiting.length === 0) return;
    this.#retry = setTimeout(() => {
      this.#retry = null;
      if (!this.#closed) this.#flush();
    }, retryMs);
  }

  /** Not within the step that sends. */
  #fail(reason: string): void {
    this.#waiting = [];
    setImmediate(() => this.#lost(reason));
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#retry !== null) clearTimeout(this.#retry);
    for (const fd of this.#fds) this.#poller.remove(fd);
    const { cpg, quorum, cfg, koffi } = this.#libraries;
    if (this.#cpg !== null) cpg.finalize(this.#cpg);
    if (this.#quorum !== null) quorum.finalize(this.#quorum);
    if (this.#cfg !== null) cfg.finalize(this.#cfg);
    for (const callback of this.#registered.splice(0)) koffi.unregister(callback);
  }
}

function ringOf({ nodeid, seq }: { nodeid: number; seq: number | bigint }): RingId {
  return { nodeid, seq: Number(seq) };
}

function refused(found: string, hint: string): OperatingError {
  return new OperatingError(`engine: corosync cannot be used: ${found}`, { code: "bad-corosync", hint });
}

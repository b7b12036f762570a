/**
 * What the shell around a node's core sees: everything that can happen to it (NodeEvent) and everything it asks for
 * (Effect). The core is pure: `node.step(event, nowMs)` returns effects, which the driver performs in order; it reads no
 * clock, opens nothing and draws no random number (ids come in with NodeBoot).
 *
 * Rules for the driver:
 * - effects of one step are performed in the order given; what a step sends to one client or one peer keeps its order;
 * - after every step it asks `nextDeadline()` again and steps with {kind: "tick"} when that time has come;
 * - `nowMs` never goes back and goes on while the machine sleeps (CLOCK_BOOTTIME); fractions are welcome;
 * - an AssertionError out of `step` means that the node does not know what it holds: take it out (exit), do not go on.
 */
import type { GoneClient, InspectRequest, LockStatus, ViewInfo } from "./client/api.ts";
import type { ClientIdentity } from "./lock/client.ts";
import type { Mode } from "./lock/mode.ts";
import type { GroupClientRequest, GroupEvent } from "./wire/local-group.ts";
import type { PlockClientRequest, PlockResult } from "./wire/local-plock.ts";
import type { Lineage, ViewId } from "./wire/view-id.ts";

export type { Lineage, ViewId } from "./wire/view-id.ts";
import type { CommandResult, EngineCommand, EngineEvent } from "./engine/engine.ts";
import type { BeatContent, HeardBeat } from "./membership/beater.ts";
import type { QuorumOptions } from "./membership/quorum.ts";
import type { KeptFences } from "./recovery/fence-gate.ts";
import type { Datagram, Heartbeat } from "./wire/datagram.ts";
import type { PeerMessage } from "./wire/peer.ts";

/** A node of the configuration. */
export interface NodeConfig {
  /** 1..65535 */
  readonly nodeid: number;
  readonly name: string;
  /** Shown only; the driver knows how to reach it. */
  readonly address: string;
  readonly votes: number;
}

/** Limits, each with what happens at it. Defaults: `defaultLimits` in node.ts. */
export interface NodeLimits {
  /** A client's lock beyond this ends with error ENOLCK. */
  readonly locksPerClient: number;
  /** Held ranges and waiting requests of one file: a lock beyond it ends with ENOLCK. An unlock may split beyond it. */
  readonly fileLocksPerFile: number;
  /** Held ranges and unanswered file-lock requests of one client: beyond, a lock, or an unlock that splits, ends with ENOLCK. */
  readonly fileLocksPerClient: number;
  /** Requests of one client that wait for recovery or quorum; beyond: `pause-client` until half of them are done. */
  readonly savedRequestsPerClient: number;
  /** Messages of one peer that wait for a newer view or the end of recovery; beyond: `pause-peer` until they are used. */
  readonly savedMessagesPerPeer: number;
  /** Resources and locks that a recovery rebuilds in one turn; the rest in the next, so that heartbeats and clients go on. */
  readonly rebuildStepsPerTurn: number;
  /** A lock of a transaction that has waited so long is looked at for a deadlock; a second by default. */
  readonly deadlockAfterMs: number;
  /** Conversions of other nodes' locks after which a master without own ones gives the resource to one of those nodes (lock/move.ts); 0: never. */
  readonly moveAfter: number;
}

/** What votes are counted by, and who may be heard. */
export interface NodeConfiguration {
  readonly version: number;
  /** All nodes of the configuration; at most 31. */
  readonly nodes: readonly NodeConfig[];
  /** How votes are counted beyond "more than half". */
  readonly quorum?: QuorumOptions;
  /** Nodes of the configuration before, while the change is not decided: their votes must be enough as well (hazard C8). */
  readonly former?: readonly NodeConfig[];
}

export interface NodeBoot {
  readonly nodeid: number;
  /** 16 lower-case hex digits, drawn at random at every start (and after `evicted`): never used before by this node. */
  readonly incarnation: string;
  readonly configVersion: number;
  /** All nodes of the configuration, this one included; at most 31. */
  readonly nodes: readonly NodeConfig[];
  /** Silence after which a node is suspected; 3000 by default, 1500 at least outside tests. Heartbeats: every tenth of it. */
  readonly timeoutMs: number;
  /** What `persist` stored last; 0 on a node that has never run. */
  readonly promisedEpoch: number;
  /** What `persist` stored last; not given on a node that has never run. */
  readonly lineage?: Lineage;
  /** A random 32-bit number, for back-off after colliding proposals (hazard H14). */
  readonly seed: number;
  /** The clock at the start: no ack that a former incarnation of this node gave was given later (hazard C4). */
  readonly nowMs: number;
  readonly limits?: Partial<NodeLimits>;
  /** Lockspaces in which nothing is granted after a death before a "fence-result"; none by default. */
  readonly fencedLockspaces?: readonly string[];
  /** What "keep-fences" stored last; not given on a node that has never run. */
  readonly fences?: KeptFences;
  /** False: an engine alone, whose nodes have no connections to each other; else members that have none for a time-out part. */
  readonly connections?: boolean;
  /** How votes are counted beyond "more than half". */
  readonly quorum?: QuorumOptions;
  /** As in NodeConfiguration. */
  readonly former?: readonly NodeConfig[];
}

export interface Node {
  step(event: NodeEvent, nowMs: number): Effect[];
  /** When to step with "tick" at the latest (same clock as nowMs); null: never (evicted, or left). */
  nextDeadline(): number | null;
  /** Plain JSON data, as `query` gives to clients. For the driver's own status page. */
  query(what: QueryWhat, nowMs: number): unknown;
}

export type QueryWhat = "status" | "nodes" | "locks";

// ---------------------------------------------------------------------------------------------------------- events

export type NodeEvent =
  /** The deadline came. Harmless at any other time. */
  | { readonly kind: "tick" }
  /** A datagram that was authentic and decoded (wire/datagram.ts `decodeDatagram`). */
  | { readonly kind: "datagram"; readonly message: Exclude<Datagram, Heartbeat> }
  /** A heartbeat that came, as membership/beater.ts `receive` gives it. */
  | { readonly kind: "heartbeat"; readonly beat: HeardBeat }
  /**
   * What this node's programs and the daemon itself (clientId 0) ask of the engine (engine/engine.ts). Answered by one "engine-results" in
   * the effects of the same step, result by result.
   */
  | { readonly kind: "engine-commands"; readonly commands: readonly EngineCommand[] }
  /**
   * The one TCP connection to that peer is up: both sides said who they are. The driver keeps at most one per pair (the lower nodeid
   * connects, the higher accepts), connects to every configured node, again and again. A new connection to the same
   * nodeid is preceded by "peer-down" of the former one.
   */
  | { readonly kind: "peer-up"; readonly nodeid: number; readonly incarnation: string }
  /** That connection ended; what was in flight on it may be lost. */
  | { readonly kind: "peer-down"; readonly nodeid: number; readonly incarnation: string }
  /** One frame from that peer (wire/peer.ts `decodeFrame`), in the order of the connection. */
  | {
      readonly kind: "peer-frame";
      readonly nodeid: number;
      readonly view: ViewId;
      readonly messages: readonly PeerMessage[];
    }
  /** A "persist" with that epoch is on stable storage (fsync returned). */
  | { readonly kind: "persisted"; readonly promisedEpoch: number }
  /** A "keep-fences" is on stable storage. */
  | { readonly kind: "fences-kept" }
  /** Another configuration counts from now on (config/change.ts); this node is in it. */
  | { readonly kind: "configuration"; readonly configuration: NodeConfiguration }
  /** A program connected to the local socket. clientId: 1..2^32-1, never used before in this incarnation. */
  | { readonly kind: "client-connected"; readonly clientId: number; readonly identity?: ClientIdentity }
  /** Requests of that client, in its order; as many as one read of the socket gave. */
  | { readonly kind: "client-requests"; readonly clientId: number; readonly requests: readonly ClientRequest[] }
  /** So much is sent to it and not read that it has to leave its groups; nothing else becomes of it. */
  | { readonly kind: "client-slow"; readonly clientId: number; readonly unreadBytes: number }
  /** Its socket closed. Its locks go when every client of the cluster has answered "gone" (hazard C7). */
  | { readonly kind: "client-gone"; readonly clientId: number }
  /**
   * A fence device, or a person (`by`), says that this incarnation of a node is dead for sure. `failingView`: the first quorate view without
   * it, as `status` shows it. A result for a member, or for another life or view, is refused in the log (hazards C11, M2).
   */
  | {
      readonly kind: "fence-result";
      readonly nodeid: number;
      readonly incarnation: string;
      readonly failingView: ViewId;
      readonly by: string;
    }
  /** Clean shutdown wanted: ends with effect "left" (within timeoutMs at most). Close the clients first. */
  | { readonly kind: "leave" };

/** What a client asks. Lock ids and lockspace ids are the client's, u32, unique while in use. */
export type ClientRequest =
  /** Answered by "opened". Locks may be asked for at once after it, without waiting. Name: 1..64 bytes of UTF-8. */
  | { readonly kind: "open"; readonly lockspaceId: number; readonly name: string }
  /** A new lock. Answered by exactly one "ast". resource: 1..64 bytes of UTF-8. */
  | {
      readonly kind: "lock";
      readonly lockspaceId: number;
      readonly lockId: number;
      readonly resource: string;
      readonly mode: Mode;
      /** Bits of LockFlag. */
      readonly flags: number;
      /** Ends with "timeout" after that time, as soon as lock service runs; 0 or not given: never. */
      readonly timeoutMs?: number;
      /** The client's number for what it does with several locks, u32; 0 or not given: takes no part in deadlock detection. */
      readonly transaction?: number;
      /** The core's own: set while the request waits for lock service. */
      readonly deadlineMs?: number;
    }
  /** A conversion of a granted lock. Answered by exactly one "ast". `lvb`: at most 256 bytes, null: none given. */
  | {
      readonly kind: "convert";
      readonly lockId: number;
      readonly mode: Mode;
      readonly flags: number;
      readonly lvb: Uint8Array | null;
      /** As in "lock"; a transaction that is not given stays as it was. */
      readonly timeoutMs?: number;
      readonly transaction?: number;
      readonly deadlineMs?: number;
    }
  /** Answered by exactly one "ast", "unlocked"; the lock id is free again after it. */
  | { readonly kind: "unlock"; readonly lockId: number; readonly flags: number; readonly lvb: Uint8Array | null }
  /** No answer of its own: the outstanding request ends with "canceled", or with what it got if that was faster. */
  | { readonly kind: "cancel"; readonly lockId: number }
  /**
   * Orphans of a dead process (0: of any) on that node go, of the client's own user; of any if it is root's. Answered by "purged". Lockspace:
   * one that the client has open.
   */
  | {
      readonly kind: "purge";
      readonly purgeId: number;
      readonly lockspaceId: number;
      readonly nodeid: number;
      readonly pid: number;
    }
  /** Answers "gone" with that goneId. */
  | { readonly kind: "gone-ack"; readonly goneId: number }
  /** From now on it answers blocking ASTs within that time, or hangs (hazard H13); 0: it need not answer. */
  | { readonly kind: "bast-limit"; readonly limitMs: number }
  /** Answered by "answer". */
  | { readonly kind: "query"; readonly queryId: number; readonly what: QueryWhat }
  /** Answered by "answer", within `inspectLimitMs`. */
  | ({ readonly kind: "inspect"; readonly queryId: number } & InspectRequest)
  /** File locks. */
  | PlockClientRequest
  /** Groups. */
  | GroupClientRequest;

// --------------------------------------------------------------------------------------------------------- effects

export type Effect =
  /** By multicast and/or unicast to every other configured node, to some of them, or by unicast to one. May be lost. */
  | { readonly kind: "datagram"; readonly to: number | "all" | readonly number[]; readonly message: Exclude<Datagram, Heartbeat> }
  /** For the beater (membership/beater.ts): what heartbeats say from now on; null: none go out any more. `now`: one is due at once. */
  | { readonly kind: "beat"; readonly content: BeatContent | null; readonly now: boolean }
  /** What the engine says, in order; to whom of this node is in the events. */
  | { readonly kind: "engine-events"; readonly events: readonly EngineEvent[] }
  | { readonly kind: "engine-results"; readonly results: readonly CommandResult[] }
  /**
   * One frame on the TCP connection to that peer; only between its "peer-up" and "peer-down". The driver may put the messages of
   * several such effects of the same view into one frame.
   */
  | {
      readonly kind: "peer-frame";
      readonly nodeid: number;
      readonly view: ViewId;
      readonly messages: readonly PeerMessage[];
    }
  /**
   * Store both and fsync, then "persisted", one for each and in order (hazard H4). A lower number never follows a higher one. The lineage is
   * the latest quorate view that this node has been in, in any of its lives: without it, members of that view who all restarted could
   * be joined by a node that they had left behind, with the locks that it had before.
   */
  | { readonly kind: "persist"; readonly promisedEpoch: number; readonly lineage: Lineage }
  /** Store and fsync, then "fences-kept", one for each and in order: a restart forgets neither who is waited for nor who is known to be dead. */
  | { readonly kind: "keep-fences"; readonly fences: KeptFences }
  /** To the "fence-result" of this step: "" it was taken, else why not. */
  | { readonly kind: "fence-answer"; readonly refused: string }
  /** To that client, in this order. */
  | { readonly kind: "client-events"; readonly clientId: number; readonly events: readonly ClientEvent[] }
  /** Stop / go on reading that client's socket. Never a reason to disconnect (hazard C6). */
  | { readonly kind: "pause-client" | "resume-client"; readonly clientId: number }
  /** That program hangs: end its process; then, when that has ended, "client-gone" (hazard H13). */
  | { readonly kind: "end-client"; readonly clientId: number; readonly reason: string }
  /** Stop / go on reading that peer's connection. */
  | { readonly kind: "pause-peer" | "resume-peer"; readonly nodeid: number }
  /** The view, or whether its lock service runs, changed. Clients are told by "view" events of their own. */
  | { readonly kind: "view"; readonly view: ViewInfo }
  /**
   * The cluster went on without this incarnation. Everything it held is void: close every client's connection (their locks are
   * gone), close the peers' connections, then createNode with a new incarnation, as after a restart.
   */
  | { readonly kind: "evicted"; readonly reason: string }
  /** "leave" is done: the others have a view without this node, or had the time for it. The node does nothing more. */
  | { readonly kind: "left" }
  | {
      readonly kind: "log";
      readonly level: "debug" | "info" | "warn" | "error";
      readonly message: string;
      readonly fields: Readonly<Record<string, unknown>>;
    };

/** What a client is told, in order. */
export type ClientEvent =
  /** error "": it is open. */
  | { readonly kind: "opened"; readonly lockspaceId: number; readonly error: string }
  | {
      readonly kind: "ast";
      readonly lockId: number;
      readonly status: LockStatus;
      /** The granted mode now; NL if nothing is held. After "unlocked", or if a first request was not granted, the lock id is free. */
      readonly mode: Mode;
      /** Bits: DEMOTED, ALTMODE (lock/flag.ts). */
      readonly sbFlags: number;
      /** The value block was read: `lvb` (null: never written) and `lvbValid` are new. Else leave both as they were. */
      readonly lvbRead: boolean;
      readonly lvb: Uint8Array | null;
      readonly lvbValid: boolean;
      /** With status "error". */
      readonly error: LockError | null;
    }
  /** May come for a mode that the client has just given up: skip it if the lock's mode is compatible with `wanted`. */
  | { readonly kind: "bast"; readonly lockId: number; readonly wanted: Mode }
  /** The first event after "client-connected", then at every change. */
  | { readonly kind: "view"; readonly view: ViewInfo }
  /** To be answered by "gone-ack" when those clients are no longer served (hazard C7). A client may be named again. */
  | { readonly kind: "gone"; readonly goneId: number; readonly clients: readonly GoneClient[] }
  | { readonly kind: "answer"; readonly queryId: number; readonly data: unknown }
  /** `locks` are being released. error "": nothing went wrong. */
  | { readonly kind: "purged"; readonly purgeId: number; readonly locks: number; readonly error: string }
  | PlockResult
  | GroupEvent;

export interface LockError {
  /** Positive. EBUSY: an operation is outstanding; EINVAL; ENOLCK: a limit; ENOENT: no such lock or lockspace; EEXIST: lock id in use. */
  readonly errno: number;
  readonly message: string;
}

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
import type { EngineBoot, NodeConfiguration } from "./engine/boot.ts";
import type { CorosyncEvent, CorosyncSelf } from "./engine/corosync/corosync-api.ts";
import type { BeatContent, HeardBeat } from "./membership/heartbeater.ts";
import type { LockLimits } from "./lock/lock-manager.ts";
import type { PlockLimits } from "./plock/master.ts";
import type { AgentResult } from "./fencing/fence-run.ts";
import type { KeptFencing } from "./fencing/fence-table.ts";
import type { KeptFences } from "./recovery/fence-gate.ts";
import type { Datagram, Heartbeat } from "./wire/datagram.ts";
import type { LifeSeen, ProcessLife } from "./wire/peer-life.ts";
import type { PeerMessage } from "./wire/peer.ts";
import type { ClientEvent, ClientIdentity, ClientRequest, QueryWhat, ViewInfo } from "./wire/program.ts";
import type { Counting, Lineage, ViewId } from "./wire/view-id.ts";

/** Limits, each with what happens at it. Defaults: `defaultLimits` in node.ts. */
export interface NodeLimits extends LockLimits, PlockLimits {
  /** Requests of one client that wait for recovery or quorum; beyond: `pause-client` until half of them are done. */
  readonly savedRequestsPerClient: number;
  /** Resources and locks that a recovery rebuilds in one turn; the rest in the next, so that heartbeats and clients go on. */
  readonly rebuildStepsPerTurn: number;
  /** Rows that searches for deadlocks of file locks look at in one turn; the rest in the next. */
  readonly searchStepsPerTurn: number;
  /** Messages of the last view that wait for the next one to run; beyond: lost, everything is named anew, blocks that were lost are not valid. */
  readonly lateMessages: number;
  /** A program that has not answered "gone" for so long is ended (clients/death-barrier.ts). */
  readonly goneLimitMs: number;
}

export interface NodeBoot extends EngineBoot {
  /** The engine is corosync's; not given: the builtin one. */
  readonly corosync?: CorosyncSelf;
  readonly limits?: Partial<NodeLimits>;
  /** The name of a process of this machine, "" if there is none: for people who ask about locks. Not given: none is named. */
  readonly programOf?: (pid: number) => string;
  /** Lockspaces in which nothing is granted after a death before a "fence-result"; none by default. */
  readonly fencedLockspaces?: readonly string[];
  /** What "keep-fences" stored last; not given on a node that has never run. */
  readonly fences?: KeptFences;
  /** What "keep-fencing" stored last; not given on a node that has never run. */
  readonly fencing?: KeptFencing;
  /** Of this machine; "" or not given: not known. */
  readonly bootId?: string;
  /** CLOCK_REALTIME in milliseconds when the clock is at `nowMs`: for times that people read. Not given: 0 there. */
  readonly wallMs?: number;
}

export interface Node {
  step(event: NodeEvent, nowMs: number): Effect[];
  /** When to step with "tick" at the latest (same clock as nowMs); null: never (evicted, or left). */
  nextDeadline(): number | null;
  /** Plain JSON data, as `query` gives to clients. For the driver's own status page. */
  query(what: QueryWhat, nowMs: number): unknown;
  /** Programs of this node that have a lockspace open, in words. */
  programsAtWork(): readonly string[];
  /** Engine.othersAreQuorate */
  readonly othersAreQuorate: boolean;
}

// ---------------------------------------------------------------------------------------------------------- events

export type NodeEvent =
  /** The deadline came. Harmless at any other time. */
  | { readonly kind: "tick" }
  /** A datagram that was authentic and decoded (wire/datagram.ts `decodeDatagram`). */
  | { readonly kind: "datagram"; readonly message: Exclude<Datagram, Heartbeat> }
  /** What corosync said, in its order; of that engine alone. */
  | { readonly kind: "corosync"; readonly event: CorosyncEvent }
  /** A heartbeat that came, as membership/heartbeater.ts `receive` gives it. */
  | { readonly kind: "heartbeat"; readonly beat: HeardBeat }
  /**
   * The beater was told the content with that many stops, which is stopped. Behind every "heartbeat" that it may have acknowledged until then
   * (hazard C4).
   */
  | { readonly kind: "acks-stopped"; readonly stops: number }
  /**
   * The one TCP connection to that peer is up: both sides said who they are. The driver keeps at most one per pair (the lower nodeid
   * connects, the higher accepts), connects to every configured node, again and again. A new connection to the same
   * nodeid is preceded by "peer-down" of the former one.
   */
  | { readonly kind: "peer-up"; readonly nodeid: number; readonly incarnation: string }
  /** A connection to or from that node's address came to nothing. For people: what it says was proved by nobody. */
  | { readonly kind: "peer-refused"; readonly nodeid: number; readonly reason: string }
  /**
   * That connection ended; what was in flight on it may be lost. `unreadable`: the peer, which is what it says it is, sent bytes that cannot
   * be read, and why not; null: it ended otherwise.
   */
  | { readonly kind: "peer-down"; readonly nodeid: number; readonly incarnation: string; readonly unreadable: string | null }
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
  /** An "end-client" was not carried out: its process waits in the kernel, as for a disk that hangs. All that it owes has its time anew. */
  | { readonly kind: "client-spared"; readonly clientId: number }
  /**
   * Its socket closed. Its locks go when every client of the cluster has answered "gone" (hazard C7), or are kept for an heir (hazard C12).
   * `endedHere`: the driver has closed it, and it is kept for nobody.
   */
  | { readonly kind: "client-gone"; readonly clientId: number; readonly endedHere?: boolean }
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
  /** A person wants that node fenced, member or not. */
  | { readonly kind: "fence-order"; readonly nodeid: number; readonly by: string }
  /** A person says that it is dead for sure, for whatever is asked of it (fencing/); beside "fence-result". */
  | { readonly kind: "fence-ack"; readonly nodeid: number; readonly by: string }
  /** The agent of a "run-fence" or "unfence" has ended. Nothing comes after "stop-fence". */
  | { readonly kind: "fence-ran"; readonly runId: number; readonly result: AgentResult }
  /** A "look-at-life" is done. */
  | { readonly kind: "life-seen"; readonly lookId: number; readonly seen: LifeSeen }
  /** Clean shutdown wanted: ends with effect "left" (within timeoutMs at most). Close the clients first. */
  /** A person says that the nodes that count and are not here are gone for good. `by`: who. */
  | { readonly kind: "count-all"; readonly by: string }
  /** No program is served any more, and this node is to leave; the effect "may-leave" says when. */
  | { readonly kind: "announce-leave" }
  | { readonly kind: "leave" };

// --------------------------------------------------------------------------------------------------------- effects

export type Effect =
  /** By multicast and/or unicast to every other configured node, to some of them, or by unicast to one. May be lost. */
  | { readonly kind: "datagram"; readonly to: number | "all" | readonly number[]; readonly message: Exclude<Datagram, Heartbeat> }
  /** To all dlmds over corosync, this one included, in order; of that engine alone. */
  | { readonly kind: "multicast"; readonly data: Uint8Array }
  /** For the beater (membership/heartbeater.ts): what heartbeats say from now on; null: none go out any more. `now`: one is due at once. */
  | { readonly kind: "beat"; readonly content: BeatContent | null; readonly now: boolean }
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
  /** Run the agent of that device against that node; ends in "fence-ran". */
  | { readonly kind: "run-fence"; readonly runId: number; readonly nodeid: number; readonly device: string }
  /** Give this node its path to that storage back; ends in "fence-ran". Not allowed: it was fenced in this boot. */
  | { readonly kind: "unfence"; readonly runId: number; readonly device: string; readonly isAllowed: boolean }
  /** No process of that agent may be left: kill it now. */
  | { readonly kind: "stop-fence"; readonly runId: number }
  /** Store it; nothing waits for that. */
  | { readonly kind: "keep-fencing"; readonly fencing: KeptFencing }
  /** To the "fence-result", "fence-ack" or "fence-order" of this step: "" it was taken, else why not. */
  | { readonly kind: "fence-answer"; readonly refused: string }
  /** To the "count-all" of this step: whether this node had stored that not all count. */
  | { readonly kind: "count-all-answer"; readonly isReset: boolean }
  /** To that client, in this order. */
  | { readonly kind: "client-events"; readonly clientId: number; readonly events: readonly ClientEvent[] }
  /** Stop / go on reading that client's socket. Never a reason to disconnect (hazard C6). */
  | { readonly kind: "pause-client" | "resume-client"; readonly clientId: number }
  /** That program hangs: end its process; then, when that has ended, "client-gone" (hazard H13). Or "client-spared". */
  | { readonly kind: "end-client"; readonly clientId: number; readonly reason: string }
  /** What does the kernel of this node say of that process and that device? Answered by one "life-seen" with that lookId. */
  | { readonly kind: "look-at-life"; readonly lookId: number; readonly wanted: Omit<ProcessLife, "nodeid"> }
  /** Stop / go on reading that peer's connection. */
  | { readonly kind: "pause-peer" | "resume-peer"; readonly nodeid: number }
  /** The view, or whether its lock service runs, changed. Clients are told by "view" events of their own. */
  | {
      readonly kind: "view";
      readonly view: ViewInfo;
      /** Who counts from it on; null: it is not quorate. */
      readonly counting: Counting | null;
    }
  /** No lease runs any more that was given by a configuration before that version, by which that view was counted (hazard C8). */
  | { readonly kind: "view-settled"; readonly viewId: string; readonly version: number }
  /**
   * The cluster went on without this incarnation. Everything it held is void: close every client's connection (their locks are
   * gone), close the peers' connections, then createNode with a new incarnation, as after a restart.
   */
  | { readonly kind: "evicted"; readonly reason: string }
  /** To "announce-leave": the others need its vote no more, or it has waited long enough. */
  | { readonly kind: "may-leave" }
  /** "leave" is done: the others have a view without this node, or had the time for it. The node does nothing more. */
  | { readonly kind: "left" }
  | {
      readonly kind: "log";
      readonly level: "debug" | "info" | "warn" | "error";
      readonly message: string;
      readonly fields: Readonly<Record<string, unknown>>;
    };

/**
 * What a group communication engine gives: views with quorum, and totally ordered multicast to named groups with virtual synchrony. The
 * guarantees are those of corosync's CPG in "agreed" order (cpg_overview(8)), so that libcpg and libvotequorum can be a second
 * implementation. test/compliance/engine.ts holds an implementation to what is said here.
 *
 * Commands go in and events come out, as data, in order. At one node:
 * - Messages of one sender arrive in the order in which it sent them, each once, its own included, at every member of the group.
 * - All members of a group see its messages, joins and leaves in one order.
 * - Nodes that go together from one quorate view into the next one have seen the same events between the two.
 * - A message is delivered in the view in which it is ordered, not before and not after. One that was not ordered before its view ended is
 *   ordered in the next one; nothing that was accepted gets lost while its node is not evicted.
 * - Without quorum nothing is delivered, and nobody leaves: "blocked" until the next quorate view.
 * "Agreed" is not "safe": a node that is then cut off may have seen the last messages alone. It is evicted when it comes back.
 */
import type { CommandResult, GroupMember, LeaveReason } from "../wire/group.ts";
import type { QuorumCount } from "../wire/quorum-count.ts";
import type { Member, ViewId } from "../wire/view-id.ts";
import type { NodeConfiguration } from "./boot.ts";

export type EngineCommand =
  | { readonly kind: "join"; readonly group: string; readonly clientId: number }
  | { readonly kind: "leave"; readonly group: string; readonly clientId: number; readonly reason: "left" | "client-died" }
  /** Only of a client that has joined; the join need not be delivered yet. */
  | { readonly kind: "multicast"; readonly group: string; readonly clientId: number; readonly data: Uint8Array };

export interface EngineView {
  readonly id: ViewId;
  /** Ascending by nodeid. */
  readonly members: readonly Member[];
  readonly quorum: QuorumCount;
  /** Nodeids of the members that saw the same events until this view; all others were in no quorate view in this life. Empty without quorum. */
  readonly together: readonly number[];
}

export type EngineEvent =
  | { readonly kind: "view"; readonly view: EngineView }
  /**
   * A later view is being agreed upon, or quorum is lost: nothing is ordered before the next quorate view. What is left of the last one comes
   * right before the event of that view.
   */
  | { readonly kind: "blocked" }
  /** To the clients `to` of this node: who is in the group now. */
  | {
      readonly kind: "members";
      readonly group: string;
      readonly to: readonly number[];
      readonly members: readonly GroupMember[];
      readonly joined: readonly GroupMember[];
      readonly left: readonly { readonly member: GroupMember; readonly reason: LeaveReason }[];
    }
  | {
      readonly kind: "message";
      readonly group: string;
      readonly to: readonly number[];
      readonly from: GroupMember;
      readonly data: Uint8Array;
    }
  /** A join came to nothing, because the cluster has as many memberships as it may have. */
  | { readonly kind: "join-refused"; readonly group: string; readonly clientId: number }
  /** After "full": commands are accepted again. */
  | { readonly kind: "room" };

/** A view as the node that serves locks in it sees it. */
export interface View {
  readonly id: ViewId;
  /** Ascending by nodeid. */
  readonly members: readonly Member[];
  readonly quorum: QuorumCount;
  readonly installedMs: number;
  /** No service before: until then nodes outside may serve under their leases (hazard C4). */
  readonly serveFromMs: number;
}

/** Another node of the configuration. Each of its lives is an incarnation. */
export interface EnginePeer {
  /** The life that was heard last; null: none was. */
  readonly incarnation: string | null;
  /** The life at the other end of the connection; null: there is none. */
  readonly link: string | null;
  /** The life that said that it leaves. */
  readonly left: string | null;
  /** The life that was told that it is evicted. */
  readonly evicted: string | null;
  /** Why a connection was refused last, in words. */
  readonly refused: { readonly reason: string; readonly atMs: number } | null;
  readonly lastHeardMs: number;
  readonly heartbeat: { readonly configVersion: number } | null;
}

/**
 * The life of that node that is there now, as far as is known: it is heard, or has a connection and was not heard yet. A connection is there before the
 * first heartbeat. null: none.
 */
export function livingIncarnation(
  { incarnation, link, heartbeat, lastHeardMs }: EnginePeer,
  nowMs: number,
  timeoutMs: number,
): string | null {
  const isNew = heartbeat === null && link === incarnation;
  return isNew || nowMs - lastHeardMs < timeoutMs ? incarnation : null;
}

/** What an engine tells its node beside datagrams and disk, within a step and in order. */
export interface EnginePort {
  event(event: EngineEvent): void;
  /** A later view was promised: all service stops now. */
  stop(): void;
  install(view: View): void;
  /** A quorate view went on without this life of the node. */
  evicted(reason: string): void;
  /** To `announceLeave`: the others do not need this node's vote, or it has waited long enough. */
  mayLeave(): void;
  /** `leave` is done. */
  left(): void;
  log(level: "debug" | "info" | "warn", message: string, fields: Readonly<Record<string, unknown>>): void;
  protest(nodeid: number, message: string): void;
}

/** How its ordered messages are, for people. */
export interface EngineFigures {
  readonly stopped: boolean;
  /** The node that orders; 0: corosync does. */
  readonly sequencerNodeid: number;
  readonly underWay: number;
  readonly window: number;
  readonly waiting: number;
  readonly full: boolean;
  readonly received: number;
  readonly delivered: number;
  readonly kept: number;
  /** Names of all groups. */
  readonly groups: readonly string[];
}

/** What recovery, the lease and the node take from an engine. Time is that of the step. */
export interface Engine {
  readonly peers: ReadonlyMap<number, EnginePeer>;
  /** Until when this node may serve in its view, by what a quorum of it acknowledged (hazard C4). */
  readonly leaseEndMs: number;
  readonly leaving: boolean;
  /** All that a restart must know of the present view is on disk. */
  readonly stable: boolean;
  /** Another view is asked for, because what members know of each other does not agree. Ends with the next view. */
  readonly broken: boolean;
  readonly quorum: { readonly quorate: boolean; readonly reason: string };
  /** Nodes whose votes count, while that changes those of before as well; null: those of all. */
  readonly counting: readonly number[] | null;
  /** The other members of the view are a quorum when this node has left, or there are none. */
  readonly othersAreQuorate: boolean;
  command(command: EngineCommand): CommandResult;
  /** Asks for such a view. */
  rebuildView(why: string): void;
  /** This life of that node is believed no more, and does not stay in a view with this one. False: that is so already. */
  distrust(nodeid: number): boolean;
  /** Those nodes, and no others, are not let into a view with this one, in whatever life; a member among them goes (hazard M2). */
  bar(nodeids: readonly number[]): void;
  /** All that went without a word are known to be dead, and the view goes on (hazard M2). */
  proved(): void;
  /** Whether lock service runs here: the others hear of it. */
  setServing(serving: boolean): void;
  /** A connection was made. False: not a configured node. */
  linkUp(nodeid: number, incarnation: string): boolean;
  /** False: it is not the one that there is. */
  linkDown(nodeid: number, incarnation: string): boolean;
  /** A connection came to nothing. */
  linkRefused(nodeid: number, reason: string): void;
  configure(configuration: NodeConfiguration): void;
  /** A person says that nodes that count and are away are gone for good. False: it is not for this engine to go on without them. */
  countAll(): boolean;
  /** This node is to leave: answered by `mayLeave`. */
  announceLeave(): void;
  leave(): void;
}

/** What the node that steps it calls beside that. What comes from outside, each engine has in its own way. */
export interface SteppedEngine extends Engine {
  readonly promisedEpoch: number;
  readonly figures: EngineFigures;
  /** Before anything else in a step. */
  begin(nowMs: number): void;
  /** After everything else in a step. */
  end(): void;
  tick(): void;
  nextDeadline(): number;
  /** A "persist" with that epoch is on disk. */
  persisted(promisedEpoch: number): void;
  /** As the event "acks-stopped" (node-api.ts). */
  acksStopped(stops: number): void;
  /** The present view, if no lease of a view before it runs, nor one by other votes (hazard C8); null: not so. */
  settledView(nowMs: number): View | null;
}

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
import type { QuorumCount } from "../wire/quorum-count.ts";
import type { Member, ViewId } from "../wire/view-id.ts";

/** Bytes of one message; libcpg carries 1,047,552. */
export const maxMessageBytes = 1_047_552;
export const maxGroupNameBytes = 64;

/** Who is in a group: a program of a node, in one of the node's lives. `clientId` 0 is the engine's host itself. */
export interface GroupMember extends Member {
  readonly clientId: number;
}

export type LeaveReason =
  /** It wanted to. */
  | "left"
  /** The program is gone, its node is not. */
  | "client-died"
  /** Its node is not in the view any more. */
  | "node-gone";

export type EngineCommand =
  | { readonly kind: "join"; readonly group: string; readonly clientId: number }
  | { readonly kind: "leave"; readonly group: string; readonly clientId: number; readonly reason: "left" | "client-died" }
  /** Only of a client that has joined; the join need not be delivered yet. */
  | { readonly kind: "multicast"; readonly group: string; readonly clientId: number; readonly data: Uint8Array };

/**
 * "full": more waits than may; the same command again after "room". "not-joined", "joined-already", "too-large" and "bad-name": the caller's
 * mistake. "limit": too many memberships of this node.
 */
export type CommandResult = "accepted" | "full" | "not-joined" | "joined-already" | "too-large" | "bad-name" | "limit";

export interface EngineView {
  readonly id: ViewId;
  /** Ascending by nodeid. */
  readonly members: readonly Member[];
  readonly quorum: QuorumCount;
  /** Nodeids of the members that saw the same events as this node until this view: all others are new to it. Empty without quorum. */
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

/** Groups of programs: who is in one, what comes of a command, and how much it may carry. */
import type { Member } from "./view-id.ts";

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

/**
 * "full": more waits than may; the same command again after "room". "not-joined", "joined-already", "too-large" and "bad-name": the caller's
 * mistake. "limit": too many memberships of this node.
 */
export type CommandResult = "accepted" | "full" | "not-joined" | "joined-already" | "too-large" | "bad-name" | "limit";

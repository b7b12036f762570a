/**
 * Ordered multicast to named groups of programs in the whole cluster, as `client.join` gives it (engine/engine.ts has the promises, those
 * of corosync's CPG). All members of a group see its messages, joins and leaves in one and the same order. A message that was accepted is
 * delivered, to its sender too, unless the sender's dlmd is evicted or killed before it was ordered.
 */

/** A program in a group: a connection to the dlmd of a node, in one of that node's lives. */
export interface GroupMember {
  readonly nodeid: number;
  readonly incarnation: string;
  readonly clientId: number;
}

export interface GroupMessage {
  readonly group: string;
  readonly from: GroupMember;
  /** Counted by the sender since it joined, from 1: its messages arrive without a gap. */
  readonly seq: number;
  readonly data: Uint8Array;
  /** It is this program's own. */
  readonly own: boolean;
}

export interface GroupChange {
  /** Who is in it now, in the order in which they joined. */
  readonly members: readonly GroupMember[];
  readonly joined: readonly GroupMember[];
  /** "left": it wanted to, or did not read; "client-died": its connection ended; "node-gone": its node is not in the view any more. */
  readonly left: readonly { readonly member: GroupMember; readonly reason: "left" | "client-died" | "node-gone" }[];
}

/** Called one by one, in the order of the group, `members` first; they must not throw. */
export interface GroupHandlers {
  readonly message: (message: GroupMessage, group: Group) => void;
  readonly members: (change: GroupChange, group: Group) => void;
  /** The membership ended and nobody here asked for it: `disconnected`, or too much was not read. What happens in the group is not heard. */
  readonly ended: (reason: Error) => void;
}

export interface Group {
  readonly name: string;
  readonly self: GroupMember;
  readonly members: readonly GroupMember[];
  /**
   * At most 1,047,544 bytes. Resolves when dlmd has it in its queue: awaited, it is the back-pressure, since dlmd takes no more than
   * the cluster orders. Rejects with code "full" if more than 16 MiB of this program's are not taken yet.
   */
  multicast(data: Uint8Array): Promise<void>;
  /** Resolves when it is ordered: the last `members` says "left". */
  leave(): Promise<void>;
}

/** What a node knows of a resource that is not at its home, or on the way (move.ts): most never are. */
import type { HolderMessage } from "../wire/peer-message.ts";
import type { Told } from "../wire/peer-move.ts";

interface Invited {
  /** Of the move-begin. */
  no: number;
  ready: boolean;
}

export interface Displaced {
  /** Master: it is leaving for that node; 0: it stays. */
  to: number;
  /** Anybody else: waits since that move-begin for "moved". */
  told: Told | null;
  /** What this node's clients have asked meanwhile, in order; LockTables counts it. */
  waiting: HolderMessage[];
  /** Whom this node, master or home, has sent a move-begin. */
  readonly invited: Map<number, Invited>;
  /** Whom others have, and who is ready. */
  readonly ready: Told[];
  /** Who may take this node for the master, because it has said so: with a lock or not. */
  readonly users: Set<number>;
}

export function newDisplaced(): Displaced {
  return { to: 0, told: null, waiting: [], invited: new Map(), ready: [], users: new Set() };
}

/** Nothing goes to its master, and nothing is granted, until it has arrived. */
export function isMoving(displaced: Displaced | undefined): boolean {
  return displaced !== undefined && (displaced.to !== 0 || displaced.told !== null);
}

/** How a node is fenced: its levels, as the configuration says (fence-config.ts). How an agent is run is the shell's (fence-agent/). */

export interface DevicePlan {
  readonly device: string;
  /** For people. */
  readonly agent: string;
  /** Before its first try: which of two nodes that fence each other is the first. */
  readonly delayMs: number;
  /** Further tries after the first. */
  readonly retries: number;
  /** After its success, for commands that are already in the disk array. */
  readonly settleMs: number;
}

/** A device whose action "on" gives a node its path to storage back. */
export interface UnfencePlan {
  readonly device: string;
  /** All that decides what "on" does there: equal for what means the same. */
  readonly means: string;
}

export interface FencePlan {
  /** For people. */
  readonly name: string;
  /** Tried in order. All devices of a level must succeed, one after the other. At least one level, of at least one device. */
  readonly levels: readonly (readonly DevicePlan[])[];
  /** Before the first level, by the priority of the node that is fenced. */
  readonly delayMs: number;
  readonly unfence: readonly UnfencePlan[];
}

/** By nodeid; a node that is not in it has no fence device. */
export type FencePlans = ReadonlyMap<number, FencePlan>;

export const noPlans: FencePlans = new Map();

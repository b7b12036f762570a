/** For what the calls of this node to the volume's owner wait, for the limit of answers (serve/answer-limit.ts, hazard H13) and for people. */

/** The call that waits the longest is spoken of from then on, while the owner has it. */
const SPOKEN_OF_MS = 2_000;

export interface OwnerWait {
  /** A number of its own for the call that has waited longest. */
  readonly id: number;
  readonly call: string;
  readonly waitedMs: number;
  /** Calls that wait. */
  readonly calls: number;
  /**
   * They wait for the owner alone: it has the call, or its host takes connections for it and it says nothing. False: it cannot be
   * reached, or does not take this node.
   */
  readonly inOwnersHands: boolean;
  /** Why there is no connection that calls go through; null: there is one. */
  readonly trouble: string | null;
  /** This node is the owner, and its disk has not answered. */
  readonly ofDisk?: true;
}

/**
 * For what a mount waits: a call to its own disk, if it is the owner, or else one to the owner. A mount that was remote until it became the
 * owner goes on through its own server: its calls are those of its remote lower, and the disk's guard counts none of them.
 */
export function waitOfMount(
  guard: { readonly ownWait: OwnerWait | null } | null,
  remote: { readonly ownerWait: OwnerWait | null } | null,
): OwnerWait | null {
  return guard?.ownWait ?? remote?.ownerWait ?? null;
}

/** In words; null: nothing that lasts. */
export function ownerWaitWords({ call, waitedMs, calls, trouble, ofDisk }: OwnerWait): string | null {
  if (trouble === null && waitedMs < SPOKEN_OF_MS) return null;
  const oldest = `${calls} ${calls === 1 ? "call waits" : "calls wait"}, a ${call} for ${(waitedMs / 1000).toFixed(1)} s`;
  if (ofDisk === true) return `the disk has not answered: ${oldest}`;
  return trouble === null ? `the owner has not answered: ${oldest}` : `no connection to the owner (${trouble}): ${oldest}`;
}

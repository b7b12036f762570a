/**
 * Mounting with -o wait, as at the start of a machine: what other nodes must do first is waited for, and said. So a cluster that lost its power
 * comes up in whatever order its nodes are started. The model is `retry=` of nfs(5), without its end. overlay/volume/README.md, "After a power failure of all".
 */
import { OperatingError } from "../../dlmd/base/error.ts";

/** Between two tries: other nodes take seconds to start. */
export const MOUNT_AGAIN_MS = 1000;

/** What passes when other nodes, or the lock manager of this one, have started, or are back. Everything else needs a person. */
const passing: ReadonlySet<string> = new Set([
  "no-quorum",
  "still-owned",
  "dlmd-not-running",
  "dlmd-not-answering",
  "dlmd-silent",
  // The lock manager ended while the mount came to be, or began a new life.
  "dlmd-lost",
  "disconnected",
  // This node was stopped, or cut off, and is out of the cluster for a while.
  "lease-lapsed",
  "owner-changed",
  // Another node did not answer, or this one was too slow.
  "mounter-silent",
  "group-ended",
]);

export interface MountWaitPort {
  /**
   * For people; once for each reason that is not the one before. That is its code and its hint, which names nodes: a message
   * may have a time that runs ("it is tried again in 55.2 s"), and would be another one at each try.
   */
  readonly tell: (why: string) => void;
  /** Milliseconds. */
  readonly sleep: (ms: number) => Promise<unknown>;
}

/** Tries until it succeeds, or fails for a reason that does not pass by itself: rejects with that then. */
export async function mountWaiting<T>(mount: () => Promise<T>, { tell, sleep }: MountWaitPort): Promise<T> {
  let told = "";
  for (;;) {
    try {
      return await mount();
    } catch (error) {
      if (!(error instanceof OperatingError) || !passing.has(error.code)) throw error;
      const reason = `${error.code}: ${error.hint}`;
      if (reason !== told) tell(`${error.message}\n  ${error.hint}`);
      told = reason;
    }
    await sleep(MOUNT_AGAIN_MS);
  }
}

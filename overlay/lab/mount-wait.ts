/**
 * A node that was cut off, or stood still, hears only when it is back that the others went on without it, and its mount ends then. So a mount that
 * is there when its node is started is believed when it serves. Until then it is waited for.
 */

/** A mount that is there for longer, and serves nothing, makes the start fail. */
export const SERVES_WAIT_MS = 60_000;
const LOOK_EVERY_MS = 100;

export interface MountWait {
  /** It is mounted, and a process has it: its overlay, or one that waits for another one to go on. */
  readonly isThere: () => boolean;
  /** The node's dlmd is in a view that serves, and the overlay's lease holds. */
  readonly serves: () => Promise<boolean>;
  readonly sleep: (ms: number) => Promise<unknown>;
  readonly nowMs: () => number;
}

/** "gone": there is none, or it has ended. "waits": it is there still, and does not serve. */
export async function waitForMount({ isThere, serves, sleep, nowMs }: MountWait): Promise<"serves" | "gone" | "waits"> {
  const endMs = nowMs() + SERVES_WAIT_MS;
  while (isThere()) {
    if (await serves()) return "serves";
    if (nowMs() >= endMs) return "waits";
    await sleep(LOOK_EVERY_MS);
  }
  return "gone";
}

/**
 * Scheduling priority of the daemons. A node whose daemon does not get the processor is silent, and a silent node is taken for dead: so dlmd
 * and the overlays run before ordinary programs (setpriority(2)). Threads made later inherit it.
 */
import { setPriority } from "node:os";
import type { Log } from "./log.ts";

/** `nice`: -20 (first) to 19. Without the privilege it stays as it is, with a line in the log. */
export function raisePriority(nice: number, log: Log): void {
  try {
    setPriority(nice);
  } catch (error) {
    log.info(
      { nice, error: (error as Error).message },
      "the priority could not be raised: on a busy machine this node may be taken for dead",
    );
  }
}

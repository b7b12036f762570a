/** The end of a mount that no longer knows what it holds (hazard F7): its kernel's caches are dropped, then its connection is aborted. If that cannot be done the process ends. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Log } from "../../dlmd/base/log.ts";

/** How long a failing node tries to drop its kernel's caches before it ends the connection. */
const ABANDON_LIMIT_MS = 1000;

/**
 * `dropCaches` may never end: a notification may wait for a page whose READ will never be answered. The abort comes all the same. `die` ends this process, and
 * its keeper lets go of the connection: without that it would be an owner that has no lease and gives nothing up, for which all nodes wait.
 */
export async function dropAndAbort(
  dropCaches: () => Promise<void> | undefined,
  abort: () => void,
  log: Log,
  die: () => void,
): Promise<void> {
  try {
    await Promise.race([dropCaches(), sleep(ABANDON_LIMIT_MS, undefined, { ref: false })]);
  } catch (error) {
    log.error({ error: String(error) }, "dropping the kernel's caches failed");
  }
  try {
    abort();
  } catch (error) {
    log.error({ error: String(error) }, "the connection could not be aborted: this process ends");
    die();
  }
}

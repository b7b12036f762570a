/**
 * Scheduling priority of the daemons. A node whose daemon does not get the processor is silent, and a silent node is taken for dead: so dlmd
 * and the overlays run before ordinary programs (setpriority(2)). Threads made later inherit it.
 */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { setPriority } from "node:os";
import { statFields } from "./proc-stat.ts";
import type { Log } from "./log.ts";

/** `nice`: -20 (first) to 19. Without the privilege it stays as it is, with a line in the log. */
export function raisePriority(nice: number, log: Log): void {
  try {
    // Threads that were there before too: the collector's work beside the main thread, which waits for them.
    for (const thread of readdirSync("/proc/self/task")) setPriority(Number(thread), nice);
  } catch (error) {
    log.info(
      { nice, error: (error as Error).message },
      "the priority could not be raised: on a busy machine this node may be taken for dead",
    );
    return;
  }
  raiseSession(nice, log);
}

/**
 * Where the kernel schedules by sessions (sched(7), "the autogroup feature"), a priority counts among the processes of one session only, and all
 * sessions get the same: the session's own must be raised as well. Only if it is this process's own.
 */
function raiseSession(nice: number, log: Log): void {
  let session: string | undefined;
  try {
    if (readFileSync("/proc/sys/kernel/sched_autogroup_enabled", "latin1").trim() !== "1") return;
    const stat = readFileSync("/proc/self/stat", "latin1");
    // State, parent, process group, session.
    session = statFields(stat)[3];
  } catch {
    // A kernel without the feature.
    return;
  }
  if (session !== String(process.pid)) {
    log.info({ session }, "this process shares its session with others, so its priority counts among them only: start it with setsid");
    return;
  }
  try {
    writeFileSync("/proc/self/autogroup", String(nice));
  } catch (error) {
    log.info({ nice, error: (error as Error).message }, "the priority of the session could not be raised");
  }
}

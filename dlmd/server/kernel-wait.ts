/**
 * Whether a program that does not answer waits in the kernel, where no signal ends it: mostly for a disk that hangs (hazard H13). To kill it frees
 * nothing before the disk answers, and then it would answer itself. By proc(5); what cannot be seen proves nothing.
 */
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { statFields } from "../base/proc-stat.ts";

/** The thread must not have run for so long. A disk that is well answers sooner. */
export const KERNEL_WAIT_MS = 1000;

/**
 * A program of which nothing is heard is spared so often, and killed the next time: it may be a wait that a signal ends after all. For an overlay
 * that is half an hour at least.
 */
export const MAX_SPARED = 60;

/** Of a process's first thread, which is the one that answers. */
export interface ThreadSeen {
  readonly state: string;
  /** How often it was taken off a processor. */
  readonly switches: string;
  readonly wchan: string;
}

/** "over": it was held at the first look and has run since, so what it owes may be on its way. "none" also if it has ended. */
export type KernelWait = "held" | "over" | "none";

export async function kernelWaitOf(pid: number, look: (pid: number) => ThreadSeen | null = lookAt): Promise<KernelWait> {
  const before = look(pid);
  if (before === null || !isHeld(before)) return "none";
  await sleep(KERNEL_WAIT_MS);
  const after = look(pid);
  if (after === null) return "none";
  return isHeld(after) && after.switches === before.switches ? "held" : "over";
}

/**
 * Waits that look the same, and that a SIGKILL ends: for a FUSE server (fs/fuse/dev.c), which may be a mount that waits for itself, for NFS, for
 * a child of vfork. Not all have such a name, hence MAX_SPARED.
 */
const killable = /killable|vfork|fuse|request_wait_answer|nfs|rpc/;

/** "0" or nothing: it is not to be seen where it waits. */
function isHeld({ state, wchan }: ThreadSeen): boolean {
  return state === "D" && wchan !== "" && wchan !== "0" && !killable.test(wchan);
}

function lookAt(pid: number): ThreadSeen | null {
  try {
    const [state = ""] = statFields(readFileSync(`/proc/${pid}/stat`, "latin1"));
    const switches = /^voluntary_ctxt_switches:\s+(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"))?.[1];
    return switches === undefined ? null : { state, switches, wchan: readFileSync(`/proc/${pid}/wchan`, "latin1") };
  } catch {
    return null; // It has ended, or is not to be seen from here.
  }
}

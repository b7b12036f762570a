/**
 * The process before, after a crash (hazard F41). SIGKILL does not end a thread of it that waits for an answer to a request of its own mount: the keeper holds /dev/fuse, so
 * nothing ends that wait but the answer. Until all its threads have ended, a volume that it had mounted as the owner stays mounted. The last one unmounts it, which may take long.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { OperatingError } from "../../dlmd/base/error.ts";
import { startTimeOf } from "../../dlmd/base/process.ts";

/** An owner that was killed has let go of its disk within this time, or the mount ends. */
export const FORMER_END_MS = 20_000;
/** So long a thread of it may wait in FUSE. What it waits for, a program has asked of this mount, and nobody can answer it while there is no owner. */
export const FORMER_STUCK_MS = 3000;
const FORMER_LOOK_MS = 5;

export interface FormerProcess {
  readonly pid: number;
  /** proc(5), in ticks. */
  readonly startTime: string;
}

export function thisProcess(): FormerProcess {
  return { pid: process.pid, startTime: startTimeOf(process.pid) ?? "" };
}

/** That which has started this one. */
export function parentProcess(): FormerProcess {
  return { pid: process.ppid, startTime: startTimeOf(process.ppid) ?? "" };
}

/** Whether that is a thread of it, which can only be at its end. */
export function isThreadOf({ pid, startTime }: FormerProcess, tid: number): boolean {
  return startTimeOf(pid) === startTime && existsSync(`/proc/${pid}/task/${tid}`);
}

/** Throws OperatingError "crash-lost". `waitsInFuse`: a seam for tests. */
export async function hasEnded(former: FormerProcess, waitsInFuse: (pid: number) => boolean = hasThreadInFuse): Promise<void> {
  const { pid, startTime } = former;
  const begunMs = performance.now();
  for (; startTimeOf(pid) === startTime; await new Promise((resolve) => setTimeout(resolve, FORMER_LOOK_MS))) {
    const waitedMs = performance.now() - begunMs;
    if (waitedMs >= FORMER_END_MS) throw lost(pid, "it writes to the disk, or waits for it");
    if (waitedMs >= FORMER_STUCK_MS && waitsInFuse(pid)) throw lost(pid, "a thread of it waits for what a program has asked of this mount");
  }
}

function lost(pid: number, why: string): OperatingError {
  return new OperatingError(`process ${pid}, which was the owner and has crashed, does not end, and still has the volume mounted: ${why}`, {
    code: "crash-lost",
    hint: "umount -l, and mount again.",
  });
}

/** By the stacks of its threads, where the kernel shows them. */
function hasThreadInFuse(pid: number): boolean {
  try {
    return readdirSync(`/proc/${pid}/task`).some((tid) => readFileSync(`/proc/${pid}/task/${tid}/stack`, "latin1").includes("fuse_"));
  } catch {
    // It is ending, or nobody may see it.
    return false;
  }
}

/** Whether a process runs, as the kernel of this machine says (proc(5)). The one place where that is judged. */
import { readdirSync, readFileSync } from "node:fs";
import { statFields } from "./proc-stat.ts";

/** Start time of a process of which a thread runs, or null: it holds nothing any more. (One whose first thread has ended is a zombie.) */
export function startTimeOf(pid: number, proc = "/proc"): string | null {
  let stat: string;
  try {
    stat = readFileSync(`${proc}/${pid}/stat`, "latin1");
  } catch (error) {
    if (isGone(error)) return null;
    throw error;
  }
  const fields = statFields(stat);
  if ((fields[0] === "Z" || fields[0] === "X") && threadsOf(pid, proc) <= 1) return null;
  return fields[19] ?? null;
}

/** The process is dead, and others of its threads may live on, where no signal ends them: until what they wait for is there. False also if it is gone, or not to be seen. */
export function isFirstThreadDead(pid: number, proc = "/proc"): boolean {
  try {
    const [state] = statFields(readFileSync(`${proc}/${pid}/stat`, "latin1"));
    return state === "Z" || state === "X";
  } catch {
    return false;
  }
}

function threadsOf(pid: number, proc: string): number {
  try {
    return readdirSync(`${proc}/${pid}/task`).length;
  } catch (error) {
    if (isGone(error)) return 0;
    throw error;
  }
}

function isGone(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === "ENOENT" || code === "ESRCH";
}

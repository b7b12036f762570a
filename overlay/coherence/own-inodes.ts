/**
 * The inodes of our own mount as any program sees them: by system calls on a descriptor that is opened for each call, through the mount's path
 * and a file handle. Nothing is kept open, so nothing keeps the mount from being unmounted.
 *
 * Where the mount can not be reached by its path (lazily unmounted, moved, something mounted over it) every call gives an error.
 */
import { closeSync, openSync, readFileSync, readSync } from "node:fs";
import { statFields } from "../../dlmd/base/proc-stat.ts";
import type { Native } from "../native/index.ts";

export interface OwnInodes {
  /** The kernel's size of it, once it is from `atLeast` to `atMost`, or after so many milliseconds; negative errno. The kernel asks nothing. */
  look(fuseNodeid: number, atLeast: number, atMost: number, timeoutMs: number): Promise<number>;
  /** Has the kernel send a GETATTR, and resolves when that was answered and its reply taken: the kernel's size then, or a negative errno. */
  refresh(fuseNodeid: number): Promise<number>;
  /** Has the kernel take the inode's lock and send a REMOVEXATTR under it. */
  lock(fuseNodeid: number): Promise<number>;
  /** Does that request come from one of our own threads? */
  isOwnThread(tid: number): boolean;
  /** Does that thread, of any program, sleep where a signal would wake it, or has it ended? */
  isAsleep(tid: number): boolean;
  /** Is that thread, which waits for an answer, in read(2) or pread(2)? */
  isReading(tid: number): boolean;
}

/** `minor`: that of the mount's device (connectionNumber). */
export function createOwnInodes(native: Native, mountpoint: string, minor: number): OwnInodes {
  const path = Buffer.from(mountpoint);
  const { own } = native.pool;
  return {
    look: (fuseNodeid, atLeast, atMost, timeoutMs) => own.lookOwnSize(path, minor, fuseNodeid, atLeast, atMost, timeoutMs),
    refresh: (fuseNodeid) => own.refreshOwnSize(path, minor, fuseNodeid),
    lock: (fuseNodeid) => own.lockOwn(path, minor, fuseNodeid),
    isOwnThread: (tid) => native.ownsThread(tid),
    isAsleep,
    isReading,
  };
}

/** Of proc(5): stopped, traced, zombie, dead. */
const OUT_OF_SERVICE = "TtZXx";

/**
 * A thread that was just woken may still be marked as sleeping, but is not off the queue of its processor: only of one that is does the kernel tell
 * where it waits (kernel/sched/core.c, get_wchan).
 */
function isAsleep(tid: number): boolean {
  try {
    const [state = ""] = statFields(readFileSync(`/proc/${tid}/stat`, "latin1"));
    return OUT_OF_SERVICE.includes(state) || (state === "S" && readFileSync(`/proc/${tid}/wchan`, "latin1") !== "0");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // Ended; whatever else keeps it from being seen (EMFILE) proves nothing.
    return code === "ENOENT" || code === "ESRCH";
  }
}

/** Numbers of read and pread64, which in the 32-bit programs of the same machine are no lseek; elsewhere nobody is known to be reading. */
const READ_CALLS: Readonly<Record<string, readonly string[]>> = { x64: ["0", "17"], arm64: ["63", "67"] };
const readCalls = READ_CALLS[process.arch] ?? [];

const beginning = Buffer.alloc(16);

/** What a file begins with: for a reader's GETATTR, where readFileSync would take 20 us more. */
function beginningOf(path: string): string {
  const fd = openSync(path, "r");
  try {
    return beginning.toString("latin1", 0, readSync(fd, beginning, 0, beginning.length, 0));
  } finally {
    closeSync(fd);
  }
}

/** /proc/TID/syscall (proc(5)) begins with the number of the call. */
function isReading(tid: number): boolean {
  try {
    const call = beginningOf(`/proc/${tid}/syscall`);
    return readCalls.includes(call.slice(0, call.indexOf(" ")));
  } catch {
    // Gone, or not to be seen: then it is no reader, and its size is put right in another way.
    return false;
  }
}

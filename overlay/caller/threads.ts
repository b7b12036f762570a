/**
 * What is seen of a thread of any program, in /proc (proc(5)): a repair of the kernel's size by the thread that asks rests on it (size/caller-repair.ts).
 */
import { closeSync, openSync, readFileSync, readlinkSync, readSync, statSync } from "node:fs";
import { statFields } from "../../dlmd/base/proc-stat.ts";

export interface CallerThreads {
  /** Does that thread sleep where a signal would wake it, or has it ended? */
  isAsleep(tid: number): boolean;
  /** Has it ended? Then it is done with whatever it was told. */
  hasEnded(tid: number): boolean;
  /** Is that thread, which waits for an answer, in read(2) or pread(2)? */
  isReading(tid: number): boolean;
  /** Is that thread, which waits for an answer, in lseek(2)? */
  isSeeking(tid: number): boolean;
  /** Has it a processor, or waits for one? */
  isRunnable(tid: number): boolean;
  /** Does it sleep in the kernel until a page is unlocked? `tid` 0: nobody. */
  waitsForPage(tid: number): boolean;
}

export const callerThreads: CallerThreads = { isAsleep, hasEnded, isReading, isSeeking, isRunnable, waitsForPage };

/** Threads have other numbers in the /proc of another pid namespace: what is not there proves nothing then. */
let ownProc: boolean | null = null;

function isOwnProc(): boolean {
  try {
    ownProc ??= readlinkSync("/proc/self") === String(process.pid);
  } catch {
    ownProc = false;
  }
  return ownProc;
}

function hasEnded(tid: number): boolean {
  return isOwnProc() && statSync(`/proc/${tid}`, { throwIfNoEntry: false }) === undefined;
}

function isAsleep(tid: number): boolean {
  try {
    return sleeps(readFileSync(`/proc/${tid}/stat`, "latin1"), () => readFileSync(`/proc/${tid}/wchan`, "latin1"));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // Ended; whatever else keeps it from being seen (EMFILE) proves nothing.
    return isOwnProc() && (code === "ENOENT" || code === "ESRCH");
  }
}

/** Stopped, traced, zombie, dead. */
const outOfService: ReadonlySet<string> = new Set("TtZXx");

/**
 * By /proc/TID/stat and /proc/TID/wchan. A thread that was just woken may still be marked as sleeping, but is not off the queue of its processor: only of
 * one that is does the kernel tell where it waits (kernel/sched/core.c, get_wchan). One that sleeps uninterruptibly may be waiting for a page in the very
 * truncation.
 */
export function sleeps(stat: string, wchan: () => string): boolean {
  const [state = ""] = statFields(stat);
  return outOfService.has(state) || (state === "S" && wchan() !== "0");
}

/** The kernel tells where a thread waits only of one that is off the queue of its processor (kernel/sched/core.c, get_wchan). */
function isRunnable(tid: number): boolean {
  return wchanOf(tid) === "0";
}

function waitsForPage(tid: number): boolean {
  return tid !== 0 && isPageWait(wchanOf(tid));
}

/** mm/filemap.c: folio_wait_bit_common, and what it was called before Linux 5.16. */
export function isPageWait(wchan: string): boolean {
  return /^(folio_wait_bit|wait_on_page_bit|__folio_lock|__lock_page)/.test(wchan);
}

/** "": none of ours, or it has ended. */
function wchanOf(tid: number): string {
  try {
    return readFileSync(`/proc/${tid}/wchan`, "latin1");
  } catch {
    return "";
  }
}

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

function isReading(tid: number): boolean {
  return isInCall(tid, isRead);
}

function isSeeking(tid: number): boolean {
  return isInCall(tid, isSeek);
}

function isInCall(tid: number, is: (syscall: string, arch: string) => boolean): boolean {
  try {
    return is(beginningOf(`/proc/${tid}/syscall`), process.arch);
  } catch {
    // Gone, or not to be seen: then it is neither, and its size is put right in another way.
    return false;
  }
}

/** Numbers of read and pread64, which in the 32-bit programs of the same machine are no lseek; elsewhere nobody is known to be reading. */
const READ_CALLS: Readonly<Record<string, readonly string[]>> = { x64: ["0", "17"], arm64: ["63", "67"] };

/** The number of lseek, which in the 32-bit programs of the same machine is creat or ustat: neither asks for attributes by a handle. */
const SEEK_CALLS: Readonly<Record<string, readonly string[]>> = { x64: ["8"], arm64: ["62"] };

/**
 * Numbers of rename, renameat and renameat2, those of the 32-bit programs of the same machine among them: no other call of the same number looks up a
 * name.
 */
const RENAME_CALLS: Readonly<Record<string, readonly string[]>> = {
  x64: ["82", "264", "316", "38", "302", "353"],
  arm64: ["38", "276", "329", "382"],
};

/** Is that thread, which waits for an answer, in rename(2)? null: that can not be told (another machine, io_uring, a thread that does not sleep yet). */
export function isRenaming(tid: number): boolean | null {
  try {
    return isRename(beginningOf(`/proc/${tid}/syscall`), process.arch);
  } catch {
    return null;
  }
}

/** By /proc/TID/syscall: a number, "running", or "-1" outside of any call. */
export function isRename(syscall: string, arch: string): boolean | null {
  const number = /^\d+(?= )/.exec(syscall)?.[0];
  const calls = RENAME_CALLS[arch];
  return number === undefined || calls === undefined ? null : calls.includes(number);
}

/** By /proc/TID/syscall, which begins with the number of the call. */
export function isRead(syscall: string, arch: string): boolean {
  return READ_CALLS[arch]?.includes(numberIn(syscall)) === true;
}

export function isSeek(syscall: string, arch: string): boolean {
  return SEEK_CALLS[arch]?.includes(numberIn(syscall)) === true;
}

function numberIn(syscall: string): string {
  return syscall.slice(0, syscall.indexOf(" "));
}

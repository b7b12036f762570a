/**
 * Which calls were answered ESTALE (hazard F12). The kernel then walks the path anew and asks again; a second ESTALE would reach
 * the program. So a call gets it once: the thread that comes back with the same operation on the same name is told the truth, under a
 * permission check of our own.
 *
 * The directory is no part of it: the second walk may end in another one, when a directory on the path was replaced meanwhile. A thread is in
 * one system call at a time, so the worst that a call left behind can do is that a later one is checked here instead of by the kernel.
 */
import { E, errnoError, isErrno } from "../../dlmd/base/errno.ts";
import { keepNewest } from "../../dlmd/base/keep-newest.ts";
import { andThen, withErrors, type MaybePromise } from "../../dlmd/base/maybe-promise.ts";
import type { Call } from "./call.ts";

/** Calls remembered. Beyond, the oldest is forgotten: it may get a second ESTALE. */
export const STALE_CALLS_MAX = 1024;

const NO_NAME = Buffer.alloc(0);

type Caller = Pick<Call, "op" | "pid">;

function callKey({ op, pid }: Caller, name: Buffer): string {
  return `${op} ${pid} ${name.toString("latin1")}`;
}

export class EstaleRetry {
  readonly #calls = new Set<string>();

  /** Calls that were answered ESTALE once, for another process of this mount. */
  all(): readonly string[] {
    return [...this.#calls];
  }

  restore(calls: readonly string[]): void {
    for (const call of calls) this.#calls.add(call);
  }

  /** The call went well after all. */
  settled(caller: Caller, name: Buffer): void {
    if (this.#calls.size > 0) this.#calls.delete(callKey(caller, name));
  }

  /** True: answer ESTALE, this call has not had it. False: it has; the next one of the same kind starts anew. */
  give(caller: Caller, name: Buffer): boolean {
    const call = callKey(caller, name);
    if (this.#calls.delete(call)) return false;
    this.#calls.add(call);
    keepNewest(this.#calls, STALE_CALLS_MAX);
    return true;
  }

  /** A request that the kernel sends again: it may have come after an ESTALE by the process before (hazard F38). So it gets none. */
  noteGiven(caller: Caller, name: Buffer = NO_NAME): void {
    this.#calls.add(callKey(caller, name));
    keepNewest(this.#calls, STALE_CALLS_MAX);
  }

  /**
   * What was `told` under that name has become another file. True: `call` was answered, the kernel may walk again once, and then checks that one. False:
   * look again here.
   */
  answer(call: Call, name: Buffer, told: boolean): boolean {
    if (!told || !this.give(call, name)) return false;
    call.error(E.ESTALE);
    return true;
  }

  /**
   * `work` on an inode that may be gone for good. ESTALE once, as above: the path may lead to another by now. Then ENOENT, to a caller that did not come
   * by a path that could: by its working directory, or an O_PATH descriptor.
   */
  onInode(call: Call, work: () => MaybePromise<void>): MaybePromise<void> {
    const gone = (error: unknown): never => {
      const again = isErrno(error, E.ESTALE) && !this.give(call, NO_NAME);
      throw again ? errnoError(E.ENOENT) : error;
    };
    return andThen(withErrors(work, gone), () => this.settled(call, NO_NAME));
  }
}

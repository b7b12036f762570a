/**
 * A repair of the kernel's size (threads.ts) by the thread that asks for the attributes, instead of one of our own: it is told the true size, and truncates its page cache
 * there before it goes on. That saves three switches of threads and a request, in the time in which a reader waits for what another node wrote.
 *
 * Only for who is expected to read next: his READ proves that the truncation is over. If it does not come, the thread has to be seen asleep: a truncation may wait
 * for a page, but not interruptibly. So that is in /proc/TID/stat and wchan (proc(5)), or that it has ended.
 *
 * And never for lseek(2), whose caller is given what the kernel has then: the reply may be older than its last change, and is dropped.
 */
import type { Cover } from "../cover.ts";

/** The next request of such a thread is late then: is it asleep? */
const HEARD_MS = 2;
/** After so many looks that showed it running no such repair is made of that file again. */
const BUSY_LOOKS_MAX = 3;
/** It is asked for again after twice as long each time, so often: 250 ms in all. Then the truncation is taken to be over, as other late replies are. */
const LOOKS_MAX = 7;

interface CallerRepair {
  readonly cover: Cover;
  readonly tid: number;
  readonly over: () => void;
  looks: number;
  timer: NodeJS.Timeout;
}

export class CallerRepairs {
  /** Threads that were neither heard of nor seen asleep in time. */
  unproved = 0;
  readonly #isAsleep: (tid: number) => boolean;
  readonly #running = new Map<number, CallerRepair>();
  readonly #busy = new WeakSet<Cover>();

  constructor(isAsleep: (tid: number) => boolean) {
    this.#isAsleep = isAsleep;
  }

  /** `tid`: 0 if it can not be seen from here. */
  mayBegin(cover: Cover, tid: number): boolean {
    return tid !== 0 && !this.#busy.has(cover) && !this.#running.has(tid);
  }

  /** To be called in the turn of the reply; `over` is called once. */
  begin(cover: Cover, tid: number, over: () => void): void {
    const repair: CallerRepair = { cover, tid, over, looks: 0, timer: setTimeout(() => this.#overdue(repair), HEARD_MS) };
    this.#running.set(tid, repair);
  }

  /** A request of that thread came. */
  heard(tid: number): void {
    const repair = this.#running.get(tid);
    if (repair !== undefined) this.#end(repair);
  }

  #overdue(repair: CallerRepair): void {
    repair.looks += 1;
    const asleep = this.#isAsleep(repair.tid);
    if (!asleep && repair.looks >= BUSY_LOOKS_MAX) this.#busy.add(repair.cover);
    if (asleep || repair.looks >= LOOKS_MAX) {
      if (!asleep) this.unproved += 1;
      this.#end(repair);
    } else repair.timer = setTimeout(() => this.#overdue(repair), HEARD_MS * 2 ** repair.looks);
  }

  #end(repair: CallerRepair): void {
    clearTimeout(repair.timer);
    this.#running.delete(repair.tid);
    repair.over();
  }
}

/**
 * INTERRUPT (hazard F11). The kernel sends one per request, for the first signal that its caller gets; whatever comes later,
 * SIGKILL too, is not told. So a first INTERRUPT starts a watch on the caller: once SIGKILL is pending there, the request is
 * given up. For any other signal the caller waits on, as it does for a local disk; but a wait for a file lock ends with any signal, as everywhere.
 * Source: fs/fuse/dev.c (request_wait_answer, queue_interrupt); kernel/signal.c (complete_signal: a deadly signal, not only SIGKILL
 * itself, puts SIGKILL into the private pending set of every thread, which is what /proc/TID/status shows as SigPnd).
 */
import { sigkillPending } from "../caller/status.ts";
import { Errno } from "../../dlmd/base/errno.ts";
import { keepNewest } from "../../dlmd/base/keep-newest.ts";
import { NumberMap } from "../../dlmd/base/number-map.ts";

/** INTERRUPTs for requests not seen yet. Beyond, the oldest is forgotten: its request then waits as if there had been none. */
export const EARLY_INTERRUPTS_MAX = 1024;
/** How often the callers under watch are looked at. */
export const WATCH_INTERVAL_MS = 100;

/** A request in flight, as far as this file is concerned. */
export interface Interruptible {
  readonly unique: number;
  /** The calling thread; 0: none, or not visible from here. */
  readonly pid: number;
  /** A signal came, deadly or not: ends a wait that any signal ends. Null: it has none. */
  readonly onSignal?: (() => void) | null;
  /** Answers EINTR at once and ends what the handler waits for. */
  interrupt(): void;
}

export interface InterruptPorts {
  /** /proc/PID/status; null: there is no such thread any more. Throws Errno: it cannot be seen now. */
  readonly readStatus: (pid: number) => string | null;
  /** Calls `tick` every `intervalMs` until the function it returned is called. */
  readonly every: (intervalMs: number, tick: () => void) => () => void;
}

export class Interrupts {
  readonly #ports: InterruptPorts;
  readonly #inFlight = new NumberMap<Interruptible>();
  readonly #early = new Set<number>();
  readonly #watched = new Set<Interruptible>();
  #stopWatch: (() => void) | null = null;

  constructor(ports: InterruptPorts) {
    this.#ports = ports;
  }

  get watching(): number {
    return this.#watched.size;
  }

  /** That request waits here. */
  has(unique: number): boolean {
    return this.#inFlight.has(unique);
  }

  /** The request waits for something. An INTERRUPT that came before it counts. */
  add(call: Interruptible): void {
    this.#inFlight.set(call.unique, call);
    if (this.#early.size > 0 && this.#early.delete(call.unique)) this.#watch(call);
  }

  /** It was answered. */
  remove(call: Interruptible): void {
    this.#inFlight.delete(call.unique);
    if (this.#watched.delete(call) && this.#watched.size === 0) this.#endWatch();
  }

  /** INTERRUPT came. Of a request that was answered meanwhile nothing is known: it is taken for early, which harms nobody. */
  receive(targetUnique: number): void {
    const call = this.#inFlight.get(targetUnique);
    if (call !== undefined) {
      this.#watch(call);
      return;
    }
    this.#early.add(targetUnique);
    keepNewest(this.#early, EARLY_INTERRUPTS_MAX);
  }

  /** The mount is gone, and with it every caller: whatever waits is given up. */
  stop(): void {
    this.#watched.clear();
    this.#endWatch();
    for (const call of this.#inFlight.values()) call.interrupt();
    this.#inFlight.clear();
  }

  #watch(call: Interruptible): void {
    call.onSignal?.();
    // That may have answered it.
    if (!this.#inFlight.has(call.unique)) return;
    if (call.pid === 0 || this.#look(call)) return;
    this.#watched.add(call);
    this.#stopWatch ??= this.#ports.every(WATCH_INTERVAL_MS, () => {
      for (const watched of this.#watched) this.#look(watched);
    });
  }

  /** True: it is being killed, and was told so. */
  #look(call: Interruptible): boolean {
    if (!this.#isKilled(call.pid)) return false;
    this.remove(call);
    call.interrupt();
    return true;
  }

  #isKilled(pid: number): boolean {
    try {
      const status = this.#ports.readStatus(pid);
      return status === null || sigkillPending(status);
    } catch (error) {
      // Any caller may be interrupted while no descriptor is left. The watch looks again.
      if (error instanceof Errno) return false;
      throw error;
    }
  }

  #endWatch(): void {
    this.#stopWatch?.();
    this.#stopWatch = null;
  }
}

/**
 * An owner that has no quorum lets go of its disk by itself, so that the others need no fence device: they read its block again each half second.
 * The lease (hazard C4) ended its service before; this ends its mount of the disk. README.md of ../volume, "Without a quorum", has the times.
 */
/** Of the lease's margin (a fifth of the cluster's time-out): so long after the end of its lease an owner lets go of the disk. */
export const SELF_FENCE_MARGINS = 5;
/** After that it is asked again, as long as it lasts: a mount that was under way may have ended meanwhile. */
export const SELF_FENCE_AGAIN_MS = 500;

/** Of the machine; the simulation has clocks that drift (test/sim/owner-disk). */
export interface SelfFenceTimers {
  /** Calls back once after that time, unless the answer is called before. */
  readonly after: (ms: number, run: () => void) => () => void;
}

const machineTimers: SelfFenceTimers = {
  after(ms, run) {
    const timer = setTimeout(run, ms);
    return () => clearTimeout(timer);
  },
};

export interface SelfFenceOptions {
  /** OpenLeasePage.marginMs */
  readonly marginMs: number;
  /** May be called again; nothing happens without a disk. */
  readonly letGo: (why: string) => void;
  readonly timers?: SelfFenceTimers;
}

export class SelfFence {
  readonly #options: SelfFenceOptions;
  readonly #timers: SelfFenceTimers;
  /** Ends the wait. */
  #timer: (() => void) | null = null;
  #follower: NodeJS.Timeout | null = null;

  constructor(options: SelfFenceOptions) {
    this.#options = options;
    this.#timers = options.timers ?? machineTimers;
  }

  /** The lease has ended. */
  lapsed(): void {
    this.#timer ??= this.#timers.after(SELF_FENCE_MARGINS * this.#options.marginMs, () => this.#reached());
  }

  /** The mount ends, and its lease says nothing more: the node's is asked from now on, until `end`. An owner without a quorum cannot leave. */
  follow(holds: () => boolean): void {
    this.#follower ??= setInterval(() => (holds() ? this.#disarm() : this.lapsed()), SELF_FENCE_AGAIN_MS);
  }

  /** The lease holds again, or the mount has ended. */
  end(): void {
    if (this.#follower !== null) clearInterval(this.#follower);
    this.#follower = null;
    this.#disarm();
  }

  #disarm(): void {
    this.#timer?.();
    this.#timer = null;
  }

  #reached(): void {
    const { marginMs, letGo } = this.#options;
    letGo(`without a quorum for more than ${((SELF_FENCE_MARGINS * marginMs) / 1000).toFixed(1)} s after its lease had ended`);
    this.#timer = this.#timers.after(SELF_FENCE_AGAIN_MS, () => this.#reached());
  }
}

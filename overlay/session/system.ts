/** The running system as the session needs it (it is given as an argument). */
import { readStatus } from "../caller/status.ts";

/** The system as far as the session needs it besides the addon: arguments, so that tests can play it. */
export interface SessionSystem {
  /** /proc/PID/status of a thread; null: none. */
  readonly readStatus: (pid: number) => string | null;
  readonly every: (intervalMs: number, tick: () => void) => () => void;
}

export const runningSystem: SessionSystem = {
  readStatus,
  every(intervalMs, tick) {
    const timer = setInterval(tick, intervalMs);
    return () => clearInterval(timer);
  },
};

/** The running system as the session needs it (it is given as an argument). */
import { type IdMaps, readIdMaps, readStatus } from "../caller/status.ts";

/** The system as far as the session needs it besides the addon: arguments, so that tests can play it. */
export interface SessionSystem {
  /** /proc/PID/status of a thread; null: none. Throws Errno: it cannot be seen now. */
  readonly readStatus: (pid: number) => string | null;
  /** Of such a thread: caller/status.ts. */
  readonly readIdMaps: (pid: number) => IdMaps | null | undefined;
  readonly every: (intervalMs: number, tick: () => void) => () => void;
}

export const runningSystem: SessionSystem = {
  readStatus: (pid) => readStatus(pid),
  readIdMaps,
  every(intervalMs, tick) {
    const timer = setInterval(tick, intervalMs);
    return () => clearInterval(timer);
  },
};

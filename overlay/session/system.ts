/** The running system as the session needs it (mount-session.ts takes it as an argument). */
import { readStatus } from "../caller/status.ts";
import type { SessionSystem } from "./mount-session.ts";

export const runningSystem: SessionSystem = {
  readStatus,
  every(intervalMs, tick) {
    const timer = setInterval(tick, intervalMs);
    return () => clearInterval(timer);
  },
};

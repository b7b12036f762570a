/** The running system as the session needs it (mount-session.ts takes it as an argument). */
import { readFileSync } from "node:fs";
import type { SessionSystem } from "./mount-session.ts";

export const runningSystem: SessionSystem = {
  readStatus(pid) {
    try {
      return readFileSync(`/proc/${pid}/status`, "latin1");
    } catch (error) {
      // ENOENT: gone; ESRCH: gone while it was read.
      const { code } = error as NodeJS.ErrnoException;
      if (code === "ENOENT" || code === "ESRCH") return null;
      throw error;
    }
  },
  every(intervalMs, tick) {
    const timer = setInterval(tick, intervalMs);
    return () => clearInterval(timer);
  },
};

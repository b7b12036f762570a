/**
 * CLOCK_BOOTTIME in milliseconds: never goes back, and goes on while the machine sleeps. Node has CLOCK_MONOTONIC only,
 * so the time slept is read from /proc/uptime (10 ms steps) now and then and added. It may be behind the kernel's, by some 60 ms, and is never
 * ahead of it: the source is read first, so what passes between the two readings makes it late. What is promised by this clock for others
 * who read the kernel's (driver/lease-file.ts) is over in time.
 */
import { readFileSync } from "node:fs";

const CHECK_EVERY_MS = 100;
/** Coarse steps of /proc/uptime and being descheduled between the two readings are no sleep. */
const LEAST_SLEEP_MS = 50;

function uptimeMs(): number {
  return Number.parseFloat(readFileSync("/proc/uptime", "latin1")) * 1000;
}

/** A clock of its own; call it to read it. */
export function createBootClock(monotonicMs: () => number = () => performance.now(), bootMs: () => number = uptimeMs): () => number {
  let offsetMs = bootMs() - monotonicMs();
  let checkedAt = monotonicMs();
  return () => {
    const now = monotonicMs();
    if (now - checkedAt >= CHECK_EVERY_MS) {
      checkedAt = now;
      const boot = bootMs();
      const offset = boot - monotonicMs();
      if (offset - offsetMs >= LEAST_SLEEP_MS) offsetMs = offset;
    }
    return now + offsetMs;
  };
}

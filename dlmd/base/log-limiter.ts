/**
 * A log for what strangers can cause: each message at most once in an interval, with the number of those left out. While a message goes on,
 * its interval doubles up to an hour, so that a log that nobody empties grows by a few lines an hour.
 */
import type { Log } from "./log.ts";

/** Messages kept track of; at it the oldest is forgotten, and may be logged again early. */
const MAX_KEYS = 256;
/** The longest interval between two lines of a message that goes on; at it the interval stays. */
export const MAX_LOG_INTERVAL_MS = 3_600_000;

/** `key`: from a small set that no stranger can enlarge. */
export type LimitedWarn = (key: string, fields: Readonly<Record<string, unknown>>, message: string) => void;

/** Warnings, or errors, with the same `key` are logged at most once in `intervalMs`, and less often while they go on. */
export function createLimitedWarn(log: Log, intervalMs: number, nowMs: () => number, level: "warn" | "error" = "warn"): LimitedWarn {
  const seen = new Map<string, { readonly at: number; readonly intervalMs: number; leftOut: number }>();
  return (key, fields, message) => {
    const now = nowMs();
    const last = seen.get(key);
    if (last !== undefined && now - last.at < last.intervalMs) {
      last.leftOut++;
      return;
    }
    const goesOn = last !== undefined && last.leftOut > 0;
    log[level](goesOn ? { ...fields, leftOut: last.leftOut } : fields, message);
    seen.delete(key);
    seen.set(key, { at: now, leftOut: 0, intervalMs: goesOn ? Math.min(2 * last.intervalMs, MAX_LOG_INTERVAL_MS) : intervalMs });
    if (seen.size > MAX_KEYS) seen.delete(seen.keys().next().value as string);
  };
}

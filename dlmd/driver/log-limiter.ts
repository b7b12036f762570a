/**
 * A log for what strangers can cause: each message at most once in an interval, with the number of those left out.
 */
import type { Log } from "../base/log.ts";

/** Messages kept track of; at it the oldest is forgotten, and may be logged again early. */
const MAX_KEYS = 256;

export type LimitedWarn = (key: string, fields: Readonly<Record<string, unknown>>, message: string) => void;

/** Warnings with the same `key` are logged at most once in `intervalMs`. */
export function createLimitedWarn(log: Log, intervalMs: number, nowMs: () => number): LimitedWarn {
  const seen = new Map<string, { at: number; leftOut: number }>();
  return (key, fields, message) => {
    const now = nowMs();
    const last = seen.get(key);
    if (last !== undefined && now - last.at < intervalMs) {
      last.leftOut++;
      return;
    }
    log.warn(last === undefined || last.leftOut === 0 ? fields : { ...fields, leftOut: last.leftOut }, message);
    seen.delete(key);
    seen.set(key, { at: now, leftOut: 0 });
    if (seen.size > MAX_KEYS) seen.delete(seen.keys().next().value as string);
  };
}

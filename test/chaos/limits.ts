/** The limits of a cycle: for how long an event is waited for, and how often a node is started again. Crossing one is a violation. */
import { setTimeout as sleep } from "node:timers/promises";

/**
 * So often a node is started again, each time with one more program. A node that was expelled may hear of it only after its fault is over, and
 * its mount dies then.
 */
export const STARTS = 3;
/** What takes longer will not come. */
export const EVENT_TIMEOUT_MS = 60_000;
const POLL_MS = 50;

export class Overdue extends Error {}

export interface Pace {
  readonly nowMs: () => number;
  readonly sleep: (ms: number) => Promise<unknown>;
}

const realPace: Pace = { nowMs: () => Date.now(), sleep };

/** `waiting`: what is waited for then, in words. */
export async function untilReached(what: string, reached: () => boolean, waiting: () => string, pace: Pace = realPace): Promise<void> {
  const end = pace.nowMs() + EVENT_TIMEOUT_MS;
  while (!reached()) {
    if (pace.nowMs() > end) throw new Overdue(`${what}: not within ${EVENT_TIMEOUT_MS / 1000} s\n${waiting()}`);
    await pace.sleep(POLL_MS);
  }
}

/** `attempt` gives null, or what is wrong after that start. Throws it after the last one. */
export async function withStarts(attempt: (start: number) => Promise<string | null>): Promise<void> {
  let problem: string | null = null;
  for (let start = 0; start < STARTS; start++) {
    problem = await attempt(start);
    if (problem === null) return;
  }
  throw new Overdue(problem ?? "");
}

/** Callers of whom nothing is to be seen in /proc. */
import type { CallerThreads } from "../../../overlay/caller/threads.ts";

export const idleThreads: CallerThreads = {
  isAsleep: () => false,
  hasEnded: () => false,
  isReading: () => false,
  isSeeking: () => false,
  isRunnable: () => false,
  waitsForPage: () => false,
};

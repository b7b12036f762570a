/**
 * Files of the project `unit` run one after the other in a process (vitest.config.ts), so each leaves it as it was. One that does not fails, and not the
 * next one.
 */
import { isDeepStrictEqual } from "node:util";
import { afterAll, vi } from "vitest";

const state = (): Readonly<Record<string, unknown>> => ({
  "the directory": process.cwd(),
  "the environment": { ...process.env },
  "the exit status": process.exitCode,
  "what listens to the process": process
    .eventNames()
    .map((name) => `${process.listenerCount(name)} of ${String(name)}`)
    .toSorted(),
  "the umask": process.umask(),
  "fake timers": vi.isFakeTimers(),
  "what performance has beside its class": Object.getOwnPropertyNames(performance),
  "what is global": { setTimeout, clearTimeout, setInterval, clearInterval, setImmediate, queueMicrotask, Date, fetch, console },
});

const before = state();
afterAll(() => {
  const after = state();
  const changed = Object.keys(before).filter((name) => !isDeepStrictEqual(before[name], after[name]));
  if (changed.length > 0) throw new Error(`this file leaves another state behind than it found: ${changed.join(", ")}`);
});

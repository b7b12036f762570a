/** A mount that waits, in a process: its timers, its words on standard error, and SIGINT or SIGTERM (mount(8): exit status 8). */
import { setImmediate as nextTurn, setTimeout as sleep } from "node:timers/promises";
import { OperatingError } from "../../dlmd/base/error.ts";
import { EXIT } from "../../dlmd/base/exit-status.ts";
import { REPEAT_LOG_MS, REPEAT_TERMINAL_MS, mountTimeout, mountWaiting } from "./mount-wait.ts";

/** A try is not ended before that, however little time is left: it may be the one that succeeds. */
export const MIN_TRY_MS = 10_000;

/** It is to end when `signal` aborts; `waiting` hears for what it waits. */
export type MountTry = (signal: AbortSignal, waiting: (why: string) => void) => Promise<void>;

/** `waitsFor`: what the try that is under way has said, or why the last one failed; null: it is the first, and has said nothing. */
function interrupted(signal: NodeJS.Signals, waitsFor: OperatingError | null): OperatingError {
  const what = `${signal}: interrupted before the mount was there`;
  return new OperatingError(waitsFor === null ? what : `${waitsFor.message}; ${what}`, {
    code: "interrupted",
    hint: "Nothing is left of it: mount again.",
    exitStatus: EXIT.INTERRUPTED,
  });
}

/**
 * Gives `mount` a signal that aborts when the time is up, or at SIGINT and SIGTERM; rejects with "mount-timeout" or "interrupted" then.
 * `tries`: one, or as many as there is time for.
 */
export async function mountInterruptibly(mount: MountTry, limitMs: number, tries: "one" | "many" = "many"): Promise<void> {
  const end = new AbortController();
  let waitsFor: OperatingError | null = null;
  const stop = (signal: NodeJS.Signals): void => end.abort(interrupted(signal, waitsFor));
  process.on("SIGINT", stop).on("SIGTERM", stop);
  const noAnswer = new OperatingError("the mount did not answer", {
    code: "mount-timeout",
    hint: "The log of dlmd says what it is doing.",
  });
  const waiting = (why: string): void => {
    waitsFor = new OperatingError(why, { code: "mount-timeout", hint: "The log of the mount, and that of dlmd, say more." });
  };
  const tryOnce = async (leftMs: number): Promise<void> => {
    const timer = Number.isFinite(leftMs)
      ? setTimeout(() => end.abort(mountTimeout(limitMs, waitsFor ?? noAnswer)), Math.max(leftMs, MIN_TRY_MS))
      : undefined;
    try {
      await mount(end.signal, waiting);
    } catch (error) {
      // A signal to the whole group ends the tool that was waited for, and is heard here in the next turn: the tool's end is not why it waits.
      await nextTurn();
      if (error instanceof OperatingError && !end.signal.aborted) waitsFor = error;
      throw end.signal.aborted ? end.signal.reason : error;
    } finally {
      clearTimeout(timer);
    }
  };
  const port = {
    tell: (why: string): void => void process.stderr.write(`coverlay: waiting: ${why}\n`),
    sleep: (ms: number): Promise<void> =>
      sleep(ms, undefined, { signal: end.signal }).catch(() => {
        throw end.signal.reason;
      }),
    nowMs: () => performance.now(),
    repeatMs: process.stderr.isTTY ? REPEAT_TERMINAL_MS : REPEAT_LOG_MS,
  };
  try {
    if (tries === "one") await tryOnce(limitMs);
    else await mountWaiting(tryOnce, port, limitMs);
  } finally {
    process.off("SIGINT", stop).off("SIGTERM", stop);
  }
}

/**
 * Mounting with -o wait, timeout= or retry=, as at the start of a machine: what other nodes must do first is waited for, and said. So a cluster
 * that lost its power comes up in whatever order its nodes are started. The model is `retry=` of nfs(5). overlay/volume/README.md, "After a power
 * failure of all".
 */
import { OperatingError } from "../../dlmd/base/error.ts";

/** Between two tries: other nodes take seconds to start. */
export const MOUNT_AGAIN_MS = 1000;

/** What passes when other nodes, or the lock manager of this one, have started, or are back. Everything else needs a person. */
const passing: ReadonlySet<string> = new Set([
  "no-quorum",
  "still-owned",
  "dlmd-not-running",
  "dlmd-not-answering",
  "dlmd-silent",
  // The lock manager ended while the mount came to be, or began a new life.
  "dlmd-lost",
  "disconnected",
  // This node was stopped, or cut off, and is out of the cluster for a while.
  "lease-lapsed",
  "owner-changed",
  // Another node did not answer, or this one was too slow.
  "mounter-silent",
  "group-ended",
]);

/** Why it waits is said again so often: to a person before a terminal, and to a log. */
export const REPEAT_TERMINAL_MS = 5_000;
export const REPEAT_LOG_MS = 60_000;

export interface MountWaitPort {
  /**
   * For people; once for each reason that is not the one before. That is its code and its hint, which names nodes: a message
   * may have a time that runs ("it is tried again in 55.2 s"), and would be another one at each try.
   */
  readonly tell: (why: string) => void;
  /** Milliseconds. */
  readonly sleep: (ms: number) => Promise<unknown>;
  readonly nowMs: () => number;
  /** A reason that lasts is said again after so long. */
  readonly repeatMs: number;
}

export function passes(error: unknown): error is OperatingError {
  return error instanceof OperatingError && passing.has(error.code);
}

/**
 * Tries until it succeeds, or fails for a reason that does not pass by itself: rejects with that then. After `limitMs` it rejects with
 * "mount-timeout". `mount` is given the time that is left.
 */
export async function mountWaiting<T>(mount: (leftMs: number) => Promise<T>, port: MountWaitPort, limitMs: number): Promise<T> {
  const { tell, sleep, nowMs, repeatMs } = port;
  const startMs = nowMs();
  let [told, toldMs] = ["", startMs];
  for (;;) {
    let why: OperatingError;
    try {
      return await mount(startMs + limitMs - nowMs());
    } catch (error) {
      if (!passes(error)) throw error;
      why = error;
    }
    const now = nowMs();
    const reason = `${why.code}: ${why.hint}`;
    if (reason !== told) tell(`${why.message}\n  ${why.hint}`);
    else if (now - toldMs >= repeatMs) tell(`${why.message} (${waitedWords(now - startMs, limitMs)})`);
    if (reason !== told || now - toldMs >= repeatMs) [told, toldMs] = [reason, now];
    const leftMs = startMs + limitMs - now;
    if (leftMs <= 0) throw mountTimeout(limitMs, why);
    await sleep(Math.min(MOUNT_AGAIN_MS, leftMs));
  }
}

function waitedWords(waitedMs: number, limitMs: number): string {
  const limit = Number.isFinite(limitMs) ? ` of ${Math.round(limitMs / 1000)} s` : "";
  return `for ${Math.round(waitedMs / 1000)} s${limit}`;
}

/** `why`: for what it waited in the end. */
export function mountTimeout(limitMs: number, why: OperatingError): OperatingError {
  return new OperatingError(`not mounted within ${limitMs / 1000} s: ${why.message}`, {
    code: "mount-timeout",
    hint: why.hint,
    cause: why,
    exitStatus: 32,
  });
}

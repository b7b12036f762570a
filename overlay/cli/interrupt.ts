/** A command that works for long, or waits for what goes on by itself: at Ctrl-C it ends with words that say so, and with a status of its own. */
import { EXIT } from "../../dlmd/base/exit-status.ts";
import { OperatingError } from "../../dlmd/base/error.ts";

/** `what`: what goes on, or was and was not done, and `hint`: where it is seen. */
export function interruptedError(what: string, hint: string): OperatingError {
  return new OperatingError(`interrupted: ${what}`, { code: "interrupted", hint, exitStatus: EXIT.INTERRUPTED });
}

/** `work` ends with the reason of its signal, which is `interrupted()`, at SIGINT and SIGTERM. */
export async function interruptibly<T>(interrupted: () => OperatingError, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const end = new AbortController();
  const stop = (): void => {
    if (!end.signal.aborted) end.abort(interrupted());
  };
  process.on("SIGINT", stop).on("SIGTERM", stop);
  try {
    return await work(end.signal);
  } finally {
    process.off("SIGINT", stop).off("SIGTERM", stop);
  }
}

/** Ends with the reason of the signal, whatever `promise` does: for a wait that changes nothing. main.ts does not wait for the rest of it. */
export function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const stop = (): void => reject(signal.reason as Error);
    signal.addEventListener("abort", stop, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", stop));
    if (signal.aborted) stop();
  });
}

/** A signal that came while this process computed, or ran a tool and waited for it, is heard then: the loop has been through its poll phase. */
export async function hearSignals(): Promise<void> {
  for (let turns = 0; turns < 2; turns++) await new Promise((resolve) => void setImmediate(resolve));
}

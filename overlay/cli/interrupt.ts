/** A command that waits for what goes on by itself: at Ctrl-C it ends with words that say so, and with a status of its own. */
import { EXIT } from "../../dlmd/base/exit-status.ts";
import { OperatingError } from "../../dlmd/base/error.ts";

/** `goesOn`: what does, and `hint`: where it is seen. */
export function interruptedError(goesOn: string, hint: string): OperatingError {
  return new OperatingError(`interrupted: ${goesOn}`, { code: "interrupted", hint, exitStatus: EXIT.INTERRUPTED });
}

/** `work` ends with the reason of its signal, which is `interrupted()`, at SIGINT and SIGTERM. */
export async function interruptibly<T>(interrupted: () => OperatingError, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const end = new AbortController();
  const stop = (): void => end.abort(interrupted());
  process.on("SIGINT", stop).on("SIGTERM", stop);
  try {
    return await work(end.signal);
  } finally {
    process.off("SIGINT", stop).off("SIGTERM", stop);
  }
}

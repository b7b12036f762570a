/** A child that tidies up when this process ends without having said "done", by whatever signal. */
import { type ChildProcess, spawn } from "node:child_process";

export interface Watchdog {
  /** What it would have tidied up is gone: it ends. */
  callOff(): Promise<void>;
}

/** `script`: of sh(1), with those words as $1, $2 ... */
export function startWatchdog(script: string, words: readonly string[]): Watchdog {
  const whole = `read -r word; [ "$word" = done ] && exit 0; ${script}`;
  const child: ChildProcess = spawn("sh", ["-c", whole, "watchdog", ...words], { detached: true, stdio: ["pipe", "ignore", "ignore"] });
  child.unref();
  return {
    callOff: () =>
      new Promise((resolve) => {
        // A process that waits for nothing else would end first, with status 13.
        child.ref();
        child.once("exit", () => resolve());
        child.stdin?.end("done\n");
      }),
  };
}

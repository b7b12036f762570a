/** A server that begins to listen, and whose errors end no process: without a listener an "error" event throws. */
import type { Server } from "node:net";
import type { Log } from "./log.ts";
import { createLimitedWarn } from "./log-limiter.ts";

/** The error of a connection that could not be taken is logged once in that time, and less often while it goes on. */
const LOG_INTERVAL_MS = 10_000;

/**
 * `listen` calls server.listen with what it is given. Rejects with the error that keeps it from listening. `failed` hears each later one:
 * EMFILE, say, of a connection that could not be taken. The next one may be taken again.
 */
export function startListening(server: Server, listen: (listening: () => void) => void, failed: (error: Error) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    let state: "beginning" | "listens" | "failed" = "beginning";
    // For ever: the second error needs it as the first did.
    server.on("error", (error) => {
      if (state === "listens") return failed(error);
      state = "failed";
      reject(error);
    });
    listen(() => {
      // Of a try after this one, which has its own.
      if (state === "failed") return;
      state = "listens";
      resolve();
    });
  });
}

/** For `failed`, with limits: who connects may cause a line each. `whose`: the connections that could not be taken. */
export function logNotTaken(log: Log, whose: string): (error: Error) => void {
  const warn = createLimitedWarn(log, LOG_INTERVAL_MS, () => performance.now(), "error");
  return (error) => warn(whose, { error: error.message }, `${whose} could not be taken`);
}

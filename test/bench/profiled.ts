/**
 * Loaded into each process of a lab that is measured by stages.ts (node --import): an overlay samples what it does, and writes that when it ends. A profile is as
 * the inspector gives it (Profiler.Profile of the Chrome DevTools protocol).
 */
import { writeFileSync } from "node:fs";
import { Session } from "node:inspector";
import path from "node:path";
import { isMainThread } from "node:worker_threads";

export const PROFILE_DIRECTORY = "COVERLAY_BENCH_PROFILES";
const INTERVAL_US = 200;

const directory = process.env[PROFILE_DIRECTORY];
if (directory !== undefined && isMainThread && process.argv[2] === "serve") {
  const session = new Session();
  session.connect();
  session.post("Profiler.enable");
  session.post("Profiler.setSamplingInterval", { interval: INTERVAL_US });
  session.post("Profiler.start");
  process.once("exit", () => {
    session.post("Profiler.stop", (error, result) => {
      const text = error === null ? JSON.stringify(result.profile) : JSON.stringify({ error: error.message });
      writeFileSync(path.join(directory, `${process.pid}.json`), text);
    });
  });
}

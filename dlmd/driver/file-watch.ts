/**
 * Watches the files that a person may change while dlmd runs: the keys and the configuration. Editors and `coverlay keygen` put a new
 * file in the place of the old one, so the folder is what is watched in truth.
 */
import path from "node:path";
import { watch } from "chokidar";
import type { Log } from "../base/log.ts";

/** Several changes within it are told once: editors write in steps. */
const SETTLE_MS = 100;

export interface FileWatch {
  close(): Promise<void>;
}

/** Calls `changed` when that file is there with other content or anew. Resolves when the watch is on. */
export async function watchFile(file: string, changed: () => void, log: Log): Promise<FileWatch> {
  let timer: NodeJS.Timeout | null = null;
  const wanted = path.resolve(file);
  const soon = (): void => {
    if (timer !== null) clearTimeout(timer);
    timer = setTimeout(changed, SETTLE_MS);
  };
  const watcher = watch(wanted, { ignoreInitial: true, atomic: false });
  watcher.on("add", soon);
  watcher.on("change", soon);
  // Without it SIGHUP and a restart still do what the watch would have done.
  watcher.on("error", (error) => log.error({ file: wanted, error: (error as Error).message }, "file is not watched"));
  await new Promise<void>((resolve) => watcher.once("ready", () => resolve()));
  return {
    async close() {
      if (timer !== null) clearTimeout(timer);
      await watcher.close();
    },
  };
}

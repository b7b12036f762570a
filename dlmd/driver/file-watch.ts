/**
 * Watches the files that a person may change while dlmd runs: the keys and the configuration. Editors and `coverlay keygen` put a new
 * file in the place of the old one, so the folder is what is watched in truth. On the way to it may be symbolic links, which have
 * folders of their own: `ln -s` and rename(2) put another link in the place of one, and touch nothing where the old one led.
 */
import { watch as watchFolder } from "node:fs";
import { readlink } from "node:fs/promises";
import path from "node:path";
import { isDeepStrictEqual } from "node:util";
import { watch } from "chokidar";
import type { Log } from "../base/log.ts";

/** Several changes within it are told once: editors write in steps. */
const SETTLE_MS = 100;
/** On one way: so many the kernel follows. */
const MAX_LINKS = 40;

export interface FileWatch {
  close(): Promise<void>;
}

/** Each symbolic link on the way to that file, in their order, and at the end the place to which they lead: what is there is not looked at. */
async function wayTo(file: string): Promise<string[]> {
  const stepsOf = (name: string): string[] => name.split(path.sep).filter((step) => step !== "");
  const links = new Set<string>();
  const steps = stepsOf(file);
  let at: string = path.sep;
  let followed = 0;
  while (steps.length > 0 && followed < MAX_LINKS) {
    const place = path.join(at, steps.shift() as string);
    // Also of what is not there, or may not be looked at: no link leads on from it.
    const target = await readlink(place).catch(() => null);
    if (target === null) {
      at = place;
    } else {
      links.add(place);
      followed++;
      if (path.isAbsolute(target)) at = path.sep;
      steps.unshift(...stepsOf(target));
    }
  }
  return [...links, at];
}

interface Watch {
  close(): unknown;
}

/** Calls `changed` when that file is there with other content or anew, or a link leads elsewhere. Resolves when the watch is on. */
export async function watchFile(file: string, changed: () => void, log: Log): Promise<FileWatch> {
  const wanted = path.resolve(file);
  let timer: NodeJS.Timeout | null = null;
  let isClosed = false;
  let way: readonly string[] = [];
  let watches: Watch[] = [];
  const soon = (): void => {
    if (timer !== null) clearTimeout(timer);
    if (!isClosed) timer = setTimeout(changed, SETTLE_MS);
  };
  // Without it SIGHUP and a restart still do what the watch would have done.
  const unwatched = (error: unknown): void => log.error({ file: wanted, error: (error as Error).message }, "file is not watched");

  const watchForLinks = (place: string): void => {
    try {
      const watcher = watchFolder(path.dirname(place), (_, name) => {
        if (name === null || name === path.basename(place)) following = following.then(follow);
      });
      watcher.on("error", unwatched);
      watches.push(watcher);
    } catch (error) {
      unwatched(error);
    }
  };
  const watchContent = async (place: string): Promise<void> => {
    const watcher = watch(place, { ignoreInitial: true, atomic: false });
    watcher.on("add", soon);
    watcher.on("change", soon);
    watcher.on("error", unwatched);
    watches.push(watcher);
    await new Promise<void>((resolve) => watcher.once("ready", () => resolve()));
  };
  const endWatches = async (): Promise<void> => {
    const former = watches.splice(0);
    await Promise.all(former.map((each) => each.close()));
  };
  /** Until the way is the one that is watched: a link may have changed before its folder was. */
  const follow = async (): Promise<void> => {
    for (;;) {
      const now = await wayTo(wanted);
      if (isClosed || isDeepStrictEqual(now, way)) return;
      const isFirst = way.length === 0;
      way = now;
      await endWatches();
      // The last one is no link now, and may become one.
      for (const place of now) watchForLinks(place);
      await watchContent(now.at(-1) as string);
      // Not before: what changes meanwhile is told by nothing else.
      if (!isFirst) soon();
    }
  };
  let following: Promise<void> = follow();
  await following;
  return {
    async close() {
      isClosed = true;
      if (timer !== null) clearTimeout(timer);
      await following;
      await endWatches();
    },
  };
}

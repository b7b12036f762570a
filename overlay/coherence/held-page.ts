/**
 * Dropping a page that a request may hold which waits for its answer until the page is dropped. A WRITE has the last page that it fills locked, if it filled only
 * a part of it and the page was not there (fs/fuse/file.c, fuse_fill_write_pages); then nobody has read it. If it was there, somebody may have read it
 * since as it was. Which of both it was only the notifying thread can tell: it waits for the page, or it does not.
 */
import { inTime } from "../lower/maybe.ts";
import type { CallerThreads } from "./caller-threads.ts";
import type { Dropping } from "./invalidation.ts";

/** How often it is looked at. */
const LOOK_MS = 1;
/**
 * Whoever was given the page by a READ before may hold it still, for as long as he was not given a processor since; one that seems never to be without a
 * processor is done with it.
 */
const RUNNING_LOOKS_MAX = 20;
/** In any case: whoever has the page may wait for the WRITE's caller, who has the inode's lock. */
const LOOKS_MAX = 250;

/**
 * True: it is dropped. False: it is held by the request itself. `readers`: threads that were given the page as it was before; 0: not known which.
 * `isWrittenBack`: so may be the page, and the thread waits for that: a store has made it dirty since it was read.
 */
export async function droppedOrHeld(
  { thread, dropped }: Dropping,
  readers: readonly number[],
  isWrittenBack: () => boolean,
  threads: CallerThreads,
): Promise<boolean> {
  let running = 0;
  for (let looks = 0; looks < LOOKS_MAX; looks += 1) {
    if (await inTime(dropped, LOOK_MS)) return true;
    if (!threads.waitsForPage(thread()) || isWrittenBack()) continue;
    if (!readers.some((tid) => threads.isRunnable(tid))) return false;
    running += 1;
    if (running === RUNNING_LOOKS_MAX) return false;
  }
  return false;
}

/**
 * Dropping a page that a request may hold which waits for its answer until the page is dropped. A WRITE has the last page that it fills locked, if it filled only
 * a part of it and the page was not there (fs/fuse/file.c, fuse_fill_write_pages); then nobody has read it. If it was there, somebody may have read it
 * since as it was. What the page has tells which (overlay/coherence/pages/README.md, "READs, WRITEs and mappings of the same pages");
 * what threads do is a guess where that is not known (hazard F9).
 */
import { inTime } from "../../../dlmd/base/maybe-promise.ts";
import type { CallerThreads } from "../../caller/threads.ts";
import type { PageUsers } from "../api.ts";
import type { Dropping } from "../kernel/revoke-round.ts";

/** How often it is looked at. */
const LOOK_MS = 1;
/**
 * Whoever was given the page by a READ before may hold it still, for as long as he was not given a processor since; one that seems never to be without a
 * processor is done with it.
 */
const RUNNING_LOOKS_MAX = 20;
/** In any case: whoever has the page may wait for the WRITE's caller, who has the inode's lock. */
const LOOKS_MAX = 250;
/** How long a wait for pages lasts before it is asked, again and again, whether what keeps them may last. */
const DROP_WAIT_MS = 250;

/**
 * True: it is dropped. False: it is held by the request itself, or has what that has written. `hasOther`: the page in the kernel has something else
 * there, so it is not the WRITE's own; null: that is not known, and then what the threads do must tell. `readers`: threads that were given the page as
 * it was before; 0: not known which. If anything is written back, so may be the page, and the thread waits for that: it was stored to since it was read.
 */
export async function droppedOrHeld(
  { thread, dropped }: Dropping,
  hasOther: Promise<boolean | null>,
  readers: readonly number[],
  users: PageUsers,
  threads: CallerThreads,
): Promise<boolean> {
  // Never answered where the connection has gone; but then nothing keeps the page.
  const other = await Promise.race([hasOther, dropped.then(() => null)]);
  if (other !== null) return other && (await isGone(dropped, users.mayLast));
  let running = 0;
  for (let looks = 0; looks < LOOKS_MAX; looks += 1) {
    if (await inTime(dropped, LOOK_MS)) return true;
    if (!threads.waitsForPage(thread()) || users.isWrittenBack()) continue;
    if (!readers.some((tid) => threads.isRunnable(tid))) return false;
    running += 1;
    if (running === RUNNING_LOOKS_MAX) return false;
  }
  return false;
}

/**
 * True: they are dropped. False: not yet, after a while, and something that does not end by itself may keep them: they need not be waited for. (The
 * page of a READ: it may wait for the WRITE's caller, who has the inode's lock. Any page, once that caller was killed: api.ts, PageUsers.)
 */
export async function isGone(dropped: Promise<unknown>, mayLast: () => boolean): Promise<boolean> {
  do {
    if (await inTime(dropped, DROP_WAIT_MS)) return true;
  } while (!mayLast());
  return false;
}

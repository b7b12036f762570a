/**
 * The kernel behind a transport that can not notify it (hazard F26), as the coherence layer sees it: it caches nothing, so there is never anything to be
 * dropped, and it believes no size of its own. Each notification is done as soon as it is asked for.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { E } from "../../../dlmd/base/errno.ts";
import type { Inode } from "../../coherence/cover.ts";
import type { KernelCaches } from "../../coherence/kernel/revoke-round.ts";
import type { OwnInodes } from "../../coherence/size/own-inodes.ts";
import type { Mount } from "../../op/mount.ts";

const done = (): Promise<number[]> => Promise.resolve([0]);

export const uncachedCaches: KernelCaches = {
  cachesNothing: true,
  invalidatePages: done,
  invalidateMany: (fuseNodeids) => ({
    write: () => Promise.resolve(0),
    begun: () => fuseNodeids.length,
    refused: () => [],
  }),
  invalidateRange: () => ({ thread: () => 0, results: done() }),
  retrieve: () => Promise.resolve(null),
  retrieved: () => undefined,
  raiseSize: done,
  invalidatePagesAndSize: () => ({ gate: { shut: () => true }, results: done() }),
  invalidateAttributes: done,
  invalidateAttributesNow: () => 0,
  expireNames: (_fuseNodeid, names) => Promise.resolve(names.map(() => 0)),
  close: () => Promise.resolve(),
  incrementEpoch: null,
};

/** Stands for the thread that would take an inode's lock in the kernel. */
const OWN_THREAD = -1;

/** Any size is the right one. `mount`: once there is one. */
export function uncachedInodes(mount: () => Mount | null): OwnInodes {
  return {
    look: (_inode, atLeast, atMost) => Promise.resolve(Number.isFinite(atMost) ? atMost : atLeast),
    refresh: () => Promise.resolve(0),
    lock: async ({ fuseNodeid }) => {
      // Who asks for it listens first.
      await nextTurn();
      const serving = mount();
      const inode: Inode | undefined = serving?.inodes.get(fuseNodeid);
      if (serving === null || inode === undefined) return -E.ENOENT;
      await serving.coherence.sizes.own.lock(inode, OWN_THREAD);
      return 0;
    },
    walk: () => Promise.resolve(-E.EOPNOTSUPP),
    isOwnThread: (tid) => tid === OWN_THREAD,
  };
}

/** Hazard F23: a change of which the program is told before the owner has made it. overlay/lower/README.md, "Written behind". Never past an orphan (hazard F50). */
import { Errno } from "../../dlmd/base/errno.ts";
import { promised } from "../../dlmd/base/maybe-promise.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import type { InodeRecord } from "../inode/table.ts";
import type { Call } from "./call.ts";
import { isAwaited } from "./orphans.ts";
import type { Mount } from "./mount.ts";

/**
 * The lower makes it before all that is asked of it from now on. The lock stays until then, so no other node sees less than the program was told. False: it is
 * not begun, and has to be waited for.
 */
export function behind(mount: Mount, call: Call, inode: InodeRecord, make: () => Promise<void>): boolean {
  const { coherence, inodes, writesBehind, log } = mount;
  // Nobody takes the answer: what the kernel has of it is dropped when it has been made (change.ts).
  if (call.interrupted || isAwaited(inode)) return false;
  // The lock is about to leave: what waits for that waits for the pins that are there.
  if (!coherence.tryPin(inode, Mode.EX)) return false;
  inodes.use(inode);
  const lost = async (error: unknown): Promise<void> => {
    if (!(error instanceof Errno)) throw error;
    log.warn({ ino: inode.id.ino, errno: error.code }, "what was not written is dropped from the kernel's cache");
    // What the kernel has for its size is no longer known (hazard F5).
    coherence.sizes.toldSentinel(inode);
    await coherence.dropKernelCaches([inode], true);
  };
  const over = (): void => {
    coherence.unpin(inode, Mode.EX);
    inodes.leave(inode);
  };
  writesBehind.add(promised(make).catch(lost).finally(over));
  return true;
}

/**
 * The end of a write that the kernel believes to be elsewhere than it is (write.ts): the pages at its true place are dropped, and then it is
 * answered, with no READ answered in between. The answer makes the kernel's size wrong, and a reader that had its page already, with
 * zeros behind the old end, would take them for data (coherence/size-doubt.ts). Where the kernel believes the end to be before the true one,
 * its size would be too small: so it is raised first.
 *
 * Dropping waits for pages that a READ under way holds locked. So if one was answered meanwhile it is done again, and from then on READs that
 * come are held back: a moment, longer each time, and never for as long as the notification may wait for them. Those under way are let out first.
 */
import type { AppendEnd, InodeRecord } from "../inode/table.ts";
import { inTime } from "../lower/maybe.ts";
import type { Mount } from "./mount.ts";

/** READs are held back so long in the second round, twice as long in each one after it ... */
const HOLD_MS = 1;
/** ... up to this. */
const HOLD_MAX_MS = 16;
/** Those that came before are waited for so long. */
const DRAIN_MS = 20;
/** Then the answer goes out, whatever was read meanwhile. */
const ROUNDS_MAX = 64;

export async function answerRelocated(
  mount: Mount,
  inode: InodeRecord,
  offset: number,
  written: Uint8Array,
  believedEnd: number,
  answer: () => void,
): Promise<void> {
  const bytes = written.length;
  let holdMs = 0;
  let release = (): void => {};
  const answered = new Promise<void>((resolve) => {
    release = resolve;
  });
  const end: AppendEnd = { heldBack: () => inTime(answered, holdMs) };
  try {
    for (let round = 0; round < ROUNDS_MAX; round += 1) {
      if (round > 0) await readsOver(inode);
      const { readsAnswered } = inode;
      await mount.coherence.dropPages(inode, offset, bytes);
      if (inode.readsAnswered === readsAnswered) break;
      holdMs = Math.min(HOLD_MS * 2 ** round, HOLD_MAX_MS);
      inode.appendEnd = end;
    }
    if (believedEnd < offset + bytes) await mount.coherence.raiseSize(inode, offset + bytes, written[bytes - 1] ?? 0);
    answer();
  } finally {
    if (inode.appendEnd === end) inode.appendEnd = null;
    release();
  }
}

/** Until the READs that were not held back are answered, for DRAIN_MS at most: they may be waiting themselves. */
async function readsOver(inode: InodeRecord): Promise<void> {
  if (inode.readsUnderWay === 0) return;
  const over = new Promise<void>((resolve) => {
    inode.onReadsOver = resolve;
  });
  await inTime(over, DRAIN_MS);
  inode.onReadsOver = null;
}

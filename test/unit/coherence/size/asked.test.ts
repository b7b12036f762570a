/** Hazard F5: a revoke waits for those who were told a size and believe the kernel's. */
import { describe, expect, it } from "vitest";
import { Cover } from "../../../../overlay/coherence/cover.ts";
import { CoherenceState } from "../../../../overlay/coherence/effect.ts";
import { mustSettle, noteAsker, noteNoAskers, noteTaken, TOLD_THREADS_MAX } from "../../../../overlay/coherence/size/asked.ts";
import { doubtSize } from "../../../../overlay/coherence/size/doubt.ts";

function doubted(): Cover {
  const cover = new Cover({ ino: 1, generation: 1 }, "file");
  doubtSize(cover);
  return cover;
}

describe("a revoke", () => {
  it("waits for every thread that was told a size it asked for, until its next request", () => {
    const state = new CoherenceState();
    const cover = doubted();
    noteAsker(state, cover, 5);
    noteAsker(state, cover, 6);
    expect(noteTaken(state, 4)).toBe(null);
    expect(noteTaken(state, 5)).toBe(null);
    expect(mustSettle(cover)).toBe(true);
    expect(noteTaken(state, 6)).toBe(cover);
    expect(mustSettle(cover)).toBe(false);
  });

  it("or until the inode's lock was free", () => {
    const cover = doubted();
    noteAsker(new CoherenceState(), cover, 5);
    noteNoAskers(cover);
    expect(mustSettle(cover)).toBe(false);
  });

  it("needs the lock's proof for threads that can not be seen, or were forgotten among many", () => {
    const state = new CoherenceState();
    const [hidden, forgotten] = [doubted(), doubted()];
    noteAsker(state, hidden, 0);
    expect(noteTaken(state, 0)).toBe(null);
    noteAsker(state, forgotten, 1);
    const others = doubted();
    for (let tid = 2; tid < 2 + TOLD_THREADS_MAX; tid += 1) noteAsker(state, others, tid);
    expect(noteTaken(state, 1)).toBe(null);
    expect([mustSettle(hidden), mustSettle(forgotten)]).toEqual([true, true]);
  });
});

/** What a revoke waits for of replies that tell or change a size (hazard F5). */
import { describe, expect, it, vi } from "vitest";
import { E } from "../../../../dlmd/base/errno.ts";
import { Mode } from "../../../../dlmd/wire/mode.ts";
import { mustBeTaken } from "../../../../overlay/coherence/size/doubt.ts";
import { bench, caller, ENDED, READER, soon, tell, WRITER } from "./size-lab.ts";

const { EAGAIN } = E;

describe("a revoke", () => {
  it.each([
    ["sets", Mode.NL],
    ["clears", Mode.NL],
    ["raises", Mode.PR],
    ["clears", Mode.PR],
  ] as const)("waits for a reply that %s the size or pages as long as the lease keeps it back", async (effect, target) => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    try {
      const { check, inode, kernel } = bench(60);
      kernel.locked = true;
      kernel.lapsed = true;
      kernel.noLook.push(-EAGAIN);
      check.replied(inode, WRITER, effect);
      let over = false;
      const waited = (target === Mode.NL ? check.revoke.settle(inode) : check.revoke.taken(inode)).then(() => (over = true));
      await vi.advanceTimersByTimeAsync(2000);
      expect([over, inode.cover.size?.late?.effect, check.counts.sizesUnknown]).toEqual([false, effect, 0]);
      kernel.lapsed = false;
      await vi.advanceTimersByTimeAsync(500);
      await waited;
      expect(check.counts.sizesUnknown).toBe(1);
    } finally {
      vi.useRealTimers();
    }
  });

  it("waits no longer where others ask for the size all the time: each takes it, and the late reply is not taken", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    try {
      const { check, inode, kernel } = bench(60);
      kernel.locked = true;
      check.replied(inode, WRITER, "sets");
      let over = false;
      const settled = check.revoke.settle(inode).then(() => (over = true));
      for (let reader = 41; reader < 53; reader += 1) {
        await vi.advanceTimersByTimeAsync(20);
        check.toldAsker(inode, reader);
        check.heard(reader);
      }
      await vi.advanceTimersByTimeAsync(9);
      expect(over).toBe(false);
      await vi.advanceTimersByTimeAsync(1);
      await settled;
      expect(check.counts.sizesUnknown).toBe(1);
    } finally {
      vi.useRealTimers();
    }
  });

  it("waits until pages were zeroed where a hole was made, whatever the size is", async () => {
    const { check, inode, kernel } = bench(100);
    kernel.locked = true;
    check.replied(inode, WRITER, "clears", 0);
    let over = false;
    const settled = check.revoke.settle(inode).then(() => (over = true));
    await soon();
    expect([over, check.revoke.unsettled(inode.cover)]).toEqual([false, true]);
    check.heard(WRITER);
    await settled;
    expect(check.revoke.unsettled(inode.cover)).toBe(false);
  });

  it.each([
    ["keeps the size", 0],
    ["makes it what the kernel has by now", 100],
  ])("to PR waits until pages were zeroed where a hole was made, though that %s: others see the hole by then", async (_, end) => {
    const { check, inode, file, done, kernel } = bench(100);
    check.toldSentinel(inode);
    await tell(check, inode, file, done);
    expect(check.known(inode)).toBe(true);
    kernel.locked = true;
    check.replied(inode, WRITER, "clears", end);
    expect([check.known(inode), mustBeTaken(inode.cover)]).toEqual([true, true]);
    let over = false;
    const taken = check.revoke.taken(inode).then(() => (over = true));
    for (let turns = 0; turns < 5; turns += 1) await soon();
    expect(over).toBe(false);
    check.heard(WRITER);
    await taken;
    expect([mustBeTaken(inode.cover), check.counts.sizesUnknown]).toEqual([false, 0]);
  });

  it("waits for who may be in lseek(2), and nobody is while a request has the inode's lock", async () => {
    const { check, inode } = bench(100);
    const write = { interrupted: false, answered: false };
    check.locked(inode, write);
    check.toldAsker(inode, 41);
    expect([check.mayBeSeek(inode), check.revoke.unsettled(inode.cover)]).toEqual([false, false]);
    write.answered = true;
    check.toldAsker(inode, 42);
    expect([check.mayBeSeek(inode), check.revoke.unsettled(inode.cover)]).toEqual([true, true]);
    const settled = check.revoke.settle(inode);
    check.heard(42);
    await settled;
    expect(check.revoke.unsettled(inode.cover)).toBe(false);
  });
});

describe("a lock that is lowered to PR", () => {
  it("waits until the kernel has the size of a write that was answered", async () => {
    const { check, inode, done, kernel } = bench(100);
    check.replied(inode, WRITER, "raises", 120);
    const taken = check.revoke.taken(inode).then(() => done.push("taken"));
    await soon();
    expect(done).toEqual([]);
    kernel.size = 120;
    await taken;
    expect(done).toEqual(["look 120", "taken"]);
  });

  it("waits for pages that are dropped or zeroed, whoever else takes a size that was told meanwhile", async () => {
    const { check, inode, kernel } = bench(100);
    kernel.locked = true;
    check.replied(inode, WRITER, "clears", 100);
    let over = false;
    const taken = check.revoke.taken(inode).then(() => (over = true));
    await soon();
    for (const reader of [41, 42]) {
      check.toldAsker(inode, reader);
      check.heard(reader);
      await soon();
      expect(over).toBe(false);
    }
    check.heard(WRITER);
    await taken;
    expect([mustBeTaken(inode.cover), check.counts.sizesUnknown]).toEqual([false, 0]);
  });

  it("waits until a truncation was taken", async () => {
    const { check, inode, done, kernel } = bench(100);
    kernel.locked = true;
    check.replied(inode, WRITER, "sets");
    const taken = check.revoke.taken(inode).then(() => done.push("taken"));
    await soon();
    expect(done).toEqual([]);
    check.heard(WRITER);
    await taken;
    expect(done).toEqual(["taken"]);
  });
});

describe("a thread that has ended", () => {
  it.each(["raises", "clears", "sets", "misplaced"] as const)("is not waited for, whatever it was answered (%s)", async (effect) => {
    const { check, inode, done, kernel } = bench(100);
    kernel.locked = true;
    check.replied(inode, ENDED, effect, 120);
    await check.revoke.taken(inode);
    check.replied(inode, ENDED, effect, 120);
    await check.revoke.settle(inode);
    expect(done).toEqual([]);
  });

  it("does not keep a reader from putting the size right himself", async () => {
    const { check, inode, file, done } = bench(1 << 30);
    check.replied(inode, ENDED, "raises", 100);
    check.toldSentinel(inode);
    await check.tell(
      inode,
      caller,
      () => ({ ...file }),
      ({ size }) => done.push(`told ${size}`),
      { tid: READER, reads: true },
    );
    expect([done, check.counts.callerRepairs]).toEqual([["told 100"], 1]);
  });
});

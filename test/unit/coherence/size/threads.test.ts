/** Repairs of the kernel's size, by a program's thread and by our own. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type Cover, type Inode, sizeOf } from "../../../../overlay/coherence/cover.ts";
import type { SizeCheck } from "../../../../overlay/coherence/size/check.ts";
import { ASLEEP, bench, caller, READER, soon, WRITER } from "./size-lab.ts";

describe("a repair by the thread that asks", () => {
  // What ends here ends by what was heard or seen: no timer runs by itself.
  beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] }));
  afterEach(() => void vi.useRealTimers());

  const tellReader = (check: SizeCheck, inode: Inode, file: { readonly size: number }, done: string[], reader: number): Promise<void> =>
    check.tell(
      inode,
      caller,
      () => ({ ...file }),
      ({ size }) => done.push(`told ${size}`),
      { tid: reader, reads: true },
    );

  it("answers at once, and what changes the size or gives the lock away waits until the thread is heard of", async () => {
    const { check, inode, file, done } = bench(1 << 30);
    check.toldSentinel(inode);
    await tellReader(check, inode, file, done, READER);
    expect([done, check.revoke.unsettled(inode.cover)]).toEqual([["told 100"], true]);
    const change = Promise.resolve(check.begin(inode, "plain", caller, () => ({ ...file }))).then(() => done.push("change"));
    const settled = check.revoke.settle(inode).then(() => done.push("settled"));
    await soon();
    expect(done).toEqual(["told 100"]);
    check.heard(WRITER);
    await soon();
    expect(done).toEqual(["told 100"]);
    check.heard(READER);
    await soon();
    expect([[...done].sort(), check.revoke.unsettled(inode.cover)]).toEqual([["change", "settled", "told 100"], false]);
    expect([check.counts.sizesUnknown, vi.getTimerCount()]).toEqual([0, 0]);
    await Promise.all([change, settled]);
  });

  it("proves nothing of the kernel's size: that is still in doubt", async () => {
    const { check, inode, file, done } = bench(1 << 30);
    check.toldSentinel(inode);
    await tellReader(check, inode, file, done, READER);
    check.heard(READER);
    await soon();
    expect(check.known(inode)).toBe(false);
    expect(await check.confirmEnd(inode, { end: 100, exact: true, mark: check.mark(inode) }, 0)).toBe(true);
    expect(done.slice(0, 3)).toEqual(["told 100", `look ${1 << 30}`, "repair to 100"]);
  });

  it("is over when the thread, not heard of, is seen asleep", async () => {
    const { check, inode, file, done } = bench(1 << 30);
    check.toldSentinel(inode);
    await tellReader(check, inode, file, done, ASLEEP);
    const settled = check.revoke.settle(inode);
    vi.advanceTimersToNextTimer();
    await settled;
    expect([check.revoke.unsettled(inode.cover), check.counts.sizesUnknown]).toEqual([false, 0]);
  });

  it("is taken to be over in the end, and counted, where the thread is neither heard of nor asleep; and there is no second one of that file", async () => {
    const { check, inode, file, done } = bench(1 << 30);
    check.toldSentinel(inode);
    await tellReader(check, inode, file, done, READER);
    const settled = check.revoke.settle(inode);
    vi.advanceTimersByTime(253);
    await soon();
    expect(check.revoke.unsettled(inode.cover)).toBe(true);
    vi.advanceTimersByTime(1);
    await settled;
    expect([check.revoke.unsettled(inode.cover), check.counts.sizesUnknown]).toEqual([false, 1]);
    await tellReader(check, inode, file, done, READER);
    expect(done.filter((what) => what.startsWith("repair to"))).toHaveLength(1);
  });

  it.each([
    ["in a revoke", (cover: Cover): unknown => (cover.phase = "draining")],
    [
      "with a writer here that has a page cache",
      (cover: Cover): unknown =>
        (cover.token = { state: "held", unregistered: false, users: 1, wanted: false, mapped: false, waiters: [] }),
    ],
    [
      "while a late reply may still change the size",
      (cover: Cover): unknown => (sizeOf(cover).late = { effect: "sets", tid: 0, end: 0, harms: false, seen: false }),
    ],
  ])("is not made %s", async (_when, make) => {
    const { check, inode, file, done } = bench(1 << 30);
    check.toldSentinel(inode);
    make(inode.cover);
    await tellReader(check, inode, file, done, READER);
    expect(done.some((what) => what.startsWith("repair to"))).toBe(true);
    expect(done.at(-1)).toBe("told 100");
  });
});

/** Hazard F5: no reply tells a size which the kernel does not have (size-doubt.ts). */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import { Mode } from "../../../dlmd/lock/mode.ts";
import { type Cover, createCover } from "../../../overlay/coherence/cover.ts";
import { createCoherenceState } from "../../../overlay/coherence/effect.ts";
import { SizeCheck } from "../../../overlay/coherence/size-check.ts";
import type { Inode } from "../../../overlay/inode/inode.ts";

const { EAGAIN, ESTALE } = E;
const OWN_THREAD = 77;
const WRITER = 5;
const ASLEEP = 6;
const READER = 8;
const ENDED = 9;
const caller = { interrupted: false, answered: false };

interface Kernel {
  size: number;
  truncating: (() => void) | null;
  drops: number;
  locked: boolean;
  /** The lease does not hold. */
  lapsed: boolean;
  /** What the next looks give instead of the size. */
  readonly noLook: number[];
}

/** A file, the kernel's size of it, and what was done to that; `file.size` is the true one. */
function bench(kernelSize: number): {
  readonly check: SizeCheck;
  readonly inode: Inode;
  readonly file: { size: number };
  readonly done: string[];
  readonly kernel: Kernel;
} {
  const file = { size: 100 };
  const done: string[] = [];
  const kernel: Kernel = { size: kernelSize, truncating: null, drops: 0, locked: false, lapsed: false, noLook: [] };
  const id = { ino: 4, generation: 1 };
  const inode: Inode = {
    fuseNodeid: 9,
    id,
    key: "4.1",
    kind: "file",
    nlookup: 1,
    openCount: 2,
    mappableCount: 0,
    cover: createCover(id, "4.1", "file"),
  };
  const check: SizeCheck = new SizeCheck(
    {
      look: async (_fuseNodeid, atLeast, atMost, timeoutMs) => {
        const refused = kernel.noLook.shift();
        if (refused !== undefined) return refused;
        if (timeoutMs > 0) while (kernel.size < atLeast || kernel.size > atMost) await soon();
        done.push(`look ${kernel.size}`);
        return kernel.size;
      },
      refresh: async () => {
        await Promise.resolve();
        if (check.ownGetattr(inode, OWN_THREAD) !== "now") return -11;
        await check.tellOwn(inode, () => {
          done.push(`repair to ${file.size}`);
          if (kernel.drops > 0) kernel.drops -= 1;
          else kernel.size = file.size;
          return Promise.resolve();
        });
        if (kernel.truncating !== null) await new Promise<void>((resolve) => (kernel.truncating = resolve));
        done.push("repaired");
        return kernel.size;
      },
      lock: async () => {
        await Promise.resolve();
        if (kernel.locked) return new Promise<number>(() => {});
        const over = check.ownLock(inode, OWN_THREAD);
        done.push("lock");
        await over;
        done.push("unlock");
        return -61;
      },
      isOwnThread: (tid) => tid === OWN_THREAD,
    },
    {
      isAsleep: (tid) => tid === ASLEEP,
      hasEnded: (tid) => tid === ENDED,
      isReading: () => true,
      isRunnable: () => false,
      waitsForPage: () => false,
    },
    createCoherenceState(),
    () => kernel.lapsed,
  );
  return { check, inode, file, done, kernel };
}

const soon = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

function tell(check: SizeCheck, inode: Inode, file: { readonly size: number }, done: string[]): Promise<void> {
  return check.tell(
    inode,
    caller,
    () => ({ ...file }),
    ({ size }) => done.push(`told ${size}`),
  );
}

describe("a reply with a size", () => {
  it("is held back in doubt until the kernel's size was put right and its truncation is over", async () => {
    const { check, inode, file, done, kernel } = bench(1 << 30);
    check.toldSentinel(inode);
    expect(check.known(inode)).toBe(false);
    kernel.truncating = (): void => {};
    const told = tell(check, inode, file, done);
    await soon();
    expect(done).toEqual(["repair to 100"]);
    kernel.truncating();
    await told;
    expect(done).toEqual(["repair to 100", "repaired", "told 100"]);
    expect(check.known(inode)).toBe(true);
  });

  it("is looked at again, and repaired again, where the kernel dropped the repair", async () => {
    const { check, inode, file, done, kernel } = bench(1 << 30);
    check.toldSentinel(inode);
    kernel.drops = 1;
    await tell(check, inode, file, done);
    expect(done).toEqual(["repair to 100", "repaired", `look ${1 << 30}`, "repair to 100", "repaired", "told 100"]);
  });

  it("beside another: who waited for the inode's lock together make one repair, and not one each", async () => {
    const { check, inode, file, done } = bench(1 << 30);
    inode.cover.token = { state: "held", unregistered: false, users: 1, wanted: false, mapped: false, waiters: [] };
    check.toldSentinel(inode);
    await Promise.all([tell(check, inode, file, done), tell(check, inode, file, done), tell(check, inode, file, done)]);
    expect(done.filter((what) => what.startsWith("repair to"))).toEqual(["repair to 100"]);
    expect(done.filter((what) => what.startsWith("told"))).toEqual(["told 100", "told 100", "told 100"]);
  });

  it("that waits answers the GETATTRs of our own threads, whichever they are: as a program's they would wait for what waits for them", async () => {
    const { check, inode, file, done, kernel } = bench(1 << 30);
    inode.cover.token = { state: "held", unregistered: false, users: 1, wanted: false, mapped: false, waiters: [] };
    check.toldSentinel(inode);
    kernel.locked = true;
    const told = tell(check, inode, file, done);
    await soon();
    expect(done).toEqual([]);
    expect(check.ownGetattr(inode, OWN_THREAD)).toBe("now");
    expect(check.ownGetattr(inode, READER)).toBe("no");
    await told;
    expect(check.ownGetattr(inode, OWN_THREAD)).toBe("late");
  });

  it("waits for a write that was answered to have raised it, and repairs nothing", async () => {
    const { check, inode, file, done, kernel } = bench(60);
    check.replied(inode, WRITER, "raises");
    const told = tell(check, inode, file, done);
    await soon();
    kernel.size = 100;
    await told;
    expect(done.filter((what) => what.startsWith("repair"))).toEqual([]);
    expect(done.at(-1)).toBe("told 100");
    // Seen once, it is known until the next change.
    expect(check.known(inode)).toBe(true);
    check.heard(WRITER);
    expect(check.known(inode)).toBe(true);
  });

  it("waits for a change under way, and the next change for it", async () => {
    const { check, inode, file, done } = bench(100);
    const read = (): { size: number } => ({ ...file });
    expect(check.begin(inode, "plain", caller, read)).toBeUndefined();
    expect(check.known(inode)).toBe(false);
    const told = check.tell(inode, caller, read, ({ size }) => done.push(`told ${size}`));
    const next = Promise.resolve(check.begin(inode, "plain", caller, read)).then(() => done.push("next change"));
    await soon();
    expect(done).toEqual([]);
    check.end(inode, "plain", true);
    await Promise.all([told, next]);
    expect(done).toEqual(["told 100", "next change"]);
  });

  it("of what the kernel does not know, or of no file, is told at once", () => {
    const { check, inode } = bench(100);
    check.toldSentinel(inode);
    expect(check.known({ ...inode, nlookup: 0 })).toBe(true);
    expect(check.known({ ...inode, kind: "directory" })).toBe(true);
  });
});

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
      reader,
    );

  it("answers at once, and what changes the size or gives the lock away waits until the thread is heard of", async () => {
    const { check, inode, file, done } = bench(1 << 30);
    check.toldSentinel(inode);
    await tellReader(check, inode, file, done, READER);
    expect([done, check.unsettled(inode.cover)]).toEqual([["told 100"], true]);
    const change = Promise.resolve(check.begin(inode, "plain", caller, () => ({ ...file }))).then(() => done.push("change"));
    const settled = check.settle(inode).then(() => done.push("settled"));
    await soon();
    expect(done).toEqual(["told 100"]);
    check.heard(WRITER);
    await soon();
    expect(done).toEqual(["told 100"]);
    check.heard(READER);
    await soon();
    expect([[...done].sort(), check.unsettled(inode.cover)]).toEqual([["change", "settled", "told 100"], false]);
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
    const settled = check.settle(inode);
    vi.advanceTimersToNextTimer();
    await settled;
    expect([check.unsettled(inode.cover), check.counts.sizesUnknown]).toEqual([false, 0]);
  });

  it("is taken to be over in the end, and counted, where the thread is neither heard of nor asleep; and there is no second one of that file", async () => {
    const { check, inode, file, done } = bench(1 << 30);
    check.toldSentinel(inode);
    await tellReader(check, inode, file, done, READER);
    const settled = check.settle(inode);
    vi.advanceTimersByTime(253);
    await soon();
    expect(check.unsettled(inode.cover)).toBe(true);
    vi.advanceTimersByTime(1);
    await settled;
    expect([check.unsettled(inode.cover), check.counts.sizesUnknown]).toEqual([false, 1]);
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
    ["while a late reply may still change the size", (cover: Cover): unknown => (cover.late = "sets")],
  ])("is not made %s", async (_when, make) => {
    const { check, inode, file, done } = bench(1 << 30);
    check.toldSentinel(inode);
    make(inode.cover);
    await tellReader(check, inode, file, done, READER);
    expect(done.some((what) => what.startsWith("repair to"))).toBe(true);
    expect(done.at(-1)).toBe("told 100");
  });
});

describe("a revoke", () => {
  it.each([
    ["sets", Mode.NL],
    ["raises", Mode.PR],
  ] as const)("waits for a reply that %s the size as long as the lease keeps it back", async (effect, target) => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    try {
      const { check, inode, kernel } = bench(60);
      kernel.locked = true;
      kernel.lapsed = true;
      kernel.noLook.push(-EAGAIN);
      check.replied(inode, WRITER, effect);
      let over = false;
      const waited = (target === Mode.NL ? check.settle(inode) : check.taken(inode)).then(() => (over = true));
      await vi.advanceTimersByTimeAsync(2000);
      expect([over, inode.cover.late, check.counts.sizesUnknown]).toEqual([false, effect, 0]);
      kernel.lapsed = false;
      await vi.advanceTimersByTimeAsync(500);
      await waited;
      expect(check.counts.sizesUnknown).toBe(1);
    } finally {
      vi.useRealTimers();
    }
  });

  it("waits for who may be in lseek(2), and nobody is while a request has the inode's lock", async () => {
    const { check, inode } = bench(100);
    const write = { interrupted: false, answered: false };
    check.locked(inode, write);
    check.toldAsker(inode, 41);
    expect([check.mayBeSeek(inode), check.unsettled(inode.cover)]).toEqual([false, false]);
    write.answered = true;
    check.toldAsker(inode, 42);
    expect([check.mayBeSeek(inode), check.unsettled(inode.cover)]).toEqual([true, true]);
    const settled = check.settle(inode);
    check.heard(42);
    await settled;
    expect(check.unsettled(inode.cover)).toBe(false);
  });
});

describe("a lock that is lowered to PR", () => {
  it("waits until the kernel has the size of a write that was answered", async () => {
    const { check, inode, done, kernel } = bench(100);
    check.replied(inode, WRITER, "raises", 120);
    const taken = check.taken(inode).then(() => done.push("taken"));
    await soon();
    expect(done).toEqual([]);
    kernel.size = 120;
    await taken;
    expect(done).toEqual(["look 120", "taken"]);
  });

  it("waits until a truncation was taken", async () => {
    const { check, inode, done, kernel } = bench(100);
    kernel.locked = true;
    check.replied(inode, WRITER, "sets");
    const taken = check.taken(inode).then(() => done.push("taken"));
    await soon();
    expect(done).toEqual([]);
    check.heard(WRITER);
    await taken;
    expect(done).toEqual(["taken"]);
  });
});

describe("a thread that has ended", () => {
  it.each(["raises", "sets", "misplaced"] as const)("is not waited for, whatever it was answered (%s)", async (effect) => {
    const { check, inode, done, kernel } = bench(100);
    kernel.locked = true;
    check.replied(inode, ENDED, effect, 120);
    await check.taken(inode);
    check.replied(inode, ENDED, effect, 120);
    await check.settle(inode);
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
      READER,
    );
    expect([done, check.counts.callerRepairs]).toEqual([["told 100"], 1]);
  });
});

describe("a READ that ends at the end of the file", () => {
  const end = { end: 100, exact: true, mark: 0 };

  it("gets EINTR in a revoke that a truncation waits for: nothing can put the size right before the page of the READ is there", async () => {
    const { check, inode, done } = bench(1 << 30);
    check.toldSentinel(inode);
    const stable = check.unstable(inode);
    const read = { ...end, mark: check.mark(inode) };
    inode.cover.phase = "draining";
    await expect(check.confirmEnd(inode, read, 2)).rejects.toMatchObject({ errno: 4 });
    expect(done).toEqual([`look ${1 << 30}`]);
    stable();
    expect(await check.confirmEnd(inode, read, 0)).toBe(true);
  });

  it("that a truncation has cut short waits until the kernel's size is no larger: before, its page would be zeros to the old end", async () => {
    const { check, inode, kernel, done } = bench(100);
    const answered: string[] = [];
    await check.begin(inode, "truncates", caller, () => ({ size: 100 }));
    // The owner has made it, and its answer is on its way.
    const read = { end: 10, exact: true, mark: check.mark(inode) };
    const first = Promise.resolve(check.confirmEnd(inode, read, 0)).then((right) => answered.push(`first ${right}`));
    await soon();
    check.made(inode, "truncates");
    check.replied(inode, WRITER, "sets", 10);
    check.end(inode, "truncates", true);
    const second = Promise.resolve(check.confirmEnd(inode, { ...read, mark: check.mark(inode) }, 1)).then((right) =>
      answered.push(`second ${right}`),
    );
    await soon();
    expect(answered).toEqual([]);
    kernel.size = 10;
    await Promise.all([first, second]);
    // The first has to read again: the file may have changed since.
    expect(answered.toSorted()).toEqual(["first false", "second true"]);
    expect(done.filter((what) => what.startsWith("repair"))).toEqual([]);
    // What was seen need not be looked at again.
    done.length = 0;
    expect(check.confirmEnd(inode, { ...read, mark: check.mark(inode) }, 0)).toBe(true);
    expect(done).toEqual([]);
  });

  it("that a truncation has cut short gets EINTR after a second, if that is not taken", async () => {
    const { check, inode, kernel } = bench(100);
    await check.begin(inode, "truncates", caller, () => ({ size: 100 }));
    check.made(inode, "truncates");
    kernel.noLook.push(100, 100);
    const read = { end: 10, exact: true, mark: check.mark(inode) };
    expect(await check.confirmEnd(inode, read, 49)).toBe(false);
    await expect(check.confirmEnd(inode, read, 50)).rejects.toMatchObject({ errno: 4 });
    check.end(inode, "truncates", true);
    expect(check.confirmEnd(inode, read, 0)).toBe(true);
  });

  it("goes on, if a truncation waits for its lock without a revoke: a repair puts the size right", async () => {
    const { check, inode } = bench(1 << 30);
    check.toldSentinel(inode);
    check.unstable(inode);
    expect(await check.confirmEnd(inode, { ...end, mark: check.mark(inode) }, 2)).toBe(true);
    expect(check.counts.readsRefused).toBe(0);
  });

  it("where writers here fill pages: takes the inode's lock until the repair is over, and no size is told meanwhile", async () => {
    const { check, inode, kernel, done } = bench(1 << 30);
    inode.cover.token = { state: "held", unregistered: false, users: 1, wanted: false, mapped: false, waiters: [] };
    check.toldSentinel(inode);
    kernel.truncating = (): void => {};
    expect(await check.confirmEnd(inode, { ...end, mark: check.mark(inode) }, 0)).toBe(true);
    expect(done).toEqual([`look ${1 << 30}`, "lock", "repair to 100", "look 100"]);
    expect(check.known(inode)).toBe(false);
    kernel.truncating();
    await soon();
    expect(done.at(-1)).toBe("unlock");
    expect(check.known(inode)).toBe(true);
  });

  it("where writers here fill pages and have the inode's lock: gets EINTR, because they may wait for its page", async () => {
    const { check, inode, kernel } = bench(1 << 30);
    inode.cover.token = { state: "held", unregistered: false, users: 1, wanted: false, mapped: false, waiters: [] };
    check.toldSentinel(inode);
    kernel.locked = true;
    const read = { ...end, mark: check.mark(inode) };
    expect(await check.confirmEnd(inode, read, 0)).toBe(false);
    await expect(check.confirmEnd(inode, read, 2)).rejects.toMatchObject({ errno: 4 });
  });

  it("gets EINTR while a repair is under way that is older than the file's size: it waits for this page, and would cut it", async () => {
    const { check, inode, kernel } = bench(1 << 30);
    check.toldSentinel(inode);
    kernel.truncating = (): void => {};
    await check.confirmEnd(inode, { ...end, mark: check.mark(inode) }, 0);
    void check.begin(inode, "holds", caller, () => ({ size: 100 }));
    check.made(inode, "holds");
    await expect(check.confirmEnd(inode, { ...end, mark: check.mark(inode) }, 0)).rejects.toMatchObject({ errno: 4 });
    check.end(inode, "holds", true);
    kernel.truncating();
    await soon();
    expect(await check.confirmEnd(inode, { ...end, mark: check.mark(inode) }, 0)).toBe(true);
  });

  it("gets EINTR after a second, and no zeros, if the size stays wrong", async () => {
    const { check, inode, kernel } = bench(1 << 30);
    check.toldSentinel(inode);
    const read = { ...end, mark: check.mark(inode) };
    await expect(check.confirmEnd(inode, read, 50)).rejects.toMatchObject({ errno: 4 });
    kernel.size = 100;
    expect(await check.confirmEnd(inode, read, 50)).toBe(true);
  });
});

describe("a look that finds no thread, or hears nothing of the root in time", () => {
  it("has a READ read again, and is no answer", async () => {
    const { check, inode, kernel } = bench(1 << 30);
    check.toldSentinel(inode);
    kernel.noLook.push(-EAGAIN);
    const read = { end: 100, exact: true, mark: check.mark(inode) };
    expect(await check.confirmEnd(inode, read, 0)).toBe(false);
    expect(check.counts).toMatchObject({ sizeLooks: 1, sizeRepairs: 0, sizesUnknown: 0 });
    expect(await check.confirmEnd(inode, read, 1)).toBe(true);
    expect(kernel.size).toBe(100);
  });

  it("has a reply with a size wait", async () => {
    const { check, inode, file, done, kernel } = bench(100);
    check.replied(inode, WRITER, "raises");
    kernel.noLook.push(-EAGAIN);
    await tell(check, inode, file, done);
    expect(done).toEqual(["look 100", "told 100"]);
    expect(check.counts.sizesUnknown).toBe(0);
    expect(check.known(inode)).toBe(true);
  });

  it("unlike one where the mount can not be reached: READs and replies are given as they are, and counted", async () => {
    const { check, inode, file, done, kernel } = bench(1 << 30);
    check.toldSentinel(inode);
    kernel.noLook.push(-ESTALE);
    expect(await check.confirmEnd(inode, { end: 100, exact: true, mark: check.mark(inode) }, 0)).toBe(true);
    inode.cover.phase = "draining";
    kernel.noLook.push(-ESTALE);
    await tell(check, inode, file, done);
    expect(done).toEqual(["told 100"]);
    expect(check.counts.sizesUnknown).toBe(2);
  });
});

describe("who is to get a page cache for writing", () => {
  it("waits for a truncation by a thread of our own, whoever had it begun", async () => {
    const { check, inode, file, done, kernel } = bench(1 << 30);
    expect(check.settled(inode)).toBeUndefined();
    check.toldSentinel(inode);
    kernel.truncating = (): void => {};
    const told = tell(check, inode, file, done);
    await soon();
    const settled = Promise.resolve(check.settled(inode)).then(() => done.push("settled"));
    await soon();
    expect(done).toEqual(["repair to 100"]);
    kernel.truncating();
    await Promise.all([told, settled]);
    expect(done).toEqual(["repair to 100", "repaired", "settled", "told 100"]);
    expect(check.settled(inode)).toBeUndefined();
  });
});

describe("a change of the size", () => {
  it("that drops pages makes the kernel's size known first, where somebody else has the file open", async () => {
    const { check, inode, file, done } = bench(1 << 30);
    check.toldSentinel(inode);
    await check.begin(inode, "drops", caller, () => ({ ...file }));
    expect(done).toEqual(["repair to 100", "repaired"]);
    expect(inode.cover.sizeDoubt).toBe(false);
    check.end(inode, "drops", true);
    const alone = bench(1 << 30);
    alone.check.toldSentinel(alone.inode);
    alone.inode.openCount = 1;
    expect(alone.check.begin(alone.inode, "drops", caller, () => ({ ...alone.file }))).toBeUndefined();
    expect(alone.done).toEqual([]);
  });

  it("of which nobody knows what it did leaves the size in doubt", async () => {
    const { check, inode, file } = bench(100);
    await check.begin(inode, "holds", caller, () => ({ ...file }));
    check.made(inode, "holds");
    check.end(inode, "holds", false);
    expect(check.known(inode)).toBe(false);
  });
});

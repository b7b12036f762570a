/** The kernel's lock of an inode, taken by threads of our own: size/kernel-rwsem.ts. */
import { describe, expect, it } from "vitest";
import { Cover, type Inode, sizeOf } from "../../../../overlay/coherence/cover.ts";
import { KernelRwsem } from "../../../../overlay/coherence/size/kernel-rwsem.ts";
import type { LateReply } from "../../../../overlay/coherence/cover-parts.ts";

const OWN_THREAD = 77;
const soon = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** A lock that is free unless `held`; what our own threads do with it. */
function bench(): {
  readonly lock: KernelRwsem;
  readonly inode: Inode;
  readonly done: string[];
  readonly kernel: { held: Promise<void> | null };
} {
  const done: string[] = [];
  const kernel: { held: Promise<void> | null } = { held: null };
  const id = { ino: 4, generation: 1 };
  const cover = new Cover(id, "file");
  const inode: Inode = { fuseNodeid: 9, id, kind: "file", nlookup: 1, openCount: 1, mappableCount: 0, cover };
  const lock: KernelRwsem = new KernelRwsem({
    look: () => Promise.resolve(0),
    refresh: () => Promise.resolve(0),
    lock: async () => {
      await Promise.resolve();
      await kernel.held;
      const over = lock.ownRequest(inode, OWN_THREAD);
      done.push("taken");
      await over;
      done.push("answered");
      return -61;
    },
    walk: () => Promise.resolve(0),
    isOwnThread: (tid) => tid === OWN_THREAD,
  });
  return { lock, inode, done, kernel };
}

const LATE: LateReply = { effect: "misplaced", tid: 0, end: 0, harms: false, seen: false };

describe("the inode's lock", () => {
  it("is ours until all who hold it here have let go", async () => {
    const { lock, inode, done } = bench();
    const [first, second] = await Promise.all([lock.hold(inode, 1000), lock.hold(inode, 1000)]);
    expect(done).toEqual(["taken"]);
    expect([first, second]).not.toContain(null);
    first?.();
    await soon();
    expect(done).toEqual(["taken"]);
    second?.();
    await soon();
    expect(done).toEqual(["taken", "answered"]);
    expect(lock.idle).toBe(true);
  });

  it("is not to be had while somebody else has it, and is not kept when it comes too late", async () => {
    const { lock, inode, done, kernel } = bench();
    let free = (): void => {};
    kernel.held = new Promise((resolve) => {
      free = resolve;
    });
    expect(await lock.hold(inode, 1)).toBeNull();
    free();
    await soon();
    expect(done).toEqual(["taken", "answered"]);
  });

  it("is waited for by one thread, however many want it in vain", async () => {
    const { lock, inode, kernel } = bench();
    kernel.held = new Promise(() => {});
    for (let round = 0; round < 5; round += 1) expect(await lock.hold(inode, 1)).toBeNull();
    expect(await lock.awaitOver(inode, 1)).toBe(false);
    expect(lock.counts.sizeLocks).toBe(1);
  });

  it("proves by coming that a late reply is over, held or not", async () => {
    const { lock, inode } = bench();
    sizeOf(inode.cover).late = { ...LATE };
    expect(await lock.awaitOver(inode, 1000)).toBe(true);
    expect(inode.cover.size?.late).toBeNull();
    sizeOf(inode.cover).late = { ...LATE };
    const release = await lock.hold(inode, 1000);
    expect(inode.cover.size?.late).toBeNull();
    release?.();
  });

  it("is asked for by nobody else: their requests are not ours", () => {
    const { lock, inode } = bench();
    expect(lock.ownRequest(inode, OWN_THREAD)).toBeNull();
    void lock.hold(inode, 1000).then((release) => release?.());
    expect(lock.ownRequest(inode, 5)).toBeNull();
  });
});

/** Hazard F5: no READ shows zeros behind the end of the file (size/doubt.ts). */
import { describe, expect, it } from "vitest";
import { Mode } from "../../../../dlmd/wire/mode.ts";
import { Revoke } from "../../../../overlay/coherence/cover-parts.ts";
import { bench, caller, soon, WRITER } from "./size-lab.ts";

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

  it("gives its pin back in such a revoke, if that can leave its page alone: until that is strained, and not for ever", async () => {
    const { check, inode } = bench(1 << 30);
    check.toldSentinel(inode);
    check.unstable(inode);
    const read = { ...end, mark: check.mark(inode), paged: true };
    inode.cover.phase = "draining";
    inode.cover.mode = Mode.PR;
    inode.cover.revoke = new Revoke(Mode.NL);
    expect(await check.confirmEnd(inode, read, 0)).toBe("repin");
    expect(await check.confirmEnd(inode, read, 49)).toBe("repin");
    await expect(check.confirmEnd(inode, read, 50)).rejects.toMatchObject({ errno: 4 });
    await expect(check.confirmEnd(inode, { ...read, paged: false }, 2)).rejects.toMatchObject({ errno: 4 });
    inode.cover.revoke.strained = true;
    await expect(check.confirmEnd(inode, read, 2)).rejects.toMatchObject({ errno: 4 });
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
    check.end(inode, "truncates", caller, true);
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
    check.end(inode, "truncates", caller, true);
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
    check.end(inode, "holds", caller, true);
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

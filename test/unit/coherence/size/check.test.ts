/** Hazard F5: no reply tells a size which the kernel does not have (size/doubt.ts). */
import { describe, expect, it } from "vitest";
import { E } from "../../../../dlmd/base/errno.ts";
import { Mode } from "../../../../dlmd/wire/mode.ts";
import { bench, caller, OWN_THREAD, READER, SEEKER, soon, tell, WRITER } from "./size-lab.ts";
import { sizeOf } from "../../../../overlay/coherence/cover.ts";
import { Revoke } from "../../../../overlay/coherence/cover-parts.ts";

const { EAGAIN, ESTALE } = E;

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
    expect(check.own.getattr(inode, OWN_THREAD)).toBe("now");
    expect(check.own.getattr(inode, READER)).toBe("no");
    await told;
    expect(check.own.getattr(inode, OWN_THREAD)).toBe("late");
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

  it("to lseek(2), which has the inode's lock, proves that a late append is over: no thread of ours can get the lock for that", async () => {
    const { check, inode, file, done, kernel } = bench(1 << 30);
    check.replied(inode, WRITER, "misplaced");
    kernel.locked = true;
    const read = (): { size: number } => ({ ...file });
    const answer = ({ size }: { size: number }): void => void done.push(`told ${size}`);
    await check.tell(inode, caller, read, answer, { tid: SEEKER, reads: false });
    expect(done).toEqual(["look 1073741824", "look 1073741824", "repair to 100", "repaired", "told 100"]);
    expect(check.counts.sizesUnknown).toBe(0);
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
    check.end(inode, "plain", caller, true);
    await Promise.all([told, next]);
    expect(done).toEqual(["told 100", "next change"]);
  });

  it("beside another one lets a change in that waits: until that is answered the kernel takes no size from either", async () => {
    const { check, inode, file, done, kernel } = bench(60);
    kernel.drops = Number.POSITIVE_INFINITY;
    check.toldSentinel(inode);
    const slowly = async (): Promise<{ size: number }> => {
      await soon();
      await soon();
      return { ...file };
    };
    const answer = ({ size }: { size: number }): void => void done.push(`told ${size}`);
    const told = [check.tell(inode, caller, slowly, answer)];
    await soon();
    told.push(check.tell(inode, caller, slowly, answer));
    // The next WRITE of a write(2), which came after both.
    const begun = check.begin(inode, "holds", caller, () => ({ ...file }));
    expect(begun).toBeInstanceOf(Promise);
    await begun;
    expect(done.some((what) => what.startsWith("told"))).toBe(false);
    check.made(inode, "holds");
    kernel.drops = 0;
    check.end(inode, "holds", caller, true);
    await Promise.all(told);
    expect(done.filter((what) => what.startsWith("told"))).toEqual(["told 100", "told 100"]);
    expect([kernel.size, check.counts.sizesUnknown]).toEqual([100, 0]);
  });

  it("of what the kernel does not know, or of no file, is told at once", () => {
    const { check, inode } = bench(100);
    check.toldSentinel(inode);
    expect(check.known({ ...inode, nlookup: 0 })).toBe(true);
    expect(check.known({ ...inode, kind: "directory" })).toBe(true);
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

  it("goes out after two repairs in vain, in a revoke that a change of the size waits for: the kernel takes no size from it either", async () => {
    const { check, inode, file, done, kernel } = bench(1 << 30);
    check.toldSentinel(inode);
    check.unstable(inode);
    inode.cover.phase = "draining";
    inode.cover.mode = Mode.PR;
    inode.cover.revoke = new Revoke(Mode.NL);
    kernel.drops = 100;
    await tell(check, inode, file, done);
    expect(done.filter((what) => what === "repaired" || what.startsWith("told"))).toEqual(["repaired", "repaired", "told 100"]);
    expect(check.counts.sizesUnknown).toBe(0);
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
    expect(sizeOf(inode.cover).doubt).toBe(false);
    check.end(inode, "drops", caller, true);
    const alone = bench(1 << 30);
    alone.check.toldSentinel(alone.inode);
    alone.inode.openCount = 1;
    expect(alone.check.begin(alone.inode, "drops", caller, () => ({ ...alone.file }))).toBeUndefined();
    expect(alone.done).toEqual([]);
  });

  it("that truncates counts as under way from when the answers before it are given, and not before", async () => {
    const { check, inode, file } = bench(100);
    let read: (attr: { size: number }) => void = () => {};
    const attr = new Promise<{ size: number }>((resolve) => (read = resolve));
    check.toldSentinel(inode);
    const told = check.tell(
      inode,
      caller,
      () => attr,
      () => {},
    );
    const begun = check.begin(inode, "truncates", caller, () => ({ ...file }));
    await soon();
    expect(sizeOf(inode.cover).truncating).toBe(0);
    read({ size: 100 });
    await begun;
    expect(sizeOf(inode.cover).truncating).toBe(1);
    check.made(inode, "truncates");
    check.end(inode, "truncates", caller, true);
    await told;
    expect(sizeOf(inode.cover).truncating).toBe(0);
    expect(check.begin(inode, "truncates", caller, () => ({ ...file }))).toBeUndefined();
    expect(sizeOf(inode.cover).truncating).toBe(1);
  });

  it("of which nobody knows what it did leaves the size in doubt", async () => {
    const { check, inode, file } = bench(100);
    await check.begin(inode, "holds", caller, () => ({ ...file }));
    check.made(inode, "holds");
    check.end(inode, "holds", caller, false);
    expect(check.known(inode)).toBe(false);
  });
});

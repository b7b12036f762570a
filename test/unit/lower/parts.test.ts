import fs from "node:fs";
import { describe, expect, it } from "vitest";
import { E, Errno, errnoError } from "../../../dlmd/base/errno.ts";
import { OperatingError } from "../../../dlmd/base/error.ts";
import { wholeFileSystem } from "../../../overlay/lower/local/containment.ts";
import { DirectoryDescriptors } from "../../../overlay/lower/local/directory-descriptors.ts";
import { Exclusive } from "../../../overlay/lower/local/exclusive.ts";
import { FILE_HANDLE_BYTES, fileHandleFormat } from "../../../overlay/lower/local/file-handle.ts";
import type { FileId } from "../../../overlay/lower/lower.ts";
import { andThen, inOrder, finallyDo } from "../../../dlmd/base/maybe-promise.ts";
import { RecentInodes } from "../../../overlay/lower/local/recent-inodes.ts";
import { type LossesTold, MAX_LOST, MAX_UNSYNCED, Unsynced } from "../../../overlay/lower/unsynced.ts";
import { HANDLE_BUFFER_BYTES, nativeAddon, STAT } from "../../../native/index.ts";
import { directoryPlace } from "../../compliance/lower-fixture.ts";

describe("file handles", () => {
  const handleOf = (hex: string): Buffer => {
    const bytes = Buffer.alloc(HANDLE_BUFFER_BYTES);
    Buffer.from(hex, "hex").copy(bytes);
    return bytes;
  };
  // As name_to_handle_at gave them.
  it.each([
    ["ext4", "08000000010000000c000000afd76246", { ino: 12, generation: 0x4662_d7af }],
    ["xfs", "0c000000810000008300000001000000f9875156", { ino: 0x1_0000_0083, generation: 0x5651_87f9 }],
    ["tmpfs", "0c0000000100000029e90c9e0200000001000000", { ino: 0x1_0000_0002, generation: 0x9e0c_e929 }],
  ])("of %s", (fileSystem, hex, id) => {
    const format = fileHandleFormat(handleOf(hex), fileSystem);
    expect(format.decode(handleOf(hex))).toEqual(id);
    const built = Buffer.alloc(FILE_HANDLE_BYTES);
    format.encode(id, built);
    expect(built.subarray(0, hex.length / 2).toString("hex")).toBe(hex);
  });

  it("of ext4 are made of no number that does not fit: no inode has it", () => {
    const format = fileHandleFormat(handleOf("08000000010000000c000000afd76246"), "ext4");
    const built = Buffer.alloc(FILE_HANDLE_BYTES);
    expect(() => format.encode({ ino: 2 ** 32, generation: 0 }, built)).toThrow(errnoError(E.ESTALE));
    format.encode({ ino: format.inoMax, generation: 0xffff_ffff }, built);
    expect(format.decode(built)).toEqual({ ino: 2 ** 32 - 1, generation: 0xffff_ffff });
  });

  it("of another file system are refused by its name", () => {
    const btrfs = handleOf(`140000004d000000${"00".repeat(20)}`);
    expect(() => fileHandleFormat(btrfs, "btrfs")).toThrow(/btrfs/);
    expect(() => fileHandleFormat(btrfs, "btrfs")).toThrow(OperatingError);
    expect(() => fileHandleFormat(handleOf(`0c00000001000000${"00".repeat(12)}`), "another")).toThrow(OperatingError);
  });
});

describe("inodes seen lately", () => {
  it("are known until as many others again were seen", () => {
    const recent = new RecentInodes(4);
    const id = (ino: number): FileId => ({ ino, generation: 1 });
    recent.note(id(1), 0o100644);
    expect(recent.typeOf(id(1))).toBe(0o100000);
    expect(recent.typeOf({ ino: 1, generation: 2 })).toBeUndefined();
    for (let ino = 2; ino <= 5; ino += 1) recent.note(id(ino), 0o040755);
    expect(recent.has(id(1))).toBe(true);
    for (let ino = 6; ino <= 9; ino += 1) recent.note(id(ino), 0o040755);
    expect(recent.has(id(1))).toBe(false);
    recent.forget(id(9));
    expect(recent.has(id(9))).toBe(false);
  });
});

describe("work on one key", () => {
  it("runs at once when alone, else in order, a failure included", async () => {
    const exclusive = new Exclusive();
    const order: string[] = [];
    let release: () => void = () => undefined;
    const gate = new Promise<void>((resolve) => {
      release = resolve;
    });
    expect(exclusive.run([1], () => 5)).toBe(5);
    const first = exclusive.run([1, 2], async () => {
      await gate;
      order.push("first");
      throw new Error("failed");
    });
    const second = exclusive.run([2], () => order.push("second"));
    const third = exclusive.run([2, 3], () => order.push("third"));
    expect(exclusive.run([4], () => order.push("other"))).toBe(1);
    release();
    await expect(first).rejects.toThrow("failed");
    await Promise.all([second, third]);
    expect(order).toEqual(["other", "first", "second", "third"]);
    await Promise.resolve();
    expect(exclusive.busy).toBe(0);
  });
});

describe("answers now or later", () => {
  it("end with their last act once, whether they fail or not", async () => {
    let ends = 0;
    const end = (): void => {
      ends += 1;
    };
    expect(finallyDo(() => 1, end)).toBe(1);
    expect(() =>
      finallyDo(() => {
        throw new Error("now");
      }, end),
    ).toThrow("now");
    await expect(finallyDo(() => Promise.reject(new Error("later")), end)).rejects.toThrow("later");
    expect(ends).toBe(3);
    expect(await andThen(Promise.resolve(1), (value) => value + 1)).toBe(2);
  });

  it("in order stop at the first error, at once or later", async () => {
    const done: number[] = [];
    const step = (value: number, result: number): (() => number) => {
      return () => {
        done.push(value);
        return result;
      };
    };
    expect(() => inOrder([step(1, 0), step(2, -E.EIO), step(3, 0)])).toThrow(Errno);
    expect(done).toEqual([1, 2]);
    await expect(inOrder([async () => 0, step(4, 0), async () => -E.EIO, step(5, 0)])).rejects.toThrow("EIO");
    expect(done).toEqual([1, 2, 4]);
  });
});

describe("what an owner took (hazard F10)", () => {
  const a = { ino: 1, generation: 1 };
  const b = { ino: 2, generation: 1 };
  const opened = (unsynced: Unsynced, id: FileId): LossesTold => ({ id, lossesTold: unsynced.opened(id) });

  it("is lost with it unless a sync that began later has ended", () => {
    const unsynced = new Unsynced();
    unsynced.note(a, "data");
    const since = unsynced.now();
    unsynced.note(b, "data");
    unsynced.allSynced(since);
    unsynced.synced(b, since, false);
    const [openA, openB] = [opened(unsynced, a), opened(unsynced, b)];
    expect(unsynced.ownerDied([openA, openB])).toBe(1);
    expect(unsynced.takeLost(openA)).toBe(false);
    expect(unsynced.takeLost(openB)).toBe(true);
    expect(unsynced.takeLost(openB)).toBe(false);
  });

  it("is told to each who had the file open, whoever was told before", () => {
    const unsynced = new Unsynced();
    const [writer, reader] = [opened(unsynced, a), opened(unsynced, a)];
    unsynced.note(a, "data");
    unsynced.ownerDied([writer, reader]);
    expect([unsynced.takeAnyLost(), unsynced.takeAnyLost()]).toEqual([true, false]);
    expect([unsynced.takeLost(reader), unsynced.takeLost(writer)]).toEqual([true, true]);
    expect(unsynced.takeLost(opened(unsynced, a))).toBe(false);
  });

  it("is kept for who had it open and did not ask, through another owner's death", () => {
    const unsynced = new Unsynced();
    const [writer, reader] = [opened(unsynced, a), opened(unsynced, a)];
    unsynced.note(a, "data");
    unsynced.ownerDied([writer, reader]);
    unsynced.takeLost(reader);
    expect(unsynced.ownerDied([writer, reader])).toBe(0);
    expect([unsynced.takeLost(reader), unsynced.takeLost(writer)]).toEqual([false, true]);
  });

  it("is told to who opens the file later, if nobody was told", () => {
    const unsynced = new Unsynced();
    unsynced.note(a, "data");
    unsynced.ownerDied([]);
    const later = opened(unsynced, a);
    expect([unsynced.takeLost(later), unsynced.takeLost(later), unsynced.takeLost(opened(unsynced, a))]).toEqual([true, false, false]);
  });

  it("fdatasync leaves what else was changed, even before the data", () => {
    const unsynced = new Unsynced();
    unsynced.note(a, "all");
    unsynced.note(a, "data");
    unsynced.note(b, "data");
    for (const id of [a, b]) unsynced.synced(id, unsynced.now(), true);
    expect(unsynced.ownerDied([])).toBe(1);
    expect([a, b].map((id) => unsynced.takeLost(opened(unsynced, id)))).toEqual([true, false]);
  });

  it("is forgotten where nobody asks, the oldest first; not where somebody has the file open", () => {
    const unsynced = new Unsynced();
    const [first, second, third] = [a, b, { ino: 3, generation: 1 }] as const;
    const patient = opened(unsynced, first);
    for (const id of [first, second, third]) unsynced.note(id, "data");
    unsynced.ownerDied([patient]);
    unsynced.note(second, "data");
    for (let ino = 10; ino < MAX_LOST + 9; ino += 1) unsynced.note({ ino, generation: 1 }, "data");
    unsynced.ownerDied([patient]);
    expect([third, second, first].map((id) => unsynced.takeLost(opened(unsynced, id)))).toEqual([false, true, true]);
    expect(unsynced.takeLost(patient)).toBe(true);
    unsynced.note({ ino: 9, generation: 1 }, "data");
    unsynced.ownerDied([]);
    expect(unsynced.takeLost(opened(unsynced, { ino: 10, generation: 1 }))).toBe(true);
  });

  it.each<[string, (unsynced: Unsynced, since: number) => void, boolean]>([
    ["nothing", () => undefined, true],
    ["an fsync of the file", (unsynced, since) => unsynced.synced(a, since, false), false],
    ["an fdatasync of it", (unsynced, since) => unsynced.synced(a, since, true), true],
    ["an fsync of it that began before", (unsynced, since) => unsynced.synced(a, since - 1, false), true],
    ["an fsync of the directory that it came from", (unsynced, since) => unsynced.synced({ ino: 3, generation: 1 }, since, false), false],
    ["an fsync of the one in which it is", (unsynced, since) => unsynced.synced({ ino: 4, generation: 1 }, since, false), false],
    ["such a one that began before", (unsynced, since) => unsynced.synced({ ino: 4, generation: 1 }, since - 1, false), true],
    ["an fsync of another file, or of where it was long ago", (unsynced, since) => unsynced.synced(b, since, false), true],
    ["a sync of all", (unsynced, since) => unsynced.allSynced(since), false],
    ["a sync of all that began before", (unsynced, since) => unsynced.allSynced(since - 1), true],
  ])("a file's name alone is lost unless that is on the disk: after %s", (_, sync, isLost) => {
    const before = new Unsynced();
    before.noteName(a, [b]);
    before.noteName(a, [
      { ino: 3, generation: 1 },
      { ino: 4, generation: 1 },
    ]);
    sync(before, before.now());
    expect(before.size).toBe(isLost ? 1 : 0);
    // So it is in the next process.
    const unsynced = new Unsynced();
    unsynced.restore(before.state());
    const file = opened(unsynced, a);
    unsynced.ownerDied([file]);
    // Its data is there: it may replace another file.
    expect([unsynced.takeUntoldData(a), unsynced.takeLost(file), unsynced.takeAnyLost()]).toEqual([false, isLost, isLost]);
  });

  it("a file's name on the disk leaves its data to be synced", () => {
    const unsynced = new Unsynced();
    unsynced.note(a, "data");
    unsynced.noteName(a, [b]);
    unsynced.synced(b, unsynced.now(), false);
    expect(unsynced.size).toBe(1);
    unsynced.noteName(a, [b]);
    unsynced.synced(a, unsynced.now(), true);
    expect(unsynced.size).toBe(1);
    const restored = new Unsynced();
    restored.restore(unsynced.state());
    restored.synced(b, restored.now(), false);
    expect(restored.size).toBe(0);
  });

  it("is synced when it is much, and still is so while that has not helped", () => {
    const unsynced = new Unsynced();
    const full = Array.from({ length: MAX_UNSYNCED + 1 }, (_, ino) => unsynced.note({ ino, generation: 1 }, "data"));
    expect([full.indexOf(true), full.lastIndexOf(false)]).toEqual([MAX_UNSYNCED - 1, MAX_UNSYNCED - 2]);
    expect(unsynced.noteName({ ino: 0, generation: 1 }, [])).toBe(true);
  });
});

describe("directory descriptors", () => {
  it("are bounded, shared, kept while used, and gone with their directory", async () => {
    const native = nativeAddon();
    const place = directoryPlace();
    const rootFd = native.sync.openat2(place.rootFd, Buffer.from("."), 0, 0, 0);
    try {
      const stat = new Float64Array(STAT.FIELDS);
      const handle = Buffer.alloc(HANDLE_BUFFER_BYTES);
      native.sync.handleOf(rootFd, handle);
      const format = fileHandleFormat(handle, "ext4");
      const root = format.decode(handle);
      const recent = new RecentInodes();
      const descriptors = new DirectoryDescriptors({ native, root, rootFd, format, recent, containment: wholeFileSystem, limit: 8 });
      const ids = Array.from({ length: 20 }, (_, n): FileId => {
        fs.mkdirSync(`${place.path}/d${n}`);
        native.sync.lookup(rootFd, Buffer.from(`d${n}`), false, stat, handle);
        return format.decode(handle);
      });
      expect(descriptors.peek(root)).toBe(rootFd);
      const before = fs.readdirSync("/proc/self/fd").length;
      for (const id of ids) await descriptors.use(id, (fd) => expect(native.sync.stat(fd, stat)).toBe(0));
      expect(descriptors.size).toBe(8);
      expect(fs.readdirSync("/proc/self/fd").length).toBe(before + 8);
      const [first] = ids;
      if (first === undefined) throw new Error("no directory");
      let fdInUse = -1;
      await descriptors.use(first, async (fd) => {
        fdInUse = fd;
        for (const id of ids) await descriptors.use(id, () => undefined);
        fs.rmdirSync(`${place.path}/d0`);
        descriptors.drop(first);
        expect(native.sync.stat(fd, stat)).toBe(0);
      });
      expect(native.sync.stat(fdInUse, stat)).toBe(-E.EBADF);
      await expect((async () => await descriptors.use(first, () => undefined))()).rejects.toThrow("ESTALE");
      descriptors.dropAll();
      expect(fs.readdirSync("/proc/self/fd").length).toBe(before);
    } finally {
      native.sync.close(rootFd);
      await place.release();
    }
  });
});

import { describe, expect, it } from "vitest";
import { Cover, type Inode } from "../../../overlay/coherence/cover.ts";
import { HandleTable } from "../../../overlay/inode/handles.ts";
import { InodeTable } from "../../../overlay/inode/table.ts";
import { ROOT_FUSE_NODEID } from "../../../overlay/coherence/cover.ts";
import { fileKey, type LowerHandle } from "../../../overlay/lower/lower.ts";

const FILE = 0o100644;
const DIRECTORY = 0o040755;

function table(): { inodes: InodeTable; dropped: { inode: Inode; removed: boolean }[] } {
  const dropped: { inode: Inode; removed: boolean }[] = [];
  const inodes = new InodeTable({
    root: { ino: 2, generation: 0 },
    createCover: (id, kind) => new Cover(id, fileKey(id), kind),
    dropped: (inode, removed) => dropped.push({ inode, removed }),
  });
  return { inodes, dropped };
}

describe("inode table", () => {
  it("has the root as 1, for ever", () => {
    const { inodes, dropped } = table();
    expect(inodes.root.fuseNodeid).toBe(ROOT_FUSE_NODEID);
    inodes.forget(ROOT_FUSE_NODEID, 1);
    expect(inodes.get(ROOT_FUSE_NODEID)).toBe(inodes.root);
    expect(dropped).toEqual([]);
  });

  it("gives one record per identity and never a number twice, though the inode number comes back", () => {
    const { inodes, dropped } = table();
    const first = inodes.remember({ ino: 12, generation: 1 }, FILE);
    first.nlookup = 1;
    inodes.leave(first);
    const next = inodes.remember({ ino: 12, generation: 2 }, FILE);
    expect(next).not.toBe(first);
    expect(next.fuseNodeid).not.toBe(first.fuseNodeid);
    expect(inodes.remember({ ino: 12, generation: 1 }, FILE)).toBe(first);
    inodes.leave(first);
    inodes.forget(first.fuseNodeid, 1);
    expect(dropped.map(({ inode }) => inode)).toEqual([first]);
    expect(inodes.remember({ ino: 12, generation: 2 }, FILE)).toBe(next);
    const again = inodes.remember({ ino: 12, generation: 1 }, FILE);
    expect([first.fuseNodeid, next.fuseNodeid]).not.toContain(again.fuseNodeid);
  });

  it("gives a record of its own to an inode of another kind that has the identity of one that was lost with its owner", () => {
    const { inodes, dropped } = table();
    const id = { ino: 12, generation: 5 };
    const lost = inodes.remember(id, FILE);
    lost.nlookup = 1;
    inodes.leave(lost);
    const made = inodes.remember(id, DIRECTORY);
    expect([made.kind, made.fuseNodeid === lost.fuseNodeid]).toEqual(["directory", false]);
    expect(inodes.get(lost.fuseNodeid)).toBe(lost);
    expect(inodes.remember(id, DIRECTORY)).toBe(made);
    inodes.forget(lost.fuseNodeid, 1);
    expect(dropped.map(({ inode }) => inode)).toEqual([lost]);
    expect(inodes.remember(id, DIRECTORY)).toBe(made);
  });

  it("keeps a record while it is counted, open or in use, and drops it once", () => {
    const { inodes, dropped } = table();
    const record = inodes.remember({ ino: 5, generation: 0 }, DIRECTORY);
    expect(record.kind).toBe("directory");
    record.nlookup = 3;
    inodes.opened(record, true);
    inodes.forget(record.fuseNodeid, 2);
    inodes.forget(record.fuseNodeid, 1);
    expect(inodes.get(record.fuseNodeid)).toBe(record);
    inodes.leave(record);
    expect(dropped).toEqual([]);
    record.nlinkHint = 0;
    inodes.closed(record, true);
    expect(inodes.get(record.fuseNodeid)).toBeUndefined();
    expect(dropped).toEqual([{ inode: record, removed: true }]);
  });

  it("drops at once what no reply gave to the kernel", () => {
    const { inodes, dropped } = table();
    const record = inodes.remember({ ino: 6, generation: 0 }, FILE);
    inodes.leave(record);
    expect(inodes.size).toBe(1);
    expect(dropped).toEqual([{ inode: record, removed: false }]);
  });

  it("asserts on lookups that it never gave", () => {
    const { inodes } = table();
    const record = inodes.remember({ ino: 7, generation: 0 }, FILE);
    record.nlookup = 1;
    expect(() => inodes.forget(record.fuseNodeid, 2)).toThrow(/FORGET of 2/);
    inodes.forget(99_999, 1);
  });

  it("holds 100,000 inodes in well under 1 KiB each", () => {
    const { gc } = globalThis as { gc?: () => void };
    const { inodes } = table();
    gc?.();
    const before = process.memoryUsage().heapUsed;
    for (let ino = 100; ino < 100_100; ino += 1) {
      const record = inodes.remember({ ino, generation: 1 }, FILE);
      record.nlookup = 1;
      inodes.leave(record);
    }
    gc?.();
    expect((process.memoryUsage().heapUsed - before) / 100_000).toBeLessThan(1024);
    for (let ino = 100; ino < 100_100; ino += 1) inodes.forget(inodes.remember({ ino, generation: 1 }, FILE).fuseNodeid, 1);
    expect(inodes.size).toBe(100_001);
  });
});

describe("handle table", () => {
  it("never gives a number twice", () => {
    const { inodes } = table();
    const handles = new HandleTable();
    const one = handles.add(inodes.root, 1 as LowerHandle, false, true, false, false);
    expect(handles.take(one.fh)).toBe(one);
    expect(handles.take(one.fh)).toBeUndefined();
    const two = handles.add(inodes.root, 1 as LowerHandle, true, false, false, false);
    expect(two.fh).not.toBe(one.fh);
    expect(two).toMatchObject({ directory: true, writable: true, cached: false });
    expect(handles.takeAll()).toEqual([two]);
    expect(handles.size).toBe(0);
  });
});

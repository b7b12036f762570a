import { describe, expect, it } from "vitest";
import { Cover, fuseGeneration, type Inode } from "../../../overlay/coherence/cover.ts";
import { HandleTable } from "../../../overlay/inode/handles.ts";
import { COUNTED_FROM, fuseNodeidOf, inoOf } from "../../../overlay/inode/numbers.ts";
import { InodeTable } from "../../../overlay/inode/table.ts";
import { ROOT_FUSE_NODEID } from "../../../overlay/coherence/cover.ts";
import { type LowerHandle } from "../../../overlay/lower/lower.ts";

const FILE = 0o100644;
const DIRECTORY = 0o040755;

function table(): { inodes: InodeTable; dropped: { inode: Inode; removed: boolean }[] } {
  const dropped: { inode: Inode; removed: boolean }[] = [];
  const inodes = new InodeTable({
    root: { ino: 2, generation: 7 },
    createCover: (id, kind) => new Cover(id, kind),
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

  it("gives one record per identity and no two of them one number, though the inode number comes back", () => {
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
    expect(again).not.toBe(first);
    expect(again.fuseNodeid).not.toBe(next.fuseNodeid);
  });

  it("gives an inode the number that it had before the kernel forgot it, on each node (hazard F29)", () => {
    const id = { ino: 0xffff_ffff, generation: 0xdead_beef };
    const [one, another] = [table().inodes, table().inodes];
    const before = one.remember(id, FILE);
    before.nlookup = 1;
    one.leave(before);
    one.forget(before.fuseNodeid, 1);
    expect(one.get(before.fuseNodeid)).toBeUndefined();
    for (const { fuseNodeid } of [one.remember(id, FILE), another.remember(id, FILE)]) expect(fuseNodeid).toBe(before.fuseNodeid);
  });

  it("counts one whose number another has, and those that stand for no inode: never twice, and no handle finds them (hazard F29)", () => {
    const { inodes } = table();
    const id = { ino: 12, generation: 5 };
    const sameNumber = { ino: 12, generation: 5 + 4096 };
    const old = inodes.remember(id, FILE);
    const seen = new Set<number>();
    for (let round = 0; round < 3; round += 1) {
      const { fuseNodeid } = inodes.standIn();
      const counted = inodes.remember(sameNumber, FILE);
      expect(inodes.get(old.fuseNodeid)).toBe(old);
      expect(inodes.get(counted.fuseNodeid)).toBe(counted);
      inodes.leave(counted);
      expect(inodes.get(counted.fuseNodeid)).toBeUndefined();
      for (const one of [fuseNodeid, counted.fuseNodeid]) {
        expect([one >= COUNTED_FROM, Number.isSafeInteger(one), inoOf(one), seen.has(one)]).toEqual([true, true, null, false]);
        seen.add(one);
      }
    }
    inodes.leave(old);
    expect(inoOf(inodes.remember(sameNumber, FILE).fuseNodeid)).toBe(12);
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
    expect([inodes.size, new Set(inodes.all())]).toEqual([3, new Set([inodes.root, lost, made])]);
    inodes.forget(lost.fuseNodeid, 1);
    expect([inodes.size, inodes.get(lost.fuseNodeid)]).toEqual([2, undefined]);
    expect(dropped.map(({ inode }) => inode)).toEqual([lost]);
    expect(inodes.remember(id, DIRECTORY)).toBe(made);
  });

  it.each([0, 1])(
    "has after a crash both of one identity, in whatever order they come, and the one that was made later is of it",
    (first) => {
      const { inodes, dropped } = table();
      const id = { ino: 12, generation: 5 };
      const number = fuseNodeidOf(id) ?? 0;
      const lost = { fuseNodeid: number, id, kind: "file", nlookup: 1, nlinkHint: 1, row: 0 } as const;
      const made = { ...lost, fuseNodeid: COUNTED_FROM, kind: "directory", row: 1 } as const;
      inodes.restore(first === 0 ? [lost, made] : [made, lost], COUNTED_FROM + 1);
      expect(inodes.find(id)).toBe(inodes.get(COUNTED_FROM));
      expect([inodes.get(number)?.kind, inodes.get(COUNTED_FROM)?.kind, inodes.size, inodes.rows()]).toEqual([
        "file",
        "directory",
        3,
        null,
      ]);
      inodes.forget(number, 1);
      expect([inodes.get(number), inodes.size, inodes.all().length, dropped.length]).toEqual([undefined, 2, 2, 1]);
      expect(inodes.rows()?.rows.map(({ fuseNodeid }) => fuseNodeid)).toEqual([COUNTED_FROM]);
      inodes.forget(COUNTED_FROM, 1);
      expect([inodes.find(id), inodes.get(COUNTED_FROM), inodes.size]).toEqual([undefined, undefined, 1]);
    },
  );

  it("goes on with older generations of a number, and with a number of another inode's", () => {
    const { inodes } = table();
    const row = { kind: "file", nlookup: 1, nlinkHint: 1 } as const;
    const rows = [
      { ...row, fuseNodeid: fuseNodeidOf({ ino: 12, generation: 5 }) ?? 0, id: { ino: 12, generation: 5 } },
      { ...row, fuseNodeid: COUNTED_FROM, id: { ino: 12, generation: 5 + 4096 } },
      { ...row, fuseNodeid: fuseNodeidOf({ ino: 99, generation: 1 }) ?? 0, id: { ino: 13, generation: 1 } },
    ];
    inodes.restore(rows, COUNTED_FROM + 1);
    expect(rows.map(({ fuseNodeid }) => inodes.get(fuseNodeid)?.id)).toEqual(rows.map(({ id }) => id));
    expect(rows.map(({ id, fuseNodeid }) => inodes.find(id) === inodes.get(fuseNodeid))).toEqual([true, true, true]);
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

describe("numbers of inodes", () => {
  it("say which inode number they are of, and are no two kinds of numbers", () => {
    for (const ino of [1, 2, 12, 0xffff_ffff, 2 ** 40 - 1]) {
      for (const generation of [0, 1, 4095, 4096, 0xffff_ffff]) {
        const number = fuseNodeidOf({ ino, generation }) as number;
        expect([inoOf(number), number > ROOT_FUSE_NODEID, number < COUNTED_FROM]).toEqual([ino, true, true]);
      }
    }
    expect(fuseNodeidOf({ ino: 12, generation: 1 })).not.toBe(fuseNodeidOf({ ino: 12, generation: 2 }));
    expect(fuseNodeidOf({ ino: 2 ** 40, generation: 1 })).toBeNull();
    for (const number of [0, ROOT_FUSE_NODEID, 4095, COUNTED_FROM, Number.MAX_SAFE_INTEGER, 2 ** 63]) expect(inoOf(number)).toBeNull();
  });

  it("come with the generation, but for the root", () => {
    const { inodes } = table();
    expect(fuseGeneration(inodes.root)).toBe(0);
    expect(fuseGeneration(inodes.remember({ ino: 12, generation: 0xffff_ffff }, FILE))).toBe(0xffff_ffff);
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

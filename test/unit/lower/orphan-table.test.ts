/** H10: which names are kept, and when they go. */
import { describe, expect, it } from "vitest";
import { isLinkableName, type Orphan, orphanName, OrphanTable } from "../../../overlay/lower/local/orphan-table.ts";
import type { FileId } from "../../../overlay/lower/lower.ts";

const FILE = 0o100644;
const DIRECTORY = 0o040755;
const id = (ino: number, generation = 1): FileId => ({ ino, generation });
const orphan = (ino: number, generation = 1): Orphan => ({
  id: id(ino, generation),
  name: orphanName(id(ino, generation), false),
  directory: false,
  linkable: false,
});
const nobody = (): boolean => false;

function settled(...open: readonly number[]): OrphanTable {
  const table = new OrphanTable(2);
  table.begin([]);
  table.settle(nobody);
  for (const ino of open) table.add(orphan(ino));
  return table;
}

describe("an inode whose last name goes", () => {
  it("is kept if it is open and there is a hidden directory", () => {
    expect(settled().keeps(FILE, 1, true)).toBe(true);
    expect(settled().keeps(DIRECTORY, 2, true)).toBe(true);
    expect(settled().keeps(FILE, 1, false)).toBe(false);
    expect(new OrphanTable(2).keeps(FILE, 1, true)).toBe(false);
  });

  it("is kept at a new owner until all have come that may have it open", () => {
    const table = new OrphanTable(2);
    table.begin([]);
    expect([table.keeps(FILE, 1, false), table.keeps(DIRECTORY, 2, false), table.keeps(FILE, 2, false)]).toEqual([true, true, false]);
    table.settle(nobody);
    expect([table.keeps(FILE, 1, false), table.keeps(DIRECTORY, 2, false)]).toEqual([false, false]);
  });

  it("is not the last one of a file with more names; and only files and directories are open at an owner", () => {
    expect(settled().keeps(FILE, 2, true)).toBe(false);
    expect(settled().keeps(0o120777, 1, true)).toBe(false);
  });
});

describe("links, as callers are told", () => {
  it("do not count the name of an orphan, and are as they are of every other inode", () => {
    const table = settled(12);
    expect([1, 2, 0].map((nlink) => table.toldLinks(12, nlink))).toEqual([0, 1, 0]);
    expect(table.toldLinks(13, 1)).toBe(1);
    table.add({ ...orphan(14), directory: true });
    expect(table.toldLinks(14, 2)).toBe(0);
  });

  it("of the root do not count the hidden directory, once it is there; ext4 counts 1 where there are too many", () => {
    expect(new OrphanTable(2).toldLinks(2, 4)).toBe(4);
    expect([4, 1].map((nlink) => settled().toldLinks(2, nlink))).toEqual([3, 1]);
  });
});

describe("the name of an orphan", () => {
  it("says which inode, and of which generation", () => {
    expect(orphanName(id(12, 34), false).toString()).toBe("12.34");
  });

  it("says whether it was made without one, and may get one", () => {
    const [lost, never] = [orphanName(id(12, 34), false), orphanName(id(12, 34), true)];
    expect([lost, never].map(isLinkableName)).toEqual([false, true]);
    expect(never.toString()).toBe("12.34.linkable");
  });

  it("goes with the last close", () => {
    const table = settled(12);
    expect(table.lastClosed(id(12))).toEqual(orphan(12));
    expect([table.lastClosed(id(13)), table.lastClosed(id(12, 2))]).toEqual([undefined, undefined]);
    table.delete(id(12));
    expect([table.lastClosed(id(12)), table.count]).toEqual([undefined, 0]);
  });

  it("stays while callers of an earlier owner may still come; then those go that nobody has open, once", () => {
    const table = new OrphanTable(2);
    table.begin([orphan(12), orphan(13), orphan(14)]);
    expect(table.phase).toBe("claims");
    // Opened at this owner, and closed: another caller that has it open may not be here yet.
    expect(table.lastClosed(id(12))).toBeUndefined();
    expect(table.settle(({ ino }) => ino === 13)).toEqual([orphan(12), orphan(14)]);
    // What could not be removed then, and what was closed since, is there still.
    table.delete(id(12));
    expect(table.settle(({ ino }) => ino === 13)).toEqual([orphan(14)]);
    expect(table.lastClosed(id(13))).toEqual(orphan(13));
  });

  it("stays when this owner ends: its callers go on at the next one", () => {
    const table = settled(12);
    table.end();
    expect([table.lastClosed(id(12)), table.settle(nobody), table.keeps(FILE, 1, true)]).toEqual([undefined, [], true]);
    const none = new OrphanTable(2);
    none.end();
    expect(none.phase).toBe("absent");
  });
});

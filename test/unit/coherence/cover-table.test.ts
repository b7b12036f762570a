/** Covers by inode number, and those whose number an inode of another generation has. */
import { expect, it } from "vitest";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { attach, type Cover, type Inode, sizeOf } from "../../../overlay/coherence/cover.ts";
import { CoverTable } from "../../../overlay/coherence/lock/cover-table.ts";
import { CoherenceState } from "../../../overlay/coherence/effect.ts";

const id = (generation: number): { ino: number; generation: number } => ({ ino: 12, generation });

function known(cover: Cover): Inode {
  const inode: Inode = { fuseNodeid: 12, id: cover.id, kind: cover.kind, nlookup: 0, openCount: 0, mappableCount: 0, cover };
  attach(inode);
  return inode;
}

it.each([
  ["the older", 1, 2],
  ["the newer", 2, 1],
])("two generations have covers of their own, and %s may go first", (_which, first, second) => {
  const unlocked: string[] = [];
  const covers = new CoverTable(new CoherenceState(), ({ key }) => void unlocked.push(key));
  const made = new Map([1, 2].map((generation) => [generation, covers.take(id(generation), "file")]));
  expect([covers.size, [...covers.all()].map(({ key }) => key)]).toEqual([2, ["12.1", "12.2"]]);
  for (const [generation, cover] of made) {
    expect(covers.find(id(generation))).toBe(cover);
    expect(covers.take(id(generation), "file")).toBe(cover);
  }
  expect(covers.find(id(3))).toBeUndefined();
  const forget = (generation: number): void => covers.forgotten(known(made.get(generation) as Cover));
  forget(first);
  expect([unlocked, covers.size, covers.find(id(first))]).toEqual([[`12.${first}`], 1, undefined]);
  expect(covers.find(id(second))).toBe(made.get(second));
  const again = covers.take(id(first), "file");
  expect(covers.find(id(first))).toBe(again);
  expect(covers.find(id(second))).toBe(made.get(second));
  forget(second);
  expect([unlocked, covers.size, covers.find(id(first))]).toEqual([[`12.${first}`, `12.${second}`], 1, again]);
});

it("of one identity that is of another kind now the new one is found, and each goes by itself", () => {
  const unlocked: Cover[] = [];
  const covers = new CoverTable(new CoherenceState(), (cover) => void unlocked.push(cover));
  const file = covers.take(id(1), "file");
  const inode = known(file);
  file.mode = Mode.PR;
  const directory = covers.take(id(1), "directory");
  expect([covers.find(id(1)), covers.size, [...covers.all()]]).toEqual([directory, 1, [directory, file]]);
  covers.forgotten(inode);
  expect([unlocked, covers.find(id(1)), [...covers.all()]]).toEqual([[file], directory, [directory]]);
});

it("a lock that stays when the kernel has forgotten its inode keeps no call", () => {
  const covers = new CoverTable(new CoherenceState(), () => undefined);
  const cover = covers.take(id(1), "file");
  cover.mode = Mode.PR;
  const size = sizeOf(cover);
  size.lockHolder = { answered: true };
  covers.forgotten(known(cover));
  expect([covers.find(id(1)), size.lockHolder]).toEqual([cover, null]);
});

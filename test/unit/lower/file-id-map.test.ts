/** What there is of inodes, by identity: two generations of one number are two. */
import { expect, it } from "vitest";
import { type FileId, fileKey, ofFileKey } from "../../../overlay/lower/lower.ts";
import { FileIdMap, LastKey } from "../../../overlay/lower/file-id-map.ts";

const id = (ino: number, generation: number): FileId => ({ ino, generation });

it("has one of each identity, whichever generation came first and whichever goes first", () => {
  for (const [first, second] of [
    [1, 2],
    [2, 1],
  ] as const) {
    const map = new FileIdMap<{ readonly id: FileId }>();
    const [one, other, alone] = [id(12, 1), id(12, 2), id(13, 1)].map((of) => ({ id: of })) as [
      { id: FileId },
      { id: FileId },
      { id: FileId },
    ];
    const of = (generation: number): { id: FileId } => (generation === 1 ? one : other);
    for (const value of [of(first), alone, of(second)]) map.add(value);
    expect([map.size, new Set(map.values())]).toEqual([3, new Set([one, other, alone])]);
    expect([map.get(id(12, 1)), map.get(id(12, 2)), map.get(id(12, 3)), map.get(id(14, 1))]).toEqual([one, other, undefined, undefined]);
    map.delete({ id: id(12, first) });
    expect(map.get(id(12, first))).toBe(of(first));
    map.delete(of(first));
    expect([map.size, map.get(id(12, first)), map.get(id(12, second))]).toEqual([2, undefined, of(second)]);
    map.add(of(first));
    expect([map.get(id(12, first)), map.get(id(12, second))]).toEqual([of(first), of(second)]);
    map.clear();
    expect([map.size, map.get(id(12, 1)), map.get(id(12, 2))]).toEqual([0, undefined, undefined]);
  }
});

it("a key is that of who is asked for, the one asked for last or another, and leads back", () => {
  const keys = new LastKey();
  for (const of of [id(12, 1), id(12, 1), id(12, 2), id(13, 2), id(12, 1), id(0, 0)]) {
    expect(keys.of(of)).toBe(fileKey(of));
    expect(ofFileKey(keys.of(of))).toEqual(of);
  }
});

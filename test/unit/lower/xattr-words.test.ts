/** Which callers are told of extended attributes (overlay/lower/server/xattr-words.ts). */
import { expect, it } from "vitest";
import type { FileId } from "../../../overlay/lower/lower.ts";
import { XATTRS_ASKED_MS, XattrWords } from "../../../overlay/lower/server/xattr-words.ts";
import { attrOf } from "../op/scripted-lower.ts";

const id: FileId = { ino: 12, generation: 7 };
const other: FileId = { ino: 13, generation: 1 };
const attr = attrOf(id);
const names = Buffer.from("user.a\0");

function create(): { words: XattrWords; clock: { ms: number }; looked: number[] } {
  const clock = { ms: 1000 };
  const looked: number[] = [];
  const xattrNames = ({ ino }: FileId, cold: boolean): Buffer | null => {
    looked.push(cold ? -ino : ino);
    return ino === other.ino ? null : names;
  };
  return { words: new XattrWords({ xattrNames }, () => clock.ms), clock, looked };
}

it("whoever has asked for one is told, for XATTRS_ASKED_MS", () => {
  const { words, clock, looked } = create();
  expect([words.attr(id, attr), looked]).toEqual([attr, []]);
  words.noteAsked();
  clock.ms += XATTRS_ASKED_MS - 1;
  expect(words.attr(id, attr)).toEqual({ ...attr, xattrNames: names });
  clock.ms += 1;
  expect([words.attr(id, attr), looked]).toEqual([attr, [12]]);
});

it("with attributes and entries, of one and of many; of what is not to be had nothing is said", async () => {
  const { words, looked } = create();
  words.noteAsked();
  const told = { ...attr, xattrNames: names };
  expect(await words.attr(id, Promise.resolve(attr))).toEqual(told);
  expect(words.attr(other, attr)).toBe(attr);
  expect(words.entry(null)).toBeNull();
  expect(await words.entry(Promise.resolve({ id, attr }))).toEqual({ id, attr: told });
  expect(words.entries([null, { id, attr }, { id: other, attr }])).toEqual([null, { id, attr: told }, { id: other, attr }]);
  expect(words.attrs([id, other, id], [attr, attr, null])).toEqual([told, attr, null]);
  // What came later may have been on the disk.
  expect(looked).toEqual([-12, 13, -12, 12, 13, 12, 13]);
  await words.attrs([id], Promise.resolve([attr]));
  await words.entries(Promise.resolve([{ id, attr }]));
  expect(looked.slice(-2)).toEqual([-12, -12]);
});

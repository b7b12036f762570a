/** Which callers are told of access ACLs, and of which inodes (overlay/lower/server/acl-words.ts). */
import { expect, it } from "vitest";
import type { Attr, FileId } from "../../../overlay/lower/lower.ts";
import { ACLS_ASKED_MS, AclWords } from "../../../overlay/lower/server/acl-words.ts";
import { attrOf } from "../op/scripted-lower.ts";

const id: FileId = { ino: 12, generation: 7 };
const plain = attrOf(id, { mode: 0o100644 });

function create({ hasAcls = true } = {}): { words: AclWords; clock: { ms: number }; looked: number[] } {
  const clock = { ms: 1000 };
  const looked: number[] = [];
  const hasNoAcl = ({ ino }: FileId): boolean => {
    looked.push(ino);
    return ino !== 13;
  };
  return { words: new AclWords({ hasAcls, hasNoAcl }, () => clock.ms), clock, looked };
}

it("whoever has asked for one is told, for ACLS_ASKED_MS", () => {
  const { words, clock, looked } = create();
  expect([words.attr(id, plain), looked]).toEqual([plain, []]);
  words.noteAsked();
  clock.ms += ACLS_ASKED_MS - 1;
  expect(words.attr(id, plain)).toEqual({ ...plain, hasNoAcl: true });
  clock.ms += 1;
  expect([words.attr(id, plain), looked]).toEqual([plain, [12]]);
});

it("nothing is said of an inode that has one, nor of one of which the kernel asks nothing", async () => {
  const { words, looked } = create();
  words.noteAsked();
  const others: Attr[] = [attrOf({ ino: 13, generation: 1 }), attrOf(id, { mode: 0o100604 }), attrOf(id, { mode: 0o120777 })];
  for (const attr of others) expect(words.attr({ ino: attr.ino, generation: 1 }, attr)).toEqual(attr);
  expect(looked).toEqual([13]);
  expect(words.entry(null)).toBeNull();
  expect(await words.entry(Promise.resolve({ id, attr: plain }))).toEqual({ id, attr: { ...plain, hasNoAcl: true } });
  expect(words.entries([null, { id, attr: plain }])).toEqual([null, { id, attr: { ...plain, hasNoAcl: true } }]);
  expect(words.attrs([id, id], [plain, null])).toEqual([{ ...plain, hasNoAcl: true }, null]);
});

it("on a file system without ACLs nobody looks", () => {
  const { words, looked } = create({ hasAcls: false });
  words.noteAsked();
  expect([words.attr(id, plain), looked]).toEqual([plain, []]);
});

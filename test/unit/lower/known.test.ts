/** What is known without asking: never a name that is missing and may be there, never attributes that may be others (hazard F21). */
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DirectoryNames, type NamesTold } from "../../../overlay/lower/directory-names.ts";
import { ACCESS_ACL } from "../../../overlay/lower/linux.ts";
import type { Attr, DirPage, FileId } from "../../../overlay/lower/lower.ts";
import {
  type Change,
  KNOWN_ACL_BYTES_MAX,
  KNOWN_DATA_BYTES_MAX,
  KNOWN_INODES_MAX,
  KnownInodes,
  NO_HOLDS,
  type Reading,
} from "../../../overlay/lower/remote/known.ts";
import { attr, bytes, child, childAttr, create, dir } from "./known-lab.ts";

describe("what was read", () => {
  it("is known while the lock that was here before it was asked for has not left", () => {
    const { locks, known } = create();
    expect([known.attr(dir), known.entry(dir, bytes("a"))]).toEqual([null, undefined]);
    const reading = known.reading();
    known.read(reading, dir, attr);
    known.read(reading, child, childAttr);
    known.readName(reading, dir, bytes("a"), child);
    known.readName(reading, dir, bytes("\xe4"), null);
    expect(known.attr(dir)).toBe(attr);
    expect(known.entry(dir, bytes("a"))).toEqual({ id: child, attr: childAttr });
    expect([known.entry(dir, bytes("\xe4")), known.isAbsent(dir, bytes("\xe4"))]).toEqual([null, true]);
    expect([known.entry(dir, bytes("b")), known.isAbsent(dir, bytes("b"))]).toEqual([undefined, false]);
    // Nor of an older one with the same number.
    expect(known.attr({ ino: dir.ino, generation: 6 })).toBeNull();
    locks.held = 0;
    expect([known.attr(dir), known.entry(dir, bytes("a"))]).toEqual([null, undefined]);
    locks.held = 3;
    expect(known.attr(dir)).toBe(attr);
    locks.comeAgain();
    expect([known.attr(dir), known.entry(dir, bytes("a")), known.isAbsent(dir, bytes("\xe4"))]).toEqual([null, undefined, false]);
  });

  it("is not known if the lock came, or came again, after it was asked for", () => {
    const { locks, known } = create();
    const reading = known.reading();
    locks.comeAgain();
    known.read(reading, dir, attr);
    known.readName(reading, dir, bytes("a"), null);
    expect([known.attr(dir), known.isAbsent(dir, bytes("a"))]).toEqual([null, false]);
  });

  it("is not known if a change was under way when it was asked for, or began since", () => {
    const { known } = create();
    const change = known.begin(dir, bytes("a"));
    const beside = known.reading();
    known.read(beside, dir, attr);
    known.end(change, null);
    known.read(beside, dir, attr);
    expect(known.attr(dir)).toBeNull();
    const before = known.reading();
    known.end(known.begin(dir, bytes("a")), null);
    known.read(before, dir, attr);
    known.readName(before, dir, bytes("a"), null);
    expect([known.attr(dir), known.isAbsent(dir, bytes("a"))]).toEqual([null, false]);
    known.read(known.reading(), dir, attr);
    expect(known.attr(dir)).toBe(attr);
  });

  it("of names is known beside changes of other names, and of the directory's attributes", () => {
    const { known } = create();
    const changes = [known.begin(dir, bytes("a")), known.begin(dir)];
    const beside = known.reading();
    for (const name of ["a", "b"]) known.readName(beside, dir, bytes(name), null);
    expect([known.isAbsent(dir, bytes("a")), known.isAbsent(dir, bytes("b"))]).toEqual([false, true]);
    for (const change of changes) known.end(change, null);
    for (const name of ["a", "c"]) known.readName(beside, dir, bytes(name), null);
    expect([known.isAbsent(dir, bytes("a")), known.isAbsent(dir, bytes("c"))]).toEqual([false, true]);
    const under = known.begin(dir, bytes("b"));
    const before = known.reading();
    known.clear();
    for (const name of ["a", "b", "d"]) known.readName(before, dir, bytes(name), null);
    known.end(under, null);
    for (const name of ["a", "b", "d"]) known.readName(before, dir, bytes(name), null);
    expect(["a", "b", "d"].map((name) => known.isAbsent(dir, bytes(name)))).toEqual([false, false, false]);
  });

  it("of an access ACL is known beside changes of names, and is ended by each other change of its inode", () => {
    const { known } = create();
    expect(known.xattr(dir, ACCESS_ACL)).toBeUndefined();
    const names = known.begin(dir, bytes("a"));
    const acl = bytes("an ACL");
    known.readAcl(known.reading(), dir, acl);
    expect(known.xattr(dir, ACCESS_ACL)).toEqual(acl);
    known.end(names, null);
    known.end(known.begin(dir, bytes("b")), attr);
    expect(known.xattr(dir, ACCESS_ACL)).toEqual(acl);
    const before = known.reading();
    const change = known.begin(dir);
    expect(known.xattr(dir, ACCESS_ACL)).toBeUndefined();
    const beside = known.reading();
    for (const reading of [before, beside]) known.readAcl(reading, dir, null);
    known.end(change, null);
    for (const reading of [before, beside]) known.readAcl(reading, dir, null);
    expect(known.xattr(dir, ACCESS_ACL)).toBeUndefined();
    known.readAcl(known.reading(), dir, null);
    expect(known.xattr(dir, ACCESS_ACL)).toBeNull();
  });

  it("of an access ACL is known as long as the lock does not leave, and the owner is the same", () => {
    const { locks, known } = create();
    const reading = known.reading();
    known.readAcl(reading, dir, null);
    expect([known.xattr(dir, ACCESS_ACL), known.xattr(child, ACCESS_ACL)]).toEqual([null, undefined]);
    locks.comeAgain();
    expect(known.xattr(dir, ACCESS_ACL)).toBeUndefined();
    known.readAcl(reading, dir, null);
    expect(known.xattr(dir, ACCESS_ACL)).toBeUndefined();
    known.readAcl(known.reading(), dir, null);
    // Nor are attributes of a new hold those of the one before.
    locks.comeAgain();
    known.read(known.reading(), dir, attr);
    expect([known.attr(dir), known.xattr(dir, ACCESS_ACL)]).toEqual([attr, undefined]);
    // A change of names is under way: the directory is not forgotten.
    const names = known.begin(dir, bytes("a"));
    const ofLastOwner = known.reading();
    known.readAcl(ofLastOwner, dir, null);
    expect(known.xattr(dir, ACCESS_ACL)).toBeNull();
    known.clear();
    known.readAcl(ofLastOwner, dir, null);
    expect(known.xattr(dir, ACCESS_ACL)).toBeUndefined();
    known.end(names, null);
    known.readAcl(ofLastOwner, dir, null);
    expect(known.xattr(dir, ACCESS_ACL)).toBeUndefined();
  });

  it("of an access ACL, or extended attributes, is nothing where others change them without the locks", () => {
    const { known } = create(false);
    known.readAcl(known.reading(), dir, null);
    known.read(known.reading(), dir, { ...attr, xattrNames: Buffer.alloc(0) });
    expect([known.attr(dir)?.mode, known.xattr(dir, ACCESS_ACL), known.xattrList(dir)]).toEqual([attr.mode, undefined, null]);
    known.made(dir, { ...attr, xattrNames: Buffer.alloc(0) });
    expect([known.xattr(dir, ACCESS_ACL), known.xattrList(dir)]).toEqual([undefined, null]);
  });

  it("of an access ACL, or extended attributes, that was asked for before a change that was forgotten since does not count", () => {
    for (const again of [false, true]) {
      const { known } = create();
      const reading = known.reading();
      known.end(known.beginXattrs(dir), null);
      for (let ino = 100; ino <= 100 + KNOWN_INODES_MAX; ino += 1) known.readAcl(known.reading(), { ino, generation: 1 }, null);
      // It is there again, of another reading.
      if (again) known.readName(known.reading(), dir, bytes("x"), null);
      known.readAcl(reading, dir, null);
      known.read(reading, dir, { ...attr, xattrNames: Buffer.alloc(0) });
      expect([again, known.xattr(dir, ACCESS_ACL), known.xattrList(dir)]).toEqual([again, undefined, null]);
    }
  });

  it("of an access ACL is kept in memory of its own, if it is no longer than KNOWN_ACL_BYTES_MAX", () => {
    const { known } = create();
    const acl = Buffer.alloc(KNOWN_ACL_BYTES_MAX, 1);
    known.readAcl(known.reading(), dir, acl);
    acl.fill(0);
    const kept = known.xattr(dir, ACCESS_ACL);
    expect([kept, kept?.buffer.byteLength]).toEqual([Buffer.alloc(KNOWN_ACL_BYTES_MAX, 1), KNOWN_ACL_BYTES_MAX]);
    known.readAcl(known.reading(), child, Buffer.alloc(KNOWN_ACL_BYTES_MAX + 1));
    expect(known.xattr(child, ACCESS_ACL)).toBeUndefined();
  });

  it("of attributes says which extended attributes there are, if the owner has looked", () => {
    const { locks, known } = create();
    known.read(known.reading(), dir, attr);
    expect([known.xattr(dir, bytes("user.a")), known.xattrList(dir)]).toEqual([undefined, null]);
    const two = bytes("user.ab\0trusted.c\0");
    known.read(known.reading(), dir, { ...attr, xattrNames: two });
    expect(known.xattrList(dir)).toEqual(two);
    const isAbsent = (name: string): boolean => known.xattr(dir, bytes(name)) === null;
    const names = [
      "user.ab",
      "user.a",
      "user.b",
      "trusted.c",
      "trusted.d",
      "security.capability",
      "security.selinux",
      "system.posix_acl_access",
    ];
    expect(names.filter((name) => !isAbsent(name))).toEqual(["user.ab", "trusted.c"]);
    // Of these a list says nothing.
    for (const name of ["security.ima", "system.other", "os2.a", "user", "user."]) expect([name, isAbsent(name)]).toEqual([name, false]);
    known.end(known.begin(dir), attr);
    known.end(known.begin(dir, bytes("a")), attr);
    expect([known.xattrList(dir), isAbsent("user.a")]).toEqual([two, true]);
    const before = known.reading();
    const change = known.beginXattrs(dir);
    expect([known.xattrList(dir), isAbsent("user.a")]).toEqual([null, false]);
    const beside = known.reading();
    for (const reading of [before, beside]) known.read(reading, dir, { ...attr, xattrNames: two });
    known.end(change, null);
    for (const reading of [before, beside]) known.read(reading, dir, { ...attr, xattrNames: two });
    expect([known.xattrList(dir), isAbsent("user.a")]).toEqual([null, false]);
    known.read(known.reading(), dir, { ...attr, xattrNames: two });
    expect(known.xattrList(dir)).toEqual(two);
    locks.comeAgain();
    known.read(known.reading(), dir, attr);
    expect([known.xattrList(dir), isAbsent("user.a")]).toEqual([null, false]);
    // Of the last owner; a change of names is under way, so the directory is not forgotten.
    known.begin(dir, bytes("a"));
    const last = known.reading();
    known.clear();
    known.read(last, dir, { ...attr, xattrNames: two });
    expect(known.xattrList(dir)).toBeNull();
  });

  it("of a list that names what a change of the data takes away is no list afterwards, and says of no such name that it is there", () => {
    const { known } = create();
    known.read(known.reading(), child, { ...childAttr, xattrNames: bytes("security.capability\0") });
    expect([known.xattrList(child), known.xattr(child, bytes("security.capability")), known.xattr(child, bytes("user.a"))]).toEqual([
      null,
      undefined,
      null,
    ]);
  });

  it("is what the answer to its making says, if that says so", () => {
    const { locks, known } = create();
    known.made(child, childAttr);
    expect(known.xattrList(child)).toBeNull();
    known.made(child, { ...childAttr, xattrNames: Buffer.alloc(0) });
    known.made(dir, { ...attr, xattrNames: bytes("system.posix_acl_default\0") });
    expect([known.xattrList(child), known.xattrList(dir)]).toEqual([Buffer.alloc(0), bytes("system.posix_acl_default\0")]);
    // What it is made of does not count under another lock.
    locks.comeAgain();
    expect(known.xattrList(child)).toBeNull();
    locks.held = 0;
    known.made(child, { ...childAttr, xattrNames: Buffer.alloc(0) });
    locks.held = locks.count;
    expect(known.xattrList(child)).toBeNull();
  });

  it("of extended attributes is not what the answer to its making says, beside a change of them", () => {
    const { known } = create();
    known.read(known.reading(), child, childAttr);
    const change = known.beginXattrs(child);
    known.made(child, { ...childAttr, xattrNames: Buffer.alloc(0) });
    expect([known.xattrList(child), known.xattr(child, bytes("user.a"))]).toEqual([null, undefined]);
    known.end(change, null);
    expect([known.xattrList(child), known.xattr(child, bytes("user.a"))]).toEqual([null, undefined]);
    known.made(child, { ...childAttr, xattrNames: Buffer.alloc(0) });
    expect(known.xattrList(child)).toEqual(Buffer.alloc(0));
  });

  it("of attributes lacks the names of extended ones once for each hold, and never where those are not kept", () => {
    const lacks = (keepsXattrs: boolean): boolean[] => {
      const { locks, known } = create(keepsXattrs);
      return [1, 2].flatMap(() => {
        locks.comeAgain();
        const before = known.lacksXattrNames(dir);
        known.read(known.reading(), dir, attr);
        const said = [known.lacksXattrNames(dir), known.lacksXattrNames(dir)];
        known.read(known.reading(), dir, { ...attr, xattrNames: Buffer.alloc(0) });
        return [before, ...said, known.lacksXattrNames(dir)];
      });
    };
    expect(lacks(true)).toEqual([false, true, false, false, false, true, false, false]);
    expect(lacks(false)).not.toContain(true);
  });

  it("is nothing where there are no locks", () => {
    const known = new KnownInodes(NO_HOLDS, () => true);
    known.read(known.reading(), dir, attr);
    known.made(dir, attr);
    expect([known.attr(dir), known.isAbsent(dir, bytes("a")), known.wantsAttr(known.begin(dir))]).toEqual([null, false, false]);
  });
});

describe("what was changed here", () => {
  it("is known by the answer, if nothing was changed beside it", () => {
    const { locks, known } = create();
    const one = known.begin(dir, bytes("a"));
    expect(known.wantsAttr(one)).toBe(true);
    known.end(one, attr, child);
    expect(known.attr(dir)).toBe(attr);
    known.read(known.reading(), child, childAttr);
    expect(known.entry(dir, bytes("a"))).toEqual({ id: child, attr: childAttr });
    const two = known.begin(dir, bytes("a"));
    expect([known.attr(dir), known.entry(dir, bytes("a"))]).toEqual([null, undefined]);
    known.end(two, attr, null);
    expect(known.entry(dir, bytes("a"))).toBeNull();
    known.end(known.begin(dir, bytes("a")), null);
    expect([known.attr(dir), known.entry(dir, bytes("a"))]).toEqual([null, undefined]);
    const three = known.begin(dir, bytes("a"));
    locks.comeAgain();
    known.end(three, attr, null);
    expect([known.attr(dir), known.isAbsent(dir, bytes("a"))]).toEqual([null, false]);
  });

  it("is not known if another change began before that one ended", () => {
    const { known } = create();
    const [one, two] = [known.begin(dir, bytes("a")), known.begin(dir)];
    expect([known.wantsAttr(one), known.wantsAttr(two)]).toEqual([true, false]);
    known.end(one, attr, null);
    known.end(two, attr);
    expect([known.attr(dir), known.isAbsent(dir, bytes("a"))]).toEqual([null, false]);
    const three = known.begin(dir);
    known.end(three, attr);
    expect(known.attr(dir)).toBe(attr);
  });
});

describe("the data of a small file", () => {
  const data = Buffer.from("hello");
  const sized = { ...childAttr, size: data.byteLength };
  const text = (known: KnownInodes, offset: number, count: number): string | null => {
    const taken = known.takeData(child, offset, count);
    return taken === null ? null : Buffer.from(taken).toString();
  };

  it("is told until somebody has read to its end, and is a copy", () => {
    const { known } = create();
    known.read(known.reading(), child, sized);
    const came = Buffer.from(data);
    known.readData(known.reading(), child, came);
    came.fill(0);
    expect([known.hasData(child), text(known, 1, 3), text(known, 3, 100)]).toEqual([true, "ell", "lo"]);
    expect([known.hasData(child), text(known, 0, 5), known.attr(child)]).toEqual([false, null, sized]);
  });

  it("is known under the lock under which it was asked for, as long as nothing was changed here", () => {
    const { locks, known } = create();
    const read = (): void => {
      known.read(known.reading(), child, sized);
      known.readData(known.reading(), child, data);
    };
    read();
    locks.comeAgain();
    expect(text(known, 0, 5)).toBeNull();
    const before = known.reading();
    locks.comeAgain();
    known.read(known.reading(), child, sized);
    known.readData(before, child, data);
    expect(text(known, 0, 5)).toBeNull();
    read();
    const change = known.begin(child);
    known.readData(known.reading(), child, data);
    expect(text(known, 0, 5)).toBeNull();
    known.end(change, sized);
    expect([known.attr(child), text(known, 0, 5)]).toEqual([sized, null]);
    read();
    known.clear();
    expect(text(known, 0, 5)).toBeNull();
  });

  it("is not known where it is not as long as the file", () => {
    const { known } = create();
    known.readData(known.reading(), child, data);
    known.read(known.reading(), child, { ...sized, size: 6 });
    known.readData(known.reading(), child, data);
    expect(text(known, 0, 5)).toBeNull();
  });
});

it("another owner begins with nothing known, and what was under way at the last one is still under way", () => {
  const { known } = create();
  known.made(child, attr);
  const before = known.reading();
  known.read(before, dir, attr);
  known.readName(before, dir, bytes("c"), null);
  const change = known.begin(dir, bytes("a"));
  known.clear();
  expect([known.attr(dir), known.isAbsent(dir, bytes("c")), known.isAbsent(child, bytes("b"))]).toEqual([null, false, false]);
  const beside = known.reading();
  known.read(before, child, childAttr);
  known.read(beside, dir, attr);
  expect([known.attr(child), known.attr(dir)]).toEqual([null, null]);
  known.end(change, null);
  known.read(beside, dir, attr);
  expect(known.attr(dir)).toBeNull();
});

describe("limits", () => {
  const at = (ino: number): FileId => ({ ino, generation: 1 });

  it("of data: what came first is forgotten, also after others were read", () => {
    const { known } = create();
    const file = Buffer.alloc(8192);
    const read = (ino: number): void => {
      known.read(known.reading(), at(ino), { ...childAttr, size: file.byteLength });
      known.readData(known.reading(), at(ino), file);
    };
    const room = KNOWN_DATA_BYTES_MAX / file.byteLength;
    for (let ino = 1; ino <= room; ino += 1) read(ino);
    expect([known.hasData(at(1)), known.hasData(at(room))]).toEqual([true, true]);
    read(1);
    read(room + 1);
    expect([known.hasData(at(1)), known.hasData(at(2)), known.hasData(at(3))]).toEqual([true, false, true]);
    for (let ino = 3; ino <= room + 1; ino += 1) known.takeData(at(ino), 0, 8192);
    for (let ino = 3; ino <= room + 1; ino += 1) read(ino);
    expect([known.hasData(at(1)), known.hasData(at(room + 1))]).toEqual([true, true]);
  });

  it("of inodes: one that is asked for stays", () => {
    const { known } = create();
    for (let ino = 1; ino <= KNOWN_INODES_MAX; ino += 1) known.read(known.reading(), at(ino), attr);
    expect(known.attr(at(1))).toBe(attr);
    known.read(known.reading(), at(0), attr);
    expect([known.attr(at(1)), known.attr(at(2))]).toEqual([attr, null]);
  });

  it("of inodes: the one that was read or changed longest ago goes, but none with a change under way", () => {
    const { known } = create();
    const change = known.begin(at(1));
    for (let ino = 2; ino <= KNOWN_INODES_MAX; ino += 1) known.read(known.reading(), at(ino), attr);
    known.read(known.reading(), at(2), attr);
    const old = known.reading();
    known.read(known.reading(), at(0), attr);
    known.read(known.reading(), at(KNOWN_INODES_MAX + 1), attr);
    expect([known.attr(at(2)), known.attr(at(3))]).toEqual([attr, null]);
    known.read(old, at(1), attr);
    expect(known.attr(at(1))).toBeNull();
    known.end(change, attr);
    expect(known.attr(at(1))).toBe(attr);
  });

  it("of inodes: a change that was forgotten still counts against what was asked for before it", () => {
    const { known } = create();
    const old = known.reading();
    known.end(known.begin(at(1)), null);
    for (let ino = 2; ino <= KNOWN_INODES_MAX + 1; ino += 1) known.read(known.reading(), at(ino), attr);
    known.read(old, at(1), attr);
    expect(known.attr(at(1))).toBeNull();
    known.read(known.reading(), at(1), attr);
    expect(known.attr(at(1))).toBe(attr);
  });

  it("of inodes: others that are forgotten meanwhile take nothing from an answer", () => {
    const { known } = create();
    for (let ino = 1; ino <= KNOWN_INODES_MAX; ino += 1) known.read(known.reading(), at(ino), attr);
    const old = known.reading();
    known.end(known.begin(dir), null);
    const many = Array.from({ length: 100 }, (_, count) => at(KNOWN_INODES_MAX + 1000 + count));
    for (const id of many) known.read(old, id, attr);
    expect(many.filter((id) => known.attr(id) === null)).toEqual([]);
    expect(known.attr(at(1))).toBeNull();
  });

  it("of changes under way: with more than there is room for, none is forgotten", () => {
    const { known } = create();
    const changes = Array.from({ length: KNOWN_INODES_MAX + 70 }, (_, ino) => known.begin(at(ino)));
    for (const [ino] of changes.entries()) known.read(known.reading(), at(ino), attr);
    for (const [ino, change] of changes.entries()) {
      expect(known.attr(at(ino))).toBeNull();
      known.end(change, null);
    }
  });
});

/**
 * A directory and a file at the owner, calls whose requests and answers arrive in any order, and a lock that leaves between calls: another node changes
 * both while it is away. The owner forgets the directory, or tells no more than two names; there is another owner.
 */
it("says nothing false, whatever the order in which the owner does things and answers", () => {
  const NAMES = [0, 1, 2, 3, 4];
  const none = bytes("none");
  const name = fc.integer({ min: 0, max: NAMES.length - 1 });
  const rare = fc.record({ do: fc.constantFrom("forget" as const, "succeed" as const) });
  const step = fc.oneof(
    { weight: 3, arbitrary: fc.record({ do: fc.constant("change" as const), name, adds: fc.boolean() }) },
    { weight: 6, arbitrary: fc.record({ do: fc.constantFrom("read" as const, "ask" as const), name }) },
    { weight: 20, arbitrary: fc.record({ do: fc.constantFrom("execute" as const, "answer" as const), which: fc.nat() }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant("lose" as const), which: fc.nat() }) },
    { weight: 15, arbitrary: fc.record({ do: fc.constant("look" as const), name, lists: fc.boolean() }) },
    { weight: 4, arbitrary: fc.record({ do: fc.constant("elsewhere" as const), name }) },
    { weight: 4, arbitrary: fc.record({ do: fc.constant("list" as const) }) },
    { weight: 1, arbitrary: rare },
  );
  interface Sent {
    readonly change: Change | null;
    readonly reading: Reading;
    readonly name: number;
    readonly adds: boolean;
    /** Null: its changed names are not asked for. */
    readonly since: number | null;
    /** A listing is asked for as well, from there on: of two names, or of all. */
    readonly from: number;
  }
  const pageWith = (some: readonly number[], end: boolean): DirPage => ({
    entries: some.map((one) => ({ name: bytes(`${one}`), type: 8, ino: 100 + one, cookie: BigInt(one + 1) })),
    end,
  });
  // Names that count: of a node that has changed none, and behind names that were read by themselves under this grant. And none told, though some were known.
  // And listings that are known, of one answer and of several.
  const reached = { afterAbsents: 0, afterPlain: 0, untold: 0, listed: 0, listedInParts: 0 };
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120, size: "max" }), fc.boolean(), fc.constantFrom(2, 10), (steps, madeThere, most) => {
      const { locks, known } = create();
      const names = new Set<number>();
      let owner = new DirectoryNames();
      if (madeThere) owner.made(dir);
      const change = (changed: number, adds: boolean): void => {
        owner.changing(dir, bytes(`${changed}`));
        if (adds) owner.is(dir, bytes(`${changed}`), child);
        else owner.gone(dir, bytes(`${changed}`));
        if (adds) names.add(changed);
        else names.delete(changed);
      };
      let mtime = 0;
      let hasChanged = false;
      /** Under this grant names were read by themselves. */
      let plain = false;
      const now = (): Attr => ({ ...attr, mtimeSec: mtime });
      const sent: Sent[] = [];
      const executed: (Sent & { attr: Attr; there: boolean; told: NamesTold | null; page: DirPage })[] = [];
      /** Names that a listing is known to have first, and whether that is all; null: not known. */
      const listing = (): { readonly names: readonly number[]; readonly end: boolean } | null => {
        const page = known.page(dir, 0n, 4096, "plain");
        return page === null ? null : { names: page.entries.map((one) => Number(one.name.toString())), end: page.end };
      };
      const fromNow = (): number => {
        const begun = listing();
        return begun === null || begun.end ? 0 : (begun.names.at(-1) ?? -1) + 1;
      };

      const execute = (call: Sent): void => {
        if (call.change !== null) {
          mtime += 1;
          change(call.name, call.adds);
        }
        const told = call.since === null ? null : owner.since(dir, call.since, most);
        const left = [...names].toSorted((a, b) => a - b).filter((one) => one >= call.from);
        const some = call.name % 2 === 0 ? left : left.slice(0, 2);
        const page = pageWith(some, some.length === left.length);
        executed.push({ ...call, attr: now(), there: names.has(call.name), told, page });
      };
      const answer = (call: (typeof executed)[number], lost: boolean): void => {
        if (call.change !== null) known.end(call.change, lost ? null : call.attr, ...(lost ? [] : [call.there ? child : null]));
        if (call.change !== null || lost) return;
        known.read(call.reading, dir, call.attr);
        if (call.since !== null) {
          const knewAll = known.isAbsent(dir, none);
          known.readNames(call.reading, dir, call.since, call.told);
          if (call.since > 0 && call.told === null) reached.untold += 1;
          if (!knewAll && known.isAbsent(dir, none)) {
            if (call.since === 0 && !hasChanged) reached.afterAbsents += 1;
            if (call.told?.all === false && plain) reached.afterPlain += 1;
          }
        }
        known.readName(call.reading, dir, bytes(`${call.name}`), call.there ? child : null);
        known.readPage(call.reading, dir, BigInt(call.from), call.page);
        if (listing()?.end === true) reached[call.from === 0 ? "listed" : "listedInParts"] += 1;
        plain ||= call.since === null && call.reading.grants === locks.count;
      };
      known.read(known.reading(), child, childAttr);
      for (const one of steps) {
        if (one.do === "change" || one.do === "read" || one.do === "ask") {
          const begun = one.do === "change" ? known.begin(dir, bytes(`${one.name}`)) : null;
          hasChanged ||= begun !== null;
          const since = one.do === "ask" ? known.namesSince(dir) : null;
          sent.push({
            change: begun,
            reading: known.reading(),
            name: one.name,
            adds: one.do === "change" && one.adds,
            since,
            from: fromNow(),
          });
        } else if (one.do === "look") {
          // A listing brings names, too, and asks for no others.
          const since = one.lists ? null : known.namesSince(dir);
          execute({ change: null, reading: known.reading(), name: one.name, adds: false, since, from: fromNow() });
          answer(executed.pop() as (typeof executed)[number], false);
        } else if (one.do === "execute") {
          const [call] = sent.splice(one.which % Math.max(1, sent.length), 1);
          if (call !== undefined) execute(call);
        } else if (one.do === "elsewhere") {
          // A change keeps its lock here until it is answered; what reads without one may be on its way.
          if ([...sent, ...executed].some((call) => call.change !== null)) continue;
          mtime += 1;
          change(one.name, !names.has(one.name));
          locks.comeAgain();
          plain = false;
          known.read(known.reading(), child, childAttr);
        } else if (one.do === "list") {
          if (owner.listing(dir))
            owner.listed(
              dir,
              [...names].map((listed) => bytes(`${listed}`)),
            );
        } else if (one.do === "answer" || one.do === "lose") {
          const [call] = executed.splice(one.which % Math.max(1, executed.length), 1);
          if (call !== undefined) answer(call, one.do === "lose");
        } else if (one.do === "forget") owner.forget(dir);
        else {
          owner = new DirectoryNames();
          known.clear();
          known.read(known.reading(), child, childAttr);
        }
        const wrong = NAMES.filter((looked) => {
          const entry = known.entry(dir, bytes(`${looked}`));
          return entry !== undefined && (entry !== null) !== names.has(looked);
        });
        expect(wrong).toEqual([]);
        const found = listing();
        const there = [...names].toSorted((a, b) => a - b);
        const part = found === null ? null : there.slice(0, found.names.length);
        expect(found?.names ?? null).toEqual(part);
        expect(found?.end === true && found.names.length < there.length).toBe(false);
        expect([null, mtime]).toContain(known.attr(dir)?.mtimeSec ?? null);
      }
    }),
    { numRuns: 1000 },
  );
  for (const [what, times] of Object.entries(reached)) expect([what, times >= 20]).toEqual([what, true]);
});

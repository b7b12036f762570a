/** Names that are known without asking: never one that is missing and may be there (hazards F21, F32). */
import { describe, expect, it } from "vitest";
import type { NamesTold } from "../../../overlay/lower/directory-names.ts";
import type { FileId } from "../../../overlay/lower/lower.ts";
import { CHANGED_NAMES_MAX, KNOWN_NAMES_ALL_MAX, KNOWN_NAMES_MAX } from "../../../overlay/lower/remote/known-names.ts";
import type { KnownInodes } from "../../../overlay/lower/remote/known.ts";
import { attr, bytes, child, childAttr, create, dir, type Locks } from "./known-lab.ts";

describe("a directory that was made here", () => {
  it("has no names but those that were given", () => {
    const { locks, known } = create();
    known.made(dir, attr);
    expect(known.isAbsent(dir, bytes("a"))).toBe(true);
    const change = known.begin(dir, bytes("a"));
    expect([known.isAbsent(dir, bytes("a")), known.isAbsent(dir, bytes("b"))]).toEqual([false, true]);
    known.end(change, null);
    expect(known.isAbsent(dir, bytes("a"))).toBe(false);
    locks.comeAgain();
    expect(known.isAbsent(dir, bytes("b"))).toBe(false);
    known.made(dir, attr);
    known.forget(dir);
    expect(known.isAbsent(dir, bytes("b"))).toBe(false);
  });

  it("knows all of them however many were there for a while: what is gone takes no room", () => {
    const { known } = create();
    known.made(dir, attr);
    for (let no = 0; no <= KNOWN_NAMES_MAX; no += 1) {
      const [old, now] = [bytes(`old${no}`), bytes(`new${no}`)];
      known.end(known.begin(dir, now), attr, child);
      known.end(known.begin(dir, now, old), attr, null, child);
      known.end(known.begin(dir, old), attr, null);
      expect([now, old].map((name) => known.isAbsent(dir, name))).toEqual([true, true]);
    }
    expect(known.isAbsent(dir, bytes("never there"))).toBe(true);
  });
});

describe("names of a directory that several nodes change (hazard F32)", () => {
  const absent = (known: KnownInodes, ...names: string[]): boolean[] => names.map((name) => known.isAbsent(dir, bytes(name)));
  const told = (version: number, all: boolean, ...names: string[]): NamesTold => ({ version, all, names: names.map(bytes), gone: [] });
  /** This node has changed a name, and the lock was elsewhere. */
  const fought = (): { locks: Locks; known: KnownInodes } => {
    const { locks, known } = create();
    expect(known.namesSince(dir)).toBeNull();
    known.end(known.begin(dir, bytes("mine")), attr, child);
    expect(known.namesSince(dir)).toBeNull();
    locks.comeAgain();
    return { locks, known };
  };
  const read = (known: KnownInodes, answer: NamesTold | null): void => {
    const since = known.namesSince(dir);
    if (since === null) throw new Error("its names are not asked for");
    known.readNames(known.reading(), dir, since, answer);
  };

  it("are those that the owner tells; and when the lock comes again, those of then but for what was changed since", () => {
    const { locks, known } = fought();
    expect(known.namesSince(dir)).toBe(0);
    read(known, told(7, true, "mine", "a"));
    expect([known.namesSince(dir), ...absent(known, "mine", "a", "b")]).toEqual([null, false, false, true]);
    known.readName(known.reading(), dir, bytes("a"), child);
    known.read(known.reading(), child, childAttr);
    expect(known.entry(dir, bytes("a"))).toEqual({ id: child, attr: childAttr });
    locks.comeAgain();
    expect([known.entry(dir, bytes("a")), ...absent(known, "b")]).toEqual([undefined, false]);
    expect(known.namesSince(dir)).toBe(7);
    known.end(known.begin(dir, bytes("b")), attr, child);
    expect(absent(known, "b", "c")).toEqual([false, false]);
    read(known, told(9, false, "c", "b"));
    known.read(known.reading(), child, childAttr);
    expect([known.entry(dir, bytes("a")), ...absent(known, "b", "c", "d")]).toEqual([{ id: child, attr: childAttr }, false, false, true]);
    locks.comeAgain();
    expect(known.namesSince(dir)).toBe(9);
    read(known, told(10, false, "a"));
    known.read(known.reading(), child, childAttr);
    expect([known.entry(dir, bytes("a")), ...absent(known, "d")]).toEqual([undefined, true]);
    locks.comeAgain();
    expect(known.namesSince(dir)).toBe(10);
    // What a dead owner has told does not count; a change under way keeps the rest.
    const change = known.begin(dir);
    known.clear();
    known.end(change, null);
    expect(known.namesSince(dir)).toBe(0);
  });

  it("are asked for where nobody fights, too, after ABSENT_NAMES_MIN LOOKUPs under one lock that found nothing", () => {
    const { locks, known } = create();
    const lookUp = (name: string, id: FileId | null): number | null => {
      known.readName(known.reading(), dir, bytes(name), id);
      return known.namesSince(dir);
    };
    expect([lookUp("a", null), lookUp("b", null), lookUp("c", child)]).toEqual([null, null, null]);
    locks.comeAgain();
    expect([lookUp("a", null), lookUp("b", null), lookUp("c", child), lookUp("d", null)]).toEqual([null, null, null, 0]);
    read(known, told(7, true, "c"));
    expect([known.namesSince(dir), ...absent(known, "c", "e")]).toEqual([null, false, true]);
    // What was known then is of use at once.
    locks.comeAgain();
    expect([known.namesSince(dir), ...absent(known, "e")]).toEqual([7, false]);
    known.readName(known.reading(), dir, bytes("e"), child);
    known.readName(known.reading(), dir, bytes("c"), null);
    read(known, told(9, false, "c", "e"));
    expect(absent(known, "c", "e", "f")).toEqual([false, false, true]);
    locks.comeAgain();
    read(known, null);
    expect([known.namesSince(dir), lookUp("a", null), lookUp("b", null), lookUp("d", null)]).toEqual([null, null, null, 0]);
  });

  it("are asked for again under one lock when as many were looked for in vain as pay for those that were told", () => {
    const { locks, known } = create();
    const lookUps = (): number => {
      for (let count = 0; ; count += 1) {
        if (known.namesSince(dir) !== null || count === 1000) return count;
        known.readName(known.reading(), dir, bytes(`none${count}`), null);
      }
    };
    const forget = (): void => {
      for (let no = 0; no <= KNOWN_NAMES_MAX; no += 1) known.readName(known.reading(), dir, bytes(`n${no}`), child);
    };
    const names = Array.from({ length: 80 }, (_, no) => `f${no}`);
    expect(lookUps()).toBe(3);
    read(known, told(7, true, ...names));
    expect(absent(known, "none")).toEqual([true]);
    // Asked for beside it.
    known.readNames(known.reading(), dir, 0, told(7, true, ...names));
    forget();
    expect([...absent(known, "none"), lookUps()]).toEqual([false, 13]);
    // It cannot tell, and may know them by the next time.
    read(known, null);
    expect(lookUps()).toBe(0);
    const before = known.reading();
    known.end(known.begin(dir, bytes("mine")), attr, child);
    known.readNames(before, dir, 0, told(8, true, ...names));
    expect(lookUps()).toBe(3);
    read(known, told(8, true, ...names));
    forget();
    locks.comeAgain();
    // Where nodes fight, too, once the names were told under the lock that has come.
    expect(lookUps()).toBe(0);
    read(known, told(9, true, ...names));
    forget();
    expect(lookUps()).toBe(10);
  });

  it("are not asked for beside a change of the directory: the answer would not count", () => {
    const { locks, known } = fought();
    for (const change of [known.begin(dir, bytes("b")), known.begin(dir)]) {
      expect(known.namesSince(dir)).toBeNull();
      known.end(change, null);
    }
    expect(known.namesSince(dir)).toBe(0);
    read(known, told(7, true, "b"));
    locks.comeAgain();
    const change = known.begin(dir, bytes("c"));
    expect(known.namesSince(dir)).toBeNull();
    known.end(change, null);
    expect(known.namesSince(dir)).toBe(7);
  });

  it("that the owner tells as gone are not there", () => {
    const { locks, known } = fought();
    read(known, told(7, true, "a", "b"));
    known.readName(known.reading(), dir, bytes("a"), child);
    locks.comeAgain();
    read(known, { ...told(9, false, "b"), gone: [bytes("a")] });
    expect(absent(known, "a", "b", "c")).toEqual([true, false, true]);
  });

  it("that were found under this very lock stay, whatever the owner tells or cannot tell", () => {
    const { locks, known } = fought();
    const find = (name: string, id: FileId | null): void => {
      known.readName(known.reading(), dir, bytes(name), id);
      if (id !== null) known.read(known.reading(), id, childAttr);
    };
    const seen = (): unknown[] => [known.entry(dir, bytes("a")), ...absent(known, "none", "c", "d")];
    for (const name of ["none", "a"]) {
      find(name, name === "a" ? child : null);
      read(known, null);
    }
    const found = { id: child, attr: childAttr };
    expect(seen()).toEqual([found, true, false, false]);
    read(known, told(7, true, "a", "c"));
    expect(seen()).toEqual([found, true, false, true]);
    locks.comeAgain();
    read(known, null);
    expect(seen()).toEqual([undefined, false, false, false]);
  });

  it("are not known where the owner cannot tell, and where something was changed here since it was asked", () => {
    const { locks, known } = fought();
    read(known, null);
    expect([known.namesSince(dir), ...absent(known, "b")]).toEqual([0, false]);
    const before = known.reading();
    known.end(known.begin(dir, bytes("b")), attr, child);
    known.readNames(before, dir, 0, told(7, true));
    expect(absent(known, "b", "c")).toEqual([false, false]);
    const change = known.begin(dir, bytes("b"));
    known.readNames(known.reading(), dir, 0, told(7, true));
    expect(absent(known, "b", "c")).toEqual([false, false]);
    known.end(change, attr, child);
    const held = known.reading();
    locks.comeAgain();
    known.readNames(held, dir, 0, told(7, true));
    expect(absent(known, "b", "c")).toEqual([false, false]);
    read(known, told(8, true, "b"));
    expect(absent(known, "b", "c")).toEqual([false, true]);
    locks.comeAgain();
    // An answer to an older question.
    known.readNames(known.reading(), dir, 5, told(9, false));
    expect(absent(known, "b", "c")).toEqual([false, false]);
    read(known, null);
    expect([known.namesSince(dir), ...absent(known, "c")]).toEqual([0, false]);
  });
});

describe("limits", () => {
  const at = (ino: number): FileId => ({ ino, generation: 1 });

  it("of changed names: what was asked for before a change that is not remembered is not known, of whatever name", () => {
    const { known } = create();
    const under = known.begin(dir, bytes("under way"));
    const before = known.reading();
    const last = CHANGED_NAMES_MAX - 1;
    for (let no = 0; no < last; no += 1) known.end(known.begin(no % 2 === 0 ? dir : child, bytes(`n${no}`)), null);
    known.readName(before, dir, bytes("a"), null);
    expect(known.isAbsent(dir, bytes("a"))).toBe(true);
    known.end(known.begin(dir, bytes("last")), null);
    const names = ["b", "n0", "last", "under way"];
    for (const name of names) known.readName(before, dir, bytes(name), null);
    expect(names.map((name) => known.isAbsent(dir, bytes(name)))).toEqual([false, false, false, false]);
    // Those that are under way are remembered, and so is that one of them has ended.
    known.readName(known.reading(), dir, bytes("under way"), null);
    expect(known.isAbsent(dir, bytes("under way"))).toBe(false);
    known.end(under, null);
    known.readName(known.reading(), dir, bytes("under way"), null);
    expect(known.isAbsent(dir, bytes("under way"))).toBe(true);
  });

  it("of names in all: a directory of which all is known goes last", () => {
    const { known } = create();
    known.made(dir, attr);
    known.begin(dir, bytes("mine"));
    for (let ino = 100; ino <= 104; ino += 1) {
      for (let no = 0; no < KNOWN_NAMES_MAX; no += 1) known.readName(known.reading(), at(ino), bytes(`n${no}`), null);
    }
    expect([known.isAbsent(dir, bytes("none")), known.isAbsent(at(100), bytes("n1")), known.isAbsent(at(104), bytes("n1"))]).toEqual([
      true,
      false,
      true,
    ]);
  });

  it("of names: of one directory, and in all", () => {
    const { known } = create();
    known.made(dir, attr);
    for (let no = 0; no <= KNOWN_NAMES_MAX; no += 1) known.begin(dir, bytes(`n${no}`));
    expect(known.isAbsent(dir, bytes("none"))).toBe(false);
    const full = KNOWN_NAMES_ALL_MAX / KNOWN_NAMES_MAX;
    for (let ino = 100; ino <= 100 + full; ino += 1) {
      known.made(at(ino), attr);
      for (let no = 0; no < KNOWN_NAMES_MAX; no += 1) known.begin(at(ino), bytes(`n${no}`));
    }
    expect([known.isAbsent(at(100), bytes("none")), known.isAbsent(at(100 + full), bytes("none"))]).toEqual([false, true]);
  });
});

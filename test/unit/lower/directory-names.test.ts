/** What is known of names: never that one is absent which may be there, nor a file under a name that may be another's. */
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DirectoryNames, NOTED_CHANGES_MAX, NOTED_DIRECTORIES_MAX } from "../../../overlay/lower/directory-names.ts";
import { MAX_NAMES_TOLD, NAMES_TOLD_BYTES_MAX } from "../../../overlay/lower/limits.ts";
import type { FileId } from "../../../overlay/lower/lower.ts";

const id = (ino: number, generation = 1): FileId => ({ ino, generation });
const name = (text: string): Buffer => Buffer.from(text);
const dir = id(2);

describe("names of a directory", () => {
  it("are all known where the directory was made here, and else those that were found", () => {
    const names = new DirectoryNames();
    expect(names.get(dir, name("f"))).toBeUndefined();
    names.is(dir, name("f"), id(12));
    expect(names.get(dir, name("f"))).toEqual(id(12));
    expect(names.get(dir, name("g"))).toBeUndefined();
    names.made(id(3));
    expect(names.get(id(3), name("f"))).toBeNull();
    names.is(id(3), name("f"), id(13));
    names.gone(id(3), name("f"));
    expect(names.get(id(3), name("f"))).toBeNull();
    expect(names.count).toBe(1);
  });

  it("are all known where they were listed, and nothing was changed meanwhile", () => {
    const names = new DirectoryNames();
    names.is(dir, name("f"), id(12));
    expect(names.listing(dir)).toBe(true);
    names.is(dir, name("g"), id(13));
    names.listed(dir, [name("f"), name("h")]);
    expect(["f", "g", "h", "i"].map((one) => names.get(dir, name(one)))).toEqual([id(12), id(13), undefined, null]);
    expect(names.listing(dir)).toBe(false);
    expect(names.since(dir, 0, 10)).toMatchObject({ all: true, names: [name("f"), name("g"), name("h")], gone: [] });
  });

  it.each<[string, (names: DirectoryNames) => void]>([
    ["a name was changed", (names) => names.changing(dir, name("f"))],
    ["the directory was forgotten", (names) => names.forget(dir)],
    ["another one was made in its place", (names) => names.made(dir)],
    ["all were forgotten", (names) => names.clear()],
    ["they could not be listed", (names) => names.listed(dir, null)],
  ])("are not known by a listing while which %s", (_what, happens) => {
    const names = new DirectoryNames();
    names.listing(dir);
    happens(names);
    names.listed(dir, [name("f"), name("g")]);
    expect(names.get(dir, name("g"))).not.toEqual(id(12));
    expect(names.since(dir, 0, 10)?.names ?? []).toEqual([]);
  });

  it("that are more than there is room for are not known by a listing", () => {
    const names = new DirectoryNames({ directory: 2, all: 4 });
    names.listing(dir);
    names.listed(dir, [name("a"), name("b"), name("c"), name("d")]);
    expect([names.get(dir, name("e")), names.count]).toEqual([undefined, 0]);
  });

  it("that were changed and are not there are told so, and each name once", () => {
    const names = new DirectoryNames();
    names.made(dir);
    const { version } = names.since(dir, 0, 10) ?? { version: -1 };
    for (let times = 0; times < 20; times += 1) {
      names.changing(dir, name("journal"));
      names.is(dir, name("journal"), id(12));
      names.changing(dir, name("journal"));
      names.gone(dir, name("journal"));
    }
    names.changing(dir, name("maybe"));
    expect(names.since(dir, version, 10)).toMatchObject({ all: false, names: [name("maybe")], gone: [name("journal")] });
  });

  it("are not known while they are changed", () => {
    const names = new DirectoryNames();
    names.made(dir);
    names.changing(dir, name("f"));
    expect(names.get(dir, name("f"))).toBeUndefined();
    names.is(dir, name("f"), id(12));
    names.changing(dir, name("f"));
    expect(names.get(dir, name("f"))).toBeUndefined();
    // The change failed, and perhaps not: nobody knows.
    expect(names.get(dir, name("g"))).toBeNull();
    // Where not all of them are known, the name is not known after it, either.
    const found = id(3);
    names.is(found, name("f"), id(13));
    names.changing(found, name("f"));
    expect([names.get(found, name("f")), names.get(found, name("g"))]).toEqual([undefined, undefined]);
  });

  it("are another's where the inode number is used again, and gone with the directory", () => {
    const names = new DirectoryNames();
    names.made(dir);
    expect(names.get(id(2, 2), name("f"))).toBeUndefined();
    names.is(id(2, 2), name("f"), id(12));
    expect(names.get(dir, name("g"))).toBeUndefined();
    names.forget(id(2, 2));
    expect(names.get(id(2, 2), name("f"))).toBeUndefined();
    expect(names.count).toBe(0);
  });

  it("of any bytes are told apart", () => {
    const names = new DirectoryNames();
    names.made(dir);
    names.is(dir, Buffer.from([0xc3, 0xa9]), id(12));
    expect(names.get(dir, Buffer.from([0xe9]))).toBeNull();
    expect(names.get(dir, Buffer.from([0xc3, 0xa9]))).toEqual(id(12));
  });
});

describe("changed names", () => {
  /** What is gone with a "-". */
  const told = (names: DirectoryNames, since: number, most = 10): [number, boolean, string[]] | null => {
    const found = names.since(dir, since, most);
    return found && [found.version, found.all, [...found.names.map(String), ...found.gone.map((one) => `-${String(one)}`)]];
  };
  const make = (names: DirectoryNames, text: string): void => {
    names.changing(dir, name(text));
    names.is(dir, name(text), id(12));
  };

  it("of more than NAMES_TOLD_BYTES_MAX bytes are not told, few of them are", () => {
    const names = new DirectoryNames();
    names.made(dir);
    const long = (no: number): string => String(no).padStart(255, "x");
    const most = Math.floor(NAMES_TOLD_BYTES_MAX / 255);
    for (let no = 0; no < most; no += 1) make(names, long(no));
    const version = names.since(dir, 0, MAX_NAMES_TOLD)?.version ?? -1;
    expect([version >= 0, most < MAX_NAMES_TOLD]).toEqual([true, true]);
    make(names, long(most));
    expect(names.since(dir, 0, MAX_NAMES_TOLD)).toBeNull();
    expect(told(names, version)).toMatchObject([expect.any(Number), false, [long(most)]]);
  });

  it("are told since any earlier answer, and all names where there was none", () => {
    const names = new DirectoryNames();
    expect(told(names, 0)).toBeNull();
    names.is(dir, name("f"), id(12));
    // Not all names are known.
    expect(told(names, 0)).toBeNull();
    names.made(dir);
    make(names, "a");
    const [first = 0] = told(names, 0) ?? [];
    expect(told(names, first)).toEqual([first, false, []]);
    make(names, "b");
    names.changing(dir, name("a"));
    names.gone(dir, name("a"));
    expect(told(names, first)).toEqual([first + 2, false, ["b", "-a"]]);
    expect(told(names, first + 1)).toEqual([first + 2, false, ["-a"]]);
    expect(told(names, 0)).toEqual([first + 2, true, ["b"]]);
    make(names, "c");
    expect([told(names, 0, 1), told(names, first, 2)]).toEqual([null, null]);
  });

  it("are not told of what was not noted: the directory was forgotten meanwhile", () => {
    const names = new DirectoryNames();
    names.made(dir);
    const [first = 0] = told(names, 0) ?? [];
    names.forget(dir);
    make(names, "a");
    expect(told(names, first)).toBeNull();
    names.made(dir);
    expect(told(names, 0)).toEqual([first + 1, true, []]);
    expect(told(names, first)).toEqual([first + 1, true, []]);
  });

  it("are noted up to a limit, of each directory and of all", () => {
    const names = new DirectoryNames();
    names.made(dir);
    const [first = 0] = told(names, 0) ?? [];
    for (let no = 0; no < NOTED_CHANGES_MAX; no += 1) {
      names.changing(dir, name(`f${no}`));
      names.gone(dir, name(`f${no}`));
    }
    expect(told(names, first, NOTED_CHANGES_MAX)?.[2]).toHaveLength(NOTED_CHANGES_MAX);
    names.changing(dir, name("last"));
    names.gone(dir, name("last"));
    const half = first + NOTED_CHANGES_MAX / 2;
    expect(told(names, half - 1, NOTED_CHANGES_MAX)?.[1]).toBe(true);
    expect(told(names, half, NOTED_CHANGES_MAX)?.slice(1, 2)).toEqual([false]);
    expect(told(names, half, NOTED_CHANGES_MAX)?.[2]).toHaveLength(NOTED_CHANGES_MAX / 2 + 1);
    for (let no = 0; no < NOTED_DIRECTORIES_MAX; no += 1) {
      names.made(id(100 + no));
      names.since(id(100 + no), 0, 10);
    }
    const now = names.since(id(100), 0, 10)?.version ?? 0;
    expect(names.since(id(100), now, 10)?.all).toBe(false);
    expect(names.since(dir, now, 10)?.all).toBe(true);
  });

  it("are noted of a directory that is asked about again and again, however many others are", () => {
    const names = new DirectoryNames();
    names.made(dir);
    let [version = 0] = told(names, 0) ?? [];
    for (let no = 0; no < 2 * NOTED_DIRECTORIES_MAX; no += 1) {
      names.made(id(100 + no));
      names.since(id(100 + no), 0, 10);
      if (no % 100 !== 0) continue;
      make(names, `f${no}`);
      const answer = told(names, version);
      expect(answer?.slice(1)).toEqual([false, [`f${no}`]]);
      version = answer?.[0] ?? 0;
    }
  });
});

describe("bounds", () => {
  it("a directory with too many begins anew, and is not complete any more", () => {
    const names = new DirectoryNames({ directory: 4, all: 100 });
    names.made(dir);
    for (let at = 0; at < 5; at += 1) names.is(dir, name(`f${at}`), id(20 + at));
    expect(names.count).toBe(0);
    expect(names.get(dir, name("f0"))).toBeUndefined();
    expect(names.get(dir, name("other"))).toBeUndefined();
  });

  it("the oldest directories are forgotten", () => {
    const names = new DirectoryNames({ directory: 50, all: 8 });
    for (let at = 0; at < 12; at += 1) names.is(id(100 + at), name("f"), id(20 + at));
    expect(names.count).toBeLessThanOrEqual(8);
    expect(names.get(id(111), name("f"))).toEqual(id(31));
    expect(names.get(id(100), name("f"))).toBeUndefined();
  });
});

describe("under any sequence of changes", () => {
  it("says nothing that is not so, and keeps its count", () => {
    const change = fc.record({
      dir: fc.integer({ min: 2, max: 4 }),
      name: fc.constantFrom("a", "b", "c", "d", "e", "f"),
      what: fc.constantFrom("make", "create", "remove", "fail", "look", "list", "listed"),
    });
    fc.assert(
      fc.property(fc.array(change, { maxLength: 60, size: "max" }), (changes) => {
        const names = new DirectoryNames({ directory: 4, all: 6 });
        const truth = new Map<number, Map<string, FileId>>([2, 3, 4].map((ino) => [ino, new Map<string, FileId>()]));
        const listings = new Map<number, Buffer[]>();
        let nextIno = 100;
        for (const { dir: ino, name: text, what } of changes) {
          const real = truth.get(ino) as Map<string, FileId>;
          const directory = id(ino);
          if (what === "make" && real.size === 0) names.made(directory);
          if (what === "create" || what === "remove" || what === "fail") names.changing(directory, name(text));
          if (what === "create") {
            nextIno += 1;
            const created = id(nextIno);
            real.set(text, created);
            names.is(directory, name(text), created);
          }
          if (what === "remove") {
            real.delete(text);
            names.gone(directory, name(text));
          }
          if (what === "list" && names.listing(directory))
            listings.set(
              ino,
              [...real.keys()].map((one) => name(one)),
            );
          const listed = listings.get(ino);
          if (what === "listed" && listed !== undefined) names.listed(directory, listed);
          const found = real.get(text);
          if (what === "look" && found !== undefined) names.is(directory, name(text), found);
          const wrong = [...truth].flatMap(([at, entries]) =>
            ["a", "b", "c", "d", "e", "f"].filter((one) => {
              const said = names.get(id(at), name(one));
              return said === null ? entries.has(one) : said !== undefined && said !== entries.get(one);
            }),
          );
          expect(wrong).toEqual([]);
          expect(names.count).toBeLessThanOrEqual(6);
        }
      }),
    );
  });
});

/** Listings that are known without asking: of a directory as it is, and within limits (hazard F21). */
import { describe, expect, it } from "vitest";
import type { DirEntry, DirPage, FileId } from "../../../overlay/lower/lower.ts";
import { KnownInodes } from "../../../overlay/lower/remote/known.ts";
import { LISTED_NAMES_ALL_MAX, LISTED_NAMES_MAX } from "../../../overlay/lower/remote/known-listings.ts";
import { attr, bytes, create, dir } from "./known-lab.ts";

const BYTES = 128 * 1024;

const entry = (at: number): DirEntry => ({ name: bytes(`f${at}`), type: 8, ino: 1000 + at, cookie: BigInt(10 * (at + 1)) });
const page = (from: number, count: number, end: boolean): DirPage => ({
  entries: Array.from({ length: count }, (_, at) => entry(from + at)),
  end,
});
const after = (count: number): bigint => BigInt(10 * count);
const read = (known: KnownInodes, from: number, count: number, end: boolean, of: FileId = dir): void =>
  known.readPage(known.reading(), of, after(from), page(from, count, end));
const names = (known: KnownInodes, from = 0n, of: FileId = dir): string[] | null =>
  known.page(of, from, BYTES, "plain")?.entries.map(({ name }) => String(name)) ?? null;

describe("a listing", () => {
  it("is known from its beginning to as far as it was read, from each name on, and says its end", () => {
    const { known } = create();
    expect(known.page(dir, 0n, BYTES, "names")).toBeNull();
    read(known, 0, 3, false);
    expect(known.page(dir, 0n, BYTES, "names")).toEqual(page(0, 3, false));
    expect([known.page(dir, after(2), BYTES, "names"), known.page(dir, after(3), BYTES, "names")]).toEqual([page(2, 1, false), null]);
    read(known, 3, 2, true);
    for (const from of [0, 1, 3, 5]) expect(known.page(dir, after(from), BYTES, "names")).toEqual(page(from, 5 - from, true));
    // No name ends there.
    expect(known.page(dir, 7n, BYTES, "names")).toBeNull();
  });

  it("has as many names as fit the reply, one at least", () => {
    const { known } = create();
    read(known, 0, 3, true);
    expect(known.page(dir, 0n, 2 * 32, "plain")).toEqual(page(0, 2, false));
    expect(known.page(dir, 0n, 160, "names")).toEqual(page(0, 1, false));
    expect([known.page(dir, 0n, 31, "plain"), known.page(dir, 0n, 159, "entries")]).toEqual([null, null]);
  });

  it("that has a gap goes no further, and one that is read again stays as far as it was known", () => {
    const { known } = create();
    read(known, 0, 3, false);
    read(known, 4, 3, true);
    expect(names(known)).toHaveLength(3);
    read(known, 0, 2, false);
    expect(names(known)).toHaveLength(3);
    read(known, 0, 6, true);
    expect([names(known)?.length, known.page(dir, 0n, BYTES, "plain")?.end]).toEqual([6, true]);
    read(known, 6, 2, true);
    expect(names(known)).toHaveLength(6);
  });

  it.each([0, 1])("with two names at one position, of which %i came with the page before, is not kept", (before) => {
    const { known } = create();
    const { entries } = page(0, 4, true);
    const twins = entries.map((one, at) => (at === 2 ? { ...one, cookie: after(2) } : one));
    const cut = before === 0 ? 4 : 2;
    known.readPage(known.reading(), dir, 0n, { entries: twins.slice(0, cut), end: cut === 4 });
    known.readPage(known.reading(), dir, after(2), { entries: twins.slice(2), end: true });
    expect(known.page(dir, 0n, BYTES, "plain")).toBeNull();
  });

  it("keeps nothing of the answer that it came in", () => {
    const { known } = create();
    const came = page(0, 2, true);
    known.readPage(known.reading(), dir, 0n, { ...came, entries: came.entries.map((one) => ({ ...one, entry: undefined as never })) });
    for (const { name } of came.entries) name.fill(0x78);
    expect(names(known)).toEqual(["f0", "f1"]);
    expect(known.page(dir, 0n, BYTES, "plain")?.entries.map((one) => Object.keys(one).length)).toEqual([4, 4]);
  });

  it("is known while the lock has not left, and nothing of the directory was changed since", () => {
    const { locks, known } = create();
    const ends: Record<string, () => void> = {
      "the lock comes again": () => locks.comeAgain(),
      "the lock comes again, and something else is read": () => {
        locks.comeAgain();
        known.read(known.reading(), dir, attr);
      },
      "a name is changed": () => known.end(known.begin(dir, bytes("f0")), null),
      "it is changed itself": () => known.end(known.begin(dir), null),
      "it is removed": () => known.forget(dir),
      "there is another owner": () => known.clear(),
    };
    for (const [what, ended] of Object.entries(ends)) {
      read(known, 0, 3, true);
      expect([what, names(known)?.length]).toEqual([what, 3]);
      ended();
      expect([what, names(known)]).toEqual([what, null]);
    }
  });

  it("is not known if the lock came after it was asked for, or a change was under way, or began since", () => {
    const { locks, known } = create();
    const give = (reading = known.reading()): string[] | null => {
      known.readPage(reading, dir, 0n, page(0, 3, true));
      return names(known);
    };
    const before = known.reading();
    locks.comeAgain();
    expect(give(before)).toBeNull();
    const change = known.begin(dir, bytes("a"));
    const beside = known.reading();
    expect(give(beside)).toBeNull();
    known.end(change, null);
    expect(give(beside)).toBeNull();
    expect(give()).toHaveLength(3);
  });

  it("goes on only where nothing was changed since its beginning was read", () => {
    const { known } = create();
    read(known, 0, 3, false);
    known.end(known.begin(dir, bytes("a")), null);
    read(known, 3, 3, true);
    expect(names(known)).toBeNull();
  });

  it("is not kept where others change the lower past its owner", () => {
    const known = new KnownInodes({ grants: () => 1, of: () => 1 }, () => false);
    read(known, 0, 3, true);
    expect(names(known)).toBeNull();
  });

  it("of more than LISTED_NAMES_MAX names is not kept", () => {
    const { known } = create();
    read(known, 0, LISTED_NAMES_MAX - 1, false);
    read(known, LISTED_NAMES_MAX - 1, 1, false);
    expect(names(known, after(LISTED_NAMES_MAX - 2))).toHaveLength(2);
    read(known, LISTED_NAMES_MAX, 1, true);
    expect(names(known)).toBeNull();
  });

  it("is one of LISTED_NAMES_ALL_MAX names in all: beyond, what was begun first is forgotten", () => {
    const { known } = create();
    const ids = Array.from({ length: 6 }, (_, at): FileId => ({ ino: 500 + at, generation: 1 }));
    const each = LISTED_NAMES_ALL_MAX / 4;
    for (const id of ids.slice(0, 4)) read(known, 0, each, true, id);
    const kept = (): boolean[] => ids.map((id) => names(known, 0n, id) !== null);
    expect(kept()).toEqual([true, true, true, true, false, false]);
    read(known, 0, 1, true, ids[4]);
    expect(kept()).toEqual([false, true, true, true, true, false]);
    // What is forgotten, or changed, makes room.
    known.end(known.begin(ids[1] as FileId), null);
    read(known, 0, each, true, ids[5]);
    expect(kept()).toEqual([false, false, true, true, true, true]);
  });
});

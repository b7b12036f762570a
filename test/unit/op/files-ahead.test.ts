/** The data of small files is brought for a program that reads one after the other (overlay/op/files-ahead.ts). */
import { beforeEach, describe, expect, it, vi } from "vitest";
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import { type Attr, type FileId, fileKey } from "../../../overlay/lower/lower.ts";
import { FilesAhead, type NamedEntry } from "../../../overlay/op/files-ahead.ts";
import { NameOrder } from "../../../overlay/op/name-order.ts";

const id = (ino: number): FileId => ({ ino, generation: 1 });
const entry = (ino: number, size: number = 100, mode: number = 0o100644): NamedEntry => ({
  id: id(ino),
  attr: { size, mode } as Attr,
  // Who goes by the numbers, up or down, does not go by the names.
  name: Buffer.from(`${ino % 2}${ino}`),
});
const from = (first: number, count: number): number[] => Array.from({ length: count }, (_, at) => first + at);

class World {
  nowMs = 0;
  readonly brought: number[][] = [];
  answer: Promise<void> = Promise.resolve();
  readonly lower = {
    keeps: true,
    prefetch: (ids: readonly FileId[], what: string): Promise<void> => {
      if (what !== "data") throw new Error(`${what} are prefetched`);
      this.brought.push(ids.map(({ ino }) => ino));
      return this.answer;
    },
  };
  readonly ahead = new FilesAhead({
    now: () => this.nowMs,
    lower: this.lower,
  });

  /** Gives what was brought for it. */
  async read(ino: number, cost = true): Promise<number[]> {
    this.ahead.noteRead(fileKey(id(ino)), cost);
    await new Promise((resolve) => setImmediate(resolve));
    return this.brought.splice(0).flat();
  }
}

describe("the data of a directory's files", () => {
  let world: World;
  const list = (inos: readonly number[], directory = "d", first = true): void =>
    world.ahead.listed(
      directory,
      inos.map((ino) => entry(ino)),
      first,
    );
  beforeEach(() => {
    world = new World();
  });

  it("is brought from the second read on that cost a trip: of 16 files, then of twice as many, up to 64", async () => {
    list(from(1, 200));
    expect([await world.read(1), await world.read(2)]).toEqual([[], from(3, 16)]);
    expect([await world.read(19), await world.read(52)]).toEqual([from(20, 32), from(53, 64)]);
    expect([await world.read(117), await world.read(182)]).toEqual([from(118, 64), from(183, 18)]);
    expect([await world.read(3), world.ahead.files]).toEqual([[], 0]);
  });

  /** A program begins to read it: what is brought for that. */
  const reading = async (ino: number): Promise<number[]> => {
    world.ahead.noteReading(fileKey(id(ino)));
    await new Promise((resolve) => setImmediate(resolve));
    return world.brought.splice(0).flat();
  };

  it("of a tree that is read is brought from the first read on, that file first, where it was of use in two directories before", async () => {
    const readThree = async (directory: number): Promise<number[][]> => {
      list(
        [1, 2, 3].map((at) => directory + at),
        `d${directory}`,
      );
      const [first, second, third] = [await reading(directory + 2), await world.read(directory + 2), await world.read(directory + 1)];
      return [first, second, third, await world.read(directory + 3, false)];
    };
    expect(await readThree(10)).toEqual([[], [], [13], []]);
    expect(await readThree(20)).toEqual([[], [], [23], []]);
    for (const directory of [30, 40, 50])
      expect(await readThree(directory)).toEqual([[directory + 2, directory + 1, directory + 3], [], [], []]);
    // Only what was read first: no use.
    const begun: boolean[] = [];
    for (const directory of [60, 70, 80, 90, 100, 110, 120]) {
      list([directory + 1, directory + 2], `d${directory}`);
      begun.push((await reading(directory + 1)).length > 0);
      expect(await world.read(directory + 1)).toEqual([]);
    }
    expect(begun).toEqual([true, true, true, true, true, false, false]);
  });

  it("of a tree is not brought again before READS_MS are over since a read, nor once the mount ends", async () => {
    for (const directory of [10, 20, 30]) {
      list(
        [1, 2, 3].map((at) => directory + at),
        `d${directory}`,
      );
      for (const at of [1, 2, 3]) await world.read(directory + at);
    }
    list(
      [1, 2, 3, 4].map((at) => 100 + at),
      "d100",
    );
    await world.read(101);
    world.nowMs = 1000;
    expect(await reading(102)).toEqual([]);
    await world.ahead.stop();
    list([201, 202], "d200");
    expect(await reading(201)).toEqual([]);
  });

  it("is brought before all of the last is read, while nobody waits", async () => {
    list(from(1, 300));
    await world.read(1);
    expect(await world.read(2)).toEqual(from(3, 16));
    const next: number[][] = [];
    for (let ino = 3; ino <= 83; ino++) next.push(await world.read(ino, false));
    const brought = next.map((inos, at) => [3 + at, inos] as const).filter(([, inos]) => inos.length > 0);
    expect(brought).toEqual([
      [11, from(19, 32)],
      [35, from(51, 64)],
      [83, from(115, 64)],
    ]);
  });

  it("is brought early while few are unread in all that are read: the lower forgets what is too much", async () => {
    list(from(1, 100), "d");
    list(from(201, 100), "e");
    for (const first of [1, 201]) await world.read(first);
    expect([await world.read(2), await world.read(202)]).toEqual([from(3, 16), from(203, 16)]);
    for (let ino = 203; ino <= 217; ino++) expect(await world.read(ino, false)).toEqual(ino === 211 ? from(219, 32) : []);
    // 33 of the others are unread.
    for (let ino = 3; ino <= 18; ino++) expect(await world.read(ino, false)).toEqual([]);
    world.nowMs = 900;
    expect(await world.read(19)).toEqual(from(20, 32));
    // Nobody reads the others any more.
    world.nowMs = 1001;
    for (let ino = 20; ino <= 35; ino++) expect(await world.read(ino, false)).toEqual([]);
    expect(await world.read(36, false)).toEqual(from(52, 49));
  });

  it("is not brought for reads that cost nothing, nor for a second one of a file", async () => {
    list(from(1, 9));
    expect([await world.read(1), await world.read(1), await world.read(2, false), await world.read(3, false)]).toEqual([[], [], [], []]);
    expect(await world.read(4)).toEqual([2, 3, ...from(5, 5)]);
  });

  describe("of 300 that are listed by no order of their names", () => {
    const count = 300;
    const inoOf = (nth: number): number => 1000 + ((nth * 5003) % 307);
    const placeOf = (nth: number): number => (nth * 7919) % 307;
    const nths = from(0, count);
    const nthOf = (ino: number): number => nths.find((nth) => inoOf(nth) === ino) ?? -1;
    /** In pieces, as they come. */
    const listThem = (piece = count): void => {
      const placed = nths.toSorted((a, b) => placeOf(a) - placeOf(b));
      for (let at = 0; at < count; at += piece) {
        const some = placed.slice(at, at + piece);
        // As they come: views of the whole answer of the owner.
        const answer = Buffer.from(some.map((nth) => `f${100 + nth}`).join(""));
        const entries = some.map((nth, of) => ({ ...entry(inoOf(nth)), name: answer.subarray(4 * of, 4 * of + 4) }));
        world.ahead.listed("d", entries, at === 0);
        // A megabyte and more would stay for one file of it that is not read.
        answer.fill("x");
      }
    };

    it("is brought in the order of the reads, from the fourth on", async () => {
      listThem();
      const brought = new Set<number>();
      const costly: number[] = [];
      const pieces: number[][] = [];
      for (const nth of nths) {
        const cost = !brought.has(inoOf(nth));
        if (cost) costly.push(nth);
        const more = await world.read(inoOf(nth), cost);
        for (const ino of more) brought.add(ino);
        if (more.length > 0) pieces.push(more.map(nthOf));
      }
      // The first two pieces went by the listing.
      const early = pieces.slice(0, 2).flat();
      const placed = nths.toSorted((a, b) => placeOf(a) - placeOf(b));
      expect(early).toEqual([
        ...placed.filter((nth) => nth > 1).slice(0, 16),
        ...placed
          .filter((nth) => nth > 1)
          .slice(16)
          .filter((nth) => nth > 2)
          .slice(0, 32),
      ]);
      // Nearly as many as half a piece are unread all the time, so one of some pieces is waited for.
      const next = nths.slice(4).filter((nth) => !early.includes(nth) && !costly.includes(nth));
      expect(pieces.slice(2).flat()).toEqual(next);
      expect(costly.slice(0, 4)).toEqual([0, 1, 2, 3]);
      expect(costly.length).toBeLessThan(9);
    });

    it("is brought in that order also of what is listed later, and goes on where a read comes that was not expected", async () => {
      listThem(150);
      const expected: number[][] = [];
      for (const nth of [0, 1, 2, 3, 4, 5]) await world.read(inoOf(nth));
      for (const nth of [200, 201, 202, 203]) expected.push((await world.read(inoOf(nth))).map(nthOf));
      for (const piece of expected) expect(piece.every((nth, at) => nth > 199 && (at === 0 || nth > (piece[at - 1] as number)))).toBe(true);
      expect(expected.flat().length).toBeGreaterThan(50);
    });

    it("is brought as it is listed for who begins after a pause, in whatever order was read before", async () => {
      listThem();
      const brought: number[] = [];
      for (let nth = 0; nth < 9; nth += 1) brought.push(nth, ...(await world.read(inoOf(nth), !brought.includes(nth))).map(nthOf));
      world.nowMs = 1001;
      const left = nths.toSorted((a, b) => placeOf(a) - placeOf(b)).filter((nth) => !brought.includes(nth));
      const at = left.findIndex((nth, of) => nth < (left[of + 1] as number));
      const two = left.splice(at, 2);
      const more: number[][] = [];
      for (const nth of two) more.push((await world.read(inoOf(nth))).map(nthOf));
      expect(more).toEqual([[], left.slice(0, 16)]);
    });

    it("is not sorted where nothing is brought any more: for who reads in that order, but few of them", async () => {
      const inos = from(0, 4096);
      world.ahead.listed(
        "d",
        inos.map((at) => ({ ...entry(10_000 - at), name: Buffer.from(`f${10_000 + ((at * 7919) % 4096)}`) })),
        true,
      );
      const byName = inos.toSorted((a, b) => ((a * 7919) % 4096) - ((b * 7919) % 4096));
      const sorts = vi.spyOn(NameOrder.prototype, "rest");
      const brought: number[] = [];
      for (let nth = 0; nth < 4000; nth += 200) brought.push((await world.read(10_000 - (byName[nth] as number))).length);
      expect(brought).toEqual([0, 16, 32, 64, 64, 64, 16, ...Array.from({ length: 13 }, () => 0)]);
      expect(sorts.mock.calls.length).toBe(4);
      sorts.mockRestore();
    });

    it("is brought as it is listed for who reads it so, whatever order four of them seem to have", async () => {
      listThem();
      const placed = nths.toSorted((a, b) => placeOf(a) - placeOf(b));
      const brought: number[] = [];
      for (const nth of placed) brought.push(...(await world.read(inoOf(nth), !brought.includes(nth))).map(nthOf));
      expect(brought).toEqual(placed.slice(2));
    });
  });

  it("is brought of no more than UNREAD_MAX files that nobody has read", async () => {
    list(from(1, 1000));
    await world.read(1000);
    const brought: number[] = [];
    for (let at = 0; at < 9; at++) brought.push((await world.read(999 - at)).length);
    expect(brought).toEqual([16, 32, 64, 64, 64, 16, 0, 0, 0]);
    for (let ino = 1; ino <= 10; ino++) await world.read(ino, ino % 2 === 0);
    expect(await world.read(900)).toEqual(from(257, 10));
  });

  it("is unread in one directory at a time: in the one in which it was listed last, under another name", async () => {
    list(from(1, 20), "d");
    await world.read(1);
    expect(await world.read(2)).toEqual(from(3, 16));
    list([...from(3, 16), ...from(101, 300)], "e");
    await world.read(101);
    expect(await world.read(102)).toEqual(from(3, 16));
    list(from(501, 300), "d", false);
    // As if nothing were unread there: 16, then 32, and so on, up to UNREAD_MAX.
    const brought: number[] = [];
    for (let at = 0; at < 9; at += 1) brought.push((await world.read(800 - at)).length);
    expect(brought.reduce((sum, count) => sum + count, 0)).toBe(256);
  });

  it("is brought of regular files of 1 to 8192 bytes only", async () => {
    const others = [entry(3, 0), entry(4, 1), entry(5, 8192), entry(6, 8193), entry(7, 100, 0o120777)];
    world.ahead.listed("d", [entry(1), entry(2), ...others], true);
    await world.read(1);
    expect(await world.read(2)).toEqual([4, 5]);
  });

  it("is not brought after a pause of more than READS_MS, and begins with few again", async () => {
    list(from(1, 1000));
    await world.read(1);
    world.nowMs = 1001;
    expect(await world.read(2)).toEqual([]);
    world.nowMs = 2001;
    expect(await world.read(3)).toHaveLength(16);
    // One that was brought is no pause, and after one it brings nothing.
    world.nowMs = 3002;
    expect(await world.read(4, false)).toEqual([]);
    world.nowMs = 4001;
    expect(await world.read(100)).toHaveLength(32);
    world.nowMs = 5002;
    expect([await world.read(101), (await world.read(102)).length]).toEqual([[], 16]);
    for (let at = 0; at < 9; at++) await world.read(990 + at);
    expect(await world.read(980)).toEqual([]);
    world.nowMs = 7000;
    await world.read(981);
    // What was not read is no reason any more not to bring others.
    expect(await world.read(982)).toHaveLength(16);
  });

  it("is not brought on the owner", () => {
    world.lower.keeps = false;
    list(from(1, 9));
    expect(world.ahead.files).toBe(0);
  });

  it("is brought of the first DIRECTORY_FILES_MAX files of a directory, until it is listed from its beginning again", async () => {
    list(from(1, 4000));
    list(from(4001, 200), "d", false);
    expect(world.ahead.files).toBe(4096);
    list([5, 6], "e");
    expect(world.ahead.files).toBe(4096);
    await world.read(7);
    expect(await world.read(8)).toEqual([...from(1, 4), ...from(9, 12)]);
    list(from(4090, 9));
    expect(world.ahead.files).toBe(9 + 2);
  });

  it("is brought of FILES_ALL_MAX files, and those of DIRECTORIES_MAX directories, that were listed last", async () => {
    list(from(1, 4096), "a");
    list(from(5001, 4096), "b");
    expect(world.ahead.files).toBe(8192);
    list([1], "a", false);
    list([9999], "c");
    expect(world.ahead.files).toBe(4097);
    for (let at = 0; at < 255; at++) list([10_000 + 2 * at, 10_001 + 2 * at], `x${at}`);
    expect(world.ahead.files).toBe(1 + 2 * 255);
    await world.read(1);
    expect(await world.read(2)).toEqual([]);
  });

  it("is brought once at a time; an error is nobody's, and the end waits for it", async () => {
    list(from(1, 200));
    let fail: (error: Error) => void = () => undefined;
    world.answer = new Promise((_, reject) => (fail = reject));
    await world.read(1);
    expect([await world.read(2), await world.read(100)]).toEqual([from(3, 16), []]);
    let stopped = false;
    const stop = world.ahead.stop().then(() => (stopped = true));
    expect([await world.read(101), stopped]).toEqual([[], false]);
    fail(errnoError(E.EIO));
    await stop;
    expect(await world.read(102)).toEqual([]);
  });
});

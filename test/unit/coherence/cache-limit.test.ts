/** Hazard H1: no more inodes are cached than can be dropped before others may take their locks. */
import { beforeEach, describe, expect, it } from "vitest";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { CacheLimit, cachedInodesMax } from "../../../overlay/coherence/lock/cache-limit.ts";
import { Cover, type InodeKind } from "../../../overlay/coherence/cover.ts";
import { FileFight } from "../../../overlay/coherence/cover-parts.ts";
import { CoherenceState } from "../../../overlay/coherence/effect.ts";

const MAX = 3;
let state: CoherenceState;
let covers: Cover[];
let limit: CacheLimit;

function tell(ino: number, kind: InodeKind = "file", openCount = 0): Cover {
  const id = { ino, generation: 1 };
  const cover = new Cover(id, kind);
  cover.inode = { fuseNodeid: ino, id, kind, nlookup: 1, openCount, mappableCount: 0, cover };
  cover.mode = Mode.PR;
  covers.push(cover);
  limit.told(cover);
  return cover;
}

/** The locks that go now: their inodes. */
function evicted(): number[] {
  limit.evict(state, 0);
  const effects = state.effects.splice(0);
  return effects.map((effect) => ("cover" in effect ? effect.cover.id.ino : 0));
}

beforeEach(() => {
  state = new CoherenceState();
  covers = [];
  limit = new CacheLimit(MAX);
});

describe("more inodes than can be dropped in time", () => {
  it("give their locks up, those that came first, until there are few enough", () => {
    const told = [1, 2, 3].map((ino) => tell(ino));
    expect(evicted()).toEqual([]);
    expect(limit.told(told[0] as Cover)).toBe(false);
    for (const ino of [4, 5]) tell(ino);
    expect(limit.told(told[0] as Cover)).toBe(true);
    expect(evicted()).toEqual([1, 2]);
    for (const cover of told.slice(0, 2)) {
      expect(cover.phase).toBe("invalidating");
      limit.changed(cover);
      cover.phase = "idle";
      cover.mode = Mode.NL;
      limit.changed(cover);
    }
    expect(evicted()).toEqual([]);
    tell(6);
    expect(evicted()).toEqual([3]);
    expect(limit.counts.inodesEvicted).toBe(3);
  });

  it("are looked for from the beginning again after the last", () => {
    for (const ino of [1, 2, 3, 4]) tell(ino);
    const back = (ino: number): void => {
      const cover = covers[ino - 1] as Cover;
      cover.mode = Mode.NL;
      cover.phase = "idle";
      limit.changed(cover);
      cover.mode = Mode.PR;
      limit.told(cover);
    };
    for (const ino of [1, 2, 3, 4, 1, 2]) {
      expect(evicted()).toEqual([ino]);
      back(ino);
    }
  });

  it("are found by the hand where they were, however many of the others go", () => {
    limit = new CacheLimit(300);
    const numbers = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, at) => from + at);
    const told = numbers(0, 309).map((ino) => tell(ino));
    expect(evicted()).toEqual(numbers(0, 9));
    const stay = numbers(0, 309).filter((ino) => ino % 3 === 2);
    const rest = (cover: Cover): void => void Object.assign(cover, { phase: "idle", mode: Mode.PR });
    const forget = (cover: Cover): void => {
      cover.inode = null;
      limit.changed(cover);
    };
    for (const cover of told) rest(cover);
    for (const cover of told) if (!stay.includes(cover.id.ino)) forget(cover);
    expect(evicted()).toEqual([]);
    for (const ino of numbers(309, 510)) tell(ino);
    const round = [...stay.slice(3), ...numbers(309, 510), ...stay.slice(0, 3)];
    for (let at = 0; at < round.length; at += 4) expect(evicted()).toEqual(round.slice(at, at + 4));
    // And go from their own places.
    for (const cover of covers) rest(cover);
    for (const ino of stay.slice(-10)) forget(covers[ino] as Cover);
    for (const ino of numbers(510, 520)) tell(ino);
    expect(evicted()).toEqual(round.slice(0, 4));
    expect([...Array(70)].flatMap(evicted)).toEqual(
      round
        .slice(4)
        .filter((ino) => !stay.slice(-10).includes(ino))
        .slice(0, 280),
    );
  });

  it("count as long as the kernel may have something of them", () => {
    const cover = tell(1);
    for (const ino of [2, 3, 4]) tell(ino);
    limit.changed(cover);
    cover.mode = Mode.NL;
    cover.phase = "converting";
    limit.changed(cover);
    expect(limit.told(covers[1] as Cover)).toBe(true);
    cover.inode = null;
    limit.changed(cover);
    expect(limit.told(covers[1] as Cover)).toBe(false);
  });

  it("leave alone what is open, in use or wanted, and directories", () => {
    tell(1, "directory");
    tell(2, "file", 1);
    tell(3).pins = 1;
    tell(4).wanted = Mode.EX;
    tell(5).asking = Mode.EX;
    tell(6).unregistered = true;
    tell(7).phase = "draining";
    tell(8).token = { state: "held", unregistered: false, users: 1, wanted: false, mapped: false, waiters: [] };
    tell(9).mode = Mode.EX;
    expect(evicted()).toEqual([9]);
    expect(evicted()).toEqual([]);
  });

  it("do not go to and fro: who reads them again is not expected by the lock", () => {
    const cover = tell(1);
    Object.assign(cover, { read: true, fight: Object.assign(new FileFight(), { returns: 5 }) });
    for (const ino of [2, 3, 4]) tell(ino);
    expect([evicted(), cover.read, cover.fight]).toEqual([[1], false, null]);
  });
});

it("the margin of the default time-out is enough for 133,333", () => {
  expect(cachedInodesMax(600)).toBe(133_333);
  expect(cachedInodesMax(Number.POSITIVE_INFINITY)).toBe(Number.POSITIVE_INFINITY);
});

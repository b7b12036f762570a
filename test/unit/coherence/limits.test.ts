/** Tables and times of the coherence layer that have a limit: at it all is well, one beyond it what its comment says happens. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { CacheLimit } from "../../../overlay/coherence/lock/cache-limit.ts";
import { CallerRepairs } from "../../../overlay/coherence/size/caller-repair.ts";
import { Cover, type Inode, type InodeKind } from "../../../overlay/coherence/cover.ts";
import { CoverTable } from "../../../overlay/coherence/lock/cover-table.ts";
import { enterUnregistered } from "../../../overlay/coherence/lock/new-inodes.ts";
import { CoherenceState } from "../../../overlay/coherence/effect.ts";
import { EXPIRE_NAMES_MAX, NEGATIVE_NAMES_MAX, planExpiry, tellName } from "../../../overlay/coherence/names/names.ts";

function coverOf(ino: number, kind: InodeKind = "file"): Cover {
  return new Cover({ ino, generation: 1 }, kind);
}

function inodeWith(cover: Cover, openCount = 0): Inode {
  const { id, kind } = cover;
  const inode: Inode = { fuseNodeid: id.ino, id, kind, nlookup: 1, openCount, mappableCount: 0, cover };
  cover.inode = inode;
  return inode;
}

describe("names of a directory", () => {
  const name = (at: number): Buffer => Buffer.from(`name-${at}`);
  const tell = (dir: Cover, at: number, child: Cover | null, now = 0): boolean => tellName(dir, name(at), child, true, 1, now);

  it("absent ones have validity up to NEGATIVE_NAMES_MAX", () => {
    const dir = coverOf(2, "directory");
    for (let at = 0; at < NEGATIVE_NAMES_MAX; at++) expect(tell(dir, at, null)).toBe(true);
    expect(tell(dir, NEGATIVE_NAMES_MAX, null)).toBe(false);
    expect(tell(dir, NEGATIVE_NAMES_MAX, coverOf(3))).toBe(true);
  });

  it("are expired one by one up to EXPIRE_NAMES_MAX, and beyond all at once", () => {
    const plan = (count: number): { epoch: boolean; count: number } => {
      const dir = coverOf(2, "directory");
      for (let at = 0; at < count; at++) tell(dir, at, coverOf(100 + at));
      const { epoch, names } = planExpiry(dir, 1, 0);
      return { epoch, count: names.length };
    };
    expect(plan(EXPIRE_NAMES_MAX)).toEqual({ epoch: false, count: EXPIRE_NAMES_MAX });
    expect(plan(EXPIRE_NAMES_MAX + 1)).toEqual({ epoch: true, count: EXPIRE_NAMES_MAX + 1 });
  });

  it("told again are dropped, not only expired, within REARM_SETTLED_MS", () => {
    const drops = (now: number): boolean[] => {
      const dir = coverOf(2, "directory");
      const child = coverOf(3);
      for (let times = 0; times < 2; times++) tell(dir, 1, child);
      return planExpiry(dir, 1, now).names.map(({ drop }) => drop);
    };
    expect([drops(1999), drops(2000)]).toEqual([[true], [false]]);
  });
});

describe("more cached inodes than may be", () => {
  const evicted = (limit: CacheLimit): number => {
    const before = limit.counts.inodesEvicted;
    limit.evict(new CoherenceState(), 0);
    return limit.counts.inodesEvicted - before;
  };
  const tell = (limit: CacheLimit, ino: number, openCount = 0): void => {
    const cover = coverOf(ino);
    inodeWith(cover, openCount);
    cover.mode = Mode.PR;
    limit.told(cover);
  };

  it.each([
    [64, 64],
    [65, 64],
  ])("AT_ONCE_MAX of them go in one turn: of %i, %i", (tooMany, gone) => {
    const limit = new CacheLimit(3);
    for (let ino = 1; ino <= 3 + tooMany; ino++) tell(limit, ino);
    expect(evicted(limit)).toBe(gone);
  });

  it.each([
    [63, [1]],
    [64, [0, 1]],
  ])("STEPS_MAX of them are looked at for one that is to go: behind %i open files", (open, turns) => {
    const limit = new CacheLimit(open);
    for (let ino = 1; ino <= open; ino++) tell(limit, ino, 1);
    tell(limit, open + 1);
    expect(turns.map(() => evicted(limit))).toEqual(turns);
  });

  it.each([
    [65, 65],
    [66, 0],
  ])("the list of those that count has up to GAPS_MIN gaps more than entries: behind %i gaps, one stands at %i", (gaps, at) => {
    const limit = new CacheLimit(1000);
    const covers = Array.from({ length: gaps }, (_, ino) => coverOf(ino + 1));
    for (const cover of covers) limit.told(cover);
    const last = coverOf(gaps + 1);
    inodeWith(last);
    last.mode = Mode.PR;
    limit.told(last);
    for (const cover of covers) limit.changed(cover);
    expect(last.cachedAt).toBe(at);
  });
});

describe("a repair by the thread that asks for the attributes", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());
  const TID = 43;

  it("is looked at after HEARD_MS, and over if the thread sleeps", () => {
    const repairs = new CallerRepairs(() => true);
    let over = false;
    repairs.begin(coverOf(12), TID, () => (over = true));
    vi.advanceTimersByTime(1);
    expect(over).toBe(false);
    vi.advanceTimersByTime(1);
    expect([over, repairs.unproved]).toEqual([true, 0]);
  });

  it("is not made again of a file after BUSY_LOOKS_MAX looks at a running thread, and over after LOOKS_MAX", () => {
    const repairs = new CallerRepairs(() => false);
    const cover = coverOf(12);
    let over = false;
    repairs.begin(cover, TID, () => (over = true));
    // The second look is at 2 + 4 ms, the third at 2 + 4 + 8, the seventh and last at 254.
    vi.advanceTimersByTime(13);
    expect(repairs.mayBegin(cover, 1)).toBe(true);
    vi.advanceTimersByTime(1);
    expect(repairs.mayBegin(cover, 1)).toBe(false);
    expect(repairs.mayBegin(coverOf(13), 1)).toBe(true);
    vi.advanceTimersByTime(253 - 14);
    expect([over, repairs.unproved]).toEqual([false, 0]);
    vi.advanceTimersByTime(1);
    expect([over, repairs.unproved]).toEqual([true, 1]);
  });
});

describe("locks of inodes that the kernel has forgotten", () => {
  it("are kept up to IDLE_COVERS_MAX; with one more the 256 that rested longest are given back", () => {
    const given: number[] = [];
    const table = new CoverTable(new CoherenceState(), (cover) => void given.push(cover.id.ino));
    const forget = (ino: number): void => {
      const cover = table.take({ ino, generation: 1 }, "file");
      cover.mode = Mode.PR;
      table.forgotten(inodeWith(cover));
    };
    for (let ino = 1; ino <= 65_536; ino++) forget(ino);
    expect([table.size, given]).toEqual([65_536, []]);
    forget(65_537);
    expect(given).toEqual(Array.from({ length: 256 }, (_, at) => at + 1));
  });

  it("but for directories in which something may have been born that dlmd does not know yet", () => {
    const given: number[] = [];
    const state = new CoherenceState();
    const table = new CoverTable(state, (cover) => void given.push(cover.id.ino));
    const forget = (ino: number, kind: "file" | "directory"): void => {
      const cover = table.take({ ino, generation: 1 }, kind);
      cover.mode = Mode.EX;
      table.forgotten(inodeWith(cover));
    };
    forget(1, "directory");
    const born = table.take({ ino: 100_000, generation: 1 }, "file");
    enterUnregistered(state, born, 0);
    forget(2, "directory");
    const later = table.take({ ino: 100_001, generation: 1 }, "file");
    for (let ino = 3; ino <= 65_537; ino++) forget(ino, "file");
    expect(given.slice(0, 2)).toEqual([1, 3]);
    // What was born after it was forgotten has no name there.
    enterUnregistered(state, later, 0);
    state.unregistered.delete(born);
    given.length = 0;
    for (let ino = 70_000; !given.includes(2) && ino < 140_000; ino++) forget(ino, "file");
    // Its turn came again, after all that were there.
    expect([given.includes(2), given.indexOf(65_537) < given.indexOf(2)]).toEqual([true, true]);
  });

  it("are looked through once for IDLE_BATCH forgotten ones where none of them can go", () => {
    const given: number[] = [];
    const state = new CoherenceState();
    const table = new CoverTable(state, (cover) => void given.push(cover.id.ino));
    const forget = (ino: number): void => {
      const cover = table.take({ ino, generation: 1 }, "directory");
      cover.mode = Mode.EX;
      table.forgotten(inodeWith(cover));
    };
    enterUnregistered(state, table.take({ ino: 100_000, generation: 1 }, "file"), 0);
    for (let ino = 1; ino <= 65_537 + 255; ino++) forget(ino);
    expect(given).toEqual([]);
    state.unregistered.clear();
    forget(70_000);
    expect([given.length, given[0]]).toEqual([256, 257]);
  });
});

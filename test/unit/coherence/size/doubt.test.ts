/** Hazard F5: no READ may be answered while the kernel's size would show its reader zeros. */
import { describe, expect, it } from "vitest";
import { Cover, sizeOf } from "../../../../overlay/coherence/cover.ts";
import { CoherenceState } from "../../../../overlay/coherence/effect.ts";
import {
  doubtSize,
  judgeSize,
  judgeTold,
  LATE_THREADS_MAX,
  mustBeTaken,
  mustWait,
  noteKernelLock,
  noteLateReply,
  noteRaised,
  noteThread,
  noteTold,
  sizeKnown,
} from "../../../../overlay/coherence/size/doubt.ts";
import { SizeModel, type SizeModelOptions } from "./size-model.ts";

const SEEDS = 300;

function coverOf(ino = 1): Cover {
  return new Cover({ ino, generation: 1 }, "file");
}

describe("a model of the kernel's size", () => {
  const base = { steps: 3000, verify: true, waitLate: true, tellKnown: true, keepOut: true, raise: true };
  const mixes = [
    { readers: 1, appenders: 0 },
    { readers: 1, appenders: 1 },
    { readers: 3, appenders: 2 },
    { readers: 6, appenders: 3 },
  ];
  const run = (options: Omit<SizeModelOptions, "seed">): { zeros: number; reads: number; repairs: number } => {
    const total = { zeros: 0, reads: 0, repairs: 0 };
    for (let seed = 1; seed <= SEEDS; seed += 1) {
      const { zeros, reads, repairs } = new SizeModel({ ...options, seed }).run();
      total.zeros += zeros.length;
      total.reads += reads;
      total.repairs += repairs;
    }
    return total;
  };

  it.each(mixes)("shows no zeros, and readers get on: %j", (mix) => {
    const { zeros, reads, repairs } = run({ ...base, ...mix });
    expect(zeros).toBe(0);
    expect(reads).toBeGreaterThan(SEEDS * 20);
    expect(repairs).toBeGreaterThan(0);
  });

  it.each(mixes.slice(1))("finds zeros where the size is not looked at: %j", (mix) => {
    expect(run({ ...base, ...mix, verify: false }).zeros).toBeGreaterThan(0);
  });

  it.each([{ waitLate: false }, { tellKnown: false }, { keepOut: false }, { raise: false }])(
    "finds zeros without a rule: %j",
    (without) => {
      expect(run({ ...base, readers: 3, appenders: 2, ...without }).zeros).toBeGreaterThan(0);
    },
  );
});

describe("doubt", () => {
  it("ends with a look that shows the true size under the lock, and only then", () => {
    const cover = coverOf();
    doubtSize(cover);
    const mark = sizeOf(cover).mark;
    expect(judgeSize(cover, 100, true, 101, mark)).toBe(false);
    expect(judgeSize(cover, 100, false, 40, mark)).toBe(true);
    expect(sizeOf(cover).doubt).toBe(true);
    cover.phase = "invalidating";
    expect(judgeSize(cover, 100, true, 100, mark)).toBe(true);
    expect(sizeOf(cover).doubt).toBe(true);
    cover.phase = "idle";
    expect(judgeSize(cover, 100, true, 100, mark)).toBe(true);
    expect(sizeOf(cover).doubt).toBe(false);
  });

  it("a look that something came after counts for nothing", () => {
    const cover = coverOf();
    doubtSize(cover);
    const mark = sizeOf(cover).mark;
    doubtSize(cover);
    expect(judgeSize(cover, 100, true, 100, mark)).toBe(false);
  });

  it("a READ whose data are older than what the kernel was told is read again, in doubt or not", () => {
    const cover = coverOf();
    const mark = sizeOf(cover).mark;
    noteTold(cover, 100);
    expect(judgeSize(cover, 90, true, 100, mark)).toBe(false);
    const later = sizeOf(cover).mark;
    noteTold(cover, 100);
    expect(judgeSize(cover, 100, true, 100, later)).toBe(true);
  });
});

it("of a file that nobody reads or changes nothing is kept of what is told: there are very many", () => {
  const cover = coverOf();
  noteTold(cover, 100);
  expect(cover.size).toBeNull();
});

describe("a late reply", () => {
  it("harms if it was misplaced, or if a revoke came before its end was proved", () => {
    const state = new CoherenceState();
    const [misplaced, overtaken, plain] = [coverOf(1), coverOf(2), coverOf(3)];
    noteLateReply(state, misplaced, 7, "misplaced", Number.POSITIVE_INFINITY);
    expect(mustWait(misplaced, 50)).toBe(true);
    noteLateReply(state, overtaken, 8, "raises", 70);
    doubtSize(overtaken);
    expect(mustWait(overtaken, 50)).toBe(true);
    // The file has not become shorter than that.
    expect(mustWait(overtaken, 70)).toBe(false);
    doubtSize(plain);
    noteLateReply(state, plain, 9, "raises", 70);
    expect(mustWait(plain, 50)).toBe(false);
  });

  it("need not be waited for if it raises the size to no more than the kernel is known to have", () => {
    const state = new CoherenceState();
    const cover = coverOf();
    // What is told is not proof: the kernel drops a reply that is older than its last change.
    noteTold(cover, 100);
    noteLateReply(state, cover, 7, "raises", 100);
    expect([mustBeTaken(cover), noteRaised(cover, 100)]).toEqual([true, true]);
    noteLateReply(state, cover, 7, "raises", 100);
    expect([sizeKnown(cover), mustBeTaken(cover)]).toEqual([true, false]);
    // But the file may become shorter elsewhere, and then it harms as any other.
    doubtSize(cover);
    expect([mustBeTaken(cover), mustWait(cover, 50)]).toEqual([true, true]);
    noteThread(state, 7);
    noteLateReply(state, cover, 7, "raises", 100);
    expect(mustBeTaken(cover)).toBe(true);
    expect(judgeTold(cover, 100, 100, sizeOf(cover).mark)).toBe(true);
    noteLateReply(state, cover, 7, "raises", 101);
    expect(mustBeTaken(cover)).toBe(true);
    expect([noteRaised(cover, 100), mustBeTaken(cover)]).toEqual([false, true]);
    expect([noteRaised(cover, 101), mustBeTaken(cover)]).toEqual([true, false]);
    noteLateReply(state, cover, 7, "raises", 101);
    expect(mustBeTaken(cover)).toBe(false);
  });

  it.each([
    ["a smaller size", 10],
    ["the same size", 100],
    ["a larger size", 200],
    ["no size", null],
  ])("that sets the size leaves nothing known until a look, and tells %s", (_what, told) => {
    const state = new CoherenceState();
    const cover = coverOf();
    noteLateReply(state, cover, 7, "raises", 100);
    expect(noteRaised(cover, 100)).toBe(true);
    noteLateReply(state, cover, 7, "sets", Number.POSITIVE_INFINITY);
    if (told !== null) noteTold(cover, told);
    noteThread(state, 7);
    noteLateReply(state, cover, 7, "raises", 50);
    expect(mustBeTaken(cover)).toBe(true);
  });

  it("is over when its thread, or anybody who has the inode's lock, asks for something", () => {
    const state = new CoherenceState();
    const [byThread, byLock] = [coverOf(1), coverOf(2)];
    noteLateReply(state, byThread, 7, "misplaced", Number.POSITIVE_INFINITY);
    noteLateReply(state, byLock, 8, "misplaced", Number.POSITIVE_INFINITY);
    expect(noteThread(state, 9)).toBe(null);
    expect(noteThread(state, 7)).toBe(byThread);
    noteKernelLock(byLock);
    expect([mustWait(byThread, 50), mustWait(byLock, 50)]).toEqual([false, false]);
    expect(sizeOf(byThread).doubt).toBe(true);
  });

  it("that harmed is over, and what was seen before counts for nothing", () => {
    const state = new CoherenceState();
    const cover = coverOf();
    noteLateReply(state, cover, 7, "misplaced", Number.POSITIVE_INFINITY);
    const mark = sizeOf(cover).mark;
    noteThread(state, 7);
    expect(judgeTold(cover, 100, 100, mark)).toBe(false);
    expect(judgeSize(cover, 100, true, 100, mark)).toBe(false);
    expect(sizeOf(cover).doubt).toBe(true);
  });

  it("is not proved over by the thread that had one before", () => {
    const state = new CoherenceState();
    const cover = coverOf();
    noteLateReply(state, cover, 7, "raises", 100);
    noteLateReply(state, cover, 8, "misplaced", Number.POSITIVE_INFINITY);
    expect(noteThread(state, 7)).toBeNull();
    expect(cover.size?.late?.effect).toBe("misplaced");
    expect(noteThread(state, 8)).toBe(cover);
    expect(cover.size?.late).toBeNull();
  });

  it("of a thread that was forgotten among many is proved by the inode's lock only", () => {
    const state = new CoherenceState();
    const cover = coverOf();
    noteLateReply(state, cover, 1, "misplaced", Number.POSITIVE_INFINITY);
    for (let tid = 2; tid <= LATE_THREADS_MAX + 1; tid += 1) noteLateReply(state, coverOf(tid), tid, "raises", 70);
    expect(noteThread(state, 1)).toBe(null);
    expect(mustWait(cover, 50)).toBe(true);
  });
});

/** Hazards C4, H1: what waits while the lease does not hold, and what is dropped when. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { Cover, type Inode } from "../../../overlay/coherence/cover.ts";
import type { Effect } from "../../../overlay/coherence/effect.ts";
import type { Dropped } from "../../../overlay/coherence/kernel/drop-all.ts";
import { Suspension } from "../../../overlay/coherence/suspension.ts";

function coverOf(ino: number): Cover {
  const id = { ino, generation: 1 };
  const cover = new Cover(id, "file");
  const inode: Inode = { fuseNodeid: ino, id, kind: "file", nlookup: 1, openCount: 0, mappableCount: 0, cover };
  cover.inode = inode;
  return cover;
}

const giveUp = (cover: Cover): Effect => ({ do: "request", cover, mode: Mode.NL, flags: 0 });

function bench(): {
  readonly suspension: Suspension;
  /** Drops under way, oldest first: how many inodes, and what ends it. */
  readonly drops: { readonly inodes: number; end(): void }[];
  readonly done: Effect[];
} {
  const drops: { readonly inodes: number; end(): void }[] = [];
  const done: Effect[] = [];
  const suspension = new Suspension({
    cached: () => [coverOf(1).inode as Inode, coverOf(2).inode as Inode],
    drop: (inodes) =>
      new Promise<Dropped>((resolve) => {
        drops.push({
          inodes: inodes.length,
          end: () => resolve({ inodes: inodes.length, waiting: 0, absent: 0, over: Promise.resolve() }),
        });
      }),
    goOn: (effects) => done.push(...effects),
    now: () => 0,
    log: silentLog,
    fail: (error) => {
      throw error;
    },
  });
  return { suspension, drops, done };
}

async function settled(): Promise<void> {
  for (let turns = 0; turns < 20; turns += 1) await Promise.resolve();
}

describe("while the lease does not hold", () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] }));
  afterEach(() => void vi.useRealTimers());

  it("what dlmd is to be asked waits, and nothing else", () => {
    const { suspension, done } = bench();
    const effect = giveUp(coverOf(7));
    expect(suspension.takes(effect)).toBe(false);
    suspension.begin();
    expect(suspension.takes({ do: "timer", cover: coverOf(7), purpose: "hold", delayMs: 1 })).toBe(false);
    expect([suspension.takes(effect), done]).toEqual([true, []]);
    suspension.end(false);
    expect([done, suspension.active]).toEqual([[effect], false]);
  });

  it("one pass at a time, and one more for however many were asked for meanwhile", async () => {
    const { suspension, drops } = bench();
    for (let killed = 0; killed < 100; killed += 1) suspension.begin();
    expect(drops.length).toBe(1);
    drops[0]?.end();
    await settled();
    expect(drops.length).toBe(2);
    drops[1]?.end();
    await settled();
    expect(drops.length).toBe(2);
    suspension.begin();
    expect(drops.length).toBe(3);
  });

  it("answers of before that were given cost what is given up next another drop, which ends in time", async () => {
    const { suspension, drops, done } = bench();
    suspension.begin();
    drops[0]?.end();
    await settled();
    suspension.takes(giveUp(coverOf(7)));
    suspension.end(true);
    expect([drops[1]?.inodes, done.length]).toEqual([1, 0]);
    await vi.advanceTimersByTimeAsync(250);
    expect([done.length, suspension.active]).toEqual([1, false]);
  });

  it("so does an answer that was hurried when the pass for it had not begun", () => {
    const { suspension, drops, done } = bench();
    suspension.begin();
    suspension.takes(giveUp(coverOf(7)));
    suspension.begin();
    suspension.end(false);
    expect([drops.map(({ inodes }) => inodes), done.length]).toEqual([[2, 1], 0]);
  });

  it("a lapse that begins while that is dropped has an end of its own: until then nothing is given up", async () => {
    const { suspension, drops, done } = bench();
    suspension.begin();
    drops[0]?.end();
    await settled();
    suspension.takes(giveUp(coverOf(7)));
    suspension.end(true);
    suspension.begin();
    await vi.advanceTimersByTimeAsync(1000);
    expect([done.length, suspension.active]).toEqual([0, true]);
    suspension.end(false);
    drops.at(-1)?.end();
    await vi.advanceTimersByTimeAsync(250);
    expect([done.length, suspension.active]).toEqual([1, false]);
  });

  it("the end of the mount waits for nothing", () => {
    const { suspension, done } = bench();
    suspension.begin();
    suspension.takes(giveUp(coverOf(7)));
    suspension.release();
    expect([done.length, suspension.active]).toEqual([1, false]);
  });
});

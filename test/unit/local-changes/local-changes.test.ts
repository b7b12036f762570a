import { setImmediate } from "node:timers/promises";
import { afterEach, describe, expect, it, vi } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import {
  LocalChanges,
  LOCKS_AT_ONCE_MAX,
  type Look,
  QUEUE_MAX,
  SETTLE_MS,
  TOLD_MAX,
} from "../../../overlay/local-changes/local-changes.ts";
import { OwnTimes, TICK_MS } from "../../../overlay/local-changes/own-times.ts";
import { type FileId, fileKey } from "../../../overlay/lower/lower.ts";

const BEGAN = 10_000;
const id = (ino: number): FileId => ({ ino, generation: 1 });

/** A played directory: what is at a path, and what the owner knows of names. */
function played(queueMax?: number) {
  const tree = new Map<string, Look>([[".", { id: id(1), changedMs: 0 }]]);
  const known = new Map<string, FileId>();
  const had: string[] = [];
  const forgotten: string[] = [];
  /** Paths and locks. */
  const failing = new Set<string>();
  // Long after all changes here.
  const clock = { nowMs: BEGAN };
  const times = new OwnTimes();
  let held: Promise<void> = Promise.resolve();
  let atOnce = { now: 0, most: 0 };
  const changes = new LocalChanges(
    {
      look: async (path) => {
        if (failing.has(path)) throw new Error(path);
        return tree.get(path) ?? null;
      },
      list: async (path) =>
        [...tree.keys()]
          .filter((one) => one !== "." && (one.includes("/") ? one.slice(0, one.lastIndexOf("/")) : ".") === path)
          .map((one) => one.split("/").at(-1) ?? ""),
      directories: () => [".", "d"].filter((one) => tree.has(one)),
      knownAs: (directory, name) => known.get(`${fileKey(directory)}/${name}`) ?? null,
      forget: (directory, name) => void forgotten.push(`${fileKey(directory)}/${name ?? "*"}`),
      had: async (one, mode) => {
        if (failing.has(`${mode} ${one.ino}`)) throw new Error(mode);
        atOnce = { now: atOnce.now + 1, most: Math.max(atOnce.most, atOnce.now + 1) };
        had.push(`${mode} ${one.ino}`);
        await held;
        atOnce.now -= 1;
      },
      nowMs: () => clock.nowMs,
      log: silentLog,
      times,
    },
    queueMax,
  );
  clock.nowMs = BEGAN + 60_000;
  return {
    tree,
    known,
    had,
    forgotten,
    failing,
    clock,
    times,
    changes,
    mostAtOnce: () => atOnce.most,
    /** Locks are had when this resolves. */
    holdUntil: (promise: Promise<void>) => {
      held = promise;
    },
    idle: () => vi.waitFor(() => expect(changes.isIdle).toBe(true), { interval: 1 }),
  };
}

/** All that waits for no timer has been done; a wait of Vitest's would let time go on. */
async function turns(): Promise<void> {
  for (let k = 0; k < 50; k++) await setImmediate();
}

afterEach(() => {
  vi.useRealTimers();
});

describe("changes past the mount", () => {
  it("a file: the directories above are had for reading, from the root on, then the file", async () => {
    const place = played();
    place.tree.set("d", { id: id(2), changedMs: 0 });
    place.tree.set("d/f", { id: id(3), changedMs: BEGAN + 5 });
    place.changes.seen("d", "f");
    await place.idle();
    expect(place.had).toEqual(["PR 1", "PR 2", "EX 3"]);
    expect(place.forgotten).toEqual([]);
  });

  it("what the owner has done itself, and what is older than the watch, is left out", async () => {
    const place = played();
    place.tree.set("old", { id: id(2), changedMs: BEGAN - TICK_MS - 1 });
    place.tree.set("own", { id: id(3), changedMs: BEGAN + 5 });
    place.times.begin([id(3)], BEGAN + 5);
    place.changes.seen(".", "old");
    place.changes.seen(".", "own");
    await place.idle();
    expect(place.had).toEqual([]);
    place.times.end([id(3)], BEGAN + 6);
    place.tree.set("own", { id: id(3), changedMs: BEGAN + 50 });
    place.changes.seen(".", "own");
    await place.idle();
    expect(place.had).toEqual(["PR 1", "EX 3"]);
  });

  it("a change right after the watch began has the time of a tick before: it is told", async () => {
    const place = played();
    place.tree.set("f", { id: id(3), changedMs: BEGAN - TICK_MS });
    place.tree.set("before", { id: id(4), changedMs: BEGAN - TICK_MS - 1 });
    for (const name of ["before", "f"]) place.changes.seen(".", name);
    await place.idle();
    expect(place.had).toEqual(["PR 1", "EX 3"]);
  });

  it("one change that is told several times costs one lock; the next one costs another", async () => {
    const place = played();
    for (const changedMs of [BEGAN + 1, BEGAN + 1, BEGAN + 2]) {
      place.tree.set("f", { id: id(3), changedMs });
      place.changes.seen(".", "f");
      await place.idle();
    }
    expect(place.had).toEqual(["PR 1", "EX 3", "PR 1", "EX 3"]);
  });

  it("a change whose time may be that of the next one, too, is told again", async () => {
    const place = played();
    place.clock.nowMs = BEGAN + 500;
    place.tree.set("f", { id: id(3), changedMs: BEGAN + 500 - TICK_MS + 1 });
    for (let k = 0; k < 2; k++) {
      place.changes.seen(".", "f");
      await place.idle();
    }
    expect(place.had).toEqual(["PR 1", "EX 3", "PR 1", "EX 3"]);
    place.clock.nowMs += 1;
    for (let k = 0; k < 2; k++) {
      place.changes.seen(".", "f");
      await place.idle();
    }
    expect(place.had).toHaveLength(6);
  });

  it("a name that goes, or becomes another file: the directory, and the file that has lost it; the owner forgets the names", async () => {
    const place = played();
    place.known.set("1.1/gone", id(7));
    place.known.set("1.1/other", id(8));
    place.tree.set(".", { id: id(1), changedMs: BEGAN + 1 });
    place.tree.set("other", { id: id(9), changedMs: BEGAN + 1 });
    place.changes.seen(".", "gone");
    place.changes.seen(".", "other");
    await place.idle();
    expect(place.had).toEqual(["PR 1", "EX 1", "EX 7", "EX 9", "EX 8"]);
    expect(place.forgotten).toEqual(["1.1/gone", "1.1/other"]);
  });

  it("a name that this owner has taken away is nothing", async () => {
    const place = played();
    place.times.begin([id(1)], BEGAN + 1);
    place.tree.set(".", { id: id(1), changedMs: BEGAN + 1 });
    place.changes.seen(".", "gone");
    await place.idle();
    expect([place.had, place.forgotten]).toEqual([[], []]);
  });

  it("a name that another program gives or takes while this owner changes the directory is told all the same", async () => {
    const place = played();
    place.times.begin([id(1)], BEGAN + 1);
    place.tree.set(".", { id: id(1), changedMs: BEGAN + 1 });
    place.tree.set("new", { id: id(5), changedMs: BEGAN + 1 });
    place.changes.seen(".", "new");
    await place.idle();
    expect([place.had, place.forgotten]).toEqual([["PR 1", "EX 5", "EX 1"], ["1.1/new"]]);
    place.had.length = 0;
    place.known.set("1.1/gone", id(7));
    place.changes.seen(".", "gone");
    await place.idle();
    expect(place.had).toEqual(["PR 1", "EX 7", "EX 1"]);
  });

  it("a look that fails, and a lock that cannot be had, cost nothing else; the next event of that change tells it", async () => {
    const place = played();
    place.tree.set("a", { id: id(3), changedMs: BEGAN + 1 });
    place.failing.add("bad").add("EX 3");
    for (const name of ["bad", "a"]) place.changes.seen(".", name);
    await place.idle();
    expect(place.had).toEqual(["PR 1"]);
    place.failing.clear();
    place.changes.seen(".", "a");
    await place.idle();
    expect(place.had).toEqual(["PR 1", "PR 1", "EX 3"]);
  });

  it("changes are told after the clock was set back", async () => {
    const place = played();
    place.clock.nowMs = BEGAN - 5000;
    place.tree.set("f", { id: id(3), changedMs: BEGAN - 4000 });
    place.changes.seen(".", "f");
    await place.idle();
    expect(place.had).toEqual(["PR 1", "EX 3"]);
  });

  it("the end waits for no lock", async () => {
    const place = played();
    place.tree.set("f", { id: id(3), changedMs: BEGAN + 1 });
    place.holdUntil(new Promise(() => undefined));
    place.changes.seen(".", "f");
    await vi.waitFor(() => expect(place.had).toEqual(["PR 1"]));
    await place.changes.end();
    expect(place.changes.isIdle).toBe(true);
  });

  it("a directory that is gone is left to the one above", async () => {
    const place = played();
    place.changes.seen("d", "f");
    await place.idle();
    expect(place.had).toEqual([]);
  });

  it("a new directory is looked at again after SETTLE_MS, with all that is in it", async () => {
    vi.useFakeTimers();
    const place = played();
    place.tree.set("d", { id: id(2), changedMs: BEGAN + 1 });
    place.changes.appeared("d");
    await vi.advanceTimersByTimeAsync(SETTLE_MS - 1);
    await turns();
    expect([place.had, place.forgotten]).toEqual([["PR 1", "PR 2", "EX 2"], ["2.1/*"]]);
    place.tree.set("d/f", { id: id(3), changedMs: BEGAN + 2 });
    await vi.advanceTimersByTimeAsync(2);
    await turns();
    expect(place.had).toEqual(["PR 1", "PR 2", "EX 2", "PR 1", "PR 2", "EX 3", "EX 2"]);
  });

  it("with more than QUEUE_MAX paths all that is watched is looked at", async () => {
    expect(QUEUE_MAX).toBe(65_536);
    const place = played(3);
    place.tree.set("d", { id: id(2), changedMs: 0 });
    for (let k = 0; k < 5; k++) place.tree.set(`d/${k}`, { id: id(10 + k), changedMs: BEGAN + 1 });
    for (const name of ["a", "b", "c", "d"]) place.changes.seen(".", name);
    await place.idle();
    expect(place.changes.counts.overflows).toBe(1);
    expect(place.had).toEqual(["PR 1", "PR 2", "EX 10", "EX 11", "EX 12", "EX 13", "EX 14"]);
  });

  it("not more than LOCKS_AT_ONCE_MAX locks are asked for at a time", async () => {
    const place = played();
    let letGo = (): void => undefined;
    for (let k = 0; k < 2 * LOCKS_AT_ONCE_MAX; k++) {
      place.tree.set(`f${k}`, { id: id(10 + k), changedMs: BEGAN + 1 });
      place.changes.seen(".", `f${k}`);
    }
    place.holdUntil(
      new Promise((resolve) => {
        letGo = resolve;
      }),
    );
    await vi.waitFor(() => expect(place.had).toEqual(["PR 1"]));
    letGo();
    await place.idle();
    expect(place.mostAtOnce()).toBe(LOCKS_AT_ONCE_MAX);
    expect(place.had).toHaveLength(2 * LOCKS_AT_ONCE_MAX + 1);
  });

  it("of more than TOLD_MAX inodes the first is told again", async () => {
    const place = played();
    for (let k = 0; k <= TOLD_MAX; k++) {
      place.tree.set(`f${k}`, { id: id(10 + k), changedMs: BEGAN + 1 });
      place.changes.seen(".", `f${k}`);
    }
    await place.idle();
    place.had.length = 0;
    place.changes.seen(".", "f0");
    place.changes.seen(".", "f9");
    await place.idle();
    expect(place.had).toEqual(["PR 1", "EX 10"]);
  });

  it("nothing is looked at after the end", async () => {
    const place = played();
    place.tree.set("f", { id: id(3), changedMs: BEGAN + 1 });
    await place.changes.end();
    place.changes.seen(".", "f");
    place.changes.appeared(".");
    expect([place.changes.isIdle, place.had, place.changes.counts.looks]).toEqual([true, [], 0]);
  });
});

/** What is kept of removed inodes, for how long, and who gives it up: no file system, a clock of its own. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Attr, FileId } from "../../../overlay/lower/lower.ts";
import { RemovedInodes, type RemovedInodesOptions } from "../../../overlay/lower/local/removed-inodes.ts";

const id = (ino: number, generation = 1): FileId => ({ ino, generation });
const attr = { mode: 0o100644, nlink: 1, size: 7 } as Attr;

describe("removed inodes", () => {
  let inline: number[];
  let pooled: number[];
  let finish: (() => void)[];
  let removed: RemovedInodes;

  beforeEach(() => {
    vi.useFakeTimers();
    inline = [];
    pooled = [];
    finish = [];
    const native = {
      sync: { close: (fd: number) => inline.push(fd) },
      pool: {
        data: {
          close: (fd: number) =>
            new Promise<number>((resolve) => {
              pooled.push(fd);
              finish.push(() => resolve(0));
            }),
        },
      },
    } as unknown as RemovedInodesOptions["native"];
    removed = new RemovedInodes({ native, now: () => Date.now(), limit: 3, keepMs: 100 });
  });
  afterEach(() => {
    vi.useRealTimers();
  });
  const settle = async (): Promise<void> => {
    while (finish.length > 0) {
      finish.shift()?.();
      await vi.advanceTimersByTimeAsync(0);
    }
  };

  it("are closed when their time is over, each in its turn", async () => {
    removed.keep(11, id(1), attr, false);
    await vi.advanceTimersByTimeAsync(60);
    removed.keep(12, id(2), attr, false);
    await vi.advanceTimersByTimeAsync(39);
    expect(pooled).toEqual([]);
    await vi.advanceTimersByTimeAsync(1);
    await settle();
    expect(pooled).toEqual([11]);
    expect(removed.count).toBe(1);
    await vi.advanceTimersByTimeAsync(60);
    await settle();
    expect(pooled).toEqual([11, 12]);
    removed.keep(13, id(3), attr, false);
    await vi.advanceTimersByTimeAsync(100);
    await settle();
    expect(pooled).toEqual([11, 12, 13]);
    expect(inline).toEqual([]);
  });

  it("make room for younger ones: the oldest goes, a large file where nobody waits for it", () => {
    removed.keep(11, id(1), attr, false);
    removed.keep(12, id(2), attr, true);
    removed.keep(13, id(3), attr, false);
    removed.keep(14, id(4), attr, false);
    removed.keep(15, id(5), attr, false);
    expect(inline).toEqual([11]);
    expect(pooled).toEqual([12]);
    expect(removed.count).toBe(3);
  });

  it("are given up by whoever needs the room, who waits until they are closed, those under way too", async () => {
    expect(removed.releaseAll()).toBeUndefined();
    removed.keep(11, id(1), attr, false);
    await vi.advanceTimersByTimeAsync(100);
    expect(pooled).toEqual([11]);
    removed.keep(12, id(2), attr, false);
    let released = false;
    const waiting = async (): Promise<void> => {
      await removed.releaseAll();
      released = true;
    };
    const all = waiting();
    await vi.advanceTimersByTimeAsync(0);
    expect(pooled).toEqual([11, 12]);
    finish.shift()?.();
    await vi.advanceTimersByTimeAsync(0);
    expect(released).toBe(false);
    await settle();
    await all;
    expect(released).toBe(true);
    await vi.advanceTimersByTimeAsync(1000);
    expect(pooled).toEqual([11, 12]);
  });

  it("are remembered as they were, without a link, by number and generation", () => {
    removed.keep(-2, id(1), attr, false);
    expect(removed.count).toBe(0);
    expect(removed.attrOf(id(1))).toEqual({ ...attr, nlink: 0 });
    expect(removed.attrOf(id(1, 2))).toBeUndefined();
    removed.keep(11, id(1, 2), { ...attr, size: 8 }, false);
    expect(removed.attrOf(id(1))).toBeUndefined();
    expect(removed.attrOf(id(1, 2))).toEqual({ ...attr, nlink: 0, size: 8 });
  });
});

import { describe, expect, it } from "vitest";
import { OwnTimes, TICK_MS, TIMES_MAX } from "../../../overlay/local-changes/own-times.ts";

const A = { ino: 11, generation: 1 };
const B = { ino: 12, generation: 1 };

describe("own times", () => {
  it("a change is own while the call runs, and a tick before; not afterwards", () => {
    const times = new OwnTimes();
    expect(times.isOwn(A, 1000)).toBe(false);
    times.begin([A], 1000);
    for (const at of [1000 - TICK_MS, 1000, 99_999]) expect(times.isOwn(A, at)).toBe(true);
    expect(times.isOwn(A, 1000 - TICK_MS - 0.1)).toBe(false);
    expect(times.isOwn(B, 1000)).toBe(false);
    times.end([A], 1005);
    expect(times.isOwn(A, 1005.9)).toBe(true);
    expect(times.isOwn(A, 1006)).toBe(false);
  });

  it("several calls at a time are one until the last has ended", () => {
    const times = new OwnTimes();
    times.begin([A], 1000);
    times.begin([A, B], 1100);
    times.end([A], 1200);
    expect(times.isOwn(A, 5000)).toBe(true);
    times.end([A, B], 1300);
    expect(times.isOwn(A, 1050)).toBe(true);
    expect(times.isOwn(A, 1301)).toBe(false);
  });

  it("between two of them a change is another program's; the earlier ones stay own, TIMES_MAX of them", () => {
    const times = new OwnTimes();
    for (let k = 0; k <= TIMES_MAX; k++) {
      times.begin([A], 1000 * k);
      times.end([A], 1000 * k);
    }
    expect(times.isOwn(A, 500)).toBe(false);
    expect(times.isOwn(A, 1000)).toBe(true);
    expect(times.isOwn(A, 0)).toBe(false);
  });

  it("of more inodes than twice the limit the oldest are forgotten, and one that is used stays", () => {
    const times = new OwnTimes(2);
    for (let ino = 1; ino <= 5; ino++) {
      const id = { ino, generation: 1 };
      times.begin([A, id], 1000);
      times.end([A, id], 1000);
    }
    expect(times.isOwn({ ino: 1, generation: 1 }, 1000)).toBe(false);
    expect(times.isOwn({ ino: 5, generation: 1 }, 1000)).toBe(true);
    expect(times.isOwn(A, 1000)).toBe(true);
  });
});

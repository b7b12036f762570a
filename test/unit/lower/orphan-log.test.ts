/** What the log says of open files that cannot be kept for the next owner. */
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import type { Native } from "../../../native/index.ts";
import type { FileHandleFormat } from "../../../overlay/lower/local/file-handle.ts";
import { Orphans } from "../../../overlay/lower/local/orphans.ts";

const LOG_INTERVAL_MS = 10_000;

beforeEach(() => vi.useFakeTimers({ toFake: ["performance"] }));
afterEach(() => vi.useRealTimers());

/** Moves end one after the other with these results. */
function orphans(...results: number[]): { all: Orphans; said: string[]; move: (ino: number) => unknown; rooms: () => number } {
  const said: string[] = [];
  let rooms = 0;
  const all = new Orphans({
    native: {} as Native,
    log: { ...silentLog, warn: (fields) => void said.push(String(fields["errno"])) },
    rootFd: 3,
    rootIno: 2,
    format: {} as FileHandleFormat,
    metadata: { rename: () => results.shift() ?? 0 } as never,
    isOpen: () => true,
    makeRoom: () => Promise.resolve().then(() => void (rooms += 1)),
  });
  all.table.begin([]);
  const move = (ino: number): unknown => all.moveIn(4, Buffer.from("f"), { ino, generation: 1 }, false, () => 0);
  return { all, said, move, rooms: () => rooms };
}

it("a reason is logged once in LOG_INTERVAL_MS, and each reason by itself", () => {
  const { said, move } = orphans(-E.EXDEV, -E.EXDEV, -E.EPERM, -E.EXDEV);
  move(11);
  vi.advanceTimersByTime(LOG_INTERVAL_MS - 1);
  move(12);
  move(13);
  expect(said).toEqual(["EXDEV", "EPERM"]);
  vi.advanceTimersByTime(1);
  move(14);
  expect(said).toEqual(["EXDEV", "EPERM", "EXDEV"]);
});

it("on a full disk the space of what was removed a moment ago is given back first, and it is tried once more", async () => {
  const { all, said, move, rooms } = orphans(-E.ENOSPC, 0, -E.EDQUOT, -E.ENOSPC);
  await move(11);
  expect([rooms(), all.has({ ino: 11, generation: 1 }), said]).toEqual([1, true, []]);
  await move(12);
  expect([rooms(), all.has({ ino: 12, generation: 1 }), said]).toEqual([2, false, ["ENOSPC"]]);
});

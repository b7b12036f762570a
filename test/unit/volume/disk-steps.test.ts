/** Questions to a disk that hangs: given up at the limit, not asked again before the first is back; changes are never given up. */
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { DISK_ANSWER_LIMIT_MS, DiskSteps } from "../../../overlay/volume/disk-steps.ts";

beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] }));
afterEach(() => void vi.useRealTimers());

function hanging(): { readonly work: () => Promise<string>; readonly answer: (words: string) => void; readonly asked: () => number } {
  let asked = 0;
  let answer: (words: string) => void = () => {};
  const work = (): Promise<string> => {
    asked += 1;
    return new Promise((resolve) => (answer = resolve));
  };
  return { work, answer: (words) => answer(words), asked: () => asked };
}

it("a question is given up at DISK_ANSWER_LIMIT_MS, with words, and no other is asked before it is back", async () => {
  const disk = new DiskSteps("/dev/x");
  const { work, answer, asked } = hanging();
  let failure: Error | null = null;
  const first = disk.ask("reading", work).catch((error: unknown) => (failure = error as Error));
  await vi.advanceTimersByTimeAsync(DISK_ANSWER_LIMIT_MS - 1);
  expect([failure, disk.silence]).toEqual([null, null]);
  await vi.advanceTimersByTimeAsync(1);
  await first;
  expect(failure).toMatchObject({ code: "device-silent", message: "/dev/x has not answered for 5 s (reading); given up: reading" });
  expect(disk.silence).toBe("/dev/x has not answered for 5 s (reading)");
  await vi.advanceTimersByTimeAsync(2000);
  await expect(disk.ask("looking", work)).rejects.toThrow("/dev/x has not answered for 7 s (reading); given up: looking");
  expect(asked()).toBe(1);
  answer("late");
  await vi.advanceTimersByTimeAsync(0);
  expect(disk.silence).toBeNull();
  const second = disk.ask("looking", work);
  answer("well");
  expect([await second, asked(), vi.getTimerCount()]).toEqual(["well", 2, 0]);
});

it("a question that fails is not silence", async () => {
  const disk = new DiskSteps("/dev/x");
  await expect(disk.ask("reading", () => Promise.reject(new Error("EIO")))).rejects.toThrow("EIO");
  expect([await disk.ask("reading", async () => "well"), vi.getTimerCount()]).toEqual(["well", 0]);
});

it("a change is waited for, however long, and said", async () => {
  const disk = new DiskSteps("/dev/x");
  const { work, answer } = hanging();
  const change = disk.carryOut("mounting it", work);
  await vi.advanceTimersByTimeAsync(10 * DISK_ANSWER_LIMIT_MS);
  expect(disk.silence).toBe("/dev/x: mounting it has taken 50 s so far");
  answer("done");
  expect([await change, disk.silence]).toEqual(["done", null]);
});

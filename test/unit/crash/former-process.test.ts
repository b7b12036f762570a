/** The process before, after a crash: which threads are its own, and when nothing of it is left (hazard F41). Real processes. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { afterEach, describe, expect, it, vi } from "vitest";
import type { OperatingError } from "../../../dlmd/base/error.ts";
import { startTimeOf } from "../../../dlmd/base/process.ts";
import {
  FORMER_END_MS,
  FORMER_STUCK_MS,
  type FormerProcess,
  hasEnded,
  isThreadOf,
  thisProcess,
} from "../../../overlay/crash/former-process.ts";

const children: ChildProcess[] = [];
afterEach(() => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
});

async function running(): Promise<[ChildProcess, FormerProcess]> {
  const child = spawn("sleep", ["1000"], { stdio: "ignore" });
  children.push(child);
  await once(child, "spawn");
  const pid = child.pid as number;
  return [child, { pid, startTime: startTimeOf(pid) as string }];
}

it("a thread is its own as long as there is one of that number in it", async () => {
  const [, former] = await running();
  expect([isThreadOf(former, former.pid), isThreadOf(former, process.pid)]).toEqual([true, false]);
  expect(isThreadOf({ ...former, startTime: "1" }, former.pid)).toBe(false);
  expect(isThreadOf(thisProcess(), process.pid)).toBe(true);
});

it("has ended when it was killed, also if another process has its number", async () => {
  const [child, former] = await running();
  await hasEnded({ ...former, startTime: "1" });
  child.kill("SIGKILL");
  await hasEnded(former);
  expect(isThreadOf(former, former.pid)).toBe(false);
});

describe("one that does not end ends the mount", () => {
  afterEach(() => void vi.useRealTimers());
  const waits = async (waitsInFuse: boolean): Promise<[() => string, FormerProcess]> => {
    const [, former] = await running();
    vi.useFakeTimers({ toFake: ["setTimeout", "performance"] });
    let found = "waits";
    void hasEnded(former, () => waitsInFuse).catch((error: unknown) => {
      found = (error as OperatingError).code;
    });
    return [() => found, former];
  };

  it("after FORMER_STUCK_MS, if a thread of it waits for the mount", async () => {
    const [found] = await waits(true);
    await vi.advanceTimersByTimeAsync(FORMER_STUCK_MS - 10);
    expect(found()).toBe("waits");
    await vi.advanceTimersByTimeAsync(20);
    expect(found()).toBe("crash-lost");
  });

  it("after FORMER_END_MS, if it is about to unmount the disk", async () => {
    const [found] = await waits(false);
    await vi.advanceTimersByTimeAsync(FORMER_END_MS - 10);
    expect(found()).toBe("waits");
    await vi.advanceTimersByTimeAsync(20);
    expect(found()).toBe("crash-lost");
  });
});

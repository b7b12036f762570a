/** What is taken for a wait in the kernel that no signal ends: looks that are the test's, and real processes that wait for none. */
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { KERNEL_WAIT_MS, type KernelWait, type ThreadSeen, kernelWaitOf } from "../../../dlmd/server/kernel-wait.ts";

// Its own function is not played by fake timers.
vi.mock("node:timers/promises", () => ({ setTimeout: (ms: number) => new Promise((resolve) => setTimeout(resolve, ms)) }));
beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const held: ThreadSeen = { state: "D", switches: "7", wchan: "percpu_rwsem_wait" };

/** What is found if that is seen, look by look, and how many looks it took. */
async function found(...seen: (ThreadSeen | null)[]): Promise<[KernelWait, number]> {
  let looks = 0;
  const waits = kernelWaitOf(1, () => seen[looks++] ?? null);
  await vi.advanceTimersByTimeAsync(KERNEL_WAIT_MS);
  return [await waits, looks];
}

test("a thread that waits for its disk is seen twice, and has not run in between", async () => {
  let looks = 0;
  const waits = kernelWaitOf(1, () => (looks++, held));
  await vi.advanceTimersByTimeAsync(KERNEL_WAIT_MS - 1);
  expect(looks).toBe(1);
  await vi.advanceTimersByTimeAsync(1);
  expect([await waits, looks]).toEqual(["held", 2]);
});

test("one that a signal would wake, or that has ended, does not", async () => {
  expect(await found({ ...held, state: "S" })).toEqual(["none", 1]);
  expect(await found({ ...held, state: "T" })).toEqual(["none", 1]);
  expect(await found(null)).toEqual(["none", 1]);
  expect(await found(held, null)).toEqual(["none", 2]);
});

test("one whose disk has answered between the looks did so until then: it may have answered too", async () => {
  expect(await found(held, { ...held, switches: "8" })).toEqual(["over", 2]);
  expect(await found(held, { ...held, state: "R" })).toEqual(["over", 2]);
  expect(await found(held, { ...held, state: "S", switches: "9", wchan: "ep_poll" })).toEqual(["over", 2]);
});

test.each([
  "request_wait_answer",
  "__fuse_simulate_request",
  "rpc_wait_bit_killable",
  "nfs4_run_state_manager",
  "folio_lock_killable",
  "wait_for_vfork_done",
])("one that waits in %s can be killed", async (wchan) => {
  expect(await found({ ...held, wchan })).toEqual(["none", 1]);
});

test("one that may not be looked at proves nothing", async () => {
  expect(await found({ ...held, wchan: "0" })).toEqual(["none", 1]);
  expect(await found({ ...held, wchan: "" })).toEqual(["none", 1]);
});

test("this process, and one that is not there, wait for no disk", async () => {
  expect(await kernelWaitOf(process.pid)).toBe("none");
  expect(await kernelWaitOf(0)).toBe("none");
});

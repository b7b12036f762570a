/** How a process that was killed is waited for: the kernel and the clock are the test's. */
import type { Socket } from "node:net";
import { afterEach, expect, test, vi } from "vitest";
import { peerProcesses } from "../../../dlmd/server/peer-process.ts";

const kernel = vi.hoisted(() => ({ looks: 0, endsAtLook: 1, signals: [] as number[], slept: [] as number[] }));
vi.mock("../../../native/index.ts", () => ({
  nativeAddon: () => ({
    peerCredentials: () => 0,
    peerPidfd: () => 7,
    pidfdSignal: (_: number, signal: number) => kernel.signals.push(signal) && 0,
    pidfdEnded: () => (++kernel.looks >= kernel.endsAtLook ? 1 : 0),
    sync: { close: () => 0 },
  }),
}));
// Another process has got its number, and waits.
vi.mock("../../../dlmd/server/kernel-wait.ts", () => ({ kernelWaitOf: async () => "held" }));
vi.mock("node:timers/promises", () => ({
  setTimeout: (ms: number) => {
    kernel.slept.push(ms);
    return Promise.resolve();
  },
}));
afterEach(() => void Object.assign(kernel, { looks: 0, endsAtLook: 1, signals: [], slept: [] }));

test("a killed process is looked at every 20 ms until it has ended", async () => {
  kernel.endsAtLook = 4;
  const handle = peerProcesses().open({} as Socket);
  expect(await handle?.kill()).toBe(true);
  expect([kernel.signals, kernel.slept, handle?.ended]).toEqual([[9], [20, 20, 20], true]);
});

test("a process of which nobody waits for the end any more is not looked at again", async () => {
  kernel.endsAtLook = Number.POSITIVE_INFINITY;
  const handle = peerProcesses().open({} as Socket);
  const killed = handle?.kill();
  handle?.close();
  expect(await killed).toBe(false);
  expect([kernel.looks, handle?.ended]).toEqual([1, false]);
});

test("a process that has ended waits in the kernel for nothing, though another one has its number", async () => {
  kernel.endsAtLook = 2;
  const handle = peerProcesses().open({} as Socket);
  expect(await handle?.kernelWait()).toBe("held");
  expect(await handle?.kernelWait()).toBe("none");
});

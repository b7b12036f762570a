/** A process that has an owner give up what it keeps for a mount that has ended (hazard F35): by way of which dlmd it asks, how often, and what ends it. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { OperatingError } from "../../../dlmd/base/error.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import { COLLECT_ASK_MS, type CollectEnd, collectKept, type CollectOrder } from "../../../overlay/restart/collect.ts";
import { CUSTODY_LIMIT_MS } from "../../../overlay/restart/custody.ts";
import { HOLD_LOOK_MS, HOLD_RETRY_MS, SAME_DLMD_MS } from "../../../overlay/restart/holder.ts";
import { OTHER_OWNER } from "../../../overlay/restart/take.ts";

const ORDER: CollectOrder = {
  owner: { host: "10.0.0.1", port: 7, nodeid: 1, incarnation: "i1", clientId: 3, epoch: 4 },
  volumeUuid: "u",
  ticket: "t1",
  incarnation: "old",
  waitedMs: 0,
};

interface Asked {
  readonly signal: AbortSignal;
  readonly answer: (found: boolean) => void;
  readonly fail: (error: Error) => void;
}

function begin(order: Partial<CollectOrder> = {}): { rig: { dlmd: string | null }; asked: Asked[]; end: () => CollectEnd | null } {
  const rig = { dlmd: "old" as string | null };
  const asked: Asked[] = [];
  const ask = (signal: AbortSignal): Promise<boolean> =>
    new Promise((answer, fail) => {
      asked.push({ signal, answer, fail });
    });
  let end: CollectEnd | null = null;
  void collectKept({ ...ORDER, ...order }, { log: silentLog, dlmd: () => Promise.resolve(rig.dlmd), ask }).then((how) => (end = how));
  return { rig, asked, end: () => end };
}

const pass = (ms: number): Promise<unknown> => vi.advanceTimersByTimeAsync(ms);

describe("a process that collects", () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] }));
  afterEach(() => void vi.useRealTimers());

  it.each<[boolean, CollectEnd]>([
    [true, "collected"],
    [false, "nothing"],
  ])("waits for another dlmd, asks the owner once, and ends (found: %s)", async (found, expected) => {
    const { rig, asked, end } = begin();
    await pass(10 * HOLD_LOOK_MS);
    rig.dlmd = null;
    await pass(10 * HOLD_LOOK_MS);
    expect([asked.length, end()]).toEqual([0, null]);
    rig.dlmd = "new";
    await pass(HOLD_LOOK_MS);
    expect([asked.length, end()]).toEqual([1, null]);
    asked[0]?.answer(found);
    await pass(1);
    expect(end()).toBe(expected);
    await pass(COLLECT_ASK_MS);
    expect(asked[0]?.signal.aborted).toBe(false);
  });

  it("asks by way of the same dlmd once it is not to be restarted any more", async () => {
    const late = begin({ waitedMs: SAME_DLMD_MS - 1000 });
    await pass(1000);
    expect(late.asked.length).toBe(0);
    await pass(2 * HOLD_LOOK_MS);
    expect(late.asked.length).toBe(1);
    const told = begin({ incarnation: null });
    await pass(0);
    expect(told.asked.length).toBe(1);
  });

  it("asks again after what may pass", async () => {
    const { rig, asked, end } = begin();
    rig.dlmd = "new";
    await pass(HOLD_LOOK_MS);
    asked[0]?.fail(new Error("dlmd is gone"));
    await pass(HOLD_RETRY_MS - 1);
    expect([asked.length, end()]).toEqual([1, null]);
    await pass(1);
    expect([asked.length, end()]).toEqual([2, null]);
  });

  it("asks anew where there is no answer, and the question before ends", async () => {
    const { rig, asked } = begin();
    rig.dlmd = "new";
    await pass(HOLD_LOOK_MS);
    await pass(COLLECT_ASK_MS - 1);
    expect(asked.map(({ signal }) => signal.aborted)).toEqual([false]);
    await pass(1 + HOLD_RETRY_MS);
    expect(asked.map(({ signal }) => signal.aborted)).toEqual([true, false]);
  });

  it("ends where that owner is no more", async () => {
    const { rig, asked, end } = begin();
    rig.dlmd = "new";
    await pass(HOLD_LOOK_MS);
    asked[0]?.fail(new OperatingError("owner epoch 5 expected, found 4", { code: OTHER_OWNER, hint: "" }));
    await pass(1);
    expect(end()).toBe("other-owner");
  });

  it("ends when nothing can be kept any more", async () => {
    const { rig, asked, end } = begin({ waitedMs: 1000 });
    rig.dlmd = null;
    await pass(CUSTODY_LIMIT_MS - 1000 - HOLD_LOOK_MS);
    expect(end()).toBeNull();
    await pass(HOLD_LOOK_MS);
    expect([end(), asked.length]).toEqual(["late", 0]);
  });
});

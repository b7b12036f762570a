/** An owner that gives its disk back for the next process of its mount, and that process (hazard F43). */
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import { OTHER_OWNER } from "../../../overlay/restart/take.ts";
import {
  ALONE_LIMIT_MS,
  giveBack,
  type GivingBack,
  requireNoOwnerBetween,
  ROLE_LEAVE_MS,
  untilAlone,
} from "../../../overlay/serve/give-back.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

function setUp(change: Partial<GivingBack> = {}): { readonly steps: string[]; readonly parts: GivingBack } {
  const steps: string[] = [];
  const step = (what: string) => (): Promise<void> => {
    steps.push(what);
    return Promise.resolve();
  };
  const parts: GivingBack = {
    service: { giveBack: step("disk") },
    owner: { leave: step("role") },
    coherence: { beAlone: () => void steps.push("alone") },
    group: { leave: () => void steps.push("group") },
    client: { close: step("dlmd") },
    log: silentLog,
    ...change,
  };
  return { steps, parts };
}

it("gives the disk back before anything is said of it, and then has no lock any more", async () => {
  let isBack = (): void => undefined;
  const back = new Promise<void>((resolve) => (isBack = resolve));
  const { steps, parts } = setUp({ service: { giveBack: () => back } });
  const given = giveBack(parts, true);
  await vi.advanceTimersByTimeAsync(60_000);
  expect(steps).toEqual([]);
  isBack();
  await given;
  expect(steps).toEqual(["role", "alone", "group", "dlmd"]);
});

it("says nothing where it cannot", async () => {
  const { steps, parts } = setUp({ service: { giveBack: () => Promise.reject(new Error("in use")) } });
  await expect(giveBack(parts, true)).rejects.toThrow("in use");
  expect(steps).toEqual([]);
});

it("gives the disk back alone where dlmd is dead", async () => {
  const { steps, parts } = setUp();
  await giveBack(parts, false);
  expect(steps).toEqual(["disk"]);
});

it("leaves dlmd without its role's locks if they do not come in ROLE_LEAVE_MS", async () => {
  const { steps, parts } = setUp({ owner: { leave: () => new Promise(() => undefined) } });
  let isOver = false;
  void giveBack(parts, true).then(() => (isOver = true));
  await vi.advanceTimersByTimeAsync(ROLE_LEAVE_MS - 1);
  expect([steps, isOver]).toEqual([["disk"], false]);
  await vi.advanceTimersByTimeAsync(1);
  expect([steps, isOver]).toEqual([["disk", "alone", "group", "dlmd"], true]);
});

it("waits until it is alone again, and ALONE_LIMIT_MS at most", async () => {
  let isAlone = false;
  let waits = 2;
  const over = (): void => void (waits -= 1);
  void untilAlone(() => isAlone).then(over);
  void untilAlone(() => false).then(over);
  await vi.advanceTimersByTimeAsync(ALONE_LIMIT_MS / 2);
  isAlone = true;
  await vi.advanceTimersByTimeAsync(10);
  expect(waits).toBe(1);
  await vi.advanceTimersByTimeAsync(ALONE_LIMIT_MS / 2 - 11);
  expect(waits).toBe(1);
  await vi.advanceTimersByTimeAsync(10);
  expect(waits).toBe(0);
});

const goOn = (isOwner: boolean, openedAt: { epoch: number; cleanAfter: number } | null) => (): void =>
  requireNoOwnerBetween(isOwner, { openedAt }, { ownerEpoch: 7 });

it("the next process goes on as the owner whose disk the old one has left clean", () => {
  expect(goOn(true, { epoch: 8, cleanAfter: 7 })).not.toThrow();
});

it.each([
  ["another one was in between", true, { epoch: 9, cleanAfter: 8 }, "there was another one, with epoch 8"],
  ["the disk was not left clean", true, { epoch: 8, cleanAfter: 0 }, "there was another one, with epoch 0"],
  ["another one is there", false, { epoch: 8, cleanAfter: 7 }, "another one is there"],
  ["nothing is open", true, null, "there was another one, with epoch 0"],
])("the next process does not go on: %s", (_, isOwner, openedAt, why) => {
  expect(goOn(isOwner, openedAt)).toThrow(
    expect.objectContaining({ code: OTHER_OWNER, message: expect.stringContaining(why) as string }) as Error,
  );
});

/** An owner that gives its disk back for the next process of its mount, and that process (hazard F43). */
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import type { Life } from "../../../overlay/volume/life.ts";
import type { OwnerBlock } from "../../../overlay/volume/owner-block.ts";
import { OTHER_OWNER } from "../../../overlay/restart/take.ts";
import {
  ALONE_LIMIT_MS,
  epochGivenBackBy,
  leaveDlmd,
  type Leaving,
  requireNoOwnerBetween,
  ROLE_LEAVE_MS,
  untilAlone,
} from "../../../overlay/serve/give-back.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

function setUp(change: Partial<Leaving> = {}): { readonly steps: string[]; readonly parts: Leaving } {
  const steps: string[] = [];
  const step = (what: string) => (): Promise<void> => {
    steps.push(what);
    return Promise.resolve();
  };
  const parts: Leaving = {
    owner: { leave: step("role") },
    coherence: { beAlone: () => void steps.push("alone") },
    group: { leave: () => void steps.push("group") },
    client: { close: step("dlmd") },
    log: silentLog,
    ...change,
  };
  return { steps, parts };
}

it("leaves the election, the group and dlmd, in that order", async () => {
  const { steps, parts } = setUp();
  await leaveDlmd(parts);
  expect(steps).toEqual(["role", "alone", "group", "dlmd"]);
});

it("leaves dlmd without its role's locks if they do not come in ROLE_LEAVE_MS", async () => {
  const { steps, parts } = setUp({ owner: { leave: () => new Promise(() => undefined) } });
  let isOver = false;
  void leaveDlmd(parts).then(() => (isOver = true));
  await vi.advanceTimersByTimeAsync(ROLE_LEAVE_MS - 1);
  expect([steps, isOver]).toEqual([[], false]);
  await vi.advanceTimersByTimeAsync(1);
  expect([steps, isOver]).toEqual([["alone", "group", "dlmd"], true]);
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

type OpenedAt = { epoch: number; cleanAfter: number } | null;
const goOn =
  (isOwner: boolean, openedAt: OpenedAt, custody: string | null = null) =>
  (): void =>
    requireNoOwnerBetween(isOwner, { openedAt }, { ownerEpoch: 7, custody });

it("the next process goes on as the owner whose disk the old one has left clean; or at another one, where others keep what it had", () => {
  expect(goOn(true, { epoch: 8, cleanAfter: 7 })).not.toThrow();
  expect(goOn(false, { epoch: 8, cleanAfter: 7 }, "ticket")).not.toThrow();
});

it.each<[string, boolean, OpenedAt, string | null, string]>([
  ["another one was in between", true, { epoch: 9, cleanAfter: 8 }, null, "there was one between, with epoch 8"],
  ["the disk was not left clean", true, { epoch: 8, cleanAfter: 0 }, null, "there was one between, with epoch 0"],
  ["another one is there", false, { epoch: 8, cleanAfter: 7 }, null, "this node is to be the next one; it is another node"],
  ["nothing is open", true, null, null, "there was one between, with epoch 0"],
  ["others keep what it had, and there was one in between", false, { epoch: 9, cleanAfter: 8 }, "t", "between, with epoch 8"],
  [
    "others keep what it had, and it is the owner",
    true,
    { epoch: 8, cleanAfter: 7 },
    "t",
    "another node is to be the next one; it is this node",
  ],
])("the next process does not go on: %s", (_, isOwner, openedAt, custody, why) => {
  expect(goOn(isOwner, openedAt, custody)).toThrow(
    expect.objectContaining({ code: OTHER_OWNER, message: expect.stringContaining(why) as string }) as Error,
  );
});

const LIFE = { pid: 9, bootId: "b1" } as Life;
const blockOf = (change: object): OwnerBlock => ({ state: "released", epoch: 8, life: LIFE, ...change }) as OwnerBlock;

it.each([
  ["has given it back clean", {}, 8],
  ["has it mounted still", { state: "owned" }, null],
  ["another process had it last", { life: { ...LIFE, pid: 10 } }, null],
  ["a process of that number on another machine had it last", { life: { ...LIFE, bootId: "b2" } }, null],
  ["somebody had it before", { epoch: 9 }, null],
  ["it never had it", { life: null, epoch: 7 }, null],
])("the disk after a process that could not go on: %s", async (_, change, epoch) => {
  const found = epochGivenBackBy(() => Promise.resolve(blockOf(change)), { pid: 9, bootId: "b1", after: 7 }, silentLog);
  expect(await found).toBe(epoch);
});

it("a disk that does not answer tells nothing", async () => {
  expect(await epochGivenBackBy(() => Promise.reject(new Error("EIO")), { pid: 9, bootId: "b1", after: 7 }, silentLog)).toBeNull();
});

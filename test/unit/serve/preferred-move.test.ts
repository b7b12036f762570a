/** A node that prefers to be the owner asks for the volume, once at a time, and leaves it to one that goes first. */
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import type { HandOverAnswer } from "../../../overlay/serve/hand-over.ts";
import { PREFERRED_LOOK_MS, PreferredMove, type PreferredMoveOptions } from "../../../overlay/serve/preferred-move.ts";
import { PREFERRED_AFTER_MS, PREFERRED_AGAIN_MIN_MS } from "../../../overlay/volume/preferred-owner.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const refused: HandOverAnswer = { kind: "refused", why: "it is being handed over to node1", nobodyElse: false };

function move(change: Partial<PreferredMoveOptions> = {}): { readonly one: PreferredMove; readonly asked: number[] } {
  const asked: number[] = [];
  const beganMs = Date.now();
  const one = new PreferredMove({
    nodeid: 2,
    preferred: [1, 2],
    situation: () => ({ owner: { nodeid: 3, epoch: 4 }, viewId: "v1", isWell: true }),
    otherMounters: () => Promise.resolve([3]),
    request: () => {
      asked.push(Date.now() - beganMs);
      return Promise.resolve(refused);
    },
    log: silentLog,
    nowMs: () => Date.now(),
    ...change,
  });
  return { one, asked };
}

const passMs = (ms: number): Promise<unknown> => vi.advanceTimersByTimeAsync(ms);

it("looks each second, asks when it is time, and after a refusal later", async () => {
  const { one, asked } = move();
  one.begin();
  await passMs(PREFERRED_AFTER_MS - PREFERRED_LOOK_MS);
  expect(asked).toEqual([]);
  await passMs(PREFERRED_LOOK_MS);
  expect(asked).toEqual([PREFERRED_AFTER_MS]);
  await passMs(PREFERRED_AGAIN_MIN_MS);
  expect(asked).toEqual([PREFERRED_AFTER_MS, PREFERRED_AFTER_MS + PREFERRED_AGAIN_MIN_MS]);
  one.end();
  await passMs(10 * PREFERRED_AGAIN_MIN_MS);
  expect(asked.length).toBe(2);
});

it("does not ask again while the answer is on its way", async () => {
  let count = 0;
  const { one } = move({ request: () => (count++, new Promise(() => undefined)) });
  one.begin();
  await passMs(PREFERRED_AFTER_MS + 10 * PREFERRED_AGAIN_MIN_MS);
  expect(count).toBe(1);
});

it("leaves the volume to a lower nodeid that prefers it", async () => {
  const { one, asked } = move({ otherMounters: () => Promise.resolve([1, 3]) });
  one.begin();
  await passMs(PREFERRED_AFTER_MS + 10 * PREFERRED_AGAIN_MIN_MS);
  expect(asked).toEqual([]);
});

it("does nothing on a node that does not prefer it", async () => {
  const { one, asked } = move({ preferred: [1] });
  one.begin();
  await passMs(PREFERRED_AFTER_MS + 10 * PREFERRED_AGAIN_MIN_MS);
  expect(asked).toEqual([]);
});

it.each<[string, (one: PreferredMove, now: { isWell: boolean; nodeid: number }) => void]>([
  ["the mount has ended", (one) => one.end()],
  ["the mount is unwell", (_, now) => (now.isWell = false)],
  ["another node that prefers it is the owner", (_, now) => (now.nodeid = 1)],
  ["nothing has changed", () => undefined],
])("looks again once it knows who mounts the volume: meanwhile %s", async (what, change) => {
  const now = { isWell: true, nodeid: 3 };
  let answer: (mounters: readonly number[]) => void = () => undefined;
  let questions = 0;
  const { one, asked } = move({
    situation: () => ({ owner: { nodeid: now.nodeid, epoch: 4 }, viewId: "v1", isWell: now.isWell }),
    otherMounters: () => (questions++, new Promise((resolve) => (answer = resolve))),
  });
  one.begin();
  await passMs(PREFERRED_AFTER_MS);
  expect(questions).toBe(1);
  change(one, now);
  answer([3]);
  await passMs(0);
  expect(asked).toEqual(what === "nothing has changed" ? [PREFERRED_AFTER_MS] : []);
  one.end();
});

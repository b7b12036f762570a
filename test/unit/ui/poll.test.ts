/** One look for all viewers, and none if nobody looks. */
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { OperatingError } from "../../../dlmd/base/error.ts";
import type { NodeFacts } from "../../../overlay/status/facts.ts";
import { LivePoll, type Source, TURN_EVERY_MS, TURN_LIMIT_MS } from "../../../overlay/ui/poll.ts";
import type { Snapshot } from "../../../overlay/ui/snapshot.ts";
import { wellNode } from "../status/node.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const failures: unknown[] = [];
const poll = (...sources: Source[]): LivePoll => new LivePoll({ sources, title: "", failed: (error) => void failures.push(error) });
const well: Source = { name: "this node", look: async () => wellNode };

it("asks again each second as long as one looks, once for all of them", async () => {
  const live = poll(well);
  const seen: string[] = [];
  const first = live.watch(() => void seen.push("first"));
  const second = live.watch(() => void seen.push("second"));
  await vi.advanceTimersByTimeAsync(0);
  expect([live.turns, seen]).toEqual([1, ["first", "second"]]);
  await vi.advanceTimersByTimeAsync(TURN_EVERY_MS - 1);
  expect(live.turns).toBe(1);
  await vi.advanceTimersByTimeAsync(1);
  expect([live.turns, seen.length]).toEqual([2, 4]);
  first();
  await vi.advanceTimersByTimeAsync(TURN_EVERY_MS);
  expect([live.turns, seen.length]).toEqual([3, 5]);
  second();
  await vi.advanceTimersByTimeAsync(20 * TURN_EVERY_MS);
  expect([live.turns, live.viewers, vi.getTimerCount()]).toEqual([3, 0, 0]);
});

it("goes on for one who comes when the last one has just gone", async () => {
  const live = poll(well);
  const leave = live.watch(() => undefined);
  await vi.advanceTimersByTimeAsync(0);
  leave();
  const seen: Snapshot[] = [];
  live.watch((snapshot) => void seen.push(snapshot));
  await vi.advanceTimersByTimeAsync(TURN_EVERY_MS);
  expect(seen.length).toBeGreaterThan(0);
});

it("one who looks once gets the answer of this second, or a new one", async () => {
  const live = poll(well);
  const both = await Promise.all([live.once(), live.once()]);
  expect([live.turns, both[0] === both[1]]).toEqual([1, true]);
  await vi.advanceTimersByTimeAsync(TURN_EVERY_MS - 1);
  expect([await live.once(), live.turns]).toEqual([both[0], 1]);
  await vi.advanceTimersByTimeAsync(1);
  await live.once();
  expect(live.turns).toBe(2);
});

it("a node that does not answer holds up no other, and is not asked twice at a time", async () => {
  let answers: (facts: NodeFacts) => void = () => undefined;
  let asked = 0;
  const slow: Source = {
    name: "slow",
    look: () => {
      asked += 1;
      return new Promise((resolve) => (answers = resolve));
    },
  };
  const live = poll(well, slow);
  const seen: Snapshot[] = [];
  live.watch((snapshot) => void seen.push(snapshot));
  await vi.advanceTimersByTimeAsync(TURN_LIMIT_MS - 1);
  expect(seen).toEqual([]);
  await vi.advanceTimersByTimeAsync(1);
  expect(seen.map(({ sources }) => sources.map(({ silence }) => silence))).toEqual([[null, "it has not answered yet"]]);
  await vi.advanceTimersByTimeAsync(2 * TURN_LIMIT_MS + 10);
  expect([asked, seen.length]).toEqual([1, 3]);
  answers(wellNode);
  await vi.advanceTimersByTimeAsync(TURN_LIMIT_MS);
  expect(seen.at(-1)?.sources.map(({ silence }) => silence)).toEqual([null, null]);
  expect(asked).toBe(2);
});

it("a node that cannot be read is shown as such, and again when it can", async () => {
  let error: Error | null = new OperatingError("may not be read", { code: "permission", hint: "Use sudo." });
  const live = poll({
    name: "this node",
    look: async () => {
      if (error !== null) throw error;
      return wellNode;
    },
  });
  expect((await live.once()).level).toBe("unknown");
  error = null;
  await vi.advanceTimersByTimeAsync(TURN_EVERY_MS);
  expect((await live.once()).level).toBe("well");
  error = new TypeError("a defect");
  live.watch(() => undefined);
  await vi.advanceTimersByTimeAsync(TURN_EVERY_MS);
  expect(new Set(failures)).toEqual(new Set([error]));
});

it("has rates from the second look on", async () => {
  let ops = 0;
  const [mount] = wellNode.mounts;
  if (mount === undefined) throw new Error("a mount expected");
  const live = poll({
    name: "this node",
    look: async () => ({ ...wellNode, mounts: [{ ...mount, figures: { ...mount.figures, ops: (ops += 250) } }] }),
  });
  expect((await live.once()).mounts[0]?.rate).toBeNull();
  await vi.advanceTimersByTimeAsync(TURN_EVERY_MS);
  expect((await live.once()).mounts[0]?.rate?.opsPerS).toBe(250);
});

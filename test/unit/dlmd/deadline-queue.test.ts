/** Locks by the time at which they end: the earliest first, whatever came in between. */
import { array, assert, integer, property } from "fast-check";
import { expect, it } from "vitest";
import { DeadlineQueue } from "../../../dlmd/lock/deadline-queue.ts";
import type { Lkb } from "../../../dlmd/lock/lkb.ts";

const lockAt = (deadlineMs: number): Lkb => ({ deadlineMs }) as Lkb;

function expiredBy(queue: DeadlineQueue, nowMs: number): number[] {
  const times: number[] = [];
  for (let lkb = queue.expired(nowMs); lkb !== null; lkb = queue.expired(nowMs)) times.push(lkb.deadlineMs);
  return times;
}

it("gives them in their order, and says when the next one is due", () => {
  const times = array(integer({ min: 1, max: 50 }), { minLength: 1, maxLength: 60 });
  assert(
    property(times, integer({ min: 1, max: 50 }), (all, nowMs) => {
      const queue = new DeadlineQueue();
      for (const atMs of all) queue.add(lockAt(atMs));
      const sorted = [...all].sort((a, b) => a - b);
      expect(queue.nextMs).toBe(sorted[0]);
      expect(expiredBy(queue, nowMs)).toEqual(sorted.filter((atMs) => atMs <= nowMs));
      expect(queue.nextMs).toBe(sorted.find((atMs) => atMs > nowMs) ?? Number.POSITIVE_INFINITY);
    }),
  );
});

it("a lock whose deadline is another by now is passed over", () => {
  const queue = new DeadlineQueue();
  const [first, second] = [lockAt(10), lockAt(20)];
  queue.add(first);
  queue.add(second);
  first.deadlineMs = 0;
  queue.drop();
  expect([queue.nextMs, expiredBy(queue, 100)]).toEqual([20, [20]]);
});

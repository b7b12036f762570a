/** When the event loop of a dlmd turns without sleeping, and when it had better not. */
import { beforeEach, describe, expect, test } from "vitest";
import { AnswerLook, lookMs, maxSkips } from "../../../dlmd/driver/answer-look.ts";

let nowMs = 0;
let turns: (() => void)[] = [];
let look: AnswerLook;

/** One turn of the event loop, which did not sleep if there was a callback. */
const turn = (): boolean => {
  const callbacks = turns;
  turns = [];
  for (const callback of callbacks) callback();
  return callbacks.length > 0;
};
/** A question and its answer so much later; true: the loop did not sleep at first. */
const trip = (ms: number): boolean => {
  look.asked();
  const looked = turn();
  nowMs += ms;
  turn();
  look.answered();
  turn();
  nowMs += 1;
  return looked;
};
const fast = lookMs / 2;
const slow = lookMs * 3;

beforeEach(() => {
  nowMs = 1000;
  turns = [];
  look = new AnswerLook({ nowMs: () => nowMs, turn: (callback) => turns.push(callback) });
});

describe("a look for an answer", () => {
  test("begins after an answer that came fast, and ends with the next", () => {
    expect(trip(fast)).toBe(false);
    expect(trip(fast)).toBe(true);
    expect(turns).toEqual([]);
  });

  test("turns on while one of several answers is missing", () => {
    trip(fast);
    look.asked();
    look.asked();
    turn();
    look.answered();
    expect(turn()).toBe(true);
    look.answered();
    turn();
    expect(turn()).toBe(false);
  });

  test("has an end without an answer", () => {
    trip(fast);
    look.asked();
    expect(turn()).toBe(true);
    nowMs += lookMs * 1.1;
    turn();
    expect(turn()).toBe(false);
  });

  test("in vain is not repeated while answers are slow, and ever more rarely after one that was fast by chance", () => {
    trip(fast);
    expect(trip(slow)).toBe(true);
    expect(Array.from({ length: 20 }, () => trip(slow))).not.toContain(true);
    // Fast answers until the next look, which is in vain again.
    const gaps = Array.from({ length: 9 }, () => {
      let trips = 0;
      while (turns.length === 0) {
        trips++;
        look.asked();
        if (turns.length > 0) break;
        nowMs += fast;
        look.answered();
        nowMs += 1;
      }
      nowMs += slow;
      turn();
      look.answered();
      return trips;
    });
    expect(gaps).toEqual([3, 5, 9, 17, 33, 65, 129, 257, maxSkips + 2]);
  });

  test("that pays takes the doubt away", () => {
    trip(fast);
    for (let vain = 0; vain < 5; vain++) {
      while (!trip(fast));
      trip(slow);
    }
    while (!trip(fast));
    expect([trip(fast), trip(slow), trip(fast), trip(fast), trip(fast)]).toEqual([true, true, false, false, true]);
  });

  test("is not misled by answers that never came", () => {
    look.asked();
    nowMs += 1000;
    expect(trip(fast)).toBe(false);
    expect(trip(fast)).toBe(true);
  });
});

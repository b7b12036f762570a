/** The start of a node that has a mount waits until that serves, or has ended. */
import { expect, test } from "vitest";
import { type MountWait, SERVES_WAIT_MS, waitForMount } from "../../../overlay/lab/mount-wait.ts";

/** Answers of one look after the other; the last one stays. */
function played(there: readonly boolean[], serves: readonly boolean[]): MountWait & { readonly looks: () => number } {
  let [nowMs, looks] = [0, 0];
  const at = (answers: readonly boolean[], look: number): boolean => answers[Math.min(look, answers.length - 1)] === true;
  return {
    isThere: () => at(there, looks),
    serves: () => Promise.resolve(at(serves, looks++)),
    sleep: (ms) => Promise.resolve((nowMs += ms)),
    nowMs: () => nowMs,
    looks: () => looks,
  };
}

test("none is there: there is nothing to wait for", async () => {
  expect(await waitForMount(played([false], [true]))).toBe("gone");
});

test("one that serves is left alone, at once or when it serves again", async () => {
  const wait = played([true], [false, false, true]);
  expect([await waitForMount(wait), wait.looks(), wait.nowMs()]).toEqual(["serves", 3, 200]);
});

test("one that ends because the others went on without it is gone", async () => {
  expect(await waitForMount(played([true, true, true, false], [false]))).toBe("gone");
});

test("one that stays and does not serve is waited for so long at most", async () => {
  const wait = played([true], [false]);
  expect([await waitForMount(wait), wait.nowMs()]).toEqual(["waits", SERVES_WAIT_MS]);
});

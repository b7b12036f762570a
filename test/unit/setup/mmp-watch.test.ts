/** MMP's block is watched for as long as its holder may be silent, and no verdict comes before. */
import { expect, it } from "vitest";
import { MMP_LOOK_LEAST_MS, MMP_LOOK_MOST_MS, type MmpVerdict, judgeMmpWatch } from "../../../overlay/setup/mmp-watch.ts";

it.each<[string, number, number, number, MmpVerdict]>([
  ["an interval of 1 s, before the kernel would believe it", 1, 4000, MMP_LOOK_LEAST_MS - 1, "go-on"],
  ["and after", 1, 4000, MMP_LOOK_LEAST_MS, false],
  ["the interval of mke2fs", 5, 4000, 12_499, "go-on"],
  ["and after two and a half", 5, 4000, 12_500, false],
  ["an interval that is not set is that of the kernel", 0, 4000, 12_499, "go-on"],
  ["and after", 0, 4000, 12_500, false],
  ["a long interval", 60, 4000, MMP_LOOK_MOST_MS - 1, "go-on"],
  ["is not waited for", 60, 4000, MMP_LOOK_MOST_MS, null],
  ["unless it is wanted", 60, 200_000, MMP_LOOK_MOST_MS, "go-on"],
  ["to its end", 60, 200_000, 150_000, false],
  ["or to the limit", 100, 200_000, 200_000, null],
])("%s", (_, intervalS, limitMs, watchedMs, verdict) => {
  expect(judgeMmpWatch({ intervalS, limitMs }, watchedMs, false)).toBe(verdict);
  expect(judgeMmpWatch({ intervalS, limitMs }, watchedMs, true)).toBe(true);
});

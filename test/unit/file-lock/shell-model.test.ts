/** The shell of file locks (VolumeFileLocks, setlk) under programs that fork, wait, close and are killed at any moment. Seeds: COVERLAY_FILE_LOCK_SHELL_SEEDS. */
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { ShellRun } from "./shell-model.ts";
import { counts } from "./shell-programs.ts";

/** How many, or the first and the last. */
const [LAST = 60, FIRST = 1] = (process.env["COVERLAY_FILE_LOCK_SHELL_SEEDS"] ?? "60").split("-").map(Number).toReversed();

/** Five seconds where nothing else runs. */
const SEEDS_LIMIT_MS = 600_000;

beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "Date"] }));
afterEach(() => void vi.useRealTimers());

it(
  "what programs were told is locked, nothing is that nobody knows of, and everything ends",
  async () => {
    for (let seed = FIRST; seed <= LAST; seed += 1) expect(await new ShellRun(seed).result(), `seed ${seed}`).toEqual([]);
    // Each of these came about, several times in ten seeds.
    const rare = Object.entries(counts).filter(([, count]) => count < Math.floor((LAST - FIRST) / 10));
    expect(rare).toEqual([]);
  },
  SEEDS_LIMIT_MS,
);

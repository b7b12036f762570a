/** `coverlay volume grow` follows a growth that goes on by itself. */
import { describe, expect, it } from "vitest";
import { followGrowth, type FollowPort, GROW_LOOK_MS, GROW_SAY_MS, interrupted } from "../../../overlay/cli/grow.ts";
import { sizeWords } from "../../../overlay/status/problem.ts";
import type { GrowthReport } from "../../../overlay/volume/growth.ts";
import { refusal } from "../../refusal.ts";

const GIB = 2 ** 30;
const at = (bytes: number, kind: GrowthReport["kind"] = "growing"): GrowthReport => ({
  kind,
  fromBytes: 0,
  bytes,
  toBytes: 8 * GIB,
  tookMs: 0,
  code: null,
  why: null,
  hint: null,
});

function port(
  reports: readonly (GrowthReport | null)[],
  end = new AbortController(),
): FollowPort & { readonly said: string[]; nowAt: number } {
  let turn = 0;
  const state = {
    said: [] as string[],
    nowAt: 0,
    look: () => Promise.resolve(reports[turn++] ?? null),
    sleep: (ms: number) => {
      state.nowAt += ms;
      return Promise.resolve();
    },
    nowMs: () => state.nowAt,
    say: (words: string) => void state.said.push(words),
    signal: end.signal,
  };
  return state;
}

it("looks each GROW_LOOK_MS, and says what changes no more often than each GROW_SAY_MS", async () => {
  const turns = (2 * GROW_SAY_MS) / GROW_LOOK_MS;
  const reports = Array.from({ length: turns }, (_, turn) => at((turn + 1) * 0.5 * GIB));
  const seen = port([...reports, at(8 * GIB, "grown")]);
  expect(await followGrowth(at(0), "data", seen)).toMatchObject({ kind: "grown" });
  expect(seen.nowAt).toBe((turns + 1) * GROW_LOOK_MS);
  expect(seen.said).toEqual(["volume data has 2.5 GiB of 8 GiB", "volume data has 5 GiB of 8 GiB"]);
  // One that stands still is not said again.
  const still = port([...reports.map(() => at(0)), at(8 * GIB, "grown")]);
  await followGrowth(at(0), "data", still);
  expect(still.said).toEqual([]);
});

it("ends at once when there is nothing to follow", async () => {
  const seen = port([]);
  expect(await followGrowth(at(8 * GIB, "grown"), "data", seen)).toMatchObject({ kind: "grown" });
  expect(seen.nowAt).toBe(0);
});

it("interrupted, says that the owner goes on", async () => {
  const end = new AbortController();
  const seen = port([at(GIB), at(2 * GIB)], end);
  const look = async (): Promise<GrowthReport | null> => {
    end.abort(interrupted("data", at(GIB)));
    return at(GIB);
  };
  const error = await refusal(followGrowth(at(0), "data", { ...seen, look }));
  expect(error).toMatchObject({ code: "interrupted", exitStatus: 8 });
  expect(error.message).toBe("interrupted: the owner goes on with volume data, which has 1 GiB of 8 GiB");
});

it("a volume that moves meanwhile is not called grown", async () => {
  const error = await refusal(followGrowth(at(0), "data", port([at(GIB), null])));
  expect(error).toMatchObject({ code: "released", exitStatus: 1 });
});

describe("sizes in words", () => {
  it.each([
    [512, "512 bytes"],
    [768 * 2 ** 20, "768 MiB"],
    [1.5 * GIB, "1.5 GiB"],
    [2048 * 2 ** 40, "2048 TiB"],
  ])("%i: %s", (bytes, words) => expect(sizeWords(bytes)).toBe(words));
});

/**
 * The owner's role over a disk whose writes are in flight, with clocks that drift: no write of a life after another claim, and what was synced is
 * there (README.md). COVERLAY_OWNER_DISK_SEEDS: how many seeds.
 */
import { expect, it } from "vitest";
import { type OwnerDiskOptions, OwnerDiskSim } from "./owner-disk-sim.ts";

const SEEDS = Number(process.env["COVERLAY_OWNER_DISK_SEEDS"] ?? 60);
const TROUBLE_MS = 90_000;
/** A run of 500 seeds on a machine with other work. */
const LIMIT_MS = 3_600_000;

async function run(options: OwnerDiskOptions): Promise<OwnerDiskSim> {
  const sim = new OwnerDiskSim(options);
  await sim.run(TROUBLE_MS);
  return sim;
}

it("under every fault nothing of a life reaches the disk after another claim, what was synced is there, and there is an owner in the end", {
  timeout: LIMIT_MS,
}, async () => {
  const counts = new Map<string, number>();
  for (let seed = 1; seed <= SEEDS; seed++) {
    const { violations, story, counts: ofSeed } = await run({ seed });
    if (violations.length > 0) throw new Error(`seed ${seed}: ${violations.join("\n")}\n${story.slice(-60).join("\n")}`);
    for (const [what, count] of ofSeed) counts.set(what, (counts.get(what) ?? 0) + count);
  }
  // All of it happened.
  for (const what of [
    "claims: released",
    "claims: ended",
    "claims: rebooted",
    "claims: fenced",
    "self-fences",
    "fences",
    "fences that lied",
    "answered fsyncs",
    "power failures",
    "nodes that the others went on without",
    "processes stopped while they claim",
    "tools that clear MMP",
  ])
    expect([what, counts.get(what) ?? 0]).toEqual([what, expect.toSatisfy((count: number) => count > 0)]);
});

it("R5: a stopped process that claims later than others know hides nobody, also if no mount asks for its lease", {
  timeout: LIMIT_MS,
}, async () => {
  for (let seed = 1; seed <= SEEDS; seed++) {
    const { violations, story } = await run({ seed, withoutLease: true });
    const told = violations.length > 0 ? story.slice(-60) : [];
    expect({ seed, violations, told }).toEqual({ seed, violations: [], told: [] });
  }
});

it("R11: a cut that lets through what was held back before it is noticed, so the disk of the model can show it", {
  timeout: LIMIT_MS,
}, async () => {
  let noticed = false;
  for (let seed = 1; seed <= 400 && !noticed; seed++) {
    const { violations } = await run({ seed, leakyCut: true });
    noticed = violations.some((words) => words.includes("reaches the disk after claim"));
  }
  expect(noticed).toBe(true);
});

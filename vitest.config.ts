import { statfsSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { defineConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";

// .ci/run counts the tests from this file.
const results = process.env["COVERLAY_TEST_RESULTS"];

/**
 * Where the tests with real processes keep the disks and the state of their nodes: in memory where there is enough of it. Nodes whose
 * disk stands still for more than timeoutMs leave the cluster, as they must: seen where another program wrote gigabytes to the same disk.
 */
function quickDirectory(): string {
  const enoughBytes = 6 * 2 ** 30;
  try {
    const { bavail, bsize } = statfsSync("/dev/shm");
    return bavail * bsize >= enoughBytes ? "/dev/shm" : tmpdir();
  } catch {
    return tmpdir();
  }
}

/** So many files with labs at a time. Most of them wait for time-outs; those of test/e2e/hazards/ take a processor and more. */
const labs = Number(process.env["COVERLAY_TEST_LABS"] ?? 2);

/** Real processes and real mounts. */
const endToEnd = {
  env: { TMPDIR: quickDirectory() },
  globalSetup: ["test/programs.ts", "test/built.ts", "test/fuse-control.ts"],
  testTimeout: 300_000,
  hookTimeout: 120_000,
  pool: "forks",
} as const;
/** What runs alone on the machine, what takes long, and both; each file says so by its name. */
const ALONE = "**/*.alone.test.ts";
const LONG = "**/*.long.test.ts";
const LONG_ALONE = "**/*.long-alone.test.ts";

/** Of the files that run beside each other those that take long begin first: none of them is left over in the end, and runs by itself. */
class LongFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    const rank = ({ project }: TestSpecification): number => (project.name === "long" ? 0 : 1);
    return sorted.toSorted((a, b) => rank(a) - rank(b));
  }
}

export default defineConfig({
  test: {
    reporters: ["default", "./test/skips.ts", ...(results === undefined ? [] : [["json", { outputFile: results }] as const])],
    sequence: { sequencer: LongFirst },
    // Pure rooms first and in parallel; then daemons; then mounts in labs, some files at a time; then one file at a time.
    projects: [
      {
        test: {
          name: "unit",
          globalSetup: ["test/programs.ts", "test/fuse-control.ts"],
          include: ["test/{unit,vector,sim,scenario,compliance,tidy}/**/*.test.ts"],
          testTimeout: 60_000,
          hookTimeout: 60_000,
          pool: "forks",
          // Vitest leaves a processor free; of two that would be half.
          maxWorkers: Math.max(2, availableParallelism() - 1),
        },
      },
      {
        test: {
          ...endToEnd,
          name: "e2e-dlmd",
          include: ["test/e2e/dlmd/**/*.test.ts"],
          exclude: [ALONE, LONG, LONG_ALONE],
          maxWorkers: 2,
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          ...endToEnd,
          name: "e2e",
          include: ["test/e2e/**/*.test.ts"],
          exclude: ["test/e2e/dlmd/**", ALONE, LONG, LONG_ALONE],
          maxWorkers: labs,
          sequence: { groupOrder: 2 },
        },
      },
      {
        test: {
          ...endToEnd,
          name: "long",
          include: [`test/e2e/${LONG}`],
          maxWorkers: labs,
          sequence: { groupOrder: 2 },
        },
      },
      {
        test: {
          ...endToEnd,
          name: "alone",
          include: [`test/e2e/${ALONE}`],
          maxWorkers: 1,
          fileParallelism: false,
          sequence: { groupOrder: 3 },
        },
      },
      {
        test: {
          ...endToEnd,
          name: "long-alone",
          include: [`test/e2e/${LONG_ALONE}`],
          maxWorkers: 1,
          fileParallelism: false,
          sequence: { groupOrder: 4 },
        },
      },
    ],
  },
});

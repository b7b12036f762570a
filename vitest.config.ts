import { spawnSync } from "node:child_process";
import { readFileSync, readdirSync, statfsSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import path from "node:path";
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

/** So many files with labs at a time. With three the processors of a machine that has two were never idle, and no file was done sooner. */
const labs = Number(process.env["COVERLAY_TEST_LABS"] ?? 2);

/**
 * PATH with the folder of the interpreter first: python3 may be a script of pyenv's, which starts a dozen programs before it. Tests start it some thousand
 * times, and that took a quarter of the processors.
 */
function quickPath(): string {
  const { status, stdout } = spawnSync("python3", ["-c", "import os, sys; print(os.path.dirname(sys.executable))"], { encoding: "utf8" });
  const found = process.env["PATH"] ?? "";
  return status === 0 && stdout.startsWith("/") ? `${stdout.trim()}:${found}` : found;
}

const PATH = quickPath();

const ROOMS = ["unit", "vector", "sim", "scenario", "compliance", "tidy"];
/** Files that put another module in the place of one, also for whoever has it already: a process of its own for each. The others take turns in two. */
const OWN_PROCESS = ROOMS.flatMap((room) =>
  readdirSync(`test/${room}`, { recursive: true, encoding: "utf8" }).map((file) => `test/${room}/${file}`),
).filter((file) => file.endsWith(".test.ts") && /\bvi\.mock\(|\bsyncBuiltinESMExports\b/.test(readFileSync(file, "utf8")));

/** Of `expect.poll` without a limit of its own: vitest's second is less than a busy processor may take. */
const POLLED = { poll: { timeout: 30_000 } } as const;

/** One room at a time: no mounts, no daemons. */
const unit = {
  env: { PATH },
  globalSetup: ["test/programs.ts", "test/fuse-control.ts"],
  testTimeout: 60_000,
  hookTimeout: 60_000,
  expect: POLLED,
  pool: "forks",
  // Vitest leaves a processor free; of two that would be half.
  maxWorkers: Math.max(2, availableParallelism() - 1),
} as const;

/** Real processes and real mounts. */
const endToEnd = {
  // test/built.ts makes it.
  env: { TMPDIR: quickDirectory(), PATH, COVERLAY_TEST_DIST: process.env["COVERLAY_TEST_DIST"] ?? path.resolve("build") },
  globalSetup: ["test/programs.ts", "test/built.ts", "test/fuse-control.ts"],
  testTimeout: 300_000,
  hookTimeout: 120_000,
  expect: POLLED,
  pool: "forks",
} as const;
/** What runs alone on the machine, what takes long, and both; each file says so by its name. */
const ALONE = "**/*.alone.test.ts";
const LONG = "**/*.long.test.ts";
const LONG_ALONE = "**/*.long-alone.test.ts";

/** "2/3" leaves two of three long files out, by their names in turn: .ci/run has no hour for all. */
function longOfOtherParts(): string[] {
  const [, part, parts] = /^(\d+)\/(\d+)$/.exec(process.env["COVERLAY_LONG_PART"] ?? "1/1") ?? [];
  const [at, of] = [Number(part) - 1, Number(parts)];
  if (!(at >= 0 && at < of)) throw new Error("COVERLAY_LONG_PART: 1/2 or 2/2 is expected, for example");
  const files = readdirSync("test/e2e", { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".long.test.ts"));
  return files
    .toSorted()
    .filter((_, index) => index % of !== at)
    .map((file) => `test/e2e/${file}`);
}

/**
 * Of the files that run beside each other those that take long begin first: none of them is left over in the end, and runs by itself. Vitest takes large files
 * first where it knows no times. One whose tests are in a suite beside it takes longer than it is large. Files with a process of their own come before
 * those that share some: between two of these one would end it.
 */
class LongFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    const hasSuite = new Set(sorted.map(({ moduleId }) => moduleId).filter((file) => readFileSync(file, "utf8").includes('-suite.ts"')));
    const isFirst = ({ project }: TestSpecification): boolean => project.name === "long" || project.name === "unit-own";
    const rank = (file: TestSpecification): number => (isFirst(file) ? 0 : 2) + (hasSuite.has(file.moduleId) ? 0 : 1);
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
          ...unit,
          name: "unit",
          include: [`test/{${ROOMS.join(",")}}/**/*.test.ts`],
          exclude: OWN_PROCESS,
          // A start of a process and of all modules for each file took a fifth of the processors' time.
          isolate: false,
          setupFiles: ["test/shared-process.ts"],
        },
      },
      {
        test: {
          ...unit,
          name: "unit-own",
          include: OWN_PROCESS,
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
          exclude: longOfOtherParts(),
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

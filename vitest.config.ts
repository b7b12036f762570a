import { availableParallelism } from "node:os";
import { defineConfig } from "vitest/config";

// .ci/run counts the tests from this file.
const results = process.env["COVERLAY_TEST_RESULTS"];

export default defineConfig({
  test: {
    reporters: results === undefined ? ["default"] : [["json", { outputFile: results }], "default"],
    // Pure rooms first and in parallel; then daemons alone, of which most of the time is waiting for time-outs, two files at a time; what
    // mounts runs one file at a time.
    projects: [
      {
        test: {
          name: "unit",
          globalSetup: "test/fuse-control.ts",
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
          name: "e2e-dlmd",
          include: ["test/e2e/dlmd/**/*.test.ts"],
          testTimeout: 300_000,
          hookTimeout: 120_000,
          pool: "forks",
          maxWorkers: 2,
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          name: "e2e",
          globalSetup: "test/fuse-control.ts",
          include: ["test/e2e/**/*.test.ts"],
          exclude: ["test/e2e/dlmd/**"],
          testTimeout: 300_000,
          hookTimeout: 120_000,
          pool: "forks",
          maxWorkers: 1,
          fileParallelism: false,
          sequence: { groupOrder: 2 },
        },
      },
    ],
  },
});

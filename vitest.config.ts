import { defineConfig } from "vitest/config";

// .ci/run counts the tests from this file.
const results = process.env["COVERLAY_TEST_RESULTS"];

export default defineConfig({
  test: {
    reporters: results === undefined ? ["default"] : [["json", { outputFile: results }], "default"],
    // Pure rooms first and in parallel; what mounts, attaches and makes namespaces runs one file at a time.
    projects: [
      {
        test: {
          name: "unit",
          include: ["test/{unit,vector,sim,scenario,compliance,tidy}/**/*.test.ts"],
          testTimeout: 60_000,
          hookTimeout: 60_000,
          pool: "forks",
        },
      },
      {
        test: {
          name: "e2e",
          include: ["test/e2e/**/*.test.ts"],
          testTimeout: 300_000,
          hookTimeout: 120_000,
          pool: "forks",
          maxWorkers: 1,
          fileParallelism: false,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});

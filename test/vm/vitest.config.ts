/** `npm run test:vm`: virtual machines take long, and nothing else runs them. */
import path from "node:path";
import { type ViteUserConfig, defineConfig } from "vitest/config";

const HOUR_MS = 3_600_000;

const config: ViteUserConfig = defineConfig({
  test: {
    root: path.resolve(import.meta.dirname, "../.."),
    name: "vm",
    include: ["test/vm/**/*.test.ts"],
    globalSetup: ["test/vm/requirements.ts"],
    testTimeout: HOUR_MS,
    hookTimeout: HOUR_MS,
    pool: "forks",
    maxWorkers: 1,
    fileParallelism: false,
    // What follows a step that failed would say nothing more.
    bail: 1,
    disableConsoleIntercept: true,
    reporters: ["verbose", "./test/skips.ts"],
  },
});

export default config;

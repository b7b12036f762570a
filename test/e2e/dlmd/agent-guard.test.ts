/** An agent and what it has forked end without the process that runs it: it stands still, or it is dead (hazard M2). Compiled code, as dlmd runs it. */
import { spawn } from "node:child_process";
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { until } from "../actor.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), "coverlay-guard-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const isGone = (pid: number): boolean => !existsSync(`/proc/${pid}`) || /^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));

/** A process that runs an agent, which ignores SIGTERM and has forked a child; all three pids. */
async function running(timeoutMs: number): Promise<{ runner: number; agent: number; forked: number }> {
  const agent = path.join(folder, "fence_hangs");
  writeFileSync(agent, `#!/bin/sh\ntrap '' TERM\nsleep 1000 & echo $! > ${folder}/forked\necho $$ > ${folder}/agent\nwait\n`);
  chmodSync(agent, 0o755);
  const module = path.resolve("dist/dlmd/fence-agent/run-agent.js");
  const script = `import { runAgent } from ${JSON.stringify(module)};
await runAgent({ path: ${JSON.stringify(agent)}, input: "", timeoutMs: ${timeoutMs}, signal: new AbortController().signal });`;
  const runner = spawn(process.execPath, ["--input-type=module", "-e", script], { stdio: "inherit" });
  const read = (name: string): string => (existsSync(path.join(folder, name)) ? readFileSync(path.join(folder, name), "utf8") : "");
  await until("the agent runs", () => Promise.resolve(read("agent") !== "" && read("forked") !== ""));
  // The guard is there as well: else its end by SIGKILL would be taken for it.
  await until("its guard runs", () =>
    Promise.resolve(readFileSync(`/proc/${runner.pid}/task/${runner.pid}/children`, "utf8").trim().split(" ").length === 2),
  );
  return { runner: runner.pid as number, agent: Number(read("agent")), forked: Number(read("forked")) };
}

test("a runner that stands still: both are killed when their time is over", async () => {
  const { runner, agent, forked } = await running(3000);
  process.kill(runner, "SIGSTOP");
  await until("both are gone", () => Promise.resolve(isGone(agent) && isGone(forked)));
  expect(readFileSync(`/proc/${runner}/status`, "utf8")).toMatch(/^State:\s+T/m);
  process.kill(runner, "SIGKILL");
});

test("a runner that is killed: both are killed at once, long before their time is over", async () => {
  const { runner, agent, forked } = await running(600_000);
  process.kill(runner, "SIGKILL");
  await until("both are gone", () => Promise.resolve(isGone(agent) && isGone(forked)));
  await until("the runner is gone", () => Promise.resolve(isGone(runner)));
  expect([agent, forked].map(isGone)).toEqual([true, true]);
});

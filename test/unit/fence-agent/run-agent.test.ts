/** A fence agent that cannot be started is an error of the device, and no end of dlmd. */
import { execFileSync } from "node:child_process";
import { closeSync, openSync, readdirSync } from "node:fs";
import { expect, it } from "vitest";
import { runAgent } from "../../../dlmd/fence-agent/run-agent.ts";

const run = (path: string): Promise<unknown> => runAgent({ path, input: "", timeoutMs: 60_000, signal: new AbortController().signal });

it("where descriptors are all in use the agent could not be started: nothing is thrown, now or later", async () => {
  const nofile = (limit: string): void => void execFileSync("prlimit", ["--pid", String(process.pid), `--nofile=${limit}:`]);
  const before = execFileSync("prlimit", ["--pid", String(process.pid), "--nofile", "--output=SOFT", "--noheadings"], { encoding: "utf8" });
  const taken: number[] = [];
  const takeAll = (): void => {
    for (;;) taken.push(openSync("/dev/null", "r"));
  };
  let end: Promise<unknown>;
  try {
    nofile(String(Math.max(...readdirSync("/proc/self/fd").map(Number)) + 64));
    expect(takeAll).toThrow("EMFILE");
    end = run("/bin/true");
    end.catch(() => undefined);
  } finally {
    for (const fd of taken) closeSync(fd);
    nofile(before.trim());
  }
  await expect(end).rejects.toMatchObject({ code: "fence-agent", message: expect.stringMatching(/could not be started: .*EMFILE/) });
});

it("each error that Node.js throws instead is one of the device, too", async () => {
  await expect(run("an agent\0")).rejects.toMatchObject({ code: "fence-agent", message: expect.stringContaining("could not be started") });
});

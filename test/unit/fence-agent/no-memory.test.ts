/** Memory or descriptors that are not there while an agent is started: an error of the device, and no end of dlmd. The agent does not run on. */
import type * as ChildProcess from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import type * as Files from "node:fs/promises";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { fence } from "../../../dlmd/fence-agent/fence-device.ts";
import { MetadataShelf } from "../../../dlmd/fence-agent/metadata-shelf.ts";
import { runAgent } from "../../../dlmd/fence-agent/run-agent.ts";
import { type AgentFolder, agentFolder, targetOf } from "./agents.ts";

const refused = vi.hoisted(() => ({ program: "", agentPid: 0, lookedAt: new Map<string, number>() }));
vi.mock("node:child_process", async (original) => {
  const real = await original<typeof ChildProcess>();
  const spawn = (program: string, words: string[], options: ChildProcess.SpawnOptions): ChildProcess.ChildProcess => {
    if (program === refused.program) throw Object.assign(new Error("spawn ENOMEM"), { code: "ENOMEM", errno: -12 });
    const child = real.spawn(program, words, options);
    refused.agentPid = child.pid ?? 0;
    return child;
  };
  return { ...real, spawn };
});
vi.mock("node:fs/promises", async (original) => {
  const real = await original<typeof Files>();
  const stat = async (path: string): Promise<unknown> => {
    const looks = (refused.lookedAt.get(path) ?? 0) + 1;
    refused.lookedAt.set(path, looks);
    if (looks > 1) throw Object.assign(new Error("ENOMEM: not enough memory, stat"), { code: "ENOMEM", errno: -12 });
    return real.stat(path);
  };
  return { ...real, stat };
});

let made: AgentFolder;
beforeEach(() => {
  made = agentFolder();
});
afterEach(() => {
  refused.program = "";
  refused.lookedAt.clear();
  made.remove();
});
const signal = new AbortController().signal;

test("no memory for its guard: the agent is killed at once, and the device says why", async () => {
  refused.program = "/bin/bash";
  const agent = made.agent("fence_a", "while :; do sleep 1000; done");
  await expect(runAgent({ path: agent, input: "", timeoutMs: 60_000, signal })).rejects.toMatchObject({
    code: "fence-agent",
    message: expect.stringMatching(/no guard for .* could be started: .*ENOMEM/),
    hint: expect.stringContaining("memory"),
  });
  expect(existsSync(`/proc/${refused.agentPid}`)).toBe(false);
});

test("a file that cannot be looked at again: one look is enough, and one that fails is a failure", async () => {
  const agent = made.agent("fence_a", "if [ $action = status ]; then exit 2; fi");
  expect(await fence(targetOf(agent), "off", new MetadataShelf(), signal)).toEqual({ ok: true });
  const again = await fence(targetOf(agent), "off", new MetadataShelf(), signal);
  expect(again).toMatchObject({ ok: false, unable: true, words: expect.stringContaining("ENOMEM") });
  expect(readdirSync(made.folder)).toContain("asked");
});

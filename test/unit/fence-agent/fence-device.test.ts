/** Agents really run, as the driver runs them: what they are given, how each way to fail is said, and that nothing of them is left. */
import { chmodSync, chownSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { fence, lastWords, MAX_OPTION_FILE_BYTES } from "../../../dlmd/fence-agent/fence-device.ts";
import { MetadataShelf } from "../../../dlmd/fence-agent/metadata-shelf.ts";
import { KILL_AFTER_MS, MAX_OUTPUT_BYTES, MAX_STDERR_CHARS } from "../../../dlmd/fence-agent/run-agent.ts";
import { type AgentFolder, agentFolder, metadataOf, targetOf } from "./agents.ts";

let made: AgentFolder;
let shelf: MetadataShelf;
beforeEach(() => {
  made = agentFolder();
  shelf = new MetadataShelf();
});
afterEach(() => made.remove());

const never = new AbortController().signal;
const read = (name: string): string => readFileSync(path.join(made.folder, name), "utf8");
const off = "if [ $action = status ]; then exit 2; fi; exit 0";
const run = (at: ReturnType<typeof targetOf>, signal = never) => fence(at, at.device.action, shelf, signal);

/** Polls: a process is gone when the kernel has said so. */
async function untilGone(pid: number): Promise<void> {
  while (existsSync(`/proc/${pid}`) && !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"))) await sleep(5);
}

describe("an agent", () => {
  test("gets its options as lines, the action and the plug, and is asked for its status after an off", async () => {
    const agent = made.agent("fence_a", `cp input given.$action\n${off}`);
    const result = await run(targetOf(agent, { options: { ip: "10.0.0.9", lanplus: true, wait: 4 } }, { plug: "7" }));
    expect(result).toEqual({ ok: true });
    expect(read("asked")).toBe("metadata\noff\nstatus\n");
    expect(read("given.off")).toBe("ip=10.0.0.9\nlanplus=true\nwait=4\nplug=7\naction=off\n");
  });

  test("is told the node's name where no plug is configured, by the name that it knows for it; the node's options come before the device's", async () => {
    const agent = made.agent("fence_a", "cp input given", metadataOf(["action", "nodename", "ip"], ["reboot", "status"]));
    expect(await run(targetOf(agent, { action: "reboot", options: { ip: "a" } }, { options: { ip: "b" } }))).toEqual({ ok: true });
    expect(read("given")).toBe("ip=b\nnodename=node3\naction=reboot\n");
    // Of a reboot there is no status to be sure of.
    expect(read("asked")).toBe("metadata\nreboot\n");
  });

  test("says its metadata once for each state of its file", async () => {
    const agent = made.agent("fence_a", off);
    await run(targetOf(agent));
    await run(targetOf(agent));
    expect(read("asked").match(/metadata/g)).toHaveLength(1);
    made.agent("fence_a", `# another\n${off}`);
    await run(targetOf(agent));
    expect(read("asked").match(/metadata/g)).toHaveLength(2);
  });
});

describe("fails by name", () => {
  test("one that lies: it says done, and its status says on", async () => {
    const agent = made.agent("fence_a", "exit 0");
    expect(await run(targetOf(agent, {}, { plug: "7" }))).toEqual({
      ok: false,
      unable: false,
      words: `${agent} said that 7 is off, but its status says on: it lied, or it is another device`,
    });
  });

  test("one that cannot say its status", async () => {
    const agent = made.agent("fence_a", "if [ $action = status ]; then echo lost >&2; exit 1; fi");
    expect(await run(targetOf(agent))).toMatchObject({
      unable: false,
      words: `${agent} said that node3 is off, but cannot say its status: ${agent} ended its action status with status 1: lost`,
    });
  });

  test("one that fails, with its last words and no secret in them", async () => {
    const agent = made.agent(
      "fence_a",
      'echo first >&2; echo "login as root with $(sed -n s/^password=//p input) to 10.0.0.9 failed" >&2; echo >&2; exit 1',
    );
    const password = made.file("password", "s3cret words\n");
    const result = await run(targetOf(agent, { optionFiles: { password } }));
    expect(result).toEqual({
      ok: false,
      unable: false,
      words: `${agent} ended its action off with status 1: login as root with *** to 10.0.0.9 failed`,
    });
  });

  test("one that hangs: SIGTERM, then SIGKILL for all that it started", async () => {
    const agent = made.agent("fence_a", "trap 'echo term >> signals' TERM\nsleep 1000 & echo $! > child\nwhile :; do wait; done");
    const result = await run(targetOf(agent, { timeoutMs: 300 }));
    expect(result).toEqual({ ok: false, unable: false, words: `${agent} did not end its action off within 300 ms, and was killed` });
    expect(read("signals")).toBe("term\n");
    await untilGone(Number(read("child")));
  });

  test("one that is killed by another", async () => {
    const agent = made.agent("fence_a", "kill -SEGV $$");
    expect(await run(targetOf(agent))).toMatchObject({ words: `${agent} was ended by SIGSEGV` });
  });

  test("one whose device is the wrong one", async () => {
    const agent = made.agent("fence_a", 'echo "Failed: You have to enter plug number or machine identification" >&2; exit 1');
    expect(await run(targetOf(agent))).toMatchObject({ words: expect.stringContaining("enter plug number or machine identification") });
  });

  test("garbage on standard output changes nothing, and as metadata it is named", async () => {
    const noisy = made.agent("fence_a", `head -c 600000 /dev/urandom; ${off}`);
    expect(await run(targetOf(noisy))).toEqual({ ok: true });
    const garbage = made.agent("fence_b", off, "\u0001 no XML <<");
    expect(await run(targetOf(garbage))).toMatchObject({
      unable: true,
      words: expect.stringContaining(`${garbage} says no metadata that can be read`),
    });
    const long = made.agent("fence_c", off, "<a>".padEnd(MAX_OUTPUT_BYTES + 1));
    expect(await run(targetOf(long))).toMatchObject({ unable: true, words: expect.stringContaining("it says too much") });
  });

  test.each<[name: string, make: () => string, words: string]>([
    ["one that is not there", () => path.join(made.folder, "fence_none"), "is not there (ENOENT)"],
    ["a folder", () => made.folder, "is not a program"],
    ["one that cannot be executed", () => made.file("fence_a", "#!/bin/sh\n", 0o644), "cannot be executed (chmod +x"],
    ["one that others may write", () => made.file("fence_a", "#!/bin/sh\n", 0o777), "could be written by others than root"],
    [
      "one that is no program",
      () => made.file("fence_a", "\u0000\u0001", 0o755),
      "says no metadata that can be read: it ended with status",
    ],
  ])("%s: this node is unable, another one may do better", async (_name, make, words) => {
    expect(await run(targetOf(make()))).toMatchObject({ ok: false, unable: true, words: expect.stringContaining(words) });
  });
});

describe("an option from a file", () => {
  const words = async (file: string): Promise<unknown> => {
    const agent = made.agent("fence_a", off);
    const result = await run(targetOf(agent, { optionFiles: { password: file } }));
    return result.ok ? "ok" : result.words;
  };

  test("is one line of a file that root alone may read", async () => {
    expect(await words(made.file("p", "x y=z\n"))).toBe("ok");
    expect(read("input")).toContain("password=x y=z\n");
    expect(await words(made.file("p", "x\n", 0o640))).toContain("may be read by others than root");
    expect(await words(made.file("p", "a\nb\n"))).toContain("one line expected");
    expect(await words(made.file("p", "\n"))).toContain("one line expected");
    expect(await words(made.file("p", "x".repeat(MAX_OPTION_FILE_BYTES + 1)))).toContain("at most 1024 bytes expected");
    expect(await words(made.folder)).toContain("a file expected");
    expect(await words(path.join(made.folder, "none"))).toContain("cannot be read: ENOENT");
  });

  test.skipIf(process.getuid?.() !== 0)("is refused if it is another user's", async () => {
    const file = made.file("p", "x\n");
    chownSync(file, 12345, 0);
    chmodSync(file, 0o600);
    expect(await words(file)).toContain("may be read by others than root");
  });
});

test("stopped: the agent and all that it has started are killed at once, and no status is asked for", async () => {
  const abort = new AbortController();
  const agent = made.agent("fence_a", "trap '' TERM\nsleep 1000 & echo $! > child\necho $$ > self\nwhile :; do wait; done");
  const ended = run(targetOf(agent), abort.signal);
  while (!existsSync(path.join(made.folder, "self")) || read("self") === "") await sleep(5);
  const [self, child] = [Number(read("self")), Number(read("child"))];
  abort.abort();
  expect(await ended).toMatchObject({ ok: false });
  await untilGone(self);
  await untilGone(child);
  expect(read("asked")).toBe("metadata\noff\n");
});

test("one that ends and leaves a process with its output open ends all the same", async () => {
  const agent = made.agent("fence_a", `setsid sh -c 'echo $$ > stray; exec sleep 1000' & while [ ! -s stray ]; do :; done; ${off}`);
  expect(await run(targetOf(agent))).toEqual({ ok: true });
  process.kill(Number(read("stray")), "SIGKILL");
  expect(KILL_AFTER_MS).toBe(1000);
});

test("words: the last line, cut, with the longest secret first, and none where a secret is too short to be told from words", () => {
  expect(lastWords("a\nb\n\n", [])).toBe("b");
  expect(lastWords("", ["x"])).toContain("not kept");
  expect(lastWords("the abc and abcdef", ["abc", "abcdef", ""])).toBe("the *** and ***");
  expect(lastWords("pin 12 failed", ["12"])).toBe("its words are not kept, because of a secret that is too short");
});

test("of standard error the last words are kept", async () => {
  const agent = made.agent("fence_a", `head -c ${MAX_STDERR_CHARS * 3} /dev/zero | tr '\\0' x >&2; echo the end >&2; exit 1`);
  const result = await run(targetOf(agent));
  if (result.ok) throw new Error("it failed");
  expect(result.words.length).toBeLessThan(MAX_STDERR_CHARS + 200);
  expect(result.words).toMatch(/xxthe end$/);
});

describe.skipIf(!existsSync("/usr/sbin/fence_dummy"))("fence_dummy of Debian's fence-agents", () => {
  test("is run: off, and its status says so", async () => {
    const status = made.file("status", "on");
    expect(await run(targetOf("fence_dummy", { options: { type: "file", status_file: status, login_timeout: 5 } }))).toEqual({ ok: true });
    expect(read("status")).toBe("off");
    expect(await fence(targetOf("fence_dummy", { options: { type: "file", status_file: status } }), "on", shelf, never)).toEqual({
      ok: true,
    });
    expect(read("status")).toBe("on");
  });

  test("fails as it can: a device that does not do it, and options that make no sense", async () => {
    writeFileSync(path.join(made.folder, "status"), "on");
    const stuck = await run(targetOf("fence_dummy", { options: { type: "fail", power_timeout: 1 } }));
    expect(stuck).toMatchObject({
      ok: false,
      unable: false,
      words: expect.stringContaining("fence_dummy ended its action off with status 1"),
    });
    const slow = await run(targetOf("fence_dummy", { timeoutMs: 700, options: { type: "file", status_file: "/dev/null", delay: 100 } }));
    expect(slow).toMatchObject({ words: "fence_dummy did not end its action off within 700 ms, and was killed" });
  });
});

/** A fence agent that waits in the kernel for a disk that hangs, for real: SIGKILL does not end it, and neither a fence nor the end of dlmd waits for it. */
import { execFileSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { until } from "../actor.ts";
import { startWatchdog, type Watchdog } from "../watchdog.ts";
import { createCluster, type TestClient, type TestCluster, TestLock } from "./cluster.ts";

const metadata = `<resource-agent name="x"><parameters><parameter name="action" required="1"/><parameter name="plug" required="1"/></parameters>
<actions><action name="off"/><action name="on"/></actions></resource-agent>`;
let dir: string;
let disk: string;
let watchdog: Watchdog;
let cluster: TestCluster;
beforeEach(() => {
  dir = mkdtempSync(path.join(tmpdir(), "coverlay-stuck-"));
  disk = path.join(dir, "disk");
  const image = path.join(dir, "image");
  mkdirSync(disk);
  writeFileSync(image, "");
  truncateSync(image, 16 << 20);
  execFileSync("mkfs.ext4", ["-q", "-F", image]);
  execFileSync("mount", ["-t", "ext4", "-o", "loop", image, disk]);
  watchdog = startWatchdog('fsfreeze --unfreeze "$1/disk"; umount "$1/disk"; rm -rf --one-file-system "$1"', [dir]);
  execFileSync("fsfreeze", ["--freeze", disk]);
});
afterEach(async () => {
  await cluster.close();
  thaw();
  await until("nothing uses the disk", () =>
    Promise.resolve(execFileSync("sh", ["-c", 'umount "$1" 2>&1 || :', "umount", disk]).length === 0),
  );
  rmSync(dir, { recursive: true });
  await watchdog.callOff();
});

function thaw(): void {
  try {
    execFileSync("fsfreeze", ["--unfreeze", disk], { stdio: "pipe" });
  } catch {
    // It is not frozen any more.
  }
}

/** Its shell itself writes to the disk: a child of it would be left to itself. */
function agent(name: string, body: string): string {
  const file = path.join(dir, name);
  writeFileSync(file, `#!/bin/sh\nif [ "$2" = metadata ]; then echo '${metadata}'; exit 0; fi\necho $$ > ${file}.ran\n${body}\n`);
  chmodSync(file, 0o755);
  return file;
}

const ranAs = (name: string): string =>
  existsSync(path.join(dir, `${name}.ran`)) ? readFileSync(path.join(dir, `${name}.ran`), "utf8") : "";
/** "" before it has one. */
function stateOf(pid: string): string {
  if (!pid.endsWith("\n")) return "";
  return /^State:\s+(\S)/m.exec(readFileSync(`/proc/${pid.trim()}/status`, "utf8"))?.[1] ?? "";
}

/** Node 3 dies, and what it held is asked for: node 1 fences it, and that agent waits in the kernel. */
async function nodeDies(timeoutMs: number): Promise<{ granted: Promise<unknown>; pid: string }> {
  const storage = agent("storage", `echo x > ${disk}/x`);
  const devices = [
    `  - { name: storage, agent: ${storage}, kind: storage, timeoutMs: ${timeoutMs}, retries: 0, settleMs: 0 }`,
    `  - { name: power, agent: ${agent("power", "exit 0")}, retries: 0, settleMs: 0 }`,
  ];
  const more = ["fencedLockspaces: [guarded]", "fenceDevices:", ...devices];
  cluster = createCluster({ nodes: 3, more, nodeKeys: "fence: [[storage], [power]]" });
  const [, second, third] = (await cluster.startAll()) as [TestClient, TestClient, TestClient];
  expect(await new TestLock(await third.client.lockspace("guarded"), "thing").request(Mode.EX)).toBe("granted");
  const waiting = new TestLock(await second.client.lockspace("guarded"), "thing");
  await cluster.kill(3, "SIGKILL");
  await second.seen([1, 2]);
  const granted = waiting.request(Mode.EX);
  await until("the agent waits in the kernel", () => Promise.resolve(stateOf(ranAs("storage")) === "D"));
  return { granted, pid: ranAs("storage") };
}

test("the next level is tried while the process waits on", async () => {
  const { granted, pid } = await nodeDies(500);
  expect(await granted).toBe("granted");
  expect([stateOf(pid), ranAs("power")]).toEqual(["D", expect.stringMatching(/^\d/)]);
  const ended = cluster.log(1).filter(({ msg }) => msg === "a fence agent has ended");
  expect(ended.map(({ device, words }) => [device, words])).toEqual([
    ["storage", expect.stringContaining("could not be killed")],
    ["power", undefined],
  ]);
  expect(await cluster.kill(1, "SIGTERM")).toBe(0);
});

test("a dlmd that is told to leave does so, and the next node takes over", async () => {
  const { granted, pid } = await nodeDies(60_000);
  expect(await cluster.kill(1, "SIGTERM")).toBe(0);
  expect(stateOf(pid)).toBe("D");
  await cluster.start(1);
  thaw();
  expect(await granted).toBe("granted");
});

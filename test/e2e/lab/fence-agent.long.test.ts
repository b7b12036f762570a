/** The lab's fence agent, run as a lock manager runs one: a program with its options on stdin, from the network of another node. */
import { spawnSync } from "node:child_process";
import { closeSync, existsSync, openSync, readSync } from "node:fs";
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import { type RunResult, run } from "../../../overlay/lab/command.ts";
import { labFiles, netnsArguments } from "../../../overlay/lab/layout.ts";
import { processRef } from "../../../overlay/lab/processes.ts";
import { readLab, updateNode } from "../../../overlay/lab/state.ts";
import { attachLoop } from "../volume/disk.ts";
import { endActors, startActor, until } from "../actor.ts";
import { coverlay, startLab, type TestLab } from "../lab.ts";

let lab: TestLab;

beforeAll(async () => {
  lab = await startLab({ nodes: 3, size: "128M", fencing: false });
});
afterEach(() => endActors());
afterAll(() => lab?.end());

/** On node `from`. */
function agent(from: number, options: Readonly<Record<string, string>>): Promise<RunResult> {
  const lines = Object.entries({ dir: lab.dir, ...options }).map(([key, value]) => `${key}=${value}\n`);
  return run("nsenter", netnsArguments(lab.node(from).netns, [labFiles(lab.dir).fenceAgent]), { input: lines.join("") });
}
const status = async (plug: string): Promise<number | null> => (await agent(2, { action: "status", plug })).status;

it("says what it is, which nodes there are, and which are on", async () => {
  const { status: done, stdout } = await agent(1, { action: "metadata" });
  expect([done, stdout]).toEqual([0, expect.stringMatching(/^<\?xml version="1.0" \?>\n<resource-agent name="fence_lab"/)]);
  expect(await agent(3, { action: "list" })).toMatchObject({ status: 0, stdout: "node1,\nnode2,\nnode3,\n" });
  expect(await agent(3, { action: "monitor" })).toMatchObject({ status: 0 });
  expect(await agent(3, { action: "status", plug: "node1" })).toMatchObject({ status: 0, stdout: "Status: ON\n" });
});

it.each([
  [{ action: "off", plug: "node9" }, /the lab in .* has no node "node9" Its nodes are node1, node2, node3/],
  [{ action: "off" }, /the action off needs the option plug/],
  [{ action: "reboot", plug: "node1" }, /an action is expected .*, found reboot/],
  [{ action: "off", plug: "node1", dir: "/nowhere" }, /there is no lab in \/nowhere/],
])("%j: fails with words, and changes nothing", async (options, words) => {
  expect(await agent(2, options)).toMatchObject({ status: 1, stderr: expect.stringMatching(words) });
  expect(await status("node1")).toBe(0);
});

/** The image without its loop devices. */
function imageHas(words: string): boolean {
  const fd = openSync(labFiles(lab.dir).image, "r");
  try {
    const part = Buffer.alloc(1 << 20);
    for (let at = 0; ; ) {
      const got = readSync(fd, part, 0, part.length, at);
      if (part.subarray(0, got).includes(words)) return true;
      if (got < part.length) return false;
      at += got - words.length;
    }
  } finally {
    closeSync(fd);
  }
}

it("R11: off: what the node has not written does not come to the disk, nothing of it runs, and lab start boots it again", async () => {
  expect(await lab.owner()).toBe(1);
  const before = (await lab.status())[0];
  const writer = startActor({ cwd: lab.node(1).mount });
  await writer.run(
    `put("synced", "on the disk ".encode() * 999); os.fsync(os.open("synced", os.O_RDWR)); os.fsync(os.open(".", os.O_RDONLY))`,
  );
  await writer.run(`put("dirty", "in memory alone ".encode() * 999)`);
  await lab.lab("partition", "node1");
  expect(await agent(2, { action: "off", plug: "node1" })).toMatchObject({ status: 0, stdout: "Success: Powered OFF\n", stderr: "" });
  for (const pid of [before?.dlmdPid, before?.overlayPid]) expect(processRef(pid ?? 0)).toBeNull();
  expect([imageHas("on the disk on the disk"), imageHas("in memory alone in memory")]).toEqual([true, false]);
  expect(await status("node1")).toBe(2);
  expect((await lab.status())[0]).toMatchObject({ state: "off", device: null, cut: false });
  // Off is off, however often it is asked.
  expect(await agent(3, { action: "off", plug: "node1" })).toMatchObject({ status: 0 });
  await lab.lab("heal", "node1");
  await lab.start(1);
  expect([(await lab.status())[0]?.state, await status("node1")]).toEqual(["up", 0]);
  expect(existsSync(`${lab.node(1).mount}/synced`)).toBe(true);
});

it("C3: lab start, and the agent's on, refuse a node of which a file system is still mounted, or a process runs", async () => {
  const victim = (await lab.owner()) === 3 ? 2 : 3;
  const name = `node${victim}`;
  const from = victim === 3 ? 2 : 3;
  expect(await agent(from, { action: "off", plug: name })).toMatchObject({ status: 0 });
  // As if another mount namespace had kept a copy: its device is in use, and stays cut.
  const device = attachLoop(labFiles(lab.dir).image);
  await updateNode(lab.dir, victim, { device, cut: true });
  const holder = startActor({ cwd: "/" });
  await holder.run(`fd = os.open(device, os.O_RDONLY | os.O_EXCL)`, { device });
  const start = (): Promise<RunResult> => coverlay(["lab", "start", name, "--dir", lab.dir]);
  const words = new RegExp(`${name} was cut off its disk, and a file system of it is still mounted on ${device}`);
  expect(await start()).toMatchObject({ status: 1, stderr: expect.stringMatching(words) });
  expect(await agent(from, { action: "on", plug: name })).toMatchObject({ status: 1, stderr: expect.stringMatching(words) });
  expect(await coverlay(["lab", "uncut", name, "--dir", lab.dir])).toMatchObject({ status: 1, stderr: expect.stringMatching(/is off/) });
  await holder.run(`os.close(fd)`);
  const left = spawnSync(
    "nsenter",
    netnsArguments(lab.node(victim).netns, ["sh", "-c", "sleep 1000 </dev/null >/dev/null 2>&1 & echo $!"]),
  );
  const pid = Number(String(left.stdout).trim());
  expect(await start()).toMatchObject({
    status: 1,
    stderr: expect.stringMatching(new RegExp(`${name} is off, but 1 of its processes run`)),
  });
  expect(await status(name)).not.toBe(2);
  process.kill(pid, "SIGKILL");
  await until("it has ended", () => processRef(pid) === null);
  expect(await agent(from, { action: "on", plug: name })).toMatchObject({ status: 0, stdout: "Success: Powered ON\n" });
  expect(readLab(lab.dir)?.nodes[victim - 1]).toMatchObject({ power: "on", cut: false });
  await lab.start(victim);
  expect((await lab.status())[victim - 1]?.state).toBe("up");
});

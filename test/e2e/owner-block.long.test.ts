/**
 * Two owners of one device, which must never be (R5): the only mounter is cut off and lives, another node mounts. And the ways in which
 * it goes on: the first one has released, or its process has ended.
 */
import { mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { RunResult } from "../../overlay/lab/command.ts";
import { run } from "../../overlay/lab/command.ts";
import { labFiles } from "../../overlay/lab/layout.ts";
import { storedBit } from "./volume/take.ts";
import { readOwnerBlock, writeOwnerBlock } from "../../overlay/volume/direct-block.ts";
import type { Life } from "../../overlay/volume/life.ts";
import type { OwnerBlock } from "../../overlay/volume/owner-block.ts";
import { thisMachine } from "../../overlay/volume/prove-gone.ts";
import { tryExclusive } from "../../overlay/volume/device.ts";
import { coverlayProgram, startLab, type TestLab } from "./lab.ts";
import { endActors, startActor } from "./actor.ts";
import { lowerDirectory } from "./owner-lower.ts";

const TIMEOUT_MS = 120_000;
const POLL_MS = 50;
/** Waiting for a dead holder takes the kernel longer (overlay/volume/mmp.ts). */
const MMP_WAIT_MS = 11_000;

let lab: TestLab;
let devices: string[] = [];
const at = (nodeid: number, name: string): string => path.join(lab.node(nodeid).mount, name);

beforeAll(async () => {
  lab = await startLab({ nodes: 3, lower: "ext4", fencing: false });
  devices = (await lab.status()).map((node) => node.device ?? "");
});
afterAll(async () => {
  endActors();
  await lab?.end();
});

async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + TIMEOUT_MS;
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(`not reached: ${what}`);
    await new Promise((resolve) => {
      setTimeout(resolve, POLL_MS);
    });
  }
}

const command = (nodeid: number, words: readonly string[]): Promise<RunResult> =>
  run("nsenter", [`--net=/run/netns/${lab.node(nodeid).netns}`, process.execPath, coverlayProgram, ...words], {
    env: { ...process.env, COVERLAY_RUN_DIR: lab.node(nodeid).runDir },
    timeoutMs: TIMEOUT_MS,
  });

const mount = (nodeid: number): Promise<RunResult> =>
  command(nodeid, ["mount", devices[nodeid - 1] ?? "", lab.node(nodeid).mount, "-o", `runDir=${lab.node(nodeid).runDir}`]);
const unmount = (nodeid: number): Promise<RunResult> => command(nodeid, ["umount", lab.node(nodeid).mount]);

/** The nodes whose kernel has a superblock on the disk. */
const holders = (): number[] => devices.flatMap((device, n) => (tryExclusive(device) === "busy" ? [n + 1] : []));

async function viewOf(nodeid: number): Promise<string> {
  const { view } = (await lab.status()).find((node) => node.nodeid === nodeid) ?? {};
  return view?.quorate === true && view.running ? view.members.join(",") : "";
}

it("the only mounter is cut off and lives: another mount is refused, with words; after its release it is not", {
  timeout: TIMEOUT_MS,
}, async () => {
  for (const nodeid of [2, 3]) expect((await unmount(nodeid)).status).toBe(0);
  writeFileSync(at(1, "by-node1"), "one");
  expect(holders()).toEqual([1]);
  // It lets go of its disk by itself (overlay/serve/self-fence.ts), but somebody keeps the file system mounted.
  const { overlayPid } = (await lab.status())[0] ?? {};
  const holder = startActor({ cwd: "/" });
  await holder.run(`fd = os.open(lower, os.O_RDONLY)`, { lower: lowerDirectory(overlayPid ?? 0, devices[0] ?? "") });
  await lab.lab("partition", "node1");
  await until("nodes 2 and 3 go on without node 1", async () => (await viewOf(2)) === "2,3");
  const refused = await mount(2);
  expect(holders()).toEqual([1]);
  expect([refused.status, refused.stderr]).toEqual([32, expect.stringContaining("node1 has the volume mounted as")]);
  expect(refused.stderr).toContain("nothing proves that it has ended");
  expect(refused.stderr).toContain("coverlay volume release DEVICE --owner node1 --yes");
  const show = await command(2, ["volume", "show", devices[1] ?? ""]);
  expect(show.stdout).toMatch(/owner: node 1 \(process \d+ on .*, \/dev\/loop\d+\), since /);
  const word = await command(2, ["volume", "release", devices[1] ?? "", "--owner", "node1"]);
  expect([word.status, word.stderr]).toEqual([1, expect.stringContaining("this destroys the file system")]);

  // It lets go although nobody hears it.
  await holder.run(`os.close(fd)`);
  await until("node 1 has released its disk", () => holders().length === 0);
  expect(await viewOf(2)).toBe("2,3");
  expect(await mount(2)).toMatchObject({ status: 0 });
  expect(holders()).toEqual([2]);
  expect(readFileSync(at(2, "by-node1"), "utf8")).toBe("one");
  await lab.lab("heal", "node1");
  await until("all three are there", async () => (await viewOf(2)) === "1,2,3");
});

it("the overlay of the only mounter is killed: its node mounts again, without waiting for MMP", { timeout: TIMEOUT_MS }, async () => {
  writeFileSync(at(2, "by-node2"), "two");
  expect(holders()).toEqual([2]);
  await lab.kill(2, "overlay");
  await until("its superblock is gone", () => holders().length === 0);
  await command(2, ["umount", lab.node(2).mount]);
  const began = performance.now();
  expect(await mount(2)).toMatchObject({ status: 0 });
  expect(performance.now() - began).toBeLessThan(MMP_WAIT_MS);
  expect(holders()).toEqual([2]);
});

it("a machine that took the nodeid of the owner's machine proves nothing of that one; a restart of that very machine does", {
  timeout: TIMEOUT_MS,
}, async () => {
  expect(await unmount(2)).toMatchObject({ status: 0 });
  const device = devices[1] ?? "";
  const { ownerBlock, uuid } = storedBit(device);
  const offset = ownerBlock ?? 0;
  const before = await readOwnerBlock(device, offset, uuid);
  // As a power-off of node 1 leaves it.
  const life = { ...(before.life as Life), nodeid: 1, pid: 1, bootId: "the-boot-before", hostName: "lost" };
  const own = (machineId: string): OwnerBlock => ({
    ...before,
    sequence: before.sequence + 1,
    state: "owned",
    life: { ...life, machineId },
  });
  await writeOwnerBlock(device, offset, own("f".repeat(32)));
  const refused = await mount(2);
  expect([refused.status, holders()]).toEqual([32, []]);
  expect(refused.stderr).toContain("node1 is another machine than the one that had");
  expect(refused.stderr).toContain("coverlay volume release DEVICE --owner node1 --yes");
  await writeOwnerBlock(device, offset, own(thisMachine.machineId()));
  expect(await mount(2)).toMatchObject({ status: 0 });
  expect(holders()).toEqual([2]);
});

it("a plain mount of the disk by a machine outside of the cluster is refused by the kernel", { timeout: TIMEOUT_MS }, async () => {
  const stray = (await run("losetup", ["--find", "--show", "--direct-io=on", labFiles(lab.dir).image])).stdout.trim();
  const point = path.join(lab.dir, "stray");
  mkdirSync(point);
  try {
    const refused = await run("mount", [stray, point], { timeoutMs: TIMEOUT_MS });
    expect([refused.status, refused.stderr]).toEqual([32, expect.stringMatching(/already mounted|busy/)]);
    writeFileSync(at(2, "goes"), "on");
  } finally {
    await run("umount", [point]);
    await run("losetup", ["--detach", stray]);
    rmdirSync(point);
  }
});

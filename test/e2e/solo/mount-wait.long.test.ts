/** mount -o timeout=, retry= and bg: the command waits for dlmd and the quorum and says so, gives up in time, or leaves the waiting to a process. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { mountAt } from "../../../dlmd/base/mount-table.ts";
import { enableVolume } from "../../../overlay/cli/volume.ts";
import { processRef } from "../../../overlay/lab/processes.ts";
import type { Bit } from "../../../overlay/volume/bit.ts";
import { until } from "../actor.ts";
import { type TestCluster, createCluster } from "../dlmd/cluster.ts";
import { coverlay, coverlayProgram } from "../lab.ts";
import { type Disk, withDisk } from "../volume/disk.ts";

const bit: Bit = { cluster: "test", volume: "shared", uuid: "6b1c0b5e-3f0e-4f0a-9d5c-2f8c6a0c4d11" };

let cluster: TestCluster;
/** Two nodes: one alone has no quorum. */
beforeEach(() => {
  cluster = createCluster({ nodes: 2, more: ["volumes:", `  - { name: shared, uuid: ${bit.uuid}, lower: device }`] });
});
/** Processes in the background, too. */
const started = new Set<number>();
afterEach(async () => {
  for (const pid of started) if (processRef(pid) !== null) process.kill(pid, "SIGTERM");
  started.clear();
  await cluster.close();
});

interface Mounting {
  readonly child: ChildProcess;
  readonly ended: Promise<number | null>;
  readonly stderr: () => string;
  readonly stdout: () => string;
}

function mount({ device, mountPoint }: Disk, options: string, env: NodeJS.ProcessEnv = {}): Mounting {
  const words = [coverlayProgram, "mount", device, mountPoint, "-o", `runDir=${cluster.runDir(1)},${options}`];
  const child = spawn(process.execPath, words, { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] });
  started.add(child.pid ?? 0);
  let [stdout, stderr] = ["", ""];
  child.stdout.on("data", (bytes: Buffer) => (stdout += bytes.toString()));
  child.stderr.on("data", (bytes: Buffer) => (stderr += bytes.toString()));
  return { child, ended: once(child, "close").then(([status]) => status as number | null), stderr: () => stderr, stdout: () => stdout };
}

async function isMounted({ mountPoint }: Disk): Promise<void> {
  expect(mountAt(mountPoint)?.type).toBe("fuse.clustered");
  writeFileSync(path.join(mountPoint, "file"), "hello");
  const { status, stderr } = await coverlay(["umount", mountPoint, "--json"]);
  expect([status, stderr]).toEqual([0, ""]);
}

const says = (mounting: Mounting, words: string): Promise<void> =>
  until(`the mount says ${words}`, () => mounting.stderr().includes(words), mounting.stderr);

test("it waits for dlmd, then for the quorum, and says so", () =>
  withDisk("ext4", async (disk) => {
    await enableVolume(disk.device, bit);
    const mounting = mount(disk, "timeout=200");
    await says(mounting, "coverlay: waiting: dlmd expected at");
    await cluster.start(1);
    await says(mounting, "coverlay: waiting: the cluster has no quorum");
    await cluster.start(2);
    expect([await mounting.ended, mounting.stdout()]).toEqual([0, ""]);
    await isMounted(disk);
  }));

test("out of time it is refused, and says for what it waited", () =>
  withDisk("ext4", async (disk) => {
    await enableVolume(disk.device, bit);
    await cluster.start(1);
    const mounting = mount(disk, "timeout=2");
    expect(await mounting.ended).toBe(32);
    expect(mounting.stderr()).toMatch(/^coverlay: not mounted within 2 s: the cluster has no quorum: .*\n {2}Start dlmd on more nodes/m);
    const one = mount(disk, "retry=0");
    expect([await one.ended, one.stderr()]).toEqual([32, expect.stringContaining("not mounted within 0 s")]);
    expect(mountAt(disk.mountPoint)?.type).not.toBe("fuse.clustered");
  }));

test("bg: the command succeeds at once, and the mount comes when there is a quorum", () =>
  withDisk("ext4", async (disk) => {
    await enableVolume(disk.device, bit);
    const mounting = mount(disk, "bg,timeout=200");
    expect([await mounting.ended, mounting.stderr()]).toEqual([0, expect.stringContaining("dlmd expected at")]);
    const [, pid = ""] = /process (\d+) goes on in the background/.exec(mounting.stdout()) ?? [];
    started.add(Number(pid));
    expect(processRef(Number(pid))).not.toBeNull();
    await Promise.all([cluster.start(1), cluster.start(2)]);
    await until("it is mounted", () => mountAt(disk.mountPoint)?.type === "fuse.clustered");
    await until("the process in the background has ended", () => processRef(Number(pid)) === null);
    await isMounted(disk);
  }));

test("bg: an error that does not pass is the command's", () =>
  withDisk("ext4", async (disk) => {
    const mounting = mount(disk, "bg");
    expect([await mounting.ended, mounting.stdout()]).toEqual([32, ""]);
  }));

test("SIGTERM ends it, before a terminal and in the background, and leaves nothing", () =>
  withDisk("ext4", async (disk) => {
    await enableVolume(disk.device, bit);
    const mounting = mount(disk, "wait");
    await says(mounting, "coverlay: waiting:");
    mounting.child.kill("SIGTERM");
    expect([await mounting.ended, mounting.stderr()]).toEqual([8, expect.stringContaining("SIGTERM: interrupted")]);

    const background = mount(disk, "bg");
    expect(await background.ended).toBe(0);
    const [, pid = "", log = ""] = /process (\d+) .* in (\S+) for what/.exec(background.stdout()) ?? [];
    started.add(Number(pid));
    await until("the process in the background waits", () => readFileSync(log, "utf8").includes("coverlay: waiting:"));
    process.kill(Number(pid), "SIGTERM");
    await until("it has ended", () => processRef(Number(pid)) === null);
    expect(readFileSync(log, "utf8")).toContain("SIGTERM: interrupted");
    expect(mountAt(disk.mountPoint)?.type).not.toBe("fuse.clustered");
  }));

test("bg: a second process for the same mount point is refused; status names the first, and an umount ends it", () =>
  withDisk("ext4", async (disk) => {
    await enableVolume(disk.device, bit);
    await cluster.start(1);
    const first = mount(disk, "bg");
    expect(await first.ended).toBe(0);
    const [, pid = ""] = /process (\d+) goes on in the background/.exec(first.stdout()) ?? [];
    started.add(Number(pid));
    const second = mount(disk, "bg");
    expect([await second.ended, second.stderr()]).toEqual([32, expect.stringContaining(`process ${pid} waits in the background already`)]);
    const status = await coverlay(["status", "--run-dir", cluster.runDir(1)]);
    expect(status.stdout).toContain(`waiting  ${disk.mountPoint}: to mount ${disk.device}, process ${pid}`);
    const ended = await coverlay(["umount", disk.mountPoint]);
    expect([ended.status, ended.stderr]).toEqual([0, expect.stringContaining(`process ${pid} waited in the background`)]);
    // Nobody has to have reaped it yet.
    expect(processRef(Number(pid))).toBeNull();
    expect((await coverlay(["umount", disk.mountPoint])).status).toBe(32);
    const third = mount(disk, "bg");
    expect(await third.ended).toBe(0);
    await cluster.start(2);
    await until("it is mounted", () => mountAt(disk.mountPoint)?.type === "fuse.clustered");
    const elsewhere = await coverlay(["umount", "--all", "--run-dir", cluster.runDir(2)]);
    expect([elsewhere.status, mountAt(disk.mountPoint)?.type]).toEqual([0, "fuse.clustered"]);
    const inUse = openSync(path.join(disk.mountPoint, "file"), "w");
    const busy = await coverlay(["umount", "--all", "--run-dir", cluster.runDir(1)]);
    expect([busy.status, busy.stderr]).toEqual([32, expect.stringContaining(`${disk.mountPoint}: not unmounted`)]);
    closeSync(inUse);
    const all = await coverlay(["umount", "--all", "--run-dir", cluster.runDir(1)]);
    expect([all.status, all.stderr, mountAt(disk.mountPoint)?.type === "fuse.clustered"]).toEqual([0, "", false]);
  }));

test("bg of a mount of systemd goes on in the foreground", () =>
  withDisk("ext4", async (disk) => {
    await enableVolume(disk.device, bit);
    const mounting = mount(disk, "bg,timeout=1", { SYSTEMD_EXEC_PID: String(process.pid) });
    expect([await mounting.ended, mounting.stderr()]).toEqual([32, expect.stringContaining("goes on in the foreground")]);
  }));

/** C11: a tool that writes to the disk, and its overlay is killed: it holds the device, so there is no proof that this life is over until it has ended. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, copyFileSync, existsSync, fsyncSync, mkdirSync, openSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import path from "node:path";
import { expect, it } from "vitest";
import { bootId, machineId } from "../../../dlmd/base/machine.ts";
import { startTimeOf } from "../../../dlmd/base/process.ts";
import { createLifeLook } from "../../../dlmd/driver/life-look.ts";
import { nativeAddon } from "../../../native/index.ts";
import { enableVolume } from "../../../overlay/cli/volume.ts";
import { readOwnerBlock, writeOwnerBlock } from "../../../overlay/volume/direct-block.ts";
import { clearMmp, machineName, readMmp } from "../../../overlay/volume/mmp.ts";
import { probeSuperblock } from "../../../overlay/volume/probe.ts";
import { proveGoneHere, thisMachine } from "../../../overlay/volume/prove-gone.ts";
import type { Ext4Superblock } from "../../../overlay/volume/superblock.ts";
import { dist } from "../../built.ts";
import { until } from "../actor.ts";
import { attachLoop, run, withDisk } from "./disk.ts";
import { storedBit, takeLower } from "./take.ts";

const bit = { cluster: "c", volume: "v", uuid: "6b1c0b5e-3f0e-4f0a-9d5c-2f8c6a0c4d11" };

/** A process that clears MMP as an overlay does, with a tune2fs that has the device open for writing until `end` is written to. */
async function startClearing(dir: string, device: string): Promise<{ readonly overlay: ChildProcess; readonly end: () => void }> {
  const tools = path.join(dir, "tools");
  const [begun, end] = [path.join(dir, "begun"), path.join(dir, "end")];
  mkdirSync(tools);
  run("mkfifo", end);
  writeFileSync(path.join(tools, "tune2fs"), `#!/bin/sh\nexec 9<>"$4"\necho > ${begun}\nread words < ${end}\necho late >&9\n`, {
    mode: 0o755,
  });
  const program = path.join(dir, "clear.mjs");
  const module = path.join(dist, "overlay/volume/mmp.js");
  writeFileSync(program, `import { clearMmp } from ${JSON.stringify(module)};\nawait clearMmp(${JSON.stringify(device)}, () => {});\n`);
  const env = { ...process.env, PATH: `${tools}:${process.env["PATH"]}` };
  const overlay = spawn(process.execPath, [program], { env, stdio: "ignore" });
  await until("the tool has the device open", () => existsSync(begun));
  return { overlay, end: () => writeFileSync(end, "\n") };
}

it("C11: is held by the tool of a process that was killed: neither dlmd nor an overlay calls that life ended", async () => {
  await withDisk("none", async ({ dir, device }) => {
    const { overlay, end } = await startClearing(dir, device);
    const pid = overlay.pid ?? 0;
    const startTime = Number(startTimeOf(pid));
    const life = { nodeid: 1, incarnation: "i", clientId: 1, epoch: 1, hostName: "h", pid, device, startTime: BigInt(startTime) };
    const prove = () =>
      proveGoneHere({ ...life, bootId: bootId(), machineId: machineId() }, { nodeid: 1, pid: process.pid, device }, thisMachine);
    const look = () => createLifeLook().look({ bootId: bootId(), pid, startTime, device } as never);
    let ended = false;
    try {
      overlay.kill("SIGKILL");
      await once(overlay, "exit");
      expect(await look()).toMatchObject({ process: "gone", device: "busy" });
      expect(await prove()).toMatchObject({ kind: "none", why: `process ${pid} of this node has ended, but ${device} is in use still` });
    } finally {
      ended = true;
      end();
    }
    await until("the device is free", async () => (await look()).device === "free");
    // It had ended before: what it wrote last is on the disk.
    expect([ended, readFileSync(device).toString("latin1", 0, 4)]).toEqual([true, "late"]);
    expect(await prove()).toEqual({ kind: "ended" });
  });
});

/** A mount of FUSE with that source, which asks for INIT and gets no answer: whoever wants anything of it waits. */
async function withSilentMount(dir: string, source: string, work: (mountPoint: string) => Promise<void>): Promise<void> {
  const native = nativeAddon();
  const mountPoint = path.join(dir, "silent");
  mkdirSync(mountPoint);
  const fd = native.fuseOpen();
  expect(fd).toBeGreaterThanOrEqual(0);
  expect(native.mount(source, mountPoint, "fuse.clustered", 0, `fd=${fd},rootmode=40000,user_id=0,group_id=0`)).toBe(0);
  try {
    await work(mountPoint);
  } finally {
    // With its last descriptor the connection ends, and who waits goes on.
    native.sync.close(fd);
    native.umount(mountPoint, 2);
  }
}

it("C11: tune2fs does not wait for a mount of that device, which answers only when it has ended", async () => {
  await withDisk("ext4", async ({ dir, device }) => {
    await enableVolume(device, bit);
    await withSilentMount(dir, device, async (mountPoint) => {
      const waits = spawn("stat", [mountPoint], { stdio: "ignore" });
      const waited = once(waits, "exit");
      await until("it waits for the mount", () => readFileSync(`/proc/${waits.pid}/stack`, "utf8").includes("fuse"));
      await clearMmp(device, () => {});
      // The mount has not answered in the meantime.
      expect([waits.exitCode, readFileSync(`/proc/${waits.pid}/stack`, "utf8")]).toEqual([null, expect.stringContaining("fuse")]);
      waits.kill("SIGKILL");
      await waited;
    });
  });
});

it("C11: tune2fs clears MMP while the device is held, and the kernel mounts it after that, and replays the journal", async () => {
  await withDisk("ext4", async ({ dir, device, image }) => {
    await enableVolume(device, bit);
    const mount = nativeAddon().mountDetached("ext4", device, [], 0, []);
    const fd = openSync(`/proc/self/fd/${mount}/file`, "w");
    writeSync(fd, "kept");
    fsyncSync(fd);
    closeSync(fd);
    const copy = path.join(dir, "copy");
    copyFileSync(image, copy);
    closeSync(mount);
    const dead = attachLoop(copy);
    try {
      const { ownerBlock, uuid } = storedBit(dead);
      const mmp = (): ReturnType<typeof readMmp> => readMmp(dead, probeSuperblock(dead) as Ext4Superblock);
      expect(await mmp()).toMatchObject({ state: "in-use", hostName: machineName(), deviceName: path.basename(device) });
      await clearMmp(dead, () => {});
      expect(await mmp()).toMatchObject({ state: "clean" });
      const released = await readOwnerBlock(dead, ownerBlock ?? 0, uuid);
      await writeOwnerBlock(dead, ownerBlock ?? 0, { ...released, sequence: released.sequence + 1, state: "released" });
      const lower = await takeLower(dead);
      expect(lower.dirty).toBe("its journal has to be replayed");
      expect(readFileSync(`/proc/self/fd/${lower.rootFd}/file`, "utf8")).toBe("kept");
      await lower.release();
    } finally {
      run("losetup", "--detach", dead);
    }
  });
});

/** Growth on a real disk: by the kernel, of a file system that has no mount point; and what a node does that still sees the old size of its device. */
import { statfsSync, truncateSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { enableVolume } from "../../../overlay/cli/volume.ts";
import { deviceBytes } from "../../../overlay/volume/device.ts";
import { type Growth, type GrowthReport, mayResize, mountedBytes } from "../../../overlay/volume/growth.ts";
import { type LowerMount, mountLower } from "../../../overlay/volume/lower-mount.ts";
import { dirtyReason, probeSuperblock } from "../../../overlay/volume/probe.ts";
import { readOwnerBlock } from "../../../overlay/volume/direct-block.ts";
import { DiskSteps } from "../../../overlay/volume/disk-steps.ts";
import { refusal } from "../../refusal.ts";
import { until } from "../actor.ts";
import { joinLoop } from "../../../overlay/lab/disk.ts";
import { attachLoop, checkFileSystem, run, withDisk } from "./disk.ts";
import { storedBit, takeLower, takingOf } from "./take.ts";

const bit = { cluster: "c", volume: "v", uuid: "6b1c0b5e-3f0e-4f0a-9d5c-2f8c6a0c4d11" };
const MIB = 2 ** 20;
const sizes = { ext4: [64 * MIB, 192 * MIB], xfs: [300 * MIB, 900 * MIB] } as const;

const growthOf = ({ growth }: LowerMount): Growth => {
  if (growth === null) throw new Error("the lower is a device, expected");
  return growth;
};

async function grown(mount: LowerMount): Promise<GrowthReport> {
  const growth = growthOf(mount);
  await growth.begin();
  await until("it has ended", () => growth.report?.kind !== "growing");
  return growth.report as GrowthReport;
}

const room = ({ rootFd }: LowerMount): number => statfsSync(`/proc/self/fd/${rootFd}`).blocks;

describe.each(["ext4", "xfs"] as const)("%s", (type) => {
  const [before, after] = sizes[type];

  it("grows while it is mounted, without a mount point, and is whole", async (context) => {
    context.skip(
      type === "ext4" && !mayResize(),
      "this machine gives no CAP_SYS_RESOURCE, without which ext4 is not resized while it is mounted",
    );
    await withDisk(type, async ({ device, image }) => {
      await enableVolume(device, bit);
      const mount = await takeLower(device);
      expect(await refusal(growthOf(mount).begin())).toMatchObject({ code: "no-room" });
      const had = room(mount);
      truncateSync(image, after);
      // This machine does not see it yet.
      expect(await refusal(growthOf(mount).begin())).toMatchObject({ code: "no-room", hint: expect.stringContaining("losetup -c") });
      run("losetup", "-c", device);
      expect(await grown(mount)).toMatchObject({ kind: "grown", fromBytes: before, bytes: after, toBytes: after });
      expect(room(mount)).toBeGreaterThan(had * 2);
      expect(await mountedBytes({ device, type, rootFd: mount.rootFd })).toBe(after);
      await mount.release();
      checkFileSystem(type, device);
      // No way back.
      run("losetup", "--detach", device);
      truncateSync(image, before);
      const smaller = attachLoop(image);
      expect(await refusal(takeLower(smaller))).toMatchObject({ code: "device-short" });
    });
  });
});

/** Beside the device: what is copied from it is what the next owner finds when the owner dies at that moment. */
it("R18: XFS that was grown says so at once in its place: a node that sees the old size of the device does not mount it", async () => {
  const [before, after] = sizes.xfs;
  await withDisk("xfs", async ({ device, image, dir }) => {
    await enableVolume(device, bit);
    const mount = await takeLower(device);
    truncateSync(image, after);
    run("losetup", "-c", device);
    await grown(mount);
    const copy = `${dir}/copy`;
    run("cp", "--sparse=always", image, copy);
    await mount.release();
    const old = run("losetup", "--find", "--show", "--direct-io=on", `--sizelimit=${before}`, copy).trim();
    try {
      expect(deviceBytes(old)).toBe(before);
      expect(await refusal(takeLower(old, { proof: { kind: "ended" } }))).toMatchObject({
        code: "device-short",
        hint: expect.stringContaining("read the size of its device anew"),
      });
      joinLoop(old, after);
      await (await takeLower(old, { proof: { kind: "ended" } })).release();
      checkFileSystem("xfs", old);
    } finally {
      run("losetup", "--detach", old);
    }
  });
});

/** The journal is replayed by the mount: only then is the size known. */
it.each(["ext4", "xfs"] as const)("R18: %s that turns out to be larger than the device is given back as it was found", async (type) => {
  const [bytes] = sizes[type];
  await withDisk(type, async ({ device }) => {
    await enableVolume(device, bit);
    class Shrinking extends DiskSteps {
      override carryOut<T>(what: string, work: (report: (why: string) => void) => Promise<T>): Promise<T> {
        if (what === "looking at its bit and block") joinLoop(device, bytes - MIB);
        return super.carryOut(what, work);
      }
    }
    const stored = storedBit(device);
    const block = await readOwnerBlock(device, stored.ownerBlock ?? 0, stored.uuid);
    const taking = { ...takingOf({ block, proof: null }), disk: new Shrinking(device) };
    expect(await refusal(mountLower({ kind: "device", path: device }, stored, false, 0, taking))).toMatchObject({ code: "device-short" });
    joinLoop(device, bytes);
    // The block names nobody. At its end nothing was written: ext4's journal is as after a crash; the log of XFS is as it was, without an entry.
    expect(await readOwnerBlock(device, stored.ownerBlock ?? 0, stored.uuid)).toMatchObject({ state: "released" });
    expect(dirtyReason(device, probeSuperblock(device))).toBe(type === "ext4" ? "its journal has to be replayed" : null);
    await (await takeLower(device)).release();
    checkFileSystem(type, device);
  });
});

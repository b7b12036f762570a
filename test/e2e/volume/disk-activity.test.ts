/** What a mounted file system keeps writing, seen through another device over the same disk, as another node sees it. */
import { closeSync, openSync, writeSync } from "node:fs";
import { expect, it } from "vitest";
import { nativeAddon } from "../../../native/index.ts";
import { enableVolume } from "../../../overlay/cli/volume.ts";
import { diskActivity } from "../../../overlay/volume/disk-activity.ts";
import { until } from "../actor.ts";
import { attachLoop, run, withDisk } from "./disk.ts";

const bit = { cluster: "c", volume: "v", uuid: "6b1c0b5e-3f0e-4f0a-9d5c-2f8c6a0c4d11" };

it("ext4: an idle mount writes MMP's block again and again; an unmounted disk stays as it is", async () => {
  await withDisk("ext4", async ({ device, image }) => {
    await enableVolume(device, bit);
    const other = attachLoop(image);
    const before = await diskActivity(other);
    expect([before.everyMs, await diskActivity(other)]).toEqual([1000, before]);
    const mount = nativeAddon().mountDetached("ext4", device, [], 0, []);
    for (let changes = 0, { mark } = before; changes < 3; changes++) {
      let now = mark;
      await until("it was written", async () => (now = (await diskActivity(other)).mark) !== mark);
      mark = now;
    }
    closeSync(mount);
    const after = await diskActivity(other);
    expect(await diskActivity(other)).toEqual(after);
  });
});

it("XFS: each change that reaches the log moves its head, and a mount alone shows too", async () => {
  await withDisk("xfs", async ({ device, image }) => {
    await enableVolume(device, bit);
    const other = attachLoop(image);
    let { mark } = await diskActivity(other);
    expect((await diskActivity(other)).mark).toBe(mark);
    const mount = nativeAddon().mountDetached("xfs", device, [], 0, []);
    for (let changes = 0; changes < 40; changes++) {
      const fd = openSync(`/proc/self/fd/${mount}/f${changes}`, "w");
      writeSync(fd, "written");
      expect(nativeAddon().sync.fsync(fd, false)).toBe(0);
      closeSync(fd);
      const now = (await diskActivity(other)).mark;
      expect(now).not.toBe(mark);
      mark = now;
    }
    closeSync(mount);
    const after = await diskActivity(other);
    expect(await diskActivity(other)).toEqual(after);
  });
});

it("a disk on which nothing would show is refused", async () => {
  await withDisk("none", async ({ device }) => {
    await expect(diskActivity(device)).rejects.toThrow(/nothing shows whether its file system is mounted elsewhere/);
    run("mkfs.ext4", "-q", "-F", "-O", "^has_journal", device);
    await expect(diskActivity(device)).rejects.toMatchObject({ code: "no-activity" });
  });
});

/** `coverlay mount` up to the point where the overlay starts: each refusal, and the scripts as mount(8) really calls them. */
import { closeSync, constants, mkdtempSync, openSync, readFileSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { describe, expect, test, vi } from "vitest";
import type { ClusterInfo, ViewInfo } from "../../../dlmd/client/api.ts";
import { nativeAddon } from "../../../native/index.ts";
import { mountClustered } from "../../../overlay/cli/mount.ts";
import { enableVolume } from "../../../overlay/cli/volume.ts";
import { helperScripts, installHelpers, uninstallHelpers } from "../../../overlay/mount-helper/install.ts";
import type { Bit } from "../../../overlay/volume/bit.ts";
import { MOUNT_TRIES, MountAttr, mountDetached, releaseDetached } from "../../../overlay/volume/detached.ts";
import { tryExclusive } from "../../../overlay/volume/device.ts";
import { checkMount } from "../../../overlay/volume/mount-checks.ts";
import { unmount } from "../../../overlay/volume/remount.ts";
import { ownSbin } from "../own-sbin.ts";
import { refusal } from "../../refusal.ts";
import { run, withDisk } from "./disk.ts";

const bit: Bit = { cluster: "demo", volume: "shared", uuid: "6b1c0b5e-3f0e-4f0a-9d5c-2f8c6a0c4d11" };

const info: ClusterInfo = {
  clusterName: "demo",
  nodeid: 1,
  incarnation: "a",
  clientId: 1,
  nodes: [{ nodeid: 1, name: "node1", address: "127.0.0.1" }],
  volumes: [{ name: "shared", uuid: bit.uuid, lower: "device" }],
  preferredOwners: [],
  overlayKeys: [{ id: "00000000", bytes: new Uint8Array(32) }],
};
const view: ViewInfo = { viewId: "1.1.a", quorate: true, members: [1], incarnations: ["aa"], quorumReason: "1 of 1 votes", running: true };
const cluster = async (): Promise<{ info: ClusterInfo; view: ViewInfo }> => ({ info, view });

async function refusedWith(work: Promise<unknown>): Promise<[string, number]> {
  const { code, exitStatus, hint, message } = await refusal(work);
  if (hint === undefined) throw new Error(`without a hint: ${message}`);
  return [code, exitStatus];
}

describe("refusals of a clustered mount", () => {
  test("before the cluster is asked: no device, an image, no file system, no bit, no dlmd", async () => {
    const mount = (device: string, directory: string, options: string): Promise<unknown> =>
      mountClustered({ device, directory, options, sloppy: false, fake: false, tell: () => {} });
    await withDisk("ext4", async (disk) => {
      const options = `runDir=${disk.dir}`;
      expect(await refusedWith(mount("/dev/not-there", disk.mountPoint, options))).toEqual(["device-missing", 32]);
      expect(await refusedWith(mount(disk.image, disk.mountPoint, options))).toEqual(["image-file", 32]);
      expect(await refusedWith(mount("/dev/null", disk.mountPoint, options))).toEqual(["not-a-device", 32]);
      expect(await refusedWith(mount(disk.device, disk.mountPoint, options))).toEqual(["no-bit", 32]);
      expect(await refusedWith(mount(disk.device, disk.mountPoint, "errors=panic"))).toEqual(["bad-option", 1]);
      await enableVolume(disk.device, bit);
      expect(await refusedWith(mount(disk.device, disk.mountPoint, options))).toEqual(["dlmd-not-running", 32]);
      expect(await refusedWith(mount(disk.dir, disk.mountPoint, options))).toEqual(["no-bit", 32]);
    });
    await withDisk("none", async (disk) => {
      expect(await refusedWith(mount(disk.device, disk.mountPoint, `runDir=${disk.dir}`))).toEqual(["unknown-fs", 32]);
    });
  });

  test("what the cluster says: another cluster, an unknown volume, no quorum", async () => {
    await withDisk("ext4", async (disk) => {
      await enableVolume(disk.device, bit);
      const check = (changed: Partial<ClusterInfo>, changedView: Partial<ViewInfo> = {}): Promise<unknown> =>
        checkMount(disk.device, disk.mountPoint, disk.dir, async () => ({
          info: { ...info, ...changed },
          view: { ...view, ...changedView },
        }));
      expect(await refusedWith(check({ clusterName: "other" }))).toEqual(["wrong-cluster", 32]);
      expect(await refusedWith(check({ volumes: [] }))).toEqual(["unknown-volume", 32]);
      expect(await refusedWith(check({}, { quorate: false, members: [] }))).toEqual(["no-quorum", 32]);
      expect(await refusedWith(check({ volumes: [{ name: "shared", uuid: bit.uuid, lower: "directory" }] }))).toEqual(["wrong-lower", 32]);
      expect(await check({})).toMatchObject({ source: { kind: "device", path: disk.device }, volume: info.volumes[0], bit, info });
      expect(await checkMount("shared", disk.mountPoint, disk.dir, cluster)).toMatchObject({ source: null, bit });
      expect(await refusedWith(checkMount("shered", disk.mountPoint, disk.dir, cluster))).toEqual(["unknown-volume", 32]);
    });
  });

  test("a device that is in use plainly, and mount points that are none", async () => {
    await withDisk("ext4", async (disk) => {
      await enableVolume(disk.device, bit);
      const file = path.join(disk.dir, "file");
      writeFileSync(file, "");
      expect(await refusedWith(checkMount(disk.device, file, disk.dir, cluster))).toEqual(["bad-mount-point", 32]);
      expect(await refusedWith(checkMount(disk.device, path.join(disk.dir, "nothing"), disk.dir, cluster))).toEqual([
        "bad-mount-point",
        32,
      ]);
      run("mount", "-o", "ro", disk.device, disk.mountPoint);
      expect(await refusedWith(checkMount(disk.device, disk.dir, disk.dir, cluster))).toEqual(["device-busy", 32]);
      run("umount", disk.mountPoint);
      const detached = await mountDetached(disk.device, "ext4", [], MountAttr.RDONLY);
      expect(await refusedWith(checkMount(disk.device, disk.mountPoint, disk.dir, cluster))).toEqual(["device-busy", 32]);
      await releaseDetached(detached, disk.device);
      await checkMount(disk.device, disk.mountPoint, disk.dir, cluster);
    });
  });

  test.each(["ext4", "xfs"] as const)(
    "%s: a look at the device while the kernel mounts it fails no mount, unless it lasts",
    async (type) => {
      const native = nativeAddon();
      const inKernel = native.mountDetachedInPool.bind(native);
      await withDisk(type, async (disk) => {
        /** As a doctor, or a dlmd, does. */
        let looks = 0;
        const tries = vi.spyOn(native, "mountDetachedInPool").mockImplementation(async (...words) => {
          const look = looks-- > 0 ? openSync(disk.device, constants.O_RDONLY | constants.O_EXCL) : null;
          try {
            return await inKernel(...words);
          } finally {
            if (look !== null) closeSync(look);
          }
        });
        try {
          let asked = 0;
          const mount = (): ReturnType<typeof mountDetached> => mountDetached(disk.device, type, [], MountAttr.RDONLY, () => void asked++);
          looks = MOUNT_TRIES - 1;
          await releaseDetached(await mount(), disk.device);
          // What has to be asked right before the mount is asked each time.
          expect([asked, tries.mock.calls.length]).toEqual([MOUNT_TRIES, MOUNT_TRIES]);
          looks = MOUNT_TRIES;
          expect(await refusedWith(mount())).toEqual(["device-busy", 32]);
          expect(tries).toHaveBeenCalledTimes(2 * MOUNT_TRIES);
        } finally {
          tries.mockRestore();
        }
      });
    },
  );

  test("C3: a device whose name has become that of another disk is not released, though that one is free", async () => {
    await withDisk("ext4", (disk) =>
      withDisk("ext4", async (other) => {
        const link = path.join(disk.dir, "by-uuid");
        symlinkSync(disk.device, link);
        const detached = await mountDetached(link, "ext4", [], MountAttr.RDONLY);
        // The superblock lives on with that.
        const kept = openSync(`/proc/self/fd/${detached.rootFd}`, "r");
        try {
          unlinkSync(link);
          symlinkSync(other.device, link);
          expect([tryExclusive(disk.device), tryExclusive(link)]).toEqual(["busy", "free"]);
          expect(await refusedWith(releaseDetached(detached, link))).toEqual(["not-released", 32]);
        } finally {
          closeSync(kept);
        }
      }),
    );
  });

  test("unmounting what is not mounted, or not ours", async () => {
    await withDisk("ext4", async (disk) => {
      const plain = { lazy: false, force: false, tell: (): void => {} };
      expect(await refusedWith(unmount(disk.mountPoint, plain))).toEqual(["not-mounted", 32]);
      run("mount", disk.device, disk.mountPoint);
      expect(await refusedWith(unmount(disk.mountPoint, plain))).toEqual(["not-clustered", 32]);
      expect(await refusedWith(checkMountOptions(disk.mountPoint))).toEqual(["not-clustered", 32]);
    });
  });
});

function checkMountOptions(mountPoint: string): Promise<unknown> {
  return mountClustered({ device: mountPoint, directory: mountPoint, options: "remount,ro", sloppy: false, fake: false, tell: () => {} });
}

describe("the scripts under /sbin", () => {
  test("mount(8) gives them what the command line takes; everything else is left to it", async () => {
    await withDisk("ext4", (disk) => {
      // Instead of node: a program that shows its words.
      const echo = path.join(disk.dir, "a 'strange' name");
      writeFileSync(echo, '#!/bin/sh\necho "CALLED $*"\nexit 32\n', { mode: 0o755 });
      const fstab = path.join(disk.dir, "fstab");
      writeFileSync(fstab, `${disk.device} ${disk.mountPoint} clustered rw,_netdev 0 0\n`);
      const sbin = ownSbin({ node: echo, program: "MAIN" }, ["ext4"]);
      try {
        const { device, mountPoint } = disk;
        const nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups";
        const cases: readonly (readonly [string, number, string])[] = [
          [`mount -t clustered ${device} ${mountPoint} -o ro,_netdev`, 32, `CALLED MAIN mount ${device} ${mountPoint} -o ro,_netdev\n`],
          [`mount -o clustered ${device} ${mountPoint}`, 32, `CALLED MAIN mount ${device} ${mountPoint} -o rw,clustered\n`],
          [
            `mount -t ext4 -o noatime,clustered ${device} ${mountPoint}`,
            32,
            `CALLED MAIN mount ${device} ${mountPoint} -o rw,noatime,clustered\n`,
          ],
          [`mount -T ${fstab} ${mountPoint}`, 32, `CALLED MAIN mount ${device} ${mountPoint} -o rw,_netdev\n`],
          [`mount -v -n -t clustered ${device} ${mountPoint}`, 32, `CALLED MAIN mount ${device} ${mountPoint} -n -v -o rw\n`],
          // Without the option: a plain mount, as ever; remount, read-only and unmount too.
          [
            `mount -o noatime ${device} ${mountPoint} && mount -o remount,ro ${mountPoint} && grep -c '${mountPoint} ext4 ro,noatime' /proc/mounts && umount ${mountPoint}`,
            0,
            "1\n",
          ],
          [`mount -t ext4 ${device} ${mountPoint} && umount ${mountPoint}`, 0, ""],
          // A user, whom fstab lets mount it.
          [
            `chmod 755 ${disk.dir} && echo '${device} ${mountPoint} ext4 noauto,user' >${fstab} && mount --bind ${fstab} /etc/fstab && for words in '' -r; do ${nobody} mount $words ${mountPoint} && grep -o '${mountPoint} ext4 r.,nosuid' /proc/mounts && ${nobody} umount ${mountPoint}; done`,
            0,
            `${mountPoint} ext4 rw,nosuid\n${mountPoint} ext4 ro,nosuid\n`,
          ],
        ];
        for (const [script, status, output] of cases) {
          const { stdout, stderr, ...ended } = sbin.run(script);
          expect({ status: ended.status, output: stdout + stderr }).toEqual({ status, output });
        }
      } finally {
        sbin.end();
      }
    });
  });

  test("installing and removing touches only what is ours", () => {
    const dir = mkdtempSync(path.join(os.tmpdir(), "coverlay-sbin-"));
    try {
      const scripts = helperScripts({ node: "/usr/bin/node", program: "/main.js" }, ["xfs"]);
      expect(installHelpers(dir, scripts).map((file) => path.basename(file))).toEqual([
        "mount.clustered",
        "mount.fuse.clustered",
        "umount.fuse.clustered",
        "mount.xfs",
      ]);
      installHelpers(dir, scripts);
      expect(uninstallHelpers(dir).length).toBe(4);
      const foreign = path.join(dir, "mount.xfs");
      writeFileSync(foreign, "#!/bin/sh\n");
      expect(() => installHelpers(dir, scripts)).toThrow("not from coverlay");
      expect(uninstallHelpers(dir)).toEqual([]);
      expect(readFileSync(foreign, "utf8")).toBe("#!/bin/sh\n");
    } finally {
      rmSync(dir, { recursive: true });
    }
  });
});

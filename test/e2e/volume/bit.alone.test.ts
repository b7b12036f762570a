/** The clustered bit on real file systems: round trips, refusals, and what the page cache must not be asked (hazard M4). */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  readdirSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import os from "node:os";
import path from "node:path";
import { describe, expect, test } from "vitest";
import { disableVolume, enableVolume, showVolume } from "../../../overlay/cli/volume.ts";
import type { BitWork } from "../../../overlay/volume/bit-writer.ts";
import { BIT_XATTR, type Bit } from "../../../overlay/volume/bit.ts";
import { MountAttr, getAttribute, mountDetached, releaseDetached, setAttribute } from "../../../overlay/volume/detached.ts";
import { tryExclusive } from "../../../overlay/volume/device.ts";
import { PLACE_XATTR } from "../../../overlay/volume/directory-place.ts";
import { type LowerMount, mountLower } from "../../../overlay/volume/lower-mount.ts";
import { probeDevice } from "../../../overlay/volume/probe.ts";
import { refusal } from "../../refusal.ts";
import { anyPlace, takeLower, takingOf } from "./take.ts";
import { type Disk, attachLoop, checkFileSystem, run, withDisk } from "./disk.ts";

const bit: Bit = { cluster: "demo", volume: "shared", uuid: "6b1c0b5e-3f0e-4f0a-9d5c-2f8c6a0c4d11" };
const TIMEOUT_MS = 120_000;
const plainMmp = { state: "clean", intervalS: 1, hostName: expect.any(String) as string, device: expect.any(String) as string };
const nobody = takingOf({ block: null, proof: null });

/** All trusted.* names of the root directory, by a mount of our own. */
async function rootAttribute(disk: Disk, type: string): Promise<Buffer | null> {
  const mount = await mountDetached(disk.device, type, [], MountAttr.RDONLY);
  const value = getAttribute(mount.rootFd, BIT_XATTR, disk.device);
  await releaseDetached(mount, disk.device);
  return value;
}

describe("the clustered bit", () => {
  test("ext4: MMP is not taken from a machine that mounts after the bit is cleared: it is told what is left", {
    timeout: TIMEOUT_MS,
  }, async () => {
    await withDisk("ext4", async (disk) => {
      await enableVolume(disk.device, bit);
      const other = attachLoop(disk.image);
      try {
        const say = (words: string): void => {
          if (words.startsWith("switching")) run("mount", other, disk.mountPoint);
        };
        expect(await refusal(disableVolume(disk.device, { say, begin: () => Promise.resolve() }))).toMatchObject({
          code: "mmp",
          message: expect.stringContaining("the clustered bit is cleared, but ext4's multiple-mount protection is still on") as string,
          exitStatus: 32,
        });
        writeFileSync(path.join(disk.mountPoint, "written"), "kept");
        run("umount", disk.mountPoint);
        checkFileSystem("ext4", other);
        expect(run("dumpe2fs", "-h", other)).toMatch(/^Filesystem features:.* mmp/m);
      } finally {
        run("losetup", "--detach", other);
      }
    });
  });

  test("a leg of a mirror is no volume, though a file system begins on it", async () => {
    await withDisk("none", async (disk) => {
      run("mkfs.ext4", "-q", "-F", disk.device, "15M");
      const bytes = statSync(disk.image).size;
      const superblock = Buffer.alloc(4096);
      // Magic, 0.90, and so many members: the least that blkid takes for one.
      for (const [at, word] of [0xa92b4efc, 0, 90].entries()) superblock.writeUInt32LE(word, at * 4);
      const image = openSync(disk.image, "r+");
      writeSync(image, superblock, 0, superblock.length, bytes - (bytes % 65_536) - 65_536);
      closeSync(image);
      expect(run("blkid", "-p", "-o", "value", "-s", "TYPE", disk.device)).toBe("linux_raid_member\n");
      for (const look of [() => enableVolume(disk.device, bit), () => Promise.resolve(showVolume(disk.device))])
        expect(await refusal(look)).toMatchObject({ code: "member", exitStatus: 32, message: expect.stringContaining("RAID") as string });
    });
  });

  test("of a format that is to come it is neither cleared nor set: nobody here knows its owner", async () => {
    await withDisk("ext4", async (disk) => {
      const mount = await mountDetached(disk.device, "ext4", [], 0);
      setAttribute(mount.rootFd, BIT_XATTR, Buffer.from("coverlay-3;cluster=demo;block=1052672;crc=00000000", "latin1"), disk.device);
      await releaseDetached(mount, disk.device);
      for (const change of [disableVolume(disk.device), enableVolume(disk.device, bit)])
        expect(await refusal(change)).toMatchObject({ code: "bit-version", exitStatus: 32 });
    });
  });

  test("ext4: the bit is read while the owner writes: bitmaps that do not fit their checksums are none of its business", {
    timeout: TIMEOUT_MS,
  }, async () => {
    await withDisk("ext4", async (disk) => {
      await enableVolume(disk.device, bit);
      const bitmap = /Block bitmap at (\d+)/.exec(run("dumpe2fs", disk.device))?.[1];
      const blockBytes = /Block size: +(\d+)/.exec(run("dumpe2fs", "-h", disk.device))?.[1];
      run("dd", "if=/dev/urandom", `of=${disk.device}`, `bs=${blockBytes}`, `seek=${bitmap}`, "count=1", "conv=fsync", "status=none");
      expect(showVolume(disk.device)).toMatchObject({ clustered: true, ...bit });
    });
  });

  for (const type of ["ext4", "xfs"] as const) {
    test(`${type}: enable, show, disable; the disk is plain again`, { timeout: TIMEOUT_MS }, async () => {
      await withDisk(type, async (disk) => {
        expect(showVolume(disk.device)).toEqual({ target: disk.device, lower: "device", type, clustered: false });
        await enableVolume(disk.device, bit);
        expect(showVolume(disk.device)).toEqual({
          target: disk.device,
          lower: "device",
          type,
          clustered: true,
          ...bit,
          owner: { state: "released", epoch: 0, since: expect.any(String) as string },
          mmp: type === "ext4" ? plainMmp : undefined,
        });
        expect(tryExclusive(disk.device)).toBe("free");
        checkFileSystem(type, disk.device);
        await enableVolume(disk.device, bit);
        // Plain mounts do not care.
        run("mount", disk.device, disk.mountPoint);
        writeFileSync(path.join(disk.mountPoint, "file"), "kept");
        const hidden = path.join(disk.mountPoint, ".coverlay.orphans");
        mkdirSync(path.join(hidden, "13.1"), { recursive: true });
        writeFileSync(path.join(hidden, "12.1"), "nobody has it open");
        run("umount", disk.mountPoint);
        expect(await disableVolume(disk.device)).toBe(true);
        expect(await disableVolume(disk.device)).toBe(false);
        run("mount", disk.device, disk.mountPoint);
        expect(readdirSync(disk.mountPoint).filter((name) => name !== "lost+found")).toEqual(["file"]);
        run("umount", disk.mountPoint);
        expect(probeDevice(disk.device).bit).toEqual({ kind: "none" });
        expect(showVolume(disk.device)).toEqual({ target: disk.device, lower: "device", type, clustered: false });
        expect(await rootAttribute(disk, type)).toBeNull();
        checkFileSystem(type, disk.device);
      });
    });

    test(`${type}: one that is mounted is refused, and where is named`, { timeout: TIMEOUT_MS }, async () => {
      await withDisk(type, async (disk) => {
        run("mount", disk.device, disk.mountPoint);
        const error = await refusal(enableVolume(disk.device, bit));
        expect(error.code).toBe("device-busy");
        expect(error.message).toContain(disk.mountPoint);
        run("umount", disk.mountPoint);
        await enableVolume(disk.device, bit);
      });
    });

    test(`${type}: a file system that was not unmounted is refused`, { timeout: TIMEOUT_MS }, async () => {
      await withDisk(type, async (disk) => {
        run("mount", disk.device, disk.mountPoint);
        writeFileSync(path.join(disk.mountPoint, "file"), "x");
        run("sync", "-f", disk.mountPoint);
        // As a crash would leave it: a copy of the disk while it is mounted.
        const copy = path.join(disk.dir, "crashed");
        run("cp", "--sparse=always", disk.image, copy);
        run("umount", disk.mountPoint);
        const crashed = attachLoop(copy);
        try {
          const error = await refusal(enableVolume(crashed, bit));
          expect(error.code).toBe("dirty");
          expect(error.hint).toMatch(/fsck|mount it once/);
          run("mount", ...(type === "xfs" ? ["-o", "nouuid"] : []), crashed, disk.mountPoint);
          run("umount", disk.mountPoint);
          await enableVolume(crashed, bit);
        } finally {
          run("losetup", "--detach", crashed);
        }
      });
    });

    test(`${type}: a node that has mounted since a command looked keeps its volume, and all that it writes`, {
      timeout: TIMEOUT_MS,
    }, async () => {
      await withDisk(type, async (disk) => {
        const other = attachLoop(disk.image);
        const mounted: LowerMount[] = [];
        const mounts = async (): Promise<void> => {
          mounted.push(await takeLower(other));
          writeFileSync(`/proc/self/fd/${mounted[0]?.rootFd}/written`, "kept");
        };
        const refusedThen = async (change: (work: BitWork) => Promise<unknown>, begin: () => Promise<void>): Promise<void> => {
          const { code, exitStatus } = await refusal(change({ say: () => undefined, begin }));
          expect([exitStatus, code]).toEqual([32, expect.stringMatching(/^(changed-meanwhile|dirty)$/)]);
          await mounted.pop()?.release();
          checkFileSystem(type, other);
        };
        try {
          await refusedThen(
            (work) => enableVolume(disk.device, { ...bit, cluster: "second" }, work),
            async () => {
              await enableVolume(other, bit);
              await mounts();
            },
          );
          await refusedThen((work) => disableVolume(disk.device, work), mounts);
          // It has let go by now, and the disk is clean.
          await refusedThen(
            (work) => disableVolume(disk.device, work),
            async () => {
              await mounts();
              await mounted.pop()?.release();
            },
          );
          run("mount", other, disk.mountPoint);
          expect(readFileSync(path.join(disk.mountPoint, "written"), "utf8")).toBe("kept");
          run("umount", disk.mountPoint);
        } finally {
          run("losetup", "--detach", other);
        }
      });
    });

    test(`${type}: one whose end is missing is refused, with both sizes`, { timeout: TIMEOUT_MS }, async () => {
      await withDisk(type, async (disk) => {
        await enableVolume(disk.device, bit);
        const bytes = statSync(disk.image).size;
        run("losetup", "--detach", disk.device);
        truncateSync(disk.image, bytes - 8192);
        const short = attachLoop(disk.image);
        for (const work of [
          () => showVolume(short),
          disableVolume(short),
          mountLower({ kind: "device", path: short }, anyPlace(bit), false, 0, nobody),
        ]) {
          const error = await refusal(work);
          expect([error.code, error.exitStatus]).toEqual(["device-short", 32]);
          expect(error.message).toContain(`${bytes - 8192} bytes; its ${type} file system has ${bytes}`);
        }
      });
    });

    test(`${type}: M4, a stale page cache is not believed`, { timeout: TIMEOUT_MS }, async () => {
      await withDisk(type, async (disk) => {
        await enableVolume(disk.device, bit);
        // A buffered reader keeps all of the device in its page cache, while the disk changes on another path.
        const reader = openSync(disk.device, "r");
        const other = attachLoop(disk.image);
        try {
          const chunk = Buffer.alloc(1 << 20);
          let before = Buffer.alloc(0);
          for (let at = 0; at < 64 << 20; at += chunk.length) {
            const got = readSync(reader, chunk, 0, chunk.length, at);
            const found = chunk.subarray(0, got).indexOf("coverlay-2;");
            if (found >= 0) before = Buffer.concat([before, chunk.subarray(found, found + 11)]);
          }
          expect(before.toString()).toContain("coverlay-2;");
          await disableVolume(other);
          expect(probeDevice(disk.device).bit).toEqual({ kind: "none" });
          await enableVolume(other, { ...bit, cluster: "second" });
          expect(probeDevice(disk.device).bit).toMatchObject({ kind: "set", bit: { ...bit, cluster: "second" } });
        } finally {
          closeSync(reader);
          run("losetup", "--detach", other);
        }
      });
    });

    test(`${type}: a damaged bit is told, refused, and can be cleared`, { timeout: TIMEOUT_MS }, async () => {
      await withDisk(type, async (disk) => {
        const mount = await mountDetached(disk.device, type, [], 0);
        setAttribute(mount.rootFd, BIT_XATTR, Buffer.from('coverlay-1;cluster=\xff\0\n"demo', "latin1"), disk.device);
        await releaseDetached(mount, disk.device);
        const report = showVolume(disk.device);
        expect(report.clustered).toBe(true);
        expect(report.problem).toContain("damaged");
        expect((await refusal(enableVolume(disk.device, bit))).code).toBe("bad-bit");
        expect(await disableVolume(disk.device)).toBe(true);
        await enableVolume(disk.device, bit);
        expect(showVolume(disk.device).uuid).toBe(bit.uuid);
      });
    });

    test(`${type}: the lower: epoch rises, the bit is checked again, release is proved`, { timeout: TIMEOUT_MS }, async () => {
      await withDisk(type, async (disk) => {
        await enableVolume(disk.device, bit);
        const first = await takeLower(disk.device);
        expect([first.epoch, first.type]).toEqual([1, type]);
        expect(tryExclusive(disk.device)).toBe("busy");
        expect((await refusal(takeLower(disk.device))).code).toMatch(/device-busy|mount-failed/);
        await first.release();
        expect(tryExclusive(disk.device)).toBe("free");
        const second = await takeLower(disk.device, { epochAbove: 7 });
        expect(second.epoch).toBe(8);
        await second.release();
        const third = await takeLower(disk.device, { readOnly: true });
        expect([third.epoch, third.readOnly]).toEqual([9, true]);
        await third.release();
        // R13: what the mount itself says counts, whatever was read before.
        const wrong = await refusal(takeLower(disk.device, { bit: { ...bit, cluster: "other" } }));
        expect(wrong.code).toBe("other-bit");
        expect(tryExclusive(disk.device)).toBe("free");
        run("blockdev", "--setro", disk.device);
        expect((await refusal(takeLower(disk.device))).code).toBe("device-read-only");
        expect((await refusal(disableVolume(disk.device))).code).toBe("device-read-only");
        run("blockdev", "--setrw", disk.device);
        checkFileSystem(type, disk.device);
        await disableVolume(disk.device);
        expect(await rootAttribute(disk, type)).toBeNull();
      });
    });
  }

  test("xfs: a bit among many attributes is read through a mount that writes nothing", { timeout: TIMEOUT_MS }, async () => {
    await withDisk("xfs", async (disk) => {
      await enableVolume(disk.device, bit);
      const mount = await mountDetached(disk.device, "xfs", [], 0);
      for (let n = 0; n < 8; n++) setAttribute(mount.rootFd, `trusted.many${n}`, Buffer.alloc(200, "x"), disk.device);
      await releaseDetached(mount, disk.device);
      expect(probeDevice(disk.device).bit).toMatchObject({ kind: "set", bit });
      await disableVolume(disk.device);
      expect(probeDevice(disk.device).bit).toEqual({ kind: "none" });
    });
  });

  test("C2: one that is mounted only in another mount namespace is refused", { timeout: TIMEOUT_MS }, async () => {
    await withDisk("ext4", async (disk) => {
      const script = `mount ${disk.device} ${disk.mountPoint} && echo mounted && exec cat`;
      const holder: ChildProcess = spawn("unshare", ["-m", "--propagation", "private", "sh", "-c", script], {
        stdio: ["pipe", "pipe", "inherit"],
      });
      try {
        const [line] = (await once(holder.stdout as NodeJS.ReadableStream, "data")) as [Buffer];
        expect(line.toString()).toBe("mounted\n");
        const error = await refusal(enableVolume(disk.device, bit));
        expect(error.code).toBe("device-busy");
        expect(error.message).toContain(`process ${holder.pid}`);
      } finally {
        holder.stdin?.end();
        await once(holder, "exit");
      }
      await enableVolume(disk.device, bit);
    });
  });

  test("what is no volume is refused with words of its own", { timeout: TIMEOUT_MS }, async () => {
    await withDisk("none", async (disk) => {
      expect((await refusal(enableVolume(disk.device, bit))).code).toBe("unknown-fs");
      const image = await refusal(enableVolume(disk.image, bit));
      expect(image.code).toBe("image-file");
      expect(image.hint).toContain("losetup");
      expect((await refusal(enableVolume("/dev/null", bit))).code).toBe("not-a-device");
      expect((await refusal(enableVolume(path.join(disk.dir, "nothing"), bit))).code).toBe("device-missing");
      const fd = openSync(disk.device, "r+");
      const magic = Buffer.alloc(4);
      magic.writeUInt32LE(0x19540119);
      writeSync(fd, magic, 0, 4, 65536 + 1372);
      closeSync(fd);
      const ufs = await refusal(enableVolume(disk.device, bit));
      expect([ufs.code, ufs.message]).toEqual(["ufs", expect.stringContaining("UFS2")]);
    });
  });

  test("another cluster's volume is not taken over", { timeout: TIMEOUT_MS }, async () => {
    await withDisk("ext4", async (disk) => {
      await enableVolume(disk.device, bit);
      const error = await refusal(enableVolume(disk.device, { ...bit, cluster: "mine" }));
      expect(error.code).toBe("other-bit");
      expect(error.message).toContain("cluster demo");
    });
  });

  test("a directory carries the bit too", { timeout: TIMEOUT_MS }, async () => {
    const dir = mkdtempSync(path.join(os.tmpdir(), "coverlay-bit-"));
    execFileSync("mount", ["-t", "tmpfs", "coverlay-bit", dir]);
    try {
      expect(showVolume(dir).clustered).toBe(false);
      await enableVolume(dir, bit);
      expect(showVolume(dir)).toEqual({ target: dir, lower: "directory", type: "directory", clustered: true, ...bit });
      const lower = await mountLower({ kind: "directory", path: dir }, anyPlace(bit), false, 0, nobody);
      expect(lower.epoch).toBe(1);
      await lower.release();
      // A file of a mount that is there still.
      mkdirSync(path.join(dir, ".coverlay.orphans"));
      writeFileSync(path.join(dir, ".coverlay.orphans", "12.1"), "open");
      expect(await disableVolume(dir)).toBe(true);
      expect(showVolume(dir).clustered).toBe(false);
      expect(readdirSync(path.join(dir, ".coverlay.orphans"))).toEqual(["12.1"]);
      rmSync(path.join(dir, ".coverlay.orphans", "12.1"));
      await disableVolume(dir);
      expect(readdirSync(dir)).toEqual([]);
    } finally {
      execFileSync("umount", [dir]);
      rmSync(dir, { recursive: true });
    }
  });

  test("a directory inside of another volume is refused, as it is and bound to a place of its own", async () => {
    const dir = mkdtempSync(path.join(os.tmpdir(), "coverlay-bit-"));
    execFileSync("mount", ["-t", "tmpfs", "coverlay-bit", dir]);
    const [inside, bound] = [path.join(dir, "inside"), path.join(dir, "bound")];
    const mounts = [dir];
    try {
      for (const made of [inside, bound]) mkdirSync(made);
      // What a copy with its attributes has.
      await enableVolume(dir, bit);
      const fds = [openSync(dir, "r"), openSync(inside, "r")] as const;
      for (const name of [BIT_XATTR, PLACE_XATTR]) setAttribute(fds[1], name, getAttribute(fds[0], name, dir) ?? Buffer.alloc(0), inside);
      for (const fd of fds) closeSync(fd);
      execFileSync("mount", ["--bind", inside, bound]);
      mounts.push(bound);
      expect(readFileSync("/proc/self/mountinfo", "utf8")).toContain(` /inside ${bound} `);
      for (const [place, enabled, mounted] of [
        [inside, "nested-volume", "copied-directory"],
        [bound, "not-a-root", "not-a-root"],
      ] as const) {
        expect(await refusal(enableVolume(place, bit))).toMatchObject({ code: enabled, exitStatus: 32 });
        expect(await refusal(mountLower({ kind: "directory", path: place }, anyPlace(bit), false, 0, nobody))).toMatchObject({
          code: mounted,
        });
      }
      const lower = await mountLower({ kind: "directory", path: dir }, anyPlace(bit), false, 0, nobody);
      await lower.release();
    } finally {
      for (const mount of mounts.toReversed()) execFileSync("umount", [mount]);
      rmSync(dir, { recursive: true });
    }
  });
});

/** Loop devices, detached mounts, and what a fence does to them; small calls about the process. */
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { closeSync, ftruncateSync, mkdirSync, openSync, readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { bytes, errno, isRoot, native, newHandle, newStat, opened, type Scratch, useScratch } from "./scratch.ts";

const O_RDWR = 2;
const O_EXCL = 0o200;
const MS_RDONLY = 1;
const MOUNT_ATTR_NOATIME = 0x10;
const IMAGE_BYTES = 64 * 1024 * 1024;
/** No file is so long. */
const BEYOND = 2 ** 62;

interface Disk {
  readonly path: string;
  readonly fd: number;
}

function attach(scratch: Scratch, image: string, readOnly = false): Disk {
  const imageFd = opened(scratch, native.open(image, O_RDWR, 0));
  const number = native.loopAttach(imageFd, true, readOnly, 0);
  if (number < 0) throw new Error(`loopAttach: errno ${-number}`);
  const disk = { path: `/dev/loop${number}`, fd: native.open(`/dev/loop${number}`, readOnly ? 0 : O_RDWR, 0) };
  scratch.later(() => {
    native.loopDetach(disk.fd);
    native.sync.close(disk.fd);
  });
  return disk;
}

function ext4Image(scratch: Scratch): string {
  const image = path.join(scratch.dir, "image");
  const fd = openSync(image, "w");
  ftruncateSync(fd, IMAGE_BYTES);
  closeSync(fd);
  execFileSync("mkfs.ext4", ["-q", "-F", image]);
  return image;
}

function loopAttribute(disk: Disk, name: string): string {
  return readFileSync(`/sys/block/${path.basename(disk.path)}/loop/${name}`, "utf8").trim();
}

describe.runIf(isRoot)("disks and mounts", () => {
  const scratch = useScratch();

  it("attaches an image as asked, gives its size, and lets it go", () => {
    const image = ext4Image(scratch);
    const disk = attach(scratch, image);
    expect(loopAttribute(disk, "backing_file")).toBe(image);
    expect(native.blockDeviceBytes(disk.fd)).toBe(IMAGE_BYTES);
    expect(readFileSync(`/sys/block/${path.basename(disk.path)}/ro`, "utf8")).toBe("0\n");
    const second = attach(scratch, image, true);
    expect(second.path).not.toBe(disk.path);
    expect(readFileSync(`/sys/block/${path.basename(second.path)}/ro`, "utf8")).toBe("1\n");
    const imageFd = opened(scratch, native.open(image, O_RDWR, 0));
    const wide = native.loopAttach(imageFd, false, false, 4096);
    const wideFd = opened(scratch, native.open(`/dev/loop${wide}`, O_RDWR, 0));
    scratch.later(() => native.loopDetach(wideFd));
    expect(readFileSync(`/sys/block/loop${wide}/queue/logical_block_size`, "utf8")).toBe("4096\n");
    expect(native.loopDetach(wideFd)).toBe(0);
  });

  it("says what is wrong with a loop device", () => {
    expect(native.loopAttach(-1, false, false, 0)).toBe(-errno.EBADF);
    expect(native.loopDetach(scratch.fd)).toBe(-errno.ENOTTY);
    expect(native.loopSetWindow(scratch.fd, 0, 0)).toBe(-errno.ENOTTY);
    expect(native.loopSetWindow(scratch.fd, 0, -1)).toBe(-errno.EINVAL);
    expect(native.loopSetWindow(scratch.fd, -1, 0)).toBe(-errno.EINVAL);
    expect(native.blockDeviceBytes(scratch.fd)).toBe(-errno.ENOTTY);
    const plain = opened(scratch, native.sync.create(scratch.fd, bytes("f"), O_RDWR, 0o600, 0, 0, 0, newStat(), newHandle()));
    expect(native.blockDeviceBytes(plain)).toBe(-errno.ENOTTY);
  });

  it("mounts in no namespace, and closing the descriptor ends it (hazard C2)", () => {
    const disk = attach(scratch, ext4Image(scratch));
    const log: string[] = [];
    const mount = native.mountDetached("ext4", disk.path, ["rw", "errors=remount-ro"], MOUNT_ATTR_NOATIME, log);
    expect([mount > 0, log]).toEqual([true, []]);
    expect(readFileSync("/proc/self/mountinfo", "utf8")).not.toContain(disk.path);
    const fd = native.sync.create(mount, bytes("f"), O_RDWR, 0o600, 0, 5, 6, newStat(), newHandle());
    expect(native.sync.write(fd, bytes("hello"), 0, 5, 0, 0)).toBe(5);
    expect(native.sync.fsync(fd, false)).toBe(0);
    // A holder of the device refuses an exclusive open.
    expect(native.open(disk.path, O_RDWR | O_EXCL, 0)).toBe(-errno.EBUSY);
    native.sync.close(fd);
    native.sync.close(mount);
    opened(scratch, native.open(disk.path, O_RDWR | O_EXCL, 0));
  });

  it("R17: a mount namespace that is made while it is mounted gets no copy, and does not keep it alive", async () => {
    const disk = attach(scratch, ext4Image(scratch));
    const mount = native.mountDetached("ext4", disk.path, [], 0, []);
    const script = "echo made; exec cat";
    const holder = spawn("unshare", ["-m", "--propagation", "private", "sh", "-c", script], { stdio: ["pipe", "pipe", "inherit"] });
    try {
      await once(holder.stdout, "data");
      expect(readFileSync(`/proc/${holder.pid}/mountinfo`, "utf8")).not.toContain(disk.path);
      native.sync.close(mount);
      opened(scratch, native.open(disk.path, O_RDWR | O_EXCL, 0));
    } finally {
      holder.stdin.end();
      await once(holder, "exit");
    }
  });

  it("gives the kernel's words when a mount is refused", () => {
    const disk = attach(scratch, ext4Image(scratch));
    const log = ["kept"];
    expect(native.mountDetached("ext4", disk.path, ["ro", "no_such_option=1"], 0, log)).toBe(-errno.EINVAL);
    expect(log[0]).toBe("kept");
    expect(log[1]).toMatch(/^e .*no_such_option/);
    expect(native.mountDetached("no-such-type", disk.path, [], 0, log)).toBe(-errno.ENODEV);
    expect(native.mountDetached("ext4", path.join(scratch.dir, "none"), [], 0, log)).toBe(-errno.ENOENT);
  });

  it("mounts on a thread of the pool too, with the same words", async () => {
    const disk = attach(scratch, ext4Image(scratch));
    const log = ["kept"];
    expect(await native.mountDetachedInPool("ext4", disk.path, ["ro", "no_such_option=1"], 0, log)).toBe(-errno.EINVAL);
    expect([log[0], log[1]]).toEqual(["kept", expect.stringMatching(/^e .*no_such_option/)]);
    const mount = await native.mountDetachedInPool("ext4", disk.path, [], 0, log);
    expect([mount > 0, log.length]).toEqual([true, 2]);
    await native.pool.sync.close(mount);
    opened(scratch, native.open(disk.path, O_RDWR | O_EXCL, 0));
  });

  it("a disk that is cut off keeps nothing any more", () => {
    const disk = attach(scratch, ext4Image(scratch));
    const mount = native.mountDetached("ext4", disk.path, [], 0, []);
    scratch.later(() => native.sync.close(mount));
    const fd = native.sync.create(mount, bytes("f"), O_RDWR, 0o600, 0, 0, 0, newStat(), newHandle());
    scratch.later(() => native.sync.close(fd));
    expect(native.sync.write(fd, bytes("kept"), 0, 4, 0, 0)).toBe(4);
    expect(native.sync.fsync(fd, false)).toBe(0);
    expect(native.loopSetWindow(disk.fd, BEYOND, 512)).toBe(0);
    expect(native.blockDeviceBytes(disk.fd)).toBe(0);
    native.sync.write(fd, bytes("lost"), 0, 4, 0, 0);
    expect([-errno.EIO, -errno.ENOSPC, -errno.EROFS]).toContain(native.sync.fsync(fd, false));
  });

  it("mounts and unmounts by path", () => {
    const target = path.join(scratch.dir, "t");
    mkdirSync(target);
    expect(native.mount("none", target, "tmpfs", MS_RDONLY, "size=64k")).toBe(0);
    scratch.later(() => native.umount(target, 0));
    expect(readFileSync("/proc/self/mountinfo", "utf8")).toContain(`${target} ro`);
    expect(native.umount(target, 0)).toBe(0);
    expect(native.umount(target, 0)).toBe(-errno.EINVAL);
    expect(native.mount("none", target, "no-such-type", 0, "")).toBe(-errno.ENODEV);
    expect(native.open(path.join(target, "none"), 0, 0)).toBe(-errno.ENOENT);
  });
});

describe.runIf(isRoot)("the process", () => {
  it("raises its limit of descriptors, and never lowers the hard one", () => {
    const script = `const n = require(process.argv[1]); const fs = require("fs");
      const line = () => fs.readFileSync("/proc/self/limits", "utf8").match(/Max open files +(\\S+) +(\\S+)/).slice(1, 3).map(Number);
      const hard = line()[1]; const results = [n.setMaxDescriptors(500), n.setMaxDescriptors(0), n.setMaxDescriptors(2 ** 60)];
      console.log(JSON.stringify([results, line()[1] >= hard, line()[0] === results[2]]));
      console.log(JSON.stringify([n.setIoFlusher(), n.unshareFs()]));`;
    const addon = path.join(import.meta.dirname, "../../../native/build/Release/coverlay.node");
    const [limits, rest] = execFileSync(process.execPath, ["-e", script, addon], { encoding: "utf8" }).split("\n");
    const [results, kept, reached] = JSON.parse(limits ?? "") as [number[], boolean, boolean];
    expect(results.slice(0, 2)).toEqual([500, -errno.EINVAL]);
    expect([kept, reached]).toEqual([true, true]);
    // PR_SET_IO_FLUSHER asks for CAP_SYS_RESOURCE, which a container may lack.
    const effective = BigInt(`0x${/CapEff:\s*(\S+)/.exec(readFileSync("/proc/self/status", "utf8"))?.[1] ?? "0"}`);
    const mayFlush = (effective & (1n << 24n)) !== 0n;
    expect(JSON.parse(rest ?? "")).toEqual([mayFlush ? 0 : -errno.EPERM, 0]);
  });

  it("becomes another program, which has the same number and its standard streams, and no other descriptor", () => {
    const script = `const n = require(process.argv[1]); const fs = require("fs");
      fs.openSync("/etc/hostname", "r");
      const words = (...all) => Buffer.from(all.map((word) => word + "\\0").join(""));
      const results = [n.exec("/no/such/program", words("x"), words("A=b"))];
      try { n.exec("/bin/sh", Buffer.from("no end"), words("A=b")); } catch (error) { results.push(error.code ?? error.name); }
      console.log(JSON.stringify([process.pid, results]));
      n.exec("/bin/sh", words("sh", "-c", "echo $$ $NAMED; ls /proc/self/fd; cat; echo told >&2"), words("NAMED=a word", "PATH=/usr/bin:/bin"));`;
    const addon = path.join(import.meta.dirname, "../../../native/build/Release/coverlay.node");
    const { stdout, stderr } = spawnSync(process.execPath, ["-e", script, addon], { encoding: "utf8", input: "from its input\n" });
    const [first, ...rest] = stdout.trimEnd().split("\n");
    const [pid, results] = JSON.parse(first ?? "") as [number, unknown[]];
    expect(results).toEqual([-errno.ENOENT, "ERR_OUT_OF_RANGE"]);
    // 3 is what ls looks through.
    expect([rest, stderr]).toEqual([[`${pid} a word`, "0", "1", "2", "3", "from its input"], "told\n"]);
  });

  it("knows its kernel", () => {
    const [major, minor] = native.kernelVersion();
    expect(readFileSync("/proc/sys/kernel/osrelease", "utf8").startsWith(`${major}.${minor}.`)).toBe(true);
  });
});

/** Creating calls as another user: owner, umask, hazard F15, and that the thread is itself again afterwards. */
import { chmodSync, chownSync, lstatSync, mkdirSync, readFileSync, readlinkSync, statSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { bytes, errno, isRoot, native, newHandle, newStat, O_PATH, opened, type Scratch, useScratch } from "./scratch.ts";

const O_WRONLY = 1;
const S_IFIFO = 0o010000;
const S_IFCHR = 0o020000;
const UID = 4711;
const GID = 4712;
/** A group of the caller's that setfsuid knows nothing of. */
const SUPPLEMENTARY_GID = 4713;

function groupDirectory(scratch: Scratch): number {
  const dir = path.join(scratch.dir, "group");
  mkdirSync(dir);
  chownSync(dir, 0, SUPPLEMENTARY_GID);
  chmodSync(dir, 0o770);
  return opened(scratch, native.sync.openat2(scratch.fd, bytes("group"), O_PATH, 0, 0));
}

function identity(): string {
  const lines = readFileSync("/proc/thread-self/status", "utf8").split("\n");
  return lines.filter((line) => /^(Uid|Gid|CapEff|CapPrm|Umask):/.test(line)).join("\n");
}

describe.runIf(isRoot)("creating calls", () => {
  const scratch = useScratch();
  const { sync, pool } = native;

  for (const [name, calls] of [
    ["sync", sync],
    ["pool", pool.metadata],
  ] as const) {
    it(`make files of the caller in a directory of its supplementary group, ${name} (hazard F15)`, async () => {
      const group = groupDirectory(scratch);
      const before = identity();
      const fd = await calls.create(group, bytes("f"), O_WRONLY, 0o666, 0o027, UID, GID, newStat(), newHandle());
      opened(scratch, fd);
      expect(await calls.mkdir(group, bytes("d"), 0o777, 0o027, UID, GID)).toBe(0);
      expect(await calls.mknod(group, bytes("p"), S_IFIFO | 0o666, 0o002, 0, 0, UID, GID)).toBe(0);
      expect(await calls.mknod(group, bytes("c"), S_IFCHR | 0o600, 0, 1, 3, UID, GID)).toBe(0);
      expect(await calls.symlink(bytes("to"), group, bytes("s"), UID, GID)).toBe(0);

      const made = ["f", "d", "p", "c", "s"].map((entry) => lstatSync(path.join(scratch.dir, "group", entry)));
      expect(made.map((stat) => [stat.uid, stat.gid])).toEqual(Array.from({ length: 5 }, () => [UID, GID]));
      expect(made.map((stat) => stat.mode)).toEqual([0o100640, 0o040750, 0o010664, 0o020600, 0o120777]);
      expect(made[3]?.rdev).toBe((1 << 8) | 3);
      expect(readlinkSync(path.join(scratch.dir, "group", "s"))).toBe("to");
      expect(identity()).toBe(before);
    });
  }

  it("leave the thread as root with all that it had, after an error too", () => {
    const before = identity();
    expect(sync.create(-1, bytes("f"), O_WRONLY, 0o666, 0, UID, GID, newStat(), newHandle())).toBe(-errno.EBADF);
    expect(sync.mkdir(-1, bytes("d"), 0o777, 0, UID, GID)).toBe(-errno.EBADF);
    expect(sync.mknod(-1, bytes("p"), S_IFIFO | 0o666, 0, 0, 0, UID, GID)).toBe(-errno.EBADF);
    expect(sync.symlink(bytes("to"), -1, bytes("s"), UID, GID)).toBe(-errno.EBADF);
    expect(identity()).toBe(before);
    // CAP_CHOWN and CAP_FOWNER were gone meanwhile.
    const fd = opened(scratch, sync.create(scratch.fd, bytes("f"), O_WRONLY, 0o600, 0, UID, GID, newStat(), newHandle()));
    expect(sync.chown(fd, 1, 1)).toBe(0);
  });

  it("describe the file that they made, as a lookup of its name does", () => {
    const [made, handle] = [newStat(), newHandle()];
    opened(scratch, sync.create(scratch.fd, bytes("described"), O_WRONLY, 0o640, 0, 0, 0, made, handle));
    const [looked, found] = [newStat(), newHandle()];
    expect(sync.lookup(scratch.fd, bytes("described"), false, looked, found)).toBe(0);
    expect(made).toEqual(looked);
    expect(handle).toEqual(found);
    const [named, missing] = [newStat(), newStat()];
    expect(sync.statName(scratch.fd, bytes("described"), named)).toBe(0);
    expect(named).toEqual(looked);
    expect(sync.statName(scratch.fd, bytes("nothing"), missing)).toBe(-errno.ENOENT);
  });

  it("act as a group alone, and as root", () => {
    opened(scratch, sync.create(scratch.fd, bytes("g"), O_WRONLY, 0o666, 0o077, 0, GID, newStat(), newHandle()));
    opened(scratch, sync.create(scratch.fd, bytes("r"), O_WRONLY, 0o666, 0, 0, 0, newStat(), newHandle()));
    const stats = ["g", "r"].map((entry) => statSync(path.join(scratch.dir, entry)));
    expect(stats.map((stat) => [stat.uid, stat.gid, stat.mode])).toEqual([
      [0, GID, 0o100600],
      [0, 0, 0o100666],
    ]);
  });

  it("refuse an id that is none instead of making a file of root's", () => {
    expect(sync.mkdir(scratch.fd, bytes("d"), 0o777, 0, 0xffffffff, 0)).toBe(-errno.EPERM);
    expect(sync.mkdir(scratch.fd, bytes("d"), 0o777, 0, 0, -1)).toBe(-errno.EPERM);
    expect(() => statSync(path.join(scratch.dir, "d"))).toThrow("ENOENT");
  });

  it("are exclusive", () => {
    opened(scratch, sync.create(scratch.fd, bytes("f"), O_WRONLY, 0o666, 0, 0, 0, newStat(), newHandle()));
    expect(sync.create(scratch.fd, bytes("f"), O_WRONLY, 0o666, 0, 0, 0, newStat(), newHandle())).toBe(-errno.EEXIST);
    expect(sync.mkdir(scratch.fd, bytes("f"), 0o777, 0, 0, 0)).toBe(-errno.EEXIST);
    expect(sync.mknod(scratch.fd, bytes("f"), S_IFIFO, 0, 0, 0, 0, 0)).toBe(-errno.EEXIST);
    expect(sync.symlink(bytes("to"), scratch.fd, bytes("f"), 0, 0)).toBe(-errno.EEXIST);
  });
});

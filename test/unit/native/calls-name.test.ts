/** Names, attributes and extended attributes: each call once with success, once with an error; and what a name may be. */
import { existsSync, mkdirSync, readdirSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { STAT } from "../../../native/index.ts";
import { AT_REMOVEDIR, bytes, errno, field, isRoot, native, newHandle, newStat, O_PATH, opened, useScratch } from "./scratch.ts";

const RENAME_NOREPLACE = 1;
const RENAME_EXCHANGE = 2;
const XATTR_CREATE = 1;
const UTIME_OMIT = 0x3ffffffe;

describe.runIf(isRoot)("calls on names and attributes", () => {
  const scratch = useScratch();
  const { sync } = native;
  const at = (name: string): string => path.join(scratch.dir, name);
  const openPath = (name: string): number => opened(scratch, sync.openat2(scratch.fd, bytes(name), O_PATH | 0o400000, 0, 0));

  it("unlinks files and directories", () => {
    writeFileSync(at("f"), "");
    mkdirSync(at("d"));
    expect(sync.unlink(scratch.fd, bytes("f"), 0)).toBe(0);
    expect(sync.unlink(scratch.fd, bytes("d"), 0)).toBe(-errno.EISDIR);
    expect(sync.unlink(scratch.fd, bytes("d"), AT_REMOVEDIR)).toBe(0);
    expect(sync.unlink(scratch.fd, bytes("d"), AT_REMOVEDIR)).toBe(-errno.ENOENT);
    expect(readdirSync(scratch.dir)).toEqual([]);
  });

  it("renames, exchanges, and does not replace", () => {
    writeFileSync(at("a"), "a");
    writeFileSync(at("b"), "bb");
    mkdirSync(at("d"));
    const d = openPath("d");
    expect(sync.rename(scratch.fd, bytes("a"), scratch.fd, bytes("b"), RENAME_NOREPLACE)).toBe(-errno.EEXIST);
    expect(sync.rename(scratch.fd, bytes("a"), scratch.fd, bytes("b"), RENAME_EXCHANGE)).toBe(0);
    expect(statSync(at("a")).size).toBe(2);
    expect(sync.rename(scratch.fd, bytes("a"), d, bytes("c"), 0)).toBe(0);
    expect(statSync(at("d/c")).size).toBe(2);
    expect(sync.rename(scratch.fd, bytes("a"), d, bytes("c"), 0)).toBe(-errno.ENOENT);
  });

  it("links what a descriptor names", () => {
    writeFileSync(at("a"), "a");
    const fd = openPath("a");
    expect(sync.link(fd, scratch.fd, bytes("b"))).toBe(0);
    expect(statSync(at("b")).ino).toBe(statSync(at("a")).ino);
    expect(sync.link(fd, scratch.fd, bytes("b"))).toBe(-errno.EEXIST);
  });

  it("changes mode, owner and times through an O_PATH descriptor", () => {
    writeFileSync(at("a"), "a");
    const fd = openPath("a");
    expect(sync.chmod(fd, 0o604)).toBe(0);
    expect(sync.chown(fd, 12, 34)).toBe(0);
    expect(sync.chown(fd, -1, 35)).toBe(0);
    expect(sync.utimens(fd, 4_000_000_000, 5, -7, 999_999_999)).toBe(0);
    const stat = newStat();
    expect(sync.stat(fd, stat)).toBe(0);
    expect([STAT.MODE, STAT.UID, STAT.GID].map((index) => field(stat, index))).toEqual([0o100604, 12, 35]);
    const times = [STAT.ATIME_SEC, STAT.ATIME_NSEC, STAT.MTIME_SEC, STAT.MTIME_NSEC];
    expect(times.map((index) => field(stat, index))).toEqual([4_000_000_000, 5, -7, 999_999_999]);
    expect(sync.utimens(fd, 0, UTIME_OMIT, 8, 9)).toBe(0);
    expect(sync.stat(fd, stat)).toBe(0);
    expect(times.map((index) => field(stat, index))).toEqual([4_000_000_000, 5, 8, 9]);
  });

  it("says what was wrong with mode, owner and times", () => {
    expect(sync.chmod(-1, 0o600)).toBe(-errno.EBADF);
    expect(sync.chown(-1, 0, 0)).toBe(-errno.EBADF);
    expect(sync.utimens(-1, 0, 0, 0, 0)).toBe(-errno.EBADF);
    expect(sync.utimens(scratch.fd, 0, 2_000_000_000, 0, 0)).toBe(-errno.EINVAL);
  });

  it("changes the times of a symlink itself", () => {
    symlinkSync("nowhere", at("s"));
    const fd = openPath("s");
    expect(sync.utimens(fd, 1, 0, 2, 0)).toBe(0);
    const stat = newStat();
    sync.stat(fd, stat);
    expect(field(stat, STAT.MTIME_SEC)).toBe(2);
  });

  it("keeps extended attributes", () => {
    writeFileSync(at("a"), "a");
    const fd = openPath("a");
    const name = bytes("trusted.clustered");
    expect(sync.setxattr(fd, name, bytes("value"), XATTR_CREATE)).toBe(0);
    expect(sync.setxattr(fd, name, bytes("value"), XATTR_CREATE)).toBe(-errno.EEXIST);
    expect(sync.getxattr(fd, name, Buffer.alloc(0))).toBe(5);
    const value = Buffer.alloc(16);
    expect(sync.getxattr(fd, name, value)).toBe(5);
    expect(value.toString("utf8", 0, 5)).toBe("value");
    expect(sync.getxattr(fd, name, Buffer.alloc(2))).toBe(-errno.ERANGE);
    const list = Buffer.alloc(256);
    expect(list.toString("utf8", 0, sync.listxattr(fd, list)).split("\0")).toContain("trusted.clustered");
    expect(sync.listxattr(-1, list)).toBe(-errno.EBADF);
    expect(sync.removexattr(fd, name)).toBe(0);
    expect(sync.removexattr(fd, name)).toBe(-errno.ENODATA);
    expect(sync.getxattr(fd, name, value)).toBe(-errno.ENODATA);
    expect(sync.setxattr(fd, bytes("x".repeat(256)), value, 0)).toBe(-errno.ERANGE);
  });

  it("takes names of 255 bytes, says ENAMETOOLONG for 256 and for paths over 4095", () => {
    const longest = bytes("n".repeat(255));
    expect(sync.mkdir(scratch.fd, longest, 0o700, 0, 0, 0)).toBe(0);
    expect(existsSync(at("n".repeat(255)))).toBe(true);
    expect(sync.mkdir(scratch.fd, bytes("n".repeat(256)), 0o700, 0, 0, 0)).toBe(-errno.ENAMETOOLONG);
    const target = bytes("t/".repeat(2047));
    expect(sync.symlink(target, scratch.fd, bytes("ok"), 0, 0)).toBe(0);
    const read = Buffer.alloc(4096);
    expect(sync.readlink(openPath("ok"), read)).toBe(4094);
    expect(read.subarray(0, 4094)).toEqual(target);
    expect(sync.symlink(Buffer.alloc(4096, 0x74), scratch.fd, bytes("no"), 0, 0)).toBe(-errno.ENAMETOOLONG);
    expect(sync.openat2(scratch.fd, Buffer.alloc(70_000, 0x74), 0, 0, 0)).toBe(-errno.ENAMETOOLONG);
  });

  it("takes names that are not UTF-8, in both ways of calling, and none with a NUL", async () => {
    const name = Buffer.from([0xff, 0xfe, 0x80, 0x41]);
    const other = Buffer.from([0xc3, 0x28]);
    expect(sync.mkdir(scratch.fd, name, 0o700, 0, 0, 0)).toBe(0);
    expect(await native.pool.metadata.rename(scratch.fd, name, scratch.fd, other, 0)).toBe(0);
    expect(readdirSync(scratch.dir, { encoding: "buffer" })).toEqual([other]);
    expect(sync.lookup(scratch.fd, other, false, newStat(), newHandle())).toBe(0);
    expect(sync.unlink(scratch.fd, Buffer.from([0xc3, 0x28, 0, 0x41]), AT_REMOVEDIR)).toBe(-errno.EINVAL);
    expect(sync.unlink(scratch.fd, Buffer.alloc(0), 0)).toBe(-errno.ENOENT);
  });
});

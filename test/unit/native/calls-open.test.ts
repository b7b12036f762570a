/** openat2, handles, lookup, stat, readlink, statfs: each once with success, once with an error. */
import { once } from "node:events";
import { mkdirSync, statSync, symlinkSync, unlinkSync, writeFileSync } from "node:fs";
import path from "node:path";
import { Worker } from "node:worker_threads";
import { describe, expect, it } from "vitest";
import { STAT, STATFS } from "../../../native/index.ts";
import { makeImage } from "../../compliance/lower-fixture.ts";
import { bytes, errno, field, isRoot, native, newHandle, newStat, O_PATH, opened, useScratch } from "./scratch.ts";

const RESOLVE_BENEATH = 0x08;
const RESOLVE_NO_SYMLINKS = 0x04;
const O_RDWR = 2;
const O_CREAT = 0o100;
const O_DIRECTORY = 0o200000;
/** Makes and removes files until it is ended. */
const TAKES_NUMBERS = `
  const fs = require("node:fs");
  const { parentPort, workerData } = require("node:worker_threads");
  for (let made = 0; ; made += 1) {
    fs.closeSync(fs.openSync(workerData, "w"));
    fs.unlinkSync(workerData);
    if (made === 0) parentPort.postMessage("started");
  }
`;

describe.runIf(isRoot)("calls that open and describe", () => {
  const scratch = useScratch();
  const { sync } = native;

  it("opens and closes", () => {
    writeFileSync(path.join(scratch.dir, "a"), "hello");
    const fd = sync.openat2(scratch.fd, bytes("a"), 0, 0, RESOLVE_BENEATH);
    expect(fd).toBeGreaterThan(2);
    expect(sync.close(fd)).toBe(0);
    expect(sync.close(fd)).toBe(-errno.EBADF);
    expect(sync.openat2(scratch.fd, bytes("none"), 0, 0, 0)).toBe(-errno.ENOENT);
    expect(sync.openat2(-1, bytes("a"), 0, 0, 0)).toBe(-errno.EBADF);
    expect(sync.openat2(2 ** 32 + scratch.fd, bytes("a"), 0, 0, 0)).toBe(-errno.EBADF);
    symlinkSync("a", path.join(scratch.dir, "s"));
    expect(sync.openat2(scratch.fd, bytes("s"), 0, 0, RESOLVE_NO_SYMLINKS)).toBe(-errno.ELOOP);
  });

  it("stats every field as Node does", () => {
    const file = path.join(scratch.dir, "a");
    writeFileSync(file, "hello");
    const fd = opened(scratch, sync.openat2(scratch.fd, bytes("a"), O_PATH, 0, 0));
    const stat = newStat();
    expect(sync.stat(fd, stat)).toBe(0);
    const wanted = statSync(file, { bigint: true });
    const second = 1_000_000_000n;
    const times = [wanted.atimeNs, wanted.mtimeNs, wanted.ctimeNs, wanted.birthtimeNs].flatMap((ns) => [
      Number(ns / second),
      Number(ns % second),
    ]);
    expect([...stat].slice(0, 8)).toEqual(
      [wanted.mode, wanted.nlink, wanted.uid, wanted.gid, wanted.ino, wanted.size, wanted.blocks, wanted.blksize].map(Number),
    );
    expect([...stat].slice(STAT.RDEV_MAJOR, STAT.ATIME_SEC)).toEqual([0, 0]);
    expect([...stat].slice(STAT.ATIME_SEC, STAT.DEV_MAJOR)).toEqual(times);
    const dev = Number(wanted.dev);
    expect([field(stat, STAT.DEV_MAJOR), field(stat, STAT.DEV_MINOR)]).toEqual([
      (dev >> 8) & 0xfff,
      (dev & 0xff) | ((dev >> 12) & 0xfff00),
    ]);
    expect(sync.stat(-1, stat)).toBe(-errno.EBADF);
  });

  it("goes from a name to a handle and back, and says ESTALE when the file is gone", () => {
    writeFileSync(path.join(scratch.dir, "a"), "hello");
    const found = newStat();
    const handle = newHandle();
    expect(sync.lookup(scratch.fd, bytes("a"), false, found, handle)).toBe(0);
    expect(field(found, STAT.SIZE)).toBe(5);

    const fd = opened(scratch, sync.openByHandle(scratch.fd, handle, 0));
    const again = newHandle();
    expect(sync.handleOf(fd, again)).toBe(0);
    const handleBytes = 8 + handle.readUInt32LE(0);
    expect(handleBytes).toBeGreaterThan(8);
    expect(again.subarray(0, handleBytes)).toEqual(handle.subarray(0, handleBytes));

    const byHandle = newStat();
    expect(sync.statHandle(scratch.fd, handle, byHandle)).toBe(0);
    expect(byHandle).toEqual(found);

    unlinkSync(path.join(scratch.dir, "a"));
    sync.close(fd);
    expect(sync.openByHandle(scratch.fd, handle, 0)).toBe(-errno.ESTALE);
    expect(sync.statHandle(scratch.fd, handle, byHandle)).toBe(-errno.ESTALE);
    expect(sync.handleOf(-1, handle)).toBe(-errno.EBADF);
  });

  it("says ESTALE of a removed inode, also while a new file takes its number", async () => {
    // ext4 says ENOMEM in that moment; without a second look some hundred of these 40,000 answers are that.
    const image = makeImage("ext4", 32);
    scratch.later(() => image.remove());
    const place = image.mount();
    const root = native.open(`${place.path}/.`, O_DIRECTORY, 0);
    const others = [1, 2].map((id) => new Worker(TAKES_NUMBERS, { eval: true, workerData: `${place.path}/${id}` }));
    try {
      await Promise.all(others.map(async (other) => await once(other, "message")));
      const handle = newHandle();
      const answers = new Set<number>();
      for (let round = 0; round < 2000; round += 1) {
        const fd = sync.openat2(root, bytes("removed"), O_CREAT | O_RDWR, 0o600, 0);
        expect(sync.handleOf(fd, handle)).toBe(0);
        sync.close(fd);
        expect(sync.unlink(root, bytes("removed"), 0)).toBe(0);
        for (let look = 0; look < 20; look += 1) answers.add(sync.openByHandle(root, handle, O_PATH));
      }
      expect([...answers]).toEqual([-errno.ESTALE]);
    } finally {
      await Promise.all(others.map(async (other) => await other.terminate()));
      sync.close(root);
      await place.release();
    }
  });

  it("refuses a handle whose length is a lie", () => {
    const handle = newHandle();
    handle.writeUInt32LE(129, 0);
    expect(sync.openByHandle(scratch.fd, handle, 0)).toBe(-errno.EINVAL);
    handle.writeUInt32LE(20, 0);
    expect(sync.openByHandle(scratch.fd, handle.subarray(0, 16), 0)).toBe(-errno.EINVAL);
    expect(sync.openByHandle(scratch.fd, Buffer.alloc(4), 0)).toBe(-errno.EINVAL);
  });

  it("looks up . and .., symlinks themselves, and what is not there", () => {
    mkdirSync(path.join(scratch.dir, "d"));
    symlinkSync("d", path.join(scratch.dir, "s"));
    const d = opened(scratch, sync.openat2(scratch.fd, bytes("d"), O_PATH, 0, 0));
    const stat = newStat();
    const handle = newHandle();
    expect(sync.lookup(d, bytes("."), false, stat, handle)).toBe(0);
    expect(field(stat, STAT.INO)).toBe(statSync(path.join(scratch.dir, "d")).ino);
    expect(sync.lookup(d, bytes(".."), false, stat, handle)).toBe(0);
    expect(field(stat, STAT.INO)).toBe(statSync(scratch.dir).ino);
    expect(sync.lookup(scratch.fd, bytes("s"), false, stat, handle)).toBe(0);
    expect(field(stat, STAT.MODE) & 0o170000).toBe(0o120000);
    expect(sync.lookup(scratch.fd, bytes("none"), false, stat, handle)).toBe(-errno.ENOENT);
    expect(sync.lookup(d, bytes("x".repeat(256)), false, stat, handle)).toBe(-errno.ENAMETOOLONG);
  });

  it("looks up what is cached without waiting, and says EAGAIN for what is not", () => {
    writeFileSync(path.join(scratch.dir, "warm"), "");
    const stat = newStat();
    const handle = newHandle();
    expect(sync.lookup(scratch.fd, bytes("warm"), true, stat, handle)).toBe(0);
    expect(sync.lookup(scratch.fd, bytes("never-looked-up"), true, stat, handle)).toBe(-errno.EAGAIN);
    expect(sync.lookup(scratch.fd, bytes("never-looked-up"), false, stat, handle)).toBe(-errno.ENOENT);
    // The negative entry is in the cache now.
    expect(sync.lookup(scratch.fd, bytes("never-looked-up"), true, stat, handle)).toBe(-errno.ENOENT);
  });

  it("looks at many names, so that lookups find them cached", () => {
    writeFileSync(path.join(scratch.dir, "w1"), "");
    symlinkSync("nowhere", path.join(scratch.dir, "w2"));
    expect(sync.warm(scratch.fd, Buffer.from("w1\0none\0w2\0"))).toBe(2);
    expect(sync.lookup(scratch.fd, bytes("w1"), true, newStat(), newHandle())).toBe(0);
    expect(sync.lookup(scratch.fd, bytes("none"), true, newStat(), newHandle())).toBe(-errno.ENOENT);
    expect(sync.warm(scratch.fd, Buffer.alloc(0))).toBe(0);
    expect(sync.warm(scratch.fd, Buffer.from("w1\0w2"))).toBe(-errno.EINVAL);
  });

  it("reads a symlink by its own descriptor", () => {
    symlinkSync("where/it/goes", path.join(scratch.dir, "s"));
    const fd = opened(scratch, sync.openat2(scratch.fd, bytes("s"), O_PATH | 0o400000, 0, 0));
    const target = Buffer.alloc(64);
    expect(sync.readlink(fd, target)).toBe(13);
    expect(target.toString("utf8", 0, 13)).toBe("where/it/goes");
    expect(sync.readlink(scratch.fd, target)).toBe(-errno.ENOENT);
  });

  it("describes the file system", () => {
    const statfs = new Float64Array(STATFS.FIELDS);
    expect(sync.statfs(scratch.fd, statfs)).toBe(0);
    expect(field(statfs, STATFS.NAMELEN)).toBe(255);
    expect(field(statfs, STATFS.BLOCKS)).toBeGreaterThan(field(statfs, STATFS.BFREE));
    expect(sync.statfs(-1, statfs)).toBe(-errno.EBADF);
  });
});

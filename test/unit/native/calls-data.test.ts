/** Data calls: each once with success, once with an error; offsets at and beyond the edge of numbers. */
import { mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { bytes, errno, isRoot, native, opened, useScratch } from "./scratch.ts";

const O_RDWR = 2;
const RWF_APPEND = 0x10;
const RWF_NOWAIT = 0x08;
const FALLOC_FL_KEEP_SIZE = 1;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;

describe.runIf(isRoot)("calls on data", () => {
  const scratch = useScratch();
  const { sync } = native;
  const at = (name: string): string => path.join(scratch.dir, name);
  const openFile = (name: string, content: string): number => {
    writeFileSync(at(name), content);
    return opened(scratch, sync.openat2(scratch.fd, bytes(name), O_RDWR, 0, 0));
  };

  it("reads and writes a part of a buffer at an offset", () => {
    const fd = openFile("a", "0123456789");
    const buffer = bytes("..........");
    expect(sync.read(fd, buffer, 2, 3, 4, 0)).toBe(3);
    expect(buffer.toString()).toBe("..456.....");
    expect(sync.read(fd, buffer, 0, 10, 8, RWF_NOWAIT)).toBe(2);
    expect(sync.read(fd, buffer, 0, 10, 10, 0)).toBe(0);
    expect(sync.write(fd, bytes("xABCx"), 1, 3, 5, 0)).toBe(3);
    expect(sync.write(fd, bytes("end"), 0, 3, 0, RWF_APPEND)).toBe(3);
    expect(readFileSync(at("a"), "utf8")).toBe("01234ABC89end");
  });

  it("refuses what is outside the buffer", () => {
    const fd = openFile("a", "0123456789");
    const buffer = Buffer.alloc(8);
    for (const [from, length] of [
      [0, 9],
      [8, 1],
      [-1, 1],
      [0, -1],
      [9, 0],
      [2 ** 70, 1],
      [1, 2 ** 70],
    ] as const) {
      expect(sync.read(fd, buffer, from, length, 0, 0)).toBe(-errno.EFAULT);
      expect(sync.write(fd, buffer, from, length, 0, 0)).toBe(-errno.EFAULT);
    }
    expect(sync.read(fd, buffer, 8, 0, 0, 0)).toBe(0);
  });

  it("reports errors of reads and writes", () => {
    const buffer = Buffer.alloc(8);
    expect(sync.read(-1, buffer, 0, 8, 0, 0)).toBe(-errno.EBADF);
    expect(sync.write(-1, buffer, 0, 8, 0, 0)).toBe(-errno.EBADF);
    expect(sync.read(scratch.fd, buffer, 0, 8, 0, 0)).toBe(-errno.EISDIR);
  });

  it("keeps offsets beyond 2^53 exact and refuses those beyond 64 bits", () => {
    const fd = openFile("a", "0123456789");
    const buffer = Buffer.alloc(8);
    expect(sync.read(fd, buffer, 0, 8, 2 ** 60, 0)).toBe(0);
    expect(sync.read(fd, buffer, 0, 8, 2 ** 64, 0)).toBe(-errno.EINVAL);
    expect(sync.write(fd, buffer, 0, 8, 2 ** 60, 0)).toBe(-errno.EFBIG);
    expect(sync.write(fd, buffer, 0, 8, 2 ** 63, 0)).toBe(-errno.EFBIG);
    expect(sync.ftruncate(fd, 2 ** 63)).toBe(-errno.EFBIG);
    expect(sync.fallocate(fd, 0, 0, Infinity)).toBe(-errno.EFBIG);
    expect(sync.lseek(fd, 2 ** 63, 0)).toBe(-errno.EINVAL);
    expect(statSync(at("a")).size).toBe(10);
  });

  it("keeps data", () => {
    const fd = openFile("a", "0123456789");
    expect(sync.fsync(fd, false)).toBe(0);
    expect(sync.fsync(fd, true)).toBe(0);
    expect(sync.syncfs(fd)).toBe(0);
    expect(sync.fsync(-1, false)).toBe(-errno.EBADF);
    expect(sync.fsync(-1, true)).toBe(-errno.EBADF);
    expect(sync.syncfs(-1)).toBe(-errno.EBADF);
  });

  it("places data", () => {
    const fd = openFile("a", "0123456789");
    expect(sync.ftruncate(fd, 5_000_000_000)).toBe(0);
    expect(statSync(at("a")).size).toBe(5_000_000_000);
    expect(sync.lseek(fd, 0, SEEK_HOLE)).toBe(4096);
    expect(sync.lseek(fd, 1_000_000, SEEK_DATA)).toBe(-errno.ENXIO);
    expect(sync.lseek(fd, 4_900_000_000, 0)).toBe(4_900_000_000);
    expect(sync.ftruncate(fd, 10)).toBe(0);
    expect(sync.ftruncate(-1, 10)).toBe(-errno.EBADF);
    expect(sync.fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 65536)).toBe(0);
    expect(statSync(at("a")).size).toBe(10);
    expect(statSync(at("a")).blocks).toBe(128);
    expect(sync.fallocate(fd, 0, -1, 10)).toBe(-errno.EINVAL);
  });

  it("copies a range", () => {
    const from = openFile("a", "0123456789");
    const to = openFile("b", "..........");
    expect(sync.copyFileRange(from, 2, to, 5, 3)).toBe(3);
    expect(readFileSync(at("b"), "utf8")).toBe(".....234..");
    expect(sync.copyFileRange(from, 2, -1, 5, 3)).toBe(-errno.EBADF);
    expect(sync.copyFileRange(from, 2 ** 63, to, 5, 3)).toBe(-errno.EINVAL);
  });

  it("lists a directory from where it stands", () => {
    for (const name of ["one", "two"]) mkdirSync(at(name));
    const buffer = Buffer.alloc(4096);
    const names: string[] = [];
    for (let length = sync.getdents(scratch.fd, buffer); length !== 0; length = sync.getdents(scratch.fd, buffer)) {
      expect(length).toBeGreaterThan(0);
      for (let offset = 0; offset < length; offset += buffer.readUInt16LE(offset + 16)) {
        names.push(buffer.toString("utf8", offset + 19, buffer.indexOf(0, offset + 19)));
      }
    }
    expect(names.toSorted()).toEqual([".", "..", "one", "two"]);
    expect(sync.lseek(scratch.fd, 0, 0)).toBe(0);
    expect(sync.getdents(scratch.fd, buffer)).toBeGreaterThan(0);
    expect(sync.getdents(opened(scratch, sync.openat2(scratch.fd, bytes("."), 0, 0, 0)), Buffer.alloc(8))).toBe(-errno.EINVAL);
    expect(sync.getdents(-1, buffer)).toBe(-errno.EBADF);
  });
});

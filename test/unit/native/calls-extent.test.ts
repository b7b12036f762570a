/** Flags and places of files, and blocks without the page cache: each once with success, once with an error. */
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { bytes, errno, isRoot, native, opened, useScratch } from "./scratch.ts";

const O_RDWR = 2;
const O_DIRECT = 0o40000;
const FS_IMMUTABLE_FL = 0x10;
const ENOTTY = -errno.ENOTTY;

describe.runIf(isRoot)("calls on extents and blocks", () => {
  const scratch = useScratch();
  const { sync, pool } = native;
  const openFile = (content: string | Buffer, flags = O_RDWR): number => {
    writeFileSync(path.join(scratch.dir, "a"), content);
    return opened(scratch, sync.openat2(scratch.fd, bytes("a"), flags, 0, 0));
  };

  it("sets and clears flags as chattr does", () => {
    const fd = openFile("kept");
    const before = sync.fileFlags(fd);
    expect(before & FS_IMMUTABLE_FL).toBe(0);
    expect(sync.setFileFlags(fd, before | FS_IMMUTABLE_FL)).toBe(0);
    expect(sync.fileFlags(fd) & FS_IMMUTABLE_FL).toBe(FS_IMMUTABLE_FL);
    expect(sync.write(opened(scratch, fd), bytes("x"), 0, 1, 0, 0)).toBe(-errno.EPERM);
    expect(sync.setFileFlags(fd, before)).toBe(0);
    const pipe = opened(scratch, native.open("/dev/null", O_RDWR, 0));
    const results = [sync.fileFlags(pipe), sync.setFileFlags(pipe, 0), sync.shutDown(pipe), sync.extents(pipe, Buffer.alloc(88))];
    expect(results).toEqual([ENOTTY, ENOTTY, ENOTTY, -errno.EOPNOTSUPP]);
  });

  it("tells where a file lies", () => {
    const fd = openFile(Buffer.alloc(8192, "x"));
    const map = Buffer.alloc(32 + 56);
    expect(sync.extents(fd, map)).toBe(1);
    expect([map.readUInt32LE(20), Number(map.readBigUInt64LE(32)), Number(map.readBigUInt64LE(48))]).toEqual([1, 0, 8192]);
    expect(sync.extents(fd, Buffer.alloc(87))).toBe(-errno.EINVAL);
  });

  it("reads and writes blocks from any memory", async () => {
    const fd = openFile(Buffer.alloc(8192, "a"), O_RDWR | O_DIRECT);
    const room = Buffer.alloc(4096 + 3).subarray(3);
    room.fill("b");
    expect(await pool.sync.writeDirect(fd, room, 4096)).toBe(4096);
    expect(await pool.sync.readDirect(fd, room, 0)).toBe(4096);
    expect(room.equals(Buffer.alloc(4096, "a"))).toBe(true);
    expect(readFileSync(path.join(scratch.dir, "a")).equals(Buffer.concat([Buffer.alloc(4096, "a"), Buffer.alloc(4096, "b")]))).toBe(true);
    expect(sync.readDirect(fd, room, 8192)).toBe(0);
    expect([sync.readDirect(fd, Buffer.alloc(0), 0), sync.readDirect(fd, Buffer.alloc((1 << 20) + 4096), 0)]).toEqual([
      -errno.EINVAL,
      -errno.EINVAL,
    ]);
    expect(sync.writeDirect(-1, room, 0)).toBe(-errno.EBADF);
  });
});

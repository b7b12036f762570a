/** What every lower does with files: data, attributes, extended attributes. */
import fs from "node:fs";
import { expect, it } from "vitest";
import { E } from "../../dlmd/base/errno.ts";
import {
  bytes,
  errnoOf,
  expectSame,
  longestFile,
  nobody,
  RDWR,
  root,
  SEEK_CUR,
  SEEK_DATA,
  SEEK_HOLE,
  type LowerBench,
} from "./lower-bench.ts";

export function filesCompliance(bench: LowerBench): void {
  it("creates, writes, reads and looks up", async () => {
    const { dir, path } = await bench.place();
    const { entry, handle } = await bench.file(dir, "f", "hello");
    // Nobody but the lower may change its access time.
    const flag = fs.constants.O_RDONLY | fs.constants.O_NOATIME;
    expect(fs.readFileSync(`${path}/f`, { encoding: "utf8", flag: flag as unknown as string })).toBe("hello");
    expect(await bench.text(handle)).toBe("hello");
    expect(await bench.text(handle, 4)).toBe("o");
    expect(await bench.text(handle, 5)).toBe("");
    const found = await bench.lower.lookup(dir, bytes("f"));
    expect(found.id).toEqual(entry.id);
    expectSame(found.attr, `${path}/f`);
    expectSame(await bench.lower.getattr(entry.id), `${path}/f`);
    expect(await errnoOf(() => bench.lower.lookup(dir, bytes("nothing")))).toBe(E.ENOENT);
    expect(await errnoOf(() => bench.lower.create(dir, bytes("f"), RDWR, 0o644, root))).toBe(E.EEXIST);
    bench.lower.close(handle);
    expect(await errnoOf(() => bench.lower.read(handle, 0, 1))).toBe(E.EBADF);
  });

  it("gives what is created to its caller, less the umask, whatever the directory allows", async () => {
    const { dir, path } = await bench.place();
    const made = await bench.lower.create(dir, bytes("f"), RDWR, 0o666, nobody);
    bench.lower.close(made.handle);
    expect(fs.statSync(`${path}/f`)).toMatchObject({ uid: 65_534, gid: 65_533, mode: 0o100640 });
    await bench.lower.mkdir(dir, bytes("d"), 0o777, nobody);
    expect(fs.statSync(`${path}/d`)).toMatchObject({ uid: 65_534, gid: 65_533, mode: 0o040750 });
    await bench.lower.symlink(dir, bytes("l"), bytes("x"), nobody);
    expect(fs.lstatSync(`${path}/l`)).toMatchObject({ uid: 65_534, gid: 65_533 });
  });

  it("makes files without a name, as their caller in that directory, which end with their last close", async () => {
    const { dir, path } = await bench.place();
    fs.chownSync(path, 0, 4242);
    fs.chmodSync(path, 0o2777);
    const { entry, handle } = await bench.lower.tmpfile(dir, RDWR, 0o666, nobody, true);
    expect(entry.attr).toMatchObject({ ino: entry.id.ino, uid: 65_534, gid: 4242, mode: 0o100640, nlink: 0, size: 0 });
    await bench.lower.write(handle, bytes("nameless"), 0, false);
    expect(await bench.text(handle)).toBe("nameless");
    expect(await bench.lower.getattr(entry.id)).toMatchObject({ nlink: 0, size: 8 });
    expect(await bench.lower.setattr(entry.id, { mode: 0o600 }, null)).toMatchObject({ nlink: 0, mode: 0o100600 });
    const second = await bench.lower.open(entry.id, 0);
    bench.lower.close(handle);
    expect(await bench.text(second)).toBe("nameless");
    expect(fs.readdirSync(path)).toEqual([]);
    bench.lower.close(second);
    await bench.expectGone(entry.id);
  });

  it("gives a file without a name one, if it was made for that", async () => {
    const { dir, path } = await bench.place();
    await bench.file(dir, "taken");
    const other = await bench.lower.mkdir(dir, bytes("other"), 0o755, root);
    const { entry, handle } = await bench.lower.tmpfile(dir, RDWR, 0o644, root, true);
    await bench.lower.write(handle, bytes("named"), 0, false);
    expect(await errnoOf(() => bench.lower.link(entry.id, dir, bytes("taken")))).toBe(E.EEXIST);
    expect((await bench.lower.getattr(entry.id)).nlink).toBe(0);
    expect((await bench.lower.link(entry.id, other.id, bytes("first"))).nlink).toBe(1);
    expect((await bench.lower.lookup(other.id, bytes("first"))).id).toEqual(entry.id);
    expectSame(await bench.lower.getattr(entry.id), `${path}/other/first`);
    expect((await bench.lower.link(entry.id, dir, bytes("second"))).nlink).toBe(2);
    bench.lower.close(handle);
    expect(fs.readFileSync(`${path}/second`, "utf8")).toBe("named");

    const never = await bench.lower.tmpfile(dir, RDWR, 0o644, root, false);
    expect(await errnoOf(() => bench.lower.link(never.entry.id, dir, bytes("third")))).toBe(E.ENOENT);
    expect((await bench.lower.getattr(never.entry.id)).nlink).toBe(0);
    bench.lower.close(never.handle);
    await bench.expectGone(never.entry.id);
    expect(fs.readdirSync(path).toSorted()).toEqual(["other", "second", "taken"]);
  });

  it("appends at the true end and tells where", async () => {
    const { dir, path } = await bench.place();
    const { handle } = await bench.file(dir, "f", "abc");
    expect(await bench.lower.write(handle, bytes("de"), 0, true)).toEqual({ offset: 3, bytes: 2 });
    fs.appendFileSync(`${path}/f`, "fgh");
    expect(await bench.lower.write(handle, bytes("i"), 0, true)).toEqual({ offset: 8, bytes: 1 });
    expect(await bench.text(handle)).toBe("abcdefghi");
    bench.lower.close(handle);
  });

  it("moves a megabyte in one call, and reads what is cached only in part", async () => {
    const { dir, path } = await bench.place();
    const { entry, handle } = await bench.file(dir, "f");
    const data = Buffer.alloc(1024 * 1024);
    for (let at = 0; at < data.length; at += 4) data.writeUInt32LE(at, at);
    expect(await bench.lower.write(handle, data, 4096, false)).toEqual({ offset: 4096, bytes: data.length });
    await bench.lower.fsync(handle, false);
    fs.closeSync(fs.openSync(`${path}/f`, "r"));
    const reader = await bench.lower.open(entry.id, 0);
    expect(Buffer.from(await bench.lower.read(reader, 4096, data.length)).equals(data)).toBe(true);
    expect(Buffer.from(await bench.lower.read(reader, 0, 4096)).equals(Buffer.alloc(4096))).toBe(true);
    expect((await bench.lower.read(reader, data.length, 8192)).byteLength).toBe(4096);
    expect(await errnoOf(() => bench.lower.write(reader, bytes("x"), 0, false))).toBe(E.EBADF);
    bench.lower.close(handle);
    bench.lower.close(reader);
  });

  it("changes attributes, times to the nanosecond", async () => {
    const { dir, path } = await bench.place();
    const { entry, handle } = await bench.file(dir, "f", "1234567890");
    const times = { atime: { sec: 1_000_000_000, nsec: 123_456_789 }, mtime: { sec: -5, nsec: 999_999_999 } };
    const attr = await bench.lower.setattr(entry.id, { mode: 0o4750, uid: 7, gid: 8, size: 4, ...times }, null);
    expect(attr).toMatchObject({ mode: 0o104750, uid: 7, gid: 8, size: 4, atimeSec: 1_000_000_000, atimeNsec: 123_456_789 });
    expect(attr).toMatchObject({ mtimeSec: -5, mtimeNsec: 999_999_999 });
    expectSame(attr, `${path}/f`);
    const grown = await bench.lower.setattr(entry.id, { size: 20, mtime: "now" }, handle);
    expect(grown.size).toBe(20);
    expect(grown.mtimeSec).toBeGreaterThan(1_600_000_000);
    expect(grown).toMatchObject({ atimeSec: 1_000_000_000, atimeNsec: 123_456_789 });
    expect(await errnoOf(() => bench.lower.setattr(dir, { size: 0 }, null))).toBe(E.EISDIR);
    bench.lower.close(handle);
  });

  it("clears set-user-id and set-group-id when asked to", async () => {
    const { dir, path } = await bench.place();
    const { entry, handle } = await bench.file(dir, "f", "x");
    fs.chmodSync(`${path}/f`, 0o6775);
    await bench.lower.setattr(entry.id, { killSuidgid: true }, null);
    expect(fs.statSync(`${path}/f`).mode).toBe(0o100775);
    fs.chmodSync(`${path}/f`, 0o6765);
    const attr = await bench.lower.setattr(entry.id, { size: 0, killSuidgid: true }, handle);
    // Set-group-id without group execute is mandatory locking, not a privilege.
    expect(attr.mode).toBe(0o102765);
    fs.chmodSync(`${path}/f`, 0o6775);
    expect((await bench.lower.setattr(entry.id, {}, null)).mode).toBe(0o100775);
    bench.lower.close(handle);
  });

  it("finds holes and data, punches, preallocates, copies", async () => {
    const { dir } = await bench.place();
    const { entry, handle } = await bench.file(dir, "f");
    const block = Buffer.alloc(65_536, 1);
    await bench.lower.write(handle, block, 1024 * 1024, false);
    expect(await bench.lower.lseek(handle, 0, SEEK_DATA)).toBe(1024 * 1024);
    expect(await bench.lower.lseek(handle, 1024 * 1024, SEEK_HOLE)).toBe(1024 * 1024 + 65_536);
    expect(await errnoOf(() => bench.lower.lseek(handle, 2 * 1024 * 1024, SEEK_DATA))).toBe(E.ENXIO);
    expect(await errnoOf(() => bench.lower.lseek(handle, 0, SEEK_CUR))).toBe(E.EINVAL);
    await bench.lower.fallocate(handle, 3, 1024 * 1024, 4096);
    expect(
      Buffer.from(await bench.lower.read(handle, 1024 * 1024, 4097)).equals(Buffer.concat([Buffer.alloc(4096), Buffer.alloc(1, 1)])),
    ).toBe(true);
    await bench.lower.fallocate(handle, 1, 4 * 1024 * 1024, 65_536);
    expect((await bench.lower.getattr(entry.id)).size).toBe(1024 * 1024 + 65_536);
    await bench.lower.fallocate(handle, 0, 2 * 1024 * 1024, 65_536);
    expect((await bench.lower.getattr(entry.id)).size).toBe(2 * 1024 * 1024 + 65_536);
    const copy = await bench.file(dir, "copy");
    expect(await bench.lower.copyFileRange(handle, 1024 * 1024, copy.handle, 10, 65_536)).toBe(65_536);
    expect((await bench.lower.getattr(copy.entry.id)).size).toBe(65_546);
    expect(Buffer.from(await bench.lower.read(copy.handle, 10 + 4096, 1)).equals(Buffer.alloc(1, 1))).toBe(true);
    bench.lower.close(handle);
    bench.lower.close(copy.handle);
  });

  it("says how long a file may be, before it is written to", async () => {
    const { dir } = await bench.place();
    const { entry, handle } = await bench.file(dir, "f", "x");
    const longest = await longestFile(bench.lower, handle);
    expect(await errnoOf(() => bench.lower.write(handle, bytes("y"), longest, false))).toBe(E.EFBIG);
    expect(await errnoOf(() => bench.lower.fallocate(handle, 3, longest - 10, 11))).toBe(E.EFBIG);
    expect((await bench.lower.getattr(entry.id)).size).toBe(1);
    expect((await bench.lower.write(handle, bytes("y"), longest - 1, false)).bytes).toBe(1);
    bench.lower.close(handle);
  });

  it("answers offsets that no file has", async () => {
    const { dir } = await bench.place();
    const { entry, handle } = await bench.file(dir, "f", "x");
    const exbibyte = 2 ** 60;
    expect((await bench.lower.read(handle, exbibyte, 4096)).byteLength).toBe(0);
    expect(await errnoOf(() => bench.lower.write(handle, bytes("x"), exbibyte, false))).toBe(E.EFBIG);
    expect(await errnoOf(() => bench.lower.setattr(entry.id, { size: exbibyte }, null))).toBe(E.EFBIG);
    expect(await errnoOf(() => bench.lower.fallocate(handle, 0, exbibyte, 1))).toBe(E.EFBIG);
    expect(await errnoOf(() => bench.lower.lseek(handle, exbibyte, SEEK_DATA))).toBe(E.ENXIO);
    expect(await errnoOf(() => bench.lower.write(handle, bytes("x"), -1, false))).toBe(E.EINVAL);
    expect(await errnoOf(() => bench.lower.read(handle, -1, 1))).toBe(E.EINVAL);
    expect(await bench.lower.copyFileRange(handle, exbibyte, handle, 0, 10)).toBe(0);
    expect((await bench.lower.getattr(entry.id)).size).toBe(1);
    bench.lower.close(handle);
  });

  it("keeps extended attributes, and the clustered bit to itself", async () => {
    const { dir } = await bench.place();
    const { entry, handle } = await bench.file(dir, "f");
    const name = bytes("user.colour");
    expect(await errnoOf(() => bench.lower.getxattr(entry.id, name))).toBe(E.ENODATA);
    await bench.lower.setxattr(entry.id, name, bytes("red\0blue"), 1);
    expect(await errnoOf(() => bench.lower.setxattr(entry.id, name, bytes("x"), 1))).toBe(E.EEXIST);
    await bench.lower.setxattr(entry.id, bytes("trusted.t"), bytes("T"), 0);
    await bench.lower.setxattr(entry.id, bytes("user.empty"), Buffer.alloc(0), 0);
    expect(Buffer.from(await bench.lower.getxattr(entry.id, name)).toString("latin1")).toBe("red\0blue");
    expect((await bench.lower.getxattr(entry.id, bytes("user.empty"))).length).toBe(0);
    const names = Buffer.from(await bench.lower.listxattr(entry.id))
      .toString()
      .split("\0");
    expect(names).toEqual(expect.arrayContaining(["user.colour", "trusted.t", "user.empty"]));
    await bench.lower.removexattr(entry.id, name);
    expect(await errnoOf(() => bench.lower.removexattr(entry.id, name))).toBe(E.ENODATA);
    const bit = bytes("trusted.clustered");
    expect(await errnoOf(() => bench.lower.setxattr(bench.lower.root, bit, bytes("x"), 0))).toBe(E.EPERM);
    expect(await errnoOf(() => bench.lower.removexattr(bench.lower.root, bit))).toBe(E.EPERM);
    expect(await errnoOf(() => bench.lower.getxattr(bench.lower.root, bit))).toBe(E.ENODATA);
    expect(Buffer.from(await bench.lower.listxattr(bench.lower.root)).includes(bit)).toBe(false);
    // What a system call would cut to the bit's name.
    const cut = bytes("trusted.clustered\0x");
    expect(await errnoOf(() => bench.lower.setxattr(bench.lower.root, cut, bytes("x"), 0))).toBe(E.EINVAL);
    expect(await errnoOf(() => bench.lower.removexattr(bench.lower.root, cut))).toBe(E.EINVAL);
    bench.lower.close(handle);
  });

  it("keeps flags and project ids, and takes no flag that would let names fold their case", async () => {
    const { dir } = await bench.place();
    const { entry, handle } = await bench.file(dir, "f");
    const NODUMP = 0x40;
    const flags = async (): Promise<number> => Buffer.from(await bench.lower.fileAttributes(handle, "flags")).readUInt32LE(0);
    const setFlags = async (value: number): Promise<void> => {
      const bytesOf = Buffer.alloc(4);
      bytesOf.writeUInt32LE(value);
      await bench.lower.setFileAttributes(handle, "flags", bytesOf);
    };
    const before = await flags();
    await setFlags(before | NODUMP);
    expect(await flags()).toBe(before | NODUMP);
    const fsxattr = Buffer.from(await bench.lower.fileAttributes(handle, "fsxattr"));
    expect([fsxattr.length, fsxattr.readUInt32LE(0) & 0x80]).toEqual([28, 0x80]);
    fsxattr.writeUInt32LE(0, 0);
    await bench.lower.setFileAttributes(handle, "fsxattr", fsxattr);
    expect((await flags()) & NODUMP).toBe(0);
    // Case folding, and what would be written at once, here as nowhere else: FS_SYNC_FL, FS_DIRSYNC_FL.
    for (const refused of [0x4000_0000, 0x8, 0x1_0000]) expect(await errnoOf(() => setFlags(before | refused))).toBe(E.EOPNOTSUPP);
    expect(await errnoOf(async () => bench.lower.setFileAttributes(handle, "flags", Buffer.alloc(5)))).toBe(E.EINVAL);

    // The next owner writes to the root before it serves.
    const root = await bench.lower.opendir(bench.lower.root);
    for (const unchangeable of [0x10, 0x20]) {
      const value = Buffer.alloc(4);
      value.writeUInt32LE(unchangeable);
      expect(await errnoOf(async () => await bench.lower.setFileAttributes(root, "flags", value))).toBe(E.EPERM);
    }
    bench.lower.close(root);

    await setFlags(before | 0x20);
    const O_APPEND = 0o2000;
    expect(await errnoOf(async () => bench.lower.open(entry.id, 1))).toBe(E.EPERM);
    const appending = await bench.lower.open(entry.id, 1 | O_APPEND);
    await bench.lower.write(appending, bytes("more"), 0, true);
    bench.lower.close(appending);
    await setFlags(before);
    bench.lower.close(handle);
  });

  it("keeps POSIX ACLs, the inherited ones too", async () => {
    expect(bench.lower.hasAcls).toBe(true);
    const { dir } = await bench.place();
    const acl = Buffer.alloc(4 + 5 * 8);
    acl.writeUInt32LE(2, 0);
    const entries: [tag: number, perm: number, id: number][] = [
      [1, 7, 0xffff_ffff],
      [2, 6, 1234],
      [4, 5, 0xffff_ffff],
      [0x10, 7, 0xffff_ffff],
      [0x20, 0, 0xffff_ffff],
    ];
    entries.forEach(([tag, perm, id], at) => {
      acl.writeUInt16LE(tag, 4 + at * 8);
      acl.writeUInt16LE(perm, 6 + at * 8);
      acl.writeUInt32LE(id, 8 + at * 8);
    });
    await bench.lower.setxattr(dir, bytes("system.posix_acl_default"), acl, 0);
    const made = await bench.lower.create(dir, bytes("f"), RDWR, 0o666, root);
    bench.lower.close(made.handle);
    // With a default ACL the umask takes no part (acl(5)): the mask is what mode and ACL share.
    expect(made.entry.attr.mode).toBe(0o100660);
    expect((await bench.lower.getxattr(made.entry.id, bytes("system.posix_acl_access"))).length).toBe(acl.length);
  });

  it("tells how full it is", async () => {
    const stat = await bench.lower.statfs();
    const seen = fs.statfsSync(bench.fixture.path);
    expect(stat).toMatchObject({ blocks: seen.blocks, bsize: seen.bsize, namelen: 255 });
    expect(stat.bfree).toBeGreaterThan(0);
    expect(stat.bavail).toBeLessThanOrEqual(stat.bfree);
  });

  it("truncates at open when told so", async () => {
    const { dir } = await bench.place();
    const { entry, handle } = await bench.file(dir, "f", "long content");
    const again = await bench.lower.open(entry.id, RDWR | 0o1000);
    expect((await bench.lower.getattr(entry.id)).size).toBe(0);
    bench.lower.close(again);
    bench.lower.close(handle);
  });
}

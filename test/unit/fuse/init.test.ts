import { describe, expect, test } from "vitest";
import { OperatingError } from "../../../dlmd/base/error.ts";
import { INIT_FLAG as F } from "../../../overlay/fuse/abi.ts";
import { negotiateInit } from "../../../overlay/fuse/init.ts";
import type { InitRequest } from "../../../overlay/fuse/request.ts";

const ALL = (1n << 64n) - 1n;

function kernel(changes: Partial<InitRequest> = {}): InitRequest {
  return {
    op: "init",
    unique: 2,
    fuseNodeid: 0,
    uid: 0,
    gid: 0,
    pid: 0,
    major: 7,
    minor: 45,
    maxReadahead: 131072,
    flags: ALL,
    ...changes,
  };
}

const options = { hasAcls: true, fileLocks: true, maxWriteBytes: 1024 * 1024 };

describe("INIT", () => {
  test("what must never be taken is not, though offered", () => {
    const { flags } = negotiateInit(kernel(), options).negotiated;
    const never = {
      truncatingOpens: F.FUSE_ATOMIC_O_TRUNC,
      writeback: F.FUSE_WRITEBACK_CACHE,
      explicitInval: F.FUSE_EXPLICIT_INVAL_DATA,
      directMmap: F.FUSE_DIRECT_IO_ALLOW_MMAP,
      noOpen: F.FUSE_NO_OPEN_SUPPORT,
      noOpendir: F.FUSE_NO_OPENDIR_SUPPORT,
      splice: F.FUSE_SPLICE_READ | F.FUSE_SPLICE_WRITE | F.FUSE_SPLICE_MOVE,
      killprivV1: F.FUSE_HANDLE_KILLPRIV,
      // Hazard F24.
      passthrough: F.FUSE_PASSTHROUGH,
      idmap: F.FUSE_ALLOW_IDMAP,
      ring: F.FUSE_OVER_IO_URING,
    };
    const taken = Object.entries(never).filter(([, bits]) => (flags & bits) !== 0n);
    expect(taken).toEqual([]);
  });

  test("file handles of what the kernel has forgotten are looked up (hazard F29)", () => {
    expect(negotiateInit(kernel(), options).negotiated.flags & F.FUSE_EXPORT_SUPPORT).toBe(F.FUSE_EXPORT_SUPPORT);
  });

  test("nothing is taken that was not offered (Linux 5.4)", () => {
    const offered = F.FUSE_ASYNC_READ | F.FUSE_BIG_WRITES | F.FUSE_MAX_PAGES | F.FUSE_WRITEBACK_CACHE | F.FUSE_POSIX_ACL | F.FUSE_DONT_MASK;
    const { negotiated, reply } = negotiateInit(kernel({ minor: 31, flags: offered }), options);
    expect(negotiated).toEqual({
      minor: 31,
      flags: offered & ~F.FUSE_WRITEBACK_CACHE,
      maxWriteBytes: 1024 * 1024,
      maxReadBytes: 1024 * 1024,
      maxPages: 256,
      maxReadaheadBytes: 131072,
      entryExpire: false,
      incEpoch: false,
      readdirplus: false,
      posixAcl: true,
      handleKillpriv: false,
      createSuppGroup: false,
      autoInvalData: false,
      parallelDirops: false,
      cacheSymlinks: false,
      fileLocks: false,
      fileAttributes: false,
    });
    expect(reply.readUInt32LE(16 + 4)).toBe(31);
    expect(reply.readUInt32LE(16 + 32)).toBe(0);
  });

  test("a kernel before Linux 5.4 (protocol 7.31), or of another major protocol, is refused with words", () => {
    for (const [major, minor] of [
      [7, 30],
      [6, 45],
      [8, 0],
    ] as const) {
      expect(() => negotiateInit(kernel({ major, minor }), options)).toThrow(`this kernel speaks ${major}.${minor}`);
    }
    expect(negotiateInit(kernel({ minor: 31 }), options).negotiated.minor).toBe(31);
  });

  test("hazard F2: background requests are not held back", () => {
    const { reply } = negotiateInit(kernel(), options);
    expect([reply.readUInt16LE(16 + 16), reply.readUInt16LE(16 + 18)]).toEqual([65535, 49151]);
  });

  test("hazard F6: entry expiry comes with its flag, epochs with protocol 7.44", () => {
    const of = (minor: number, flags: bigint): boolean[] => {
      const { entryExpire, incEpoch } = negotiateInit(kernel({ minor, flags }), options).negotiated;
      return [entryExpire, incEpoch];
    };
    expect(of(38, ALL)).toEqual([true, false]);
    expect(of(43, ALL)).toEqual([true, false]);
    expect(of(44, ALL)).toEqual([true, true]);
    expect(of(44, ALL & ~F.FUSE_HAS_EXPIRE_ONLY)).toEqual([false, true]);
  });

  test("hazard F17: ACLs and umask go together, and only where the lower has ACLs", () => {
    const acl = F.FUSE_POSIX_ACL | F.FUSE_DONT_MASK | F.FUSE_SETXATTR_EXT;
    expect(negotiateInit(kernel(), options).negotiated.flags & acl).toBe(acl);
    expect(negotiateInit(kernel(), { ...options, hasAcls: false }).negotiated.flags & acl).toBe(0n);
  });

  test("file locks come here, all kinds or none; not with -o localflocks", () => {
    const both = F.FUSE_POSIX_LOCKS | F.FUSE_FLOCK_LOCKS;
    const of = (offered: bigint, fileLocks: boolean) => negotiateInit(kernel({ flags: offered }), { ...options, fileLocks }).negotiated;
    expect([of(ALL, true).flags & both, of(ALL, true).fileLocks]).toEqual([both, true]);
    expect([of(ALL, false).flags & both, of(ALL, false).fileLocks]).toEqual([0n, false]);
    expect(of(ALL & ~F.FUSE_FLOCK_LOCKS, true).fileLocks).toBe(false);
  });

  test("pages are this machine's, and readahead is bounded", () => {
    const large = negotiateInit(kernel({ maxReadahead: 2 ** 31 }), { ...options, pageBytes: 65536 }).negotiated;
    expect([large.maxPages, large.maxWriteBytes, large.maxReadBytes, large.maxReadaheadBytes]).toEqual([16, 2 ** 20, 2 ** 20, 2 ** 20]);
    const few = negotiateInit(kernel({ flags: ALL & ~F.FUSE_MAX_PAGES }), options).negotiated;
    expect([few.maxPages, few.maxWriteBytes]).toEqual([32, 131072]);
  });

  test.each([
    [7, 30],
    [6, 45],
    [8, 0],
  ])("protocol %i.%i is refused, with what to do", (major, minor) => {
    let error: unknown;
    try {
      negotiateInit(kernel({ major, minor }), options);
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toBeInstanceOf(OperatingError);
    expect(error).toMatchObject({ code: "kernel-too-old", message: expect.stringContaining(`${major}.${minor}`) as unknown });
  });
});

/** What crosses the border to libfuse: nothing that has no room there passes as something else. */
import { describe, expect, it } from "vitest";
import { E } from "../../../../dlmd/base/errno.ts";
import { encodeAttr, encodeStatfs } from "../../../../overlay/fuse/reply.ts";
import { libfuseOptions } from "../../../../overlay/session/fuse-native/mount-fuse-native.ts";
import {
  deviceNumber,
  entryWords,
  nameText,
  pathNames,
  readAttr,
  readTimes,
  statfsWords,
  statWords,
} from "../../../../overlay/session/fuse-native/words.ts";
import { attrOf } from "../../op/scripted-lower.ts";

const errno = (wanted: number): unknown => expect.objectContaining({ errno: wanted });

describe("names", () => {
  it("are the parts of a path", () => {
    expect(pathNames("/a/bé").map(String)).toEqual(["a", "bé"]);
    expect(pathNames("/")).toEqual([]);
  });

  it("that were no UTF-8 are refused, in both directions", () => {
    expect(() => pathNames("/a/b\ufffd")).toThrow(errno(E.EILSEQ));
    expect(() => nameText(Buffer.from([0x61, 0xff]))).toThrow(errno(E.EILSEQ));
  });
});

describe("attributes", () => {
  const attr = attrOf({ ino: 12, generation: 1 }, { size: 2 ** 33 + 5, mode: 0o100640 });
  const reply = (fields: object): Buffer => {
    const buffer = Buffer.alloc(256);
    encodeAttr(buffer, 2, { ...attr, ...fields }, false);
    return buffer;
  };

  it("are those of the reply", () => {
    const stat = readAttr(reply({ mtimeSec: 5, mtimeNsec: 7_999_999, nlink: 0 }), 32);
    expect([stat.ino, stat.mode, stat.nlink, stat.size, stat.mtimeMs]).toEqual([12, 0o100640, 0, 2 ** 33 + 5, 5007]);
    const words = statWords(stat);
    expect([words[0], words[3], words[4], words[6], words[7], words[14]]).toEqual([0o100640, 5, 2, 0, 12, 5007]);
  });

  it("before 1970 are of 1970", () => {
    expect(Array.from(statWords(readAttr(reply({ mtimeSec: -5 }), 32)).subarray(14, 16))).toEqual([0, 0]);
  });

  it("with an inode number that has no room are refused", () => {
    expect(() => statWords(readAttr(reply({ ino: 2 ** 32 }), 32))).toThrow(errno(E.EOVERFLOW));
    expect(() => entryWords(2 ** 32, 8)).toThrow(errno(E.EOVERFLOW));
  });
});

it("a volume of more blocks than 32 bits can count is shown with larger blocks", () => {
  const buffer = Buffer.alloc(128);
  const files = { files: 2 ** 40, ffree: 5, namelen: 255, bsize: 4096, frsize: 4096 };
  encodeStatfs(buffer, 2, { blocks: 2 ** 34, bfree: 2 ** 33, bavail: 2 ** 32, ...files });
  const [bsize, frsize, blocks, bfree, bavail, inodes] = statfsWords(buffer, 16);
  expect([bsize, frsize, blocks, bfree, bavail, inodes]).toEqual([4096, 4096 * 8, 2 ** 31, 2 ** 30, 2 ** 29, 2 ** 32 - 1]);
});

describe("times", () => {
  const locals = Buffer.alloc(256);
  locals.writeBigUInt64LE(1500n, 104);
  locals.writeBigUInt64LE(2750n, 112);

  it("are read from the memory of the thread", () => {
    expect(readTimes(locals, 1500)).toEqual({ atime: { sec: 1, nsec: 500_000_000 }, mtime: { sec: 2, nsec: 750_000_000 } });
  });

  it("are refused where that memory is not as it should be", () => {
    expect(() => readTimes(locals, 1501)).toThrow(errno(E.EOPNOTSUPP));
    expect(() => readTimes(Buffer.alloc(16), 0)).toThrow(errno(E.EOPNOTSUPP));
  });
});

it("device numbers have twelve bits and twenty", () => {
  expect(deviceNumber((0x123 << 8) | 0xab | (0xcd << 20))).toEqual({ rdevMajor: 0x123, rdevMinor: 0xcdab });
});

it("libfuse is told to cache nothing, and the source as it is (hazard F26)", () => {
  const words = libfuseOptions("/dev/a,b\\c", 1)
    .slice(2)
    .split(/(?<!\\),/);
  expect(words).toContain("fsname=/dev/a\\,b\\\\c");
  expect(words).toContain("ro");
  for (const option of ["entry_timeout=0", "negative_timeout=0", "attr_timeout=0", "ac_attr_timeout=0", "direct_io"])
    expect(words).toContain(option);
  expect(words.filter((word) => /allow_|kernel_cache|auto_cache/.test(word))).toEqual([]);
});

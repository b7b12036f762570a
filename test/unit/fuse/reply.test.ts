import { describe, expect, test } from "vitest";
import { SENTINEL_SIZE } from "../../../overlay/coherence/size/sentinel.ts";
import { type Attr, NO_BIRTH_TIME } from "../../../overlay/lower/lower.ts";
import {
  DirEncoder,
  MAX_REPLY_BYTES,
  VALID_SECONDS,
  encodeAttr,
  encodeCreate,
  encodeEntry,
  encodeError,
  encodeLseek,
  encodeStatx,
} from "../../../overlay/fuse/reply.ts";
import { notifyInvalEntry } from "../../../overlay/fuse/notify.ts";
import { requestBufferBytes } from "../../../overlay/fuse/abi.ts";

const attr: Attr = {
  ino: 12,
  mode: 0o100644,
  nlink: 1,
  uid: 0xffff_fffe,
  gid: 7,
  size: 100,
  blocks: 8,
  blksize: 4096,
  rdevMajor: 0xfff,
  rdevMinor: 0xf_ffff,
  atimeSec: -2,
  atimeNsec: 1,
  mtimeSec: 2 ** 33,
  mtimeNsec: 2,
  ctimeSec: 3,
  ctimeNsec: 999_999_999,
  btimeSec: -4,
  btimeNsec: 5,
};

describe("replies", () => {
  test("every fixed reply fits MAX_REPLY_BYTES", () => {
    const buffer = Buffer.alloc(MAX_REPLY_BYTES);
    expect(encodeCreate(buffer, 2, 3, 4, attr, true, true, 5, 0)).toBe(16 + 128 + 16);
    expect(buffer.readUInt32LE(0)).toBe(16 + 128 + 16);
    expect(encodeStatx(buffer, 2, attr, true)).toBe(MAX_REPLY_BYTES);
  });

  test("a buffer that is too small is an assertion", () => {
    const short = Buffer.alloc(MAX_REPLY_BYTES - 1);
    expect(() => encodeStatx(short, 2, attr, true)).toThrow(`buffer of ${MAX_REPLY_BYTES - 1}`);
    expect(() => encodeEntry(Buffer.alloc(16 + 127), 2, 3, 4, attr, true, true)).toThrow("buffer of 143");
  });

  test("a birth time that the file system does not keep is not in the mask", () => {
    const buffer = Buffer.alloc(MAX_REPLY_BYTES);
    encodeStatx(buffer, 2, attr, false);
    expect([buffer.readUInt32LE(16 + 32), buffer.readBigInt64LE(16 + 32 + 80)]).toEqual([0xfff, -4n]);
    encodeStatx(buffer, 2, { ...attr, btimeNsec: NO_BIRTH_TIME }, false);
    expect([buffer.readUInt32LE(16 + 32), buffer.readBigInt64LE(16 + 32 + 80)]).toEqual([0x7ff, 0n]);
  });

  test("a size other than the attributes' own takes its place, to the bit", () => {
    const buffer = Buffer.alloc(MAX_REPLY_BYTES);
    encodeEntry(buffer, 2, 3, 4, attr, true, false, SENTINEL_SIZE);
    expect(buffer.readBigUInt64LE(16 + 40 + 8)).toBe(BigInt(SENTINEL_SIZE));
    encodeStatx(buffer, 2, attr, false, SENTINEL_SIZE);
    expect(buffer.readBigUInt64LE(16 + 32 + 40)).toBe(BigInt(SENTINEL_SIZE));
    encodeAttr(buffer, 2, attr, false, SENTINEL_SIZE);
    expect(buffer.readBigUInt64LE(16 + 16 + 8)).toBe(BigInt(SENTINEL_SIZE));
  });

  test.each([
    [true, true],
    [true, false],
    [false, true],
    [false, false],
  ])("entry validity %s and attribute validity %s are told apart", (entryValid, attrValid) => {
    const buffer = Buffer.alloc(MAX_REPLY_BYTES);
    const seconds = (valid: boolean): bigint => (valid ? BigInt(VALID_SECONDS) : 0n);
    encodeEntry(buffer, 2, 3, 4, attr, entryValid, attrValid);
    expect([buffer.readBigUInt64LE(32), buffer.readBigUInt64LE(40)]).toEqual([seconds(entryValid), seconds(attrValid)]);
    encodeCreate(buffer, 2, 3, 4, attr, entryValid, attrValid, 5, 0);
    expect([buffer.readBigUInt64LE(32), buffer.readBigUInt64LE(40)]).toEqual([seconds(entryValid), seconds(attrValid)]);
    encodeAttr(buffer, 2, attr, attrValid);
    expect(buffer.readBigUInt64LE(16)).toBe(seconds(attrValid));
  });

  test("times before 1970, large owners and device numbers", () => {
    const buffer = Buffer.alloc(MAX_REPLY_BYTES);
    encodeAttr(buffer, 2, attr, true);
    const at = 16 + 16;
    expect(buffer.readBigInt64LE(at + 24)).toBe(-2n);
    expect(buffer.readBigInt64LE(at + 32)).toBe(2n ** 33n);
    expect(buffer.readUInt32LE(at + 68)).toBe(0xffff_fffe);
    // new_encode_dev: minor 0..7, major 8..19, the rest of minor 20..31.
    expect(buffer.readUInt32LE(at + 76)).toBe(0xffff_ffff);
  });

  test("a unique and an offset above 2^32", () => {
    const buffer = Buffer.alloc(MAX_REPLY_BYTES);
    encodeLseek(buffer, 2 ** 40 + 2, 2 ** 50 + 0xffff_ffff);
    expect(buffer.readBigUInt64LE(8)).toBe(2n ** 40n + 2n);
    expect(buffer.readBigUInt64LE(16)).toBe(2n ** 50n + 0xffff_ffffn);
  });

  test("an errno that the kernel would refuse (and leave its caller waiting) is an assertion", () => {
    const buffer = Buffer.alloc(MAX_REPLY_BYTES);
    for (const errno of [0, -2, 512, Number.NaN]) expect(() => encodeError(buffer, 2, errno)).toThrow("errno");
  });
});

describe("listings", () => {
  const name = Buffer.from("four");

  test.each([
    [false, 32],
    [true, 160],
  ])("plus %s: an entry of 4 bytes takes %i, and what does not fit is not begun", (plus, recordBytes) => {
    const buffer = Buffer.alloc(16 + 2 * recordBytes + 8, 0xa5);
    const listing = new DirEncoder(buffer, 2 * recordBytes - 1, plus);
    expect(listing.add(name, 8, 1, 1n)).toBe(true);
    expect(listing.fits(name.length)).toBe(false);
    expect(listing.add(name, 8, 2, 2n)).toBe(false);
    expect(plus && listing.addPlus(name, 8, 2n, 5, 0, attr, true, true)).toBe(false);
    expect(listing.end(2)).toBe(16 + recordBytes);
    expect(buffer.readUInt8(16 + recordBytes)).toBe(0xa5);
  });

  test("an entry that just fits", () => {
    const listing = new DirEncoder(Buffer.alloc(16 + 64), 64, false);
    expect([listing.add(name, 8, 1, 1n), listing.add(name, 8, 1, 2n), listing.add(name, 8, 1, 3n)]).toEqual([true, true, false]);
    expect(listing.end(2)).toBe(80);
  });

  test("a name of 255 bytes, and one that needs no padding", () => {
    const buffer = Buffer.alloc(4096, 0xa5);
    const listing = new DirEncoder(buffer, 4000, false);
    listing.add(Buffer.alloc(255, 0x61), 8, 1, 1n);
    listing.add(Buffer.alloc(8, 0x62), 8, 1, 2n);
    expect(listing.end(2)).toBe(16 + 280 + 32);
    expect(buffer.readUInt8(16 + 24 + 255)).toBe(0);
    expect(buffer.toString("latin1", 16 + 280 + 24, 16 + 280 + 32)).toBe("bbbbbbbb");
  });

  test("larger than its buffer, or lookups in a plain listing: assertions", () => {
    expect(() => new DirEncoder(Buffer.alloc(100), 100, false)).toThrow("buffer of 100");
    expect(() => new DirEncoder(Buffer.alloc(1000), 900, false).addPlus(name, 8, 1n, 5, 0, attr, true, true)).toThrow("addPlus");
  });
});

describe("limits", () => {
  test("a notification names something, and not too much", () => {
    expect(() => notifyInvalEntry(1, Buffer.alloc(0), false)).toThrow("1..1024");
    expect(() => notifyInvalEntry(1, Buffer.alloc(1025, 0x61), false)).toThrow("1..1024");
  });

  test("the buffer that a read of the device has to offer", () => {
    expect(requestBufferBytes(1024 * 1024)).toBe(1024 * 1024 + 80);
    expect(requestBufferBytes(4096)).toBe(8192);
  });
});

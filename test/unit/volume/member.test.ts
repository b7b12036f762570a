/** Where a device says that it is a part of something else, and where such words are left over. */
import { describe, expect, test } from "vitest";
import { SIGNATURE_BYTES, memberSignatures } from "../../../overlay/volume/member.ts";

const MIB = 1024 * 1024;
const DEVICE = 256 * MIB + 7 * 512;
const block = (fill: (bytes: Buffer) => void): Buffer => {
  const bytes = Buffer.alloc(SIGNATURE_BYTES);
  fill(bytes);
  return bytes;
};
const md1 = (at: number): Buffer =>
  block((bytes) => {
    bytes.writeUInt32LE(0xa92b4efc, 0);
    bytes.writeUInt32LE(1, 4);
    bytes.writeBigUInt64LE(BigInt(at / 512), 144);
  });

/** What is found where that block lies, on a device with such a file system. */
const found = (at: number, bytes: Buffer, fileSystemBytes: number): string[] =>
  memberSignatures(DEVICE, fileSystemBytes)
    .filter((signature) => signature.at === at && signature.is(bytes))
    .map(({ what }) => what);

const [end64, end10, end4] = [256 * MIB - 65_536, 256 * MIB - 8192, 256 * MIB - 4096];
const md = "a member of a RAID array (md)";
const little = block((bytes) => bytes.writeUInt32LE(0xa92b4efc, 0));

describe("signatures of a member", () => {
  test.each([
    ["md 0.90", end64, little, md],
    ["md 0.90 of a big-endian machine", end64, block((bytes) => bytes.writeUInt32BE(0xa92b4efc, 0)), md],
    ["md 1.0", end10, md1(end10), md],
    ["md 1.2", 4096, md1(4096), md],
    ["DRBD 8.4", end4, block((bytes) => bytes.writeUInt32BE(0x8374026b, 60)), "the backing device of DRBD"],
    ["DRBD 9", end4, block((bytes) => bytes.writeUInt32BE(0x8374026d, 60)), "the backing device of DRBD"],
  ])("%s", (_, at, bytes, what) => {
    expect(found(at, bytes, 255 * MIB)).toEqual([what]);
    expect(
      found(
        at,
        block(() => {}),
        255 * MIB,
      ),
    ).toEqual([]);
  });

  test("within the file system they are left over, and a copy of an md superblock elsewhere says nothing", () => {
    expect(found(end64, little, 256 * MIB)).toEqual([]);
    expect(found(end10, md1(end10), 256 * MIB)).toEqual([]);
    expect(found(4096, md1(8192), 255 * MIB)).toEqual([]);
    expect(memberSignatures(DEVICE, DEVICE).map(({ at }) => at)).toEqual([4096]);
  });

  test("all that is read lies on the device, at places that can be read directly", () => {
    for (const bytes of [MIB, MIB + 512, 300 * MIB + 4096, 2 ** 44 + 512 * 3])
      for (const { at } of memberSignatures(bytes, 0)) expect([at % 4096, at >= 0 && at + SIGNATURE_BYTES <= bytes]).toEqual([0, true]);
  });
});

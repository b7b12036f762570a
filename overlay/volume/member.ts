/**
 * Signatures by which a device is a part of something else, although a file system begins on it: a leg of a mirror whose superblock lies at its end, the backing
 * device of DRBD, or one that was made a member since. Mounted by itself it parts from the others. A pure decoder.
 *
 * Sources: md-superblock formats 0.90, 1.0 to 1.2 (include/uapi/linux/raid/md_p.h), DRBD's internal metadata (drbd_int.h; magic numbers as in util-linux libblkid).
 */

/** What is read at each of these places. */
export const SIGNATURE_BYTES = 4096;

export interface Signature {
  readonly at: number;
  readonly what: string;
  /** What is to be named instead. */
  readonly instead: string;
  /** Of the bytes at that place. */
  readonly is: (block: Buffer) => boolean;
}

const MD_MAGIC = 0xa92b_4efc;
const MD = { what: "a member of a RAID array (md)", instead: "Assemble the array, and name that (/dev/md...)." } as const;
const DRBD = { what: "the backing device of DRBD", instead: "Name the device of DRBD (/dev/drbd...)." } as const;
const DRBD_MAGICS: ReadonlySet<number> = new Set([0x8374_026b, 0x8374_026c, 0x8374_026d]);
const SECTOR_BYTES = 512;

const isMd0 = (block: Buffer): boolean => block.readUInt32LE(0) === MD_MAGIC || block.readUInt32BE(0) === MD_MAGIC;
/** super_offset says where it lies itself: a copy elsewhere is none. */
const isMd1 = (at: number) => (block: Buffer) =>
  block.readUInt32LE(0) === MD_MAGIC && block.readUInt32LE(4) === 1 && block.readBigUInt64LE(144) === BigInt(at / SECTOR_BYTES);

/** Where to look on a device of so many bytes whose file system has `fileSystemBytes`: behind it, and where that leaves room before its superblock. */
export function memberSignatures(deviceBytes: number, fileSystemBytes: number): Signature[] {
  const atEnd: Signature[] = [
    { at: deviceBytes - (deviceBytes % 65_536) - 65_536, ...MD, is: isMd0 },
    { at: md10(deviceBytes), ...MD, is: isMd1(md10(deviceBytes)) },
    { at: deviceBytes - (deviceBytes % 4096) - 4096, ...DRBD, is: (block) => DRBD_MAGICS.has(block.readUInt32BE(60)) },
  ];
  // What lies within the file system is left over from what the disk was before.
  const behind = atEnd.filter(({ at }) => at >= fileSystemBytes && at + SIGNATURE_BYTES <= deviceBytes);
  return [{ at: 4096, ...MD, is: isMd1(4096) }, ...behind];
}

function md10(deviceBytes: number): number {
  const sectors = Math.floor(deviceBytes / SECTOR_BYTES) - 16;
  return (sectors - (sectors % 8)) * SECTOR_BYTES;
}

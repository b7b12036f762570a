/**
 * Which file system the first bytes of a device are, and what its superblock says about its state: a pure decoder.
 * Sources: fs/ext4/ext4.h (struct ext4_super_block), fs/xfs/libxfs/xfs_format.h (struct xfs_dsb), FreeBSD sys/ufs/ffs/fs.h;
 * magic numbers of the others as in util-linux libblkid.
 */

/** How many bytes of the device `decodeSuperblock` wants: UFS2 has its superblock at 64 KiB. */
export const SUPERBLOCK_BYTES: number = 128 * 1024;

export interface Ext4Superblock {
  readonly type: "ext4";
  readonly uuid: string;
  /** Of the file system: what the device must have at least. */
  readonly bytes: number;
  /** The journal has to be replayed: mounted now (here or on another machine), or not unmounted. */
  readonly needsRecovery: boolean;
  /** EXT4_VALID_FS: unmounted cleanly. */
  readonly valid: boolean;
  /** EXT4_ERROR_FS: the kernel saw an inconsistency. */
  readonly hasErrors: boolean;
  readonly hasJournal: boolean;
  /** Its journal has fast commits, after which a crash may leave what cannot be mounted (hazard R8). */
  readonly hasFastCommit: boolean;
  /** Multiple-mount protection is on. */
  readonly hasMmp: boolean;
  /** Where its block lies, in bytes. */
  readonly mmpOffset: number;
  readonly mmpIntervalS: number;
}

export interface XfsSuperblock {
  readonly type: "xfs";
  readonly uuid: string;
  /** Of its data section: what the device must have at least. */
  readonly bytes: number;
  readonly inodeBytes: number;
  /** Where the root directory's inode lies. */
  readonly rootInodeOffset: number;
}

export interface OtherSuperblock {
  /**
   * `ufs` is known but cannot be written by Linux; `other` is named in `what`; `damaged`: ext4 or XFS with numbers that cannot be; `none`: nothing that we
   * know.
   */
  readonly type: "ufs" | "other" | "damaged" | "none";
  readonly what: string;
}

export type Superblock = Ext4Superblock | XfsSuperblock | OtherSuperblock;

/** `head`: the first SUPERBLOCK_BYTES of the device, or all of it where it is smaller. */
export function decodeSuperblock(head: Uint8Array): Superblock {
  const bytes = Buffer.from(head.buffer, head.byteOffset, head.byteLength);
  // What was there before may stand behind its header still.
  if (bytes.subarray(0, LUKS_MAGIC.length).equals(LUKS_MAGIC)) return { type: "other", what: LUKS };
  if (bytes.length >= 2048 && bytes.readUInt16LE(1024 + 0x38) === 0xef53) return decodeExt4(bytes.subarray(1024, 2048));
  if (bytes.length >= 512 && bytes.readUInt32BE(0) === 0x58465342) return decodeXfs(bytes);
  return { ...nameOther(bytes) };
}

const INCOMPAT_RECOVER = 0x4;
const INCOMPAT_JOURNAL_DEV = 0x8;
const INCOMPAT_64BIT = 0x80;
const INCOMPAT_MMP = 0x100;
const INCOMPAT_CASEFOLD = 0x2_0000;
const COMPAT_HAS_JOURNAL = 0x4;
const COMPAT_FAST_COMMIT = 0x400;
const STATE_VALID = 0x1;
const STATE_ERROR = 0x2;

function decodeExt4(sb: Buffer): Superblock {
  const compat = sb.readUInt32LE(0x5c);
  const incompat = sb.readUInt32LE(0x60);
  if ((incompat & INCOMPAT_JOURNAL_DEV) !== 0) return { type: "other", what: "an external ext4 journal" };
  // A kernel that caches names takes "a" and "A" for two, and would go on with the one when the other is removed.
  if ((incompat & INCOMPAT_CASEFOLD) !== 0)
    return { type: "other", what: "ext4 with the feature casefold: names that differ in case alone are one" };
  const state = sb.readUInt16LE(0x3a);
  const blockLog = sb.readUInt32LE(0x18);
  // EXT4_MAX_BLOCK_LOG_SIZE: 64 KiB.
  if (blockLog > 6) return { type: "damaged", what: "an ext4 superblock with an impossible block size" };
  const blocks = sb.readUInt32LE(0x4) + ((incompat & INCOMPAT_64BIT) === 0 ? 0 : sb.readUInt32LE(0x150) * 2 ** 32);
  const bytes = blocks * 1024 * 2 ** blockLog;
  if (!Number.isSafeInteger(bytes)) return { type: "damaged", what: "an ext4 superblock with an impossible number of blocks" };
  const hasMmp = (incompat & INCOMPAT_MMP) !== 0;
  const mmpOffset = Number(sb.readBigUInt64LE(0x168)) * 1024 * 2 ** blockLog;
  if (hasMmp && mmpOffset > bytes) return { type: "damaged", what: "an ext4 superblock whose block of MMP is behind its end" };
  return {
    type: "ext4",
    uuid: uuidText(sb.subarray(0x68, 0x78)),
    bytes,
    needsRecovery: (incompat & INCOMPAT_RECOVER) !== 0,
    valid: (state & STATE_VALID) !== 0,
    hasErrors: (state & STATE_ERROR) !== 0,
    // One on another device is named by its number there, which is another one on each machine (s_journal_dev).
    hasJournal: (compat & COMPAT_HAS_JOURNAL) !== 0 && sb.readUInt32LE(0xe4) === 0,
    hasFastCommit: (compat & COMPAT_FAST_COMMIT) !== 0,
    hasMmp,
    mmpOffset,
    mmpIntervalS: sb.readUInt16LE(0x166),
  };
}

/** XFS_SB_VERSION_BORGBIT in sb_versionnum: `mkfs.xfs -n version=ci`. */
const XFS_VERSION_ASCII_CI = 0x4000;

function decodeXfs(sb: Buffer): Superblock {
  if ((sb.readUInt16BE(100) & XFS_VERSION_ASCII_CI) !== 0) {
    return { type: "other", what: "XFS that ignores case in names (version=ci)" };
  }
  const blockLog = sb.readUInt8(120);
  const inodeLog = sb.readUInt8(122);
  const inodesPerBlockLog = sb.readUInt8(123);
  const agBlockLog = sb.readUInt8(124);
  // Geometry that the kernel would refuse too (xfs_validate_sb_common): not to be computed with.
  if (blockLog < 9 || blockLog > 16 || inodeLog < 8 || inodeLog > 11 || agBlockLog > 31 || inodesPerBlockLog !== blockLog - inodeLog) {
    return { type: "damaged", what: "an XFS superblock with impossible geometry" };
  }
  const rootInode = sb.readBigUInt64BE(56);
  const inBlock = rootInode & ((1n << BigInt(inodesPerBlockLog)) - 1n);
  const agBlock = (rootInode >> BigInt(inodesPerBlockLog)) & ((1n << BigInt(agBlockLog)) - 1n);
  const ag = rootInode >> BigInt(inodesPerBlockLog + agBlockLog);
  const block = ag * BigInt(sb.readUInt32BE(84)) + agBlock;
  const offset = (block << BigInt(blockLog)) + (inBlock << BigInt(inodeLog));
  if (offset > BigInt(Number.MAX_SAFE_INTEGER)) return { type: "damaged", what: "an XFS superblock with an impossible root inode" };
  const bytes = Number(sb.readBigUInt64BE(8)) * 2 ** blockLog;
  if (!Number.isSafeInteger(bytes)) return { type: "damaged", what: "an XFS superblock with an impossible number of blocks" };
  return { type: "xfs", uuid: uuidText(sb.subarray(32, 48)), bytes, inodeBytes: 1 << inodeLog, rootInodeOffset: Number(offset) };
}

const LUKS_MAGIC: Buffer = Buffer.from("LUKS\xba\xbe", "latin1");
const LUKS = "a LUKS container: open it, and name the device under /dev/mapper";

interface Magic {
  readonly at: number;
  readonly bytes: Buffer;
  readonly what: string;
}

const others: readonly Magic[] = [
  { at: 0x10040, bytes: Buffer.from("_BHRfS_M"), what: "btrfs" },
  { at: 0x10000, bytes: Buffer.from([0x01, 0x16, 0x19, 0x70]), what: "GFS2" },
  { at: 0x0400, bytes: Buffer.from([0x10, 0x20, 0xf5, 0xf2]), what: "f2fs" },
  { at: 0x0800, bytes: Buffer.from("OCFSV2"), what: "OCFS2" },
  { at: 0x1000, bytes: Buffer.from("OCFSV2"), what: "OCFS2" },
  { at: 4086, bytes: Buffer.from("SWAPSPACE2"), what: "a swap area" },
  { at: 512, bytes: Buffer.from("LABELONE"), what: "an LVM physical volume: name a logical volume" },
  { at: 0, bytes: Buffer.from("hsqs"), what: "squashfs" },
  { at: 3, bytes: Buffer.from("NTFS    "), what: "NTFS" },
  { at: 82, bytes: Buffer.from("FAT32   "), what: "FAT" },
  { at: 54, bytes: Buffer.from("FAT1"), what: "FAT" },
  { at: 510, bytes: Buffer.from([0x55, 0xaa]), what: "a partition table: name a partition" },
];

const UFS1_MAGIC = 0x00011954;
const UFS2_MAGIC = 0x19540119;
/** fs_magic is the last word but some of struct fs: at byte 1372 of the superblock. */
const UFS_MAGIC_AT = 1372;

function nameOther(bytes: Buffer): OtherSuperblock {
  for (const at of [65536, 8192, 0, 262144]) {
    const magicAt = at + UFS_MAGIC_AT;
    if (magicAt + 4 > bytes.length) continue;
    for (const word of [bytes.readUInt32LE(magicAt), bytes.readUInt32BE(magicAt)]) {
      if (word === UFS1_MAGIC) return { type: "ufs", what: "UFS1" };
      if (word === UFS2_MAGIC) return { type: "ufs", what: "UFS2" };
    }
  }
  for (const magic of others) {
    if (bytes.subarray(magic.at, magic.at + magic.bytes.length).equals(magic.bytes)) return { type: "other", what: magic.what };
  }
  return { type: "none", what: "nothing that is a file system" };
}

function uuidText(bytes: Buffer): string {
  const hex = bytes.toString("hex");
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

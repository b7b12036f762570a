/**
 * FileId (inode number, generation) <-> struct file_handle of name_to_handle_at(2). A handle holds nothing but the
 * pair, so it is built from the pair and no table of inodes is needed. Layouts (exportfs.h, fs/ext4/namei.c,
 * fs/xfs/xfs_export.h, mm/shmem.c), all checked on real file systems:
 *
 *   ext2 ext3 ext4   type 0x01, 8 bytes   u32 ino, u32 generation
 *   XFS              type 0x81, 12 bytes  u64 ino, u32 generation (0x01 and 8 bytes where inode numbers are 32 bits)
 *   tmpfs            type 0x01, 12 bytes  u32 generation, u64 ino
 */
import { assert, AssertionError } from "../../../dlmd/base/assert.ts";
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import { OperatingError } from "../../../dlmd/base/error.ts";
import type { FileId } from "../lower.ts";

const INO32_GENERATION = 0x01;
const INO64_GENERATION = 0x81;

const HEAD_BYTES = 8;
/** Bytes of the longest file handle built here, with its head. */
export const FILE_HANDLE_BYTES: number = HEAD_BYTES + 12;

const FILE_SYSTEM_NAMES: ReadonlyMap<number, string> = new Map([
  [0xef53, "ext4"],
  [0x58465342, "xfs"],
  [0x01021994, "tmpfs"],
  [0x9123683e, "btrfs"],
  [0x794c7630, "overlayfs"],
  [0x6969, "nfs"],
  [0xff534d42, "cifs"],
  [0x65735546, "fuse"],
  [0xf2f52010, "f2fs"],
  [0x2fc12fc1, "zfs"],
  [0x4d44, "vfat"],
  [0x2011bab0, "exfat"],
  [0x00011954, "ufs"],
  [0x19540119, "ufs2"],
]);

/** "ext4" for 0xef53 of statfs(2); "file system 0x..." for one without a name here. */
export function fileSystemName(type: number): string {
  return FILE_SYSTEM_NAMES.get(type) ?? `file system 0x${type.toString(16)}`;
}

/** How the generation of an inode is found: no file system but these tells it. */
export type FindsGeneration = "any" | "bulkstat" | "never";

export function findsGeneration(fileSystem: string): FindsGeneration {
  return fileSystem === "ext4" ? "any" : fileSystem === "xfs" ? "bulkstat" : "never";
}

export interface FileHandleFormat {
  /** The greatest inode number that fits. */
  readonly inoMax: number;
  /** Throws an assertion if the kernel changed its format under us. */
  decode(handle: Buffer): FileId;
  /** Writes the handle of `id` into `handle` (at least FILE_HANDLE_BYTES). ESTALE: its number does not fit, so no inode has it; other nodes name any. */
  encode(id: FileId, handle: Buffer): void;
}

function writeHead(handle: Buffer, bytes: number, type: number): void {
  handle.writeUInt32LE(bytes, 0);
  handle.writeInt32LE(type, 4);
}

function checkHead(handle: Buffer, bytes: number, type: number): void {
  const foundBytes = handle.readUInt32LE(0);
  const foundType = handle.readInt32LE(4);
  if (foundBytes !== bytes || foundType !== type)
    throw new AssertionError(`file handle of type ${type} with ${bytes} bytes expected, found type ${foundType} with ${foundBytes}`);
}

function readU64(handle: Buffer, at: number): number {
  const value = handle.readUInt32LE(at + 4) * 0x1_0000_0000 + handle.readUInt32LE(at);
  assert(Number.isSafeInteger(value), "inode number of more than 53 bits");
  return value;
}

function writeU64(handle: Buffer, value: number, at: number): void {
  handle.writeUInt32LE(value % 0x1_0000_0000, at);
  handle.writeUInt32LE(Math.floor(value / 0x1_0000_0000), at + 4);
}

const ino32Format: FileHandleFormat = {
  inoMax: 0xffff_ffff,
  decode(handle) {
    checkHead(handle, 8, INO32_GENERATION);
    return { ino: handle.readUInt32LE(HEAD_BYTES), generation: handle.readUInt32LE(HEAD_BYTES + 4) };
  },
  encode(id, handle) {
    if (id.ino > ino32Format.inoMax) throw errnoError(E.ESTALE);
    writeHead(handle, 8, INO32_GENERATION);
    handle.writeUInt32LE(id.ino, HEAD_BYTES);
    handle.writeUInt32LE(id.generation, HEAD_BYTES + 4);
  },
};

const ino64Format: FileHandleFormat = {
  inoMax: Number.MAX_SAFE_INTEGER,
  decode(handle) {
    checkHead(handle, 12, INO64_GENERATION);
    return { ino: readU64(handle, HEAD_BYTES), generation: handle.readUInt32LE(HEAD_BYTES + 8) };
  },
  encode(id, handle) {
    writeHead(handle, 12, INO64_GENERATION);
    writeU64(handle, id.ino, HEAD_BYTES);
    handle.writeUInt32LE(id.generation, HEAD_BYTES + 8);
  },
};

const tmpfsFormat: FileHandleFormat = {
  inoMax: Number.MAX_SAFE_INTEGER,
  decode(handle) {
    checkHead(handle, 12, INO32_GENERATION);
    return { ino: readU64(handle, HEAD_BYTES + 4), generation: handle.readUInt32LE(HEAD_BYTES) };
  },
  encode(id, handle) {
    writeHead(handle, 12, INO32_GENERATION);
    handle.writeUInt32LE(id.generation, HEAD_BYTES);
    writeU64(handle, id.ino, HEAD_BYTES + 4);
  },
};

/** The format of the file system that made `handle` (of its root). OperatingError for one that is not supported. */
export function fileHandleFormat(handle: Buffer, fileSystem: string): FileHandleFormat {
  const bytes = handle.readUInt32LE(0);
  const type = handle.readInt32LE(4);
  if (type === INO64_GENERATION && bytes === 12) return ino64Format;
  if (type === INO32_GENERATION && bytes === 8) return ino32Format;
  if (type === INO32_GENERATION && bytes === 12 && fileSystem === "tmpfs") return tmpfsFormat;
  throw new OperatingError(
    `the lower file system is ${fileSystem}, whose file handles (type 0x${type.toString(16)}, ${bytes} bytes) are not understood`,
    { code: "unsupported-lower", hint: "Use ext4, ext3, ext2, XFS or (for tests) tmpfs as the lower file system." },
  );
}

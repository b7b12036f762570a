/**
 * The file that keeps the place of the owner's block on a volume: one block, written and immutable, so that neither the file system
 * nor its tools move it (fsck and defragmenters leave it alone; a resize that moves it is found by checkOwnerFile at the next mount).
 */
import { constants } from "node:fs";
import { E, errnoName } from "../../dlmd/base/errno.ts";
import { OperatingError } from "../../dlmd/base/error.ts";
import { OWNER_FILE } from "../lower/reserved-names.ts";
import { HANDLE_BUFFER_BYTES, STAT, nativeAddon } from "../../native/index.ts";
import { OWNER_BLOCK_BYTES } from "./owner-block.ts";

/** linux/fs.h */
const FS_IMMUTABLE_FL = 0x10;
/** linux/fiemap.h: struct fiemap, struct fiemap_extent, and the only flags of an extent that lies where it says. */
const FIEMAP_BYTES = 32;
const FIEMAP_EXTENT_BYTES = 56;
const FIEMAP_EXTENT_LAST = 0x1;
const FIEMAP_EXTENT_MERGED = 0x1000;

const NAME: Buffer = Buffer.from(OWNER_FILE);
const S_IFMT = 0o170000;
const S_IFREG = 0o100000;

/** Makes it anew, with those bytes, in the root directory of a mounted volume. Gives the byte offset on the device. */
export function createOwnerFile(rootFd: number, content: Uint8Array, where: string): number {
  removeOwnerFile(rootFd, where);
  const { sync } = nativeAddon();
  const flags = constants.O_RDWR;
  const fd = sync.create(rootFd, NAME, flags, 0o600, 0, 0, 0, new Float64Array(STAT.FIELDS), Buffer.alloc(HANDLE_BUFFER_BYTES));
  if (fd < 0) throw failed(where, "making", -fd);
  try {
    // In one piece, where the file system can (ext4 without extents cannot); the place is looked at below in any case.
    const allocated = sync.fallocate(fd, 0, 0, OWNER_BLOCK_BYTES);
    if (allocated < 0 && allocated !== -E.EOPNOTSUPP) throw failed(where, "allocating", -allocated);
    const bytes = Buffer.from(content);
    const written = sync.write(fd, bytes, 0, bytes.length, 0, 0);
    if (written !== OWNER_BLOCK_BYTES) throw failed(where, "writing", written < 0 ? -written : E.EIO);
    for (const result of [sync.fsync(fd, false), sync.setFileFlags(fd, FS_IMMUTABLE_FL), sync.fsync(fd, false), sync.syncfs(rootFd)])
      if (result < 0) throw failed(where, "writing back", -result);
    const map = roomForExtents();
    const place = placeIn(map, sync.extents(fd, map));
    if (typeof place === "number") return place;
    throw new OperatingError(`${where}: the owner's block cannot be kept: ${place}`, {
      code: "owner-file",
      hint: "The file system has no 4096 bytes in one piece, or it compresses, shares or encrypts: use a plain ext4 or XFS with some room.",
      exitStatus: 32,
    });
  } finally {
    sync.close(fd);
  }
}

/** Nothing happens if it is not there. Throws OperatingError "name-taken" for what is not a regular file. */
export function removeOwnerFile(rootFd: number, where: string): void {
  const { sync } = nativeAddon();
  const fd = sync.openat2(rootFd, NAME, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK, 0, 0);
  if (fd === -E.ENOENT) return;
  if (fd < 0) throw nameTaken(where, errnoName(-fd));
  try {
    const stat = new Float64Array(STAT.FIELDS);
    sync.stat(fd, stat);
    if (((stat[STAT.MODE] as number) & S_IFMT) !== S_IFREG) throw nameTaken(where, "it is no regular file");
    const cleared = sync.setFileFlags(fd, 0);
    const removed = cleared < 0 ? cleared : sync.unlink(rootFd, NAME, 0);
    if (removed < 0) throw failed(where, "removing", -removed);
  } finally {
    sync.close(fd);
  }
}

/** After a mount: the block still lies where the bit says, and nothing but coverlay can move it. Throws OperatingError "owner-block-moved". */
export async function checkOwnerFile(rootFd: number, offset: number, where: string): Promise<void> {
  const problem = await problemOf(rootFd, offset);
  if (problem === null) return;
  throw new OperatingError(`${where}: the owner's block is not where the clustered bit says: ${problem}`, {
    code: "owner-block-moved",
    hint: "Was the file system resized or copied? Unmount it on all nodes, then `coverlay volume enable` with the same names and uuid makes the block anew.",
    exitStatus: 32,
  });
}

async function problemOf(rootFd: number, offset: number): Promise<string | null> {
  const pool = nativeAddon().pool.sync;
  const fd = await pool.openat2(rootFd, NAME, constants.O_RDONLY | constants.O_NOFOLLOW, 0, 0);
  if (fd < 0) return `${OWNER_FILE} cannot be opened: ${errnoName(-fd)}`;
  try {
    const map = roomForExtents();
    const place = placeIn(map, await pool.extents(fd, map));
    if (typeof place !== "number") return place;
    if (place !== offset) return `it lies at byte ${place}, ${offset} expected`;
    const flags = await pool.fileFlags(fd);
    return flags >= 0 && (flags & FS_IMMUTABLE_FL) !== 0 ? null : `${OWNER_FILE} is not immutable any more`;
  } finally {
    await pool.close(fd);
  }
}

function roomForExtents(): Buffer {
  return Buffer.alloc(FIEMAP_BYTES + 2 * FIEMAP_EXTENT_BYTES);
}

/** The byte offset on the device, or why there is none. `count`: what the kernel's answer in `map` came with. */
function placeIn(map: Buffer, count: number): number | string {
  if (count < 0) return `FIEMAP: ${errnoName(-count)}`;
  if (count !== 1) return `${count} extents, 1 expected`;
  const extent = map.subarray(FIEMAP_BYTES);
  const [logical, physical, length] = [0, 8, 16].map((at) => Number(extent.readBigUInt64LE(at))) as [number, number, number];
  const flags = extent.readUInt32LE(40);
  if ((flags & ~(FIEMAP_EXTENT_LAST | FIEMAP_EXTENT_MERGED)) !== 0) return `an extent with flags 0x${flags.toString(16)}`;
  if (logical !== 0 || length < OWNER_BLOCK_BYTES) return `an extent of ${length} bytes at ${logical}`;
  return physical;
}

function nameTaken(where: string, why: string): OperatingError {
  return new OperatingError(`${where}: its root directory has ${OWNER_FILE}, which coverlay needs: ${why}`, {
    code: "name-taken",
    hint: "Rename it: names that are .coverlay or begin with .coverlay. belong to coverlay in a volume's root directory.",
    exitStatus: 32,
  });
}

function failed(where: string, what: string, errno: number): OperatingError {
  return new OperatingError(`${where}: ${what} ${OWNER_FILE} failed: ${errnoName(errno)}`, {
    code: "owner-file",
    hint: "Is the file system full, or read-only? See dmesg.",
    exitStatus: 32,
  });
}

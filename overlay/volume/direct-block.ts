/**
 * The owner's block on its device (hazard R13): opened, read and written with O_DIRECT by threads of a pool, because a disk that hangs must not stop
 * the serving thread: not that of the syncs, behind which a look would come late. Each write is on the
 * disk (O_DSYNC), and read back, before it counts.
 */
import { constants, realpathSync } from "node:fs";
import { errnoName } from "../../dlmd/base/errno.ts";
import { OperatingError, WireError } from "../../dlmd/base/error.ts";
import { nativeAddon } from "../../native/index.ts";
import { AT_FDCWD } from "./device.ts";
import {
  OWNER_BLOCK_BYTES,
  OWNER_BLOCK_VERSION,
  type OwnerBlock,
  decodeOwnerBlock,
  encodeOwnerBlock,
  versionOfBlock,
} from "./owner-block.ts";
import { MAX_DEVICE_BYTES } from "./owner-record.ts";

/** Bytes of a device, without the page cache. Throws OperatingError "device-io". */
export async function readDeviceBlock(device: string, offset: number, bytes: number): Promise<Buffer> {
  const buffer = Buffer.alloc(bytes);
  const got = await withDevice(device, constants.O_RDONLY, (fd) => nativeAddon().pool.metadata.readDirect(fd, buffer, offset));
  if (got !== bytes) throw deviceIo(device, "reading", offset, got < 0 ? errnoName(-got) : `${got} bytes of ${bytes}`);
  return buffer;
}

/** Throws OperatingError "owner-block-damaged", "owner-block-version", "device-io". */
export async function readOwnerBlock(device: string, offset: number, volumeUuid: string): Promise<OwnerBlock> {
  return parseOwnerBlock(await readDeviceBlock(device, offset, OWNER_BLOCK_BYTES), device, offset, volumeUuid);
}

/** Throws OperatingError "owner-block-damaged"; "owner-block-version" if a later coverlay wrote it. */
export function parseOwnerBlock(bytes: Uint8Array, device: string, offset: number, volumeUuid: string): OwnerBlock {
  try {
    requireKnownVersion(versionOfBlock(bytes), device, offset);
    const block = decodeOwnerBlock(bytes);
    if (block.volumeUuid === volumeUuid) return block;
    throw new WireError(`it is that of volume ${block.volumeUuid}`);
  } catch (error) {
    if (!(error instanceof WireError)) throw error;
    throw new OperatingError(`${device}: the owner's block at byte ${offset} is damaged, or lies elsewhere now: ${error.message}`, {
      code: "owner-block-damaged",
      hint: "Nobody can tell which node has the volume mounted. Unmount it on all nodes, or power them off; then `coverlay volume enable` with the same names and uuid writes the block anew.",
      cause: error,
      exitStatus: 32,
    });
  }
}

/** It is whole, and may name an owner: nothing may be written over it. */
function requireKnownVersion(version: number, device: string, offset: number): void {
  if (version <= OWNER_BLOCK_VERSION) return;
  throw new OperatingError(
    `${device}: a later coverlay wrote the owner's block at byte ${offset}: version ${version} found, at most ${OWNER_BLOCK_VERSION} expected`,
    {
      code: "owner-block-version",
      hint: "Only that coverlay can say which node has the volume mounted: install on this node the version that the other nodes have.",
      exitStatus: 32,
    },
  );
}

/** Resolves once the disk says the same. Throws OperatingError "device-io", "owner-block-not-on-disk". */
export async function writeOwnerBlock(device: string, offset: number, block: OwnerBlock): Promise<void> {
  const bytes = Buffer.from(encodeOwnerBlock(block));
  const written = await withDevice(device, constants.O_RDWR | constants.O_DSYNC, (fd) =>
    nativeAddon().pool.metadata.writeDirect(fd, bytes, offset),
  );
  if (written !== bytes.length) throw deviceIo(device, "writing", offset, written < 0 ? errnoName(-written) : `${written} bytes`);
  if ((await readDeviceBlock(device, offset, bytes.length)).equals(bytes)) return;
  throw new OperatingError(`${device}: the owner's block was written, but the disk says something else`, {
    code: "owner-block-not-on-disk",
    hint: "Another node writes to it at the same time, or something between here and the disk keeps writes back: see dmesg.",
    exitStatus: 32,
  });
}

/**
 * The kernel reports an error of a write-back to the next one who syncs the device (lib/errseq.c), also if that write was of a mount that
 * is gone. Before a mount nothing of this process is under way, so what is reported here is old, and later errors are new.
 */
export async function forgetOldErrors(device: string): Promise<void> {
  await withDevice(device, constants.O_RDONLY, (fd) => nativeAddon().pool.sync.fsync(fd, false));
}

async function withDevice(device: string, flags: number, use: (fd: number) => Promise<number>): Promise<number> {
  const pool = nativeAddon().pool.metadata;
  const fd = await pool.openat2(AT_FDCWD, Buffer.from(device), flags | constants.O_DIRECT, 0, 0);
  if (fd < 0) return fd;
  try {
    return await use(fd);
  } finally {
    // The last close of a device writes back what the page cache has of it.
    await pool.close(fd);
  }
}

function deviceIo(device: string, what: string, offset: number, found: string): OperatingError {
  return new OperatingError(`${device}: ${what} the block at byte ${offset} failed: ${found}`, {
    code: "device-io",
    hint: "The path to the disk is broken, or it is not a disk: look at dmesg.",
    exitStatus: 32,
  });
}

/** The kernel's name of a device that may have been named by a link. Throws OperatingError "device-name". */
export function kernelName(device: string): string {
  const real = realpathSync(device);
  if (Buffer.byteLength(real) <= MAX_DEVICE_BYTES) return real;
  throw new OperatingError(`${real}: the name of the device has more than ${MAX_DEVICE_BYTES} bytes`, {
    code: "device-name",
    hint: "The owner's record has no room for it: make a device node with a shorter name.",
    exitStatus: 32,
  });
}

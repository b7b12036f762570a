/**
 * Mounting the lower of a volume on its owner: a device in a mount that is in no namespace (hazard C2), a directory as it is.
 * The bit is checked again after mounting, because what was read before may have changed, and each mount of an owner raises
 * the epoch that is kept on the volume itself: no two owners, ever, have the same one.
 */
import { closeSync, constants, openSync } from "node:fs";
import { errnoName } from "../../dlmd/base/errno.ts";
import { OperatingError } from "../../dlmd/base/error.ts";
import { nativeAddon } from "../native/index.ts";
import { BIT_XATTR, type Bit, EPOCH_XATTR, decodeBit } from "./bit.ts";
import { MountAttr, getAttribute, mountDetached, releaseDetached, setAttribute } from "./detached.ts";
import { isReadOnlyDevice } from "./device.ts";
import { dirtyReason, probeSuperblock } from "./probe.ts";

export interface LowerSource {
  readonly kind: "device" | "directory";
  /** Path of the device or directory. */
  readonly path: string;
}

export interface LowerMount {
  readonly source: LowerSource;
  /** The root directory, opened for reading: also the mount descriptor for open_by_handle_at. */
  readonly rootFd: number;
  /** "ext4", "xfs", or "directory". */
  readonly type: string;
  readonly readOnly: boolean;
  /** This owner's: higher than that of every owner before. */
  readonly epoch: number;
  /**
   * Writes back, unmounts, and resolves once that is proved. All other descriptors of the file system must be closed before. Throws
   * OperatingError "not-released": then nobody else may be told that the volume is free.
   */
  release(): Promise<void>;
}

/**
 * `expected`: cluster and uuid that the volume must have. `epochAbove`: the highest epoch heard of so far. Throws
 * OperatingError: "device-missing", "device-busy", "mount-failed", "device-read-only", "no-bit", "other-bit", "bad-bit" ...
 */
export async function mountLower(source: LowerSource, expected: Bit, readOnly: boolean, epochAbove: number): Promise<LowerMount> {
  return source.kind === "device"
    ? mountDevice(source, expected, readOnly, epochAbove)
    : openDirectory(source, expected, readOnly, epochAbove);
}

const MAX_EPOCH = 2 ** 48;

async function mountDevice(source: LowerSource, expected: Bit, readOnly: boolean, epochAbove: number): Promise<LowerMount> {
  const device = source.path;
  const superblock = probeSuperblock(device);
  if (!readOnly && isReadOnlyDevice(device)) {
    throw new OperatingError(`${device} is a read-only device`, {
      code: "device-read-only",
      hint: "Mount with -o ro on every node, or make the device writable (blockdev --setrw).",
      exitStatus: 32,
    });
  }
  const options = [...(readOnly ? ["ro"] : []), ...(superblock.type === "ext4" ? ["errors=remount-ro"] : [])];
  const attributes = MountAttr.NODEV | MountAttr.NOEXEC | (readOnly ? MountAttr.RDONLY : 0);
  const mount = mountDetached(device, superblock.type, options, attributes);
  try {
    requireBit(mount.rootFd, expected, device);
    const epoch = raiseEpoch(mount.rootFd, epochAbove, readOnly, device);
    return {
      source,
      rootFd: mount.rootFd,
      type: superblock.type,
      readOnly,
      epoch,
      release: async () => {
        await releaseDetached(mount, device);
        if (!readOnly) requireClean(device);
      },
    };
  } catch (error) {
    await releaseDetached(mount, device);
    throw error;
  }
}

/** Hazard C3: a file system that aborted its journal unmounts too; only a clean one was really released. */
function requireClean(device: string): void {
  const dirty = dirtyReason(device, probeSuperblock(device));
  if (dirty === null) return;
  throw new OperatingError(`${device} was unmounted, but is not clean: ${dirty}`, {
    code: "not-released",
    hint: "The disk or its path failed while it was mounted: see dmesg, and check the file system with fsck.",
    exitStatus: 32,
  });
}

async function openDirectory(source: LowerSource, expected: Bit, readOnly: boolean, epochAbove: number): Promise<LowerMount> {
  const rootFd = openSync(source.path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    requireBit(rootFd, expected, source.path);
    const epoch = raiseEpoch(rootFd, epochAbove, readOnly, source.path);
    return {
      source,
      rootFd,
      type: "directory",
      readOnly,
      epoch,
      release: async () => {
        const synced = nativeAddon().sync.syncfs(rootFd);
        closeSync(rootFd);
        if (synced < 0) throw syncFailed(source.path, -synced);
      },
    };
  } catch (error) {
    closeSync(rootFd);
    throw error;
  }
}

function syncFailed(where: string, errno: number): OperatingError {
  return new OperatingError(`${where}: the last write-back failed with ${errnoName(errno)}`, {
    code: "not-released",
    hint: "See dmesg.",
    exitStatus: 32,
  });
}

/** What was mounted is what was meant. */
function requireBit(rootFd: number, expected: Bit, where: string): void {
  const value = getAttribute(rootFd, BIT_XATTR, where);
  if (value === null) throw noBit(where);
  const bit = decodeBit(value, where);
  if (bit.uuid === expected.uuid && bit.cluster === expected.cluster) return;
  throw new OperatingError(
    `${where} is volume ${bit.volume} (${bit.uuid}) of cluster ${bit.cluster}; ${expected.uuid} of cluster ${expected.cluster} is expected`,
    { code: "other-bit", hint: "Another disk has this name now: look at lsblk -f, and mount by /dev/disk/by-uuid.", exitStatus: 32 },
  );
}

export function noBit(where: string): OperatingError {
  return new OperatingError(`${where} has no clustered bit`, {
    code: "no-bit",
    hint: `If it is to be shared by the cluster: coverlay volume enable ${where} --cluster NAME`,
    exitStatus: 32,
  });
}

/** Reads, raises and stores the volume's epoch; it is on disk before anybody hears of it. A read-only volume only counts in memory. */
function raiseEpoch(rootFd: number, epochAbove: number, readOnly: boolean, where: string): number {
  const stored = getAttribute(rootFd, EPOCH_XATTR, where);
  const before = stored === null ? 0 : Number(stored.toString("latin1"));
  if (!Number.isInteger(before) || before < 0 || before >= MAX_EPOCH) {
    throw new OperatingError(`${where}: ${EPOCH_XATTR} is damaged: a count is expected`, {
      code: "bad-bit",
      hint: "Unmount the volume everywhere, then clear and set its bit: coverlay volume disable, enable (the same uuid).",
      exitStatus: 32,
    });
  }
  const epoch = Math.max(before, epochAbove) + 1;
  if (readOnly) return epoch;
  setAttribute(rootFd, EPOCH_XATTR, Buffer.from(String(epoch)), where);
  const synced = nativeAddon().sync.syncfs(rootFd);
  if (synced < 0) throw syncFailed(where, -synced);
  return epoch;
}

/**
 * Mounting the lower of a volume on its owner: a device in a mount that is in no namespace (hazard C2), a directory as it is.
 * The bit is checked again after mounting, because what was read before may have changed (hazard R13), and each mount of an owner raises
 * the epoch that is kept on the volume itself: no two owners, ever, have the same one. The owner's block names this life before the
 * device is touched, and is given back after the unmount was proved (taking.ts).
 */
import { closeSync, constants, fstatSync, openSync } from "node:fs";
import { errnoName } from "../../dlmd/base/errno.ts";
import { OperatingError } from "../../dlmd/base/error.ts";
import { nativeAddon } from "../../native/index.ts";
import { BIT_XATTR, type Bit, EPOCH_XATTR, type StoredBit, decodeBit, requireOwnerBlock } from "./bit.ts";
import { cleanAfter, letGoAfter } from "./clean-after.ts";
import {
  type DetachedMount,
  MountAttr,
  dropDetached,
  getAttributeInPool,
  letGo,
  mountDetached,
  releaseDetached,
  requireFree,
  setAttributeInPool,
  shutDownDetached,
} from "./detached.ts";
import { isReadOnlyDevice } from "./device.ts";
import { requireNotNested, requirePlace } from "./directory-place.ts";
import { isFileSystemRoot } from "./file-system-root.ts";
import { Growth, requireDeviceWhole } from "./growth.ts";
import { checkOwnerFile } from "./owner-file.ts";
import { dirtyReasonInBackground, probeSuperblockInPool, requireJournal } from "./probe.ts";
import { ShutDown } from "./shut-down.ts";
import { type Taken, type Taking, isAnothers, takeDevice, undo } from "./taking.ts";

export interface LowerSource {
  readonly kind: "device" | "directory";
  /** Path of the device or directory. */
  readonly path: string;
}

export interface LowerMount {
  readonly source: LowerSource;
  /** The root directory, opened for reading: also the mount descriptor for open_by_handle_at. */
  readonly rootFd: number;
  /** A directory inside of its file system: hazard R19. */
  readonly contained: boolean;
  /** "ext4", "xfs", or "directory". */
  readonly type: string;
  readonly readOnly: boolean;
  /** This owner's: higher than that of every owner before. */
  readonly epoch: number;
  /** Epoch of the owner before, if all that it had executed is on the disk; 0: not known (clean-after.ts). */
  readonly cleanAfter: number;
  /** Epoch of the owner before, if it let go of a failed disk: what it did not answer is made again; else 0. */
  readonly letGoAfter: number;
  /** Why the disk was not clean before it was mounted, in words; null: it was. */
  readonly dirty: string | null;
  /** The owner's block still names this life. Throws what Taken.confirm does, and "device-silent". */
  confirm(): Promise<void>;
  /** Null: a directory has no device that could be larger. */
  readonly growth: Growth | null;
  /** The block names another life, so the disk is another's: nothing more is written to it. Throws "not-shut-down". */
  stopWriting(): Promise<void>;
  /**
   * Writes back, unmounts, and resolves once that is proved. All other descriptors of the file system must be closed before. Throws
   * OperatingError "not-released": then nobody else may be told that the volume is free. "let-go": it is free, and not clean.
   * What Taken.confirm throws of a disk that is another's: it was unmounted, nothing was written back, and the block goes on naming the other.
   * That proves nothing to other nodes, so this one stays withdrawn. "not-shut-down": the same, but the unmount wrote back.
   */
  release(): Promise<void>;
}

/**
 * `expected`: cluster and uuid that the volume must have, and where its owner's block lies. `epochAbove`: the highest epoch heard of so
 * far. Throws OperatingError: "device-missing", "no-journal", "device-busy", "mount-failed", "device-read-only", "no-bit", "other-bit",
 * "fast-commit", "bad-bit" ..., and what takeDevice and checkOwnerFile throw.
 */
export async function mountLower(
  source: LowerSource,
  expected: StoredBit,
  readOnly: boolean,
  epochAbove: number,
  taking: Taking,
): Promise<LowerMount> {
  return source.kind === "device"
    ? mountDevice(source, expected, readOnly, epochAbove, taking)
    : openDirectory(source, expected, readOnly, epochAbove);
}

const MAX_EPOCH = 2 ** 48;

async function mountDevice(
  source: LowerSource,
  expected: StoredBit,
  readOnly: boolean,
  epochAbove: number,
  taking: Taking,
): Promise<LowerMount> {
  const device = source.path;
  const offset = requireOwnerBlock(expected, device);
  const { disk } = taking;
  const superblock = await disk.ask("reading its superblock", () => probeSuperblockInPool(device));
  requireJournal(device, superblock);
  if (!readOnly && isReadOnlyDevice(device)) {
    throw new OperatingError(`${device} is a read-only device`, {
      code: "device-read-only",
      hint: "Mount with -o ro on every node, or make the device writable (blockdev --setrw).",
      exitStatus: 32,
    });
  }
  // Busy on this machine: nothing of it may be changed, the block neither.
  await disk.ask("looking whether it is in use", () => requireFree(device));
  const dirty = await disk.carryOut("looking whether it is clean", () => dirtyReasonInBackground(device, superblock));
  taking.foundClean?.(cleanAfter(taking.claim, dirty));
  const taken = await takeDevice({ device, offset, volumeUuid: expected.uuid, superblock, readOnly, epoch: epochAbove + 1, taking });
  const options = [...(readOnly ? ["ro"] : []), ...(superblock.type === "ext4" ? ["errors=remount-ro"] : [])];
  const attributes = MountAttr.NODEV | MountAttr.NOEXEC | (readOnly ? MountAttr.RDONLY : 0);
  let mount: DetachedMount;
  try {
    const before = (): void => taken.requireLease();
    mount = await disk.carryOut("mounting it", () => mountDetached(device, superblock.type, options, attributes, before));
  } catch (error) {
    return taken.undo(error);
  }
  const shutDown = new ShutDown(() => shutDownDetached(mount, device));
  const confirm = (): Promise<void> => disk.ask("reading the owner's block", () => taken.confirm());
  const mounted = { device, type: superblock.type, rootFd: mount.rootFd };
  const growth = new Growth({ ...mounted, confirm });
  const release = async (): Promise<void> => {
    // Its calls have a descriptor that the release closes.
    await growth.stop();
    await disk.carryOut("releasing it", () => releaseDevice(mount, shutDown, device, readOnly, taken));
  };
  try {
    taken.mountedOn(fstatSync(mount.rootFd).dev);
    const epoch = await disk.carryOut("looking at its bit and block", async () => {
      // A write that was late may have covered the block since: then others may not know that this node has the device.
      await taken.confirm();
      await requireSameBit(mount.rootFd, expected, device);
      await checkOwnerFile(mount.rootFd, offset, device);
      await requireDeviceWhole(mounted);
      // Not below that of the block, so that a record of this owner is never older than its life.
      return raiseEpoch(mount.rootFd, Math.max(epochAbove, taken.epoch - 1), readOnly, device);
    });
    return {
      source,
      rootFd: mount.rootFd,
      contained: false,
      type: superblock.type,
      readOnly,
      epoch,
      cleanAfter: cleanAfter(taking.claim, dirty),
      letGoAfter: letGoAfter(taking.claim),
      dirty,
      confirm,
      growth,
      stopWriting: () => disk.carryOut("shutting it down", () => shutDown.run()),
      release,
    };
  } catch (error) {
    const end = (): Promise<void> => disk.carryOut("giving it up", () => dropShort(mount, shutDown, device, taken));
    return undo(device, error, isShort(error) ? end : release);
  }
}

const isShort = (error: unknown): boolean => error instanceof OperatingError && error.code === "device-short";

/** Hazard R18: the counts of what lies beyond the end of the device are not known, and a clean unmount would write them. */
async function dropShort(mount: DetachedMount, shutDown: ShutDown, device: string, taken: Taken): Promise<void> {
  await shutDown.run();
  await dropDetached(mount, device);
  await taken.giveBack();
}

/** The block names this life until nothing of it can reach the disk any more: a release that is not proved is not written. */
async function releaseDevice(mount: DetachedMount, shutDown: ShutDown, device: string, readOnly: boolean, taken: Taken): Promise<void> {
  const anothers = await findAnothers(taken);
  if (anothers !== null) {
    const failed = await shutDown.run().then(() => null, asError);
    await dropDetached(mount, device);
    throw failed ?? anothers;
  }
  shutDown.forbid();
  await releaseDetached(mount, device);
  try {
    if (!readOnly) await requireClean(device);
    await taken.giveBack();
  } catch (error) {
    if (isAnothers(error)) throw error;
    throw letGo(device, asError(error).message);
  }
}

/** Why the disk is another's, before anything is written back to it; null: it is not, or does not say. */
async function findAnothers(taken: Taken): Promise<Error | null> {
  try {
    await taken.confirm();
    return null;
  } catch (error) {
    return isAnothers(error) ? asError(error) : null;
  }
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}

/** Hazard C3: a file system that aborted its journal unmounts too; only of a clean one is all on the disk. */
async function requireClean(device: string): Promise<void> {
  const dirty = await dirtyReasonInBackground(device, await probeSuperblockInPool(device));
  if (dirty !== null) throw letGo(device, dirty);
}

async function openDirectory(source: LowerSource, expected: Bit, readOnly: boolean, epochAbove: number): Promise<LowerMount> {
  const rootFd = openSync(source.path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    const contained = !isFileSystemRoot(rootFd, source.path);
    await requireBit(rootFd, expected, source.path);
    requirePlace(rootFd, source.path);
    requireNotNested(source.path);
    const epoch = await raiseEpoch(rootFd, epochAbove, readOnly, source.path);
    return {
      source,
      rootFd,
      contained,
      type: "directory",
      readOnly,
      epoch,
      cleanAfter: 0,
      letGoAfter: 0,
      dirty: null,
      confirm: async () => {},
      growth: null,
      stopWriting: async () => {},
      release: async () => {
        const synced = await nativeAddon().pool.sync.syncfs(rootFd);
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

async function requireSameBit(rootFd: number, expected: StoredBit, device: string): Promise<void> {
  const bit = await requireBit(rootFd, expected, device);
  if (bit.ownerBlock === expected.ownerBlock) return;
  throw new OperatingError(`${device}: the owner's block is at byte ${bit.ownerBlock} now, ${expected.ownerBlock} expected`, {
    code: "owner-block-moved",
    hint: "The clustered bit was set anew meanwhile: mount again.",
    exitStatus: 32,
  });
}

/** What was mounted is what was meant. */
async function requireBit(rootFd: number, expected: Bit, where: string): Promise<StoredBit> {
  const value = await getAttributeInPool(rootFd, BIT_XATTR, where);
  if (value === null) throw noBit(where);
  const bit = decodeBit(value, where);
  if (bit.uuid === expected.uuid && bit.cluster === expected.cluster) return bit;
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
async function raiseEpoch(rootFd: number, epochAbove: number, readOnly: boolean, where: string): Promise<number> {
  const stored = await getAttributeInPool(rootFd, EPOCH_XATTR, where);
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
  await setAttributeInPool(rootFd, EPOCH_XATTR, Buffer.from(String(epoch)), where);
  const synced = await nativeAddon().pool.sync.syncfs(rootFd);
  if (synced < 0) throw syncFailed(where, -synced);
  return epoch;
}

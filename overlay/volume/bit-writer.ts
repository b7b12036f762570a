/**
 * Sets and clears the clustered bit. On a device: by a mount that is in no namespace (hazard C2), only when nobody has the device
 * and it is clean, and the result is read back from the disk. On a directory: at once.
 */
import { closeSync, constants, fsyncSync, openSync } from "node:fs";
import { OperatingError } from "../../dlmd/base/error.ts";
import { BIT_XATTR, type Bit, EPOCH_XATTR, encodeBit } from "./bit.ts";
import { MountAttr, getAttribute, mountDetached, releaseDetached, removeAttribute, setAttribute } from "./detached.ts";
import { describeHolders, tryExclusive, isReadOnlyDevice } from "./device.ts";
import { type BitState, type Probe, bitState, dirtyReason, probeDevice } from "./probe.ts";

/**
 * Sets the bit of a device; nothing happens if it is set to just that. Throws OperatingError "device-busy", "dirty", "device-read-only",
 * "other-bit", "bad-bit", and what probeDevice throws.
 */
export async function enableDevice(device: string, bit: Bit): Promise<void> {
  const value = encodeBit(bit);
  const probe = probeDevice(device);
  requireIdle(probe, "enable");
  if (refuseOtherBit(device, probe.bit, bit)) return;
  await changeRoot(probe, (rootFd) => setAttribute(rootFd, BIT_XATTR, value, device));
  const after = probeDevice(device).bit;
  if (after.kind !== "set" || after.bit.uuid !== bit.uuid) throw notOnDisk(device, "set");
}

/** Clears the bit, whatever it says. True: there was one. Throws as enableDevice. */
export async function disableDevice(device: string): Promise<boolean> {
  const probe = probeDevice(device);
  if (probe.bit.kind === "none") return false;
  requireIdle(probe, "disable");
  await changeRoot(probe, (rootFd) => {
    removeAttribute(rootFd, BIT_XATTR, device);
    removeAttribute(rootFd, EPOCH_XATTR, device);
  });
  if (probeDevice(device).bit.kind !== "none") throw notOnDisk(device, "cleared");
  return true;
}

async function changeRoot(probe: Probe, change: (rootFd: number) => void): Promise<void> {
  const attributes = MountAttr.NODEV | MountAttr.NOEXEC | MountAttr.NOSUID;
  const mount = mountDetached(probe.device, probe.superblock.type, [], attributes);
  let failure: unknown;
  try {
    change(mount.rootFd);
  } catch (error) {
    failure = error;
  }
  await releaseDetached(mount, probe.device);
  if (failure !== undefined) throw failure;
}

function requireIdle(probe: Probe, verb: "enable" | "disable"): void {
  const { device } = probe;
  if (tryExclusive(device) !== "free") {
    throw new OperatingError(`${device} is ${describeHolders(device)}`, {
      code: "device-busy",
      hint: `Unmount it everywhere first, on all nodes: coverlay volume ${verb} changes a disk that nobody uses.`,
      exitStatus: 32,
    });
  }
  if (isReadOnlyDevice(device)) {
    throw new OperatingError(`${device} is a read-only device`, {
      code: "device-read-only",
      hint: "The bit is stored on the disk: make the device writable (blockdev --setrw), or name its writable original.",
      exitStatus: 32,
    });
  }
  const dirty = dirtyReason(device, probe.superblock);
  if (dirty === null) return;
  const fsck = probe.superblock.type === "ext4" ? `e2fsck -f ${device}` : `mount it once, unmount it, and xfs_repair -n ${device}`;
  throw new OperatingError(`${device} (${probe.superblock.type}) is not clean: ${dirty}`, {
    code: "dirty",
    hint: `Either another machine has it mounted: unmount it there. Or it was not unmounted: check it first (${fsck}).`,
    exitStatus: 32,
  });
}

/** True: it is set to just that. */
function refuseOtherBit(where: string, state: BitState, wanted: Bit): boolean {
  if (state.kind === "none") return false;
  if (state.kind === "bad") throw state.error;
  const found = state.bit;
  if (found.cluster === wanted.cluster && found.uuid === wanted.uuid && found.volume === wanted.volume) return true;
  throw new OperatingError(`${where} belongs already to cluster ${found.cluster} as volume ${found.volume} (${found.uuid})`, {
    code: "other-bit",
    hint: `If that cluster does not use it any more: coverlay volume disable ${where}`,
    exitStatus: 32,
  });
}

function notOnDisk(device: string, what: string): OperatingError {
  return new OperatingError(`${device}: the bit was ${what}, but the disk does not say so`, {
    code: "bit-not-on-disk",
    hint: "Something between here and the disk keeps writes back: see dmesg, and whether the path is the one you think.",
    exitStatus: 32,
  });
}

/** The bit of a directory. */
export function probeDirectory(directory: string): BitState {
  return withDirectory(directory, (fd) => bitState(getAttribute(fd, BIT_XATTR, directory), directory));
}

/** As enableDevice, for a lower of kind `directory`. */
export function enableDirectory(directory: string, bit: Bit): void {
  const value = encodeBit(bit);
  withDirectory(directory, (fd) => {
    if (refuseOtherBit(directory, bitState(getAttribute(fd, BIT_XATTR, directory), directory), bit)) return;
    setAttribute(fd, BIT_XATTR, value, directory);
    fsyncSync(fd);
  });
}

export function disableDirectory(directory: string): boolean {
  return withDirectory(directory, (fd) => {
    const was = getAttribute(fd, BIT_XATTR, directory) !== null;
    removeAttribute(fd, BIT_XATTR, directory);
    removeAttribute(fd, EPOCH_XATTR, directory);
    fsyncSync(fd);
    return was;
  });
}

function withDirectory<T>(directory: string, use: (fd: number) => T): T {
  const fd = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    return use(fd);
  } finally {
    closeSync(fd);
  }
}

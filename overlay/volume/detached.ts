/**
 * Mounts that are in no namespace: fsopen, fsconfig, fsmount. No `unshare -m` can copy one, nobody can walk into it, and it
 * ends with its descriptor (hazards C2, R17). Its end is proved by open(O_EXCL), which fails while the superblock lives.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { constants } from "node:fs";
import { E, errnoName } from "../../dlmd/base/errno.ts";
import { OperatingError } from "../../dlmd/base/error.ts";
import { nativeAddon } from "../../native/index.ts";
import { AT_FDCWD, describeHolders, fileSystemDevice, isDevice, tryExclusive, tryExclusiveInPool } from "./device.ts";

/** linux/mount.h */
export const MountAttr = { RDONLY: 0x1, NOSUID: 0x2, NODEV: 0x4, NOEXEC: 0x8 } as const;

/** How long a superblock may take to go after its last descriptor was closed: it writes back, and kernel threads finish. */
const RELEASE_LIMIT_MS = 60_000;
const RELEASE_POLL_MS = 5;
/** So often mount(2) is called where another one has the device exclusively, and has let go of it by the next look: a doctor or a dlmd that looks. */
export const MOUNT_TRIES = 5;

const ENODATA = 61;
const XATTR_BYTES = 65_536;

export interface DetachedMount {
  /** From fsmount(2): names the root, holds the mount. */
  readonly mountFd: number;
  /** The root directory, open for reading: for what an O_PATH descriptor does not allow. */
  readonly rootFd: number;
  /** Of its block device. Asked for at once: XFS that was shut down does not say it any more. */
  readonly number: string;
}

/**
 * Throws OperatingError "mount-failed" with the kernel's words, or "device-busy": a second mount of the same device would not fail in
 * the kernel but share the first one's superblock. `before`: right before the kernel mounts, each time; what it throws is thrown, and nothing is mounted.
 */
export async function mountDetached(
  device: string,
  type: string,
  options: readonly string[],
  attributes: number,
  before: () => void = () => {},
): Promise<DetachedMount> {
  const native = nativeAddon();
  const mountOnce = async (triesLeft: number): Promise<number> => {
    const log: string[] = [];
    await requireFree(device);
    before();
    const mountFd = await native.mountDetachedInPool(type, device, options, attributes, log);
    if (mountFd >= 0) return mountFd;
    if (isHeld(type, -mountFd, log) && triesLeft > 1) return mountOnce(triesLeft - 1);
    throw await mountFailed(device, type, -mountFd, log);
  };
  const mountFd = await mountOnce(MOUNT_TRIES);
  const rootFd = await native.pool.sync.openat2(mountFd, ROOT, ROOT_FLAGS, 0, 0);
  try {
    if (rootFd >= 0) return { mountFd, rootFd, number: fileSystemDevice(rootFd) };
  } catch (error) {
    native.sync.close(rootFd);
    await native.pool.sync.close(mountFd);
    throw error;
  }
  await native.pool.sync.close(mountFd);
  throw await mountFailed(device, type, -rootFd, NO_ROOT);
}

const ROOT: Buffer = Buffer.from(".");
const ROOT_FLAGS: number = constants.O_RDONLY | constants.O_DIRECTORY;
const NO_ROOT: readonly string[] = ["its root directory cannot be opened"];

/** Throws OperatingError "device-busy" if a superblock of this machine is on it. */
export async function requireFree(device: string): Promise<void> {
  if ((await tryExclusiveInPool(device)) === "busy") throw deviceBusy(device);
}

/**
 * Until `work` has ended nothing else of this machine gets the device exclusively, nor while a process lives that was given the descriptor; mount(2)
 * neither. Throws OperatingError "device-busy", "device-io".
 */
export async function holdExclusively<T>(device: string, work: (heldFd: number) => Promise<T>): Promise<T> {
  const pool = nativeAddon().pool.sync;
  const fd = await pool.openat2(AT_FDCWD, Buffer.from(device), constants.O_RDONLY | constants.O_EXCL, 0, 0);
  if (fd === -E.EBUSY) throw deviceBusy(device);
  if (fd < 0) {
    throw new OperatingError(`${device} cannot be opened: ${errnoName(-fd)}`, {
      code: "device-io",
      hint: "The path to the disk is broken: look at dmesg.",
      exitStatus: 32,
    });
  }
  try {
    return await work(fd);
  } finally {
    await pool.close(fd);
  }
}

function deviceBusy(device: string): OperatingError {
  return new OperatingError(`${device} is ${describeHolders(device)}`, {
    code: "device-busy",
    hint: "A volume of a cluster must not be mounted in another way at the same time. Unmount it there.",
    exitStatus: 32,
  });
}

/** ext4's MMP: nothing here has it, and the kernel saw another machine's sign of life. */
function mountedElsewhere(device: string): OperatingError {
  return new OperatingError(`${device} is mounted on another machine, outside of the cluster: ext4's MMP sees it write`, {
    code: "mounted-elsewhere",
    hint: `Unmount it there. dmesg and e2mmpstatus -i ${device} name the machine.`,
    exitStatus: 32,
  });
}

/** Something of this machine had the device, and not MMP, which the kernel tells in dmesg alone (fs/super.c, get_tree_bdev()). */
function isHeld(type: string, errno: number, log: readonly string[]): boolean {
  return errno === E.EBUSY && (type !== "ext4" || log.some((line) => line.includes("Can't open blockdev")));
}

async function mountFailed(device: string, type: string, errno: number, log: readonly string[]): Promise<OperatingError> {
  if (errno !== E.EBUSY) return kernelRefused(device, type, errno, log);
  if (isHeld(type, errno, log)) return deviceBusy(device);
  return (await tryExclusiveInPool(device)) === "busy" ? deviceBusy(device) : mountedElsewhere(device);
}

function kernelRefused(device: string, type: string, errno: number, log: readonly string[]): OperatingError {
  const code = errnoName(errno);
  const words = log.length === 0 ? "" : `: ${log.join("; ")}`;
  return new OperatingError(`${device}: the ${type} file system cannot be mounted: ${code}${words}`, {
    code: "mount-failed",
    hint: `See dmesg; check the file system with fsck while it is not mounted anywhere.`,
    exitStatus: 32,
  });
}

/**
 * Flushes, closes, and waits until the superblock is gone. Every other descriptor of that file system must be closed before. Throws
 * OperatingError "not-released": the device must then not be given to anybody else; "let-go": it is gone, but not all is on the disk.
 */
export async function releaseDetached(mount: DetachedMount, device: string): Promise<void> {
  const native = nativeAddon();
  const synced = await native.pool.sync.syncfs(mount.rootFd);
  await dropDetached(mount, device);
  if (synced < 0) throw letGo(device, `its last write-back failed with ${errnoName(-synced)}`);
}

/**
 * Nothing that is dirty is written any more: of a disk that is another's. Throws OperatingError "not-shut-down". What ext4 writes all the same:
 * README.md.
 */
export async function shutDownDetached(mount: DetachedMount, device: string): Promise<void> {
  // Not behind the syncs of callers, which are what it is to stop.
  const result = await nativeAddon().pool.metadata.shutDown(mount.rootFd);
  // XFS and ext4 say that of one that is shut down already.
  if (result >= 0 || result === -E.EIO || result === -E.ESHUTDOWN) return;
  throw new OperatingError(`${device}: the file system cannot be shut down: ${errnoName(-result)}`, {
    code: "not-shut-down",
    hint: "What it had not written it writes when it is unmounted, over what is on the disk by then.",
    exitStatus: 32,
  });
}

/** Closes it, and waits until its superblock is gone: of one that was shut down. Throws OperatingError "not-released" as releaseDetached does. */
export async function dropDetached(mount: DetachedMount, device: string): Promise<void> {
  nativeAddon().sync.close(mount.rootFd);
  await nativeAddon().pool.sync.close(mount.mountFd);
  await proveReleased(device, mount.number);
}

/** The superblock is gone, so nothing of this mount can reach the device any more. */
export function letGo(device: string, why: string): OperatingError {
  return new OperatingError(`${device} is let go of, but not all is on it: ${why}`, {
    code: "let-go",
    hint: "See dmesg. The disk or its path failed while it was mounted; what was not synced may be lost.",
    exitStatus: 32,
  });
}

/**
 * Resolves once open(O_EXCL) of the device with that number succeeds. Throws "not-released" after a minute, or when the device is gone, or its name is another one's:
 * a link of /dev/disk is made anew when a disk with the same uuid comes.
 */
export async function proveReleased(device: string, number: string): Promise<void> {
  const deadline = performance.now() + RELEASE_LIMIT_MS;
  for (;;) {
    const wasIt = isDevice(device, number);
    const state = await tryExclusiveInPool(device);
    if (state !== "gone" && !(wasIt && isDevice(device, number)))
      throw notReleased(device, "it is the name of another disk by now, and nobody can tell whether the one that was mounted is free");
    if (state === "free") return;
    if (state === "gone") throw notReleased(device, "the device is gone, so nobody can tell what was still to be written");
    if (performance.now() > deadline)
      throw notReleased(device, `after ${RELEASE_LIMIT_MS / 1000} s it is still ${describeHolders(device)}`);
    await sleep(RELEASE_POLL_MS);
  }
}

function notReleased(device: string, why: string): OperatingError {
  return new OperatingError(`${device} is not released: ${why}`, {
    code: "not-released",
    hint: "See dmesg, and which process holds it (lsof). No other node may mount it before this one is done with it or is powered off.",
    exitStatus: 32,
  });
}

/** An attribute of the open directory or file; null if there is none. Throws OperatingError "xattr-failed". */
export function getAttribute(fd: number, name: string, where: string): Buffer | null {
  const value = Buffer.allocUnsafe(XATTR_BYTES);
  return attributeOf(value, nativeAddon().sync.getxattr(fd, Buffer.from(name), value), name, where);
}

/** The same on a thread of a pool. */
export async function getAttributeInPool(fd: number, name: string, where: string): Promise<Buffer | null> {
  const value = Buffer.allocUnsafe(XATTR_BYTES);
  return attributeOf(value, await nativeAddon().pool.sync.getxattr(fd, Buffer.from(name), value), name, where);
}

function attributeOf(value: Buffer, bytes: number, name: string, where: string): Buffer | null {
  if (bytes >= 0) return Buffer.from(value.subarray(0, bytes));
  if (bytes === -ENODATA) return null;
  throw attributeFailed(where, `reading ${name}`, -bytes);
}

export function setAttribute(fd: number, name: string, value: Buffer, where: string): void {
  const result = nativeAddon().sync.setxattr(fd, Buffer.from(name), value, 0);
  if (result < 0) throw attributeFailed(where, `setting ${name}`, -result);
}

/** The same on a thread of a pool. */
export async function setAttributeInPool(fd: number, name: string, value: Buffer, where: string): Promise<void> {
  const result = await nativeAddon().pool.sync.setxattr(fd, Buffer.from(name), value, 0);
  if (result < 0) throw attributeFailed(where, `setting ${name}`, -result);
}

/** Nothing happens if it is not there. */
export function removeAttribute(fd: number, name: string, where: string): void {
  const result = nativeAddon().sync.removexattr(fd, Buffer.from(name));
  if (result < 0 && result !== -ENODATA) throw attributeFailed(where, `removing ${name}`, -result);
}

function attributeFailed(where: string, what: string, errno: number): OperatingError {
  const code = errnoName(errno);
  const hints: Readonly<Record<string, string>> = {
    EPERM: "Attributes in trusted.* need root.",
    EOPNOTSUPP: "That file system keeps no trusted.* attributes: use ext4 or XFS.",
    EROFS: "It is read-only: make it writable first.",
    ENOSPC: "The file system is full: make some room.",
  };
  return new OperatingError(`${where}: ${what} failed: ${code}`, {
    code: "xattr-failed",
    hint: hints[code] ?? "See dmesg.",
    exitStatus: 32,
  });
}

/** For commands: reads one attribute of the root directory through a detached mount, for as long as that takes. */
export function readAttributeByMount(device: string, type: string, options: readonly string[], name: string): Buffer | null {
  const native = nativeAddon();
  const { sync } = native;
  if (tryExclusive(device) === "busy") throw deviceBusy(device);
  const log: string[] = [];
  const mountFd = native.mountDetached(type, device, options, MountAttr.RDONLY, log);
  if (mountFd < 0) throw kernelRefused(device, type, -mountFd, log);
  const rootFd = sync.openat2(mountFd, ROOT, ROOT_FLAGS, 0, 0);
  try {
    if (rootFd < 0) throw kernelRefused(device, type, -rootFd, NO_ROOT);
    return getAttribute(rootFd, name, device);
  } finally {
    if (rootFd >= 0) sync.close(rootFd);
    sync.close(mountFd);
  }
}

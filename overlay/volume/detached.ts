/**
 * Mounts that are in no namespace: fsopen, fsconfig, fsmount. No `unshare -m` can copy one, nobody can walk into it, and it
 * ends with its descriptor (hazard C2). Its end is proved by open(O_EXCL), which fails while the superblock lives.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { constants } from "node:fs";
import { errnoName } from "../../dlmd/base/errno.ts";
import { OperatingError } from "../../dlmd/base/error.ts";
import { nativeAddon } from "../native/index.ts";
import { describeHolders, tryExclusive } from "./device.ts";

/** linux/mount.h */
export const MountAttr = { RDONLY: 0x1, NOSUID: 0x2, NODEV: 0x4, NOEXEC: 0x8 } as const;

/** How long a superblock may take to go after its last descriptor was closed: it writes back, and kernel threads finish. */
const RELEASE_LIMIT_MS = 60_000;
const RELEASE_POLL_MS = 5;

const ENODATA = 61;
const XATTR_BYTES = 65_536;

export interface DetachedMount {
  /** From fsmount(2): names the root, holds the mount. */
  readonly mountFd: number;
  /** The root directory, open for reading: for what an O_PATH descriptor does not allow. */
  readonly rootFd: number;
}

/**
 * Throws OperatingError "mount-failed" with the kernel's words, or "device-busy": a second mount of the same device would not fail in
 * the kernel but share the first one's superblock.
 */
export function mountDetached(device: string, type: string, options: readonly string[], attributes: number): DetachedMount {
  const native = nativeAddon();
  const log: string[] = [];
  if (tryExclusive(device) === "busy") throw deviceBusy(device);
  const mountFd = native.mountDetached(type, device, options, attributes, log);
  if (mountFd < 0) throw mountFailed(device, type, -mountFd, log);
  const rootFd = native.sync.openat2(mountFd, Buffer.from("."), constants.O_RDONLY | constants.O_DIRECTORY, 0, 0);
  if (rootFd < 0) {
    native.sync.close(mountFd);
    throw mountFailed(device, type, -rootFd, ["its root directory cannot be opened"]);
  }
  return { mountFd, rootFd };
}

function deviceBusy(device: string): OperatingError {
  return new OperatingError(`${device} is ${describeHolders(device)}`, {
    code: "device-busy",
    hint: "A volume of a cluster must not be mounted in another way at the same time. Unmount it there.",
    exitStatus: 32,
  });
}

function mountFailed(device: string, type: string, errno: number, log: readonly string[]): OperatingError {
  const code = errnoName(errno);
  const words = log.length === 0 ? "" : `: ${log.join("; ")}`;
  if (code === "EBUSY") return deviceBusy(device);
  return new OperatingError(`${device}: the ${type} file system cannot be mounted: ${code}${words}`, {
    code: "mount-failed",
    hint: `See dmesg; check the file system with fsck while it is not mounted anywhere.`,
    exitStatus: 32,
  });
}

/**
 * Flushes, closes, and waits until the superblock is gone. Every other descriptor of that file system must be closed before. Throws
 * OperatingError "not-released": the device must then not be given to anybody else.
 */
export async function releaseDetached(mount: DetachedMount, device: string): Promise<void> {
  const native = nativeAddon();
  const synced = native.sync.syncfs(mount.rootFd);
  native.sync.close(mount.rootFd);
  native.sync.close(mount.mountFd);
  await proveReleased(device);
  if (synced < 0) throw notReleased(device, `its last write-back failed with ${errnoName(-synced)}`);
}

/** Resolves once open(O_EXCL) succeeds. Throws "not-released" after a minute, or when the device is gone. */
export async function proveReleased(device: string): Promise<void> {
  const deadline = performance.now() + RELEASE_LIMIT_MS;
  for (;;) {
    const state = tryExclusive(device);
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
  const bytes = nativeAddon().sync.getxattr(fd, Buffer.from(name), value);
  if (bytes >= 0) return Buffer.from(value.subarray(0, bytes));
  if (bytes === -ENODATA) return null;
  throw attributeFailed(where, `reading ${name}`, -bytes);
}

export function setAttribute(fd: number, name: string, value: Buffer, where: string): void {
  const result = nativeAddon().sync.setxattr(fd, Buffer.from(name), value, 0);
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

/** Reads one attribute of the root directory through a detached mount, for as long as that takes. */
export function readAttributeByMount(device: string, type: string, options: readonly string[], name: string): Buffer | null {
  const native = nativeAddon();
  const mount = mountDetached(device, type, options, MountAttr.RDONLY);
  try {
    return getAttribute(mount.rootFd, name, device);
  } finally {
    native.sync.close(mount.rootFd);
    native.sync.close(mount.mountFd);
  }
}

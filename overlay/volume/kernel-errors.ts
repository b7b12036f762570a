/**
 * Whether the kernel has given up a mounted file system. ext4 is mounted with errors=remount-ro: the first error that it counts makes it
 * read-only. It counts in sysfs (Documentation/admin-guide/ext4.rst). XFS shuts down, and then even fstat(2) of the root ends with EIO
 * (fs/xfs/xfs_iops.c, xfs_vn_getattr). Neither touches the disk.
 */
import { fstatSync, readFileSync, realpathSync } from "node:fs";
import path from "node:path";
import { deviceNumber } from "./device.ts";

/** How often the count is looked at. */
export const KERNEL_ERRORS_EVERY_MS = 2000;

/** fs/ext4/ext4.h: EXT4_ERR_EFSBADCRC, EXT4_ERR_EFSCORRUPTED. */
const DAMAGE_CODES: ReadonlySet<string> = new Set(["4", "5"]);

export interface KernelError {
  readonly words: string;
  /** What is on the disk is wrong, and the disk answers: the next owner would find the same. */
  readonly isDamage: boolean;
}

export interface KernelErrors {
  /** null: nothing that is known. Looked at now; the first one found stays. */
  look(): KernelError | null;
}

/** To be made when the file system was just mounted: errors from before do not count. `rootFd`: its root directory. */
export function createKernelErrors(type: string, device: string, rootFd: number, sysfs = "/sys"): KernelErrors {
  return type === "ext4" ? countedErrors(device, sysfs) : shutdown(() => void fstatSync(rootFd));
}

/** `look` throws EIO: the file system is shut down. Exported for tests. */
export function shutdown(look: () => void): KernelErrors {
  let found: KernelError | null = null;
  return {
    look() {
      if (found !== null) return found;
      try {
        look();
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === "EIO") found = { words: "the kernel has shut the file system down", isDamage: false };
      }
      return found;
    },
  };
}

function countedErrors(device: string, sysfs: string): KernelErrors {
  const directory = path.join(sysfs, "fs/ext4", kernelName(device, sysfs));
  const before = countIn(directory);
  let found: KernelError | null = null;
  return {
    look() {
      if (found !== null || before === null) return found;
      const count = countIn(directory);
      if (count === null || count <= before) return null;
      const where = textIn(directory, "last_error_func") ?? "an error";
      const isDamage = DAMAGE_CODES.has(textIn(directory, "last_error_errcode") ?? "");
      found = isDamage
        ? {
            words: `the file system is damaged, and the kernel has turned it read-only (${where}): unmount it on all nodes, and run fsck`,
            isDamage,
          }
        : { words: `the kernel has turned the file system read-only (${where})`, isDamage };
      return found;
    },
  };
}

function kernelName(device: string, sysfs: string): string {
  return path.basename(realpathSync(path.join(sysfs, "dev/block", deviceNumber(device))));
}

function textIn(directory: string, name: string): string | null {
  try {
    return readFileSync(path.join(directory, name), "latin1").trim();
  } catch {
    return null; // An older kernel, or unmounted meanwhile.
  }
}

function countIn(directory: string): number | null {
  const text = textIn(directory, "errors_count");
  return text === null ? null : Number(text);
}

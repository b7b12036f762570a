/** Small real disks for tests: an image in a temporary directory on a loop device of its own, gone at the end in any case. */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { startWatchdog } from "../watchdog.ts";
import { isReadOnlyDevice } from "../../../overlay/volume/device.ts";

export type Mkfs = "ext4" | "xfs" | "none";

export interface Disk {
  readonly dir: string;
  readonly image: string;
  readonly device: string;
  readonly mountPoint: string;
}

/** mkfs.xfs refuses less than 300 MiB; the images are sparse. */
const IMAGE_BYTES: Readonly<Record<Mkfs, number>> = { ext4: 64 << 20, xfs: 300 << 20, none: 16 << 20 };

export function run(command: string, ...args: string[]): string {
  return execFileSync(command, args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}

export function attachLoop(image: string): string {
  const device = run("losetup", "--find", "--show", "--direct-io=on", image).trim();
  // A test that had the device before, or that runs beside this one, may have made it read-only: that stays with the device.
  if (isReadOnlyDevice(device)) run("blockdev", "--setrw", device);
  return device;
}

/** Of the folder $1, where its process ended without that. A loop device goes with its last use. */
const TIDY = [
  'umount --lazy "$1/mnt"',
  'losetup --associated "$1/image" | cut -d: -f1 | while read -r loop; do losetup --detach "$loop"; done',
  'rm -rf --one-file-system "$1"',
].join("; ");

export async function withDisk<T>(mkfs: Mkfs, use: (disk: Disk) => T | Promise<T>, parent: string = os.tmpdir()): Promise<T> {
  const dir = mkdtempSync(path.join(parent, "coverlay-disk-"));
  const watchdog = startWatchdog(TIDY, [dir]);
  const image = path.join(dir, "image");
  const mountPoint = path.join(dir, "mnt");
  try {
    mkdirSync(mountPoint);
    writeFileSync(image, "");
    truncateSync(image, IMAGE_BYTES[mkfs]);
    if (mkfs === "ext4") run("mkfs.ext4", "-q", "-F", image);
    if (mkfs === "xfs") run("mkfs.xfs", "-q", "-f", image);
    return await use({ dir, image, device: attachLoop(image), mountPoint });
  } finally {
    spawnSync("umount", [mountPoint]);
    for (const line of run("losetup", "--associated", image).split("\n")) {
      const loop = line.split(":")[0];
      if (loop !== undefined && loop !== "") run("losetup", "--detach", loop);
    }
    rmSync(dir, { recursive: true, force: true });
    await watchdog.callOff();
  }
}

/** fsck that changes nothing; throws with its words if there is anything to mend. */
export function checkFileSystem(mkfs: Mkfs, device: string): void {
  if (mkfs === "ext4") run("e2fsck", "-fn", device);
  if (mkfs === "xfs") run("xfs_repair", "-n", device);
}

/**
 * A block device, looked at without the page cache: a buffered reader may hold what the device said before another machine,
 * or another loop device over the same image, changed it (hazard M4).
 */
import { closeSync, constants, fstatSync, openSync, readFileSync, readSync, statSync } from "node:fs";
import { errnoError, errnoName } from "../../dlmd/base/errno.ts";
import { OperatingError } from "../../dlmd/base/error.ts";
import { nativeAddon } from "../../native/index.ts";
import { type MountEntry, mountsOfDevice, mountTable } from "../../dlmd/base/mount-table.ts";

/** Alignment that every device accepts for O_DIRECT. */
const DIRECT_ALIGN = 4096;
/** linux/fcntl.h: a path is looked for from the working directory. */
export const AT_FDCWD = -100;
/** Allocations of V8 are aligned to at least this. */
const BUFFER_ALIGN = 8;

/** The device of a path as "major:minor" (makedev(3)). */
export function deviceNumber(path: string): string {
  return numberWords(statSync(path).rdev);
}

/** "major:minor" of the block device under an open file's file system. */
export function fileSystemDevice(fd: number): string {
  return numberWords(fstatSync(fd).dev);
}

function numberWords(number: number): string {
  const dev = BigInt(number);
  const major = ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & ~0xfffn);
  const minor = (dev & 0xffn) | ((dev >> 12n) & ~0xffn);
  return `${major}:${minor}`;
}

function unreachable(path: string, error: unknown): OperatingError {
  return new OperatingError(`${path}: the device cannot be reached: ${(error as NodeJS.ErrnoException).code}`, {
    code: "device-missing",
    hint: "Is the disk connected to this machine (lsblk), and the name spelled right?",
    cause: error,
    exitStatus: 32,
  });
}

/** What the kernel says of a block device (Documentation/ABI/stable/sysfs-block). Throws OperatingError "device-missing". */
function attributeOf(path: string, name: string): string {
  try {
    return readFileSync(`/sys/dev/block/${deviceNumber(path)}/${name}`, "latin1").trim();
  } catch (error) {
    throw unreachable(path, error);
  }
}

/** How a node learns the new size of its device. */
export const READ_SIZE_AGAIN =
  "A SCSI disk: echo 1 > /sys/class/block/NAME/device/rescan. A partition: growpart, or partprobe. LVM: lvchange --refresh. A loop device: losetup -c.";

/** The size of a block device, as this machine has it: another one may know of a growth before. */
export function deviceBytes(path: string): number {
  return Number(attributeOf(path, "size")) * 512;
}

/** The kernel refuses writes to the device: a read-only snapshot, export or loop device. */
export function isReadOnlyDevice(path: string): boolean {
  return attributeOf(path, "ro") === "1";
}

/**
 * Throws unless the path is a block device that exists: OperatingError "device-missing", "image-file" (a regular file: losetup),
 * "not-a-device".
 */
export function requireBlockDevice(path: string): void {
  let stat: ReturnType<typeof statSync>;
  try {
    stat = statSync(path);
  } catch (error) {
    throw unreachable(path, error);
  }
  if (stat.isBlockDevice()) return;
  if (stat.isFile()) {
    throw new OperatingError(`${path} is a regular file, a block device is expected`, {
      code: "image-file",
      hint: `If it is the image of a disk, give it a device first: losetup --find --show --direct-io=on ${path}`,
      exitStatus: 32,
    });
  }
  throw new OperatingError(
    `${path} is ${stat.isDirectory() ? "a directory" : "neither a block device nor a directory"}, a block device is expected`,
    {
      code: "not-a-device",
      hint: "Name the device that holds the file system, such as /dev/sdb1.",
      exitStatus: 32,
    },
  );
}

/**
 * The bytes at `offset` (a multiple of 4096), read with O_DIRECT; fewer at the end of the device. Throws OperatingError
 * "device-io" when the device does not answer.
 */
export function readDirect(path: string, offset: number, bytes: number): Buffer {
  const wanted = Math.ceil(bytes / DIRECT_ALIGN) * DIRECT_ALIGN;
  const room = Buffer.allocUnsafeSlow(wanted + DIRECT_ALIGN);
  let fd = -1;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_DIRECT);
    return readAligned(fd, room, offset, wanted).subarray(0, bytes);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? String(error);
    throw new OperatingError(`${path}: reading ${bytes} bytes at ${offset} failed: ${code}`, {
      code: "device-io",
      hint: "The path to the disk is broken, or it is not a disk: look at dmesg.",
      cause: error,
      exitStatus: 32,
    });
  } finally {
    if (fd >= 0) closeSync(fd);
  }
}

/**
 * O_DIRECT wants an aligned address, and JavaScript does not tell the address of a buffer: the kernel says EINVAL until the
 * right start is found, at most DIRECT_ALIGN / BUFFER_ALIGN times and without touching the device.
 */
function readAligned(fd: number, room: Buffer, offset: number, bytes: number): Buffer {
  for (let start = 0; ; start += BUFFER_ALIGN) {
    try {
      const got = readSync(fd, room, start, bytes, offset);
      return room.subarray(start, start + got);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EINVAL" || start + BUFFER_ALIGN >= DIRECT_ALIGN) throw error;
    }
  }
}

export type Exclusive = "free" | "busy" | "gone";

/** Whether somebody on this machine has the device: open(O_EXCL) fails while any superblock, in any namespace or none, is on it. */
export function tryExclusive(path: string): Exclusive {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_EXCL);
  } catch (error) {
    return exclusiveOf((error as NodeJS.ErrnoException).code, error);
  }
  closeSync(fd);
  return "free";
}

/** The same, on a thread of a pool: an open, and the last close of a device, may wait for a disk that hangs. */
export async function tryExclusiveInPool(path: string): Promise<Exclusive> {
  const pool = nativeAddon().pool.sync;
  const fd = await pool.openat2(AT_FDCWD, Buffer.from(path), constants.O_RDONLY | constants.O_EXCL, 0, 0);
  if (fd < 0) return exclusiveOf(errnoName(-fd), errnoError(-fd));
  await pool.close(fd);
  return "free";
}

function exclusiveOf(code: string | undefined, error: unknown): Exclusive {
  if (code === "EBUSY") return "busy";
  if (code === "ENOENT" || code === "ENXIO" || code === "ENODEV" || code === "ENOMEDIUM") return "gone";
  throw error;
}

/** Who has it, in words for a message: mount points of all namespaces, clustered mounts, other holders. */
export function describeHolders(path: string): string {
  const number = deviceNumber(path);
  const places = mountsOfDevice(number).map(
    (place) => `at ${place.mountPoint}${place.pid === null ? "" : ` (in the mount namespace of process ${place.pid}, ${place.command})`}`,
  );
  if (places.length > 0) return `mounted ${places.join(", ")}`;
  const clustered = clusteredMountsOf(path);
  if (clustered.length > 0) return `mounted clustered at ${clustered.join(", ")}`;
  return "in exclusive use without a mount point: a coverlay overlay that is still releasing it, swap, md or device mapper";
}

/** Mount points of type fuse.clustered in our namespace whose source is that device, by whatever name. */
export function clusteredMountsOf(path: string): string[] {
  const number = deviceNumber(path);
  return mountTable()
    .filter((entry) => entry.type === "fuse.clustered" && (entry.source === path || isDevice(entry.source, number)))
    .map((entry) => entry.mountPoint);
}

/** Where a file system of that block device is mounted in our namespace, but by a cluster: the kernel gives a plain mount(2) the one that the owner has. */
export function plainMountsOf(path: string, table: readonly MountEntry[] = mountTable()): string[] {
  const { rdev = 0 } = statSync(path, { throwIfNoEntry: false }) ?? {};
  const number = numberWords(rdev);
  return rdev === 0 ? [] : table.filter(({ device }) => device === number).map(({ mountPoint }) => mountPoint);
}

/** Two names of one block device. */
export function sameDevice(path: string, other: string): boolean {
  try {
    return other.startsWith("/dev/") && isDevice(path, deviceNumber(other));
  } catch {
    return false; // It is not there any more.
  }
}

export function isDevice(source: string, number: string): boolean {
  if (!source.startsWith("/")) return false;
  try {
    return statSync(source).isBlockDevice() && deviceNumber(source) === number;
  } catch {
    return false; // A source that is no longer there is not this device.
  }
}

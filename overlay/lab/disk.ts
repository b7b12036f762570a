/**
 * The shared disk: one preallocated image, and one loop device over it per node, each with its own cache like a machine
 * of its own on one LUN. A loop device is the lab's only if the lab's image is behind it, which is checked before
 * every use: numbers are taken over by others.
 *
 * Cutting a node off its disk is two times LOOP_SET_STATUS64: a limit, so that each new request fails; then an offset far behind the image's end,
 * so that nothing that the node still holds reaches the image, not even through its unmount (hazard R11).
 */
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  realpathSync,
  rmSync,
  type Stats,
  statSync,
  statfsSync,
  truncateSync,
} from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { OperatingError } from "../../dlmd/base/error.ts";
import { errnoName } from "../../dlmd/base/errno.ts";
import { nativeAddon } from "../../native/index.ts";
import { isReadOnlyDevice } from "../volume/device.ts";
import { type RunOptions, describeRun, must, run } from "./command.ts";
import { labFiles } from "./layout.ts";
import { markedEnvironment } from "./processes.ts";
import { type LabState, imageOf } from "./state.ts";

/** Where a node that is cut off reads and writes: far behind the end of the image. */
const CUT_OFFSET = 2 ** 62;
const CUT_BYTES = 512;
/** Between the limit and the offset: what was compared with the old size is sent. */
const HELD_BACK_MS = 50;
/** Others take free loop devices too; so often in a row only when there are none. */
const MAX_ATTACH_TRIES = 50;
/** An unmount that goes on in the kernel keeps its loop device that long at most. */
const DETACH_TIMEOUT_MS = 20_000;
const POLL_MS = 20;

/** The lower file system, empty. */
export async function makeDisk(lab: LabState, signal: AbortSignal): Promise<void> {
  const files = labFiles(lab.dir);
  const options = { env: markedEnvironment(lab.id, ""), signal };
  if (lab.lower === "directory") {
    mkdirSync(files.lowerDirectory, { mode: 0o755 });
    // A lower directory is the root of its file system.
    const mount = ["-t", "tmpfs", "-o", `size=${lab.sizeBytes},mode=0755`, "coverlay-lab", files.lowerDirectory];
    await must("mount", mount, options);
    return;
  }
  if (lab.givenImage === null) await makeImage(lab, options);
  // No discard: it would punch the preallocation out again. Nothing left to do in the background: it would disturb measurements.
  if (lab.lower === "ext4") {
    const extended = "nodiscard,lazy_itable_init=0,lazy_journal_init=0";
    await must("mkfs.ext4", ["-q", "-F", "-L", "coverlay-lab", "-E", extended, imageOf(lab)], options);
  } else await must("mkfs.xfs", ["-q", "-f", "-K", "-L", "coverlay-lab", imageOf(lab)], options);
}

async function makeImage(lab: LabState, options: RunOptions): Promise<void> {
  const hint =
    "Give a smaller --size, or with --dir a folder on a file system that has the room and can preallocate (ext4, XFS, btrfs, tmpfs).";
  const { bavail, bsize } = statfsSync(lab.dir);
  // fallocate(1) would fill the disk before it says so.
  if (lab.sizeBytes > bavail * bsize) {
    const room = `${Math.floor((bavail * bsize) / 2 ** 20)}M`;
    throw new OperatingError(`an image of ${lab.sizeBytes / 2 ** 20}M does not fit in ${lab.dir}, which has ${room} left`, {
      code: "no-room",
      hint,
    });
  }
  // Whoever can read the image reads every file of the volume, whatever its mode says.
  closeSync(openSync(labFiles(lab.dir).image, "wx", 0o600));
  await must("fallocate", ["-l", String(lab.sizeBytes), labFiles(lab.dir).image], { ...options, hint });
}

/** A file given with --image: its name, as sysfs has it behind a loop device, and its size. OperatingError: it cannot be one, or is in use. */
export function givenImage(file: string): { readonly image: string; readonly bytes: number } {
  const found = statSync(file, { throwIfNoEntry: false });
  if (found?.isFile() === true) {
    const image = realpathSync(file);
    requireUnused(image, found);
    return { image, bytes: found.size };
  }
  throw new OperatingError(
    `--image should be a file for the disk, found ${found === undefined ? "nothing" : "something else"} at ${file}`,
    {
      code: "usage",
      hint: "Make one of the wanted size with truncate(1), or leave --image out.",
    },
  );
}

/** It would be made anew: mkfs(8) does not see that it is mounted, or another lab's disk. */
function requireUnused(image: string, { dev, ino }: Stats): void {
  const isSame = (file: string): boolean => {
    const found = statSync(file, { throwIfNoEntry: false });
    return found?.dev === dev && found.ino === ino;
  };
  const users = loopDevices((file) => isBehind(file, image) || isSame(file));
  if (users.length === 0) return;
  throw new OperatingError(`${image} should be in no use, but is behind ${users.join(", ")}`, {
    code: "image-busy",
    hint: "It would be overwritten. Take the lab down that uses it, or unmount it and detach it with losetup -d; or give another --image.",
  });
}

/** "/dev/loopN" of every loop device with that image behind it. */
export function loopsOver(image: string): string[] {
  return loopDevices((file) => isBehind(file, image));
}

/** Those of the lab. Another one may use a file that was given with --image while all nodes of this one are off. */
export function loopsOf(lab: LabState): string[] {
  const over = loopsOver(imageOf(lab));
  if (lab.givenImage === null) return over;
  const known = new Set(lab.nodes.flatMap(({ device, attaching }) => [device, attaching]));
  return over.filter((device) => known.has(device));
}

/** `wanted` is asked with the file behind a loop device, as sysfs names it. */
function loopDevices(wanted: (file: string) => boolean): string[] {
  const names = readdirSync("/sys/block").filter((name) => /^loop\d+$/.test(name));
  const isWanted = (name: string): boolean => {
    const file = fileBehind(name);
    return file !== null && wanted(file);
  };
  return names.filter(isWanted).map((name) => `/dev/${name}`);
}

function fileBehind(name: string): string | null {
  try {
    return readFileSync(`/sys/block/${name}/loop/backing_file`, "utf8").replace(/\n$/, "");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENXIO" || code === "ENODEV") return null;
    throw error;
  }
}

const isBehind = (file: string, image: string): boolean => file === image || file === `${image} (deleted)`;

export interface LoopNotes {
  /** Before a missing device node is made. */
  readonly deviceNode: (device: string) => Promise<unknown>;
  /** Before a device is attached, so that it is found if that is the end of this process. */
  readonly attaching: (device: string) => Promise<unknown>;
}

/** A new loop device over the lab's image. `wanted` is taken again if it is free. */
export async function attachLoop(lab: LabState, wanted: string | null, note: LoopNotes, signal?: AbortSignal): Promise<string> {
  const image = imageOf(lab);
  const options = { env: markedEnvironment(lab.id, ""), signal };
  let last = "";
  for (let tries = 0; tries < MAX_ATTACH_TRIES; tries++) {
    const device = tries === 0 && wanted !== null ? wanted : (await must("losetup", ["-f"], options)).trim();
    if (!existsSync(device)) await makeDeviceNode(device, note.deviceNode);
    await note.attaching(device);
    for (const directIo of ["on", "off"]) {
      const args = [`--direct-io=${directIo}`, `--sizelimit=${lab.sizeBytes}`, device, image];
      const result = await run("losetup", args, options);
      if (result.status === 0) {
        await makeWritable(device, options);
        return device;
      }
      last = describeRun("losetup", args, result);
      if (!loopsOver(image).includes(device)) break; // It never got the device: somebody else was faster.
      await must("losetup", ["-d", device]); // It got it, but not direct I/O: some file systems have none.
    }
    if (signal?.aborted === true) break;
  }
  throw new OperatingError(`no free loop device could be had: ${last}`, {
    code: "no-loop",
    hint: "`losetup -a` lists those in use; a container must be given /dev/loop-control and loop devices.",
  });
}

/** Who had the loop device before may have made it read-only (blockdev --setro), which stays. */
async function makeWritable(device: string, options: RunOptions): Promise<void> {
  if (isReadOnlyDevice(device)) await must("blockdev", ["--setrw", device], options);
}

async function makeDeviceNode(device: string, noteDevice: (device: string) => Promise<unknown>): Promise<void> {
  const name = device.replace(/^\/dev\//, "");
  const [major, minor] = readFileSync(`/sys/block/${name}/dev`, "utf8").trim().split(":");
  await noteDevice(device);
  await must("mknod", ["-m", "0660", device, "b", major ?? "7", minor ?? "0"]);
}

/** True: a node that was cut off wrote behind the image's end (cutLoop). That is gone now. */
export function trimImage(lab: LabState): boolean {
  const image = imageOf(lab);
  const wasLonger = statSync(image).size > lab.sizeBytes;
  truncateSync(image, lab.sizeBytes);
  return wasLonger;
}

/** Gives the lab's loop devices back, and waits until the kernel has let go of the image. */
export async function detachLoops(image: string, devices: readonly string[] = loopsOver(image)): Promise<void> {
  const deadline = Date.now() + DETACH_TIMEOUT_MS;
  const left = (): string[] => loopsOver(image).filter((device) => devices.includes(device));
  for (const device of left()) await run("losetup", ["-d", device]);
  // Busy ones go when their last user does.
  while (left().length > 0 && Date.now() < deadline) await sleep(POLL_MS);
  const busy = left();
  if (busy.length > 0) {
    throw new OperatingError(`${busy.join(", ")} over ${image} should be free by now, but something still uses it`, {
      code: "loop-busy",
      hint: `End what has it open or mounted (fuser -v ${busy[0]}), then run the command again.`,
    });
  }
}

/** The device nodes that `up` had to make itself. */
export function removeDeviceNodes(devices: readonly string[]): void {
  for (const device of devices) {
    const name = device.replace(/^\/dev\//, "");
    if (!existsSync(`/sys/block/${name}/loop/backing_file`)) rmSync(device, { force: true });
  }
}

/** Cuts the device off its image, or joins it again. Checks first that it is the lab's. */
export async function setCut(lab: LabState, device: string, cut: boolean): Promise<void> {
  const image = imageOf(lab);
  if (!loopsOver(image).includes(device)) {
    throw new OperatingError(`${device} should have ${image} behind it, but has not`, {
      code: "wrong-loop",
      hint: "The node is off, or somebody else has the loop device now: see `coverlay lab status` and `losetup -a`.",
    });
  }
  if (cut) await cutLoop(device);
  else joinLoop(device, lab.sizeBytes);
}

/**
 * When it resolves nothing of what was sent to the device before is under way, and nothing that is sent later reaches the image.
 *
 * Requests that arrive while the kernel changes the offset were compared with the old size. They are sent to the new offset. A file system with a
 * largest size of a file refuses them; tmpfs has none, makes the image longer, and a write that is lost has succeeded. So the limit comes first, and
 * those requests reach the image.
 */
export async function cutLoop(device: string): Promise<void> {
  const offset = readFileSync(`/sys/block/${device.replace(/^\/dev\//, "")}/loop/offset`, "utf8").trim();
  // One that is cut is not given any of its image, not even for that time.
  if (offset === "0") {
    setWindow(device, 0, CUT_BYTES);
    await sleep(HELD_BACK_MS);
  }
  setWindow(device, CUT_OFFSET, CUT_BYTES);
}

/** `bytes`: of the image that it shows. */
export function joinLoop(device: string, bytes: number): void {
  setWindow(device, 0, bytes);
}

function setWindow(device: string, offset: number, bytes: number): void {
  const fd = openSync(device, "r+");
  try {
    const result = nativeAddon().loopSetWindow(fd, offset, bytes);
    if (result < 0) {
      throw new OperatingError(`LOOP_SET_STATUS64 on ${device} failed: ${errnoName(-result)}`, {
        code: "loop-ioctl",
        hint: "See dmesg: nothing was changed.",
      });
    }
  } finally {
    closeSync(fd);
  }
}

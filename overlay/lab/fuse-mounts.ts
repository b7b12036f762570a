/**
 * Mounts as /proc/self/mountinfo tells of them: never by touching a mount, because one whose server is gone would
 * hang whoever touches it. A hung FUSE mount is freed by aborting its connection (Documentation/filesystems/fuse.rst,
 * "Control filesystem"); its number is the minor of the mount's device number.
 */
import { existsSync, mkdtempSync, readdirSync, rmSync, rmdirSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { OperatingError } from "../../dlmd/base/error.ts";
import { type MountEntry, minorOf, mountTable } from "../../dlmd/base/mount-table.ts";
import { RECORD_DIR, readMountRecord } from "../volume/mount-record.ts";
import { describeRun, must, run } from "./command.ts";

/** Stacked mounts on one place; more than this and somebody mounts faster than we unmount. */
const MAX_UNMOUNTS = 64;
const UNMOUNT_TIMEOUT_MS = 10_000;

/** Mounts at `dir` or below it, the deepest and latest first. */
export function mountsUnder(dir: string): MountEntry[] {
  return mountTable()
    .filter(({ mountPoint }) => mountPoint === dir || mountPoint.startsWith(`${dir}/`))
    .toReversed();
}

function isFuse({ type }: MountEntry): boolean {
  return type === "fuse" || type === "fuseblk" || type.startsWith("fuse.");
}

/** Ends a FUSE connection: every request in it fails, every later one too. A connection that is gone is fine. */
async function abortConnection(minor: number): Promise<void> {
  const usual = "/sys/fs/fuse/connections";
  if (existsSync(`${usual}/${minor}/abort`)) return writeAbort(`${usual}/${minor}/abort`);
  if (mountTable().some(({ type, mountPoint }) => type === "fusectl" && mountPoint === usual)) return;
  const own = mkdtempSync(path.join(os.tmpdir(), "coverlay-fusectl-"));
  await must("mount", ["-t", "fusectl", "fusectl", own]);
  try {
    writeAbort(`${own}/${minor}/abort`);
  } finally {
    await must("umount", [own]);
    rmdirSync(own);
  }
}

function writeAbort(file: string): void {
  try {
    writeFileSync(file, "1");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
}

/**
 * Takes every mount at `dir` or below it out of the tree, whatever state it is in: FUSE connections are aborted, and what is
 * busy is unmounted lazily.
 */
export async function forceUnmountUnder(dir: string): Promise<void> {
  for (let tries = 0; tries < MAX_UNMOUNTS; tries++) {
    const mount = mountsUnder(dir)[0];
    if (mount === undefined) return;
    if (isFuse(mount)) await abortConnection(minorOf(mount));
    // -c, -i: no look at the mountpoint, which may hang; no helper of the type.
    const args = ["-c", "-i", "-l", mount.mountPoint];
    const result = await run("umount", args, { timeoutMs: UNMOUNT_TIMEOUT_MS });
    if (result.status !== 0 && mountsUnder(dir)[0]?.mountPoint === mount.mountPoint) {
      throw new OperatingError(describeRun("umount", args, result), {
        code: "still-mounted",
        hint: `Unmount ${mount.mountPoint} by hand, then run \`coverlay lab down\` again.`,
      });
    }
  }
  throw new OperatingError(`something keeps mounting under ${dir}: ${MAX_UNMOUNTS} mounts were taken away and there are more`, {
    code: "still-mounted",
    hint: "Find out what it is and stop it, then run `coverlay lab down` again.",
  });
}

/** The records of mounts below `dir` whose overlays could not remove them (volume/mount-record.ts). */
export function removeMountRecords(dir: string): void {
  if (!existsSync(RECORD_DIR)) return;
  for (const name of readdirSync(RECORD_DIR)) {
    const file = path.join(RECORD_DIR, name);
    const record = readMountRecord(name.replace(/\.json$/, ""));
    if (record?.mountPoint.startsWith(`${dir}/`) === true) rmSync(file, { force: true });
  }
}

/** Unmounts `mountpoint` as a user would. Gives null when it went, otherwise why not. */
export async function cleanUnmount(mountpoint: string, timeoutMs: number, signal?: AbortSignal): Promise<string | null> {
  const result = await run("umount", [mountpoint], { timeoutMs, signal });
  return result.status === 0 ? null : describeRun("umount", [mountpoint], result);
}

/**
 * For sh, in a new mount namespace: the copies there of mounts of all labs go. They would keep their overlays after they have been unmounted.
 * -c, because a look at one may hang.
 */
export const LEAVE_COPIES = "umount -a -c -i -l -t fuse.clustered";

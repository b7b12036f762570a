/**
 * A lower directory has to be the root of its file system: files are opened by handle, and a handle reaches every inode of the file system
 * that it names, also those that do not lie below the directory. Source: open_by_handle_at(2), proc_pid_mountinfo(5).
 */
import { readFileSync, readlinkSync } from "node:fs";
import { OperatingError } from "../../dlmd/base/error.ts";
import { type MountEntry, mountTable } from "../../dlmd/base/mount-table.ts";

/** What is wrong with the directory that `fd` names, as a root; null: nothing. */
function objection(fd: number, table: readonly MountEntry[]): string | null {
  const mountId = Number(/^mnt_id:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, "utf8"))?.[1] ?? Number.NaN);
  const mount = table.find((entry) => entry.mountId === mountId);
  if (mount === undefined) return "its mount is not in this mount namespace";
  if (readlinkSync(`/proc/self/fd/${fd}`) !== mount.mountPoint)
    return `it lies inside the file system that is mounted on ${mount.mountPoint}`;
  // A bind mount of a subdirectory looks like a root, and its file system is larger.
  return mount.root === "/" ? null : `${mount.root} of a larger file system (${mount.source}) is mounted there`;
}

/** Throws OperatingError "not-a-root". `fd`: of the directory `where`. */
export function requireFileSystemRoot(fd: number, where: string, table: readonly MountEntry[] = mountTable()): void {
  const reason = objection(fd, table);
  if (reason === null) return;
  throw new OperatingError(`the lower directory ${where} is not the root of a file system: ${reason}`, {
    code: "not-a-root",
    hint: "Overlays reach all of the file system that the directory is on. Give it one of its own, and name the directory where that is mounted.",
    exitStatus: 32,
  });
}

/**
 * Whether a lower directory is the root of its file system. Files are opened by handle, and a handle reaches every inode of the file system:
 * in a directory that is a part of one, each has to be proved to lie in it (hazard R19, ../lower/local/containment.ts), which goes by paths.
 * Source: open_by_handle_at(2), proc_pid_mountinfo(5).
 */
import { readFileSync, readlinkSync } from "node:fs";
import { OperatingError } from "../../dlmd/base/error.ts";
import { type MountEntry, mountTable } from "../../dlmd/base/mount-table.ts";

/**
 * `fd`: of the directory `where`. Throws OperatingError "not-a-root" where its mount does not show the paths of its file system: a part of one
 * that is bound to a place of its own, or one that this mount namespace does not have.
 */
export function isFileSystemRoot(fd: number, where: string, table: readonly MountEntry[] = mountTable()): boolean {
  const mountId = Number(/^mnt_id:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, "utf8"))?.[1] ?? Number.NaN);
  const mount = table.find((entry) => entry.mountId === mountId);
  if (mount === undefined) throw notARoot(where, "its mount is not in this mount namespace");
  if (mount.root !== "/") throw notARoot(where, `${mount.root} of a larger file system (${mount.source}) is mounted there`);
  return readlinkSync(`/proc/self/fd/${fd}`) === mount.mountPoint;
}

function notARoot(where: string, reason: string): OperatingError {
  return new OperatingError(`the lower directory ${where} cannot be kept apart from the rest of its file system: ${reason}`, {
    code: "not-a-root",
    hint: "Name the directory by its path in the file system itself, not by a bind mount.",
    exitStatus: 32,
  });
}

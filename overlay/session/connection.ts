/**
 * A mount's connection in the kernel, from outside: /sys/fs/fuse/connections/N, where N is the minor number of the mount's device
 * (Documentation/filesystems/fuse.rst). Writing to its `abort` ends a connection whose server hangs: the last means of a supervisor,
 * because a process that waits for its own mount survives SIGKILL.
 */
import { existsSync, writeFileSync } from "node:fs";
import { OperatingError } from "../../dlmd/base/error.ts";
import { type MountEntry, minorOf, mountAt, mountTable } from "../../dlmd/base/mount-table.ts";
import { MNT_DETACH, type Native } from "../../native/index.ts";

/**
 * The kernel reads that far ahead in a file that is read in order, in requests of up to as much. Its own default, 128 KiB, can be lowered at
 * INIT but not raised; measured, a file is then read at another node at half the speed. With 4 MiB, four requests under way, it is a quarter faster there than with
 * one, and the same on the owner.
 */
export const READ_AHEAD_KIB = 4096;

const CONNECTIONS = "/sys/fs/fuse/connections";

/** N of the topmost mount at that path, by the mount table: asking the mount itself could wait for ever. Null: nothing is mounted. */
export function connectionNumber(mountpoint: string, table: readonly MountEntry[] = mountTable()): number | null {
  const mount = mountAt(mountpoint, table);
  return mount === null ? null : minorOf(mount);
}

/** Takes that mount out of the tree, lazily. False: it is not what is seen at that path. Something else may be mounted over it, which is not to go. */
export function detachMount(
  native: Pick<Native, "umount">,
  mountpoint: string,
  connection: number,
  table: readonly MountEntry[] = mountTable(),
): boolean {
  return mountAt(mountpoint, table)?.device === `0:${connection}` && native.umount(mountpoint, MNT_DETACH) >= 0;
}

/** Where read-ahead of that connection's mount is set (Documentation/ABI/testing/sysfs-class-bdi). */
function readAheadFile(connection: number): string {
  return `/sys/class/bdi/0:${connection}/read_ahead_kb`;
}

/** Sets READ_AHEAD_KIB. Where /sys is not there or may not be written to the mount is slower, and nothing else: the error is returned. */
export function setReadAhead(connection: number): Error | null {
  try {
    writeFileSync(readAheadFile(connection), String(READ_AHEAD_KIB));
    return null;
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}

/** Every request of the connection fails with ENOTCONN from now on; its server reads ENODEV. */
export function abortConnection(native: Pick<Native, "mount">, connection: number): void {
  const file = `${CONNECTIONS}/${connection}/abort`;
  // The control file system is not mounted everywhere.
  if (!existsSync(file)) native.mount("none", CONNECTIONS, "fusectl", 0, "");
  if (!existsSync(file)) {
    throw new OperatingError(`FUSE connection ${connection} expected in ${CONNECTIONS}, not found there`, {
      code: "no-connection",
      hint: "The mount may be gone already; look for it in /proc/self/mountinfo.",
    });
  }
  writeFileSync(file, "1");
}

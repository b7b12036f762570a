/**
 * A mount's connection in the kernel, from outside: /sys/fs/fuse/connections/N, where N is the minor number of the mount's device
 * (Documentation/filesystems/fuse.rst). Writing to its `abort` ends a connection whose server hangs: the last means of a supervisor,
 * because a process that waits for its own mount survives SIGKILL.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { OperatingError } from "../../dlmd/base/error.ts";
import type { Native } from "../native/index.ts";

const CONNECTIONS = "/sys/fs/fuse/connections";

/** proc(5): space, tab, newline and backslash in mountinfo are octal. */
function unescapePath(path: string): string {
  return path.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}

/** N of the topmost mount at that path, by /proc/self/mountinfo: asking the mount itself could wait for ever. Null: nothing is mounted. */
export function connectionNumber(mountpoint: string, mountinfo: string = readFileSync("/proc/self/mountinfo", "latin1")): number | null {
  let found: number | null = null;
  const wanted = Buffer.from(mountpoint).toString("latin1");
  for (const line of mountinfo.split("\n")) {
    const fields = line.split(" ");
    const device = fields[2];
    const path = fields[4];
    if (device === undefined || path === undefined || unescapePath(path) !== wanted) continue;
    found = Number(device.split(":")[1]);
  }
  return found;
}

/** Every request of the connection fails with ENOTCONN from now on; its server reads ENODEV. */
export function abortConnection(native: Native, connection: number): void {
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

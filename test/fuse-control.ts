/**
 * The control file system of FUSE, where an init system mounts it: tests look there for requests that wait, and end connections that hang. A
 * machine without such an init system (a container, a virtual machine of its own kind) has not got it mounted.
 */
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";

const CONNECTIONS = "/sys/fs/fuse/connections";

/** Mounts it if it is not, and gives what takes it down again. Not root, or no FUSE: the tests that need it say so. */
export default function setup(): (() => void) | undefined {
  const mounted = readFileSync("/proc/self/mountinfo", "latin1").includes(` ${CONNECTIONS} `);
  if (mounted || process.getuid?.() !== 0 || !existsSync(CONNECTIONS)) return undefined;
  execFileSync("mount", ["-t", "fusectl", "none", CONNECTIONS]);
  return () => {
    execFileSync("umount", [CONNECTIONS]);
  };
}

/**
 * The control file system of FUSE, where an init system mounts it: tests look there for requests that wait, and end connections that hang. A
 * machine without such an init system (a container, a virtual machine of its own kind) has not got it mounted.
 */
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";

const CONNECTIONS = "/sys/fs/fuse/connections";

/** Mounts it if it is not. It stays, as it would with an init system: another run of tests may use it by now. Not root, or no FUSE: nothing. */
export default function setup(): void {
  const isMounted = (): boolean => readFileSync("/proc/self/mountinfo", "latin1").includes(` ${CONNECTIONS} `);
  if (isMounted() || process.getuid?.() !== 0 || !existsSync(CONNECTIONS)) return;
  try {
    execFileSync("mount", ["-t", "fusectl", "none", CONNECTIONS], { stdio: "pipe" });
  } catch (error) {
    // Another run may have been faster.
    if (!isMounted()) throw error;
  }
}

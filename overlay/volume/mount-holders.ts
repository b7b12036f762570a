/**
 * Which processes of this machine keep a file system mounted in a mount namespace of their own (mount_namespaces(7)): a container, a service
 * with PrivateTmp, `unshare -m`. An unmount in our namespace does not reach them, and the file system lives as long as they do.
 */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { parseMountinfo } from "../../dlmd/base/mount-table.ts";

export interface MountHolder {
  readonly pid: number;
  readonly program: string;
  /** "mnt:[4026532291]" */
  readonly namespace: string;
  readonly mountPoint: string;
}

/** Processes that are named; of the others the number. */
export const MAX_NAMED_HOLDERS = 8;

/** `device`: "major:minor" of the file system. Processes in our own mount namespace are not among them. */
export function namespaceHolders(device: string): MountHolder[] {
  const own = readlinkSync("/proc/self/ns/mnt");
  // Of each namespace: where it has the file system mounted.
  const mountPoints = new Map<string, string | null>([[own, null]]);
  const holders: MountHolder[] = [];
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const holder = ofProcess(Number(name), device, mountPoints);
    if (holder !== null) holders.push(holder);
  }
  return holders;
}

function ofProcess(pid: number, device: string, mountPoints: Map<string, string | null>): MountHolder | null {
  try {
    const namespace = readlinkSync(`/proc/${pid}/ns/mnt`);
    let mountPoint = mountPoints.get(namespace);
    if (mountPoint === undefined) {
      const table = parseMountinfo(readFileSync(`/proc/${pid}/mountinfo`, "utf8"));
      mountPoint = table.find((entry) => entry.device === device)?.mountPoint ?? null;
      mountPoints.set(namespace, mountPoint);
    }
    return mountPoint === null ? null : { pid, program: readFileSync(`/proc/${pid}/comm`, "utf8").trim(), namespace, mountPoint };
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    // ENOENT, ESRCH: gone. EINVAL: a zombie has no table. EACCES, EPERM: not ours to look at.
    if (code === "ENOENT" || code === "ESRCH" || code === "EINVAL" || code === "EACCES" || code === "EPERM") return null;
    throw error;
  }
}

/** "process 41 (sleep) at /shared in mount namespace mnt:[4026532291]", one after the other. */
export function holderWords(holders: readonly MountHolder[]): string {
  const named = holders
    .slice(0, MAX_NAMED_HOLDERS)
    .map(({ pid, program, namespace, mountPoint }) => `process ${pid} (${program}) at ${mountPoint} in mount namespace ${namespace}`);
  const more = holders.length - named.length;
  return `${named.join(", ")}${more > 0 ? `, and ${more} more` : ""}`;
}

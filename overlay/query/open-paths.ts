/**
 * Which path a process of this machine has open for an inode of a mount: from /proc/PID/fdinfo (proc_pid_fdinfo(5), "ino" since Linux 5.14), which
 * asks nothing of the file system. The mount may be what hangs.
 */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { type MountEntry, mountTable } from "../../dlmd/base/mount-table.ts";
import { statFields } from "../../dlmd/base/proc-stat.ts";
import type { ClusterInfo } from "../../dlmd/client/api.ts";
import { volumeName } from "./lock-names.ts";
import { listOverlays } from "./overlay-query.ts";

/** Descriptors of one process that are looked at; a path among the others is not found. */
export const MAX_DESCRIPTORS_LOOKED_AT = 4096;

/** `ino`: the inode number in decimal. null: it has none open, or is not to be seen. */
export function openPath(
  pid: number,
  ino: string,
  mounts: readonly MountEntry[],
  limit: number = MAX_DESCRIPTORS_LOOKED_AT,
): string | null {
  const mountIds = new Set(mounts.map(({ mountId }) => mountId));
  try {
    for (const fd of readdirSync(`/proc/${pid}/fd`).slice(0, limit)) {
      const info = readFileSync(`/proc/${pid}/fdinfo/${fd}`, "utf8");
      if (/^ino:\s*(\d+)$/m.exec(info)?.[1] !== ino) continue;
      if (mountIds.has(Number(/^mnt_id:\s*(\d+)$/m.exec(info)?.[1]))) return readlinkSync(`/proc/${pid}/fd/${fd}`);
    }
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    // ENOENT, ESRCH: it ended or closed it meanwhile. EACCES, EPERM: not ours to look at.
    if (code !== "ENOENT" && code !== "ESRCH" && code !== "EACCES" && code !== "EPERM") throw error;
  }
  return null;
}

/** Name of a process, "" if it has ended. */
export function programOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, "utf8").trim();
  } catch {
    return "";
  }
}

/** It sleeps in the kernel, where no signal ends it: state D of proc(5). False also if it has ended. */
export function sleepsInKernel(pid: number): boolean {
  try {
    return statFields(readFileSync(`/proc/${pid}/stat`, "latin1"))[0] === "D";
  } catch {
    return false;
  }
}

/** Its threads; the pid alone if it has ended. A thread's own number gives that thread. */
export function threadsOf(pid: number): number[] {
  try {
    return readdirSync(`/proc/${pid}/task`).map(Number);
  } catch {
    return [pid];
  }
}

/** The mounts of this node of the volume with that lockspace, bind mounts among them; none of an overlay that is gone. */
export function mountsOf(runDir: string, info: Pick<ClusterInfo, "volumes">, lockspace: string): MountEntry[] {
  const name = volumeName(lockspace, info.volumes);
  const overlays = listOverlays(runDir).filter(({ file, alive }) => alive && file.volume === name);
  const devices = new Set(overlays.map(({ connection }) => `0:${connection}`));
  return mountTable().filter(({ device }) => devices.has(device));
}

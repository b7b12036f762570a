/** What is known here of the files behind locks: their volume, and their path where a process of this node has them open. */
import type { ClusterInfo } from "../../dlmd/client/api.ts";
import type { ClusterLocks } from "../query/cluster-locks.ts";
import { inodeLock, volumeName } from "../query/lock-names.ts";
import { mountsOf, openPath } from "../query/open-paths.ts";
import type { PathOf } from "./why-words.ts";

/** Looks for the paths in the processes of this node that have or want file locks. */
export function pathsHere(runDir: string, info: ClusterInfo, { files }: Pick<ClusterLocks, "files">): PathOf {
  const found = new Map<string, string>();
  for (const { lockspace, file, held, waiting } of files) {
    const lock = inodeLock(lockspace, file);
    if (lock === null) continue;
    const mounts = mountsOf(runDir, info, lockspace);
    const pids = new Set([...held, ...waiting].flatMap(({ nodeid, pid }) => (nodeid === info.nodeid ? [pid] : [])));
    for (const pid of pids) {
      const path = openPath(pid, lock.ino, mounts);
      if (path !== null) found.set(`${lockspace}/${lock.key}`, path);
    }
  }
  return (lockspace, resource) => found.get(`${lockspace}/${inodeLock(lockspace, resource)?.key ?? ""}`) ?? null;
}

export interface FileLocksReport {
  readonly volume: string;
  /** Inode number in decimal. */
  readonly inode: string;
  readonly path: string | null;
}

/** For --json: `files` with what is known of each file, and the program of each process. */
export function reportFiles(locks: ClusterLocks, info: ClusterInfo, pathOf: PathOf): readonly object[] {
  const programs = new Map(locks.processes.map(({ nodeid, pid, program }) => [`${nodeid}/${pid}`, program]));
  const named = <T extends { readonly nodeid: number; readonly pid: number }>(row: T): T & { readonly program: string } => ({
    ...row,
    program: programs.get(`${row.nodeid}/${row.pid}`) ?? "",
  });
  return locks.files.map((row) => {
    const lock = inodeLock(row.lockspace, row.file);
    const file: FileLocksReport = {
      volume: volumeName(row.lockspace, info.volumes),
      inode: lock?.ino ?? "",
      path: pathOf(row.lockspace, row.file),
    };
    return { ...row, ...(lock === null ? {} : file), held: row.held.map(named), waiting: row.waiting.map(named) };
  });
}

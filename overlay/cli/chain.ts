/** Asks all nodes who waits, for the chain of `coverlay why`. */
import type { ClusterInfo } from "../../dlmd/client/api.ts";
import { decodeClusterLocks } from "../query/cluster-locks.ts";
import { askCluster, nodeName } from "../query/dlmd-query.ts";
import { type LockChain, lockChain } from "../query/lock-chain.ts";
import { lockWaits, withPaths } from "../query/lock-waits.ts";
import { mountsOf, openPath } from "../query/open-paths.ts";

/** From that process on; null: it waits for no lock of a program. */
export async function askChain(runDir: string, start: { readonly nodeid: number; readonly pid: number }): Promise<LockChain | null> {
  const { info, answer } = await askCluster(runDir, () => ({ lockspace: "", resource: "", nodeid: 0, waitingMs: 0 }));
  const self = nodeName(info);
  const waits = lockWaits(decodeClusterLocks(answer), info, 0);
  const chain = lockChain(waits, { node: self(start.nodeid), pid: start.pid });
  return chain === null ? null : { ...chain, links: withPaths(chain.links, self(info.nodeid), () => [], pathIn(runDir, info)) };
}

function pathIn(runDir: string, info: ClusterInfo): (pid: number, ino: string, lockspace: string) => string | null {
  return (pid, ino, lockspace) => openPath(pid, ino, mountsOf(runDir, info, lockspace));
}

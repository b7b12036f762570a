/** For what the calls of programs wait: of each one reason, the first that explains the others. Pure. */
import type { MountFacts, NodeFacts, Wait, WaitingCall } from "./facts.ts";
import { nameIn } from "./judge-cluster.ts";
import { partyWords } from "./judge-mounts.ts";
import { shortTime } from "./problem.ts";

export interface ReportCall {
  readonly mountpoint: string;
  readonly volume: string;
  /** Of the kernel: "read", "lookup", "setlk" ... */
  readonly op: string;
  /** The calling thread; 0: the kernel writes a mapping back, or it is not to be seen from here. */
  readonly pid: number;
  /** "": it has ended, and what the kernel read ahead for it still waits. */
  readonly program: string;
  /** Its number, in decimal; null: it is of no inode that the mount knows. */
  readonly inode: string | null;
  /** Where the program has it open; null: it has not. */
  readonly path: string | null;
  readonly waitingMs: number;
  /** In words; null: for nothing that lasts, as far as is known. */
  readonly waitsFor: string | null;
}

export function callsOf({ calls, mounts, waits, cluster }: NodeFacts): ReportCall[] {
  const name = nameIn(cluster?.nodes ?? []);
  const self = cluster === null ? "" : name(cluster.nodeid);
  return calls
    .toSorted((a, b) => b.waitingMs - a.waitingMs)
    .map((call) => {
      const mount = mounts.find(({ mountpoint, pid }) => mountpoint === call.mountpoint && pid === call.mountPid);
      const { mountpoint, op, pid, program, key, path, waitingMs } = call;
      return {
        mountpoint,
        volume: mount?.volume ?? "",
        op,
        pid,
        program,
        inode: key?.split(".")[0] ?? null,
        path,
        waitingMs,
        waitsFor: reasonOf(call, mount, waits, self),
      };
    });
}

/** Without a lease nothing else counts, and without a lock the owner is not asked. */
function reasonOf(call: WaitingCall, mount: MountFacts | undefined, waits: readonly Wait[], self: string): string | null {
  if (mount?.lease === "lapsed") return "the lease of this node, which has ended";
  const lock = waits.find((wait) => isFor(wait, call, self));
  if (lock !== undefined) return lockWords(lock);
  if (mount === undefined) return null;
  if (mount.role === "waiting" || mount.ownerChanges?.withoutMs != null) return `an owner: ${mount.why}`;
  return mount.groupWait ?? mount.ownerWait ?? mount.disk;
}

function isFor({ kind, lockspace, resource, waiter }: Wait, call: WaitingCall, self: string): boolean {
  if (lockspace !== call.lockspace || waiter.node !== self) return false;
  if (call.fileLock) return kind === "file" && waiter.pid === call.pid && resource.slice(1) === call.key;
  return kind === "inode" && resource.slice(1) === call.lockKey;
}

function lockWords({ what, holders, ahead }: Wait): string {
  if (holders.length > 0) return `${what}, which ${holders.map(partyWords).join(" and ")} ${holders.length === 1 ? "has" : "have"}`;
  return ahead === null ? `${what}, until lock service grants it` : `${what}, behind the request of ${partyWords(ahead)}`;
}

/** One line. */
export function callWords({ mountpoint, op, pid, program, inode, path, waitingMs, waitsFor }: ReportCall): string {
  const who = pid === 0 ? "the kernel" : program === "" ? `process ${pid}, which has ended,` : `${program} (process ${pid})`;
  const where = path ?? (inode === null ? mountpoint : `inode ${inode} at ${mountpoint}`);
  return `${who} has waited ${shortTime(waitingMs)} in ${op} of ${where}${waitsFor === null ? "" : `, for ${waitsFor}`}`;
}

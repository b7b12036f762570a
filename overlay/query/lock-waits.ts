/** Who waits for a lock of others, and for whom; and who owns which volume. Made of what the nodes say of their locks. */
import type { ClusterInfo } from "../../dlmd/client/api.ts";
import type { FileRangeAnswer, LockAnswer, ResourceAnswer } from "../../dlmd/wire/inspect-answer.ts";
import { modeNames, modesCompatible, type Mode } from "../../dlmd/wire/mode.ts";
import type { Party, Wait } from "../status/facts.ts";
import { volumeLockspace } from "../volume/owner.ts";
import { type ClusterLocks, fileRangeWords } from "./cluster-locks.ts";
import { nodeName } from "./dlmd-query.ts";
import { electionWords } from "./election-words.ts";
import { keepersOf } from "./file-keepers.ts";
import { inodeLock, lockTitle } from "./lock-names.ts";

/** Of those that have what excludes it, so many are named. */
const HOLDERS_NAMED_MAX = 3;

type Info = Pick<ClusterInfo, "nodes" | "volumes">;

/** Of all that wait at least that long. Not of a volume's election, where a mount waits for as long as another one is the owner. */
export function lockWaits(locks: ClusterLocks, info: Info, waitingMs: number): Wait[] {
  const found = new Waits(locks, info);
  const rows = [
    ...locks.resources
      .filter(({ lockspace, resource }) => electionWords(lockspace, resource) === null)
      .flatMap((one) => found.ofResource(one)),
    ...locks.files.flatMap((file) => found.ofFile(file)),
  ];
  return rows.filter((row) => row.waitingMs >= waitingMs);
}

/** By uuid. Of a volume whose node is becoming the owner, that node. */
export function volumeOwners({ resources }: ClusterLocks, { volumes }: Info): Map<string, number> {
  const owners = new Map<string, number>();
  for (const { uuid } of volumes) {
    const head = resources.find(({ lockspace, resource }) => lockspace === volumeLockspace(uuid) && resource === "next");
    const holder = head?.grantQueue.find(({ granted }) => granted === "EX");
    if (holder !== undefined) owners.set(uuid, holder.nodeid);
  }
  return owners;
}

/** `pathOf`: of a file that this process of this node has open; null: it is not known. `self`: the name of this node. */
export function withPaths(
  waits: readonly Wait[],
  self: string,
  pidsOf: (wait: Wait, key: string) => readonly number[],
  pathOf: (pid: number, ino: string, lockspace: string) => string | null,
): Wait[] {
  return waits.map((wait) => {
    const lock = inodeLock(wait.lockspace, wait.resource);
    if (lock === null) return wait;
    const parties = [wait.waiter, ...wait.holders, ...(wait.ahead === null ? [] : [wait.ahead])]
      .filter(({ node, pid }) => node === self && pid > 0)
      .map(({ pid }) => pid);
    for (const pid of new Set([...parties, ...pidsOf(wait, lock.key)])) {
      const path = pathOf(pid, lock.ino, wait.lockspace);
      if (path !== null) return { ...wait, path };
    }
    return { ...wait, path: null };
  });
}

class Waits {
  readonly #info: Info;
  readonly #name: (nodeid: number) => string;
  readonly #clients: ReadonlyMap<string, { readonly pid: number; readonly program: string }>;
  readonly #processes: ReadonlyMap<string, string>;

  constructor(locks: ClusterLocks, info: Info) {
    this.#info = info;
    this.#name = nodeName(info as ClusterInfo);
    this.#clients = new Map(locks.programs.map(({ nodeid, clientId, ...program }) => [`${nodeid}/${clientId}`, program]));
    this.#processes = new Map(locks.processes.map(({ nodeid, pid, program }) => [`${nodeid}/${pid}`, program]));
  }

  #client({ nodeid, clientId }: Pick<LockAnswer, "nodeid" | "clientId">): Party {
    const { pid = 0, program = "" } = this.#clients.get(`${nodeid}/${clientId}`) ?? {};
    return { node: this.#name(nodeid), pid, program: program.split("/").at(-1) ?? "" };
  }

  #process({ nodeid, pid }: FileRangeAnswer): Party {
    return { node: this.#name(nodeid), pid, program: this.#processes.get(`${nodeid}/${pid}`) ?? "" };
  }

  #volume(lockspace: string): string | null {
    return this.#info.volumes.find(({ uuid }) => volumeLockspace(uuid) === lockspace)?.name ?? null;
  }

  ofResource({ lockspace, resource, grantQueue, convertQueue, waitQueue }: ResourceAnswer): Wait[] {
    const what = lockTitle(lockspace, resource) ?? `lock ${resource}`;
    const kind = inodeLock(lockspace, resource) === null ? "other" : "inode";
    return [...convertQueue, ...waitQueue].flatMap((row) => {
      if (row.waitingMs === null || row.requested === null) return [];
      const inTheWay = [...grantQueue, ...convertQueue].filter((other) => other !== row && excludes(other.granted, row.requested));
      const holders = inTheWay.slice(0, HOLDERS_NAMED_MAX).map((other) => this.#client(other));
      const [first] = convertQueue.includes(row)
        ? convertQueue.slice(0, convertQueue.indexOf(row))
        : [...convertQueue, ...waitQueue.slice(0, waitQueue.indexOf(row))];
      const ahead = holders.length > 0 || first === undefined ? null : this.#client(first);
      const volume = this.#volume(lockspace);
      const { waitingMs } = row;
      return [{ kind, volume, lockspace, resource, what, waiter: this.#client(row), holders, ahead, waitingMs }] satisfies Wait[];
    });
  }

  ofFile(of: ClusterLocks["files"][number]): Wait[] {
    const { lockspace, file, waiting } = of;
    return waiting.map((row): Wait => {
      const { ahead, holders } = keepersOf(row, of);
      return {
        kind: "file",
        volume: this.#volume(lockspace),
        lockspace,
        resource: file,
        what: `${fileRangeWords(row)} (${lockTitle(lockspace, file) ?? `file ${file}`})`,
        waiter: this.#process(row),
        holders: holders.slice(0, HOLDERS_NAMED_MAX).map((holder) => this.#process(holder)),
        ahead: ahead === null ? null : this.#process(ahead),
        waitingMs: row.waitingMs,
      };
    });
  }
}

function excludes(granted: string | null, requested: string | null): boolean {
  return !modesCompatible(modeOf(granted), modeOf(requested));
}

/** Null, or a mode that is not known here: NL, which excludes none. */
function modeOf(name: string | null): Mode {
  return Math.max(0, modeNames.indexOf(name as (typeof modeNames)[number])) as Mode;
}

/** What the nodes of the cluster say of a lock or of many, put together: queues from the masters, programs from their own nodes. */
import { OperatingError, WireError } from "../../dlmd/base/error.ts";
import {
  decodeInspectAnswer,
  type FileAnswer,
  type FileRangeAnswer,
  type InspectAnswerRow,
  type InspectedClient,
  type LockspaceAnswer,
  type ProcessAnswer,
  type ResourceAnswer,
} from "../../dlmd/wire/inspect-answer.ts";

export interface ProgramRow extends InspectedClient {
  readonly nodeid: number;
}
export interface ProcessRow extends ProcessAnswer {
  readonly nodeid: number;
}
export interface ClusterLocks {
  /** By lockspace and name. */
  readonly resources: readonly (ResourceAnswer & { readonly fromMaster: boolean })[];
  /** Files with POSIX, open-file or flock locks, from their masters. */
  readonly files: readonly FileAnswer[];
  readonly programs: readonly ProgramRow[];
  /** Processes with file locks, each from its own node. */
  readonly processes: readonly ProcessRow[];
  /** Which nodes have the lockspaces of all these open. */
  readonly lockspaces: readonly LockspaceAnswer[];
  /** Nodes whose lock service does not run, and why. */
  readonly notServing: readonly { readonly nodeid: number; readonly state: string }[];
  /** Nodes whose lock service runs, but not in all lockspaces, and what those wait for. */
  readonly waiting: readonly { readonly nodeid: number; readonly state: string }[];
  /** Nodes that said nothing, and why. */
  readonly missing: readonly { readonly nodeid: number; readonly reason: string }[];
  readonly truncated: boolean;
}

/** Checks what dlmd answered, and puts it together. Throws OperatingError "dlmd-bad-answer". */
export function decodeClusterLocks(answer: unknown): ClusterLocks {
  const nodes = checkedRows(answer);
  const said = nodes.flatMap((row) => ("answer" in row ? [{ nodeid: row.nodeid, ...row.answer }] : []));
  const resources = new Map<string, ResourceAnswer & { readonly fromMaster: boolean }>();
  for (const { nodeid, resources: rows } of said) {
    for (const row of rows) {
      const key = `${row.lockspace}\0${row.resource}`;
      const known = resources.get(key);
      if (row.masterNodeid === nodeid) resources.set(key, { ...row, fromMaster: true });
      else if (known === undefined) resources.set(key, { ...row, fromMaster: false });
      else if (!known.fromMaster) resources.set(key, { ...joined(known, row), fromMaster: false });
    }
  }
  return {
    resources: [...resources.values()],
    files: said.flatMap(({ files }) => files),
    programs: said.flatMap(({ nodeid, clients }) => clients.map((client) => ({ nodeid, ...client }))),
    processes: said.flatMap(({ nodeid, processes }) => processes.map((process) => ({ nodeid, ...process }))),
    lockspaces: once(said.flatMap(({ lockspaces }) => lockspaces)),
    notServing: said.filter(({ serving }) => !serving).map(({ nodeid, state }) => ({ nodeid, state })),
    waiting: said.filter(({ serving, state }) => serving && state !== "running").map(({ nodeid, state }) => ({ nodeid, state })),
    missing: nodes.flatMap((row) => ("missing" in row ? [{ nodeid: row.nodeid, reason: row.missing }] : [])),
    truncated: said.some(({ truncated }) => truncated),
  };
}

function checkedRows(answer: unknown): readonly InspectAnswerRow[] {
  try {
    return decodeInspectAnswer(answer);
  } catch (error) {
    if (!(error instanceof WireError)) throw error;
    const message = `dlmd's answer about locks should be what each node says of its resources and their queues, found: ${error.message}`;
    throw new OperatingError(message, { code: "dlmd-bad-answer", hint: "Is a dlmd of another version? Restart it after an upgrade." });
  }
}

function once<T>(rows: readonly T[]): T[] {
  return [...new Map(rows.map((row) => [JSON.stringify(row), row])).values()];
}

/** The answers to several questions as one. What nodes say of themselves is that of the last answer. */
export function joinClusterLocks(all: readonly ClusterLocks[]): ClusterLocks {
  const last = all.at(-1) ?? decodeClusterLocks({ nodes: [] });
  return {
    ...last,
    resources: all.flatMap(({ resources }) => resources),
    files: all.flatMap(({ files }) => files),
    programs: once(all.flatMap(({ programs }) => programs)),
    processes: once(all.flatMap(({ processes }) => processes)),
    lockspaces: once(all.flatMap(({ lockspaces }) => lockspaces)),
    truncated: all.some(({ truncated }) => truncated),
  };
}

/** Two nodes' own locks on a resource whose master says nothing of it. */
function joined(a: ResourceAnswer, b: ResourceAnswer): ResourceAnswer {
  return {
    ...a,
    grantQueue: [...a.grantQueue, ...b.grantQueue],
    convertQueue: [...a.convertQueue, ...b.convertQueue],
    waitQueue: [...a.waitQueue, ...b.waitQueue],
  };
}

/** "write on bytes 0 to 99" */
export function fileRangeWords({ kind, type, start, end }: FileRangeAnswer): string {
  if (kind === "flock") return `${type === "write" ? "LOCK_EX" : "LOCK_SH"} (flock)`;
  return `${type} on bytes ${start} to ${end ?? "the end"}`;
}

/** The longest that anybody waits for it; -1: nobody does. */
export function longestWaitMs({ convertQueue, waitQueue }: ResourceAnswer): number {
  return Math.max(-1, ...[...convertQueue, ...waitQueue].map(({ waitingMs }) => waitingMs ?? -1));
}

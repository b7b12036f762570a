/** What the nodes of the cluster say of a lock or of many, put together: queues from the masters, programs from their own nodes. */
import * as z from "zod";
import { OperatingError } from "../../dlmd/base/error.ts";

export interface LockRow {
  readonly nodeid: number;
  readonly clientId: number;
  readonly granted: string | null;
  readonly requested: string | null;
  readonly waitingMs: number | null;
  readonly orphan: boolean;
  /** The mode that it was asked to make way for, and when. */
  readonly asked: string | null;
  readonly askedMs: number | null;
  /** It need not answer; undefined: a dlmd that does not say. */
  readonly mayKeep?: boolean | undefined;
}
export interface ResourceRow {
  readonly lockspace: string;
  readonly resource: string;
  readonly masterNodeid: number;
  readonly grantQueue: readonly LockRow[];
  readonly convertQueue: readonly LockRow[];
  readonly waitQueue: readonly LockRow[];
}
/** Bytes of a file that somebody has a file lock on, or wants. */
export interface FileRow {
  readonly nodeid: number;
  readonly clientId: number;
  readonly kind: string;
  readonly owner: string;
  readonly pid: number;
  readonly type: string;
  readonly start: string;
  readonly end: string | null;
}
export interface FileWaitRow extends FileRow {
  readonly waitingMs: number;
  readonly blocker: (Pick<FileRow, "nodeid" | "clientId" | "kind" | "owner"> & { readonly behind: boolean }) | null;
}
export interface FileLocksRow {
  readonly lockspace: string;
  readonly file: string;
  readonly masterNodeid: number;
  readonly held: readonly FileRow[];
  readonly waiting: readonly FileWaitRow[];
}
export interface ProgramRow {
  readonly nodeid: number;
  readonly clientId: number;
  readonly pid: number;
  readonly program: string;
}
export interface ProcessRow {
  readonly nodeid: number;
  readonly pid: number;
  /** "": it has ended, or is not to be seen from its node. */
  readonly program: string;
}
export interface ClusterLocks {
  /** By lockspace and name. */
  readonly resources: readonly (ResourceRow & { readonly fromMaster: boolean })[];
  /** Files with POSIX, open-file or flock locks, from their masters. */
  readonly files: readonly FileLocksRow[];
  readonly programs: readonly ProgramRow[];
  /** Processes with file locks, each from its own node. */
  readonly processes: readonly ProcessRow[];
  /** Which nodes have the lockspaces of all these open. */
  readonly lockspaces: readonly { readonly lockspace: string; readonly nodeids: readonly number[] }[];
  /** Nodes whose lock service does not run, and why. */
  readonly notServing: readonly { readonly nodeid: number; readonly state: string }[];
  /** Nodes whose lock service runs, but not in all lockspaces, and what those wait for. */
  readonly waiting: readonly { readonly nodeid: number; readonly state: string }[];
  /** Nodes that said nothing, and why. */
  readonly missing: readonly { readonly nodeid: number; readonly reason: string }[];
  readonly truncated: boolean;
}

const lockShape: z.ZodType<LockRow> = z.looseObject({
  nodeid: z.number(),
  clientId: z.number(),
  granted: z.string().nullable(),
  requested: z.string().nullable(),
  waitingMs: z.number().nullable(),
  orphan: z.boolean(),
  asked: z.string().nullable(),
  askedMs: z.number().nullable(),
  mayKeep: z.boolean().optional(),
});
const queueShape: z.ZodType<readonly LockRow[]> = z.array(lockShape);
const resourceShape: z.ZodType<ResourceRow> = z.looseObject({
  lockspace: z.string(),
  resource: z.string(),
  masterNodeid: z.number(),
  grantQueue: queueShape,
  convertQueue: queueShape,
  waitQueue: queueShape,
});
const ownerShape = { nodeid: z.number(), clientId: z.number(), kind: z.string(), owner: z.string() };
const rangeShape = { ...ownerShape, pid: z.number(), type: z.string(), start: z.string(), end: z.string().nullable() };
const heldShape: z.ZodType<FileRow> = z.looseObject(rangeShape);
const fileWaitShape: z.ZodType<FileWaitRow> = z.looseObject({
  ...rangeShape,
  waitingMs: z.number(),
  blocker: z.looseObject({ ...ownerShape, behind: z.boolean() }).nullable(),
});
const filesShape: z.ZodType<readonly FileLocksRow[]> = z.array(
  z.looseObject({
    lockspace: z.string(),
    file: z.string(),
    masterNodeid: z.number(),
    held: z.array(heldShape),
    waiting: z.array(fileWaitShape),
  }),
);
const saidShape = z.looseObject({
  serving: z.boolean(),
  state: z.string(),
  resources: z.array(resourceShape),
  files: filesShape,
  clients: z.array(z.looseObject({ clientId: z.number(), pid: z.number(), program: z.string() })),
  processes: z.array(z.looseObject({ pid: z.number(), program: z.string() })).optional(),
  lockspaces: z.array(z.looseObject({ lockspace: z.string(), nodeids: z.array(z.number()) })).optional(),
  truncated: z.boolean(),
});
const answerShape = z.looseObject({
  nodes: z.array(z.looseObject({ nodeid: z.number(), answer: saidShape.optional(), missing: z.string().optional() })),
});

/** Checks what dlmd answered, and puts it together. Throws OperatingError "dlmd-bad-answer". */
export function decodeClusterLocks(answer: unknown): ClusterLocks {
  const result = answerShape.safeParse(answer);
  if (!result.success) {
    const message = `dlmd's answer about locks should be what each node says of its resources and their queues, found: ${z.prettifyError(result.error)}`;
    throw new OperatingError(message, { code: "dlmd-bad-answer", hint: "Is a dlmd of another version? Restart it after an upgrade." });
  }
  const { nodes } = result.data;
  const said = nodes.flatMap(({ nodeid, answer: one }) => (one === undefined ? [] : [{ nodeid, ...one }]));
  const resources = new Map<string, ResourceRow & { readonly fromMaster: boolean }>();
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
    programs: said.flatMap(({ nodeid, clients }) => clients.map(({ clientId, pid, program }) => ({ nodeid, clientId, pid, program }))),
    processes: said.flatMap(({ nodeid, processes = [] }) => processes.map(({ pid, program }) => ({ nodeid, pid, program }))),
    lockspaces: once(said.flatMap(({ lockspaces = [] }) => lockspaces.map(({ lockspace, nodeids }) => ({ lockspace, nodeids })))),
    notServing: said.filter(({ serving }) => !serving).map(({ nodeid, state }) => ({ nodeid, state })),
    waiting: said.filter(({ serving, state }) => serving && state !== "running").map(({ nodeid, state }) => ({ nodeid, state })),
    missing: nodes.flatMap(({ nodeid, missing }) => (missing === undefined ? [] : [{ nodeid, reason: missing }])),
    truncated: said.some(({ truncated }) => truncated),
  };
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
function joined(a: ResourceRow, b: ResourceRow): ResourceRow {
  return {
    ...a,
    grantQueue: [...a.grantQueue, ...b.grantQueue],
    convertQueue: [...a.convertQueue, ...b.convertQueue],
    waitQueue: [...a.waitQueue, ...b.waitQueue],
  };
}

/** "write on bytes 0 to 99" */
export function fileRangeWords({ kind, type, start, end }: FileRow): string {
  if (kind === "flock") return `${type === "write" ? "LOCK_EX" : "LOCK_SH"} (flock)`;
  return `${type} on bytes ${start} to ${end ?? "the end"}`;
}

/** The longest that anybody waits for it; -1: nobody does. */
export function longestWaitMs({ convertQueue, waitQueue }: ResourceRow): number {
  return Math.max(-1, ...[...convertQueue, ...waitQueue].map(({ waitingMs }) => waitingMs ?? -1));
}

/** Asks the dlmd and all mounts of a node at once, within a limit, for a report (../status). What does not answer is said to be silent. */
import { readFileSync } from "node:fs";
import * as z from "zod";
import { OperatingError } from "../../dlmd/base/error.ts";
import { mountTable } from "../../dlmd/base/mount-table.ts";
import type { Call, ClusterFacts, MountFacts, NodeFacts, Wait, WaitingCall } from "../status/facts.ts";
import { type ClusterLocks, decodeClusterLocks } from "./cluster-locks.ts";
import { askNode, nodeName, type NodeSeen } from "./dlmd-query.ts";
import { lockWaits, volumeOwners, withPaths } from "./lock-waits.ts";
import { parseKey } from "./lock-names.ts";
import { mountsOf, openPath } from "./open-paths.ts";
import { listOverlays, type OverlayStatus, queryOverlays } from "./overlay-query.ts";
import { type Waiter, waitersOf } from "../volume/mount-waiter.ts";
import { RECORD_DIR } from "../volume/mount-record.ts";
import { plainMountsOf } from "../volume/device.ts";
import { type OverlayRequests, queryOverlayRequests } from "./overlay-requests.ts";

/** dlmd and each mount, at the same time. dlmd gives other nodes 2 s of it. */
export const NODE_LIMIT_MS = 4000;
/** Locks and calls that are waited for so long are shown: others are asked for and given all the time. */
const WAITING_MS = 1000;
/** Of one mount. */
const CALLS_SHOWN_MAX = 20;

export interface NodeLook {
  readonly facts: NodeFacts;
  /** As dlmd said it; null: it could not be asked. */
  readonly seen: NodeSeen | null;
  readonly error: OperatingError | null;
  readonly overlays: readonly OverlayStatus[];
  readonly waiters: readonly Waiter[];
}

/** Never rejects for what a dlmd or a mount does. OperatingError "permission", "overlay-bad-record": its files could not be read. */
export async function lookAtNode(runDir: string, limitMs: number = NODE_LIMIT_MS, records: string = RECORD_DIR): Promise<NodeLook> {
  const fromMs = performance.now();
  const [dlmd, overlays, requests] = await Promise.all([
    askDlmdOf(runDir, limitMs),
    queryOverlays(runDir, limitMs, mountTable(), records),
    callsSeen(runDir, limitMs),
  ]);
  const tookMs = Math.round(performance.now() - fromMs);
  const waiters = waitersOf(runDir, records);
  const error = dlmd instanceof OperatingError ? dlmd : null;
  const { seen, cluster, waits, owned } = dlmd instanceof OperatingError ? nothing : dlmd;
  const facts: NodeFacts = {
    cluster: cluster === null ? null : { ...cluster, owners: owned },
    error: error === null ? null : { error: error.message, code: error.code, hint: error.hint },
    mounts: overlays.map((one) => mountFacts(one, requests)),
    waiters,
    calls: waitingCalls(runDir, seen, requests),
    waits: waits === null || seen === null ? [] : namedWaits(runDir, waits, seen, requests),
    waitsTruncated: waits?.truncated ?? false,
    unasked: waits === null || seen === null ? [] : unaskedOf(waits, seen),
    atMs: Date.now(),
    tookMs,
  };
  return { facts, seen, error, overlays, waiters };
}

/** With the path of each file that a process of this node has open, or waits for. */
function namedWaits(runDir: string, locks: ClusterLocks, { info }: NodeSeen, calls: readonly CallsSeen[]): Wait[] {
  const here = calls.flatMap(({ found }) => (found instanceof OperatingError ? [] : [found]));
  const callers = ({ lockspace }: Wait, key: string): number[] =>
    here.flatMap((mount) => (mount.lockspace === lockspace ? mount.requests.filter((one) => one.key === key).map(({ pid }) => pid) : []));
  return withPaths(lockWaits(locks, info, WAITING_MS), nodeName(info)(info.nodeid), callers, (pid, ino, lockspace) =>
    openPath(pid, ino, mountsOf(runDir, info, lockspace)),
  );
}

/** Of file locks, too: programs may wait for those as long as they like, and whoever asks wants to know for whom. */
function waitingCalls(runDir: string, seen: NodeSeen | null, mounts: readonly CallsSeen[]): WaitingCall[] {
  return mounts.flatMap(({ found, mountpoint, pid: mountPid }) => {
    if (found instanceof OperatingError) return [];
    const { requests, lockspace } = found;
    const long = requests.filter(({ sinceMs }) => sinceMs >= WAITING_MS).slice(0, CALLS_SHOWN_MAX);
    const entries = seen === null ? [] : mountsOf(runDir, seen.info, lockspace);
    return long.map((request): WaitingCall => {
      const { key, lockKey = key, pid } = request;
      const ino = parseKey(key ?? "")?.ino;
      const path = ino === undefined || pid === 0 ? null : openPath(pid, ino, entries);
      return { ...callOf(request), mountpoint, mountPid, lockspace, key, lockKey, fileLock: request.fileLock !== null, path };
    });
  });
}

interface DlmdSeen {
  readonly seen: NodeSeen | null;
  readonly cluster: Omit<ClusterFacts, "owners"> | null;
  readonly waits: ClusterLocks | null;
  readonly owned: ReadonlyMap<string, number>;
}
const nothing: DlmdSeen = { seen: null, cluster: null, waits: null, owned: new Map() };

async function askDlmdOf(runDir: string, limitMs: number): Promise<DlmdSeen | OperatingError> {
  try {
    const seen = await askNode(runDir, WAITING_MS, limitMs);
    const owned = volumeOwners(decodeClusterLocks(seen.owners), seen.info);
    return { seen, cluster: clusterFacts(seen), waits: decodeClusterLocks(seen.waits), owned };
  } catch (error) {
    if (error instanceof OperatingError) return error;
    throw error;
  }
}

/** Those that are not in the view are away, which is said anyhow. */
function unaskedOf({ missing }: ClusterLocks, { info, view }: NodeSeen): NodeFacts["unasked"] {
  const name = nodeName(info);
  return missing.filter(({ nodeid }) => view.members.includes(nodeid)).map(({ nodeid, reason }) => ({ node: name(nodeid), reason }));
}

const statusShape = z.looseObject({
  viewId: z.string(),
  quorate: z.boolean(),
  members: z.array(z.number()),
  incarnations: z.array(z.string()),
  quorumReason: z.string(),
  running: z.boolean(),
  state: z.string(),
  counting: z.array(z.number()).nullable().default(null),
  unfenced: z.array(z.looseObject({ nodeid: z.number(), lockspaces: z.array(z.string()) })).default([]),
  fencing: z
    .looseObject({
      devices: z.array(z.number()),
      wanted: z.array(z.looseObject({ nodeid: z.number(), step: z.string(), rounds: z.number(), failure: z.string() })),
      unfencing: z.array(z.looseObject({ device: z.string(), rounds: z.number(), failure: z.string() })).default([]),
      history: z
        .array(z.looseObject({ nodeid: z.number(), outcome: z.string(), by: z.string(), words: z.string(), atMs: z.number() }))
        .default([]),
    })
    .default({ devices: [], wanted: [], unfencing: [], history: [] }),
  multicast: z
    .looseObject({ group: z.string(), nodes: z.array(z.looseObject({ nodeid: z.number(), agoMs: z.number().nullable() })) })
    .nullable()
    .default(null),
  channels: z.array(z.looseObject({ nodeid: z.number(), downMs: z.number().nullable() })).default([]),
  views: z
    .array(
      z.looseObject({
        viewId: z.string(),
        quorate: z.boolean(),
        members: z.array(z.number()),
        incarnations: z.array(z.string()),
        quorumReason: z.string(),
        atMs: z.number(),
      }),
    )
    .default([]),
});
const nodesShape = z.array(
  z.looseObject({
    nodeid: z.number(),
    name: z.string(),
    state: z.string(),
    heardAgoMs: z.number().nullable(),
    refused: z.string().nullable().default(null),
  }),
);

function clusterFacts({ info, answer, nodes }: NodeSeen): Omit<ClusterFacts, "owners"> {
  const status = decode(statusShape, answer, "its state");
  const { state, counting, unfenced, fencing, multicast, channels, views } = status;
  // Of the same moment as the rest: that of the connection may be another one meanwhile.
  const { viewId, quorate, members, incarnations, quorumReason, running } = status;
  return {
    clusterName: info.clusterName,
    nodeid: info.nodeid,
    view: { viewId, quorate, members, incarnations, quorumReason, running },
    state,
    counting,
    nodes: decode(nodesShape, nodes, "its nodes"),
    volumes: info.volumes,
    unfenced,
    fencing: fencing.wanted,
    unfencing: fencing.unfencing,
    devices: fencing.devices,
    multicast,
    channels,
    views,
    fences: fencing.history,
  };
}

function decode<T>(shape: z.ZodType<T>, answer: unknown, of: string): T {
  const result = shape.safeParse(answer);
  if (result.success) return result.data;
  throw new OperatingError(`dlmd's answer about ${of} cannot be read: ${z.prettifyError(result.error)}`, {
    code: "dlmd-bad-answer",
    hint: "Is dlmd of another version? Restart it after an upgrade.",
  });
}

/** What a mount said of its calls, or why it did not. */
export interface CallsSeen {
  readonly pid: number;
  readonly mountpoint: string;
  readonly found: OverlayRequests | OperatingError;
}

/** Of each living mount, also of those that do not answer. */
export async function callsSeen(runDir: string, limitMs?: number): Promise<CallsSeen[]> {
  const living = listOverlays(runDir).filter(({ alive }) => alive);
  const asked = living.map(async ({ connection, file: { pid, mountpoint } }): Promise<CallsSeen> => {
    try {
      return { pid, mountpoint, found: await queryOverlayRequests(runDir, connection, limitMs) };
    } catch (error) {
      if (error instanceof OperatingError) return { pid, mountpoint, found: error };
      throw error;
    }
  });
  return Promise.all(asked);
}

const ownerShape = z.looseObject({ nodeid: z.number() });

function mountFacts(overlay: OverlayStatus, all: readonly CallsSeen[]): MountFacts {
  const { mountpoint, volume, device, role, pid, problem, counters, ops, locks, inodes, handles, memory, orphans } = overlay;
  const found = all.find((one) => one.mountpoint === mountpoint && one.pid === pid)?.found;
  const figures = { ...counters, ops, locks, inodes, handles, memoryBytes: memory?.rss, orphans: orphans?.kept };
  return {
    mountpoint,
    volume,
    uuid: overlay.uuid ?? null,
    device,
    role,
    pid,
    problem: problem ?? null,
    why: overlay.why ?? "it does not say why",
    ownerNodeid: ownerShape.safeParse(overlay["owner"]).data?.nodeid ?? null,
    lease: overlay.lease ?? null,
    readOnly: overlay.readOnly ?? null,
    disk: overlay.disk ?? null,
    diskFault: overlay.diskFault ?? null,
    unwatched: overlay.unwatched ?? null,
    plainlyAt: role === "owner" ? plainMountsOf(device) : [],
    ownerWait: overlay.ownerWait ?? null,
    groupWait: overlay.group?.wait ?? null,
    operatorBlocks: overlay.group?.operatorBlocks ?? false,
    ownerChanges: overlay.ownerChanges ?? null,
    work: overlay.work ?? null,
    calls: found === undefined || found instanceof OperatingError ? null : callsOf(found),
    callsProblem: found instanceof OperatingError ? found.message : null,
    figures: Object.fromEntries(Object.entries(figures).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]]))),
  };
}

function callsOf({ requests, count, longest: said }: OverlayRequests): NonNullable<MountFacts["calls"]> {
  const longest = said === undefined ? requests.find(({ fileLock }) => fileLock === null) : said;
  return { count, longest: longest == null ? null : callOf(longest) };
}

function callOf({ op, pid, sinceMs }: OverlayRequests["requests"][number]): Call {
  return { op, pid, program: programName(pid), waitingMs: sinceMs };
}

function programName(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, "utf8").trim();
  } catch {
    return ""; // It has ended, or is not to be seen from here.
  }
}

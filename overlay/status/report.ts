/** The report on a node: one level, what is wrong and what to do, who owns which volume, who waits for whom. Pure. The keys are stable: README.md. */
import type { MountFacts, NodeFacts, Wait } from "./facts.ts";
import { callsOf, type ReportCall } from "./judge-calls.ts";
import { judgeCluster, nameIn } from "./judge-cluster.ts";
import { judgeMount, judgeUnseenWaits, judgeWaiter, judgeWaits } from "./judge-mounts.ts";
import { type Level, type Problem, problem, worstFirst, worstOf } from "./problem.ts";

/** So many waits are shown, and so many calls, the longest first. */
const WAITS_SHOWN_MAX = 20;

export interface ReportNode {
  readonly node: string;
  readonly nodeid: number;
  readonly state: string;
  readonly member: boolean;
  /** Since its last heartbeat; null: never heard, or this node. */
  readonly silentMs: number | null;
  /** Since its last datagram by multicast; null: never, this node, or the cluster uses none. */
  readonly multicastSilentMs: number | null;
}

export interface ReportMount {
  readonly mountpoint: string;
  readonly device: string;
  readonly role: string;
  readonly pid: number;
  readonly answers: boolean;
  /** It has no problem. */
  readonly well: boolean;
  readonly lease: string | null;
  readonly readOnly: boolean | null;
  readonly diskFault: string | null;
  readonly withoutOwnerMs: number | null;
  readonly calls: MountFacts["calls"];
  /** What goes on by itself, and how far it is; null: nothing. */
  readonly work: MountFacts["work"];
  readonly ownerChanges: number | null;
  readonly lastOwnerChange: {
    readonly from: string;
    readonly to: string;
    readonly pauseMs: number;
    readonly atMs: number;
    readonly reason: string;
  } | null;
}

export interface ReportVolume {
  readonly volume: string;
  readonly uuid: string | null;
  /** Null: none, or not known. */
  readonly owner: string | null;
  /** On this node. */
  readonly mounts: readonly ReportMount[];
}

export interface Report {
  readonly level: Level;
  readonly problems: readonly Problem[];
  readonly nodes: readonly ReportNode[];
  readonly volumes: readonly ReportVolume[];
  /** Calls of programs of this node that wait. */
  readonly calls: readonly ReportCall[];
  readonly waits: readonly Wait[];
  readonly waitsTruncated: boolean;
  readonly unasked: NodeFacts["unasked"];
  readonly atMs: number;
  readonly tookMs: number;
  readonly error: NodeFacts["error"];
}

export function reportOf(facts: NodeFacts): Report {
  const { cluster, error, mounts, atMs, tookMs, unasked } = facts;
  const name = nameIn(cluster?.nodes ?? []);
  const silent = error === null ? [] : [problem("dlmd-silent", {}, error.error, error.hint)];
  const ofMounts = mounts.map((mount) => ({ mount, problems: judgeMount(mount, name) }));
  const waits = facts.waits.toSorted((a, b) => b.waitingMs - a.waitingMs);
  const problems = worstFirst([
    ...silent,
    ...(cluster === null ? [] : judgeCluster(cluster)),
    ...ofMounts.flatMap((one) => one.problems),
    ...facts.waiters.map(judgeWaiter),
    ...judgeWaits(waits),
    ...judgeUnseenWaits(facts),
  ]);
  return {
    level: worstOf(problems),
    problems,
    nodes: cluster === null ? [] : nodesOf(cluster),
    volumes: volumesOf(facts, ofMounts),
    calls: callsOf(facts).slice(0, WAITS_SHOWN_MAX),
    waits: waits.slice(0, WAITS_SHOWN_MAX),
    waitsTruncated: facts.waitsTruncated || waits.length > WAITS_SHOWN_MAX,
    unasked,
    atMs,
    tookMs,
    error,
  };
}

function nodesOf({ nodes, view, multicast }: NonNullable<NodeFacts["cluster"]>): ReportNode[] {
  return nodes.map(({ nodeid, name, state, heardAgoMs }) => ({
    node: name,
    nodeid,
    state,
    member: view.members.includes(nodeid),
    silentMs: state === "this" ? null : heardAgoMs,
    multicastSilentMs: multicast?.nodes.find((one) => one.nodeid === nodeid)?.agoMs ?? null,
  }));
}

interface JudgedMount {
  readonly mount: MountFacts;
  readonly problems: readonly Problem[];
}

/** Those of the configuration, and others that are mounted here. */
function volumesOf({ cluster }: NodeFacts, judged: readonly JudgedMount[]): ReportVolume[] {
  const name = nameIn(cluster?.nodes ?? []);
  const configured = cluster?.volumes ?? [];
  const isOf = (mount: MountFacts, volume: { readonly name: string; readonly uuid: string | null }): boolean =>
    mount.uuid === null || volume.uuid === null ? mount.volume === volume.name : mount.uuid === volume.uuid;
  const others = judged.map(({ mount }) => mount).filter((mount) => !configured.some((volume) => isOf(mount, volume)));
  const wanted = [...configured, ...others.map(({ volume, uuid }) => ({ name: volume, uuid }))];
  const distinct = wanted.filter((one, at) => wanted.findIndex((other) => other.name === one.name && other.uuid === one.uuid) === at);
  return distinct.map((volume) => {
    const here = judged.filter(({ mount }) => isOf(mount, volume));
    const known = here.find(({ mount }) => mount.ownerNodeid !== null && mount.role !== "waiting")?.mount.ownerNodeid;
    const owner = known ?? (volume.uuid === null ? undefined : cluster?.owners.get(volume.uuid));
    return {
      volume: volume.name,
      uuid: volume.uuid,
      owner: owner == null ? null : name(owner),
      mounts: here.map((one) => mountOf(one, name)),
    };
  });
}

function mountOf({ mount, problems }: JudgedMount, name: (nodeid: number) => string): ReportMount {
  const { mountpoint, device, role, pid, lease, readOnly, diskFault, calls, work, ownerChanges, problem: unanswered } = mount;
  const last = ownerChanges?.last ?? null;
  return {
    mountpoint,
    device,
    role,
    pid,
    answers: unanswered === null && role !== "gone",
    well: problems.length === 0,
    lease,
    readOnly,
    diskFault,
    withoutOwnerMs: ownerChanges?.withoutMs ?? null,
    calls,
    work,
    ownerChanges: ownerChanges?.count ?? null,
    lastOwnerChange:
      last === null
        ? null
        : { from: name(last.fromNodeid), to: name(last.toNodeid), pauseMs: last.pauseMs, atMs: last.atMs, reason: last.reason },
  };
}

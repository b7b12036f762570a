/**
 * The report as figures for Prometheus: names, help and samples, which the shell writes out. Pure. Names and labels are stable. Units are those of
 * Prometheus' rules: seconds and bytes, counters end in _total. What is not known has no sample.
 */
import type { MountFacts, NodeFacts } from "./facts.ts";
import { levels, problemCodes, problemLevels } from "./problem.ts";
import type { Report } from "./report.ts";
import { visible } from "./visible.ts";

export type Labels = Readonly<Record<string, string>>;

export interface MetricRow {
  readonly name: string;
  readonly type: "gauge" | "counter";
  readonly help: string;
  readonly samples: readonly { readonly labels: Labels; readonly value: number }[];
}

/** Of each mount, from what its overlay counts (serve/mount-status.ts). */
const mountCounters: readonly (readonly [name: string, figure: string, help: string])[] = [
  ["requests", "ops", "requests of the kernel that were served"],
  ["lease_lapses", "leaseLapses", "times that the lease of this node had ended, and the mount served nothing"],
  ["reads_refused", "readsRefused", "reads that ended with EINTR or fewer bytes, because the file became shorter"],
  ["interrupted", "interrupted", "requests that their callers gave up"],
  ["defects", "bugs", "requests that ended with an error because of a defect of coverlay"],
  ["lock_messages_sent", "lockMessagesSent", "messages to dlmd"],
  ["lock_messages_received", "lockMessagesReceived", "messages from dlmd"],
  ["revokes", "revokes", "locks that other nodes asked for, and got"],
  ["owner_round_trips", "lowerRoundTrips", "round trips to the owner"],
];
const mountGauges: readonly (readonly [name: string, figure: string, help: string])[] = [
  ["locks", "locks", "cluster locks held or cached"],
  ["inodes", "inodes", "inodes that the kernel knows"],
  ["open_files", "handles", "open files and directories"],
  ["nameless_files", "orphans", "open files without a name that the owner keeps; only of the owner"],
  ["memory_bytes", "memoryBytes", "resident memory of the mount's process"],
];

export function metricRows(facts: NodeFacts, report: Report, version: string): MetricRow[] {
  return [
    ...ofNode(facts, report, version),
    ...ofCluster(facts, report),
    ...ofVolumes(report),
    ...ofMounts(facts, report),
    ...ofWaits(facts),
  ];
}

function row(
  type: MetricRow["type"],
  name: string,
  help: string,
  samples: readonly (readonly [Labels, number | boolean | null | undefined])[],
): MetricRow {
  const known = samples.flatMap(([labels, value]) =>
    value == null || (type === "counter" && Number(value) < 0) ? [] : [{ labels: shownLabels(labels), value: Number(value) }],
  );
  return { name: `coverlay_${name}${type === "counter" ? "_total" : ""}`, type, help, samples: known };
}

/** Names come from other nodes and from programs. */
function shownLabels(labels: Labels): Labels {
  return Object.fromEntries(Object.entries(labels).map(([name, value]) => [name, visible(value, "")]));
}

const gauge = (name: string, help: string, samples: Parameters<typeof row>[3]): MetricRow => row("gauge", name, help, samples);
const one = (name: string, help: string, value: number | boolean | null | undefined): MetricRow => gauge(name, help, [[{}, value]]);
const seconds = (ms: number | null | undefined): number | null => (ms == null ? null : ms / 1000);

function ofNode({ cluster }: NodeFacts, { level, problems, nodes, atMs, tookMs, error }: Report, version: string): MetricRow[] {
  const node = nodes.find(({ nodeid }) => nodeid === cluster?.nodeid)?.node ?? "";
  const count = (code: string): number => problems.filter((problem) => problem.code === code).length;
  return [
    gauge("info", "1: the node, its cluster and the version of coverlay", [[{ cluster: cluster?.clusterName ?? "", node, version }, 1]]),
    one("level", "0: well; 1: degraded; 2: something is down on this node; 3: unknown, dlmd could not be asked", levels.indexOf(level)),
    gauge(
      "problems",
      "problems found, by their code",
      problemCodes.map((code) => [{ code, level: problemLevels[code] }, count(code)]),
    ),
    one("dlmd_up", "1: dlmd answers", error === null),
    one("collection_timestamp_seconds", "when these figures were collected", seconds(atMs)),
    one("collection_duration_seconds", "how long the answers took", seconds(tookMs)),
  ];
}

function ofCluster({ cluster }: NodeFacts, { nodes }: Report): MetricRow[] {
  return [
    one("quorate", "1: this node is in a quorate view", cluster?.view.quorate),
    one(
      "locks_granted",
      "1: locks are granted; 0: all or some requests wait",
      cluster && cluster.view.running && cluster.state === "running",
    ),
    one("nodes", "nodes of the configuration", cluster?.nodes.length),
    one("view_members", "nodes in the view", cluster?.view.members.length),
    gauge(
      "node_member",
      "1: the node is in the view",
      nodes.map(({ node, member }) => [{ node }, member]),
    ),
    gauge(
      "node_silence_seconds",
      "since the last heartbeat of the node",
      nodes.map(({ node, silentMs }) => [{ node }, seconds(silentMs)]),
    ),
    gauge(
      "node_multicast_silence_seconds",
      "since the last datagram of the node that came by multicast",
      nodes.map(({ node, multicastSilentMs }) => [{ node }, seconds(multicastSilentMs)]),
    ),
    one("unfenced_nodes", "nodes that are gone and not known to be dead, for which lockspaces wait", cluster?.unfenced.length),
    one("fences_wanted", "nodes that are to be fenced", cluster?.fencing.length),
  ];
}

function ofVolumes({ volumes }: Report): MetricRow[] {
  return [
    gauge(
      "volume_owner",
      "1: that node is the owner of the volume, or is becoming it",
      volumes.flatMap(({ volume, owner }) => (owner === null ? [] : [[{ volume, node: owner }, 1] as const])),
    ),
    gauge(
      "volume_mounts",
      "mounts of the volume on this node",
      volumes.map(({ volume, mounts }) => [{ volume }, mounts.length]),
    ),
  ];
}

function ofMounts({ mounts: facts }: NodeFacts, { volumes }: Report): MetricRow[] {
  const mounts = volumes.flatMap(({ volume, mounts: here }) =>
    here.map((mount) => ({ labels: { volume, mountpoint: mount.mountpoint }, mount })),
  );
  const each = (value: (mount: (typeof mounts)[number]["mount"]) => number | boolean | null): Parameters<typeof row>[3] =>
    mounts.map(({ labels, mount }) => [labels, value(mount)]);
  const figures = (figure: string): Parameters<typeof row>[3] =>
    mounts.map(({ labels, mount }) => [labels, figuresOf(facts, mount.mountpoint, mount.pid)?.[figure]]);
  return [
    gauge(
      "mount_up",
      "1: the mount answers",
      each(({ answers }) => answers),
    ),
    gauge(
      "mount_well",
      "1: the mount has no problem",
      each(({ well }) => well),
    ),
    gauge(
      "mount_is_owner",
      "1: this mount is the owner of its volume",
      each(({ role }) => role === "owner"),
    ),
    gauge(
      "mount_read_only",
      "1: it was mounted read-only",
      each(({ readOnly }) => readOnly),
    ),
    gauge(
      "mount_lease_holds",
      "1: this node may act on its locks",
      each(({ lease }) => (lease === null ? null : lease === "holds")),
    ),
    gauge(
      "mount_disk_fault",
      "1: the disk of this mount, now or when it was the owner, had a fault",
      each(({ diskFault, answers }) => (answers ? diskFault !== null : null)),
    ),
    gauge(
      "mount_without_owner_seconds",
      "for how long the mount has had no owner; 0: it has one",
      each(({ withoutOwnerMs, answers }) => (answers ? (withoutOwnerMs ?? 0) / 1000 : null)),
    ),
    row(
      "counter",
      "mount_owner_changes",
      "times that the mount had no owner, and then one",
      each(({ ownerChanges }) => ownerChanges),
    ),
    gauge(
      "mount_last_owner_change_timestamp_seconds",
      "when the mount last got another owner",
      each(({ lastOwnerChange }) => seconds(lastOwnerChange?.atMs)),
    ),
    gauge(
      "mount_last_owner_change_duration_seconds",
      "for how long it had had none then",
      each(({ lastOwnerChange }) => seconds(lastOwnerChange?.pauseMs)),
    ),
    gauge(
      "mount_calls",
      "calls under way",
      each(({ calls }) => calls?.count ?? null),
    ),
    gauge(
      "mount_longest_call_seconds",
      "how long the oldest call has taken so far; not of those that wait for a file lock",
      each(({ calls }) => (calls === null ? null : (calls.longest?.waitingMs ?? 0) / 1000)),
    ),
    ...mountCounters.map(([name, figure, help]) => row("counter", `mount_${name}`, help, figures(figure))),
    ...mountGauges.map(([name, figure, help]) => gauge(`mount_${name}`, help, figures(figure))),
  ];
}

function figuresOf(facts: readonly MountFacts[], mountpoint: string, pid: number): MountFacts["figures"] | undefined {
  return facts.find((mount) => mount.mountpoint === mountpoint && mount.pid === pid)?.figures;
}

/** Of all: many file locks that are waited for leave no room for others in the report. */
function ofWaits({ waits, error }: NodeFacts): MetricRow[] {
  const longest = (kind: string): number => Math.max(0, ...waits.filter((wait) => wait.kind === kind).map(({ waitingMs }) => waitingMs));
  const kinds = error === null ? ["inode", "file", "other"] : [];
  return [
    gauge(
      "lock_waits",
      "requests in the cluster that have waited for a lock for more than 1 s",
      kinds.map((kind) => [{ kind }, waits.filter((wait) => wait.kind === kind).length]),
    ),
    gauge(
      "lock_longest_wait_seconds",
      "the longest of them",
      kinds.map((kind) => [{ kind }, longest(kind) / 1000]),
    ),
  ];
}

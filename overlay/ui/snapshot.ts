/** All that the page shows at one moment, made of the reports of one node or of several. Pure. Names of others are made visible here. */
import type { NodeFacts, Party, PastFence, PastView, Wait } from "../status/facts.ts";
import { nameIn } from "../status/judge-cluster.ts";
import { waitWords } from "../status/judge-mounts.ts";
import { type Level, type Problem, worstFirst, worstOf } from "../status/problem.ts";
import { type Report, type ReportMount, type ReportNode, reportOf } from "../status/report.ts";
import { visible } from "../status/visible.ts";
import { type HistoryEntry, historyOf } from "./history.ts";
import { type Picture, type PictureLink, type PictureNode, pictureOf } from "./picture.ts";
import type { MountRate, Rates } from "./rates.ts";

/** Problems that are shown, the worst first. */
export const PROBLEMS_MAX = 30;

/** A node that is asked, and what it said last. */
export interface SourceSeen {
  /** What the person calls it. */
  readonly name: string;
  /** Null: it was not asked yet, or `failure` says why not. */
  readonly facts: NodeFacts | null;
  readonly failure: NodeFacts["error"];
  /** How old the answer is. */
  readonly ageMs: number;
}

export interface SourceShown {
  readonly name: string;
  /** Null: its dlmd has answered. */
  readonly silence: string | null;
  readonly ageMs: number;
}

export interface ProblemShown extends Pick<Problem, "level" | "code" | "found" | "action"> {
  /** Of the same problem in the next snapshot: what was found may have a time in it, which goes on. */
  readonly key: string;
  /** The sources that say so. */
  readonly saidBy: readonly string[];
}

export interface NodeShown extends Pick<ReportNode, "node" | "nodeid" | "state" | "member" | "silentMs"> {
  readonly mood: PictureNode["mood"];
  readonly owns: readonly string[];
  /** What it takes part in: null, or why it could not be asked itself. */
  readonly silence: string | null;
}

export interface MountShown extends Pick<ReportMount, "mountpoint" | "role" | "answers" | "well" | "readOnly" | "lease"> {
  readonly node: string;
  readonly volume: string;
  /** Calls under way, and the oldest; null: not known. */
  readonly calls: number | null;
  readonly longestCallMs: number | null;
  readonly locks: number | null;
  readonly openFiles: number | null;
  readonly rate: MountRate | null;
}

export interface VolumeShown {
  readonly volume: string;
  readonly owner: string | null;
  readonly lastChange: ReportMount["lastOwnerChange"];
}

export interface WaitShown {
  readonly words: string;
  readonly kind: Wait["kind"];
  readonly waitingMs: number;
}

export interface Snapshot {
  readonly title: string;
  /** CLOCK_REALTIME. */
  readonly atMs: number;
  readonly level: Level;
  /** The source of nodes, waits and history; null: no dlmd could be asked. */
  readonly seenBy: string | null;
  /** "2 of 3 votes, quorate because 2 >= 2" */
  readonly quorum: string | null;
  readonly quorate: boolean;
  readonly sources: readonly SourceShown[];
  readonly problems: readonly ProblemShown[];
  readonly nodes: readonly NodeShown[];
  readonly volumes: readonly VolumeShown[];
  readonly mounts: readonly MountShown[];
  readonly waits: readonly WaitShown[];
  readonly waitsTruncated: boolean;
  readonly picture: Picture;
  readonly history: readonly HistoryEntry[];
}

interface Reported extends SourceSeen {
  readonly facts: NodeFacts;
  readonly report: Report;
}

/** A name is that of one life of a mount: what it counts begins anew with its process. */
export function rateKey(source: string, { mountpoint, pid }: { readonly mountpoint: string; readonly pid: number }): string {
  return JSON.stringify([source, mountpoint, pid]);
}

export function snapshotOf(sources: readonly SourceSeen[], rates: Rates, title: string, atMs: number): Snapshot {
  const reported = sources.flatMap((source): Reported[] =>
    source.facts === null ? [] : [{ ...source, facts: source.facts, report: reportOf(source.facts) }],
  );
  const lead = leaderOf(reported);
  const cluster = lead?.facts.cluster ?? null;
  const problems = problemsOf(sources, reported, lead);
  const volumes = volumesOf(reported, lead);
  const nodes = nodesOf(lead, volumes, sources);
  const waits = lead?.report.waits ?? [];
  const { views, fences }: { views: readonly PastView[]; fences: readonly PastFence[] } = cluster ?? { views: [], fences: [] };
  return shown({
    title: title === "" ? (cluster?.clusterName ?? "") : title,
    atMs,
    level: worstOf(problems),
    seenBy: lead === null ? null : nodeOf(lead),
    quorum: cluster?.view.quorumReason ?? null,
    quorate: cluster?.view.quorate ?? false,
    sources: sources.map((source) => ({ name: source.name, silence: silenceOf(source), ageMs: Math.round(source.ageMs) })),
    problems: problems
      .slice(0, PROBLEMS_MAX)
      .map(({ level, code, found, action, key, saidBy }) => ({ level, code, found, action, key, saidBy })),
    nodes,
    volumes,
    mounts: mountsOf(reported, rates),
    waits: waits.map((wait) => ({ words: waitWords(wait), kind: wait.kind, waitingMs: wait.waitingMs })),
    waitsTruncated: lead?.report.waitsTruncated ?? false,
    picture: pictureOf({
      nodes: nodes.map(({ node, state, mood }) => ({ node, state, mood })),
      links: linksOf(reported),
      volumes: volumes.map(({ volume, owner }) => ({ volume, owner })),
      waits: waits.map(shortNames),
    }),
    history: historyOf(views, fences, nameIn(cluster?.nodes ?? [])),
  });
}

/** Of those with a quorum, or else of all whose dlmd has answered, the one that remembers the most; of several the first. */
function leaderOf(reported: readonly Reported[]): Reported | null {
  const answered = reported.filter(({ facts }) => facts.cluster !== null);
  const quorate = answered.filter(({ facts }) => facts.cluster?.view.quorate === true);
  const sinceMs = ({ facts }: Reported): number => facts.cluster?.views[0]?.atMs ?? Number.MAX_VALUE;
  return (quorate.length > 0 ? quorate : answered).toSorted((a, b) => sinceMs(a) - sinceMs(b))[0] ?? null;
}

/** Why nothing is known of its dlmd. */
function silenceOf({ facts, failure }: SourceSeen): string | null {
  if (failure !== null) return failure.error;
  return facts === null ? "it has not answered yet" : (facts.error?.error ?? null);
}

/** As the cluster calls it. */
function nodeOf({ facts, name }: Reported): string {
  const { cluster } = facts;
  return cluster === null ? name : nameIn(cluster.nodes)(cluster.nodeid);
}

type SaidProblem = Problem & Pick<ProblemShown, "key" | "saidBy">;

const keyOf = ({ code, node, volume, mountpoint }: Omit<Problem, "level" | "found" | "action">): string =>
  JSON.stringify([code, node, volume, mountpoint]);

/** Each once. Of several nodes one that is silent is seen by the others; alone, that is all there is to say. */
function problemsOf(sources: readonly SourceSeen[], reported: readonly Reported[], lead: Reported | null): SaidProblem[] {
  const failed = sources.flatMap(({ name, failure }): SaidProblem[] => {
    const about = { code: "dlmd-silent", node: name, volume: null, mountpoint: null } as const;
    return failure === null
      ? []
      : [{ ...about, level: "unknown", found: failure.error, action: failure.hint, key: keyOf(about), saidBy: [name] }];
  });
  const said = [
    ...reported.flatMap((one) => one.report.problems.map((problem) => ({ ...problem, key: keyOf(problem), saidBy: [nodeOf(one)] }))),
    ...failed,
  ].filter(({ code }) => code !== "dlmd-silent" || lead === null || sources.length === 1);
  const merged = new Map<string, SaidProblem>();
  for (const problem of said) {
    const known = merged.get(problem.key);
    merged.set(problem.key, known === undefined ? problem : { ...known, saidBy: [...new Set([...known.saidBy, ...problem.saidBy])] });
  }
  return worstFirst([...merged.values()]);
}

function volumesOf(reported: readonly Reported[], lead: Reported | null): VolumeShown[] {
  const all = reported.flatMap(({ report }) => report.volumes);
  const from = lead === null ? all : lead.report.volumes;
  const names = [...new Set(from.map(({ volume }) => volume))];
  return names.map((volume) => {
    const same = all.filter((one) => one.volume === volume);
    const changes = same.flatMap(({ mounts }) => mounts.flatMap(({ lastOwnerChange: last }) => (last === null ? [] : [last])));
    const owner = from.find((one) => one.volume === volume)?.owner ?? null;
    return { volume, owner, lastChange: changes.toSorted((a, b) => b.atMs - a.atMs)[0] ?? null };
  });
}

function nodesOf(lead: Reported | null, volumes: readonly VolumeShown[], sources: readonly SourceSeen[]): NodeShown[] {
  return (lead?.report.nodes ?? []).map(({ node, nodeid, state, member, silentMs }) => {
    const source = sources.length === 1 ? undefined : sources.find(({ name }) => name === node);
    return {
      node,
      nodeid,
      state: member ? "member" : state,
      member,
      silentMs,
      mood: member ? "good" : state === "left" ? "note" : "bad",
      owns: volumes.filter(({ owner }) => owner === node).map(({ volume }) => volume),
      silence: source === undefined ? null : silenceOf(source),
    };
  });
}

function mountsOf(reported: readonly Reported[], rates: Rates): MountShown[] {
  return reported.flatMap((source) =>
    source.report.volumes.flatMap(({ volume, mounts }) =>
      mounts.map((mount): MountShown => {
        const { mountpoint, role, answers, well, readOnly, lease, calls, pid } = mount;
        const figures = source.facts.mounts.find((one) => one.mountpoint === mountpoint && one.pid === pid)?.figures ?? {};
        return {
          node: nodeOf(source),
          volume,
          mountpoint,
          role,
          answers,
          well,
          readOnly,
          lease,
          calls: calls?.count ?? null,
          longestCallMs: calls?.longest?.waitingMs ?? null,
          locks: figures["locks"] ?? null,
          openFiles: figures["handles"] ?? null,
          rate: answers ? rates.of(rateKey(source.name, mount)) : null,
        };
      }),
    ),
  );
}

/** A connection that one of its two sides calls down is down. Between two that cannot be asked nothing is known. */
function linksOf(reported: readonly Reported[]): PictureLink[] {
  const found = new Map<string, PictureLink>();
  for (const { facts } of reported) {
    if (facts.cluster === null) continue;
    const { nodeid, channels, nodes } = facts.cluster;
    const name = nameIn(nodes);
    for (const { nodeid: other, downMs } of channels) {
      const between = [Math.min(nodeid, other), Math.max(nodeid, other)].map(name) as [string, string];
      const isUp = (found.get(between.join(" "))?.isUp ?? true) && downMs === null;
      found.set(between.join(" "), { between, isUp });
    }
  }
  return [...found.values()];
}

/** A program is known by the last part of its path. */
function shortNames(wait: Wait): Wait {
  const short = (party: Party): Party => ({ ...party, program: party.program.split("/").at(-1) ?? "" });
  return { ...wait, waiter: short(wait.waiter), holders: wait.holders.map(short), ahead: wait.ahead === null ? null : short(wait.ahead) };
}

/** Each text of it: names come from other nodes, from programs and from files. */
function shown<T>(value: T): T {
  if (typeof value === "string") return visible(value, "") as T;
  if (Array.isArray(value)) return value.map((each: unknown) => shown(each)) as T;
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, shown(each as unknown)])) as T;
}

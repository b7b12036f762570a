/** What dlmd's status says of fences, as lines for people: who is waited for, what is done about it, what was done. */
import { nodeWord } from "../../dlmd/base/node-word.ts";
import * as z from "zod";

interface Victim {
  readonly nodeid: number;
  readonly incarnation: string;
  readonly failingView: string;
}
export interface Wanted {
  readonly nodeid: number;
  readonly why: string;
  readonly by: string;
  readonly sinceMs: number;
  readonly step: string;
  readonly rounds: number;
  readonly failure: string;
  readonly againAfterMs: number;
}
/** A device that has not given this node its storage back. */
interface FailedOn {
  readonly device: string;
  readonly rounds: number;
  readonly failure: string;
  readonly againAfterMs: number;
}
const outcomes = ["fenced", "acknowledged", "failed", "returned", "rebooted", "refused", "known"] as const;
export interface HistoryRow {
  readonly nodeid: number;
  readonly incarnation: string;
  readonly outcome: (typeof outcomes)[number];
  readonly by: string;
  readonly words: string;
  readonly atMs: number;
}
export interface Fences {
  readonly unfenced: readonly (Victim & { readonly lockspaces: readonly string[] })[];
  readonly fenced: readonly Victim[];
  readonly fencedLockspaces: readonly string[];
  readonly fencing: {
    readonly devices: readonly number[];
    readonly wanted: readonly Wanted[];
    readonly unfencing: readonly FailedOn[];
    readonly history: readonly HistoryRow[];
  };
}

const victim = { nodeid: z.number(), incarnation: z.string(), failingView: z.string() };
const wanted = z.looseObject({
  nodeid: z.number(),
  why: z.string(),
  by: z.string(),
  sinceMs: z.number(),
  step: z.string(),
  rounds: z.number(),
  failure: z.string(),
  againAfterMs: z.number(),
});
const failedOn = z.looseObject({ device: z.string(), rounds: z.number(), failure: z.string(), againAfterMs: z.number() });
const historyRow = z.looseObject({
  nodeid: z.number(),
  incarnation: z.string(),
  outcome: z.enum(outcomes),
  by: z.string(),
  words: z.string(),
  atMs: z.number(),
});

/** Of dlmd's answer to the query "status". */
const fencesShape: z.ZodType<Fences> = z.looseObject({
  unfenced: z.array(z.looseObject({ ...victim, lockspaces: z.array(z.string()) })),
  fenced: z.array(z.looseObject(victim)),
  fencedLockspaces: z.array(z.string()),
  fencing: z.looseObject({
    devices: z.array(z.number()),
    wanted: z.array(wanted),
    unfencing: z.array(failedOn).default([]),
    history: z.array(historyRow),
  }),
});

/** Null: that dlmd says nothing of fences. */
export function fencesOf(status: unknown): Fences | null {
  return fencesShape.safeParse(status).data ?? null;
}

type Name = (nodeid: number) => string;

function seconds(ms: number): string {
  return `${(Math.max(0, ms) / 1000).toFixed(1)} s`;
}

function describeWanted({ nodeid, why, by, sinceMs, step, rounds, failure, againAfterMs }: Wanted, name: Name, wallMs: number): string {
  const before = rounds === 0 ? "" : `; ${failedRounds(rounds, failure)}`;
  return `${name(nodeid)} is to be fenced (${why}; asked by ${by}) since ${seconds(wallMs - sinceMs)}: ${step}${before}${next(againAfterMs)}`;
}

function failedRounds(rounds: number, failure: string): string {
  return `${rounds === 1 ? "one round" : `${rounds} rounds`} failed, the last: ${failure}`;
}

function next(againAfterMs: number): string {
  return againAfterMs === 0 ? "" : `; again in ${seconds(againAfterMs)}`;
}

function describeFailedOn({ device, rounds, failure, againAfterMs }: FailedOn): string {
  return `this node is not unfenced at ${device} and cannot write to that storage: ${failedRounds(rounds, failure)}${next(againAfterMs)}`;
}

/** Lines for people; none if nothing waits, and nobody is to be fenced. */
export function describeWaits({ unfenced, fencing }: Fences, name: Name, wallMs: number): string[] {
  const hasDevice = (nodeid: number): boolean => fencing.devices.includes(nodeid);
  const todo = (nodeid: number): string => (hasDevice(nodeid) ? "Its fence device is used; " : "No fence device is configured for it; ");
  return [
    ...unfenced.map(
      ({ nodeid, incarnation, failingView, lockspaces }) =>
        `${name(nodeid)} (incarnation ${incarnation}) went without a word before view ${failingView} and is not known to be dead: nothing is granted in ${lockspaces.join(", ")}. ${todo(nodeid)}when it is off for sure, \`coverlay fence ack ${nodeWord(name(nodeid))} --yes\``,
    ),
    ...fencing.wanted.map((one) => describeWanted(one, name, wallMs)),
    ...fencing.unfencing.map(describeFailedOn),
  ];
}

export function describeFences(fences: Fences, nodeids: readonly number[], name: Name, wallMs: number): string {
  const waits = describeWaits(fences, name, wallMs);
  const { devices } = fences.fencing;
  const without = nodeids.filter((nodeid) => !devices.includes(nodeid));
  return [
    devices.length === 0
      ? "no node has a fence device (fenceDevices in cluster.yaml)"
      : `fence devices: ${devices.map(name).join(", ")}${without.length === 0 ? "" : `; none: ${without.map(name).join(", ")}`}`,
    ...(fences.fencedLockspaces.length === 0 ? [] : [`lockspaces that need a fence: ${fences.fencedLockspaces.join(", ")}`]),
    ...(waits.length === 0 ? ["nothing waits for a node to be dead"] : waits),
    ...fences.fenced.map(
      ({ nodeid, incarnation, failingView }) =>
        `${name(nodeid)} (incarnation ${incarnation}), gone since view ${failingView}: known to be dead`,
    ),
  ].join("\n");
}

const outcomeWords: Readonly<Record<HistoryRow["outcome"], string>> = {
  fenced: "fenced",
  acknowledged: "acknowledged to be off",
  failed: "not fenced",
  returned: "back, in the same boot",
  rebooted: "back, in another boot",
  refused: "request refused",
  known: "known before to write no more",
};

/** Time, node, life, what came of it: for a table. */
export function historyCells({ nodeid, incarnation, outcome, by, words, atMs }: HistoryRow, name: Name): string[] {
  const what = outcome === "failed" || outcome === "refused" ? `${outcomeWords[outcome]}: ${words}` : outcomeWords[outcome];
  return [new Date(atMs).toISOString(), name(nodeid), incarnation, by === "" ? what : `${what} (${by})`];
}

/** A configuration as the change protocol (change.ts) sees it, what a node keeps of it, and how its votes are counted. Pure. */
import { type Counting, laterCounting } from "../wire/view-id.ts";
import { type AgreedVersion, follows } from "./trail.ts";
import { isMajority, type Voter } from "./votes.ts";

export interface ConfigRecord {
  readonly version: number;
  /** Of the whole: equal for configurations that mean the same. */
  readonly fingerprint: string;
  readonly text: string;
  readonly nodes: readonly Voter[];
}

export interface PendingConfig {
  readonly record: ConfigRecord;
  /** The view in which it was proposed last. */
  readonly epoch: number;
  readonly view: string;
}

/** Of two proposals, the one of the later view; views with one epoch in an order that is the same everywhere. */
export function laterPending(a: PendingConfig, b: PendingConfig): PendingConfig {
  if (a.epoch !== b.epoch) return b.epoch > a.epoch ? b : a;
  return b.view > a.view ? b : a;
}

/** What a node keeps on disk. */
export interface KeptConfig {
  readonly committed: ConfigRecord;
  /** Nodes that had it in force in a quorate view, ascending. None: it comes from a file, and the cluster never agreed on it. */
  readonly agreedBy: readonly number[];
  /** How the cluster came to it: versions before `committed`, ascending, at most MAX_TRAIL. */
  readonly trail: readonly AgreedVersion[];
  /** Its version is that of `committed` plus one. */
  readonly pending: PendingConfig | null;
  /** Who counted when any of these was stored, by the latest view that is known of; null: nothing is. */
  readonly counting: Counting | null;
}

/** It is not only of a file. */
export function isAgreed({ agreedBy, pending }: KeptConfig): boolean {
  return agreedBy.length > 0 || pending !== null;
}

/** Of what two nodes know of who counts, the later one (hazard C8). */
export function laterOf(a: Counting | null, b: Counting | null): Counting | null {
  return a === null || b === null ? (a ?? b) : laterCounting(a, b);
}

/** A configuration that is in force elsewhere, from a peer that refused us because ours is older. */
export interface OfferedConfig {
  readonly record: ConfigRecord;
  /** As in KeptConfig. */
  readonly agreedBy: readonly number[];
  readonly trail: readonly AgreedVersion[];
  readonly counting: Counting | null;
}

/**
 * Why a configuration that another node has in force is not taken from it; null: it is. A majority of our own votes must have had it
 * in force, or a version that led to it: a node alone with a file of its own may be quorate by that file.
 */
export function offerObjection(
  { committed, pending }: KeptConfig,
  { record, agreedBy, trail }: Omit<OfferedConfig, "counting">,
  isQuorate: boolean,
): string | null {
  // Stored here, and decided while the connection to its coordinator was away.
  const isStored = pending?.record.fingerprint === record.fingerprint;
  if (isQuorate && !isStored) return `this node is in a quorate view, in which version ${committed.version} is in force`;
  if (follows(committed, trail, { version: record.version, nodes: record.nodes, agreedBy })) return null;
  const by = agreedBy.length === 0 ? "no node" : `nodes ${agreedBy.join(", ")} alone`;
  return `version ${record.version} was in force at ${by}, which is no majority of the votes of version ${committed.version}, nor of a version that led from that to it`;
}

/** One node at a time, and by one vote: then majorities of before and after always meet. */
export function votesObjection(from: ConfigRecord, to: ConfigRecord, members: readonly number[]): string | null {
  const before = new Map(from.nodes.map(({ nodeid, votes }) => [nodeid, votes]));
  const after = new Map(to.nodes.map(({ nodeid, votes }) => [nodeid, votes]));
  const changed = [...new Set([...before.keys(), ...after.keys()])].filter((nodeid) => before.get(nodeid) !== after.get(nodeid));
  const [nodeid] = changed;
  if (nodeid === undefined) return null;
  if (changed.length > 1) return `one node at a time: nodes ${changed.join(", ")} are added, removed or given other votes at once`;
  const step = Math.abs((after.get(nodeid) ?? 0) - (before.get(nodeid) ?? 0));
  if (step > 1) return `one vote at a time: node ${nodeid} has ${before.get(nodeid) ?? 0} votes, and would have ${after.get(nodeid) ?? 0}`;
  if (!after.has(nodeid) && members.includes(nodeid)) return `node ${nodeid} runs: stop its dlmd before it is removed`;
  if (!isMajority([to.nodes], members)) {
    return `the members of the view (${members.join(", ")}) would be no majority by the new votes: start more nodes first`;
  }
  return null;
}

/**
 * What becomes of the states that all processes of the group have sent: the next view, who goes on together, and who has to begin anew. All
 * members have the same states, so all find the same: dlmd/engine/corosync/README.md, "A round".
 */
import { nextMembers } from "../../membership/clique.ts";
import { leaseWaitShare } from "../../membership/lease.ts";
import { type QuorumBasis, quorumOf } from "../../membership/quorum.ts";
import type { QuorumCount } from "../../wire/quorum-count.ts";
import { compareViews, hasMember, type Lineage, type Member, noLineage, sameView, type ViewId, viewName } from "../../wire/view-id.ts";
import type { RoundTag, Seat, StateMessage } from "./message.ts";

export type Answer = Omit<StateMessage, "kind" | "tag"> & { readonly nodeid: number };

export interface Behind extends Member {
  readonly reason: string;
}

export interface Decision {
  readonly id: ViewId;
  /** Ascending by nodeid. */
  readonly members: readonly Member[];
  readonly quorum: QuorumCount;
  /** Members that saw the same until now, and whether they know the groups. */
  readonly together: readonly { readonly nodeid: number; readonly synced: boolean }[];
  /** Their state is void: they begin anew. */
  readonly behind: readonly Behind[];
  /** They are in no view until all members can reach them, or they have the members' version of cluster.yaml. */
  readonly waiting: readonly { readonly nodeid: number; readonly reason: string }[];
  /** Nodes outside may serve for so long (hazard C4). */
  readonly waitMs: number;
  /** Why the votes do not count, beyond their number; null: they do. */
  readonly objection: string | null;
}

export function sameSeat(a: Seat, b: Seat): boolean {
  return a.nodeid === b.nodeid && a.pid === b.pid;
}

export function sameTag(a: RoundTag, b: RoundTag): boolean {
  if (a.count !== b.count || a.ring.nodeid !== b.ring.nodeid || a.ring.seq !== b.ring.seq) return false;
  return a.seats.length === b.seats.length && a.seats.every((seat, at) => sameSeat(seat, b.seats[at] as Seat));
}

/** `answers`: one for each node, at least one. */
export function decide(answers: readonly Answer[], basis: QuorumBasis, timeoutMs: number): Decision {
  const sorted = answers.toSorted((a, b) => a.nodeid - b.nodeid);
  const { ahead, behind } = lineOf(sorted);
  const able = sorted.filter(({ nodeid }) => !behind.has(nodeid));
  const { version, admitted, dissenting, quorate } = choose(able, ahead, sorted);
  const members = admitted.map(({ nodeid, incarnation }) => ({ nodeid, incarnation }));
  const left = able.filter((answer) => !admitted.includes(answer));
  // Without quorum nothing goes on, so who is left out loses nothing.
  for (const answer of quorate ? left : [])
    if (answer.lived.epoch > 0) behind.set(answer.nodeid, `a quorum goes on without it: ${whyLeftOut(answer, version, admitted)}`);
  return {
    id: nameOf(sorted),
    members,
    quorum: { ...quorumOf(basis, members, true), quorate },
    together: quorate ? ahead.filter((answer) => admitted.includes(answer)).map(({ nodeid, synced }) => ({ nodeid, synced })) : [],
    behind: sorted.flatMap(({ nodeid, incarnation }) => {
      const reason = behind.get(nodeid);
      return reason === undefined ? [] : [{ nodeid, incarnation, reason }];
    }),
    waiting: left
      .filter(({ nodeid }) => !behind.has(nodeid))
      .map((answer) => ({ nodeid: answer.nodeid, reason: whyLeftOut(answer, version, admitted) })),
    waitMs: waitOf(sorted, admitted, timeoutMs),
    objection: quorate ? null : objectionTo(version, dissenting, left),
  };
}

/** Who saw all that any of them knows of, and why the others cannot go on with what they have. */
function lineOf(sorted: readonly Answer[]): { ahead: readonly Answer[]; behind: Map<number, string> } {
  const latest = sorted.reduce<Lineage>((last, { seen }) => (compareViews(seen.id, last.id) > 0 ? seen : last), noLineage);
  const behind = new Map<number, string>();
  for (const { nodeid, lived } of sorted) {
    if (lived.epoch > 0 && !sameView(lived, latest.id))
      behind.set(nodeid, `view ${viewName(latest.id)} went on without it (its last view is ${viewName(lived)})`);
  }
  const inLine = sorted.filter(({ lived }) => lived.epoch > 0 && sameView(lived, latest.id));
  const ahead = bestClass(inLine);
  for (const answer of inLine) {
    if (ahead.includes(answer)) continue;
    const delivered = `it delivered ${answer.packets} packets in view ${viewName(latest.id)}, and the others ${ahead[0]?.packets ?? 0}, or others`;
    behind.set(answer.nodeid, delivered);
  }
  return { ahead, behind };
}

interface Choice {
  /** Of cluster.yaml. */
  readonly version: number;
  readonly admitted: readonly Answer[];
  /** Their votequorum says no. */
  readonly dissenting: readonly number[];
  readonly quorate: boolean;
}

/**
 * A view has one version of cluster.yaml: the highest of which a majority is there, else the highest. So a node with an older file takes the
 * quorum from nobody, and neither does one that was started alone with a later one (hazard C8). From what the answers say, not from this
 * node's cluster.yaml: nodes with several versions must choose the same.
 */
function choose(able: readonly Answer[], ahead: readonly Answer[], sorted: readonly Answer[]): Choice {
  const linked = (a: number, b: number): boolean => !cuts(sorted, a, b) && !cuts(sorted, b, a);
  const versions = [...new Set(able.map(({ configVersion }) => configVersion))].sort((a, b) => b - a);
  const choices = versions.map((version): Choice => {
    const ofVersion = (each: readonly Answer[]): number[] =>
      each.filter(({ configVersion }) => configVersion === version).map(({ nodeid }) => nodeid);
    const nodeids = nextMembers(ofVersion(able), ofVersion(ahead), linked);
    const admitted = able.filter(({ nodeid }) => nodeids.includes(nodeid));
    const dissenting = admitted.filter(({ quorate }) => !quorate).map(({ nodeid }) => nodeid);
    return { version, admitted, dissenting, quorate: dissenting.length === 0 && haveMajority(admitted) };
  });
  return choices.find(({ quorate }) => quorate) ?? (choices[0] as Choice);
}

/**
 * The members must have more than half of the votes of cluster.yaml, whatever votequorum says. corosync counts nodes on which no dlmd runs as
 * well, and options such as last_man_standing lower what it needs: then two sets of dlmds that do not overlap could be quorate one after
 * the other, while a lease that the first has given runs (hazards C4, C8).
 */
function haveMajority(admitted: readonly Answer[]): boolean {
  const expected = Math.max(...admitted.map((answer) => answer.expected));
  return votesOf(admitted) * 2 > expected;
}

function votesOf(answers: readonly Answer[]): number {
  return answers.reduce((sum, { votes }) => sum + votes, 0);
}

function whyLeftOut({ configVersion }: Answer, version: number, admitted: readonly Answer[]): string {
  const members = admitted.map(({ nodeid }) => nodeid).join(" ");
  if (configVersion === version) return `it has no connection to ${members}`;
  return `it has version ${configVersion} of cluster.yaml, and node ${members} version ${version}`;
}

function objectionTo(version: number, dissenting: readonly number[], left: readonly Answer[]): string | null {
  if (dissenting.length > 0) return `votequorum of node ${dissenting.join(" ")} says that its ring is not quorate`;
  const others = left.filter(({ configVersion }) => configVersion !== version).map(({ nodeid }) => nodeid);
  return others.length === 0 ? null : `node ${others.join(" ")} has another version of cluster.yaml than ${version}`;
}

/** Of the one who said the highest epoch: it says each only once, so no other view has this name (hazard H4). */
function nameOf(answers: readonly Answer[]): ViewId {
  const first = answers.reduce((best, answer) => (answer.epoch > best.epoch ? answer : best));
  return { epoch: first.epoch, proposer: first.nodeid, incarnation: first.incarnation };
}

/**
 * CPG delivers in each partition on its own, so members of one view may have seen different packets in it. Those of one kind with the most votes
 * go on; of two such kinds the one that saw more, then the one with the lowest node.
 */
function bestClass(inLine: readonly Answer[]): readonly Answer[] {
  const classes = new Map<string, Answer[]>();
  for (const answer of inLine) {
    const key = `${answer.packets}/${answer.digest}`;
    classes.set(key, [...(classes.get(key) ?? []), answer]);
  }
  let best: readonly Answer[] = [];
  for (const members of classes.values()) {
    const order = votesOf(members) - votesOf(best) || (members[0]?.packets ?? 0) - (best[0]?.packets ?? 0);
    if (best.length === 0 || order > 0) best = members;
  }
  return best;
}

function cuts(answers: readonly Answer[], a: number, b: number): boolean {
  return answers.find(({ nodeid }) => nodeid === a)?.cutOff.includes(b) ?? true;
}

/**
 * Counted from the last ack that any of them may have given to a node outside. Those that are not admitted count too: in a round of several
 * versions the acks of one that is left out may have given the lease (hazard C4).
 */
function waitOf(answers: readonly Answer[], admitted: readonly Answer[], timeoutMs: number): number {
  const waits = answers.flatMap(({ ackedAgo }) =>
    ackedAgo.filter(({ nodeid }) => !admitted.some((member) => member.nodeid === nodeid)).map(({ ms }) => leaseWaitShare * timeoutMs - ms),
  );
  return Math.max(0, ...waits);
}

export function isMemberOf(decision: Decision, { nodeid, incarnation }: Member): boolean {
  return hasMember(decision.members, nodeid, incarnation);
}

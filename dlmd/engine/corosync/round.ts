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
  /** They are in no view until all members can reach them. */
  readonly waiting: readonly number[];
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
  const latest = sorted.reduce<Lineage>((last, { seen }) => (compareViews(seen.id, last.id) > 0 ? seen : last), noLineage);
  const behind = new Map<number, string>();
  for (const { nodeid, lived } of sorted) {
    if (lived.epoch > 0 && !sameView(lived, latest.id))
      behind.set(nodeid, `view ${viewName(latest.id)} went on without it (its last view is ${viewName(lived)})`);
  }
  const inLine = sorted.filter(({ lived }) => lived.epoch > 0 && sameView(lived, latest.id));
  const ahead = bestClass(inLine, basis);
  for (const { nodeid, packets } of inLine) {
    if (ahead.every((answer) => answer.nodeid !== nodeid))
      behind.set(
        nodeid,
        `it delivered ${packets} packets in view ${viewName(latest.id)}, and the others ${ahead[0]?.packets ?? 0}, or others`,
      );
  }
  const able = sorted.filter(({ nodeid }) => !behind.has(nodeid));
  const linked = (a: number, b: number): boolean => !cuts(sorted, a, b) && !cuts(sorted, b, a);
  const nodeids = nextMembers(
    able.map(({ nodeid }) => nodeid),
    ahead.map(({ nodeid }) => nodeid),
    linked,
  );
  const admitted = able.filter(({ nodeid }) => nodeids.includes(nodeid));
  const members = admitted.map(({ nodeid, incarnation }) => ({ nodeid, incarnation }));
  const { quorum, objection } = count(admitted, members, basis);
  const left = able.filter(({ nodeid }) => !nodeids.includes(nodeid));
  // Without quorum nothing goes on, so who is left out loses nothing.
  for (const { nodeid, lived } of quorum.quorate ? left : [])
    if (lived.epoch > 0) behind.set(nodeid, `a quorum goes on without it: it has no connection to ${nodeids.join(" ")}`);
  return {
    id: nameOf(sorted),
    members,
    quorum,
    together: quorum.quorate
      ? ahead.filter(({ nodeid }) => nodeids.includes(nodeid)).map(({ nodeid, synced }) => ({ nodeid, synced }))
      : [],
    behind: sorted.flatMap(({ nodeid, incarnation }) => {
      const reason = behind.get(nodeid);
      return reason === undefined ? [] : [{ nodeid, incarnation, reason }];
    }),
    waiting: left.map(({ nodeid }) => nodeid).filter((nodeid) => !behind.has(nodeid)),
    waitMs: waitOf(admitted, timeoutMs),
    objection,
  };
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
function bestClass(inLine: readonly Answer[], { nodes }: QuorumBasis): readonly Answer[] {
  const classes = new Map<string, Answer[]>();
  for (const answer of inLine) {
    const key = `${answer.packets}/${answer.digest}`;
    classes.set(key, [...(classes.get(key) ?? []), answer]);
  }
  const votesOf = (members: readonly Answer[]): number =>
    members.reduce((votes, { nodeid }) => votes + (nodes.find((node) => node.nodeid === nodeid)?.votes ?? 0), 0);
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
 * Votequorum must say yes at every member, and the members must have more than half of the votes of cluster.yaml. corosync counts nodes on
 * which no dlmd runs as well, and options such as last_man_standing lower what it needs: then two sets of dlmds that do not
 * overlap could be quorate one after the other, while a lease that the first has given runs (hazards C4, C8).
 */
function count(admitted: readonly Answer[], members: readonly Member[], basis: QuorumBasis): Pick<Decision, "quorum" | "objection"> {
  const quorum = quorumOf(basis, members, true);
  const dissenting = admitted.filter(({ quorate }) => !quorate).map(({ nodeid }) => nodeid);
  const others = admitted.filter(({ configVersion }) => configVersion !== basis.version).map(({ nodeid }) => nodeid);
  const objection =
    dissenting.length > 0
      ? `votequorum of node ${dissenting.join(" ")} says that its ring is not quorate`
      : others.length > 0
        ? `node ${others.join(" ")} has another version of cluster.yaml`
        : null;
  return { quorum: objection === null ? quorum : { ...quorum, quorate: false }, objection };
}

/** Counted from the last ack that any member may have given to a node outside. */
function waitOf(admitted: readonly Answer[], timeoutMs: number): number {
  const waits = admitted.flatMap(({ ackedAgo }) =>
    ackedAgo.filter(({ nodeid }) => !admitted.some((member) => member.nodeid === nodeid)).map(({ ms }) => leaseWaitShare * timeoutMs - ms),
  );
  return Math.max(0, ...waits);
}

export function isMemberOf(decision: Decision, { nodeid, incarnation }: Member): boolean {
  return hasMember(decision.members, nodeid, incarnation);
}

/**
 * Quorum by votes: votequorum(5), its options included. The proposer of a view counts, by the latest configuration of its members (hazard C8), and
 * INSTALL says the result. What a majority is: ../config/votes.ts.
 *
 * last_man_standing and the votes of nodes that leave depart from corosync's votequorum.c (there: last_man_standing, allow_downscale), whose nodes
 * count by a number of votes that each has for itself: partitions that change their shape can then give two quorums. Here the *set* of nodes that
 * count (`Electorate`) goes with the last quorate view, as in Jajodia and Mutchler, "Dynamic voting", 1987. A change counts only when every
 * member of the view that makes it has it on disk: dlmd/membership/README.md, "Nodes that leave".
 */
import { isMajority, type Tally, tally, type Voter } from "../config/votes.ts";
import type { QuorumOptions } from "../engine/boot.ts";
import type { CountedBy, QuorumCount, QuorumRule } from "../wire/quorum-count.ts";
import type { Electorate, Member } from "../wire/view-id.ts";

export type Quorum = QuorumCount;

export const plainQuorum: QuorumOptions = { twoNode: false, waitForAll: false, autoTieBreaker: "none" };

/** What votes are counted by. */
export interface QuorumBasis {
  readonly version: number;
  readonly nodes: readonly Voter[];
  readonly options: QuorumOptions;
  /** While a change of the votes is not kept by a majority of both: the votes of before, which must be enough as well (hazard C8). */
  readonly former?: readonly Voter[] | undefined;
  /** As NodeConfiguration says. */
  readonly agreed?: boolean;
  /** No member knows who counted when the votes were decided: a majority of all is needed, too. One of its nodes decided them, and knows (hazard C8). */
  readonly ofFile?: boolean;
}

type TieBreaking = QuorumOptions["autoTieBreaker"];
type Members = readonly Pick<Member, "nodeid">[];
type Count = Tally & Pick<Quorum, "quorate" | "rule">;

/** Nodes of which a majority is needed. */
interface Ballot {
  readonly voters: readonly Voter[];
  readonly breaking: TieBreaking;
  /** A majority of these decides a tie of the nodes that count, where no node does; null: nothing does. */
  readonly all: readonly Voter[] | null;
  /** What is said when they are no majority. */
  readonly lost: QuorumRule;
}

/**
 * A quorum and a lease need a majority of each of these. The first is how it is now. While the configuration changes, or who counts, there are
 * more, as it was before: dlmd/membership/README.md, "Majorities of before and after".
 */
function ballots({ nodes, former, options, ofFile }: QuorumBasis, electorate: Electorate | null): Ballot[] {
  const within = (voters: readonly Voter[], nodeids = electorate?.nodeids): readonly Voter[] =>
    votersOf(voters, nodeids === undefined ? [] : [nodeids, electorate?.former ?? []]);
  const breaking = options.autoTieBreaker;
  const before = electorate?.former ?? null;
  const all = breaking === "none" && former === undefined ? nodes : null;
  const lists: Ballot[] = [{ voters: within(nodes), breaking, all: electorate === null ? null : all, lost: "votes" }];
  // Who decided a tie before the change is not known here. By the rule of now both halves could win one.
  if (former !== undefined) lists.push({ voters: within(former), breaking: "none", all: null, lost: "old-votes" });
  if (before !== null) lists.push({ voters: within(nodes, before), breaking, all, lost: "old-voters" });
  if (ofFile === true && electorate !== null) lists.push({ voters: nodes, breaking, all: null, lost: "votes" });
  // Those who know of neither change count by this one alone.
  if (former !== undefined && before !== null)
    lists.push({ voters: within(former, before), breaking: "none", all: null, lost: "old-votes" });
  return lists;
}

/**
 * Those of the first set that has a vote; all voters if none has. The set that counts was chosen by other votes: a change that was decided since may
 * have taken its last one, and nobody could ever win it (hazard C8).
 */
function votersOf(voters: readonly Voter[], sets: readonly (readonly number[])[]): readonly Voter[] {
  for (const nodeids of sets) {
    const those = voters.filter(({ nodeid }) => nodeids.includes(nodeid));
    if (those.some(({ votes }) => votes > 0)) return those;
  }
  return voters;
}

/** The node whose half wins; null: none does. */
function tieBreaker({ voters, breaking }: Ballot): number | null {
  const nodeids = voters.filter(({ votes }) => votes > 0).map(({ nodeid }) => nodeid);
  if (breaking === "none" || nodeids.length === 0) return null;
  if (breaking === "lowest") return Math.min(...nodeids);
  if (breaking === "highest") return Math.max(...nodeids);
  return breaking.find((nodeid) => nodeids.includes(nodeid)) ?? null;
}

function judge(ballot: Ballot, members: Members): Count {
  const counted = tally(
    ballot.voters,
    members.map(({ nodeid }) => nodeid),
  );
  const { votes, expected, needed } = counted;
  const tied = votes * 2 === expected && votes > 0;
  if (tied && ballot.all !== null && isMajorityOf(ballot.all, members)) return { ...counted, quorate: true, rule: "tie-by-all" };
  const breaker = tied ? tieBreaker(ballot) : null;
  if (breaker === null) return { ...counted, quorate: votes >= needed, rule: "votes" };
  const won = members.some((member) => member.nodeid === breaker);
  return { ...counted, quorate: won, rule: won ? "tie-won" : "tie-lost" };
}

function isMajorityOf(voters: readonly Voter[], members: Members): boolean {
  return isMajority(
    [voters],
    members.map(({ nodeid }) => nodeid),
  );
}

/** All nodes are there that wait_for_all waits for. */
function isComplete({ nodes, former, options }: QuorumBasis, members: Members): boolean {
  const areThere = (voters: readonly Voter[]): boolean =>
    voters.every(({ nodeid, votes }) => votes === 0 || members.some((member) => member.nodeid === nodeid));
  // A node that an open change adds may not have been set up yet. With two_node it could be quorate alone, so it is waited for.
  return areThere(nodes) || (!options.twoNode && former !== undefined && areThere(former));
}

/** `continued`: a member has been in a quorate view since it started. `electorate`: as the last quorate view left it. */
export function quorumOf(basis: QuorumBasis, members: Members, continued: boolean, electorate: Electorate | null = null): Quorum {
  const { options, version: configVersion } = basis;
  const [first, ...former] = ballots(basis, electorate);
  const now = judge(first as Ballot, members);
  const rest = { configVersion, electorate };
  if ((options.waitForAll || options.twoNode) && !continued && !isComplete(basis, members))
    return { ...now, ...rest, quorate: false, rule: "wait-for-all" };
  for (const ballot of former) {
    const before = judge(ballot, members);
    // Of two, one that counted before is enough, as it was.
    const oneOfTwo = options.twoNode && ballot.lost === "old-voters" && before.votes >= 1;
    if (!before.quorate && !oneOfTwo) return { ...before, ...rest, rule: ballot.lost };
  }
  if (options.twoNode) return { ...now, ...rest, needed: 1, quorate: now.votes >= 1, rule: "two-node" };
  return { ...now, ...rest };
}

/**
 * Whether no others can be a quorum by the votes that this node has stored. Two proposals may have one version. A majority of the votes of before has
 * stored the one that is decided, so each quorum by another one has one of those nodes (hazard C8). Whoever has decided it counts by the new votes alone.
 */
export function agreesTo(basis: QuorumBasis, members: Members, { configVersion, open, electorate }: CountedBy): boolean {
  if (basis.version < configVersion || (basis.version === configVersion && !open)) return true;
  // Both halves are quorate then, and a fence decides.
  if (basis.options.twoNode) return true;
  const away = basis.nodes.filter(({ nodeid }) => !members.some((member) => member.nodeid === nodeid));
  // Those who are away may know who counted before, and not who counts from now on.
  const counting = electorate === null ? [null] : [electorate.nodeids, electorate.former ?? electorate.nodeids];
  return counting.every((nodeids) => {
    const those = nodeids === null ? null : { nodeids, former: null };
    return !quorumOf({ ...basis, former: undefined }, away, true, those).quorate;
  });
}

/** Why nodes count no more. */
export interface Parting {
  /** The members of a quorate view that has lasted last_man_standing's window: others count no more. null: they do. */
  readonly lasting: readonly number[] | null;
  /** Members that say that they leave. */
  readonly leaving: readonly number[];
}

/**
 * Who counts from the next view on, if that is another set than now; null: it is not. Those who are there count always, but those who leave: if
 * some stay, and are a quorum without them.
 */
export function nextElectorate(
  basis: QuorumBasis,
  electorate: Electorate | null,
  members: Members,
  { lasting, leaving }: Parting,
): Electorate | null {
  const { nodes } = basis;
  // One change at a time.
  if (electorate !== null && electorate.former !== null) return null;
  const staying = members.filter(({ nodeid }) => !leaving.includes(nodeid));
  // In a change of the votes all members count, so that a majority of the votes is one of those who count (hazard C8).
  if (leaving.length > 0 && basis.former === undefined && staying.length < members.length) {
    const without = electorateOf(nodes, electorate, staying, lasting, leaving);
    if (without !== null && quorumOf(basis, members, true, without).quorate && isQuorum(basis, staying, without.nodeids)) return without;
  }
  // A node that leaves is no reason to wait for it later, if nobody waits for it now.
  const counting = members.filter(({ nodeid }) => !leaving.includes(nodeid) || (electorate?.nodeids.includes(nodeid) ?? true));
  const next = electorateOf(nodes, electorate, counting, lasting, []);
  // Among those who would count before it those of an open change's old votes may be too few: it waits until the votes are decided.
  return next !== null && basis.former !== undefined && !quorumOf(basis, members, true, next).quorate ? null : next;
}

/** Whether the others are a quorum when that member has left and said so (hazard F35). True where it is alone: nobody is left who could be. */
export function quorateWithout(basis: QuorumBasis, electorate: Electorate | null, members: Members, nodeid: number): boolean {
  const staying = members.filter((member) => member.nodeid !== nodeid);
  if (staying.length === 0) return true;
  const next = nextElectorate(basis, electorate, members, { lasting: null, leaving: [nodeid] });
  const counting = next !== null && !next.nodeids.includes(nodeid) ? { nodeids: next.nodeids, former: null } : electorate;
  return quorumOf(basis, staying, true, counting).quorate;
}

function isQuorum(basis: QuorumBasis, members: Members, nodeids: readonly number[]): boolean {
  return quorumOf(basis, members, true, { nodeids, former: null }).quorate;
}

function electorateOf(
  nodes: readonly Voter[],
  electorate: Electorate | null,
  members: Members,
  lasting: readonly number[] | null,
  leaving: readonly number[],
): Electorate | null {
  const voters = nodes.filter((node) => node.votes > 0).map((node) => node.nodeid);
  const former = voters.filter((nodeid) => electorate?.nodeids.includes(nodeid) ?? true);
  const stays = (nodeid: number): boolean => former.includes(nodeid) && !leaving.includes(nodeid) && (lasting?.includes(nodeid) ?? true);
  const nodeids = voters.filter((nodeid) => stays(nodeid) || members.some((member) => member.nodeid === nodeid)).sort((a, b) => a - b);
  const same = nodeids.length === former.length && nodeids.every((nodeid) => former.includes(nodeid));
  return same || nodeids.length === 0 || former.length === 0 ? null : { nodeids, former };
}

/** Every member of the view that made the change has it on disk. A change to nodes that have no vote has come to nothing. */
export function settledElectorate({ nodes }: Pick<QuorumBasis, "nodes">, electorate: Electorate): Electorate | null {
  const { nodeids, former } = electorate;
  if (!hasVote(nodes, nodeids))
    return former !== null && hasVote(nodes, former) ? settledElectorate({ nodes }, { nodeids: former, former: null }) : null;
  return nodes.every((node) => node.votes === 0 || nodeids.includes(node.nodeid)) ? null : { nodeids, former: null };
}

function hasVote(nodes: readonly Voter[], nodeids: readonly number[]): boolean {
  return nodes.some(({ nodeid, votes }) => votes > 0 && nodeids.includes(nodeid));
}

/** Who counts by the votes that are decided: a set that has none of them counts no more, and what was before it does (`ballots` counts so). */
export function electorateBy(basis: QuorumBasis, electorate: Electorate | null): Electorate | null {
  if (electorate === null || basis.former !== undefined || hasVote(basis.nodes, electorate.nodeids)) return electorate;
  return settledElectorate(basis, electorate);
}

export interface LeaseGround {
  readonly nodes: readonly Voter[];
  readonly needed: number;
}

/**
 * Votes that must have acknowledged a node of the view before it serves, of those nodes: in two_node a silent peer ends the lease (hazard
 * C4). `electorate`: as it is now. Votes and what is needed of them are of one configuration: the view may have been counted by the one before
 * (hazard C8).
 */
export function leaseGrounds(basis: QuorumBasis, members: Members, quorum: Quorum, electorate: Electorate | null): LeaseGround[] {
  const { version, nodes, former } = basis;
  // All members together are no quorum then: others may be one, and serve.
  if (!quorum.quorate) return [{ nodes, needed: Number.POSITIVE_INFINITY }];
  // Counted by votes that this node does not know yet, or by another proposal of this version than the one that is open here: all members
  // together are a quorum by them.
  if (version < quorum.configVersion || (version === quorum.configVersion && former !== undefined))
    return [{ nodes: members.map(({ nodeid }) => ({ nodeid, votes: 1 })), needed: members.length }];
  return ballots(basis, electorate).flatMap((ballot) => {
    const { votes, needed, rule } = judge(ballot, members);
    // A tie that was won stands as long as all of that half are heard, and so does what two_node won.
    const isTie = rule === "tie-won" || rule === "tie-by-all";
    const ground = { nodes: ballot.voters, needed: isTie || quorum.rule === "two-node" ? votes : needed };
    if (rule !== "tie-by-all" || ballot.all === null) return [ground];
    return [ground, { nodes: ballot.all, needed: tally(ballot.all, []).needed }];
  });
}

/**
 * Ascending. Those of them that are away may be a quorum elsewhere: while a change is open, those of before may, too. An operator who says that all
 * of them are gone for good must have been told of both.
 */
export function decidingNodes({ nodeids, former }: Electorate): number[] {
  return [...new Set([...nodeids, ...(former ?? [])])].sort((a, b) => a - b);
}

/** "2 of 3 votes, quorate because 2 >= 2". `members`: nodeids of the view; those that decide and are not among them are waited for. */
export function quorumReason(quorum: Quorum, members: readonly number[] = []): string {
  const { electorate, quorate } = quorum;
  if (electorate === null) return countReason(quorum);
  const away = decidingNodes(electorate).filter((nodeid) => !members.includes(nodeid));
  const waits = quorate || away.length === 0 ? "" : `, and node ${away.join(" ")} is waited for: others had left or were missing`;
  return `${countReason(quorum)}; only nodes ${electorate.nodeids.join(" ")} count${waits}`;
}

function countReason({ votes, expected, needed, quorate, rule }: Quorum): string {
  const head = `${votes} of ${expected} votes, ${quorate ? "quorate" : "not quorate"} because`;
  switch (rule) {
    case "wait-for-all":
      return `${head} wait_for_all: not all nodes were seen together since the start`;
    case "two-node":
      return `${head} two_node: one vote is enough`;
    case "tie-won":
      return `${head} auto_tie_breaker: this half has the node that decides`;
    case "tie-lost":
      return `${head} auto_tie_breaker: the other half has the node that decides`;
    case "tie-by-all":
      return `${head} this half of the nodes that count is in the majority of all nodes`;
    case "old-votes":
      return `${head} ${votes} < ${needed} by the votes of before the change of configuration, which count until it is kept`;
    case "old-voters":
      return `${head} ${votes} < ${needed} of the nodes that counted before, who count until every member has the change on disk`;
    case "other-proposal":
      return `${head} a member has stored other votes of a change of configuration, by which the nodes that are away may be quorate`;
    case "votes":
      return `${head} ${votes} ${quorate ? ">=" : "<"} ${needed}`;
  }
}

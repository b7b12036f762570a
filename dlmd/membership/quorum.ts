/**
 * Quorum by votes: votequorum(5), its options included. The proposer of a view counts, by the latest configuration of its members (hazard C8), and
 * INSTALL says the result.
 *
 *     needed = max(floor((expected + 2) / 2), floor((votes + 2) / 2))
 *
 * last_man_standing departs from corosync's votequorum.c, whose nodes count by a number of votes that each has for itself: partitions that
 * change their shape can then give two quorums. Here the *set* of nodes that count (`Electorate`) goes with the last quorate view, as in
 * Jajodia and Mutchler, "Dynamic voting", 1987, and a change counts only when every member of the view that makes it has it on disk.
 */
import type { NodeConfig, QuorumOptions } from "../engine/boot.ts";
import type { QuorumCount } from "../wire/quorum-count.ts";
import type { Electorate, Member } from "../wire/view-id.ts";

export type Quorum = QuorumCount;

export const plainQuorum: QuorumOptions = { twoNode: false, waitForAll: false, autoTieBreaker: "none" };

/** What votes are counted by. */
export interface QuorumBasis {
  readonly version: number;
  readonly nodes: readonly Pick<NodeConfig, "nodeid" | "votes">[];
  readonly options: QuorumOptions;
  /** While a change of the votes is not kept by a majority of both: the votes of before, which must be enough as well (hazard C8). */
  readonly former?: readonly Pick<NodeConfig, "nodeid" | "votes">[] | undefined;
}

type Votes = QuorumBasis["nodes"];
type Members = readonly Pick<Member, "nodeid">[];
type Count = Pick<Quorum, "votes" | "expected" | "needed" | "quorate" | "rule">;

function within(nodes: Votes, nodeids: readonly number[] | null): Votes {
  return nodeids === null ? nodes : nodes.filter((node) => nodeids.includes(node.nodeid));
}

function count(nodes: Votes, members: Members): { votes: number; expected: number; needed: number } {
  let votes = 0;
  let expected = 0;
  for (const node of nodes) {
    expected += node.votes;
    if (members.some((member) => member.nodeid === node.nodeid)) votes += node.votes;
  }
  const needed = Math.max(Math.floor((expected + 2) / 2), Math.floor((votes + 2) / 2));
  return { votes, expected, needed };
}

/** The node whose half wins; null: none does. */
function tieBreaker(nodes: Votes, rule: QuorumOptions["autoTieBreaker"]): number | null {
  const voters = nodes.filter((node) => node.votes > 0).map((node) => node.nodeid);
  if (rule === "none" || voters.length === 0) return null;
  if (rule === "lowest") return Math.min(...voters);
  if (rule === "highest") return Math.max(...voters);
  return rule.find((nodeid) => voters.includes(nodeid)) ?? null;
}

function judge(nodes: Votes, members: Members, breaking: QuorumOptions["autoTieBreaker"]): Count {
  const { votes, expected, needed } = count(nodes, members);
  if (votes * 2 === expected && votes > 0) {
    const breaker = tieBreaker(nodes, breaking);
    if (breaker !== null) {
      const won = members.some((member) => member.nodeid === breaker);
      return { votes, expected, needed, quorate: won, rule: won ? "tie-won" : "tie-lost" };
    }
  }
  return { votes, expected, needed, quorate: votes >= needed, rule: "votes" };
}

/** `continued`: a member has been in a quorate view since it started. `electorate`: as the last quorate view left it. */
export function quorumOf(basis: QuorumBasis, members: Members, continued: boolean, electorate: Electorate | null = null): Quorum {
  const { nodes, options, version: configVersion, former } = basis;
  const voters = electorate?.nodeids ?? null;
  const now = judge(within(nodes, voters), members, options.autoTieBreaker);
  const rest = { configVersion, electorate };
  const all = nodes.every((node) => node.votes === 0 || members.some((member) => member.nodeid === node.nodeid));
  if ((options.waitForAll || options.twoNode) && !continued && !all) return { ...now, ...rest, quorate: false, rule: "wait-for-all" };
  if (former !== undefined) {
    const before = count(within(former, voters), members);
    if (before.votes < before.needed) return { ...before, ...rest, quorate: false, rule: "old-votes" };
  }
  if (electorate !== null && electorate.former !== null) {
    const before = judge(within(nodes, electorate.former), members, options.autoTieBreaker);
    if (!before.quorate) return { ...before, ...rest, quorate: false, rule: "old-voters" };
  }
  if (options.twoNode) return { ...now, ...rest, needed: 1, quorate: now.votes >= 1, rule: "two-node" };
  return { ...now, ...rest };
}

/**
 * Who counts from the next view on, if that is another set than now; null: it is not. Those who are there count always. `lasting`: the
 * members of a quorate view that has lasted last_man_standing's window: who was not in it counts no more.
 */
export function nextElectorate(
  { nodes }: Pick<QuorumBasis, "nodes">,
  electorate: Electorate | null,
  members: Members,
  lasting: readonly number[] | null,
): Electorate | null {
  // One change at a time.
  if (electorate !== null && electorate.former !== null) return null;
  const voters = nodes.filter((node) => node.votes > 0).map((node) => node.nodeid);
  const former = voters.filter((nodeid) => electorate?.nodeids.includes(nodeid) ?? true);
  const stays = (nodeid: number): boolean => former.includes(nodeid) && (lasting?.includes(nodeid) ?? true);
  const nodeids = voters.filter((nodeid) => stays(nodeid) || members.some((member) => member.nodeid === nodeid)).sort((a, b) => a - b);
  const same = nodeids.length === former.length && nodeids.every((nodeid) => former.includes(nodeid));
  return same || nodeids.length === 0 || former.length === 0 ? null : { nodeids, former };
}

/** Every member of the view that made the change has it on disk. */
export function settledElectorate({ nodes }: Pick<QuorumBasis, "nodes">, { nodeids }: Electorate): Electorate | null {
  return nodes.every((node) => node.votes === 0 || nodeids.includes(node.nodeid)) ? null : { nodeids, former: null };
}

export interface LeaseGround {
  readonly nodes: Votes;
  readonly needed: number;
}

/**
 * Votes that must have acknowledged a node of the view before it serves, of those nodes: in two_node a silent peer ends the lease (hazard
 * C4). `electorate`: as it is now; with both, the one of before must have acknowledged it as well. Votes and what is needed of them are of one
 * configuration: the view may have been counted by the one before (hazard C8).
 */
export function leaseGrounds(basis: QuorumBasis, members: Members, quorum: Quorum, electorate: Electorate | null): LeaseGround[] {
  const { version, nodes, options, former } = basis;
  // All members together are no quorum then: others may be one, and serve.
  if (!quorum.quorate) return [{ nodes, needed: Number.POSITIVE_INFINITY }];
  // Counted by votes that this node does not know yet: all members together are a quorum by them.
  if (version < quorum.configVersion) return [{ nodes: members.map(({ nodeid }) => ({ nodeid, votes: 1 })), needed: members.length }];
  if (quorum.rule === "two-node") return [{ nodes, needed: count(nodes, members).votes }];
  const sets = electorate === null ? [null] : [electorate.nodeids, ...(electorate.former === null ? [] : [electorate.former])];
  const grounds = sets.map((nodeids) => {
    const voters = within(nodes, nodeids);
    const { votes, needed, rule } = judge(voters, members, options.autoTieBreaker);
    // A tie that was won stands as long as all of that half are heard.
    return { nodes: voters, needed: rule === "tie-won" ? votes : needed };
  });
  if (former === undefined) return grounds;
  const before = within(former, electorate?.nodeids ?? null);
  return [...grounds, { nodes: before, needed: count(before, members).needed }];
}

/** "2 of 3 votes, quorate because 2 >= 2" */
export function quorumReason(quorum: Quorum): string {
  const { electorate } = quorum;
  const standing = electorate === null ? "" : `; last_man_standing: nodes ${electorate.nodeids.join(" ")} count`;
  return `${countReason(quorum)}${standing}`;
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
    case "old-votes":
      return `${head} ${votes} < ${needed} by the votes of before the change of configuration, which count until it is kept`;
    case "old-voters":
      return `${head} ${votes} < ${needed} of the nodes that counted before, who count until every member has the change on disk`;
    case "votes":
      return `${head} ${votes} ${quorate ? ">=" : "<"} ${needed}`;
  }
}

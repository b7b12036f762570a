/**
 * Quorum by votes: votequorum(5), its options included. The proposer of a view counts, by the latest configuration of its members (hazard C8), and
 * INSTALL says the result.
 *
 *     needed = max(floor((expected + 2) / 2), floor((votes + 2) / 2))
 */
import type { NodeConfig } from "../node-api.ts";
import type { QuorumCount } from "../wire/quorum-count.ts";
import type { Member } from "../wire/view-id.ts";

export type Quorum = QuorumCount;

export interface QuorumOptions {
  /** One of two nodes is enough: which of them, the fence decides. */
  readonly twoNode: boolean;
  /** Nothing is quorate before all nodes were in one view since they started, or one was in a quorate view. */
  readonly waitForAll: boolean;
  /** Who wins exactly half: the half with the lowest or highest nodeid, or with the first of a list that is configured. */
  readonly autoTieBreaker: "none" | "lowest" | "highest" | readonly number[];
}

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

function count(nodes: Votes, members: readonly Pick<Member, "nodeid">[]): { votes: number; expected: number; needed: number } {
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

/** `continued`: a member has been in a quorate view since it started. */
export function quorumOf(basis: QuorumBasis, members: readonly Pick<Member, "nodeid">[], continued: boolean): Quorum {
  const { nodes, options, version: configVersion, former } = basis;
  const { votes, expected, needed } = count(nodes, members);
  const all = nodes.every((node) => node.votes === 0 || members.some((member) => member.nodeid === node.nodeid));
  if ((options.waitForAll || options.twoNode) && !continued && !all)
    return { votes, expected, needed, quorate: false, rule: "wait-for-all", configVersion };
  if (former !== undefined) {
    const before = count(former, members);
    if (before.votes < before.needed) return { ...before, quorate: false, rule: "old-votes", configVersion };
  }
  if (options.twoNode) return { votes, expected, needed: 1, quorate: votes >= 1, rule: "two-node", configVersion };
  if (votes * 2 === expected && votes > 0) {
    const breaker = tieBreaker(nodes, options.autoTieBreaker);
    if (breaker !== null) {
      const won = members.some((member) => member.nodeid === breaker);
      return { votes, expected, needed, quorate: won, rule: won ? "tie-won" : "tie-lost", configVersion };
    }
  }
  return { votes, expected, needed, quorate: votes >= needed, rule: "votes", configVersion };
}

/** Votes that must have acknowledged a node of the view before it serves: in two_node a silent peer ends the lease (hazard C4). */
export function leaseVotes(nodes: Votes, members: readonly Pick<Member, "nodeid">[], quorum: Quorum): number {
  if (quorum.rule === "two-node") return count(nodes, members).votes;
  // A tie that was won stands as long as all of that half are heard.
  return quorum.rule === "tie-won" ? quorum.votes : quorum.needed;
}

/** "2 of 3 votes, quorate because 2 >= 2" */
export function quorumReason(quorum: Quorum): string {
  const { votes, expected, needed, quorate } = quorum;
  const head = `${votes} of ${expected} votes, ${quorate ? "quorate" : "not quorate"} because`;
  switch (quorum.rule) {
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
    case "votes":
      return `${head} ${votes} ${quorate ? ">=" : "<"} ${needed}`;
  }
}

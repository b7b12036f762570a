/** Quorum by configured votes: more than half of all, never lowered by itself (votequorum(5), without its options). */
import type { NodeConfig } from "../node-api.ts";
import type { Member } from "../wire/view-id.ts";

export interface Quorum {
  readonly votes: number;
  readonly expected: number;
  readonly needed: number;
  readonly quorate: boolean;
}

export function quorumOf(nodes: readonly NodeConfig[], members: readonly Member[]): Quorum {
  let votes = 0;
  let expected = 0;
  for (const node of nodes) {
    expected += node.votes;
    if (members.some((member) => member.nodeid === node.nodeid)) votes += node.votes;
  }
  const needed = Math.floor(expected / 2) + 1;
  return { votes, expected, needed, quorate: votes >= needed };
}

/** "2 of 3 votes, quorate because 2 >= 2" */
export function quorumReason(quorum: Quorum): string {
  const { votes, expected, needed } = quorum;
  return votes >= needed
    ? `${votes} of ${expected} votes, quorate because ${votes} >= ${needed}`
    : `${votes} of ${expected} votes, not quorate because ${votes} < ${needed}`;
}

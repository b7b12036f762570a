/**
 * Nodes, their votes, and what a majority of them is: the one place that says so. What has a majority decides on a change of the configuration
 * (change.ts), makes a view quorate and gives a lease (../membership/quorum.ts). Pure.
 */

/** A node with its votes. */
export interface Voter {
  /** 1..65535 */
  readonly nodeid: number;
  /** 0 to 255; 1 where it is not said. */
  readonly votes: number;
}

/** A node of the configuration. */
export interface NodeConfig extends Voter {
  readonly name: string;
  /** IPv4 address on which the node is heard, by datagram and by TCP. */
  readonly address: string;
}

export interface Tally {
  /** Those of the nodes that are there. */
  readonly votes: number;
  readonly expected: number;
  readonly needed: number;
}

export function tally(voters: readonly Voter[], present: Iterable<number>): Tally {
  const there = new Set(present);
  let votes = 0;
  let expected = 0;
  for (const voter of voters) {
    expected += voter.votes;
    if (there.has(voter.nodeid)) votes += voter.votes;
  }
  return { votes, expected, needed: Math.floor(expected / 2) + 1 };
}

/** Those who are there have more than half of the votes of each list: of that before a change and of that after it (hazard C8). */
export function isMajority(lists: readonly (readonly Voter[])[], present: Iterable<number>): boolean {
  const there = [...present];
  return lists.every((voters) => {
    const { votes, needed } = tally(voters, there);
    return votes >= needed;
  });
}

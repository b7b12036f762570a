/**
 * A node dies: which changes must still be there. The promise, in its own words: what was fsynced is never lost. When one node dies, or the
 * owner with any number of nodes that had changed nothing lately, no survivor loses an answered operation or sees one undone. When the
 * owner and another author die together, what that author had not on disk may be gone; what survivors built upon it is then reported (EIO at
 * fsync), never silence. Source: overlay/lower/README.md.
 */

export type Node = number;

export interface Change {
  /** In the order in which the owner made them. */
  readonly number: number;
  readonly author: Node;
  /** The author's program has its answer. */
  readonly answered: boolean;
  /** An fsync that covers it has returned, or the owner's disk had it for another reason. */
  readonly onDisk: boolean;
  /** Changes that it builds upon: of the same name, the same inode, or the directory that holds it. */
  readonly upon: readonly number[];
}

export type Fate =
  /** It is there, and nobody may see a state without it. */
  | "kept"
  /** It is there or not: nobody was told that it is. */
  | "either"
  /** It may be gone: its author is dead, and the owner with it. */
  | "lost"
  /** Its author lives and it cannot be done again: it is gone, and an fsync says EIO. */
  | "reported";

/** By the number of each change. A remote that dies alone takes nothing with it that the owner has made. */
export function fates(changes: readonly Change[], owner: Node, dead: ReadonlySet<Node>): ReadonlyMap<number, Fate> {
  const found = new Map<number, Fate>();
  const ownerDied = dead.has(owner);
  for (const change of changes.toSorted((a, b) => a.number - b.number)) found.set(change.number, fateOf(change, ownerDied, dead, found));
  return found;
}

function fateOf(change: Change, ownerDied: boolean, dead: ReadonlySet<Node>, before: ReadonlyMap<number, Fate>): Fate {
  if (change.onDisk) return "kept";
  if (!ownerDied) return change.answered ? "kept" : "either";
  if (dead.has(change.author)) return change.answered ? "lost" : "either";
  // Its author has kept it, and sends it to the next owner.
  const basis = change.upon.map((number) => before.get(number) ?? "kept");
  if (basis.some((fate) => fate === "lost" || fate === "reported" || fate === "either")) return "reported";
  return "kept";
}

export interface After {
  /** The changes that are there after the failover. */
  readonly there: ReadonlySet<number>;
  /** The nodes whose fsync has said EIO since. */
  readonly reportedTo: ReadonlySet<Node>;
}

/** What is wrong with a failover, in words; empty: it kept the promise. */
export function brokenPromises(changes: readonly Change[], owner: Node, dead: ReadonlySet<Node>, after: After): string[] {
  const found = fates(changes, owner, dead);
  return changes.flatMap(({ number, author }) => {
    const fate = found.get(number);
    if (after.there.has(number)) return [];
    if (fate === "kept") return [`change ${number} of node ${author} is gone`];
    const silent = fate === "reported" && !dead.has(author) && !after.reportedTo.has(author);
    return silent ? [`change ${number} of node ${author} is gone, and node ${author} was not told`] : [];
  });
}

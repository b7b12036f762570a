/** Who waits for whom, from one process to the one that waits for nobody: over all nodes, from what they say of their locks. */
import type { Party, Wait } from "../status/facts.ts";

/** Of a chain that is longer the rest is not shown. */
export const CHAIN_LINKS_MAX = 16;

/** Each waits for a holder of the one before, or behind its request. */
export interface LockChain {
  readonly links: readonly Wait[];
  /** `runs`: the last holder waits for no lock. `circle`: it waits for one of the chain. `longer`: it goes on. */
  readonly end: "runs" | "circle" | "longer";
  /** The last holder, or the last one that is ahead in line; null: it is not known. */
  readonly last: Party | null;
}

const isSame = (a: Party, b: Party): boolean => a.node === b.node && a.pid === b.pid;

/** A mount waits for many inodes at a time, for programs that have nothing to do with each other: no chain goes through it. */
const isProgram = ({ kind }: Wait): boolean => kind !== "inode";

/** `start`: a process that waits. Null: it waits for no lock that is known. */
export function lockChain(waits: readonly Wait[], start: Pick<Party, "node" | "pid">): LockChain | null {
  const known = waits.filter(isProgram);
  const waitOf = (party: Party): Wait | undefined => known.find(({ waiter }) => isSame(waiter, party));
  const links: Wait[] = [];
  const first = waitOf({ ...start, program: "" });
  if (first === undefined) return null;
  let link: Wait = first;
  for (;;) {
    links.push(link);
    const holders: readonly Party[] = link.holders;
    // Of several holders the one that waits itself is why it takes so long; else the request that is ahead, which waits by itself.
    const holder: Party | null = holders.find((party) => waitOf(party) !== undefined) ?? link.ahead ?? holders[0] ?? null;
    const following: Wait | undefined = holder === null ? undefined : waitOf(holder);
    if (following === undefined) return { links, end: "runs", last: holder };
    if (links.includes(following)) return { links, end: "circle", last: holder };
    if (links.length >= CHAIN_LINKS_MAX) return { links, end: "longer", last: holder };
    link = following;
  }
}

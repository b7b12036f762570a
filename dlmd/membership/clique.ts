/** The largest set of nodes that all hear each other (hazard H14): Bron and Kerbosch, "Finding all cliques", 1973, on bit sets. */
import { assert } from "../base/assert.ts";
import { maxNodes } from "../wire/order-datagram.ts";

/**
 * `nodeids` ascending, at most 31; `linked(a, b)` symmetric. Ties go to the set with the lowest ids, so that all who see the same
 * links choose the same set.
 */
export function largestClique(nodeids: readonly number[], linked: (a: number, b: number) => boolean): number[] {
  assert(nodeids.length <= maxNodes, `${nodeids.length} nodes, at most ${maxNodes} allowed`);
  const neighbours = nodeids.map((a) => {
    let bits = 0;
    nodeids.forEach((b, i) => {
      if (a !== b && linked(a, b)) bits |= 1 << i;
    });
    return bits;
  });
  let best = 0;
  const extend = (clique: number, candidates: number): void => {
    if (candidates === 0) {
      if (bitCount(clique) > bitCount(best)) best = clique;
      return;
    }
    if (bitCount(clique) + bitCount(candidates) <= bitCount(best)) return;
    let left = candidates;
    // Lowest first, and only a larger set replaces the best: the first found of a size has the lowest ids.
    while (left !== 0) {
      const low = left & -left;
      if (bitCount(clique) + bitCount(left) <= bitCount(best)) return;
      extend(clique | low, left & (neighbours[31 - Math.clz32(low)] as number));
      left &= ~low;
    }
  };
  extend(0, nodeids.length === 0 ? 0 : (2 ** nodeids.length - 1) | 0);
  return nodeids.filter((_, i) => (best & (1 << i)) !== 0);
}

/**
 * Who makes the next view: the members of the present one (`staying`) that still hear each other, and the most others that all hear them
 * and each other. A node that joins is heard by one member before the other: it must never displace one for that. Ascending.
 */
export function nextMembers(nodeids: readonly number[], staying: readonly number[], linked: (a: number, b: number) => boolean): number[] {
  const kept = largestClique(staying, linked);
  const joining = nodeids.filter((nodeid) => !staying.includes(nodeid) && kept.every((member) => linked(nodeid, member)));
  return [...kept, ...largestClique(joining, linked)].sort((a, b) => a - b);
}

function bitCount(bits: number): number {
  let count = 0;
  for (let left = bits; left !== 0; left &= left - 1) count++;
  return count;
}

/** The interval tree against a plain list. */
import { describe, expect, it } from "vitest";
import { IntervalTree, type Ranged } from "../../../dlmd/plock/interval-tree.ts";
import { Random } from "../../sim/random.ts";

describe("the interval tree", () => {
  it.each([1, 2, 3, 4, 5])("finds what a list finds, seed %i", (seed) => {
    const random = new Random(seed);
    const tree = new IntervalTree<Ranged>();
    const list: Ranged[] = [];
    const order = (a: Ranged, b: Ranged): number => (a.start < b.start ? -1 : a.start > b.start ? 1 : a.rank - b.rank);
    for (let step = 1; step <= 2000; step++) {
      if (list.length > 0 && random.chance(0.45)) {
        const [item] = list.splice(random.int(list.length), 1) as [Ranged];
        tree.remove(item);
      } else {
        const start = BigInt(random.int(200));
        const item = { start, end: start + BigInt(random.int(random.chance(0.2) ? 200 : 10)), rank: step };
        list.push(item);
        tree.insert(item);
      }
      expect(tree.size).toBe(list.length);
      const start = BigInt(random.int(220));
      const end = start + BigInt(random.int(40));
      const found = list.filter((item) => item.start <= end && item.end >= start).sort(order);
      expect(tree.overlapping(start, end)).toEqual(found);
      const odd = (item: Ranged): boolean => item.rank % 2 === 1;
      expect(tree.first(start, end, odd)).toBe(found.find(odd) ?? null);
      const below = random.int(step + 2);
      const latest = found.filter((item) => odd(item) && item.rank < below).sort((a, b) => b.rank - a.rank)[0];
      expect(tree.latest(start, end, below, odd)).toBe(latest ?? null);
    }
  });

  it("does not degenerate when filled in order", () => {
    const tree = new IntervalTree<Ranged>();
    for (let i = 0; i < 100_000; i++) tree.insert({ start: BigInt(i * 2), end: BigInt(i * 2), rank: i + 1 });
    expect(tree.overlapping(100_000n, 100_002n).length).toBe(2);
    expect(tree.first(100_001n, 100_001n, () => true)).toBe(null);
  });
});

/** An order of use is that of a Map whose keys are deleted and set again. */
import { expect, it } from "vitest";
import { Recency } from "../../../dlmd/base/recency.ts";
import { seeded } from "../coherence/seeded.ts";

interface One {
  readonly name: number;
  older: One | null;
  newer: One | null;
}

function listed(order: Recency<One>): number[] {
  const names: number[] = [];
  for (let one = order.oldest; one !== null; one = one.newer) {
    names.push(one.name);
    expect(one.newer === null || one.newer.older === one).toBe(true);
  }
  return names;
}

it("adds, uses and removes as a Map does", () => {
  for (let seed = 1; seed <= 20; seed++) {
    const random = seeded(seed);
    const order = new Recency<One>();
    const wanted = new Map<number, One>();
    for (let step = 0; step < 200; step++) {
      const name = Math.floor(random() * 6);
      const one = wanted.get(name) ?? { name, older: null, newer: null };
      const there = wanted.delete(name);
      const goes = there && random() < 0.4;
      if (goes) order.remove(one);
      else if (there) order.use(one);
      else order.add(one);
      if (!goes) wanted.set(name, one);
      expect(listed(order)).toEqual([...wanted.keys()]);
    }
    for (const one of wanted.values()) order.remove(one);
    expect(order.oldest).toBeNull();
  }
});

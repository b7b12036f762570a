/**
 * Whose votes count when nodes leave: every state that a small cluster can get into by views, by leaving, by crashes between any two writings to a
 * disk. In none of them may two sets without a common node be quorate. dlmd/membership/README.md, "Nodes that leave".
 */
import { describe, expect, it } from "vitest";
import {
  decidingNodes,
  leaseGrounds,
  nextElectorate,
  plainQuorum,
  quorateWithout,
  quorumOf,
  quorumReason,
  settledElectorate,
} from "../../../dlmd/membership/quorum.ts";
import type { QuorumOptions } from "../../../dlmd/engine/boot.ts";
import type { Electorate } from "../../../dlmd/wire/view-id.ts";

const idsOf = (set: number): number[] => [1, 2, 3, 4, 5].filter((nodeid) => (set & (1 << (nodeid - 1))) !== 0);
const membersOf = (...nodeids: number[]) => nodeids.map((nodeid) => ({ nodeid, incarnation: "00000000000000aa" }));
const basisOf = (count: number, options: QuorumOptions) => ({
  version: 1,
  nodes: idsOf((1 << count) - 1).map((nodeid) => ({ nodeid, votes: 1 })),
  options,
});
const parts = Array.from({ length: 32 }, (_, set) => Array.from({ length: set }, (_, at) => at + 1).filter((part) => (part & ~set) === 0));
/** All sets of which each node is in `set`, but the empty one. */
const within = (set: number): readonly number[] => parts[set] ?? [];

/** What a node has on disk: the rank of the latest quorate view that it was in, and who counts since, as a number. */
interface Disk {
  readonly rank: number;
  readonly counts: number;
  /** Said to be gone for good, and it is (countAll in dlmd/membership/membership.ts). */
  readonly gone?: true;
}
type Disks = readonly Disk[];
const gone: Disk = { rank: 0, counts: 0, gone: true };

/** A cluster of so many nodes, and all states that it can get into. */
class Model {
  readonly count: number;
  readonly #resets: boolean;
  readonly #basis: ReturnType<typeof basisOf>;
  readonly #electorates: (Electorate | null)[] = [null];
  readonly #numbers = new Map<string, number>([["null", 0]]);
  readonly #quorate = new Map<number, boolean>();
  readonly #next = new Map<string, number>();

  /** `resets`: an operator may say that nodes that are waited for are gone for good, which is true. */
  constructor(count: number, options: QuorumOptions, resets = false) {
    this.count = count;
    this.#resets = resets;
    this.#basis = basisOf(count, options);
  }

  #numberOf(electorate: Electorate | null): number {
    const key = JSON.stringify(electorate);
    const known = this.#numbers.get(key);
    if (known !== undefined) return known;
    this.#numbers.set(key, this.#electorates.push(electorate) - 1);
    return this.#electorates.length - 1;
  }

  /** Of two records of one view, as laterLineage of dlmd/membership/agreement.ts. */
  #precedence({ counts }: Disk): number {
    const electorate = this.#electorates[counts] ?? null;
    return electorate === null ? 1 : electorate.former === null ? 2 : 0;
  }

  isAlone({ counts }: Disk): boolean {
    const electorate = this.#electorates[counts] ?? null;
    return electorate !== null && electorate.former === null && electorate.nodeids.length === 1;
  }

  /** What the best informed of a set knows. */
  #latest(disks: Disks, set: number): Disk {
    return disks
      .filter((_, at) => (set & (1 << at)) !== 0)
      .reduce((a, b) => (b.rank > a.rank || (b.rank === a.rank && this.#precedence(b) > this.#precedence(a)) ? b : a));
  }

  #hasGone(disks: Disks, set: number): boolean {
    return disks.some((disk, at) => disk.gone === true && (set & (1 << at)) !== 0);
  }

  #isQuorate(disks: Disks, set: number): boolean {
    if (this.#resets && this.#hasGone(disks, set)) return false;
    const { counts } = this.#latest(disks, set);
    const key = counts * 32 + set;
    let quorate = this.#quorate.get(key);
    if (quorate === undefined) {
      quorate = quorumOf(this.#basis, membersOf(...idsOf(set)), true, this.#electorates[counts] ?? null).quorate;
      this.#quorate.set(key, quorate);
    }
    return quorate;
  }

  #nextOf(counts: number, set: number, leaving: number, lasting: readonly number[] | null): number {
    const key = `${counts} ${set} ${leaving} ${lasting !== null}`;
    let next = this.#next.get(key);
    if (next === undefined) {
      const before = this.#electorates[counts] ?? null;
      const members = membersOf(...idsOf(set));
      next = this.#numberOf(nextElectorate(this.#basis, before, members, { lasting, leaving: idsOf(leaving) }) ?? before);
      this.#next.set(key, next);
    }
    return next;
  }

  /**
   * A view without a quorum waits for nodes that are gone for good, and one of its members is told so. The others of the view may hear of it in
   * later steps, or never.
   */
  *reset(disks: Disks): Generator<Disks> {
    for (let set = 1; set < 1 << this.count; set++) {
      if (this.#hasGone(disks, set) || this.#isQuorate(disks, set)) continue;
      for (const nodeid of idsOf(set)) {
        const own = disks[nodeid - 1] as Disk;
        // It shows what the best informed of the view knows, and resets what it knows itself.
        const electorate = this.#electorates[this.#latest(disks, set).counts] ?? null;
        if (electorate === null || own.counts === 0) continue;
        const away = new Set(decidingNodes(electorate).filter((each) => !idsOf(set).includes(each)));
        yield disks.map((disk, at) => (away.has(at + 1) ? gone : at + 1 === nodeid ? { ...disk, counts: 0 } : disk));
      }
    }
  }

  /** A view of some set is agreed, some leave, and of its members some crash before they have stored it. */
  *following(disks: Disks): Generator<Disks> {
    const { options } = this.#basis;
    const rank = Math.max(...disks.map((disk) => disk.rank)) + 1;
    if (this.#resets) yield* this.reset(disks);
    for (let set = 1; set < 1 << this.count; set++) {
      if (!this.#isQuorate(disks, set)) continue;
      const best = this.#latest(disks, set);
      const lastings = options.lastManStandingMs === undefined ? [null] : [null, idsOf(set)];
      const records = new Set(
        [0, ...within(set)].flatMap((leaving) => lastings.map((each) => this.#nextOf(best.counts, set, leaving, each))),
      );
      for (const counts of records) {
        if (counts === 0 && best.counts === 0) continue;
        const write = (to: Disks, stored: number, record: Disk): Disks =>
          to.map((disk, at) => ((stored & (1 << at)) !== 0 ? record : disk));
        for (const stored of within(set)) yield write(disks, stored, { rank, counts });
        const electorate = this.#electorates[counts] ?? null;
        if (electorate === null || electorate.former === null) continue;
        // All have it on disk; some of them have that on disk.
        const done = { rank, counts: this.#numberOf(settledElectorate(this.#basis, electorate)) };
        for (const knows of within(set)) yield write(write(disks, set, { rank, counts }), knows, done);
      }
    }
  }

  /** Two sets without a common node that are both quorate. */
  halves(disks: Disks): string | null {
    const quorate: number[] = [];
    for (let set = 1; set < 1 << this.count; set++) {
      if (!this.#isQuorate(disks, set)) continue;
      const other = quorate.find((former) => (former & set) === 0);
      const known = (): string => JSON.stringify(disks.map(({ rank, counts }) => ({ rank, counts: this.#electorates[counts] })));
      if (other !== undefined) return `${idsOf(other).join(" ")} and ${idsOf(set).join(" ")}: ${known()}`;
      quorate.push(set);
    }
    return null;
  }
}

/** How many numbers below `rank` are ranks of `disks`. Ranks only tell which is later. */
function lowRank(disks: Disks, rank: number): number {
  let ranks = 0;
  for (const disk of disks) if (disk.gone !== true && disk.rank < rank) ranks |= 1 << disk.rank;
  let low = 0;
  for (; ranks !== 0; ranks &= ranks - 1) low++;
  return low;
}

const lowRanks = (disks: Disks): Disks =>
  disks.map((disk) => (disk.gone === true ? disk : { rank: lowRank(disks, disk.rank), counts: disk.counts }));

const mostCounts = 8192;

/** Of lowRanks(disks): a sign for each disk, because it is made for the millions of steps that lead to a state that is known. */
function keyOf(disks: Disks): string {
  return String.fromCharCode(
    ...disks.map((disk) => {
      if (disk.gone === true) return 0xffff;
      if (disk.counts >= mostCounts) throw new Error(`a sign has no room for ${disk.counts} electorates`);
      return lowRank(disks, disk.rank) * mostCounts + disk.counts;
    }),
  );
}

/** `alone`: states in which a node alone may have the quorum; `reset`: after an operator's word. */
function explore(model: Model, limit: number): { states: number; alone: number; reset: number; wrong: string | null } {
  const start = Array.from({ length: model.count }, () => ({ rank: 0, counts: 0 }));
  const known = new Set([keyOf(start)]);
  const open: Disks[] = [start];
  let alone = 0;
  let reset = 0;
  for (let at = 0; at < open.length && known.size < limit; at++) {
    for (const next of model.following(open[at] as Disks)) {
      const key = keyOf(next);
      if (known.has(key)) continue;
      known.add(key);
      const disks = lowRanks(next);
      const wrong = model.halves(disks);
      if (wrong !== null) return { states: known.size, alone, reset, wrong };
      if (disks.some((disk) => model.isAlone(disk))) alone++;
      if (disks.some((disk) => disk.gone === true)) reset++;
      open.push(disks);
    }
  }
  return { states: known.size, alone, reset, wrong: null };
}

const standing = { lastManStandingMs: 1 };

describe("two sets without a common node are never both quorate", () => {
  it("three nodes, all states", { timeout: 180_000 }, () => {
    const { states, alone, wrong } = explore(new Model(3, plainQuorum), Number.POSITIVE_INFINITY);
    expect(wrong).toBe(null);
    expect([states, alone]).toEqual([178_426, 21_513]);
  });

  it.each([
    ["three nodes, auto_tie_breaker", 3, { ...plainQuorum, autoTieBreaker: "lowest" }],
    ["three nodes, last_man_standing", 3, { ...plainQuorum, ...standing }],
    ["three nodes, both", 3, { ...plainQuorum, ...standing, autoTieBreaker: "highest" }],
    ["four nodes", 4, plainQuorum],
    ["four nodes, auto_tie_breaker", 4, { ...plainQuorum, autoTieBreaker: [2, 3] }],
    ["four nodes, last_man_standing", 4, { ...plainQuorum, ...standing }],
    ["five nodes", 5, plainQuorum],
  ] as const)("%s, the first 20,000 states", (_, count, options) => {
    const { alone, wrong } = explore(new Model(count, options), 20_000);
    expect(wrong).toBe(null);
    expect(alone).toBeGreaterThan(10);
  });
});

describe("with an operator who says of nodes that are waited for that they are gone for good", () => {
  it.each([
    ["three nodes", 3, plainQuorum],
    ["three nodes, last_man_standing and auto_tie_breaker", 3, { ...plainQuorum, ...standing, autoTieBreaker: "lowest" }],
    ["four nodes", 4, plainQuorum],
    ["five nodes", 5, plainQuorum],
  ] as const)("%s, the first 20,000 states", (_, count, options) => {
    const { alone, reset, wrong } = explore(new Model(count, options, true), 20_000);
    expect(wrong).toBe(null);
    expect(alone).toBeGreaterThan(10);
    expect(reset).toBeGreaterThan(10);
  });
});

describe("who counts", () => {
  const three = basisOf(3, plainQuorum);
  const next = (electorate: Electorate | null, members: number[], leaving: number[], basis = three) =>
    nextElectorate(basis, electorate, membersOf(...members), { lasting: null, leaving });
  const settled = (...nodeids: number[]): Electorate => ({ nodeids, former: null });
  const quorate = (members: number[], electorate: Electorate, basis = three) =>
    quorumOf(basis, membersOf(...members), true, electorate).quorate;

  it("who leaves does not, and one of two that stays is a quorum", () => {
    expect(next(null, [1, 2, 3], [3])).toEqual({ nodeids: [1, 2], former: [1, 2, 3] });
    expect(next(settled(1, 2), [1, 2], [2])).toEqual({ nodeids: [1], former: [1, 2] });
    expect(quorate([1], settled(1))).toBe(true);
  });

  it("who left does not count alone, nor with others that left, until it is back with those that went on", () => {
    expect(quorate([2], settled(1))).toBe(false);
    expect(quorate([2, 3], settled(1))).toBe(false);
    expect(quorate([1, 2], settled(1))).toBe(true);
    expect(next(settled(1), [1, 2], [])).toEqual({ nodeids: [1, 2], former: [1] });
  });

  it("who leaves again and did not count does not come to count by it", () => {
    expect(next(settled(1, 2), [1, 2, 3], [3])).toBe(null);
    expect(next(settled(1), [1, 2, 3], [3])).toEqual({ nodeids: [1, 2], former: [1] });
    // It counts, and is needed.
    expect(next(settled(1, 2), [1, 2], [1, 2])).toBe(null);
  });

  it("a tie of the nodes that count is decided by the majority of all, if no node decides it", () => {
    expect(quorumOf(three, membersOf(1, 3), true, settled(1, 2))).toMatchObject({
      quorate: true,
      rule: "tie-by-all",
      votes: 1,
      expected: 2,
    });
    expect(quorate([1], settled(1, 2))).toBe(false);
    const lowest = basisOf(3, { ...plainQuorum, autoTieBreaker: "lowest" });
    expect(quorate([1], settled(1, 2), lowest)).toBe(true);
    expect(quorate([2, 3], settled(1, 2), lowest)).toBe(false);
    const grounds = leaseGrounds(three, membersOf(1, 3), quorumOf(three, membersOf(1, 3), true, settled(1, 2)), settled(1, 2));
    expect(grounds.map(({ nodes, needed }) => [nodes.length, needed])).toEqual([
      [2, 1],
      [3, 2],
    ]);
  });

  it("nobody stops counting if those who stay would be no quorum, or nobody stays", () => {
    expect(next(null, [1, 2], [2])).toBe(null);
    expect(next(null, [1, 2, 3], [1, 2, 3])).toBe(null);
    expect(next(null, [1, 2, 3], [1, 2])).toEqual({ nodeids: [3], former: [1, 2, 3] });
  });

  it("C8: while a change of the votes is open all members count", () => {
    expect(next(null, [1, 2, 3], [3], { ...three, former: three.nodes } as typeof three)).toBe(null);
  });

  it("two_node: of two that counted one is enough until both have on disk that one leaves", () => {
    const two = basisOf(2, { ...plainQuorum, twoNode: true });
    const changing = { nodeids: [1], former: [1, 2] };
    expect(quorate([1], changing, two)).toBe(true);
    expect(quorate([2], changing, two)).toBe(false);
  });

  it("says who is waited for; while a change is open those of before, too", () => {
    const open = { nodeids: [1, 2], former: [3] };
    expect(quorumReason(quorumOf(three, membersOf(1, 2), true, open), [1, 2])).toBe(
      "0 of 1 votes, not quorate because 0 < 1 of the nodes that counted before, who count until every member has the change on disk; only nodes 1 2 count, and node 3 is waited for: others had left or were missing",
    );
    expect(quorumReason(quorumOf(three, membersOf(2, 3), true, settled(1)), [2, 3])).toBe(
      "0 of 1 votes, not quorate because 0 < 1; only nodes 1 count, and node 1 is waited for: others had left or were missing",
    );
  });
});

describe("F35: whether the others are a quorum without a node that leaves", () => {
  const twoNode = { ...plainQuorum, twoNode: true };
  const only = (...nodeids: number[]): Electorate => ({ nodeids, former: null });
  it.each<[string, number, QuorumOptions, Electorate | null, readonly number[], number, boolean]>([
    ["three are there", 3, plainQuorum, null, [1, 2, 3], 2, true],
    ["of three one has crashed", 3, plainQuorum, null, [1, 2], 2, false],
    ["of three one has left", 3, plainQuorum, only(1, 2), [1, 2], 2, true],
    ["two of five are away", 5, plainQuorum, null, [1, 2, 3], 3, false],
    ["two of five have left", 5, plainQuorum, only(1, 2, 3), [1, 2, 3], 3, true],
    ["two_node", 2, twoNode, null, [1, 2], 2, true],
    ["it is alone", 3, plainQuorum, only(2), [2], 2, true],
    ["a change of who counts is open", 3, plainQuorum, { nodeids: [1, 2], former: [1, 2, 3] }, [1, 2], 2, false],
  ])("%s", (_, count, options, electorate, members, nodeid, expected) => {
    expect(quorateWithout(basisOf(count, options), electorate, membersOf(...members), nodeid)).toBe(expected);
  });
});

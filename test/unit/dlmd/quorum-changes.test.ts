/** Quorum while two things change: the votes, and which nodes count (last_man_standing). All states of a small cluster, hazard C8. */
import { describe, expect, it } from "vitest";
import type { Voter } from "../../../dlmd/config/votes.ts";
import {
  agreesTo,
  electorateBy,
  leaseGrounds,
  nextElectorate,
  plainQuorum,
  type QuorumBasis,
  quorumOf,
  settledElectorate,
} from "../../../dlmd/membership/quorum.ts";
import type { Electorate } from "../../../dlmd/wire/view-id.ts";

/** What is a quorum without it is one with it. */
const options = { ...plainQuorum, autoTieBreaker: "lowest" } as const;

/** All sets of nodes 1 to `count`; that at place p has node n if bit n - 1 of p is set. */
function setsOf(count: number): { readonly nodeid: number }[][] {
  const nodeids = Array.from({ length: count }, (_, at) => at + 1);
  return Array.from({ length: 1 << count }, (_, set) =>
    nodeids.filter((nodeid) => (set & (1 << (nodeid - 1))) !== 0).map((nodeid) => ({ nodeid })),
  );
}

const idsOf = (nodes: readonly { readonly nodeid: number }[]): number[] => nodes.map(({ nodeid }) => nodeid);

interface Scene {
  readonly former: readonly Voter[];
  readonly nodes: readonly Voter[];
  readonly electorate: Electorate;
}

/** Each node has one vote, one of them gets or loses one; and each next electorate of each one that can be. */
function scenesOf(count: number): Scene[] {
  const sets = setsOf(count);
  const former = (sets.at(-1) ?? []).map(({ nodeid }) => ({ nodeid, votes: 1 }));
  const changes = former.flatMap(({ nodeid }) =>
    [0, 2].map((votes) => former.map((voter) => (voter.nodeid === nodeid ? { nodeid, votes } : voter))),
  );
  const formers = sets.filter(({ length }) => length > 0).map((set) => ({ nodeids: idsOf(set), former: null }));
  return changes.flatMap((nodes) =>
    formers.flatMap((before) => {
      // Members of a view that has lasted, and the same ones once more.
      const next = sets.map((members) =>
        nextElectorate({ version: 2, nodes, options }, before, members, { lasting: idsOf(members), leaving: [] }),
      );
      const different = new Map(next.filter((each) => each !== null).map((each) => [each.nodeids.join(), each.nodeids]));
      return [...different.values()].map((nodeids) => ({ former, nodes, electorate: { nodeids, former: before.nodeids } }));
    }),
  );
}

/** What the best informed of a set can know, while neither change is kept: of each it may have heard, or not. */
function quorumsOf({ former, nodes, electorate }: Scene, sets: ReturnType<typeof setsOf>): boolean[] {
  const bases: QuorumBasis[] = [
    { version: 1, nodes: former, options },
    { version: 2, nodes, former, options },
  ];
  const electorates = [{ nodeids: electorate.former ?? [], former: null }, electorate];
  return sets.map((members) => bases.some((basis) => electorates.some((electorate) => quorumOf(basis, members, true, electorate).quorate)));
}

describe("C8: the votes change, and who counts", () => {
  it.each([3, 4, 5])("of %i nodes no two sets that have no node in common are quorate", (count) => {
    const sets = setsOf(count);
    const wrong: string[] = [];
    for (const scene of scenesOf(count)) {
      const quorate = quorumsOf(scene, sets);
      const quorums = [...sets.keys()].filter((set) => quorate[set] === true);
      for (const a of quorums) {
        for (const b of quorums) {
          if (b < a || (a & b) !== 0) continue;
          const { nodes, electorate } = scene;
          const votes = nodes.map((node) => node.votes).join(" ");
          const [one, other] = [sets[a], sets[b]].map((set) => idsOf(set ?? []).join(" "));
          wrong.push(`${one} and ${other}: votes ${votes}, ${electorate.nodeids.join(" ")} after ${electorate.former?.join(" ")}`);
        }
      }
    }
    expect(wrong).toEqual([]);
  });

  it.each([1, 2, 3, 4])("all of %i nodes together are a quorum, whatever was decided since it was chosen who counts", (count) => {
    const all = setsOf(count).at(-1) ?? [];
    const former = all.map(({ nodeid }) => ({ nodeid, votes: 1 }));
    const some = setsOf(count).slice(1).map(idsOf);
    const wrong: string[] = [];
    for (const { nodeid } of all) {
      for (const votes of count === 1 ? [1, 2] : [0, 1, 2]) {
        const nodes = former.map((voter) => (voter.nodeid === nodeid ? { nodeid, votes } : voter));
        const bases: QuorumBasis[] = [
          { version: 2, nodes, options },
          { version: 2, nodes, former, options },
          { version: 3, nodes: former, former: nodes, options },
        ];
        const electorates = some.flatMap((nodeids) => [null, ...some].map((before) => ({ nodeids, former: before })));
        for (const basis of bases) {
          for (const electorate of electorates) {
            if (quorumOf(basis, all, true, electorate).quorate) continue;
            wrong.push(`node ${nodeid} has ${votes}, ${electorate.nodeids.join(" ")} after ${electorate.former?.join(" ") ?? "all"}`);
          }
        }
      }
    }
    expect(wrong).toEqual([]);
  });

  it.each([2, 3, 4])("of %i nodes those who are a quorum while the votes change stay one, whoever comes to count meanwhile", (count) => {
    const sets = setsOf(count);
    const former = (sets.at(-1) ?? []).map(({ nodeid }) => ({ nodeid, votes: 1 }));
    const wrong: string[] = [];
    for (const { nodeid } of former) {
      for (const votes of [0, 2]) {
        const nodes = former.map((voter) => (voter.nodeid === nodeid ? { nodeid, votes } : voter));
        const basis = { version: 2, nodes, former, options };
        for (const counting of [null, ...sets.slice(1).map((set) => ({ nodeids: idsOf(set), former: null }))]) {
          for (const members of sets.filter((set) => quorumOf(basis, set, true, counting).quorate)) {
            for (const lasting of [null, idsOf(members)]) {
              const next = nextElectorate(basis, counting, members, { lasting, leaving: [] });
              if (next === null || quorumOf(basis, members, true, next).quorate) continue;
              wrong.push(
                `${idsOf(members).join(" ")}: node ${nodeid} has ${votes}, ${next.nodeids.join(" ")} after ${next.former?.join(" ")}`,
              );
            }
          }
        }
      }
    }
    expect(wrong).toEqual([]);
  });

  it.each([3, 4].flatMap((count) => (["none", "lowest", "highest"] as const).map((ties) => [count, ties] as const)))(
    "of %i nodes no set is quorate by one proposal, and another by one of the same version that a member has stored; ties: %s",
    (count, autoTieBreaker) => {
      const sets = setsOf(count);
      const breaking = { ...plainQuorum, autoTieBreaker };
      const former = (sets.at(-1) ?? []).map(({ nodeid }) => ({ nodeid, votes: 1 }));
      const changes = former.flatMap(({ nodeid }) =>
        [0, 2].map((votes) => former.map((voter) => (voter.nodeid === nodeid ? { nodeid, votes } : voter))),
      );
      const some = sets.slice(1).map(idsOf);
      const electorates = [null, ...some.flatMap((nodeids) => [null, ...some].map((before) => ({ nodeids, former: before })))];
      let refused = 0;
      const wrong: string[] = [];
      for (const decided of changes) {
        const stored: QuorumBasis = { version: 2, nodes: decided, former, options: breaking };
        for (const electorate of electorates) {
          // Who is away may have heard of both, of one, or of none of who counts.
          const known = electorate?.former ? [electorate, { nodeids: electorate.former, former: null }] : [electorate];
          const elsewhere = sets.filter((set) =>
            known.some((counting) => quorumOf({ ...stored, former: undefined }, set, true, counting).quorate),
          );
          for (const nodes of changes) {
            for (const members of sets.slice(1)) {
              if (!quorumOf({ version: 2, nodes, former, options: breaking }, members, true, electorate).quorate) continue;
              if (!agreesTo(stored, members, { configVersion: 2, open: true, electorate })) {
                if (electorate === null) refused++;
                continue;
              }
              const other = elsewhere.find((set) => set.every(({ nodeid }) => !idsOf(members).includes(nodeid)));
              if (other === undefined) continue;
              const votes = [decided, nodes].map((each) => each.map((node) => node.votes).join(" ")).join(" or ");
              wrong.push(`${idsOf(members).join(" ")} and ${idsOf(other).join(" ")}: votes ${votes}`);
            }
          }
        }
      }
      expect(wrong).toEqual([]);
      // Where nodes count as they are, only a half that wins a tie does without a majority of before: one node of three.
      expect(refused > 0).toBe(autoTieBreaker !== "none" && count === 3);
    },
  );

  it("who has stored nothing of that version agrees, and who has another one does not ask about votes that are decided", () => {
    const former = [1, 2, 3].map((nodeid) => ({ nodeid, votes: 1 }));
    const nodes = former.map((voter) => (voter.nodeid === 2 ? { nodeid: 2, votes: 0 } : voter));
    const members = [{ nodeid: 2 }, { nodeid: 3 }];
    const counted = { configVersion: 2, open: true, electorate: null };
    const basis: QuorumBasis = { version: 2, nodes, former, options };
    expect(agreesTo(basis, members, counted)).toBe(false);
    expect(agreesTo({ ...basis, former: undefined }, members, counted)).toBe(false);
    expect(agreesTo(basis, members, { ...counted, open: false })).toBe(true);
    expect(agreesTo({ version: 1, nodes: former, options }, members, counted)).toBe(true);
    // Stored since STATE.
    expect(agreesTo(basis, members, { configVersion: 1, open: false, electorate: null })).toBe(false);
    // A fence decides between halves.
    expect(agreesTo({ ...basis, options: { ...options, twoNode: true } }, members, counted)).toBe(true);
  });

  it("a set that lost its last vote counts no more: what was before it does, once the votes are decided", () => {
    const former = [1, 2, 3].map((nodeid) => ({ nodeid, votes: 1 }));
    const nodes = former.map((voter) => (voter.nodeid === 3 ? { ...voter, votes: 0 } : voter));
    const basis = { version: 2, nodes, options };
    const opened = { nodeids: [3], former: [1, 3] };
    const settled = { nodeids: [3], former: null };
    expect(electorateBy(basis, opened)).toEqual({ nodeids: [1, 3], former: null });
    expect(settledElectorate(basis, opened)).toEqual({ nodeids: [1, 3], former: null });
    expect(electorateBy(basis, settled)).toBeNull();
    // While the change is open node 3 may have the quorum by the votes of before.
    expect(electorateBy({ ...basis, former }, settled)).toBe(settled);
    expect(quorumOf({ ...basis, former }, [{ nodeid: 1 }, { nodeid: 2 }], true, settled)).toMatchObject({
      quorate: false,
      rule: "old-votes",
    });
  });

  it("a lease needs the old votes of the nodes that counted before as well", () => {
    const former = [1, 2, 3, 4, 5].map((nodeid) => ({ nodeid, votes: 1 }));
    const nodes = former.map((voter) => (voter.nodeid === 4 ? { ...voter, votes: 0 } : voter));
    const basis = { version: 2, nodes, former, options };
    const electorate = { nodeids: [1, 2, 3], former: [1, 2, 3, 4, 5] };
    const members = [1, 2, 3].map((nodeid) => ({ nodeid, incarnation: "00000000000000aa" }));
    const grounds = leaseGrounds(basis, members, quorumOf({ version: 1, nodes: former, options }, members, true, electorate), electorate);
    expect(grounds.map(({ nodes, needed }) => [nodes.length, needed])).toEqual([
      [3, 2],
      [3, 2],
      [5, 3],
      [5, 3],
    ]);
  });

  it("wait_for_all: beside a node that an open change adds, all of before are enough after a restart", () => {
    const former = [1, 3].map((nodeid) => ({ nodeid, votes: 1 }));
    const nodes = [1, 2, 3].map((nodeid) => ({ nodeid, votes: 1 }));
    const waiting = { version: 2, nodes, former, options: { ...plainQuorum, waitForAll: true } };
    const ruleOf = (basis: QuorumBasis, ...nodeids: number[]): string => {
      const { quorate, rule } = quorumOf(
        basis,
        nodeids.map((nodeid) => ({ nodeid })),
        false,
      );
      return quorate ? "quorate" : rule;
    };
    expect(ruleOf(waiting, 1, 3)).toBe("quorate");
    // One of before is missing, or the change is no longer open.
    expect(ruleOf(waiting, 1, 2)).toBe("wait-for-all");
    expect(ruleOf({ ...waiting, former: undefined }, 1, 3)).toBe("wait-for-all");
    // The majority of now is needed besides.
    const alone = { ...waiting, former: [{ nodeid: 1, votes: 1 }] };
    expect(ruleOf(alone, 1)).toBe("votes");
  });

  it("two_node: the node that an open change adds is waited for, because it could be quorate alone", () => {
    const nodes = [1, 2].map((nodeid) => ({ nodeid, votes: 1 }));
    const basis = { version: 2, nodes, former: [{ nodeid: 1, votes: 1 }], options: { ...plainQuorum, twoNode: true } };
    expect(quorumOf(basis, [{ nodeid: 1 }], false)).toMatchObject({ quorate: false, rule: "wait-for-all" });
    // It has heard that the change is in force, and has been in a quorate view.
    expect(quorumOf({ ...basis, former: undefined }, [{ nodeid: 2 }], true)).toMatchObject({ quorate: true, rule: "two-node" });
  });
});

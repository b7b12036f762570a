/** What becomes of the states of a round (dlmd/engine/corosync/round.ts). */
import { describe, expect, it } from "vitest";
import type { NodeConfig } from "../../../dlmd/config/votes.ts";
import { type Answer, decide } from "../../../dlmd/engine/corosync/round.ts";
import { plainQuorum } from "../../../dlmd/membership/quorum.ts";
import { noLineage, noView, type ViewId } from "../../../dlmd/wire/view-id.ts";
import { timeoutMs } from "../../compliance/cpg-sim.ts";

const incarnationOf = (nodeid: number): string => `00000000000000a${nodeid}`;
const nodes: NodeConfig[] = [1, 2, 3].map((nodeid) => ({ nodeid, name: `node${nodeid}`, address: `10.0.0.${nodeid}`, votes: 1 }));
const basis = { version: 1, nodes, options: plainQuorum };
const viewOf = (epoch: number): ViewId => ({ epoch, proposer: 1, incarnation: incarnationOf(1) });
const lineageOf = (epoch: number): Answer["seen"] => ({
  id: viewOf(epoch),
  members: [1, 2, 3].map((nodeid) => ({ nodeid, incarnation: incarnationOf(nodeid) })),
  electorate: null,
});

function answer(nodeid: number, more: Partial<Answer> = {}): Answer {
  return {
    nodeid,
    incarnation: incarnationOf(nodeid),
    epoch: 10 + nodeid,
    lived: noView,
    seen: noLineage,
    packets: 0,
    digest: 0,
    synced: true,
    quorate: true,
    configVersion: 1,
    votes: 1,
    expected: 3,
    cutOff: [],
    ackedAgo: [],
    ...more,
  };
}
const lived = (nodeid: number, epoch: number, more: Partial<Answer> = {}): Answer =>
  answer(nodeid, { lived: viewOf(epoch), seen: lineageOf(epoch), ...more });
const nodeidsOf = (rows: readonly { readonly nodeid: number }[]): number[] => rows.map(({ nodeid }) => nodeid);

describe("what becomes of the states", () => {
  it("the view has the name of whoever said the highest epoch: it says each once", () => {
    const decision = decide([answer(1, { epoch: 7 }), answer(2, { epoch: 9 }), answer(3, { epoch: 8 })], basis, timeoutMs);
    expect(decision.id).toEqual({ epoch: 9, proposer: 2, incarnation: incarnationOf(2) });
  });

  it("who comes from an older view than another has to begin anew", () => {
    const decision = decide([lived(1, 4), lived(2, 5), lived(3, 5)], basis, timeoutMs);
    expect([nodeidsOf(decision.behind), nodeidsOf(decision.members), nodeidsOf(decision.together)]).toEqual([[1], [2, 3], [2, 3]]);
    expect(decision.behind[0]?.reason).toContain("went on without it");
  });

  it("so does one whose view a former life of another has outlived", () => {
    const decision = decide([lived(1, 4), answer(2, { seen: lineageOf(5) })], basis, timeoutMs);
    expect(nodeidsOf(decision.behind)).toEqual([1]);
  });

  it("members of one view that saw different packets do not go on together: those with more votes do", () => {
    const decision = decide([lived(1, 5, { packets: 9 }), lived(2, 5, { packets: 8 }), lived(3, 5, { packets: 8 })], basis, timeoutMs);
    expect([nodeidsOf(decision.behind), nodeidsOf(decision.together)]).toEqual([[1], [2, 3]]);
    const others = decide(
      [lived(1, 5, { packets: 8, digest: 1 }), lived(2, 5, { packets: 8 }), lived(3, 5, { packets: 8 })],
      basis,
      timeoutMs,
    );
    expect(nodeidsOf(others.behind)).toEqual([1]);
  });

  it("of two with as many votes the one that saw more goes on", () => {
    const decision = decide([lived(1, 5, { packets: 8 }), lived(2, 5, { packets: 9 })], basis, timeoutMs);
    expect(nodeidsOf(decision.behind)).toEqual([1]);
  });

  it("a member that another does not reach goes, where a quorum goes on without it", () => {
    const decision = decide([lived(1, 5), lived(2, 5), lived(3, 5, { cutOff: [1] })], basis, timeoutMs);
    expect([nodeidsOf(decision.members), nodeidsOf(decision.behind), decision.waiting]).toEqual([[1, 2], [3], []]);
  });

  it("without quorum it keeps what it has, and a new one waits", () => {
    const alone = decide([lived(1, 5), lived(3, 5, { cutOff: [1] })], basis, timeoutMs);
    expect([nodeidsOf(alone.members), nodeidsOf(alone.behind), nodeidsOf(alone.waiting)]).toEqual([[1], [], [3]]);
    const joining = decide([lived(1, 5), lived(2, 5), answer(3, { cutOff: [2] })], basis, timeoutMs);
    expect([nodeidsOf(joining.members), joining.waiting]).toEqual([[1, 2], [{ nodeid: 3, reason: "it has no connection to 1 2" }]]);
  });

  it("votequorum's no at one member is a no, and it is said", () => {
    const decision = decide([answer(1), answer(2, { quorate: false }), answer(3)], basis, timeoutMs);
    expect([decision.quorum.quorate, decision.objection]).toEqual([false, "votequorum of node 2 says that its ring is not quorate"]);
  });

  it("its yes is not enough: dlmds with more than half of the votes must be there", () => {
    expect(decide([answer(1)], basis, timeoutMs).quorum).toMatchObject({ quorate: false, votes: 1, needed: 2 });
  });

  it("a view has one version of cluster.yaml: the highest that has a majority of its votes", () => {
    const older = decide([lived(1, 5), lived(2, 5), answer(3, { configVersion: 2 })], basis, timeoutMs);
    expect([nodeidsOf(older.members), older.quorum.quorate, nodeidsOf(older.behind)]).toEqual([[1, 2], true, []]);
    expect(older.waiting).toEqual([{ nodeid: 3, reason: "it has version 2 of cluster.yaml, and node 1 2 version 1" }]);
    const newer = decide([lived(1, 5), answer(2, { configVersion: 2 }), answer(3, { configVersion: 2 })], basis, timeoutMs);
    expect([nodeidsOf(newer.members), newer.quorum.quorate, newer.together]).toEqual([[2, 3], true, []]);
    expect(newer.behind.map(({ reason }) => reason)).toEqual([
      "a quorum goes on without it: it has version 1 of cluster.yaml, and node 2 3 version 2",
    ]);
  });

  it("if none has, the highest: nobody serves, nobody begins anew, and it is said", () => {
    const decision = decide([lived(1, 5), answer(2, { configVersion: 2 })], basis, timeoutMs);
    expect([nodeidsOf(decision.members), decision.quorum.quorate, decision.behind]).toEqual([[2], false, []]);
    expect(decision.objection).toBe("node 1 has another version of cluster.yaml than 2");
  });

  it("nodes with several versions find the same: votes are those that the answers say, not those of one's own file", () => {
    const answers = [lived(1, 5, { votes: 3, expected: 5 }), answer(2, { configVersion: 2 }), answer(3, { configVersion: 2 })];
    const grown = { version: 2, nodes: nodes.slice(1), options: plainQuorum };
    const [one, other] = [decide(answers, basis, timeoutMs), decide(answers, grown, timeoutMs)];
    expect([one.members, one.behind, one.quorum.quorate]).toEqual([other.members, other.behind, other.quorum.quorate]);
    expect(nodeidsOf(one.members)).toEqual([2, 3]);
  });

  it("service waits for leases of nodes outside, counted from the last ack of any member (C4)", () => {
    const ackedAgo = (nodeid: number, ms: number): Partial<Answer> => ({ ackedAgo: [{ nodeid, ms }] });
    const states = [answer(1, ackedAgo(3, 500)), answer(2, ackedAgo(3, 100))];
    expect(decide(states, basis, timeoutMs).waitMs).toBe(0.8 * timeoutMs - 100);
    expect(decide([answer(1, ackedAgo(2, 0)), answer(2, ackedAgo(1, 0))], basis, timeoutMs).waitMs).toBe(0);
  });

  it("so it does for a lease that only a node of another version has acknowledged (C4)", () => {
    // Of version 1 there were 1, 2 and 3, and 2 gave the lease to 3. Version 2 has a majority without both.
    const later = (nodeid: number): Answer => answer(nodeid, { configVersion: 2, expected: 5 });
    const answers = [later(1), answer(2, { ackedAgo: [{ nodeid: 3, ms: 100 }] }), later(4), later(5)];
    const decision = decide(answers, basis, timeoutMs);
    expect([nodeidsOf(decision.members), decision.quorum.quorate, decision.waitMs]).toEqual([[1, 4, 5], true, 0.8 * timeoutMs - 100]);
  });
});

/** `coverlay quorum reset` says that the votes of all nodes count again where that is so, and nowhere else. */
import { expect, it } from "vitest";
import { countAll } from "../../../dlmd/driver/count-all.ts";
import { createNode } from "../../../dlmd/node.ts";
import type { StatusAnswer } from "../../../dlmd/query/answer.ts";
import { boot } from "../dlmd/boot.ts";

const waiting = { nodeid: 2, members: [1, 2, 4], quorate: false, quorumReason: "0 of 1 votes", counting: [3] } as unknown as StatusAnswer;
const nothing = expect.stringContaining("this node had nothing to reset") as unknown;

it("a node that had stored who counts is reset", () => {
  expect(countAll("me", waiting, () => true)).toEqual({ was: [3] });
});

it("a node that had not, but sees others that had, says on which nodes to run it", () => {
  const refusal = { code: "not-reset", exitStatus: 1, message: nothing };
  expect(() => countAll("me", waiting, () => false)).toThrow(expect.objectContaining({ ...refusal, hint: "Run it on node 1, node 4." }));
  const alone = { ...waiting, members: [2] };
  expect(() => countAll("me", alone, () => false)).toThrow(
    expect.objectContaining({ ...refusal, hint: "Run it on every other node that is there." }),
  );
});

it("a node that ends its life meanwhile is not said to be reset", () => {
  const between = expect.objectContaining({ code: "not-reset", message: "this node is between two lives" }) as Error;
  expect(() => countAll("me", waiting, () => null)).toThrow(between);
  expect(() => countAll("me", null, () => true)).toThrow(between);
});

it("the core answers that it had nothing to reset, if it knows of nobody who does not count", () => {
  const seen = { id: { epoch: 9, proposer: 2, incarnation: "00000000000000bb" }, members: [] };
  const answer = (node: ReturnType<typeof createNode>): unknown =>
    node.step({ kind: "count-all", by: "me" }, 1).find(({ kind }) => kind === "count-all-answer");
  expect(answer(createNode(boot))).toEqual({ kind: "count-all-answer", isReset: false });
  const lineage = { ...seen, electorate: { nodeids: [3], former: null } };
  expect(answer(createNode({ ...boot, lineage }))).toEqual({ kind: "count-all-answer", isReset: true });
});

/** Views and fences as one list of what happened. */
import { expect, it } from "vitest";
import type { PastView } from "../../../overlay/status/facts.ts";
import { historyOf } from "../../../overlay/ui/history.ts";

const name = (nodeid: number): string => `node${nodeid}`;
const lives = ["", "aa", "bb", "cc"];

function view(epoch: number, members: readonly number[], quorate = true, incarnations = members.map((id) => lives[id] ?? "")): PastView {
  return { viewId: `${epoch}.1.aa`, members, incarnations, quorate, quorumReason: `${members.length} of 3 votes`, atMs: epoch * 1000 };
}

function titles(...views: PastView[]): (readonly [string, string])[] {
  return historyOf(views, [], name).map(({ title, mood }) => [title, mood] as const);
}

it("says who came and went, with quorum, the latest first", () => {
  expect(titles(view(1, [1], false), view(2, [1, 2]), view(3, [1, 2, 3]), view(4, [1, 2]), view(5, [1], false))).toEqual([
    ["node2 went; quorum lost", "bad"],
    ["node3 went", "note"],
    ["node3 came", "good"],
    ["node2 came; quorum reached", "good"],
    ["first view, with node1", "note"],
  ]);
});

it("tells another life of a node from the same one, and a view without a change from both", () => {
  expect(titles(view(1, [1, 2]), view(2, [1, 2], true, ["aa", "b2"]), view(3, [1, 2], true, ["aa", "b2"]))).toEqual([
    ["the same members agreed again", "note"],
    ["node2 came back in another life", "good"],
    ["first view, with node1, node2", "good"],
  ]);
});

it("has fences among the views by their time, also of an outcome that is not known here", () => {
  const fence = { nodeid: 3, by: "device lab", words: "off", atMs: 2500 };
  const outcomes = ["fenced", "failed", "rebooted", "constructor"];
  const fences = outcomes.map((outcome, at) => ({ ...fence, outcome, atMs: 2500 + at }));
  const found = historyOf([view(2, [1, 2, 3]), view(3, [1, 2])], fences, name);
  expect(found.map(({ title, mood, words }) => [title, mood, words])).toEqual([
    ["node3 went", "note", "view 3: node1, node2; 2 of 3 votes"],
    ["node3: constructor", "note", "by device lab; off"],
    ["node3 is back in another boot", "good", "by device lab; off"],
    ["fencing node3 failed", "bad", "by device lab; off"],
    ["node3 was fenced", "note", "by device lab; off"],
    ["first view, with node1, node2, node3", "good", "view 2: node1, node2, node3; 3 of 3 votes"],
  ]);
  expect(new Set(found.map(({ id }) => id)).size).toBe(found.length);
});

/** When directories are read ahead from their first file on (overlay/op/tree-walk.ts). */
import { expect, it } from "vitest";
import { PAID_MAX, TREE_MS, TreeWalk } from "../../../overlay/op/tree-walk.ts";

/** False: no tree is walked. */
const begins = (tree: TreeWalk, now: number): boolean => {
  const isWalked = tree.isWalked(now);
  if (isWalked) tree.begins(now);
  return isWalked;
};

const inVain = (tree: TreeWalk, now: number): number => {
  let begun = 0;
  while (begins(tree, now)) begun += 1;
  return begun;
};

it("a tree is walked when two directories were read ahead to some use, and as long as each next one is", () => {
  const tree = new TreeWalk();
  expect([tree.isWalked(0), begins(tree, 0)]).toEqual([false, false]);
  tree.noteUse(0);
  expect(begins(tree, 0)).toBe(false);
  tree.noteUse(0);
  for (let at = 1; at < 100; at += 1) {
    expect([at, tree.isWalked(at), begins(tree, at)]).toEqual([at, true, true]);
    tree.noteUse(at);
  }
});

it("what is begun without use is paid for by earlier use: PAID_MAX at most", () => {
  const tree = new TreeWalk();
  for (let use = 0; use < 100; use += 1) tree.noteUse(0);
  expect(inVain(tree, 0)).toBe(PAID_MAX - 2);
  tree.noteUse(0);
  expect(inVain(tree, 0)).toBe(2);
});

it("after a pause of more than TREE_MS nothing is paid for", () => {
  const walkedTree = (): TreeWalk => {
    const tree = new TreeWalk();
    for (let use = 0; use < 9; use += 1) tree.noteUse(0);
    return tree;
  };
  const tree = walkedTree();
  expect([begins(tree, TREE_MS), begins(tree, 2 * TREE_MS), begins(tree, 3 * TREE_MS + 1)]).toEqual([true, true, false]);
  const used = walkedTree();
  used.noteUse(TREE_MS + 1);
  expect(begins(used, TREE_MS + 1)).toBe(false);
});

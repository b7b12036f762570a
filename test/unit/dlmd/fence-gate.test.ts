/** Who is not known to be dead: what is kept, what a result closes, what a restart remembers. */
import { expect, it } from "vitest";
import { createNode } from "../../../dlmd/node.ts";
import { FenceGate, type KeptFences, noFences } from "../../../dlmd/recovery/fence-gate.ts";
import type { OpenVictim, Victim } from "../../../dlmd/wire/peer-message.ts";
import { boot } from "./boot.ts";

const victim = (nodeid: number, life: number, epoch: number, lockspaces: readonly string[] | null = null): OpenVictim => ({
  nodeid,
  incarnation: `000000000000000${life}`,
  failingView: { epoch, proposer: 1, incarnation: "00000000000000aa" },
  lockspaces,
});
const dead = (nodeid: number, life: number, epoch: number): Victim => {
  const { lockspaces: _, ...rest } = victim(nodeid, life, epoch);
  return rest;
};

function gate(kept: KeptFences = noFences, lockspaces = ["guarded"]) {
  const disk: KeptFences[] = [];
  const told: string[] = [];
  const made = new FenceGate(lockspaces, kept, {
    waits: (one) => told.push(`waits for ${one.nodeid} of life ${one.incarnation.at(-1)}`),
    known: (one) => told.push(`${one.nodeid} of life ${one.incarnation.at(-1)} is dead`),
    keep: (fences) => disk.push(fences),
  });
  return { gate: made, disk, told };
}

it("waits are said once, kept, and remembered by the next gate", () => {
  const first = gate();
  first.gate.failed([victim(3, 1, 7)]);
  first.gate.failed([victim(3, 1, 7)]);
  expect(first.told).toEqual(["waits for 3 of life 1"]);
  expect(first.disk).toEqual([{ open: [victim(3, 1, 7)], fenced: [] }]);
  const again = gate(first.disk.at(-1));
  expect(again.gate.blocks("guarded")).toBe(true);
  expect(again.gate.blocks("other")).toBe(false);
  expect(again.gate.result(victim(3, 1, 7), [])).toBe("");
  expect(again.gate.blocks("guarded")).toBe(false);
  // The acknowledgement outlives a restart as well: who reports that death later opens nothing.
  const last = gate(again.disk.at(-1));
  last.gate.failed([victim(3, 1, 7)]);
  expect([last.gate.blocks("guarded"), last.told, last.disk]).toEqual([false, [], []]);
});

it("M2, C11: a result of another life or view, or for a member, is refused; one that nobody waits for too", () => {
  const { gate: one } = gate();
  one.failed([victim(3, 1, 7)]);
  expect(one.result(victim(3, 2, 7), [])).toContain("nobody waits for node 3 of incarnation 0000000000000002");
  expect(one.result(victim(3, 1, 8), [])).toContain("failed in view 7.1.00000000000000aa, the result is for 8.1.");
  expect(one.result(victim(3, 1, 7), [victim(3, 1, 7)])).toContain("is a member of the view");
  expect(one.blocks("guarded")).toBe(true);
});

it("M2: a life that is a member of a quorate view is not waited for, whoever has stored or says that it is", () => {
  const { gate: one, disk } = gate({ open: [victim(2, 1, 7), victim(3, 1, 7)], fenced: [] });
  one.enterView([victim(1, 4, 9), victim(2, 1, 9), victim(3, 2, 9)]);
  // Node 3 is there in another life.
  expect(one.open).toEqual([victim(3, 1, 7)]);
  one.agree([victim(2, 1, 8), victim(3, 1, 7)]);
  expect([one.open, disk.at(-1)?.open]).toEqual([[victim(3, 1, 7)], [victim(3, 1, 7)]]);
  // When it goes it is.
  one.enterView([victim(1, 4, 10), victim(3, 2, 10)]);
  one.failed([victim(2, 1, 10)]);
  expect(one.open).toEqual([victim(3, 1, 7), victim(2, 1, 10)]);
});

it("of one node there is one wait, for its last life; that it is dead in that one says so of those before", () => {
  const { gate: one, disk } = gate();
  one.failed([victim(3, 1, 7), victim(3, 2, 9), victim(2, 1, 9)]);
  expect(one.open).toEqual([victim(3, 2, 9), victim(2, 1, 9)]);
  // Heard late, from a node that knows less.
  one.failed([victim(3, 1, 7)]);
  one.learn([victim(3, 1, 7)]);
  expect(one.open).toEqual([victim(3, 2, 9), victim(2, 1, 9)]);
  one.learn([victim(3, 2, 9)]);
  one.failed([victim(3, 1, 7)]);
  expect(one.open).toEqual([victim(2, 1, 9)]);
  expect(disk.at(-1)).toEqual({ open: [victim(2, 1, 9)], fenced: [dead(3, 1, 7), dead(3, 2, 9)] });
});

it("M6: it waits for nodes that had a guarded lockspace open, and those that nobody knows of count as having had all", () => {
  const { gate: one, told } = gate(noFences, ["guarded", "safe"]);
  expect(one.guarded(new Set(["free", "safe"]))).toEqual(["safe"]);
  expect(one.guarded(null)).toBeNull();
  one.failed([victim(2, 1, 7, []), victim(3, 1, 7, ["free"])]);
  expect([one.open, told]).toEqual([[], []]);
  one.failed([victim(4, 1, 7, ["free", "safe"])]);
  expect([one.blocks("guarded"), one.blocks("safe"), one.blocks("free")]).toEqual([false, true, false]);
  // Its next life had the other one open; that it is dead in that life opens both.
  one.failed([victim(4, 2, 8, ["guarded"])]);
  expect([one.open, one.blocks("guarded")]).toEqual([[victim(4, 2, 8, ["safe", "guarded"])], true]);
  expect(one.result(victim(4, 2, 8), [])).toBe("");
  // One member knows, another does not: what is known counts. Of the last nobody knows.
  one.agree([victim(5, 1, 9), victim(6, 1, 9), victim(5, 1, 9, [])]);
  expect(one.open).toEqual([victim(6, 1, 9)]);
  expect([one.blocks("guarded"), one.blocks("safe"), one.explain()]).toEqual([
    true,
    true,
    "lockspaces guarded safe wait until node 6 is known to be dead (coverlay fence show)",
  ]);
});

it("M2: with two_node all waits, also what the other node had not open: cut off, it is quorate, and opens what it likes", () => {
  const { gate: one, told, disk } = gate(noFences, []);
  one.all = true;
  for (const lockspaces of [[], ["open"]]) one.failed([victim(2, 1, 7, lockspaces)]);
  expect([told, disk.at(-1)?.open]).toEqual([["waits for 2 of life 1"], [victim(2, 1, 7)]]);
  expect(["open", "new"].map((lockspace) => one.blocks(lockspace))).toEqual([true, true]);
  one.result(victim(2, 1, 7), []);
  expect(["open", "new"].map((lockspace) => one.blocks(lockspace))).toEqual([false, false]);
});

it("M2: with two_node what only the half says that was fenced is not waited for", () => {
  const half: OpenVictim = { ...victim(1, 1, 7), failingView: { epoch: 7, proposer: 2, incarnation: "0000000000000001" } };
  const lost = [dead(2, 1, 8)];
  const after = (all: boolean, unfenced: readonly OpenVictim[], fenced: readonly Victim[], life = 2): readonly OpenVictim[] => {
    const { gate: one, disk } = gate({ open: [half], fenced: [] });
    one.all = all;
    one.enterView([victim(1, 2, 9), victim(2, life, 9)]);
    one.agreeOf(
      new Map([
        [1, { unfenced, fenced }],
        [2, { unfenced: [half], fenced: [] }],
      ]),
    );
    expect(disk.at(-1)?.open ?? [half]).toEqual(one.open);
    return one.open;
  };
  expect(after(true, [], lost)).toEqual([]);
  // Nobody knows that it has lost; another life of it has; the other node waits, too; not with two_node.
  expect(after(true, [], [])).toEqual([half]);
  expect(after(true, [], [dead(2, 3, 8)])).toEqual([half]);
  expect(after(true, [half], lost)).toEqual([half]);
  expect(after(false, [], lost)).toEqual([half]);
  // That half lives, and waits still.
  expect(after(true, [], lost, 1)).toEqual([half]);
});

it("more lockspaces than a message names: all", () => {
  const many = Array.from({ length: 65 }, (_, at) => `space${at}`);
  const { gate: one } = gate(noFences, many);
  expect(one.guarded(new Set(many.slice(1)))).toEqual(many.slice(1));
  expect(one.guarded(new Set(many))).toBeNull();
  // Of two lives together, too.
  one.failed([victim(3, 1, 7, many.slice(0, 40)), victim(3, 2, 8, many.slice(24, 64))]);
  expect(one.open[0]?.lockspaces).toHaveLength(64);
  one.failed([victim(3, 3, 9, many.slice(64))]);
  expect(one.open).toEqual([victim(3, 3, 9, null)]);
});

it("where no lockspace needs fencing nothing waits", () => {
  const { gate: one, told } = gate(noFences, []);
  one.failed([victim(3, 1, 7)]);
  expect([one.open, told]).toEqual([[], []]);
});

it("a node that starts again shows what it had kept", () => {
  const node = createNode({ ...boot, fencedLockspaces: ["guarded"], fences: { open: [victim(3, 1, 7)], fenced: [dead(2, 1, 6)] } });
  expect(node.query("status", 0)).toMatchObject({
    unfenced: [{ nodeid: 3, incarnation: "0000000000000001", failingView: "7.1.00000000000000aa" }],
    fenced: [{ nodeid: 2 }],
    fencedLockspaces: ["guarded"],
  });
  const effects = node.step(
    { kind: "fence-result", nodeid: 3, incarnation: "0000000000000001", failingView: victim(3, 1, 7).failingView, by: "test" },
    1,
  );
  expect(effects).toContainEqual({ kind: "fence-answer", refused: "" });
  expect(effects).toContainEqual({ kind: "keep-fences", fences: { open: [], fenced: [dead(2, 1, 6), dead(3, 1, 7)] } });
});

/** The table of fences that all members have: what is kept of it, and what is dropped at its limits. */
import { expect, test } from "vitest";
import { FenceTable, MAX_KNOWN_BOOTS, MAX_KNOWN_LIVES, noFencing } from "../../../dlmd/fencing/fence-table.ts";
import { MAX_BOOT_ID_BYTES, MAX_FENCE_WORDS_BYTES } from "../../../dlmd/wire/fence-life.ts";
import {
  decodeFencingMessage,
  encodeFencingMessage,
  type FenceWantedMessage,
  MAX_RESULTS,
  MAX_WANTED_LIVES,
  MAX_WANTED_NODES,
  type Want,
} from "../../../dlmd/wire/fencing-group.ts";

const one = { nodeid: 1, incarnation: "00000000000000a1" };
const incarnation = (count: number): string => count.toString(16).padStart(16, "0");
const wanted = (nodeid: number, life: number, more: Partial<FenceWantedMessage> = {}): FenceWantedMessage => ({
  kind: "fence-wanted",
  nodeid,
  incarnation: incarnation(life),
  bootId: "b",
  why: "test",
  by: "node1",
  atMs: 1,
  evict: false,
  ...more,
});

function table(): FenceTable {
  const made = new FenceTable(noFencing);
  made.enterView([one]);
  return made;
}

test("of one node so many lives are asked for at one time: the oldest goes", () => {
  const made = table();
  for (let life = 1; life <= MAX_WANTED_LIVES + 1; life++) made.receiveWanted(one, wanted(3, life));
  const lives = made.want(3)?.lives.map((life) => life.incarnation);
  expect([lives?.length, lives?.[0], lives?.at(-1)]).toEqual([MAX_WANTED_LIVES, incarnation(2), incarnation(MAX_WANTED_LIVES + 1)]);
});

test("lives of so many nodes are asked for at one time: one more waits until a program asks again", () => {
  const made = table();
  for (let nodeid = 2; nodeid <= MAX_WANTED_NODES + 2; nodeid++) made.receiveWanted(one, wanted(nodeid, 1));
  expect([made.wants.length, made.want(MAX_WANTED_NODES + 2)]).toEqual([MAX_WANTED_NODES, undefined]);
  made.receiveAcked(2, "anna", 1);
  made.receiveWanted(one, wanted(MAX_WANTED_NODES + 2, 1));
  expect(made.want(MAX_WANTED_NODES + 2)?.lives).toHaveLength(1);
});

test("so many proofs and rows of the history are kept: the oldest goes, whatever the clocks of the nodes say", () => {
  const made = table();
  for (let life = 1; life <= MAX_RESULTS + 1; life++) {
    made.receiveWanted(one, wanted(3, life));
    made.receiveAcked(3, "anna", 1000 - life);
  }
  const { proofs, history } = made.kept;
  expect([proofs.length, history.length]).toEqual([MAX_RESULTS, MAX_RESULTS]);
  expect([proofs[0]?.incarnation, proofs.at(-1)?.incarnation]).toEqual([incarnation(2), incarnation(MAX_RESULTS + 1)]);
});

test("the proof of a node that was fenced once stays when another is fenced again and again, or is replaced by its double", () => {
  const made = table();
  const fence = (nodeid: number, life: number, bootId = "b"): void => {
    made.receiveWanted(one, wanted(nodeid, life, { bootId }));
    made.receiveAcked(nodeid, "anna", 10 * life);
  };
  fence(2, 1);
  for (let life = 1; life <= MAX_RESULTS; life++) fence(3, life, "");
  expect([made.kept.proofs.length, made.proof(wanted(2, 1))?.by, made.proof(wanted(3, 1))]).toEqual([MAX_RESULTS, "anna", undefined]);
  // Each takes the place of its own row without a boot.
  for (let life = 2; life <= MAX_RESULTS; life++) made.receiveWanted(one, wanted(3, life));
  expect(made.kept.proofs.map(({ nodeid, incarnation: life }) => [nodeid, life])).toEqual(
    expect.arrayContaining([[2, incarnation(1)], ...Array.from({ length: MAX_RESULTS - 1 }, (_, at) => [3, incarnation(at + 2)])]),
  );
});

test("a node that joins with many old proofs and rows takes no newer one's place", () => {
  const [made, joiner] = [table(), table()];
  for (let life = 1; life <= MAX_RESULTS; life++) {
    joiner.receiveWanted(one, wanted(3, life));
    joiner.receiveAcked(3, "anna", life);
  }
  made.receiveWanted(one, wanted(3, 999));
  made.receiveAcked(3, "ben", 999);
  const [ours, theirs] = [made.message("boot", 5, [], true), joiner.message("boot", 5, [], true)];
  made.receiveTable(one, theirs);
  joiner.receiveTable(one, ours);
  for (const { proofs, history } of [made.kept, joiner.kept]) {
    for (const rows of [proofs, history]) {
      expect([rows.length, rows[0]?.incarnation, rows.at(-1)?.by]).toEqual([MAX_RESULTS, incarnation(2), "ben"]);
    }
  }
});

test("two tables become one, whichever comes first", () => {
  const [a, b] = [table(), table()];
  a.receiveWanted(one, wanted(3, 1));
  a.receiveAcked(3, "anna", 1);
  b.receiveWanted(one, wanted(3, 1));
  b.receiveWanted(one, wanted(4, 7));
  for (const [to, from] of [
    [a, b],
    [b, a],
  ] as const)
    to.receiveTable(one, from.message("boot", 5, [], true));
  for (const made of [a, b]) {
    expect(made.proof(wanted(3, 1))).toMatchObject({ by: "anna" });
    expect(made.wants.map(({ nodeid }) => nodeid)).toEqual([4]);
  }
});

test("a run of a sender that names it no more has ended, and one that it names is known by those who join", () => {
  const [made, joiner] = [table(), table()];
  made.receiveWanted(one, wanted(3, 1));
  expect(made.receiveBegun(one, 3)).toBe(true);
  made.receiveWanted(one, wanted(3, 2));
  joiner.receiveTable(one, made.message("boot", 5, [3], true));
  // Its result is for the life alone for which it began.
  expect(joiner.runs.get(3)?.lives).toEqual([{ incarnation: incarnation(1), bootId: "b" }]);
  expect([joiner.barred(), joiner.receiveBegun(one, 3)]).toEqual([[3], false]);
  joiner.receiveTable(one, made.message("boot", 5, [], true));
  expect([joiner.barred(), joiner.want(3)?.lives.length]).toEqual([[], 2]);
});

test("of two nodes that begin at once the first one in order runs, and the other does not", () => {
  const two = { nodeid: 2, incarnation: "00000000000000a2" };
  const made = new FenceTable(noFencing);
  made.enterView([one, two]);
  made.receiveWanted(one, wanted(3, 1));
  expect([made.receiveBegun(two, 3), made.receiveBegun(one, 3)]).toEqual([true, false]);
  expect(made.runs.get(3)?.executor).toEqual(two);
});

test("words and boot ids have an end", () => {
  const fits = wanted(3, 1, { bootId: "b".repeat(MAX_BOOT_ID_BYTES), why: "w".repeat(MAX_FENCE_WORDS_BYTES) });
  expect(decodeFencingMessage(encodeFencingMessage(fits))).toEqual(fits);
  for (const more of [{ bootId: `${fits.bootId}b` }, { why: `${fits.why}w` }])
    expect(() => decodeFencingMessage(encodeFencingMessage({ ...fits, ...more }))).toThrow("bytes");
});

test("the lowest begins anew when the last member that had not tried is gone", () => {
  const members = [1, 2, 3, 4].map((nodeid) => ({ nodeid, incarnation: incarnation(nodeid) }));
  const made = new FenceTable(noFencing);
  made.enterView(members);
  made.receiveWanted(members[0] as (typeof members)[0], wanted(5, 1));
  const next = (): number | null => made.executorOf(made.want(5) as Want);
  for (const member of members.slice(0, 3)) {
    expect([next(), made.receiveBegun(member, 5)]).toEqual([member.nodeid, true]);
    made.receiveEnded(member, { kind: "fence-ended", nodeid: 5, outcome: "failed", by: "a", words: "no", atMs: 1 });
  }
  expect(next()).toBe(4);
  made.enterView(members.slice(0, 3));
  expect([made.want(5)?.tried, next()]).toEqual([[1, 2, 3], 1]);
});

test("C3: a boot that one of those who ask knows is in the proof, whoever asked first, and when the agent ran already", () => {
  for (const begins of ["before", "after"]) {
    const made = table();
    made.receiveWanted(one, wanted(3, 1, { bootId: "" }));
    if (begins === "before") made.receiveBegun(one, 3);
    made.receiveWanted(one, wanted(3, 1, { bootId: "known" }));
    if (begins === "after") made.receiveBegun(one, 3);
    made.receiveEnded(one, { kind: "fence-ended", nodeid: 3, outcome: "fenced", by: "ipmi", words: "", atMs: 2 });
    expect(made.kept.proofs).toMatchObject([{ nodeid: 3, incarnation: incarnation(1), bootId: "known" }]);
  }
});

test("of one node so many lives are known with their boots, and of all so many: the oldest goes", () => {
  const made = table();
  const join = (nodeid: number, life: number): void => {
    const from = { nodeid, incarnation: incarnation(life) };
    made.receiveTable(from, { ...table().message(`boot${life}`, 5, [], false) });
  };
  for (let life = 1; life <= MAX_KNOWN_LIVES + 1; life++) join(3, life);
  const known = (nodeid: number, life: number): string => made.bootOf({ nodeid, incarnation: incarnation(life) });
  expect([known(3, 1), known(3, 2), made.lastIncarnation(3)]).toEqual(["", "boot2", incarnation(MAX_KNOWN_LIVES + 1)]);
  for (let nodeid = 4; nodeid < 4 + MAX_KNOWN_BOOTS - 1; nodeid++) join(nodeid, 1);
  expect([made.kept.boots.length, known(3, 2), known(3, MAX_KNOWN_LIVES), known(3, MAX_KNOWN_LIVES + 1)]).toEqual([
    MAX_KNOWN_BOOTS,
    "",
    "",
    `boot${MAX_KNOWN_LIVES + 1}`,
  ]);
});

test("C3: a boot that is learnt after the proof is put into it, by one who asks and by one who knows the same proof with it", () => {
  const proofs = (made: FenceTable): unknown => made.kept.proofs.map(({ bootId, by }) => [bootId, by]);
  const fenced = (bootId: string): FenceTable => {
    const made = table();
    made.receiveWanted(one, wanted(3, 1, { bootId }));
    made.receiveAcked(3, "anna", 2);
    return made;
  };
  const asked = fenced("");
  expect([proofs(asked), asked.wasFenced({ ...wanted(3, 1), bootId: "b" })]).toEqual([[["", "anna"]], false]);
  asked.receiveWanted(one, wanted(3, 1));
  expect([proofs(asked), asked.wasFenced({ ...wanted(3, 1), bootId: "b" })]).toEqual([[["b", "anna"]], true]);
  const told = fenced("");
  told.receiveTable(one, fenced("b").message("boot", 5, [], true));
  told.receiveTable(one, fenced("").message("boot", 5, [], true));
  expect(proofs(told)).toEqual([["b", "anna"]]);
});

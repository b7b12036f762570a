/** What a person who orders a fence waits for, and what ends it. */
import { expect, test } from "vitest";
import { followOrder, LOOK_EVERY_MS, LOST_AFTER_MS, WAIT_MS } from "../../../overlay/cli/fence-follow.ts";
import type { Fences, HistoryRow, Wanted } from "../../../overlay/cli/fence-words.ts";

const row = (outcome: HistoryRow["outcome"], atMs: number, nodeid = 3): HistoryRow => ({
  nodeid,
  incarnation: "a",
  outcome,
  by: "ipmi",
  words: "",
  atMs,
});
const want = (step: string, rounds = 0): Wanted => ({
  nodeid: 3,
  why: "",
  by: "",
  sinceMs: 0,
  step,
  rounds,
  failure: "",
  againAfterMs: 0,
});
function fences(wanted: readonly Wanted[], history: readonly HistoryRow[]): Fences {
  return { unfenced: [], fenced: [], fencedLockspaces: [], fencing: { devices: [3], wanted, unfencing: [], history } };
}

/** `looks`: one after the other; the last one stays. */
async function follow(looks: readonly Fences[], before = fences([], []), waitMs = WAIT_MS) {
  let [at, nowMs] = [0, 0];
  const said: string[] = [];
  const end = await followOrder({
    nodeid: 3,
    by: "ipmi",
    before,
    waitMs,
    look: () => Promise.resolve(looks[Math.min(at++, looks.length - 1)] as Fences),
    sleep: (ms) => Promise.resolve((nowMs += ms)),
    nowMs: () => nowMs,
    say: (words) => said.push(words),
  }).then(
    (found): string => `${found.outcome} ${found.atMs}`,
    (error: Error & { code?: string }) => `${error.code}: ${error.message}`,
  );
  return { end, said, nowMs };
}

test("it says each step once, and ends with the row of the end; rows of before and of others are none", async () => {
  const before = fences([], [row("fenced", 1)]);
  const running = fences([want("runs ipmi")], [row("fenced", 1), row("fenced", 5, 4)]);
  const looks = [fences([], [row("fenced", 1)]), running, running, fences([], [row("fenced", 1), row("fenced", 9)])];
  expect(await follow(looks, before)).toEqual({ end: "fenced 9", said: ["runs ipmi"], nowMs: 3 * LOOK_EVERY_MS });
});

test.each(["refused", "known"] as const)(
  "an order that is answered %s ends at once, though another life of that node waits",
  async (outcome) => {
    const { end, nowMs } = await follow([fences([want("is about to begin")], [row(outcome, 4)])]);
    expect([end, nowMs]).toEqual([`${outcome} 4`, 0]);
  },
);

test("that this order is refused is its end, whatever else has been tried since", async () => {
  const looks = [fences([want("runs ipmi")], [row("refused", 4), row("failed", 5), { ...row("refused", 6), by: "root, order 2" }])];
  expect(await follow(looks)).toMatchObject({ end: "refused 4", nowMs: 0 });
});

test("that another person's order is refused meanwhile is not its end, nor that it was when nothing is asked for any more", async () => {
  const others = { ...row("refused", 4), by: "root, order 2" };
  const looks = [fences([want("runs ipmi")], [others]), fences([], [others]), fences([], [row("fenced", 3), others])];
  expect(await follow(looks)).toMatchObject({ end: "fenced 3", said: ["runs ipmi"] });
});

test("a failed try is not the end before all levels have failed once more", async () => {
  const before = fences([want("waits", 2)], []);
  const tried = [row("failed", 3)];
  expect((await follow([fences([want("b", 2)], tried), fences([want("c", 3)], tried)], before)).end).toBe("failed 3");
});

test("an order of which nothing is known any more is lost: it says so", async () => {
  const { end, nowMs } = await follow([fences([want("waits")], []), fences([], [])]);
  expect(end).toMatch(/^fence-lost: the order to fence node 3 came to nothing/);
  expect(nowMs).toBe(LOST_AFTER_MS);
});

test("it waits for so long, and says that the fence goes on", async () => {
  const { end, nowMs } = await follow([fences([want("node1 runs ipmi")], [])]);
  expect(end).toBe("fence-goes-on: node 3 is not fenced after 600 s, and the fence goes on: node1 runs ipmi");
  expect(nowMs).toBe(WAIT_MS);
  expect((await follow([fences([want("a")], [])], fences([], []), 0)).nowMs).toBe(0);
});

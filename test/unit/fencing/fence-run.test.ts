/** One round of a fence: levels, devices, tries, delays, settle times. */
import { expect, test } from "vitest";
import type { DevicePlan, FencePlan } from "../../../dlmd/config/fence-plan.ts";
import { type AgentResult, FenceRun } from "../../../dlmd/fencing/fence-run.ts";

const device = (name: string, more: Partial<DevicePlan> = {}): DevicePlan => ({
  device: name,
  agent: "fence_x",
  delayMs: 0,
  retries: 0,
  settleMs: 0,
  ...more,
});
const plan = (levels: DevicePlan[][], delayMs = 0): FencePlan => ({ name: "node3", levels, delayMs, unfence: [] });
const ok: AgentResult = { ok: true };
const failed: AgentResult = { ok: false, unable: false, words: "no answer" };
const missing: AgentResult = { ok: false, unable: true, words: "is not there" };

/** The devices that it runs, with the given results one after the other; time jumps to each deadline. */
function play(run: FenceRun, results: readonly AgentResult[], nowMs = 0): { ran: string[]; atMs: number[]; nowMs: number } {
  const [ran, atMs] = [[] as string[], [] as number[]];
  let now = nowMs;
  for (let left = [...results]; run.end === null; ) {
    const next = run.advance(now);
    if (next !== null) {
      ran.push(next);
      atMs.push(now);
      const [result, ...rest] = left;
      if (result === undefined) break;
      left = rest;
      run.ran(result, now);
    } else if (run.end === null) now = run.deadlineMs;
  }
  return { ran, atMs, nowMs: now };
}

test("all devices of a level must succeed, one after the other, and then the longest settle time passes", () => {
  const run = new FenceRun(plan([[device("psu1", { settleMs: 2000 }), device("psu2", { settleMs: 500 })]]), 0);
  expect(play(run, [ok, ok])).toEqual({ ran: ["psu1", "psu2"], atMs: [0, 0], nowMs: 2000 });
  expect(run.end).toEqual({ outcome: "fenced", by: "psu1 and psu2", words: "fenced by psu1 and psu2" });
});

test("a device is tried again as often as it says, then the next level's turn comes", () => {
  const run = new FenceRun(plan([[device("ipmi", { retries: 2 })], [device("pdu")]]), 0);
  expect(play(run, [failed, failed, failed, ok]).ran).toEqual(["ipmi", "ipmi", "ipmi", "pdu"]);
  expect(run.end).toMatchObject({ outcome: "fenced", by: "pdu" });
});

test("a device of a level that fails ends the level, though another one of it had succeeded", () => {
  const run = new FenceRun(plan([[device("psu1"), device("psu2")], [device("pdu")]]), 0);
  expect(play(run, [ok, failed, failed]).ran).toEqual(["psu1", "psu2", "pdu"]);
  expect(run.end).toEqual({ outcome: "failed", by: "", words: "psu2: no answer; pdu: no answer" });
});

test("delays: of the node's priority and of each device before its first try", () => {
  const run = new FenceRun(plan([[device("ipmi", { delayMs: 300, retries: 1 })], [device("pdu", { delayMs: 50 })]], 1000), 10);
  expect(play(run, [failed, failed, ok], 10)).toMatchObject({ ran: ["ipmi", "ipmi", "pdu"], atMs: [1310, 1310, 1360] });
});

test("an agent that is not there is not tried again; if none could be started the node is unable", () => {
  const unable = new FenceRun(plan([[device("a", { retries: 5 })], [device("b")]]), 0);
  expect(play(unable, [missing, missing]).ran).toEqual(["a", "b"]);
  expect(unable.end).toMatchObject({ outcome: "unable", words: "a: is not there; b: is not there" });
  const able = new FenceRun(plan([[device("a")], [device("b")]]), 0);
  play(able, [missing, failed]);
  expect(able.end).toMatchObject({ outcome: "failed" });
});

test("its words say what it does", () => {
  const run = new FenceRun(plan([[device("ipmi", { retries: 1, delayMs: 5, settleMs: 9 })]]), 0);
  expect(run.words).toBe("is about to run fence_x ipmi");
  expect([run.advance(4), run.advance(5), run.advance(6)]).toEqual([null, "ipmi", null]);
  expect(run.words).toBe("runs fence_x ipmi");
  run.ran(failed, 7);
  expect(run.advance(7)).toBe("ipmi");
  expect(run.words).toBe("runs fence_x ipmi, try 2");
  run.ran(ok, 8);
  expect([run.advance(8), run.words, run.deadlineMs]).toEqual([null, "waits until the disks have settled", 17]);
  expect([run.advance(17), run.words, run.deadlineMs]).toEqual([null, "fenced by ipmi", Number.POSITIVE_INFINITY]);
});

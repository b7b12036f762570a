/** The old process of a mount: until it has said "go" it goes on whenever anything is not as it should be. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import {
  giveMount,
  HELD_BYTES_MAX,
  HELD_MAX,
  HELLO_LIMIT_MS,
  READY_LIMIT_MS,
  REFUSED_LIMIT_MS,
  REST_LIMIT_MS,
  SERVING_LIMIT_MS,
} from "../../../overlay/restart/give.ts";
import { decodeState, STATE_VERSION } from "../../../overlay/restart/state.ts";
import { resting } from "./resting.ts";
import { OtherEnd } from "./other-end.ts";

function setUp(): ReturnType<typeof resting> & { next: OtherEnd } {
  return { ...resting(), next: new OtherEnd() };
}

const HELLO = { say: "hello", versions: [STATE_VERSION], pid: 7 };

describe("the old process", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());
  const give = ({ host, next, log }: ReturnType<typeof setUp>): ReturnType<typeof giveMount> =>
    giveMount(host, () => ({
      stream: next,
      pid: 7,
      ended: Promise.resolve(),
      failed: () => undefined,
      leave: () => undefined,
      kill: () => void log.push("kill"),
      end: () => void log.push("end"),
    }));

  it("gives all, and in that order", async () => {
    const set = setUp();
    set.rig.held = [Buffer.from("raw")];
    const answer = give(set);
    set.next.say(HELLO);
    await vi.advanceTimersByTimeAsync(5);
    expect(set.log).toEqual(["hold", "stop"]);
    const state = decodeState(Buffer.from(set.next.said[0]?.state ?? "", "base64"));
    // The end of an append that came with the sentinel's offset is beyond any size.
    expect(state.lates).toEqual([{ fuseNodeid: state.inodes[0]?.fuseNodeid, effect: "misplaced", tid: 7, end: null }]);
    expect([state.hasOwned, state.held]).toEqual([true, [Buffer.from("raw").toString("base64")]]);
    set.next.say({ say: "ready" });
    await vi.advanceTimersByTimeAsync(5);
    expect(set.log).toEqual(["hold", "stop", "leave status", "locks"]);
    expect(set.next.said.map(({ say }) => say)).toEqual(["state", "go"]);
    set.next.say({ say: "serving" });
    await vi.advanceTimersByTimeAsync(5);
    expect(await answer).toMatchObject({ kind: "done", pid: 7, requests: 1 });
    expect(set.log.at(-1)).toBe("given");
    expect(set.log).not.toContain("go on");
  });

  it("ends the waits for file locks, which it keeps, and goes on when all file locks stay where they are; not for ever (hazard F45)", async () => {
    const set = setUp();
    set.rig.running = 1;
    set.rig.locksRest = false;
    const answer = give(set);
    set.next.say(HELLO);
    await vi.advanceTimersByTimeAsync(10);
    expect([set.log, set.rig.yields > 0]).toEqual([["hold"], true]);
    set.rig.running = 0;
    await vi.advanceTimersByTimeAsync(REST_LIMIT_MS / 2);
    expect(set.next.said).toEqual([]);
    set.rig.locksRest = true;
    await vi.waitFor(() => expect([set.log, set.next.said.map(({ say }) => say)]).toEqual([["hold", "stop"], ["state"]]));
    set.next.say({ say: "failed", why: "no", final: false });
    expect(await answer).toMatchObject({ kind: "failed" });

    const other = setUp();
    other.rig.locksRest = false;
    const refused = give(other);
    other.next.say(HELLO);
    await vi.advanceTimersByTimeAsync(REST_LIMIT_MS + 10);
    expect(await refused).toMatchObject({ kind: "failed", why: expect.stringContaining("could not be given up") as string });
    expect(other.log.slice(-2)).toEqual(["rest ends", "go on"]);
  });

  it("ends the mount if it cannot let go of what the new one waits for", async () => {
    const set = setUp();
    const host = {
      ...set.host,
      giveLocks: () => {
        throw new Error("no such lock");
      },
    };
    const answer = give({ ...set, host });
    set.next.say(HELLO);
    await vi.advanceTimersByTimeAsync(5);
    set.next.say({ say: "ready" });
    await vi.advanceTimersByTimeAsync(5);
    expect(await answer).toMatchObject({ kind: "lost", why: expect.stringContaining("no such lock") as string });
    expect(set.log).toEqual(["hold", "stop", "leave status", "kill", "fail"]);
  });

  it("begins nothing when it is refused", async () => {
    const set = setUp();
    set.rig.refusal = "programs hold file locks";
    expect(await give(set)).toEqual({ kind: "refused", why: "programs hold file locks" });
    expect(set.log).toEqual([]);
  });

  const goesOn: readonly (readonly [string, string, number, (set: ReturnType<typeof setUp>) => void])[] = [
    ["the new one does not say hello", 'has not said "hello" in 30 s', HELLO_LIMIT_MS + 1, () => undefined],
    ["it does not know the version", "knows states of version 9, 8", 5, ({ next }) => next.say({ ...HELLO, versions: [9, 8] })],
    ["it says something else", '"hello" expected, the other process said "ready"', 5, ({ next }) => next.say({ say: "ready" })],
    ["it fails", "no key", 5, ({ next }) => next.say({ say: "failed", why: "no key" })],
    ["it dies", "the other process has ended", 5, ({ next }) => void next.destroy()],
    [
      "calls do not end",
      "1 calls have not ended in 10 s",
      REST_LIMIT_MS + 10,
      ({ next, rig }) => {
        rig.running = 1;
        next.say(HELLO);
      },
    ],
    [
      "locks do not go",
      "or locks could not be given up",
      REST_LIMIT_MS + 10,
      ({ next, rig }) => {
        rig.rests = false;
        next.say(HELLO);
      },
    ],
    [
      "too many calls come",
      `more than ${HELD_MAX} calls`,
      50,
      ({ next, rig }) => {
        rig.rests = false;
        rig.held = Array.from({ length: HELD_MAX + 1 }, () => Buffer.alloc(0));
        next.say(HELLO);
      },
    ],
    [
      "calls with too many bytes come",
      `more than ${HELD_BYTES_MAX} bytes`,
      50,
      ({ next, rig }) => {
        rig.rests = false;
        rig.held = [Buffer.alloc(HELD_BYTES_MAX), Buffer.alloc(1)];
        next.say(HELLO);
      },
    ],
    ["it does not open the files", 'has not said "ready" in 15 s', READY_LIMIT_MS + 10, ({ next }) => next.say(HELLO)],
    [
      "the owner changes meanwhile",
      "the volume has another owner now",
      50,
      ({ next, rig }) => {
        next.say(HELLO);
        setTimeout(() => {
          rig.epoch = 4;
          next.say({ say: "ready" });
        }, 10);
      },
    ],
    [
      "a file lock is taken meanwhile",
      "programs hold file locks",
      50,
      ({ next, rig }) => {
        next.say(HELLO);
        setTimeout(() => {
          rig.refusal = "programs hold file locks";
          next.say({ say: "ready" });
        }, 10);
      },
    ],
  ];
  it.each(goesOn)("goes on if %s", async (_, why, afterMs, act) => {
    const set = setUp();
    const answer = give(set);
    act(set);
    await vi.advanceTimersByTimeAsync(afterMs);
    expect(await answer).toEqual({ kind: "failed", why: expect.stringContaining(why) });
    expect(set.log.slice(-3)).toEqual(["end", "rest ends", "go on"]);
    expect(set.log).not.toContain("tokens");
    expect(set.next.said.map(({ say }) => say)).not.toContain("go");
  });

  it("goes on before the new one has said hello, if what is in the way stays; not if it goes again", async () => {
    const set = setUp();
    const answer = give(set);
    set.rig.refusal = "there is no owner";
    await vi.advanceTimersByTimeAsync(REFUSED_LIMIT_MS - 100);
    set.rig.refusal = null;
    await vi.advanceTimersByTimeAsync(500);
    set.rig.refusal = "this node is the owner of the volume";
    await vi.advanceTimersByTimeAsync(REFUSED_LIMIT_MS - 100);
    expect(set.log).toEqual([]);
    await vi.advanceTimersByTimeAsync(600);
    expect(await answer).toEqual({ kind: "failed", why: "this node is the owner of the volume" });
    expect(set.log).toEqual(["end", "rest ends", "go on"]);
    // A hello that comes too late moves nothing.
    set.next.say(HELLO);
    await vi.advanceTimersByTimeAsync(HELLO_LIMIT_MS);
    expect(set.log).toEqual(["end", "rest ends", "go on"]);
  });

  it.each([
    ["fails", "no lease", (next: OtherEnd): void => next.say({ say: "failed", why: "no lease" })],
    ["dies", "the other process has ended", (next: OtherEnd): void => void next.push(null)],
  ])("goes on if the new one %s right after it was ready", async (_, why, act) => {
    const set = setUp();
    const answer = give(set);
    set.next.say(HELLO);
    await vi.advanceTimersByTimeAsync(5);
    set.next.say({ say: "ready" });
    act(set.next);
    await vi.advanceTimersByTimeAsync(5);
    expect(await answer).toEqual({ kind: "failed", why: expect.stringContaining(why) });
    expect(set.log.slice(-3)).toEqual(["end", "rest ends", "go on"]);
  });

  it("waits on while the new one says that it waits for dlmd", async () => {
    const set = setUp();
    const answer = give(set);
    set.next.say(HELLO);
    set.next.say({ say: "ready" });
    await vi.advanceTimersByTimeAsync(5);
    for (let times = 0; times < 3; times += 1) {
      await vi.advanceTimersByTimeAsync(SERVING_LIMIT_MS - 10);
      set.next.say({ say: "waiting" });
      await vi.advanceTimersByTimeAsync(5);
    }
    set.next.say({ say: "serving" });
    await vi.advanceTimersByTimeAsync(5);
    expect(await answer).toMatchObject({ kind: "done" });
  });

  it.each([
    ["dies", "the other process has ended", (next: OtherEnd): void => void next.destroy()],
    ["does not answer", 'has not said "serving" in 30 s', (): void => undefined],
  ])("ends the mount if the new one %s after that", async (_, why, act) => {
    const set = setUp();
    const answer = give(set);
    set.next.say(HELLO);
    set.next.say({ say: "ready" });
    await vi.advanceTimersByTimeAsync(5);
    act(set.next);
    await vi.advanceTimersByTimeAsync(SERVING_LIMIT_MS);
    expect(await answer).toEqual({ kind: "lost", why: expect.stringContaining(why) });
    expect(set.log.slice(-2)).toEqual(["kill", "fail"]);
    expect(set.log).not.toContain("go on");
  });
});

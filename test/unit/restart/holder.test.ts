/** The process of a mount while its dlmd is restarted (hazard F35): when it starts a new one, and what ends it. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import { HELLO_LIMIT_MS, SERVING_LIMIT_MS } from "../../../overlay/restart/give.ts";
import {
  HOLD_LIMIT_MS,
  HOLD_LOOK_MS,
  HOLD_READY_LIMIT_MS,
  HOLD_RETRY_MS,
  Holder,
  LEFT_LIMIT_MS,
  type HolderEnd,
  type HolderHost,
  SAME_DLMD_MS,
} from "../../../overlay/restart/holder.ts";
import { decodeState, STATE_VERSION } from "../../../overlay/restart/state.ts";
import { endOrPause, holdToEnd, LEAVE_LIMIT_MS } from "../../../overlay/serve/holding.ts";
import { OtherEnd } from "./other-end.ts";
import { someState } from "./some-state.ts";

const KEPT = {
  owner: { host: "10.0.0.1", port: 7, nodeid: 1, incarnation: "i1", clientId: 3, epoch: 4 },
  volumeUuid: "u",
  ticket: "t1",
};
const HELLO = { say: "hello", versions: [STATE_VERSION], pid: 7 };

function setUp(givenBackBy?: HolderHost["givenBackBy"]): {
  rig: { dlmd: string | null; mounted: boolean };
  started: OtherEnd[];
  log: string[];
  holder: Holder;
  end: () => HolderEnd | null;
} {
  const rig = { dlmd: "old" as string | null, mounted: true };
  const started: OtherEnd[] = [];
  const log: string[] = [];
  const holder = new Holder({
    log: silentLog,
    state: { ...someState(), custody: "t1" },
    sinceMs: performance.now() - 60_000,
    heldSinceMs: performance.now(),
    ...(givenBackBy === undefined ? {} : { givenBackBy }),
    incarnation: "old",
    why: "dlmd of this node is being restarted",
    start: () => {
      const stream = new OtherEnd();
      started.push(stream);
      const ended = new Promise<void>((resolve) => void stream.once("gone", resolve));
      const note = (what: string) => (): void => void log.push(what);
      return { stream, pid: 7, ended, failed: () => undefined, leave: note("leave"), kill: note("kill"), end: note("end") };
    },
    dlmd: () => Promise.resolve(rig.dlmd),
    isMounted: () => rig.mounted,
    detach: () => void log.push("detach"),
    abort: () => void log.push("abort"),
  });
  let end: HolderEnd | null = null;
  void holder.run().then((how) => (end = how));
  return { rig, started, log, holder, end: () => end };
}

/** dlmd is there, and the first process says that it is ready. */
async function becomesReady({ rig, started }: Pick<ReturnType<typeof setUp>, "rig" | "started">): Promise<void> {
  rig.dlmd = "new";
  await pass(HOLD_LOOK_MS);
  started[0]?.say(HELLO);
  await pass(1);
  started[0]?.say({ say: "ready" });
}

const pass = (ms: number): Promise<unknown> => vi.advanceTimersByTimeAsync(ms);

describe("a process that keeps a mount", () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance", "setImmediate"] }));
  afterEach(() => void vi.useRealTimers());

  it("starts a new process, waits for another dlmd, and then gives it the mount", async () => {
    const { rig, started, log, end } = setUp();
    await pass(10 * HOLD_LOOK_MS);
    rig.dlmd = null;
    await pass(10 * HOLD_LOOK_MS);
    const [next] = started;
    expect([started.length, next?.said]).toEqual([1, []]);
    rig.dlmd = "new";
    await pass(HOLD_LOOK_MS);
    expect(next?.said).toEqual([{ say: "dlmd" }]);
    next?.say(HELLO);
    await pass(1);
    const state = next?.said.at(-1)?.state ?? "";
    expect(decodeState(Buffer.from(state, "base64")).custody).toBe("t1");
    next?.say({ say: "ready" });
    await pass(1);
    expect(next?.said.at(-1)).toEqual({ say: "go" });
    next?.say({ say: "serving" });
    await pass(1);
    expect([end(), log]).toEqual([{ kind: "given", pid: 7, pauseMs: expect.any(Number) as number }, ["leave"]]);
  });

  const wasTold = ({ started }: ReturnType<typeof setUp>): boolean => started[0]?.said[0]?.say === "dlmd";
  it("goes on with the dlmd that runs when it is told to, or after a time", async () => {
    const told = setUp();
    await pass(HOLD_LOOK_MS);
    expect(wasTold(told)).toBe(false);
    told.holder.goOn();
    await pass(HOLD_LOOK_MS);
    expect(wasTold(told)).toBe(true);
    const late = setUp();
    await pass(SAME_DLMD_MS);
    expect(wasTold(late)).toBe(false);
    await pass(2 * HOLD_LOOK_MS);
    expect(wasTold(late)).toBe(true);
  });

  it("follows one that was the owner, and has given the disk back: not before that is gone", async () => {
    const asked: number[][] = [];
    const { rig, started } = setUp((pid, after) => {
      asked.push([pid, after]);
      return Promise.resolve(asked.length === 1 ? after + 1 : null);
    });
    rig.dlmd = "new";
    const epochOf = (stream: OtherEnd | undefined): number =>
      decodeState(Buffer.from(stream?.said.at(-1)?.state ?? "", "base64")).ownerEpoch;
    for (const [at, epoch] of [3, 4, 4].entries()) {
      await pass(HOLD_RETRY_MS + 2 * HOLD_LOOK_MS);
      const stream = started[at];
      stream?.say(HELLO);
      await pass(1);
      expect([started.length, epochOf(stream)]).toEqual([at + 1, epoch]);
      stream?.say({ say: "failed", why: "no lease", final: false });
      await pass(HOLD_RETRY_MS + 2 * HOLD_LOOK_MS);
      expect(started.length).toBe(at + 1);
      stream?.emit("gone");
    }
    await pass(HOLD_LOOK_MS);
    expect(asked).toEqual([
      [7, 3],
      [7, 4],
      [7, 4],
    ]);
  });

  it("starts another process where one dies before dlmd is there", async () => {
    const { rig, started, log } = setUp();
    rig.dlmd = null;
    await pass(HOLD_LOOK_MS);
    started[0]?.destroy();
    await pass(HOLD_RETRY_MS - 1);
    expect([started.length, log]).toEqual([1, ["end"]]);
    await pass(2 * HOLD_LOOK_MS);
    expect(started.length).toBe(2);
  });

  it.each<[string, (next: OtherEnd) => void, number]>([
    ["dies", (next) => void next.destroy(), 1],
    ["says nothing", () => undefined, HELLO_LIMIT_MS + 1],
    ["knows another version", (next) => next.say({ ...HELLO, versions: [1] }), 1],
    ["fails", (next) => next.say({ say: "failed", why: "no quorum", final: false }), 1],
    ["is not ready", (next) => next.say(HELLO), HOLD_READY_LIMIT_MS + 1],
  ])("starts another process where one %s", async (_, act, ms) => {
    const set = setUp();
    const { rig, started, log, holder } = set;
    rig.dlmd = "new";
    await pass(HOLD_LOOK_MS);
    expect(wasTold(set)).toBe(true);
    act(started[0] as OtherEnd);
    await pass(ms);
    expect(log).toEqual(["end"]);
    await pass(HOLD_RETRY_MS - 2);
    expect(started.length).toBe(1);
    await pass(2 + HOLD_LOOK_MS);
    expect(started.length).toBe(2);
    expect(holder.why).toContain("calls have waited for");
  });

  it("starts another process where one fails right after it was ready", async () => {
    const { rig, started, log, end } = setUp();
    await becomesReady({ rig, started });
    started[0]?.say({ say: "failed", why: "no lease", final: false });
    await pass(HOLD_RETRY_MS + 2 * HOLD_LOOK_MS);
    expect([started.length, log, end()]).toEqual([2, ["end"], null]);
  });

  it("ends where no process could go on", async () => {
    const { rig, started, end } = setUp();
    rig.dlmd = "new";
    await pass(HOLD_LOOK_MS);
    started[0]?.say({ say: "failed", why: "the volume has another owner now", final: true });
    await pass(1);
    started[0]?.emit("gone");
    await pass(1);
    expect(end()).toEqual({ kind: "lost", why: "the volume has another owner now" });
  });

  it("ends when the new process does not answer after it was told to go on", async () => {
    const { rig, started, log, end } = setUp();
    await becomesReady({ rig, started });
    await pass(1);
    started[0]?.say({ say: "waiting" });
    await pass(SERVING_LIMIT_MS - 1);
    expect(end()).toBeNull();
    await pass(2);
    started[0]?.emit("gone");
    await pass(1);
    expect([end()?.kind, log]).toEqual(["lost", ["kill"]]);
  });

  it("takes the mount out when it is told to end while the new process waits for its locks", async () => {
    const { rig, started, log, holder, end } = setUp();
    await becomesReady({ rig, started });
    await pass(1);
    expect(started[0]?.said.at(-1)).toEqual({ say: "go" });
    holder.terminate();
    expect(log).toEqual(["detach"]);
    started[0]?.say({ say: "waiting" });
    await pass(SERVING_LIMIT_MS - 1);
    started[0]?.say({ say: "serving" });
    await pass(1);
    expect([end()?.kind, log]).toEqual(["given", ["detach", "leave"]]);
  });

  it("ends when it is unmounted or told to, and after its limit, and so does the process that waits", async () => {
    const unmounted = setUp();
    await pass(1);
    unmounted.rig.mounted = false;
    await pass(HOLD_LOOK_MS);
    unmounted.started[0]?.emit("gone");
    await pass(1);
    expect([unmounted.end(), unmounted.log]).toEqual([{ kind: "unmounted" }, ["end"]]);
    const told = setUp();
    await pass(1);
    told.holder.terminate();
    await pass(HOLD_LOOK_MS);
    told.started[0]?.emit("gone");
    await pass(1);
    expect([told.end(), told.log]).toEqual([{ kind: "unmounted" }, ["detach", "end"]]);
    const late = setUp();
    late.rig.dlmd = null;
    await pass(HOLD_LIMIT_MS);
    expect(late.end()).toBeNull();
    await pass(2 * HOLD_LOOK_MS);
    late.started[0]?.emit("gone");
    await pass(1);
    expect(late.end()).toMatchObject({ kind: "lost", why: expect.stringContaining("it could not go on in 120 s") as string });
  });
});

describe("a process that keeps a mount, and ends", () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance", "setImmediate"] }));
  afterEach(() => void vi.useRealTimers());

  it("waits for the new process, which may have the disk, and for those that it has ended before", async () => {
    const { rig, started, log, end } = setUp();
    rig.dlmd = "new";
    await pass(HOLD_LOOK_MS);
    started[0]?.say({ say: "failed", why: "no quorum", final: false });
    await pass(HOLD_RETRY_MS + 2 * HOLD_LOOK_MS);
    expect([started.length, log]).toEqual([2, ["end"]]);
    rig.mounted = false;
    started[1]?.say({ say: "failed", why: "no quorum", final: false });
    await pass(HOLD_LOOK_MS);
    expect([end(), log]).toEqual([null, ["end", "end"]]);
    started[1]?.emit("gone");
    await pass(1);
    expect(end()).toBeNull();
    started[0]?.emit("gone");
    await pass(1);
    expect(end()).toEqual({ kind: "unmounted" });
  });

  it("does not wait for ever for a process that cannot be killed: its connection is aborted, which that has, too", async () => {
    const { rig, end, log } = setUp();
    await pass(1);
    rig.mounted = false;
    await pass(LEFT_LIMIT_MS);
    expect([end(), log]).toEqual([null, ["end"]]);
    await pass(HOLD_LOOK_MS);
    expect([end(), log]).toEqual([{ kind: "unmounted" }, ["end", "abort"]]);
  });

  it.each<[string, HolderEnd["kind"], (set: ReturnType<typeof setUp>) => void]>([
    ["is told to", "unmounted", ({ holder }) => holder.terminate()],
    ["is unmounted", "unmounted", ({ rig }) => void (rig.mounted = false)],
    ["has waited for its limit", "lost", () => vi.advanceTimersByTime(HOLD_LIMIT_MS)],
  ])("ends when it %s, though one that may have been the owner cannot be killed", async (_, kind, happens) => {
    const set = setUp(() => Promise.resolve(null));
    const { rig, started, end } = set;
    rig.dlmd = "new";
    await pass(HOLD_LOOK_MS);
    started[0]?.say({ say: "failed", why: "no lease", final: false });
    await pass(HOLD_RETRY_MS + 2 * HOLD_LOOK_MS);
    expect([started.length, end()]).toEqual([1, null]);
    happens(set);
    await pass(LEFT_LIMIT_MS + 2 * HOLD_LOOK_MS);
    expect([started.length, end()?.kind]).toEqual([1, kind]);
  });
});

describe("a process that is to keep its mount", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());
  const never = new Promise<never>(() => undefined);

  it("does not wait for ever for dlmd to let it go", async () => {
    let ended: Error | null | undefined;
    void endOrPause(never, Promise.resolve({ hasLeftDlmd: false }), silentLog).then((end) => (ended = end));
    await pass(LEAVE_LIMIT_MS - 1);
    expect(ended).toBeUndefined();
    await pass(1);
    expect(ended).toBeNull();
  });

  it.each<[HolderEnd, boolean, object[]]>([
    [{ kind: "given", pid: 7, pauseMs: 1 }, false, []],
    [{ kind: "unmounted" }, false, [{ ...KEPT, incarnation: "old", waitedMs: 1000 }]],
    [{ kind: "lost", why: "w" }, true, [{ ...KEPT, incarnation: null, waitedMs: 1000 }]],
  ])("leaves a process behind that collects, unless another one has the mount: $kind", async (end, anyDlmd, expected) => {
    const orders: object[] = [];
    const pausing = {
      state: someState(),
      sinceMs: performance.now() - 1000,
      fd: 5,
      incarnation: "old",
      kept: KEPT,
      dlmdDied: false,
      hasLeftDlmd: false,
    };
    const held = { runDir: "/run/x", log: silentLog };
    const found = await holdToEnd({ run: () => Promise.resolve(end), anyDlmd }, pausing, held, (_, order) => void orders.push(order));
    expect([found, orders]).toEqual([end, expected]);
  });

  it("tells how a mount ended that is not kept", async () => {
    const failure = new Error("unmounted by force");
    expect(await endOrPause(Promise.resolve(failure), never, silentLog)).toBe(failure);
    // One that has died lets nobody go, and nothing of the old process is waited for.
    expect(await endOrPause(never, Promise.resolve({ hasLeftDlmd: true }), silentLog)).toBeNull();
  });
});

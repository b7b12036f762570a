/** The new process of a mount, and the channel between the two: what ends a wait. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import type { Duplex } from "node:stream";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { OperatingError } from "../../../dlmd/base/error.ts";
import { Channel, LINE_BYTES_MAX } from "../../../overlay/restart/channel.ts";
import { END_LIMIT_MS, endNext } from "../../../overlay/restart/give.ts";
import { encodeState, STATE_VERSION } from "../../../overlay/restart/state.ts";
import { HOLD_LIMIT_MS } from "../../../overlay/restart/holder.ts";
import { DLMD_LIMIT_MS, GO_LIMIT_MS, STATE_LIMIT_MS, TakeOver } from "../../../overlay/restart/take.ts";
import { goOnWith, type GoOn, LOCKS_LOOK_MS, LOCKS_SAY_MS } from "../../../overlay/serve/mount-restart.ts";
import type { Lock, Lockspace } from "../../../dlmd/client/api.ts";
import { OtherEnd } from "./other-end.ts";
import { someState } from "./some-state.ts";

const leaseHolds = (): boolean => true;
const collect = (): Promise<boolean> => Promise.resolve(true);
const errorOf = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => "none",
    (error: unknown) => String(error),
  );

/** Each lock is one of its own, and granted at once: dlmd has taken what was asked before. */
function grantingLockspace(): Lockspace {
  return {
    createLock: (_: string, { ast }: { ast: (held: Lock, status: string) => void }): Lock => {
      const lock = { request: () => ast(lock, "granted"), unlock: () => ast(lock, "unlocked") } as unknown as Lock;
      return lock;
    },
  } as unknown as Lockspace;
}

describe("the new process", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());
  const begin = (): { old: OtherEnd; fails: string[]; takeOver: TakeOver } => {
    const old = new OtherEnd();
    const fails: string[] = [];
    return { old, fails, takeOver: new TakeOver((error) => void fails.push(error.message), "no", old) };
  };
  const given = { say: "state", state: encodeState(someState()).toString("base64") };

  it("takes the state, is ready, and is told to go", async () => {
    const { old, fails, takeOver } = begin();
    const state = takeOver.state();
    old.say(given);
    expect(await state).toEqual(someState());
    expect(old.said).toEqual([{ say: "hello", versions: [STATE_VERSION], pid: process.pid }]);
    const ready = takeOver.ready();
    old.say({ say: "go" });
    await ready;
    takeOver.serving();
    expect(old.said.map(({ say }) => say)).toEqual(["hello", "ready", "serving"]);
    // The old one may end now.
    old.destroy();
    await vi.advanceTimersByTimeAsync(1);
    expect(fails).toEqual([]);
  });

  it("waits until it is told that dlmd serves, and not for ever", async () => {
    const told = begin();
    const there = told.takeOver.dlmd();
    told.old.say({ say: "dlmd" });
    await there;
    const { takeOver } = begin();
    const never = errorOf(takeOver.dlmd());
    await vi.advanceTimersByTimeAsync(DLMD_LIMIT_MS + 1);
    expect(await never).toContain('has not said "dlmd" in 150 s');
    expect(DLMD_LIMIT_MS).toBeGreaterThan(HOLD_LIMIT_MS);
  });

  it("does not wait for a state for ever", async () => {
    const { takeOver } = begin();
    const state = errorOf(takeOver.state());
    await vi.advanceTimersByTimeAsync(STATE_LIMIT_MS + 1);
    expect(await state).toContain('has not said "state" in 120 s');
  });

  it("does not wait for the old one to let go for ever", async () => {
    const { old, takeOver } = begin();
    const state = takeOver.state();
    old.say(given);
    await state;
    const ready = errorOf(takeOver.ready());
    await vi.advanceTimersByTimeAsync(GO_LIMIT_MS + 1);
    expect(await ready).toContain('has not said "go" in 60 s');
  });

  it.each(["before it gave its state", "before it let go"])("fails if the old one ends %s", async (when) => {
    const { old, fails, takeOver } = begin();
    const state = takeOver.state();
    if (when === "before it let go") {
      old.say(given);
      await state;
    } else state.catch(() => undefined);
    old.destroy();
    await vi.advanceTimersByTimeAsync(1);
    expect(fails).toEqual(["the process before has ended, and gave nothing"]);
  });

  it("begins with what was kept, once it has the write tokens, and not before", async () => {
    const { old, takeOver } = begin();
    const state = takeOver.state();
    old.say(given);
    const begun: string[] = [];
    const rig = { hasLocks: false };
    const lockspace = grantingLockspace();
    const handOff = { begin: (held: readonly Buffer[]) => void begun.push(...held.map(String)) } as unknown as GoOn["handOff"];
    const goOn = goOnWith(
      { takeOver, before: { ...(await state), held: [Buffer.from("raw").toString("base64")] } },
      {
        handOff,
        hasLocks: () => rig.hasLocks,
        hasAskedFileLocks: () => Promise.resolve(),
        brokenFiles: 0,
        lockspace,
        clientId: 7,
        leaseHolds,
        collect,
        mayOwn: () => undefined,
        checkOwner: () => undefined,
        sentAgain: () => [Buffer.from("again")],
      },
    );
    await vi.advanceTimersByTimeAsync(0);
    expect(old.said.at(-1)).toEqual({ say: "ready" });
    old.say({ say: "go" });
    await vi.advanceTimersByTimeAsync(10 * LOCKS_LOOK_MS);
    expect([begun, old.said.at(-1)]).toEqual([[], { say: "ready" }]);
    await vi.advanceTimersByTimeAsync(LOCKS_SAY_MS);
    expect([begun, old.said.at(-1)]).toEqual([[], { say: "waiting" }]);
    rig.hasLocks = true;
    await vi.advanceTimersByTimeAsync(LOCKS_LOOK_MS);
    await goOn;
    expect(begun).toEqual(["raw"]);
    // Hazard F42: of some the process before has nothing, so all come again.
    await goOnWith(
      {
        takeOver: { check: () => undefined, ready: () => Promise.resolve() } as never,
        before: { ...(await state), again: true },
      },
      {
        handOff,
        hasLocks: () => true,
        hasAskedFileLocks: () => Promise.resolve(),
        brokenFiles: 0,
        lockspace,
        clientId: 7,
        leaseHolds,
        collect,
        mayOwn: () => undefined,
        checkOwner: () => undefined,
        sentAgain: () => [Buffer.from("again")],
      },
    );
    expect(begun).toEqual(["raw", "again"]);
    // Hazard F43: the owner has changed while it waited for the locks.
    let isOwner = true;
    const late = goOnWith(
      { takeOver: { check: () => undefined, ready: () => Promise.resolve() } as never, before: await state },
      {
        handOff,
        hasLocks: () => !isOwner,
        hasAskedFileLocks: () => Promise.resolve(),
        brokenFiles: 0,
        lockspace,
        clientId: 7,
        leaseHolds,
        collect,
        mayOwn: () => undefined,
        checkOwner: () => {
          if (!isOwner) throw new Error("another one is there");
        },
        sentAgain: () => [],
      },
    );
    const why = errorOf(late);
    await vi.advanceTimersByTimeAsync(LOCKS_LOOK_MS);
    isOwner = false;
    await vi.advanceTimersByTimeAsync(LOCKS_LOOK_MS);
    expect([await why, begun.length]).toEqual(["Error: another one is there", 2]);
  });

  const AWAY = { ...someState(), custody: "t1" };
  const givenAway = { say: "state", state: encodeState(AWAY).toString("base64") };
  /** What was asked of each master, which answers when it is told to. */
  const queues = (): { lockspace: Lockspace; asked: string[]; answer: () => void } => {
    const asked: string[] = [];
    const answers: (() => void)[] = [];
    const lockspace = {
      createLock: (resource: string, { ast }: { ast: (held: Lock, status: string) => void }): Lock => {
        const lock = { request: () => answers.push(() => ast(lock, "again")) } as unknown as Lock;
        asked.push(resource);
        return lock;
      },
    } as unknown as Lockspace;
    return { lockspace, asked, answer: () => answers.splice(0).forEach((one) => one()) };
  };

  it.each([true, false])(
    "after a pause it is ready when all masters have its requests and its node has a lease, and collects before it begins: %s",
    async (found) => {
      const { old, takeOver } = begin();
      const state = takeOver.state();
      old.say(givenAway);
      const steps: string[] = [];
      const { lockspace, asked, answer } = queues();
      const handOff = { begin: () => void steps.push("begin") } as unknown as GoOn["handOff"];
      const hasLocks = (): boolean => steps.includes("collect t1");
      const collect = (ticket: string): Promise<boolean> => {
        steps.push(`collect ${ticket}`);
        return Promise.resolve(found);
      };
      const rig = { leaseHolds: false };
      const goOn = goOnWith(
        { takeOver, before: await state },
        {
          handOff,
          hasLocks,
          hasAskedFileLocks: () => Promise.resolve(),
          brokenFiles: 0,
          lockspace,
          clientId: 7,
          leaseHolds: () => rig.leaseHolds,
          collect,
          mayOwn: () => void steps.push("may own"),
          // What it collects is the proof.
          checkOwner: () => void steps.push("check the owner"),
          sentAgain: () => [Buffer.from("again")],
        },
      );
      goOn.catch(() => undefined);
      await vi.advanceTimersByTimeAsync(1);
      expect([asked, old.said.map(({ say }) => say)]).toEqual([["w12.1", "f12.1"], ["hello"]]);
      answer();
      await vi.advanceTimersByTimeAsync(10 * LOCKS_LOOK_MS);
      expect(old.said.map(({ say }) => say)).toEqual(["hello"]);
      // The owner may hand its volume over as soon as it keeps nothing: to this node, too.
      rig.leaseHolds = true;
      await vi.advanceTimersByTimeAsync(LOCKS_LOOK_MS);
      expect([steps, old.said.at(-1)]).toEqual([[], { say: "ready" }]);
      old.say({ say: "go" });
      await vi.advanceTimersByTimeAsync(1);
      const lost = "OperatingError: the owner has given up what it kept for this mount";
      expect([await errorOf(goOn), steps]).toEqual(
        found ? ["none", ["may own", "collect t1", "begin"]] : [lost, ["may own", "collect t1"]],
      );
    },
  );

  it.each([
    ["bad-state", true],
    ["no-quorum", false],
  ])("says whether another process would fail, too: %s", (code, final) => {
    const { old, takeOver } = begin();
    takeOver.giveUp(new OperatingError("why", { code, hint: "" }));
    expect(old.said).toEqual([{ say: "failed", why: "why", final }]);
  });

  it("is not ready, and begins nothing, when it has failed meanwhile", async () => {
    const { old, takeOver } = begin();
    const state = takeOver.state();
    old.say(given);
    await state;
    takeOver.giveUp(new Error("told to end"));
    await expect(takeOver.ready()).rejects.toThrow("told to end");
    await takeOver.failed(new Error("again"));
    expect(old.said.slice(1)).toEqual([{ say: "failed", why: "told to end", final: false }]);
  });

  it("begins nothing when it fails while the old one lets go", async () => {
    const { old, takeOver } = begin();
    const state = takeOver.state();
    old.say(given);
    await state;
    const ready = errorOf(takeOver.ready());
    takeOver.giveUp(new Error("told to end"));
    old.say({ say: "go" });
    expect(await ready).toContain("told to end");
  });

  it.each([
    ["the masters of its file locks do not know of it yet", () => new Promise<void>(() => undefined), (): boolean => false],
    [
      "dlmd has refused some of its file locks",
      () => Promise.resolve(),
      (): boolean => {
        throw new Error("no room");
      },
    ],
  ])("is not ready while %s (hazard F45)", async (_, hasAskedFileLocks, hasLocks) => {
    const { old, takeOver } = begin();
    const state = takeOver.state();
    old.say(given);
    const lockspace = grantingLockspace();
    const rest = {
      brokenFiles: 0,
      clientId: 7,
      leaseHolds,
      collect,
      mayOwn: () => undefined,
      checkOwner: () => undefined,
      sentAgain: () => [],
    };
    const handOff = { begin: () => undefined } as unknown as GoOn["handOff"];
    goOnWith({ takeOver, before: await state }, { handOff, hasLocks, hasAskedFileLocks, lockspace, ...rest }).catch(() => undefined);
    await vi.advanceTimersByTimeAsync(10 * LOCKS_LOOK_MS);
    expect(old.said.map(({ say }) => say)).not.toContain("ready");
  });

  it("is not ready when a file could not be opened at the owner", async () => {
    const { old, takeOver } = begin();
    const state = takeOver.state();
    old.say(given);
    const goOn = goOnWith(
      { takeOver, before: await state },
      {
        handOff: {} as GoOn["handOff"],
        hasLocks: () => true,
        hasAskedFileLocks: () => Promise.resolve(),
        brokenFiles: 2,
        lockspace: {} as Lockspace,
        clientId: 7,
        leaseHolds,
        collect,
        mayOwn: () => undefined,
        checkOwner: () => undefined,
        sentAgain: () => [],
      },
    );
    await expect(goOn).rejects.toThrow("2 open files could not be opened again at the owner");
    expect(old.said.map(({ say }) => say)).toEqual(["hello"]);
  });
});

describe("the channel", () => {
  it("refuses a line that does not end", async () => {
    const other = new OtherEnd();
    const channel = new Channel(other);
    const next = errorOf(channel.expect("state", 1_000_000));
    const chunk = Buffer.alloc(32 * 1024 * 1024, "x");
    for (let bytes = 0; bytes <= LINE_BYTES_MAX; bytes += chunk.length) (other as Duplex).emit("data", chunk);
    expect(await next).toContain(`more than ${LINE_BYTES_MAX} bytes without a line end`);
    await channel.closed;
  });

  it("does not say what the other end would not take", () => {
    const other = new OtherEnd();
    const channel = new Channel(other, 1000);
    expect(() => channel.say({ say: "failed", why: "x".repeat(1000) })).toThrow("at most 1000 bytes expected");
    channel.say({ say: "go" });
    expect(other.said).toEqual([{ say: "go" }]);
  });

  it.each(["nonsense", '{"say":"else"}', '{"say":"hello","versions":"1","pid":1}'])("refuses %s", async (line) => {
    const other = new OtherEnd();
    const channel = new Channel(other);
    other.push(`${line}\n`);
    await expect(channel.expect("hello", 1_000_000)).rejects.toThrow("not a message");
  });
});

describe("a new process that is not wanted", () => {
  it("is killed if it does not end by itself", async () => {
    const child = spawn("sh", ["-c", "trap : TERM; echo there; while :; do read line; done"], { stdio: ["pipe", "pipe", "inherit"] });
    await once(child.stdout, "data");
    const exit = once(child, "exit");
    const heard = once(child.stdout, "close");
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    try {
      endNext(child);
      expect(child.killed).toBe(true);
      vi.advanceTimersByTime(END_LIMIT_MS - 1);
      expect(child.signalCode).toBe(null);
      vi.advanceTimersByTime(1);
      expect(await exit).toEqual([null, "SIGKILL"]);
      await heard;
    } finally {
      vi.useRealTimers();
      child.kill("SIGKILL");
    }
  });
});

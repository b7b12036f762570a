/** A mount that pauses for a restart of dlmd (hazard F35): it goes on by itself until its owner keeps all. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { RequestOf } from "../../../overlay/lower/wire/call-types.ts";
import { REST_LIMIT_MS } from "../../../overlay/restart/give.ts";
import {
  type AloneHost,
  DEPOSIT_LIMIT_MS,
  DEPOSIT_LOOK_MS,
  depositOf,
  type GiveBack,
  GIVE_BACK_LIMIT_MS,
  type PauseHost,
  pauseMount,
  pauseWithoutDlmd,
} from "../../../overlay/restart/pause.ts";
import type { OpenAtOwner } from "../../../overlay/lower/remote/core.ts";
import { type RestartState, STATE_VERSION } from "../../../overlay/restart/state.ts";
import { resting } from "./resting.ts";
import { someState } from "./some-state.ts";

function setUp() {
  const { host: base, log, rig } = resting();
  const deposits: RequestOf<"deposit">[] = [];
  const rehearsal = { versions: [STATE_VERSION] };
  const owner = { answer: (): Promise<string> => Promise.resolve("") };
  const host: PauseHost = {
    ...base,
    giveBack: null,
    deposit: (request) => {
      log.push("deposit");
      deposits.push(request);
      return owner.answer();
    },
    rehearse: () => {
      log.push("rehearse");
      return Promise.resolve(rehearsal.versions);
    },
    collect: (ticket) => void log.push(ticket === deposits[0]?.ticket ? "collect" : "collect another"),
  };
  return { host, log, rig, owner, rehearsal, deposits };
}

const pass = (ms: number): Promise<unknown> => vi.advanceTimersByTimeAsync(ms);

describe("a mount that pauses", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  it("rests, has its owner keep all, and lets go, in that order", async () => {
    const { host, log, deposits } = setUp();
    const paused = await pauseMount(host);
    expect(log).toEqual(["rehearse", "hold", "stop", "deposit", "leave status", "locks"]);
    expect(deposits[0]).toMatchObject({ epoch: 3, ticket: expect.stringMatching(/^[0-9a-f]{32}$/) as string });
    expect(paused).toMatchObject({ state: { custody: deposits[0]?.ticket, ownerEpoch: 3 } });
  });

  it("names the inodes of its write tokens, and of its files with locks, each once", () => {
    const state = someState();
    const [handle] = state.handles;
    const twice = { ...state, handles: [...state.handles, { ...(handle as (typeof state.handles)[number]), fh: 11 }] };
    const id = { ino: 12, generation: 1 };
    expect(depositOf(twice, "t1")).toEqual({
      epoch: 3,
      ticket: "t1",
      isLast: true,
      dlmdDied: false,
      tokens: [id],
      locked: [],
      sharedLocks: [
        { id, owner: { kind: "posix", owner: 2n ** 64n - 1n }, range: { type: "write", start: 0n, end: 2n ** 63n - 1n }, heldMs: 13 },
      ],
      shared: [],
    });
    const here = twice.fileLocks.map((row) => ({ ...row, shared: false }));
    expect(depositOf({ ...twice, fileLocks: here }, "t1")).toMatchObject({ locked: [id], sharedLocks: [] });
    expect(depositOf({ ...state, shared: [handle?.fuseNodeid ?? 0] }, "t1").shared).toEqual([id]);
    expect(depositOf({ ...twice, handles: twice.handles.map((one) => ({ ...one, writeToken: false })), fileLocks: [] }, "t1")).toEqual({
      epoch: 3,
      ticket: "t1",
      isLast: true,
      dlmdDied: false,
      tokens: [],
      locked: [],
      sharedLocks: [],
      shared: [],
    });
  });

  it("begins nothing when it is refused", async () => {
    const { host, log, rig } = setUp();
    rig.refusal = "programs wait";
    expect(await pauseMount(host)).toEqual({ kind: "refused", why: "programs wait" });
    expect(log).toEqual([]);
  });

  const deposited = ["rehearse", "hold", "stop", "deposit", "collect", "rest ends", "go on"];
  it.each<[string, string, (set: ReturnType<typeof setUp>) => void, number, readonly string[]]>([
    [
      "calls do not end",
      "1 calls have not ended",
      ({ rig }) => void (rig.running = 1),
      REST_LIMIT_MS + 10,
      ["rehearse", "hold", "rest ends", "go on"],
    ],
    [
      "the installed program knows other states",
      "knows states of version 9",
      ({ rehearsal }) => void (rehearsal.versions = [9]),
      10,
      ["rehearse", "rest ends", "go on"],
    ],
    ["its owner refuses", "has no room", ({ owner }) => void (owner.answer = () => Promise.resolve("has no room")), 10, deposited],
    [
      "its owner cannot be asked",
      "cut off",
      ({ owner }) => void (owner.answer = () => Promise.reject(new Error("cut off"))),
      10,
      deposited,
    ],
    [
      "its owner does not answer",
      "has not taken what this mount has in 15 s",
      ({ owner }) => void (owner.answer = () => new Promise(() => undefined)),
      DEPOSIT_LIMIT_MS + 10,
      deposited,
    ],
    [
      "the owner changes",
      "the volume has another owner now",
      ({ owner, rig }) => {
        owner.answer = () => {
          rig.epoch = 4;
          return Promise.resolve("");
        };
      },
      10,
      deposited,
    ],
    [
      "it is unmounted",
      "the mount is ending",
      ({ owner, rig }) => {
        owner.answer = () => {
          rig.refusal = "the mount is ending";
          return Promise.resolve("");
        };
      },
      10,
      deposited,
    ],
  ])("goes on if %s", async (_, why, act, ms, steps) => {
    const set = setUp();
    act(set);
    const paused = pauseMount(set.host);
    await pass(ms);
    expect(await paused).toEqual({ kind: "failed", why: expect.stringContaining(why) as string });
    expect(set.log).toEqual(steps);
  });

  it("goes on if its state is more than the next process takes", async () => {
    const { host, log } = setUp();
    expect(await pauseMount(host, 500)).toEqual({
      kind: "failed",
      why: expect.stringContaining("the kernel knows too many files of this mount") as string,
    });
    expect(log).toEqual(["rehearse", "hold", "stop", "rest ends", "go on"]);
  });

  it("ends if it cannot let go", async () => {
    const { host, log } = setUp();
    const giveLocks = (): void => {
      throw new Error("no such lock");
    };
    expect(await pauseMount({ ...host, giveLocks })).toEqual({
      kind: "lost",
      why: "the locks of this mount could not be given up: no such lock",
    });
    expect(log).toEqual(["rehearse", "hold", "stop", "deposit", "leave status", "fail"]);
  });
});

/** Hazard F43. */
describe("an owner that is alone", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());
  const CHANGED: RestartState["unsynced"] = {
    changed: [["2.1", { at: 1, what: "all" }]],
    lost: [],
    deaths: 2,
    syncfsFails: false,
    tick: 3,
  };
  const begin = () => {
    const set = setUp();
    const disk = { given: (): void => undefined };
    const given = new Promise<void>((resolve) => (disk.given = resolve));
    const openAtOwner = (): OpenAtOwner => ({ files: [], unsynced: CHANGED });
    const step = (what: string, how: Promise<void> = Promise.resolve()) => {
      return (): Promise<void> => {
        set.log.push(what);
        return how;
      };
    };
    const takeBack = (): void => void set.log.push("take back");
    const giveBack: GiveBack = { sync: step("sync"), disk: step("disk", given), dlmd: step("dlmd"), leave: null, takeBack };
    return { ...set, disk, host: { ...set.host, openAtOwner, giveBack } };
  };

  it("rests, and pauses when its disk is given back, not before: what it had changed is on it", async () => {
    const { host, log, disk } = begin();
    let paused: unknown = null;
    void pauseMount(host).then((found) => (paused = found));
    await pass(1000);
    expect([log, paused]).toEqual([["rehearse", "sync", "hold", "stop", "disk"], null]);
    disk.given();
    await pass(0);
    expect(log.slice(5)).toEqual(["leave status", "dlmd"]);
    expect(paused).toMatchObject({ state: { custody: null, gaveBack: true, ownerEpoch: 3, unsynced: { ...CHANGED, changed: [] } } });
  });

  it("ends if it cannot give its disk back, or not in time", async () => {
    const failing = begin();
    const disk = (): Promise<void> => Promise.reject(new Error("in use"));
    const why = "the disk could not be given back: in use";
    expect(await pauseMount({ ...failing.host, giveBack: { ...failing.host.giveBack, disk } })).toEqual({ kind: "lost", why });
    expect(failing.log).toEqual(["rehearse", "sync", "hold", "stop", "fail"]);
    const late = begin();
    let end: unknown = null;
    void pauseMount(late.host).then((found) => (end = found));
    await pass(GIVE_BACK_LIMIT_MS - 1);
    expect([end, late.log.at(-1)]).toEqual([null, "disk"]);
    await pass(1);
    expect([end, late.log.at(-1)]).toEqual([{ kind: "lost", why: "the disk could not be unmounted in 60 s" }, "fail"]);
  });

  it("goes on if its disk cannot be synced", async () => {
    const { host, log } = begin();
    const sync = (): Promise<void> => Promise.reject(new Error("EIO"));
    expect(await pauseMount({ ...host, giveBack: { ...host.giveBack, sync } })).toEqual({ kind: "failed", why: "EIO" });
    expect(log).toEqual(["rehearse", "rest ends", "go on"]);
  });

  it("goes on if another node comes before", async () => {
    const { host, log, rig } = begin();
    const rehearse = (): Promise<readonly number[]> => {
      rig.refusal = "others have it mounted";
      return Promise.resolve([STATE_VERSION]);
    };
    expect(await pauseMount({ ...host, rehearse })).toEqual({ kind: "failed", why: "others have it mounted" });
    expect(log).toEqual(["sync", "hold", "rest ends", "go on"]);
  });

  it("does the same after the death of dlmd, and has the kernel send again what has no answer", async () => {
    const { host, log, disk, rig } = begin();
    rig.held = [Buffer.from("raw")];
    const alone: AloneHost = {
      ...host,
      beAlone: () => void log.push("alone"),
      left: () => 1,
      notesChanges: true,
      resends: true,
      isDlmdDead: () => Promise.resolve(true),
    };
    const late = pauseWithoutDlmd({ ...alone, giveBack: { ...host.giveBack, disk: () => new Promise(() => undefined) } });
    const ended = late.then(
      () => "",
      ({ message }: Error) => message,
    );
    await pass(GIVE_BACK_LIMIT_MS);
    expect(await ended).toBe("the disk could not be unmounted in 60 s");
    log.length = 0;
    let paused: unknown = null;
    void pauseWithoutDlmd(alone).then((found) => (paused = found));
    await pass(1000);
    // Nobody waits for the lease: nobody can take the disk.
    rig.refusal = "the lease has ended";
    expect([log, paused]).toEqual([["hold", "sync", "alone", "stop", "disk"], null]);
    disk.given();
    await pass(0);
    expect(log.slice(5)).toEqual(["leave status"]);
    expect(paused).toMatchObject({ state: { custody: null, gaveBack: true, again: true, held: [], unsynced: { changed: [] } } });
  });

  const withoutDlmd = (set: ReturnType<typeof begin>, leave: GiveBack["leave"]): AloneHost => ({
    ...set.host,
    giveBack: { ...set.host.giveBack, leave },
    beAlone: () => undefined,
    left: () => 0,
    notesChanges: true,
    resends: true,
    isDlmdDead: () => Promise.resolve(true),
  });

  it("where others have it mounted, leaves them what it has before its disk is given back (hazard F44)", async () => {
    const set = begin();
    const asked: RequestOf<"deposit">[] = [];
    let answer: (refused: string) => void = () => undefined;
    const leave = (request: RequestOf<"deposit">): Promise<string> => {
      asked.push(request);
      return new Promise((resolve) => (answer = resolve));
    };
    let paused: unknown = null;
    void pauseWithoutDlmd(withoutDlmd(set, leave)).then((found) => (paused = found));
    await pass(100);
    expect([set.log, asked.length]).toEqual([["hold", "sync", "stop"], 1]);
    expect(asked[0]).toMatchObject({ epoch: 3, dlmdDied: true, isLast: true });
    answer("");
    await pass(0);
    // From here on there is time: nobody else has the disk.
    set.rig.refusal = "the lease has ended";
    await pass(1000);
    expect([set.log.at(-1), paused]).toEqual(["disk", null]);
    set.disk.given();
    await pass(0);
    expect(paused).toMatchObject({ state: { custody: asked[0]?.ticket, gaveBack: true, ownerEpoch: 3, unsynced: { changed: [] } } });
  });

  it("ends, and takes that back, if nobody keeps it; when the lease ends there is no more time for an answer", async () => {
    const set = begin();
    const asked: AbortSignal[] = [];
    const leave: GiveBack["leave"] = (_, signal) => {
      asked.push(signal);
      return new Promise((resolve) => signal.addEventListener("abort", () => resolve("nobody has answered")));
    };
    let end = "";
    pauseWithoutDlmd(withoutDlmd(set, leave)).catch(({ message }: Error) => (end = message));
    await pass(1000);
    expect([set.log, asked[0]?.aborted, end]).toEqual([["hold", "sync", "stop"], false, ""]);
    set.rig.refusal = "the lease has ended";
    await pass(2 * DEPOSIT_LOOK_MS);
    expect(end).toBe("nobody keeps what this mount has: nobody has answered");
    expect(set.log).toEqual(["hold", "sync", "stop", "take back"]);
  });
});

/** Hazard F42: there is no way back, so whatever is not as it should be ends the mount. */
describe("a mount whose dlmd has died", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());
  const begin = () => {
    const set = setUp();
    const alone = { left: 0 as number | null, resends: true, isDead: true, notesChanges: true };
    const host: AloneHost = {
      ...set.host,
      beAlone: () => void set.log.push("alone"),
      left: () => alone.left,
      get resends() {
        return alone.resends;
      },
      get notesChanges() {
        return alone.notesChanges;
      },
      isDlmdDead: () => {
        set.log.push("is it dead?");
        return Promise.resolve(alone.isDead);
      },
    };
    return { ...set, host, alone };
  };

  it("rests, and has its owner keep all that nobody may have in between", async () => {
    const { host, log, rig, deposits } = begin();
    rig.held = [Buffer.from("raw")];
    const { state } = await pauseWithoutDlmd(host);
    expect(log).toEqual(["hold", "is it dead?", "alone", "stop", "deposit", "leave status"]);
    expect(deposits[0]).toMatchObject({ epoch: 3, dlmdDied: true });
    expect(state).toMatchObject({ custody: deposits[0]?.ticket, again: false, held: [Buffer.from("raw").toString("base64")] });
  });

  it("has the kernel send all again where calls have no answer: also those that it kept", async () => {
    const { host, rig, alone } = begin();
    rig.held = [Buffer.from("raw")];
    alone.left = 2;
    expect((await pauseWithoutDlmd(host)).state).toMatchObject({ again: true, held: [] });
  });

  const rested = ["hold", "is it dead?", "alone", "stop"];
  const asked = [...rested, "deposit", "collect"];
  it.each<[string, string, (set: ReturnType<typeof begin>) => void, readonly string[]]>([
    [
      "calls do not end in the time of the lease",
      "the lease",
      ({ rig }) => void (rig.refusal = "the lease has ended"),
      ["hold", "is it dead?", "alone"],
    ],
    ["a call without an answer has changed something", "twice", ({ alone }) => void (alone.left = null), rested],
    ["nobody knows whether one has", "twice", ({ alone }) => void Object.assign(alone, { left: 1, notesChanges: false }), rested],
    [
      "the kernel cannot send them again",
      "before Linux 6.9",
      ({ alone }) => {
        alone.left = 1;
        alone.resends = false;
      },
      rested,
    ],
    ["dlmd lives", "and lives", ({ alone }) => void (alone.isDead = false), ["hold", "is it dead?"]],
    ["its owner refuses", "has no room", ({ owner }) => void (owner.answer = () => Promise.resolve("has no room")), asked],
    [
      "the lease ends before the owner has answered",
      "the lease",
      ({ owner, rig }) => {
        owner.answer = async () => {
          await Promise.resolve();
          rig.refusal = "the lease has ended";
          return "";
        };
      },
      asked,
    ],
    [
      "the lease ends, and the owner does not answer",
      "the lease",
      ({ owner, rig }) => {
        owner.answer = () => {
          setTimeout(() => (rig.refusal = "the lease has ended"), 10 * DEPOSIT_LOOK_MS);
          return new Promise(() => undefined);
        };
      },
      asked,
    ],
    [
      "the owner changes",
      "another owner",
      ({ owner, rig }) => {
        owner.answer = () => {
          rig.epoch = 4;
          return Promise.resolve("");
        };
      },
      asked,
    ],
  ])("ends if %s", async (_, why, act, steps) => {
    const set = begin();
    act(set);
    const ends = pauseWithoutDlmd(set.host);
    ends.catch(() => undefined);
    await pass(11 * DEPOSIT_LOOK_MS);
    await expect(ends).rejects.toThrow(why);
    expect(set.log).toEqual(steps);
  });
});

/** What an owner keeps for mounts that are away (hazard F35): when a deposit is answered, and what ends it. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import { type Lock, LockFlag, type LockHandlers, type Lockspace, type LockStatus } from "../../../dlmd/client/api.ts";
import type { FileLockResult, FileLocks } from "../../../dlmd/client/file-lock-api.ts";
import { type Mode, modeNames } from "../../../dlmd/wire/mode.ts";
import { COLLECTED_MAX, CUSTODIES_MAX, Custody, CUSTODY_LIMIT_MS, CUSTODY_LOCKS_MAX } from "../../../overlay/restart/custody.ts";

/** dlmd, which answers when it is told to. What was asked of it, in words. */
class PlayedDlmd implements Lockspace {
  readonly name = "vol-x";
  readonly asked: string[] = [];
  readonly #waiting: { readonly words: string; readonly answer: (status: LockStatus) => void }[] = [];
  createLock(resource: string, handlers: LockHandlers): Lock {
    const { asked } = this;
    const waiting = this.#waiting;
    const lock = {
      resource,
      exists: false,
      busy: false,
      error: null as Error | null,
      request(mode: Mode, flags: number) {
        const words = `${resource} ${modeNames[mode]} ${flagNames(flags)}`.trim();
        asked.push(words);
        lock.busy = true;
        const answer = (status: LockStatus): void => {
          lock.busy = false;
          lock.exists = status === "granted";
          if (status === "error") lock.error = new Error(`no ${resource}`);
          handlers.ast(lock as unknown as Lock, status);
        };
        waiting.push({ words, answer });
      },
      unlock() {
        asked.push(`${resource} unlock`);
        lock.exists = false;
        handlers.ast(lock as unknown as Lock, "unlocked");
      },
      cancel: () => void asked.push(`${resource} cancel`),
    };
    return lock as unknown as Lock;
  }
  batch(make: () => void): void {
    make();
  }
  whenOver(): () => void {
    return () => undefined;
  }
  /** Answers the requests whose words begin so. */
  async answer(start: string, status: LockStatus): Promise<void> {
    const answered = this.#waiting.filter(({ words }) => words.startsWith(start));
    if (answered.length === 0) throw new Error(`nobody has asked for ${start}: ${this.asked.join(", ")}`);
    for (const one of answered) {
      this.#waiting.splice(this.#waiting.indexOf(one), 1);
      one.answer(status);
    }
    await vi.advanceTimersByTimeAsync(0);
  }
}

/** Its file-lock service. */
class PlayedFileLocks {
  readonly #asked: string[];
  readonly ended: ((result: FileLockResult | Error) => void)[] = [];
  readonly tests: (() => void)[] = [];
  /** The connection to dlmd has ended. */
  over: Error | null = null;

  constructor(asked: string[]) {
    this.#asked = asked;
  }

  start(...[op, file, owner, range, options, ended]: Parameters<FileLocks["start"]>): number {
    const { kind, owner: number, pid } = owner;
    const how = JSON.stringify({ pid, ...options });
    this.#asked.push(`${op} ${file} ${kind} ${number} ${range.type} ${range.start}-${range.end} ${how}`);
    if (this.over !== null) ended(this.over);
    return this.ended.push(ended);
  }

  test(file: string): Promise<null> {
    this.#asked.push(`test ${file}`);
    return new Promise((resolve) => this.tests.push(() => resolve(null)));
  }

  cancel(number: number): void {
    this.#asked.push(`cancel ${number}`);
  }

  release(file: string, { kind, owner }: { readonly kind: string; readonly owner: bigint }): void {
    this.#asked.push(`release ${file} ${kind} ${owner}`);
  }
}

const flagNames = (flags: number): string =>
  (["HEADQUE", "MAYKEEP", "NOQUEUE"] as const).filter((name) => (flags & LockFlag[name]) !== 0).join(" ");

const request = (ticket = "t1", epoch = 3) => ({
  epoch,
  ticket,
  isLast: true,
  dlmdDied: false,
  tokens: [{ ino: 12, generation: 1 }],
  locked: [{ ino: 13, generation: 7 }],
  sharedLocks: [],
  shared: [],
});

describe("the custody of an owner", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());
  const begin = (): {
    dlmd: PlayedDlmd;
    service: PlayedFileLocks;
    custody: Custody;
    ended: string[];
    /** Of mounts that are away, each time that it is told. */
    counts: number[];
    deposit: (ticket?: string, epoch?: number) => Promise<string>;
  } => {
    const dlmd = new PlayedDlmd();
    const service = new PlayedFileLocks(dlmd.asked);
    const ended: string[] = [];
    const counts: number[] = [];
    const custody: Custody = new Custody({
      lockspace: () => Promise.resolve(dlmd),
      fileLocks: () => Promise.resolve(service as unknown as FileLocks),
      epoch: 3,
      log: silentLog,
      nowMs: () => performance.now(),
      changed: () => void counts.push(custody.away?.count ?? 0),
    });
    const deposit = async (ticket = "t1", epoch = 3): Promise<string> =>
      (await custody.deposit(request(ticket, epoch), () => void ended.push(ticket))).refused;
    return { dlmd, service, custody, ended, counts, deposit };
  };
  /** A deposit that is answered: what it named is granted when its mount lets go. */
  const kept = async ({ dlmd, deposit }: ReturnType<typeof begin>): Promise<void> => {
    const answer = deposit();
    await vi.advanceTimersByTimeAsync(0);
    await dlmd.answer("w12.1 NL", "again");
    await dlmd.answer("f13.7 NL", "granted");
    expect(await answer).toBe("");
    dlmd.asked.length = 0;
  };

  it("queues first for all that is named, and answers when the masters have taken that", async () => {
    const { dlmd, custody, deposit } = begin();
    let answer: string | null = null;
    const asked = deposit().then((words) => (answer = words));
    await vi.advanceTimersByTimeAsync(0);
    expect(dlmd.asked).toEqual(["w12.1 PW HEADQUE MAYKEEP", "f13.7 EX HEADQUE MAYKEEP", "w12.1 NL NOQUEUE", "f13.7 NL NOQUEUE"]);
    await dlmd.answer("w12.1 NL", "again");
    expect(answer).toBeNull();
    await dlmd.answer("f13.7 NL", "granted");
    await asked;
    expect(answer).toBe("");
    expect(dlmd.asked.at(-1)).toBe("f13.7 unlock");
    expect(custody.away?.count).toBe(1);
  });

  describe("file locks that are shared with other nodes (hazard F45)", () => {
    const id = { ino: 15, generation: 2 };
    const lock = (owner: bigint, start: bigint, kind: "posix" | "flock" = "posix") =>
      ({ id, owner: { kind, owner }, range: { type: "write", start, end: start + 4n }, heldMs: 700 }) as const;
    const withLocks = { ...request(), tokens: [], locked: [], sharedLocks: [lock(3n, 0n), lock(3n, 10n), lock(4n, 0n, "flock")] };
    const firstOnes = [
      'lock f15.2 posix 3 write 0-4 {"pid":0,"wait":true,"first":true,"heldMs":700}',
      'lock f15.2 posix 3 write 10-14 {"pid":0,"wait":true,"first":true,"heldMs":700}',
      'lock f15.2 flock 4 write 0-4 {"pid":0,"wait":true,"first":true,"heldMs":700}',
    ];
    /** Its answer: of one that is awaited. */
    const asked = async (set: ReturnType<typeof begin>): Promise<() => Promise<{ readonly refused: string }>> => {
      const answer = set.custody.deposit(withLocks, null);
      await vi.advanceTimersByTimeAsync(0);
      return () => answer;
    };

    it("are asked for before all that wait, under the file's state for those who share it, and it answers when their master knows", async () => {
      const set = begin();
      const answer = await asked(set);
      expect(set.dlmd.asked).toEqual(["f15.2 CW HEADQUE MAYKEEP", ...firstOnes, "f15.2 NL NOQUEUE", "test f15.2"]);
      let told: unknown = null;
      void answer().then(({ refused }) => (told = refused));
      await set.dlmd.answer("f15.2 NL", "again");
      expect(told).toBeNull();
      set.service.tests[0]?.();
      await vi.advanceTimersByTimeAsync(0);
      expect(told).toBe("");
    });

    it("are given up: what is held, and what waits", async () => {
      const set = begin();
      await asked(set);
      set.service.ended[1]?.({ status: "granted", conflict: null });
      set.dlmd.asked.length = 0;
      expect(set.custody.collect("t1")).toBe(true);
      expect(set.dlmd.asked).toEqual(["cancel 1", "cancel 3", "release f15.2 posix 3", "release f15.2 flock 4", "f15.2 cancel"]);
      // The answer to that is nobody's.
      set.service.ended[0]?.({ status: "canceled", conflict: null });
      expect(set.custody.away).toBeNull();
    });

    it("are kept whole or not at all: one that the service refuses ends it", async () => {
      const set = begin();
      const answer = await asked(set);
      set.service.ended[2]?.({ status: "limit", conflict: null });
      await set.dlmd.answer("f15.2 NL", "again");
      set.service.tests[0]?.();
      expect(await answer()).toEqual({ refused: "it was given up meanwhile" });
    });

    it("are asked for once, however often they are named, and stay for a second ticket that names them", async () => {
      const set = begin();
      await asked(set);
      await asked(set);
      expect(set.dlmd.asked.filter((what) => what.startsWith("lock "))).toEqual(firstOnes);
      void set.custody.deposit({ ...withLocks, ticket: "t2", sharedLocks: withLocks.sharedLocks.slice(0, 1) }, null);
      await vi.advanceTimersByTimeAsync(0);
      for (const ended of set.service.ended) ended({ status: "granted", conflict: null });
      set.dlmd.asked.length = 0;
      set.custody.collect("t1");
      expect(set.dlmd.asked.filter((what) => what.startsWith("release "))).toEqual(["release f15.2 flock 4"]);
      set.custody.collect("t2");
      expect(set.dlmd.asked.filter((what) => what.startsWith("release "))).toEqual(["release f15.2 flock 4", "release f15.2 posix 3"]);
    });

    it("are none where the connection to dlmd has ended", async () => {
      const set = begin();
      set.service.over = new Error("the connection has ended");
      const answer = await asked(set);
      await set.dlmd.answer("f15.2 NL", "again");
      set.service.tests[0]?.();
      expect(await answer()).toEqual({ refused: "it was given up meanwhile" });
    });

    it("each range counts for the limit", async () => {
      const set = begin();
      const many = Array.from({ length: CUSTODY_LOCKS_MAX + 1 }, (_, at) => lock(3n, BigInt(10 * at)));
      expect(await set.custody.deposit({ ...withLocks, sharedLocks: many }, null)).toEqual({
        refused: `more than ${CUSTODY_LOCKS_MAX} files that are written or locked`,
      });
    });
  });

  it("of a mount whose dlmd has died it is enough that this one serves behind all that: the dead may be the master of any", async () => {
    const { dlmd, custody } = begin();
    const shared = [{ ino: 14, generation: 7 }];
    let answer: string | null = null;
    const asked = custody.deposit({ ...request(), dlmdDied: true, shared }, () => undefined).then(({ refused }) => (answer = refused));
    await vi.advanceTimersByTimeAsync(0);
    const wanted = ["w12.1 PW HEADQUE MAYKEEP", "f13.7 EX HEADQUE MAYKEEP", "i14.7 PR HEADQUE MAYKEEP"];
    expect(dlmd.asked.slice(0, 3)).toEqual(wanted);
    const probes = dlmd.asked.slice(3);
    expect([probes.length, new Set(probes).size, probes[0]]).toEqual([64, 64, "served.t1.0 NL NOQUEUE"]);
    expect(answer).toBeNull();
    await dlmd.answer("served.t1.63", "granted");
    await asked;
    expect(answer).toBe("");
    // Of the others nobody may ever hear.
    await dlmd.answer("served.t1.0", "error");
  });

  it("keeps what is named twice once", async () => {
    const set = begin();
    await kept(set);
    const again = set.deposit();
    await vi.advanceTimersByTimeAsync(0);
    expect(set.dlmd.asked).toEqual(["w12.1 NL NOQUEUE", "f13.7 NL NOQUEUE"]);
    await set.dlmd.answer("w12.1 NL", "again");
    await set.dlmd.answer("f13.7 NL", "again");
    expect(await again).toBe("");
    expect([set.custody.away?.count, set.counts]).toEqual([1, [1]]);
  });

  it("gives up what it has, and what it waits for, and then has nothing", async () => {
    const set = begin();
    await kept(set);
    await set.dlmd.answer("w12.1 PW", "granted");
    expect(set.custody.collect("t1")).toBe(true);
    expect(set.dlmd.asked).toEqual(["w12.1 unlock", "f13.7 cancel"]);
    // It was granted before the request was taken back.
    await set.dlmd.answer("f13.7 EX", "granted");
    expect(set.dlmd.asked.at(-1)).toBe("f13.7 unlock");
    expect([set.ended, set.custody.away, set.custody.collect("t1")]).toEqual([["t1"], null, false]);
    expect(set.counts).toEqual([1, 0]);
  });

  it("gives it up after its limit, and not before", async () => {
    const set = begin();
    await kept(set);
    await vi.advanceTimersByTimeAsync(CUSTODY_LIMIT_MS - 1);
    expect([set.ended, set.custody.away?.count]).toEqual([[], 1]);
    await vi.advanceTimersByTimeAsync(1);
    expect([set.ended, set.custody.away, set.dlmd.asked]).toEqual([["t1"], null, ["w12.1 cancel", "f13.7 cancel"]]);
  });

  it("refuses another owner's, more mounts than its limit, and all when it is closed", async () => {
    const set = begin();
    expect(await set.deposit("other", 4)).toBe("the volume has another owner now");
    for (let at = 0; at < CUSTODIES_MAX; at += 1) void set.deposit(`t${at}`);
    await vi.advanceTimersByTimeAsync(0);
    expect(set.custody.away?.count).toBe(CUSTODIES_MAX);
    expect(await set.deposit("one more")).toBe(`${CUSTODIES_MAX} mounts are away already`);
    set.custody.close();
    expect([set.custody.away, set.ended.length]).toEqual([null, CUSTODIES_MAX]);
    expect(await set.deposit()).toBe("the volume has another owner now");
  });

  it("refuses all when its owner is about to go, though that one still syncs", async () => {
    const set = begin();
    set.custody.keepNothingMore();
    expect(await set.deposit()).toBe("this owner is about to give the volume up");
    expect([set.custody.away, set.dlmd.asked]).toEqual([null, []]);
  });

  it("refuses more locks than its limit, and keeps none of them", async () => {
    const set = begin();
    const many = (count: number) => ({
      ...request(),
      tokens: Array.from({ length: count }, (_, ino) => ({ ino, generation: 1 })),
      locked: [],
    });
    void set.custody.deposit(many(CUSTODY_LOCKS_MAX), () => void set.ended.push("t1"));
    await vi.advanceTimersByTimeAsync(0);
    expect(set.custody.away?.count).toBe(1);
    expect(await set.custody.deposit(request(), () => undefined)).toEqual({
      refused: `more than ${CUSTODY_LOCKS_MAX} files that are written or locked`,
    });
    expect([set.ended, set.custody.away]).toEqual([["t1"], null]);
  });

  it("what the owner before has left is the next owner's, until it is collected (hazard F44)", async () => {
    const set = begin();
    const answer = set.custody.deposit(request(), null);
    await vi.advanceTimersByTimeAsync(0);
    await set.dlmd.answer("w12.1 NL", "again");
    await set.dlmd.answer("f13.7 NL", "granted");
    expect([await answer, set.custody.hasUnopened]).toEqual([{ refused: "" }, true]);
    set.custody.keepOnlyWhole();
    set.custody.succeed(4);
    expect([set.custody.epoch, set.custody.away?.count, await set.deposit("late")]).toEqual([4, 1, "the volume has another owner now"]);
    void set.deposit("t2", 4);
    await vi.advanceTimersByTimeAsync(0);
    expect([set.custody.collect("t1"), set.custody.hasUnopened, set.custody.away?.count]).toEqual([true, false, 1]);
  });

  it("nothing is kept of a mount that was not named as a whole, or not queued for, when its node is gone (hazard F44)", async () => {
    const set = begin();
    const first = set.custody.deposit({ ...request("parts"), isLast: false, locked: [] }, null);
    await vi.advanceTimersByTimeAsync(0);
    await set.dlmd.answer("w12.1 NL", "again");
    expect(await first).toEqual({ refused: "" });
    const slow = set.custody.deposit({ ...request("slow"), tokens: [] }, null);
    await vi.advanceTimersByTimeAsync(0);
    expect(set.custody.away?.count).toBe(2);
    set.custody.keepOnlyWhole();
    expect([set.custody.away, set.custody.hasUnopened]).toEqual([null, false]);
    // Its place in the queue is told after all.
    await set.dlmd.answer("f13.7 NL", "granted");
    expect(await slow).toEqual({ refused: "it was given up meanwhile" });
    expect(await set.custody.deposit({ ...request("parts"), tokens: [] }, null)).toEqual({ refused: "it was given up meanwhile" });
  });

  it("what is collected before its deposit is there is not kept", async () => {
    const set = begin();
    const early = set.deposit();
    // It waits for the lockspace.
    expect(set.custody.collect("t1")).toBe(true);
    expect([await early, set.dlmd.asked]).toEqual(["it was given up meanwhile", []]);
    // As by another connection: the deposit comes behind.
    expect(set.custody.collect("t2")).toBe(false);
    expect(await set.deposit("t2")).toBe("it was given up meanwhile");
    for (let at = 0; at < COLLECTED_MAX; at += 1) set.custody.collect(`other${at}`);
    void set.deposit("t2");
    expect(set.custody.away?.count).toBe(1);
  });

  it.each(["w12.1 PW", "w12.1 NL"])("refuses what dlmd refuses (%s), and goes on", async (which) => {
    const set = begin();
    const answer = set.deposit();
    await vi.advanceTimersByTimeAsync(0);
    await set.dlmd.answer(which, "error");
    if (which.endsWith("PW")) await set.dlmd.answer("w12.1 NL", "again");
    await set.dlmd.answer("f13.7 NL", "again");
    expect(await answer).toBe("it was given up meanwhile");
    expect([set.ended, set.custody.away]).toEqual([["t1"], null]);
    expect(set.dlmd.asked).toContain("f13.7 cancel");
  });
});

/** File locks joined to dlmd: what operations are told, and when. */
import { afterEach, describe, expect, it, vi } from "vitest";
import { type Lock, LockFlag, type LockHandlers, type Lockspace } from "../../../dlmd/client/api.ts";
import type { FileLockResult, FileLocks } from "../../../dlmd/client/file-lock-api.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { maxOffset } from "../../../dlmd/wire/plock-range.ts";
import { JOURNAL_BYTES } from "../../../overlay/crash/layout.ts";
import { JournalLocks } from "../../../overlay/crash/locks.ts";
import type { FileLockRow, LockRange } from "../../../overlay/file-lock/api.ts";
import {
  CLOSE_WAIT_MS,
  FILES_SHOWN,
  type FileLocksOptions,
  GATHER_LIMIT_MS,
  TESTS_AT_A_TIME,
  VolumeFileLocks,
} from "../../../overlay/file-lock/file-locks.ts";

afterEach(() => void vi.useRealTimers());

/** dlmd, which grants EX at once, or as told (NL: not yet); its service answers when told. */
function bench(grants: Mode = Mode.EX, more: Partial<FileLocksOptions> = {}, began: (op: string) => void = () => undefined) {
  const released: string[] = [];
  const tested: string[] = [];
  let answerTests: () => void = () => undefined;
  const testsAnswered = new Promise<null>((resolve) => (answerTests = () => resolve(null)));
  const asked: { op: string; range: LockRange; heldMs: number | null; first: boolean; ended: (result: FileLockResult | Error) => void }[] =
    [];
  const failures: Error[] = [];
  const states = new Map<string, { lock: { mode: Mode }; handlers: LockHandlers; did: string[] }>();
  let firstFlags = 0;
  const createLock = (resource: string, handlers: LockHandlers): Lock => {
    const did: string[] = [];
    const lock = { resource, mode: Mode.NL as Mode, exists: true, busy: false };
    states.set(resource, { lock, handlers, did });
    const whole = lock as unknown as Lock;
    return Object.assign(lock, {
      request: (mode: Mode, flags: number) => {
        did.push(`request ${mode}`);
        began(`request ${mode}`);
        if (did.length === 1) firstFlags = flags;
        lock.mode = mode === Mode.EX ? grants : mode;
        if (mode === Mode.EX && grants !== Mode.NL) handlers.ast(whole, "granted");
      },
      unlock: () => did.push("unlock"),
      cancel: () => undefined,
    }) as unknown as Lock;
  };
  const service = {
    start: (
      op: string,
      _file: string,
      _owner: unknown,
      range: LockRange,
      { heldMs, first }: { readonly heldMs: number | null; readonly first: boolean },
      ended: (result: FileLockResult | Error) => void,
    ) => {
      began(op);
      return asked.push({ op, range, heldMs, first, ended });
    },
    cancel: () => undefined,
    test: (file: string) => {
      tested.push(file);
      return testsAnswered;
    },
    release: (file: string, { kind, owner }: { readonly kind: string; readonly owner: bigint }) =>
      released.push(`${file} ${kind} ${owner}`),
  };
  const locks = new VolumeFileLocks({
    lockspace: { createLock } as unknown as Lockspace,
    service: service as unknown as FileLocks,
    nodeid: 1,
    clientId: 7,
    now: () => Date.now(),
    fail: (error) => failures.push(error),
    ...more,
  });
  return { locks, asked, failures, states, released, tested, answerTests, firstFlags: () => firstFlags };
}

/** A journal that has room. */
const roomy = { areBeyond: false, setBeyond: () => undefined, locksMax: 256 };
const me = { kind: "posix", owner: 1n } as const;
const other = { kind: "posix", owner: 2n } as const;
const whole = { type: "write", start: 0n, end: maxOffset, pid: 42 } as const;
const ok: FileLockResult = { status: "granted", conflict: null };

it("what is kept here is answered at once", () => {
  const { locks, asked, firstFlags } = bench();
  expect(locks.lock("f", 1, me, whole, true).done).toBe("granted");
  expect(locks.lock("f", 2, other, whole, false).done).toBe("again");
  expect(locks.test("f", other, whole)).toEqual({ type: "write", start: 0n, end: maxOffset, pid: 42 });
  // One request for both states; and nobody is to wait for an answer to a blocking AST that a fence gate may hold up.
  expect(firstFlags()).toBe(LockFlag.ALTCW | LockFlag.MAYKEEP);
  expect(locks.unlock("f", me, 0n, maxOffset)).toBe("granted");
  expect(asked).toEqual([]);
  expect(locks.counters).toEqual({ lockedFiles: 1, lockedFilesHere: 1, fileLocks: 0, fileLockMessages: 0 });
});

it("are in use from the first request to the end of the last lock, and what the kernel forgets", () => {
  const { locks } = bench();
  expect(locks.inUse).toBe(false);
  locks.lock("f", 1, me, whole, true);
  expect(locks.inUse).toBe(true);
  locks.released("f", 1);
  expect(locks.test("f", other, whole)).toBeNull();
  locks.forgotten("f");
  expect(locks.inUse).toBe(false);
});

describe("a request whose program is killed while it waits", () => {
  const flock = { kind: "flock", owner: 9n } as const;

  it("is taken back, and given up if it was granted before that came to the master: an open file has other programs", () => {
    const { locks, asked } = bench(Mode.CW);
    locks.lock("f", 1, flock, whole, true).abandon();
    asked.at(-1)?.ended(ok);
    return vi.waitFor(() => expect(asked.map(({ op }) => op)).toEqual(["lock", "unlock"]));
  });

  it("and is not granted, gives nothing up", async () => {
    const { locks, asked } = bench(Mode.CW);
    const killed = locks.lock("f", 1, flock, whole, true);
    killed.abandon();
    asked.at(-1)?.ended({ status: "canceled", conflict: null });
    expect([await killed.done, asked.map(({ op }) => op)]).toEqual(["canceled", ["lock"]]);
  });

  it("gives up only what its open file had not before", async () => {
    const { locks, asked } = bench(Mode.CW);
    const ofd = locks.lock("f", 1, me, { ...whole, type: "read", start: 10n, end: 19n }, true);
    asked.at(-1)?.ended(ok);
    await ofd.done;
    const killed = locks.lock("f", 1, me, { ...whole, start: 0n, end: 29n }, true);
    killed.abandon();
    asked.at(-1)?.ended(ok);
    expect(await killed.done).toBe("granted");
    await Promise.resolve();
    expect(asked.slice(2).map(({ op, range }) => `${op} ${range.start} ${range.end}`)).toEqual(["unlock 0 9", "unlock 20 29"]);
  });

  it.each([
    { what: "nothing of a flock that another program of its open file has: it was the same", had: whole.type, more: [] },
    { what: "a flock that its conversion had given up before", had: "read" as const, more: ["unlock"] },
  ])("gives up $what", async ({ had, more }) => {
    const { locks, asked } = bench(Mode.CW);
    const lives = locks.lock("f", 1, flock, { ...whole, type: had }, true);
    asked.at(-1)?.ended(ok);
    await lives.done;
    const killed = locks.lock("f", 1, flock, whole, true);
    killed.abandon();
    asked.at(-1)?.ended(ok);
    expect(await killed.done).toBe("granted");
    await Promise.resolve();
    expect(asked.map(({ op }) => op)).toEqual(["lock", "lock", ...more]);
  });

  it.each([me, flock])("$kind: gives up what its open file had, and another program of it unlocks", async (owner) => {
    const { locks, asked } = bench(Mode.CW);
    const first = locks.lock("f", 1, owner, { ...whole, type: "read" }, true);
    asked.at(-1)?.ended(ok);
    await first.done;
    const killed = locks.lock("f", 1, owner, whole, true);
    const unlocked = locks.unlock("f", owner, 0n, maxOffset);
    const [, locking, unlocking] = asked;
    // The service has unlocked, and then granted, before it hears of the cancel.
    killed.abandon();
    unlocking?.ended(ok);
    await unlocked;
    locking?.ended(ok);
    expect(await killed.done).toBe("granted");
    await Promise.resolve();
    expect(asked.map(({ op }) => op)).toEqual(["lock", "lock", "unlock", "unlock"]);
  });

  it.each([
    ["granted", [0, 1], []],
    ["granted", [1, 0], []],
    // That one's conversion had begun by giving up what was there, as far as the node knows.
    ["canceled", [0, 1], ["unlock", "unlock"]],
    ["canceled", [1, 0], ["unlock"]],
  ] as const)("another program of its open file, which asked since, is %s: the answers come as %j", async (status, order, more) => {
    const { locks, asked } = bench(Mode.CW);
    const requests = [locks.lock("f", 1, flock, whole, true), locks.lock("f", 1, flock, whole, true)] as const;
    requests[0].abandon();
    for (const at of order) {
      asked.at(at)?.ended(at === 0 ? ok : { status, conflict: null });
      expect(await requests[at].done).toBe(at === 0 ? "granted" : status);
      await Promise.resolve();
    }
    expect(asked.slice(2).map(({ op }) => op)).toEqual(more);
  });

  it.each([[0, 1] as const, [1, 0] as const])(
    "another program of its open file is granted other bytes: those that nobody knows of are given up (answers %i, %i)",
    async (...order) => {
      const { locks, asked } = bench(Mode.CW);
      const killed = locks.lock("f", 1, me, { ...whole, start: 0n, end: 9n }, true);
      const lives = locks.lock("f", 1, me, { ...whole, start: 4n, end: 5n }, true);
      killed.abandon();
      for (const at of order) asked[at]?.ended(ok);
      expect([await killed.done, await lives.done]).toEqual(["granted", "granted"]);
      await new Promise((resolve) => setImmediate(resolve));
      expect(asked.slice(2).map(({ op, range }) => `${op} ${range.start} ${range.end}`)).toEqual(["unlock 0 3", "unlock 6 9"]);
    },
  );

  it("another program of its open file waits on: only those bytes are kept for it", async () => {
    const { locks, asked } = bench(Mode.CW);
    const killed = locks.lock("f", 1, me, { ...whole, start: 0n, end: 9n }, true);
    const waits = locks.lock("f", 1, me, { ...whole, start: 8n, end: 19n }, true);
    killed.abandon();
    asked[0]?.ended(ok);
    expect(await killed.done).toBe("granted");
    await Promise.resolve();
    expect(asked.slice(2).map(({ op, range }) => `${op} ${range.start} ${range.end}`)).toEqual(["unlock 0 7"]);
    asked[1]?.ended({ status: "canceled", conflict: null });
    expect(await waits.done).toBe("canceled");
    await Promise.resolve();
    expect(asked.slice(3).map(({ op, range }) => `${op} ${range.start} ${range.end}`)).toEqual(["unlock 8 9"]);
  });

  it.each([[0, 1] as const, [1, 0] as const])(
    "another program of its open file is granted in the turn in which it is: the answers come as %i, %i",
    async (...order) => {
      const { locks, asked } = bench(Mode.CW);
      const requests = [locks.lock("f", 1, flock, whole, true), locks.lock("f", 1, flock, whole, true)] as const;
      requests[0].abandon();
      for (const at of order) asked.at(at)?.ended(ok);
      expect([await requests[0].done, await requests[1].done]).toEqual(["granted", "granted"]);
      await new Promise((resolve) => setImmediate(resolve));
      expect(asked.slice(2).map(({ op }) => op)).toEqual([]);
    },
  );
});

it("GETLK: the process of a lock of this node, 0 for one of another node or another program", async () => {
  const { locks, asked } = bench(Mode.CW);
  for (const [nodeid, clientId, pid] of [
    [1, 7, 42],
    [2, 7, 0],
    [1, 8, 0],
  ] as const) {
    const found = locks.test("f", other, whole);
    const conflict = { ...whole, owner: { nodeid, clientId, ...me } };
    asked.at(-1)?.ended({ status: "granted", conflict });
    expect(await found).toEqual({ type: "write", start: 0n, end: maxOffset, pid });
  }
});

it("close(2) waits for the end of the process's locks, CLOSE_WAIT_MS and no longer", async () => {
  vi.useFakeTimers();
  const { locks, asked } = bench(Mode.CW);
  const { done } = locks.lock("f", 1, me, whole, true);
  asked.at(-1)?.ended(ok);
  expect(await done).toBe("granted");
  let closed = false;
  void Promise.resolve(locks.closed("f", 1n)).then(() => (closed = true));
  expect(asked.at(-1)?.op).toBe("unlock");
  await vi.advanceTimersByTimeAsync(CLOSE_WAIT_MS - 1);
  expect(closed).toBe(false);
  await vi.advanceTimersByTimeAsync(1);
  expect(closed).toBe(true);
  // It takes effect all the same.
  asked.at(-1)?.ended(ok);
  expect(locks.counters.fileLocks).toBe(0);
  expect(locks.closed("f", 1n)).toBe(undefined);
});

it.each(["here", "cluster"] as const)(
  "a lock granted after a close that came while it was waited for goes at the next close (%s)",
  async (where) => {
    const { locks, asked } = bench(where === "here" ? Mode.EX : Mode.CW);
    /** Of the service, which answers when told. */
    const answer = (at: number): void => asked[at]?.ended(ok);
    void locks.lock("f", 1, me, whole, true);
    answer(0);
    const { done } = locks.lock("f", 5, other, whole, true);
    expect(done).toBeInstanceOf(Promise);
    const first = locks.closed("f", 2n);
    answer(2);
    await first;
    void locks.unlock("f", me, 0n, maxOffset);
    answer(3);
    answer(1);
    expect(await done).toBe("granted");
    expect(locks.counters.fileLocks).toBe(1);
    const last = locks.closed("f", 2n);
    answer(4);
    await last;
    locks.released("f", 5);
    expect([asked.length, locks.counters.fileLocks]).toEqual([where === "here" ? 0 : 5, 0]);
  },
);

it("a POSIX lock granted after such a close goes at the end of its open file: a thread that is being killed does not undo it", async () => {
  const { locks, asked } = bench(Mode.CW);
  const { done } = locks.lock("f", 1, me, whole, true);
  const closed = locks.closed("f", 1n);
  asked[1]?.ended(ok);
  await closed;
  asked[0]?.ended(ok);
  expect(await done).toBe("granted");
  locks.released("f", 1);
  expect(asked.map(({ op }) => op)).toEqual(["lock", "unlock", "unlock"]);
  asked[2]?.ended(ok);
  expect(locks.counters.fileLocks).toBe(0);
});

it("a close by a process without locks on the file asks nobody, and is over at once", () => {
  const { locks, asked, states } = bench(Mode.CW);
  expect(locks.closed("f", 2n)).toBe(undefined);
  expect(states.size).toBe(0);
  void locks.lock("f", 1, me, whole, true);
  asked[0]?.ended(ok);
  void locks.lock("f", 1, me, whole, true);
  expect(locks.closed("f", 2n)).toBe(undefined);
  expect([asked.length, states.get("f")?.did]).toEqual([2, [`request ${Mode.EX}`]]);
});

it("the end of an open file gives up what was locked through it, and asks for nothing if that is nothing", () => {
  const { locks } = bench();
  const flock = { kind: "flock", owner: 9n } as const;
  expect(locks.lock("f", 5, flock, whole, true).done).toBe("granted");
  locks.released("f", 4);
  expect(locks.counters.fileLocks).toBe(1);
  locks.released("f", 5);
  expect(locks.counters.fileLocks).toBe(0);
});

it("a file that the kernel knows no more is given up, if nothing of it is locked", () => {
  const { locks, states } = bench();
  void locks.lock("f", 1, me, whole, true);
  locks.forgotten("f");
  expect(states.get("f")?.did).toEqual([`request ${Mode.EX}`]);
  void locks.unlock("f", me, 0n, maxOffset);
  locks.forgotten("f");
  expect(states.get("f")?.did).toEqual([`request ${Mode.EX}`, "unlock"]);
  // A blocking AST that was on its way.
  states.get("f")?.handlers.bast({} as Lock, Mode.EX);
  expect(locks.counters.lockedFiles).toBe(0);
});

it("the list for people shows FILES_SHOWN files, and says that there are more", () => {
  vi.useFakeTimers();
  const { locks } = bench();
  for (let at = 0; at < FILES_SHOWN; at++) void locks.lock(`f${at}`, 1, me, { ...whole, start: 5n }, true);
  expect(locks.describe().truncated).toBe(false);
  void locks.lock("one more", 1, me, whole, true);
  vi.advanceTimersByTime(1500);
  const { files, truncated } = locks.describe();
  expect([files.length, truncated]).toEqual([FILES_SHOWN, true]);
  expect(files[0]).toEqual({
    file: "f0",
    kept: "here",
    held: [{ kind: "posix", owner: "1", pid: 42, type: "write", start: "5", end: null, heldMs: 1500 }],
    waiting: 0,
  });
});

it("to be seen, locks are brought to the service: for GATHER_LIMIT_MS at most", async () => {
  vi.useFakeTimers();
  const { locks, asked, states } = bench();
  void locks.lock("f1.1", 1, me, whole, true);
  await vi.advanceTimersByTimeAsync(7000);
  let gathered = false;
  void locks.gather(["f1.1"]).then(() => (gathered = true));
  expect(asked.map(({ op, heldMs }) => [op, heldMs])).toEqual([["lock", 7000]]);
  await vi.advanceTimersByTimeAsync(GATHER_LIMIT_MS - 1);
  expect(gathered).toBe(false);
  await vi.advanceTimersByTimeAsync(1);
  expect(gathered).toBe(true);
  asked.at(-1)?.ended(ok);
  expect(states.get("f1.1")?.did).toEqual([`request ${Mode.EX}`, `request ${Mode.CW}`]);
  expect(locks.describe().files[0]?.kept).toBe("cluster");
});

it("the end of the connection to dlmd takes the mount out; after the end of the mount nothing is asked any more", () => {
  const { locks, asked, failures } = bench(Mode.CW);
  void locks.lock("f", 1, me, whole, true);
  asked.at(-1)?.ended(new Error("the connection to dlmd ended"));
  expect(failures.map(({ message }) => message)).toEqual(["the connection to dlmd ended"]);
  locks.end();
  expect(() => locks.lock("f", 1, me, whole, true)).toThrow("EIO");
  expect(locks.closed("f", 1n)).toBe(undefined);
});

/** What one process gives, as the next one takes it. */
function handedOver(): { old: ReturnType<typeof bench>; next: ReturnType<typeof bench> } {
  const [old, next] = [bench(), bench()];
  for (const [file, fh, owner, range] of [
    ["f", 1, me, { ...whole, end: 9n }],
    ["f", 2, { kind: "flock", owner: 2n }, whole],
    ["g", 3, other, { ...whole, type: "read" }],
  ] as const)
    expect(old.locks.lock(file, fh, owner, range, false).done).toBe("granted");
  expect(old.locks.rest()).toBe(true);
  next.locks.inherit(old.locks.rows());
  return { old, next };
}

it("another process goes on: it asks first in each queue, has all locks by the same owners, and they end as they would have", () => {
  vi.useFakeTimers();
  const { old, next } = handedOver();
  vi.advanceTimersByTime(5000);
  expect(next.firstFlags()).toBe(LockFlag.HEADQUE | LockFlag.MAYKEEP);
  expect([...next.states.values()].flatMap(({ did }) => did)).toEqual([`request ${Mode.EX}`, `request ${Mode.EX}`]);
  expect([...old.states.values()].flatMap(({ did }) => did)).not.toContain("unlock");
  const shown = ({ locks }: typeof old): unknown => locks.describe();
  expect(shown(next)).toEqual(shown(old));
  old.locks.letGo();
  expect([...old.states.values()].map(({ did }) => did.at(-1))).toEqual(["unlock", "unlock"]);

  const { locks, asked } = next;
  expect(locks.hasInherited).toBe(true);
  expect(locks.lock("f", 4, other, whole, false).done).toBe("again");
  expect(locks.lock("f", 4, me, whole, false).done).toBe("granted");
  expect(locks.lock("g", 4, me, whole, false).done).toBe("again");
  // RELEASE gives up what was locked through that handle in the process before.
  locks.released("g", 3);
  locks.released("f", 2);
  void locks.closed("f", 1n);
  expect([locks.counters.fileLocks, asked.length]).toEqual([0, 0]);
});

it("the next process does not go on before the lock manager has given it each file", () => {
  const [old, next] = [bench(), bench(Mode.NL)];
  expect(old.locks.lock("f", 1, me, whole, false).done).toBe("granted");
  expect([old.locks.rest(), next.locks.hasInherited]).toEqual([true, true]);
  next.locks.inherit(old.locks.rows());
  expect(next.locks.hasInherited).toBe(false);
  const state = next.states.get("f");
  if (state === undefined) throw new Error("nothing was asked for");
  state.lock.mode = Mode.EX;
  state.handlers.ast(state.lock as unknown as Lock, "granted");
  expect(next.locks.hasInherited).toBe(true);
});

it("what is in the service rests when it has answered all, and is taken back before if it can be (hazard F45)", async () => {
  vi.useFakeTimers();
  const { locks, asked, states } = bench(Mode.CW);
  void locks.lock("f", 1, me, whole, false);
  asked.at(-1)?.ended(ok);
  // What is in the service is tried when no request is under way there.
  void locks.lock("f", 1, other, whole, false);
  expect([locks.rest(), locks.rest()]).toEqual([false, false]);
  expect(states.get("f")?.did).toEqual([`request ${Mode.EX}`]);
  asked.at(-1)?.ended({ status: "again", conflict: null });
  expect(locks.rest()).toBe(false);
  await Promise.resolve();
  expect([locks.rest(), locks.rest()]).toEqual([true, true]);
  expect(states.get("f")?.did).toEqual([`request ${Mode.EX}`, `request ${Mode.EX}`]);
  expect(locks.rows()).toMatchObject([{ file: "f", shared: true, held: [{ owner: me, range: { type: "write" } }] }]);
  // At rest nothing is taken back, however long that is.
  vi.advanceTimersByTime(10_000);
  const state = states.get("f");
  state?.handlers.bast(state.lock as Lock, Mode.EX);
  expect(state?.did).toHaveLength(2);
  locks.restEnds();
});

describe("another process goes on with locks that are in the service (hazard F45)", () => {
  const shared = (): ReturnType<typeof bench> => {
    const old = bench(Mode.CW);
    void old.locks.lock("f", 3, me, { ...whole, start: 0n, end: 9n }, false);
    old.asked.at(-1)?.ended(ok);
    return old;
  };
  const handOver = (): { old: ReturnType<typeof bench>; next: ReturnType<typeof bench> } => {
    const [old, next] = [shared(), bench(Mode.NL)];
    next.locks.inherit(old.locks.rows());
    return { old, next };
  };

  it("asks for the state with those who share it, and for each lock before all that wait, and has them when both are there", () => {
    const { next } = handOver();
    const state = next.states.get("f");
    expect([state?.did, next.firstFlags()]).toEqual([[`request ${Mode.CW}`], LockFlag.HEADQUE | LockFlag.MAYKEEP]);
    expect(next.asked.map(({ op, first }) => [op, first])).toEqual([["lock", true]]);
    expect([next.locks.hasInheritedHere, next.locks.hasInherited]).toEqual([true, false]);
    state?.handlers.ast(state.lock as Lock, "granted");
    expect(next.locks.hasInherited).toBe(false);
    next.asked[0]?.ended(ok);
    expect(next.locks.hasInherited).toBe(true);
    // It is a lock like any other: RELEASE gives it up.
    next.locks.released("f", 3);
    expect(next.asked.map(({ op }) => op)).toEqual(["lock", "unlock"]);
  });

  it("the one before gives up its locks and the state, in that order, and hears of nothing any more", () => {
    const { old } = handOver();
    old.locks.letGo();
    expect([old.released, old.states.get("f")?.did.at(-1)]).toEqual([["f posix 1"], "unlock"]);
  });

  it("what the service refuses is said before anything is given up", async () => {
    const { next } = handOver();
    const state = next.states.get("f");
    state?.handlers.ast(state.lock as Lock, "granted");
    next.asked[0]?.ended({ status: "limit", conflict: null });
    expect(() => next.locks.hasInherited).toThrow("dlmd has no room for the file locks of f once more");
    next.answerTests();
    await expect(next.locks.hasAsked()).rejects.toThrow("dlmd has no room");
  });

  it("asks about TESTS_AT_A_TIME files at a time", async () => {
    const next = bench(Mode.NL);
    const rows = Array.from({ length: TESTS_AT_A_TIME + 1 }, (_, at) => ({ file: `f${at}`, shared: true, held: [], users: [] }));
    next.locks.inherit(rows);
    const asked = next.locks.hasAsked();
    expect(next.tested).toHaveLength(TESTS_AT_A_TIME);
    next.answerTests();
    await asked;
    expect(next.tested).toHaveLength(TESTS_AT_A_TIME + 1);
  });

  it("what is unlocked, and waits for the service, is not held again while what came before it is asked for", () => {
    vi.useFakeTimers();
    const rows: number[] = [];
    const { locks, asked, states } = bench(Mode.EX, {
      journal: { ...roomy, set: (_: string, row: FileLockRow | null) => void rows.push(row?.held.length ?? 0) },
    });
    const flocks = [1n, 2n].map((owner) => ({ kind: "flock", owner }) as const);
    for (const owner of flocks) expect(locks.lock("f", 1, owner, { ...whole, type: "read" }, true).done).toBe("granted");
    const state = states.get("f");
    state?.handlers.bast(state.lock as Lock, Mode.EX);
    vi.advanceTimersByTime(1000);
    expect(asked).toHaveLength(2);
    // Both wait until the service has what is held.
    void locks.lock("f", 2, me, whole, true);
    void locks.unlock("f", { kind: "flock", owner: 1n }, 0n, maxOffset);
    expect(rows.at(-1)).toBe(1);
    const before = rows.length;
    for (const { ended } of asked.splice(0)) ended(ok);
    expect([asked.map(({ op }) => op), Math.max(...rows.slice(before))]).toEqual([["lock", "unlock"], 1]);
  });

  it("is told at once, whatever it has to wait for besides", () => {
    const [old, next] = [shared(), bench(Mode.NL)];
    next.locks.inherit([...old.locks.rows(), { file: "g", shared: false, held: [], users: [] }]);
    next.asked[0]?.ended({ status: "limit", conflict: null });
    expect(() => next.locks.hasInherited).toThrow("dlmd has no room");
  });

  it("masters know of them when they have answered what is asked behind them, also where the state is here already", async () => {
    const { next } = handOver();
    const state = next.states.get("f");
    state?.handlers.ast(state.lock as Lock, "granted");
    let known = false;
    const asked = next.locks.hasAsked().then(() => (known = true));
    expect([next.tested, known]).toEqual([["f"], false]);
    next.answerTests();
    await asked;
    expect(known).toBe(true);
  });
});

describe("for a process that goes on after a crash (hazard F40)", () => {
  const journal = () => {
    const rows = new Map<string, number>();
    return {
      ...roomy,
      rows,
      set: (file: string, row: FileLockRow | null) => void (row === null ? rows.delete(file) : rows.set(file, row.held.length)),
    };
  };

  it("what is held is written down before the program hears of it, and what is given up no more", async () => {
    const written = journal();
    const { locks, states } = bench(Mode.NL, { journal: written });
    const { done } = locks.lock("f", 1, me, whole, true);
    const waits = locks.lock("f", 2, other, { ...whole, type: "read" }, true);
    expect([...written.rows]).toEqual([]);
    const state = states.get("f");
    if (state === undefined) throw new Error("its state was not asked for");
    state.lock.mode = Mode.EX;
    state.handlers.ast(state.lock as Lock, "granted");
    expect([...written.rows]).toEqual([["f", 1]]);
    expect(await done).toBe("granted");
    void locks.unlock("f", me, 0n, 9n);
    expect([...written.rows]).toEqual([["f", 1]]);
    void locks.closed("f", 1n);
    // Who waited has it.
    expect([...written.rows]).toEqual([["f", 1]]);
    expect(await waits.done).toBe("granted");
    locks.released("f", 2);
    expect([...written.rows]).toEqual([]);
    expect(locks.lock("f", 1, me, whole, true).done).toBe("granted");
    expect([...written.rows]).toEqual([["f", 1]]);
  });

  it("what goes to the service stays written down, as shared before the lock manager is asked; of what is asked for less only that (hazard F45)", async () => {
    vi.useFakeTimers();
    const rows: [string, boolean | null, number][] = [];
    const told = {
      ...roomy,
      set: (file: string, row: FileLockRow | null) => void rows.push([file, row?.shared ?? null, row?.held.length ?? 0]),
    };
    const atStart: unknown[] = [];
    const { locks, asked, states } = bench(Mode.EX, { journal: told }, (what) => void atStart.push([what, rows.at(-1)]));
    expect(locks.lock("f", 1, me, whole, true).done).toBe("granted");
    const state = states.get("f");
    state?.handlers.bast(state.lock as Lock, Mode.EX);
    vi.advanceTimersByTime(1000);
    expect([asked.length, rows.at(-1)]).toEqual([1, ["f", false, 1]]);
    asked[0]?.ended(ok);
    expect(atStart.at(-1)).toEqual([`request ${Mode.CW}`, ["f", true, 1]]);
    void locks.unlock("f", me, 0n, 9n);
    expect(rows.at(-1)).toEqual(["f", true, 1]);
    void locks.unlock("f", me, 0n, maxOffset);
    expect([asked.length, rows.at(-1)]).toEqual([3, ["f", null, 0]]);
    // Before the service is asked: it may be done from then on.
    expect(atStart.at(-1)).toEqual(["unlock", ["f", null, 0]]);
    expect(locks.whyNoCrash).toBeNull();
  });

  it("a file with many locks is written down once for all of them when it goes to the service (hazard F45)", () => {
    vi.useFakeTimers();
    let written = 0;
    const { locks, asked, states } = bench(Mode.EX, { journal: { ...roomy, set: () => void (written += 1) } });
    for (let at = 0n; at < 100n; at += 1n) void locks.lock("f", 1, me, { ...whole, start: 10n * at, end: 10n * at + 5n }, false);
    const before = written;
    const state = states.get("f");
    state?.handlers.bast(state.lock as Lock, Mode.EX);
    vi.advanceTimersByTime(1000);
    expect(asked).toHaveLength(100);
    for (const { ended } of asked.splice(0)) ended(ok);
    expect(written - before).toBeLessThan(5);
  });

  it("of a file with more locks than are written down no row is made at each change, until it has fewer", () => {
    const told: string[] = [];
    const room = { areBeyond: false, locksMax: 2, setBeyond: () => void told.push("beyond") };
    const { locks } = bench(Mode.EX, {
      journal: { ...room, set: (_: string, row: FileLockRow | null) => void told.push(`${row?.held.length}`) },
    });
    for (let at = 0n; at < 4n; at += 1n) locks.lock("f", 1, me, { ...whole, start: 10n * at, end: 10n * at + 5n }, false);
    void locks.lock("f", 2, other, whole, true);
    void locks.unlock("f", me, 0n, 5n);
    void locks.unlock("f", me, 10n, 15n);
    expect(told).toEqual(["1", "1", "2", "beyond", "beyond", "beyond", "beyond", "2"]);
  });

  it("who uses a file is written down when that ends, also where nothing is unlocked by it: the next owner of its number is another one", async () => {
    let row: FileLockRow | null = null;
    const users = (): string[] => (row?.users ?? []).map(({ owner, handles }) => `${owner.owner} ${handles.join()}`);
    const { locks, asked } = bench(Mode.CW, { journal: { ...roomy, set: (_, now) => void (row = now) } });
    const held = locks.lock("f", 1, other, whole, true);
    asked.at(-1)?.ended(ok);
    await held.done;
    for (const [fh, of] of [
      [5, me],
      [6, me],
      [7, { kind: "posix", owner: 3n }],
    ] as const) {
      const refused = locks.lock("f", fh, of, whole, false);
      asked.at(-1)?.ended({ status: "again", conflict: null });
      await refused.done;
    }
    expect(users()).toEqual(["2 1", "1 5,6", "3 7"]);
    locks.released("f", 5);
    expect(users()).toEqual(["2 1", "1 6", "3 7"]);
    locks.released("f", 6);
    expect(users()).toEqual(["2 1", "3 7"]);
    void locks.closed("f", 3n);
    expect(users()).toEqual(["2 1"]);
  });

  it("what a killed caller is granted late is not written down: who goes on after a crash would keep it (hazard F52)", async () => {
    const rows: string[] = [];
    const text = (row: FileLockRow | null): string => (row?.held ?? []).map(({ range }) => `${range.start}-${range.end}`).join();
    const { locks, asked } = bench(Mode.CW, { journal: { ...roomy, set: (_, row) => void rows.push(text(row)) } });
    const killed = locks.lock("f", 1, me, { ...whole, start: 0n, end: 9n }, true);
    const waits = locks.lock("f", 1, me, { ...whole, start: 8n, end: 19n }, true);
    killed.abandon();
    // Of which no more is given up now than what nobody else asks for.
    asked[0]?.ended(ok);
    asked[2]?.ended(ok);
    await killed.done;
    expect(rows.filter((row) => row !== "")).toEqual([]);
    asked[1]?.ended(ok);
    expect([await waits.done, rows.at(-1)]).toEqual(["granted", "8-19"]);
  });

  it("a file that goes to the service stays written down as shared, also if dlmd has not answered that for long", async () => {
    vi.useFakeTimers();
    let row: FileLockRow | null = null;
    const { locks, asked, states } = bench(Mode.EX, { journal: { ...roomy, set: (_, now) => void (row = now) } });
    void locks.lock("f", 1, me, whole, true);
    void locks.gather(["f"]);
    asked[0]?.ended(ok);
    asked[1]?.ended(ok);
    expect((row as FileLockRow | null)?.shared).toBe(true);
    // As a recovery holds it up: the conversion is under way.
    Object.assign(states.get("f")?.lock ?? {}, { mode: Mode.EX, busy: true });
    await vi.advanceTimersByTimeAsync(1500);
    const refused = locks.lock("f", 2, other, whole, false);
    asked.at(-1)?.ended({ status: "again", conflict: null });
    expect((row as FileLockRow | null)?.shared).toBe(true);
    expect(await refused.done).toBe("again");
  });

  it("says so while more is held than there is room for", () => {
    const { locks } = bench(Mode.EX, { journal: { ...journal(), areBeyond: true } });
    expect(locks.whyNoCrash).toMatch(/more file locks than are written down/);
  });

  const written = () => {
    const memory = new ArrayBuffer(JOURNAL_BYTES);
    return { journal: new JournalLocks(memory), found: () => new JournalLocks(memory).goOn(Date.now()) };
  };
  const third = { kind: "posix", owner: 3n } as const;

  it("what is granted since another one waits no more is written down, too", async () => {
    const { journal: rows, found } = written();
    const { locks } = bench(Mode.EX, { journal: rows });
    expect(locks.lock("f", 1, me, { ...whole, type: "read" }, true).done).toBe("granted");
    const waits = locks.lock("f", 2, other, whole, true);
    const behind = locks.lock("f", 3, third, { ...whole, type: "read" }, true);
    expect(found()[0]?.held).toHaveLength(1);
    waits.cancel();
    expect(await behind.done).toBe("granted");
    expect(found()[0]?.held.map(({ owner }) => owner.owner)).toEqual([1n, 3n]);
  });

  it("in the turn in which more is held than there is room for it is said that nobody could go on", () => {
    const { journal: rows, found } = written();
    let said = 0;
    const { locks } = bench(Mode.EX, { journal: rows, beyond: () => (said += 1) });
    let count = 0n;
    for (; !rows.areBeyond && count < 1000n; count += 1n) {
      expect(said).toBe(0);
      expect(locks.lock("f", 1, me, { ...whole, start: 10n * count, end: 10n * count + 5n }, false).done).toBe("granted");
    }
    expect([found()[0]?.held.length, said]).toEqual([Number(count) - 1, 1]);
    expect(locks.whyNoCrash).toMatch(/more file locks than are written down/);
  });

  it("what it has taken over stays here until it serves, whoever wants it", () => {
    vi.useFakeTimers();
    const { journal: rows, found } = written();
    expect(bench(Mode.EX, { journal: rows }).locks.lock("f", 1, me, whole, true).done).toBe("granted");
    const { locks, states, asked } = bench(Mode.EX, { journal: rows });
    locks.inherit(found(), true);
    const state = states.get("f");
    state?.handlers.bast(state.lock as Lock, Mode.EX);
    vi.advanceTimersByTime(1000);
    expect([asked.length, found().length]).toEqual([0, 1]);
    locks.restEnds();
    vi.advanceTimersByTime(1000);
    expect(asked.map(({ op }) => op)).toEqual(["lock"]);
  });

  it("takes over the state that dlmd has kept, where the one before has crashed", () => {
    const old = bench();
    expect(old.locks.lock("f", 1, me, whole, true).done).toBe("granted");
    const next = bench();
    next.locks.inherit(old.locks.rows(), true);
    expect([next.firstFlags(), next.locks.hasInherited]).toEqual([LockFlag.ORPHAN | LockFlag.MAYKEEP, true]);
    expect(next.locks.lock("f", 2, other, whole, false).done).toBe("again");
  });
});

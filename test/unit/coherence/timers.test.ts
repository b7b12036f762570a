/** Times that the coherence layer waits, and how often it does so: each test goes past one, by a clock of its own. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import type { Lock, LockHandlers } from "../../../dlmd/client/api.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { Cover, type Inode, type InodeKind } from "../../../overlay/coherence/cover.ts";
import { CoherenceState } from "../../../overlay/coherence/effect.ts";
import { Invalidation, type KernelCaches } from "../../../overlay/coherence/kernel/revoke-round.ts";
import { dropInodes, type InodeBatch } from "../../../overlay/coherence/kernel/drop-all.ts";
import { namesElsewhere, tellName, toldName } from "../../../overlay/coherence/names/names.ts";
import { LOWERED_FIRST, LOWERED_THEN } from "../../../overlay/coherence/lock/new-inodes.ts";
import { bear, beginBirths, fail, inodeOf, lockspaceThatGrants, shellOver } from "./shell-lab.ts";
import { bench, caller, soon, tell, WRITER } from "./size/size-lab.ts";

// Its own functions are not played by fake timers.
vi.mock("node:timers/promises", () => ({ setTimeout: (ms: number) => new Promise((resolve) => setTimeout(resolve, ms)) }));

beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] }));
afterEach(() => void vi.useRealTimers());

/** Whether the work was over before its last millisecond, and after it. */
async function around(work: Promise<unknown>, timeMs: number): Promise<boolean[]> {
  let over = false;
  const end = (): void => void (over = true);
  work.then(end, end);
  const seen: boolean[] = [];
  for (const stepMs of [timeMs - 1, 1]) {
    await vi.advanceTimersByTimeAsync(stepMs);
    await soon();
    seen.push(over);
  }
  return seen;
}

const never = (): Promise<number[]> => new Promise(() => undefined);

function knownCover(ino: number, kind: InodeKind): Cover {
  const id = { ino, generation: 1 };
  const cover = new Cover(id, kind);
  cover.inode = { fuseNodeid: ino, id, kind, nlookup: 1, openCount: 0, mappableCount: 0, cover };
  return cover;
}

describe("names that the kernel is to drop", () => {
  function scene(expireNames: () => Promise<number[]>) {
    let epochs = 0;
    const state = new CoherenceState();
    const answer = (): Promise<number[]> => Promise.resolve([0]);
    const incrementEpoch = (): Promise<number[]> => {
      epochs += 1;
      return answer();
    };
    const caches = { expireNames, incrementEpoch, invalidateAttributes: answer } as unknown as KernelCaches;
    const [dir, child] = [knownCover(4, "directory"), knownCover(5, "directory")];
    const name = Buffer.from("a");
    tellName(dir, name, child, true, state.epoch, 0);
    const invalidation = new Invalidation(caches, state, () => false, fail);
    return {
      isTold: () => toldName(dir, name) === child,
      epochs: () => epochs,
      expire: (names = 1) =>
        invalidation.round(dir, {
          what: "names",
          expiry: { epoch: false, names: Array.from({ length: names }, () => ({ name, drop: false })) },
        }),
      drop: () => invalidation.dropNames(namesElsewhere(child, knownCover(6, "directory"))),
    };
  }

  it("one by one are overtaken by the epoch after EXPIRE_WAIT_MS", async () => {
    const { expire, epochs } = scene(never);
    // One name's EXPIRE_NAME_WAIT_MS is less than a timer's step.
    expect([await around(expire(), 5), epochs()]).toEqual([[false, true], 1]);
  });

  it("that are many are waited for EXPIRE_NAME_WAIT_MS longer, each of them", async () => {
    let asked = 0;
    const { expire, epochs } = scene(() => {
      asked += 1;
      return asked === 1 ? Promise.resolve([0]) : never();
    });
    // The first EXPIRE_FIRST are expired at once.
    expect([await around(expire(64 + 4000), 5 + 20), epochs()]).toEqual([[false, true], 1]);
  });

  it("for a LOOKUP keep it waiting for DROP_WAIT_MS, and no longer", async () => {
    const { drop } = scene(never);
    expect(await around(drop(), 10)).toEqual([false, true]);
  });

  it("of a directory in use are left where they are after FORGET_WAITS_MAX waits: 1 + 2 + 4 + 8 ms", async () => {
    const { drop, isTold } = scene(() => Promise.resolve([0]));
    void drop();
    await vi.advanceTimersByTimeAsync(14);
    expect(isTold()).toBe(true);
    await vi.advanceTimersByTimeAsync(1);
    expect(isTold()).toBe(false);
  });
});

describe("dropping all that the kernel caches", () => {
  const { inode } = knownCover(7, "file");

  it("takes WRITERS_MAX threads, where all of them wait, and no more", async () => {
    let writers = 0;
    const stuck = (): InodeBatch => ({
      write: () => {
        writers += 1;
        return new Promise(() => undefined);
      },
      begun: () => writers,
      refused: () => [],
    });
    void dropInodes(
      stuck,
      Array.from({ length: 5000 }, () => inode as Inode),
    );
    // Two looks, 5 ms apart, for each doubling.
    await vi.advanceTimersByTimeAsync(50);
    expect([writers > 2, writers < 2048]).toEqual([true, true]);
    await vi.advanceTimersByTimeAsync(150);
    expect(writers).toBe(2048);
  });

  it.each([
    [500_000, [500_000]],
    [500_001, [500_000, 1]],
  ])("takes PASS_MAX inodes at a time: of %i", async (count, passes) => {
    const lengths: number[] = [];
    const done = (fuseNodeids: readonly number[]): InodeBatch => {
      lengths.push(fuseNodeids.length);
      return { write: () => Promise.resolve(0), begun: () => fuseNodeids.length, refused: () => [] };
    };
    const inodes = Array.from<Inode>({ length: count }).fill(inode as Inode);
    await dropInodes(done, inodes);
    expect(lengths).toEqual(passes);
  });
});

describe("locks", () => {
  it("for a listing are waited for BRING_WAIT_MS: what has come by then is here", async () => {
    const { lockspace } = lockspaceThatGrants([]);
    const shell = shellOver(lockspace);
    const [free, taken] = [inodeOf(shell, 11, "file"), inodeOf(shell, 12, "file")];
    lockspace.createLock("i12.7", { ast: () => undefined, bast: () => undefined }).request(Mode.EX, 0);
    expect(await around(shell.operations.fetchLocks([free, taken], Mode.PR, 20), 20)).toEqual([false, true]);
    expect([free, taken].map((inode) => shell.operations.tryPin(inode, Mode.PR))).toEqual([true, false]);
  });

  it("are asked for in the mode that is wanted, and are then here in that", async () => {
    const asked: string[] = [];
    const shell = shellOver(lockspaceThatGrants(asked).lockspace);
    const [looked, removed] = [inodeOf(shell, 11, "file"), inodeOf(shell, 12, "file")];
    await shell.operations.fetchLocks([looked], Mode.PR, 20);
    await shell.operations.fetchLocks([removed], Mode.EX, 20);
    expect(asked).toEqual([`lock i11.7 ${Mode.PR}`, `lock i12.7 ${Mode.EX}`]);
    const has = (mode: typeof Mode.PR | typeof Mode.EX): boolean[] => [looked, removed].map((inode) => shell.operations.has(inode, mode));
    expect([has(Mode.PR), has(Mode.EX)]).toEqual([
      [true, true],
      [false, true],
    ]);
    shell.failWaiters();
    expect(has(Mode.PR)).toEqual([false, false]);
  });

  it("of new inodes are registered after REGISTER_DELAY_MS", async () => {
    const asked: string[] = [];
    const shell = shellOver(lockspaceThatGrants(asked).lockspace);
    await beginBirths(shell, asked);
    bear(shell, inodeOf(shell, 11, "file"));
    await vi.advanceTimersByTimeAsync(999);
    expect(asked).toEqual([]);
    await vi.advanceTimersByTimeAsync(1);
    expect(asked).toEqual([`lock i11.7 ${Mode.EX}`]);
    await shell.close();
  });

  it("of a new file in use are registered after REGISTER_DELAY_MS more, whatever it is then", async () => {
    const asked: string[] = [];
    const shell = shellOver(lockspaceThatGrants(asked).lockspace);
    const file = inodeOf(shell, 11, "file");
    await beginBirths(shell, asked);
    bear(shell, file);
    const pinned = shell.operations.tryPin(file, Mode.EX);
    await vi.advanceTimersByTimeAsync(1999);
    expect([pinned, asked]).toEqual([true, []]);
    await vi.advanceTimersByTimeAsync(1);
    expect(asked).toEqual([`lock i11.7 ${Mode.EX}`]);
    shell.operations.unpin(file, Mode.EX);
    await shell.close();
  });

  it("of new inodes are registered at once, the oldest REGISTER_BATCH, when there are UNREGISTERED_MAX", async () => {
    const asked: string[] = [];
    const shell = shellOver(lockspaceThatGrants(asked).lockspace);
    await beginBirths(shell, asked);
    const bearNumber = (ino: number): unknown => bear(shell, inodeOf(shell, ino, "file"));
    for (let ino = 1; ino <= 255; ino += 1) bearNumber(ino);
    expect(asked).toHaveLength(0);
    bearNumber(256);
    expect(asked).toHaveLength(128);
    expect(asked.at(-1)).toBe(`lock i128.7 ${Mode.EX}`);
    await soon();
    await shell.close();
  });

  it("of new files are lowered LOWERED_THEN at a time behind a directory's, each time LOWER_DELAY_MS later, to the last (hazard F34)", async () => {
    const asked: string[] = [];
    const { lockspace, handlers } = lockspaceThatGrants(asked);
    const shell = shellOver(lockspace);
    const files = LOWERED_FIRST + LOWERED_THEN + 1;
    await beginBirths(shell, asked);
    bear(shell, inodeOf(shell, 9, "directory"));
    const made = Array.from({ length: files }, (_, at) => inodeOf(shell, 10 + at, "file"));
    for (const file of made) bear(shell, file);
    await vi.advanceTimersByTimeAsync(1000);
    expect(asked.length).toBe(1 + files);
    asked.length = 0;
    const [lock, of] = [...handlers].find(([{ resource }]) => resource === "i9.7") as [Lock, LockHandlers];
    of.bast(lock, Mode.PR);
    await soon();
    const lowered = (): number => asked.filter((one) => one.endsWith(` ${Mode.PR}`)).length;
    expect([lowered(), asked.at(-1)]).toEqual([LOWERED_FIRST + 1, `convert i9.7 ${Mode.PR}`]);
    await vi.advanceTimersByTimeAsync(4);
    expect(lowered()).toBe(LOWERED_FIRST + 1);
    await vi.advanceTimersByTimeAsync(1);
    expect(lowered()).toBe(LOWERED_FIRST + 1 + LOWERED_THEN);
    // Not without the lease.
    shell.suspend();
    await vi.advanceTimersByTimeAsync(1000);
    expect([lowered(), made[LOWERED_THEN]?.cover.phase]).toEqual([LOWERED_FIRST + 1 + LOWERED_THEN, "idle"]);
    shell.resume(false);
    await soon();
    await vi.advanceTimersByTimeAsync(5);
    expect([lowered(), vi.getTimerCount()]).toEqual([files + 1, 0]);
    await shell.close();
  });
});

describe("the kernel's size of a file", () => {
  const writers = { state: "held" as const, unregistered: false, users: 1, wanted: false, mapped: false, waiters: [] };

  it("has a READ wait STALE_MS for a repair that is older than it, and then refused", async () => {
    const { check, inode, kernel } = bench(1 << 30);
    check.toldSentinel(inode);
    kernel.truncating = (): void => {};
    const read = () => Promise.resolve(check.confirmEnd(inode, { end: 100, exact: true, mark: check.mark(inode) }, 0));
    await read();
    void check.begin(inode, "holds", caller, () => ({ size: 100 }));
    check.made(inode, "holds");
    const refused = read();
    expect(await around(refused, 2)).toEqual([false, true]);
    await expect(refused).rejects.toMatchObject({ errno: E.EINTR });
  });

  it("has a reply wait CUT_ROUNDS_MAX rounds and one for a repair that may cut, each of 20 ms", async () => {
    const { check, inode, file, kernel, done } = bench(1 << 30);
    inode.cover.token = writers;
    check.toldSentinel(inode);
    kernel.truncating = (): void => {};
    expect(await check.confirmEnd(inode, { end: 100, exact: true, mark: check.mark(inode) }, 0)).toBe(true);
    expect(check.known(inode)).toBe(false);
    expect(await around(tell(check, inode, file, done), 6 * 20)).toEqual([false, true]);
    expect(done.at(-1)).toBe("told 100");
  });

  it("has a reply wait REPAIR_MS for one repair, and then go out", async () => {
    const { check, inode, file, kernel, done } = bench(1 << 30);
    check.toldSentinel(inode);
    kernel.truncating = (): void => {};
    expect(await around(tell(check, inode, file, done), 1000)).toEqual([false, true]);
    expect(done).toEqual(["repair to 100", "told 100"]);
  });

  it("is waited for RAISED_WAIT_MS by a revoke, which then asks for a proof that the reply was taken", async () => {
    const { check, inode, kernel } = bench(100);
    kernel.locked = true;
    kernel.timed = true;
    check.replied(inode, WRITER, "raises", 120);
    void check.revoke.taken(inode);
    await vi.advanceTimersByTimeAsync(19);
    await soon();
    expect(check.counts).toMatchObject({ sizeLooks: 1, sizeLocks: 0 });
    await vi.advanceTimersByTimeAsync(1);
    await soon();
    await soon();
    expect(check.counts).toMatchObject({ sizeLooks: 1, sizeLocks: 1 });
  });
});

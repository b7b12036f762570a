/** Hazard F51: the lock under which inodes are born that only their maker knows, and who looks for an inode by its number. */
import { expect, it } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import { type Lock, LockFlag, type LockHandlers } from "../../../dlmd/client/api.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import type { Waiter } from "../../../overlay/coherence/api.ts";
import { BIRTHS } from "../../../overlay/coherence/births-lock.ts";
import type { CoherenceShell } from "../../../overlay/coherence/shell.ts";
import { bear, beginBirths, inodeOf, lockspaceThatGrants, shellOver } from "./shell-lab.ts";

const soon = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const waiter = (): Waiter => ({ interrupted: false, onInterrupt: null });

interface Rig {
  readonly shell: CoherenceShell;
  readonly asked: string[];
  readonly flags: Map<string, number>;
  /** Another node wants to look for an inode by its number. */
  readonly wanted: () => void;
  /** Grants nothing from now on, until what it gives is called. */
  readonly hold: () => () => void;
}

/** A lock manager that grants whatever is asked for; but not while it is held. */
function rig(): Rig {
  const asked: string[] = [];
  const { lockspace, handlers, flags } = lockspaceThatGrants(asked);
  let held: (() => void)[] | null = null;
  const createLock = <A>(resource: string, given: LockHandlers<A | undefined>, astarg?: A): Lock => {
    const ast: LockHandlers<A | undefined>["ast"] = (lock, status, of) => {
      if (held === null || status !== "granted") given.ast(lock, status, of);
      else held.push(() => given.ast(lock, status, of));
    };
    return lockspace.createLock(resource, { ast, bast: (...told) => given.bast(...told) }, astarg);
  };
  return {
    shell: shellOver({ ...lockspace, createLock }),
    asked,
    flags,
    wanted: () => {
      for (const [lock, of] of handlers) if (lock.resource === BIRTHS && lock.mode === Mode.CW) of.bast(lock, Mode.PR);
    },
    hold: () => {
      held = [];
      return () => {
        const grants = held ?? [];
        held = null;
        for (const grant of grants) grant();
      };
    },
  };
}

it("an inode is born when the lock has come, which the first creation asks for, once", async () => {
  const { shell, asked } = rig();
  const [first, second, third] = [11, 12, 13].map((ino) => inodeOf(shell, ino, "file")) as [never, never, never];
  expect([bear(shell, first), bear(shell, second), asked]).toEqual([false, false, [`lock ${BIRTHS} ${Mode.CW}`]]);
  await soon();
  expect([bear(shell, third), shell.counters.unregistered, asked.length]).toEqual([true, 1, 1]);
  await shell.close();
  expect(asked.at(-1)).toBe(`unlock ${BIRTHS}`);
});

it("is given up when all that was born is known to dlmd, and nothing is born from then on", async () => {
  const { shell, asked, wanted, hold } = rig();
  await beginBirths(shell, asked);
  const [born, open, late] = [inodeOf(shell, 11, "file"), inodeOf(shell, 12, "file"), inodeOf(shell, 13, "file")];
  expect([bear(shell, born), bear(shell, open)]).toEqual([true, true]);
  expect(await shell.operations.openForWrite(open, waiter())).toBe("cached");
  const grant = hold();
  wanted();
  await soon();
  expect(asked).toEqual([`lock i11.7 ${Mode.PR}`, `lock i12.7 ${Mode.EX}`, `lock w12.7 ${Mode.PW}`]);
  expect(bear(shell, late)).toBe(false);
  // It comes twice.
  wanted();
  grant();
  await soon();
  expect(asked.slice(3)).toEqual([`unlock ${BIRTHS}`]);
  // The next creation asks for it anew.
  expect(bear(shell, late)).toBe(false);
  expect(asked.at(-1)).toBe(`lock ${BIRTHS} ${Mode.CW}`);
  await soon();
  expect(bear(shell, inodeOf(shell, 14, "file"))).toBe(true);
  await shell.close();
});

it("is given up at once if all is known", async () => {
  const { shell, asked, wanted } = rig();
  await beginBirths(shell, asked);
  wanted();
  expect(asked).toEqual([`unlock ${BIRTHS}`]);
  await shell.close();
});

it("what was made while the lock was away for a moment is not born: somebody may have found it by its number", async () => {
  const { shell, asked, wanted } = rig();
  await beginBirths(shell, asked);
  const since = shell.operations.since();
  wanted();
  await soon();
  await beginBirths(shell, asked);
  expect(shell.operations.enterNew(inodeOf(shell, 11, "file"), since)).toBe(false);
  expect([bear(shell, inodeOf(shell, 12, "file")), asked]).toEqual([true, [`unlock ${BIRTHS}`]]);
  await shell.close();
});

it("neither leaves nor comes without the lease", async () => {
  const { shell, asked, wanted } = rig();
  await beginBirths(shell, asked);
  shell.suspend();
  wanted();
  expect([asked, bear(shell, inodeOf(shell, 11, "file"))]).toEqual([[], false]);
  shell.resume(false);
  await soon();
  expect(asked).toEqual([`unlock ${BIRTHS}`]);
  shell.suspend();
  bear(shell, inodeOf(shell, 12, "file"));
  const looked = shell.operations.whileNoneIsBorn(waiter(), () => "looked");
  await soon();
  expect(asked).toHaveLength(1);
  shell.resume(false);
  await soon();
  expect(asked.slice(1)).toEqual([`lock ${BIRTHS} ${Mode.CW}`, `lock ${BIRTHS} ${Mode.PR}`]);
  wanted();
  expect(await looked).toBe("looked");
  await shell.close();
});

it("stays where the mount keeps its locks", async () => {
  const { shell, asked, wanted } = rig();
  await beginBirths(shell, asked);
  shell.keepLocks();
  wanted();
  expect([asked, bear(shell, inodeOf(shell, 11, "file"))]).toEqual([[], false]);
  await shell.close();
  expect(asked).toEqual([]);
});

it("who looks by number has PR of it until the answer is here, for as long as that takes (hazard H13)", async () => {
  const { shell, asked, flags } = rig();
  let answer: (found: string) => void = () => undefined;
  const looked = shell.operations.whileNoneIsBorn(waiter(), () => {
    asked.push("look");
    return new Promise<string>((resolve) => (answer = resolve));
  });
  await soon();
  expect([asked, flags.get(BIRTHS)]).toEqual([[`lock ${BIRTHS} ${Mode.PR}`, "look"], LockFlag.MAYKEEP]);
  answer("found");
  expect(await looked).toBe("found");
  expect(asked.at(-1)).toBe(`unlock ${BIRTHS}`);
  const failed = shell.operations.whileNoneIsBorn(waiter(), () => Promise.reject(new Error("not found")));
  await expect(failed).rejects.toThrow("not found");
  expect(asked.slice(3)).toEqual([`lock ${BIRTHS} ${Mode.PR}`, `unlock ${BIRTHS}`]);
  await shell.close();
});

it("who is killed while it waits does not look, and what comes for it goes back", async () => {
  const { shell, asked, hold } = rig();
  const call = waiter();
  const grant = hold();
  const looked = shell.operations.whileNoneIsBorn(call, () => "looked");
  await soon();
  call.onInterrupt?.();
  await expect(looked).rejects.toMatchObject({ errno: E.EINTR });
  grant();
  expect(asked).toEqual([`lock ${BIRTHS} ${Mode.PR}`, `unlock ${BIRTHS}`]);
  const before = shell.operations.whileNoneIsBorn({ interrupted: true, onInterrupt: null }, () => "looked");
  await expect(before).rejects.toMatchObject({ errno: E.EINTR });
  // Without the lease nothing was asked for yet.
  shell.suspend();
  const waits = waiter();
  const unasked = shell.operations.whileNoneIsBorn(waits, () => "looked");
  await soon();
  waits.onInterrupt?.();
  await expect(unasked).rejects.toMatchObject({ errno: E.EINTR });
  shell.resume(false);
  await soon();
  expect(asked).toHaveLength(2);
  await shell.close();
});

it("when dlmd has died nobody looks by number, and what is born is (hazard F42)", async () => {
  const { shell, asked, hold } = rig();
  await beginBirths(shell, asked);
  hold();
  const waits = shell.operations.whileNoneIsBorn(waiter(), () => "looked");
  await soon();
  shell.beAlone();
  await expect(waits).rejects.toMatchObject({ errno: E.EINTR });
  await expect(shell.operations.whileNoneIsBorn(waiter(), () => "looked")).rejects.toMatchObject({ errno: E.EINTR });
  expect([bear(shell, inodeOf(shell, 11, "file")), asked]).toEqual([true, [`lock ${BIRTHS} ${Mode.PR}`]]);
});

it("when the mount is lost, whoever waits is told EIO, and so is who comes", async () => {
  const { shell, hold } = rig();
  hold();
  const waits = shell.operations.whileNoneIsBorn(waiter(), () => "looked");
  await soon();
  shell.failWaiters();
  await expect(waits).rejects.toMatchObject({ errno: E.EIO });
  await expect(shell.operations.whileNoneIsBorn(waiter(), () => "looked")).rejects.toMatchObject({ errno: E.EIO });
});

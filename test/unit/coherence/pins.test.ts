/** Pins of operations: of several inodes at once, of children, and for writers who are killed while they wait. */
import { expect, it } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import { LockFlag } from "../../../dlmd/client/api.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import type { Waiter } from "../../../overlay/coherence/api.ts";
import { type Inode, sizeOf } from "../../../overlay/coherence/cover.ts";
import type { CoherenceShell } from "../../../overlay/coherence/shell.ts";
import { attrValid, inodeOf, lockspaceThatGrants, shellOver } from "./shell-lab.ts";

it("several inodes are pinned in the one lock order, each once and in the strongest mode asked", async () => {
  const asked: string[] = [];
  const shell = shellOver(lockspaceThatGrants(asked).lockspace);
  const { operations } = shell;
  const [low, middle, high] = [inodeOf(shell, 11, "directory"), inodeOf(shell, 12, "directory"), inodeOf(shell, 13, "file")];
  const waiter = { interrupted: false, onInterrupt: null };
  const wants = [
    { inode: high, mode: Mode.PR },
    { inode: low, mode: Mode.PR },
    { inode: middle, mode: Mode.EX },
    { inode: low, mode: Mode.EX },
  ] as const;
  await operations.pinAll(wants, waiter);
  expect(asked).toEqual([`lock i11.7 ${Mode.EX}`, `lock i12.7 ${Mode.EX}`, `lock i13.7 ${Mode.PR}`]);
  expect([low, middle, high].map(({ cover }) => cover.pins)).toEqual([1, 1, 1]);
  operations.unpinAll(wants);
  expect([low, middle, high].map(({ cover }) => cover.pins)).toEqual([0, 0, 0]);
  const two = [wants[0], wants[1]];
  expect(operations.pinAll(two, waiter)).toBeUndefined();
  operations.unpinAll(two);
  await shell.close();
});

it("a caller that is killed while it waits for the second of two inodes holds neither", async () => {
  const shell = shellOver(lockspaceThatGrants([]).lockspace);
  const { operations } = shell;
  const [first, second] = [inodeOf(shell, 11, "directory"), inodeOf(shell, 12, "file")];
  const waiter: Waiter = { interrupted: false, onInterrupt: null };
  await operations.pin(first, Mode.EX, waiter);
  operations.unpin(first, Mode.EX);
  const pinned = operations.pinAll(
    [
      { inode: second, mode: Mode.PR },
      { inode: first, mode: Mode.PR },
    ],
    waiter,
  );
  waiter.onInterrupt?.();
  await expect(pinned).rejects.toMatchObject({ errno: E.EINTR });
  expect([first.cover.pins, second.cover.pins]).toEqual([0, 0]);
  await shell.close();
});

it("a child's lock that came while its attributes were read counts as a trip; one that was here before does not", async () => {
  const shell = shellOver(lockspaceThatGrants([]).lockspace);
  const [child, other] = [inodeOf(shell, 12, "file"), inodeOf(shell, 13, "file")];
  const waiter = { interrupted: false, onInterrupt: null };
  const before = shell.operations.since();
  await shell.operations.pin(child, Mode.PR, waiter);
  shell.operations.unpin(child, Mode.PR);
  const between = shell.operations.since();
  await shell.operations.pin(other, Mode.PR, waiter);
  shell.operations.unpin(other, Mode.PR);
  expect(shell.operations.pinChild(child, before)).toEqual({ pinned: true, trip: true });
  expect(shell.operations.pinChildren([child, other], between)).toEqual([
    { pinned: true, trip: false },
    { pinned: true, trip: true },
  ]);
  shell.operations.unpin(child, Mode.PR);
  shell.operations.unpin(child, Mode.PR);
  shell.operations.unpin(other, Mode.PR);
  await shell.close();
});

it("who has a child's lock is asked to give it up for the next time, but not by what is read ahead", async () => {
  const { lockspace, flags } = lockspaceThatGrants([]);
  const shell = shellOver(lockspace);
  const [looked, ahead] = [inodeOf(shell, 12, "file"), inodeOf(shell, 13, "file")];
  expect(await shell.operations.pinChildren([looked], shell.operations.since())).toEqual([{ pinned: true, trip: true }]);
  expect(await shell.operations.pinChildren([ahead], shell.operations.since(), false)).toEqual([{ pinned: true, trip: true }]);
  expect([flags.get("i12.7"), flags.get("i13.7")]).toEqual([LockFlag.NOQUEUE | LockFlag.NOQUEUEBAST, LockFlag.NOQUEUE]);
  for (const child of [looked, ahead]) shell.operations.unpin(child, Mode.PR);
  await shell.close();
});

it("a change of attributes waits for the notification of the one before, too: what was told before both may be taken until then", async () => {
  const written: (() => void)[] = [];
  const invalidateAttributes = (): Promise<number[]> => new Promise((resolve) => written.push(() => resolve([0])));
  const shell = shellOver(lockspaceThatGrants([]).lockspace, { invalidateAttributes });
  const { operations } = shell;
  const inode = inodeOf(shell, 12, "file");
  await operations.pin(inode, Mode.EX, { interrupted: false, onInterrupt: null });
  expect(attrValid(shell, inode, 100)).toBe(true);
  const ended: string[] = [];
  const changes = ["first", "second"].map(async (name, at) => {
    await operations.attributesChanged(inode, 200 + at, false);
    ended.push(name);
  });
  await new Promise(setImmediate);
  expect([written.length, ended]).toEqual([1, []]);
  written[0]?.();
  await Promise.all(changes);
  expect(ended).toEqual(["first", "second"]);
  expect(operations.attributesChanged(inode, 300, false)).toBeUndefined();
  operations.unpin(inode, Mode.EX);
  await shell.close();
});

/** A file whose size is wrong in the kernel, and stays so, in a revoke of its PR, with one pin. `excepted`: the pages that each round leaves alone. */
async function stuckFile(results: () => Promise<number[]>): Promise<{
  readonly shell: CoherenceShell;
  readonly file: Inode;
  readonly excepted: unknown[];
  readonly bast: () => void;
}> {
  const { lockspace, handlers } = lockspaceThatGrants([]);
  const excepted: unknown[] = [];
  const shell = shellOver(lockspace, {
    invalidatePagesAndSize: (_fuseNodeid, except) => {
      excepted.push(except);
      return { gate: { shut: () => true }, results: results() };
    },
  });
  const file = inodeOf(shell, 13, "file");
  file.cover.inode = file;
  const bast = (): void => {
    for (const [lock, of] of handlers) if (lock.mode !== Mode.NL) of.bast(lock, Mode.EX);
  };
  await shell.operations.pin(file, Mode.PR, notKilled());
  Object.assign(sizeOf(file.cover), { doubt: true, unstable: 1 });
  bast();
  expect(file.cover.phase).toBe("draining");
  return { shell, file, excepted, bast };
}

const notKilled = (): Waiter => ({ interrupted: false, onInterrupt: null });
const pages = { from: 4096, to: 8192 };

it("F5: a READ that gives its pin back in a revoke waits for another, and the round that begins by that leaves its page alone", async () => {
  const { shell, file, excepted, bast } = await stuckFile(() => Promise.resolve([0]));
  const { operations } = shell;
  // The next lock that comes.
  await operations.repinData(file, Mode.PR, notKilled(), pages);
  expect([excepted, file.cover.phase, file.cover.pins]).toEqual([[[pages]], "idle", 1]);
  operations.unpinData(file, Mode.PR);
  // Killed meanwhile: it has no pin.
  await operations.pin(file, Mode.PR, notKilled());
  bast();
  const killed: Waiter = { interrupted: true, onInterrupt: null };
  await expect(operations.repinData(file, Mode.PR, killed, pages)).rejects.toMatchObject({ errno: E.EINTR });
  expect(file.cover.pins).toBe(0);
  await shell.close();
});

it("F5: a READ that is kept back passes after 40 ms, though the notification never ends", async () => {
  const { shell, file, excepted } = await stuckFile(() => new Promise(() => undefined));
  const { operations } = shell;
  const kept = Promise.resolve(operations.pinData(file, Mode.PR, true, notKilled(), pages));
  operations.unpin(file, Mode.PR);
  await kept;
  expect([excepted, file.cover.pins, file.cover.revoke?.strained]).toEqual([[[pages]], 1, true]);
  await shell.close();
});

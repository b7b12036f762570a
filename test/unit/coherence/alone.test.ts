/** dlmd has died, and the lease holds (hazard F42): what is here is given up without it, and what is not here does not come. */
import { expect, it } from "vitest";
import type { Lock, LockHandlers, Lockspace } from "../../../dlmd/client/api.ts";
import { LockFlag } from "../../../dlmd/client/api.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import type { Waiter } from "../../../overlay/coherence/api.ts";
import type { Inode } from "../../../overlay/coherence/cover.ts";
import type { CoherenceShell } from "../../../overlay/coherence/shell.ts";
import { bear, beginBirths, inodeOf, lockspaceThatGrants, shellOver } from "./shell-lab.ts";

const waiter = (): { interrupted: boolean; onInterrupt: Waiter["onInterrupt"] } => ({ interrupted: false, onInterrupt: null });
const EINTR = { name: "Errno", errno: 4 };
const turn = (): Promise<unknown> => new Promise((resolve) => setImmediate(resolve));

/** Grants until it has died; then no request is answered. */
function mortal(asked: string[]): { readonly lockspace: Lockspace; readonly rig: { dead: boolean } } {
  const { lockspace } = lockspaceThatGrants(asked);
  const rig = { dead: false };
  const createLock = <A>(resource: string, handlers: LockHandlers<A | undefined>, astarg?: A): Lock => {
    const lock = lockspace.createLock(resource, handlers, astarg);
    const request = lock.request.bind(lock);
    return Object.assign(lock, {
      request: (mode: Mode, flags: number) => (rig.dead ? void asked.push(`${resource} ${mode} of the dead`) : request(mode, flags)),
    });
  };
  return { lockspace: { ...lockspace, createLock }, rig };
}

async function held(shell: CoherenceShell, inode: Inode, mode: typeof Mode.PR | typeof Mode.EX): Promise<void> {
  await shell.operations.pin(inode, mode, waiter());
  shell.operations.unpin(inode, mode);
}

it("gives up all that is here, and what was born here, and asks for nothing", async () => {
  const asked: string[] = [];
  const dropped: number[] = [];
  const { lockspace, rig } = mortal(asked);
  const shell = shellOver(lockspace, {
    invalidatePagesAndSize: (fuseNodeid) => {
      dropped.push(fuseNodeid);
      return { gate: { shut: () => true }, results: Promise.resolve([0]) };
    },
  });
  const [dir, file, made] = [inodeOf(shell, 12, "directory"), inodeOf(shell, 13, "file"), inodeOf(shell, 14, "file")];
  for (const inode of [file, made]) inode.cover.inode = inode;
  await held(shell, dir, Mode.EX);
  await held(shell, file, Mode.PR);
  await beginBirths(shell, asked);
  bear(shell, made);
  // Open for writing: its token is to be known, too.
  expect(await shell.operations.openForWrite(made, waiter())).toBe("cached");
  rig.dead = true;
  asked.length = 0;
  shell.beAlone();
  expect(shell.rest.rest()).toBe(false);
  await expect.poll(() => shell.rest.rest()).toBe(true);
  expect([dir, file, made].map(({ cover }) => cover.mode)).toEqual([Mode.NL, Mode.NL, Mode.NL]);
  expect(made.cover.token).toMatchObject({ state: "held", users: 1 });
  expect([dropped.sort((a, b) => a - b), asked, shell.rest.shared()]).toEqual([[13, 14], [], []]);
});

it("answers once what waits for the lease: a token that was to be known stays with who has it", async () => {
  const asked: string[] = [];
  const { lockspace, handlers } = lockspaceThatGrants(asked);
  const shell = shellOver(lockspace);
  const [dir, made] = [inodeOf(shell, 12, "directory"), inodeOf(shell, 14, "file")];
  const wanted = (resource: string): void => {
    for (const [lock, told] of handlers) if (lock.resource === resource) told.bast(lock, Mode.PR);
  };
  await held(shell, dir, Mode.EX);
  await beginBirths(shell, asked);
  bear(shell, made);
  expect(await shell.operations.openForWrite(made, waiter())).toBe("cached");
  wanted("i12.7");
  await expect.poll(() => asked).toContain(`lock i14.7 ${Mode.EX}`);
  await turn();
  shell.suspend();
  wanted("i14.7");
  expect(made.cover.phase).toBe("draining");
  shell.beAlone();
  expect(made.cover.token).toMatchObject({ state: "held", users: 1 });
  shell.resume(false);
  expect(made.cover.token).toMatchObject({ state: "held", users: 1 });
  await expect.poll(() => made.cover.mode).toBe(Mode.PR);
  expect(asked).not.toContain(`lock w14.7 ${Mode.PW}`);
});

it("answers once what waits for the lease: nobody gets a lock that is being given up", async () => {
  const { lockspace, handlers } = lockspaceThatGrants([]);
  const shell = shellOver(lockspace);
  const file = inodeOf(shell, 13, "file");
  await held(shell, file, Mode.EX);
  shell.suspend();
  for (const [lock, told] of handlers) told.bast(lock, Mode.PR);
  expect(file.cover.asking).toBe(Mode.PR);
  shell.beAlone();
  expect(shell.rest.rest()).toBe(false);
  await expect.poll(() => file.cover.asking).toBe(Mode.NL);
  const look = shell.operations.pin(file, Mode.PR, waiter());
  shell.resume(false);
  await expect(look).rejects.toMatchObject(EINTR);
  expect([file.cover.pins, file.cover.mode, file.cover.phase, shell.rest.rest()]).toEqual([0, Mode.NL, "idle", true]);
});

it("whoever waits for a lock is told EINTR, and whoever comes; who opens a file gets it without a page cache", async () => {
  const { lockspace, rig } = mortal([]);
  const shell = shellOver(lockspace);
  const [dir, file, other] = [inodeOf(shell, 12, "directory"), inodeOf(shell, 13, "file"), inodeOf(shell, 14, "file")];
  await held(shell, dir, Mode.PR);
  await held(shell, other, Mode.PR);
  rig.dead = true;
  const waits = [
    shell.operations.pin(dir, Mode.EX, waiter()),
    shell.operations.pin(file, Mode.PR, waiter()),
    shell.operations.openForWrite(other, waiter()),
  ].map((wait) => Promise.resolve(wait).catch((error: unknown) => error));
  await turn();
  shell.beAlone();
  expect(await Promise.all(waits)).toEqual([expect.objectContaining(EINTR), expect.objectContaining(EINTR), "direct"]);
  await expect(shell.operations.pin(file, Mode.EX, waiter())).rejects.toMatchObject(EINTR);
  await expect.poll(() => shell.rest.rest()).toBe(true);
});

it("keeps the lock of a file of which the kernel has a page locked for a WRITE, lets READs under it pass, and says so", async () => {
  const { lockspace, rig } = mortal([]);
  const shell = shellOver(lockspace, {
    // The page of the WRITE: it is never written.
    invalidatePagesAndSize: () => ({ gate: { shut: () => true }, results: new Promise(() => undefined) }),
  });
  const file = inodeOf(shell, 13, "file");
  file.cover.inode = file;
  expect(await shell.operations.openForWrite(file, waiter())).toBe("cached");
  await held(shell, file, Mode.PR);
  rig.dead = true;
  const write = Promise.resolve(shell.operations.pinData(file, Mode.EX, true, waiter())).catch((error: unknown) => error);
  const read = Promise.resolve(shell.operations.pinData(file, Mode.PR, true, waiter()));
  await turn();
  shell.beAlone();
  expect(await write).toMatchObject(EINTR);
  await read;
  shell.operations.unpinData(file, Mode.PR);
  expect([shell.rest.rest(), shell.rest.shared(), file.cover.mode, file.cover.phase]).toEqual([true, [13], Mode.PR, "idle"]);
  // One that comes later meets the same.
  await expect(Promise.resolve(shell.operations.pinData(file, Mode.EX, true, waiter()))).rejects.toMatchObject(EINTR);
  expect(shell.rest.shared()).toEqual([13]);
});

it("a revoke of it ends, and no round of it begins any more; who waits there without a page is told EINTR", async () => {
  const { lockspace, rig } = mortal([]);
  const rounds: number[] = [];
  const shell = shellOver(lockspace, {
    invalidatePagesAndSize: (fuseNodeid) => {
      rounds.push(fuseNodeid);
      return { gate: { shut: () => true }, results: new Promise(() => undefined) };
    },
  });
  const file = inodeOf(shell, 13, "file");
  file.cover.inode = file;
  expect(await shell.operations.openForWrite(file, waiter())).toBe("cached");
  await shell.operations.pin(file, Mode.PR, waiter());
  // It is wanted elsewhere, and a READ runs.
  expect(shell.rest.rest()).toBe(false);
  shell.rest.end();
  rig.dead = true;
  const write = Promise.resolve(shell.operations.pinData(file, Mode.EX, true, waiter())).catch((error: unknown) => error);
  const stat = shell.operations.pin(file, Mode.PR, waiter()).catch((error: unknown) => error);
  await expect.poll(() => file.cover.asking).toBe(Mode.EX);
  expect(file.cover.phase).toBe("draining");
  shell.beAlone();
  expect(await write).toMatchObject(EINTR);
  // It has what it waits for: the lock stays.
  expect(await stat).toBeUndefined();
  shell.operations.unpin(file, Mode.PR);
  shell.operations.unpin(file, Mode.PR);
  expect([rounds, shell.rest.rest(), shell.rest.shared(), file.cover.phase]).toEqual([[], true, [13], "idle"]);
});

it("so it does while a notification waits for the page; then only who needs a page, too, goes on", async () => {
  const { lockspace, rig } = mortal([]);
  const notification = { end: undefined as ((results: number[]) => void) | undefined, shut: 0, rounds: 0 };
  const shell = shellOver(lockspace, {
    invalidatePagesAndSize: () => {
      notification.rounds += 1;
      const shut = (): boolean => (notification.shut += 1) > 0;
      return { gate: { shut }, results: new Promise((resolve) => (notification.end = resolve)) };
    },
  });
  const file = inodeOf(shell, 13, "file");
  file.cover.inode = file;
  expect(await shell.operations.openForWrite(file, waiter())).toBe("cached");
  await held(shell, file, Mode.PR);
  expect(shell.rest.rest()).toBe(false);
  await expect.poll(() => notification.rounds).toBe(1);
  rig.dead = true;
  const write = Promise.resolve(shell.operations.pinData(file, Mode.EX, true, waiter())).catch((error: unknown) => error);
  await expect.poll(() => file.cover.asking).toBe(Mode.EX);
  const stat = shell.operations.pin(file, Mode.PR, waiter()).catch((error: unknown) => error);
  shell.beAlone();
  expect(await Promise.all([write, stat])).toEqual([expect.objectContaining(EINTR), expect.objectContaining(EINTR)]);
  await expect(shell.operations.pin(file, Mode.PR, waiter())).rejects.toMatchObject(EINTR);
  await shell.operations.pinData(file, Mode.PR, true, waiter());
  shell.operations.unpinData(file, Mode.PR);
  expect([shell.rest.rest(), shell.rest.shared(), file.cover.mode]).toEqual([true, [13], Mode.PR]);
  notification.end?.([-125]);
  await expect.poll(() => file.cover.phase).toBe("idle");
  expect([notification.rounds, notification.shut > 0, file.cover.mode]).toEqual([1, true, Mode.PR]);
});

it("where another node has the token no page is locked, and the lock goes", async () => {
  const { lockspace, rig } = mortal([]);
  const shell = shellOver(lockspace);
  const file = inodeOf(shell, 13, "file");
  file.cover.inode = file;
  await held(shell, file, Mode.PR);
  rig.dead = true;
  // A truncate by path.
  const truncate = Promise.resolve(shell.operations.pinData(file, Mode.EX, true, waiter())).catch((error: unknown) => error);
  await turn();
  shell.beAlone();
  expect(await truncate).toMatchObject(EINTR);
  await expect.poll(() => shell.rest.rest()).toBe(true);
  expect([shell.rest.shared(), file.cover.mode]).toEqual([[], Mode.NL]);
});

it("the next process asks at once for the locks of what the kernel has, before all others, and waits for them", async () => {
  const { lockspace, flags, handlers } = lockspaceThatGrants([]);
  const dropped: number[] = [];
  const shell = shellOver(lockspace, {
    invalidatePagesAndSize: (fuseNodeid) => {
      dropped.push(fuseNodeid);
      return { gate: { shut: () => true }, results: Promise.resolve([0]) };
    },
  });
  const [file, other] = [inodeOf(shell, 13, "file"), inodeOf(shell, 14, "file")];
  shell.rest.restore(new Map([file, other].map((inode) => [inode.fuseNodeid, inode])), [], [], [13]);
  expect([shell.rest.hasTokens, [...flags]]).toEqual([false, [["i13.7", LockFlag.HEADQUE]]]);
  await expect.poll(() => shell.rest.hasTokens).toBe(true);
  expect([file.cover.mode, other.cover.mode]).toEqual([Mode.PR, Mode.NL]);
  // Somebody wants it before any request for it has come here.
  for (const [lock, of] of handlers) of.bast(lock, Mode.EX);
  await expect.poll(() => file.cover.mode).toBe(Mode.NL);
  expect(dropped).toEqual([13]);
  await shell.close();
});

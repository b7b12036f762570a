/** Another process goes on with the mount (hazard F33): all locks go here, and there the write tokens are queued for. */
import { describe, expect, it } from "vitest";
import { type Lock, LockFlag, type LockHandlers } from "../../../dlmd/client/api.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import type { Waiter } from "../../../overlay/coherence/api.ts";
import { sizeOf } from "../../../overlay/coherence/cover.ts";
import { mustWait } from "../../../overlay/coherence/size/doubt.ts";
import { bear, beginBirths, inodeOf, lockspaceThatGrants, shellOver } from "./shell-lab.ts";

const waiter = (): { interrupted: boolean; onInterrupt: Waiter["onInterrupt"] } => ({ interrupted: false, onInterrupt: null });

describe("the old process", () => {
  it("gives up every lock, as if another node wanted it, and does not say that it rests before", async () => {
    const asked: string[] = [];
    const dropped: number[] = [];
    const shell = shellOver(lockspaceThatGrants(asked).lockspace, {
      invalidatePages: (fuseNodeid) => {
        dropped.push(fuseNodeid);
        return Promise.resolve([0]);
      },
    });
    const [dir, file] = [inodeOf(shell, 12, "directory"), inodeOf(shell, 13, "other")];
    for (const [inode, mode] of [[dir, Mode.EX] as const, [file, Mode.PR] as const]) {
      await shell.operations.pin(inode, mode, waiter());
      shell.operations.unpin(inode, mode);
    }
    // Made here a moment ago: dlmd does not know it yet.
    const made = inodeOf(shell, 14, "file");
    await shell.operations.pin(dir, Mode.EX, waiter());
    await beginBirths(shell);
    bear(shell, made);
    shell.operations.unpin(dir, Mode.EX);
    expect(shell.rest.rest()).toBe(false);
    expect(shell.rest.mayHavePages(file)).toBe(true);
    await expect.poll(() => shell.rest.rest()).toBe(true);
    expect([dir, file, made].map(({ cover }) => cover.mode)).toEqual([Mode.NL, Mode.NL, Mode.NL]);
    expect(shell.rest.mayHavePages(file)).toBe(false);
    expect(dropped).toContain(13);
    expect(asked).toEqual(expect.arrayContaining([expect.stringContaining("i14.7")]));
    await shell.close();
  });

  it("waits for what has a lock in use, and gives one up that comes back", async () => {
    const shell = shellOver(lockspaceThatGrants([]).lockspace);
    const dir = inodeOf(shell, 12, "directory");
    await shell.operations.pin(dir, Mode.EX, waiter());
    for (let looks = 0; looks < 5; looks += 1) {
      expect(shell.rest.rest()).toBe(false);
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(dir.cover.mode).toBe(Mode.EX);
    expect(shell.rest.restless()).toEqual([expect.stringContaining("directory 12.7: mode 5, draining, asking null, pins 1")]);
    shell.operations.unpin(dir, Mode.EX);
    await expect.poll(() => shell.rest.rest()).toBe(true);
    // An operation that ran needs one more.
    await shell.operations.pin(dir, Mode.PR, waiter());
    expect(shell.rest.rest()).toBe(false);
    shell.operations.unpin(dir, Mode.PR);
    await expect.poll(() => shell.rest.rest()).toBe(true);
    shell.rest.end();
    await shell.close();
  });

  it("keeps the write tokens until it is told to give them", async () => {
    const asked: string[] = [];
    const shell = shellOver(lockspaceThatGrants(asked).lockspace);
    const file = inodeOf(shell, 13, "file");
    expect(await shell.operations.openForWrite(file, waiter())).toBe("cached");
    await expect.poll(() => shell.rest.rest()).toBe(true);
    expect(asked).not.toContain("unlock w13.7");
    shell.rest.giveTokens();
    expect(asked).toContain("unlock w13.7");
    await shell.close();
  });

  it("says which replies may not be taken yet", async () => {
    const shell = shellOver(lockspaceThatGrants([]).lockspace);
    const file = inodeOf(shell, 13, "file");
    file.cover.inode = file;
    sizeOf(file.cover).late = { effect: "raises", tid: 77, end: 4096, harms: true, seen: false };
    expect(shell.rest.lates()).toEqual([{ fuseNodeid: 13, effect: "raises", tid: 77, end: 4096 }]);
    sizeOf(file.cover).late = { effect: "clears", tid: 77, end: 4096, harms: true, seen: false };
    expect(shell.rest.lates()).toEqual([{ fuseNodeid: 13, effect: "misplaced", tid: 77, end: 4096 }]);
    await shell.close();
  });
});

describe("the end of the old process", () => {
  const shellWithOneUnderWay = () => {
    let done = (): void => undefined;
    const close = (): Promise<void> => new Promise((resolve) => (done = resolve));
    return { shell: shellOver(lockspaceThatGrants([]).lockspace, { close }), done: () => done() };
  };

  it("waits for no notification where another one goes on: it may wait for a program whose request that one answers (hazard F35)", async () => {
    const { shell, done } = shellWithOneUnderWay();
    expect(await shell.close(true)).toBe(undefined);
    done();
  });

  it("waits for all where none does: the device is closed after that", async () => {
    const { shell, done } = shellWithOneUnderWay();
    let isClosed = false;
    const closing = shell.close().then(() => (isClosed = true));
    await new Promise((resolve) => setImmediate(resolve));
    expect(isClosed).toBe(false);
    done();
    await closing;
    expect(isClosed).toBe(true);
  });
});

describe("the new process", () => {
  it("queues for the write tokens before all others, and has them when all came", async () => {
    const { lockspace, flags } = lockspaceThatGrants([]);
    const shell = shellOver(lockspace);
    const [mapped, file] = [inodeOf(shell, 12, "file"), inodeOf(shell, 13, "file")];
    shell.rest.restore(
      new Map([mapped, file].map((inode) => [inode.fuseNodeid, inode])),
      [
        { inode: mapped, users: 2, mapped: true },
        { inode: file, users: 1, mapped: false },
      ],
      [],
    );
    expect(shell.rest.hasTokens).toBe(false);
    expect([...flags]).toEqual([
      ["w12.7", LockFlag.MAYKEEP | LockFlag.HEADQUE],
      ["w13.7", LockFlag.MAYKEEP | LockFlag.HEADQUE],
    ]);
    await expect.poll(() => shell.rest.hasTokens).toBe(true);
    expect(mapped.cover.token).toMatchObject({ state: "held", users: 2, mapped: true });
    // The last of two handles gives it up.
    shell.operations.closeForWrite(mapped);
    expect(mapped.cover.token).toMatchObject({ state: "held", users: 1 });
    await shell.close();
  });

  it("doubts each file's size, and waits for a reply of the old one that its thread may not have taken", async () => {
    const shell = shellOver(lockspaceThatGrants([]).lockspace);
    const [dir, file, other] = [inodeOf(shell, 12, "directory"), inodeOf(shell, 13, "file"), inodeOf(shell, 14, "file")];
    shell.rest.restore(
      new Map([dir, file, other].map((inode) => [inode.fuseNodeid, inode])),
      [],
      [{ fuseNodeid: 13, effect: "misplaced", tid: 77, end: Number.POSITIVE_INFINITY }],
    );
    expect([dir, file, other].map(({ cover }) => cover.size?.doubt)).toEqual([undefined, true, true]);
    expect([mustWait(file.cover, 4096), mustWait(other.cover, 4096)]).toEqual([true, false]);
    await shell.close();
  });

  it("takes over what dlmd has kept of a crashed one, and asks for what only that one knew (hazard F39)", async () => {
    const asked: string[] = [];
    const { lockspace, flags } = lockspaceThatGrants(asked);
    const shell = shellOver(lockspace);
    const [written, taken, born] = [inodeOf(shell, 12, "file"), inodeOf(shell, 13, "file"), inodeOf(shell, 14, "file")];
    const token = { users: 1, mapped: true };
    shell.rest.restore(
      new Map([written, taken, born].map((inode) => [inode.fuseNodeid, inode])),
      [
        { inode: written, ...token, kept: { token: true, mode: Mode.EX } },
        // Another node has its lock: the token alone was here.
        { inode: taken, ...token, kept: { token: true, mode: Mode.NL } },
        { inode: born, ...token, kept: { token: false, mode: Mode.NL } },
      ],
      [],
    );
    expect(shell.rest.hasTokens).toBe(false);
    expect([...flags]).toEqual([
      ["i12.7", LockFlag.ORPHAN],
      ["w12.7", LockFlag.MAYKEEP | LockFlag.ORPHAN],
      ["w13.7", LockFlag.MAYKEEP | LockFlag.ORPHAN],
      ["i14.7", 0],
      ["w14.7", LockFlag.MAYKEEP],
    ]);
    await expect.poll(() => shell.rest.hasTokens).toBe(true);
    expect([written, taken, born].map(({ cover }) => [cover.mode, cover.token?.state])).toEqual([
      [Mode.EX, "held"],
      [Mode.NL, "held"],
      [Mode.EX, "held"],
    ]);
    await shell.close();
  });

  it("takes over the lock of a file that is open for reading: a page of it may wait for a READ (hazard F39)", async () => {
    const { lockspace, flags } = lockspaceThatGrants([]);
    const shell = shellOver(lockspace);
    const read = inodeOf(shell, 12, "file");
    shell.rest.restore(new Map([[12, read]]), [{ inode: read, users: 0, mapped: false, kept: { token: false, mode: Mode.PR } }], []);
    expect([...flags]).toEqual([["i12.7", LockFlag.ORPHAN]]);
    await expect.poll(() => shell.rest.hasTokens).toBe(true);
    expect([read.cover.mode, read.cover.token]).toEqual([Mode.PR, null]);
    await shell.close();
  });

  it("asks for the lock of what is open and known to nobody, before the directory's goes; another node keeps its own (hazard F39)", async () => {
    const asked: string[] = [];
    const { lockspace, flags } = lockspaceThatGrants(asked);
    const shell = shellOver(lockspace);
    const [born, closed, directory] = [inodeOf(shell, 12, "file"), inodeOf(shell, 13, "file"), inodeOf(shell, 14, "directory")];
    born.openCount = 1;
    directory.openCount = 1;
    await shell.coverOpen([born, closed, directory]);
    expect([asked, [...flags]]).toEqual([[`lock i12.7 ${Mode.PR}`], [["i12.7", LockFlag.NOQUEUE]]]);
    expect([born.cover.mode, born.cover.pins]).toEqual([Mode.PR, 0]);
    // It is here.
    await shell.coverOpen([born]);
    expect(asked).toHaveLength(1);
    await shell.close();
  });

  it("what came for such files is free to go, also while the lock of another does not come; that of one which is forgotten meanwhile is given back (hazard F39)", async () => {
    const asked: string[] = [];
    const { lockspace, handlers } = lockspaceThatGrants(asked);
    const late: (() => void)[] = [];
    const createLock = <A>(resource: string, given: LockHandlers<A | undefined>, astarg?: A): Lock => {
      const lock = lockspace.createLock(resource, given, astarg);
      const request = lock.request.bind(lock);
      if (resource === "i13.7") lock.request = (mode, flags) => void late.push(() => request(mode, flags));
      return lock;
    };
    const shell = shellOver({ ...lockspace, createLock });
    const [one, slow] = [inodeOf(shell, 12, "file"), inodeOf(shell, 13, "file")];
    for (const inode of [one, slow]) inode.openCount = 1;
    const covering = shell.coverOpen([one, slow]);
    await expect.poll(() => one.cover.mode).toBe(Mode.PR);
    expect([late.length, slow.cover.mode, slow.cover.asking]).toEqual([1, Mode.NL, Mode.PR]);
    const [lock, { bast }] = [...handlers].find(([{ resource }]) => resource === "i12.7") as [Lock, LockHandlers];
    bast(lock, Mode.EX);
    await expect.poll(() => one.cover.mode).toBe(Mode.NL);
    Object.assign(slow, { openCount: 0, nlookup: 0 });
    shell.forgotten(slow);
    for (const answer of late) answer();
    await covering;
    expect(shell.counters.covers).toBe(1);
    expect(asked.filter((request) => request.includes("i13.7"))).toEqual([`lock i13.7 ${Mode.PR}`, "unlock i13.7, in its time"]);
    await shell.close();
  });

  it("gives nothing away that it has taken over before all is settled that the process before had begun (hazard F38)", async () => {
    const asked: string[] = [];
    const { lockspace, handlers } = lockspaceThatGrants(asked);
    const dropped: number[] = [];
    const shell = shellOver(lockspace, {
      invalidatePagesAndSize: (fuseNodeid) => {
        dropped.push(fuseNodeid);
        return { gate: { shut: () => true }, results: Promise.resolve([0]) };
      },
    });
    const [written, read, unwanted] = [inodeOf(shell, 12, "file"), inodeOf(shell, 13, "file"), inodeOf(shell, 14, "file")];
    shell.rest.restore(
      new Map([written, read, unwanted].map((inode) => [inode.fuseNodeid, inode])),
      [
        { inode: written, users: 1, mapped: false, kept: { token: true, mode: Mode.EX } },
        { inode: read, users: 0, mapped: false, kept: { token: false, mode: Mode.PR } },
        { inode: unwanted, users: 0, mapped: false, kept: { token: false, mode: Mode.EX } },
      ],
      [],
    );
    await expect.poll(() => shell.rest.hasTokens).toBe(true);
    for (const [lock, { bast }] of handlers) if (["i12.7", "i13.7"].includes(lock.resource)) bast(lock, Mode.EX);
    expect([written, read].map(({ cover }) => cover.phase)).toEqual(["draining", "draining"]);
    await new Promise((resolve) => setImmediate(resolve));
    expect([dropped, [written, read].map(({ cover }) => cover.mode)]).toEqual([[], [Mode.EX, Mode.PR]]);
    shell.rest.settled();
    await expect.poll(() => [written, read, unwanted].map(({ cover }) => cover.mode)).toEqual([Mode.NL, Mode.NL, Mode.EX]);
    expect([new Set(dropped), unwanted.cover.pins]).toEqual([new Set([12, 13]), 0]);
    await shell.close();
  });

  it("a revoke does not wait for ever for an inode that the process before may never have told (hazard F39)", async () => {
    const missed: number[] = [];
    const shell = shellOver(lockspaceThatGrants([]).lockspace, {
      invalidatePages: (fuseNodeid) => {
        missed.push(fuseNodeid);
        return Promise.resolve([-2]);
      },
      invalidatePagesAndSize: (fuseNodeid) => {
        missed.push(fuseNodeid);
        return { gate: { shut: () => true }, results: Promise.resolve([-2]) };
      },
    });
    const file = inodeOf(shell, 12, "other");
    file.cover.inode = file;
    Object.assign(file, { nlookup: 1, unsure: 1 });
    const heard: number[] = [];
    shell.operations.onUnknown = (inode): void => {
      heard.push(missed.length);
      Object.assign(inode, { nlookup: 0, unsure: 0 });
    };
    await shell.operations.pin(file, Mode.PR, waiter());
    shell.operations.unpin(file, Mode.PR);
    await expect.poll(() => shell.rest.rest()).toBe(true);
    // Not at the first time: its FORGET may be on its way.
    expect(heard).toEqual([7]);
    await shell.close();
  });
});

/** What is asked of dlmd and of the kernel, when, and what is kept. */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { describe, expect, it } from "vitest";
import type { Lock, LockHandlers } from "../../../dlmd/client/api.ts";
import type { Waiter } from "../../../overlay/coherence/api.ts";
import { E } from "../../../dlmd/base/errno.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import type { KernelCaches } from "../../../overlay/coherence/kernel/revoke-round.ts";
import type { CoherenceShell } from "../../../overlay/coherence/shell.ts";
import { type Inode, sizeOf } from "../../../overlay/coherence/cover.ts";
import type { FileId } from "../../../overlay/lower/lower.ts";
import { bear, beginBirths, attrValid, inodeOf, lockspaceThatGrants, shellOver } from "./shell-lab.ts";
import { soon } from "./size/size-lab.ts";

describe("the shell", () => {
  it("lets go of a lock that is revoked, and asks for a new one: a conversion from NL would pass those who wait", async () => {
    const asked: string[] = [];
    const { lockspace, handlers } = lockspaceThatGrants(asked);
    const shell = shellOver(lockspace);
    const inode = inodeOf(shell, 12, "file");
    const waiter = { interrupted: false, onInterrupt: null };
    await shell.operations.pin(inode, Mode.PR, waiter);
    shell.operations.unpin(inode, Mode.PR);
    const [[lock, end]] = [...handlers] as [[Lock, LockHandlers]];
    end.bast(lock, Mode.EX);
    await shell.operations.pin(inode, Mode.PR, waiter);
    expect(asked).toEqual([`lock i12.7 ${Mode.PR}`, "unlock i12.7", `lock i12.7 ${Mode.PR}`]);
    shell.operations.unpin(inode, Mode.PR);
    await shell.close();
  });

  it("gives up locks when more is cached than could be dropped at the end of the lease (hazard H1), and not while that has ended", async () => {
    const asked: string[] = [];
    const { lockspace } = lockspaceThatGrants(asked);
    const shell = shellOver(lockspace, {}, 2);
    const waiter = { interrupted: false, onInterrupt: null };
    const tell = async (ino: number, lapsed = false): Promise<void> => {
      const inode = inodeOf(shell, ino, "file");
      await shell.operations.pin(inode, Mode.PR, waiter);
      if (lapsed) shell.suspend();
      expect(attrValid(shell, inode, 0)).toBe(true);
      shell.operations.unpin(inode, Mode.PR);
      // The turn after, and what is asked for and answered then.
      for (let turn = 0; turn < 3; turn += 1) await new Promise(setImmediate);
    };
    const unlocked = (): string[] => asked.filter((what) => what.startsWith("unlock"));
    for (const ino of [1, 2, 3]) await tell(ino);
    expect(unlocked()).toEqual(["unlock i1.7"]);
    await tell(4, true);
    expect([unlocked(), shell.counters.inodesEvicted]).toEqual([["unlock i1.7"], 1]);
    shell.resume(false);
    await tell(2);
    expect([unlocked(), shell.counters.inodesEvicted]).toEqual([["unlock i1.7", "unlock i2.7"], 2]);
    await shell.close();
  });

  it.each([false, true])("gives its locks back at its end, unless a change of it may still be made: %s", async (mayBeMade) => {
    const asked: string[] = [];
    const { lockspace, handlers } = lockspaceThatGrants(asked);
    const shell = shellOver(lockspace);
    const [used, idle] = [12, 13].map((ino) => inodeOf(shell, ino, "file")) as [Inode, Inode];
    for (const inode of [used, idle]) await shell.operations.pin(inode, Mode.EX, { interrupted: false, onInterrupt: null });
    shell.operations.unpin(idle, Mode.EX);
    // Somebody waits for it, and it would leave with its last pin.
    const [[lock, end]] = [...handlers] as [[Lock, LockHandlers]];
    end.bast(lock, Mode.EX);
    if (mayBeMade) shell.keepLocks();
    shell.operations.unpin(used, Mode.EX);
    shell.failWaiters();
    shell.forgotten(idle);
    await soon();
    await shell.close();
    const left = asked.filter((what) => what.startsWith("unlock")).toSorted();
    expect(left).toEqual(mayBeMade ? [] : ["unlock i12.7", "unlock i13.7"]);
  });

  it("keeps nothing of what has gone, however long nothing has to be given up", async () => {
    setFlagsFromString("--expose-gc");
    const collect = runInNewContext("gc") as () => void;
    const shell = shellOver(lockspaceThatGrants([]).lockspace);
    const inodes: Inode[] = [];
    // In a call of its own: what it had in hand is not in use afterwards.
    const comeAndGo = (ino: number): WeakRef<object> => {
      const inode = inodeOf(shell, ino, "file");
      inodes.push(inode);
      // There are some at any time: so they stand in the tables that are outgrown.
      if (inodes.length > 8) shell.forgotten(inodes.shift() as Inode);
      return new WeakRef(inode.cover);
    };
    const came = Array.from({ length: 1000 }, (_, ino) => comeAndGo(ino));
    // A WeakRef holds what it is for until the turn ends.
    await new Promise(setImmediate);
    collect();
    expect(came.filter((one) => one.deref() !== undefined).length).toBeLessThan(20);
    await shell.close();
  });

  it("drops, when the lease ends, what the kernel may have something of: not what it has forgotten, or never had a lock for", async () => {
    const dropped: number[] = [];
    const invalidateMany: KernelCaches["invalidateMany"] = (fuseNodeids) => {
      dropped.push(...fuseNodeids);
      return { write: () => Promise.resolve(0), begun: () => fuseNodeids.length, refused: () => [] };
    };
    const shell = shellOver(lockspaceThatGrants([]).lockspace, { invalidateMany });
    const inodes = [1, 2, 3].map((ino) => inodeOf(shell, ino, "file"));
    const [locked, forgotten, bare] = inodes as [Inode, Inode, Inode];
    for (const inode of [locked, forgotten]) {
      await shell.operations.pin(inode, Mode.PR, { interrupted: false, onInterrupt: null });
      shell.operations.unpin(inode, Mode.PR);
    }
    forgotten.nlookup = 0;
    expect(shell.operations.tryPin(bare, Mode.PR)).toBe(false);
    shell.suspend();
    await new Promise(setImmediate);
    expect([dropped, shell.counters.inodesDropped]).toEqual([[locked.fuseNodeid], 1]);
    await shell.close();
  });

  it("takes nothing for true that was read before the owner died, and has the kernel drop it, though all locks are here", async () => {
    const dropped: number[] = [];
    let epochs = 0;
    const invalidateMany: KernelCaches["invalidateMany"] = (fuseNodeids) => {
      dropped.push(...fuseNodeids);
      return { write: () => Promise.resolve(0), begun: () => fuseNodeids.length, refused: () => [] };
    };
    const incrementEpoch = (): Promise<number[]> => {
      epochs += 1;
      return Promise.resolve([0]);
    };
    const shell = shellOver(lockspaceThatGrants([]).lockspace, { invalidateMany, incrementEpoch });
    const [dir, file, bare] = [inodeOf(shell, 1, "directory"), inodeOf(shell, 2, "file"), inodeOf(shell, 3, "file")];
    for (const inode of [dir, file]) await shell.operations.pin(inode, Mode.PR, { interrupted: false, onInterrupt: null });
    const name = Buffer.from("name");
    expect(shell.operations.names.tellEntry(dir, name, file)).toBe(true);
    sizeOf(file.cover).doubt = false;
    const before = {
      since: shell.operations.since(),
      hold: shell.operations.hold(file),
      held: shell.operations.grantId(dir),
    };
    expect([attrValid(shell, file, 0, before.since), shell.operations.names.isTold(dir, name), shell.operations.sizes.known(file)]).toEqual(
      [true, true, true],
    );
    expect(shell.operations.ownerDied(before.since)).toBe(false);
    await shell.distrustAll();
    expect(shell.operations.ownerDied(before.since)).toBe(true);
    expect([dropped.sort((a, b) => a - b), epochs]).toEqual([[1, 2], 1]);
    expect([attrValid(shell, file, 0, before.since), shell.operations.names.isTold(dir, name), shell.operations.sizes.known(file)]).toEqual(
      [false, false, false],
    );
    expect(shell.operations.hold(file)).toBeGreaterThan(before.hold);
    expect(shell.operations.grantId(dir)).toBeGreaterThan(before.held);
    expect(shell.operations.pinChild(file, before.since)).toEqual({ pinned: true, trip: true });
    expect(attrValid(shell, file, 0)).toBe(true);
    expect(bare.cover.grant).toBe(0);
    for (const inode of [dir, file, file]) shell.operations.unpin(inode, Mode.PR);
    await shell.close();
    await shell.distrustAll();
    expect(epochs).toBe(1);
  });

  it("closed in the middle of a revoke, asks the lock manager for nothing more when that goes on", async () => {
    const asked: string[] = [];
    const { lockspace, handlers } = lockspaceThatGrants(asked);
    let written: (results: number[]) => void = () => undefined;
    const invalidatePagesAndSize: KernelCaches["invalidatePagesAndSize"] = () => ({
      gate: { shut: () => true },
      results: new Promise((resolve) => {
        written = resolve;
      }),
    });
    const failures: Error[] = [];
    const shell = shellOver(lockspace, { invalidatePagesAndSize }, undefined, (error) => void failures.push(error));
    const inode = inodeOf(shell, 12, "file");
    await shell.operations.pin(inode, Mode.PR, { interrupted: false, onInterrupt: null });
    shell.operations.unpin(inode, Mode.PR);
    const [[lock, end]] = [...handlers] as [[Lock, LockHandlers]];
    end.bast(lock, Mode.EX);
    shell.failWaiters();
    await shell.close();
    written([0, 0, 0]);
    await new Promise(setImmediate);
    expect([failures, asked]).toEqual([[], [`lock i12.7 ${Mode.PR}`, "unlock i12.7"]]);
  });

  /** Taken away and read under again, so often that a reader is expected. */
  async function contended(shell: CoherenceShell, inode: Inode, handlers: Map<Lock, LockHandlers>): Promise<void> {
    for (let turn = 0; turn < 2; turn += 1) {
      await shell.operations.pin(inode, Mode.PR, { interrupted: false, onInterrupt: null });
      shell.operations.unpin(inode, Mode.PR);
      const [lock, end] = [...handlers].at(-1) as [Lock, LockHandlers];
      end.bast(lock, Mode.EX);
      while (lock.mode !== Mode.NL || lock.busy) await new Promise((resolve) => setImmediate(resolve));
    }
  }

  it("asks for a contended lock again in the message that gives it up, and tells who listens when it is here", async () => {
    const asked: string[] = [];
    const { lockspace, handlers } = lockspaceThatGrants(asked);
    const shell = shellOver(lockspace);
    const inode = inodeOf(shell, 12, "file");
    const expected: Inode[] = [];
    shell.operations.onExpected = (one): void => {
      expected.push(one);
      shell.operations.unpin(one, Mode.PR);
    };
    await contended(shell, inode, handlers);
    await new Promise((resolve) => setImmediate(resolve));
    expect(asked).toEqual([`lock i12.7 ${Mode.PR}`, "unlock i12.7", `lock i12.7 ${Mode.PR}`, `lock i12.7 ${Mode.PR}`, "unlock i12.7"]);
    expect(expected).toEqual([inode]);
    expect(shell.operations.tryPin(inode, Mode.PR)).toBe(true);
    shell.operations.unpin(inode, Mode.PR);
    // Nobody read under it: whoever takes it away now is not asked again.
    const again = inodeOf(shell, 13, "file");
    await contended(shell, again, handlers);
    await new Promise((resolve) => setImmediate(resolve));
    const [lock, end] = [...handlers].at(-1) as [Lock, LockHandlers];
    asked.length = 0;
    end.bast(lock, Mode.EX);
    for (let turn = 0; turn < 5; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    expect(asked).toEqual(["unlock i13.7"]);
    await shell.close();
  });

  it("asks for EX in the message that gives PR up for a change that waits, behind it, and gives back what nobody wants any more", async () => {
    const asked: string[] = [];
    const { lockspace, handlers } = lockspaceThatGrants(asked);
    const shell = shellOver(lockspace);
    for (const [ino, killed] of [
      [12, false],
      [13, true],
    ] as const) {
      const inode = inodeOf(shell, ino, "file");
      await shell.operations.pin(inode, Mode.PR, { interrupted: false, onInterrupt: null });
      const waiter: Waiter = { interrupted: false, onInterrupt: null };
      const [lock, end] = [...handlers].at(-1) as [Lock, LockHandlers];
      asked.length = 0;
      end.bast(lock, Mode.EX);
      const changed = shell.operations.pin(inode, Mode.EX, waiter).then(
        () => "pinned",
        () => "refused",
      );
      const turns: string[][] = [];
      shell.operations.unpin(inode, Mode.PR);
      while (!lock.busy && lock.exists) await new Promise<void>((resolve) => queueMicrotask(resolve));
      turns.push([...asked]);
      if (killed) waiter.onInterrupt?.();
      for (let turn = 0; turn < 5; turn += 1) await new Promise((resolve) => setImmediate(resolve));
      expect(turns).toEqual([[`unlock i${ino}.7`, `lock i${ino}.7 ${Mode.EX}`]]);
      expect([await changed, asked.length]).toEqual(killed ? ["refused", 3] : ["pinned", 2]);
      const here = [...handlers.keys()].filter((one) => one.resource === `i${ino}.7` && one.exists);
      expect(here).toHaveLength(killed ? 0 : 1);
      if (!killed) shell.operations.unpin(inode, Mode.EX);
    }
    await shell.close();
  });

  it("asks for nothing anew without the lease", async () => {
    const asked: string[] = [];
    const { lockspace, handlers } = lockspaceThatGrants(asked);
    const shell = shellOver(lockspace);
    const inode = inodeOf(shell, 12, "file");
    await shell.operations.pin(inode, Mode.PR, { interrupted: false, onInterrupt: null });
    const [lock, end] = [...handlers].at(-1) as [Lock, LockHandlers];
    end.bast(lock, Mode.EX);
    const changed = shell.operations.pin(inode, Mode.EX, { interrupted: false, onInterrupt: null });
    shell.suspend();
    shell.operations.unpin(inode, Mode.PR);
    for (let turn = 0; turn < 5; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    expect(asked).toEqual([`lock i12.7 ${Mode.PR}`]);
    shell.resume(false);
    await changed;
    expect(asked).toEqual([`lock i12.7 ${Mode.PR}`, "unlock i12.7", `lock i12.7 ${Mode.EX}`]);
    shell.operations.unpin(inode, Mode.EX);
    await shell.close();
  });

  it("takes back what it asked for early when a writer of its own comes first, and gives it back if it came", async () => {
    const asked: string[] = [];
    const { lockspace, handlers } = lockspaceThatGrants(asked);
    const shell = shellOver(lockspace);
    const inode = inodeOf(shell, 12, "file");
    shell.operations.onExpected = (one): void => shell.operations.unpin(one, Mode.PR);
    const waiter = { interrupted: false, onInterrupt: null };
    await shell.operations.pin(inode, Mode.PR, waiter);
    shell.operations.unpin(inode, Mode.PR);
    const [lock, end] = [...handlers].at(-1) as [Lock, LockHandlers];
    end.bast(lock, Mode.EX);
    await shell.operations.pin(inode, Mode.PR, waiter);
    shell.operations.unpin(inode, Mode.PR);
    asked.length = 0;
    // A writer of this node comes while the lock is being given up.
    const written = new Promise<void>((resolve, reject) => {
      asked.push = (text): number => {
        if (text.startsWith("unlock") && asked.length === 1) shell.operations.pin(inode, Mode.EX, waiter).then(resolve, reject);
        return Array.prototype.push.call(asked, text);
      };
    });
    end.bast(lock, Mode.EX);
    await written;
    expect(asked.slice(0, 3)).toEqual([`lock i12.7 ${Mode.PR}`, "unlock i12.7", `lock i12.7 ${Mode.EX}`]);
    shell.operations.unpin(inode, Mode.EX);
    for (let turn = 0; turn < 5; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    expect([...handlers.keys()].filter((one) => one.resource === "i12.7" && one.exists)).toHaveLength(1);
    await shell.close();
  });

  it("lets go of everybody who waits when the connection has ended, and pins nothing from then on", async () => {
    const silent = (resource: string): Lock => ({
      resource,
      mode: Mode.NL,
      exists: false,
      busy: true,
      lvb: null,
      lvbValid: false,
      error: null,
      request() {},
      unlock() {},
      cancel() {},
    });
    const shell = shellOver({ name: "silent", createLock: silent, batch: (make) => make(), whenOver: () => () => undefined });
    const [file, child] = [inodeOf(shell, 12, "file"), inodeOf(shell, 13, "file")];
    const waiter = (): { interrupted: boolean; onInterrupt: null } => ({ interrupted: false, onInterrupt: null });
    const waits = [shell.operations.pin(file, Mode.PR, waiter()), shell.operations.pinData(file, Mode.EX, true, waiter())];
    const pin = shell.operations.pinChild(child, shell.operations.since());
    const opens = [true, false].map((isMadeHere) => shell.operations.openForWrite(file, waiter(), isMadeHere));
    const [token, first] = opens;
    shell.failWaiters();
    for (const wait of [...waits, first]) await expect(wait).rejects.toMatchObject({ errno: E.EIO });
    expect(await pin).toMatchObject({ pinned: false });
    expect(await token).toBe("direct");
    expect(shell.operations.tryPin(file, Mode.PR)).toBe(false);
    expect(shell.operations.pinChild(child, shell.operations.since())).toMatchObject({ pinned: false });
    await expect(shell.operations.pin(file, Mode.PR, waiter())).rejects.toMatchObject({ errno: E.EIO });
    await shell.close();
  });

  it("F22: the owner is told what is open before the kernel drops anything for a lock that leaves, and not for one that stays", async () => {
    const done: string[] = [];
    const { lockspace, handlers } = lockspaceThatGrants(done);
    let tell = (): void => {};
    const invalidatePagesAndSize: KernelCaches["invalidatePagesAndSize"] = () => {
      done.push("dropped");
      return { gate: { shut: () => true }, results: Promise.resolve([0]) };
    };
    const leaving = async ({ ino }: FileId): Promise<void> => {
      done.push(`leaving ${ino}`);
      await new Promise<void>((resolve) => (tell = resolve));
    };
    const shell = shellOver(lockspace, { invalidatePagesAndSize }, undefined, undefined, leaving);
    const file = inodeOf(shell, 13, "file");
    await shell.operations.pin(file, Mode.EX, { interrupted: false, onInterrupt: null });
    shell.operations.unpin(file, Mode.EX);
    const [[lock, end]] = [...handlers] as [[Lock, LockHandlers]];
    done.length = 0;
    end.bast(lock, Mode.PR);
    await soon();
    expect(done.splice(0)).toEqual([`convert i13.7 ${Mode.PR}`]);
    end.bast(lock, Mode.EX);
    await soon();
    expect(done.splice(0)).toEqual(["leaving 13"]);
    tell();
    await soon();
    expect(done.slice(0, 1)).toEqual(["dropped"]);
    await shell.close();
  });

  it("says that an operation is waited for, where a lock is wanted elsewhere", async () => {
    const { lockspace, handlers } = lockspaceThatGrants([]);
    let waits = 0;
    const shell = shellOver(lockspace, {}, undefined, undefined, undefined, () => (waits += 1));
    const file = inodeOf(shell, 13, "file");
    await shell.operations.pin(file, Mode.EX, { interrupted: false, onInterrupt: null });
    expect(waits).toBe(0);
    const [[lock, end]] = [...handlers] as [[Lock, LockHandlers]];
    end.bast(lock, Mode.EX);
    expect(waits).toBe(1);
    shell.operations.unpin(file, Mode.EX);
    await soon();
    expect([waits, lock.mode]).toEqual([1, Mode.NL]);
    await shell.close();
  });

  it("gives a lock back that was busy when the kernel forgot its removed inode", async () => {
    const asked: string[] = [];
    const { lockspace, handlers } = lockspaceThatGrants(asked);
    const shell = shellOver(lockspace);
    const [dir, inode] = [inodeOf(shell, 12, "directory"), inodeOf(shell, 13, "file")];
    await shell.operations.pin(dir, Mode.EX, { interrupted: false, onInterrupt: null });
    await beginBirths(shell, asked);
    bear(shell, inode);
    shell.operations.unpin(dir, Mode.EX);
    const [[lock, end]] = [...handlers] as [[Lock, LockHandlers]];
    // What was born is made known before the directory goes: that is under way when the file is gone.
    end.bast(lock, Mode.EX);
    inode.nlookup = 0;
    shell.removed(inode);
    shell.forgotten(inode);
    await shell.operations.pin(dir, Mode.EX, { interrupted: false, onInterrupt: null });
    shell.operations.unpin(dir, Mode.EX);
    expect(shell.counters).toMatchObject({ covers: 1, locksHeld: 1 });
    expect(asked.filter((request) => request.includes("i13.7"))).toEqual([`lock i13.7 ${Mode.PR}`, "unlock i13.7, in its time"]);
    await shell.close();
  });

  it.each([
    ["nobody wants", Mode.NL, ", in its time"],
    ["somebody waits for", Mode.EX, ""],
  ])("gives back the lock of a removed inode that %s when the kernel forgets it (hazard H2)", async (_who, wanted, when) => {
    const asked: string[] = [];
    const shell = shellOver(lockspaceThatGrants(asked).lockspace);
    const inode = inodeOf(shell, 12, "file");
    await shell.operations.pin(inode, Mode.EX, { interrupted: false, onInterrupt: null });
    shell.operations.unpin(inode, Mode.EX);
    // It was revoked a moment ago, and is held for its time.
    inode.cover.wanted = wanted;
    inode.nlookup = 0;
    shell.removed(inode);
    shell.forgotten(inode);
    expect(asked).toEqual([`lock i12.7 ${Mode.EX}`, `unlock i12.7${when}`]);
    await shell.close();
  });

  it("has a lock of its own for an inode of another kind that has the identity of one that was lost, and gives that one's back when the kernel forgets it", async () => {
    const asked: string[] = [];
    const { lockspace } = lockspaceThatGrants(asked);
    const dropped: number[] = [];
    const invalidateMany: KernelCaches["invalidateMany"] = (fuseNodeids) => {
      dropped.push(...fuseNodeids);
      return { write: () => Promise.resolve(0), begun: () => fuseNodeids.length, refused: () => [] };
    };
    const shell = shellOver(lockspace, { invalidateMany });
    const lost = inodeOf(shell, 12, "file");
    await shell.operations.pin(lost, Mode.PR, { interrupted: false, onInterrupt: null });
    shell.operations.unpin(lost, Mode.PR);
    const made = inodeOf(shell, 12, "directory");
    expect([made.cover.kind, made.cover === lost.cover]).toEqual(["directory", false]);
    await shell.distrustAll();
    expect(dropped).toEqual([12]);
    expect(asked).toEqual([`lock i12.7 ${Mode.PR}`]);
    lost.nlookup = 0;
    shell.forgotten(lost);
    expect(asked).toEqual([`lock i12.7 ${Mode.PR}`, "unlock i12.7, in its time"]);
    expect(shell.createCover(made.id, "directory")).toBe(made.cover);
    expect(shell.counters.covers).toBe(1);
    await shell.close();
  });
});

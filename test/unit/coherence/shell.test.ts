import { describe, expect, it } from "vitest";
import type { Lock, LockHandlers, Lockspace } from "../../../dlmd/client/api.ts";
import { E } from "../../../dlmd/base/errno.ts";
import { Mode } from "../../../dlmd/lock/mode.ts";
import { type CoherenceShell, createCoherenceShell } from "../../../overlay/coherence/shell.ts";
import type { Inode, InodeKind } from "../../../overlay/inode/inode.ts";
import { fileKey } from "../../../overlay/lower/lower.ts";

/** Grants whatever is asked for, in the turn after. */
function lockspaceThatGrants(asked: string[]): { readonly lockspace: Lockspace; readonly handlers: Map<Lock, LockHandlers> } {
  const handlers = new Map<Lock, LockHandlers>();
  const createLock = (resource: string, of: LockHandlers): Lock => {
    const lock = { resource, mode: Mode.NL as Mode, exists: false, busy: false, lvb: null, lvbValid: false, error: null };
    const end = (status: "granted" | "unlocked"): void => {
      lock.busy = true;
      queueMicrotask(() => {
        lock.busy = false;
        lock.exists = status === "granted";
        of.ast(made, status);
      });
    };
    const made: Lock = Object.assign(lock, {
      request: (mode: Mode) => {
        asked.push(`${lock.exists ? "convert" : "lock"} ${resource} ${mode}`);
        lock.mode = mode;
        end("granted");
      },
      unlock: () => {
        asked.push(`unlock ${resource}`);
        lock.mode = Mode.NL;
        end("unlocked");
      },
      cancel: () => undefined,
    });
    handlers.set(made, of);
    return made;
  };
  return { lockspace: { name: "test", createLock, batch: (make) => make() }, handlers };
}

function shellOver(lockspace: Lockspace): CoherenceShell {
  const nothing = (): Promise<number[]> => Promise.resolve([0]);
  return createCoherenceShell({
    lockspace,
    caches: {
      invalidatePages: nothing,
      invalidateRange: nothing,
      invalidatePagesAndSize: nothing,
      invalidateAttributes: nothing,
      expireNames: nothing,
      incrementEpoch: nothing,
      settled: () => Promise.resolve(),
    },
    now: () => 0,
    log: { trace() {}, debug() {}, info() {}, warn() {}, error() {}, fatal() {} } as never,
    fail: (error) => {
      throw error;
    },
  });
}

function inodeOf(shell: CoherenceShell, ino: number, kind: InodeKind): Inode {
  const id = { ino, generation: 7 };
  const cover = shell.createCover(id, kind);
  return { fuseNodeid: ino, id, key: fileKey(id), kind, nlookup: 1, openCount: 0, mappableCount: 0, cover };
}

describe("the shell", () => {
  it("lets go of a lock that is revoked, and asks for a new one: a conversion from NL would pass those who wait", async () => {
    const asked: string[] = [];
    const { lockspace, handlers } = lockspaceThatGrants(asked);
    const shell = shellOver(lockspace);
    const inode = inodeOf(shell, 12, "file");
    const waiter = { interrupted: false, onInterrupt: null };
    await shell.pin(inode, Mode.PR, waiter);
    shell.unpin(inode, Mode.PR);
    const [[lock, end]] = [...handlers] as [[Lock, LockHandlers]];
    end.bast(lock, Mode.EX);
    await shell.pin(inode, Mode.PR, waiter);
    expect(asked).toEqual([`lock i12.7 ${Mode.PR}`, "unlock i12.7", `lock i12.7 ${Mode.PR}`]);
    shell.unpin(inode, Mode.PR);
    await shell.close();
  });

  it("a child's lock that came while its attributes were read counts as a trip; one that was here before does not", async () => {
    const shell = shellOver(lockspaceThatGrants([]).lockspace);
    const [child, other] = [inodeOf(shell, 12, "file"), inodeOf(shell, 13, "file")];
    const waiter = { interrupted: false, onInterrupt: null };
    const before = shell.grants;
    await shell.pin(child, Mode.PR, waiter);
    shell.unpin(child, Mode.PR);
    const between = shell.grants;
    await shell.pin(other, Mode.PR, waiter);
    shell.unpin(other, Mode.PR);
    expect(shell.pinChild(child, before)).toEqual({ pinned: true, trip: true });
    expect(shell.pinChildren([child, other], between)).toEqual([
      { pinned: true, trip: false },
      { pinned: true, trip: true },
    ]);
    shell.unpin(child, Mode.PR);
    shell.unpin(child, Mode.PR);
    shell.unpin(other, Mode.PR);
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
    const shell = shellOver({ name: "silent", createLock: silent, batch: (make) => make() });
    const [file, child] = [inodeOf(shell, 12, "file"), inodeOf(shell, 13, "file")];
    const waiter = (): { interrupted: boolean; onInterrupt: null } => ({ interrupted: false, onInterrupt: null });
    const waits = [shell.pin(file, Mode.PR, waiter()), shell.pinData(file, Mode.EX, true, waiter())];
    const pin = shell.pinChild(child, shell.grants);
    const token = shell.openForWrite(file, waiter());
    shell.letGo();
    for (const wait of waits) await expect(wait).rejects.toMatchObject({ errno: E.EIO });
    expect(await pin).toMatchObject({ pinned: false });
    expect(await token).toBe("direct");
    expect(shell.tryPin(file, Mode.PR)).toBe(false);
    expect(shell.pinChild(child, shell.grants)).toMatchObject({ pinned: false });
    await expect(shell.pin(file, Mode.PR, waiter())).rejects.toMatchObject({ errno: E.EIO });
    await shell.close();
  });

  it("gives a lock back that was busy when the kernel forgot its removed inode", async () => {
    const asked: string[] = [];
    const { lockspace, handlers } = lockspaceThatGrants(asked);
    const shell = shellOver(lockspace);
    const [dir, inode] = [inodeOf(shell, 12, "directory"), inodeOf(shell, 13, "file")];
    await shell.pin(dir, Mode.EX, { interrupted: false, onInterrupt: null });
    shell.born(inode);
    shell.unpin(dir, Mode.EX);
    const [[lock, end]] = [...handlers] as [[Lock, LockHandlers]];
    // What was born is made known before the directory goes: that is under way when the file is gone.
    end.bast(lock, Mode.EX);
    inode.nlookup = 0;
    shell.removed(inode);
    shell.forgotten(inode);
    await shell.pin(dir, Mode.EX, { interrupted: false, onInterrupt: null });
    shell.unpin(dir, Mode.EX);
    expect(shell.counters).toMatchObject({ covers: 1, locksHeld: 1 });
    expect(asked.filter((request) => request.includes("i13.7"))).toEqual([`lock i13.7 ${Mode.EX}`, "unlock i13.7"]);
    await shell.close();
  });

  it("knows what the kernel has with its attributes: until these change, are revoked, or the name goes", async () => {
    const { lockspace, handlers } = lockspaceThatGrants([]);
    const shell = shellOver(lockspace);
    const [dir, child] = [inodeOf(shell, 12, "directory"), inodeOf(shell, 13, "file")];
    const name = Buffer.from("name");
    const waiter = { interrupted: false, onInterrupt: null };
    const tell = async (): Promise<void> => {
      for (const inode of [dir, child]) await shell.pin(inode, Mode.EX, waiter);
      for (const inode of [dir, child]) shell.unpin(inode, Mode.EX);
      expect(shell.tellEntry(dir, name, child)).toBe(true);
      expect(shell.isTold(dir, name)).toBe(false);
      expect(shell.attrValid(child)).toBe(true);
      expect(shell.isTold(dir, name)).toBe(true);
    };

    await tell();
    expect(shell.tryPin(child, Mode.EX)).toBe(true);
    shell.unpin(child, Mode.EX);
    expect(shell.isTold(dir, name)).toBe(false);
    await tell();
    await shell.pinData(child, Mode.PR, true, waiter);
    shell.unpinData(child, Mode.PR);
    expect(shell.isTold(dir, name)).toBe(false);
    for (const revoked of [dir, child]) {
      await tell();
      const [lock, end] = [...handlers].findLast(([{ resource }]) => resource === `i${revoked.key}`) as [Lock, LockHandlers];
      end.bast(lock, Mode.EX);
      for (const inode of [dir, child]) await shell.pin(inode, Mode.EX, waiter);
      for (const inode of [dir, child]) shell.unpin(inode, Mode.EX);
      expect(shell.isTold(dir, name)).toBe(false);
    }
    await tell();
    shell.dropEntry(dir, name);
    expect(shell.isTold(dir, name)).toBe(false);
    await shell.close();
  });
});

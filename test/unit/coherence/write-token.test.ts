/** The write token as programs' opens see it, and as dlmd is asked for it. */
import { describe, expect, it, vi } from "vitest";
import { type Lock, LockFlag, type LockHandlers } from "../../../dlmd/client/api.ts";
import { E } from "../../../dlmd/base/errno.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { Cover, type PinMode } from "../../../overlay/coherence/cover.ts";
import type { Waiter } from "../../../overlay/coherence/api.ts";
import { CoherenceState } from "../../../overlay/coherence/effect.ts";
import { handleAst } from "../../../overlay/coherence/lock/lock-cache.ts";
import { closeToken, handleTokenAst, handleTokenBast, openToken, TOKEN_WAIT_MS } from "../../../overlay/coherence/lock/write-token.ts";
import { bear, beginBirths, inodeOf, lockspaceThatGrants, shellOver } from "./shell-lab.ts";

const waiter = (): { interrupted: boolean; onInterrupt: Waiter["onInterrupt"] } => ({ interrupted: false, onInterrupt: null });

/** A lock of it was here once. */
function knownFile(shell: ReturnType<typeof shellOver>): ReturnType<typeof inodeOf> {
  const file = inodeOf(shell, 12, "file");
  file.cover.grant = 1;
  return file;
}

function heldOf(handlers: Map<Lock, LockHandlers>, resource: string): readonly [Lock, LockHandlers] {
  const found = [...handlers].find(([lock]) => lock.resource === resource);
  if (found === undefined) throw new Error(`no lock on ${resource} was asked for`);
  return found;
}

describe("the write token", () => {
  it("may be kept for as long as the file is open (hazard H13), whether it was asked for or born here; no lock of an inode may", async () => {
    const asked: string[] = [];
    const { lockspace, flags, handlers } = lockspaceThatGrants(asked);
    const shell = shellOver(lockspace);
    const [dir, made, opened] = [inodeOf(shell, 12, "directory"), inodeOf(shell, 13, "file"), inodeOf(shell, 14, "file")];
    await shell.operations.pin(dir, Mode.EX, waiter());
    await beginBirths(shell, asked);
    flags.clear();
    flags.set("i12.7", 0);
    bear(shell, made);
    shell.operations.unpin(dir, Mode.EX);
    await shell.operations.pin(opened, Mode.PR, waiter());
    shell.operations.unpin(opened, Mode.PR);
    expect(await shell.operations.openForWrite(made, waiter())).toBe("cached");
    expect(await shell.operations.openForWrite(opened, waiter())).toBe("cached");
    // What was born is made known before its directory is, and the token when the lock of the file is to go.
    const [lock, told] = heldOf(handlers, "i12.7");
    told.bast(lock, Mode.PR);
    const asks = (): readonly string[] => asked.filter((request) => request.startsWith("lock "));
    await expect.poll(asks).toContain(`lock i13.7 ${Mode.EX}`);
    expect(asks()).not.toContain(`lock w13.7 ${Mode.PW}`);
    const [madeLock, madeTold] = heldOf(handlers, "i13.7");
    madeTold.bast(madeLock, Mode.PR);
    await expect.poll(() => asked.at(-1)).toBe(`convert i13.7 ${Mode.PR}`);
    expect(asked.at(-2)).toBe(`lock w13.7 ${Mode.PW}`);
    const kept = (resource: string): boolean => ((flags.get(resource) ?? 0) & LockFlag.MAYKEEP) !== 0;
    expect(Object.fromEntries([...flags.keys()].map((resource) => [resource, kept(resource)]))).toEqual({
      "i12.7": false,
      "i13.7": false,
      "i14.7": false,
      "w13.7": true,
      "w14.7": true,
    });
    await shell.close();
  });

  it("is kept while the file is open here, however often it is wanted, and given up with the last close", async () => {
    const asked: string[] = [];
    const { lockspace, handlers } = lockspaceThatGrants(asked);
    const shell = shellOver(lockspace);
    const file = knownFile(shell);
    for (let opens = 0; opens < 2; opens += 1) expect(await shell.operations.openForWrite(file, waiter())).toBe("cached");
    const [lock, told] = heldOf(handlers, "w12.7");
    told.bast(lock, Mode.PW);
    told.bast(lock, Mode.PW);
    shell.operations.closeForWrite(file);
    expect(asked).toEqual([`lock w12.7 ${Mode.PW}`]);
    shell.operations.closeForWrite(file);
    expect(asked).toEqual([`lock w12.7 ${Mode.PW}`, "unlock w12.7"]);
    await shell.close();
  });

  it("F9: is asked for only after a lock of the inode, but for a file that was made here", async () => {
    const asked: string[] = [];
    const { lockspace } = lockspaceThatGrants(asked);
    const shell = shellOver(lockspace);
    const [file, made] = [inodeOf(shell, 12, "file"), inodeOf(shell, 13, "file")];
    expect(await shell.operations.openForWrite(file, waiter())).toBe("cached");
    expect(asked).toEqual([`lock i12.7 ${Mode.PR}`, `lock w12.7 ${Mode.PW}`]);
    expect(shell.operations.tryPin(file, Mode.PR)).toBe(true);
    expect(file.cover.pins).toBe(1);
    shell.operations.unpin(file, Mode.PR);
    expect(await shell.operations.openForWrite(made, waiter(), true)).toBe("cached");
    expect(asked.slice(2)).toEqual([`lock w13.7 ${Mode.PW}`]);
    await shell.close();
  });

  it("that is on its way out, and is wanted once more, is not taken for the next one", async () => {
    const { lockspace, handlers } = lockspaceThatGrants([]);
    const failed: Error[] = [];
    const shell = shellOver(lockspace, {}, Number.POSITIVE_INFINITY, (error) => failed.push(error));
    const file = knownFile(shell);
    expect(await shell.operations.openForWrite(file, waiter())).toBe("cached");
    shell.operations.closeForWrite(file);
    const [lock, told] = heldOf(handlers, "w12.7");
    // What dlmd is asked waits while the lease does not hold.
    shell.suspend();
    told.bast(lock, Mode.PW);
    expect(file.cover.token).toBeNull();
    const open = shell.operations.openForWrite(file, waiter());
    const next = file.cover.token;
    expect(next).not.toBeNull();
    told.bast(lock, Mode.PW);
    expect(file.cover.token).toBe(next);
    shell.resume(true);
    expect([await open, failed]).toEqual(["cached", []]);
    await shell.close();
  });

  it("is not kept by an open that is killed while it waits", async () => {
    const asked: string[] = [];
    const { lockspace, handlers } = lockspaceThatGrants(asked);
    const shell = shellOver(lockspace);
    const file = knownFile(shell);
    const [killed, other] = [waiter(), waiter()];
    const opens = [shell.operations.openForWrite(file, killed), shell.operations.openForWrite(file, other)];
    killed.interrupted = true;
    await expect(opens[0]).rejects.toMatchObject({ errno: E.EINTR });
    expect(await opens[1]).toBe("cached");
    const [lock, told] = heldOf(handlers, "w12.7");
    told.bast(lock, Mode.PW);
    expect(asked).toEqual([`lock w12.7 ${Mode.PW}`]);
    shell.operations.closeForWrite(file);
    expect(asked).toEqual([`lock w12.7 ${Mode.PW}`, "unlock w12.7"]);
    await shell.close();
  });

  it("hazard F9: after a store to a mapping, reads of writable handles need EX until the last close", async () => {
    const shell = shellOver(lockspaceThatGrants([]).lockspace);
    const file = inodeOf(shell, 12, "file");
    const modes = (): PinMode[] => [true, false].map((writable) => shell.operations.readMode(file, writable));
    for (let opens = 0; opens < 2; opens += 1) expect(await shell.operations.openForWrite(file, waiter())).toBe("cached");
    expect(modes()).toEqual([Mode.PR, Mode.PR]);
    shell.operations.noteCachedWrite(file);
    expect(modes()).toEqual([Mode.EX, Mode.PR]);
    shell.operations.closeForWrite(file);
    expect(modes()).toEqual([Mode.EX, Mode.PR]);
    shell.operations.closeForWrite(file);
    expect(modes()).toEqual([Mode.PR, Mode.PR]);
    await shell.close();
  });

  it("hazard F13: stays while its holder converts in place, so that the next holder does not begin another conversion", () => {
    const state = new CoherenceState();
    const cover = new Cover({ ino: 12, generation: 7 }, "file");
    openToken(state, cover, () => undefined);
    const { token } = cover;
    if (token === null) throw new Error("no token was asked for");
    handleTokenAst(state, cover, token, "granted", 0);
    cover.mode = Mode.PR;
    cover.asking = Mode.EX;
    closeToken(state, cover);
    state.effects.length = 0;
    handleTokenBast(state, cover, token);
    expect(state.effects).toEqual([]);
    handleAst(state, cover, "granted", Mode.EX, 0);
    expect(state.effects).toMatchObject([{ do: "unlock-token", cover }]);
  });

  it("is waited for 20 ms: a busy holder keeps it, and the open is direct", async () => {
    vi.useFakeTimers();
    try {
      const asked: string[] = [];
      const locks: LockHandlers[] = [];
      const lock = {
        resource: "w12.7",
        mode: Mode.NL,
        exists: false,
        busy: true,
        lvb: null,
        lvbValid: false,
        error: null,
        request: () => asked.push("request"),
        unlock: () => asked.push("unlock"),
        cancel: () => asked.push("cancel"),
      } as unknown as Lock;
      const createLock = (_resource: string, handlers: LockHandlers): Lock => {
        locks.push(handlers);
        return lock;
      };
      const shell = shellOver({ name: "busy", createLock, batch: (make) => make(), whenOver: () => () => undefined });
      const opened = shell.operations.openForWrite(knownFile(shell), waiter());
      vi.advanceTimersByTime(TOKEN_WAIT_MS - 1);
      expect(asked).toEqual(["request"]);
      vi.advanceTimersByTime(1);
      expect(asked).toEqual(["request", "cancel"]);
      locks[0]?.ast(lock, "canceled");
      expect(await opened).toBe("direct");
    } finally {
      vi.useRealTimers();
    }
  });
});

import { describe, expect, it } from "vitest";
import type { Lock, LockHandlers, Lockspace } from "../../../dlmd/client/api.ts";
import { Mode } from "../../../dlmd/lock/mode.ts";
import { createCoherenceShell } from "../../../overlay/coherence/shell.ts";
import type { Inode } from "../../../overlay/inode/inode.ts";

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

describe("the shell", () => {
  it("lets go of a lock that is revoked, and asks for a new one: a conversion from NL would pass those who wait", async () => {
    const asked: string[] = [];
    const { lockspace, handlers } = lockspaceThatGrants(asked);
    const nothing = (): Promise<number[]> => Promise.resolve([0]);
    const shell = createCoherenceShell({
      lockspace,
      caches: {
        invalidatePages: nothing,
        invalidateRange: nothing,
        invalidatePagesAndSize: nothing,
        invalidateAttributes: nothing,
        expireNames: nothing,
        incrementEpoch: nothing,
      },
      now: () => 0,
      log: { trace() {}, debug() {}, info() {}, warn() {}, error() {}, fatal() {} } as never,
      fail: (error) => {
        throw error;
      },
    });
    const id = { ino: 12, generation: 7 };
    const inode = {
      fuseNodeid: 2,
      id,
      key: "12.7",
      kind: "file",
      nlookup: 1,
      openCount: 0,
      writeOpenCount: 0,
      cover: shell.createCover(id, "file"),
    };
    const waiter = { interrupted: false, onInterrupt: null };
    await shell.pin(inode as Inode, Mode.PR, waiter);
    shell.unpin(inode as Inode, Mode.PR);
    const [[lock, { bast }]] = [...handlers] as [[Lock, LockHandlers]];
    bast(lock, Mode.EX);
    await shell.pin(inode as Inode, Mode.PR, waiter);
    expect(asked).toEqual([`lock i12.7 ${Mode.PR}`, "unlock i12.7", `lock i12.7 ${Mode.PR}`]);
    shell.unpin(inode as Inode, Mode.PR);
    await shell.close();
  });
});

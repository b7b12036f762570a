/** Test lab: the shell of the coherence layer over a lock manager that grants whatever is asked for, and a kernel that drops all it is told to. */
import { type Lock, type LockHandlers, type Lockspace } from "../../../dlmd/client/api.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import type { KernelCaches } from "../../../overlay/coherence/kernel/revoke-round.ts";
import { CoherenceShell } from "../../../overlay/coherence/shell.ts";
import { Cover, type Inode, type InodeKind, type Since } from "../../../overlay/coherence/cover.ts";
import type { MaybePromise } from "../../../dlmd/base/maybe-promise.ts";
import { type FileId } from "../../../overlay/lower/lower.ts";
import { idleThreads } from "./idle-threads.ts";

/** Grants whatever is asked for, in the turn after; what is asked for while the client has a lock there, when that is gone: somebody else waits for it. */
export function lockspaceThatGrants(asked: string[]): {
  readonly lockspace: Lockspace;
  readonly handlers: Map<Lock, LockHandlers>;
  /** Flags of the last request for a lock on that resource. */
  readonly flags: Map<string, number>;
} {
  const handlers = new Map<Lock, LockHandlers>();
  const flagsOf = new Map<string, number>();
  /** By resource: what waits there until the lock is gone. */
  const behind = new Map<string, () => void>();
  const createLock = <A>(resource: string, given: LockHandlers<A | undefined>, astarg?: A): Lock => {
    const of: LockHandlers = {
      ast: (about, status) => given.ast(about, status, astarg),
      bast: (about, wanted) => given.bast(about, wanted, astarg),
    };
    const lock = {
      resource,
      mode: Mode.NL as Mode,
      exists: false,
      busy: false,
      lvb: null as Uint8Array | null,
      lvbValid: false,
      error: null,
    };
    const end = (status: "granted" | "unlocked"): void => {
      lock.busy = true;
      queueMicrotask(() => {
        lock.busy = false;
        lock.exists = status === "granted";
        of.ast(made, status);
      });
    };
    const made: Lock = Object.assign(lock, {
      request: (mode: Mode, flags: number) => {
        flagsOf.set(resource, flags);
        asked.push(`${lock.exists ? "convert" : "lock"} ${resource} ${mode}`);
        lock.busy = true;
        const grant = (): void => {
          lock.mode = mode;
          end("granted");
        };
        const held = [...handlers.keys()].some((other) => other !== made && other.resource === resource && other.mode !== Mode.NL);
        if (held) behind.set(resource, grant);
        else grant();
      },
      unlock: (_flags: number, _lvb?: Uint8Array, canWait = false) => {
        asked.push(`unlock ${resource}${canWait ? ", in its time" : ""}`);
        lock.mode = Mode.NL;
        end("unlocked");
        behind.get(resource)?.();
        behind.delete(resource);
      },
      cancel: () => undefined,
    });
    handlers.set(made, of);
    return made;
  };
  return { lockspace: { name: "test", createLock, batch: (make) => make(), whenOver: () => () => undefined }, handlers, flags: flagsOf };
}

/** Where nothing is to fail. */
export function fail(error: Error): void {
  throw error;
}

export function shellOver(
  lockspace: Lockspace,
  caches: Partial<KernelCaches> = {},
  cachedMax: number = Number.POSITIVE_INFINITY,
  failed: (error: Error) => void = fail,
  leaving: (id: FileId) => MaybePromise<void> = () => undefined,
  draining: () => void = () => undefined,
  now: () => number = () => 0,
): CoherenceShell {
  const nothing = (): Promise<number[]> => Promise.resolve([0]);
  return new CoherenceShell({
    lockspace,
    caches: {
      invalidatePages: nothing,
      invalidateMany: () => ({ write: () => Promise.resolve(0), begun: () => 0, refused: () => [] }),
      invalidateRange: () => ({ thread: () => 0, results: nothing() }),
      retrieve: () => Promise.resolve(null),
      retrieved: () => undefined,
      raiseSize: nothing,
      invalidatePagesAndSize: () => ({ gate: { shut: () => true }, results: nothing() }),
      invalidateAttributes: nothing,
      invalidateAttributesNow: () => 0,
      expireNames: nothing,
      incrementEpoch: nothing,
      close: () => Promise.resolve(),
      ...caches,
    },
    cachedMax,
    ownInodes: {
      look: () => Promise.resolve(0),
      refresh: () => Promise.resolve(0),
      lock: () => Promise.resolve(0),
      walk: () => Promise.resolve(0),
      isOwnThread: () => false,
    },
    callerThreads: idleThreads,
    now,
    leaving,
    draining,
    log: { trace() {}, debug() {}, info() {}, warn() {}, error() {}, fatal() {} } as never,
    fail: failed,
  });
}

export function inodeOf(shell: CoherenceShell, ino: number, kind: InodeKind): Inode {
  const id = { ino, generation: 7 };
  const cover = shell.createCover(id, kind);
  return { fuseNodeid: ino, id, kind, nlookup: 1, openCount: 0, mappableCount: 0, cover };
}

/** Inodes may be born without a message from now on. What was asked for that is not in `asked`. */
export async function beginBirths(shell: CoherenceShell, asked: string[] = []): Promise<void> {
  const before = [...asked];
  const id = { ino: 1, generation: 0 };
  bear(shell, { fuseNodeid: 1, id, kind: "file", nlookup: 0, openCount: 0, mappableCount: 0, cover: new Cover(id, "file") });
  await Promise.resolve();
  asked.splice(0, asked.length, ...before);
}

export function bear({ operations }: CoherenceShell, inode: Inode): boolean {
  return operations.enterNew(inode, operations.since());
}

/** Attributes that were read since may be told to that thread as valid. */
export function attrValid({ operations }: CoherenceShell, inode: Inode, caller: number, since: Since = operations.since()): boolean {
  return operations.terms.of(inode, 0, caller, since, null).attrValid;
}

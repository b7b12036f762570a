/** The session of a mount with its coherence layer: the last step before the mount answers. */
import type { MaybePromise } from "../../dlmd/base/maybe-promise.ts";
import type { Lockspace } from "../../dlmd/client/api.ts";
import { callerThreads } from "../caller/threads.ts";
import { cachedInodesMax } from "../coherence/lock/cache-limit.ts";
import { createKernelCaches } from "../coherence/kernel/notifications.ts";
import { CoherenceShell } from "../coherence/shell.ts";
import { createOwnInodes } from "../coherence/size/own-inodes.ts";
import type { VolumeFileLocks } from "../file-lock/file-locks.ts";
import type { Lease } from "../lease/lease.ts";
import type { FileId, Lower } from "../lower/lower.ts";
import { connectionNumber } from "../session/connection.ts";
import { mountSession, type Session } from "../session/mount-session.ts";
import { runningSystem } from "../session/system.ts";
import type { MountProcessOptions } from "./mount-process-options.ts";

export interface OpenSessionOptions {
  readonly mount: MountProcessOptions;
  readonly lower: Lower;
  readonly lockspace: Lockspace;
  readonly lease: Lease;
  /** null: file locks stay in this node's kernel. */
  readonly fileLocks: VolumeFileLocks | null;
  /** OpenLeasePage.marginMs */
  readonly marginMs: number;
  /** CoherenceShellOptions.leaving. */
  readonly leaving: (id: FileId) => MaybePromise<void>;
  /** Before the first operation is answered. */
  readonly coherenceThere: (coherence: CoherenceShell) => void;
  /** The kernel has ended the connection. */
  readonly disconnected: () => Promise<void>;
  readonly fail: (error: Error) => void;
}

/** Throws what mount(2) says. */
export function openSession(options: OpenSessionOptions): Promise<Session> {
  const { lower, lockspace, lease, fileLocks, marginMs, leaving, coherenceThere, disconnected, fail } = options;
  const { native, log, mountpoint, mountFlags, lower: source } = options.mount;
  return mountSession({
    native,
    lower,
    system: runningSystem,
    log,
    lease,
    ...(fileLocks === null ? {} : { fileLocks }),
    source: source.path,
    mountpoint,
    mountFlags,
    createCoherence: (fd, negotiated) => {
      const coherence = new CoherenceShell({
        lockspace,
        ownInodes: createOwnInodes(native, mountpoint, connectionNumber(mountpoint) ?? 0),
        callerThreads,
        caches: createKernelCaches(native, fd, { expireEntry: negotiated.entryExpire, incEpoch: negotiated.incEpoch }),
        cachedMax: cachedInodesMax(marginMs),
        now: () => performance.now(),
        log,
        leaving,
        fail,
      });
      coherenceThere(coherence);
      return coherence;
    },
    disconnected,
    fail,
  });
}

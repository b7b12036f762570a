/** The session of a mount with its coherence layer: the last step before the mount answers. */
import { E } from "../../dlmd/base/errno.ts";
import type { MaybePromise } from "../../dlmd/base/maybe-promise.ts";
import type { Lockspace } from "../../dlmd/client/api.ts";
import { callerThreads } from "../caller/threads.ts";
import { cachedInodesMax } from "../coherence/lock/cache-limit.ts";
import { createKernelCaches } from "../coherence/kernel/notifications.ts";
import { CoherenceShell } from "../coherence/shell.ts";
import type { KernelCaches } from "../coherence/kernel/revoke-round.ts";
import { createOwnInodes, type OwnInodes } from "../coherence/size/own-inodes.ts";
import type { VolumeFileLocks } from "../file-lock/file-locks.ts";
import type { Lease } from "../lease/lease.ts";
import type { DirectoryMoves } from "../lower/directory-moves.ts";
import type { FileId, Lower } from "../lower/lower.ts";
import { connectionNumber } from "../session/connection.ts";
import { mountFuseNative } from "../session/fuse-native/mount-fuse-native.ts";
import { mountSession, type Session, type SessionResume } from "../session/mount-session.ts";
import type { SessionJournal } from "../session/session-journal.ts";
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
  /** CoherenceShellOptions.draining. */
  readonly draining: () => void;
  /** Before the first operation is answered. */
  readonly coherenceThere: (coherence: CoherenceShell) => void;
  /** The kernel has ended the connection. */
  readonly disconnected: () => Promise<void>;
  readonly fail: (error: Error) => void;
  /** What the lower tells of directories. */
  readonly moves: DirectoryMoves;
  /** SessionOptions.journal */
  readonly journal: SessionJournal | null;
  /** SessionOptions.resume */
  readonly resume?: SessionResume;
}

/** Throws what mount(2) says. */
export function openSession(options: OpenSessionOptions): Promise<Session> {
  const { lower, lockspace, lease, fileLocks, marginMs, leaving, draining, coherenceThere, disconnected, fail, moves, journal, resume } =
    options;
  const { native, log, mountpoint, mountFlags, lower: source, transport, cpuLatency } = options.mount;
  const shared = { native, lower, system: runningSystem, log, lease, source: source.path, mountpoint, mountFlags, disconnected, fail };
  const createCoherence = (caches: KernelCaches, ownInodes: OwnInodes): CoherenceShell => {
    const coherence = new CoherenceShell({
      lockspace,
      ownInodes,
      callerThreads,
      caches,
      cachedMax: cachedInodesMax(marginMs),
      now: () => performance.now(),
      log,
      leaving,
      draining,
      fail,
    });
    coherenceThere(coherence);
    return coherence;
  };
  if (transport === "fuse-native") return mountFuseNative({ ...shared, createCoherence });
  let own: OwnInodes | null = null;
  return mountSession({
    ...shared,
    requested: () => cpuLatency.noted(),
    moves,
    walk: (path) => own?.walk(path) ?? Promise.resolve(-E.EAGAIN),
    ...(fileLocks === null ? {} : { fileLocks }),
    ...(resume === undefined ? {} : { resume }),
    ...(journal === null ? {} : { journal }),
    createCoherence: (fd, negotiated) =>
      createCoherence(
        createKernelCaches(native, fd, { expireEntry: negotiated.entryExpire, incEpoch: negotiated.incEpoch }),
        (own = createOwnInodes(native, mountpoint, connectionNumber(mountpoint) ?? 0)),
      ),
  });
}

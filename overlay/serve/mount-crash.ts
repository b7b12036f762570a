/** How a new process goes on with a mount after a crash: the steps between the tables and the first request (overlay/crash/README.md, hazards F38, F39). */
import { setTimeout as sleep } from "node:timers/promises";
import { E, Errno } from "../../dlmd/base/errno.ts";
import { OperatingError } from "../../dlmd/base/error.ts";
import type { Log } from "../../dlmd/base/log.ts";
import { inTime } from "../../dlmd/base/maybe-promise.ts";
import type { DlmClient } from "../../dlmd/client/api.ts";
import { encodeMountGroupMessage, mountGroupName } from "../../dlmd/wire/mount-group.ts";
import type { CoherenceShell } from "../coherence/shell.ts";
import { type AfterCrash, foundWords } from "../crash/after-crash.ts";
import type { Journal } from "../crash/journal.ts";
import type { LowerHandle } from "../lower/lower.ts";
import type { RemoteLower } from "../lower/remote/remote.ts";
import { OTHER_OWNER } from "../restart/take.ts";
import type { Native } from "../../native/index.ts";
import type { JournalBefore } from "../crash/before.ts";
import { hasEnded, isThreadOf } from "../crash/former-process.ts";
import { CRASH_FUSE_FD } from "../crash/keeper.ts";
import { readAgain } from "../session/read-again.ts";
import { ownerChanged, settleUnknown } from "./crash-outcomes.ts";
import type { SessionHandOff } from "../session/mount-session.ts";

/** How often it looks whether it has the locks that dlmd has kept, and a lease. */
export const CRASH_LOCKS_LOOK_MS = 2;

/** The locks of open files that dlmd does not know are waited for so long: behind a fence gate that is shut none comes. */
export const COVER_OPEN_LIMIT_MS = 1000;

/** When a sync of what was changed before is tried again. */
export const SYNC_AGAIN_MS = 1000;

/**
 * What the process before has read and not answered. Its own requests are answered at once: nobody waits for the answers but threads that are to end. Resolves when nothing of
 * an owner can write to its disk any more.
 */
export async function takeFormerRequests(native: Native, { constants }: JournalBefore): Promise<Buffer[]> {
  const { process: former, isOwner } = constants;
  const held = readAgain(native, CRASH_FUSE_FD, (tid) => isThreadOf(former, tid));
  if (isOwner) await hasEnded(former);
  return held;
}

/** The process before is a mounter no more, and nobody waits for what it would say. Then this one may join. */
export async function succeed(
  { afterCrash, journal }: { readonly afterCrash: AfterCrash; readonly journal: Journal },
  client: DlmClient,
  lockspace: string,
  uuid: string,
): Promise<void> {
  const kept = await client.inherited(lockspace);
  afterCrash.inherits(kept);
  journal.addHeir(client.info.clientId);
  const group = mountGroupName(uuid);
  for (const { clientId } of kept) {
    try {
      await client.farewell(clientId, group, encodeMountGroupMessage({ kind: "bye" }));
    } catch (error) {
      // An earlier try has said it, or that process never was a mounter.
      if (!(error instanceof OperatingError) || error.code !== "not-joined") throw error;
    }
  }
}

/** Hazard F41. All that the process before had changed is at this owner, whose epoch it gives, or on the disk; else nobody could tell programs what is lost. */
export function requireKept(
  { constants: { ownerEpoch, kept } }: Pick<JournalBefore, "constants">,
  { openedAt }: Pick<RemoteLower, "openedAt">,
): number {
  const { epoch, cleanAfter } = openedAt ?? { epoch: 0, cleanAfter: 0 };
  if (kept || epoch === ownerEpoch || cleanAfter === ownerEpoch) return epoch;
  throw new OperatingError(`the disk is not known to be clean after the owner with epoch ${ownerEpoch}, but after ${cleanAfter}`, {
    code: OTHER_OWNER,
    hint: "umount -l, and mount again. What was written and not synced may be lost.",
  });
}

export interface GoOnAfterCrash {
  readonly client: DlmClient;
  readonly handOff: SessionHandOff | null;
  readonly coherence: CoherenceShell;
  readonly remote: RemoteLower;
  readonly journal: Journal;
  readonly leaseHolds: () => boolean;
  /** The state of each file with file locks that no other node uses, which dlmd has kept. */
  readonly hasFileLocksHere: () => boolean;
  /** VolumeFileLocks.hasAsked: a refusal is known before anything is given away. */
  readonly hasAskedFileLocks: () => Promise<void>;
  /** And the locks of all others, which go over from the process before (hazard F45). Throws if dlmd has refused some. */
  readonly hasFileLocks: () => boolean;
  /** That at which all is open. */
  readonly hasSameOwner: () => boolean;
  /** It is not the one that the process before had. */
  readonly isOther: boolean;
  /** CrashGuard.openedAt */
  readonly noteOwner: () => void;
  /** takeFormerRequests */
  readonly held: readonly Buffer[];
  /** Throws why this process ends, if it does. */
  readonly check: () => void;
  readonly log: Log;
}

/** Resolves when this process answers the kernel. */
export async function goOnAfterCrash(afterCrash: AfterCrash, host: GoOnAfterCrash): Promise<void> {
  const { client, handOff, coherence, remote, leaseHolds, hasFileLocksHere, hasAskedFileLocks, hasFileLocks, hasSameOwner } = host;
  const { isOther, noteOwner, held, journal, check, log } = host;
  if (handOff === null) throw new Error("a mount that goes on after a crash has a session of the kernel's protocol");
  // At another owner that is so as after each change of the owner: calls on such a file end with ESTALE.
  const open = new Set(afterCrash.before.handles.map(({ lowerHandle }) => lowerHandle as LowerHandle));
  const broken = isOther ? [] : [...open].filter((handle) => remote.isBroken(handle));
  if (broken.length > 0)
    throw new OperatingError(`${broken.length} open files could not be opened again at the owner`, {
      code: "crash-lost",
      hint: "umount -l, and mount again.",
    });
  const until = async (there: () => boolean): Promise<void> => {
    for (; !there(); check()) await new Promise((resolve) => setTimeout(resolve, CRASH_LOCKS_LOOK_MS));
  };
  await until(() => coherence.rest.hasTokens && hasFileLocksHere());
  await hasAskedFileLocks();
  await settleUnknown(afterCrash, { isOther, held }, { remote, journal, log });
  // With the locks of the process before: nobody else can have changed anything until the kernel has nothing of it any more.
  await coherence.dropBefore(handOff.mount.inodes.all());
  coherence.rest.settled();
  await until(leaseHolds);
  if (!(await inTime(coherence.coverOpen(handOff.mount.inodes.all()), COVER_OPEN_LIMIT_MS)))
    log.warn(
      { waitedMs: COVER_OPEN_LIMIT_MS },
      "locks of open files that dlmd does not know have not come: this process goes on without them",
    );
  if (!hasSameOwner()) throw ownerChanged();
  check();
  noteOwner();
  // What it has it has under its own locks, and under those that it has taken over.
  journal.servingClient = client.info.clientId;
  // Of all at once: each is kept for its time only.
  await Promise.all(afterCrash.kept.map(({ clientId }) => client.endKept(clientId)));
  check();
  await until(hasFileLocks);
  log.info(foundWords(afterCrash), "this process goes on after a crash of the one before");
  handOff.begin(held);
}

/**
 * Until all is on the disk that the process before had changed. False: the mount ends before; or a sync has failed, and no later one says what that has lost (hazard
 * H8).
 */
export async function syncBefore(remote: Pick<RemoteLower, "syncBefore">, isEnding: () => boolean, log: Log): Promise<boolean> {
  while (!isEnding()) {
    try {
      await remote.syncBefore();
      return true;
    } catch (error) {
      if (!(error instanceof Errno)) throw error;
      log.warn({ error: String(error) }, "what was changed before the crash could not be synced");
      // Any other is told by the disk, and once.
      if (error.errno !== E.ENOMEM) return false;
    }
    await sleep(SYNC_AGAIN_MS, undefined, { ref: false });
  }
  return false;
}

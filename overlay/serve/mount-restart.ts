/** One mount's part in a restart: what the old process gives, and how the new one goes on (overlay/restart/, hazard F33). */
import { OperatingError } from "../../dlmd/base/error.ts";
import type { Lockspace } from "../../dlmd/client/api.ts";
import type { Rest } from "../coherence/rest.ts";
import type { CoherenceShell } from "../coherence/shell.ts";
import type { VolumeFileLocks } from "../file-lock/file-locks.ts";
import type { Mount } from "../op/mount.ts";
import { giveMount, type RestartAnswer } from "../restart/give.ts";
import type { RestartState } from "../restart/state.ts";
import { heldOf, negotiatedOf, restoreTables } from "../restart/tables.ts";
import { askedAll, type TakeOver } from "../restart/take.ts";
import { connectionNumber } from "../session/connection.ts";
import type { Session, SessionHandOff, SessionResume } from "../session/mount-session.ts";
import type { OwnerRecord } from "../volume/owner-record.ts";
import type { MountProcessOptions } from "./mount-process-options.ts";
import type { MountParts, MountStatus } from "./mount-status.ts";
import type { OwnCalls } from "./own-calls.ts";

/** A program that has waited for a file lock for so long may wait for hours. */
export const LOCK_WAIT_MS = 1000;
/** How often a new process looks whether it has the locks of the old one. */
export const LOCKS_LOOK_MS = 2;
/** How often it says that it waits for them: a node that died may have to be fenced first. */
export const LOCKS_SAY_MS = 5000;

const notThere = { code: "restart-failed", hint: "The mount goes on in its process." };

export interface MountRestartHost {
  readonly mount: MountProcessOptions;
  readonly answers: MountStatus;
  readonly ownCalls: OwnCalls;
  readonly parts: () => MountParts;
  /** It is told to end, or ends. */
  readonly isEnding: () => boolean;
  readonly ownsVolume: () => boolean;
  /** PreferredOwner.hasOwned */
  readonly hasOwned: () => boolean;
  readonly fail: (error: Error) => void;
}

/** What a new process goes on with. */
export interface Resumed {
  readonly takeOver: TakeOver;
  readonly before: RestartState;
}

export class MountRestart {
  readonly #host: MountRestartHost;
  #restarting = false;
  /** Another process goes on with the mount. */
  isGiven = false;
  /** It was told so, or is about to be: what becomes of this process is no matter of the mount's. */
  hasLetGo = false;

  constructor(host: MountRestartHost) {
    this.#host = host;
  }

  /** The answer says how it went. */
  async give(): Promise<RestartAnswer> {
    const refused = (why: string): RestartAnswer => ({ kind: "refused", why });
    if (this.#restarting) return refused("it is being restarted already");
    const { session, coherence } = this.#host.parts();
    if (session === null || coherence === null) return refused("the mount does not answer yet");
    const { handOff } = session;
    if (handOff === null)
      return refused("the mount speaks to the kernel through libfuse (-o transport=fuse-native), which cannot be given on");
    this.#restarting = true;
    try {
      return await this.#give(session, handOff, coherence.rest);
    } finally {
      this.#restarting = false;
    }
  }

  #give(session: Session, handOff: SessionHandOff, rest: Rest): Promise<RestartAnswer> {
    const { mount, ownCalls, parts, fail } = this.#host;
    const { log, leaveStatus, native } = mount;
    const { fileLocks } = parts();
    return giveMount({
      log,
      handOff,
      connection: session.connection,
      refusal: () => this.#refusal(session),
      ownerEpoch: () => parts().owner?.owner?.epoch ?? null,
      openAtOwner: () => ownCalls.remote?.openAtOwner() ?? null,
      fileLocksRest: () => fileLocks?.rest() ?? true,
      waitsForFileLock: () => session.underWay.fileLockWaitMs !== null,
      rest: () => rest.rest(),
      restEnds: () => {
        rest.end();
        fileLocks?.restEnds();
      },
      rules: { mayHavePages: (node) => rest.mayHavePages(node), isOwn: (tid) => native.ownsThread(tid) },
      restless: () => rest.restless(),
      giveLocks: () => {
        rest.giveTokens();
        fileLocks?.letGo();
      },
      lates: () => rest.lates(),
      leaveStatus: () => {
        this.hasLetGo = true;
        leaveStatus();
      },
      fail: (error) => {
        this.hasLetGo = false;
        fail(error);
      },
      fileLocks: () => fileLocks?.rows() ?? [],
      hasOwned: this.#host.hasOwned,
      given: () => {
        this.isGiven = true;
        void handOff.given();
      },
    });
  }

  /** In words; null: nothing is in the way. */
  #refusal({ underWay, connection }: Session): string | null {
    const { answers, parts, mount } = this.#host;
    const { lease, client, group, fileLocks } = parts();
    if (this.#host.isEnding()) return "the mount is ending";
    if (answers.role === "owner" || this.#host.ownsVolume())
      return "this node is the owner of the volume: hand it over first (coverlay handover)";
    if (answers.role === "waiting") return `there is no owner: ${answers.why}`;
    if (lease?.holds() !== true) return "the lease of this node has ended";
    if (client?.view.quorate !== true) return "the cluster has no quorum";
    const wait = group?.wait ?? null;
    if (wait !== null) return wait;
    if (fileLocks?.areShared === true)
      return "programs hold file locks on files that other nodes lock, too (coverlay locks --files lists them)";
    if ((underWay.fileLockWaitMs ?? 0) >= LOCK_WAIT_MS)
      return "programs wait for file locks through this mount (coverlay locks --files lists them)";
    if ((this.#host.ownCalls.remote?.brokenFiles ?? 0) > 0) return "a program has a file open that was lost with an owner";
    if (connectionNumber(mount.mountpoint) !== connection) return "the mount is not found at its path: it was unmounted, moved or covered";
    return null;
  }
}

/** Throws if all is to be opened at another owner than the process before had. */
export function requireSameOwner(isOwner: boolean, owner: OwnerRecord, { ownerEpoch }: RestartState): void {
  if (isOwner || owner.epoch !== ownerEpoch) throw new OperatingError("the volume has another owner now", notThere);
}

/** `coherence`: of the new session, once it is there. */
export function resumeOf(
  { takeOver, before }: Resumed,
  mountpoint: string,
  { coherence, fileLocks }: { readonly coherence: () => CoherenceShell | null; readonly fileLocks: VolumeFileLocks | null },
): SessionResume {
  const { connection } = before;
  const found = connectionNumber(mountpoint);
  if (found !== connection) throw new OperatingError(`connection ${connection} expected at ${mountpoint}, found ${found}`, notThere);
  const restore = (mount: Mount): void => {
    const { inodes, tokens, lates, fileLocks: rows } = restoreTables(mount, before);
    coherence()?.rest.restore(inodes, tokens, lates);
    fileLocks?.inherit(rows);
  };
  return { fd: takeOver.fuseFd, connection, negotiated: negotiatedOf(before), restore };
}

export interface GoOn {
  readonly handOff: SessionHandOff | null;
  /** Write tokens and files with locks: all that the process before has given up. */
  readonly hasLocks: () => boolean;
  /** Files that the owner could not open. */
  readonly brokenFiles: number;
  readonly lockspace: Lockspace;
  readonly clientId: number;
}

/** Resolves when this process answers the kernel. */
export async function goOnWith(
  { takeOver, before }: Resumed,
  { handOff, hasLocks, brokenFiles, lockspace, clientId }: GoOn,
): Promise<void> {
  if (handOff === null) throw new Error("a mount that was taken over has a session of the kernel's protocol");
  if (brokenFiles > 0) throw new OperatingError(`${brokenFiles} open files could not be opened again at the owner`, notThere);
  await askedAll(lockspace, clientId);
  await takeOver.ready();
  for (let looks = 1; !hasLocks(); looks += 1) {
    takeOver.check();
    await new Promise((resolve) => setTimeout(resolve, LOCKS_LOOK_MS));
    if (looks % (LOCKS_SAY_MS / LOCKS_LOOK_MS) === 0) takeOver.waiting();
  }
  takeOver.check();
  handOff.begin(heldOf(before));
}

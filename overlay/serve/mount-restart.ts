/** One mount's part in a restart: what the old process gives, and how the new one goes on (overlay/restart/, hazards F33, F35). */
import { OperatingError } from "../../dlmd/base/error.ts";
import type { Lockspace } from "../../dlmd/client/api.ts";
import type { Rest } from "../coherence/rest.ts";
import type { AfterCrash } from "../crash/after-crash.ts";
import type { CoherenceShell } from "../coherence/shell.ts";
import type { VolumeFileLocks } from "../file-lock/file-locks.ts";
import type { Mount } from "../op/mount.ts";
import type { Kept } from "../restart/collect.ts";
import { giveMount, type RestartAnswer, type RestingHost, startNext } from "../restart/give.ts";
import {
  depositOf,
  type GiveBack,
  type PauseAnswer,
  type Paused,
  type PauseHost,
  pauseMount,
  pauseWithoutDlmd,
  rehearse,
} from "../restart/pause.ts";
import { hasQueued } from "../restart/queued.ts";
import type { RestartState } from "../restart/state.ts";
import { depositedLocks } from "../restart/custody.ts";
import { heldOf, negotiatedOf, restoreTables } from "../restart/tables.ts";
import { askedAll, OTHER_OWNER, type TakeOver } from "../restart/take.ts";
import { MAX_REMOTE_HANDLES } from "../lower/remote/handles.ts";
import { connectionNumber } from "../session/connection.ts";
import type { Session, SessionHandOff, SessionResume } from "../session/mount-session.ts";
import type { OwnerRecord } from "../volume/owner-record.ts";
import type { MountProcessOptions } from "./mount-process-options.ts";
import type { MountParts, MountStatus } from "./mount-status.ts";
import { untilAlone } from "./give-back.ts";
import { addressOf, type OwnCalls } from "./own-calls.ts";

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
  /** OwnerService.whyNotGivenBack */
  readonly whyNotGivenBack: () => string | null;
  /** Of this owner. */
  readonly giveBack: GiveBack;
  /** Changes that this process makes at its own disk are written down before (DiskGuardOptions.journal). */
  readonly notesOwnChanges: () => boolean;
  /** PreferredOwner.hasOwned */
  readonly hasOwned: () => boolean;
  readonly fail: (error: Error) => void;
  /** A restart begins, or this process lets go: from now on no other one is to go on after a crash of this one. */
  readonly restarts: () => void;
}

/** What a new process goes on with. */
export interface Resumed {
  readonly takeOver: TakeOver;
  readonly before: RestartState;
}

/** What a process that has let go of dlmd keeps. */
export interface Pausing extends Paused {
  /** /dev/fuse */
  readonly fd: number;
  /** Of the dlmd that it was a client of. */
  readonly incarnation: string;
  /** What is to be collected if the mount ends; null: its owner is not known any more. */
  readonly kept: Kept | null;
  /** It has died, and is not being restarted. */
  readonly dlmdDied: boolean;
  /** This process is no client of dlmd any more. */
  readonly hasLeftDlmd: boolean;
}

interface Refused {
  readonly kind: "refused";
  readonly why: string;
}

export class MountRestart {
  readonly #host: MountRestartHost;
  #restarting = false;
  /** Another process goes on with the mount. */
  isGiven = false;
  /** This process has let go of dlmd, and keeps this for another one. */
  paused: Pausing | null = null;
  /** Resolves when there is that. */
  readonly pauses: Promise<Pausing>;
  #beginPause: (paused: Pausing) => void = () => {};
  /** It keeps it. */
  holds: () => void = () => {};
  /** It was told so, or is about to be: what becomes of this process is no matter of the mount's. */
  hasLetGo = false;
  /** It goes without dlmd, to its pause. */
  #isAlone = false;

  constructor(host: MountRestartHost) {
    this.#host = host;
    this.pauses = new Promise((resolve) => {
      this.#beginPause = resolve;
    });
  }

  /** The answer says how it went. */
  give(): Promise<RestartAnswer> {
    return this.#with((session, handOff, rest) => this.#give(session, handOff, rest));
  }

  /** Answers when this process has let go of dlmd, which may be restarted then. */
  pause(): Promise<PauseAnswer> {
    return this.#with((session, handOff, rest) => this.#pause(session, handOff, rest));
  }

  async #with<A>(work: (session: Session, handOff: SessionHandOff, rest: Rest) => Promise<A>): Promise<A | Refused> {
    const refused = (why: string): Refused => ({ kind: "refused", why });
    if (this.#restarting) return refused("it is being restarted already");
    const { session, coherence } = this.#host.parts();
    if (session === null || coherence === null) return refused("the mount does not answer yet");
    const { handOff } = session;
    if (handOff === null)
      return refused("the mount speaks to the kernel through libfuse (-o transport=fuse-native), which cannot be given on");
    this.#restarting = true;
    this.#host.restarts();
    try {
      return await work(session, handOff, coherence.rest);
    } finally {
      this.#restarting = false;
    }
  }

  #give(session: Session, handOff: SessionHandOff, rest: Rest): Promise<RestartAnswer> {
    return giveMount({
      ...this.#resting(session, handOff, rest),
      fail: (error) => this.#fail(error),
      given: () => {
        this.isGiven = true;
        void handOff.given();
      },
    });
  }

  async #pause(session: Session, handOff: SessionHandOff, rest: Rest): Promise<PauseAnswer> {
    const { client } = this.#host.parts();
    const keeps = this.#keeps;
    if (keeps === null || client === null) return { kind: "refused", why: "there is no connection to the owner" };
    const resting = this.#resting(session, handOff, rest);
    const found = await pauseMount({
      ...resting,
      ...keeps,
      // Also where this process has become the owner since, or is it no more.
      refusal: () =>
        this.#host.ownsVolume() === (keeps.giveBack !== null) ? this.#refusal(session, keeps.giveBack !== null) : OWNER_CHANGES,
      fail: (error) => this.#fail(error),
      rehearse: async () => {
        if (keeps.giveBack === null) return rehearse(startNext(handOff.fd, "rehearse"));
        const versions = await rehearse(startNext(handOff.fd, "rehearse-owner"));
        await untilAlone(() => this.#host.parts().group?.isAlone === true);
        return versions;
      },
    });
    if ("kind" in found) return found;
    const holds = new Promise<void>((resolve) => {
      this.holds = resolve;
    });
    this.#keepFor(handOff, found, { incarnation: client.info.incarnation, dlmdDied: false });
    await holds;
    const waitedMs = Math.round(performance.now() - found.sinceMs);
    return { kind: "paused", inodes: found.state.inodes.length, files: found.state.openFiles.length, waitedMs };
  }

  /** Who keeps what nobody may have in between: the owner. Where this process is that: nobody (hazard F43), or the next one (hazard F44). null: it cannot be asked. */
  get #keeps(): Pick<PauseHost, "giveBack" | "deposit" | "collect"> | null {
    const { remote } = this.#host.ownCalls;
    const leave = this.#isShared ? this.#host.giveBack.leave : null;
    const giveBack = { ...this.#host.giveBack, leave };
    if (this.#host.ownsVolume()) return { giveBack, deposit: () => Promise.resolve("this node is the owner"), collect: () => undefined };
    if (remote === null) return null;
    return {
      giveBack: null,
      deposit: (request, signal) => remote.deposit(request, signal),
      collect: (ticket) => void remote.collect(ticket).catch(() => undefined),
    };
  }

  #keepFor(handOff: SessionHandOff, found: Paused, dlmd: Pick<Pausing, "incarnation" | "dlmdDied">): void {
    const hasLeftDlmd = dlmd.dlmdDied || found.state.gaveBack;
    this.paused = { ...found, ...dlmd, hasLeftDlmd, fd: handOff.fd, kept: this.#keptFor(found.state) };
    this.isGiven = true;
    this.#beginPause(this.paused);
    void handOff.given();
  }

  /**
   * dlmd has died, without a word (hazard F42). null: this mount ends by that. Else it is about to pause, and resolves with null when it does, or with why it ends after all.
   * `isDead`: AloneHost.isDlmdDead.
   */
  withoutDlmd(isDead: () => Promise<boolean>): Promise<Error | null> | null {
    const { session, coherence, client, lease, fileLocks } = this.#host.parts();
    const keeps = this.#keeps;
    const handOff = session?.handOff ?? null;
    if (this.#restarting || this.hasLetGo || this.isGiven || keeps === null) return null;
    if (session === null || handOff === null || coherence === null || client === null) return null;
    const why = this.#whyNotAlone(session);
    if (why !== null) {
      this.#host.mount.log.warn({ why }, "dlmd has died, and this mount does not pause");
      return null;
    }
    this.#restarting = true;
    this.#isAlone = true;
    this.#host.restarts();
    const refusal = (): string | null => {
      if (this.#host.isEnding()) return "the mount is ending";
      return lease?.holds() === true ? null : "the lease of this node has ended before all was given up";
    };
    const resting = this.#resting(session, handOff, coherence.rest);
    const pausing = pauseWithoutDlmd({
      ...resting,
      ...keeps,
      refusal,
      // There is no service any more that could answer.
      fileLocksRest: () => true,
      yieldFileLocks: () => undefined,
      giveLocks: () => undefined,
      fail: (error) => this.#fail(error),
      rehearse: () => Promise.resolve([]),
      beAlone: () => {
        handOff.leave(resting.rules);
        // What is asked of dlmd just now has no answer; the next process asks again (hazard F42).
        session.underWay.endFileLocks();
        // None goes to the service any more, whoever has waited for it.
        fileLocks?.stay();
        coherence.beAlone();
      },
      left: () => handOff.left,
      notesChanges: this.#host.notesOwnChanges(),
      resends: handOff.negotiated.minor >= RESEND_MINOR,
      isDlmdDead: isDead,
    });
    return pausing
      .then(
        (found) => {
          this.#keepFor(handOff, found, { incarnation: client.info.incarnation, dlmdDied: true });
          return null;
        },
        (error: unknown) => {
          this.hasLetGo = false;
          return error instanceof Error ? error : new Error(String(error));
        },
      )
      .finally(() => {
        this.#restarting = false;
        this.#isAlone = false;
      });
  }

  /** What ended with dlmd is no failure of a mount that pauses, or has paused, by that. */
  isSettledWith(error: Error): boolean {
    const isAlone = this.#isAlone || this.paused?.dlmdDied === true;
    return isAlone && error instanceof OperatingError && ENDED_WITH_DLMD.has(error.code);
  }

  /** Why the death of dlmd ends this mount, in words; null: it does not. */
  #whyNotAlone(session: Session): string | null {
    const why = this.#refusal(session, this.#host.ownsVolume(), true);
    if (why !== null) return why;
    return this.#host.ownCalls.remote?.hasDoubtful === true ? "calls are made once more at a new owner" : null;
  }

  #keptFor({ custody: ticket, gaveBack, ownerEpoch }: RestartState): Kept | null {
    const record = this.#host.parts().owner?.owner ?? null;
    const volumeUuid = this.#host.mount.bit.uuid;
    if (ticket === null) return null;
    if (gaveBack) return { owner: { after: ownerEpoch }, volumeUuid, ticket };
    return record?.epoch === ownerEpoch ? { owner: { ...addressOf(record), epoch: record.epoch }, volumeUuid, ticket } : null;
  }

  /** Why a crash of this process ends the mount now, in words; null: another process could go on. */
  whyNoCrash(connection: number): string | null {
    const { answers, parts, ownCalls } = this.#host;
    const { fileLocks, group } = parts();
    if (this.#restarting || this.hasLetGo || this.isGiven) return "it is being restarted";
    if (this.#host.isEnding()) return "the mount is ending";
    if (group?.isBlockedByOperator === true) return "an operator blocks it";
    const isOwner = answers.role === "owner";
    if (isOwner !== this.#host.ownsVolume()) return "the owner is changing";
    const asOwner = isOwner ? this.#whyNoOwnerCrash() : null;
    if (asOwner !== null) return asOwner;
    if (connectionNumber(this.#host.mount.mountpoint) !== connection)
      return "the mount is not found at its path: it was unmounted, moved or covered";
    const locks = fileLocks?.whyNoCrash ?? null;
    if (locks !== null) return locks;
    const { remote } = ownCalls;
    if (remote === null) return isOwner ? null : "this mount has no connection to an owner";
    if (remote.disconnected) return "there is no connection to the owner";
    if (remote.hasDoubtful) return "calls are made once more at a new owner";
    if (remote.hasLosses) return "something was lost with an owner";
    return null;
  }

  /** Another node has the volume mounted, or is about to, as far as is known. */
  get #isShared(): boolean {
    return this.#host.parts().group?.isAlone !== true;
  }

  /** Hazard F43. Without an owner nobody can change what this mount has, and the next one is this mount again. `mayBeShared`: others keep what it has (hazard F44). */
  #whyNotGivenBack(mayBeShared: boolean): string | null {
    if (this.#isShared && !mayBeShared)
      return "this node is the owner, and the volume has other mounts: hand it over to another node first (coverlay handover), or unmount them";
    return this.#whyNoOwnerCrash() ?? this.#host.whyNotGivenBack();
  }

  /** Hazard F41. The next owner has to find a clean disk, and room for all that is open here. */
  #whyNoOwnerCrash(): string | null {
    const { mount, ownCalls } = this.#host;
    if (mount.lower.kind === "directory") return "this node is the owner, and the volume is a directory of it";
    if (mount.readOnly) return "this node is the owner, and the volume is read-only here";
    if ((ownCalls.ownGuard?.openHandles ?? 0) > MAX_REMOTE_HANDLES)
      return `this node is the owner, and has more than ${MAX_REMOTE_HANDLES} files open`;
    return null;
  }

  #fail(error: Error): void {
    this.hasLetGo = false;
    this.#host.fail(error);
  }

  #resting(session: Session, handOff: SessionHandOff, rest: Rest): RestingHost {
    const { mount, ownCalls, parts } = this.#host;
    const { log, leaveStatus, native } = mount;
    const { fileLocks } = parts();
    return {
      log,
      handOff,
      connection: session.connection,
      refusal: () => this.#refusal(session),
      ownerEpoch: () => parts().owner?.owner?.epoch ?? null,
      openAtOwner: () => ownCalls.openAtOwner(),
      fileLocksRest: () => fileLocks?.rest() ?? true,
      yieldFileLocks: () => session.underWay.yieldFileLocks(),
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
      shared: () => rest.shared(),
      leaveStatus: () => {
        this.hasLetGo = true;
        leaveStatus();
      },
      fileLocks: () => fileLocks?.rows() ?? [],
      hasOwned: this.#host.hasOwned,
    };
  }

  /** In words; null: nothing is in the way. `asOwner`: its disk is to be given back; `mayBeShared`: also where others have the volume mounted. */
  #refusal({ connection }: Session, asOwner = false, mayBeShared = false): string | null {
    const { answers, parts, mount } = this.#host;
    const { lease, client, group } = parts();
    if (this.#host.isEnding()) return "the mount is ending";
    if (asOwner) {
      const kept = answers.role === "owner" ? this.#whyNotGivenBack(mayBeShared) : OWNER_CHANGES;
      if (kept !== null) return kept;
    } else if (answers.role === "owner" || this.#host.ownsVolume())
      return "this node is the owner of the volume: hand it over first (coverlay handover)";
    if (answers.role === "waiting") return `there is no owner: ${answers.why}`;
    if (lease?.holds() !== true) return "the lease of this node has ended";
    if (client?.view.quorate !== true) return "the cluster has no quorum";
    const wait = group?.wait ?? null;
    if (wait !== null) return wait;
    if ((this.#host.ownCalls.remote?.brokenFiles ?? 0) > 0) return "a program has a file open that was lost with an owner";
    if (connectionNumber(mount.mountpoint) !== connection) return "the mount is not found at its path: it was unmounted, moved or covered";
    return null;
  }
}

const OWNER_CHANGES = "the owner is changing";

/** The group of the mounters, and the owner's election. */
const ENDED_WITH_DLMD: ReadonlySet<string> = new Set(["group-ended", "not-said", "disconnected"]);

/** FUSE_HAS_RESEND: Linux 6.9. */
const RESEND_MINOR = 40;

/** Throws if all is to be opened at another owner than the process before had. */
export function requireSameOwner(isOwner: boolean, owner: OwnerRecord, { ownerEpoch }: RestartState): void {
  if (isOwner || owner.epoch !== ownerEpoch)
    throw new OperatingError("the volume has another owner now", { ...notThere, code: OTHER_OWNER });
}

/** `coherence`: of the new session, once it is there. */
export function resumeOf(
  { fuseFd, before, afterCrash }: { readonly fuseFd: number; readonly before: RestartState; readonly afterCrash: AfterCrash | null },
  mountpoint: string,
  { coherence, fileLocks }: { readonly coherence: () => CoherenceShell | null; readonly fileLocks: VolumeFileLocks | null },
): SessionResume {
  const { connection } = before;
  const found = connectionNumber(mountpoint);
  if (found !== connection) {
    const code = afterCrash === null ? notThere.code : "crash-lost";
    throw new OperatingError(`connection ${connection} expected at ${mountpoint}, found ${found}`, { ...notThere, code });
  }
  const restore = (mount: Mount): void => {
    const {
      inodes,
      tokens,
      lates,
      fileLocks: rows,
    } = restoreTables(mount, before, afterCrash === null ? undefined : (inode) => afterCrash.keptOf(inode));
    coherence()?.rest.restore(inodes, tokens, lates, before.shared);
    if (afterCrash === null) fileLocks?.inherit(rows);
    else {
      fileLocks?.inherit(afterCrash.fileLocks, true);
      // Their close(2) gives up locks.
      for (const inode of mount.inodes.all()) if (afterCrash.isLocked(inode)) mount.askFlush(inode);
    }
  };
  return { fd: fuseFd, connection, negotiated: negotiatedOf(before), restore, ...(afterCrash === null ? {} : { crashed: afterCrash }) };
}

export interface GoOn {
  readonly handOff: SessionHandOff | null;
  /** Write tokens and files with locks: all that the process before has given up. Throws if dlmd has refused some. */
  readonly hasLocks: () => boolean;
  /** VolumeFileLocks.hasAsked (hazard F45) */
  readonly hasAskedFileLocks: () => Promise<void>;
  /** Files that the owner could not open. */
  readonly brokenFiles: number;
  readonly lockspace: Lockspace;
  readonly clientId: number;
  /** Of this node: without one nothing is answered, and no volume is taken from an owner that has nothing to keep any more. */
  readonly leaseHolds: () => boolean;
  /** RemoteLower.collect */
  readonly collect: (ticket: string) => Promise<boolean>;
  /** Throws if this process is the owner no more, where it has to be. */
  readonly checkOwner: () => void;
  /** VolumeOwner.mayOwn: whoever keeps what the process before had may end before it is collected, and then nobody else may be there. */
  readonly mayOwn: () => void;
  /** RestartState.again */
  readonly sentAgain: () => readonly Buffer[];
}

/** The process before waits no longer than it is told that this one does. */
async function sayingThatItWaits<T>(takeOver: TakeOver, work: Promise<T>): Promise<T> {
  const timer = setInterval(() => takeOver.waiting(), LOCKS_SAY_MS);
  try {
    return await work;
  } finally {
    clearInterval(timer);
  }
}

/** Resolves when this process answers the kernel. */
export async function goOnWith(
  { takeOver, before }: Resumed,
  { handOff, hasLocks, hasAskedFileLocks, brokenFiles, lockspace, clientId, leaseHolds, collect, checkOwner, mayOwn, sentAgain }: GoOn,
): Promise<void> {
  if (handOff === null) throw new Error("a mount that was taken over has a session of the kernel's protocol");
  if (brokenFiles > 0) throw new OperatingError(`${brokenFiles} open files could not be opened again at the owner`, notThere);
  const { custody } = before;
  if (custody === null) await askedAll(lockspace, clientId);
  else await Promise.all(depositedLocks(depositOf(before, custody)).map((resource) => hasQueued(lockspace, resource)));
  await hasAskedFileLocks();
  hasLocks();
  while (!leaseHolds()) {
    takeOver.check();
    await new Promise((resolve) => setTimeout(resolve, LOCKS_LOOK_MS));
  }
  await takeOver.ready();
  mayOwn();
  if (custody !== null && !(await sayingThatItWaits(takeOver, collect(custody))))
    throw new OperatingError("the owner has given up what it kept for this mount", {
      code: "custody-lost",
      hint: "umount -l, and mount again.",
    });
  for (let looks = 1; !hasLocks(); looks += 1) {
    takeOver.check();
    await new Promise((resolve) => setTimeout(resolve, LOCKS_LOOK_MS));
    if (looks % (LOCKS_SAY_MS / LOCKS_LOOK_MS) === 0) takeOver.waiting();
  }
  takeOver.check();
  // Else what was collected is the proof.
  if (custody === null) checkOwner();
  handOff.begin(before.again ? sentAgain() : heldOf(before));
}

/**
 * The process behind one mount: joins the lock manager, the owner role, the lower, the coherence layer and the session, in the order
 * in which they need each other, and takes them down in reverse. It ends when the mount does.
 * What it does as the owner: owner-service.ts; where its own calls go: own-calls.ts; what it says of itself: mount-status.ts.
 */
import { OperatingError } from "../../dlmd/base/error.ts";
import { EXIT } from "../../dlmd/base/exit-status.ts";
import type { DlmClient, DlmClientHandlers, GoneClient, Lockspace, VolumeConfig } from "../../dlmd/client/api.ts";
import { inTime } from "../../dlmd/base/maybe-promise.ts";
import { connectDlm } from "../../dlmd/client/client.ts";
import type { CoherenceShell } from "../coherence/shell.ts";
import type { AfterCrash } from "../crash/after-crash.ts";
import { CRASH_FUSE_FD } from "../crash/keeper.ts";
import { VolumeFileLocks } from "../file-lock/file-locks.ts";
import { Lease, openLeasePage } from "../lease/lease.ts";
import type { Lower } from "../lower/lower.ts";
import type { RemoteLower } from "../lower/remote/remote.ts";
import { BlockGate } from "../mount-group/block-gate.ts";
import { Knobs, knobsDirectory } from "../mount-group/knobs.ts";
import { VolumeMountGroup } from "../mount-group/mount-group.ts";
import { ownerAfter } from "../restart/state.ts";
import { openAtOwnerOf } from "../restart/tables.ts";
import { REHEARSED, type TakeOver } from "../restart/take.ts";
import { detachMount } from "../session/connection.ts";
import type { Session } from "../session/mount-session.ts";
import { giveUpRole } from "../volume/former-owner.ts";
import { type VolumeOwner, volumeLockspace } from "../volume/owner.ts";
import type { OwnerRecord } from "../volume/owner-record.ts";
import { dropAndAbort } from "./abandon.ts";
import { AnswerLimit } from "./answer-limit.ts";
import { CrashGuard } from "./crash-guard.ts";
import { findVolume } from "./find-volume.ts";
import { leaveDlmd, requireNoOwnerBetween } from "./give-back.ts";
import type { HandOvers } from "./hand-over.ts";
import { isThreadOf, parentProcess } from "../crash/former-process.ts";
import { readAgain } from "../session/read-again.ts";
import { DlmdProcess } from "./dlmd-process.ts";
import { goOnAfterCrash, requireKept, succeed, syncBefore, takeFormerRequests } from "./mount-crash.ts";
import type { MountProcessOptions } from "./mount-process-options.ts";
import { type MountParts, MountStatus } from "./mount-status.ts";
import { goOnWith, MountRestart, type Pausing, requireSameOwner, resumeOf } from "./mount-restart.ts";
import { openSession } from "./open-session.ts";
import { DirectoryMoves } from "../lower/directory-moves.ts";
import { OwnCalls } from "./own-calls.ts";
import { createOwnerRole, type OwnerRoleHost } from "./owner-role.ts";
import { OwnerChanges } from "./owner-changes.ts";
import { OwnerService } from "./owner-service.ts";
import type { PreferredMove } from "./preferred-move.ts";
import { SelfFence } from "./self-fence.ts";

/** A mount that ends waits so long for the owner to take what its programs have written (hazard F23). */
export const WRITE_REST_MS = 10_000;

function rehearsed(takeOver: TakeOver): never {
  takeOver.hello();
  throw new OperatingError("another process could go on with the mount", { code: REHEARSED, hint: "" });
}

export class MountProcess {
  readonly options: MountProcessOptions;
  readonly crash: CrashGuard;
  /** For the status server. */
  readonly answers: MountStatus;
  /** Resolves with null after a clean unmount, else with what went wrong. */
  readonly ended: Promise<Error | null>;
  #resolveEnded: (error: Error | null) => void = () => {};
  #client: DlmClient | null = null;
  #lease: Lease | null = null;
  #leaseEndMs: () => number = () => 0;
  #selfFence: SelfFence | null = null;
  #answerLimit: AnswerLimit | null = null;
  #volume: VolumeConfig | null = null;
  #dlmd: DlmdProcess | null = null;
  #owner: VolumeOwner | null = null;
  #handOvers: HandOvers | null = null;
  #preferredMove: PreferredMove | null = null;
  readonly #service: OwnerService;
  readonly #ownCalls: OwnCalls;
  readonly #moves = new DirectoryMoves();
  readonly #gate: BlockGate = new BlockGate();
  readonly #ownerChanges: OwnerChanges = new OwnerChanges();
  #group: VolumeMountGroup | null = null;
  #session: Session | null = null;
  #coherence: CoherenceShell | null = null;
  #fileLocks: VolumeFileLocks | null = null;
  readonly #restart: MountRestart;
  /** SIGTERM came. */
  #terminating = false;
  #ending = false;
  #failure: Error | null = null;
  /** After a crash: not all that the process before has changed is on the disk. */
  #isUnsynced = false;
  /** Rejects with a failure that comes before there is a session: `start` waits for nothing else then. */
  readonly #failed: Promise<never>;
  #rejectStart: (error: Error) => void = () => {};
  /** Ends the wait for an owner. */
  #giveUpOwner: (error: Error) => void = () => {};

  constructor(given: MountProcessOptions) {
    const changed = (): void => {
      this.crash.review();
      given.changed();
    };
    const options = { ...given, changed };
    this.options = options;
    this.crash = new CrashGuard(options, options.afterCrash === true);
    this.#ownCalls = this.#createOwnCalls();
    this.#service = this.#createService();
    this.answers = new MountStatus({
      mount: options,
      parts: () => this.#parts,
      service: this.#service,
      ownCalls: this.#ownCalls,
      gate: this.#gate,
      ownerChanges: this.#ownerChanges,
      restart: () => this.#restart.give(),
      pause: () => this.#restart.pause(),
      crash: () => this.crash.why,
    });
    this.#restart = new MountRestart({
      mount: options,
      answers: this.answers,
      ownCalls: this.#ownCalls,
      parts: () => this.#parts,
      isEnding: () => this.#isLeaving,
      ownsVolume: () => this.#service.owned !== null,
      whyNotGivenBack: () => this.#service.whyNotGivenBack,
      giveBack: {
        sync: () => this.#service.sync(),
        disk: () => this.#giveBack(),
        leave: (request, signal) => this.#service.leaveToCallers(request, signal),
        takeBack: (ticket) => this.#service.takeBack(ticket),
        dlmd: () => leaveDlmd({ ...this.#parts, log: this.options.log }),
      },
      notesOwnChanges: () => this.#ownCalls.remote !== null || this.crash.journal?.wanted === true,
      hasOwned: () => this.#preferredMove?.hasOwned === true,
      fail: (error) => this.fail(error),
      restarts: () => this.crash.review(),
    });
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
    this.#failed = new Promise((_, reject) => {
      this.#rejectStart = reject;
    });
    // It may come when nothing is awaited.
    this.#failed.catch(() => undefined);
  }

  /** Resolves when the mount answers. OperatingError: it can not be, and nothing is left. */
  async start(): Promise<void> {
    const { native, log, bastLimitMs: limitMs } = this.options;
    try {
      const client = await this.#unlessFailed(this.#connect());
      const setLimitMs = (ms: number): void => client.setBastLimitMs(ms);
      const answerLimit = new AnswerLimit({ limitMs, ownerWait: () => this.answers.ownerWait, log, setLimitMs });
      this.#answerLimit = answerLimit;
      const page = openLeasePage(native, this.options.dlmdSocket, client.info.incarnation);
      this.#selfFence = new SelfFence({ marginMs: page.marginMs, letGo: (why) => this.#service.letGo(why) });
      this.#leaseEndMs = page.endMs;
      this.#lease = this.#openLease(page.endMs);
      const volume = findVolume(client, this.options.bit);
      this.#volume = volume;
      const lockspace = await this.#unlessFailed(client.lockspace(volumeLockspace(volume.uuid)));
      const { afterCrash, journal } = this.crash;
      // What the process before had changed, and what of it is on the disk, is not known.
      this.#isUnsynced = afterCrash !== null;
      const held = afterCrash === null ? [] : await this.#unlessFailed(takeFormerRequests(native, afterCrash.before));
      if (afterCrash !== null && journal !== null)
        await this.#unlessFailed(succeed({ afterCrash, journal }, client, lockspace.name, volume.uuid));
      const group = this.#createGroup(client, volume);
      await this.#unlessFailed(group.join());
      const dir = knobsDirectory(this.options.runDir, volume.name);
      const show = (): void => group.showAs((blockOrdered, lost) => new Knobs({ dir, log, blockOrdered, lost }));
      const { takeOver } = this.options;
      if (takeOver === undefined && afterCrash === null) show();
      if (takeOver?.rehearses === "joined") rehearsed(takeOver);
      // Before there is an owner again: who is the next one it depends on.
      const paused = takeOver?.isAfterPause === true ? await this.#unlessFailed(takeOver.state()) : null;
      // Hazards F43 and F44.
      const needed = paused === null ? "same" : ownerAfter(paused);
      const [isLeft, isAlone] = [needed === "another", needed === "itself"];
      this.#service.servesOnlyItself = isAlone;
      let ownOpened: () => void = () => {};
      if (afterCrash !== null || isAlone)
        this.#service.openFiles.ownOpened = new Promise((resolve) => {
          ownOpened = resolve;
        });
      if (afterCrash !== null) {
        const locks = afterCrash.kept.flatMap((one) => one.locks);
        await this.#unlessFailed(giveUpRole(lockspace, locks, client.info.nodeid));
      }
      const record = await this.#unlessFailed(
        this.#joinVolume({ client, lockspace, group, mayOwn: !isLeft, volumeName: volume.name, answerLimit }),
      );
      if (takeOver?.rehearses === "whole") {
        await this.#unlessFailed(this.#ownCalls.choose(client, this.#service.owned, this.#owner?.owner ?? record));
        rehearsed(takeOver);
      }
      const before = paused ?? (takeOver === undefined ? (afterCrash?.state ?? null) : await this.#unlessFailed(takeOver.state()));
      const fileLocks = this.options.localFlocks ? null : await this.#unlessFailed(this.#createFileLocks(client, lockspace));
      // Another owner may have come since: it was reported while there was no remote lower to hear of it.
      const owner = this.#owner?.owner ?? record;
      const lower = this.#gate.wrap(
        await this.#unlessFailed(this.#ownCalls.choose(client, this.#service.owned, owner, before === null ? null : openAtOwnerOf(before))),
      );
      ownOpened();
      const { remote } = this.#ownCalls;
      const openedAt = afterCrash === null || remote === null ? 0 : requireKept(afterCrash.before, remote);
      const checkOwner = (): void => {
        if (needed !== "same" && before !== null && remote !== null) requireNoOwnerBetween(this.#service.owned !== null, remote, before);
      };
      checkOwner();
      if (needed === "same" && before !== null && afterCrash === null)
        requireSameOwner(this.#service.owned !== null, this.#owner?.owner ?? owner, before);
      if (before?.hasOwned === true) this.#preferredMove?.becameOwner();
      const fuseFd = afterCrash === null ? (takeOver?.fuseFd ?? 0) : CRASH_FUSE_FD;
      // It is awaited to its end: what it has mounted must be taken out again.
      const session = await openSession({
        mount: this.options,
        lower,
        lockspace,
        lease: this.#lease,
        fileLocks,
        marginMs: page.marginMs,
        leaving: (id) => this.#ownCalls.tellOpens(id),
        draining: () => this.#ownCalls.hurry(),
        moves: this.#moves,
        coherenceThere: (coherence) => {
          this.#coherence = coherence;
        },
        disconnected: async () => {
          if (this.#failure === null) await this.#writeRest(lower);
          this.#lease?.end();
          this.#gate.end();
          this.#ownCalls.shutdown();
        },
        fail: (error) => this.fail(error),
        journal: this.crash.journal,
        ...(before === null
          ? {}
          : { resume: resumeOf({ fuseFd, before, afterCrash }, this.options.mountpoint, { coherence: () => this.#coherence, fileLocks }) }),
      });
      if (before !== null && afterCrash !== null)
        await this.#unlessFailed(this.#goOnAfterCrash(afterCrash, held, client, session, openedAt));
      if (before !== null && takeOver !== undefined) {
        // At another owner that is so as after each change of the owner: calls on such a file end with ESTALE.
        const brokenFiles = isLeft ? 0 : (this.#ownCalls.remote?.brokenFiles ?? 0);
        const { handOff } = session;
        const hasLocks = (): boolean => fileLocks?.hasInherited !== false && this.#coherence?.rest.hasTokens === true;
        const collect = (ticket: string): Promise<boolean> => this.#ownCalls.remote?.collect(ticket) ?? Promise.resolve(false);
        const { clientId } = client.info;
        const leaseHolds = (): boolean => this.#lease?.holds() === true;
        const sentAgain = (): readonly Buffer[] => readAgain(native, fuseFd, (tid) => isThreadOf(parentProcess(), tid));
        await this.#unlessFailed(
          goOnWith(
            { takeOver, before },
            {
              handOff,
              hasLocks,
              hasAskedFileLocks: () => fileLocks?.hasAsked() ?? Promise.resolve(),
              brokenFiles,
              lockspace,
              clientId,
              leaseHolds,
              collect,
              checkOwner,
              mayOwn: () => (isLeft ? this.#owner?.mayOwn() : undefined),
              sentAgain,
            },
          ),
        );
        this.#service.servesOnlyItself = false;
      }
      if (before !== null) show();
      await this.#enterMounted(session);
      await this.#guard(client, session);
      // What was inherited after a crash has stayed here until now.
      if (afterCrash !== null) fileLocks?.restEnds();
    } catch (error) {
      // What dlmd keeps of this process is for the next one: it ends as if it had crashed, too.
      if (this.crash.resumes) throw error;
      this.options.takeOver?.giveUp(error instanceof Error ? error : new Error(String(error)));
      await this.#end();
      throw error;
    }
    this.options.changed();
  }

  /** Hazard F43. Nothing is answered any more, and nobody can take the disk before its block says so: the lease is no matter. */
  #giveBack(): Promise<void> {
    this.#lease?.end();
    this.#selfFence?.end();
    return this.#service.giveBack();
  }

  /** `held`: what the kernel has sent again; `openedAt`: epoch of the owner at which all is open. */
  async #goOnAfterCrash(
    afterCrash: AfterCrash,
    held: readonly Buffer[],
    client: DlmClient,
    { handOff }: Session,
    openedAt: number,
  ): Promise<void> {
    const { remote } = this.#ownCalls;
    const { journal } = this.crash;
    if (remote === null || this.#coherence === null || journal === null) throw new Error("after a crash, and without what it needs");
    await goOnAfterCrash(afterCrash, {
      held,
      client,
      handOff,
      coherence: this.#coherence,
      remote,
      journal,
      leaseHolds: () => this.#lease?.holds() === true,
      hasFileLocksHere: () => this.#fileLocks?.hasInheritedHere !== false,
      hasAskedFileLocks: () => this.#fileLocks?.hasAsked() ?? Promise.resolve(),
      hasFileLocks: () => this.#fileLocks?.hasInherited !== false,
      hasSameOwner: () => this.#owner?.owner?.epoch === openedAt,
      isOther: openedAt !== afterCrash.before.constants.ownerEpoch,
      noteOwner: () => this.crash.openedAt(openedAt, this.#service.owned !== null),
      check: () => {
        if (this.#failure !== null) throw this.#failure;
      },
      log: this.options.log,
    });
    void this.#syncBefore(remote);
  }

  async #syncBefore(remote: RemoteLower): Promise<void> {
    this.#isUnsynced = !(await syncBefore(remote, () => this.#ending, this.options.log));
  }

  /** Hazard F10: an fsync(2) would say nothing of what was lost with it. */
  #failIfUnsynced(): void {
    if (!this.#isUnsynced) return;
    const hint = "umount -l, and mount again. What was written before the crash may be lost.";
    this.fail(new OperatingError("the owner died before all was synced that a crashed process had changed", { code: "crash-lost", hint }));
  }

  /** From now on a crash of this process is a pause, where it can be one. */
  async #guard(client: DlmClient, { handOff, connection }: Session): Promise<void> {
    if (handOff === null) return this.crash.never("libfuse is the transport");
    const { fd: fuseFd, negotiated } = handOff;
    const why = (): string | null => this.#restart.whyNoCrash(connection);
    const ownerEpoch = (): number | null => this.#owner?.owner?.epoch ?? null;
    const hasOwned = (): boolean => this.#preferredMove?.hasOwned === true;
    const isOwner = (): boolean => this.#service.owned !== null;
    await this.crash.begin({ client, fuseFd, connection, negotiated, why, ownerEpoch, isOwner, hasOwned });
  }

  /** Another process goes on with the mount. */
  get isGiven(): boolean {
    return this.#restart.isGiven;
  }

  /** This process keeps the mount for another one; null: it does not. */
  get paused(): Pausing | null {
    return this.#restart.paused;
  }

  /** Resolves when this process begins to let go of dlmd. */
  get pauses(): Promise<Pausing> {
    return this.#restart.pauses;
  }

  /** It does: `pause` is answered. */
  holds(): void {
    this.#restart.holds();
  }

  async #connect(): Promise<DlmClient> {
    const { log, dlmdSocket, bastLimitMs } = this.options;
    const handlers: DlmClientHandlers = {
      view: (view) => {
        log.info({ view: view.viewId, quorate: view.quorate, running: view.running, reason: view.quorumReason }, "view");
        this.#endWaiting();
        this.#owner?.receiveView();
        this.#handOvers?.viewChanged();
        this.#group?.viewChanged();
      },
      gone: (clients) => this.#handleGone(clients),
      overlayKeysChanged: () => {
        this.#service.owned?.server.keysChanged();
        this.#ownCalls.remote?.keysChanged();
      },
      disconnected: (reason, told) => this.#handleDisconnected(reason, told),
    };
    const client = await connectDlm(dlmdSocket, handlers, { bastLimitMs, owner: this.crash.key });
    this.#dlmd = new DlmdProcess(this.options.native, client.descriptor);
    this.crash.connected(client);
    if (this.#ending) await client.close();
    this.#client = client;
    return client;
  }

  /** A step of `start`. What it waits for is ended by `#end`. */
  async #unlessFailed<T>(step: Promise<T>): Promise<T> {
    const result = await Promise.race([step, this.#failed]);
    if (this.#failure !== null) throw this.#failure;
    return result;
  }

  /** Throws the failure that came while it was mounted: nobody is to find the mount. */
  async #enterMounted(session: Session): Promise<void> {
    if (this.#failure !== null) {
      detachMount(this.options.native, this.options.mountpoint, session.connection);
      await this.#abandon(session);
      await session.ended;
      throw this.#failure;
    }
    this.#session = session;
    this.#group?.mounted();
    this.#preferredMove?.begin();
    void session.ended.then(() => this.#end());
  }

  /** Before the election: this mount gets its jid there. */
  #createGroup(client: DlmClient, { uuid }: VolumeConfig): VolumeMountGroup {
    const { log, changed } = this.options;
    const group = new VolumeMountGroup({
      client,
      uuid,
      log,
      letGo: (dead) => this.#service.closeGone(dead),
      late: (why) => this.#service.stopLate(why),
      hasReopened: (mounter) => this.#service.openFiles.hasReopened(mounter, client.info),
      settle: () => this.#service.openFiles.settle(),
      recover: (dead, all) => this.#service.openFiles.recover(dead, all),
      isCutOff: () => this.#lease?.holds() === true && this.#service.openFiles.isCutOff,
      setBlocked: (blocked) => {
        this.#answerLimit?.setBlocked(blocked);
        if (blocked) this.#gate.hold();
        else this.#gate.letGo();
      },
      fail: (error) => this.fail(error),
      changed,
    });
    this.#group = group;
    return group;
  }

  async #createFileLocks(client: DlmClient, lockspace: Lockspace): Promise<VolumeFileLocks> {
    const { nodeid, clientId } = client.info;
    const service = await client.fileLocks(lockspace.name);
    const now = (): number => performance.now();
    this.#fileLocks = new VolumeFileLocks({
      lockspace,
      service,
      nodeid,
      clientId,
      now,
      fail: (error) => this.fail(error),
      journal: this.crash.locks,
      beyond: () => this.crash.notNow(),
    });
    return this.#fileLocks;
  }

  #openLease(endMs: () => number): Lease {
    const { native, log } = this.options;
    return new Lease({
      endMs,
      nowMs: () => native.bootTimeMs(),
      log,
      suspend: () => {
        this.#coherence?.suspend();
        this.#selfFence?.lapsed();
        this.#endWaiting();
      },
      resume: (answered) => {
        this.#selfFence?.end();
        this.#coherence?.resume(answered);
        this.#service.owned?.server.resume();
      },
    });
  }

  /** Takes part in the owner's election; resolves when there is an owner to work with. */
  #joinVolume(
    joined: Pick<OwnerRoleHost, "client" | "lockspace" | "group" | "mayOwn" | "volumeName" | "answerLimit">,
  ): Promise<OwnerRecord> {
    const { owner, handOvers, preferredMove, known, giveUp } = createOwnerRole({
      ...joined,
      options: this.options,
      service: this.#service,
      ownCalls: this.#ownCalls,
      ownerChanges: this.#ownerChanges,
      why: () => this.answers.why,
      isWell: () => this.answers.isWell && !this.#terminating,
      endWaiting: () => this.#endWaiting(),
      fail: (error) => this.fail(error),
    });
    this.#owner = owner;
    this.#handOvers = handOvers;
    this.#preferredMove = preferredMove;
    this.#giveUpOwner = giveUp;
    owner.start();
    return known;
  }

  get #isLeaving(): boolean {
    return this.#ending || this.#terminating || this.#failure !== null;
  }

  #createOwnCalls(): OwnCalls {
    return new OwnCalls({
      mount: this.options,
      // The lower is there before the coherence layer.
      holds: {
        grants: () => this.#coherence?.operations.since() ?? 0,
        of: (id) => this.#coherence?.grantId(id) ?? 0,
      },
      onRefused: (error) => this.fail(error),
      unanswered: () => this.#coherence?.keepLocks(),
      onOwnerDied: async () => {
        this.#failIfUnsynced();
        await this.#coherence?.distrustAll();
      },
      keeper: {
        // On its way out it waits for no owner, and is none.
        keep: (request) => (this.#isLeaving ? Promise.resolve({ refused: "it is ending" }) : this.#service.keep(request)),
        keepNot: (ticket) => this.#service.keepNot(ticket),
      },
      moves: this.#moves,
      journal: this.crash.journal,
    });
  }

  #createService(): OwnerService {
    return new OwnerService({
      options: this.options,
      client: () => this.#client,
      role: () => this.#owner,
      leaseHolds: () => this.#lease?.holds() === true,
      ownWay: () => this.#ownCalls,
      reopened: () => this.#group?.checkReopened(),
      isEnding: () => this.#ending,
      ownerLost: () => this.#answerLimit?.ownerLost(),
      beginHandOver: (request) => this.answers.handOvers.begin(request),
      movesAway: () => this.#handOvers?.ownerLost(),
      fail: (error) => this.fail(error),
      moves: this.#moves,
      journal: this.crash.journal,
      foundClean: (epoch) => this.crash.foundClean(epoch),
    });
  }

  get #parts(): MountParts {
    return {
      client: this.#client,
      volume: this.#volume,
      lease: this.#lease,
      owner: this.#owner,
      handOvers: this.#handOvers,
      group: this.#group,
      session: this.#session,
      coherence: this.#coherence,
      fileLocks: this.#fileLocks,
      isEnding: this.#ending,
      failure: this.#failure,
    };
  }

  async #handleGone(clients: readonly GoneClient[]): Promise<void> {
    await this.#service.closeGone(clients);
    this.#owner?.receiveGone(clients);
  }

  #handleDisconnected(reason: Error, told: boolean): void {
    // A hand-over that was asked for would keep the owner's service from its end.
    this.#handOvers?.dlmdLost();
    const dlmd = this.#dlmd;
    const pausing =
      told || dlmd === null || this.#ending || this.#failure !== null ? null : this.#restart.withoutDlmd(() => dlmd.hasEnded());
    if (pausing === null) return this.#dlmdLost(reason);
    this.options.log.warn({ error: reason.message }, "dlmd has died: this mount comes to rest, and waits for the next one");
    void pausing.then((why) => this.#dlmdLost(why ?? reason));
  }

  /** After a pause only its own parts hear of it. */
  #dlmdLost(reason: Error): void {
    // Also on the way out: leave() waits for its locks, and gives the disk back without them.
    this.#owner?.receiveDisconnected(reason);
    if (this.#ending || this.isGiven) return;
    const hint = "Start dlmd again, umount (-l), and mount again.";
    this.fail(new OperatingError(`the lock manager is gone: ${reason.message}`, { code: "dlmd-lost", hint, cause: reason }));
  }

  /** This node no longer knows what it holds: its kernel's caches are dropped, then the mount is ended (hazard F7: never the abort alone). */
  fail(error: Error): void {
    if (this.#ending || this.#failure !== null || this.#restart.isSettledWith(error)) return;
    if (this.#restart.hasLetGo) {
      this.options.log.error({ error: error.message, stack: error.stack }, "failed after another process has got the mount");
      return;
    }
    this.options.takeOver?.giveUp(error);
    this.#failure = error;
    this.crash.review();
    this.options.log.error({ error: error.message, stack: error.stack }, "the mount is taken out");
    this.#giveUpOwner(error);
    const session = this.#session;
    if (session === null) {
      this.#group?.end(error);
      this.#ownCalls.shutdown();
      this.#rejectStart(error);
      return;
    }
    void this.#abandon(session);
  }

  /** Hazard F23: what programs were told to be written is, before the locks are given back. */
  async #writeRest(lower: Lower): Promise<void> {
    if (await inTime(Promise.resolve(lower.writtenBehind()), WRITE_REST_MS)) return;
    this.options.log.error({ waitedMs: WRITE_REST_MS }, "the mount ends, and the owner has not taken all that was written: that is lost");
  }

  async #abandon(session: Session): Promise<void> {
    this.#lease?.end();
    await dropAndAbort(
      () => this.#coherence?.abandon(),
      () => session.abort(),
      this.options.log,
      () => process.exit(EXIT.FATAL),
    );
  }

  async #end(): Promise<void> {
    if (this.#ending) return;
    this.#ending = true;
    this.crash.end();
    this.#lease?.end();
    this.#answerLimit?.close();
    this.#preferredMove?.end();
    const { log } = this.options;
    let failure = this.#failure;
    const step = async (what: string, work: () => Promise<unknown> | undefined): Promise<void> => {
      try {
        await work();
      } catch (error) {
        failure ??= error instanceof Error ? error : new Error(String(error));
        log.error({ error: String(error), what }, "taking the mount down");
      }
    };
    this.#fileLocks?.end();
    this.#gate.end();
    this.#group?.dropClaim();
    this.#ownCalls.shutdown();
    this.#service.keepNothing();
    // Before the others hear that there is no owner: this one's last word counts no more then.
    if (this.#failure === null) await step("ending the service", () => this.#service.owned?.server.close());
    // Without the lock manager the owner role has ended already, and only the disk is left to be given back.
    this.#selfFence?.follow(() => this.options.native.bootTimeMs() < this.#leaseEndMs());
    if (this.#failure === null) await step("leaving the volume", () => this.#owner?.leave());
    const unreleased = this.#failure === null ? (this.#owner?.leftWith ?? null) : null;
    this.#selfFence?.end();
    await step("releasing the lower", () => this.#service.release());
    if (failure === null) this.#group?.leave();
    else this.#group?.end(failure);
    await step("leaving dlmd", () => this.#client?.close());
    // Others have been told by the record of the role; who unmounts here is told, too.
    this.#resolveEnded(failure ?? unreleased);
  }

  /** Ends the mount from within: SIGTERM. The mount point is free at once; what is in use goes on to its end while there are an owner, a quorum and a lease. */
  terminate(): void {
    // Another process has the mount, and this one ends anyway.
    if (this.#restart.hasLetGo) return;
    const session = this.#session;
    if (session === null) {
      this.fail(
        new OperatingError("interrupted before the mount was there", { code: "interrupted", hint: "Nothing is left of it: mount again." }),
      );
      return;
    }
    if (!detachMount(this.options.native, this.options.mountpoint, session.connection)) session.abort();
    this.#terminating = true;
    this.crash.review();
    this.#group?.dropOrder();
    this.#endWaiting();
  }

  /** On its way out a mount waits for no owner and no quorum: who knows whether they come. Those who wait for them get EIO, and it ends. */
  #endWaiting(): void {
    const session = this.#session;
    if (!this.#terminating || this.#ending || session === null) return;
    if (this.#owner?.owner !== null && this.#client?.view.quorate === true && this.#lease?.state === "holds") return;
    this.options.log.warn({ why: this.answers.why }, "told to end, without owner, quorum or lease: what waits ends with EIO");
    this.#gate.end();
    this.#ownCalls.shutdown();
    void this.#abandon(session);
  }

  /** N of /sys/fs/fuse/connections/N; null before the mount. */
  get connection(): number | null {
    return this.#session?.connection ?? null;
  }
}

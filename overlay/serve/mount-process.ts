/**
 * The process behind one mount: joins the lock manager, the owner role, the lower, the coherence layer and the session, in the order
 * in which they need each other, and takes them down in reverse. It ends when the mount does.
 *
 * A mount that becomes the owner later (a clean hand-over) keeps its remote lower and reaches its own server through it: what it has open
 * stays as it is.
 */
import { OperatingError } from "../../dlmd/base/error.ts";
import type { Log } from "../../dlmd/base/log.ts";
import type { DlmClient, GoneClient, Lockspace, VolumeConfig } from "../../dlmd/client/api.ts";
import { connectDlm } from "../../dlmd/client/client.ts";
import { keyringOf } from "../../dlmd/tls/keyring.ts";
import { cachedInodesMax } from "../coherence/cache-limit.ts";
import { callerThreads } from "../caller/threads.ts";
import { createKernelCaches } from "../coherence/notifications.ts";
import { createOwnInodes } from "../coherence/size/own-inodes.ts";
import { CoherenceShell } from "../coherence/shell.ts";
import { type FileLocksSeen, VolumeFileLocks } from "../file-lock/file-locks.ts";
import { Lease, openLeasePage } from "../lease/lease.ts";
import type { DiskGuard } from "../lower/server/disk-guard.ts";
import { createLocalLower, type LocalLower } from "../lower/local/local.ts";
import type { Lower } from "../lower/lower.ts";
import { type OwnerWait, ownerWaitWords, waitOfMount } from "../lower/owner-wait.ts";
import type { Holds } from "../lower/remote/known.ts";
import { createRemoteLower, type RemoteLower } from "../lower/remote/remote.ts";
import type { OwnerAddress } from "../lower/remote/connection.ts";
import { createLowerServer, isOf, type LowerServer } from "../lower/server/server.ts";
import { BlockGate } from "../mount-group/block-gate.ts";
import { Knobs, knobsDirectory } from "../mount-group/knobs.ts";
import { VolumeMountGroup } from "../mount-group/mount-group.ts";
import { MNT_DETACH, type Native } from "../../native/index.ts";
import { connectionNumber } from "../session/connection.ts";
import { mountSession, type Session } from "../session/mount-session.ts";
import { runningSystem } from "../session/system.ts";
import { type Bit, type StoredBit, requireOwnerBlock } from "../volume/bit.ts";
import { readOwnerBlock } from "../volume/direct-block.ts";
import { DiskSteps } from "../volume/disk-steps.ts";
import { type LowerMount, type LowerSource, mountLower } from "../volume/lower-mount.ts";
import { type ServedLower, VolumeOwner, volumeLockspace } from "../volume/owner.ts";
import type { OwnerBlock } from "../volume/owner-block.ts";
import type { Claim } from "../volume/owner-event.ts";
import type { OwnerRecord } from "../volume/owner-record.ts";
import { dropAndAbort } from "./abandon.ts";
import { AnswerLimit } from "./answer-limit.ts";
import { OrphanClaims } from "./orphan-claims.ts";
import { HandOvers } from "./hand-over.ts";
import { type OwnedLower, serveMounted } from "./owned-lower.ts";
import { createProofs } from "./proofs.ts";
import { SelfFence } from "./self-fence.ts";
import { type GuardedDisk, Withdrawals } from "./withdrawal.ts";

export interface MountProcessOptions {
  readonly native: Native;
  readonly log: Log;
  /** dlmd's local socket. */
  readonly dlmdSocket: string;
  /** Where the knobs of this mount are shown. */
  readonly runDir: string;
  /** What the device says that it is. */
  readonly bit: StoredBit;
  readonly lower: LowerSource;
  /** This node has the device or directory. */
  readonly reachesLower: boolean;
  readonly mountpoint: string;
  /** MS_* of mount(2). */
  readonly mountFlags: number;
  readonly readOnly: boolean;
  readonly metadataCalls: "inline" | "pool";
  /** BAST_LIMIT_MS, but in tests. */
  readonly bastLimitMs: number;
  /** File locks stay in this node's kernel (-o localflocks). */
  readonly localFlocks: boolean;
  /** Something that is shown changed: role, owner. */
  readonly changed: () => void;
}

export class MountProcess {
  readonly options: MountProcessOptions;
  /** Resolves with null after a clean unmount, else with what went wrong. */
  readonly ended: Promise<Error | null>;
  #resolveEnded: (error: Error | null) => void = () => {};
  #client: DlmClient | null = null;
  #lease: Lease | null = null;
  #leaseEndMs: () => number = () => 0;
  #selfFence: SelfFence | null = null;
  /** The disk is given up because of the quorum, not because it failed. */
  #lettingGo = false;
  #answerLimit: AnswerLimit | null = null;
  #volume: VolumeConfig | null = null;
  #owner: VolumeOwner | null = null;
  #handOvers: HandOvers | null = null;
  #owned: OwnedLower | null = null;
  #releasing: Promise<void> | null = null;
  #remote: RemoteLower | null = null;
  readonly #withdrawals: Withdrawals;
  readonly #claims: OrphanClaims;
  readonly #disk: DiskSteps;
  readonly #gate: BlockGate = new BlockGate();
  #group: VolumeMountGroup | null = null;
  /** That of the lower which this mount began with, as its owner. */
  #ownGuard: DiskGuard | null = null;
  #ownEpoch = 0;
  #session: Session | null = null;
  #coherence: CoherenceShell | null = null;
  #fileLocks: VolumeFileLocks | null = null;
  /** For servers that are made later: hazard C7 holds for them too. One entry for each client that went away. */
  readonly #gone: GoneClient[] = [];
  /** SIGTERM came. */
  #terminating = false;
  #ending = false;
  #failure: Error | null = null;
  /** Rejects with a failure that comes before there is a session: `start` waits for nothing else then. */
  readonly #failed: Promise<never>;
  #rejectStart: (error: Error) => void = () => {};
  #ownerKnown: { resolve: (record: OwnerRecord) => void; reject: (error: Error) => void } | null = null;

  constructor(options: MountProcessOptions) {
    this.options = options;
    this.#withdrawals = new Withdrawals(options.log);
    this.#claims = new OrphanClaims(
      options.log,
      () => ({ remote: this.#remote, ownGuard: this.#ownGuard }),
      (error) => this.fail(error),
    );
    this.#disk = new DiskSteps(options.lower.path);
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
    const { native, log } = this.options;
    try {
      const client = await this.#unlessFailed(this.#connect());
      this.#answerLimit = new AnswerLimit({
        limitMs: this.options.bastLimitMs,
        ownerWait: () => this.#wait,
        log: this.options.log,
        setLimitMs: (ms) => client.setBastLimitMs(ms),
      });
      const page = openLeasePage(native, this.options.dlmdSocket, client.info.incarnation);
      this.#selfFence = new SelfFence({ marginMs: page.marginMs, letGo: (why) => this.#letGo(why) });
      this.#leaseEndMs = page.endMs;
      this.#lease = this.#openLease(page.endMs);
      const volume = findVolume(client, this.options.bit);
      this.#volume = volume;
      const lockspace = await this.#unlessFailed(client.lockspace(volumeLockspace(volume.uuid)));
      await this.#unlessFailed(this.#claims.join(client, volume.uuid));
      const group = this.#createGroup(client, volume);
      await this.#unlessFailed(group.join());
      const dir = knobsDirectory(this.options.runDir, volume.name);
      group.showAs((blockOrdered, lost) => new Knobs({ dir, log, blockOrdered, lost }));
      const record = await this.#unlessFailed(this.#joinVolume(client, lockspace, group));
      const fileLocks = this.options.localFlocks ? null : await this.#unlessFailed(this.#createFileLocks(client, lockspace));
      const lower = this.#gate.wrap(await this.#unlessFailed(this.#chooseLower(client, record)));
      // It is awaited to its end: what it has mounted must be taken out again.
      const session = await mountSession({
        native,
        lower,
        system: runningSystem,
        log,
        lease: this.#lease,
        ...(fileLocks === null ? {} : { fileLocks }),
        source: this.options.lower.path,
        mountpoint: this.options.mountpoint,
        mountFlags: this.options.mountFlags,
        createCoherence: (fd, negotiated) => {
          this.#coherence = new CoherenceShell({
            lockspace,
            ownInodes: createOwnInodes(native, this.options.mountpoint, connectionNumber(this.options.mountpoint) ?? 0),
            callerThreads,
            caches: createKernelCaches(native, fd, { expireEntry: negotiated.entryExpire, incEpoch: negotiated.incEpoch }),
            cachedMax: cachedInodesMax(page.marginMs),
            now: () => performance.now(),
            log,
            fail: (error) => this.fail(error),
          });
          return this.#coherence;
        },
        disconnected: () => {
          this.#lease?.end();
          this.#gate.end();
          this.#remote?.shutdown();
          this.#ownGuard?.end();
        },
        fail: (error) => this.fail(error),
      });
      await this.#enterMounted(session);
    } catch (error) {
      await this.#end();
      throw error;
    }
    this.options.changed();
  }

  async #connect(): Promise<DlmClient> {
    const { log } = this.options;
    const client = await connectDlm(this.options.dlmdSocket, {
      view: (view) => {
        log.info({ view: view.viewId, quorate: view.quorate, running: view.running, reason: view.quorumReason }, "view");
        this.#endWaiting();
        this.#owner?.receiveView();
        this.#group?.viewChanged();
      },
      gone: (clients) => this.#handleGone(clients),
      overlayKeysChanged: () => {
        this.#owned?.server.keysChanged();
        this.#remote?.keysChanged();
      },
      disconnected: (reason) => this.#handleDisconnected(reason),
    });
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
      this.options.native.umount(this.options.mountpoint, MNT_DETACH);
      await this.#abandon(session);
      await session.ended;
      throw this.#failure;
    }
    this.#session = session;
    this.#group?.mounted();
    void session.ended.then(() => this.#end());
  }

  /** Before the election: this mount gets its jid there. */
  #createGroup(client: DlmClient, { uuid }: VolumeConfig): VolumeMountGroup {
    const { log, changed } = this.options;
    const group = new VolumeMountGroup({
      client,
      uuid,
      log,
      letGo: (dead) => this.#closeGone(dead),
      late: (why) => this.#stopLate(why),
      // Open files without a name are dropped when all have claimed theirs (orphan-claims.ts), which nobody is blocked for.
      recover: () => Promise.resolve(),
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

  /** What those that are gone have open here is closed, and their calls have ended (hazard C7). Asked by dlmd and by the group, in any order. */
  async #closeGone(clients: readonly GoneClient[]): Promise<void> {
    const isKnown = (client: GoneClient): boolean =>
      this.#gone.some((one) => one.nodeid === client.nodeid && one.incarnation === client.incarnation && one.clientId === client.clientId);
    this.#gone.push(...clients.filter((client) => !isKnown(client)));
    await this.#owned?.server.closeSessions(clients);
  }

  #stopLate(why: string): void {
    const guard = this.#owned?.disk?.guard;
    // Its errors are told then, or it has no disk that could be given up: only its end lets the others go on.
    if (guard === undefined || !guard.withdraw(why)) {
      this.fail(new OperatingError(why, { code: "not-stopped", hint: "Mount the volume again on this node; see the log of its kernel." }));
    }
  }

  async #createFileLocks(client: DlmClient, lockspace: Lockspace): Promise<VolumeFileLocks> {
    const { nodeid, clientId } = client.info;
    const service = await client.fileLocks(lockspace.name);
    const now = (): number => performance.now();
    this.#fileLocks = new VolumeFileLocks({ lockspace, service, nodeid, clientId, now, fail: (error) => this.fail(error) });
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
        this.#owned?.server.resume();
      },
    });
  }

  /** Takes part in the owner's election; resolves when there is an owner to work with. */
  #joinVolume(client: DlmClient, lockspace: Lockspace, group: VolumeMountGroup): Promise<OwnerRecord> {
    const known = new Promise<OwnerRecord>((resolve, reject) => {
      this.#ownerKnown = { resolve, reject };
    });
    this.#owner = new VolumeOwner({
      info: client.info,
      lockspace,
      reachesLower: this.options.reachesLower,
      log: this.options.log,
      callbacks: {
        readOwnerBlock: () => this.#readOwnerBlock(),
        proveGone: createProofs({
          client,
          volume: this.#volume?.name ?? this.options.bit.uuid,
          device: this.options.lower.path,
          disk: this.#disk,
          log: this.options.log,
        }),
        mountLower: (epochAbove, claim) => group.claimed(() => this.#mountLower(epochAbove, claim)),
        releaseLower: () => {
          this.#answerLimit?.ownerLost();
          return group.released(() => this.#releaseLower());
        },
        withdrawalSeen: () => this.#withdrawals.seen(),
        ownerFound: (record) => {
          this.#answerLimit?.ownerFound();
          this.#goOnElsewhere(client);
          this.#remote?.ownerFound(addressOf(record), record.epoch);
          this.#ownerKnown?.resolve(record);
          this.#handOvers?.ownerFound(record);
          this.options.changed();
        },
        ownerLost: (reason) => {
          this.options.log.warn({ reason }, "owner lost: operations wait");
          this.#answerLimit?.ownerLost();
          this.#handOvers?.ownerLost();
          this.#remote?.ownerLost();
          this.#endWaiting();
          this.options.changed();
        },
        becomeOwner: (record) => {
          this.#answerLimit?.ownerFound();
          group.serving(record.epoch);
          // A mount that was remote until now, or had withdrawn, goes on through its own server.
          this.#goOnElsewhere(client);
          this.#remote?.ownerFound(addressOf(record), record.epoch);
          this.#ownerKnown?.resolve(record);
          this.#handOvers?.ownerFound(record);
          this.options.changed();
        },
        left: (error) => {
          if (error === null) return;
          this.#ownerKnown?.reject(error);
          this.fail(error);
        },
      },
    });
    this.#handOvers = this.#createHandOvers(client, this.#owner);
    this.#owner.start();
    return known;
  }

  async #chooseLower(client: DlmClient, record: OwnerRecord): Promise<Lower> {
    if (this.#owned !== null) {
      this.#ownGuard = this.#owned.disk?.guard ?? null;
      this.#ownEpoch = this.#owned.mount.epoch;
      return this.#ownGuard?.own ?? this.#owned.local;
    }
    // Another one may have come since: it was reported while there was no remote lower to hear of it.
    const owner = this.#owner?.owner ?? record;
    const remote = this.#createRemote(client);
    await remote.connect(addressOf(owner), owner.epoch);
    return remote;
  }

  /** The owner that this mount was has withdrawn or handed the volume over, and there is another one. */
  #goOnElsewhere(client: DlmClient): void {
    if (this.#ownGuard?.isGiven !== true || this.#remote !== null) return;
    const remote = this.#createRemote(client);
    const { handles, unsynced } = this.#ownGuard;
    remote.adopt({ handles, unsynced, epoch: this.#ownEpoch });
    this.#ownGuard.goOn(remote);
  }

  /** The lower is there before the coherence layer. */
  readonly #holds: Holds = {
    grants: () => this.#coherence?.operations.grants ?? 0,
    of: (id) => this.#coherence?.grantId(id) ?? 0,
  };

  #createRemote(client: DlmClient): RemoteLower {
    const { clusterName, nodeid, incarnation, clientId } = client.info;
    const remote = createRemoteLower({
      keyring: () => keyringOf(client.info.overlayKeys),
      clusterName,
      volumeUuid: this.options.bit.uuid,
      nodeid,
      incarnation,
      clientId,
      log: this.options.log,
      // Nothing that is cached here is worth anything then: hazard H1.
      onRefused: (error) => this.fail(error),
      onOwnerDied: async () => this.#coherence?.distrustAll(),
      holds: this.#holds,
    });
    this.#remote = remote;
    return remote;
  }

  async #readOwnerBlock(): Promise<OwnerBlock | null> {
    const { lower, bit } = this.options;
    if (lower.kind === "directory") return null;
    const offset = requireOwnerBlock(bit, lower.path);
    return this.#disk.ask("reading the owner's block", () => readOwnerBlock(lower.path, offset, bit.uuid));
  }

  async #mountLower(epochAbove: number, claim: Claim): Promise<ServedLower> {
    const { native, log, lower, bit, readOnly, metadataCalls } = this.options;
    const client = this.#client;
    if (client === null) throw new Error("the lower is mounted before dlmd was reached");
    const address = client.info.nodes.find((node) => node.nodeid === client.info.nodeid)?.address;
    if (address === undefined) throw new Error(`node ${client.info.nodeid} is not in its own configuration`);
    const mount = await mountLower(lower, bit, readOnly, epochAbove, {
      self: client.info,
      claim,
      mayMount: () => this.#lease?.holds() === true,
      disk: this.#disk,
    }).catch((error: unknown) => {
      this.#failIfNamed(error);
      throw error;
    });
    const owned = await serveMounted(mount, {
      createLocal: async () => {
        const local = createLocalLower({ native, rootFd: mount.rootFd, metadataCalls, log });
        await local.openOrphans(readOnly);
        return local;
      },
      guard: (local) => {
        if (lower.kind !== "device") return null;
        const { type, rootFd } = mount;
        const [confirm, stopWriting] = [() => mount.confirm(), () => mount.stopWriting()];
        const watched = { device: lower.path, type, readOnly, rootFd, confirm, stopWriting };
        return this.#withdrawals.guard(local, watched, (why) => this.#withdraw(why));
      },
      createServer: (served, disk) => this.#createServer(client, mount, served, disk),
      address,
      notReleased: (error) => this.fail(error),
    });
    this.#owned = owned;
    this.#claims.begin(owned.local, owned.server);
    const { epoch, type, cleanAfter, dirty } = mount;
    const { port } = owned;
    const proof = claim.proof?.kind ?? "released";
    log.info({ epoch, address, port, type, cleanAfter, proof }, "lower mounted");
    if (dirty !== null) log.warn({ dirty }, "the disk was not clean: what the owner before had not written to it is lost");
    return { epoch, address, port };
  }

  #createServer(client: DlmClient, mount: LowerMount, served: LocalLower, disk: GuardedDisk | null): LowerServer {
    const { native, log, bit } = this.options;
    const { clusterName, nodeid, incarnation, clientId } = client.info;
    return createLowerServer({
      lower: served,
      keyring: () => keyringOf(client.info.overlayKeys),
      clusterName,
      volumeUuid: bit.uuid,
      owner: { nodeid, incarnation, clientId, epoch: mount.epoch },
      cleanAfter: mount.cleanAfter,
      letGoAfter: mount.letGoAfter,
      nodeAddresses: () => client.info.nodes.map((node) => node.address),
      log,
      ...(disk === null ? {} : { hasDisk: () => disk.hasDisk() }),
      mayServe: () => this.#lease?.holds() === true,
      freeMemory: (memory) => native.freeArrayBuffer(memory),
      isMember: (nodeid, incarnation) => client.view.incarnations[client.view.members.indexOf(nodeid)] === incarnation,
      claimed: () => this.#claims.check(),
      isGone: (session) => this.#gone.some((client) => isOf(session, client)),
      handOver: (request) => this.#mustHandOvers().begin(request),
    });
  }

  /** The owner's block may name this process, which does not have the device: only its end lets others go on. */
  #failIfNamed(error: unknown): void {
    if (error instanceof OperatingError && ["lease-lapsed", "not-given-back"].includes(error.code)) this.fail(error);
  }

  /** Asked for by the owner role and by the end of the mount, perhaps both at a time. */
  #releaseLower(): Promise<void> {
    this.#releasing ??= this.#releaseOwned().finally(() => {
      this.#releasing = null;
    });
    return this.#releasing;
  }

  async #releaseOwned(): Promise<void> {
    const owned = this.#owned;
    if (owned === null) return;
    this.#claims.end();
    await owned.server.close();
    await owned.local.shutdown();
    owned.disk?.end();
    // Once, whether it goes well or not: the numbers of its descriptors are soon those of others.
    this.#owned = null;
    await owned.mount.release();
    this.options.log.info({}, "lower released");
  }

  /** The disk has failed: no call is answered from here on (lower/server/disk-guard.ts). */
  #withdraw(why: string): void {
    const { disk, server } = this.#owned ?? {};
    this.#claims.end();
    this.#answerLimit?.ownerLost();
    void server?.abandon();
    disk?.guard.dropServed();
    if (this.#lettingGo) this.#owner?.selfFence(why);
    else this.#owner?.withdraw(why);
    this.options.changed();
  }

  /** This node has been without a lease for too long. A directory is no other node's, so it stays. */
  #letGo(why: string): void {
    // Nothing of it is served any more, or it is given back already: then it only waits for locks.
    if (this.#ending || this.#owned === null) return this.#owner?.selfFence(why);
    const guard = this.#owned.disk?.guard;
    if (guard === undefined) return;
    if (guard.why !== null) return this.#owner?.selfFence(why);
    this.#lettingGo = true;
    guard.yieldTo(why);
    this.#lettingGo = false;
  }

  #createHandOvers(client: DlmClient, owner: VolumeOwner): HandOvers {
    return new HandOvers({
      nodes: client.info.nodes,
      role: () => this.role,
      owner: () => owner.owner,
      why: () => this.why,
      isDevice: this.options.lower.kind === "device",
      otherMounters: () => owner.otherMounters(),
      askOwner: ({ epoch, heir }) => {
        if (this.#remote === null) return Promise.reject(new Error("this mount has no connection to it"));
        return this.#remote.handOver(epoch, heir);
      },
      give: (heir) => void this.#give(heir),
      nowMs: () => performance.now(),
    });
  }

  #mustHandOvers(): HandOvers {
    if (this.#handOvers === null) throw new Error("asked to hand the volume over before it was joined");
    return this.#handOvers;
  }

  /** No call ends with an error: those that run are answered, and what they did is on the disk; those that come wait for the next owner. */
  async #give(heir: number): Promise<void> {
    const owned = this.#owned;
    if (owned === null || this.#ending) return;
    const { log } = this.options;
    log.info({ heir }, "handing the volume over");
    try {
      // While it still serves: what is left to be synced afterwards is little.
      await owned.local.syncfs();
    } catch (error) {
      log.warn({ error: String(error) }, "the lower could not be synced before it is handed over");
    }
    this.#handOvers?.ownerLost();
    await owned.disk?.guard.handOver();
    // Before the others hear that there is no owner: its last word counts no more then.
    await owned.server.close();
    this.#owner?.handOver(heir);
    this.options.changed();
  }

  /** For {"query":"hand-over","heir":N}: 0 is the lowest other node. */
  async handOver(heir: number): Promise<object> {
    return await this.#mustHandOvers().request(heir);
  }

  async #handleGone(clients: readonly GoneClient[]): Promise<void> {
    await this.#closeGone(clients);
    this.#owner?.receiveGone(clients);
  }

  #handleDisconnected(reason: Error): void {
    // Also on the way out: leave() waits for its locks, and gives the disk back without them.
    this.#owner?.receiveDisconnected(reason);
    if (this.#ending) return;
    const hint = "Start dlmd again, umount (-l), and mount again.";
    this.fail(new OperatingError(`the lock manager is gone: ${reason.message}`, { code: "dlmd-lost", hint, cause: reason }));
  }

  /** This node no longer knows what it holds: its kernel's caches are dropped, then the mount is ended (hazard F7: never the abort alone). */
  fail(error: Error): void {
    if (this.#ending || this.#failure !== null) return;
    this.#failure = error;
    this.options.log.error({ error: error.message, stack: error.stack }, "the mount is taken out");
    this.#ownerKnown?.reject(error);
    const session = this.#session;
    if (session === null) {
      this.#group?.end(error);
      this.#remote?.shutdown();
      this.#rejectStart(error);
      return;
    }
    void this.#abandon(session);
  }

  async #abandon(session: Session): Promise<void> {
    this.#lease?.end();
    await dropAndAbort(
      () => this.#coherence?.abandon(),
      () => session.abort(),
      this.options.log,
    );
  }

  async #end(): Promise<void> {
    if (this.#ending) return;
    this.#ending = true;
    this.#lease?.end();
    this.#answerLimit?.close();
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
    this.#remote?.shutdown();
    this.#ownGuard?.end();
    // Before the others hear that there is no owner: this one's last word counts no more then.
    if (this.#failure === null) await step("ending the service", () => this.#owned?.server.close());
    // Without the lock manager the owner role has ended already, and only the disk is left to be given back.
    this.#selfFence?.follow(() => this.options.native.bootTimeMs() < this.#leaseEndMs());
    if (this.#failure === null) await step("leaving the volume", () => this.#owner?.leave());
    this.#selfFence?.end();
    await step("releasing the lower", () => this.#releaseLower());
    if (failure === null) this.#group?.leave();
    else this.#group?.end(failure);
    await step("leaving dlmd", () => this.#client?.close());
    this.#resolveEnded(failure);
  }

  /** Ends the mount from within: SIGTERM. The mount point is free at once; what is in use goes on to its end while there are an owner, a quorum and a lease. */
  terminate(): void {
    const session = this.#session;
    if (session === null) {
      this.fail(
        new OperatingError("interrupted before the mount was there", { code: "interrupted", hint: "Nothing is left of it: mount again." }),
      );
      return;
    }
    const result = this.options.native.umount(this.options.mountpoint, MNT_DETACH);
    if (result < 0) session.abort();
    this.#terminating = true;
    this.#group?.dropOrder();
    this.#endWaiting();
  }

  /** On its way out a mount waits for no owner and no quorum: who knows whether they come. Those who wait for them get EIO, and it ends. */
  #endWaiting(): void {
    const session = this.#session;
    if (!this.#terminating || this.#ending || session === null) return;
    if (this.#owner?.owner !== null && this.#client?.view.quorate === true && this.#lease?.state === "holds") return;
    this.options.log.warn({ why: this.why }, "told to end, without owner, quorum or lease: what waits ends with EIO");
    this.#gate.end();
    this.#remote?.shutdown();
    this.#ownGuard?.end();
    void this.#abandon(session);
  }

  /** What this mount is, or waits for, in words. */
  get why(): string {
    const why = this.#owner?.why ?? "not joined";
    const trouble =
      this.#lease?.state === "lapsed"
        ? "waiting: the lease of this node has ended, its dlmd does not run or is cut off"
        : (this.#remote?.keyTrouble ?? this.#ownerWait);
    return [why, trouble, this.#group?.wait, this.#disk.silence].filter((words) => words != null).join("; ");
  }

  /** For what calls to the owner wait, in words; null: nothing that lasts, or there is no owner, which says it all. */
  get #ownerWait(): string | null {
    const wait = this.role === "waiting" ? null : this.#wait;
    return wait === null ? null : ownerWaitWords(wait);
  }

  get #wait(): OwnerWait | null {
    return waitOfMount(this.#owned?.disk?.guard ?? null, this.#remote);
  }

  get role(): "owner" | "remote" | "waiting" {
    return this.#owner?.role ?? "waiting";
  }

  /** For overlay-N.json. */
  summary(): Record<string, unknown> {
    const { mountpoint, bit, lower, localFlocks } = this.options;
    return {
      pid: process.pid,
      role: this.role,
      mountpoint,
      volume: this.#volume?.name ?? bit.uuid,
      device: lower.path,
      fileLocks: localFlocks ? "local" : "cluster",
    };
  }

  /** N of /sys/fs/fuse/connections/N; null before the mount. */
  get connection(): number | null {
    return this.#session?.connection ?? null;
  }

  /** For {"query":"requests"}: what callers wait for. */
  requests(): Record<string, unknown> {
    return { ...this.#dlm(), ...(this.#session?.underWay.list() ?? { requests: [], count: 0 }) };
  }

  /** For {"query":"file-locks"}: file locks of this node's programs, and whether other nodes use the file. */
  fileLocks(): FileLocksSeen {
    return this.#fileLocks?.describe() ?? { files: [], truncated: false };
  }

  /** For {"query":"gather"}: dlmd shows all file locks of those files after it, if the lockspace is that of this mount. */
  async gather(lockspace: string, files: readonly string[]): Promise<Record<string, unknown>> {
    const isMine = lockspace === volumeLockspace(this.options.bit.uuid) && this.#lease?.state === "holds" && !this.#ending;
    if (isMine) await this.#fileLocks?.gather(files);
    return { gathered: isMine && this.#fileLocks !== null };
  }

  /** For {"query":"inode","ino":N}: its keys, one for each generation that this mount knows. */
  inode(ino: number): Record<string, unknown> {
    const inodes = this.#session?.withIno(ino) ?? [];
    return { ...this.#dlm(), keys: inodes.map(({ key }) => key) };
  }

  /** Who this mount is to the lock manager. */
  #dlm(): Record<string, unknown> {
    const client = this.#client?.info;
    const lockspace = volumeLockspace(this.options.bit.uuid);
    return { nodeid: client?.nodeid ?? 0, clientId: client?.clientId ?? 0, lockspace, mountpoint: this.options.mountpoint };
  }

  /** For {"query":"status"}: plain data. */
  status(): Record<string, unknown> {
    const session = this.#session;
    const coherence = this.#coherence?.counters;
    const client = this.#client;
    return {
      ...this.summary(),
      uuid: this.options.bit.uuid,
      why: this.why,
      disk: this.#withdrawals.trouble ?? this.#disk.silence,
      ownerWait: this.#ownerWait,
      owner: this.#owner?.owner ?? null,
      orphans: this.#claims.describe(),
      group: this.#group?.describe() ?? null,
      held: this.#gate.held,
      view: client?.view ?? null,
      lease: this.#lease?.state ?? null,
      connection: session?.connection ?? null,
      inodes: session?.inodeCount ?? 0,
      handles: session?.handleCount ?? 0,
      ops: session?.counters.requests ?? 0,
      underWay: session?.underWay.byOperation() ?? {},
      locks: coherence?.locksHeld ?? 0,
      counters: {
        fuseRequests: session?.counters.requests ?? 0,
        fuseRequestsAtOnce: session?.counters.atOnce ?? 0,
        interrupted: session?.counters.interrupted ?? 0,
        bugs: session?.counters.bugs ?? 0,
        lockMessagesSent: client?.counters.sent ?? 0,
        lockMessagesReceived: client?.counters.received ?? 0,
        lowerMessagesSent: this.#remote?.counters.messagesSent ?? 0,
        lowerMessagesReceived: this.#remote?.counters.messagesReceived ?? 0,
        lowerRoundTrips: this.#remote?.counters.roundTrips ?? 0,
        lowerTripsAwaited: this.#remote?.counters.awaited ?? 0,
        servedMessagesReceived: this.#owned?.server.counters.received ?? 0,
        leaseLapses: this.#lease?.lapses ?? 0,
        ...coherence,
        ...this.#fileLocks?.counters,
      },
      memory: process.memoryUsage(),
    };
  }
}

function addressOf(record: OwnerRecord): OwnerAddress {
  const { address: host, port, nodeid, incarnation, clientId } = record;
  return { host, port, nodeid, incarnation, clientId };
}

function findVolume(client: DlmClient, bit: Bit): VolumeConfig {
  const volume = client.info.volumes.find((one) => one.uuid === bit.uuid);
  if (volume !== undefined && bit.cluster === client.info.clusterName) return volume;
  throw new OperatingError(`the volume ${bit.uuid} of cluster ${bit.cluster} is not one of cluster ${client.info.clusterName}`, {
    code: volume === undefined ? "unknown-volume" : "wrong-cluster",
    hint: "Add it to volumes in cluster.yaml, or see what the device carries with coverlay volume show.",
    exitStatus: 32,
  });
}

/**
 * The process behind one mount: joins the lock manager, the owner role, the lower, the coherence layer and the session, in the order
 * in which they need each other, and takes them down in reverse. It ends when the mount does.
 *
 * A mount that becomes the owner later (a clean hand-over) keeps its remote lower and reaches its own server through it: what it has open
 * stays as it is.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { OperatingError } from "../../dlmd/base/error.ts";
import type { Log } from "../../dlmd/base/log.ts";
import type { DlmClient, GoneClient, VolumeConfig } from "../../dlmd/client/api.ts";
import { connectDlm } from "../../dlmd/client/client.ts";
import { cachedInodesMax } from "../coherence/cache-limit.ts";
import { callerThreads } from "../coherence/caller-threads.ts";
import { createKernelCaches } from "../coherence/kernel-caches.ts";
import { createOwnInodes } from "../coherence/own-inodes.ts";
import { type CoherenceShell, createCoherenceShell } from "../coherence/shell.ts";
import { Lease, openLeasePage } from "../lease/lease.ts";
import { createLocalLower, type LocalLower } from "../lower/local.ts";
import type { Lower } from "../lower/lower.ts";
import { createRemoteLower, type RemoteLower } from "../lower/remote.ts";
import { createLowerServer, isOf, type LowerServer } from "../lower/server.ts";
import { MNT_DETACH, type Native } from "../native/index.ts";
import { connectionNumber } from "../session/connection.ts";
import { mountSession, type Session } from "../session/device.ts";
import { runningSystem } from "../session/system.ts";
import type { Bit } from "../volume/bit.ts";
import { type LowerMount, type LowerSource, mountLower } from "../volume/lower-mount.ts";
import { type ServedLower, VolumeOwner, volumeLockspace } from "../volume/owner.ts";
import type { OwnerRecord } from "../volume/owner-record.ts";

/** While there is an owner, a mount that has not given up a lock in that time hangs, and its dlmd ends it (hazard H13). */
const BAST_LIMIT_MS = 60_000;

export interface MountProcessOptions {
  readonly native: Native;
  readonly log: Log;
  /** dlmd's local socket. */
  readonly dlmdSocket: string;
  /** What the device says that it is. */
  readonly bit: Bit;
  readonly lower: LowerSource;
  /** This node has the device or directory. */
  readonly reachesLower: boolean;
  readonly mountpoint: string;
  /** MS_* of mount(2). */
  readonly mountFlags: number;
  readonly readOnly: boolean;
  readonly metadataCalls: "inline" | "pool";
  /** Something that is shown changed: role, owner. */
  readonly changed: () => void;
}

/** The part of the owner that is mounted here, while it is. */
interface Owned {
  readonly mount: LowerMount;
  readonly local: LocalLower;
  readonly server: LowerServer;
}

export class MountProcess {
  readonly options: MountProcessOptions;
  /** Resolves with null after a clean unmount, else with what went wrong. */
  readonly ended: Promise<Error | null>;
  #resolveEnded: (error: Error | null) => void = () => {};
  #client: DlmClient | null = null;
  #lease: Lease | null = null;
  #volume: VolumeConfig | null = null;
  #owner: VolumeOwner | null = null;
  #owned: Owned | null = null;
  #releasing: Promise<void> | null = null;
  #remote: RemoteLower | null = null;
  #session: Session | null = null;
  #coherence: CoherenceShell | null = null;
  /** For servers that are made later: hazard C7 holds for them too. One entry for each client that went away. */
  readonly #gone: GoneClient[] = [];
  /** SIGTERM came. */
  #terminating = false;
  #ending = false;
  #failure: Error | null = null;
  #ownerKnown: { resolve: (record: OwnerRecord) => void; reject: (error: Error) => void } | null = null;

  constructor(options: MountProcessOptions) {
    this.options = options;
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
  }

  /** Resolves when the mount answers. OperatingError: it can not be, and nothing is left. */
  async start(): Promise<void> {
    const { native, log } = this.options;
    try {
      const client = await connectDlm(this.options.dlmdSocket, {
        view: (view) => {
          log.info({ view: view.viewId, quorate: view.quorate, running: view.running, reason: view.quorumReason }, "view");
          this.#endWaiting();
        },
        gone: (clients) => this.#handleGone(clients),
        secretsChanged: () => {
          this.#owned?.server.secretsChanged();
          this.#remote?.secretsChanged();
        },
        disconnected: (reason) => this.#handleDisconnected(reason),
      });
      this.#client = client;
      const page = openLeasePage(native, this.options.dlmdSocket, client.info.incarnation);
      this.#lease = this.#openLease(page.endMs);
      const volume = findVolume(client, this.options.bit);
      this.#volume = volume;
      const lockspace = await client.lockspace(volumeLockspace(volume.uuid));
      const record = await this.#joinVolume(client, lockspace);
      const lower = await this.#chooseLower(client, record);
      this.#session = await mountSession({
        native,
        lower,
        system: runningSystem,
        log,
        lease: this.#lease,
        source: this.options.lower.path,
        mountpoint: this.options.mountpoint,
        mountFlags: this.options.mountFlags,
        createCoherence: (fd, negotiated) => {
          this.#coherence = createCoherenceShell({
            lockspace,
            ownInodes: createOwnInodes(native, this.options.mountpoint, connectionNumber(this.options.mountpoint) ?? 0),
            callerThreads,
            caches: createKernelCaches(native, fd, { expireEntry: negotiated.entryExpire, incEpoch: negotiated.incEpoch }),
            cachedMax: cachedInodesMax(page.marginMs),
            stamps: lower.stamps,
            now: () => performance.now(),
            log,
            fail: (error) => this.fail(error),
          });
          return this.#coherence;
        },
        disconnected: () => {
          this.#lease?.end();
          this.#remote?.shutdown();
        },
        fail: (error) => this.fail(error),
      });
    } catch (error) {
      await this.#end();
      throw error;
    }
    void this.#session.ended.then(() => this.#end());
    this.options.changed();
  }

  #openLease(endMs: () => number): Lease {
    const { native, log } = this.options;
    return new Lease({
      endMs,
      nowMs: () => native.bootTimeMs(),
      log,
      suspend: () => {
        this.#coherence?.suspend();
        this.#endWaiting();
      },
      resume: (answered) => {
        this.#coherence?.resume(answered);
        this.#owned?.server.resume();
      },
    });
  }

  /** Takes part in the owner's election; resolves when there is an owner to work with. */
  #joinVolume(client: DlmClient, lockspace: Parameters<typeof createCoherenceShell>[0]["lockspace"]): Promise<OwnerRecord> {
    const known = new Promise<OwnerRecord>((resolve, reject) => {
      this.#ownerKnown = { resolve, reject };
    });
    this.#owner = new VolumeOwner({
      info: client.info,
      lockspace,
      reachesLower: this.options.reachesLower,
      log: this.options.log,
      callbacks: {
        mountLower: (epochAbove) => this.#mountLower(epochAbove),
        releaseLower: () => {
          client.setBastLimitMs(0);
          return this.#releaseLower();
        },
        ownerFound: (record) => {
          client.setBastLimitMs(BAST_LIMIT_MS);
          this.#remote?.ownerFound({ host: record.address, port: record.port }, record.epoch);
          this.#ownerKnown?.resolve(record);
          this.options.changed();
        },
        ownerLost: (reason) => {
          this.options.log.warn({ reason }, "owner lost: operations wait");
          client.setBastLimitMs(0);
          this.#remote?.ownerLost();
          this.#endWaiting();
          this.options.changed();
        },
        becomeOwner: (record) => {
          client.setBastLimitMs(BAST_LIMIT_MS);
          // A mount that was remote until now goes on through its own server.
          this.#remote?.ownerFound({ host: record.address, port: record.port }, record.epoch);
          this.#ownerKnown?.resolve(record);
          this.options.changed();
        },
        left: (error) => {
          if (error === null) return;
          this.#ownerKnown?.reject(error);
          this.fail(error);
        },
      },
    });
    this.#owner.start();
    return known;
  }

  async #chooseLower(client: DlmClient, record: OwnerRecord): Promise<Lower> {
    if (this.#owned !== null) return this.#owned.local;
    const { clusterName, nodeid, incarnation, clientId } = client.info;
    const remote = createRemoteLower({
      secrets: () => client.info.overlaySecrets,
      clusterName,
      volumeUuid: this.options.bit.uuid,
      nodeid,
      incarnation,
      clientId,
      log: this.options.log,
      // Nothing that is cached here is worth anything then: hazard H1.
      onRefused: (error) => this.fail(error),
      onOwnerDied: async () => this.#coherence?.distrustAll(),
    });
    this.#remote = remote;
    await remote.connect({ host: record.address, port: record.port }, record.epoch);
    return remote;
  }

  async #mountLower(epochAbove: number): Promise<ServedLower> {
    const { native, log, lower, bit, readOnly, metadataCalls } = this.options;
    const client = this.#client;
    if (client === null) throw new Error("the lower is mounted before dlmd was reached");
    const mount = await mountLower(lower, bit, readOnly, epochAbove);
    let local: LocalLower | null = null;
    try {
      local = createLocalLower({ native, rootFd: mount.rootFd, metadataCalls, log });
      const server = createLowerServer({
        lower: local,
        secrets: () => client.info.overlaySecrets,
        clusterName: client.info.clusterName,
        volumeUuid: bit.uuid,
        epoch: mount.epoch,
        log,
        mayServe: () => this.#lease?.holds() === true,
        freeMemory: (memory) => native.freeArrayBuffer(memory),
        isGone: (session) => this.#gone.some((client) => isOf(session, client)),
      });
      const address = client.info.nodes.find((node) => node.nodeid === client.info.nodeid)?.address;
      if (address === undefined) throw new Error(`node ${client.info.nodeid} is not in its own configuration`);
      const port = await server.listen(address, 0);
      this.#owned = { mount, local, server };
      log.info({ epoch: mount.epoch, address, port, type: mount.type }, "lower mounted");
      return { epoch: mount.epoch, address, port };
    } catch (error) {
      await local?.shutdown();
      await mount.release();
      throw error;
    }
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
    await owned.server.close();
    await owned.local.shutdown();
    await owned.mount.release();
    this.#owned = null;
    this.options.log.info({}, "lower released");
  }

  async #handleGone(clients: readonly GoneClient[]): Promise<void> {
    this.#gone.push(...clients);
    await this.#owned?.server.closeSessions(clients);
    this.#owner?.receiveGone(clients);
  }

  #handleDisconnected(reason: Error): void {
    if (this.#ending) return;
    this.#owner?.receiveDisconnected(reason);
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
      this.#remote?.shutdown();
      return;
    }
    void this.#abandon(session);
  }

  async #abandon(session: Session): Promise<void> {
    this.#lease?.end();
    try {
      // A notification may wait for a page whose READ will never be answered: the abort must come all the same.
      await Promise.race([this.#coherence?.abandon(), sleep(ABANDON_LIMIT_MS, undefined, { ref: false })]);
    } catch (error) {
      this.options.log.error({ error: String(error) }, "dropping the kernel's caches failed");
    }
    session.abort();
  }

  async #end(): Promise<void> {
    if (this.#ending) return;
    this.#ending = true;
    this.#lease?.end();
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
    this.#remote?.shutdown();
    // Before the others hear that there is no owner: this one's last word counts no more then.
    if (this.#failure === null) await step("ending the service", () => this.#owned?.server.close());
    // Without the lock manager the owner role has ended already, and only the disk is left to be given back.
    if (this.#failure === null) await step("leaving the volume", () => this.#owner?.leave());
    await step("releasing the lower", () => this.#releaseLower());
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
    this.#endWaiting();
  }

  /** On its way out a mount waits for no owner and no quorum: who knows whether they come. Those who wait for them get EIO, and it ends. */
  #endWaiting(): void {
    const session = this.#session;
    if (!this.#terminating || this.#ending || session === null) return;
    if (this.#owner?.owner !== null && this.#client?.view.quorate === true && this.#lease?.state === "holds") return;
    this.options.log.warn({ why: this.why }, "told to end, without owner, quorum or lease: what waits ends with EIO");
    this.#remote?.shutdown();
    void this.#abandon(session);
  }

  /** What this mount is, or waits for, in words. */
  get why(): string {
    const why = this.#owner?.why ?? "not joined";
    const trouble =
      this.#lease?.state === "lapsed"
        ? "waiting: the lease of this node has ended, its dlmd does not run or is cut off"
        : this.#remote?.keyTrouble;
    return trouble == null ? why : `${why}; ${trouble}`;
  }

  get role(): "owner" | "remote" | "waiting" {
    return this.#owner?.role ?? "waiting";
  }

  /** For overlay.json. */
  summary(): Record<string, unknown> {
    const { mountpoint, bit, lower } = this.options;
    return { pid: process.pid, role: this.role, mountpoint, volume: this.#volume?.name ?? bit.uuid, device: lower.path };
  }

  /** N of /sys/fs/fuse/connections/N; null before the mount. */
  get connection(): number | null {
    return this.#session?.connection ?? null;
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
      owner: this.#owner?.owner ?? null,
      view: client?.view ?? null,
      lease: this.#lease?.state ?? null,
      connection: session?.connection ?? null,
      inodes: session?.inodeCount ?? 0,
      handles: session?.handleCount ?? 0,
      ops: session?.counters.requests ?? 0,
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
        servedMessagesReceived: this.#owned?.server.counters.received ?? 0,
        leaseLapses: this.#lease?.lapses ?? 0,
        ...coherence,
      },
      memory: process.memoryUsage(),
    };
  }
}

/** How long a failing node tries to drop its kernel's caches before it ends the connection. */
const ABANDON_LIMIT_MS = 1000;

function findVolume(client: DlmClient, bit: Bit): VolumeConfig {
  const volume = client.info.volumes.find((one) => one.uuid === bit.uuid);
  if (volume !== undefined && bit.cluster === client.info.clusterName) return volume;
  throw new OperatingError(`the volume ${bit.uuid} of cluster ${bit.cluster} is not one of cluster ${client.info.clusterName}`, {
    code: volume === undefined ? "unknown-volume" : "wrong-cluster",
    hint: "Add it to volumes in cluster.yaml, or see what the device carries with coverlay volume show.",
    exitStatus: 32,
  });
}

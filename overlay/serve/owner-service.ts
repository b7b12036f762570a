/**
 * What a mount does as the owner of its volume: mounts the lower, serves it to the other nodes, and gives it up again: released, handed over, withdrawn
 * because its disk failed, or let go of because this node has no quorum. When that happens is decided in ../volume/owner-core.ts.
 */
import { OperatingError } from "../../dlmd/base/error.ts";
import type { DlmClient, GoneClient } from "../../dlmd/client/api.ts";
import { keyringOf } from "../../dlmd/tls/keyring.ts";
import type { MoveListener } from "../lower/directory-moves.ts";
import type { FileId } from "../lower/lower.ts";
import { createLocalLower, type LocalLower } from "../lower/local/local.ts";
import { watchLocalChanges } from "../local-changes/watch.ts";
import { createLowerServer, isOf, type LowerServer } from "../lower/server/server.ts";
import type { AnswerOf, RequestOf } from "../lower/wire/call-types.ts";
import type { OwnJournal } from "../lower/own-journal.ts";
import type { HandOver } from "../lower/server/session.ts";
import { requireOwnerBlock } from "../volume/bit.ts";
import { readOwnerBlock } from "../volume/direct-block.ts";
import { DiskSteps } from "../volume/disk-steps.ts";
import type { Growth } from "../volume/growth.ts";
import { type LowerMount, mountLower } from "../volume/lower-mount.ts";
import { type ServedLower, volumeLockspace, type VolumeOwner } from "../volume/owner.ts";
import type { OwnerRecord } from "../volume/owner-record.ts";
import type { OwnerBlock } from "../volume/owner-block.ts";
import type { Claim } from "../volume/owner-event.ts";
import { growthUnderWay } from "./grow.ts";
import type { MountProcessOptions } from "./mount-process-options.ts";
import { Custody } from "../restart/custody.ts";
import { OpenFiles, type OwnWay } from "./open-files.ts";
import { type OwnedLower, serveMounted } from "./owned-lower.ts";
import { type GuardedDisk, Withdrawals } from "./withdrawal.ts";

/** So long whoever becomes the owner waits for the lease of its node, and looks so often. */
export const LEASE_WAIT_MS = 5000;
export const LEASE_LOOK_MS = 20;

export interface OwnerServiceHost {
  readonly options: MountProcessOptions;
  /** null before it was reached. */
  readonly client: () => DlmClient | null;
  /** The role, to which a disk that failed is reported; null before the volume was joined. */
  readonly role: () => Pick<VolumeOwner, "withdraw" | "selfFence" | "handOver" | "owner" | "reachesDevice"> | null;
  readonly leaseHolds: () => boolean;
  readonly ownWay: () => OwnWay;
  /** A caller has all its files open here. */
  readonly reopened: () => void;
  /** The mount is being taken down. */
  readonly isEnding: () => boolean;
  /** Nothing is answered from now on, as this mount knows. */
  readonly ownerLost: () => void;
  readonly beginHandOver: HandOver;
  /** A planned move: calls wait from now on. */
  readonly movesAway: () => void;
  /** Of the lower that is mounted here. */
  readonly moves: MoveListener;
  readonly fail: (error: Error) => void;
  /** DiskGuardOptions.journal */
  readonly journal: OwnJournal | null;
  /** Taking.foundClean */
  readonly foundClean: (epoch: number) => void;
}

function isClientOf(record: OwnerRecord, client: GoneClient): boolean {
  return isOf({ ...record, ownerEpoch: record.epoch }, client);
}

/** How far an owner has come that gives its volume to another node. */
export interface PlannedMove {
  readonly heir: number;
  readonly step: "syncing" | "ending-calls" | "releasing";
  /** performance.now() */
  readonly sinceMs: number;
}

export class OwnerService {
  readonly openFiles: OpenFiles;
  readonly disk: DiskSteps;
  readonly withdrawals: Withdrawals;
  readonly #host: OwnerServiceHost;
  #owned: OwnedLower | null = null;
  /** The last one that was made: it may tell before anything is owned. */
  #server: LowerServer | null = null;
  #releasing: Promise<void> | null = null;
  #move: PlannedMove | null = null;
  #unwatched: string | null = null;
  /** The disk is given up because of the quorum, not because it failed. */
  #lettingGo = false;
  /** For servers that are made later: hazard C7 holds for them too. One entry for each client that went away. */
  readonly #gone: GoneClient[] = [];
  /** Of the lower that is mounted here. */
  #custody: Custody | null = null;
  /** Hazard F44. What the owner has left whose dlmd has died: this mount keeps it as long as it may be the next owner. */
  #inherited: Custody | null = null;
  /** Hazard F43. This process goes on with a mount whose locks nobody has kept: until it has them no other node is served. */
  servesOnlyItself = false;

  constructor(host: OwnerServiceHost) {
    const { log, lower } = host.options;
    this.#host = host;
    this.withdrawals = new Withdrawals(log);
    this.openFiles = new OpenFiles(log, () => {
      const { remote, ownGuard } = host.ownWay();
      return { owned: this.#owned, remote, ownGuard, isAwaited: this.#custody?.hasUnopened === true };
    });
    this.disk = new DiskSteps(lower.path);
  }

  /** What is mounted here; null: this mount is not the owner. */
  get owned(): OwnedLower | null {
    return this.#owned;
  }

  /** The volume is being handed over; null: it is not. */
  get move(): PlannedMove | null {
    return this.#move;
  }

  /** What of the lower directory is not watched (hazard R21); null: all is, this mount is not the owner, or the lower is a device. */
  get unwatched(): string | null {
    return this.#unwatched;
  }

  /** Why the volume stays here for now, in words: what is kept for mounts that are away would be lost (hazard F35). null: nothing is. */
  get keepsForOthers(): string | null {
    const away = this.#custody?.away ?? null;
    if (away === null) return null;
    const seconds = Math.round((performance.now() - away.sinceMs) / 1000);
    return `the owner keeps what ${away.count} mount(s) have that wait for their dlmd, for ${seconds} s by now`;
  }

  /** In the turn in which nothing is kept: this owner gives the volume up, and syncs before (hazard F35). */
  keepNothingMore(): void {
    this.#custody?.keepNothingMore();
  }

  /** Mounts that are away, of which something is kept. */
  get keeps(): number {
    return this.#custody?.away?.count ?? 0;
  }

  /** Why its disk cannot be given back for another process of this mount just now (hazard F43), in words; null: it can. */
  get whyNotGivenBack(): string | null {
    const guard = this.#owned?.disk?.guard;
    if (guard === undefined || guard.isGiven || this.#move !== null || this.#releasing !== null) return "this owner gives the volume up";
    return growthUnderWay(this.growth) ?? this.keepsForOthers ?? this.withdrawals.trouble ?? this.disk.silence;
  }

  /** While it still serves: what is left to be synced afterwards is little. A disk that fails is given up: what is lost is told once, and not here alone (hazard H8). */
  async sync(): Promise<void> {
    await (this.#owned?.disk?.guard.served ?? this.#owned?.local)?.syncfs();
  }

  /** Of the disk that is mounted here; null: none is, or it is a directory. */
  get growth(): Growth | null {
    return this.#owned?.mount.growth ?? null;
  }

  /** What those that are gone have open here is closed, and their calls have ended (hazard C7). Asked by dlmd and by the group, in any order. */
  async closeGone(clients: readonly GoneClient[]): Promise<void> {
    const isKnown = (client: GoneClient): boolean =>
      this.#gone.some((one) => one.nodeid === client.nodeid && one.incarnation === client.incarnation && one.clientId === client.clientId);
    this.#gone.push(...clients.filter((client) => !isKnown(client)));
    const owner = this.#host.role()?.owner ?? null;
    if (owner === null || clients.some((one) => isClientOf(owner, one))) this.#inherited?.keepOnlyWhole();
    await this.#owned?.server.closeSessions(clients);
  }

  /** Hazard R7: the others go on when this mount has let go of its disk, or has ended. */
  stopLate(why: string): void {
    const guard = this.#owned?.disk?.guard;
    // Its errors are told then, or it has no disk that could be given up: only its end lets the others go on.
    if (guard === undefined || !guard.withdraw(why)) {
      const hint = "Mount the volume again on this node; see the log of its kernel.";
      this.#host.fail(new OperatingError(why, { code: "not-stopped", hint }));
    }
  }

  /** null: a directory has none. */
  async readBlock(): Promise<OwnerBlock | null> {
    const { lower, bit } = this.#host.options;
    if (lower.kind === "directory") return null;
    const offset = requireOwnerBlock(bit, lower.path);
    return this.disk.ask("reading the owner's block", () => readOwnerBlock(lower.path, offset, bit.uuid));
  }

  /** OwnerCallbacks.mountLower */
  async mount(epochAbove: number, claim: Claim): Promise<ServedLower> {
    const { log, lower, bit, readOnly } = this.#host.options;
    const client = this.#host.client();
    if (client === null) throw new Error("the lower is mounted before dlmd was reached");
    const address = client.info.nodes.find((node) => node.nodeid === client.info.nodeid)?.address;
    if (address === undefined) throw new Error(`node ${client.info.nodeid} is not in its own configuration`);
    await this.#untilLease();
    if (this.#host.isEnding())
      throw new OperatingError("the mount is being taken down", { code: "ending", hint: "Mount the volume again." });
    const mount = await mountLower(lower, bit, readOnly, epochAbove, {
      self: client.info,
      claim,
      mayMount: () => this.#host.leaseHolds(),
      disk: this.disk,
      foundClean: this.#host.foundClean,
    }).catch((error: unknown) => {
      this.#failIfNamed(error);
      throw error;
    });
    const owned = await this.#serve(client, mount, address).catch((error: unknown) => {
      this.#endCustody();
      throw error;
    });
    this.#owned = owned;
    const { epoch, type, cleanAfter, dirty } = mount;
    const { port } = owned;
    const proof = claim.proof?.kind ?? "released";
    log.info({ epoch, address, port, type, cleanAfter, proof }, "lower mounted");
    if (dirty !== null) log.warn({ dirty }, "the disk was not clean: what the owner before had not written to it is lost");
    return { epoch, address, port };
  }

  /** A dlmd that has just joined grants one in a moment; a mount that becomes the owner without one ends (#failIfNamed). What is taken is looked at afterwards. */
  async #untilLease(): Promise<void> {
    const sinceMs = performance.now();
    while (!this.#host.leaseHolds() && !this.#host.isEnding() && performance.now() - sinceMs < LEASE_WAIT_MS)
      await new Promise((resolve) => setTimeout(resolve, LEASE_LOOK_MS));
  }

  #serve(client: DlmClient, mount: LowerMount, address: string): Promise<OwnedLower> {
    const { native, log, lower, bit, readOnly, metadataCalls } = this.#host.options;
    return serveMounted(mount, {
      createLocal: async () => {
        const local = createLocalLower({
          native,
          rootFd: mount.rootFd,
          contained: mount.contained,
          shared: lower.kind !== "device",
          metadataCalls,
          moved: (id) => this.#moved(id),
          log,
        });
        await local.openOrphans(readOnly);
        if (lower.kind === "device") return local;
        const lockspace = await client.lockspace(volumeLockspace(bit.uuid));
        const tell = (unwatched: string | null): void => {
          this.#unwatched = unwatched;
        };
        return await watchLocalChanges({ native, local, rootFd: mount.rootFd, directory: lower.path, lockspace, tell, log });
      },
      guard: (local) => {
        if (lower.kind !== "device") return null;
        const { type, rootFd } = mount;
        const [confirm, stopWriting] = [() => mount.confirm(), () => mount.stopWriting()];
        const { journal } = this.#host;
        const watched = { device: lower.path, type, readOnly, rootFd, confirm, stopWriting, journal };
        return this.withdrawals.guard(local, watched, (why) => this.#withdraw(why));
      },
      createServer: (served, disk) => this.#createServer(client, mount, served, disk),
      address,
      notReleased: (error) => this.#host.fail(error),
    });
  }

  /** Before any call is answered that is made after that. */
  #moved(id: FileId): void {
    this.#host.moves.moved(id);
    this.#server?.tellMoved(id);
  }

  #createServer(client: DlmClient, mount: LowerMount, served: LocalLower, disk: GuardedDisk | null): LowerServer {
    const { native, log, bit, cpuLatency } = this.#host.options;
    const { clusterName, nodeid, incarnation, clientId } = client.info;
    const custody = this.#inheritedAfter(mount.cleanAfter) ?? this.#createCustody(client, mount.epoch);
    custody.succeed(mount.epoch);
    this.#custody = custody;
    const server = createLowerServer({
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
      mayServe: () => this.#host.leaseHolds(),
      freeMemory: (memory) => native.freeArrayBuffer(memory),
      isMember: (nodeid, incarnation) => client.view.incarnations[client.view.members.indexOf(nodeid)] === incarnation,
      received: () => cpuLatency.noted(),
      claimed: () => this.#host.reopened(),
      isGone: (session) => this.#gone.some((client) => isOf(session, client)),
      admits: (session) => !this.servesOnlyItself || isOf(session, client.info),
      handOver: this.#host.beginHandOver,
      custody,
    });
    this.#server = server;
    return server;
  }

  #createCustody(client: DlmClient, epoch: number): Custody {
    const { log, bit, changed } = this.#host.options;
    return new Custody({
      lockspace: () => client.lockspace(volumeLockspace(bit.uuid)),
      fileLocks: () => client.fileLocks(volumeLockspace(bit.uuid)),
      epoch,
      log,
      nowMs: () => performance.now(),
      changed: () => {
        this.openFiles.awaitedChanged();
        changed();
      },
    });
  }

  /** Hazard F44. What is kept is worth something only if that owner left its disk clean, and nobody was the owner since. */
  #inheritedAfter(cleanAfter: number): Custody | null {
    const inherited = this.#inherited;
    this.#inherited = null;
    if (inherited === null || inherited.epoch === cleanAfter) return inherited;
    inherited.close();
    return null;
  }

  /** Hazard F44. Asked by the owner, whose dlmd has died. */
  keep(request: RequestOf<"deposit">): Promise<AnswerOf<"deposit">> {
    const client = this.#host.client();
    const { lower, readOnly } = this.#host.options;
    const role = this.#host.role();
    const owner = role?.owner ?? null;
    const refuse = (refused: string): Promise<AnswerOf<"deposit">> => Promise.resolve({ refused });
    if (client === null || this.#host.isEnding()) return refuse("it is ending");
    if (owner?.epoch !== request.epoch || this.#gone.some((one) => isClientOf(owner, one))) return refuse("the owner is gone");
    if (lower.kind !== "device" || readOnly || role?.reachesDevice !== true) return refuse("it is not to be the owner");
    this.#inherited ??= this.#createCustody(client, request.epoch);
    return this.#inherited.deposit(request, null);
  }

  keepNot(ticket: string): void {
    this.#inherited?.collect(ticket);
  }

  /** Another mount is the next owner, or this one ends. */
  keepNothing(): void {
    this.#inherited?.close();
    this.#inherited = null;
  }

  /** Hazard F44. The callers are asked: one of them is the next owner. Resolves with why nobody keeps it, in words; "": somebody does. */
  async leaveToCallers(request: RequestOf<"deposit">, signal: AbortSignal): Promise<string> {
    if (this.#owned === null) return "this owner gives the volume up";
    const { nodeids, refused } = await this.#owned.server.askToKeep(request, signal);
    this.#host.options.log.info({ nodeids, refused }, "those that may be the next owner were asked to keep what this mount has");
    return nodeids.length > 0 ? "" : ["no other mount has said in time that it does", ...refused].join("; ");
  }

  /** After all this mount does not go on. */
  takeBack(ticket: string): void {
    this.#owned?.server.keepNot(ticket);
  }

  /** The owner's block may name this process, which does not have the device and writes nothing more to it: only its end lets others go on. */
  #failIfNamed(error: unknown): void {
    if (error instanceof OperatingError && ["lease-lapsed", "not-given-back"].includes(error.code)) this.#host.fail(error);
  }

  /** For another process of this mount. Resolves when the disk is unmounted, and the owner's block says so; the role hears of it later. */
  async giveBack(): Promise<void> {
    const owned = this.#owned;
    await owned?.server.close();
    // It may have failed, and been given up, at any time before.
    if (owned === null || this.#owned !== owned) throw new Error("it was given up");
    await this.release();
  }

  /** Asked for by the owner role and by the end of the mount, perhaps both at a time. */
  release(): Promise<void> {
    this.#releasing ??= this.#release().finally(() => {
      this.#releasing = null;
    });
    return this.#releasing;
  }

  async #release(): Promise<void> {
    const owned = this.#owned;
    if (owned === null) return;
    this.#endCustody();
    await owned.server.close();
    await owned.local.shutdown();
    owned.disk?.end();
    // Once, whether it goes well or not: the numbers of its descriptors are soon those of others.
    this.#owned = null;
    try {
      await owned.mount.release();
    } finally {
      this.#move = null;
    }
    this.#host.options.log.info({}, "lower released");
  }

  #endCustody(): void {
    const away = this.#custody?.away ?? null;
    if (away !== null) this.#host.options.log.warn({ mounts: away.count }, "mounts that wait for their dlmd end: this owner goes");
    // Nothing is removed for want of those that were waited for: the next owner judges that.
    this.openFiles.ownerEnds();
    this.#custody?.close();
    this.#custody = null;
  }

  /** The disk has failed: no call is answered from here on (lower/server/disk-guard.ts). */
  #withdraw(why: string): void {
    const { disk, server } = this.#owned ?? {};
    this.#host.ownerLost();
    this.#endCustody();
    void server?.abandon();
    disk?.guard.dropServed();
    if (this.#lettingGo) this.#host.role()?.selfFence(why);
    else this.#host.role()?.withdraw(why);
    this.#host.options.changed();
  }

  /** This node has been without a lease for too long. A directory is no other node's, so it stays. */
  letGo(why: string): void {
    // Nothing of it is served any more, or it is given back already: then it only waits for locks.
    if (this.#host.isEnding() || this.#owned === null) return this.#host.role()?.selfFence(why);
    const guard = this.#owned.disk?.guard;
    if (guard === undefined) return;
    if (guard.why !== null) return this.#host.role()?.selfFence(why);
    this.#lettingGo = true;
    guard.yieldTo(why);
    this.#lettingGo = false;
  }

  /** No call ends with an error: those that run are answered, and what they did is on the disk; those that come wait for the next owner. */
  async give(heir: number): Promise<void> {
    const owned = this.#owned;
    if (owned === null || this.#host.isEnding()) return;
    const { log, changed } = this.#host.options;
    log.info({ heir }, "handing the volume over");
    const sinceMs = performance.now();
    this.#move = { heir, step: "syncing", sinceMs };
    try {
      // While it still serves: what is left to be synced afterwards is little.
      await this.sync();
    } catch (error) {
      log.warn({ error: String(error) }, "the lower could not be synced before it is handed over");
    }
    if ((owned.disk?.guard.why ?? null) !== null) {
      // It withdraws.
      this.#move = null;
      return;
    }
    this.#host.movesAway();
    this.#move = { heir, step: "ending-calls", sinceMs };
    await owned.disk?.guard.handOver();
    // Before the others hear that there is no owner: its last word counts no more then.
    await owned.server.close();
    this.#move = { heir, step: "releasing", sinceMs };
    this.#host.role()?.handOver(heir);
    changed();
  }
}

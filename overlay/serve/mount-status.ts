/** What a mount says of itself: to the status server, and so to `coverlay status` and the other commands that ask it. Plain data. */
import type { DlmClient, VolumeConfig } from "../../dlmd/client/api.ts";
import type { CoherenceShell } from "../coherence/shell.ts";
import type { FileLocksSeen, VolumeFileLocks } from "../file-lock/file-locks.ts";
import type { Lease } from "../lease/lease.ts";
import { type OwnerWait, ownerWaitWords, waitOfMount } from "../lower/owner-wait.ts";
import type { BlockGate } from "../mount-group/block-gate.ts";
import type { VolumeMountGroup } from "../mount-group/mount-group.ts";
import type { RestartAnswer } from "../restart/give.ts";
import type { PauseAnswer } from "../restart/pause.ts";
import type { Session } from "../session/mount-session.ts";
import { sizeWords } from "../status/problem.ts";
import { type VolumeOwner, volumeLockspace } from "../volume/owner.ts";
import { beginGrowth } from "./grow.ts";
import type { HandOvers } from "./hand-over.ts";
import type { MountProcessOptions } from "./mount-process-options.ts";
import type { OwnCalls } from "./own-calls.ts";
import type { OwnerChanges } from "./owner-changes.ts";
import type { OwnerService, PlannedMove } from "./owner-service.ts";
import type { StatusAnswers } from "./status-server.ts";

/** The parts of a mount, as far as there are any yet. */
export interface MountParts {
  readonly client: DlmClient | null;
  readonly volume: VolumeConfig | null;
  readonly lease: Lease | null;
  readonly owner: VolumeOwner | null;
  readonly handOvers: HandOvers | null;
  readonly group: VolumeMountGroup | null;
  readonly session: Session | null;
  readonly coherence: CoherenceShell | null;
  readonly fileLocks: VolumeFileLocks | null;
  /** It is being taken down. */
  readonly isEnding: boolean;
  /** It is being taken out. */
  readonly failure: Error | null;
}

export interface MountStatusOptions {
  readonly mount: MountProcessOptions;
  readonly parts: () => MountParts;
  readonly service: OwnerService;
  readonly ownCalls: OwnCalls;
  readonly gate: BlockGate;
  readonly ownerChanges: OwnerChanges;
  readonly restart: () => Promise<RestartAnswer>;
  readonly pause: () => Promise<PauseAnswer>;
  /** CrashGuard.why */
  readonly crash: () => string | null;
}

export interface MountWork {
  readonly kind: "growth" | "handover";
  readonly words: string;
  readonly tookMs: number;
}

const moveWords: Readonly<Record<PlannedMove["step"], string>> = {
  syncing: "what is in memory is written, and calls go on",
  "ending-calls": "calls that are under way end, and new ones wait",
  releasing: "the disk is given back, and calls wait",
};

export class MountStatus implements StatusAnswers {
  readonly #options: MountStatusOptions;

  constructor(options: MountStatusOptions) {
    this.#options = options;
  }

  get #parts(): MountParts {
    return this.#options.parts();
  }

  /** What this mount is, or waits for, in words. */
  get why(): string {
    return this.standing.why;
  }

  /** This mount answers its callers, and waits for nothing that lasts: on a busy node a call is always under way. */
  get isWell(): boolean {
    return this.standing.isWell;
  }

  /**
   * Of one moment: between two looks a call comes to last. `ownerWait`: for what calls to the owner wait, in words; null: nothing that lasts, or there is no owner, which says
   * it all.
   */
  get standing(): { readonly why: string; readonly ownerWait: string | null; readonly isWell: boolean } {
    const { session, owner, lease, group, isEnding, failure } = this.#parts;
    const { service, ownCalls } = this.#options;
    const wait = this.ownerWait;
    const lasting = wait === null ? null : ownerWaitWords(wait);
    const ownerWait = this.role === "waiting" ? null : lasting;
    const trouble =
      lease?.state === "lapsed"
        ? "waiting: the lease of this node has ended, its dlmd does not run or is cut off"
        : (ownCalls.remote?.keyTrouble ?? ownerWait);
    const failed = failure === null ? null : `it is being taken out: ${failure.message}`;
    const why = [failed, owner?.why ?? "not joined", trouble, group?.wait, service.disk.silence]
      .filter((words) => words != null)
      .join("; ");
    const waits = group?.wait ?? lasting ?? service.disk.silence;
    return { why, ownerWait, isWell: session !== null && !isEnding && failure === null && lease?.state === "holds" && waits === null };
  }

  /** For what calls to the owner wait; null: none is under way. Whether it lasts: ownerWaitWords. */
  get ownerWait(): OwnerWait | null {
    const { service, ownCalls } = this.#options;
    return waitOfMount(service.owned?.disk?.guard ?? null, ownCalls.remote);
  }

  get role(): "owner" | "remote" | "waiting" {
    return this.#parts.owner?.role ?? "waiting";
  }

  /** OwnerService.keeps */
  get keeps(): number {
    return this.#options.service.keeps;
  }

  /** For overlay-N.json. */
  summary(): Record<string, unknown> {
    const { mountpoint, bit, lower, localFlocks } = this.#options.mount;
    return {
      pid: process.pid,
      role: this.role,
      mountpoint,
      volume: this.#parts.volume?.name ?? bit.uuid,
      device: lower.path,
      fileLocks: localFlocks ? "local" : "cluster",
    };
  }

  /** For {"query":"restart"}. */
  restart(): Promise<RestartAnswer> {
    return this.#options.restart();
  }

  /** For {"query":"pause"}. */
  pause(): Promise<PauseAnswer> {
    return this.#options.pause();
  }

  /** For {"query":"go-on"}. */
  goOn(): object {
    return { goesOn: false };
  }

  /** For {"query":"requests"}: what callers wait for. */
  requests(): Record<string, unknown> {
    return { ...this.#dlm(), ...(this.#parts.session?.underWay.list() ?? { requests: [], count: 0, longest: null }) };
  }

  /** For {"query":"file-locks"}: file locks of this node's programs, and whether other nodes use the file. */
  fileLocks(): FileLocksSeen {
    return this.#parts.fileLocks?.describe() ?? { files: [], truncated: false };
  }

  /** For {"query":"gather"}: dlmd shows all file locks of those files after it, if the lockspace is that of this mount. */
  async gather(lockspace: string, files: readonly string[]): Promise<Record<string, unknown>> {
    const { lease, fileLocks, isEnding } = this.#parts;
    const isMine = lockspace === volumeLockspace(this.#options.mount.bit.uuid) && lease?.state === "holds" && !isEnding;
    if (isMine) await fileLocks?.gather(files);
    return { gathered: isMine && fileLocks !== null };
  }

  /** For {"query":"inode","ino":N}: its keys, one for each generation that this mount knows. */
  inode(ino: number): Record<string, unknown> {
    const inodes = this.#parts.session?.withIno(ino) ?? [];
    return { ...this.#dlm(), keys: inodes.map(({ cover }) => cover.key) };
  }

  /** For {"query":"hand-over","heir":N}: 0 is the lowest other node. */
  async handOver(heir: number): Promise<object> {
    return await this.handOvers.request(heir);
  }

  /** For {"query":"grow"}: begins to grow the volume's file system. */
  async grow(): Promise<object> {
    const { mount, service } = this.#options;
    return await beginGrowth({
      role: () => this.role,
      ownerNodeid: () => this.#parts.owner?.owner?.nodeid ?? null,
      why: () => this.why,
      growth: () => (this.#parts.isEnding ? null : service.growth),
      isDevice: mount.lower.kind === "device",
      readOnly: mount.readOnly,
      leaseHolds: () => this.#parts.lease?.holds() === true,
      trouble: () => service.withdrawals.trouble ?? service.disk.silence,
    });
  }

  /** For {"query":"growth"}. */
  growth(): Record<string, unknown> {
    return { growth: this.#options.service.growth?.report ?? null };
  }

  /** Long work of an owner that goes on by itself, and how far it is; null: none. */
  get work(): MountWork | null {
    const { move, growth } = this.#options.service;
    const report = growth?.report;
    if (move !== null) {
      const heir = this.#parts.client?.info.nodes.find(({ nodeid }) => nodeid === move.heir)?.name ?? `node ${move.heir}`;
      return {
        kind: "handover",
        words: `handing the volume over to ${heir}: ${moveWords[move.step]}`,
        tookMs: Math.round(performance.now() - move.sinceMs),
      };
    }
    if (report?.kind !== "growing") return null;
    const words = `growing the file system: ${sizeWords(report.bytes)} of ${sizeWords(report.toBytes)}`;
    return { kind: "growth", words, tookMs: report.tookMs };
  }

  get handOvers(): HandOvers {
    const { handOvers } = this.#parts;
    if (handOvers === null) throw new Error("asked to hand the volume over before it was joined");
    return handOvers;
  }

  /** Who this mount is to the lock manager. */
  #dlm(): Record<string, unknown> {
    const client = this.#parts.client?.info;
    const { bit, mountpoint } = this.#options.mount;
    const lockspace = volumeLockspace(bit.uuid);
    return { nodeid: client?.nodeid ?? 0, clientId: client?.clientId ?? 0, lockspace, mountpoint };
  }

  /** For {"query":"status"}: plain data. */
  status(): Record<string, unknown> {
    const { session, client, owner, group, lease, coherence } = this.#parts;
    const { mount, service, gate, ownerChanges } = this.#options;
    return {
      ...this.summary(),
      uuid: mount.bit.uuid,
      ...this.standing,
      disk: service.withdrawals.trouble ?? service.disk.silence,
      owner: owner?.owner ?? null,
      ownerChanges: ownerChanges.describe(performance.now()),
      readOnly: mount.readOnly,
      unwatched: service.unwatched,
      diskFault: service.withdrawals.fault ?? (service.disk.silence === null ? null : "silent"),
      ...this.growth(),
      work: this.work,
      crash: this.#options.crash(),
      orphans: service.openFiles.describe(group?.waitsToReopen ?? []),
      group: group?.describe() ?? null,
      held: gate.held,
      view: client?.view ?? null,
      lease: lease?.state ?? null,
      connection: session?.connection ?? null,
      inodes: session?.inodeCount ?? 0,
      handles: session?.handleCount ?? 0,
      ops: session?.counters.requests ?? 0,
      underWay: session?.underWay.byOperation() ?? {},
      locks: coherence?.counters.locksHeld ?? 0,
      counters: this.#counters(),
      cpuLatency: mount.cpuLatency.describe(),
      memory: process.memoryUsage(),
    };
  }

  #counters(): Record<string, number> {
    const { session, client, lease, coherence, fileLocks } = this.#parts;
    const { service, ownCalls } = this.#options;
    const { remote } = ownCalls;
    return {
      fuseRequests: session?.counters.requests ?? 0,
      fuseRequestsAtOnce: session?.counters.atOnce ?? 0,
      interrupted: session?.counters.interrupted ?? 0,
      bugs: session?.counters.bugs ?? 0,
      lockMessagesSent: client?.counters.sent ?? 0,
      lockMessagesReceived: client?.counters.received ?? 0,
      lowerMessagesSent: remote?.counters.messagesSent ?? 0,
      lowerMessagesReceived: remote?.counters.messagesReceived ?? 0,
      lowerRoundTrips: remote?.counters.roundTrips ?? 0,
      lowerTripsAwaited: remote?.counters.awaited ?? 0,
      servedMessagesReceived: service.owned?.server.counters.received ?? 0,
      leaseLapses: lease?.lapses ?? 0,
      ...coherence?.counters,
      ...fileLocks?.counters,
    };
  }
}

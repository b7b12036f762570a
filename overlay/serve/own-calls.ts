/**
 * Where the calls of this mount's own programs go: to the lower that is mounted here, if the mount began as the owner, else to the owner's server. A
 * mount that becomes the owner later keeps its remote lower and reaches its own server through it: what it has open stays as it is.
 */
import type { DlmClient } from "../../dlmd/client/api.ts";
import type { MaybePromise } from "../../dlmd/base/maybe-promise.ts";
import { keyringOf } from "../../dlmd/tls/keyring.ts";
import type { MoveListener } from "../lower/directory-moves.ts";
import type { FileId, Lower } from "../lower/lower.ts";
import type { Holds } from "../lower/remote/known.ts";
import type { CallJournal } from "../lower/remote/call-journal.ts";
import type { OwnerAddress } from "../lower/remote/connection.ts";
import type { OpenAtOwner } from "../lower/remote/core.ts";
import type { FileJournal } from "../lower/own-journal.ts";
import { createRemoteLower, type RemoteLower } from "../lower/remote/remote.ts";
import type { Keeper } from "../lower/remote/session.ts";
import type { DiskGuard } from "../lower/server/disk-guard.ts";
import type { OwnerRecord } from "../volume/owner-record.ts";
import type { MountProcessOptions } from "./mount-process-options.ts";
import type { OwnedLower } from "./owned-lower.ts";

export interface OwnCallsOptions {
  readonly mount: Pick<MountProcessOptions, "bit" | "log">;
  readonly holds: Holds;
  /** The owner has refused this mount: nothing that is cached here is worth anything then (hazard H1). */
  readonly onRefused: (error: Error) => void;
  /** The lower is shut down, and the owner was asked for a change that it may still make. */
  readonly unanswered: () => void;
  readonly onOwnerDied: () => Promise<void>;
  /** Of what an owner leaves whose dlmd has died. */
  readonly keeper: Keeper;
  /** Told by the lower elsewhere. */
  readonly moves: MoveListener;
  /** For a process that goes on after a crash. */
  readonly journal: (FileJournal & CallJournal) | null;
}

export class OwnCalls {
  readonly #options: OwnCallsOptions;
  #remote: RemoteLower | null = null;
  /** That of the lower which this mount began with, as its owner. */
  #ownGuard: DiskGuard | null = null;
  #ownEpoch = 0;

  constructor(options: OwnCallsOptions) {
    this.#options = options;
  }

  get remote(): RemoteLower | null {
    return this.#remote;
  }

  get ownGuard(): DiskGuard | null {
    return this.#ownGuard;
  }

  /**
   * The lower that this mount begins with. `owner`: who has the volume. `before`: what this mount has open already, which only an owner's server opens again: also that of
   * this node.
   */
  async choose(client: DlmClient, owned: OwnedLower | null, owner: OwnerRecord, before: OpenAtOwner | null = null): Promise<Lower> {
    if (owned !== null && before === null) {
      this.#ownGuard = owned.disk?.guard ?? null;
      this.#ownEpoch = owned.mount.epoch;
      return this.#ownGuard?.own ?? owned.local;
    }
    const remote = this.#createRemote(client);
    if (before !== null) remote.continueWith(before);
    await remote.connect(addressOf(owner), owner.epoch);
    return remote;
  }

  /** Calls go to that owner from now on. */
  ownerFound(client: DlmClient, record: OwnerRecord): void {
    this.#goOnElsewhere(client);
    this.#remote?.ownerFound(addressOf(record), record.epoch);
  }

  /** What this mount has open at the owner, or as the owner, for the next process; null: something is on its way to the owner. */
  openAtOwner(): OpenAtOwner | null {
    if (this.#remote !== null) return this.#remote.openAtOwner();
    if (this.#ownGuard === null || this.#ownGuard.isGiven) return null;
    const { handles, unsynced } = this.#ownGuard;
    return { files: handles.map((file) => ({ ...file, lossesTold: 0 })), unsynced: unsynced.state() };
  }

  /** The lock of that inode is about to leave: resolves when the owner knows what is open here. At once on the owner. */
  tellOpens(id: FileId): MaybePromise<void> {
    return this.#remote?.tellOpens(id);
  }

  /** A lock that is wanted elsewhere waits for what was written behind. */
  hurry(): void {
    this.#remote?.hurry();
  }

  /** What waits for the lower, and what comes, ends with EIO. */
  shutdown(): void {
    if (this.#remote?.hasUnansweredChanges === true) this.#options.unanswered();
    this.#remote?.shutdown();
    this.#ownGuard?.end();
  }

  /** The owner that this mount was has withdrawn or handed the volume over, and there is another one. */
  #goOnElsewhere(client: DlmClient): void {
    if (this.#ownGuard?.isGiven !== true || this.#remote !== null) return;
    const remote = this.#createRemote(client);
    const { handles, lastHandle, unsynced } = this.#ownGuard;
    remote.adopt({ handles, lastHandle, unsynced, epoch: this.#ownEpoch });
    this.#ownGuard.goOn(remote);
  }

  #createRemote(client: DlmClient): RemoteLower {
    const { mount, holds, onRefused, onOwnerDied, keeper, moves, journal } = this.#options;
    const { clusterName, nodeid, incarnation, clientId } = client.info;
    const remote = createRemoteLower({
      keyring: () => keyringOf(client.info.overlayKeys),
      clusterName,
      volumeUuid: mount.bit.uuid,
      nodeid,
      incarnation,
      clientId,
      log: mount.log,
      onRefused,
      onOwnerDied,
      keeper,
      moves,
      holds,
      ...(journal === null ? {} : { journal, files: journal }),
    });
    this.#remote = remote;
    return remote;
  }
}

export function addressOf(record: OwnerRecord): OwnerAddress {
  const { address: host, port, nodeid, incarnation, clientId } = record;
  return { host, port, nodeid, incarnation, clientId };
}
